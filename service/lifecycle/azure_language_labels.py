"""Labelled rows as Azure Language learns from them: a text file for each, and a labels file of either era.

The files are called after what is learnt and a number, so whatever tells of them later (the service's own evaluation
does) tells which rows a model was made from.
"""

import re
from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple

from service.errors import Misconfigured
from service.lifecycle.training_data import whole
from service.model.examples import Example, ExamplesError, in_fixed_order

FEWEST_DOCUMENTS, MOST_DOCUMENTS = 10, 100_000
MOST_CLASSES = 200
MOST_CHARACTERS = 128_000
_FEW = 10
_NAME = re.compile(r"[A-Za-z0-9_.-]{1,50}")


class Document(NamedTuple):
    """A document: the blob that it is put in, its text and its classes."""

    blob: str
    text: str
    classes: tuple[str, ...]


class Documents(NamedTuple):
    """What a model is made from; `notes` are for people."""

    documents: Sequence[Document]
    classes: Sequence[str]
    notes: tuple[str, ...]


def called(name: str | None, otherwise: str) -> str:
    """What a model is to be called: as it is asked for, else as its rows say. Raises Misconfigured."""
    if name is not None and not _NAME.fullmatch(name):
        raise Misconfigured(f"--name {name!r}: a model is named by up to 50 letters, digits and _ . -")
    return otherwise if name is None else name


def documents(rows: Sequence[Example], task: str, key: str, *, fewest_of_a_class: int = 1) -> Documents:
    """The documents of labelled rows, whose blobs begin with `key`; rows without a label are left out.

    Raises ExamplesError where the rows do not fit the task, or the documented numbers are not kept to.
    """
    labelled = [row for row in in_fixed_order(rows) if row.labels]
    if task == "single_label" and (several := next((row for row in labelled if len(row.labels) > 1), None)):
        raise ExamplesError(f"row {several.id!r} has several labels, and the account's task is single_label")
    if not FEWEST_DOCUMENTS <= len(labelled) <= MOST_DOCUMENTS:
        raise ExamplesError(f"{len(labelled):,} rows have a label; it takes {FEWEST_DOCUMENTS} to {MOST_DOCUMENTS:,}")
    if long := next((row for row in labelled if len(row.text) > MOST_CHARACTERS), None):
        raise ExamplesError(f"row {long.id!r} has {len(long.text):,} characters, and {MOST_CHARACTERS:,} are the most")
    counts = Counter(label for row in labelled for label in row.labels)
    if len(counts) < 2 and task == "single_label":
        raise ExamplesError(f"all rows have the label {min(counts)!r}; a classifier tells at least two classes apart")
    if len(counts) > MOST_CLASSES:
        raise ExamplesError(f"the rows are of {len(counts):,} classes, and {MOST_CLASSES} are the most")
    rarest = min(counts, key=lambda label: (counts[label], label))
    if counts[rarest] < fewest_of_a_class:
        raise ExamplesError(f"{rarest!r} has {counts[rarest]} rows; each class takes at least {fewest_of_a_class}")
    made = [Document(f"{key}-{number}.txt", whole(row.text), row.labels) for number, row in enumerate(labelled)]
    return Documents(made, sorted(counts), _notes(counts, len(rows) - len(labelled)))


def assets(found: Documents, kind: str, language: str) -> dict[str, Any]:
    """The labels file of 2022 and later, which is the assets of an exported project."""
    single = "single" in kind.lower()
    return {
        "projectKind": kind,
        "classes": [{"category": name} for name in found.classes],
        "documents": [
            {"location": one.blob, "language": language, "dataset": "Train"}
            | ({"class": _category(one.classes[0])} if single else {"classes": list(map(_category, one.classes))})
            for one in found.documents
        ],
    }


def labels_file(found: Documents, language: str) -> dict[str, Any]:
    """The labels file of 2021."""
    return {
        "classifiers": [{"name": name} for name in found.classes],
        "documents": [
            {
                "location": one.blob,
                "language": language,
                "classifiers": [{"classifierName": name} for name in one.classes],
            }
            for one in found.documents
        ],
    }


def _category(name: str) -> dict[str, str]:
    return {"category": name}


def _notes(counts: Counter[str], left_out: int) -> tuple[str, ...]:
    notes = [f"{left_out:,} rows have no label and are left out: the service learns from none"] if left_out else []
    few = sorted(name for name, count in counts.items() if count < _FEW)
    if few:
        named = ", ".join(few[:5]) + (f" and {len(few) - 5} others" if len(few) > 5 else "")
        notes.append(f"fewer than {_FEW} documents are hardly learnt or tested: {named}")
    return tuple(notes)
