"""Real worker processes that come and go in mid-stream: every document is accounted for."""

import asyncio
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from confluent_kafka import Consumer, TopicPartition

from service.documents import Position
from service.offsets import decode
from tests.kafka import topics
from tests.kafka.topics import PATIENCE, Read
from tests.kafka.workers import Worker, configuration, small_model, worker

PARTITIONS = 4
AHEAD = 1000
OUT_AT_ONCE = 100
"""Documents that may be on their way to the broker when a worker is killed: a few batches."""


class Accounted(NamedTuple):
    """What became of the documents in the end."""

    lost: int
    duplicated: int


class Work:
    """A topic of documents to be classified, and what has come of them."""

    def __init__(self, bootstrap: str, config: Path, *, input: str, output: str, dead: str) -> None:  # noqa: A002  its name in the settings
        self.bootstrap, self.input, self.output, self.dead = bootstrap, input, output, dead
        self._config = config
        self._fed = 0
        self._counter = Consumer({"bootstrap.servers": bootstrap, "group.id": "counts"})

    def close(self) -> None:
        self._counter.close()

    def worker(self) -> AbstractContextManager[Worker]:
        return worker(self._config)

    def feed(self, count: int) -> None:
        topics.fill(self.bootstrap, self.input, map(topics.document, range(self._fed, self._fed + count)))
        self._fed += count

    def done(self) -> int:
        """How many results there are, whatever of."""
        partitions = [TopicPartition(self.output, number) for number in range(PARTITIONS)]
        return sum(self._counter.get_watermark_offsets(tp, timeout=PATIENCE)[1] for tp in partitions)

    def going_on(self) -> int:
        """How many results there are; whoever looks keeps documents coming, so that every moment is in mid-stream."""
        done = self.done()
        if self._fed - done < AHEAD:
            self.feed(AHEAD)
        return done

    def documents(self) -> set[Position]:
        ends = topics.ends(self.bootstrap, self.input)
        return {Position(self.input, number, offset) for number, end in ends.items() for offset in range(end)}

    def results(self) -> list[Read]:
        return topics.read(self.bootstrap, self.output)

    def uncommitted(self) -> list[Read]:
        """Results of documents that the group does not know to be finished."""
        marks = asyncio.run(topics.committed(self.bootstrap, self.input, self.input))
        above = {
            Position(self.input, number, offset)
            for number, mark in marks.items()
            for first, last in decode(mark)
            for offset in range(first, last + 1)
        }
        return [
            result
            for result in self.results()
            if (at := result.source) not in above
            and (at.partition not in marks or at.offset >= marks[at.partition].offset)
        ]

    def end(self, running: Worker) -> Accounted:
        """Let a worker finish the work and stop; what is committed then is the end of the input, and no more."""
        ends = {number: (end, "") for number, end in topics.ends(self.bootstrap, self.input).items()}
        running.wait_until(lambda: self.done() >= self._fed)
        running.wait_until(lambda: asyncio.run(topics.committed(self.bootstrap, self.input, self.input)) == ends)
        code, _ = running.terminate()
        assert code == 0, running.said()
        documents, results = self.documents(), topics.counted(self.results())
        assert topics.size(self.bootstrap, self.dead) == 0
        assert results.keys() <= documents
        return Accounted(len(documents - results.keys()), results.total() - len(results))


@pytest.fixture
def begin(bootstrap: str, topic: Callable[..., str], tmp_path: Path) -> Iterator[Callable[..., Work]]:
    begun = []

    def work(**stream: Any) -> Work:
        names = {"input": topic(PARTITIONS), "output": topic(PARTITIONS), "dead": topic()}
        tree = {"bootstrap": bootstrap, "model": small_model(tmp_path / "model"), **names}
        begun.append(Work(bootstrap, configuration(tmp_path, tree, **stream), **names))
        return begun[-1]

    yield work
    for each in begun:
        each.close()


def test_a_worker_killed_again_and_again_loses_nothing_and_repeats_only_what_it_had_not_committed(
    begin: Callable[..., Work],
) -> None:
    work = begin()
    uncommitted = []
    for moment in (1000, 4000, 8000):
        before = topics.ends(work.bootstrap, work.output)
        with work.worker() as victim:
            victim.wait_until(lambda moment=moment: work.going_on() >= moment)  # type: ignore[misc]
            victim.kill()
        its_own = [result for result in work.uncommitted() if result.offset >= before[result.partition]]
        newest = max(result.timestamp for result in work.results())
        assert all(newest - result.timestamp < 3000 for result in its_own), "five commits a second leave less behind"
        uncommitted.append(len(its_own))
    with work.worker() as last:
        last.wait_until(lambda: work.going_on() >= 12_000)
        accounted = work.end(last)
    print(f"published but uncommitted at each kill: {uncommitted}; in the end {accounted}")  # noqa: T201  for `pytest -s`
    assert accounted.lost == 0
    assert accounted.duplicated <= sum(uncommitted) + 3 * OUT_AT_ONCE


