"""Apache Kafka as a source, by aiokafka.

What aiokafka 0.14 does that the code here guards against:

* Records may be fetched while a rebalance is still being settled, and an exception in a rebalance listener is logged
  and swallowed. So what is read before the listener is done is thrown away, every assignment seeks back to what is
  committed, and a failure in the listener is raised by the next poll.
* A pause throws away what was prefetched. So a stream without room simply does not poll, and pauses only when that has
  lasted long enough to matter for its membership of the group.
* A consumer that subscribes before it is started waits, deaf to everything, until the group has drained. So it
  subscribes afterwards, and a poll before the first assignment gives nothing, in time.
* A commit retries for ever while the broker is away, and `stop()` may hang or raise CancelledError: both are bounded.
* Two members of one group instance id throw each other out for ever. So one that is thrown out looks whether another
  has joined as itself, and if so does not join again.
* A consumer may stop reading, or never come into its group, and say nothing of it. So one that has heard nothing from a
  broker for twice the rebalance timeout is replaced by another.
"""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager

import structlog
from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.coordinator.assignors.roundrobin import RoundRobinPartitionAssignor
from aiokafka.errors import (
    CommitFailedError,
    GroupAuthorizationFailedError,
    IllegalStateError,
    KafkaError,
    TopicAuthorizationFailedError,
)
from aiokafka.structs import OffsetAndMetadata

from service import settings
from service.documents import Position, Record
from service.errors import Fenced, Misconfigured, Unavailable
from service.offsets import METADATA_LIMIT, Mark, Partition, Room
from service.source import Owner
from service.streams.header_names import read_any_header_name
from service.streams.kafka_clients import connection, consumer_stopped, ms, started, stopped

_MOST_RECORDS = 500
"""Read at once, at most: while they are taken in hand nothing else is, and calls that are done wait."""
_COMMIT_PATIENCE = 5.0
_SILENCE = 10.0
"""Seconds without room after which the partitions are paused and the broker is shown that we are alive."""


log = structlog.get_logger(__name__)


