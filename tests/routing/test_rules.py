"""The routes of a stream as a whole: which decide, where to, and what is said of routes that make no sense."""

from typing import Any

import orjson
import pytest

from service.documents import ClassScore
from service.errors import Misconfigured
from service.routing.rules import Decision, Rules, check_classes
from service.settings import Stream
from tests.records import document

ROUTES: list[dict[str, Any]] = [
    {"name": "money", "class": ["billing", "refund"], "to": ["billing", "audit"]},
    {"best_below": 0.5, "to": "review"},
    {"name": "long", "characters_at_least": 4, "to": ["review", "archive"]},
]


def stream(*routes: dict[str, Any], **changed: Any) -> Stream:
    names = {"name": "tickets", "input": "in", "classify_with": "a", "output": "out", "dead_letter": "dead"}
    return Stream.model_validate({**names, "routes": routes, **changed})


def decided(settings: Stream, text: str = "abc", **scores: float) -> Decision:
    found = [ClassScore(name, score) for name, score in scores.items()]
    return Rules(settings).decide(document(0, text), found)


def test_every_rule_that_is_met_decides_and_each_topic_gets_one_copy() -> None:
    decision = decided(stream(*ROUTES), "abcd", refund=0.4)
    assert decision.rules == ("money", "routes[1]", "long")
    assert decision.to == ("billing", "audit", "review", "archive")
    assert orjson.loads(decision.told) == {
        "rule": "money",
        "to": ["billing", "audit", "review", "archive"],
        "also": ["routes[1]", "long"],
    }


def test_with_first_match_the_first_that_is_met_decides_alone() -> None:
    decision = decided(stream(*ROUTES, routing="first_match"), "abcd", other=0.4)
    assert (decision.rules, decision.to) == (("routes[1]",), ("review",))
    assert orjson.loads(decision.told) == {"rule": "routes[1]", "to": ["review"]}


@pytest.mark.parametrize("routing", ["every_match", "first_match"])
def test_what_meets_no_rule_goes_where_otherwise_says(routing: str) -> None:
    settings = stream(*ROUTES, routing=routing, otherwise=["rest", "audit"])
    decision = decided(settings, other=0.9)
    assert (decision.rules, decision.to) == (("otherwise",), ("rest", "audit"))
    assert orjson.loads(decision.told) == {"rule": "otherwise", "to": ["rest", "audit"]}
    assert decided(settings, billing=0.9).to == ("billing", "audit")
    assert decided(stream(*ROUTES, routing=routing), other=0.9) == Decision((), (), b"null")


def test_the_topics_of_rules_and_otherwise_are_all_topics_that_are_written() -> None:
    settings = stream(*ROUTES, otherwise="rest")
    assert settings.topics_written == ("out", "billing", "audit", "review", "archive", "rest", "dead")


def test_a_rule_that_contradicts_itself_is_refused() -> None:
    with pytest.raises(Misconfigured, match=r"streams.tickets.routes: nothing can ever meet the rule routes\[1\]"):
        Rules(stream(ROUTES[0], {"best_below": 0.3, "best_at_least": 0.6, "to": "x"}))


def test_a_rule_behind_one_that_takes_all_it_does_is_refused_where_the_first_decides() -> None:
    routes: list[dict[str, Any]] = [
        {"name": "all", "class": "a", "to": "x"},
        {"class": "a", "at_least": 0.9, "language": "de", "to": "y"},
    ]
    with pytest.raises(Misconfigured, match=r"the rule routes\[1\] is never reached: all stands before it"):
        Rules(stream(*routes, routing="first_match"))
    Rules(stream(*reversed(routes), routing="first_match"))
    Rules(stream(*routes))


def test_a_class_without_a_threshold_is_refused_where_others_have_one() -> None:
    with pytest.raises(Misconfigured, match=r"thresholds: there is none for the class 'biling', .* did you mean 'bill"):
        Rules(stream({"any": [{"class": "biling"}, {"best": "x"}], "to": "x"}, thresholds={"billing": 0.5}))
    Rules(stream({"class": "biling", "at_least": 0.5, "to": "x"}, thresholds={"billing": 0.5}))
    Rules(stream({"class": "Hate", "severity_at_least": 5, "to": "x"}, thresholds={"billing": 0.5}))


def test_classes_that_no_account_has_are_refused_where_all_tell_theirs() -> None:
    settings = stream(
        {"name": "r", "class": "refunds", "to": "x"}, {"not": {"best": "bill"}, "to": "x"}, thresholds={"refunds": 0.5}
    )
    with pytest.raises(Misconfigured) as refusal:
        check_classes(settings, [["refund"], ["billing"]])
    assert str(refusal.value).splitlines() == [
        "streams.tickets.routes: r: no account of the stream has the class 'refunds', did you mean 'refund'?",
        "streams.tickets.routes: routes[1]: no account of the stream has the class 'bill', did you mean 'billing'?",
    ]
    check_classes(settings, [["refund"], None])
    check_classes(settings, [["refund", "refunds"], ["bill"]])
