from collections.abc import Callable

import pytest

from service import settings
from service.limits.breaker import (
    FIRST_WAIT,
    LEAST_SILENCE,
    LONGEST_AT_FIRST,
    STRANGE_SILENCE,
    BackOff,
    Breaker,
    BreakerStatistics,
    State,
    Why,
)

HOUR = 3600.0


def longest() -> float:
    return 1.0


def breaker(chance: Callable[[], float] = longest, **evidence: float) -> Breaker:
    return Breaker(settings.Breaker.model_validate(evidence), chance)


def state(asked: Breaker) -> State:
    return asked.state


def answered(asked: Breaker, now: float, took: float = 0.1) -> None:
    asked.asked(now)
    asked.answered(now, took, now + took)


def failed(asked: Breaker, now: float, *, times: int = 1) -> None:
    for _ in range(times):
        asked.asked(now)
        asked.failed(now, now)


def opened(chance: Callable[[], float] = longest, **evidence: float) -> Breaker:
    asked = breaker(chance, **evidence)
    failed(asked, 0.0, times=5)
    assert state(asked) is State.OPEN
    return asked


def test_it_lets_calls_out_while_they_are_answered() -> None:
    asked = breaker()
    for i in range(1000):
        assert not asked.holds(float(i))
        answered(asked, float(i))
    assert state(asked) is State.CLOSED


def test_it_opens_after_so_many_failures_in_a_row_and_not_before() -> None:
    asked = breaker(failures=3)
    for i in range(10):
        failed(asked, float(i), times=2)
        answered(asked, float(i))
    assert state(asked) is State.CLOSED
    failed(asked, 20.0, times=3)
    assert state(asked) is State.OPEN
    assert asked.holds(20.0)
    assert asked.statistics(20.0).why is Why.IN_A_ROW


@pytest.mark.parametrize(("of_ten", "expected"), [(3, State.CLOSED), (5, State.OPEN)])
def test_it_opens_on_the_share_of_failures(of_ten: int, expected: State) -> None:
    asked = breaker(failures=1000, share=0.5, of=20)
    for i in range(50):
        for each in range(10):
            if state(asked) is State.CLOSED:
                (failed if each < of_ten else answered)(asked, i / 10)
    assert state(asked) is expected


def test_few_calls_tell_nothing_of_a_share() -> None:
    asked = breaker(failures=1000, share=0.5, of=20)
    failed(asked, 0.0, times=19)
    assert state(asked) is State.CLOSED
    failed(asked, 0.0)
    assert asked.statistics(0.0).why is Why.SHARE


def test_what_failed_long_ago_is_forgotten() -> None:
    asked = breaker(failures=1000, share=0.5, of=20)
    for i in range(100):
        failed(asked, 2.0 * i)
    assert state(asked) is State.CLOSED


def test_it_opens_when_nothing_is_answered_for_much_longer_than_is_usual() -> None:
    asked = breaker()
    for i in range(100):
        answered(asked, i / 10)
    for _ in range(16):
        asked.asked(20.0)
    assert asked.silent_at == 20.0 + LEAST_SILENCE
    assert not asked.holds(asked.silent_at - 0.01)
    assert asked.holds(asked.silent_at)
    assert asked.statistics(25.0).why is Why.SILENCE


def test_a_silence_is_what_is_long_for_this_service() -> None:
    asked = breaker()
    for i in range(100):
        answered(asked, 100.0 * i, took=60.0)
    asked.asked(20_000.0)
    assert 200 < asked.silent_at - 20_000.0 < 400


def test_one_answer_ends_a_silence() -> None:
    asked = breaker()
    answered(asked, 0.0)
    asked.asked(10.0)
    asked.asked(10.0)
    asked.answered(10.0, 4.0, 14.0)
    assert not asked.holds(10.0 + LEAST_SILENCE)
    assert asked.silent_at > 14.0 + LEAST_SILENCE - 0.01


def test_nothing_is_silent_where_nothing_is_out() -> None:
    asked = breaker()
    answered(asked, 0.0)
    assert not asked.holds(HOUR)
    asked.asked(HOUR)
    asked.dropped(HOUR, HOUR + 1)
    assert not asked.holds(2 * HOUR)


def test_a_service_nobody_knows_may_be_silent_for_longer() -> None:
    asked = breaker()
    asked.asked(0.0)
    assert not asked.holds(STRANGE_SILENCE - 0.01)
    assert asked.holds(STRANGE_SILENCE)


def test_what_was_only_slow_closes_it_when_it_answers_after_all() -> None:
    asked = breaker()
    answered(asked, 0.0)
    asked.asked(10.0)
    assert asked.holds(16.0)
    asked.answered(10.0, 6.1, 16.1)
    assert state(asked) is State.CLOSED


