"""How every command runs, and what it writes where: answers to standard output, everything else to standard error."""

import asyncio
import signal
import sys
from collections.abc import Callable, Coroutine
from typing import Annotated, Any, TypeVar

import orjson
import typer
from rich.console import Console

from service.process import loop_factory

T = TypeVar("T")
AsJson = Annotated[bool, typer.Option("--json", help="Write one JSON object to standard output, for programs.")]


def run(command: Callable[[asyncio.Event], Coroutine[Any, Any, T]]) -> T:
    """Run a command to its end; the first SIGTERM or SIGINT asks it to stop, a second one interrupts it."""

    async def running() -> T:
        stop, me = asyncio.Event(), asyncio.current_task()

        def asked() -> None:
            if stop.is_set() and me is not None:
                me.cancel()
            stop.set()

        _on_signal(asked)
        return await command(stop)

    return _looped(running())


def run_unless_interrupted(command: Coroutine[Any, Any, T]) -> T:
    """Run a command to its end; the first SIGTERM or SIGINT interrupts it, as there is nothing to finish."""

    async def running() -> T:
        if (me := asyncio.current_task()) is not None:
            _on_signal(me.cancel)
        return await command

    return _looped(running())


def _on_signal(act: Callable[[], object]) -> None:
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, act)


def _looped(running: Coroutine[Any, Any, T]) -> T:
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        try:
            return runner.run(running)
        except asyncio.CancelledError:
            raise KeyboardInterrupt from None


def out() -> Console:
    """For answers."""
    return Console()


def err() -> Console:
    """For what is said meanwhile."""
    return Console(stderr=True)


def print_json(value: object) -> None:
    """Write an answer for programs."""
    sys.stdout.write(orjson.dumps(value, default=str).decode() + "\n")
