import asyncio
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import httpx
import orjson
import pytest
from prometheus_client.parser import text_string_to_metric_families

from service import pipeline, settings
from service.dispatch.account import Account
from service.dispatch.dispatcher import Dispatcher
from service.documents import Message, Record
from service.errors import Misconfigured
from service.observability.health import app, served
from service.observability.messages import Messages
from service.observability.telemetry import Telemetry
from service.streams.memory import MemorySink, MemorySource
from tests.classifiers import POISON, UNWANTED, FirstWord, account
from tests.records import INPUT, record, written

CANARY = "canary-4711"
ANY_PORT = settings.Health(port=0)


@asynccontextmanager
async def asked(telemetry: Telemetry, health: settings.Health = ANY_PORT) -> AsyncIterator[httpx.AsyncClient]:
    async with (
        served(app(telemetry, Messages()), health) as url,
        httpx.AsyncClient(base_url=url, trust_env=False) as http,
    ):
        yield http


class Counting(MemorySink):
    """Knows when so many messages have been published."""

    def __init__(self, count: int) -> None:
        super().__init__()
        self.reached = asyncio.Event()
        self._count = count

    async def publish(self, messages: Sequence[Message]) -> list[Message]:
        too_large = await super().publish(messages)
        if len(self.messages) >= self._count:
            self.reached.set()
        return too_large


@asynccontextmanager
async def working(
    records: Sequence[Record], telemetry: Telemetry, azure: Account | None = None
) -> AsyncIterator[tuple[MemorySource, asyncio.Event]]:
    """A pipeline beside the block, with what stops it; its documents have all been answered when the block begins."""
    azure = azure or account(FirstWord(seconds=0), "azure", telemetry=telemetry)
    telemetry.watch_account(azure.statistics)
    source, sink = MemorySource(records, ends=False), Counting(len(records))
    tree = {"name": "s", "input": "incoming", "classify_with": "a", "output": "classified", "dead_letter": "dead"}
    stream, stop = settings.Stream.model_validate({**tree, "batch": {"wait": 0}}), asyncio.Event()
    running = pipeline.run(stream, source, sink, Dispatcher([azure]), telemetry=telemetry, stop=stop)
    task = asyncio.create_task(running)
    await sink.reached.wait()
    try:
        yield source, stop
    finally:
        stop.set()
        await task


async def test_a_process_is_alive_as_soon_as_it_answers_and_ready_when_it_has_joined() -> None:
    telemetry = Telemetry()
    async with asked(telemetry) as http:
        assert (await http.get("/livez")).json() == {"alive": True}
        early = await http.get("/readyz")
        assert (early.status_code, early.json()) == (503, {"ready": False, "streams": {}})
        async with working([written(0, "billing")], telemetry) as (source, stop):
            ready = await http.get("/readyz")
            joined = {"joined": True, "assigned_partitions": 1, "draining": False, "dead_letter_limit_reached": False}
            assert (ready.status_code, ready.json()) == (
                200,
                {"ready": True, "streams": {"incoming": joined}},
            )
            await source.revoke([INPUT])
            assert (await http.get("/readyz")).status_code == 503
            await source.assign([])
            assert (await http.get("/readyz")).status_code == 200, "a replica too many has no partition, and is well"
            await source.revoke([])
            await source.assign([INPUT])
            assert (await http.get("/readyz")).status_code == 200
            stop.set()
            draining = await http.get("/readyz")
            assert draining.status_code == 503
            assert draining.json()["streams"]["incoming"]["draining"]
        assert (await http.get("/livez")).status_code == 200


async def test_metrics_are_read_by_prometheus_in_both_of_its_forms() -> None:
    telemetry = Telemetry()
    async with asked(telemetry) as http, working([written(0, "billing")], telemetry):
        plain = await http.get("/metrics")
        assert plain.headers["content-type"].startswith("text/plain")
        families = {family.name for family in text_string_to_metric_families(plain.text)}
        assert {"labelstream_records_consumed", "labelstream_records_inflight", "labelstream_build_info"} <= families
        opened = await http.get("/metrics", headers={"accept": "application/openmetrics-text; version=1.0.0"})
        assert opened.headers["content-type"].startswith("application/openmetrics-text")
        assert opened.text.endswith("# EOF\n")


async def test_no_document_id_key_or_header_is_shown() -> None:
    telemetry = Telemetry()
    body = orjson.dumps({"id": CANARY, "text": f"billing {CANARY}", "lang": CANARY})
    records = [
        record(0, body, key=CANARY.encode(), headers=[(CANARY, CANARY.encode())]),
        record(1, f"{CANARY} is not JSON".encode()),
        written(2, f"{UNWANTED} {CANARY}"),
        written(3, f"{POISON} {CANARY}"),
        record(4, None, key=CANARY.encode()),
    ]
    async with asked(telemetry) as http, working(records, telemetry):
        finished = {"topic": "incoming", "outcome": "dead_letter"}
        assert telemetry.registry.get_sample_value("labelstream_records_finished_total", finished) == 4
        for path in ("/", "/status", "/metrics", "/readyz", "/livez", f"/{CANARY}"):
            assert CANARY not in (await http.get(path)).text


@pytest.mark.parametrize("path", ["/status.html", "/metrics/", "/../etc/passwd", "/docs", "/openapi.json"])
async def test_nothing_else_is_there(path: str) -> None:
    async with asked(Telemetry()) as http:
        assert (await http.get(path)).status_code in (307, 404)


async def test_nothing_can_be_changed_from_outside() -> None:
    async with asked(Telemetry()) as http:
        for path in ("/", "/status", "/livez", "/readyz", "/metrics"):
            assert (await http.post(path, content=b"x")).status_code == 405


async def test_ipv6_is_listened_on_where_it_is_asked_for() -> None:
    health = settings.Health(host="::1", port=0)
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:  # a machine without IPv6
        with pytest.raises(Misconfigured, match="health: cannot listen on ::1:0: "):
            await served(app(Telemetry(), Messages()), health).__aenter__()
        return
    async with served(app(Telemetry(), Messages()), health) as url, httpx.AsyncClient(trust_env=False) as http:
        assert url.startswith("http://[::1]:")
        assert (await http.get(f"{url}/livez")).status_code == 200


async def test_a_port_that_is_taken_is_said_by_its_setting() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(Misconfigured, match=rf"health: cannot listen on .*:{port}: Address already in use"):
            async with served(app(Telemetry(), Messages()), settings.Health(port=port)):
                pass


async def test_the_port_is_free_again_when_the_block_ends_however_it_ends() -> None:
    ports = []

    async def fail() -> None:
        async with served(app(Telemetry(), Messages()), ANY_PORT) as url:
            ports.append(httpx.URL(url).port)
            async with httpx.AsyncClient(trust_env=False) as http:
                await http.get(f"{url}/livez")
                raise ZeroDivisionError  # while the connection is kept open

    with pytest.raises(ExceptionGroup) as failed:
        await fail()
    assert failed.group_contains(ZeroDivisionError)
    async with served(app(Telemetry(), Messages()), settings.Health(port=ports[0])):
        pass
