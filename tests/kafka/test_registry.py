"""Records and results by a schema registry: real Kafka, a real registry, and the vendor's own client at both ends.

Confluent's registry is not to be had as a package, so Apicurio's speaks its API; what stands in the records is written,
and read again, by Confluent's serializers.
"""

import asyncio
import secrets
import signal
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import orjson
import pytest
import yaml
from confluent_kafka.schema_registry import Schema, SchemaReference, SchemaRegistryClient
from confluent_kafka.schema_registry.avro import AvroDeserializer, AvroSerializer
from confluent_kafka.schema_registry.json_schema import JSONDeserializer, JSONSerializer
from confluent_kafka.serialization import MessageField, SerializationContext

from service import checks, settings
from service.errors import Misconfigured
from service.formats.results import Written, written
from service.observability.telemetry import Telemetry
from service.registry import subjects
from service.registry.client import Registry, opened
from service.registry.schemas import Schemas
from service.routing.records import Routing
from service.routing.rules import Rules
from tests.kafka.schema_registry import SchemaRegistry
from tests.kafka.tickets import MAKE_TOPIC, Tickets, Words, account, until
from tests.kafka.topics import Read, fill, read
from tests.kafka.workers import configuration, small_model, worker

DOCUMENT = {"format": "registry", "id": "/number", "text": ["/subject", "/body/text"], "language": "/lang"}
BODY = {"type": "record", "name": "Body", "namespace": "desk", "fields": [{"name": "text", "type": "string"}]}
TICKET = {
    "type": "record",
    "name": "Ticket",
    "namespace": "desk",
    "fields": [
        {"name": "number", "type": "long"},
        {"name": "subject", "type": ["null", "string"]},
        {"name": "body", "type": "desk.Body"},
        {"name": "lang", "type": "string"},
        {"name": "opened", "type": {"type": "long", "logicalType": "timestamp-millis"}},
        {"name": "due", "type": {"type": "int", "logicalType": "date"}},
        {"name": "worth", "type": {"type": "bytes", "logicalType": "decimal", "precision": 9, "scale": 2}},
        {"name": "picture", "type": "bytes"},
    ],
}
FORM = {
    "$schema": "http://json-schema.org/draft-07/schema#",
    "title": "Ticket",
    "type": "object",
    "properties": {"number": {"type": "integer"}, "subject": {"type": "string"}, "lang": {"type": "string"}},
    "required": ["number"],
}
OTHERS = Schema('{"type": "record", "name": "Result", "namespace": "labelstream", "fields": []}', "AVRO")
OPENED = datetime(2026, 11, 21, 9, tzinfo=UTC)


def ticket(number: int) -> dict[str, Any]:
    return {
        "number": number,
        "subject": None if number % 2 else "Rechnung",
        "body": {"text": "falsch für März"},
        "lang": "de",
        "opened": OPENED,
        "due": date(2026, 12, 1),
        "worth": Decimal("12.30"),
        "picture": b"\xff\x00",
    }


class Desk:
    """Who produces tickets and consumes results, by the vendor's client."""

    def __init__(self, url: str, client: SchemaRegistryClient) -> None:
        self.url = url
        self.client = client

    def avro(self, topic: str, tickets: Sequence[dict[str, Any]]) -> list[bytes]:
        body = f"desk-body-{secrets.token_hex(4)}"
        self.client.register_schema(body, Schema(orjson.dumps(BODY).decode(), "AVRO"))
        named = Schema(orjson.dumps(TICKET).decode(), "AVRO", [SchemaReference("desk.Body", body, 1)])
        return self._written(AvroSerializer(self.client, named), topic, tickets)

    def json(self, topic: str, tickets: Sequence[dict[str, Any]]) -> list[bytes]:
        return self._written(JSONSerializer(orjson.dumps(FORM).decode(), self.client), topic, tickets)

    @staticmethod
    def _written(write: Any, topic: str, tickets: Sequence[dict[str, Any]]) -> list[bytes]:
        return [write(each, SerializationContext(topic, MessageField.VALUE)) for each in tickets]

    def read(self, message: Read, form: str) -> dict[str, Any]:
        reader: Any = AvroDeserializer if form == "avro" else JSONDeserializer
        read = reader(self.client) if form == "avro" else reader(None, schema_registry_client=self.client)
        found = read(message.value, SerializationContext(message.topic, MessageField.VALUE))
        assert isinstance(found, dict)
        return found


