"""Whether one model is better than another, or only luckier, on the same documents."""

from dataclasses import asdict, dataclass
from math import comb

import numpy as np
from numpy.typing import NDArray

from service.model.evaluate import Answers, decided, measure
from service.model.examples import ExamplesError

_RESAMPLES = 2_000
_SEED = 0


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two models side by side; differences are the second's figure less the first's.

    `only_first` and `only_second` count documents that one alone got wholly right, `p_accuracy` is the chance of a
    split as uneven as theirs between equally good models (McNemar's exact test, two-sided). The interval holds 95 % of
    the differences in micro-F1 over documents drawn again (paired bootstrap, 2,000 times, always the same draws);
    `p_f1` is the chance of such a difference by that drawing, two-sided.
    """

    documents: int
    accuracy: tuple[float, float]
    f1_micro: tuple[float, float]
    f1_macro: tuple[float, float]
    only_first: int
    only_second: int
    p_accuracy: float
    f1_micro_interval: tuple[float, float]
    p_f1: float

    def to_json(self) -> dict[str, object]:
        """Everything as JSON."""
        return asdict(self)


def compare(first: Answers, second: Answers) -> Comparison:
    """The comparison of two models' answers to the same documents; raises `ExamplesError` where tasks differ."""
    if first.task != second.task:
        raise ExamplesError(
            f"one model gives one label a document ({first.task}), the other any number ({second.task}), or the other "
            "way round: compare models of one task"
        )
    one, other = measure(first), measure(second)
    right, right_too = first.right(), second.right()
    only_first, only_second = int((right & ~right_too).sum()), int((right_too & ~right).sum())
    differences = _redrawn(_counts(second), _counts(first))
    beyond = min((differences <= 0).mean(), (differences >= 0).mean())
    low, high = np.quantile(differences, [0.025, 0.975]).tolist()
    return Comparison(
        documents=one.documents,
        accuracy=(one.accuracy, other.accuracy),
        f1_micro=(one.f1_micro, other.f1_micro),
        f1_macro=(one.f1_macro, other.f1_macro),
        only_first=only_first,
        only_second=only_second,
        p_accuracy=mcnemar(only_first, only_second),
        f1_micro_interval=(low, high),
        p_f1=min(1.0, 2 * float(beyond)),
    )


def mcnemar(one: int, other: int) -> float:
    """The exact two-sided probability of so uneven a split of documents that only one of two is right about.

    McNemar 1947, "Note on the sampling error of the difference between correlated proportions or percentages"; exact
    by the binomial distribution.
    """
    every = one + other
    tail = sum(comb(every, count) for count in range(min(one, other) + 1))
    return min(1.0, float(2 * tail / 2**every))


def _counts(answers: Answers) -> NDArray[np.float64]:
    """What each document adds to the counts of hits, and of labels given or true."""
    _, _, true, answered, _ = decided(answers)
    return np.column_stack([(true & answered).sum(axis=1), true.sum(axis=1) + answered.sum(axis=1)]).astype(float)


def _redrawn(one: NDArray[np.float64], other: NDArray[np.float64]) -> NDArray[np.float64]:
    """The differences in micro-F1 over documents drawn again with replacement."""
    draw = np.random.default_rng(_SEED)
    differences = np.empty(_RESAMPLES)
    for number in range(_RESAMPLES):
        chosen = draw.integers(len(one), size=len(one))
        (hits, given), (others_hits, others_given) = one[chosen].sum(axis=0), other[chosen].sum(axis=0)
        differences[number] = 2 * hits / max(given, 1) - 2 * others_hits / max(others_given, 1)
    return differences
