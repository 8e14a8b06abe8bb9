"""What a process of ours has: an event loop, and memory that is looked after."""

import asyncio
import gc
from collections.abc import Callable


def loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """What makes event loops: uvloop where there is one, else asyncio's own default (None)."""
    try:
        import uvloop  # noqa: PLC0415  there is none on every platform
    except ImportError:
        return None
    return uvloop.new_event_loop


def settle_memory() -> None:
    """Spare the collector what is here to stay, and the many records that are freed without it.

    A document makes some tens of objects, none of them in a cycle. Looking them all over every 700 allocations, as is
    the default, took a fifth of the worker's time.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)