@pytest.fixture
def desk(schema_registry: SchemaRegistry) -> Iterator[Desk]:
    with SchemaRegistryClient({"url": schema_registry.url}) as client:
        yield Desk(schema_registry.url, client)


def branch(url: str) -> settings.Registry:
    return settings.Registry(url=url, request_timeout=2)


@asynccontextmanager
async def running(tickets: Tickets, words: Words, url: str) -> AsyncIterator[Telemetry]:
    telemetry = Telemetry()
    async with opened(branch(url), telemetry) as registry:
        assert registry is not None
        routing = Routing(Rules(tickets.stream), written=await numbered(tickets.stream, registry))
        schemas = Schemas(registry)
        async with tickets.running(account(words, telemetry), telemetry, schemas=schemas, routing=routing):
            yield telemetry


async def numbered(stream: settings.Stream, registry: Registry) -> Written | None:
    if (form := written(stream.results)) is not None:
        await subjects.number(stream, form, registry)
    return form


@pytest.mark.parametrize(("form", "delivery"), [("avro", "exactly_once"), ("json_schema", "at_least_once")])
async def test_records_are_read_by_the_schemas_that_they_name_and_results_are_written_by_ours(
    bootstrap: str, topic: MAKE_TOPIC, desk: Desk, form: str, delivery: str
) -> None:
    copies = topic()
    tickets = Tickets(
        bootstrap,
        topic,
        document=DOCUMENT,
        results={"format": form},
        delivery=delivery,
        routes=[{"name": "due", "fields": {"/due": "2026-12-01", "/worth": "12.30", "/picture": "/wA="}, "to": copies}],
    )
    incoming = tickets.stream.input
    avro = desk.avro(incoming, [ticket(number) for number in range(6)])
    json = desk.json(f"{incoming}-forms", [{"number": 10 + n, "subject": "Hilfe", "lang": "de"} for n in range(4)])
    unfit = {"cut off": avro[0][:-3], "unnamed": b'{"number": 1}', "unknown": b"\0\x7f\xff\xff\xff" + avro[0][5:]}
    tickets.fill([*avro, *json, *unfit.values()])
    async with running(tickets, Words(), desk.url) as telemetry:
        await tickets.are_done()
    results = [desk.read(each, form) for each in tickets.results()]
    assert {each["id"] for each in results} == {*map(str, range(6)), *map(str, range(10, 14))}
    assert {each["best"]["name"] for each in results} == {"short"}
    moment = results[0]["received_at"]
    assert isinstance(moment, datetime if form == "avro" else str)
    copied = [desk.read(each, form) for each in read(bootstrap, copies)]
    assert {each["id"] for each in copied} == set(map(str, range(6)))
    assert {orjson.dumps(each["route"]) for each in copied} == {
        orjson.dumps({"rule": "due", "to": [copies]} | ({"also": []} if form == "avro" else {}))
    }
    letters = {each.value: each.header("__connect.errors.exception.message") or b"" for each in tickets.letters()}
    assert letters.keys() == set(unfit.values())
    assert letters[unfit["cut off"]].endswith(b": it ends too early")
    assert letters[unfit["unnamed"]].startswith(b"the record names no schema")
    assert (
        letters[unfit["unknown"]]
        == b"schema 2147483647, which the record names, cannot be used: the registry does not have it"
    )
    asked = "labelstream_registry_request_duration_seconds_count"
    assert sample(telemetry, asked, operation="schema", outcome="2xx") == 3, "two schemas, and one that is named"
    assert sample(telemetry, asked, operation="schema", outcome="4xx") == 2


async def test_while_the_registry_is_away_records_are_held_and_nothing_else_waits(
    bootstrap: str, topic: MAKE_TOPIC, schema_registry: SchemaRegistry, desk: Desk
) -> None:
    tickets = Tickets(bootstrap, topic, document=DOCUMENT, partitions=2)
    words = Words()
    values = desk.avro(tickets.stream.input, [ticket(number) for number in range(20)])
    tickets.fill([*values, b"not framed"])
    with schema_registry.frozen():
        async with running(tickets, words, schema_registry.url) as telemetry:
            await until(lambda: len(tickets.letters()) == 1)
            await until(lambda: sample(telemetry, "labelstream_records_awaiting_schema") == 20)
            await asyncio.sleep(2)  # longer than the group's session
            assert sample(telemetry, "labelstream_rebalances_total", event="assigned") == 1
            joining = time.monotonic()
            async with running(tickets, words, schema_registry.url) as other:
                await until(lambda: sample(other, "labelstream_assigned_partitions") == 1)
                await until(lambda: sample(other, "labelstream_records_awaiting_schema") > 0)
            assert time.monotonic() - joining < tickets.stream.drain, "a rebalance was not to wait for what waits"
    assert tickets.results() == []
    async with running(tickets, words, schema_registry.url):
        await tickets.are_done()
    assert sorted(orjson.loads(each.value or b"")["id"] for each in tickets.results()) == sorted(map(str, range(20)))
    assert len(tickets.letters()) == 1


