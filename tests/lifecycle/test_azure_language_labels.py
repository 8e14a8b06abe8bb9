"""Rows become documents and labels files, or are refused with what to do."""

from collections.abc import Sequence

import orjson
import pytest

from service.lifecycle.azure_language_labels import assets, documents, labels_file
from service.model.examples import Example, ExamplesError
from service.server.azure_language_labels import from_2021, from_assets

ROWS = [Example(f"r{n}", f"text {n}", (("a", "b")[n % 2],)) for n in range(12)]
SEVERAL = [row._replace(labels=("a", "b")) if n < 3 else row for n, row in enumerate(ROWS)]


def test_a_row_is_a_blob_of_its_own_whatever_the_order() -> None:
    found = documents(ROWS, "single_label", "m-1")
    assert found == documents(ROWS[::-1], "single_label", "m-1")
    assert {one.blob for one in found.documents} == {f"m-1-{n}.txt" for n in range(12)}
    assert {(one.text, one.classes) for one in found.documents} == {(row.text, row.labels) for row in ROWS}
    assert found.classes == ["a", "b"]


@pytest.mark.parametrize("kind", ["CustomSingleLabelClassification", "customMultiLabelClassification"])
def test_the_labels_file_of_today_names_each_document_with_its_classes(kind: str) -> None:
    found = documents(ROWS, "single_label" if "Single" in kind else "multi_label", "m")
    made = assets(found, kind, "en")
    assert made["projectKind"] == kind
    assert made["classes"] == [{"category": "a"}, {"category": "b"}]
    assert ("class" in made["documents"][0]) == ("Single" in kind)
    assert [(one.location, one.classes) for one in from_assets(made)] == [
        (one.blob, one.classes) for one in found.documents
    ]


def test_the_labels_file_of_2021_names_each_document_with_its_classifiers() -> None:
    found = documents(SEVERAL, "multi_label", "m")
    read = from_2021(orjson.dumps(labels_file(found, "en")))
    assert [(one.location, one.language, one.classes) for one in read] == [
        (one.blob, "en", one.classes) for one in found.documents
    ]


def test_rows_without_a_label_are_left_out_and_told() -> None:
    found = documents([*ROWS, Example("n", "nothing", ())], "single_label", "m")
    assert len(found.documents) == 12
    assert found.notes[0] == "1 rows have no label and are left out: the service learns from none"
    assert found.notes[1] == "fewer than 10 documents are hardly learnt or tested: a, b"


def test_halves_of_surrogate_pairs_are_replaced() -> None:
    (odd,) = [
        one
        for one in documents([*ROWS, Example("n", "odd \ud83d", ("a",))], "single_label", "m").documents
        if "odd" in one.text
    ]
    assert odd.text == "odd \ufffd"


REFUSED: dict[str, tuple[Sequence[Example], str, str]] = {
    "nothing": ([], "single_label", "0 rows have a label; it takes 10 to 100,000"),
    "few": (ROWS[:9], "single_label", "9 rows have a label"),
    "several": (SEVERAL, "single_label", "has several labels, and the account's task is single_label"),
    "one class": ([row._replace(labels=("a",)) for row in ROWS], "single_label", "all rows have the label 'a'"),
    "many classes": (
        [row._replace(labels=tuple(map(str, range(201)))) for row in ROWS],
        "multi_label",
        "201 classes, and 200",
    ),
    "long": ([*ROWS, Example("long", "x" * 128_001, ("a",))], "single_label", "row 'long' has 128,001 characters"),
}


@pytest.mark.parametrize("refused", REFUSED)
def test_rows_that_nothing_can_be_learnt_from_say_why(refused: str) -> None:
    rows, task, told = REFUSED[refused]
    with pytest.raises(ExamplesError, match=told):
        documents(rows, task, "m")


def test_a_class_takes_as_many_rows_as_the_service_asks() -> None:
    with pytest.raises(ExamplesError, match="'a' has 6 rows; each class takes at least 10"):
        documents(ROWS, "single_label", "m", fewest_of_a_class=10)
