"""Labelled rows in the forms that services learn from, and what may be repeated of what they say about them.

What is made depends on what the rows say alone, not on their order or ids, so the same rows are always the same file.
"""

import csv
import io
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from hashlib import sha256
from typing import NamedTuple

import orjson

from service.model.examples import Example, ExamplesError, in_fixed_order

FEWEST_POSITIVES, MOST_POSITIVES, MOST_SAMPLES = 50, 5_000, 10_000
MOST_CLASSES = {"single_label": 1_000, "multi_label": 100}
DELIMITERS = "|~!@#$%^*-_+=\\:;>?/"
_LONGEST_SAID = 300
_QUOTE, _STEP = 16, 4  # letters in a row that make a quote, and how far apart they are looked for
_TELLING = 8  # letters of a text so short that it is looked for as a whole


class Table(NamedTuple):
    """A CSV file (labels, text; no header) and what its labels are divided by; `left_out` rows had none."""

    content: bytes
    delimiter: str
    left_out: int


def samples(rows: Sequence[Example], category: str) -> bytes:
    """Samples of a custom category of Content Safety: rows with the label are its positives, all others negatives.

    A text that comes several times is one sample. Raises ExamplesError where the documented numbers are not kept to,
    or a text is labelled both ways.
    """
    verdicts: dict[str, bool] = {}
    for row in in_fixed_order(rows):
        text, positive = whole(row.text), category in row.labels
        if verdicts.setdefault(text, positive) != positive:
            raise ExamplesError(f"row {row.id!r}: the same text has the label {category!r} elsewhere and not here")
    positives = sum(verdicts.values())
    if not positives:
        labels = ", ".join(sorted({label for row in rows for label in row.labels})[:10]) or "none at all"
        raise ExamplesError(f"no row has the label {category!r}, as the category is called; the labels are: {labels}")
    if not FEWEST_POSITIVES <= positives <= MOST_POSITIVES:
        raise ExamplesError(
            f"{positives:,} different texts have the label {category!r}, and {FEWEST_POSITIVES} to {MOST_POSITIVES:,}"
            " are learnt from"
        )
    if len(verdicts) > MOST_SAMPLES:
        raise ExamplesError(f"{len(verdicts):,} different texts, and {MOST_SAMPLES:,} are the most")
    lines = (orjson.dumps({"text": text, "isPositive": positive}) for text, positive in verdicts.items())
    return b"".join(line + b"\n" for line in lines)


def table(rows: Sequence[Example], task: str) -> Table:
    """A table for Amazon Comprehend; texts are one line each, and rows without a label are left out, as it learns none.

    Raises ExamplesError where the rows do not fit the task, or there are too few classes or too many.
    """
    labelled = [row for row in in_fixed_order(rows) if row.labels]
    if task == "single_label" and (several := next((row for row in labelled if len(row.labels) > 1), None)):
        raise ExamplesError(f"row {several.id!r} has several labels, and the account's task is single_label")
    classes = Counter(label for row in labelled for label in row.labels)
    if len(classes) < 2:
        there = f"one class, {next(iter(classes))!r}" if classes else "no class"
        raise ExamplesError(f"the rows are of {there}; a classifier tells at least two apart")
    if len(classes) > MOST_CLASSES[task]:
        raise ExamplesError(f"the rows are of {len(classes):,} classes, and {MOST_CLASSES[task]:,} are the most")
    if broken := next((label for label in classes if len(label.splitlines()) > 1), None):
        raise ExamplesError(f"the label {broken!r} holds a line break; write it on one line")
    delimiter = next((mark for mark in DELIMITERS if not any(mark in label for label in classes)), None)
    if task == "multi_label" and delimiter is None:
        raise ExamplesError(f"labels hold all of {DELIMITERS} together; leave out one, which will divide them")
    written = io.StringIO()
    writer = csv.writer(written, quoting=csv.QUOTE_ALL, lineterminator="\n")
    for row in labelled:
        label = (delimiter or "").join(row.labels)
        writer.writerow([whole(label), " ".join(whole(row.text).splitlines())])
    return Table(written.getvalue().encode(), delimiter or "", len(rows) - len(labelled))


def digest(*what: bytes | str) -> str:
    """A name for what a model is made from: the same for the same, in any process."""
    parts = [part.encode() if isinstance(part, str) else part for part in what]
    return sha256(b"".join(len(part).to_bytes(8) + part for part in parts)).hexdigest()


def named_after(rows: Sequence[Example], *more: str) -> str:
    """A name for a model of these rows, whatever their order and ids; `more` is what else it is made by."""
    return f"m-{digest(*more, *_said(rows))[:12]}"


def unquoted(said: object, texts: Iterable[str]) -> str:
    """What a service says of training data, in short; only that it quotes a text, where it does.

    Letters and digits alone are compared: a quote may be cut short, or have other marks around it.
    """
    words = " ".join(said.split())[:_LONGEST_SAID] if isinstance(said, str) else ""
    bare = _bare(words)
    runs = [bare[at : at + _QUOTE] for at in range(0, len(bare) - _QUOTE + 1, _STEP)]
    for text in map(_bare, texts):
        if any(run in text for run in runs) or (len(text) >= _TELLING and text in bare):
            return "what it says quotes a text, and is not repeated here"
    return words


def _bare(text: str) -> str:
    return "".join(filter(str.isalnum, text.casefold()))


def whole(text: str) -> str:
    """The text with halves of surrogate pairs replaced by U+FFFD, as no UTF-8 can hold them."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _said(rows: Sequence[Example]) -> Iterator[str]:
    for row in in_fixed_order(rows):
        yield whole(row.text)
        yield "\n".join(row.labels)
