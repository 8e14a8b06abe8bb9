"""`labelstream bench`: what the pipeline itself costs, between a broker and an endpoint of known speed.

Four processes: an endpoint whose jobs take 100 ms and whose answers are constant; a broker (librdkafka's mock, or a
real one that is named) with a feed of 1 kB documents beside it; and the worker, which is the pipeline as `run` has it,
with metrics on. What is reported is the worker's alone: CPU time and memory are its own, and latency is what it adds
to the endpoint's 100 ms.
"""

import asyncio
import math
import resource
import secrets
import socket
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from statistics import quantiles
from typing import Any, cast

import aiohttp
import httptools
import orjson
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka import TopicPartition as KafkaPartition
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from service import accounts, logs, pipeline, settings
from service.dispatch import Dispatcher
from service.errors import Unavailable
from service.ledger import Ledger
from service.process import loop_factory, received, settle_memory, spawned
from service.progress import Steps
from service.streams import kafka, kafka_sink
from service.streams.kafka_notes import KafkaNotes
from service.telemetry import Telemetry

ENDPOINT_SECONDS = 0.1
IN_FLIGHT, BATCH = 32, 25
IDEAL = IN_FLIGHT * BATCH / ENDPOINT_SECONDS
_PARTITIONS = 4
_AHEAD = 16000
_WARM_UP, _MEASURED = 4.0, 10.0
_KEY = "bench-key"


@dataclass(frozen=True)
class Figure:
    """One thing measured, and what it should be at least or at most."""

    name: str
    measured: float
    unit: str
    goal: str
    met: bool


@dataclass(frozen=True)
class Report:
    """The figures, and what they were measured on."""

    broker: str
    endpoint_ms: float
    in_flight: int
    batch: int
    ideal_docs_per_s: float
    docs_per_s: float
    share_of_ideal: float
    cpu_us_per_document: float
    bare_loop_cpu_us_per_document: float
    added_latency_ms: dict[str, float]
    peak_memory_mb: float

    def figures(self) -> list[Figure]:
        """The figures beside their goals."""
        share, cpu, late = self.share_of_ideal, self.cpu_us_per_document, self.added_latency_ms["p99"]
        return [
            Figure("share of the ideal throughput", share, "", "≥ 0.95", share >= 0.95),
            Figure("CPU a document", cpu, "µs", "≤ 60", cpu <= 60),
            Figure("added latency at half load, p99", late, "ms", "≤ 25", late <= 25),
        ]


@dataclass(frozen=True)
class _Place:
    bootstrap: str
    url: str
    incoming: str
    classified: str
    dead: str
    jobs: str


def bench(bootstrap: str | None, steps: Steps) -> Report:
    """Measure at full load, then at half of the ideal. Raises Unavailable when the broker is not there."""
    with spawned(_endpoint) as endpoint:
        url = endpoint.recv()
        with steps.step(f"full load: {IN_FLIGHT} × {BATCH} documents at {ENDPOINT_SECONDS * 1000:.0f} ms"):
            full, _ = _measure(_worker, bootstrap, url, None)
        with steps.step("the same by a bare loop"):
            bare, _ = _measure(_bare_loop, bootstrap, url, None)
        with steps.step("half load: latency"):
            half, latencies = _measure(_worker, bootstrap, url, IDEAL / 2)
    added = [latency - ENDPOINT_SECONDS * 1000 for latency in latencies]
    cuts = quantiles(added, n=100)
    return Report(
        broker=f"Kafka at {bootstrap}" if bootstrap else "in-process mock (librdkafka)",
        endpoint_ms=ENDPOINT_SECONDS * 1000,
        in_flight=IN_FLIGHT,
        batch=BATCH,
        ideal_docs_per_s=IDEAL,
        docs_per_s=round(full["documents"] / full["seconds"], 1),
        share_of_ideal=round(full["documents"] / full["seconds"] / IDEAL, 4),
        cpu_us_per_document=_cpu(full),
        bare_loop_cpu_us_per_document=_cpu(bare),
        added_latency_ms={"p50": round(cuts[49], 1), "p99": round(cuts[98], 1)},
        peak_memory_mb=round(max(full["peak_memory_mb"], half["peak_memory_mb"]), 1),
    )


