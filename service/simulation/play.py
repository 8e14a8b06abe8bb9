"""A scenario is played: the pipeline as `run` has it, between documents that come and an endpoint that is simulated.

What is the same however it is played is here: on virtual time against an endpoint in the same process, or in real time
against one over HTTP.
"""

import asyncio
import math
from bisect import bisect_left
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from random import Random
from statistics import fmean
from typing import TypeVar

import httpx
import orjson

from service import pipeline, settings
from service.dispatch.account import Account
from service.dispatch.dispatcher import Dispatcher
from service.documents import Message, Position, Record
from service.limits import costs
from service.limits.gate import Limits
from service.observability.telemetry import Telemetry
from service.offsets import METADATA_LIMIT, Mark, Partition, Room
from service.progress import Advance
from service.providers.azure_language import AzureLanguage
from service.providers.content_safety import ContentSafety
from service.simulation.endpoint import Behaviour, Endpoint, over_time
from service.simulation.scenario import Expected, Load, Range, Scenario
from service.source import Owner
from service.transport.http import Answer

T = TypeVar("T")
Opened = Callable[[settings.Settings, Telemetry], AbstractAsyncContextManager[Mapping[str, Account]]]
"""What opens the accounts of a configuration."""

_LOOKS = 1000
_SHORTEST_LOOK = 0.05
_MOST_AT_ONCE = 500
_TEXTS = 500
_SEED = 7
_TEXT = "my parcel was due on tuesday and the tracking page has said the same thing ever since "
_WORDS = {
    "documents_per_second": "documents/s",
    "added_latency_p50": "added latency, p50, s",
    "added_latency_p99": "added latency, p99, s",
    "in_flight": "calls in flight",
    "in_flight_limit": "calls that may be in flight",
    "calls_per_second": "calls/s",
    "throttled": "throttled, of one call",
    "dead_letters": "dead letters",
}


@dataclass(frozen=True)
class Figure:
    """One thing seen between two moments, and what it should be."""

    name: str
    of: str | None
    since: float
    until: float
    measured: float
    goal: Range

    @property
    def met(self) -> bool:
        """Whether it is what it should be."""
        return self.measured in self.goal

    @property
    def words(self) -> str:
        """What it is of, and when."""
        of = f" of {self.of}" if self.of else ""
        return f"{_WORDS[self.name]}{of}, {self.since:g} to {self.until:g} s"

    def __str__(self) -> str:
        return f"{self.words}: {self.measured:.4g}, goal {self.goal}"


class Documents:
    """A source of documents that come as a load says; one partition, nothing is kept."""

    metadata_limit = METADATA_LIMIT

    def __init__(self, topic: str, load: Load, began: float) -> None:
        self._partition = Partition(topic, 0)
        self._began = began
        self._times = load.times() if load.arrivals else None
        self._next = next(self._times, None) if self._times else None
        self._texts = _texts(load)
        self._offset = 0
        self.came: dict[int, tuple[float, int]] = {}
        """When each document came that has no result yet, and its length."""

    @asynccontextmanager
    async def opened(self, owner: Owner) -> AsyncIterator[None]:
        """As `source.Source.opened`."""
        await owner.assigned({self._partition: None})
        yield

    async def poll(self, room: Room, timeout: float) -> list[Record]:
        """As `source.Source.poll`."""
        if not room.documents:
            await asyncio.sleep(0)
            return []
        most = min(room.documents, _MOST_AT_ONCE)
        if self._times is None:
            await asyncio.sleep(0)
            return [self._record(self._now()) for _ in range(most)]
        wait = timeout if self._next is None else min(timeout, self._next - self._now())
        await asyncio.sleep(max(0.0, wait))
        now, records = self._now(), list[Record]()
        while self._next is not None and self._next <= now and len(records) < most:
            records.append(self._record(self._next))
            self._next = next(self._times, None)
        return records

    async def commit(self, marks: Mapping[Partition, Mark]) -> None:
        """As `source.Source.commit`."""

    def partitions(self) -> int:
        """As `source.Source.partitions`."""
        return 1

    def ends(self) -> dict[Partition, int]:
        """As `source.Source.ends`."""
        return {self._partition: self._offset}

    def _record(self, came: float) -> Record:
        offset, self._offset = self._offset, self._offset + 1
        length, value = self._texts[offset % len(self._texts)]
        self.came[offset] = came, length
        return Record(Position(*self._partition, offset), 0, b"%d" % offset, value)

    def _now(self) -> float:
        return asyncio.get_running_loop().time() - self._began


