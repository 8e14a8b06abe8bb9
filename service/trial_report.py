"""`labelstream trial`: what comes of a classifier on trial, told by the workers that try it.

Every worker has counts since its start at `/status`; those of several are added up.
"""

import asyncio
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import httpx

from service.errors import Misconfigured, Unavailable

_PATIENCE = 10.0


@dataclass(frozen=True)
class Side:
    """One of both classifiers: the mean seconds to an answer, and what the compared documents cost by the unit."""

    seconds: float
    cost: float


@dataclass(frozen=True)
class Report:
    """What came of one trial: documents by what became of them, and those that differ by the best class of both.

    `surer` and `less_sure` are the shares of the compared whose score is more than 0.05 higher or lower with the
    candidate.
    """

    topic: str
    trial: str
    became: Mapping[str, int]
    agreement: float
    differences: Sequence[tuple[str, str, int]]
    surer: float
    less_sure: float
    present: Side
    candidate: Side


async def asked(urls: Sequence[str]) -> list[Report]:
    """The trials of the workers, or pods of workers, at these addresses. Raises Unavailable and Misconfigured."""
    async with httpx.AsyncClient(timeout=_PATIENCE, trust_env=False) as http:
        said = await asyncio.gather(*(_status(http, url) for url in urls))
    reports = reported(stream for each in said for stream in each["streams"])
    if not reports:
        raise Misconfigured(f"no stream at {', '.join(urls)} has a classifier on trial: see shadow and canary")
    return reports


async def _status(http: httpx.AsyncClient, url: str) -> Mapping[str, Any]:
    try:
        answer = await http.get(url.rstrip("/") + "/status")
        said: Mapping[str, Any] = answer.raise_for_status().json()
    except httpx.UnsupportedProtocol:
        raise Misconfigured(f"{url} is no address such as http://127.0.0.1:9464") from None
    except (httpx.HTTPError, ValueError) as error:
        raise Unavailable(f"{url} does not say how it is: {error or type(error).__name__}") from None
    if "streams" not in said:
        raise Misconfigured(f"{url} is no worker of labelstream: take the address of its health port")
    return said


def reported(streams: Iterable[Mapping[str, Any]]) -> list[Report]:
    """The trials of streams as workers tell of them, those of the same topic added up. Pure."""
    found = defaultdict[tuple[str, str], list[Mapping[str, Any]]](list)
    for stream in streams:
        for trial in stream["trials"]:
            found[stream["topic"], trial["trial"]].append(trial)
    return [_report(*names, told) for names, told in found.items()]


def _report(topic: str, trial: str, told: Sequence[Mapping[str, Any]]) -> Report:
    became, pairs, shift = Counter[str](), Counter[tuple[str, str]](), Counter[str]()
    for each in told:
        became.update({name: round(count) for name, count in each["became"].items()})
        pairs.update({(present, candidate): round(count) for present, candidate, count in each["differences"]})
        shift.update(each["shift"])
    compared = became["agreed"] + became["differed"]
    return Report(
        topic,
        trial,
        dict(became),
        _share(became["agreed"], compared),
        [(*pair, count) for pair, count in pairs.most_common()],
        _share(shift["surer"], shift["scored"]),
        _share(shift["less_sure"], shift["scored"]),
        *(_side(each[side] for each in told) for side in ("present", "candidate")),
    )


def _side(told: Iterable[Mapping[str, float]]) -> Side:
    whole = Counter[str]()
    for each in told:
        whole.update(each)
    return Side(_share(whole["seconds"], whole["answers"]), whole["cost"])


def _share(part: float, whole: float) -> float:
    return part / whole if whole else 0.0
