"""`labelstream bench memory`: what a worker holds while an endpoint takes documents of 100 kB, and answers nothing."""

import math

from service.bench import measuring
from service.bench.feed import Flow
from service.bench.figure import Figure, at_most
from service.bench.worker import worker
from service.progress import Steps

_DOCUMENTS, _CHARACTERS = 10_000, 100_000
_BEYOND = 150
"""Megabytes that a worker may have beyond the bytes of records that it may hold (`capacity.bytes`)."""


def measure(bootstrap: str | None, steps: Steps) -> list[Figure]:
    """Measure it. Raises Unavailable when the broker is not there."""
    flow = Flow(_DOCUMENTS / (measuring.WARM_UP + measuring.MEASURED), _CHARACTERS)
    with steps.step(f"{_DOCUMENTS:,} documents of {_CHARACTERS:,} characters, and no answer"):
        (took,), _ = measuring.measured(worker, flow, bootstrap, math.inf)
    return [
        at_most("peak memory", round(took.peak_memory_mb, 1), "MB", round(took.bound_mb) + _BEYOND),
        Figure("records in hand", round(took.held_mb, 1), f"MB, of {took.bound_mb:.0f} that may be"),
    ]
