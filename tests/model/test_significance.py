import numpy as np
import pytest
from scipy.stats import binomtest

from service.model.evaluate import Answers
from service.model.examples import ExamplesError
from service.model.significance import compare, mcnemar


def answers(right: list[bool]) -> Answers:
    """A document of the class `a` for each, answered rightly or with `b`."""
    scores = np.array([[0.9, 0.1] if each else [0.1, 0.9] for each in right])
    ids = [str(number) for number in range(len(right))]
    return Answers("single_label", ("a", "b"), 0.0, ids, [("a",)] * len(right), scores, 0.0, 0)


@pytest.mark.parametrize(("one", "other"), [(0, 0), (5, 5), (0, 6), (3, 12), (40, 20), (900, 800)])
def test_mcnemar_is_the_exact_binomial_test(one: int, other: int) -> None:
    expected = binomtest(one, one + other).pvalue if one + other else 1.0
    assert mcnemar(one, other) == pytest.approx(expected)


def test_a_model_that_is_right_where_the_other_is_wrong_is_better_by_more_than_chance() -> None:
    found = compare(answers([True] * 60 + [False] * 40), answers([True] * 60 + [True] * 30 + [False] * 10))
    assert (found.only_first, found.only_second, found.documents) == (0, 30, 100)
    assert found.p_accuracy < 1e-6
    assert found.p_f1 < 0.01
    low, high = found.f1_micro_interval
    assert 0.2 < low < 0.3 < high < 0.4


def test_models_that_differ_by_little_differ_by_chance() -> None:
    one, other = answers([True] * 50 + [False] * 2 + [True]), answers([True] * 50 + [True] * 2 + [False])
    found = compare(one, other)
    assert found.p_accuracy == 1.0
    assert found.f1_micro_interval[0] < 0 < found.f1_micro_interval[1]
    assert compare(one, other) == found, "always the same draws"


def test_a_model_is_as_good_as_itself() -> None:
    found = compare(answers([True, False]), answers([True, False]))
    assert (found.p_accuracy, found.p_f1, found.f1_micro_interval) == (1.0, 1.0, (0.0, 0.0))


def test_models_of_different_tasks_cannot_be_compared() -> None:
    with pytest.raises(ExamplesError, match="compare models of one task"):
        compare(answers([True]), answers([True])._replace(task="multi_label"))
