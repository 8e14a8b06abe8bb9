"""What Azure Language says of a model's worth, in the words of either era.

A class is told by four counts (`truePositiveCount` since 2022, `countTruePositives` in 2021, and so on), a confusion
matrix by numbers, or since 2022 by objects with a `rawValue`. The documents, the accuracy of a single-label project and
the Hamming loss follow from the counts; the share of documents whose labels are all right is not told of others.
"""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from service.errors import Misconfigured
from service.lifecycle.verbs import Evaluation
from service.model.evaluate import ClassEvaluation


class _Counts(NamedTuple):
    """How many documents a class was rightly or wrongly given, wrongly and rightly not given."""

    true_positives: int
    false_positives: int
    false_negatives: int
    true_negatives: int


def evaluation(told: Mapping[str, Any], task: str) -> Evaluation:
    """The figures. Raises Misconfigured where they have another shape."""
    try:
        figures = next(each for name, each in told.items() if name.endswith("Evaluation") and isinstance(each, dict))
        counts = {name: _counts(each) for name, each in sorted(figures["classes"].items())}
        means = {f"{what.lower()}_{mean}": figures[f"{mean}{what}"] for what in _WHAT for mean in ("micro", "macro")}
        confusion = dict(_cells(figures.get("confusionMatrix") or {}))
    except (AttributeError, KeyError, StopIteration, TypeError, ValueError):
        raise Misconfigured("the service's evaluation has another shape than is known: check api_version") from None
    documents, wrong, accuracy = _wrong(list(counts.values()), task)
    return Evaluation(
        documents=documents,
        accuracy=accuracy,
        hamming_loss=wrong,
        task=task,
        classes=tuple(ClassEvaluation(name, *each[:3]) for name, each in counts.items()),
        confusion=confusion,
        **means,
    )


_WHAT = ("Precision", "Recall", "F1")


def _wrong(counts: list[_Counts], task: str) -> tuple[int, float | None, float | None]:
    """How many documents there are, the share of wrong decisions, and that of documents that are all right."""
    missed = sum(each.false_negatives for each in counts)
    if task == "single_label":  # where a document is missed by the class that it has, and by no other
        documents = missed + sum(each.true_positives for each in counts)
        return documents, missed / documents if documents else None, 1 - missed / documents if documents else None
    documents, decisions = max(map(sum, counts), default=0), sum(map(sum, counts))
    wrong = missed + sum(each.false_positives for each in counts)
    return documents, wrong / decisions if decisions else None, None


def _counts(told: Mapping[str, Any]) -> _Counts:
    newer = ("truePositiveCount", "falsePositiveCount", "falseNegativeCount", "trueNegativeCount")
    older = ("countTruePositives", "countFalsePositives", "countFalseNegatives", "countTrueNegatives")
    return _Counts(*(int(told[name]) for name in (newer if newer[0] in told else older)))


def _cells(matrix: Mapping[str, Mapping[str, Any]]) -> Iterator[tuple[tuple[str, str], float]]:
    for true, row in matrix.items():
        for answered, cell in row.items():
            count = float(cell["rawValue"] if isinstance(cell, dict) else cell)
            if count:
                yield (true, answered), count
