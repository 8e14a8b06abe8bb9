"""`labelstream bench`: what the pipeline itself costs, between a broker and an endpoint of known speed.

Four processes: an endpoint whose jobs take 100 ms and whose answers are constant; a broker (librdkafka's mock, or a
real one that is named) with a feed of 1 kB documents beside it; and the worker, which is the pipeline as `run` has it,
with metrics on. What is reported is the worker's alone: CPU time and memory are its own, and latency is what it adds
to the endpoint's 100 ms.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from statistics import quantiles

from service.bench.bare_loop import bare_loop
from service.bench.endpoint import endpoint
from service.bench.feed import feed
from service.bench.worker import BATCH, IN_FLIGHT, Place, worker
from service.process import received, spawned
from service.progress import Steps

ENDPOINT_SECONDS = 0.1
IDEAL = IN_FLIGHT * BATCH / ENDPOINT_SECONDS
_WARM_UP, _MEASURED = 4.0, 10.0


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


def measure(bootstrap: str | None, steps: Steps) -> Report:
    """Measure at full load, then at half of the ideal. Raises Unavailable when the broker is not there."""
    with spawned(endpoint, ENDPOINT_SECONDS) as answering:
        url = received(answering)
        with steps.step(f"full load: {IN_FLIGHT} × {BATCH} documents at {ENDPOINT_SECONDS * 1000:.0f} ms"):
            full, _ = _measure(worker, bootstrap, url, None)
        with steps.step("the same by a bare loop"):
            bare, _ = _measure(bare_loop, bootstrap, url, None)
        with steps.step("half load: latency"):
            half, latencies = _measure(worker, bootstrap, url, IDEAL / 2)
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
    with spawned(feed, bootstrap, rate) as feeding:
        where, *topics = received(feeding)
        place = Place(where, url, ENDPOINT_SECONDS, *topics)
        with spawned(target, place) as working:
            received(working)  # it has its partitions
            feeding.send("begin")
            time.sleep(_WARM_UP)
            working.send("measure")
            feeding.send("measure")
            time.sleep(_MEASURED)
            working.send("end")
            measured = received(working)
            feeding.send("end")
            return measured, received(feeding)
