"""The worker of a benchmark: the pipeline as `run` has it, with metrics on, which says what it took."""

import asyncio
import resource
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection

from service import pipeline, settings
from service.bench.place import BATCH, IN_FLIGHT, PARTITIONS, Place
from service.dispatch import accounts
from service.dispatch.dispatcher import Dispatcher
from service.jobs.ledger import Ledger
from service.observability import logs
from service.observability.telemetry import Telemetry
from service.process import loop_factory, settle_memory
from service.streams import kafka, kafka_sink
from service.streams.kafka_notes import KafkaNotes

_MB = 1024**2


@dataclass(frozen=True)
class Took:
    """What a worker did between two moments, and took for it; records in hand at the end, and the most there may be."""

    seconds: float
    cpu_seconds: float
    documents: float
    peak_memory_mb: float
    held_mb: float = 0.0
    bound_mb: float = 0.0

    @property
    def cpu_us_per_document(self) -> float:
        """Microseconds."""
        return round(self.cpu_seconds / max(1, self.documents) * 1e6, 1)


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
        while len(source.ends()) != PARTITIONS // place.workers:  # noqa: ASYNC110  nobody tells us when they come
            await asyncio.sleep(0.05)
        settle_memory()
        took = await watched(connection, finished._value.get)  # noqa: SLF001  there is no other way to read a counter
        (stands,) = telemetry.stream_statistics()
        connection.send(replace(took, held_mb=stands.offsets.bytes / _MB, bound_mb=stream.capacity.bytes / _MB))
        stop.set()


async def watched(connection: Connection, finished: Callable[[], float]) -> Took:
    """What was done, and what it cost, between being told to begin and to end."""

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
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1024 if sys.platform == "linux" else 1)
    return Took(seconds, cpu, documents, peak / _MB)


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
