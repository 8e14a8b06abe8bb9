"""An outage of a minute, on virtual time: what a stream of batches looks like before, during and after it."""

import asyncio
import random
from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import pytest

from service import settings
from service.dispatch.account import Account
from service.dispatch.answers import Batch
from service.dispatch.dispatcher import Dispatcher
from service.documents import Classified, Document, Outcome
from service.errors import CallFailed, Unavailable
from service.limits.breaker import State
from service.limits.gate import Limits
from service.observability.telemetry import Telemetry
from tests.classifiers import FirstWord, FirstWordByJobs, unnoted
from tests.clock import now, virtual_time
from tests.records import document

QUOTA = 50
BEGINS, ENDS = 30.0, 90.0
TIMEOUT = 30.0


@pytest.fixture(autouse=True)
def the_same_chances() -> None:
    random.seed(7)


def is_out() -> bool:
    return BEGINS <= now() < ENDS


def refuses() -> CallFailed | None:
    return Unavailable("503") if is_out() else None


def says_for_how_long() -> CallFailed | None:
    return Unavailable("503", 2.0) if is_out() else None


@dataclass
class BlackHole(FirstWord):
    """What it is sent during the outage is never answered."""

    async def classify(self, documents: Sequence[Document]) -> list[Outcome]:
        if not is_out():
            return await super().classify(documents)
        self.calls.append((now(), [document.text for document in documents]))
        await asyncio.sleep(TIMEOUT)
        raise Unavailable("timed out")


@dataclass
class BlackHoleOfJobs(FirstWordByJobs):
    """What is submitted during the outage is never accepted."""

    async def submit(self, documents: Sequence[Document]) -> str:
        if is_out():
            self.calls.append((now(), []))
            await asyncio.sleep(TIMEOUT)
            raise Unavailable("timed out")
        return await super().submit(documents)


def account(provider: FirstWord, name: str = "first") -> Account:
    limits = Limits(settings.Limits(requests_per_second=QUOTA, in_flight=200))
    return Account(name, "fake", provider, limits=limits, telemetry=Telemetry().account(name, "fake"))


def calls_between(calls: Sequence[tuple[float, list[str]]], begin: float, end: float) -> int:
    moments = [moment for moment, _ in calls]
    return bisect_left(moments, end) - bisect_left(moments, begin)


def most_in_a_second(calls: Sequence[tuple[float, list[str]]]) -> int:
    return max(calls_between(calls, moment, moment + 1) for moment, _ in calls)


async def stream(dispatcher: Dispatcher, seconds: float, waiting: int = 300) -> None:
    """Have so many batches in hand all the time, as many as the capacity of a stream holds."""

    async def ask() -> None:
        while now() < seconds:
            for answer in await dispatcher.classify(Batch([document(0, "billing please")]), unnoted()):
                assert all(isinstance(outcome, Classified) for outcome in answer.outcomes), "a dead letter"

    async with asyncio.TaskGroup() as batches:
        for _ in range(waiting):
            batches.create_task(ask())


@pytest.mark.parametrize(
    "make",
    [
        lambda: FirstWord(trouble=refuses),
        lambda: FirstWord(trouble=says_for_how_long),
        BlackHole,
        lambda: FirstWordByJobs(seconds=1, trouble=refuses),
        lambda: BlackHoleOfJobs(seconds=1),
    ],
    ids=["refuses", "says for how long", "is a black hole", "jobs", "is a black hole for jobs"],
)
def test_after_an_outage_of_a_minute_the_quota_is_used_in_five_seconds_and_never_exceeded(
    make: Callable[[], FirstWord],
) -> None:
    @virtual_time
    async def outage() -> None:
        provider = make()
        asked = account(provider)
        await stream(Dispatcher([asked]), ENDS + 30)
        assert most_in_a_second(provider.calls) <= QUOTA
        assert calls_between(provider.calls, BEGINS - 10, BEGINS) >= 0.95 * QUOTA * 10
        assert calls_between(provider.calls, BEGINS + 10, ENDS) <= 60, "few find out whether it is well"
        assert calls_between(provider.calls, ENDS + 5, ENDS + 6) >= 0.95 * QUOTA
        assert calls_between(provider.calls, ENDS + 5, ENDS + 25) >= 0.95 * QUOTA * 20
        assert asked.statistics().limits.breaker.state is State.CLOSED

    outage()


@pytest.mark.parametrize("make", [lambda: FirstWord(trouble=refuses), BlackHole])
def test_the_second_account_answers_all_of_its_quota_and_the_first_is_gone_back_to_in_five_seconds(
    make: Callable[[], FirstWord],
) -> None:
    @virtual_time
    async def outage() -> None:
        first, second = make(), FirstWord()
        await stream(Dispatcher([account(first), account(second, "second")]), ENDS + 30)
        assert calls_between(second.calls, BEGINS + 10, ENDS) >= 0.95 * QUOTA * (ENDS - BEGINS - 10)
        assert calls_between(first.calls, ENDS + 5, ENDS + 25) >= 0.95 * QUOTA * 20
        assert max(most_in_a_second(first.calls), most_in_a_second(second.calls)) <= QUOTA

    outage()


@virtual_time
async def test_one_place_in_flight_is_no_reason_to_be_late() -> None:
    provider = BlackHole()
    limits = Limits(settings.Limits(in_flight=1))
    asked = Account("first", "fake", provider, limits=limits, telemetry=Telemetry().account("first", "fake"))
    await stream(Dispatcher([asked]), ENDS + 10, waiting=20)
    assert calls_between(provider.calls, ENDS, ENDS + 5) > 1
    assert calls_between(provider.calls, ENDS + 5, ENDS + 10) >= 49
