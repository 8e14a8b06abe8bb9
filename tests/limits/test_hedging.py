"""Calls that are late are asked a second time, seldom, and never in secret."""

import asyncio
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import pytest

from service import settings
from service.dispatch.account import Account
from service.dispatch.answers import Batch
from service.dispatch.dispatcher import Dispatcher
from service.documents import Document, Outcome
from service.errors import CallFailed, Unavailable
from service.limits.costs import Tariff
from service.limits.gate import Limits
from service.limits.hedging import Hedging
from service.observability.telemetry import Telemetry
from tests.classifiers import FirstWord, FirstWordByJobs, unnoted
from tests.clock import now, virtual_time
from tests.records import document
from tests.test_settings import with_setting


@dataclass
class Sometimes(FirstWord):
    """Takes `late` seconds for every call that `is_late` says so of, by its number from 1."""

    late: float = 10.0
    is_late: Callable[[int], bool] = lambda number: number % 100 == 0

    async def classify(self, documents: Sequence[Document]) -> list[Outcome]:
        self.seconds = self.late if self.is_late(len(self.calls) + 1) else 0.1
        return await super().classify(documents)


class Hedged:
    """An account that hedges, and what is counted of it."""

    def __init__(self, provider: FirstWord, name: str = "first", hedge: Any = None, **limits: Any) -> None:
        self.telemetry = Telemetry()
        self.name = name
        branch = settings.Limits.model_validate({"in_flight": 100, "hedge": hedge, **limits})
        self.limits = Limits(branch, Tariff(1.0))
        events = self.telemetry.account(name, "fake")
        self.account = Account(name, "fake", provider, limits=self.limits, telemetry=events)

    def counted(self, outcome: str) -> float:
        who = {"account": self.name, "provider": "fake", "outcome": outcome}
        return self.telemetry.registry.get_sample_value("labelstream_hedges_total", who) or 0.0

    @property
    def spent(self) -> float:
        return self.limits.statistics().spent.total


P95, AFTER_A_SECOND = {}, {"after": "1s", "at_most": 0.5}  # type: dict[str, Any], dict[str, Any]


async def one(dispatcher: Dispatcher) -> tuple[float, str, float]:
    """How long a batch took, who answered, and what it cost."""
    began = now()
    (answer,) = await dispatcher.classify(Batch([document(0, "billing please")]), unnoted())
    return now() - began, answer.account.name, answer.cost


@virtual_time
async def test_what_is_later_than_most_is_asked_again_and_the_first_answer_counts() -> None:
    provider = Sometimes()
    hedged = Hedged(provider, hedge=P95)
    took = [(await one(Dispatcher([hedged.account])))[0] for _ in range(1000)]
    assert max(took) < 0.35
    assert (hedged.counted("won"), hedged.counted("lost")) == (10, 0)
    assert provider.out == 0, "who was too late is cancelled"
    assert hedged.spent == 1010, "both may be billed"


@virtual_time
async def test_nothing_is_asked_twice_where_nobody_wants_that() -> None:
    provider = Sometimes()
    took = [(await one(Dispatcher([Hedged(provider).account])))[0] for _ in range(200)]
    assert max(took) == pytest.approx(10)
    assert len(provider.calls) == 200


@pytest.mark.parametrize("share", [0.01, 0.05, 0.3])
def test_no_larger_share_of_calls_is_asked_twice_than_may_be(share: float) -> None:
    @virtual_time
    async def calls() -> None:
        chance = random.Random(7)  # noqa: S311  chance, not secrecy
        provider = Sometimes(late=2.0, is_late=lambda _: chance.random() < 0.5)
        hedged = Hedged(provider, hedge={"after": "500ms", "at_most": share})
        dispatcher = Dispatcher([hedged.account])
        for _ in range(50):
            await asyncio.gather(*(one(dispatcher) for _ in range(20)))
        seconds = len(provider.calls) - 1000
        assert 0.8 * share * 1000 <= seconds <= share * 1000
        assert seconds == hedged.counted("won") + hedged.counted("lost")

    calls()


@virtual_time
async def test_the_next_account_is_asked_where_it_is_free_and_both_costs_are_counted() -> None:
    first = Hedged(Sometimes(is_late=lambda _: True), hedge=AFTER_A_SECOND)
    second = Hedged(FirstWord(), "second")
    dispatcher = Dispatcher([first.account, second.account])
    answers = [await one(dispatcher) for _ in range(4)]
    assert [(name, cost) for _, name, cost in answers] == [("first", 1), ("second", 2), ("first", 1), ("second", 2)]
    assert answers[1][0] == pytest.approx(1.1)
    assert (first.spent, second.spent) == (4, 2)


