"""Apache Kafka as a source and a sink, by aiokafka.

What aiokafka 0.14 does that the code here guards against:

* Records may be fetched while a rebalance is still being settled, and an exception in a rebalance listener is logged
  and swallowed. So what is read before the listener is done is thrown away, every assignment seeks back to what is
  committed, and a failure in the listener is raised by the next poll.
* A pause throws away what was prefetched. So a stream without room simply does not poll, and pauses only when that has
  lasted long enough to matter for its membership of the group.
* A consumer that subscribes before it is started waits, deaf to everything, until the group has drained. So it
  subscribes afterwards, and a poll before the first assignment gives nothing, in time.
* A batch that fails leaves a gap in its producer's sequence numbers, and the broker takes nothing more from it for that
  partition. So a producer that has failed is replaced, and what it did not deliver is sent again.
* A commit retries for ever while the broker is away, and `stop()` may hang or raise CancelledError: both are bounded.
* Hashing a key in pure Python costs more than all else in sending: messages keep their document's partition where input
  and output have equally many, which is where Java's default partitioner would have put those with a key.
"""

import asyncio
import contextlib
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

import structlog
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, ConsumerRebalanceListener, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.coordinator.assignors.roundrobin import RoundRobinPartitionAssignor
from aiokafka.errors import (
    CommitFailedError,
    GroupAuthorizationFailedError,
    IllegalStateError,
    KafkaConnectionError,
    KafkaError,
    KafkaTimeoutError,
    MessageSizeTooLargeError,
    OutOfOrderSequenceNumber,
    ProducerClosed,
    ProducerFenced,
    TopicAuthorizationFailedError,
    UnknownProducerId,
    UnknownTopicOrPartitionError,
)
from aiokafka.helpers import create_ssl_context
from aiokafka.structs import OffsetAndMetadata

from service import settings
from service.documents import Position, Record
from service.errors import Fenced, Misconfigured, Unavailable
from service.offsets import METADATA_LIMIT, Mark, Partition, Room
from service.pipeline import Owner
from service.routing import Message
from service.telemetry import Telemetry

_MOST_RECORDS = 1000
_COMMIT_PATIENCE = 5.0
_STOP_PATIENCE = 5.0
_SILENCE = 10.0
"""Seconds without room after which the partitions are paused and the broker is shown that we are alive."""
_LARGEST_REQUEST = 64 * 1024**2
_COUNT_VALID = 60.0
_RECONNECT_EVERY = 1.0
_BROKEN = (OutOfOrderSequenceNumber, UnknownProducerId, ProducerFenced, ProducerClosed)
"""What a producer fails with when it is no good any more, whatever it is given."""

log = structlog.get_logger(__name__)


