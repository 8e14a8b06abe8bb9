"""What a scenario file says: an endpoint's behaviour over time, the load, the settings, and what should come of it.

`service/scenarios/*.yaml` are those that ship with the package; a file of one's own has the same form.
"""

from collections.abc import Iterator, Mapping
from heapq import merge
from importlib.resources import files
from itertools import count
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import Field, ValidationError, model_validator

from service import settings
from service.errors import Misconfigured
from service.settings import reading
from service.settings.values import Branch, Seconds, nearest
from service.simulation.endpoint import Behaviour

_SIMULATED = {
    "content_safety": {},
    "azure_language": {"project": "simulated", "deployment": "simulated", "task": "single_label"},
}
"""The providers whose endpoints are simulated, and what their accounts need beside an endpoint and a key."""


class Arrivals(Branch):
    """Documents that come from a moment on: so many a second until the next such moment, or a burst at once."""

    at: Seconds = 0.0
    """Since when, from the scenario's beginning."""
    per_second: float | None = Field(None, ge=0)
    """How many come a second, evenly."""
    burst: int | None = Field(None, ge=1)
    """How many come at once."""
    every: Annotated[Seconds, Field(gt=0)] | None = None
    """How often the burst comes again."""

    @model_validator(mode="after")
    def _one(self) -> Self:
        if (self.per_second is None) == (self.burst is None):
            raise ValueError("give either per_second or burst")
        if self.every is not None and self.burst is None:
            raise ValueError("every goes with burst")
        return self


class Load(Branch):
    """The documents of a stream: how long they are, and when they come; always more than are read, if nothing says."""

    characters: int = Field(400, ge=1, le=10_000)
    """How long a text is, in the median."""
    unevenness: float = Field(0.0, ge=0, le=3)
    """How far lengths are spread: the standard deviation of their logarithm."""
    most: int = Field(10_000, ge=1, le=10_000)
    """The longest that a text is."""
    arrivals: tuple[Arrivals, ...] = ()
    """When they come."""

    def times(self) -> Iterator[float]:
        """When documents come, in order, for as long as one asks."""
        steady = sorted((each for each in self.arrivals if each.burst is None), key=lambda each: each.at)
        bursts = (self._bursts(each) for each in self.arrivals if each.burst is not None)
        return merge(self._steadily(steady), *bursts)

    @staticmethod
    def _steadily(rates: list[Arrivals]) -> Iterator[float]:
        for i, rate in enumerate(rates):
            if not rate.per_second:
                continue
            until = rates[i + 1].at if i + 1 < len(rates) else float("inf")
            for number in count():
                if (at := rate.at + number / rate.per_second) >= until:
                    break
                yield at

    @staticmethod
    def _bursts(burst: Arrivals) -> Iterator[float]:
        for number in count() if burst.every else range(1):
            for _ in range(burst.burst or 0):
                yield burst.at + number * (burst.every or 0)


class Range(Branch):
    """What a figure should be: at least, at most, or both."""

    at_least: float | None = None
    at_most: float | None = None

    @model_validator(mode="after")
    def _some(self) -> Self:
        if self.at_least is None and self.at_most is None:
            raise ValueError("give at_least, at_most, or both")
        return self

    def __contains__(self, figure: float) -> bool:
        return (self.at_least is None or figure >= self.at_least) and (self.at_most is None or figure <= self.at_most)

    def __str__(self) -> str:
        if self.at_least is not None and self.at_most is not None:
            return f"{self.at_least:g} to {self.at_most:g}"
        return f"≥ {self.at_least:g}" if self.at_least is not None else f"≤ {self.at_most:g}"


class Expected(Branch):
    """What should be seen between two moments, at all streams and accounts or `of` one of them."""

    from_: Seconds = Field(0.0, alias="from")
    """Since when; from the beginning, if nothing says."""
    to: Seconds
    """Until when."""
    of: str | None = None
    """The stream or account that is looked at."""
    documents_per_second: Range | None = None
    """Results published."""
    added_latency_p50: Range | None = None
    """Seconds from a document's coming to its result, less what a call takes: half of the documents take no longer."""
    added_latency_p99: Range | None = None
    """The same for 99 in 100."""
    in_flight: Range | None = None
    """Calls out at once, in the mean."""
    in_flight_limit: Range | None = None
    """How many there might have been, at the end."""
    calls_per_second: Range | None = None
    """Calls (jobs) made, answered or not."""
    throttled: Range | None = None
    """Requests that were refused for being too many, as a share of the calls made."""
    dead_letters: Range | None = None
    """Documents given up."""

    @property
    def ranges(self) -> dict[str, Range]:
        """The figures that are named, and what they should be."""
        return {name: value for name, value in self if isinstance(value, Range)}

    @model_validator(mode="after")
    def _window(self) -> Self:
        if self.to <= self.from_:
            raise ValueError(f"to ({self.to:g} s) is not after from ({self.from_:g} s)")
        if not self.ranges:
            raise ValueError("names no figure")
        return self


