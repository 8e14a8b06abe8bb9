"""Transactions by themselves: who is fenced, and what is made of an end that nobody heard of."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from aiokafka import TopicPartition

from service.documents import Message, Position
from service.errors import Fenced, Misconfigured
from service.observability.telemetry import Telemetry
from service.offsets import Mark, Partition
from service.streams.kafka_transactions import TransactionalKafkaSource
from tests.kafka import topics
from tests.kafka.tickets import MAKE_TOPIC, PATIENCE, Tickets


class Quiet:
    """Owns partitions and does nothing about them."""

    def __init__(self) -> None:
        self.has_come = asyncio.Event()

    async def assigned(self, _: object) -> None:
        self.has_come.set()

    async def revoked(self, _: object) -> None:
        self.has_come.clear()


@asynccontextmanager
async def source(tickets: Tickets) -> AsyncIterator[TransactionalKafkaSource]:
    """A source that has its partition."""
    owner, it = Quiet(), TransactionalKafkaSource(tickets.kafka, tickets.stream.input, Telemetry())
    async with it.opened(owner), asyncio.timeout(PATIENCE):
        await owner.has_come.wait()
        yield it


@pytest.fixture
def tickets(bootstrap: str, topic: MAKE_TOPIC) -> Tickets:
    tickets = Tickets(bootstrap, topic, partitions=1, delivery="exactly_once")
    tickets.fill([topics.document(number) for number in range(10)])
    return tickets


def result(tickets: Tickets, offset: int, text: bytes = b"{}") -> Message:
    return Message(tickets.stream.output, None, text, [], Position(tickets.stream.input, 0, offset))


def values(tickets: Tickets) -> list[bytes | None]:
    return [found.value for found in tickets.results()]


async def test_whoever_takes_a_partition_over_fences_the_one_before_though_that_is_alive(tickets: Tickets) -> None:
    partition = Partition(tickets.stream.input, 0)
    async with source(tickets) as zombie:
        await zombie.transact(partition, Mark(1), [result(tickets, 0, b"zombie's first")])
        successor = TransactionalKafkaSource(tickets.kafka, tickets.stream.input, Telemetry())
        successor._consumer = zombie._consumer
        await successor._take(partition)
        successor._committed = {partition: Mark(1)}
        zombie._consumer._coordinator.request_rejoin = lambda: (
            None
        )  # or it takes the partition back, which is its right
        with pytest.raises(Fenced):
            await zombie.transact(partition, Mark(2), [result(tickets, 1, b"zombie's second")])
        await successor.transact(partition, Mark(2), [result(tickets, 1, b"successor's")])
        await successor._release([partition])
    assert values(tickets) == [b"zombie's first", b"successor's"]
    assert await tickets.committed() == {0: Mark(2)}


async def test_a_producer_made_anew_does_not_publish_over_what_another_has_committed(tickets: Tickets) -> None:
    partition = Partition(tickets.stream.input, 0)
    async with source(tickets) as zombie:
        await zombie.transact(partition, Mark(1), [result(tickets, 0, b"zombie's first")])
        await zombie._release([partition])  # as after a failure, while another had the partition for a moment
        zombie._committed = {partition: Mark(0)}  # what it knew before
        with pytest.raises(Fenced):
            await zombie.transact(partition, Mark(2), [result(tickets, 1, b"zombie's second")])
    assert values(tickets) == [b"zombie's first"]


async def test_a_transaction_whose_end_was_not_heard_of_is_not_made_twice(tickets: Tickets) -> None:
    partition = Partition(tickets.stream.input, 0)
    async with source(tickets) as it:
        await it.transact(partition, Mark(1), [result(tickets, 0, b"first")])
        before = dict(it._committed)
        await it.transact(partition, Mark(2), [result(tickets, 1, b"second")])
        await it._release([partition])
        it._committed = before  # the answer to the last commit was lost
        await it.transact(partition, Mark(2), [result(tickets, 1, b"second")])
        await it.transact(partition, Mark(3), [result(tickets, 2, b"third")])
    assert values(tickets) == [b"first", b"second", b"third"]


async def test_whoever_still_tries_for_a_partition_that_was_revoked_gives_up(tickets: Tickets) -> None:
    partition = Partition(tickets.stream.input, 0)
    async with source(tickets) as it:
        await it.on_partitions_revoked([TopicPartition(*partition)])
        with pytest.raises(Fenced):
            await it.transact(partition, Mark(1), [result(tickets, 0)])
    assert values(tickets) == []


async def test_what_was_open_when_its_worker_died_is_never_seen(tickets: Tickets) -> None:
    partition = Partition(tickets.stream.input, 0)
    async with source(tickets) as dying:
        producer = dying._producers[partition]
        await producer.begin_transaction()
        await producer.send_and_wait(tickets.stream.output, b"half a transaction", partition=0)
        await dying._take(partition)  # what its successor does first
        assert await dying.transact(partition, Mark(1), [result(tickets, 0, b"whole")]) == []
    assert values(tickets) == [b"whole"]


async def test_results_too_large_for_their_topic_are_told_and_nothing_is_published_until_they_are_left_out(
    tickets: Tickets,
) -> None:
    partition = Partition(tickets.stream.input, 0)
    large = [result(tickets, offset, b"x" * 2_000_000) for offset in (3, 7)]
    small = [result(tickets, offset) for offset in (1, 2, 4)]
    async with source(tickets) as it:
        found = await it.transact(partition, Mark(8), [*small, *large])
        assert [message.source.offset for message in found] == [3, 7]
        assert values(tickets) == []
        assert await tickets.committed() == {}
        assert await it.transact(partition, Mark(8), small) == []
    assert len(values(tickets)) == 3


async def test_a_topic_that_takes_no_dead_letter_however_small_is_a_wrong_setting(
    bootstrap: str, topic: MAKE_TOPIC
) -> None:
    tickets = Tickets(bootstrap, topic, partitions=1, delivery="exactly_once")
    narrow = topic(config={"max.message.bytes": "100"})
    letter = Message(
        narrow, b"k", b"v" * 500, [("labelstream-error-type", b"undecodable" * 20)], result(tickets, 0).source
    )
    async with source(tickets) as it:
        with pytest.raises(Misconfigured, match=r"max\.message\.bytes"):
            await it.transact(Partition(tickets.stream.input, 0), Mark(1), [letter])
