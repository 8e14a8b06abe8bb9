"""Labelled rows: what a model learns from and is measured on.

A file holds one JSON object a line, ``{"id", "text", "labels": […]}`` or ``{"id", "text", "label": "…"}``, with an
optional ``"split"``; other fields are passed over. A row whose ``labels`` are empty belongs to no class.
"""

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:  # numpy is a tenth of a second, which whoever mistypes is not to wait for
    from service.model.classifier import Task

_EVERY = 5
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


class ExamplesError(Exception):
    """Labelled rows cannot be used; the message names the file and line, or the row, and what to do."""


class Example(NamedTuple):
    """One labelled row; `labels` are sorted, each once; `split` is None where the row names none."""

    id: str
    text: str
    labels: tuple[str, ...]
    split: str | None = None


def read(path: Path) -> list[Example]:
    """The rows of a file in their order; raises `ExamplesError`."""
    try:
        with path.open("rb") as lines:
            return parse(lines, str(path))
    except OSError as error:
        raise ExamplesError(f"{path}: cannot be read ({error.strerror}); name a file of labelled rows") from error


def parse(lines: Iterable[bytes], source: str) -> list[Example]:
    """The rows of a file's lines; `source` is what error messages call the file; raises `ExamplesError`."""
    rows = []
    for number, line in enumerate(lines, start=1):
        content = line.removeprefix(_BYTE_ORDER_MARK).strip() if number == 1 else line.strip()
        if not content:
            continue
        try:
            rows.append(_row(content, number))
        except ValueError as error:
            raise ExamplesError(f"{source}, line {number}: {error}") from error
    if not rows:
        raise ExamplesError(f'{source}: holds no rows; write one JSON object a line, {{"id", "text", "labels": […]}}')
    return rows


def select(examples: Sequence[Example], split: str | None) -> list[Example]:
    """The rows of one split, all rows for None; raises `ExamplesError` where the split has none."""
    if split is None:
        return list(examples)
    selected = [example for example in examples if example.split == split]
    if not selected:
        splits = sorted({example.split for example in examples if example.split is not None})
        there_are = f"there are {', '.join(splits)}" if splits else "no row names a split"
        raise ExamplesError(f"no row has the split {split!r} ({there_are}); choose another, or none to take all rows")
    return selected


def infer_task(examples: Sequence[Example]) -> "Task":
    """Single label where every row has exactly one label, otherwise multi-label."""
    return "single_label" if all(len(example.labels) == 1 for example in examples) else "multi_label"


def in_fixed_order(examples: Iterable[Example]) -> list[Example]:
    """The rows in an order that depends on what they say alone, not on how they were given or identified."""
    return sorted(examples, key=lambda example: (_text_digest(example.text), example.labels))


def hold_out(examples: Sequence[Example]) -> tuple[list[Example], list[Example]]:
    """The rows to learn from and, of each kind of row, about a fifth to measure on.

    The same rows are held out whatever their order. The last row of a label always stays to be learnt from, and rows of
    one text are never divided.
    """
    texts: dict[tuple[tuple[str, ...], str], list[Example]] = {}
    for example in examples:
        texts.setdefault((example.labels, example.text), []).append(example)
    contested = {text for text, kinds in Counter(text for _, text in texts).items() if kinds > 1}
    left = Counter(label for example in examples for label in example.labels)
    learn, measure = [], []
    due = 0
    for (labels, text), rows in sorted(texts.items(), key=lambda item: (item[0][0], _text_digest(item[0][1]))):
        due += len(rows)
        if due >= _EVERY and text not in contested and all(left[label] > len(rows) for label in labels):
            measure += rows
            left.subtract(labels * len(rows))
            due -= _EVERY * len(rows)
        else:
            learn += rows
    return learn, measure


def _text_digest(text: str) -> bytes:
    return sha256(text.encode("utf-8", "surrogatepass")).digest()


def _row(content: bytes, number: int) -> Example:
    """One line's row; raises `ValueError` saying what is wrong with it and what to do."""
    row = _json_object(content)
    text = row.get("text")
    if not isinstance(text, str) or not text.strip():
        raise ValueError('"text" must be a string that is not blank; add the text or remove the row')
    split = row.get("split")
    if split is not None and not isinstance(split, str):
        raise ValueError('"split" must be a string such as "train"; correct it or leave it out')
    identifier = row.get("id", number)
    if type(identifier) not in {str, int}:  # a bool is an int too
        raise ValueError('"id" must be a string or a whole number; correct it or leave it out')
    return Example(str(identifier), text, _labels(row), split)


def _json_object(content: bytes) -> dict[str, object]:
    try:
        row = json.loads(content.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise ValueError("is not UTF-8; save the file as UTF-8") from error
    except json.JSONDecodeError as error:
        raise ValueError(f"is not JSON ({error.msg} at column {error.colno}); write one JSON object a line") from error
    except (RecursionError, ValueError) as error:
        raise ValueError("is JSON beyond what is reasonable; write plain strings and short lists") from error
    match row:
        case dict():
            return row
        case _:
            raise ValueError('is not a JSON object; write {"id", "text", "labels": […]}')


def _labels(row: dict[str, object]) -> tuple[str, ...]:
    if ("label" in row) == ("labels" in row):
        raise ValueError('give either "label" or "labels"; a row of no class has "labels": []')
    labels = row["labels"] if "labels" in row else [row["label"]]
    if not isinstance(labels, list) or not all(isinstance(label, str) and label.strip() for label in labels):
        raise ValueError('labels must be strings that are not blank; a row of no class has "labels": []')
    if any("\ud800" <= character <= "\udfff" for label in labels for character in label):
        raise ValueError("a label holds half of a surrogate pair; write the label in valid Unicode")
    return tuple(sorted(set(labels)))
