import json

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, hamming_loss, precision_recall_fscore_support

from service.model.classifier import Task
from service.model.evaluate import Evaluation, compare, evaluate
from service.model.examples import Example, ExamplesError
from service.model.train import Trained
from tests.model.conftest import multi_label_rows, single_label_rows


def of_answers(task: Task, labels: str, answers: list[str], truth: list[str]) -> Evaluation:
    """Labels are letters; an answer's letters score 0.9, all others 0.1."""
    scores = np.array([[0.9 if label in answer else 0.1 for label in labels] for answer in answers])
    return compare(task=task, labels=tuple(labels), threshold=0.5, scores=scores, truth=[tuple(row) for row in truth])


def test_single_label_figures_are_those_computed_by_hand() -> None:
    #                           right a, a for b, right b, right b, c for a
    found = of_answers("single_label", "abc", ["a", "a", "b", "b", "c"], ["a", "b", "b", "b", "a"])
    assert found.documents == 5
    assert found.accuracy == found.precision_micro == found.recall_micro == found.f1_micro == 3 / 5
    assert found.hamming_loss == pytest.approx(2 / 5)
    assert [(one.name, one.precision, one.recall, one.support) for one in found.classes] == [
        ("a", 1 / 2, 1 / 2, 2),
        ("b", 1, 2 / 3, 3),
        ("c", 0, 0, 0),
    ]
    assert [one.f1 for one in found.classes] == pytest.approx([1 / 2, 4 / 5, 0])
    assert found.precision_macro == pytest.approx((1 / 2 + 1 + 0) / 3)
    assert found.recall_macro == pytest.approx((1 / 2 + 2 / 3 + 0) / 3)
    assert found.f1_macro == pytest.approx((1 / 2 + 4 / 5 + 0) / 3)
    assert found.confusion == {("a", "a"): 1, ("b", "a"): 1, ("b", "b"): 2, ("a", "c"): 1}


def test_multi_label_figures_are_those_computed_by_hand() -> None:
    # action, comedy, romance: 4 labels found, 1 wrong, 2 missed
    found = of_answers("multi_label", "acr", ["c", "a", "r", "r", "a"], ["ac", "a", "r", "cr", "c"])
    assert found.accuracy == 2 / 5
    assert (found.precision_micro, found.recall_micro) == pytest.approx((4 / 5, 4 / 7))
    assert found.f1_micro == pytest.approx(8 / 12)
    counts = [(one.true_positives, one.false_positives, one.false_negatives) for one in found.classes]
    assert counts == [(1, 1, 1), (1, 0, 2), (2, 0, 0)]
    assert found.f1_macro == pytest.approx((1 / 2 + 1 / 2 + 1) / 3)
    assert found.hamming_loss == pytest.approx(4 / 15)
    assert found.confusion == {}


def test_a_class_that_occurs_nowhere_has_no_part_in_macro_figures() -> None:
    assert of_answers("single_label", "abz", ["a", "b"], ["a", "b"]).f1_macro == 1
    assert of_answers("multi_label", "abz", ["a", "b"], ["a", "b"]).f1_macro == 1


def test_the_single_label_calibration_error_is_of_the_best_scores() -> None:
    scores = np.array([[0.9, 0.1], [0.92, 0.08], [0.35, 0.65], [0.6, 0.4]])
    found = compare(task="single_label", labels="ab", threshold=0, scores=scores, truth=["a", "b", "b", "b"])
    bins = [
        abs(0.9 + 0.92 - 1),
        abs(0.65 + 0.6 - 1),
    ]  # sums of scores and of right answers in the bins from 13/15, 9/15
    assert found.ece == pytest.approx(sum(bins) / 4)


def test_the_multi_label_calibration_error_is_of_all_scores() -> None:
    scores = np.array([[1.0, 0.1], [0.98, 0.0]])
    found = compare(task="multi_label", labels="ab", threshold=0.5, scores=scores, truth=["b", "a"])
    bins = [abs(1.98 - 1), abs(0.1 - 1), abs(0.0 - 0)]  # a score of 1 is in the last bin
    assert found.ece == pytest.approx(sum(bins) / 4)


