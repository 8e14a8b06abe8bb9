"""What would make the rows better to learn from: labels that are likely wrong, classes that are confused, and the like.

Every row is judged by a model that has not seen it. A label is likely wrong where another class is as sure as it is of
its own rows, and the label's own class is not (Northcutt, Jiang and Chuang 2021, "Confident learning").
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from scipy.sparse import csr_matrix

from service.model.classifier import Task
from service.model.evaluate import indicators
from service.model.examples import Example
from service.model.train import Floats, Progress, Trained, Truth, read_grams, silent, train

FEW = 20
"""With fewer rows a class is learnt badly, whatever its rows are like."""
_MOST_PAIRS = 20
_ALIKE = 0.9
_CHUNK = 500


class Doubt(NamedTuple):
    """A row whose labels are likely wrong: `given` have little in their favour, `likelier` have more.

    `score` is how much likelier, 0 to 1.
    """

    id: str
    given: tuple[str, ...]
    likelier: tuple[str, ...]
    score: float


class Confused(NamedTuple):
    """Two classes, and how many rows of either were taken for the other."""

    one: str
    other: str
    rows: int


class Few(NamedTuple):
    """A class with too few rows."""

    name: str
    rows: int


class Alike(NamedTuple):
    """A row to be measured on that is much like one to be learnt from; `likeness` is a cosine."""

    measured: str
    learnt: str
    likeness: float


@dataclass(frozen=True, slots=True)
class Suggestions:
    """What to look at, the most pressing first in each kind."""

    documents: int
    doubts: tuple[Doubt, ...]
    confused: tuple[Confused, ...]
    few: tuple[Few, ...]
    alike: tuple[Alike, ...]

    def to_json(self) -> dict[str, object]:
        """Everything as JSON."""
        return {
            "documents": self.documents,
            **{
                name: [each._asdict() for each in getattr(self, name)]
                for name in ("doubts", "confused", "few", "alike")
            },
        }


def suggest(
    examples: Sequence[Example], task: Task, measured: Sequence[Example] = (), progress: Progress = silent
) -> Suggestions:
    """What to do about the rows, and about those that a model of them is to be `measured` on.

    Raises `ExamplesError` as training does.
    """
    trained = train(examples, task=task, name="suggestions", progress=progress)
    labels, rows, scores = trained.classifier.labels, trained.rows, trained.unseen
    truth = indicators([row.labels for row in rows], labels)
    doubts = (_doubts if task == "single_label" else _doubts_of_each)(rows, labels, truth, scores)
    support = Counter(label for row in rows for label in row.labels)
    few = [Few(label, rows) for label, rows in support.items() if rows < FEW]
    return Suggestions(
        documents=trained.documents,
        doubts=tuple(sorted(doubts, key=lambda doubt: (-doubt.score, doubt.id))),
        confused=tuple(_confused(labels, truth, _answered(trained))),
        few=tuple(sorted(few, key=lambda each: (each.rows, each.name))),
        alike=tuple(_alike(examples, measured)),
    )


def _answered(trained: Trained) -> Truth:
    scores = trained.unseen
    if trained.classifier.task == "multi_label":
        return np.asarray(scores >= trained.classifier.threshold)
    return np.asarray(scores.argmax(axis=1)[:, None] == np.arange(scores.shape[1]))


def _doubts(rows: Sequence[Example], labels: Sequence[str], truth: Truth, scores: Floats) -> list[Doubt]:
    given = truth.argmax(axis=1)
    own = scores[np.arange(len(rows)), given]
    usual = np.array([own[given == column].mean() if (given == column).any() else 1.0 for column in range(len(labels))])
    confident = np.where(scores >= usual, scores, 0.0)
    likelier = confident.argmax(axis=1)
    doubted = np.flatnonzero((confident.max(axis=1) > 0) & (likelier != given))
    return [
        Doubt(rows[n].id, rows[n].labels, (labels[likelier[n]],), round(float(scores[n, likelier[n]] - own[n]), 4))
        for n in doubted.tolist()
    ]


def _doubts_of_each(rows: Sequence[Example], labels: Sequence[str], truth: Truth, scores: Floats) -> list[Doubt]:
    """Each label by itself is there or not; what is likelier than a row's labels is the row with those set right."""
    having, lacking = truth.sum(axis=0), (~truth).sum(axis=0)
    usual = np.where(having > 0, (scores * truth).sum(axis=0) / np.maximum(having, 1), 1.0)
    usual_not = np.where(lacking > 0, ((1 - scores) * ~truth).sum(axis=0) / np.maximum(lacking, 1), 1.0)
    wrong = np.where(truth, 1 - scores >= usual_not, scores >= usual)
    sure = np.where(wrong, np.abs(scores - (1 - scores)), 0.0).max(axis=1)
    return [
        Doubt(
            rows[n].id,
            rows[n].labels,
            tuple(label for label, there in zip(labels, truth[n] ^ wrong[n], strict=True) if there),
            round(float(sure[n]), 4),
        )
        for n in np.flatnonzero(wrong.any(axis=1)).tolist()
    ]


def _confused(labels: Sequence[str], truth: Truth, answered: Truth) -> list[Confused]:
    missed, mistaken = truth & ~answered, answered & ~truth
    counts = missed.T.astype(np.intp) @ mistaken.astype(np.intp)
    both = np.triu(counts + counts.T, 1)
    found = [Confused(labels[one], labels[other], int(both[one, other])) for one, other in np.argwhere(both).tolist()]
    return sorted(found, key=lambda pair: (-pair.rows, pair.one, pair.other))[:_MOST_PAIRS]


def _alike(learnt: Sequence[Example], measured: Sequence[Example]) -> list[Alike]:
    """The rows to be measured on that are nearly one to be learnt from: a score on them says little."""
    if not measured or not learnt:
        return []
    _, _, features = read_grams([row.text for row in (*learnt, *measured)], labels=1)
    of_learnt, of_measured = features[: len(learnt)].T.tocsr(), features[len(learnt) :]
    found = []
    for first in range(0, len(measured), _CHUNK):
        likeness: csr_matrix = (of_measured[first : first + _CHUNK] @ of_learnt) / 2  # two kinds of grams, each 1 long
        nearest = np.asarray(likeness.argmax(axis=1)).ravel()
        closest: Any = likeness.max(axis=1).toarray().ravel()
        found += [
            Alike(measured[first + n].id, learnt[nearest[n]].id, round(float(closest[n]), 4))
            for n in np.flatnonzero(closest >= _ALIKE).tolist()
        ]
    return sorted(found, key=lambda pair: (-pair.likeness, pair.measured))
