"""The dead letters of a stream on Apache Kafka, to be read up to their end and sent back to the input.

Letters that are sent back and the offsets that say so are one transaction, committed for the group although nobody is a
member of it: both are there or neither, however a run ends, and a second run at the same time puts an end to the first.
What aiokafka 0.14 does that the code here guards against:

* A transaction in which a message fails leaves a gap in its producer's sequence numbers. So that producer is replaced,
  and the one that follows aborts whatever was left open.
* It reads a commit of which the broker has promised the end and not seen to it yet, as after a crash, as if there were
  none. So a run begins with a transaction of its own, which waits for the end of that.
* While no broker answers, it waits for ever. So a transaction is bounded by `kafka.request_timeout`, as is a silence.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import NamedTuple

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import (
    GroupCoordinatorNotAvailableError,
    KafkaError,
    MessageSizeTooLargeError,
    ProducerFenced,
    TopicAuthorizationFailedError,
)
from aiokafka.structs import OffsetAndMetadata

from service import settings
from service.documents import Message, Position, Record
from service.errors import Misconfigured, Unavailable
from service.offsets import Mark, Partition
from service.streams.header_names import read_any_header_name
from service.streams.kafka_clients import connection, consumer_stopped, ms, producer_stopped, started, stopped

_MOST_RECORDS = 500
_SILENCE = 3.0
"""Seconds without a record after which the broker is asked whether there is anything more to come."""
_AGAIN = 0.2
_LARGEST_REQUEST = 64 * 1024**2


class Extent(NamedTuple):
    """Offsets of a partition: where it begins and ends, and the first ones that are not older than two moments."""

    beginning: int
    end: int
    since: int
    until: int


class Letters:
    """The dead letters of one topic; made by `opened`."""

    def __init__(self, kafka: settings.Kafka, topic: str, group: str, consumer: AIOKafkaConsumer) -> None:
        self._kafka = kafka
        self._topic = topic
        self._group = group
        self._consumer = consumer
        self._producer: AIOKafkaProducer | None = None
        self._ends: dict[TopicPartition, int] = {}

    async def take_over(self) -> None:
        """End what an earlier run may have left open: what is committed is known for certain only afterwards.

        Raises Misconfigured and Unavailable.
        """
        await self._transact([], {}, alone=False)

    async def committed(self) -> dict[Partition, Mark]:
        """What has been committed. Raises Unavailable."""
        admin = AIOKafkaAdminClient(**connection(self._kafka))
        try:
            await started(admin, self._kafka)
            async with self._answers("the broker does not say how far the runs before this one came"):
                while True:
                    try:
                        found = await admin.list_consumer_group_offsets(self._group)
                        break
                    except GroupCoordinatorNotAvailableError:  # the first group of a new cluster is about to begin
                        await asyncio.sleep(_AGAIN)
        finally:
            await stopped(admin.close)
        return {Partition(*tp): Mark(at.offset, at.metadata) for tp, at in found.items() if at.offset >= 0}

    async def extents(self, since: float | None, until: float | None) -> dict[Partition, Extent]:
        """How far each partition goes, and where in it two moments are (Unix seconds; None: its beginning, its end)."""
        partitions = list(self._consumer.assignment())
        async with self._answers("the broker does not say how long the topic is"):
            beginnings = await self._consumer.beginning_offsets(partitions)
            ends = await self._consumer.end_offsets(partitions)
            first = await self._at(since, beginnings, ends)
            last = await self._at(until, ends, ends)
        return {Partition(*tp): Extent(beginnings[tp], ends[tp], first[tp], last[tp]) for tp in partitions}

    def go_to(self, stretches: Mapping[Partition, tuple[int, int]]) -> None:
        """Read these stretches (the first offset, and the one after the last), and no other partition."""
        self._ends = {TopicPartition(*partition): end for partition, (_, end) in stretches.items()}
        self._consumer.pause(*(tp for tp in self._consumer.assignment() if tp not in self._ends))
        for partition, (begin, _) in stretches.items():
            self._consumer.seek(TopicPartition(*partition), begin)

    async def read(self) -> list[Record]:
        """The next letters; none when all stretches are at their ends. Raises Unavailable.

        What a transaction that is still open has put there is left to a later run.
        """
        heard = time.monotonic()
        while left := [tp for tp, end in self._ends.items() if await self._consumer.position(tp) < end]:
            try:
                found = await self._consumer.getmany(*left, timeout_ms=200, max_records=_MOST_RECORDS)
            except TopicAuthorizationFailedError as error:
                raise Misconfigured(f"kafka: the broker does not let this user read: {error!r}") from None
            except KafkaError as error:
                raise Unavailable(f"topic {self._topic}: the broker gave no records: {error!r}") from None
            letters = [
                Record(Position(topic, number, each.offset), each.timestamp, each.key, each.value, each.headers)
                for (topic, number), records in found.items()
                for each in records
                if each.offset < self._ends[TopicPartition(topic, number)]
            ]
            if letters:
                return letters
            if time.monotonic() - heard > _SILENCE:
                async with self._answers(f"topic {self._topic}: no broker answers"):
                    await self._consumer.end_offsets(left)
                return []
        return []

    async def positions(self) -> dict[Partition, int]:
        """The offset in each partition before which there is nothing more to read."""
        return {Partition(*tp): await self._consumer.position(tp) for tp in self._ends}

    async def send_back(self, messages: Sequence[Message], marks: Mapping[Partition, Mark]) -> list[Message]:
        """Publish the messages and commit the marks, or do neither.

        Gives the messages that are too large for their topic, which are left out. Raises Misconfigured and Unavailable.
        """
        too_large: list[Message] = []
        if not (messages or marks):
            return too_large
        while faults := await self._transact(messages, marks, alone=bool(too_large)):
            if not too_large:  # others were in their batches: now that each goes alone, it is seen which they are
                faults = await self._transact(messages, marks, alone=True)
            too_large += faults
            messages = [message for message in messages if message not in faults]
        return too_large

    async def _transact(
        self, messages: Sequence[Message], marks: Mapping[Partition, Mark], *, alone: bool
    ) -> list[Message]:
        """Gives the messages that seem too large, in which case nothing was done."""
        offsets = {TopicPartition(*partition): OffsetAndMetadata(*mark) for partition, mark in marks.items()}
        try:
            async with asyncio.timeout(self._kafka.request_timeout):
                producer = await self._ready(alone=alone)
                await producer.begin_transaction()
                sending = [await self._sending(producer, message) for message in messages]
                results = await asyncio.gather(*sending, return_exceptions=True)
                failures = [result for result in results if isinstance(result, BaseException)]
                faults = [
                    message
                    for message, result in zip(messages, results, strict=True)
                    if isinstance(result, MessageSizeTooLargeError)
                ]
                if failures and not faults:
                    raise failures[0]
                if not faults:
                    if offsets:
                        await producer.send_offsets_to_transaction(offsets, self._group)
                    await producer.commit_transaction()
        except (KafkaError, TimeoutError) as error:
            await self.give_up_producer()
            raise _failure(error, self._topic) from None
        if faults:
            await self.give_up_producer()
        return faults

    async def give_up_producer(self) -> None:
        """End the producer, in bounded time; what it has not committed is aborted by the next, or by the broker."""
        if self._producer is not None:
            producer, self._producer = self._producer, None
            await producer_stopped(producer)

    async def _sending(self, producer: AIOKafkaProducer, message: Message) -> "asyncio.Future[object]":
        value = (
            b"" if message.key is None and message.value is None else message.value
        )  # aiokafka sends nothing for both
        count = len(await producer.partitions_for(message.topic))
        topic, number, _ = message.source
        try:
            sent: asyncio.Future[object] = await producer.send(
                message.topic,
                value,
                message.key,
                number if topic == message.topic and number < count else None,
                headers=list(message.headers),
            )
        except MessageSizeTooLargeError as error:
            sent = asyncio.get_running_loop().create_future()
            sent.set_exception(error)
        return sent

    async def _ready(self, *, alone: bool) -> AIOKafkaProducer:
        if self._producer is None:
            producer = AIOKafkaProducer(
                **connection(self._kafka),
                transactional_id=self._group,
                compression_type="gzip",  # as letters may have come compressed, and be too large otherwise
                max_batch_size=1 if alone else 16 * 1024,
                max_request_size=_LARGEST_REQUEST,
            )
            try:
                await started(producer, self._kafka)
            except BaseException:
                await producer_stopped(producer)
                raise
            self._producer = producer
        return self._producer

    async def _at(
        self, moment: float | None, otherwise: Mapping[TopicPartition, int], ends: Mapping[TopicPartition, int]
    ) -> dict[TopicPartition, int]:
        """The first offset of each partition that is not older than a moment."""
        if moment is None:
            return dict(otherwise)
        found = await self._consumer.offsets_for_times(dict.fromkeys(ends, max(0, ms(moment))))
        return {tp: at.offset if (at := found.get(tp)) else end for tp, end in ends.items()}

    @asynccontextmanager
    async def _answers(self, otherwise: str) -> AsyncIterator[None]:
        try:
            async with asyncio.timeout(self._kafka.request_timeout):
                yield
        except TimeoutError:
            raise Unavailable(f"{otherwise} within {self._kafka.request_timeout:g} s") from None
        except KafkaError as error:
            raise Unavailable(f"{otherwise}: {error!r}") from None


@asynccontextmanager
async def opened(kafka: settings.Kafka, topic: str, group: str) -> AsyncIterator[Letters]:
    """The letters of a topic, for the length of the block; `group` remembers how far they have been dealt with.

    Raises Misconfigured and Unavailable.
    """
    read_any_header_name()
    consumer = AIOKafkaConsumer(
        topic,
        **connection(kafka),
        group_id=None,
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        fetch_max_wait_ms=100,
        isolation_level="read_committed",
    )
    letters = Letters(kafka, topic, group, consumer)
    try:
        await started(consumer, kafka)
        yield letters
    finally:
        await letters.give_up_producer()
        await consumer_stopped(consumer)


def _failure(error: Exception, topic: str) -> Misconfigured | Unavailable:
    """What it means that letters could not be sent back; nothing of that transaction was done."""
    again = "run it again, and it goes on where it stopped"
    match error:
        case ProducerFenced():
            return Unavailable(
                f"topic {topic}: another replay of this stream has begun, and goes on in place of this one"
            )
        case TopicAuthorizationFailedError():
            return Misconfigured(f"topic {topic}: the broker does not let this user send letters back: {error!r}")
        case TimeoutError():
            return Unavailable(f"topic {topic}: no broker takes letters any more: {again}")
    return Unavailable(f"topic {topic}: letters could not be sent back ({error!r}): {again}")
