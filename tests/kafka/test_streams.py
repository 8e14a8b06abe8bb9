"""The source and the sink by themselves, on the real broker."""

import asyncio
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest
from aiokafka.protocol.group import LeaveGroupRequest
from confluent_kafka import Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewPartitions

from service import settings
from service.documents import Message, Position, Reason, Record, Refused
from service.errors import Fenced, Misconfigured, Unavailable
from service.observability.telemetry import Telemetry
from service.offsets import Mark, Offsets, Partition, Room
from service.routing.records import dead_letter
from service.streams import kafka as streams
from service.streams.kafka import KafkaSource, missing_topics
from service.streams.kafka_sink import producing
from tests.kafka import odd_headers, topics
from tests.kafka.topics import fill, read

MAKE_TOPIC = Callable[..., str]


def connection(bootstrap: str, group: str, **changed: object) -> settings.Kafka:
    tree = {"session_timeout": 6, "fetch_max_wait": 0.1, **changed}
    return settings.Kafka.model_validate({"bootstrap_servers": bootstrap, "group_id": group, **tree})


@dataclass
class Reading:
    """A member of a group, reading: the least that an owner of partitions does."""

    source: KafkaSource
    offsets: Offsets = field(default_factory=lambda: Offsets(10_000, 64 * 1024**2))
    restored: asyncio.Event = field(default_factory=asyncio.Event)
    drained: asyncio.Event = field(default_factory=asyncio.Event)
    revocations: int = 0

    def __post_init__(self) -> None:
        self.restored.set()
        self.drained.set()

    async def assigned(self, marks: Mapping[Partition, Mark | None]) -> None:
        await self.restored.wait()
        for partition, mark in marks.items():
            self.offsets.assign(partition, mark)

    async def revoked(self, partitions: Iterable[Partition]) -> None:
        self.revocations += 1
        await self.drained.wait()
        self.offsets.forget(partitions)

    async def take(self, count: int) -> list[Record]:
        """Exactly so many records that need work: one more would have come with them, or fails the next take."""
        taken: list[Record] = []
        async with asyncio.timeout(30):
            while len(taken) < count:
                taken += self.offsets.track(await self.source.poll(self.offsets.room(), timeout=0.5) or [])
        assert len(taken) == count, [record.position for record in taken]
        return taken

    async def take_at_most(self, count: int) -> list[Record]:
        """The first so many records, and no more read than those."""
        async with asyncio.timeout(30):
            while not (found := await self.source.poll(Room(count, 1024**2), timeout=0.5)):
                pass
        return self.offsets.track(found)

    async def wait(self, condition: Callable[[], bool]) -> None:
        """Poll, as a member must, until something is so; nothing must come meanwhile."""
        async with asyncio.timeout(30):
            while not condition():
                assert self.offsets.track(await self.source.poll(self.offsets.room(), timeout=0.1) or []) == []

    async def commit(self) -> None:
        marks = self.offsets.committable()
        await self.source.commit(marks)
        self.offsets.committed(marks)


@asynccontextmanager
async def reading(kafka: settings.Kafka, topic: str) -> AsyncIterator[Reading]:
    member = Reading(KafkaSource(kafka, topic))
    async with member.source.opened(member):
        yield member


def offsets_of(records: Iterable[Record]) -> list[int]:
    return [record.position.offset for record in records]


async def test_records_come_as_they_were_sent(bootstrap: str, topic: MAKE_TOPIC) -> None:
    name = topic()
    headers = [("trace", b"\x00\xff"), ("trace", b"twice"), ("empty", b""), ("none", None)]
    before = time.time() * 1000
    fill(bootstrap, name, [b"\x00one", None], key=b"\xffkey", headers=headers)
    async with reading(connection(bootstrap, name), name) as member:
        first, second = await member.take(2)
    assert (first.key, first.value, list(first.headers)) == (b"\xffkey", b"\x00one", headers)
    assert first.position == Position(name, 0, 0)
    assert before - 1 <= first.timestamp <= time.time() * 1000
    assert second.value is None
    assert first.size == 4 + 4 + len("trace") * 2 + 2 + 5 + len("empty") + len("none")


