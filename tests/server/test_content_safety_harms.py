from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.errors import Misconfigured
from service.server.content_safety_harms import CATEGORIES, Harms, severity
from tests.server.content_safety import NOT_OF_IT, OF_IT


def test_a_category_without_a_model_has_no_severity() -> None:
    assert Harms.load([]).severities("I hate them all", CATEGORIES) == dict.fromkeys(CATEGORIES, 0)


def test_a_model_answers_by_its_class_of_that_name_by_positive_or_by_its_only_one(harm_models: Path) -> None:
    harms = Harms.load(
        [
            f"Hate={harm_models / 'drugs'}",
            f"SelfHarm={harm_models / 'moderation'}",
            f"Violence={harm_models / 'moderation'}",
            f"Sexual={harm_models / 'verdict'}",
        ]
    )
    found = harms.severities(OF_IT, CATEGORIES)
    assert found["Hate"] >= 4
    assert list(found) == list(CATEGORIES)
    assert harms.severities(NOT_OF_IT, ["Hate"]) == {"Hate": 0}
    found = harms.severities("the invoice is wrong, charged after cancelling", CATEGORIES)
    assert found["SelfHarm"] >= 4 > found["Violence"]
    assert harms.severities("it crashes with an error", ["Sexual"])["Sexual"] >= 4


def test_only_what_is_asked_for_is_answered() -> None:
    assert Harms.load([]).severities("x", ["Violence", "Hate"]) == {"Hate": 0, "Violence": 0}
    assert Harms.load([]).severities("x", []) == {}


@pytest.mark.parametrize(
    ("score", "boundary", "expected"),
    [
        *((n / 8, 0.5, n) for n in range(8)),
        (1.0, 0.5, 7),
        (0.499, 0.5, 3),
        (0.2, 0.2, 4),
        (0.19, 0.2, 3),
        (0.04, 0.2, 0),
        (0.99, 0.2, 7),
    ],
)
def test_a_severity_is_the_eighth_that_a_score_is_in_and_4_where_the_class_begins(
    score: float, boundary: float, expected: int
) -> None:
    assert severity(score, boundary) == expected


@given(scores=st.tuples(st.floats(0, 1), st.floats(0, 1)), boundary=st.floats(0.001, 0.999))
def test_a_higher_score_is_never_less_severe(scores: tuple[float, float], boundary: float) -> None:
    low, high = sorted(scores)
    assert 0 <= severity(low, boundary) <= severity(high, boundary) <= 7


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ("Rudeness=models/x", "Rudeness=models/x' is not CATEGORY=FOLDER, with a category out of Hate, SelfHarm"),
        ("Hate", "is not CATEGORY=FOLDER"),
        ("Hate=", "is not CATEGORY=FOLDER"),
        ("Hate=nowhere", "--harm-model Hate: .*nowhere"),
    ],
)
def test_a_registration_that_cannot_be_is_refused(given: str, reason: str) -> None:
    with pytest.raises(Misconfigured, match=reason):
        Harms.load([given])


def test_a_model_without_a_fitting_class_is_refused(harm_models: Path) -> None:
    with pytest.raises(Misconfigured, match="'moderation' has no class 'hate' or 'positive', but 2 others"):
        Harms.load([f"Hate={harm_models / 'moderation'}"])
