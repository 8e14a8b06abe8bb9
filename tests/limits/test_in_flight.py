"""How many calls are out at once, decided by hand-made rounds; `test_admission.py` has whole services."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.limits.in_flight import START, Adaptive, kind_of


def rounds(adaptive: Adaptive, count: int, took: float, *, needed: bool = True, begin: float = 0.0) -> float:
    """Let so many rounds of calls pass that all take as long, and all are out at once."""
    now = begin
    for _ in range(count):
        asked_at, limit = now, adaptive.limit
        now += took
        if needed:
            adaptive.needed()
        for _ in range(max(limit, 4)):
            adaptive.answered(kind_of(1000, 1), asked_at, took, limit, now)
        now += 1e-6
    return now


def test_it_grows_where_calls_are_held_for_it_and_nothing_speaks_against_it() -> None:
    adaptive = Adaptive(most=300)
    rounds(adaptive, 10, 0.1)
    assert adaptive.limit == 300


def test_it_does_not_grow_unless_it_is_needed() -> None:
    adaptive = Adaptive()
    rounds(adaptive, 50, 0.1, needed=False)
    assert adaptive.limit == START


def test_it_shrinks_when_calls_take_longer_than_is_typical() -> None:
    adaptive = Adaptive()
    now = rounds(adaptive, 5, 0.1)
    before = adaptive.limit
    rounds(adaptive, 1, 0.5, begin=now)
    assert adaptive.limit == before // 2


def test_it_goes_back_where_shrinking_did_not_make_calls_any_faster() -> None:
    adaptive = Adaptive(most=100)
    now = rounds(adaptive, 8, 0.1)
    now = rounds(adaptive, 2, 0.5, begin=now)
    assert adaptive.limit == 100
    now = rounds(adaptive, 30, 0.5, begin=now)
    assert adaptive.limit == 100, "this is what is typical by now"


def test_calls_of_before_a_decision_do_not_count_for_the_next() -> None:
    adaptive = Adaptive()
    now = rounds(adaptive, 5, 60)
    before = adaptive.limit
    for _ in range(1000):
        adaptive.answered(kind_of(1000, 1), now - 30, 600, before, now + 570)
    assert adaptive.limit == before


def test_a_number_that_was_refused_is_not_gone_beyond_for_a_while() -> None:
    adaptive = Adaptive(most=100)
    now = rounds(adaptive, 2, 0.1)
    limit = adaptive.limit
    adaptive.throttled(now + 0.05, limit + 1, now + 0.1)
    adaptive.throttled(now + 0.05, limit, now + 0.1)  # was out with it, and says the same
    assert adaptive.limit == limit - limit // 10
    rounds(adaptive, 7, 0.1, begin=now + 0.2)
    assert adaptive.limit == limit
    rounds(adaptive, 200, 0.1, begin=now + 100)
    assert adaptive.limit > limit


def test_a_refusal_of_fewer_than_were_answered_does_not_come_of_their_number() -> None:
    adaptive = Adaptive(most=100)
    now = rounds(adaptive, 8, 0.1)
    adaptive.throttled(now + 0.05, 40, now + 0.1)
    assert adaptive.limit == 100


@given(st.lists(st.tuples(st.floats(0, 1000), st.integers(0, 100_000), st.booleans()), max_size=500))
def test_it_never_leaves_its_bounds(calls: list[tuple[float, int, bool]]) -> None:
    adaptive, now = Adaptive(most=50), 0.0
    for took, characters, refused in calls:
        adaptive.needed()
        if refused:
            adaptive.throttled(now, adaptive.limit, now + took)
        else:
            adaptive.answered(kind_of(characters, 1), now, took, adaptive.limit, now + took)
        now += took
        assert 1 <= adaptive.limit <= 50


@pytest.mark.parametrize(("one", "other"), [(1000, 1001), (10, 10), (100_000, 110_000)])
def test_calls_of_about_one_size_are_of_a_kind(one: int, other: int) -> None:
    assert kind_of(one, 25) == kind_of(other, 25)


@pytest.mark.parametrize(("one", "other"), [((1000, 1), (1000, 25)), ((1000, 1), (1300, 1)), ((0, 1), (1, 1))])
def test_calls_of_different_sizes_are_not(one: tuple[int, int], other: tuple[int, int]) -> None:
    assert kind_of(*one) != kind_of(*other)


def test_one_call_alone_that_is_throttled_is_not_one_too_many() -> None:
    adaptive = Adaptive(most=100)
    adaptive.throttled(0.0, 1, 0.1)
    adaptive.throttled(1.2, 1, 1.3)
    now = rounds(adaptive, 12, 0.1, begin=2.0)
    assert adaptive.limit == 100
    assert now < 5


def test_a_number_that_was_throttled_once_is_tried_again_after_some_rounds_and_if_confirmed_after_many() -> None:
    adaptive = Adaptive(most=40)
    now = rounds(adaptive, 2, 0.1)
    adaptive.throttled(now, 30, now)
    now = rounds(adaptive, 7, 0.1, begin=now)
    assert adaptive.limit < 30
    now = rounds(adaptive, 20, 0.1, begin=now)
    assert adaptive.limit == 40
    for _ in range(2):  # that many were answered, until they are not any more
        now += 1
        adaptive.throttled(now, 30, now)
    assert adaptive.limit < 30
    now = rounds(adaptive, 30, 0.1, begin=now)
    assert adaptive.limit < 30, "it is confirmed"
    rounds(adaptive, 60, 0.1, begin=now)
    assert adaptive.limit == 40


def test_where_answers_are_few_it_is_tried_again_by_the_clock() -> None:
    adaptive = Adaptive(most=8)
    adaptive.throttled(0.0, 4, 60.0)
    adaptive.throttled(61.0, 4, 120.0)
    assert adaptive.limit == 3
    rounds(adaptive, 14, 60.0, begin=120.0)
    assert adaptive.limit == 8
