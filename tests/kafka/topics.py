"""What tests put into topics and find in them, by librdkafka: a client that the service does not use."""

import time
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import count
from typing import Any, NamedTuple

import orjson
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import GroupCoordinatorNotAvailableError
from confluent_kafka import Consumer, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient

from service.documents import Position
from service.offsets import Mark

PATIENCE = 60.0


class Read(NamedTuple):
    """A message as it was found."""

    topic: str
    partition: int
    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: list[tuple[str, bytes | None]]

    @property
    def source(self) -> Position:
        """Where the document of a result stood in the input."""
        return Position(**orjson.loads(self.value or b"")["source"])

    def header(self, name: str) -> bytes | None:
        """The last header of that name."""
        return dict(self.headers).get(name)


def document(number: int) -> bytes:
    """A ticket of about fifty characters, its number in the id."""
    return orjson.dumps({"id": f"T-{number}", "text": f"ticket {number}: the parcel has not arrived, please help"})


def fill(
    bootstrap: str,
    topic: str,
    values: Iterable[bytes | None],
    *,
    key: bytes | None = None,
    partition: int = -1,
    headers: Sequence[tuple[str, bytes | None]] = (),
    **properties: Any,
) -> None:
    """Append values, spread over the partitions unless told otherwise; `properties` are librdkafka's, `.` as `_`."""
    named = {name.replace("_", "."): value for name, value in properties.items()}
    producer = Producer({"bootstrap.servers": bootstrap, "message.max.bytes": 16 * 1024**2, "linger.ms": 5, **named})
    partitions = range(len(producer.list_topics(topic, timeout=PATIENCE).topics[topic].partitions))
    for value, turn in zip(values, count()):
        chosen = partition if partition >= 0 else partitions[turn % len(partitions)]
        while True:
            try:
                producer.produce(topic, value, key, chosen, headers=list(headers))
                break
            except BufferError:
                producer.poll(0.1)
    assert producer.flush(PATIENCE) == 0, "the broker did not take what the test gives it"


def ends(bootstrap: str, topic: str) -> dict[int, int]:
    """The offset that the next record of each partition will get."""
    consumer = _reader(bootstrap)
    deadline = time.monotonic() + PATIENCE
    try:
        while True:
            try:
                partitions = consumer.list_topics(topic, timeout=PATIENCE).topics[topic].partitions
                asked = [TopicPartition(topic, number) for number in partitions]
                return {tp.partition: consumer.get_watermark_offsets(tp, timeout=PATIENCE)[1] for tp in asked}
            except KafkaException:  # a broker that has just been started does not lead its partitions yet
                if time.monotonic() > deadline:
                    raise
    finally:
        consumer.close()


def size(bootstrap: str, topic: str) -> int:
    """How many messages a topic holds that nothing was ever removed from."""
    return sum(ends(bootstrap, topic).values())


def read(bootstrap: str, topic: str) -> list[Read]:
    """All that a topic holds now, partition by partition."""
    consumer = _reader(bootstrap)
    left = set(consumer.list_topics(topic, timeout=PATIENCE).topics[topic].partitions)
    found: list[Read] = []
    try:
        consumer.assign([TopicPartition(topic, number, 0) for number in left])
        deadline = time.monotonic() + PATIENCE
        while left:
            assert time.monotonic() < deadline, f"{topic} could not be read to its end: {left}"
            messages = consumer.consume(1000, timeout=0.2)
            found.extend(_found(message) for message in messages if message.error() is None)
            left -= {message.partition() for message in messages if message.error() is not None}  # its end
    finally:
        consumer.close()
    return sorted(found, key=lambda message: (message.partition, message.offset))


def counted(messages: Iterable[Read]) -> Counter[Position]:
    """How many results each document has."""
    return Counter(message.source for message in messages)


async def committed(bootstrap: str, group: str, topic: str) -> dict[int, Mark]:
    """What the group has committed for the topic's partitions; librdkafka's Python binding garbles the metadata."""
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    try:
        found = await admin.list_consumer_group_offsets(group)
    except GroupCoordinatorNotAvailableError:  # the first group of a new broker is about to begin
        return {}
    finally:
        await admin.close()
    return {tp.partition: Mark(at.offset, at.metadata) for tp, at in found.items() if tp.topic == topic}


def members(bootstrap: str, group: str) -> dict[str, set[tuple[str, int]]]:
    """The members of a group, and the partitions that each of them has."""
    admin = AdminClient({"bootstrap.servers": bootstrap})  # while the answer is awaited
    described = admin.describe_consumer_groups([group])[group].result(PATIENCE)
    return {
        member.member_id: {(tp.topic, tp.partition) for tp in member.assignment.topic_partitions}
        for member in described.members
    }


def _reader(bootstrap: str) -> Consumer:
    return Consumer(
        {
            "bootstrap.servers": bootstrap,
            "group.id": "reader",
            "enable.auto.commit": False,
            "enable.partition.eof": True,
            "fetch.wait.max.ms": 20,
            "isolation.level": "read_committed",
        }
    )


def _found(message: Any) -> Read:
    return Read(
        message.topic(),
        message.partition(),
        message.offset(),
        message.timestamp()[1],
        message.key(),
        message.value(),
        list(message.headers() or ()),
    )
