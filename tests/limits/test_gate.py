import asyncio
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise

import pytest

from service import settings
from service.documents import Classified
from service.errors import Misconfigured
from service.limits.admission import Held, Stream
from service.limits.costs import DAY, Tariff
from service.limits.gate import Limits
from service.limits.rates import OF_A_QUOTA, TICK
from tests.clock import now, virtual_time


def limits(**values: float | str) -> Limits:
    return Limits(settings.Limits.model_validate(values))


@contextmanager
def takes(seconds: float) -> Iterator[None]:
    began = now()
    yield
    assert now() - began == pytest.approx(seconds, abs=1e-6)


@virtual_time
async def test_characters_a_second_are_kept_in_the_long_run() -> None:
    gate = limits(characters_per_second=1000, in_flight=100)

    async def call(characters: int) -> None:
        async with gate.admit(characters):
            pass

    with takes(299 * 100 / 1000 / OF_A_QUOTA - TICK):  # the last delays only what would come after it
        await asyncio.gather(*(call(100) for _ in range(300)))


@virtual_time
async def test_requests_are_counted_each_also_inside_a_call() -> None:
    gate = limits(requests_per_second=2)
    with takes(4.5 / OF_A_QUOTA - TICK):
        async with gate.admit(1):
            for _ in range(10):
                await gate.request()


@virtual_time
async def test_requests_a_minute_and_a_second_both_hold() -> None:
    gate = limits(requests_per_second=100, requests_per_minute=30)
    with takes(8 / OF_A_QUOTA - TICK):
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
    with takes(1001 / 100 / OF_A_QUOTA - 1 - TICK):
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
    with takes(5 / OF_A_QUOTA - TICK):
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


@virtual_time
async def test_documents_a_second_are_kept_in_the_long_run() -> None:
    gate = limits(documents_per_second=20, in_flight=100)

    async def call(documents: int) -> None:
        async with gate.admit(1000, documents):
            pass

    with takes(9 * 25 / 20 / OF_A_QUOTA - TICK):
        await asyncio.gather(*(call(25) for _ in range(10)))


@virtual_time
async def test_a_call_goes_out_with_its_first_request_and_keeps_no_place_while_that_waits() -> None:
    gate, most = limits(requests_per_second=10, in_flight=100), 0

    async def call() -> None:
        nonlocal most
        async with gate.admit(1):
            most = max(most, gate.statistics().in_flight)
            with takes(0):
                await gate.request()
            await asyncio.sleep(0.2)

    await asyncio.gather(*(call() for _ in range(100)))
    assert most == 2
    assert now() == pytest.approx(99 / 10 / OF_A_QUOTA - TICK + 0.2)


@virtual_time
async def test_polls_of_calls_that_are_out_come_before_calls_that_are_not() -> None:
    gate, went = limits(requests_per_second=10), list[str]()

    async def call(name: str, polls: int) -> None:
        async with gate.admit(1):
            for poll in range(polls):
                await gate.request()
                went.append(f"{name}{poll}")

    await asyncio.gather(call("a", 3), call("b", 1))
    assert went == ["a0", "a1", "a2", "b0"]


@virtual_time
async def test_a_request_of_one_account_in_a_call_of_another_is_counted() -> None:
    first, second = limits(requests_per_second=1), limits(requests_per_second=1)
    async with first.admit(1):
        await second.request()
        with takes(1 / OF_A_QUOTA - TICK):
            await second.request()


@virtual_time
async def test_a_request_that_is_cancelled_while_it_waits_takes_nobodys_turn() -> None:
    gate = limits(requests_per_second=1)
    await gate.request()
    async with asyncio.TaskGroup() as requests:
        first, second = (requests.create_task(gate.request()) for _ in range(2))
        await asyncio.sleep(0.5)
        first.cancel()
        await second
    assert now() == pytest.approx(1 / OF_A_QUOTA - TICK)


@virtual_time
async def test_why_calls_were_held_is_told_in_seconds() -> None:
    gate = limits(in_flight=1, requests_per_second=1 / OF_A_QUOTA, characters_per_second=10 / OF_A_QUOTA)

    async def call(characters: int, seconds: float) -> None:
        async with gate.admit(characters):
            await asyncio.sleep(seconds)

    gate.quiet(3)
    await asyncio.gather(call(1, 5), call(100, 0), call(1, 0))
    held = gate.statistics().held
    assert held == {
        Held.QUIET: pytest.approx(3),
        Held.BREAKER: 0,
        Held.REQUESTS: pytest.approx(1 + 1, abs=2 * TICK),
        Held.DOCUMENTS: 0,
        Held.BUDGET: 0,
        Held.CHARACTERS: pytest.approx(9, abs=2 * TICK),
        Held.IN_FLIGHT: pytest.approx(4, abs=2 * TICK),
    }
    await asyncio.sleep(100)
    assert gate.statistics().held == held, "nobody waits"