class KafkaSource(ConsumerRebalanceListener):  # type: ignore[misc]
    """The records of one topic, read as a member of the consumer group."""

    metadata_limit = METADATA_LIMIT

    def __init__(self, kafka: settings.Kafka, topic: str) -> None:
        self._kafka = kafka
        self._topic = topic
        instance = kafka.group_instance_id
        self._instance = f"{instance}-{topic}" if instance else None  # each stream of a replica is a member
        self._member = ""
        self._settled = asyncio.Event()
        self._owner: Owner
        self._failure: Exception | None = None
        self._polled = self._heard = time.monotonic()
        self._newest = 0
        self._paused = False

    @asynccontextmanager
    async def opened(self, owner: Owner) -> AsyncIterator[None]:
        """As `source.Source.opened`."""
        self._owner = owner
        read_any_header_name()
        self._consumer = self._made()
        try:
            await self._joined(self._consumer)
            yield
        finally:
            self._settled.clear()
            await consumer_stopped(self._consumer)

    def _made(self) -> AIOKafkaConsumer:
        return AIOKafkaConsumer(
            **connection(self._kafka),
            group_id=self._kafka.group_id,
            group_instance_id=self._instance,
            enable_auto_commit=False,
            auto_offset_reset=self._kafka.auto_offset_reset,
            session_timeout_ms=ms(self._kafka.session_timeout),
            heartbeat_interval_ms=ms(min(3.0, self._kafka.session_timeout / 3)),
            rebalance_timeout_ms=ms(self._kafka.rebalance_timeout),
            fetch_max_wait_ms=ms(self._kafka.fetch_max_wait),
            isolation_level="read_committed",  # what a producer took back is not a document
            partition_assignment_strategy=[RoundRobinPartitionAssignor],
        )

    async def _joined(self, consumer: AIOKafkaConsumer) -> None:
        await started(consumer, self._kafka)
        await self._look_for_the_topic(consumer)
        consumer.subscribe([self._topic], listener=self)

    async def poll(self, room: Room, timeout: float) -> list[Record]:
        """As `source.Source.poll`; a topic has no end."""
        if self._failure is not None:
            raise self._failure
        try:
            if self._is_deaf() and not await self._is_replaced():
                await asyncio.sleep(timeout)
                return []
            if not await self._is_settled(timeout):
                return []
            if not room.documents:
                await self._show_life()
                return []
            self._polled = time.monotonic()
            self._resume()
            most = min(room.documents, _MOST_RECORDS)
            found = await self._consumer.getmany(timeout_ms=ms(timeout), max_records=most)
        except (TopicAuthorizationFailedError, GroupAuthorizationFailedError) as error:
            raise Misconfigured(f"kafka: the broker does not let this user read: {error!r}") from None
        except KafkaError as error:
            raise Unavailable(f"topic {self._topic}: the broker gave no records: {error!r}") from None
        if not self._settled.is_set():
            return []
        self._listen()
        return [
            Record(Position(topic, number, record.offset), record.timestamp, record.key, record.value, record.headers)
            for (topic, number), records in found.items()
            for record in records
        ]

    async def commit(self, marks: Mapping[Partition, Mark]) -> None:
        """As `source.Source.commit`."""
        offsets = {TopicPartition(*partition): OffsetAndMetadata(*mark) for partition, mark in marks.items()}
        try:
            await asyncio.wait_for(self._consumer.commit(offsets), _COMMIT_PATIENCE)
        except (CommitFailedError, IllegalStateError) as error:
            raise Fenced(str(error)) from None
        except TimeoutError:
            raise Unavailable(f"no broker took the commit within {_COMMIT_PATIENCE:.0f} s") from None
        except KafkaError as error:
            raise Unavailable(f"the commit failed: {error!r}") from None

    def partitions(self) -> int:
        """As `source.Source.partitions`."""
        return len(self._consumer.partitions_for_topic(self._topic) or ())

    def ends(self) -> dict[Partition, int]:
        """As `source.Source.ends`."""
        if not self._settled.is_set():
            return {}
        return {Partition(*tp): self._consumer.highwater(tp) or 0 for tp in self._consumer.assignment()}

    async def on_partitions_revoked(self, revoked: Iterable[TopicPartition]) -> None:
        """Called by aiokafka, which waits for it, before it joins the group anew."""
        self._settled.clear()
        try:
            if partitions := [Partition(*tp) for tp in revoked]:
                await self._owner.revoked(partitions)
            await self._look_for_a_double()
        except Exception as error:  # noqa: BLE001  aiokafka would swallow it; the next poll raises it
            self._failure = error
        if isinstance(self._failure, Misconfigured):
            await asyncio.Event().wait()  # until the consumer is stopped: to return would be to join again

    async def on_partitions_assigned(self, assigned: Iterable[TopicPartition]) -> None:
        """Called by aiokafka, which waits for it, after it has joined the group."""
        self._member = self._consumer._coordinator.member_id  # noqa: SLF001  it has no other name
        try:
            marks = await self._marks(sorted(assigned))
            await self._owner.assigned({Partition(*tp): mark for tp, mark in marks.items()})
            for tp, mark in marks.items():  # nothing is awaited from here on: what is read now is not thrown away
                self._consumer.seek(tp, mark.offset)
        except Exception as error:  # noqa: BLE001  as above
            self._failure = error
        self._paused = False
        self._settled.set()

    def _listen(self) -> None:
        """Take note of when a broker last answered a fetch, if only to say that there is nothing new."""
        told = [self._consumer.last_poll_timestamp(tp) or 0 for tp in self._consumer.assignment()]
        newest = max(told, default=self._newest + 1)  # without partitions there is nothing to hear
        if newest > self._newest:
            self._newest, self._heard = newest, time.monotonic()

    def _is_deaf(self) -> bool:
        return time.monotonic() - self._heard > 2 * self._kafka.rebalance_timeout

    async def _is_replaced(self) -> bool:
        """Go on with another consumer, if a broker is there for it."""
        log.warning("consumer_replaced", topic=self._topic, silent_for=round(time.monotonic() - self._heard))
        if self._settled.is_set():
            await self.on_partitions_revoked(self._consumer.assignment())
        await consumer_stopped(self._consumer)
        consumer = self._made()
        try:
            await self._joined(consumer)
        except Unavailable as error:
            log.warning("reading_waits", topic=self._topic, reason=str(error))
            await consumer_stopped(consumer)
            return False
        self._consumer, self._heard = consumer, time.monotonic()
        return True

    async def _look_for_a_double(self) -> None:
        """Raises Misconfigured where somebody else is a member under our name by now."""
        if not (self._instance and self._member):
            return
        admin = AIOKafkaAdminClient(**connection(self._kafka))
        try:
            await started(admin, self._kafka)
            (described,) = await admin.describe_consumer_groups([self._kafka.group_id])
        except (KafkaError, Unavailable) as error:
            log.warning("group_not_described", topic=self._topic, reason=str(error))
            return
        finally:
            await stopped(admin.close)
        members = {member[0] for group in described.groups for member in group[5]}
        if any(member.startswith(f"{self._instance}-") and member != self._member for member in members):
            raise Misconfigured(
                f"kafka.group_instance_id {self._kafka.group_instance_id!r}: another worker has joined the group "
                f"{self._kafka.group_id!r} under the same; each replica needs its own"
            )

    async def _look_for_the_topic(self, consumer: AIOKafkaConsumer) -> None:
        """Raises Misconfigured where there is none: a member of the group would wait for it in silence."""
        try:
            there = await consumer.topics()
        except KafkaError as error:
            raise Unavailable(f"kafka.bootstrap_servers: no broker says which topics there are: {error!r}") from None
        if self._topic not in there:
            raise Misconfigured(f"there is no topic {self._topic!r}, or this user may not see it")

    async def _marks(self, partitions: Sequence[TopicPartition]) -> dict[TopicPartition, Mark]:
        if not partitions:
            return {}
        fetched = await self._consumer._coordinator.fetch_committed_offsets(partitions)  # noqa: SLF001  has no other name
        marks = {tp: Mark(found.offset, found.metadata) for tp, found in fetched.items() if found.offset >= 0}
        if fresh := [tp for tp in partitions if tp not in marks]:
            from_the_start = self._kafka.auto_offset_reset == "earliest"
            find = self._consumer.beginning_offsets if from_the_start else self._consumer.end_offsets
            begin = {tp: Mark(offset) for tp, offset in (await find(fresh)).items()}
            if not from_the_start:  # or what arrives before our first commit would be skipped by a restart
                with contextlib.suppress(Fenced):  # they are somebody else's already, who begins there anew
                    await self.commit({Partition(*tp): mark for tp, mark in begin.items()})
            marks |= begin
        return marks

    async def _is_settled(self, timeout: float) -> bool:
        if self._settled.is_set():
            return True
        self._consumer._coordinator.check_errors()  # noqa: SLF001  what keeps us out of the group is raised here alone
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                await self._settled.wait()
        return self._settled.is_set()

    async def _show_life(self) -> None:
        self._heard = time.monotonic()  # nothing is fetched, so nothing is to be heard
        if time.monotonic() - self._polled > _SILENCE:
            self._consumer.pause(*self._consumer.assignment())
            self._paused = True
            await self._consumer.getmany(timeout_ms=0)

    def _resume(self) -> None:
        if self._paused:
            self._consumer.resume(*self._consumer.paused())
            self._paused = False


async def missing_topics(kafka: settings.Kafka, topics: Iterable[str]) -> list[str]:
    """Those of `topics` that the cluster does not have. Raises Misconfigured or Unavailable."""
    admin = AIOKafkaAdminClient(**connection(kafka))
    try:
        await started(admin, kafka)
        there = set(await admin.list_topics())
    finally:
        await stopped(admin.close)
    return [topic for topic in topics if topic not in there]