def test_a_label_the_model_never_saw_counts_as_wrong_and_is_mentioned() -> None:
    single = of_answers("single_label", "ab", ["a", "a"], ["a", "z"])
    assert single.accuracy == 1 / 2
    assert single.unknown == {"z": 1}
    assert single.confusion == {("a", "a"): 1, ("z", "a"): 1}
    assert (single.classes[-1].name, single.classes[-1].recall, single.classes[-1].support) == ("z", 0, 1)
    multi = of_answers("multi_label", "ab", ["a", "a"], ["az", "a"])
    assert multi.accuracy == 1 / 2
    assert multi.recall_micro == pytest.approx(2 / 3)
    assert multi.hamming_loss == pytest.approx(1 / 6)


LETTERS = "abcd"


@given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from(LETTERS)), min_size=1))
def test_single_label_figures_are_those_of_scikit_learn(pairs: list[tuple[str, str]]) -> None:
    answers, truth = map(list, zip(*pairs, strict=True))
    found = of_answers("single_label", "abc", answers, truth)
    assert found.accuracy == pytest.approx(accuracy_score(truth, answers))
    assert found.hamming_loss == pytest.approx(hamming_loss(truth, answers))
    for average, figures in (
        ("micro", (found.precision_micro, found.recall_micro, found.f1_micro)),
        ("macro", (found.precision_macro, found.recall_macro, found.f1_macro)),
    ):
        expected = precision_recall_fscore_support(truth, answers, average=average, zero_division=0)
        assert figures == pytest.approx(expected[:3])


@given(st.lists(st.tuples(*[st.sets(st.sampled_from(LETTERS))] * 2), min_size=1))
def test_multi_label_figures_are_those_of_scikit_learn(pairs: list[tuple[set[str], set[str]]]) -> None:
    occurring = sorted(set().union(*(answer | truth for answer, truth in pairs)))
    assume(len(occurring) > 1)  # with one column scikit-learn sees another task
    answers, truth = (["".join(sorted(row)) for row in column] for column in zip(*pairs, strict=True))
    found = of_answers("multi_label", "".join(occurring), answers, truth)
    answered, true = (np.array([[label in row for label in occurring] for row in rows]) for rows in (answers, truth))
    assert found.accuracy == pytest.approx(accuracy_score(true, answered))
    assert found.hamming_loss == pytest.approx(hamming_loss(true, answered))
    for average, figures in (
        ("micro", (found.precision_micro, found.recall_micro, found.f1_micro)),
        ("macro", (found.precision_macro, found.recall_macro, found.f1_macro)),
    ):
        expected = precision_recall_fscore_support(true, answered, average=average, zero_division=0)
        assert figures == pytest.approx(expected[:3])


def test_the_json_begins_with_the_figures_in_their_order(single_label: Trained) -> None:
    described = evaluate(single_label.classifier, single_label_rows()).to_json()
    assert list(described)[:11] == [
        "documents",
        "accuracy",
        "precision_micro",
        "recall_micro",
        "f1_micro",
        "precision_macro",
        "recall_macro",
        "f1_macro",
        "hamming_loss",
        "ece",
        "seconds",
    ]
    assert json.loads(json.dumps(described, allow_nan=False)) == described


def test_confusion_in_json_begins_with_the_most_frequent() -> None:
    described = of_answers("single_label", "ab", ["a", "b", "b"], ["a", "a", "a"]).to_json()
    assert described["confusion"] == [
        {"true": "a", "answered": "b", "documents": 2},
        {"true": "a", "answered": "a", "documents": 1},
    ]


def test_rows_without_labels_are_left_out_of_a_single_label_evaluation(single_label: Trained) -> None:
    labelled = single_label_rows()
    found = evaluate(single_label.classifier, [*labelled, Example("1", "what is the weather", ())])
    assert (found.documents, found.unlabelled) == (len(labelled), 1)
    assert found.accuracy == 1
    assert found.seconds > 0


def test_rows_without_labels_are_part_of_a_multi_label_evaluation(multi_label: Trained) -> None:
    found = evaluate(multi_label.classifier, multi_label_rows())
    assert (found.documents, found.unlabelled) == (len(multi_label_rows()), 0)


def test_rows_that_do_not_fit_the_model_are_an_error(single_label: Trained) -> None:
    with pytest.raises(ExamplesError, match="the row '7' has 2 labels, but the model gives one: leave one, or train"):
        evaluate(single_label.classifier, [Example("7", "text", ("billing", "login"))])
    with pytest.raises(ExamplesError, match="no row can be measured; give labelled rows"):
        evaluate(single_label.classifier, [Example("7", "text", ())])
