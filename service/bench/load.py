"""`labelstream bench`: what the pipeline itself costs, between a broker and an endpoint of known speed.

Four processes: an endpoint whose jobs take 100 ms and whose answers are constant; a broker (librdkafka's mock, or a
real one that is named) with a feed of 1 kB documents beside it; and the worker, which is the pipeline as `run` has it,
with metrics on. What is reported is the worker's alone: CPU time and memory are its own, and latency is what it adds
to the endpoint's 100 ms.
"""

from dataclasses import dataclass
from statistics import quantiles

from service.bench.bare_loop import bare_loop
from service.bench.feed import Flow
from service.bench.figure import Figure, at_least, at_most
from service.bench.measuring import measured
from service.bench.place import BATCH, IN_FLIGHT
from service.bench.worker import worker
from service.progress import Steps

ENDPOINT_SECONDS = 0.1
IDEAL = IN_FLIGHT * BATCH / ENDPOINT_SECONDS


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
        return [
            at_least("share of the ideal throughput", self.share_of_ideal, "", 0.98),
            at_most("CPU a document", self.cpu_us_per_document, "µs", 40),
            at_most("added latency at half load, p99", self.added_latency_ms["p99"], "ms", 15),
        ]


def measure(bootstrap: str | None, steps: Steps) -> Report:
    """Measure at full load, then at half of the ideal. Raises Unavailable when the broker is not there."""
    with steps.step(f"full load: {IN_FLIGHT} × {BATCH} documents at {ENDPOINT_SECONDS * 1000:.0f} ms"):
        (full,), _ = measured(worker, Flow(), bootstrap, ENDPOINT_SECONDS)
    with steps.step("the same by a bare loop"):
        (bare,), _ = measured(bare_loop, Flow(), bootstrap, ENDPOINT_SECONDS)
    with steps.step("half load: latency"):
        (half,), latencies = measured(worker, Flow(IDEAL / 2), bootstrap, ENDPOINT_SECONDS)
    added = [latency - ENDPOINT_SECONDS * 1000 for latency in latencies]
    cuts = quantiles(added, n=100)
    return Report(
        broker=f"Kafka at {bootstrap}" if bootstrap else "in-process mock (librdkafka)",
        endpoint_ms=ENDPOINT_SECONDS * 1000,
        in_flight=IN_FLIGHT,
        batch=BATCH,
        ideal_docs_per_s=IDEAL,
        docs_per_s=round(full.documents / full.seconds, 1),
        share_of_ideal=round(full.documents / full.seconds / IDEAL, 4),
        cpu_us_per_document=full.cpu_us_per_document,
        bare_loop_cpu_us_per_document=bare.cpu_us_per_document,
        added_latency_ms={"p50": round(cuts[49], 1), "p99": round(cuts[98], 1)},
        peak_memory_mb=round(max(full.peak_memory_mb, half.peak_memory_mb), 1),
    )
