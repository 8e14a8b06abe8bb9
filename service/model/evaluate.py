"""How good a classifier's answers are, by the measures that the field compares models with."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from service.model.classifier import Classifier, Task
from service.model.examples import Example, ExamplesError

_BINS = 15


@dataclass(frozen=True, slots=True)
class ClassEvaluation:
    """How well one class is found: counts of documents, and the shares that follow from them (0 where undefined)."""

    name: str
    true_positives: int
    false_positives: int
    false_negatives: int

    @property
    def support(self) -> int:
        """How many documents are of the class."""
        return self.true_positives + self.false_negatives

    @property
    def precision(self) -> float:
        """The share of answers with the class that are right."""
        return _share(self.true_positives, self.true_positives + self.false_positives)

    @property
    def recall(self) -> float:
        """The share of documents of the class that are found."""
        return _share(self.true_positives, self.support)

    @property
    def f1(self) -> float:
        """The harmonic mean of precision and recall."""
        return _share(2 * self.true_positives, 2 * self.true_positives + self.false_positives + self.false_negatives)

    def to_json(self) -> dict[str, object]:
        """The counts and shares as JSON."""
        return {
            "name": self.name,
            "precision": self.precision,
            "recall": self.recall,
            "f1": self.f1,
            "support": self.support,
            "true_positives": self.true_positives,
            "false_positives": self.false_positives,
            "false_negatives": self.false_negatives,
        }


@dataclass(frozen=True, slots=True)
class Evaluation:
    """The measures of a classifier over labelled documents.

    `accuracy` is the share of documents whose labels are all found and no others. Micro figures pool the decisions on
    all classes; macro figures are plain means over the classes that occur in documents or answers. `hamming_loss` is
    the share of wrong decisions: on documents in single-label, on (document, label) pairs in multi-label
    classification. `ece` is the expected calibration error over 15 bins of equal width (Guo et al. 2017, "On
    calibration of modern neural networks"), of the best class's score in single-label, of all scores in multi-label
    classification, and None where no scores were given. `seconds` is the time that scoring took.

    `confusion` counts documents by (true, answered) label; it is empty in multi-label classification. `unknown` counts
    the labels of documents that the model has never seen, which it can only get wrong. `unlabelled` counts the
    documents of no class that were left out of a single-label evaluation.
    """

    task: Task
    documents: int
    accuracy: float
    precision_micro: float
    recall_micro: float
    f1_micro: float
    precision_macro: float
    recall_macro: float
    f1_macro: float
    hamming_loss: float
    ece: float | None
    seconds: float
    classes: tuple[ClassEvaluation, ...]
    confusion: Mapping[tuple[str, str], int]
    unknown: Mapping[str, int]
    unlabelled: int

    def to_json(self) -> dict[str, object]:
        """Everything as JSON; confused labels are in descending order of how often."""
        confused = sorted(self.confusion.items(), key=lambda item: (-item[1], item[0]))
        return {
            "documents": self.documents,
            "accuracy": self.accuracy,
            "precision_micro": self.precision_micro,
            "recall_micro": self.recall_micro,
            "f1_micro": self.f1_micro,
            "precision_macro": self.precision_macro,
            "recall_macro": self.recall_macro,
            "f1_macro": self.f1_macro,
            "hamming_loss": self.hamming_loss,
            "ece": self.ece,
            "seconds": self.seconds,
            "task": self.task,
            "unlabelled": self.unlabelled,
            "unknown_labels": dict(self.unknown),
            "classes": [one.to_json() for one in self.classes],
            "confusion": [{"true": true, "answered": answered, "documents": n} for (true, answered), n in confused],
        }


class Answers(NamedTuple):
    """What a model has answered to labelled documents: a row of scores for each, a column for each label."""

    task: Task
    labels: tuple[str, ...]
    threshold: float
    ids: Sequence[str]
    truth: Sequence[tuple[str, ...]]
    scores: NDArray[np.float64]
    seconds: float
    unlabelled: int

    def right(self) -> NDArray[np.bool_]:
        """Whether each document got its labels and no others."""
        return decided(self).right

    def judged(self) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        """The scores that calibration is about, and whether what they were given to is so."""
        of = decided(self)
        if self.task == "single_label":
            return self.scores.max(axis=1), of.right
        return self.scores.ravel(), of.true[:, : len(self.labels)].ravel()


def ask(classifier: Classifier, examples: Sequence[Example]) -> Answers:
    """Score the documents; raises `ExamplesError` where the rows do not fit the classifier's task."""
    single = classifier.task == "single_label"
    if single and (several := next((example for example in examples if len(example.labels) > 1), None)):
        raise ExamplesError(
            f"the row {several.id!r} has {len(several.labels)} labels, but the model gives one: leave one, or train a "
            "multi-label model"
        )
    measured = [example for example in examples if example.labels or not single]
    if not measured:
        raise ExamplesError("no row can be measured; give labelled rows")
    started = perf_counter()
    scores = classifier.scores([example.text for example in measured])
    return Answers(
        task=classifier.task,
        labels=classifier.labels,
        threshold=classifier.threshold,
        ids=[example.id for example in measured],
        truth=[example.labels for example in measured],
        scores=scores,
        seconds=perf_counter() - started,
        unlabelled=len(examples) - len(measured),
    )


def evaluate(classifier: Classifier, examples: Sequence[Example]) -> Evaluation:
    """Score the documents and compare; raises `ExamplesError` where the rows do not fit the classifier's task."""
    return measure(ask(classifier, examples))


def measure(answers: Answers) -> Evaluation:
    """The measures of what was answered."""
    return compare(
        task=answers.task,
        labels=answers.labels,
        threshold=answers.threshold,
        scores=answers.scores,
        truth=answers.truth,
        seconds=answers.seconds,
        unlabelled=answers.unlabelled,
    )


def compare(
    *,
    task: Task,
    labels: Sequence[str],
    threshold: float,
    scores: NDArray[np.float64],
    truth: Sequence[Sequence[str]],
    seconds: float = 0.0,
    unlabelled: int = 0,
) -> Evaluation:
    """The measures of scores (a row for each document, a column for each label) against each document's true labels.

    In single-label classification every document has one true label, and the threshold is without effect.
    """
    names, unknown, true, answered, right = _decided(task, labels, threshold, scores, truth)
    counts = (true & answered).sum(axis=0), (answered & ~true).sum(axis=0), (true & ~answered).sum(axis=0)
    classes = tuple(ClassEvaluation(name, *map(int, count)) for name, *count in zip(names, *counts, strict=True))
    together = ClassEvaluation("", *(int(count.sum()) for count in counts))
    occurring = [one for one in classes if one.support or one.false_positives]
    accuracy = float(right.mean())
    return Evaluation(
        task=task,
        documents=len(truth),
        accuracy=accuracy,
        precision_micro=together.precision,
        recall_micro=together.recall,
        f1_micro=together.f1,
        precision_macro=_share(sum(one.precision for one in occurring), len(occurring)),
        recall_macro=_share(sum(one.recall for one in occurring), len(occurring)),
        f1_macro=_share(sum(one.f1 for one in occurring), len(occurring)),
        hamming_loss=1 - accuracy if task == "single_label" else float((true != answered).mean()),
        ece=_calibration_error(scores.max(axis=1), right)
        if task == "single_label"
        else _calibration_error(scores.ravel(), true[:, : len(labels)].ravel()),
        seconds=seconds,
        classes=classes,
        confusion=_confusion(truth, [labels[best] for best in scores.argmax(axis=1)]) if task == "single_label" else {},
        unknown=dict(sorted(unknown.items())),
        unlabelled=unlabelled,
    )


class Decided(NamedTuple):
    """What is so and what was answered, for each document (row) and label (column)."""

    names: list[str]
    unknown: Counter[str]
    true: NDArray[np.bool_]
    answered: NDArray[np.bool_]
    right: NDArray[np.bool_]


def decided(answers: Answers) -> Decided:
    """What is so and what was answered."""
    return _decided(answers.task, answers.labels, answers.threshold, answers.scores, answers.truth)


def _decided(
    task: Task, labels: Sequence[str], threshold: float, scores: NDArray[np.float64], truth: Sequence[Sequence[str]]
) -> Decided:
    known = set(labels)
    unknown = Counter(label for row in truth for label in row if label not in known)
    names = [*labels, *sorted(unknown)]
    true = indicators(truth, names)
    answered = np.zeros_like(true)
    answered[:, : len(labels)] = _one_hot(scores) if task == "single_label" else scores >= threshold
    return Decided(names, unknown, true, answered, (true == answered).all(axis=1))


def indicators(truth: Sequence[Sequence[str]], names: Sequence[str]) -> NDArray[np.bool_]:
    """Whether each document (row) has each label (column)."""
    column = {name: index for index, name in enumerate(names)}
    marks = np.zeros((len(truth), len(names)), np.bool_)
    for row, labels in zip(marks, truth, strict=True):
        row[[column[label] for label in labels]] = True
    return marks


def _one_hot(scores: NDArray[np.float64]) -> NDArray[np.bool_]:
    marks: NDArray[np.bool_] = scores.argmax(axis=1)[:, None] == np.arange(scores.shape[1])
    return marks


def _confusion(truth: Sequence[Sequence[str]], answered: Sequence[str]) -> dict[tuple[str, str], int]:
    return dict(Counter((true, answer) for (true,), answer in zip(truth, answered, strict=True)))


def _calibration_error(scores: NDArray[np.float64], right: NDArray[np.bool_]) -> float:
    """The mean distance, weighted by size, between the mean score of a bin and the share of it that is right."""
    count, score, share = bins(scores, right)
    return float((count * np.abs(score - share)).sum() / scores.size)


def bins(
    scores: NDArray[np.float64], right: NDArray[np.bool_]
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Scores in 15 bins of equal width: how many, their mean, and the share that is right (0 where there are none)."""
    bin_of = np.minimum((scores * _BINS).astype(np.intp), _BINS - 1)
    count = np.bincount(bin_of, minlength=_BINS).astype(float)
    least_one = np.maximum(count, 1)
    sums = (np.bincount(bin_of, weights=weights, minlength=_BINS) for weights in (scores, right))
    score, share = (total / least_one for total in sums)
    return count, score, share


def _share(part: float, whole: float) -> float:
    return part / whole if whole else 0.0