class Results:
    """A sink that keeps of results when they came, and how late."""

    def __init__(self, began: float) -> None:
        self._began = began
        self._awaited: dict[str, tuple[str, Documents, Sequence[Behaviour]]] = {}
        self._late: dict[str, list[tuple[float, float]]] = {}
        self._dead: dict[str, list[float]] = {}

    def look_out(self, stream: settings.Stream, documents: Documents, phases: Sequence[Behaviour]) -> None:
        """Look out for the results of a stream, which its first account's endpoint would give by itself so fast."""
        self._awaited[stream.input] = stream.name, documents, over_time(phases)
        self._late[stream.name], self._dead[stream.name] = [], []

    def late(self, stream: str | None, since: float, until: float) -> list[float]:
        """How late each result was that came between two moments: of a stream, or of all."""
        return [
            late
            for results in self._of(self._late, stream)
            for at, late in results[bisect_left(results, (since,)) : bisect_left(results, (until,))]
        ]

    def dead(self, stream: str | None, since: float, until: float) -> int:
        """Dead letters between two moments."""
        return sum(bisect_left(dead, until) - bisect_left(dead, since) for dead in self._of(self._dead, stream))

    @staticmethod
    def _of(kept: Mapping[str, list[T]], stream: str | None) -> Iterable[list[T]]:
        return [kept[stream]] if stream is not None and stream in kept else kept.values()

    async def publish(self, messages: Sequence[Message]) -> list[Message]:
        """As `delivery.Sink.publish`."""
        now = asyncio.get_running_loop().time() - self._began
        for message in messages:
            name, documents, phases = self._awaited[message.source.topic]
            came, characters = documents.came.pop(message.source.offset)
            if message.is_dead_letter:
                self._dead[name].append(now)
            else:
                phase = next((phase for phase in reversed(phases) if phase.at <= came), phases[0])
                self._late[name].append((now, now - came - phase.typical(characters)))
        return []


async def play(scenario: Scenario, base: str, opened: Opened, advance: Advance = lambda _: None) -> list[Figure]:
    """Play a scenario to its end, and see what comes of it. `base` is where the endpoints are.

    Raises, alone or in an ExceptionGroup, what `pipeline.run` raises.
    """
    wanted, telemetry = scenario.configuration(base), Telemetry()
    async with opened(wanted, telemetry) as ready, asyncio.TaskGroup() as streams:
        began = asyncio.get_running_loop().time()
        results = Results(began)
        running = []
        for stream in wanted.streams:
            documents = Documents(stream.input, scenario.load.get(stream.name, Load()), began)
            results.look_out(stream, documents, scenario.endpoints[stream.classify_with[0]])
            dispatcher = Dispatcher([ready[name] for name in stream.classify_with], stream.priority)
            running.append(
                streams.create_task(
                    pipeline.run(stream, documents, results, dispatcher, telemetry=telemetry, stop=asyncio.Event())
                )
            )
        seen = _Seen(scenario, ready, telemetry, results)
        await seen.watch(began, advance)
        for task in running:  # what is out then is nobody's any more
            task.cancel()
    return [figure for expected in scenario.expect for figure in seen.figures(expected)]


