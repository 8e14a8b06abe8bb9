"""`labelstream demo`: the whole service on this machine, seen at work.

A broker, a model trained on labelled documents, a server that answers from it as the cloud would, and between them the
real pipeline. What the model has not seen is streamed, and every document is accounted for at the end. A scenario runs
on the configuration that ships for it, with another broker, topics of its own, and accounts that are on this machine.

The broker is librdkafka's in-process mock cluster unless a real one is named. The mock drops what is older than 5 MiB a
partition, so the feed never runs far ahead of the answers.
"""

import asyncio
import os
import secrets
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from importlib.resources import as_file, files
from itertools import cycle, islice
from pathlib import Path
from statistics import quantiles
from typing import Any

import orjson
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import KafkaError
from confluent_kafka import Producer

from service import pipeline, settings
from service.dispatch import accounts
from service.dispatch.dispatcher import Dispatcher
from service.errors import Unavailable
from service.model import examples
from service.model.examples import Example
from service.observability import health, messages
from service.observability.telemetry import Telemetry
from service.progress import Steps
from service.streams import kafka, kafka_sink

PROJECT, DEPLOYMENT = "demo", "production"
_PARTITIONS = 4
_AHEAD = 300
_BYTES_AHEAD = 4 * 1024**2
_PATIENCE, _LOOK = 60.0, 0.05
_CONFIGURATIONS = {"tickets": "triage.yaml", "moderation": "moderation.yaml"}
_DOCUMENTS = 2000
_PLAIN = {
    "kafka": {"bootstrap_servers": "127.0.0.1:9092", "group_id": PROJECT},
    "accounts": {
        "served": {
            "provider": "azure_language",
            "endpoint": "http://127.0.0.1:8080",
            "key": "k",
            "project": PROJECT,
            "deployment": DEPLOYMENT,
            "task": "single_label",
        }
    },
    "streams": [
        {
            "name": PROJECT,
            "input": "incoming",
            "output": "classified",
            "dead_letter": "dead",
            "classify_with": "served",
            "batch": {"wait": "20ms"},
        }
    ],
}
"""What data of one's own is run on."""


@dataclass(frozen=True)
class Options:
    """What to show: a shipped `scenario`, or `data` of one's own; None for `documents` is once through the data."""

    scenario: str = "tickets"
    data: Path | None = None
    documents: int | None = None
    bootstrap: str | None = None


@dataclass(frozen=True)
class Report:
    """Every document accounted for.

    `lost` have neither result nor dead letter, `duplicates` have more than one, `committed` is how far the group's
    offsets moved. `latency_ms` is from the record's timestamp to its result's. `copies` are what routes made, by topic.
    """

    documents: int
    classified: int
    refused: int
    dead_letters: int
    results: int
    duplicates: int
    lost: int
    committed: int
    accuracy: float
    throughput_docs_per_s: float
    latency_ms: dict[str, float]
    seconds: float
    broker: str
    classes: dict[str, int]
    copies: dict[str, int]


async def demo(options: Options, steps: Steps) -> Report:
    """Show the service at work and account for every document.

    Raises ExamplesError for data that cannot be used, Unavailable when a broker is not there or the work stands still.
    """
    from service.model.train import train  # noqa: PLC0415  a second of scikit-learn that other commands do not need

    learn, measure, total = _divide(options)
    task, key, began = examples.infer_task(learn), secrets.token_hex(16), time.monotonic()
    configured = _with_topics_of(f"demo-{secrets.token_hex(4)}", _configured(options))
    with tempfile.TemporaryDirectory(prefix="labelstream-") as folder:
        model = Path(folder) / "model"
        with steps.step(f"training on {len(learn):,} documents") as advance:
            trained = await asyncio.to_thread(
                train, learn, task=task, name=PROJECT, progress=lambda done, _: advance(done)
            )
            trained.save(model)
        async with (
            _broker(options.bootstrap, configured.streams[0]) as (broker, bootstrap),
            _serving(Path(folder) / "server", model, key) as url,
        ):
            wanted = _on_this_machine(configured, bootstrap, url=url, key=key, model=model, task=task)
            tally = _Tally(task, total)
            await _stream(wanted, islice(cycle(measure), total), tally, steps)
            committed = await _committed(wanted)
    return tally.report(committed, broker, began)