def test_slow_answers_are_failures_where_somebody_says_what_is_slow() -> None:
    asked = breaker(slow_after=2)
    for i in range(5):
        answered(asked, float(i), took=2.1)
    assert state(asked) is State.OPEN
    assert breaker().silent_at == float("inf")
    slow = breaker()
    for i in range(50):
        answered(slow, 100.0 * i, took=60.0)
    assert state(slow) is State.CLOSED, "an answer is an answer"


def test_it_lets_one_call_out_at_a_time_and_closes_with_the_first_answer() -> None:
    asked = opened()
    assert asked.holds(FIRST_WAIT - 0.01)
    assert not asked.holds(FIRST_WAIT)
    asked.asked(FIRST_WAIT)
    assert state(asked) is State.HALF_OPEN
    assert asked.holds(FIRST_WAIT), "the others wait"
    asked.answered(FIRST_WAIT, 0.1, FIRST_WAIT + 0.1)
    assert state(asked) is State.CLOSED
    assert not asked.holds(FIRST_WAIT + 0.1)


def test_a_trial_that_fails_opens_it_again_for_longer() -> None:
    asked, waits = opened(), []
    for _ in range(6):
        at = asked.try_at
        asked.asked(at)
        assert state(asked) is State.HALF_OPEN
        asked.failed(at, at)
        assert state(asked) is State.OPEN
        waits.append(asked.try_at - at)
    assert waits == [1, 2, 4, 4, 4, 4]


def test_between_trials_pass_a_twentieth_of_the_outage_and_half_a_minute_at_most() -> None:
    asked = opened()
    for _ in range(1000):
        before = asked.try_at
        failed(asked, before)
        wait = asked.try_at - before
        assert wait <= min(30.0, max(LONGEST_AT_FIRST, before / 20)) + 1e-9
    assert wait == 30.0
    assert asked.statistics(0.0).trials == 1000


def test_a_trial_that_is_not_heard_of_keeps_no_later_one_back() -> None:
    asked = opened()
    lost = asked.try_at
    asked.asked(lost)
    second = asked.try_at
    assert second == lost + 1
    assert not asked.holds(second)
    asked.asked(second)
    asked.failed(lost, second)
    assert state(asked) is State.OPEN
    asked.answered(second, 0.1, second + 0.1)
    assert state(asked) is State.CLOSED
    asked.asked(second + 1)
    assert not asked.holds(second + 1 + HOUR) or asked.statistics(0.0).why is Why.SILENCE


def test_a_trial_that_tells_nothing_is_followed_by_another_at_once() -> None:
    asked = opened()
    trial = asked.try_at
    asked.asked(trial)
    asked.dropped(trial, trial + 0.1)
    assert not asked.holds(trial + 0.1)


def test_waits_are_spread_by_chance_over_their_second_half() -> None:
    assert opened(lambda: 0.0).try_at == FIRST_WAIT / 2
    assert opened(lambda: 0.5).try_at == FIRST_WAIT * 3 / 4
    waits = BackOff(lambda: 0.0)
    assert [waits.next(30.0) for _ in range(8)] == [0.25, 0.5, 1, 2, 4, 8, 15, 15]
    waits.reset()
    assert waits.next(30.0) == 0.25


def test_calls_that_were_out_together_and_fail_are_one_outage() -> None:
    asked = breaker()
    for _ in range(50):
        asked.asked(0.0)
    for i in range(50):
        asked.failed(0.0, 1 + i / 10)
    assert asked.statistics(10.0).opened == 1
    assert asked.try_at == 1.4 + FIRST_WAIT, "those that fail later say nothing new"


def test_what_was_asked_before_it_closed_does_not_open_it_again() -> None:
    asked = breaker()
    answered(asked, -10.0)
    for _ in range(16):
        asked.asked(0.0)
    assert asked.holds(LEAST_SILENCE)
    answered(asked, LEAST_SILENCE + 1)
    for _ in range(16):
        asked.failed(0.0, 30.0)
    assert not asked.holds(HOUR)
    assert state(asked) is State.CLOSED


def test_jobs_that_are_accepted_and_always_lost_open_it() -> None:
    asked = breaker()
    for i in range(20):
        asked.asked(i / 10)
        asked.answered(i / 10, 0.01, i / 10)
        asked.lost(i / 10, i / 10)
        if state(asked) is State.OPEN:
            break
    assert asked.statistics(2.0).why is Why.SHARE


def test_every_change_is_told_once() -> None:
    told: list[BreakerStatistics] = []
    asked = breaker()
    asked.changed = told.append
    failed(asked, 0.0, times=7)
    failed(asked, 1.0)
    answered(asked, 5.0)
    assert [each.state for each in told] == [
        *(State.OPEN, State.HALF_OPEN, State.OPEN),
        *(State.HALF_OPEN, State.OPEN),  # by the three that were let out although it was open
        *(State.HALF_OPEN, State.OPEN),
        *(State.HALF_OPEN, State.CLOSED),
    ]
    assert told[0] == BreakerStatistics(State.OPEN, Why.IN_A_ROW, failures=5, opened=1)
    assert told[-1].trials == 4
    assert told[-1].away == pytest.approx(5.1)