class KafkaSource(ConsumerRebalanceListener):  # type: ignore[misc]
    """The records of one topic, read as a member of the consumer group."""

    metadata_limit = METADATA_LIMIT

    def __init__(self, kafka: settings.Kafka, topic: str) -> None:
        self._kafka = kafka
        self._topic = topic
        self._settled = asyncio.Event()
        self._owner: Owner
        self._failure: Exception | None = None
        self._polled = time.monotonic()
        self._paused = False

    @asynccontextmanager
    async def opened(self, owner: Owner) -> AsyncIterator[None]:
        """As `pipeline.Source.opened`."""
        self._owner = owner
        self._consumer = AIOKafkaConsumer(
            **_connection(self._kafka),
            group_id=self._kafka.group_id,
            enable_auto_commit=False,
            auto_offset_reset=self._kafka.auto_offset_reset,
            session_timeout_ms=_ms(self._kafka.session_timeout),
            heartbeat_interval_ms=_ms(min(3.0, self._kafka.session_timeout / 3)),
            rebalance_timeout_ms=_ms(self._kafka.rebalance_timeout),
            fetch_max_wait_ms=_ms(self._kafka.fetch_max_wait),
            isolation_level="read_committed",  # what a producer took back is not a document
            partition_assignment_strategy=[RoundRobinPartitionAssignor],
        )
        try:
            await _started(self._consumer, self._kafka)
            await self._look_for_the_topic()
            self._consumer.subscribe([self._topic], listener=self)
            yield
        finally:
            self._settled.clear()
            await _stopped(self._consumer.stop, self._consumer._client.close)  # noqa: SLF001  see the module's note

    async def poll(self, room: Room, timeout: float) -> list[Record]:
        """As `pipeline.Source.poll`; a topic has no end."""
        if self._failure is not None:
            raise self._failure
        try:
            if not await self._is_settled(timeout):
                return []
            if not room.documents:
                await self._show_life()
                return []
            self._polled = time.monotonic()
            self._resume()
            most = min(room.documents, _MOST_RECORDS)
            found = await self._consumer.getmany(timeout_ms=_ms(timeout), max_records=most)
        except (TopicAuthorizationFailedError, GroupAuthorizationFailedError) as error:
            raise Misconfigured(f"kafka: the broker does not let this user read: {error!r}") from None
        except KafkaError as error:
            raise Unavailable(f"topic {self._topic}: the broker gave no records: {error!r}") from None
        if not self._settled.is_set():
            return []
        return [
            Record(Position(topic, number, record.offset), record.timestamp, record.key, record.value, record.headers)
            for (topic, number), records in found.items()
            for record in records
        ]

    async def commit(self, marks: Mapping[Partition, Mark]) -> None:
        """As `pipeline.Source.commit`."""
        offsets = {TopicPartition(*partition): OffsetAndMetadata(*mark) for partition, mark in marks.items()}
        try:
            await asyncio.wait_for(self._consumer.commit(offsets), _COMMIT_PATIENCE)
        except (CommitFailedError, IllegalStateError) as error:
            raise Fenced(str(error)) from None
        except TimeoutError:
            raise Unavailable(f"no broker took the commit within {_COMMIT_PATIENCE:.0f} s") from None
        except KafkaError as error:
            raise Unavailable(f"the commit failed: {error!r}") from None

    def ends(self) -> dict[Partition, int]:
        """As `pipeline.Source.ends`."""
        if not self._settled.is_set():
            return {}
        return {Partition(*tp): self._consumer.highwater(tp) or 0 for tp in self._consumer.assignment()}

    async def on_partitions_revoked(self, revoked: Iterable[TopicPartition]) -> None:
        """Called by aiokafka, which waits for it, before it joins the group anew."""
        self._settled.clear()
        try:
            if partitions := [Partition(*tp) for tp in revoked]:
                await self._owner.revoked(partitions)
        except Exception as error:  # noqa: BLE001  aiokafka would swallow it; the next poll raises it
            self._failure = error

    async def on_partitions_assigned(self, assigned: Iterable[TopicPartition]) -> None:
        """Called by aiokafka, which waits for it, after it has joined the group."""
        try:
            marks = await self._marks(sorted(assigned))
            await self._owner.assigned({Partition(*tp): mark for tp, mark in marks.items()})
            for tp, mark in marks.items():  # nothing is awaited from here on: what is read now is not thrown away
                self._consumer.seek(tp, mark.offset)
        except Exception as error:  # noqa: BLE001  as above
            self._failure = error
        self._paused = False
        self._settled.set()

    async def _look_for_the_topic(self) -> None:
        """Raises Misconfigured where there is none: a member of the group would wait for it in silence."""
        try:
            there = await self._consumer.topics()
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
        if time.monotonic() - self._polled > _SILENCE:
            self._consumer.pause(*self._consumer.assignment())
            self._paused = True
            await self._consumer.getmany(timeout_ms=0)

    def _resume(self) -> None:
        if self._paused:
            self._consumer.resume(*self._consumer.paused())
            self._paused = False


