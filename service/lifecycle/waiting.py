"""Waiting for what takes hours: what passes is waited out, and how far it is is told whenever that changes."""

import asyncio
from collections.abc import Awaitable, Callable
from itertools import count
from typing import TypeVar

from service.errors import JobLost, Throttled, Unavailable

T = TypeVar("T")
Say = Callable[[str], object]
"""Told how far something is, in a line."""

_FIRST, _GROWTH, _LONGEST = 0.2, 1.5, 30.0
_LONGEST_QUIET = 3600.0
"""Seconds that a `Retry-After` is believed."""


async def answered(ask: Callable[[], Awaitable[T]], say: Say) -> T:
    """The answer to a question that may be asked again, after outages and throttling, however long they last.

    Raises what asking again would not change: Misconfigured, Rejected, and JobLost.
    """
    for failures in count():
        try:
            return await ask()
        except JobLost:
            raise
        except (Throttled, Unavailable) as error:
            wait = min(error.retry_after or _pause(failures), _LONGEST_QUIET)
            say(f"{error}; asking again in {wait:.0f} s")
        await asyncio.sleep(wait)
    raise AssertionError


async def until(look: Callable[[], Awaitable[T | None]], say: Say) -> T:
    """What a look gives once it gives something; looks are rarer the longer it takes. Raises as `answered`."""
    for looks in count():
        found = await answered(look, say)
        if found is not None:
            return found
        await asyncio.sleep(_pause(looks))
    raise AssertionError


def changes(say: Say) -> Say:
    """The same, but for what it was told last."""
    last = ""

    def said(words: str) -> None:
        nonlocal last
        if words != last:
            last = words
            say(words)

    return said


def _pause(before: int) -> float:
    return min(_LONGEST, _FIRST * _GROWTH ** min(before, 40))
