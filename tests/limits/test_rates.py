import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.limits.rates import OF_WHAT_WAS_TAKEN, SLACK, TICK, LearntRate, LeasedRate, Rate


@given(st.floats(0.1, 1000), st.lists(st.floats(0, 50), min_size=1, max_size=50), st.floats(0, 2))
def test_a_rate_that_is_asked_for_more_gives_exactly_its_rate(
    per_second: float, amounts: list[float], late: float
) -> None:
    rate, began, taken = Rate(per_second), 1000.0, 0.0
    moment = began
    for amount in amounts:
        while rate.holds(moment):
            moment = rate.free_at
        assert moment - began == pytest.approx(max(0, taken / per_second - TICK), abs=1e-6)
        rate.take(amount, moment)
        taken += amount
    if rate.holds(moment):
        moment = rate.free_at
    moment += late
    assert not rate.holds(moment)  # whoever finds out late makes up for it, within the slack
    rate.take(per_second, moment)
    assert 1 - SLACK - 1e-6 <= rate.free_at - moment <= 1 + 1e-6


def test_a_large_amount_delays_what_comes_after_it_and_never_itself() -> None:
    rate = Rate(10)
    assert not rate.holds(100)
    rate.take(1000, 100)
    assert rate.holds(199.9)
    assert not rate.holds(200)


def test_who_waited_and_is_woken_late_loses_nothing() -> None:
    rate, moment = Rate(40), 1000.0
    for _ in range(400):
        while rate.holds(moment):
            moment = rate.free_at + 0.011
        rate.take(1, moment)
    assert moment == pytest.approx(1000 + 399 / 40 + 0.011, abs=2 * TICK)


def test_what_is_idle_while_it_is_let_be_is_not_made_up_for() -> None:
    rate = Rate(10)
    rate.take(1, 100)
    assert rate.holds(100)
    rate.is_let_be()
    assert not rate.holds(130)
    rate.take(1, 130)
    assert rate.free_at == pytest.approx(130.1 - TICK)


def test_idle_time_is_not_saved_up() -> None:
    rate = Rate(40)
    rate.take(1, 1000)
    rate.take(1, 2000)
    assert rate.free_at == pytest.approx(2000 + 1 / 40 - TICK)


@given(st.lists(st.floats(0, 0.3), min_size=100, max_size=300))
def test_no_second_sees_more_than_its_rate_and_what_was_made_up_for(pauses: list[float]) -> None:
    rate, moment, went = Rate(40), 1000.0, list[float]()
    for pause in pauses:
        while rate.holds(moment):
            moment = rate.free_at
        rate.take(1, moment)
        went.append(moment)
        moment += pause
    for first in went:
        assert sum(first <= at < first + 1 for at in went) <= 40 * (1 + SLACK + TICK) + 1


def asked(rate: LearntRate, quota: float, seconds: float, begin: float) -> tuple[float, int, float]:
    """Ask for more than a quota gives, in whole seconds of it: what was taken a second, what was refused, and when."""
    now, taken, refused, left, second = begin, 0, 0, quota, begin
    while now < begin + seconds:
        if now >= second + 1:
            second, left = second + 1, quota
        if rate.holds(now):
            now = rate.free_at
            continue
        rate.take(1, now)
        if left >= 1:
            taken, left = taken + 1, left - 1
            rate.accepted(now)
        else:
            refused += 1
            rate.refused(now, now)
            now += 0.5  # as long as the account is left alone
        now += 0.0005
    return taken / seconds, refused, now


def test_nothing_is_held_until_something_is_refused() -> None:
    rate = LearntRate()
    for i in range(10_000):
        assert not rate.holds(1000 + i * 1e-6)
        rate.take(1, 1000 + i * 1e-6)


@pytest.mark.parametrize("quota", [5, 40, 300])
def test_a_quota_is_learnt_and_then_seldom_exceeded(quota: float) -> None:
    rate = LearntRate()
    *_, now = asked(rate, quota, 60, 1000)
    taken, refused, _ = asked(rate, quota, 300, now)
    assert taken >= 0.9 * quota
    assert refused <= 0.003 * taken * 300 + 3


def test_refusals_of_what_was_asked_for_before_a_decision_are_known() -> None:
    rate = LearntRate()
    for i in range(100):
        rate.take(1, 1000 + i / 100)
    rate.accepted(1000.2)
    rate.refused(1000.5, 1001)
    learnt = rate.per_second
    rate.refused(1000.9, 1001.1)
    assert rate.per_second == learnt == pytest.approx(OF_WHAT_WAS_TAKEN * 100, rel=0.02)


