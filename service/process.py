"""What a process of ours has: an event loop, memory that is looked after, and others beside it that it can talk to."""

import asyncio
import gc
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
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


def started(target: Callable[..., None], *arguments: object) -> tuple[BaseProcess, Connection]:
    """Another process that runs `target`, with the other end of a connection as its first argument.

    It ignores SIGINT until it says otherwise: Ctrl-C reaches all processes of a terminal, and is ours to act on.
    """
    ours, theirs = _spawning.Pipe()
    process = _spawning.Process(target=target, args=(theirs, *arguments))
    handler = signal.signal(signal.SIGINT, signal.SIG_IGN)  # inherited
    process.start()
    signal.signal(signal.SIGINT, handler)
    theirs.close()
    return process, ours


@contextmanager
def spawned(target: Callable[..., None], *arguments: object) -> Iterator[Connection]:
    """Another process that runs `target` for the length of the block, and a connection to it."""
    process, ours = started(target, *arguments)
    try:
        yield ours
    finally:
        process.terminate()
        process.join()


def end_with_parent() -> None:
    """See that this process does not outlive the one that started it, whatever that died of."""
    threading.Thread(target=_end_after, args=[multiprocessing.parent_process()], daemon=True).start()


def _end_after(parent: BaseProcess) -> None:
    parent.join()
    os._exit(1)


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
