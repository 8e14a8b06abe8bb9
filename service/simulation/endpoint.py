"""A classifier's endpoint that behaves as a scenario says: how long calls take, what it refuses, when it is down.

It speaks two APIs as far as a worker at work needs them: Content Safety's `text:analyze`, whose calls hold one
document, and Azure Language's jobs, which hold up to 25. Its answers are constant; what is simulated is time.
"""

import asyncio
import heapq
import math
import random
from collections import deque
from collections.abc import Sequence
from itertools import accumulate, count
from typing import Literal, NamedTuple

import orjson
from pydantic import Field

from service.settings.values import Branch, Seconds, Share
from service.simulation import language
from service.transport.http import Answer

_SEED = 5
_MOST_JOBS = 20_000
"""Jobs whose answers are kept: the earliest are long read then."""


class Behaviour(Branch):
    """How an endpoint behaves from a moment on; what a later one leaves out stays as it was."""

    at: Seconds = 0.0
    """Since when, from the scenario's beginning."""
    takes: Seconds = 0.1
    """What a call takes that does not stand in a queue, in the median."""
    per_1000_characters: Seconds = 0.0
    """What it takes longer for every 1,000 characters of text."""
    unevenness: float = Field(0.2, ge=0, le=3)
    """How far durations are spread: the standard deviation of their logarithm."""
    way: Seconds = 0.01
    """The most that a request is on its way, each differently."""
    at_once: int = Field(1_000_000, ge=1)
    """How many calls are worked at; others stand in a queue."""
    most_calls: int | None = Field(None, ge=1)
    """How many calls may be there at once; others are throttled."""
    requests_per_second: float | None = Field(None, gt=0)
    """How many requests it takes in a second; others are throttled."""
    requests_per_minute: float | None = Field(None, gt=0)
    """How many it takes in a minute."""
    documents_per_second: float | None = Field(None, gt=0)
    """How many documents it takes in a second."""
    characters_per_second: float | None = Field(None, gt=0)
    """How many characters of text it takes in a second."""
    counted: Literal["strictly", "on_average"] = "strictly"
    """Whether a quota holds for any second (or minute) there is, or what was not used before may come at once."""
    retry_after: Seconds | None = None
    """What a throttled request is told to wait."""
    fails: Share = 0.0
    """The share of requests that are answered 503; 1 is an outage."""

    def typical(self, characters: int) -> float:
        """Seconds that a call takes by itself, in the median."""
        return self.takes + self.per_1000_characters * characters / 1000


def over_time(phases: Sequence[Behaviour]) -> list[Behaviour]:
    """The phases in full, each with what it has of the one before."""
    return list(
        accumulate(phases, lambda before, phase: before.model_copy(update=phase.model_dump(exclude_unset=True)))
    )


class _Strictly:
    """A quota of `most` in any `seconds`."""

    def __init__(self, most: float, seconds: float) -> None:
        self._most = most
        self._seconds = seconds
        self._taken: deque[tuple[float, float]] = deque()
        self._sum = 0.0

    def has(self, amount: float, now: float) -> bool:
        while self._taken and self._taken[0][0] <= now - self._seconds:
            self._sum -= self._taken.popleft()[1]
        return self._sum + amount <= self._most + 1e-6

    def take(self, amount: float, now: float) -> None:
        self._sum += amount
        self._taken.append((now, amount))


class _OnAverage:
    """A quota that saves up what is not used, for as long as it is counted over."""

    def __init__(self, most: float, seconds: float) -> None:
        self._most = self._level = most
        self._per_second = most / seconds
        self._at = -math.inf

    def has(self, amount: float, now: float) -> bool:
        self._level = min(self._most, self._level + max(0.0, now - self._at) * self._per_second)
        self._at = now
        return self._level >= min(amount, self._most)

    def take(self, amount: float, now: float) -> None:
        del now
        self._level -= amount


_KINDS: dict[str, type[_Strictly | _OnAverage]] = {"strictly": _Strictly, "on_average": _OnAverage}
_QUOTAS = (
    ("requests_per_second", 1.0),
    ("requests_per_minute", 60.0),
    ("documents_per_second", 1.0),
    ("characters_per_second", 1.0),
)


class Work(NamedTuple):
    """What becomes of a request: its status, and when what was asked for is done."""

    status: int
    done_at: float