@pytest.mark.parametrize("codec", ["gzip", "snappy", "lz4", "zstd"])
async def test_compressed_records_are_read(bootstrap: str, topic: MAKE_TOPIC, codec: str) -> None:
    name = topic()
    values = [topics.document(number) for number in range(200)]
    fill(bootstrap, name, values, compression_type=codec)
    async with reading(connection(bootstrap, name), name) as member:
        assert [record.value for record in await member.take(200)] == values


@pytest.mark.parametrize("codec", [0, 1], ids=["plain", "gzip"])
async def test_a_header_name_that_is_not_text_holds_nothing_up(bootstrap: str, topic: MAKE_TOPIC, codec: int) -> None:
    name = topic()
    fill(bootstrap, name, [b"before"])
    await odd_headers.send(bootstrap, name, [b"one", b"two", b"three"], odd=1, codec=codec)
    fill(bootstrap, name, [b"after"])
    async with reading(connection(bootstrap, name), name) as member:
        records = await member.take(5)
    assert [record.value for record in records] == [b"before", b"one", b"two", b"three", b"after"]
    assert offsets_of(records) == [0, 1, 2, 3, 4]
    assert [dict(record.headers) for record in records[1:4]] == [
        {"plain": b"1"},
        {"odd \\xff\\xfe header": b"1"},
        {"plain": b"1"},
    ]
    assert {record.key for record in records[1:4]} == {b"k"}


async def test_what_was_finished_above_the_mark_is_not_read_again_by_the_next_member(
    bootstrap: str, topic: MAKE_TOPIC
) -> None:
    name = topic()
    fill(bootstrap, name, map(topics.document, range(10)))
    async with reading(connection(bootstrap, name), name) as member:
        records = await member.take(10)
        member.offsets.resolve(records[:2] + records[4:7] + records[8:9])
        await member.commit()
    assert (await topics.committed(bootstrap, name, name))[0].offset == 2
    async with reading(connection(bootstrap, name), name) as successor:
        again = await successor.take(4)
        assert offsets_of(again) == [2, 3, 7, 9]
        successor.offsets.resolve(again)
        await successor.commit()
    assert (await topics.committed(bootstrap, name, name))[0] == Mark(10, "")


async def test_what_retention_has_removed_is_passed_over(bootstrap: str, topic: MAKE_TOPIC) -> None:
    name = topic()
    fill(bootstrap, name, map(topics.document, range(50)))
    async with reading(connection(bootstrap, name), name) as member:
        member.offsets.resolve((await member.take(50))[:10])
        await member.commit()
    admin = AdminClient({"bootstrap.servers": bootstrap})
    before = TopicPartition(name, 0, 30)
    admin.delete_records([before])[before].result(30)
    async with reading(connection(bootstrap, name), name) as successor:
        again = await successor.take(20)
        assert offsets_of(again) == list(range(30, 50))
        successor.offsets.resolve(again)
        await successor.commit()
    assert (await topics.committed(bootstrap, name, name))[0] == Mark(50)


async def test_what_a_transactional_producer_took_back_is_not_read_and_its_gaps_are_committed_over(
    bootstrap: str, topic: MAKE_TOPIC
) -> None:
    name = topic()
    producer = Producer({"bootstrap.servers": bootstrap, "transactional.id": name})
    producer.init_transactions(30)

    def write(value: bytes, end: Callable[[float], None] | None) -> None:
        producer.begin_transaction()
        producer.produce(name, value)
        producer.flush()
        if end is not None:
            end(30)

    write(b"kept", producer.commit_transaction)
    write(b"taken back", producer.abort_transaction)
    write(b"kept, too", producer.commit_transaction)
    write(b"undecided", None)
    async with reading(connection(bootstrap, name), name) as member:
        records = await member.take(2)
        assert [record.value for record in records] == [b"kept", b"kept, too"]
        assert offsets_of(records) == [0, 4]  # between them a marker, a record and its marker
        member.offsets.resolve(records)
        await member.commit()
        assert (await topics.committed(bootstrap, name, name))[0] == Mark(5, "")
        await asyncio.to_thread(producer.commit_transaction, 30)
        (decided,) = await member.take(1)
        assert decided.value == b"undecided"