class Scenario(Branch):
    """A file of this form. Accounts and streams are written as in a configuration.

    What an account has of an endpoint and a key is replaced by the simulated endpoint's, and a stream need not name
    topics, as there are none.
    """

    about: str
    """What it shows, in a sentence."""
    lasts: Annotated[Seconds, Field(gt=0)]
    """How long it is watched."""
    accounts: Annotated[dict[str, dict[str, Any]], Field(min_length=1)]
    streams: Annotated[tuple[dict[str, Any], ...], Field(min_length=1)]
    endpoints: dict[str, Annotated[tuple[Behaviour, ...], Field(min_length=1)]]
    """How each account's endpoint behaves, from each moment on."""
    load: dict[str, Load] = Field(default_factory=dict)
    """What comes in each stream; a stream that is not named always has more documents than are read."""
    expect: Annotated[tuple[Expected, ...], Field(min_length=1)]
    """What should be seen."""

    @model_validator(mode="after")
    def _whole(self) -> Self:
        for name, account in self.accounts.items():
            if account.get("provider") not in _SIMULATED:
                raise ValueError(f"accounts.{name}.provider: only {' and '.join(_SIMULATED)} can be simulated")
        accounts, streams = list(self.accounts), [str(stream.get("name")) for stream in self.streams]
        for where, named, known in (
            ("endpoints", self.endpoints, accounts),
            ("load", self.load, streams),
        ):
            for name in named:
                if name not in known:
                    raise ValueError(f"{where}.{name}: there is none of that name, {nearest(name, known)}")
        if missing := [name for name in accounts if name not in self.endpoints]:
            raise ValueError(f"endpoints.{missing[0]}: is required, for the account of that name")
        for i, expected in enumerate(self.expect):
            if expected.of is not None and expected.of not in (*accounts, *streams):
                raise ValueError(f"expect[{i}].of: {nearest(expected.of, accounts + streams)}")
            if expected.to > self.lasts:
                raise ValueError(f"expect[{i}].to: is after the end, at {self.lasts:g} s")
        return self

    def configuration(self, base: str, origin: str = "settings") -> settings.Settings:
        """The settings of a worker whose accounts are at `base`, each at a path of its name. Raises Misconfigured."""
        accounts = {
            name: _SIMULATED[account["provider"]]
            | {key: value for key, value in account.items() if key != "key_file"}
            | {"endpoint": f"{base}/{name}", "key": "simulated"}
            for name, account in self.accounts.items()
        }
        topics = ("input", "output", "dead_letter")
        streams = [{topic: f"{stream.get('name')}.{topic}" for topic in topics} | stream for stream in self.streams]
        kafka = {"bootstrap_servers": "localhost:9092", "group_id": "simulated", "security_protocol": "PLAINTEXT"}
        return settings.parse({"kafka": kafka, "accounts": accounts, "streams": streams}, origin)


def load(path: Path) -> Scenario:
    """The scenario of a file. Raises Misconfigured, naming the file and each wrong key."""
    tree = reading.tree(path)
    if not isinstance(tree, Mapping):
        raise Misconfigured(f"{path}: must be a mapping with the keys {', '.join(Scenario.model_fields)}")
    try:
        scenario = Scenario.model_validate({str(key): branch for key, branch in tree.items()})
    except ValidationError as error:
        raise reading.misconfigured(error, str(path)) from None
    scenario.configuration("http://localhost", str(path))
    return scenario


def shipped() -> dict[str, Path]:
    """The scenarios that ship with the package, by name."""
    folder = Path(str(files("service"))) / "scenarios"
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))}


def found(name: str) -> Path:
    """The file of a scenario that ships with the package, or one of that path. Raises Misconfigured."""
    known = shipped()
    if name in known:
        return known[name]
    if (path := Path(name)).suffix in {".yaml", ".yml"}:
        return path
    raise Misconfigured(
        f"there is no scenario {name!r}, {nearest(name, list(known))}; a file of your own ends in .yaml"
    )
