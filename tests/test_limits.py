import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service import settings
from service.limits import SLACK, Limits, Rate
from tests.clock import now, virtual_time


def limits(**values: float) -> Limits:
    return Limits(settings.Limits.model_validate(values))


@contextmanager
def takes(seconds: float) -> Iterator[None]:
    began = now()
    yield
    assert now() - began == pytest.approx(seconds, abs=1e-6)


@given(st.floats(0.1, 1000), st.lists(st.floats(0, 50), min_size=1, max_size=50), st.floats(0, 2))
def test_a_rate_that_is_asked_for_more_gives_exactly_its_rate(
    per_second: float, amounts: list[float], late: float
) -> None:
    rate, began, taken = Rate(per_second), 1000.0, 0.0
    moment = began
    for amount in amounts:
        moment += rate.delay(moment)
        assert moment - began == pytest.approx(max(0, taken / per_second - SLACK), abs=1e-6)
        rate.take(amount, moment)
        taken += amount
    moment += rate.delay(moment) + late  # idle time is not saved up beyond the slack
    rate.take(per_second, moment)
    assert rate.delay(moment) >= 1 - SLACK - 1e-6


def test_a_large_amount_delays_what_comes_after_it_and_never_itself() -> None:
    rate = Rate(10)
    assert rate.delay(100) == 0
    rate.take(1000, 100)
    assert rate.delay(100) == pytest.approx(100 - SLACK)
    assert rate.delay(150) == pytest.approx(50 - SLACK)


@virtual_time
async def test_characters_a_second_are_kept_in_the_long_run() -> None:
    gate = limits(characters_per_second=1000, in_flight=100)

    async def call(characters: int) -> None:
        async with gate.admit(characters):
            pass

    with takes(299 * 100 / 1000 - SLACK):  # the last delays only what would come after it
        await asyncio.gather(*(call(100) for _ in range(300)))


@virtual_time
async def test_requests_are_counted_each_also_inside_a_call() -> None:
    gate = limits(requests_per_second=2)
    with takes(4.5 - SLACK):
        async with gate.admit(1):
            for _ in range(10):
                await gate.request()


@virtual_time
async def test_requests_a_minute_and_a_second_both_hold() -> None:
    gate = limits(requests_per_second=100, requests_per_minute=30)
    with takes(8 - SLACK):
        for _ in range(5):
            await gate.request()


@virtual_time
async def test_without_limits_nothing_waits() -> None:
    gate = limits()
    with takes(0):
        for _ in range(100):
            async with gate.admit(10**9):
                await gate.request()


@virtual_time
async def test_calls_out_at_once_are_never_more_than_allowed_and_no_fewer() -> None:
    gate, out, most = limits(in_flight=3), 0, 0

    async def call() -> None:
        nonlocal out, most
        async with gate.admit(1):
            out += 1
            most = max(most, out)
            await asyncio.sleep(1)
            out -= 1

    with takes(4):
        await asyncio.gather(*(call() for _ in range(12)))
    assert most == 3


@pytest.mark.parametrize("in_flight", [2, 100])
def test_first_come_first_served_whatever_the_size(in_flight: int) -> None:
    went: list[int] = []

    @virtual_time
    async def calls() -> None:
        gate = limits(characters_per_second=100, requests_per_second=50, in_flight=in_flight)

        async def call(name: int, characters: int) -> None:
            async with gate.admit(characters):
                await gate.request()
                went.append(name)
                await asyncio.sleep(0.01)

        async with asyncio.TaskGroup() as tasks:
            for name, characters in enumerate([500, 1, 900, 1, 1, 1, 300, 1] * 10):
                tasks.create_task(call(name, characters))
                await asyncio.sleep(0.7)

    calls()
    assert went == list(range(80))


@virtual_time
async def test_requests_go_in_the_order_they_came() -> None:
    gate, went = limits(requests_per_second=10), []

    async def request(name: int) -> None:
        await gate.request()
        went.append(name)

    async with asyncio.TaskGroup() as tasks:
        for name in range(40):
            tasks.create_task(request(name))
            await asyncio.sleep(0.07)
    assert went == list(range(40))


