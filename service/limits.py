"""What an account may be asked for, and the one gate that asks.

`Rate` is the algorithm: synchronous, given the time, ignorant of waiting. `Limits` is the gate: first come, first
served, so that small calls never starve large ones.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

from service import settings

SLACK = 0.1
"""Seconds of quota that may be taken late: a timer that wakes a little after its time must not lose the difference."""

_LOOK = 1.0
"""Seconds after which whoever is next at the gate looks again whether to go elsewhere."""


class Rate:
    """A queue at a counter that serves `per_second` units a second (GCRA, ITU-T I.371).

    An amount of any size goes as soon as what went before is paid off, so the long-run rate is exact and a large amount
    delays what comes after it, never itself.
    """

    def __init__(self, per_second: float) -> None:
        self._per_second = per_second
        self._paid_off_at = 0.0

    def delay(self, now: float) -> float:
        """Seconds until something may go."""
        return max(0.0, self._paid_off_at - now)

    def take(self, amount: float, now: float) -> None:
        """Let `amount` go at `now`."""
        self._paid_off_at = max(self._paid_off_at, now - SLACK) + amount / self._per_second


@dataclass(frozen=True, slots=True)
class LimitsStatistics:
    """The gate as it stands: calls in flight, the most there may be, those waiting, and seconds of enforced quiet."""

    in_flight: int
    in_flight_limit: int
    waiting: int
    quiet: float


class Limits:
    """The gate of one account.

    A call holds a place in flight for as long as it lasts (`admit`); each HTTP request that it makes, polls included,
    is counted against the request rates on its own (`request`). `quiet` keeps everybody out for a while.
    """

    def __init__(self, limits: settings.Limits) -> None:
        self._in_flight_limit = limits.in_flight
        self._in_flight = asyncio.Semaphore(limits.in_flight)
        self._calls = 0
        self._waiting = 0
        self._turn = asyncio.Lock()
        self._request_turn = asyncio.Lock()
        self._characters = _rates(limits.characters_per_second)
        self._requests = _rates(limits.requests_per_second, (limits.requests_per_minute or 0) / 60)
        self._quiet_until = 0.0

    @asynccontextmanager
    async def admit(self, characters: int, leave: Callable[[], bool] = bool) -> AsyncIterator[bool]:
        """Wait for a place in flight and for the quota of `characters`; the place is held until the block ends.

        Gives False, and uses no quota, where the account is quiet and the caller would rather `leave` than wait.
        """
        self._waiting += 1
        try:
            async with self._turn:
                await self._in_flight.acquire()
                try:
                    admitted = await self._pass(self._characters, characters, leave)
                except BaseException:
                    self._in_flight.release()
                    raise
        finally:
            self._waiting -= 1
        self._calls += 1
        try:
            yield admitted
        finally:
            self._calls -= 1
            self._in_flight.release()

    async def request(self) -> None:
        """Wait until one more HTTP request may be made."""
        if self._requests or self._quiet_until:
            async with self._request_turn:
                await self._pass(self._requests, 1)

    def quiet(self, seconds: float) -> None:
        """Let nothing new out for so long: the account has said that it is too much, or that it is unwell."""
        self._quiet_until = max(self._quiet_until, _now() + seconds)

    @property
    def quiet_for(self) -> float:
        """Seconds of quiet that are left."""
        return max(0.0, self._quiet_until - _now())

    def statistics(self) -> LimitsStatistics:
        """A picture of this moment."""
        return LimitsStatistics(self._calls, self._in_flight_limit, self._waiting, self.quiet_for)

    async def _pass(self, rates: tuple[Rate, ...], amount: float, leave: Callable[[], bool] = bool) -> bool:
        while (delay := max([self.quiet_for, *(rate.delay(_now()) for rate in rates)])) > 0:
            if self.quiet_for and leave():
                return False
            await asyncio.sleep(min(delay, _LOOK))
        for rate in rates:
            rate.take(amount, _now())
        return True


def _rates(*per_second: float | None) -> tuple[Rate, ...]:
    return tuple(Rate(rate) for rate in per_second if rate)


def _now() -> float:
    return asyncio.get_running_loop().time()
