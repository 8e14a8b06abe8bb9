"""One measurement: a broker with its feed, an endpoint, and whoever works between them, each in its own process."""

import time
from collections.abc import Callable
from contextlib import ExitStack
from multiprocessing.connection import Connection

from service.bench.endpoint import endpoint
from service.bench.feed import Flow, feed
from service.bench.place import Place
from service.bench.worker import Took
from service.process import received, spawned

WARM_UP, MEASURED = 4.0, 10.0
"""Seconds."""


def measured(
    target: Callable[[Connection, Place], None], flow: Flow, bootstrap: str | None, seconds: float, workers: int = 1
) -> tuple[list[Took], list[float]]:
    """What each of the workers says of itself, and the latencies in milliseconds that the feed saw.

    A job takes so many seconds at the endpoint. Raises Unavailable when the broker is not there.
    """
    with spawned(endpoint, seconds) as answering, spawned(feed, bootstrap, flow) as feeding, ExitStack() as stack:
        url, (where, *topics) = received(answering), received(feeding)
        places = [Place(where, url, seconds, number, workers, *topics) for number in range(workers)]
        working = [stack.enter_context(spawned(target, place)) for place in places]
        for each in working:
            received(each)  # it has its partitions
        feeding.send("begin")
        time.sleep(WARM_UP)
        for each in (*working, feeding):
            each.send("measure")
        time.sleep(MEASURED)
        for each in working:
            each.send("end")
        took = [received(each) for each in working]
        feeding.send("end")
        return took, received(feeding)