def _cpu(measured: dict[str, float]) -> float:
    return round(measured["cpu_seconds"] / max(1, measured["documents"]) * 1e6, 1)


def _measure(
    target: Callable[..., None], bootstrap: str | None, url: str, rate: float | None
) -> tuple[dict[str, float], list[float]]:
    """What the worker says of itself, and the latencies in milliseconds that the feed saw."""
    with spawned(_feed, bootstrap, rate) as feed:
        where, *topics = received(feed)
        place = _Place(where, url, *topics)
        with spawned(target, place) as worker:
            received(worker)  # it has its partitions
            feed.send("begin")
            time.sleep(_WARM_UP)
            worker.send("measure")
            feed.send("measure")
            time.sleep(_MEASURED)
            worker.send("end")
            measured = received(worker)
            feed.send("end")
            return measured, received(feed)


# The endpoint: Azure Language's job API, with constant answers after a constant time.


class _Endpoint(asyncio.Protocol):
    """One connection to the endpoint. It is as spare as can be: what it takes to answer is not ours to pay for."""

    def __init__(self, jobs: dict[bytes, tuple[float, bytes]], base: str) -> None:
        self._jobs = jobs
        self._base = base.encode()
        self._parser = httptools.HttpRequestParser(self)
        self._transport: asyncio.Transport
        self._url = self._body = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_url(self, url: bytes) -> None:
        self._url, self._body = url, b""

    def on_body(self, body: bytes) -> None:
        self._body += body

    def on_message_complete(self) -> None:
        now = time.monotonic()
        if self._parser.get_method() == b"POST":
            name = b"%d" % len(self._jobs)
            self._jobs[name] = now + ENDPOINT_SECONDS, _answer(self._body)
            where = b"%b/language/analyze-text/jobs/%b?api-version=2023-04-01" % (self._base, name)
            self._transport.write(
                b"HTTP/1.1 202 Accepted\r\noperation-location: %b\r\ncontent-length: 0\r\n\r\n" % where
            )
            return
        name = self._url.partition(b"?")[0].rpartition(b"/")[2]
        due, answer = self._jobs.get(name, (math.inf, b""))
        if now >= due:
            self._jobs[name] = due, b""
        else:
            answer = _RUNNING
        head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(answer)
        self._transport.write(head + answer)


_RUNNING = b'{"status":"running","errors":[],"tasks":{"completed":0,"failed":0,"inProgress":1,"total":1,"items":[]}}'
_SUCCEEDED = (
    b'{"status":"succeeded","errors":[],"tasks":{"completed":1,"failed":0,"inProgress":0,"total":1,"items":['
    b'{"kind":"CustomSingleLabelClassificationLROResults","status":"succeeded","results":{"errors":[],"documents":[%b]}}]}}'
)


def _answer(body: bytes) -> bytes:
    documents = orjson.loads(body)["analysisInput"]["documents"]
    answers = [
        b'{"id":"%b","class":[{"category":"billing","confidenceScore":0.93}],"warnings":[]}' % each["id"].encode()
        for each in documents
    ]
    return _SUCCEEDED % b",".join(answers)


def _endpoint(connection: Connection) -> None:
    async def serve() -> None:
        loop, orphaned = asyncio.get_running_loop(), asyncio.Event()
        jobs: dict[bytes, tuple[float, bytes]] = {}
        with socket.create_server(("127.0.0.1", 0)) as listening:
            base = f"http://127.0.0.1:{listening.getsockname()[1]}"
            server = await loop.create_server(lambda: _Endpoint(jobs, base), sock=listening)
            connection.send(base)
            loop.add_reader(connection.fileno(), orphaned.set)  # nothing is sent: it can only have closed
            await orphaned.wait()
            server.close()

    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        runner.run(serve())


# The feed: documents in, results out, and the time between them.