@virtual_time
async def test_streams_that_share_an_account_get_of_it_in_proportion_to_their_priority() -> None:
    gate, went = limits(characters_per_second=1000, in_flight=10), Counter[str]()

    async def calls(name: str, stream: Stream, characters: int) -> None:
        async def call() -> None:
            async with gate.admit(characters, stream=stream):
                went[name] += characters

        await asyncio.gather(*(call() for _ in range(1000)))

    work = [
        asyncio.create_task(calls("urgent", Stream(4), 200)),
        asyncio.create_task(calls("usual", Stream(), 100)),
        asyncio.create_task(calls("large", Stream(), 2000)),
    ]
    await asyncio.sleep(100)
    assert went["urgent"] == pytest.approx(4 / 6 * 98_000, rel=0.05)
    assert went["usual"] == pytest.approx(1 / 6 * 98_000, rel=0.05)
    assert went["large"] == pytest.approx(1 / 6 * 98_000, rel=0.2)
    for task in work:
        task.cancel()
    await asyncio.wait(work)
    assert gate.statistics().waiting == 0


@virtual_time
async def test_a_stream_that_asks_seldom_does_not_wait_behind_one_that_asks_for_all() -> None:
    gate = limits(requests_per_second=10)
    flood, seldom = Stream(), Stream()

    async def call(stream: Stream) -> None:
        async with gate.admit(1, stream=stream):
            pass

    flooding = asyncio.gather(*(call(flood) for _ in range(1000)))
    for _ in range(5):
        await asyncio.sleep(10)
        began = now()
        await call(seldom)
        assert now() - began < 0.3
    flooding.cancel()
    await asyncio.wait([flooding])


@virtual_time
async def test_a_worker_uses_its_share_of_the_quotas_of_its_group() -> None:
    gate, first, second = limits(requests_per_second=10), Stream(), Stream()

    async def ten() -> float:
        began = now()
        for _ in range(11):
            await gate.request()
        return now() - began

    await gate.request()
    assert await ten() == pytest.approx(1.1 / OF_A_QUOTA, abs=0.1)
    gate.share(first, 0.5)
    await gate.request()
    assert await ten() == pytest.approx(2.2 / OF_A_QUOTA, abs=0.2)
    gate.share(second, 0.1)  # of two streams that are half of the work each
    await gate.request()
    assert await ten() == pytest.approx(1.1 / 0.3 / OF_A_QUOTA, abs=0.4)
    alone = limits(requests_per_second=10, quotas_of="worker")
    alone.share(first, 0.01)
    with takes(1 / 10 / OF_A_QUOTA - TICK):
        await alone.request()
        await alone.request()


@virtual_time
async def test_money_is_shared_as_quotas_are() -> None:
    gate = paying()
    gate.share(Stream(), 0.5)
    assert gate.statistics().spend_per_hour == 5, "so that workers' limits add up to the group's"
    async with gate.admit(0, 5):
        gate.answered([UNIT] * 5)
    with takes(0):
        async with gate.admit(0, 1, leave=lambda: True) as admitted:
            assert not admitted
    gate.share(Stream(), 1.0)
    with takes(0):
        async with gate.admit(0, 1, leave=lambda: True) as admitted:
            assert admitted


