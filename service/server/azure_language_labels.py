"""Azure Language, labelled documents: labels files of both eras, the documents they name, and training on them.

A labels file says which document (a blob of the project's container) is of which classes. In 2021 it was
`{"classifiers": […], "documents": [{"location", "classifiers": [{"classifierName"}]}]}`; since 2022 it is the `assets`
of an exported project, `{"classes": […], "documents": [{"location", "class" or "classes", "dataset"}]}`.

A document is a `.txt` in the root of its container, without spaces in its name; a class has up to 50 characters, none
of them of `:$&%*()+~#/?`. Both are documented, and looked at when a labels file is; how many there are of either is
looked at when a training begins.
"""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import orjson

from service.model.classifier import Classifier, Task
from service.model.evaluate import Evaluation, evaluate
from service.model.examples import Example, ExamplesError
from service.server.backend import Backend
from service.server.containers import BlobMissing
from service.server.training import Learnt, TrainingFailed, learn

FEWEST_DOCUMENTS = 10
MOST_CLASSES = 200
MOST_CHARACTERS = 128_000
TASKS: Mapping[str, Task] = {
    "customsinglelabelclassification": "single_label",
    "custommultilabelclassification": "multi_label",
    "singleclassification": "single_label",
    "multiclassification": "multi_label",
}
"""What a project does, by its kind (in lower case) of either era."""


class LabelsError(Exception):
    """A labels file cannot be used; the message says what to mend."""


class Limits(NamedTuple):
    """How much there is to be in what is learnt from, in one of the eras."""

    most_documents: int
    fewest_classes: int
    fewest_of_each: int


OF_2021, OF_TODAY = Limits(1_000_000, 2, 10), Limits(100_000, 1, 1)
_LOCATION = re.compile(r"[^\s/\\]+\.txt", re.IGNORECASE)
_CLASS = re.compile(r"[^:$&%*()+~#/?]{1,50}")


class Labelled(NamedTuple):
    """A document and its classes; `dataset` is `Train` or `Test`."""

    location: str
    language: str | None
    classes: tuple[str, ...]
    dataset: str


class Tested(NamedTuple):
    """A document that was set aside, the classes that it has, and those that the model gave."""

    location: str
    language: str | None
    expected: tuple[str, ...]
    predicted: tuple[str, ...]


class Trained(NamedTuple):
    """A model, and how it did on each of the documents that were set aside."""

    learnt: Learnt
    tested: Sequence[Tested]


def from_2021(content: bytes) -> list[Labelled]:
    """The labelled documents of a labels file of 2021; raises `LabelsError`."""
    try:
        documents = orjson.loads(content)["documents"]
        return [
            _labelled(
                one["location"], one.get("language"), [each["classifierName"] for each in one["classifiers"]], None
            )
            for one in documents
        ]
    except (orjson.JSONDecodeError, KeyError, TypeError, AttributeError):
        raise LabelsError("the labels file is not one of custom classification") from None


def from_assets(assets: Mapping[str, Any]) -> list[Labelled]:
    """The labelled documents of an exported project's assets; raises `LabelsError`."""
    try:
        return [
            _labelled(
                one["location"],
                one.get("language"),
                [each["category"] for each in one.get("classes") or ([one["class"]] if one.get("class") else [])],
                one.get("dataset"),
            )
            for one in assets.get("documents") or ()
        ]
    except (KeyError, TypeError, AttributeError):
        raise LabelsError("assets.documents are not those of a project of custom classification") from None


def check(documents: Sequence[Labelled], task: Task, limits: Limits) -> None:
    """See that there is something to learn from; raises `LabelsError`."""
    if not FEWEST_DOCUMENTS <= len(documents) <= limits.most_documents:
        takes = f"it takes {FEWEST_DOCUMENTS} to {limits.most_documents:,}"
        raise LabelsError(f"{len(documents)} documents are labelled; {takes}")
    classes = Counter(name for one in documents for name in one.classes)
    if not limits.fewest_classes <= len(classes) <= MOST_CLASSES:
        raise LabelsError(f"there are {len(classes)} classes; it takes {limits.fewest_classes} to {MOST_CLASSES}")
    name, count = min(classes.items(), key=lambda one: one[1])
    if count < limits.fewest_of_each:
        raise LabelsError(f"class {name!r} has {count} documents; it takes {limits.fewest_of_each}")
    if task == "single_label":
        several = next((one.location for one in documents if len(one.classes) != 1), None)
        if several is not None:
            raise LabelsError(f"{several}: a document has exactly one class in a single-label project")


