"""The figures of either era, by the service's own names, are those of a local evaluation."""

from typing import Any

import pytest

from service.errors import Misconfigured
from service.lifecycle.azure_language_evaluation import evaluation
from service.model.evaluate import ClassEvaluation

MEANS = {f"{mean}{what}": 0.5 for mean in ("micro", "macro") for what in ("F1", "Precision", "Recall")}


def counts(tp: int, fp: int, fn: int, tn: int, era: int = 2022) -> dict[str, float]:
    shares = {"f1": 0.5, "precision": 0.5, "recall": 0.5}
    if era == 2022:
        return shares | {
            "truePositiveCount": tp,
            "falsePositiveCount": fp,
            "falseNegativeCount": fn,
            "trueNegativeCount": tn,
        }
    return shares | {
        "countTruePositives": tp,
        "countFalsePositives": fp,
        "countFalseNegatives": fn,
        "countTrueNegatives": tn,
    }


SINGLE: dict[int, dict[str, Any]] = {
    2022: {
        "projectKind": "CustomSingleLabelClassification",
        "customSingleLabelClassificationEvaluation": {
            "confusionMatrix": {
                "a": {"a": {"normalizedValue": 75.0, "rawValue": 3.0}, "b": {"normalizedValue": 25.0, "rawValue": 1.0}},
                "b": {"a": {"normalizedValue": 0.0, "rawValue": 0.0}, "b": {"normalizedValue": 100.0, "rawValue": 4.0}},
            },
            "classes": {"a": counts(3, 0, 1, 4), "b": counts(4, 1, 0, 3)},
            **MEANS,
        },
        "evaluationOptions": {"kind": "percentage", "trainingSplitPercentage": 80, "testingSplitPercentage": 20},
    },
    2021: {
        "modelType": "SingleClassification",
        "singleClassificationEvaluation": {
            "classes": {"a": counts(3, 0, 1, 4, 2021), "b": counts(4, 1, 0, 3, 2021)},
            "confusionMatrix": {"a": {"a": 3, "b": 1}, "b": {"b": 4}},
            **MEANS,
        },
        "multiClassificationEvaluation": None,
    },
}


@pytest.mark.parametrize("era", SINGLE)
def test_a_single_label_evaluation(era: int) -> None:
    worth = evaluation(SINGLE[era], "single_label")
    assert (worth.documents, worth.accuracy, worth.hamming_loss) == (8, 0.875, 0.125)
    assert (worth.precision_micro, worth.f1_macro, worth.ece) == (0.5, 0.5, None)
    assert worth.classes == (ClassEvaluation("a", 3, 0, 1), ClassEvaluation("b", 4, 1, 0))
    assert worth.confusion == {("a", "a"): 3, ("a", "b"): 1, ("b", "b"): 4}


def test_a_multi_label_evaluation_tells_no_accuracy() -> None:
    told = {
        "customMultiLabelClassificationEvaluation": {
            "classes": {"a": counts(3, 1, 0, 6), "b": counts(1, 0, 3, 6)},
            **MEANS,
        }
    }
    worth = evaluation(told, "multi_label")
    assert (worth.documents, worth.accuracy, worth.hamming_loss, worth.confusion) == (10, None, 0.2, {})


def test_an_evaluation_of_no_document_has_no_shares() -> None:
    for task in ("single_label", "multi_label"):
        worth = evaluation({"anEvaluation": {"classes": {}, **MEANS}}, task)
        assert (worth.documents, worth.accuracy, worth.hamming_loss) == (0, None, None)


@pytest.mark.parametrize(
    "told",
    [
        {},
        {"xEvaluation": None},
        {"xEvaluation": {}},
        {"xEvaluation": {"classes": {"a": {}}, **MEANS}},
        {"xEvaluation": {"classes": [], **MEANS}},
    ],
)
def test_another_shape_is_no_evaluation(told: dict[str, Any]) -> None:
    with pytest.raises(Misconfigured, match="another shape than is known: check api_version"):
        evaluation(told, "single_label")
