import heapq
import math
import random
from collections.abc import Callable

import pytest

from service.jobs.poll_times import CHEAP, DEAR, PollTimes

_WAY = 0.002
"""Seconds of a request, there and back."""
Durations = Callable[[random.Random, int], float]


def spread(width: float) -> Durations:
    """100 ms in the median, and differing by so much (the standard deviation of the logarithm)."""
    return lambda chance, _: 0.1 * math.exp(width * chance.gauss())


def played(durations: Durations, times: PollTimes, jobs: int = 8_000, at_once: int = 32) -> tuple[float, float, float]:
    """Jobs a second, polls a job, and how late answers were over durations, when all has been learnt."""
    chance, submitted = random.Random(5), 0  # noqa: S311  repeatable
    out, told = list[tuple[float, int, float, float, float, int]](), list[tuple[float, int, float]]()

    def submit(now: float) -> None:
        nonlocal submitted
        submitted += 1
        heapq.heappush(out, (now + times.first(), submitted, now, durations(chance, submitted), 0.0, 1))

    for _ in range(at_once):
        submit(0.0)
    while len(told) < jobs:
        now, number, began, duration, undone, polls = heapq.heappop(out)
        age = now - began
        if age >= duration:
            times.observe(undone, age, _WAY)
            told.append((now, polls, (age - duration) / duration))
            submit(now + 2 * _WAY)
        else:
            heapq.heappush(out, (now + _WAY + times.following(age, polls), number, began, duration, age, polls + 1))
    known = told[jobs // 2 :]
    lasting = known[-1][0] - known[0][0]
    polls_a_job, lateness = (sum(each[of] for each in known) / len(known) for of in (1, 2))
    return len(known) / lasting, polls_a_job, lateness


def test_jobs_that_all_take_the_same_time_are_asked_after_once_and_hardly_late() -> None:
    _, polls, late = played(lambda chance, _: 0.1 + chance.uniform(0, 0.002), PollTimes())
    assert polls < 1.15
    assert late < 0.02


@pytest.mark.parametrize(
    ("width", "most_late", "most_polls"), [(0.02, 0.04, 1.3), (0.1, 0.1, 2), (0.25, 0.2, 2.3), (0.5, 0.45, 2.5)]
)
def test_jobs_that_differ_are_not_all_waited_for_as_the_slowest_is(
    width: float, most_late: float, most_polls: float
) -> None:
    _, polls, late = played(spread(width), PollTimes())
    assert polls <= most_polls
    assert late <= most_late


def test_where_requests_are_scarce_fewer_are_made_and_answers_come_later() -> None:
    _, often, soon = played(spread(0.5), PollTimes(worth=lambda: CHEAP))
    _, seldom, late = played(spread(0.5), PollTimes(worth=lambda: DEAR))
    assert seldom < 1.7
    assert often > 2
    assert soon < late


@pytest.mark.parametrize("later", [0.03, 0.08, 0.13, 0.4])
def test_a_service_that_becomes_faster_or_slower_is_followed_within_some_hundred_jobs(later: float) -> None:
    times = PollTimes()
    played(lambda _, number: 0.1 if number < 2_000 else later, times, 3_000)
    assert 0.98 * later <= times.usual <= 1.06 * later + 0.002


def test_a_service_of_two_speeds_does_not_wait_for_the_slow_one_with_all() -> None:
    a_second, _, _ = played(lambda chance, _: 0.1 if chance.random() < 0.7 else 0.4, PollTimes())
    assert a_second > 0.75 * 32 / (0.7 * 0.1 + 0.3 * 0.4)


def test_a_job_in_some_hundred_that_hangs_does_not_make_the_others_late() -> None:
    _, polls, late = played(lambda chance, _: 3.0 if chance.random() < 0.003 else 0.1, PollTimes())
    assert polls < 1.3
    assert late < 0.03


def test_a_job_that_is_never_done_is_asked_after_less_and_less() -> None:
    times = PollTimes()
    for _ in range(500):
        times.observe(0, times.first())
        times.observe(0.9 * times.usual, times.usual)
    age, looks = times.usual, 1
    while age < 600:
        age, looks = age + times.following(age, looks), looks + 1
    assert looks < 40
    assert times.following(age, looks) <= 120


@pytest.mark.parametrize("took", [1e-9, 1e-3, 3600.0, 1e9])
def test_whatever_jobs_take_there_is_a_time_to_look(took: float) -> None:
    times = PollTimes()
    for undone in (0.0, 0.5 * took, 0.99 * took, took):
        for _ in range(50):
            times.observe(undone, took, took)
            assert 0.001 <= times.first() <= 3600
            assert 0.001 <= times.following(took, 3) <= 120


def test_a_first_job_that_had_to_start_the_service_is_soon_known_for_no_measure_of_the_others() -> None:
    times, waited = PollTimes(), 0.0
    times.observe(6.0, 10.0)
    for _ in range(10):  # rounds of four at a time
        looks = [times.first() for _ in range(4)]
        waited += max(looks)
        for look in looks:
            times.observe(0.0 if look >= 0.05 else look, max(look, 0.05))
    assert waited < 20
    assert times.usual < 0.1


def test_polls_that_hang_do_not_make_all_jobs_late() -> None:
    times = PollTimes()
    for number in range(60):
        undone, done = ((0.01, 0.02), (0.1, 0.2), (1.0, 2.0))[number % 3]
        times.observe(undone, done, way=5.0)
    assert times.usual < 1
