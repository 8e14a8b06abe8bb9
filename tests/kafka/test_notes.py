"""Notes of jobs on a real broker: kept, erased, taken back with a transaction, and the topic that they are in."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from confluent_kafka.admin import AdminClient, NewPartitions
from structlog.testing import capture_logs

from service import settings
from service.errors import Misconfigured, Unavailable
from service.jobs.notes import Job, Note, notes_of
from service.observability.telemetry import Telemetry
from service.offsets import Partition
from service.streams.kafka_notes import KafkaNotes, prepare
from service.streams.kafka_sink import KafkaSink, producing
from tests.kafka.tickets import MAKE_TOPIC
from tests.records import document


def note(number: int, partition: Partition, *offsets: int) -> Note:
    job = Job("azure", "model", f"https://contoso/jobs/{number}", 1_700_000_000.0 + number, len(offsets))
    return notes_of(job, [document(offset, partition=partition) for offset in offsets])[0]


@pytest.fixture
def kafka(bootstrap: str) -> settings.Kafka:
    return settings.Kafka(bootstrap_servers=bootstrap, group_id="notes", request_timeout=10.0)


@pytest.fixture
async def sink(kafka: settings.Kafka) -> AsyncIterator[KafkaSink]:
    async with producing(kafka, Telemetry()) as sink:
        yield sink


async def test_notes_are_read_by_partition_until_they_are_erased(
    kafka: settings.Kafka, sink: KafkaSink, topic: MAKE_TOPIC
) -> None:
    incoming = topic(3)
    await prepare(kafka, f"{incoming}.jobs", incoming)
    here, there = Partition(incoming, 0), Partition(incoming, 2)
    shelf = KafkaNotes(kafka, f"{incoming}.jobs", sink)
    assert await shelf.read([here, there]) == []
    first, second, third = note(1, here, 5, 6, 9), note(2, here, 7), note(3, there, 1)
    await shelf.write([first, second, third])
    assert sorted(await shelf.read([here])) == [first, second]
    assert await shelf.read([there]) == [third]
    assert len(await shelf.read([here, there, Partition(incoming, 1)])) == 3
    await shelf.erase([first, third])
    assert await shelf.read([here, there]) == [second]


async def test_a_note_erased_by_a_transaction_that_came_to_nothing_is_there(
    kafka: settings.Kafka, sink: KafkaSink, topic: MAKE_TOPIC
) -> None:
    incoming = topic(1)
    jobs, partition = f"{incoming}.jobs", Partition(incoming, 0)
    await prepare(kafka, jobs, incoming)
    shelf = KafkaNotes(kafka, jobs, sink)
    kept = note(1, partition, 3)
    await shelf.write([kept])
    async with AIOKafkaProducer(
        bootstrap_servers=kafka.bootstrap_servers, transactional_id=f"{incoming}-0"
    ) as producer:
        for commits in (False, True):
            await producer.begin_transaction()
            (erasing,) = shelf.erasing([kept])
            await producer.send_and_wait(jobs, key=erasing.key, value=None, partition=0)
            if not commits:
                await producer.abort_transaction()
                assert await shelf.read([partition]) == [kept]
            else:
                await producer.commit_transaction()
                assert await shelf.read([partition]) == []


async def test_what_is_no_note_is_passed_over_and_told(
    kafka: settings.Kafka, sink: KafkaSink, topic: MAKE_TOPIC
) -> None:
    incoming = topic(1)
    await prepare(kafka, f"{incoming}.jobs", incoming)
    shelf = KafkaNotes(kafka, f"{incoming}.jobs", sink)
    kept = note(1, Partition(incoming, 0), 3)
    (message,) = shelf.erasing([note(2, Partition(incoming, 0), 4)])
    await sink.publish([message._replace(value=b"{]")])
    await shelf.write([kept])
    with capture_logs() as logs:
        assert await shelf.read([Partition(incoming, 0)]) == [kept]
    assert [(entry["event"], entry["partitions"]) for entry in logs if entry["log_level"] == "warning"] == [
        ("notes_unreadable", [0])
    ]


async def test_a_note_too_large_for_its_topic_is_told_and_harms_nothing(
    kafka: settings.Kafka, sink: KafkaSink, topic: MAKE_TOPIC
) -> None:
    incoming = topic(1)
    jobs = topic(1, config={"max.message.bytes": "1000", "cleanup.policy": "compact"})
    shelf = KafkaNotes(kafka, jobs, sink)
    large, small = note(1, Partition(incoming, 0), *range(500)), note(2, Partition(incoming, 0), 900)
    with capture_logs() as logs:
        await shelf.write([large, small])
    assert any(entry["event"] == "note_too_large" for entry in logs)
    assert await shelf.read([Partition(incoming, 0)]) == [small]


async def test_the_topic_is_made_like_the_input_compacted_and_grows_with_it(
    bootstrap: str, kafka: settings.Kafka, topic: MAKE_TOPIC
) -> None:
    incoming = topic(2)
    jobs = f"{incoming}.jobs"
    await asyncio.gather(*(prepare(kafka, jobs, incoming) for _ in range(3)))  # as replicas do that start together
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    try:
        resource = ConfigResource(ConfigResourceType.TOPIC, jobs)
        (described,) = await admin.describe_configs([resource])
        config = {entry[0]: entry[1] for entry in described.resources[0][4]}
        assert config["cleanup.policy"] == "compact"
    finally:
        await admin.close()
    librdkafka = AdminClient({"bootstrap.servers": bootstrap})
    assert len(librdkafka.list_topics(jobs).topics[jobs].partitions) == 2

    librdkafka.create_partitions([NewPartitions(incoming, 5)])[incoming].result(30)
    await prepare(kafka, jobs, incoming)
    assert len(AdminClient({"bootstrap.servers": bootstrap}).list_topics(jobs).topics[jobs].partitions) == 5


async def test_an_input_that_grows_meanwhile_has_notes_for_its_new_partitions(
    bootstrap: str, kafka: settings.Kafka, sink: KafkaSink, topic: MAKE_TOPIC
) -> None:
    incoming = topic(1)
    jobs = f"{incoming}.jobs"
    await prepare(kafka, jobs, incoming)
    librdkafka = AdminClient({"bootstrap.servers": bootstrap})
    librdkafka.create_partitions([NewPartitions(incoming, 2)])[incoming].result(30)
    shelf, new = KafkaNotes(kafka, jobs, sink), Partition(incoming, 1)
    assert await shelf.read([new]) == []
    await shelf.write([note(1, new, 0)])
    assert await shelf.read([new]) == [note(1, new, 0)]


async def test_a_topic_with_more_partitions_than_the_input_is_refused(kafka: settings.Kafka, topic: MAKE_TOPIC) -> None:
    incoming, jobs = topic(1), topic(2)
    with pytest.raises(Misconfigured, match=r"has 2 partitions and .* has 1: it needs as many"):
        await prepare(kafka, jobs, incoming)


async def test_a_topic_that_cannot_be_made_is_told_with_what_to_do(kafka: settings.Kafka, topic: MAKE_TOPIC) -> None:
    with pytest.raises(Misconfigured, match=r"'no/such name'.*make it by hand, or set note_jobs to false"):
        await prepare(kafka, "no/such name", topic(1))


async def test_without_a_broker_nobody_says_whether_there_is_a_topic() -> None:
    nowhere = settings.Kafka(bootstrap_servers="127.0.0.1:1", group_id="notes", request_timeout=1.0)
    with pytest.raises(Unavailable):
        await prepare(nowhere, "jobs", "incoming")