def _feed(connection: Connection, bootstrap: str | None, rate: float | None) -> None:
    name = f"bench-{secrets.token_hex(4)}"
    topics = [f"{name}.incoming", f"{name}.classified", f"{name}.dead", f"{name}.jobs"]
    linger = 20 if rate is None else 1  # the mock answers a fetch with one batch a partition, however small
    if bootstrap is None:
        producer = Producer({"test.mock.num.brokers": 1, "log_level": 0, "linger.ms": linger})
        for topic in topics:
            producer.list_topics(topic, timeout=10)
        broker = next(iter(producer.list_topics(timeout=10).brokers.values()))
        where = f"{broker.host}:{broker.port}"
        _load(connection, producer, where, topics, rate)
        return
    admin = AdminClient({"bootstrap.servers": bootstrap, "log_level": 0})
    made = admin.create_topics([NewTopic(topic, _PARTITIONS, 1) for topic in topics], request_timeout=10)
    try:
        for future in made.values():
            future.result(15)
    except Exception as error:  # noqa: BLE001  whatever it is, the parent says it
        connection.send(Unavailable(f"--bootstrap {bootstrap}: no topics can be made there: {error}"))
        return
    try:
        producer = Producer({"bootstrap.servers": bootstrap, "linger.ms": linger})
        _load(connection, producer, bootstrap, topics, rate)
    finally:
        admin.delete_topics(topics)
        admin.poll(1)


def _load(connection: Connection, producer: Producer, where: str, topics: list[str], rate: float | None) -> None:
    consumer = Consumer({"bootstrap.servers": where, "group.id": "bench-feed", "fetch.wait.max.ms": 5, "log_level": 0})
    consumer.assign([TopicPartition(topics[1], 0, 0)])  # one partition stands for all: the feed is not to be in the way
    connection.send([where, *topics])
    connection.recv()
    text = (b"My parcel was due on Tuesday and the tracking page has said the same thing ever since. " * 12)[:980]
    sent = seen = 0
    began, latencies, command = time.monotonic(), list[float](), ""
    while command != "end":
        if connection.poll():
            command = connection.recv()
        due = _AHEAD + seen if rate is None else int((time.monotonic() - began) * rate)
        for _ in range(min(due - sent, 200)):
            now = time.time() * 1000
            value = b'{"id":"T-%d","text":"%b"}' % (sent, text)
            headers = [("sent", str(now).encode())]  # results carry their document's headers
            producer.produce(topics[0], value, str(sent).encode(), partition=sent % _PARTITIONS, headers=headers)
            sent += 1
        producer.poll(0)
        for message in consumer.consume(500, 0.004):
            if message.error() is None:
                seen += _PARTITIONS
                if command == "measure":
                    latencies.append(message.timestamp()[1] - float(dict(message.headers())["sent"]))
    connection.send(latencies)


# The worker: the pipeline as `run` has it.


def _worker(connection: Connection, place: _Place) -> None:
    logs.configure(settings.Log(level="warning"))
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        runner.run(_work(connection, place))


async def _work(connection: Connection, place: _Place) -> None:
    wanted = _settings(place)
    (stream,), telemetry, stop = wanted.streams, Telemetry(), asyncio.Event()
    finished = telemetry.records_finished.labels(stream.input, "classified")
    async with (
        accounts.opened(wanted.accounts, stream.classify_with, telemetry) as ready,
        kafka_sink.producing(wanted.kafka, telemetry) as sink,
        asyncio.TaskGroup() as tasks,
    ):
        source = kafka.KafkaSource(wanted.kafka, stream.input)
        dispatcher, ledger = Dispatcher(list(ready.values())), Ledger(KafkaNotes(wanted.kafka, place.jobs, sink))
        tasks.create_task(pipeline.run(stream, source, sink, dispatcher, telemetry=telemetry, stop=stop, ledger=ledger))
        while len(source.ends()) < _PARTITIONS:  # noqa: ASYNC110  as above
            await asyncio.sleep(0.05)
        settle_memory()
        await _answer_for(connection, finished._value.get)  # noqa: SLF001  there is no other way to read a counter
        stop.set()