def paying(when_spent: str = "hold", clock: Callable[[], float] = lambda: 1_800_000_000 // DAY * DAY + now()) -> Limits:
    """A gate at which a unit costs 1, and 10 may be spent an hour."""
    branch = settings.Limits.model_validate({"spend_per_hour": 10, "when_spent": when_spent})
    return Limits(branch, Tariff(1.0), clock)


UNIT = Classified((), 1)


@virtual_time
async def test_calls_wait_for_the_next_hour_when_the_money_of_this_one_is_spent() -> None:
    gate = paying()

    async def call() -> None:
        async with gate.admit(0, 5):
            await asyncio.sleep(10)
            gate.answered([UNIT] * 5)

    with takes(3600 + 10):
        await asyncio.gather(*(call() for _ in range(4)))
    stands = gate.statistics()
    assert (stands.spent.total, stands.spent.hour) == (20, 10)
    assert stands.held[Held.BUDGET] == pytest.approx(3600)
    assert gate.quiet_for == pytest.approx(0)


@virtual_time
async def test_calls_that_were_not_answered_give_back_what_was_set_aside_for_them() -> None:
    gate = paying()
    for _ in range(10):
        with takes(0):
            async with gate.admit(0, 10):
                pass
    assert gate.statistics().spent.hour == 0


@virtual_time
async def test_who_may_go_elsewhere_does_not_wait_for_money() -> None:
    gate = paying()
    async with gate.admit(0, 10):
        gate.answered([UNIT] * 10)
    with takes(0):
        async with gate.admit(0, 1, leave=lambda: True) as admitted:
            assert not admitted
    assert gate.quiet_for == pytest.approx(3600)


@virtual_time
async def test_it_ends_when_the_money_is_spent_if_that_is_wanted() -> None:
    gate = paying("stop")
    async with gate.admit(0, 10):
        gate.answered([UNIT] * 10)
    with pytest.raises(Misconfigured, match=r"limits\.spend_per_hour \(10\) is used up"):
        async with gate.admit(0, 1):
            pytest.fail("there is no money")
    assert gate.statistics().waiting == 0


def changed(gate: Limits, **values: float | str) -> None:
    gate.change(settings.Limits.model_validate(values))


@virtual_time
async def test_a_rate_that_is_changed_holds_what_waits_already_and_gives_no_burst() -> None:
    gate = limits(requests_per_minute=1)
    went = list[float]()

    async def call() -> None:
        async with gate.admit(1):
            went.append(now())

    async with asyncio.TaskGroup() as calls:
        for _ in range(4):
            calls.create_task(call())
        await asyncio.sleep(1)
        assert len(went) == 1
        changed(gate, requests_per_minute=60)
        await asyncio.sleep(0)
        assert len(went) == 1, "the one that went is paid off first, at the new rate"
    gaps = [after - before for before, after in pairwise(went)]
    assert gaps == pytest.approx([1 + (60 / OF_A_QUOTA - 1) / 60, *[1 / OF_A_QUOTA] * 2], abs=0.01)


@virtual_time
async def test_a_rate_comes_and_goes_with_the_share_that_is_ours() -> None:
    gate, stream = limits(in_flight=100), Stream()
    gate.share(stream, 0.5)

    async def calls() -> None:
        for _ in range(5):
            async with gate.admit(1):
                pass

    with takes(0):
        await calls()
    changed(gate, in_flight=100, documents_per_second=2)
    with takes(4 / OF_A_QUOTA - TICK):
        await calls()
    changed(gate, in_flight=100)
    with takes(0):
        await calls()


@virtual_time
async def test_calls_that_wait_go_as_soon_as_more_may_be_out_and_none_is_broken_off_when_fewer() -> None:
    gate, out = limits(in_flight=1), 0

    async def call() -> None:
        nonlocal out
        async with gate.admit(1):
            out += 1
            await asyncio.sleep(10)
            out -= 1

    async with asyncio.TaskGroup() as calls:
        for _ in range(8):
            calls.create_task(call())
        await asyncio.sleep(1)
        assert out == 1
        changed(gate, in_flight=4)
        await asyncio.sleep(0)
        assert out == 4
        changed(gate, in_flight=2)
        await asyncio.sleep(1)
        assert out == 4
        await asyncio.sleep(9.5)
        assert out == 2
        changed(gate, in_flight="adaptive", most_in_flight=3)
        assert gate.statistics().in_flight_limit == 2, "it begins with what there was"


@virtual_time
async def test_money_is_limited_anew_and_what_was_spent_counts() -> None:
    gate = Limits(settings.Limits(spend_per_day=10), Tariff(per_unit=1.0, least_units=1), clock=now)
    async with gate.admit(1):
        gate.answered([Classified((), units=9)])
    changed(gate, spend_per_day=9)

    async def call() -> None:
        async with gate.admit(1):
            pass

    waiting = asyncio.create_task(call())
    await asyncio.sleep(5)
    assert not waiting.done()
    changed(gate, spend_per_day=20)
    await waiting
    assert now() < 10
    assert gate.statistics().spent.day == 9
