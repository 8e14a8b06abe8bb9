"""What a process of ours has: an event loop, memory that is looked after, and others beside it that it can talk to."""

import asyncio
import gc
import multiprocessing
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from typing import Any

from service.errors import Unavailable

_PATIENCE = 60.0
_spawning = multiprocessing.get_context("spawn")


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


@contextmanager
def spawned(target: Callable[..., None], *arguments: object) -> Iterator[Connection]:
    """Another process that runs `target` for the length of the block, with a connection to it as its first argument."""
    ours, theirs = _spawning.Pipe()
    process = _spawning.Process(target=target, args=(theirs, *arguments), daemon=True)
    handler = signal.signal(signal.SIGINT, signal.SIG_IGN)  # inherited: Ctrl-C reaches them too, and is ours to act on
    process.start()
    signal.signal(signal.SIGINT, handler)
    theirs.close()
    try:
        yield ours
    finally:
        process.terminate()
        process.join()


def received(connection: Connection) -> Any:
    """What another process says; an Unavailable that it says is raised, as is one where it says nothing."""
    if not connection.poll(_PATIENCE):
        raise Unavailable(f"a part of the benchmark said nothing for {_PATIENCE:.0f} s")
    try:
        said = connection.recv()
    except EOFError:
        raise Unavailable("a part of the benchmark ended early; its error is above") from None
    if isinstance(said, Unavailable):
        raise said
    return said