def train(
    backend: Backend,
    container: str,
    documents: Sequence[Labelled],
    task: Task,
    *,
    name: str,
    testing: float | None,
    limits: Limits = OF_TODAY,
) -> Trained:
    """Learn from the documents of a container; for threads.

    `testing` is the share, 0 to 1, of training documents that are set aside to test on, at even distances; None tests
    on those whose dataset is `Test`. Raises `LabelsError` and `TrainingFailed`.
    """
    check(documents, task, limits)
    kept, aside = _split(documents, testing)
    rows = [_example(backend, container, one) for one in kept]
    tests = [_example(backend, container, one) for one in aside]
    try:
        learnt = backend.trainer.run(learn, backend.models.folder, rows, tests, task, name)
    except ExamplesError as error:
        raise LabelsError(str(error)) from None
    return Trained(learnt, _tested(backend.models.get(learnt.digest), aside, tests))


def measure(
    backend: Backend, container: str, documents: Sequence[Labelled], digest: str, *, testing: float | None
) -> tuple[Evaluation, Sequence[Tested]]:
    """How a model does on those of a container's documents that are set aside, as `train` sets them; for threads.

    Raises `LabelsError`.
    """
    _, aside = _split(documents, testing)
    if not aside:
        raise LabelsError("no document is there to test on")
    tests, classifier = [_example(backend, container, one) for one in aside], backend.models.get(digest)
    try:
        return evaluate(classifier, tests), _tested(classifier, aside, tests)
    except ExamplesError as error:
        raise LabelsError(str(error)) from None


def _tested(classifier: Classifier, aside: Sequence[Labelled], tests: Sequence[Example]) -> list[Tested]:
    most = 1 if classifier.task == "single_label" else None
    answers = classifier.classify([one.text for one in tests])
    return [
        Tested(one.location, one.language, one.classes, tuple(found.name for found in answer[:most]))
        for one, answer in zip(aside, answers, strict=True)
    ]


def _labelled(location: object, language: object, classes: Sequence[object], dataset: object) -> Labelled:
    if not isinstance(location, str) or not all(isinstance(name, str) and name for name in classes):
        raise TypeError(location)
    if not _LOCATION.fullmatch(location):
        raise LabelsError(f"{location!r} is not the name of a .txt in the root of the container, without spaces")
    names = tuple(sorted({str(name) for name in classes}))
    if (bad := next((name for name in names if not _CLASS.fullmatch(name)), None)) is not None:
        raise LabelsError(f"{bad!r} is no name of a class: that is up to 50 characters, and none of :$&%*()+~#/?")
    return Labelled(
        location, language if isinstance(language, str) else None, names, "Test" if dataset == "Test" else "Train"
    )


def _split(documents: Sequence[Labelled], testing: float | None) -> tuple[list[Labelled], list[Labelled]]:
    if testing is None:
        kept = [one for one in documents if one.dataset == "Train"]
        return kept, [one for one in documents if one.dataset == "Test"]
    in_turn = sorted((one for one in documents if one.dataset == "Train"), key=lambda one: (one.classes, one.location))
    aside = {place for place in range(len(in_turn)) if int((place + 1) * testing) > int(place * testing)}
    kept = [one for place, one in enumerate(in_turn) if place not in aside]
    return kept, [one for place, one in enumerate(in_turn) if place in aside]


def _example(backend: Backend, container: str, one: Labelled) -> Example:
    try:
        text = backend.containers.read(container, one.location).decode("utf-8-sig")
    except BlobMissing as error:
        raise LabelsError(str(error)) from None
    except UnicodeDecodeError:
        raise LabelsError(f"{one.location} is not UTF-8 text") from None
    if not text.strip() or len(text) > MOST_CHARACTERS:
        raise LabelsError(f"{one.location} is empty or has more than {MOST_CHARACTERS:,} characters")
    return Example(one.location, text, one.classes)


FAILURES = (LabelsError, TrainingFailed)
"""What a training fails with for a reason that its job tells."""