def _configured(options: Options) -> settings.Settings:
    if options.data is not None:
        return settings.parse(_PLAIN)
    with as_file(files("service.samples") / _CONFIGURATIONS[options.scenario]) as path:
        tree: Any = settings.tree(path)
        for account in tree["accounts"].values():
            if account.pop("key_file", None):
                account["key"] = "of the demonstration's server"
        return settings.parse(tree, path.name)


def _with_topics_of(name: str, configured: settings.Settings) -> settings.Settings:
    """The same with a group of that name, and topics that begin with it."""
    (stream,) = configured.streams
    own = "{}.{}".format
    routes = tuple(
        route.model_copy(update={"to": tuple(own(name, topic) for topic in route.to)}) for route in stream.routes
    )
    topics = {each: own(name, getattr(stream, each)) for each in ("input", "output", "dead_letter")}
    group = configured.kafka.model_copy(update={"group_id": name})
    stream = stream.model_copy(update={**topics, "routes": routes})
    return configured.model_copy(update={"kafka": group, "streams": (stream,)})


def _divide(options: Options) -> tuple[Sequence[Example], Sequence[Example], int]:
    """The documents to learn from, those to stream, and how many of them (repeated where there are fewer)."""
    if options.data is not None:
        rows = examples.read(options.data)
        if any(row.split for row in rows):
            learn = [row for row in rows if row.split in ("train", "dev")]
            measure = examples.select(rows, "test")
        else:
            learn, measure = examples.hold_out(rows)
        if examples.infer_task([row for row in learn if row.labels]) == "single_label":
            learn, measure = [row for row in learn if row.labels], [row for row in measure if row.labels]
        return learn, measure, options.documents or len(measure)
    with as_file(files("service.samples") / f"{options.scenario}.jsonl") as path:
        learn, measure = examples.hold_out(examples.read(path))
    return learn, measure, options.documents or _DOCUMENTS


def _on_this_machine(
    configured: settings.Settings, bootstrap: str, *, url: str, key: str, model: Path, task: str
) -> settings.Settings:
    """The same with the broker, the server and the model that there are, and without the cloud's quotas."""
    loopback = settings.is_loopback(bootstrap.rsplit(":", 1)[0])
    broker = {
        "bootstrap_servers": bootstrap,
        "group_id": configured.kafka.group_id,
        "fetch_max_wait": "20ms",  # on the mock a fetch waits this long, whatever comes meanwhile
        "security_protocol": None if loopback else "PLAINTEXT",
    }
    served = {"provider": "azure_language", "endpoint": url, "key": key, "task": task, "limits": {"in_flight": 8}}
    served |= {"project": PROJECT, "deployment": DEPLOYMENT}
    placed = {
        name: settings.Local(provider="local", model=model)
        if isinstance(account, settings.Local)
        else settings.AzureLanguage.model_validate(served)
        for name, account in configured.accounts.items()
    }
    changed = {"kafka": settings.Kafka.model_validate(broker), "health": settings.Health(port=0), "accounts": placed}
    return configured.model_copy(update=changed)


@asynccontextmanager
async def _broker(bootstrap: str | None, stream: settings.Stream) -> AsyncIterator[tuple[str, str]]:
    """What the broker is called, and where it is; the topics exist for the length of the block."""
    topics = [stream.input, *stream.topics_written]
    if bootstrap is None:
        producer = Producer({"test.mock.num.brokers": 1, "log_level": 0})
        for topic in topics:
            producer.list_topics(topic, timeout=10)  # asking for a topic makes it
        broker = next(iter(producer.list_topics(timeout=10).brokers.values()))
        yield "in-process mock (librdkafka)", f"{broker.host}:{broker.port}"
        return
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    try:
        await admin.start()
        await admin.create_topics([NewTopic(topic, _PARTITIONS, replication_factor=1) for topic in topics])
    except KafkaError as error:
        raise Unavailable(f"--bootstrap {bootstrap}: no Kafka broker can be used there: {error!r}") from None
    try:
        yield f"Kafka at {bootstrap}", bootstrap
    finally:
        with suppress(KafkaError):  # a broker that is gone by now has been reported
            await admin.delete_topics(topics)
        await admin.close()


