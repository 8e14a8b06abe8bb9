"""The worker of a benchmark: the pipeline as `run` has it, with metrics on, which says what it took."""

import asyncio
import resource
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection

from service import accounts, logs, pipeline, settings
from service.bench.feed import PARTITIONS
from service.dispatch import Dispatcher
from service.ledger import Ledger
from service.process import loop_factory, settle_memory
from service.streams import kafka, kafka_sink
from service.streams.kafka_notes import KafkaNotes
from service.telemetry import Telemetry

IN_FLIGHT, BATCH = 32, 25


@dataclass(frozen=True)
class Place:
    """Where the broker and the endpoint are, and what the topics are called; `seconds` are what a job takes there."""

    bootstrap: str
    url: str
    seconds: float
    incoming: str
    classified: str
    dead: str
    jobs: str


def worker(connection: Connection, place: Place) -> None:
    """Work until told to end."""
    logs.configure(settings.Log(level="warning"))
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        runner.run(_work(connection, place))


async def _work(connection: Connection, place: Place) -> None:
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
        while len(source.ends()) < PARTITIONS:  # noqa: ASYNC110  as above
            await asyncio.sleep(0.05)
        settle_memory()
        await answer_for(connection, finished._value.get)  # noqa: SLF001  there is no other way to read a counter
        stop.set()


async def answer_for(connection: Connection, finished: Callable[[], float]) -> None:
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


def _settings(place: Place) -> settings.Settings:
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
                    "key": "bench-key",
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
