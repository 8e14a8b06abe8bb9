"""The broker goes away, comes back, stands still or refuses: what is in hand is held, and a stop always ends."""

import asyncio
import secrets
import signal
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from confluent_kafka.admin import (
    AclBinding,
    AclOperation,
    AclPermissionType,
    AdminClient,
    ResourcePatternType,
    ResourceType,
)
from structlog.testing import capture_logs

from service.documents import Message, Position
from service.errors import Misconfigured
from service.observability.telemetry import Telemetry
from service.streams.kafka_sink import producing
from tests.kafka import topics
from tests.kafka.broker import Broker
from tests.kafka.tickets import MAKE_TOPIC, Tickets, Words, running, until
from tests.kafka.workers import configuration, small_model, worker


@pytest.fixture(scope="module")
def own_broker(broker: Broker, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    """A broker that may be killed, as the session's may not while others use it."""
    assert broker.bootstrap, "real Kafka runs here"
    rules = {
        "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
        "allow.everyone.if.no.acl.found": "true",
    }
    with Broker(tmp_path_factory.mktemp("outages"), properties=rules) as own:
        yield own


@pytest.fixture
def make_topic(own_broker: Broker) -> MAKE_TOPIC:
    def make(partitions: int = 1, config: Mapping[str, str] | None = None) -> str:
        name = f"outage-{secrets.token_hex(4)}"
        own_broker.create_topic(name, partitions, config)
        return name

    return make


def send(broker: Broker, number: signal.Signals) -> None:
    assert broker._program is not None
    broker._program.send(number)


async def kill(broker: Broker) -> None:
    await asyncio.to_thread(broker.kill)


async def start(broker: Broker) -> None:
    await asyncio.to_thread(broker.start)


async def test_publishing_waits_for_a_broker_that_is_away_and_loses_and_repeats_nothing(
    own_broker: Broker, make_topic: MAKE_TOPIC
) -> None:
    tickets = Tickets(own_broker.bootstrap, make_topic, partitions=1)
    kafka = tickets.kafka.model_copy(update={"request_timeout": 0.5})
    values = [str(number).encode() * 1000 for number in range(1000)]  # more than one batch of the producer's
    messages = [
        Message(tickets.stream.output, None, value, (), Position(tickets.stream.input, 0, number))
        for number, value in enumerate(values)
    ]
    async with producing(kafka, Telemetry()) as sink, asyncio.timeout(60):
        await sink.publish(messages[:1])
        await kill(own_broker)
        with capture_logs() as log:
            publishing = asyncio.create_task(sink.publish(messages[1:]))
            await until(lambda: any(line["event"] == "publishing_waits" for line in log))
            assert not publishing.done()
            await start(own_broker)
            await publishing
    assert [found.value for found in tickets.results()] == values


@pytest.mark.parametrize(("delivery", "repeated"), [("at_least_once", 300), ("exactly_once", 0)])
async def test_a_broker_killed_in_mid_stream_costs_no_document(
    own_broker: Broker, make_topic: MAKE_TOPIC, delivery: str, repeated: int
) -> None:
    tickets, words = Tickets(own_broker.bootstrap, make_topic, delivery=delivery), Words()
    tickets.fill([topics.document(number) for number in range(1000)])
    words.pause = 0.05
    async with running(tickets, words):
        await until(lambda: len(words.asked) >= 300)
        await kill(own_broker)
        assert len(words.asked) < 1000, "it was not killed in mid-stream"
        await start(own_broker)
        words.pause = 0
        await tickets.are_done()
    results = topics.counted(tickets.results())
    assert len(results) == 1000
    print(f"a broker killed in mid-stream: {results.total() - len(results)} results repeated")  # noqa: T201  for -s
    assert results.total() - len(results) <= repeated


async def test_a_stop_while_the_broker_stands_still_waits_for_what_is_being_published(
    own_broker: Broker, make_topic: MAKE_TOPIC
) -> None:
    tickets, words = Tickets(own_broker.bootstrap, make_topic), Words()
    tickets.fill([topics.document(number) for number in range(20)])
    words.answers.clear()
    async with running(tickets, words) as stop:
        await until(lambda: len(words.asked) == 20)
        send(own_broker, signal.SIGSTOP)
        words.answers.set()
        await until(lambda: words.answered == 20)
        stop.set()
        for _ in range(10):
            await asyncio.sleep(0)  # whoever is to hear of the stop has
        send(own_broker, signal.SIGCONT)
    assert await tickets.committed() == tickets.ends()
    async with running(tickets, words):
        await tickets.are_done()
    assert Counter(words.asked.values()) == {1: 20}
    assert topics.counted(tickets.results()).total() == 20


def test_a_worker_is_stopped_soon_and_well_though_the_broker_is_gone_and_nothing_is_lost(
    own_broker: Broker, make_topic: MAKE_TOPIC, tmp_path: Path
) -> None:
    names = {"input": make_topic(3), "output": make_topic(3), "dead": make_topic()}
    tree = {"bootstrap": own_broker.bootstrap, "model": small_model(tmp_path / "model"), **names}
    config = configuration(tmp_path, tree, drain="1s", capacity={"documents": 500})
    topics.fill(own_broker.bootstrap, names["input"], map(topics.document, range(4000)))

    def results() -> Counter[Position]:
        return topics.counted(topics.read(own_broker.bootstrap, names["output"]))

    with worker(config) as running:
        running.wait_until(lambda: topics.size(own_broker.bootstrap, names["output"]) >= 1000)
        own_broker.kill()
        code, seconds = running.terminate()
        assert code == 0, running.said()
        assert seconds < 30
    own_broker.start()
    assert len(results()) < 4000, "it was not stopped in mid-stream"
    with worker(config) as successor:
        successor.wait_until(lambda: len(results()) == 4000)
        code, _ = successor.terminate()
        assert code == 0, successor.said()
    repeated = results().total() - 4000
    print(f"a stop without a broker took {seconds:.1f} s; {repeated} results repeated")  # noqa: T201  for -s


def rule(
    broker: Broker,
    kind: ResourceType,
    name: str,
    operation: AclOperation,
    permission: AclPermissionType = AclPermissionType.DENY,
) -> None:
    new = AclBinding(kind, name, ResourcePatternType.LITERAL, "User:ANONYMOUS", "*", operation, permission)
    admin = AdminClient({"bootstrap.servers": broker.bootstrap})
    admin.create_acls([new])[new].result(30)


async def first_failure(tickets: Tickets) -> ExceptionGroup[Exception]:
    with pytest.raises(ExceptionGroup) as ended:
        async with running(tickets, Words()):
            await asyncio.Event().wait()  # the failure ends it
    return ended.value


async def test_a_group_that_the_user_may_not_join_is_said(own_broker: Broker, make_topic: MAKE_TOPIC) -> None:
    tickets = Tickets(own_broker.bootstrap, make_topic)
    rule(own_broker, ResourceType.GROUP, tickets.kafka.group_id, AclOperation.READ)
    said = leaves(await first_failure(tickets))
    assert [type(error) for error in said] == [Misconfigured]
    assert "GroupAuthorizationFailed" in str(said[0])
    assert tickets.kafka.group_id in str(said[0])


@pytest.mark.parametrize("visible", [True, False], ids=["visible", "hidden"])
async def test_an_input_that_the_user_may_not_read_is_said(
    own_broker: Broker, make_topic: MAKE_TOPIC, *, visible: bool
) -> None:
    tickets = Tickets(own_broker.bootstrap, make_topic)
    tickets.fill([topics.document(1)])
    if visible:
        rule(own_broker, ResourceType.TOPIC, tickets.stream.input, AclOperation.DESCRIBE, AclPermissionType.ALLOW)
    rule(own_broker, ResourceType.TOPIC, tickets.stream.input, AclOperation.READ)
    said = leaves(await first_failure(tickets))
    assert [type(error) for error in said] == [Misconfigured]
    assert tickets.stream.input in str(said[0])


async def test_an_output_that_the_user_may_not_write_is_said(own_broker: Broker, make_topic: MAKE_TOPIC) -> None:
    tickets = Tickets(own_broker.bootstrap, make_topic)
    tickets.fill([topics.document(1)])
    rule(own_broker, ResourceType.TOPIC, tickets.stream.output, AclOperation.WRITE)
    said = leaves(await first_failure(tickets))
    assert [type(error) for error in said] == [Misconfigured]
    assert tickets.stream.output in str(said[0])


def leaves(error: BaseException) -> list[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        return [leaf for each in error.exceptions for leaf in leaves(each)]
    return [error]