async def _answer_for(connection: Connection, finished: Callable[[], float]) -> None:
    """Say what was done, and what it cost, between being told to begin and to end."""

    def standing() -> tuple[float, float, float]:
        return time.monotonic(), time.process_time(), finished()

    async def told() -> None:
        await said.wait()
        said.clear()
        connection.recv()

    said = asyncio.Event()
    asyncio.get_running_loop().add_reader(connection.fileno(), said.set)
    connection.send("ready")
    await told()
    began = standing()
    await told()
    seconds, cpu, documents = (now - then for now, then in zip(standing(), began, strict=True))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1024 if sys.platform == "linux" else 1024**2)
    connection.send({"seconds": seconds, "cpu_seconds": cpu, "documents": documents, "peak_memory_mb": peak})


# The bare loop: the same calls by aiokafka and aiohttp with nothing around them. No commits, limits, errors or metrics:
# what it costs on this machine, at this hour, is what the worker's cost is to be held against.


def _bare_loop(connection: Connection, place: _Place) -> None:
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        runner.run(_loop(connection, place))


async def _loop(connection: Connection, place: _Place) -> None:
    where, done = place.bootstrap, 0
    consumer = AIOKafkaConsumer(bootstrap_servers=where, fetch_max_wait_ms=5, auto_offset_reset="earliest")
    producer = AIOKafkaProducer(bootstrap_servers=where, enable_idempotence=True, max_batch_size=128 * 1024)
    session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), cookie_jar=aiohttp.DummyCookieJar())
    jobs, places = f"{place.url}/language/analyze-text/jobs?api-version=2023-04-01", asyncio.Semaphore(IN_FLIGHT)
    tasks = [{"kind": "CustomSingleLabelClassification", "parameters": {"projectName": "b", "deploymentName": "b"}}]

    async def settle(records: list[Any]) -> None:
        nonlocal done
        texts = [orjson.loads(record.value)["text"] for record in records]
        documents = [{"id": str(i), "text": text} for i, text in enumerate(texts)]
        body = orjson.dumps({"analysisInput": {"documents": documents}, "tasks": tasks})
        async with session.post(jobs, data=body, headers={"Content-Type": "application/json"}) as response:
            job = response.headers["operation-location"]
        await asyncio.sleep(ENDPOINT_SECONDS)
        while True:
            async with session.get(job) as response:
                answer = orjson.loads(await response.read())
            if answer["status"] == "succeeded":
                break
        places.release()
        answers = answer["tasks"]["items"][0]["results"]["documents"]
        sent = [
            await producer.send(
                place.classified, orjson.dumps(each), record.key, record.partition, headers=list(record.headers)
            )
            for record, each in zip(records, answers, strict=True)
        ]
        await asyncio.gather(*sent)
        done += len(records)

    async def run() -> None:
        async with asyncio.TaskGroup() as under_way:
            while True:
                await places.acquire()
                found = await consumer.getmany(timeout_ms=1000, max_records=BATCH)
                under_way.create_task(settle([record for records in found.values() for record in records]))

    async with consumer, producer, session:
        consumer.assign([KafkaPartition(place.incoming, number) for number in range(_PARTITIONS)])
        settle_memory()
        running = asyncio.create_task(run())
        await _answer_for(connection, lambda: done)
        running.cancel()
        await asyncio.wait([running])


def _settings(place: _Place) -> settings.Settings:
    return settings.parse(
        {
            "kafka": {
                "bootstrap_servers": place.bootstrap,
                "group_id": place.incoming,
                "fetch_max_wait": "5ms",
                "security_protocol": "PLAINTEXT",
            },
            "accounts": {
                "endpoint": {
                    "provider": "azure_language",
                    "endpoint": place.url,
                    "key": _KEY,
                    "project": "bench",
                    "deployment": "bench",
                    "task": "single_label",
                    "limits": {"in_flight": IN_FLIGHT},
                }
            },
            "streams": [
                {
                    "name": "bench",
                    "input": place.incoming,
                    "output": place.classified,
                    "dead_letter": place.dead,
                    "classify_with": "endpoint",
                    "batch": {"documents": BATCH, "wait": "5ms"},
                }
            ],
        },
        "bench",
    )
