"""What was spent, kept with partitions: nothing is forgotten, and nothing is spent twice, whoever has them."""

import asyncio
import random
from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service import settings
from service.dispatch.account import Account
from service.dispatch.dispatcher import Dispatcher
from service.limits import spending
from service.limits.costs import DAY, HOUR, Budget, Tariff
from service.limits.gate import Limits
from service.limits.spending import Kept, Spending
from service.observability.telemetry import Telemetry
from service.offsets import Mark, Partition, Range, decode, encode
from service.pipeline import run
from service.streams.memory import MemorySink, MemorySource, TransactionalMemorySource
from tests.classifiers import FirstWord
from tests.clock import virtual_time
from tests.records import INPUT, written
from tests.test_pipeline import OTHER, stream, tickets

PARTITIONS = [Partition("incoming", number) for number in range(6)]
NOON = 500_000 * DAY + 12 * HOUR


class Worker:
    """Spends what it may, of a budget of 600 a day for all."""

    def __init__(self) -> None:
        self.at = NOON
        self.budget = Budget(Tariff(1.0), None, 600.0, lambda: self.at)
        self.spending = Spending(self.budget)
        self.owned: set[Partition] = set()
        self._share()

    def spend(self, units: int) -> int:
        spent = 0
        while spent < units and self.owned and not self.budget.wait(1, 0):
            self.budget.book(self.budget.set_aside(1, 0), 1.0)
            spent += 1
        return spent

    def take(self, partition: Partition, noted: Mapping[Partition, str]) -> None:
        self.owned.add(partition)
        kept = spending.read(noted[partition]).get("a") if partition in noted else None
        self.spending.take_over(partition, 1 / len(PARTITIONS), kept)
        self._share()

    def note(self) -> dict[Partition, str]:
        return {
            partition: spending.written({"a": self.spending.kept(partition, 1 / len(PARTITIONS))})
            for partition in self.owned
        }

    def leave(self, partition: Partition) -> dict[Partition, str]:
        self.spending.settle()
        noted = self.note()
        self.owned.remove(partition)
        self.spending.give_up(partition)
        self._share()
        return noted

    def _share(self) -> None:
        self.budget.share(max(1, len(self.owned)) / len(PARTITIONS))


@given(st.randoms())
def test_however_partitions_move_no_more_is_spent_than_may_be_and_all_of_that(chance: random.Random) -> None:
    workers, noted, spent = [Worker() for _ in range(3)], dict[Partition, str](), 0
    for partition in PARTITIONS:
        workers[0].take(partition, noted)
    for _ in range(40):
        worker = chance.choice(workers)
        spent += worker.spend(chance.randrange(60))
        noted |= worker.note()
        if worker.owned:
            partition = chance.choice(sorted(worker.owned))
            noted |= worker.leave(partition)
            chance.choice(workers).take(partition, noted)
    assert spent <= 600 + len(workers)
    kept = sum(worker.budget.spent().day for worker in workers)
    assert kept == pytest.approx(spent, abs=1e-4)
    for worker in workers:
        spent += worker.spend(1000)
    assert spent == pytest.approx(600, abs=2 * len(workers))


@given(st.randoms())
def test_a_kill_forgets_what_was_spent_since_the_last_commit_and_a_hundredth(
    chance: random.Random,
) -> None:
    worker, noted, spent = Worker(), dict[Partition, str](), 0
    for partition in PARTITIONS:
        worker.take(partition, noted)
    for _ in range(chance.randrange(1, 40)):
        spent += worker.spend(chance.randrange(30))
        noted |= worker.note()
    uncommitted = worker.spend(7)
    later = Worker()
    for partition in PARTITIONS:
        later.take(partition, noted)
    assert spent - 6.001 <= later.budget.spent().day <= spent + 0.001
    assert later.spend(1000) + spent + uncommitted <= 600 + 6 + 7


def test_little_is_not_worth_a_commit_and_much_is() -> None:
    worker = Worker()
    for partition in PARTITIONS:
        worker.take(partition, {})
    before = worker.note()
    worker.spend(5)
    assert worker.note() == before
    worker.spend(2)
    assert worker.note() != before