async def test_latest_begins_at_the_end_and_loses_nothing_that_came_before_the_first_commit(
    bootstrap: str, topic: MAKE_TOPIC
) -> None:
    name = topic()
    wanted = connection(bootstrap, name, auto_offset_reset="latest")
    fill(bootstrap, name, [b"old"])
    async with reading(wanted, name) as member:
        await member.wait(lambda: bool(member.offsets.partitions))
    fill(bootstrap, name, [b"new"])  # while nobody reads, and nothing was ever finished
    async with reading(wanted, name) as member:
        (record,) = await member.take(1)
        assert record.value == b"new"


async def test_a_commit_for_a_partition_that_was_lost_is_fenced(bootstrap: str, topic: MAKE_TOPIC) -> None:
    name = topic(partitions=2)
    fill(bootstrap, name, map(topics.document, range(20)))
    wanted = connection(bootstrap, name)
    async with reading(wanted, name) as member:
        member.offsets.resolve(await member.take(20))
        marks = member.offsets.committable()
        assert len(marks) == 2
        async with reading(wanted, name) as other:
            async with asyncio.timeout(30):
                while not (len(member.offsets.partitions) == len(other.offsets.partitions) == 1):
                    await asyncio.gather(*(each.source.poll(Room(0, 0), timeout=0.1) for each in (member, other)))
            with pytest.raises(Fenced):
                await member.source.commit(marks)
        assert await topics.committed(bootstrap, name, name) == {}


async def expel(member: Reading) -> None:
    """Let the group give the member up, as when its session has expired."""
    coordinator = member.source._consumer._coordinator
    await coordinator._send_req(LeaveGroupRequest(coordinator.group_id, coordinator.member_id))


async def test_a_member_that_the_group_has_given_up_is_fenced_and_comes_back(bootstrap: str, topic: MAKE_TOPIC) -> None:
    name = topic()
    fill(bootstrap, name, map(topics.document, range(20)))
    async with reading(connection(bootstrap, name), name) as member:
        member.offsets.resolve(await member.take(20))
        await expel(member)
        with pytest.raises(Fenced):
            await member.commit()
        assert offsets_of(await member.take(20)) == list(range(20))
        assert member.revocations == 1


async def test_what_is_fetched_before_an_assignment_is_settled_is_read_after_it(
    bootstrap: str, topic: MAKE_TOPIC
) -> None:
    name = topic()
    async with reading(connection(bootstrap, name, session_timeout=1.5), name) as member:
        await member.wait(lambda: bool(member.offsets.partitions))
        polling = asyncio.create_task(member.source.poll(member.offsets.room(), timeout=20))
        member.restored.clear()
        await expel(member)
        async with asyncio.timeout(20):
            while member.revocations == 0 or not await asyncio.to_thread(topics.members, bootstrap, name):  # noqa: ASYNC110
                await asyncio.sleep(0.05)
            fill(bootstrap, name, map(topics.document, range(10)))
            assert await polling == []
        member.restored.set()
        assert offsets_of(await member.take(10)) == list(range(10))


async def test_whoever_joins_while_others_drain_is_not_deaf_meanwhile(bootstrap: str, topic: MAKE_TOPIC) -> None:
    name = topic(partitions=2)
    wanted = connection(bootstrap, name)
    async with reading(wanted, name) as member:
        await member.wait(lambda: bool(member.offsets.partitions))
        member.drained.clear()
        async with asyncio.timeout(10):  # it takes five seconds to lose patience with a client that does not stop
            async with asyncio.timeout(3) as ready, reading(wanted, name) as other:
                assert await other.source.poll(other.offsets.room(), timeout=0.1) == []
                assert (other.source.ends(), other.offsets.partitions) == ({}, ())
                ready.reschedule(None)
        member.drained.set()
        await member.wait(lambda: len(member.offsets.partitions) == 2)