class KafkaSink:
    """Publishes messages with an idempotent producer; made by `producing`."""

    def __init__(self, kafka: settings.Kafka, telemetry: Telemetry, producer: AIOKafkaProducer) -> None:
        self._kafka = kafka
        self._telemetry = telemetry
        self._producer = producer
        self._replacing = asyncio.Lock()
        self._counts: dict[str, tuple[int, float]] = {}

    async def publish(self, messages: Sequence[Message]) -> None:
        """As `pipeline.Sink.publish`. A dead letter too large for its topic goes without its value, and says so."""
        with self._telemetry.producing([message.topic for message in messages]):
            while messages:
                messages = await self._attempt(messages)

    async def close(self) -> None:
        """End the producer, in bounded time."""
        await _stopped(self._producer.stop, self._producer.client.close)

    async def _attempt(self, messages: Sequence[Message]) -> list[Message]:
        """Publish what can be published; gives what is still to be published, by a producer that is whole."""
        producer = self._producer
        sent = [await self._send(producer, message) for message in messages]
        left = []
        for message, acknowledged in zip(messages, sent, strict=True):
            try:
                await acknowledged  # in turn, not gathered: most are there with the first, which spares their callbacks
            except Exception as failure:  # noqa: BLE001  what is to be done about it is decided there
                self._telemetry.produce_errors.labels(type(failure).__name__).inc()
                left.append(_to_be_sent_again(message, failure))
        if left:
            await self._replace(producer)
        return left

    async def _send(self, producer: AIOKafkaProducer, message: Message) -> asyncio.Future[Any]:
        topic, key, value, headers, source = message
        if key is None and value is None:
            value = b""  # aiokafka has no message without both
        while True:
            try:
                partition = await self._partition(producer, topic, source)
                sent: asyncio.Future[Any] = await producer.send(
                    topic, value, key=key, partition=partition, headers=list(headers)
                )
            except (KafkaTimeoutError, UnknownTopicOrPartitionError) as error:  # nobody takes anything just now
                log.warning("publishing_waits", topic=topic, reason=repr(error))
            except KafkaError as error:
                sent = asyncio.get_running_loop().create_future()
                sent.set_exception(error)
                return sent
            else:
                return sent

    async def _partition(self, producer: AIOKafkaProducer, topic: str, source: Position) -> int | None:
        """The document's own partition where both topics have as many, else None: the default partitioner's."""
        count = await self._count(producer, topic)
        alike = count == await self._count(producer, source.topic)
        return source.partition if alike and source.partition < count else None  # counts lag behind the topics

    async def _count(self, producer: AIOKafkaProducer, topic: str) -> int:
        count, until = self._counts.get(topic, (0, 0.0))
        if time.monotonic() > until:
            count = len(await producer.partitions_for(topic))
            self._counts[topic] = count, time.monotonic() + _COUNT_VALID
        return count

    async def _replace(self, broken: AIOKafkaProducer) -> None:
        async with self._replacing:
            while self._producer is broken:
                try:
                    self._producer = await _producer(self._kafka)
                except Unavailable as error:
                    log.warning("publishing_waits", reason=str(error))
                    await asyncio.sleep(_RECONNECT_EVERY)
                else:
                    log.info("producer_replaced")
                    await _stopped(broken.stop, broken.client.close)


@asynccontextmanager
async def producing(kafka: settings.Kafka, telemetry: Telemetry) -> AsyncIterator[KafkaSink]:
    """A sink that is connected for the length of the block. Raises Misconfigured or Unavailable."""
    sink = KafkaSink(kafka, telemetry, await _producer(kafka))
    try:
        yield sink
    finally:
        await sink.close()


async def missing_topics(kafka: settings.Kafka, topics: Iterable[str]) -> list[str]:
    """Those of `topics` that the cluster does not have. Raises Misconfigured or Unavailable."""
    admin = AIOKafkaAdminClient(**_connection(kafka))
    try:
        await _started(admin, kafka)
        there = set(await admin.list_topics())
    finally:
        await _stopped(admin.close)
    return [topic for topic in topics if topic not in there]