async def test_what_waits_for_its_schema_goes_on_when_the_registry_is_back(
    bootstrap: str, topic: MAKE_TOPIC, schema_registry: SchemaRegistry, desk: Desk
) -> None:
    tickets = Tickets(bootstrap, topic, document=DOCUMENT, partitions=1, ordered_by="key")
    known = desk.avro(tickets.stream.input, [ticket(number) for number in range(3)])
    strange = desk.json(f"{tickets.stream.input}-forms", [{"number": 9, "subject": "Hilfe"}])
    tickets.fill(known[:1], key=b"k")
    async with running(tickets, Words(), schema_registry.url) as telemetry:
        await tickets.are_done()
        with schema_registry.frozen():
            tickets.fill([known[1], *strange, known[2]], key=b"k")
            await until(lambda: sample(telemetry, "labelstream_records_awaiting_schema") == 1)
            await until(lambda: len(tickets.results()) == 2)  # of which none needs to be asked for
        await tickets.are_done()
    found = [orjson.loads(each.value or b"")["id"] for each in tickets.results()]
    assert found == ["0", "1", "9", "2"]


def test_a_worker_has_its_results_numbered_and_says_what_the_registry_will_not_take(
    bootstrap: str, topic: MAKE_TOPIC, desk: Desk, tmp_path: Path
) -> None:
    incoming, outgoing, dead, model = topic(), topic(), topic(), small_model(tmp_path / "small")
    tree = {"bootstrap": bootstrap, "model": model, "input": incoming, "output": outgoing, "dead": dead}
    results = {"format": "avro", "unregistered": "refuse"}
    config = configuration(tmp_path, tree, document={**DOCUMENT, "text": "/body/text"}, results=results)
    config.write_text(f"{config.read_text('utf-8')}registry: {{url: {desk.url}}}\n", encoding="utf-8")
    subject = f"{outgoing}-value"

    def ended() -> str:
        with worker(config) as running:
            running.wait()
            return running.said()

    assert f"the schema of results is not registered under '{subject}': register result.avsc" in ended()
    desk.client.register_schema(subject, Schema(Written("avro").text, "AVRO"))
    fill(bootstrap, incoming, desk.avro(incoming, [ticket(1)]))
    with worker(config) as running:
        running.wait_until(lambda: bool(read(bootstrap, outgoing)))
        copies = topic()
        routed = yaml.safe_load(config.read_text("utf-8"))
        routed["streams"][0]["routes"] = [{"best_at_least": 0.01, "to": copies}]
        config.write_text(yaml.safe_dump(routed), encoding="utf-8")
        running.send(signal.SIGHUP)
        running.wait_until(lambda: bool(running.events("reload_failed")))
        assert f"not registered under '{copies}-value'" in running.events("reload_failed")[0]["reason"]
        desk.client.register_schema(f"{copies}-value", Schema(Written("avro").text, "AVRO"))
        running.send(signal.SIGHUP)
        running.wait_until(lambda: bool(running.events("reloaded")))
        fill(bootstrap, incoming, desk.avro(incoming, [ticket(2)]))
        running.wait_until(lambda: bool(read(bootstrap, copies)))
    assert [desk.read(each, "avro")["id"] for each in read(bootstrap, outgoing)] == ["1", "2"]
    assert [desk.read(each, "avro")["id"] for each in read(bootstrap, copies)] == ["2"]


def test_a_worker_starts_without_the_registry_where_only_records_take_it(
    bootstrap: str, topic: MAKE_TOPIC, tmp_path: Path
) -> None:
    incoming, model = topic(), small_model(tmp_path / "small")
    tree = {"bootstrap": bootstrap, "model": model, "input": incoming, "output": topic(), "dead": topic()}
    nowhere = "registry: {url: 'http://127.0.0.1:1', request_timeout: 1s}\n"
    for results, started in (("json", True), ("avro", False)):
        config = configuration(tmp_path, tree, document=DOCUMENT, results={"format": results})
        config.write_text(config.read_text("utf-8") + nowhere, encoding="utf-8")
        with worker(config) as running:
            if started:
                running.wait_until(lambda: bool(running.events("started")))
                assert "nobody answers there" in running.events("registry_away")[0]["reason"]
            else:
                assert running.wait() == 1
                assert "registry: http://127.0.0.1:1 cannot be asked: nobody answers there" in running.said()


