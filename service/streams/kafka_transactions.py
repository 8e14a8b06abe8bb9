"""Apache Kafka as a source whose commits carry the results they are for, in transactions.

aiokafka's transactions commit offsets without saying which member of the group they are from, so a worker that has lost
a partition could still commit for it (there is no KIP-447). So each input partition has a producer with a
transactional id of its own: whoever takes the partition over makes one too, which fences the one before. What else
aiokafka 0.14 does that the code here guards against:

* After a failure, sequence numbers have gaps and states are stuck. So a producer that has failed is never aborted or
  mended, it is replaced: to begin anew under the same id has the broker abort what was open.
* Nobody hears how a transaction ended whose answer was lost. So whoever begins anew looks at what is committed: the
  mark of that transaction, in which case all of it is there; or the one before, in which case none of it is; or one
  that is neither, in which case the partition is another's.
* Requests are repeated for ever while no broker is there. So all that is asked of one has a time limit.
"""

import asyncio
from collections import Counter as Counting
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from collections.abc import Set as AbstractSet
from contextlib import asynccontextmanager

import structlog
from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.errors import (
    IllegalOperation,
    InvalidProducerEpoch,
    InvalidProducerIdMapping,
    InvalidTxnState,
    KafkaError,
    MessageSizeTooLargeError,
    ProducerFenced,
)
from aiokafka.structs import OffsetAndMetadata

from service import settings
from service.documents import Message
from service.errors import Fenced, Misconfigured, Unavailable
from service.observability.telemetry import Telemetry
from service.offsets import Mark, Partition
from service.source import Owner
from service.streams.kafka import KafkaSource
from service.streams.kafka_clients import connection, producer_stopped, started
from service.streams.kafka_failures import refusal, smaller, will_pass
from service.streams.kafka_placement import Placement
from service.streams.kafka_sink import LARGEST_REQUEST, LARGEST_ROUND, filled

_AGAIN_EVERY = 1.0
_STUCK = (InvalidTxnState, InvalidProducerIdMapping)
"""What a producer fails with, beside what `will_pass` knows of, when it is to be replaced."""

log = structlog.get_logger(__name__)


class TransactionalKafkaSource(KafkaSource):
    """The records of one topic, and a transaction for each time that something of a partition is finished."""

    def __init__(self, kafka: settings.Kafka, topic: str, telemetry: Telemetry) -> None:
        super().__init__(kafka, topic)
        self._telemetry = telemetry
        self._producers: dict[Partition, AIOKafkaProducer] = {}
        self._placements: dict[Partition, Placement] = {}
        self._committed: dict[Partition, Mark | None] = {}

    @asynccontextmanager
    async def opened(self, owner: Owner) -> AsyncIterator[None]:
        """As `source.Source.opened`."""
        try:
            async with super().opened(owner):
                yield
        finally:
            await self._release(list(self._producers))

    async def transact(self, partition: Partition, mark: Mark, messages: Sequence[Message]) -> list[Message]:
        """As `delivery.Transactions.transact`. A dead letter too large for its topic goes without what is large."""
        leaving, apart = list(messages), set[int]()
        with self._telemetry.producing(Counting([message.topic for message in messages])):
            while True:
                if partition not in self._committed:
                    raise Fenced(f"{partition.topic}-{partition.number} was revoked")
                try:
                    async with asyncio.timeout(self._kafka.request_timeout):
                        if not await self._has_happened(partition, mark):
                            await self._attempt(partition, mark, leaving, apart)
                except _TooLarge as found:
                    await self._release([partition])
                    if results := [message for message in found.messages if not message.is_dead_letter]:
                        return results
                    leaving = [_lighter(message) if message in found.messages else message for message in leaving]
                except (ProducerFenced, InvalidProducerEpoch):
                    raise self._fenced(partition) from None
                except (KafkaError, IllegalOperation, TimeoutError, Unavailable) as failure:
                    await self._wait_out(partition, failure)
                else:
                    if partition in self._committed:  # else it was revoked meanwhile
                        self._committed[partition] = mark
                    return []

    async def on_partitions_revoked(self, revoked: Iterable[TopicPartition]) -> None:
        """As `KafkaSource.on_partitions_revoked`."""
        partitions = [Partition(*tp) for tp in revoked]
        await super().on_partitions_revoked(revoked)
        for partition in partitions:
            self._committed.pop(partition, None)  # whoever is still trying to commit for it gives up
        await self._release(partitions)

    async def _marks(self, partitions: Sequence[TopicPartition]) -> dict[TopicPartition, Mark]:
        """As `KafkaSource._marks`, once nobody else can change them any more."""
        await asyncio.gather(*(self._take(Partition(*tp)) for tp in partitions))
        marks = await super()._marks(partitions)
        found = await self._found(partitions)
        self._committed = {Partition(*tp): found.get(tp) for tp in partitions}
        return marks

    async def _take(self, partition: Partition) -> None:
        """Be the only one who can commit for a partition; waits while no broker is there."""
        await self._release([partition])
        while partition not in self._producers:
            try:
                async with asyncio.timeout(self._kafka.request_timeout):
                    self._producers[partition] = await _begun(self._kafka, partition.topic, partition.number)
            except (TimeoutError, Unavailable) as failure:
                await self._wait_out(partition, failure)

    async def _wait_out(self, partition: Partition, failure: Exception) -> None:
        """Have the next try begin anew, in a moment. Raises Misconfigured for a failure that will not pass."""
        await self._release([partition])
        if isinstance(failure, KafkaError) and not (will_pass(failure) or isinstance(failure, _STUCK)):
            raise refusal(f"{partition.topic} or one that is written to", failure) from None
        log.warning("transaction_waits", topic=partition.topic, partition=partition.number, reason=repr(failure))
        await asyncio.sleep(_AGAIN_EVERY)

    async def _has_happened(self, partition: Partition, mark: Mark) -> bool:
        """Whether a transaction whose end nobody heard of was committed. Raises Fenced where another's was."""
        if partition in self._producers:
            return False  # then the last one did end, and well
        self._producers[partition] = await _begun(self._kafka, partition.topic, partition.number)
        found = (await self._found([TopicPartition(*partition)])).get(TopicPartition(*partition))
        if found not in (mark, self._committed.get(partition)):
            raise self._fenced(partition)
        return found == mark

    async def _attempt(self, partition: Partition, mark: Mark, messages: Sequence[Message], apart: set[int]) -> None:
        """One transaction. Raises _TooLarge once it is known of single messages; `apart` are those suspected of it."""
        producer = self._producers[partition]
        placement = self._placements.setdefault(partition, Placement(lambda: self._producers[partition]))
        await producer.begin_transaction()
        sent: list[tuple[Sequence[Message], asyncio.Future[object]]] = []
        for there, together in (await placement.placed(messages)).items():
            for portion in _portions(together, apart):
                left = portion
                while left:
                    builder = producer.create_batch()
                    count = filled(builder, left)
                    future = await producer.send_batch(builder, there.topic, partition=there.number)
                    sent.append((left[:count], future))
                    left = left[count:]
        ends = await asyncio.gather(*(future for _, future in sent), return_exceptions=True)
        failed = [(portion, end) for (portion, _), end in zip(sent, ends, strict=True) if isinstance(end, Exception)]
        if too_large := [portion for portion, end in failed if isinstance(end, MessageSizeTooLargeError)]:
            apart.update(id(message) for portion in too_large for message in portion)
            if all(len(portion) == 1 for portion in too_large):
                raise _TooLarge([message for (message,) in too_large])
        if failed:
            raise failed[0][1]
        offsets = {TopicPartition(*partition): OffsetAndMetadata(*mark)}
        await producer.send_offsets_to_transaction(offsets, self._kafka.group_id)
        await producer.commit_transaction()

    async def _found(self, partitions: Sequence[TopicPartition]) -> dict[TopicPartition, Mark]:
        """What is committed."""
        fetching = self._consumer._coordinator.fetch_committed_offsets(partitions)  # noqa: SLF001  as in KafkaSource
        fetched = await asyncio.wait_for(fetching, self._kafka.request_timeout)
        return {tp: Mark(found.offset, found.metadata) for tp, found in fetched.items() if found.offset >= 0}

    def _fenced(self, partition: Partition) -> Fenced:
        """Join the group anew, which tells whose the partition is."""
        self._consumer._coordinator.request_rejoin()  # noqa: SLF001  there is no other way to
        return Fenced(f"{partition.topic}-{partition.number} was taken over by another worker")

    async def _release(self, partitions: Iterable[Partition]) -> None:
        leaving = [producer for partition in partitions if (producer := self._producers.pop(partition, None))]
        await asyncio.gather(*map(_ended, leaving))


