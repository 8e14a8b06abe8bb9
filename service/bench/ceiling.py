"""`labelstream bench ceiling`: the most that a worker does, and two of one group, where the endpoint answers at once.

Two take a real Kafka: librdkafka's mock has no groups of several members. Broker, feed and endpoint are on the same
cores, so two workers cannot do twice as much on two cores. What the machine allows is what two bare loops do there,
which make the same calls and nothing else.
"""

from collections.abc import Callable
from multiprocessing.connection import Connection

from service.bench.bare_loop import bare_loop
from service.bench.feed import Flow
from service.bench.figure import Figure, at_least, at_most
from service.bench.measuring import measured
from service.bench.place import Place
from service.bench.worker import Took, worker
from service.progress import Steps

_LEAST, _LEAST_TIMES, _MOST_CPU = 30_000, 1.7, 40


def measure(bootstrap: str | None, steps: Steps) -> list[Figure]:
    """Measure one of each, and two where there is a real Kafka. Raises Unavailable when the broker is not there."""

    def took(what: str, target: Callable[[Connection, Place], None], workers: int = 1) -> list[Took]:
        with steps.step(f"{what} at an instant endpoint"):
            return measured(target, Flow(), bootstrap, 0.0, workers)[0]

    one, loop = took("one worker", worker), took("a bare loop", bare_loop)
    figures = [
        at_least("one worker", round(_rate(one)), "documents/s", _LEAST),
        at_most("its CPU a document", one[0].cpu_us_per_document, "µs", _MOST_CPU),
        Figure("a bare loop", round(_rate(loop)), "documents/s"),
        Figure("its CPU a document", loop[0].cpu_us_per_document, "µs"),
    ]
    if bootstrap is None:
        return figures
    two, loops = took("two workers", worker, 2), took("two bare loops", bare_loop, 2)
    return [
        *figures,
        at_least("two workers", round(_rate(two) / _rate(one), 2), "× one", _LEAST_TIMES),
        Figure("two bare loops", round(_rate(loops) / _rate(loop), 2), "× one"),
    ]


def _rate(took: list[Took]) -> float:
    return sum(each.documents / each.seconds for each in took) or 1.0