@asynccontextmanager
async def _serving(data: Path, model: Path, key: str) -> AsyncIterator[str]:
    """The compatible server as a process of its own; gives its URL."""
    command = [sys.executable, "-m", "service", "serve", "--data", str(data), "--port", "0"]
    command += ["--model", f"{PROJECT}/{DEPLOYMENT}={model}", "--log-level", "warning"]
    server = await asyncio.create_subprocess_exec(
        *command, env={**os.environ, "LABELSTREAM_SERVE_KEY": key}, stdout=asyncio.subprocess.PIPE
    )
    try:
        said = await asyncio.wait_for(server.stdout.readline(), _PATIENCE) if server.stdout else b""
        if not said.strip():
            raise Unavailable(f"`labelstream serve` ended with exit code {await server.wait()}")
        yield said.decode().split()[-1]
    finally:
        if server.returncode is None:
            server.terminate()
            await server.wait()


class _Tally:
    """What was sent and what came back, document by document."""

    def __init__(self, task: str, total: int) -> None:
        self.total = total
        self._single = task == "single_label"
        self._sent: dict[str, tuple[float, int, tuple[str, ...]]] = {}
        self._answered: Counter[str] = Counter()
        self._results = self._dead_letters = self._right = 0
        self._refused: set[str] = set()
        self._latencies: list[float] = []
        self._classes: Counter[str] = Counter()
        self._copies: Counter[str] = Counter()
        self._routed = 0
        self._seen = 0
        self._first = self._last = 0.0
        self.bytes_ahead = 0

    @property
    def ahead(self) -> int:
        """Documents sent and not accounted for."""
        return len(self._sent) - len(self._answered)

    @property
    def accounted(self) -> int:
        """Documents with a result or a dead letter."""
        return len(self._answered)

    def progress(self) -> int:
        """Documents accounted for since this was asked last."""
        seen, self._seen = self._seen, self.accounted
        return self._seen - seen

    def sent(self, name: str, size: int, labels: tuple[str, ...]) -> None:
        """A document was sent."""
        self._first = self._first or time.monotonic()
        self._sent[name] = time.time(), size, labels
        self.bytes_ahead += size

    def came(self, name: str, at: float, classes: Sequence[str] | None, copies: int = 0) -> None:
        """A result came, written `at` (Unix time), of which there are `copies`; or a dead letter (no `classes`)."""
        sent, size, labels = self._sent[name]
        self._last = time.monotonic()
        if classes is None:
            self._dead_letters += 1
            self._refused.add(name)
        else:
            self._results += 1
            self._routed += copies
        self._answered[name] += 1
        if self._answered[name] > 1:
            return
        self.bytes_ahead -= size
        self._latencies.append(max(0.0, at - sent) * 1000)
        if classes is not None:
            answer = classes[:1] if self._single else classes
            self._classes.update(answer)
            self._right += set(answer) == set(labels)

    def copied(self, topic: str, copies: int) -> None:
        """Copies of results came to a topic."""
        self._copies[topic] += copies

    @property
    def has_every_copy(self) -> bool:
        """Whether as many copies have come as results say that there are."""
        return self._copies.total() >= self._routed

    def report(self, committed: int, broker: str, began: float) -> Report:
        """The accounts, of a demonstration that began at that monotonic time."""
        cuts = quantiles(self._latencies, n=100) if len(self._latencies) > 1 else [*self._latencies, 0.0] * 100
        classified = len(self._answered) - len(self._refused)
        return Report(
            documents=self.total,
            classified=classified,
            refused=len(self._refused),
            dead_letters=self._dead_letters,
            results=self._results,
            duplicates=self._results + self._dead_letters - len(self._answered),
            lost=self.total - len(self._answered),
            committed=committed,
            accuracy=round(self._right / classified, 4) if classified else 0.0,
            throughput_docs_per_s=round(len(self._answered) / max(1e-3, self._last - self._first), 1),
            latency_ms={"p50": round(cuts[49], 1), "p99": round(cuts[98], 1)},
            seconds=round(time.monotonic() - began, 2),
            broker=broker,
            classes=dict(self._classes.most_common()),
            copies=dict(self._copies.most_common()),
        )