async def rehearse(kafka: settings.Kafka, topic: str) -> None:
    """See that this user may have transactions for an input. Raises Misconfigured or Unavailable."""
    try:
        async with asyncio.timeout(kafka.request_timeout):
            await _ended(await _begun(kafka, topic, "check"))
    except TimeoutError:
        raise Unavailable("kafka: no broker has begun a transaction in time") from None


async def _begun(kafka: settings.Kafka, topic: str, which: object) -> AIOKafkaProducer:
    """A producer for a partition, which fences any other. Raises Unavailable or Misconfigured."""
    producer = AIOKafkaProducer(
        **connection(kafka),
        transactional_id=f"{kafka.group_id}-{topic}-{which}",
        max_batch_size=LARGEST_ROUND,
        max_request_size=LARGEST_REQUEST,
    )
    try:
        await started(producer, kafka)
        ready = asyncio.ensure_future(producer._txn_manager.wait_for_pid())  # noqa: SLF001  `start` does not wait
        sending = producer._sender.sender_task  # noqa: SLF001  where a refusal is raised
        await asyncio.wait([ready, sending], return_when=asyncio.FIRST_COMPLETED)
        if sending.done():
            ready.cancel()
            sending.result()
    except KafkaError as error:
        await _ended(producer)
        raise Misconfigured(
            f"kafka: the broker lets this user have no transactions as {kafka.group_id}-*: {error!r}"
        ) from None
    except BaseException:
        await _ended(producer)
        raise
    return producer


async def _ended(producer: AIOKafkaProducer) -> None:
    await producer_stopped(producer)
    for end in (producer._sender.sender_task, producer._txn_manager._transaction_waiter):  # noqa: SLF001  as above
        if end is not None and end.done() and not end.cancelled():
            end.exception()  # has been acted on, and asyncio is to know that


class _TooLarge(Exception):
    def __init__(self, messages: Sequence[Message]) -> None:
        super().__init__(f"{len(messages)} messages")
        self.messages = messages


def _portions(messages: Sequence[Message], apart: AbstractSet[int]) -> Iterator[Sequence[Message]]:
    """The messages together, save those that are suspected, which go alone."""
    if together := [message for message in messages if id(message) not in apart]:
        yield together
    yield from ([message] for message in messages if id(message) in apart)


def _lighter(letter: Message) -> Message:
    """A dead letter with less in it. Raises Misconfigured when there is nothing left to leave out."""
    if (less := smaller(letter)) is None:
        raise refusal(letter.topic, MessageSizeTooLargeError())
    return less