async def test_a_stream_without_room_stays_in_its_group_and_goes_on_afterwards(
    bootstrap: str, topic: MAKE_TOPIC, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = topic()
    fill(bootstrap, name, map(topics.document, range(50)))
    monkeypatch.setattr(streams, "_SILENCE", 0.2)
    async with reading(connection(bootstrap, name, session_timeout=1.5), name) as member:
        member.source._consumer._coordinator._max_poll_interval = 1.0
        (first,) = await member.take_at_most(1)
        until = time.monotonic() + 4
        while time.monotonic() < until:
            assert await member.source.poll(Room(0, 0), timeout=0.1) == []
            await asyncio.sleep(0.05)
        assert member.revocations == 0
        fill(bootstrap, name, map(topics.document, range(50, 60)))
        assert offsets_of([first, *await member.take(59)]) == list(range(60))
        member.offsets.resolve([first])
        await member.commit()


async def test_a_member_that_does_not_poll_at_all_leaves_its_group(bootstrap: str, topic: MAKE_TOPIC) -> None:
    name = topic()
    async with reading(connection(bootstrap, name, session_timeout=1.5), name) as member:
        await member.wait(lambda: bool(member.offsets.partitions))
        member.source._consumer._coordinator._max_poll_interval = 0.5
        async with asyncio.timeout(20):
            while await asyncio.to_thread(topics.members, bootstrap, name):  # noqa: ASYNC110  it is the broker's to say
                await asyncio.sleep(0.1)


def message(topic: str, value: bytes | None, source: Position, key: bytes | None = None) -> Message:
    return Message(topic, key, value, [("a", b"1"), ("a", b"2"), ("none", None)], source)  # type: ignore[list-item]


def letter(topic: str, value: bytes | None, source: Position, key: bytes | None = None) -> Message:
    stream = settings.Stream(
        name="tickets", input=source.topic, classify_with=("any",), output=f"{topic}.output", dead_letter=topic
    )
    record = Record(source, 0, key, value, (("trace", b"\x00"),))
    return dead_letter(stream, record, Refused(Reason.TOO_LONG, "the text has 2,000,000 characters"))


async def publish(kafka: settings.Kafka, *batches: list[Message]) -> None:
    async with producing(kafka, Telemetry()) as sink, asyncio.timeout(30):
        for batch in batches:
            await sink.publish(batch)


async def test_messages_go_out_as_they_are(bootstrap: str, topic: MAKE_TOPIC) -> None:
    name, output = topic(), topic()
    await publish(connection(bootstrap, name), [message(output, b"\x00value", Position(name, 0, 7), b"\xffkey")])
    (found,) = read(bootstrap, output)
    assert (found.key, found.value) == (b"\xffkey", b"\x00value")
    assert found.headers == [("a", b"1"), ("a", b"2"), ("none", None)]


async def test_a_document_keeps_its_partition_where_there_are_as_many(bootstrap: str, topic: MAKE_TOPIC) -> None:
    name, output = topic(partitions=4), topic(partitions=4)
    sources = [Position(name, number % 4, number) for number in range(40)]
    batch = [message(output, str(source.offset).encode(), source, b"the same key") for source in sources]
    await publish(connection(bootstrap, name), batch)
    assert {int(found.value or b""): found.partition for found in read(bootstrap, output)} == {
        source.offset: source.partition for source in sources
    }


async def test_a_key_goes_where_every_kafka_client_puts_it_where_there_are_not_as_many(
    bootstrap: str, topic: MAKE_TOPIC
) -> None:
    name, output, reference = topic(partitions=2), topic(partitions=5), topic(partitions=5)
    keys = [f"customer {number}".encode() for number in range(60)]
    await publish(connection(bootstrap, name), [message(output, key, Position(name, 0, 0), key) for key in keys])
    other_client = Producer({"bootstrap.servers": bootstrap, "partitioner": "murmur2_random"})
    for key in keys:
        other_client.produce(reference, key, key)
    other_client.flush()
    placed = {found.key: found.partition for found in read(bootstrap, output)}
    assert placed == {found.key: found.partition for found in read(bootstrap, reference)}
    assert set(placed.values()) == set(range(5))


async def test_a_partition_that_the_input_got_meanwhile_is_no_obstacle(bootstrap: str, topic: MAKE_TOPIC) -> None:
    name, output = topic(partitions=2), topic(partitions=2)
    async with producing(connection(bootstrap, name), Telemetry()) as sink, asyncio.timeout(30):
        await sink.publish([message(output, b"before", Position(name, 1, 0), b"k")])
        admin = AdminClient({"bootstrap.servers": bootstrap})
        admin.create_partitions([NewPartitions(name, 4)])[name].result(30)
        await sink.publish([message(output, b"after", Position(name, 3, 0), b"k")])
    assert {found.value for found in read(bootstrap, output)} == {b"before", b"after"}


async def test_a_tombstone_without_a_key_becomes_a_dead_letter(bootstrap: str, topic: MAKE_TOPIC) -> None:
    name, dead = topic(), topic()
    await publish(
        connection(bootstrap, name), [letter(dead, None, Position(name, 0, n), k) for n, k in enumerate([None, b"k"])]
    )
    first, second = read(bootstrap, dead)
    assert (first.key, first.value) == (None, b"")
    assert (second.key, second.value) == (b"k", None)
    assert first.header("labelstream-error-type") == b"too_long"


LARGE = b"x" * 2_000_000


async def test_a_large_dead_letter_goes_whole_where_its_topic_takes_it(bootstrap: str, topic: MAKE_TOPIC) -> None:
    name, dead = topic(), topic(config={"max.message.bytes": str(4 * 1024**2)})
    await publish(connection(bootstrap, name), [letter(dead, LARGE, Position(name, 0, 0), b"k")])
    (found,) = read(bootstrap, dead)
    assert (found.key, found.value) == (b"k", LARGE)
    assert found.header("labelstream-value-omitted") is None


async def test_a_dead_letter_too_large_for_its_topic_goes_without_its_value_and_others_are_not_held_up(
    bootstrap: str, topic: MAKE_TOPIC
) -> None:
    name, dead = topic(), topic()
    async with producing(connection(bootstrap, name), Telemetry()) as sink, asyncio.timeout(30):
        await sink.publish([letter(dead, b"before", Position(name, 0, 0))])
        values = [b"beside", LARGE, b"beside, too", LARGE]
        batches = [[letter(dead, value, Position(name, 0, 1 + n))] for n, value in enumerate(values)]
        await asyncio.gather(*map(sink.publish, batches), sink.publish([each for batch in batches for each in batch]))
        await sink.publish([letter(dead, b"after", Position(name, 0, 9))])
    found = read(bootstrap, dead)
    whole = [each for each in found if each.header("labelstream-value-omitted") is None]
    cut = [each for each in found if each not in whole]
    assert sorted(each.value or b"" for each in whole) == sorted(
        [b"before", b"after", *[b"beside", b"beside, too"] * 2]
    )
    assert [each.value for each in cut] == [b""] * 4
    assert {each.header("labelstream-value-omitted") for each in cut} == {
        b"2000000 bytes are more than the topic takes"
    }
    assert {each.header("trace") for each in cut} == {b"\x00"}


async def test_a_result_too_large_for_its_topic_is_given_back_and_others_are_not_held_up(
    bootstrap: str, topic: MAKE_TOPIC
) -> None:
    name, output = topic(), topic()
    batch = [message(output, value, Position(name, 0, n)) for n, value in enumerate([b"a", LARGE, b"b", b"c", LARGE])]
    async with producing(connection(bootstrap, name), Telemetry()) as sink, asyncio.timeout(30):
        beside, given_back = await asyncio.gather(
            sink.publish([message(output, b"beside", Position(name, 0, 9))]), sink.publish(batch)
        )
        assert await sink.publish([message(output, b"after", Position(name, 0, 10))]) == beside == []
    assert given_back == [batch[1], batch[4]]
    assert {found.value for found in read(bootstrap, output)} == {b"a", b"b", b"c", b"beside", b"after"}


@pytest.mark.parametrize(("key", "own"), [(b"k", b"x" * 3000), (b"x" * 3000, b"1"), (b"x" * 3000, b"x" * 3000)])
async def test_a_dead_letter_goes_without_headers_or_key_where_those_are_too_large(
    bootstrap: str, topic: MAKE_TOPIC, key: bytes, own: bytes
) -> None:
    name, dead = topic(), topic(config={"max.message.bytes": "2500"})
    record = Record(Position(name, 0, 0), 0, key, b"value", (("own", own),))
    stream = settings.Stream(name="tickets", input=name, classify_with=("any",), output=f"{dead}.out", dead_letter=dead)
    await publish(connection(bootstrap, name), [dead_letter(stream, record, Refused(Reason.TOO_LONG, "too long"))])
    (found,) = read(bootstrap, dead)
    assert found.key == (key if len(key) < 2500 else b"")
    assert found.header("labelstream-error-type") == b"too_long"
    assert found.header("labelstream-value-omitted") == b"5 bytes are more than the topic takes"
    assert (found.header("labelstream-headers-omitted") is not None) == (found.header("own") is None)
    assert (found.header("labelstream-key-omitted") is not None) == (found.key != key)


async def test_a_message_that_its_topic_will_never_take_is_no_endless_loop(bootstrap: str, topic: MAKE_TOPIC) -> None:
    name, output = topic(), topic(config={"cleanup.policy": "compact"})
    with pytest.raises(Misconfigured, match=f"topic {output}: "):
        await publish(connection(bootstrap, name), [message(output, b"without a key", Position(name, 0, 0))])


async def test_an_input_that_is_missing_is_named(bootstrap: str) -> None:
    with pytest.raises(Misconfigured, match="no topic 'nowhere'"):
        async with reading(connection(bootstrap, "any"), "nowhere"):
            pass


async def test_topics_that_are_missing_are_named(bootstrap: str, topic: MAKE_TOPIC) -> None:
    name = topic()
    assert await missing_topics(connection(bootstrap, name), ["nowhere", name, "elsewhere"]) == ["nowhere", "elsewhere"]


async def open_source(kafka: settings.Kafka) -> None:
    async with reading(kafka, "any"):
        pass


async def open_sink(kafka: settings.Kafka) -> None:
    async with producing(kafka, Telemetry()):
        pass


async def list_topics(kafka: settings.Kafka) -> None:
    await missing_topics(kafka, ["any"])


@pytest.mark.parametrize("opening", [open_source, open_sink, list_topics])
async def test_a_broker_that_is_not_there_is_said_soon_and_with_the_setting(
    opening: Callable[[settings.Kafka], Awaitable[None]],
) -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))  # taken, so that nobody else listens there
        address = f"127.0.0.1:{nobody.getsockname()[1]}"
        with pytest.raises(Unavailable, match=rf"kafka\.bootstrap_servers.*{address}"):
            async with asyncio.timeout(5):
                await opening(connection(address, "any"))


@pytest.mark.parametrize("opening", [open_source, open_sink, list_topics])
async def test_a_server_that_never_answers_is_given_up_in_time(
    opening: Callable[[settings.Kafka], Awaitable[None]],
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(Unavailable, match=rf"kafka\.bootstrap_servers.*{address}"):
            async with asyncio.timeout(10):
                await opening(connection(address, "any", request_timeout=0.5))