async def _producer(kafka: settings.Kafka) -> AIOKafkaProducer:
    producer = AIOKafkaProducer(
        **_connection(kafka),
        enable_idempotence=True,
        max_batch_size=128 * 1024,
        max_request_size=_LARGEST_REQUEST,  # how large a message may be is the topic's to say
    )
    try:
        await _started(producer, kafka)
    except BaseException:
        await _stopped(producer.stop, producer.client.close)
        raise
    return producer


def _to_be_sent_again(message: Message, failure: BaseException) -> Message:
    """What to send instead of a message that failed; raises Misconfigured where nothing would be taken."""
    if isinstance(failure, MessageSizeTooLargeError):
        if message.is_dead_letter and message.value:
            return _without_value(message)
        what = "a dead letter's key and headers are" if message.is_dead_letter else "a result is"
        raise Misconfigured(f"topic {message.topic}: {what} larger than its max.message.bytes; raise it")
    if isinstance(failure, TopicAuthorizationFailedError):
        raise Misconfigured(f"topic {message.topic}: the broker does not let this user write to it")
    if isinstance(failure, _BROKEN) or type(failure) is KafkaError or getattr(failure, "retriable", False):
        return message
    if isinstance(failure, KafkaError):
        raise Misconfigured(f"topic {message.topic}: the broker does not take a message: {failure!r}")
    raise failure


def _without_value(message: Message) -> Message:
    size = len(message.value or b"")
    said = ("labelstream-value-omitted", f"{size} bytes are more than the topic takes".encode())
    return message._replace(value=b"", headers=[*message.headers, said])


def _connection(kafka: settings.Kafka) -> dict[str, Any]:
    encrypted = kafka.protocol.endswith("SSL")
    password = kafka.password
    return {
        "bootstrap_servers": kafka.bootstrap_servers,
        "client_id": kafka.client_id,
        "request_timeout_ms": _ms(kafka.request_timeout),
        "security_protocol": kafka.protocol,
        "ssl_context": _tls(kafka) if encrypted else None,
        "sasl_mechanism": kafka.sasl_mechanism if password else "PLAIN",
        "sasl_plain_username": kafka.sasl_username,
        "sasl_plain_password": password.get_secret_value() if password else None,
    }


def _tls(kafka: settings.Kafka) -> ssl.SSLContext:
    files = {"ca": kafka.ssl_ca_file, "cert": kafka.ssl_cert_file, "key": kafka.ssl_key_file}
    given = ", ".join(f"kafka.ssl_{name}_file {file}" for name, file in files.items() if file)
    try:
        context: ssl.SSLContext = create_ssl_context(
            cafile=_path(files["ca"]), certfile=_path(files["cert"]), keyfile=_path(files["key"])
        )
    except (OSError, ssl.SSLError) as error:
        raise Misconfigured(f"{given}: cannot be used: {error}") from None
    return context


async def _started(part: Any, kafka: settings.Kafka) -> None:
    try:
        await part.start()
    except (KafkaConnectionError, OSError, TimeoutError):
        raise Unavailable(
            f"kafka.bootstrap_servers: no broker of {kafka.bootstrap_servers} can be used over {kafka.protocol}"
            f" (unreachable, another kafka.security_protocol, or a wrong user or password)"
        ) from None
    except KafkaError as error:
        raise Misconfigured(f"kafka: {kafka.bootstrap_servers} refused us: {error!r}") from None


async def _stopped(*endings: Callable[[], Awaitable[Any]]) -> None:
    """Let a client end, in bounded time, whatever its `stop()` does."""
    for ending in endings:
        task = asyncio.ensure_future(ending())
        await asyncio.wait([task], timeout=_STOP_PATIENCE)
        if not task.done():
            task.cancel()
            log.warning("client_did_not_stop", seconds=_STOP_PATIENCE)
        elif not task.cancelled() and task.exception() is not None:
            log.warning("client_stopped_badly", reason=repr(task.exception()))


def _ms(seconds: float) -> int:
    return round(seconds * 1000)


def _path(path: object) -> str | None:
    return str(path) if path else None