class Model:
    """The endpoint without its wire. Pure: told the time, in seconds since the scenario began."""

    def __init__(self, phases: Sequence[Behaviour]) -> None:
        self._phases = deque(over_time(phases))
        self._chance = random.Random(_SEED)  # noqa: S311  keeps no secret, and is to be the same each time
        self._quotas: dict[str, _Strictly | _OnAverage] = {}
        self._places: list[float] = []  # when those that work will be done, of as many as there are places
        self._there: list[float] = []  # when those that are there will be done
        self.behaviour = Behaviour()
        self.at(0.0)

    def at(self, now: float) -> Behaviour:
        """How it behaves now."""
        while self._phases and self._phases[0].at <= now:
            before, self.behaviour = self.behaviour, self._phases.popleft()
            for name, seconds in _QUOTAS:
                most = getattr(self.behaviour, name)
                if most is None:
                    self._quotas.pop(name, None)
                elif most != getattr(before, name) or self.behaviour.counted != before.counted:
                    self._quotas[name] = _KINDS[self.behaviour.counted](most, seconds)
        return self.behaviour

    def way(self, now: float) -> float:
        """Seconds that a request is under way, which sets out now."""
        return self._chance.uniform(0, self.at(now).way)

    def asked(self, documents: int, characters: int, now: float) -> Work:
        """A request has come, with so much to classify; none, if it only asks after something."""
        behaviour = self.at(now)
        if behaviour.fails and self._chance.random() < behaviour.fails:
            return Work(503, now)
        while self._there and self._there[0] <= now:
            heapq.heappop(self._there)
        if documents and behaviour.most_calls is not None and len(self._there) >= behaviour.most_calls:
            return Work(429, now)
        amounts = [
            (quota, characters if name[0] == "c" else documents if name[0] == "d" else 1)
            for name, quota in self._quotas.items()
        ]
        if not all(quota.has(amount, now) for quota, amount in amounts):
            return Work(429, now)
        for quota, amount in amounts:
            quota.take(amount, now)
        if not documents:
            return Work(200, now)
        done_at = self._place(now) + behaviour.typical(characters) * self._chance.lognormvariate(
            0, behaviour.unevenness
        )
        heapq.heappush(self._places, done_at)
        heapq.heappush(self._there, done_at)
        return Work(200, done_at)

    def _place(self, now: float) -> float:
        """When one of the places is free, first come, first served."""
        while self._places and (self._places[0] <= now or len(self._places) > self.behaviour.at_once):
            heapq.heappop(self._places)
        return now if len(self._places) < self.behaviour.at_once else heapq.heappop(self._places)


class Endpoint:
    """The endpoint at `base`, as an account's HTTP client meets it; `began` is when, by the event loop's time."""

    def __init__(self, phases: Sequence[Behaviour], base: str) -> None:
        self.began = asyncio.get_running_loop().time()
        self._model = Model(phases)
        self._base = base
        self._jobs: dict[str, tuple[float, Answer]] = {}
        self._names = count()

    async def answer(self, method: str, url: str, content: bytes) -> Answer:
        """What is answered to a request, when it is."""
        await asyncio.sleep(self._model.way(self._now()))
        path = url.partition("?")[0]
        if method == "GET":
            return self._polled(path)
        if path.endswith(":cancel"):
            return Answer(202, {}, b"")
        return self._submitted(content) if path.endswith("/jobs") else await self._analyzed(content)

    async def _analyzed(self, content: bytes) -> Answer:
        text = orjson.loads(content)["text"]
        work = self._model.asked(1, len(text), self._now())
        if work.status != 200:
            return self._declined(work.status)
        await asyncio.sleep(work.done_at - self._now())
        return Answer(200, language.JSON, _ANALYSIS)

    def _submitted(self, content: bytes) -> Answer:
        documents = language.documents_in(content)
        work = self._model.asked(len(documents), sum(len(each["text"]) for each in documents), self._now())
        if work.status != 200:
            return self._declined(work.status)
        name = str(next(self._names))
        if len(self._jobs) >= _MOST_JOBS:
            del self._jobs[next(iter(self._jobs))]
        self._jobs[name] = work.done_at, language.succeeded(documents)
        return language.submitted(self._base, name)

    def _polled(self, path: str) -> Answer:
        work = self._model.asked(0, 0, self._now())
        if work.status != 200:
            return self._declined(work.status)
        name = language.job_of(path)
        if name not in self._jobs:
            return Answer(404, language.JSON, _DECLINED)
        done_at, answer = self._jobs[name]
        if done_at > self._now():
            return language.RUNNING
        return answer

    def _declined(self, status: int) -> Answer:
        wait = self._model.behaviour.retry_after
        headers = {"retry-after": f"{wait:g}"} if wait is not None and status == 429 else {}
        return Answer(status, {**language.JSON, **headers}, _DECLINED)

    def _now(self) -> float:
        return asyncio.get_running_loop().time() - self.began


_ANALYSIS = orjson.dumps(
    {
        "blocklistsMatch": [],
        "categoriesAnalysis": [
            {"category": harm, "severity": 0} for harm in ("Hate", "SelfHarm", "Sexual", "Violence")
        ],
    }
)
_DECLINED = b'{"error":{"code":"Declined","message":"as the scenario says"}}'