def test_what_takes_nothing_at_all_for_a_while_says_nothing_of_how_much_it_takes_then() -> None:
    rate = LearntRate()
    *_, now = asked(rate, 40, 60, 1000)
    learnt = rate.per_second
    taken, refused, now = asked(rate, 0, 60, now)
    assert taken == 0
    assert rate.per_second == pytest.approx(learnt, rel=0.1)
    assert refused > 50
    taken, *_ = asked(rate, 40, 10, now)
    assert taken >= 0.85 * 40


def test_what_is_not_needed_is_not_tried() -> None:
    rate = LearntRate()
    rate.take(1, 1000)
    rate.take(1, 1000)
    rate.accepted(1000)
    rate.refused(1000, 1001)
    learnt = rate.per_second
    for i in range(1000):
        assert not rate.holds(1010 + i * 10)
        rate.take(1, 1010 + i * 10)
    assert rate.per_second == learnt


def test_what_is_refused_before_anything_was_taken_says_nothing_of_a_quota() -> None:
    rate = LearntRate()
    for i in range(3):
        rate.take(1, 1000 + 2 * i)
        rate.refused(1000 + 2 * i, 1001 + 2 * i)
    assert not rate.holds(1006)
    taken, refused, _ = asked(rate, 1e9, 10, 1006)
    assert (refused, taken > 1000) == (0, True)


def test_one_refusal_while_there_was_little_to_ask_for_does_not_hold_up_what_comes_then() -> None:
    rate, now = LearntRate(), 1000.0
    for _ in range(60):
        rate.take(1, now)
        rate.accepted(now)
        now += 1
    rate.take(1, now)
    rate.refused(now, now + 0.1)
    assert rate.per_second == pytest.approx(1, rel=0.1), "that is all that is known"
    *_, now = asked(rate, 100, 60, now + 1)
    taken, *_ = asked(rate, 100, 60, now)
    assert taken > 85


def leased(per_second: float = 10.0) -> LeasedRate:
    rate = LeasedRate(per_second)
    rate.go_by_slices(0.0)
    return rate


def test_nothing_goes_but_in_a_slice_and_then_at_the_whole_rate() -> None:
    rate = leased()
    assert rate.holds(0.0)
    assert rate.free_at == float("inf"), "somebody has to give something first"
    rate.give(1.0, 0.3)
    assert rate.holds(0.5)
    assert rate.free_at == 1.0
    went = 0
    moment = 1.0
    while not rate.holds(moment) or rate.free_at < float("inf"):
        moment = max(moment, rate.free_at)
        if not rate.holds(moment):
            rate.take(1, moment)
            went += 1
    assert went == 3
    assert moment < 1.3


def test_a_slice_that_was_not_used_is_gone() -> None:
    rate = leased()
    rate.give(0.0, 0.1)
    assert rate.holds(0.2)
    assert rate.free_at == float("inf")


def test_what_is_larger_than_its_slice_comes_off_the_next() -> None:
    rate = leased()
    rate.give(0.0, 0.1)
    assert not rate.holds(0.0)
    rate.take(5, 0.0)
    assert rate.wants(1, 0.0) == pytest.approx(0.1 + 0.4, abs=0.01)
    rate.give(1.0, 0.3)
    assert rate.holds(1.0)
    rate.give(2.0, 0.3)
    assert rate.holds(2.0)
    assert rate.free_at == pytest.approx(2.1, abs=0.01)


def test_no_more_is_asked_for_than_is_lacking() -> None:
    rate = leased()
    rate.give(0.0, 0.3)
    assert rate.wants(3, 0.0) == 0
    assert rate.wants(4, 0.0) == pytest.approx(0.1)
    assert rate.wants(3, 0.2) == pytest.approx(0.2), "what is past is no use"


def test_without_slices_it_goes_by_its_share() -> None:
    rate = leased()
    rate.share(0.25)
    assert rate.per_second == 10
    rate.go_by_share(5.0)
    assert rate.per_second == 2.5
    assert not rate.holds(5.0)
    rate.take(1, 5.0)
    assert rate.holds(5.3)
    rate.go_by_slices(6.0)
    assert rate.per_second == 10
    assert rate.holds(6.0)