def test_what_was_spent_in_another_hour_or_day_does_not_count() -> None:
    worker, kept = Worker(), Kept(int(NOON // HOUR), 5.0, 50.0)
    worker.spending.take_over(PARTITIONS[0], 1.0, kept)
    assert worker.spending.kept(PARTITIONS[0], 1.0) == kept
    assert (worker.budget.spent().hour, worker.budget.spent().day) == (5.0, 50.0)
    later = Worker()
    later.at = NOON + HOUR
    later.spending.take_over(PARTITIONS[0], 1.0, kept)
    assert (later.budget.spent().hour, later.budget.spent().day) == (0.0, 50.0)
    tomorrow = Worker()
    tomorrow.at = NOON + DAY
    tomorrow.spending.take_over(PARTITIONS[0], 1.0, kept)
    assert (tomorrow.budget.spent().hour, tomorrow.budget.spent().day) == (0.0, 0.0)


NAMES = st.text(min_size=1, max_size=20)
KEPT = st.builds(Kept, st.integers(0, 1 << 30), st.floats(0, 1e9), st.floats(0, 1e9))


@given(st.dictionaries(NAMES, KEPT, max_size=4), st.lists(st.integers(1, 50), max_size=6))
def test_what_is_written_beside_finished_stretches_is_read_again_and_they_are(
    kept: dict[str, Kept], gaps: list[int]
) -> None:
    finished, at = list[Range](), 10
    for gap in gaps:
        finished.append(Range(at + gap, at + 2 * gap))
        at += 2 * gap + 1
    metadata = spending.written(kept) + encode(10, finished)
    assert decode(Mark(10, metadata)) == tuple(finished)
    assert spending.read(metadata) == {
        name: Kept(each.number, pytest.approx(each.hour, rel=1e-8), pytest.approx(each.day, rel=1e-8))  # type: ignore[arg-type]
        for name, each in kept.items()
    }


@pytest.mark.parametrize(
    "damaged", ["", "1:AAAA", "a=;", "a=1,2;", "a=x,1,2;", "a=1,nan,2;", "a=1,-5,2;", "a;b;", "=;;"]
)
def test_what_is_damaged_says_nothing(damaged: str) -> None:
    assert spending.read(damaged) == {}


@pytest.mark.parametrize("source", [MemorySource, TransactionalMemorySource])
@pytest.mark.parametrize("kills", [[3.0], [0.5, 1.0, 2.0]])
def test_a_worker_that_is_killed_and_started_again_spends_no_more_than_a_day_may_cost(
    source: type[MemorySource], kills: list[float]
) -> None:
    @virtual_time
    async def lives() -> None:
        sink, provider = MemorySink(), FirstWord(seconds=0.1)
        records = [*tickets(300), *tickets(300, OTHER)]
        committed: dict[Partition, Mark] = {}

        async def live(seconds: float) -> None:
            nonlocal committed
            gate = Limits(settings.Limits(spend_per_day=200, in_flight=2), Tariff(1.0), lambda: NOON)
            asked = Account("paid", "fake", provider, limits=gate, telemetry=Telemetry().account("paid", "fake"))
            given = (
                TransactionalMemorySource(sink, records, committed=committed, ends=False, partitions=[INPUT, OTHER])
                if source is TransactionalMemorySource
                else MemorySource(records, committed=committed, ends=False, partitions=[INPUT, OTHER])
            )
            running = asyncio.create_task(
                run(
                    stream(batch={"documents": 5, "wait": 0}, commit_every="100ms"),
                    given,
                    sink,
                    Dispatcher([asked]),
                    telemetry=Telemetry(),
                    stop=asyncio.Event(),
                )
            )
            await asyncio.wait([running], timeout=seconds)
            committed = dict(given.committed)  # what it does while it dies, kill -9 has it not do
            running.cancel()
            await asyncio.wait([running])

        for seconds in kills:
            await live(seconds)
        await live(60)
        asked = len(provider.asked)
        lost = len(kills) * (2 * 2 * 5 + 2)  # in flight and uncommitted, and a hundredth of the limit
        assert 190 <= asked <= 200 + lost

    lives()


@virtual_time
async def test_a_partition_that_moves_takes_along_what_was_spent_for_it() -> None:
    records = [*tickets(100), *(written(offset, "billing", partition=OTHER) for offset in range(100))]
    source = MemorySource(records, ends=False, partitions=[INPUT, OTHER])
    gate = Limits(settings.Limits(spend_per_day=100, in_flight=2), Tariff(1.0), lambda: NOON)
    asked = Account("paid", "fake", FirstWord(), limits=gate, telemetry=Telemetry().account("paid", "fake"))
    running = asyncio.create_task(
        run(stream(), source, MemorySink(), Dispatcher([asked]), telemetry=Telemetry(), stop=asyncio.Event())
    )
    await asyncio.sleep(60)
    before = gate.statistics().spent.day
    assert before > 90
    await source.revoke([OTHER])
    assert gate.statistics().spent.day == pytest.approx(before / 2)
    kept = spending.read(source.committed[OTHER].metadata)["paid"]
    assert kept.day == pytest.approx(before / 2)
    await source.assign([OTHER])
    assert gate.statistics().spent.day == pytest.approx(before)
    await asyncio.sleep(1)
    running.cancel()
    await asyncio.wait([running])
