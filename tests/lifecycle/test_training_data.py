"""Rows as services learn from them: the same for the same rows, and never repeated."""

import csv
import io
import json
import random

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from service.lifecycle.training_data import DELIMITERS, digest, samples, table, unquoted
from service.model.examples import Example, ExamplesError

LABELS = st.text(st.characters(categories=("L", "N", "P", "S")), min_size=1, max_size=8)
TEXTS = st.text(min_size=1, max_size=60).filter(str.strip)


@st.composite
def labelled(draw: st.DrawFn) -> list[Example]:
    names = draw(st.lists(LABELS, min_size=2, max_size=5, unique=True))
    rows = draw(st.lists(st.tuples(TEXTS, st.lists(st.sampled_from(names), max_size=3, unique=True)), max_size=10))
    given = [*rows, ("first", names[:1]), ("second", names[1:2])]
    return [Example(str(n), text, tuple(sorted(labels))) for n, (text, labels) in enumerate(given)]


@given(labelled(), st.randoms(use_true_random=False))
def test_a_table_holds_each_labelled_row_once_in_whatever_order_they_come(
    rows: list[Example], chance: random.Random
) -> None:
    made = table(rows, "multi_label")
    assert made == table(chance.sample(rows, len(rows)), "multi_label")
    read = list(csv.reader(io.StringIO(made.content.decode(), newline="")))
    assert len(read) == len(rows) - made.left_out
    assert made.content.decode().count("\n") == len(read)  # a line is a row, whoever counts
    assert sorted(tuple(labels.split(made.delimiter)) for labels, _ in read) == sorted(
        row.labels for row in rows if row.labels
    )


def test_labels_that_hold_every_mark_are_refused() -> None:
    rows = [Example("1", "text", (DELIMITERS,)), Example("2", "text", ("other",))]
    with pytest.raises(ExamplesError, match="leave out one"):
        table(rows, "multi_label")


@given(st.lists(TEXTS, min_size=60, max_size=70, unique=True), st.randoms(use_true_random=False))
def test_samples_are_the_same_in_whatever_order_rows_come(texts: list[str], chance: random.Random) -> None:
    rows = [Example(str(n), text, ("it",) if n < 55 else ("else",)) for n, text in enumerate(texts)]
    made = samples(rows, "it")
    assert made == samples(chance.sample(rows, len(rows)), "it")
    assert sum(json.loads(line)["isPositive"] for line in made.splitlines()) == 55


def test_what_something_is_made_from_is_told_apart_part_by_part() -> None:
    assert digest("ab", "c") != digest("a", "bc")
    assert digest("ab", b"c") == digest(b"ab", "c")


@given(st.text(st.characters(categories=("L", "N", "Zs", "P")), min_size=24, max_size=80), st.data())
def test_a_text_that_is_quoted_whole_or_in_part_is_not_repeated(text: str, data: st.DataObject) -> None:
    letters = [at for at, character in enumerate(text) if character.isalnum()]
    assume(len(letters) >= 20)
    begin = data.draw(st.integers(0, len(letters) - 20))
    quoted = text[letters[begin] : letters[begin + 19] + 1]
    for said in (quoted, f"Row 3 ('{quoted}…') is odd.", f'"{quoted}" has no label'):
        assert unquoted(said, ["another text", text]) == "what it says quotes a text, and is not repeated here"


def test_a_short_text_is_noticed_too_and_words_about_texts_are_repeated() -> None:
    assert "not repeated" in unquoted("Row 3, Alcatraz-7, is empty", ["Alcatraz-7"])
    said = "NO_READ_ACCESS_TO_INPUT: The provided data access role does not have access."
    assert unquoted(said, ["my card was charged twice", "a", "the role"]) == said
    assert unquoted(None, ["text"]) == ""
    assert len(unquoted("x y " * 500, ["text"])) == 300