@virtual_time
async def test_a_call_that_is_cancelled_while_it_waits_keeps_nothing() -> None:
    gate = limits(in_flight=2, characters_per_second=100)

    async def call(characters: int) -> None:
        async with gate.admit(characters):
            await asyncio.sleep(1)

    async with asyncio.TaskGroup() as calls:
        tasks = [calls.create_task(call(1)) for _ in range(2)]
        waiting_for_a_place = calls.create_task(call(1))
        behind_it = calls.create_task(call(1))
        await asyncio.sleep(0.5)
        assert (gate.statistics().in_flight, gate.statistics().waiting) == (2, 2)
        behind_it.cancel()
        waiting_for_a_place.cancel()
        await asyncio.wait([waiting_for_a_place, behind_it])
        assert (gate.statistics().in_flight, gate.statistics().waiting) == (2, 0)
        await asyncio.wait(tasks)
        large = calls.create_task(call(1000))
        await asyncio.sleep(0)
        waiting_for_quota = calls.create_task(call(1))
        await asyncio.sleep(1)
        assert (gate.statistics().in_flight, gate.statistics().waiting) == (0, 1)
        assert large.done()
        waiting_for_quota.cancel()
        await asyncio.wait([waiting_for_quota])
    assert (gate.statistics().in_flight, gate.statistics().waiting) == (0, 0)
    with takes(9.0 - SLACK + 0.01):  # after a second of ten, and one of the two before us
        async with gate.admit(1), gate.admit(1):  # both places are free; the quota is where the large one left it
            pass


@virtual_time
async def test_a_call_that_fails_or_is_cancelled_gives_its_place_back() -> None:
    gate = limits(in_flight=1)
    with pytest.raises(ZeroDivisionError):
        async with gate.admit(1):
            raise ZeroDivisionError
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(1), gate.admit(1):
            await asyncio.sleep(2)
    with takes(0):
        async with gate.admit(1):
            assert gate.statistics().in_flight == 1


@virtual_time
async def test_quiet_keeps_calls_and_requests_out_until_it_is_over() -> None:
    gate = limits()
    gate.quiet(30)
    gate.quiet(10)  # the longer of two is kept
    assert gate.quiet_for == 30
    with takes(30):
        async with gate.admit(1):
            assert gate.quiet_for == 0
    gate.quiet(5)
    with takes(5):
        await gate.request()


@virtual_time
async def test_quiet_that_is_extended_is_waited_for_to_its_end() -> None:
    gate = limits()
    gate.quiet(2)
    asyncio.get_running_loop().call_later(1.5, gate.quiet, 3)
    with takes(4.5):
        async with gate.admit(1):
            pass


@virtual_time
async def test_who_may_go_elsewhere_does_not_wait_for_quiet_and_uses_no_quota() -> None:
    gate = limits(in_flight=1, characters_per_second=10)
    gate.quiet(60)
    with takes(0):
        async with gate.admit(1_000_000, leave=lambda: True) as admitted:
            assert not admitted
    with takes(60):
        async with gate.admit(50, leave=lambda: False) as admitted:
            assert admitted
    with takes(5 - SLACK):
        async with gate.admit(1, leave=lambda: True) as admitted:
            assert admitted, "the account is not quiet, so there is no reason to leave"


@virtual_time
async def test_who_waits_at_a_quiet_account_leaves_soon_after_somebody_else_is_well() -> None:
    gate = limits()
    gate.quiet(600)
    with takes(10):
        async with gate.admit(1, leave=lambda: now() > 9.5) as admitted:
            assert not admitted


@virtual_time
async def test_statistics_are_a_picture_of_the_moment() -> None:
    gate = limits(in_flight=7)
    gate.quiet(5)
    await asyncio.sleep(2)
    stands = gate.statistics()
    assert (stands.in_flight, stands.in_flight_limit, stands.waiting) == (0, 7, 0)
    assert stands.quiet == pytest.approx(3)
