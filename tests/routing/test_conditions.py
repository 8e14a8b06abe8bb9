"""What routes ask, and what can be told of it without a document."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.documents import ClassScore, Document
from service.routing.conditions import Classes, Node, holds, tree
from service.routing.implications import implies, never_holds
from service.settings import Condition
from tests.records import record

BILLING = (ClassScore("billing", 0.8), ClassScore("refund", 0.5), ClassScore("other", 0.1))
VIOLENCE = (ClassScore("blocklist/slurs", None), ClassScore("Violence", None, 4), ClassScore("Hate", None, 2))
NOTHING: Classes = ()
POINTERS = ("/tier", "/tags", "/urgent")


def condition(asked: dict[str, Any]) -> Node:
    return tree(Condition.model_validate(asked), {"refund": 0.6})


def met(asked: dict[str, Any], classes: Classes, **about: Any) -> bool:
    headers = [("tier", b"gold"), ("tier", b"old"), ("odd", b"\xff")]
    fields = (("gold",), ("vip", 7), (True,))
    read = Document(record(0, headers=headers), "T-1", "x" * 100, **{"language": "de-AT", **about}, read_at=0.0)
    return holds(condition(asked), {"refund": 0.6}, POINTERS)(read._replace(fields=fields), classes)


@pytest.mark.parametrize(
    ("asked", "classes", "meets"),
    [
        ({"class": "billing"}, BILLING, True),
        ({"class": "bill"}, BILLING, False),
        ({"class": "billing"}, NOTHING, False),
        ({"class": "billing", "at_least": 0.8}, BILLING, True),
        ({"class": "billing", "at_least": 0.81}, BILLING, False),
        ({"class": "other"}, BILLING, True),  # also by a class that is not the best
        ({"class": "refund"}, BILLING, False),  # whose threshold is 0.6
        ({"class": "refund", "at_least": 0.5}, BILLING, True),  # the rule's own word counts before it
        ({"class": ["x", "billing"]}, BILLING, True),
        ({"class": ["x", "y"]}, BILLING, False),
        ({"class": "blocklist/slurs", "at_least": 1}, VIOLENCE, True),  # without a score a class is certain
        ({"class": "Violence", "severity_at_least": 4}, VIOLENCE, True),
        ({"class": "Violence", "severity_at_least": 5}, VIOLENCE, False),
        ({"class": "billing", "severity_at_least": 5}, BILLING, True),  # without a severity a class is severe
        ({"class": "billing", "at_least": 0.9, "severity_at_least": 5}, BILLING, False),
        ({"severity_at_least": 4}, VIOLENCE, True),
        ({"severity_at_least": 5}, VIOLENCE, False),
        ({"severity_at_least": 1}, BILLING, False),
        ({"best": ["billing", "x"]}, BILLING, True),
        ({"best": "refund"}, BILLING, False),
        ({"best": "billing"}, NOTHING, False),
        ({"best_at_least": 0.8}, BILLING, True),
        ({"best_below": 0.8}, BILLING, False),
        ({"best_below": 0.81}, BILLING, True),
        ({"best_below": 1}, VIOLENCE, False),
        ({"best_at_least": 1}, VIOLENCE, True),
        ({"best_below": 0.1}, NOTHING, True),  # nothing was found, so nothing is certain
        ({"best_below": 0.9, "best_at_least": 0.7}, BILLING, True),
        ({"margin_below": 0.31}, BILLING, True),
        ({"margin_at_least": 0.31}, BILLING, False),
        ({"margin_at_least": 0.8}, BILLING[:1], True),
        ({"margin_below": 0.1}, NOTHING, True),
        ({"margin_below": 0.1}, VIOLENCE, True),  # both are certain
        ({"margin_at_least": 1}, VIOLENCE[:1], True),
        ({"labels_at_least": 2}, BILLING, True),
        ({"labels_at_least": 3}, BILLING, False),  # refund does not reach its threshold
        ({"labels_at_most": 2}, BILLING, True),
        ({"labels_at_most": 1}, BILLING, False),
        ({"labels_at_most": 0}, NOTHING, True),
        ({"language": "de"}, BILLING, True),
        ({"language": "DE-at"}, BILLING, True),
        ({"language": ["d", "en"]}, BILLING, False),
        ({"language": "de-AT-x"}, BILLING, False),
        ({"characters_at_least": 100}, BILLING, True),
        ({"characters_below": 100}, BILLING, False),
        ({"headers": {"tier": "gold"}}, BILLING, True),
        ({"headers": {"tier": ["new", "old"]}}, BILLING, True),
        ({"headers": {"tier": "new"}}, BILLING, False),
        ({"headers": {"Tier": "gold"}}, BILLING, False),
        ({"headers": {"odd": "*"}}, BILLING, True),
        ({"headers": {"even": "*"}}, BILLING, False),
        ({"headers": {"tier": "gold", "even": "*"}}, BILLING, False),
        ({"fields": {"/tier": "gold"}}, BILLING, True),
        ({"fields": {"/tier": ["silver", "gold"], "/tags": 7}}, BILLING, True),
        ({"fields": {"/tags": "vip"}}, BILLING, True),
        ({"fields": {"/tags": "7"}}, BILLING, False),
        ({"fields": {"/urgent": True}}, BILLING, True),
        ({"fields": {"/urgent": 1}}, BILLING, False),  # as in JSON, true is no number
        ({"fields": {"/urgent": "*"}}, BILLING, True),
        ({"not": {"best": "billing"}}, BILLING, False),
        ({"not": {"best_below": 0.5}}, NOTHING, False),
        ({"any": [{"best": "x"}, {"language": "de"}]}, BILLING, True),
        ({"any": [{"best": "x"}, {"language": "en"}]}, BILLING, False),
        ({"all": [{"class": "billing"}, {"class": "other"}]}, BILLING, True),
        ({"all": [{"class": "billing"}, {"class": "x"}], "best": "billing"}, BILLING, False),
        ({"best": "billing", "any": [{"best_at_least": 0.9}, {"not": {"language": "en"}}]}, BILLING, True),
    ],
)
def test_a_condition_holds_where_it_should(asked: dict[str, Any], classes: Classes, meets: bool) -> None:
    assert met(asked, classes) is meets


def test_a_document_without_a_language_has_none_of_those_that_are_asked_for() -> None:
    assert not met({"language": "de"}, BILLING, language=None)
    assert met({"not": {"language": "de"}}, BILLING, language=None)


@pytest.mark.parametrize(
    ("narrow", "wide"),
    [
        ({"class": "a", "at_least": 0.9}, {"class": "a"}),
        ({"class": "a"}, {"class": ["a", "b"]}),
        ({"class": "a", "language": "de"}, {"class": "a"}),
        ({"best": "a"}, {"best": ["a", "b"]}),
        ({"best_below": 0.3}, {"best_below": 0.4}),
        ({"best_at_least": 0.3, "best_below": 0.4}, {"best_below": 0.4}),
        ({"not": {"best_below": 0.4}}, {"not": {"best_below": 0.3}}),
        ({"any": [{"best": "a"}, {"best": "b"}]}, {"best": ["a", "b"]}),
        ({"all": [{"best": "a"}, {"language": "de"}]}, {"any": [{"language": ["de", "en"]}, {"best": "x"}]}),
        ({"headers": {"tier": "gold"}}, {"headers": {"tier": "*"}}),
        ({"class": "a", "severity_at_least": 4}, {"class": "a", "severity_at_least": 2}),
    ],
)
def test_what_takes_less_is_told_from_what_takes_more(narrow: dict[str, Any], wide: dict[str, Any]) -> None:
    assert implies(condition(narrow), condition(wide))
    assert not implies(condition(wide), condition(narrow))


@pytest.mark.parametrize(
    "asked",
    [
        {"best_below": 0.3, "best_at_least": 0.3},
        {"labels_at_least": 2, "labels_at_most": 1},
        {"best": "a", "all": [{"best": ["b", "c"]}]},
        {"best_at_least": 0.5, "all": [{"language": "de"}, {"all": [{"best_below": 0.4}]}]},
        {"best": "a", "not": {"best": ["a", "b"]}},
        {"any": [{"best_below": 0}, {"best_below": 0.3, "best_at_least": 0.4}], "language": "de"},
    ],
)
def test_what_contradicts_itself_is_told(asked: dict[str, Any]) -> None:
    assert never_holds(condition(asked))


SHARE = st.sampled_from([0.0, 0.3, 0.5, 1.0])
NAME = st.sampled_from(["a", "b", "refund"])
ATOMS = st.one_of(
    st.fixed_dictionaries({"class": NAME}, optional={"at_least": SHARE, "severity_at_least": st.integers(1, 3)}),
    st.builds(lambda low, high: {"best_at_least": low, "best_below": high}, SHARE, SHARE),
    st.builds(lambda low: {"margin_below": low}, SHARE),
    st.builds(lambda names: {"best": names}, st.lists(NAME, min_size=1, max_size=2)),
    st.builds(lambda count: {"labels_at_least": count}, st.integers(0, 3)),
    st.builds(lambda value: {"headers": {"tier": value}}, st.sampled_from(["gold", "new", "*"])),
    st.builds(lambda value: {"language": value}, st.sampled_from(["de", "de-at", "en"])),
)
ASKED = st.recursive(
    ATOMS,
    lambda inner: st.one_of(
        st.builds(lambda parts: {"all": parts}, st.lists(inner, min_size=1, max_size=3)),
        st.builds(lambda parts: {"any": parts}, st.lists(inner, min_size=1, max_size=3)),
        st.builds(lambda part: {"not": part}, inner),
    ),
    max_leaves=6,
)
FOUND = st.lists(
    st.builds(ClassScore, NAME, st.none() | SHARE, st.none() | st.integers(1, 3)),
    max_size=3,
    unique_by=lambda found: found.name,
)


@given(ASKED, ASKED, FOUND)
def test_what_is_told_of_conditions_is_never_wrong(
    one: dict[str, Any], other: dict[str, Any], found: list[ClassScore]
) -> None:
    if met(one, found):
        assert not never_holds(condition(one))
        assert met(other, found) or not implies(condition(one), condition(other))
    assert met({"not": one}, found) is not met(one, found)
    assert met({"all": [one, other]}, found) is (met(one, found) and met(other, found))
    assert met({"any": [one, other]}, found) is (met(one, found) or met(other, found))
