"""Real worker processes that come and go in mid-stream: every document is accounted for."""

import asyncio
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest
from confluent_kafka import Consumer, TopicPartition

from service.documents import Position
from service.offsets import decode
from tests.kafka import topics
from tests.kafka.workers import BATCH, CHARACTERS_PER_SECOND, IN_FLIGHT, Worker, configuration, small_model, worker

PARTITIONS = 4
OUT_AT_ONCE = IN_FLIGHT * BATCH
IN_ONE_COMMIT = CHARACTERS_PER_SECOND // len("ticket 1000: the parcel has not arrived, please help") // 5


class Work(NamedTuple):
    """A topic of documents to be classified, and where the results go."""

    bootstrap: str
    input: str
    output: str
    dead: str
    config: Path
    documents: set[Position]

    def worker(self) -> "contextmanager[Worker]":  # type: ignore[type-arg]
        return worker(self.config)

    def results(self) -> dict[Position, int]:
        return topics.counted(topics.read(self.bootstrap, self.output))

    def finished(self) -> set[Position]:
        """What the group has committed as finished: all below the marks, and the stretches above them."""
        marks = asyncio.run(topics.committed(self.bootstrap, self.input, self.input))
        above = {
            Position(self.input, number, offset)
            for number, mark in marks.items()
            for first, last in decode(mark)
            for offset in range(first, last + 1)
        }
        return above | {at for at in self.documents if at.partition in marks and at.offset < marks[at.partition].offset}


class Accounted(NamedTuple):
    """What became of the documents in the end."""

    lost: int
    duplicated: int


@pytest.fixture
def begin(bootstrap: str, topic: Callable[..., str], tmp_path: Path) -> Callable[..., Work]:
    def work(documents: int, **stream: object) -> Work:
        names = {"input": topic(PARTITIONS), "output": topic(PARTITIONS), "dead": topic()}
        topics.fill(bootstrap, names["input"], map(topics.document, range(documents)))
        tree = {"bootstrap": bootstrap, "model": small_model(tmp_path / "model"), **names}
        config = configuration(tmp_path, tree, **stream)
        ends = topics.ends(bootstrap, names["input"])
        positions = {Position(names["input"], number, at) for number, end in ends.items() for at in range(end)}
        return Work(bootstrap, **names, config=config, documents=positions)

    return work


@contextmanager
def counting(work: Work) -> Iterator[Callable[[], int]]:
    """How many results there are, again and again at little cost."""
    consumer = Consumer({"bootstrap.servers": work.bootstrap, "group.id": "counts"})
    partitions = [TopicPartition(work.output, number) for number in range(PARTITIONS)]
    try:
        yield lambda: sum(consumer.get_watermark_offsets(tp, timeout=10)[1] for tp in partitions)
    finally:
        consumer.close()


def end(work: Work, running: Worker, done: int, count: Callable[[], int]) -> Accounted:
    """Let a worker finish the work and end it; what is committed then is the end of the input."""
    running.wait_until(lambda: count() >= done)
    ends = topics.ends(work.bootstrap, work.input)
    marks = {number: (end, "") for number, end in ends.items()}
    running.wait_until(lambda: asyncio.run(topics.committed(work.bootstrap, work.input, work.input)) == marks)
    code, _ = running.terminate()
    assert code == 0, running.said()
    results = work.results()
    assert topics.size(work.bootstrap, work.dead) == 0
    assert results.keys() <= work.documents
    return Accounted(len(work.documents - results.keys()), sum(results.values()) - len(results))


def test_a_worker_killed_again_and_again_loses_nothing_and_repeats_what_it_had_not_committed(
    begin: Callable[..., Work], record_property: Callable[[str, object], None]
) -> None:
    work = begin(5000)
    uncommitted = []
    with counting(work) as count:
        for moment in (600, 2000, 3500):
            with work.worker() as victim:
                victim.wait_until(lambda moment=moment: count() >= moment)  # type: ignore[misc]
                victim.kill()
            published = sum(work.results().values())
            again = len(work.results().keys() - work.finished())
            assert published >= moment
            uncommitted.append(again)
        with work.worker() as last:
            accounted = end(work, last, 5000, count)
    record_property("uncommitted at each kill", uncommitted)
    record_property("accounted", accounted)
    print(uncommitted, accounted)
    assert accounted.lost == 0
    assert accounted.duplicated <= sum(uncommitted) + 3 * OUT_AT_ONCE
    assert max(uncommitted) <= 2 * IN_ONE_COMMIT + OUT_AT_ONCE


def test_a_worker_that_is_asked_to_stop_ends_soon_and_well_and_repeats_nothing(begin: Callable[..., Work]) -> None:
    work = begin(4000)
    with counting(work) as count:
        for moment in (300, 1200, 2000, 2800):
            with work.worker() as stopped:
                stopped.wait_until(lambda moment=moment: count() >= moment)  # type: ignore[misc]
                code, seconds = stopped.terminate()
                assert code == 0, stopped.said()
                assert seconds < 5
                assert count() < 4000, "it was not stopped in mid-stream"
        with work.worker() as last:
            assert end(work, last, 4000, count) == Accounted(lost=0, duplicated=0)


def test_workers_that_join_and_leave_in_mid_stream_lose_and_repeat_nothing(begin: Callable[..., Work]) -> None:
    work = begin(4000)
    with counting(work) as count, work.worker() as first:
        first.wait_until(lambda: count() >= 400)
        with work.worker() as second:
            second.wait_until(lambda: bool(second.events("partitions_assigned")))
            joined_at = count()
            assert joined_at < 3500, "it did not join in mid-stream"
            first.wait_until(lambda: count() >= joined_at + 300)
            code, _ = first.terminate()
            assert code == 0, first.said()
            assert count() < 4000, "it did not leave in mid-stream"
            assert end(work, second, 4000, count) == Accounted(lost=0, duplicated=0)
        shares = [len(event["partitions"]) for event in second.events("partitions_assigned")]
        assert shares[0] == PARTITIONS // 2
        assert shares[-1] == PARTITIONS
        given_up = first.events("partitions_revoked") + second.events("partitions_revoked")
        assert given_up
        assert all(event["drained"] for event in given_up)


def test_a_worker_that_wakes_after_its_partitions_went_to_another_loses_nothing_and_winds_nothing_back(
    begin: Callable[..., Work], record_property: Callable[[str, object], None]
) -> None:
    in_hand = 200
    work = begin(3000, capacity={"documents": in_hand})
    with counting(work) as count, work.worker() as sleeper:
        sleeper.wait_until(lambda: count() >= 500)
        sleeper.send(signal.SIGSTOP)
        uncommitted = len(work.results().keys() - work.finished())
        with work.worker() as successor:
            successor.wait_until(lambda: count() >= 1500)
            sleeper.send(signal.SIGCONT)
            sleeper.wait_until(lambda: len(sleeper.events("partitions_assigned")) >= 2)
            code, _ = sleeper.terminate()
            assert code == 0, sleeper.said()
            accounted = end(work, successor, 3000, count)
        assert sleeper.events("partitions_revoked")
    record_property("accounted", accounted)
    print(uncommitted, accounted)
    assert accounted.lost == 0
    assert accounted.duplicated <= uncommitted + in_hand
