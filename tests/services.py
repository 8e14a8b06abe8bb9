"""Services as an account meets them, on virtual time: what they take, what they refuse, and how long it takes."""

import asyncio
import math
import random
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from statistics import median
from typing import Self

from service.limits.gate import Limits
from tests.clock import now


class Window:
    """A quota that is counted strictly: never more than `most` units in any `seconds`."""

    def __init__(self, most: float, seconds: float = 1.0) -> None:
        self.most = most
        self._seconds = seconds
        self._taken: deque[tuple[float, float]] = deque()
        self._sum = 0.0

    def takes(self, amount: float) -> bool:
        while self._taken and self._taken[0][0] <= now() - self._seconds:
            self._sum -= self._taken.popleft()[1]
        if self._sum + amount > self.most + 1e-9:
            return False
        self._sum += amount
        self._taken.append((now(), amount))
        return True


class Bucket:
    """A quota that saves up: `per_second` units, of which a second's worth may come at once."""

    def __init__(self, per_second: float, seconds: float = 1.0) -> None:
        self.per_second = per_second
        self._seconds = seconds
        self._level = per_second * seconds
        self._at = 0.0

    def takes(self, amount: float) -> bool:
        most = self.per_second * self._seconds
        self._level = min(most, self._level + (now() - self._at) * self.per_second)
        self._at = now()
        if self._level < min(amount, most):
            return False
        self._level -= amount
        return True


@dataclass
class Service:
    """Takes `seconds` for a call of a size, works at `at_once` calls and lets others queue, refuses beyond its quotas.

    `unevenness` is how far durations are spread (sigma of the logarithm), `way` the most seconds on the way there.
    """

    seconds: Callable[[int], float] = lambda _: 0.1
    at_once: int = 1_000_000
    requests: Window | Bucket | None = None
    characters: Window | Bucket | None = None
    documents: Window | Bucket | None = None
    most_calls: int = 1_000_000
    unevenness: float = 0.2
    way: float = 0.01
    retry_after: float | None = None
    answered: int = 0
    answered_characters: int = 0
    refused: int = 0
    out: int = 0
    took: list[float] = field(default_factory=list)
    chance: random.Random = field(default_factory=lambda: random.Random(5))  # noqa: S311  keeps no secret
    _working: int = 0
    _queue: deque[asyncio.Future[None]] = field(default_factory=deque)

    async def call(self, characters: int, documents: int = 1) -> bool:
        """Whether it was answered; else it was refused for being too much."""
        await asyncio.sleep(self.chance.uniform(0, self.way))
        quotas = [(self.requests, 1), (self.characters, characters), (self.documents, documents)]
        if self.out >= self.most_calls or not all(quota.takes(amount) for quota, amount in quotas if quota):
            self.refused += 1
            await asyncio.sleep(self.way)
            return False
        self.out += 1
        began = now()
        try:
            await self._work(characters)
        finally:
            self.out -= 1
        self.took.append(now() - began)
        self.answered += 1
        self.answered_characters += characters
        return True

    async def _work(self, characters: int) -> None:
        if self._working >= self.at_once:
            turn = asyncio.get_running_loop().create_future()
            self._queue.append(turn)
            await turn
        self._working += 1
        try:
            await asyncio.sleep(self.seconds(characters) * self.chance.lognormvariate(0, self.unevenness))
        finally:
            self._working -= 1
            while self._working < self.at_once and any(not turn.done() for turn in self._queue):
                turn = self._queue.popleft()
                if not turn.done():
                    turn.set_result(None)
                    break


@dataclass(frozen=True)
class Seen:
    """What came of asking for a while."""

    answered: int
    characters: int
    refused: int
    seconds: float
    limit: int
    took: float

    @property
    def per_second(self) -> float:
        return self.answered / self.seconds

    @property
    def share_refused(self) -> float:
        return self.refused / max(1, self.answered + self.refused)


class Asking:
    """Asks for as much as the limits let out, of calls of these (characters, documents), from `callers` at once."""

    def __init__(
        self,
        limits: Limits,
        service: Service,
        sizes: Iterator[tuple[int, int]],
        *,
        callers: int = 400,
    ) -> None:
        self._limits = limits
        self._service = service
        self._sizes = sizes
        self._callers = callers
        self._failures = 0
        self._failed_at = -math.inf

    async def __aenter__(self) -> Self:
        self._tasks = [asyncio.create_task(self._ask()) for _ in range(self._callers)]
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.wait(self._tasks)

    async def watch(self, seconds: float) -> Seen:
        """Let so much time pass, and see."""
        service = self._service
        answered, characters, refused = service.answered, service.answered_characters, service.refused
        service.took.clear()
        await asyncio.sleep(seconds)
        return Seen(
            service.answered - answered,
            service.answered_characters - characters,
            service.refused - refused,
            seconds,
            self._limits.statistics().in_flight_limit,
            median(service.took or [math.nan]),
        )

    async def _ask(self) -> None:
        while True:
            characters, documents = next(self._sizes)
            async with self._limits.admit(characters, documents):
                asked_at = now()
                await self._limits.request()
                if await self._service.call(characters, documents):
                    self._limits.answered()
                    self._failures = 0
                else:
                    self._limits.throttled()
                    self._back_off(asked_at)

    def _back_off(self, asked_at: float) -> None:
        """As `account.Account` does it."""
        if self._service.retry_after:
            self._limits.quiet(self._service.retry_after)
        elif asked_at > self._failed_at and not self._limits.quiet_for:
            self._failures += 1
            self._failed_at = now()
            self._limits.quiet(min(30.0, 0.5 * 2.0 ** (self._failures - 1)) * self._service.chance.uniform(0.5, 1))
