"""What becomes of each decision, and what is learnt of all of them."""

from typing import Any

import orjson
import pytest

from service.documents import Record
from service.review.join import Became, Decision, Question, Reviews, agreement, decision, question
from tests.records import record

HOUR = 3_600_000


def asked(name: str, best: str = "billing", offered: tuple[str, ...] | None = None) -> Question:
    return Question(name, f"text of {name}", (best,), offered, best, at=HOUR)


def decided(name: str, *labels: str, at: int = HOUR + 1) -> Decision:
    return Decision(name, labels, at)


def joined(*questions: Question) -> Reviews:
    reviews = Reviews(within=3600)
    for each in questions:
        reviews.ask(each)
    return reviews


def test_decisions_agree_or_correct_and_that_is_told_by_class() -> None:
    reviews = joined(asked("1"), asked("2"), asked("3"), asked("4", "refund"))
    became = [reviews.decide(decided(name, "billing")) for name in "1234"]
    assert became == [Became.AGREED, Became.AGREED, Became.AGREED, Became.CORRECTED]
    assert reviews.decide(decided("3", "refund")) is Became.CORRECTED
    assert agreement(reviews.became) == {"billing": 2 / 3, "refund": 0.0}
    assert [(each.question.id, each.labels) for each in reviews.decided if each.became is Became.CORRECTED] == [
        ("3", ("refund",)),
        ("4", ("billing",)),
    ]


def test_each_decision_that_does_not_count_has_an_outcome() -> None:
    reviews = joined(asked("1"), asked("1"), asked("2", offered=("billing", "refund")), asked("3"))
    assert reviews.decide(decided("1", "billing")) is Became.AGREED
    assert reviews.decide(decided("1", "billing")) is Became.DUPLICATE
    assert reviews.decide(decided("nobody was asked", "billing")) is Became.UNKNOWN
    assert reviews.decide(decided("2", "biling")) is Became.MALFORMED, "a class that is not on offer"
    assert reviews.decide(None) is Became.MALFORMED
    assert reviews.decide(decided("3", "refund", at=2 * HOUR + 1)) is Became.LATE
    assert agreement(reviews.became) == {"billing": 1.0}, "what is late says nothing of the model that there is now"
    assert {each.question.id for each in reviews.decided} == {"1", "3"}, "but is learnt from"


def test_of_several_decisions_the_last_counts_and_only_that() -> None:
    reviews = joined(asked("1"))
    for labels, became in [("refund", Became.CORRECTED), ("billing", Became.AGREED), ("refund", Became.CORRECTED)]:
        assert reviews.decide(decided("1", labels)) is became
    assert +reviews.became == {("billing", Became.CORRECTED): 1, ("billing", Became.REPLACED): 2}
    assert [each.labels for each in reviews.decided] == [("refund",)]


@pytest.mark.parametrize(
    "value",
    [
        None,
        b"",
        b"{",
        b"[]",
        b'"x"',
        b'{"labels": ["a"]}',
        b'{"question": 1, "labels": ["a"]}',
        b'{"question": "1"}',
        b'{"question": "1", "labels": "a"}',
        b'{"question": "1", "labels": [" "]}',
        b'{"question": "1", "labels": [1]}',
        b"\xff",
    ],
)
def test_what_is_no_decision_is_malformed_and_no_question_either(value: bytes | None) -> None:
    there = Record(record(0).position, 0, None, value)
    assert decision(there) is None
    assert question(there) is None


def test_a_decision_may_be_for_no_class_at_all() -> None:
    said: dict[str, Any] = {"question": "1", "labels": [], "reviewer": "passed over"}
    assert decision(record(0, orjson.dumps(said))) == Decision("1", (), record(0).timestamp)


def test_lately_is_by_when_people_decided_and_tells_agreement_that_is_nil() -> None:
    reviews = joined(asked("1"), asked("2"), asked("3", "refund"), asked("4", "refund"))
    for name, at in [("1", HOUR + 1), ("2", HOUR + 9), ("3", HOUR + 9), ("4", 2 * HOUR + 9)]:
        reviews.decide(decided(name, "billing", at=at))
    assert reviews.since(HOUR + 9) == {
        ("billing", Became.AGREED): 1,
        ("billing", Became.CORRECTED): 0,
        ("refund", Became.AGREED): 0,
        ("refund", Became.CORRECTED): 1,
    }, "without the one that is late"
    reviews.decide(decided("2", "refund", at=HOUR + 10))
    assert reviews.since(HOUR + 9)["billing", Became.CORRECTED] == 1, "of several decisions the last counts"


def test_what_was_asked_long_ago_is_let_go_of_with_its_decisions() -> None:
    reviews = joined(asked("1"), asked("2", "refund")._replace(at=2 * HOUR))
    reviews.decide(decided("1", "billing"))
    reviews.decide(decided("2", "refund", at=2 * HOUR + 1))
    reviews.forget(before=2 * HOUR)
    assert +reviews.became == {("refund", Became.AGREED): 1}
    assert reviews.decide(decided("1", "billing")) is Became.UNKNOWN
    assert reviews.decide(decided("2", "refund")) is Became.DUPLICATE