@virtual_time
async def test_the_first_may_answer_first_after_all_and_the_second_is_cancelled_and_counted() -> None:
    first = Hedged(Sometimes(late=1.05, is_late=lambda _: True), hedge=AFTER_A_SECOND)
    other = FirstWord()
    second = Hedged(other, "second")
    dispatcher = Dispatcher([first.account, second.account])
    answers = [await one(dispatcher) for _ in range(2)]
    assert answers[1][0] == pytest.approx(1.05)
    assert answers[1][1:] == ("first", 2)
    assert (first.counted("won"), first.counted("lost")) == (0, 1)
    assert (other.out, second.spent) == (0, 1)


@virtual_time
async def test_where_the_first_fails_while_another_is_asked_that_one_is_waited_for() -> None:
    provider = Sometimes(late=1.05, is_late=lambda _: True, trouble=lambda: Unavailable("502"))
    first, second = Hedged(provider, hedge={"after": "1s", "at_most": 0.5}), Hedged(FirstWord(), "second")
    dispatcher = Dispatcher([first.account, second.account])
    await one(dispatcher)
    took, name, _ = await one(dispatcher)
    assert took == pytest.approx(1.1)
    assert name == "second"
    assert first.counted("won") == 1


@pytest.mark.parametrize(
    ("limits", "trouble"),
    [
        ({"requests_per_second": 0.001}, None),
        ({"in_flight": 1}, None),
        ({"spend_per_day": 1}, None),
        ({}, Unavailable("502")),
    ],
    ids=["quota", "places", "money", "breaker"],
)
def test_what_would_hold_a_call_forbids_a_second_one(limits: dict[str, Any], trouble: CallFailed | None) -> None:
    @virtual_time
    async def calls() -> None:
        first = Hedged(Sometimes(late=5.0, is_late=lambda _: True), hedge=AFTER_A_SECOND)
        other = FirstWord(seconds=30, trouble=lambda: trouble)
        second = Hedged(other, "second", **limits)
        blocking = [asyncio.create_task(one(Dispatcher([second.account]))) for _ in range(6)]
        await asyncio.sleep(100)
        asked = len(other.calls)
        if trouble:
            second.limits.breaker.try_at = now() + 1e9  # no trial is due
        dispatcher = Dispatcher([first.account, second.account])
        took = [(await one(dispatcher))[0] for _ in range(6)]
        if not trouble and "in_flight" not in limits:
            assert len(other.calls) == asked
        assert len([each for each in took if each == pytest.approx(5)]) >= 3
        for task in blocking:
            task.cancel()
        await asyncio.gather(*blocking, return_exceptions=True)

    calls()


@virtual_time
async def test_accounts_with_jobs_are_not_asked_a_second_time() -> None:
    first = Hedged(Sometimes(late=5.0, is_late=lambda number: number % 2 == 0), hedge=AFTER_A_SECOND)
    jobs = FirstWordByJobs()
    dispatcher = Dispatcher([first.account, Hedged(jobs, "jobs").account])
    took = [(await one(dispatcher))[0] for _ in range(4)]
    assert jobs.calls == []
    assert first.counted("won") > 0
    assert max(took) < 5.1


@virtual_time
async def test_a_batch_that_is_cancelled_takes_both_calls_along() -> None:
    provider = Sometimes(is_late=lambda _: True)
    hedged = Hedged(provider, hedge={"after": "1s", "at_most": 0.5})
    dispatcher = Dispatcher([hedged.account])
    await one(dispatcher)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(5):
            await one(dispatcher)
    assert provider.out == 0
    assert hedged.limits.statistics().in_flight == 0


def test_what_is_late_is_learnt_and_followed() -> None:
    hedging = Hedging(settings.Hedge())
    assert hedging.after is None
    for i in range(100):
        hedging.answered(1.0 + i / 100)
    assert hedging.after == pytest.approx(1.9, abs=0.06)
    for _ in range(300):
        hedging.answered(5.0)
    assert hedging.after == 5


def test_what_is_late_may_be_said() -> None:
    fixed = Hedging(settings.Hedge(after=2.0))
    fixed.answered(9.0)
    assert fixed.after == 2


def test_second_calls_are_not_saved_up_without_end() -> None:
    hedging = Hedging(settings.Hedge())
    for _ in range(100_000):
        hedging.asked()
    left = 0
    while hedging.may:
        hedging.take()
        left += 1
    assert left == 10


def test_an_account_with_jobs_refuses_the_setting_and_says_why() -> None:
    tree = with_setting("accounts.azure.limits", {"hedge": {"after": "1s"}})
    with pytest.raises(Exception, match=r"accounts\.azure\.limits\.hedge: this account answers by jobs"):
        settings.parse(tree, "these tests")
