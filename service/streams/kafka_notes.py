"""Notes of jobs on Apache Kafka: a compacted topic for each input, with the same partitions.

A note is a message under the note's key, one that is erased a tombstone. Both go out through the sink, so they wait out
an outage as results do, and come in the order in which they went. Whoever is assigned a partition of the input reads
the same one here from its beginning, committed transactions only: a note that was erased by a transaction which came to
nothing is still there.
"""

import asyncio
from collections.abc import Iterable, Sequence

import structlog
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewPartitions, NewTopic
from aiokafka.errors import KafkaError, TopicAlreadyExistsError, TopicAuthorizationFailedError, for_code

from service import settings
from service.delivery import Sink
from service.documents import Message, Position
from service.errors import Misconfigured, Unavailable
from service.jobs import notes
from service.jobs.notes import Note
from service.offsets import Partition
from service.streams.kafka_clients import connection, consumer_stopped, ms, started, stopped

_AGAIN_EVERY = 1.0
_CONFIG = {
    "cleanup.policy": "compact",
    "segment.bytes": str(16 * 1024**2),  # what is compacted need not be read, and the last segment never is
    "min.cleanable.dirty.ratio": "0.1",
    "delete.retention.ms": str(3_600_000),
}

log = structlog.get_logger(__name__)


class KafkaNotes:
    """The notes of the jobs that hold an input's documents, in a topic."""

    def __init__(self, kafka: settings.Kafka, topic: str, sink: Sink) -> None:
        self._kafka = kafka
        self._topic = topic
        self._sink = sink

    async def read(self, partitions: Iterable[Partition]) -> list[Note]:
        """As `ledger.Shelf.read`."""
        wanted = {partition.number: partition for partition in partitions}
        while wanted:
            try:
                await prepare(self._kafka, self._topic, next(iter(wanted.values())).topic)  # the input may have grown
                kept = await self._kept(sorted(wanted))
            except (KafkaError, TimeoutError, Unavailable) as failure:
                if isinstance(failure, TopicAuthorizationFailedError):
                    raise Misconfigured(f"topic {self._topic}: the broker does not let this user read it") from None
                log.warning("notes_wait", topic=self._topic, reason=repr(failure))
                await asyncio.sleep(_AGAIN_EVERY)
            else:
                found = [(number, notes.read(wanted[number], value)) for (number, _), value in kept.items()]
                if unreadable := [number for number, note in found if note is None]:
                    log.warning("notes_unreadable", topic=self._topic, partitions=sorted(set(unreadable)))
                return [note for _, note in found if note is not None]
        return []

    async def write(self, kept: Sequence[Note]) -> None:
        """As `ledger.Shelf.write`."""
        if too_large := await self._sink.publish([self._message(note, notes.written(note)) for note in kept]):
            log.warning(
                "note_too_large",
                topic=self._topic,
                bytes=max(message.size for message in too_large),
                advice="raise its max.message.bytes; a restart pays for this job again",
            )

    async def erase(self, erased: Sequence[Note]) -> None:
        """As `ledger.Shelf.erase`."""
        await self._sink.publish(self.erasing(erased))

    def erasing(self, erased: Sequence[Note]) -> list[Message]:
        """As `ledger.Shelf.erasing`."""
        return [self._message(note, None) for note in erased]

    def _message(self, note: Note, value: bytes | None) -> Message:
        # As if it came from this very topic: then it goes to the same partition, whatever is known of the input's.
        there = Position(self._topic, note.partition.number, note.last)
        return Message(self._topic, note.key.encode(), value, (), there)

    async def _kept(self, partitions: Sequence[int]) -> dict[tuple[int, bytes | None], bytes]:
        """The newest value under each key that is not erased."""
        kept: dict[tuple[int, bytes | None], bytes] = {}
        consumer = AIOKafkaConsumer(
            **connection(self._kafka),
            auto_offset_reset="earliest",
            isolation_level="read_committed",
            fetch_max_wait_ms=ms(0.1),
        )
        try:
            patience = asyncio.timeout(self._kafka.request_timeout)
            async with patience:
                await started(consumer, self._kafka)
                there = [TopicPartition(self._topic, number) for number in partitions]
                consumer.assign(there)
                ends = await consumer.end_offsets(there)
                left = {tp for tp in there if ends[tp] > await consumer.position(tp)}
                while left:
                    for tp, records in (await consumer.getmany(*left, timeout_ms=ms(0.5))).items():
                        patience.reschedule(asyncio.get_running_loop().time() + self._kafka.request_timeout)
                        for record in records:
                            if record.value:
                                kept[tp.partition, record.key] = record.value
                            else:
                                kept.pop((tp.partition, record.key), None)
                    left = {tp for tp in left if ends[tp] > await consumer.position(tp)}
        finally:
            await consumer_stopped(consumer)
        return kept


async def prepare(kafka: settings.Kafka, topic: str, like: str) -> None:
    """Have a topic for notes, with as many partitions as the input `like`, and as many copies of each.

    Raises Misconfigured where it cannot be made, Unavailable where no broker says.
    """
    await _have(kafka, topic, like, validate_only=False)


async def rehearse(kafka: settings.Kafka, topic: str, like: str) -> None:
    """Raise what `prepare` would, and make nothing."""
    await _have(kafka, topic, like, validate_only=True)


async def _have(kafka: settings.Kafka, topic: str, like: str, *, validate_only: bool) -> None:
    admin = AIOKafkaAdminClient(**connection(kafka))
    try:
        await started(admin, kafka)
        shape = {each["topic"]: each["partitions"] for each in await admin.describe_topics()}  # asked for, it were made
        here, wanted = len(shape.get(topic, ())), len(shape.get(like, ()))
        if not wanted:
            raise Unavailable(f"kafka: no broker knows the topic {like!r} just now")
        if here > wanted:
            raise Misconfigured(
                f"kafka: the topic {topic!r}, which keeps the jobs under way, has {here} partitions and {like!r} has"
                f" {wanted}: it needs as many; delete it, or name another by jobs_topic"
            )
        if not here:
            copies = max(len(each["replicas"]) for each in shape[like])
            new = NewTopic(topic, wanted, copies, topic_configs=_CONFIG)
            made = await admin.create_topics([new], validate_only=validate_only)
            _look(made.topic_errors, f"kafka: the topic {topic!r}, which keeps the jobs under way, cannot be made")
        elif here < wanted:
            grown = await admin.create_partitions({topic: NewPartitions(wanted)}, validate_only=validate_only)
            _look(grown.topic_errors, f"kafka: the topic {topic!r} has fewer partitions than {like!r}")
        if here < wanted and not validate_only:
            log.info("notes_topic_made", topic=topic, partitions=wanted, before=here)
    except KafkaError as error:
        raise Unavailable(f"kafka: no broker says whether there is a topic {topic!r}: {error!r}") from None
    finally:
        await stopped(admin.close)


def _look(errors: Iterable[Sequence[object]], problem: str) -> None:
    for _, code, *_ in errors:
        failure = for_code(code)
        if code and failure is not TopicAlreadyExistsError:
            raise Misconfigured(f"{problem}: {failure.__name__}; make it by hand, or set note_jobs to false")