class _Seen:
    """What is seen of accounts and streams while a scenario is played."""

    def __init__(
        self, scenario: Scenario, ready: Mapping[str, Account], telemetry: Telemetry, results: Results
    ) -> None:
        self._lasts = scenario.lasts
        self._ready = ready
        self._registry = telemetry.registry
        self._results = results
        self._edges = sorted({at for expected in scenario.expect for at in (expected.from_, expected.to)})
        self._looks: dict[str, list[tuple[float, int, int]]] = {name: [] for name in ready}
        self._counts: dict[float, dict[str, tuple[float, float]]] = {}

    async def watch(self, began: float, advance: Advance) -> None:
        """Look at the accounts now and then, and at the moments that expectations name, until the end."""
        loop, step = asyncio.get_running_loop(), max(_SHORTEST_LOOK, self._lasts / _LOOKS)
        for until in (*self._edges, self._lasts):
            while (now := loop.time() - began) < until:
                for name, account in self._ready.items():
                    stands = account.limits.statistics()
                    self._looks[name].append((now, stands.in_flight, stands.in_flight_limit))
                advance(now)
                await asyncio.sleep(min(step, until - now))
            self._counts[until] = {name: self._counted(account) for name, account in self._ready.items()}

    def _counted(self, account: Account) -> tuple[float, float]:
        """Calls that were made, and requests that were throttled, so far."""
        who = {"account": account.name, "provider": account.kind}
        asked = self._registry.get_sample_value("labelstream_batch_size_records_count", who)
        throttled = self._registry.get_sample_value("labelstream_provider_throttled_total", who)
        return asked or 0.0, throttled or 0.0

    def figures(self, expected: Expected) -> list[Figure]:
        """The figures that are asked for."""
        since, until = expected.from_, expected.to
        names = [name for name in self._ready if expected.of in {None, name}]
        looks = [
            [look for look in self._looks[name] if since <= look[0] < until] or self._looks[name][-1:] for name in names
        ]
        asked, throttled = (
            sum(self._counts[until][name][i] - self._counts[since][name][i] for name in names) for i in (0, 1)
        )
        late = sorted(self._results.late(expected.of, since, until))
        measured = {
            "documents_per_second": len(late) / (until - since),
            "added_latency_p50": late[len(late) // 2] if late else math.inf,
            "added_latency_p99": late[int(0.99 * len(late))] if late else math.inf,
            "in_flight": sum(fmean(out for _, out, _ in each) for each in looks),
            "in_flight_limit": sum(each[-1][2] for each in looks),
            "calls_per_second": asked / (until - since),
            "throttled": throttled / max(1.0, asked),
            "dead_letters": self._results.dead(expected.of, since, until),
        }
        return [Figure(name, expected.of, since, until, measured[name], goal) for name, goal in expected.ranges.items()]


@asynccontextmanager
async def in_process(
    scenario: Scenario, configuration: settings.Settings, telemetry: Telemetry
) -> AsyncIterator[Mapping[str, Account]]:
    """Accounts whose endpoints are in this process: on virtual time there is no network."""
    ready = {}
    for name, branch in configuration.accounts.items():
        if not isinstance(branch, settings.ContentSafety | settings.AzureLanguage):
            raise TypeError(branch)
        limits, events = Limits(branch.limits, costs.tariff(branch)), telemetry.account(name, branch.provider)
        http = _InProcess(limits, Endpoint(scenario.endpoints[name], branch.endpoint))
        provider = (
            ContentSafety(branch, http) if isinstance(branch, settings.ContentSafety) else AzureLanguage(branch, http)
        )
        deadline = branch.job_deadline if isinstance(branch, settings.AzureLanguage) else math.inf
        ready[name] = Account(name, branch.provider, provider, limits=limits, telemetry=events, job_deadline=deadline)
    yield ready


class _InProcess:
    """An HTTP client without HTTP; paced as `transport.PacedClient` is."""

    headers = httpx.Headers()

    def __init__(self, limits: Limits, endpoint: Endpoint) -> None:
        self._limits = limits
        self._endpoint = endpoint

    async def exchange(self, method: str, url: str, headers: Mapping[str, str], content: bytes | None = None) -> Answer:
        """As `transport.PacedClient.exchange`."""
        del headers
        await self._limits.request()
        return await self._endpoint.answer(method, url, content or b"")


def _texts(load: Load) -> list[tuple[int, bytes]]:
    """Documents of all the lengths that a load has."""
    chance = Random(_SEED)  # noqa: S311  keeps no secret, and is to be the same each time
    lengths = [
        max(1, min(load.most, round(load.characters * chance.lognormvariate(0, load.unevenness))))
        for _ in range(_TEXTS if load.unevenness else 1)
    ]
    words = _TEXT * (max(lengths) // len(_TEXT) + 1)
    return [(length, orjson.dumps({"text": words[:length].strip() or "m"})) for length in lengths]