async def _stream(wanted: settings.Settings, documents: Iterator[Example], tally: _Tally, steps: Steps) -> None:
    """Run the pipeline over the documents until each is accounted for. Raises Unavailable when nothing moves."""
    (stream,), telemetry, stop = wanted.streams, Telemetry(), asyncio.Event()
    async with (
        messages.kept() as last,
        accounts.opened(wanted.accounts, stream.classify_with, telemetry) as ready,
        health.served(health.app(telemetry, last), wanted.health) as url,
        kafka_sink.producing(wanted.kafka, telemetry) as sink,
        asyncio.TaskGroup() as tasks,
    ):
        await accounts.probe(ready.values())
        source = kafka.KafkaSource(wanted.kafka, stream.input)
        dispatcher = Dispatcher(list(ready.values()))
        running = tasks.create_task(pipeline.run(stream, source, sink, dispatcher, telemetry=telemetry, stop=stop))
        collecting = tasks.create_task(_collect(wanted, tally))
        with steps.step("joining the consumer group"):
            await _until(source.ends, "the broker gave us no partitions")
        with steps.step(f"status page, meanwhile: {url}/"):
            pass
        feeding = tasks.create_task(_feed(wanted, documents, tally))
        with steps.step(f"classifying {tally.total:,} documents", tally.total) as advance:
            while tally.accounted < tally.total:
                await _until(
                    tally.progress, f"{tally.accounted:,} of {tally.total:,} documents were answered, then none"
                )
                advance(tally.accounted)
        await _until(lambda: tally.has_every_copy, "copies that results tell of did not come")
        stop.set()
        await running
        feeding.cancel()
        collecting.cancel()


async def _until(reached: Callable[[], object], otherwise: str) -> None:
    """Look every 50 ms whether something is so. Raises Unavailable when it is not in a minute."""
    for _ in range(int(_PATIENCE / _LOOK)):
        if reached():
            return
        await asyncio.sleep(_LOOK)
    raise Unavailable(f"{otherwise} for {_PATIENCE:.0f} s")


async def _feed(wanted: settings.Settings, documents: Iterator[Example], tally: _Tally) -> None:
    """Send documents under fresh ids, never far ahead of the answers."""
    (stream,) = wanted.streams
    async with AIOKafkaProducer(bootstrap_servers=wanted.kafka.bootstrap_servers, linger_ms=5) as producer:
        for number, document in enumerate(documents):
            while tally.ahead >= _AHEAD or tally.bytes_ahead > _BYTES_AHEAD:  # noqa: ASYNC110  no hurry
                await asyncio.sleep(_LOOK / 10)
            name = f"{document.id}/{number}"
            value = orjson.dumps(_record(stream.document, name, document.text.encode(errors="replace").decode()))
            tally.sent(name, len(value), document.labels)
            await producer.send(stream.input, value, key=name.encode())


def _record(fields: settings.Fields, name: str, text: str) -> dict[str, str]:
    """A record that has a document's id and text where they are looked for."""
    return {pointer[1:]: value for pointer, value in ((fields.id, name), (fields.text[-1], text)) if pointer}


async def _collect(wanted: settings.Settings, tally: _Tally) -> None:
    """Read every result and dead letter from the beginning."""
    (stream,) = wanted.streams
    consumer = AIOKafkaConsumer(
        bootstrap_servers=wanted.kafka.bootstrap_servers, auto_offset_reset="earliest", fetch_max_wait_ms=20
    )
    async with consumer:
        topics = stream.topics_written
        consumer.assign([TopicPartition(topic, number) for topic in topics for number in range(_PARTITIONS)])
        await consumer.seek_to_beginning()
        while True:
            for tp, records in (await consumer.getmany(timeout_ms=1000)).items():
                if tp.topic not in {stream.output, stream.dead_letter}:
                    tally.copied(tp.topic.removeprefix(f"{wanted.kafka.group_id}."), len(records))
                    continue
                for record in records:
                    name, at = record.key.decode(), record.timestamp / 1000
                    if tp.topic == stream.dead_letter:
                        tally.came(name, at, None)
                    else:
                        result = orjson.loads(record.value)
                        copies = (result.get("route") or {}).get("to", ())
                        tally.came(name, at, [each["name"] for each in result["classes"]], len(copies))


async def _committed(wanted: settings.Settings) -> int:
    admin = AIOKafkaAdminClient(bootstrap_servers=wanted.kafka.bootstrap_servers)
    await admin.start()
    try:
        partitions = [TopicPartition(wanted.streams[0].input, number) for number in range(_PARTITIONS)]
        offsets = await admin.list_consumer_group_offsets(wanted.kafka.group_id, partitions=partitions)
    finally:
        await admin.close()
    return sum(offset.offset for offset in offsets.values() if offset.offset > 0)