async def test_a_subject_that_does_not_take_the_schema_of_results_is_named(
    bootstrap: str, topic: MAKE_TOPIC, desk: Desk
) -> None:
    taken = topic()
    tickets = Tickets(
        bootstrap, topic, results={"format": "avro"}, otherwise=taken, routes=[{"best": "x", "to": taken}]
    )
    desk.client.register_schema(f"{taken}-value", OTHERS)
    desk.client.set_compatibility(f"{taken}-value", "BACKWARD")
    async with opened(branch(desk.url), Telemetry()) as registry:
        assert registry is not None
        with pytest.raises(Misconfigured, match=rf"streams\.tickets\.results: .* under '{taken}-value': .*ncompatible"):
            await numbered(tickets.stream, registry)


async def checked(config: Path) -> dict[str, tuple[bool, str]]:
    return {each.what: (each.ok, each.said) for each in await checks.check(settings.load(config))}


async def test_check_asks_the_registry_and_registers_nothing(
    bootstrap: str, topic: MAKE_TOPIC, desk: Desk, tmp_path: Path
) -> None:
    incoming, outgoing, dead, model = topic(), topic(), topic(), small_model(tmp_path / "small")
    tree = {"bootstrap": bootstrap, "model": model, "input": incoming, "output": outgoing, "dead": dead}

    async def findings(url: str, **results: str) -> dict[str, tuple[bool, str]]:
        config = configuration(tmp_path, tree, document=DOCUMENT, results={"format": "json_schema", **results})
        config.write_text(f"{config.read_text('utf-8')}registry: {{url: {url}}}\n", encoding="utf-8")
        return {
            what: said for what, said in (await checked(config)).items() if "registry" in what or "streams." in what
        }

    other = f"there is no subject '{incoming}-value', so records have to name schemas of others"
    assert await findings(desk.url) == {
        "registry": (True, f"{desk.url} answers and lets us in"),
        "streams.tickets.document.format": (True, f"streams.tickets.document.format: {other}"),
        "streams.tickets.results": (
            True,
            "results of tickets have a schema that is registered, or that a start can register",
        ),
    }
    assert f"{outgoing}-value" not in desk.client.get_subjects()
    ok, said = (await findings(desk.url, unregistered="refuse"))["streams.tickets.results"]
    assert not ok
    assert f"not registered under '{outgoing}-value': register result.schema.json" in said
    desk.client.register_schema(f"{outgoing}-value", Schema(Written("json_schema").text, "JSON"))
    assert (await findings(desk.url, unregistered="refuse"))["streams.tickets.results"][0]
    desk.client.register_schema(f"{incoming}-value", Schema('syntax = "proto3"; message A {string x = 1;}', "PROTOBUF"))
    ok, said = (await findings(desk.url))["streams.tickets.document.format"]
    assert not ok
    assert said.endswith("cannot be used: it is Protobuf, and only Avro and JSON are read")
    found = await findings("http://127.0.0.1:1")
    assert found == {"registry": (False, "registry: http://127.0.0.1:1 cannot be asked: nobody answers there")}


async def test_check_says_which_subject_would_not_take_the_schema_of_results(
    bootstrap: str, topic: MAKE_TOPIC, desk: Desk, tmp_path: Path
) -> None:
    incoming, outgoing, dead, model = topic(), topic(), topic(), small_model(tmp_path / "small")
    tree = {"bootstrap": bootstrap, "model": model, "input": incoming, "output": outgoing, "dead": dead}
    desk.client.register_schema(f"{outgoing}-value", OTHERS)
    desk.client.set_compatibility(f"{outgoing}-value", "BACKWARD")
    config = configuration(tmp_path, tree, results={"format": "avro"})
    config.write_text(f"{config.read_text('utf-8')}registry: {{url: {desk.url}}}\n", encoding="utf-8")
    ok, said = (await checked(config))["streams.tickets.results"]
    assert not ok
    assert f"does not take the schema of results under '{outgoing}-value'" in said


def sample(telemetry: Telemetry, name: str, **labels: str) -> float:
    found = (each for family in telemetry.registry.collect() for each in family.samples if each.name == name)
    return sum(each.value for each in found if labels.items() <= each.labels.items())
