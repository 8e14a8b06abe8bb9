"""Time that passes only when there is nothing else to do: an hour of waiting takes no time, and always the same."""

import asyncio
import functools
import selectors
from collections.abc import Callable, Coroutine
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

_START = 1000.0
_RESOLUTION = 1e-9
"""Seconds that the clock advances at least when it is waited for, so that a sum rounded down is reached after all."""


class Stuck(Exception):
    """Everybody waits for something that will not happen."""


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """An event loop whose clock jumps to the next timer when nothing is ready; for neither threads nor sockets."""

    def __init__(self) -> None:
        self._now = _START
        super().__init__(_Jump(self))
        self._clock_resolution = 0.0  # a timer that went off early, at a time that does not pass, would do so for ever

    def time(self) -> float:
        return self._now

    def advance(self, seconds: float) -> None:
        self._now += max(seconds, _RESOLUTION)

    def has_ready(self) -> bool:
        return bool(self._ready)  # type: ignore[attr-defined]


class _Jump(selectors.SelectSelector):
    def __init__(self, loop: VirtualTimeLoop) -> None:
        super().__init__()
        self._loop = loop

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if happened := super().select(0):
            return happened
        if timeout is None:
            raise Stuck
        if not self._loop.has_ready():
            self._loop.advance(timeout)
        return []


class Clock:
    """A clock on the wall that stands still until it is set."""

    def __init__(self, at: float) -> None:
        self.at = at

    def __call__(self) -> float:
        return self.at


def virtual_time(test: Callable[P, Coroutine[Any, Any, T]]) -> Callable[P, T]:
    """Run a test, or any coroutine function, to its end on virtual time."""

    @functools.wraps(test)
    def run(*args: P.args, **kwargs: P.kwargs) -> T:
        with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
            return runner.run(test(*args, **kwargs))

    return run


def now() -> float:
    """Seconds that have passed in this test."""
    return asyncio.get_running_loop().time() - _START