def test_a_worker_killed_again_and_again_repeats_nothing_that_readers_of_committed_transactions_see(
    begin: Callable[..., Work],
) -> None:
    work = begin(delivery="exactly_once")
    for moment in (1000, 4000, 8000):
        with work.worker() as victim:
            victim.wait_until(lambda moment=moment: work.going_on() >= moment)  # type: ignore[misc]
            victim.kill()
        assert work.uncommitted() == []
    with work.worker() as last:
        last.wait_until(lambda: work.going_on() >= 12_000)
        assert work.end(last) == Accounted(lost=0, duplicated=0)


@pytest.mark.parametrize("delivery", ["at_least_once", "exactly_once"])
def test_a_worker_that_is_asked_to_stop_ends_soon_and_well_and_repeats_nothing(
    begin: Callable[..., Work], delivery: str
) -> None:
    work = begin(delivery=delivery)
    for moment in (1000, 4000, 8000):
        with work.worker() as stopped:
            stopped.wait_until(lambda moment=moment: work.going_on() >= moment)  # type: ignore[misc]
            code, seconds = stopped.terminate()
            assert code == 0, stopped.said()
            assert seconds < 10
            assert work.uncommitted() == []
    with work.worker() as last:
        assert work.end(last) == Accounted(lost=0, duplicated=0)


@pytest.mark.parametrize("delivery", ["at_least_once", "exactly_once"])
def test_workers_that_join_and_leave_in_mid_stream_lose_and_repeat_nothing(
    begin: Callable[..., Work], delivery: str
) -> None:
    work = begin(delivery=delivery)
    with work.worker() as first:
        first.wait_until(lambda: work.going_on() >= 1000)
        with work.worker() as second:
            second.wait_until(lambda: bool(work.going_on() and second.events("partitions_assigned")))
            joined_at = work.done()
            first.wait_until(lambda: work.going_on() >= joined_at + 2000)
            code, _ = first.terminate()
            assert code == 0, first.said()
            left_at = work.done()
            second.wait_until(lambda: work.going_on() >= left_at + 2000)
            assert work.end(second) == Accounted(lost=0, duplicated=0)
        shares = [len(event["partitions"]) for event in second.events("partitions_assigned")]
        assert (shares[0], shares[-1]) == (PARTITIONS // 2, PARTITIONS)
        given_up = first.events("partitions_revoked") + second.events("partitions_revoked")
        assert len(given_up) >= 2
        assert all(event["drained"] for event in given_up)


@pytest.mark.parametrize("delivery", ["at_least_once", "exactly_once"])
def test_a_worker_that_wakes_after_its_partitions_went_to_another_loses_nothing_and_winds_nothing_back(
    begin: Callable[..., Work], delivery: str
) -> None:
    in_hand = 200
    work = begin(capacity={"documents": in_hand}, delivery=delivery)
    with work.worker() as sleeper:
        sleeper.wait_until(lambda: work.going_on() >= 1000)
        sleeper.send(signal.SIGSTOP)
        uncommitted, asleep_at = len(work.uncommitted()), work.done()
        with work.worker() as successor:
            successor.wait_until(lambda: work.going_on() >= asleep_at + 1000)
            awake = time.time()
            sleeper.send(signal.SIGCONT)
            sleeper.wait_until(lambda: bool(work.going_on() and len(sleeper.events("partitions_assigned")) >= 2))
            code, _ = sleeper.terminate()
            assert code == 0, sleeper.said()
            accounted = work.end(successor)
    told = [datetime.fromisoformat(event["timestamp"]).timestamp() for event in sleeper.events("partitions_revoked")]
    heard = min(moment for moment in told if moment > awake)
    meanwhile = sum(awake <= result.timestamp / 1000 <= heard for result in work.results())
    print(f"awake for {heard - awake:.2f} s before it heard, {meanwhile} published meanwhile; in the end {accounted}")  # noqa: T201
    assert heard - awake < 10
    assert accounted.lost == 0
    assert accounted.duplicated <= (uncommitted + meanwhile + in_hand if delivery == "at_least_once" else 0)
