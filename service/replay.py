"""`labelstream replay`: dead letters go back to the input, up to the end that their topic has at the start.

What was looked at for a reason is dealt with for that reason, and the next run goes on behind it; see `redriven`. Some
letters are left where they are: those that were sent back too often, those that are not whole, those that the input
does not take, those of other streams, and, unless `other` is asked for, those that labelstream did not write.
"""

import asyncio
import re
import time
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from service import settings
from service.documents import Record
from service.errors import Misconfigured
from service.offsets import Mark, Partition
from service.progress import Advance
from service.redriven import OTHER, REASONS, Redriven
from service.routing.records import OMITTED, redrives, sent_back
from service.streams import kafka, kafka_letters
from service.streams.kafka_letters import Extent

_AGE = re.compile(r"([0-9]+(?:\.[0-9]+)?)(s|m|h|d)")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}


@dataclass(frozen=True)
class Wanted:
    """Which letters: of these reasons (none: all of ours), of this time (Unix seconds), and how many at most."""

    reasons: Collection[str] = ()
    since: float | None = None
    until: float | None = None
    limit: int | None = None
    dry_run: bool = False


@dataclass
class Summary:
    """What became of the letters of this run; `finished` is False where it was stopped before the end."""

    stream: str
    dry_run: bool
    read: int = 0
    sent: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    """Those that were sent, or would be, by reason."""
    not_asked_for: int = 0
    at_the_cap: int = 0
    not_whole: int = 0
    too_large: int = 0
    of_other_streams: int = 0
    finished: bool = False
    seconds: float = 0.0


def known(reasons: Collection[str]) -> tuple[str, ...]:
    """The same reasons. Raises Misconfigured where there is one among them that no letter has."""
    for reason in reasons:
        if reason not in {*REASONS, OTHER}:
            raise Misconfigured(f"--reason {reason}: there is none such; there are {', '.join((*REASONS, OTHER))}")
    return tuple(reasons)


def moment(said: str, now: float) -> float:
    """Unix seconds of an age such as `2h`, or of an ISO 8601 time (UTC if it names no zone). Raises Misconfigured."""
    if age := _AGE.fullmatch(said):
        return now - float(age[1]) * _SECONDS[age[2]]
    try:
        parsed = datetime.fromisoformat(said)
    except ValueError:
        raise Misconfigured(f"{said!r} is no time: write 30m, 2h or 3d, or 2026-11-21T09:00:00Z") from None
    return (parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)).timestamp()


def reason_of(letter: Record, stream: str) -> str | None:
    """Why a letter is one, `other` where labelstream does not say so; None for one of another stream."""
    about = dict(letter.headers)
    if about.get("labelstream-stream", stream.encode()) != stream.encode():
        return None
    said = (about.get("labelstream-error-type") or b"").decode("utf-8", "replace")
    return said if said in REASONS else OTHER


async def replay(
    connection: settings.Kafka,
    stream: settings.Stream,
    wanted: Wanted,
    *,
    stop: asyncio.Event,
    progress: Callable[[int], Advance],
) -> Summary:
    """Send dead letters back to the input of their stream; `progress` is told how many offsets there are to look at.

    Raises Misconfigured and Unavailable.
    """
    if missing := await kafka.missing_topics(connection, {stream.dead_letter, stream.input}):
        raise Misconfigured(f"there is no topic {missing[0]!r} that this user may see; create it, or correct the name")
    run, began = _Run(stream, wanted), time.monotonic()
    group = f"{connection.group_id}.replay.{stream.name}"
    async with kafka_letters.opened(connection, stream.dead_letter, group) as letters:
        if not wanted.dry_run:
            await letters.take_over()
        ahead = run.begin(await letters.committed(), await letters.extents(wanted.since, wanted.until))
        letters.go_to(ahead)
        advance = progress(sum(end - begin for begin, end in ahead.values()))
        while not (stop.is_set() or run.is_full) and (records := await letters.read()):
            chosen = run.choose(records)
            if not wanted.dry_run:
                too_large = await letters.send_back([sent_back(stream, letter) for letter in chosen], run.marks())
                run.summary.too_large += len(too_large)
                run.summary.sent -= len(too_large)
            advance(run.looked_at)
        run.summary.finished = not stop.is_set()
        if run.summary.finished and not run.is_full:
            run.come_to(await letters.positions())
            if not wanted.dry_run:
                await letters.send_back([], run.marks())
    run.summary.seconds = round(time.monotonic() - began, 3)
    return run.summary


class _Run:
    """What one run has looked at, and what it found. Pure."""

    def __init__(self, stream: settings.Stream, wanted: Wanted) -> None:
        self._stream = stream
        self._wanted = wanted
        self._reasons = wanted.reasons or REASONS
        self._ahead: dict[Partition, tuple[int, int]] = {}
        self._at: dict[Partition, int] = {}
        self._redriven: dict[Partition, Redriven] = {}
        self._told: dict[Partition, Mark] = {}
        self.summary = Summary(stream.name, wanted.dry_run)

    def begin(
        self, committed: Mapping[Partition, Mark], extents: Mapping[Partition, Extent]
    ) -> Mapping[Partition, tuple[int, int]]:
        """What is to be looked at in each partition: the first offset, and the one after the last."""
        for partition, (beginning, end, since, until) in extents.items():
            mark = committed.get(partition, Mark(0))
            if mark.offset > end:  # of a topic of this name that is no more
                mark = Mark(0)
            redriven = self._redriven[partition] = Redriven(mark, beginning)
            begin = redriven.first_open(self._reasons, max(since, beginning))
            if begin < until:
                self._ahead[partition] = begin, until
                self._at[partition] = begin
        return self._ahead

    @property
    def is_full(self) -> bool:
        """Whether as many were chosen as were wanted."""
        return self._wanted.limit is not None and self.summary.sent >= self._wanted.limit

    @property
    def looked_at(self) -> int:
        """How many offsets have been looked at."""
        return sum(at - self._ahead[partition][0] for partition, at in self._at.items())

    def choose(self, letters: Sequence[Record]) -> list[Record]:
        """Those of the letters that go back, as long as it is not full."""
        chosen = []
        for letter in letters:
            if self.is_full:
                break
            partition = Partition(*letter.position[:2])
            self._at[partition] = letter.position.offset + 1
            if self._goes_back(letter, self._redriven[partition]):
                chosen.append(letter)
        return chosen

    def come_to(self, positions: Mapping[Partition, int]) -> None:
        """Say that there is nothing more before these offsets."""
        self._at = {partition: min(position, self._ahead[partition][1]) for partition, position in positions.items()}

    def marks(self) -> dict[Partition, Mark]:
        """What is to be committed now: where that is news. Raises Misconfigured."""
        news = {}
        for partition, at in self._at.items():
            redriven = self._redriven[partition]
            redriven.add(self._reasons, self._ahead[partition][0], at)
            mark = redriven.mark()
            if mark != self._told.get(partition):
                news[partition] = self._told[partition] = mark
        return news

    def _goes_back(self, letter: Record, redriven: Redriven) -> bool:
        reason, summary = reason_of(letter, self._stream.name), self.summary
        if reason is not None and redriven.covers(reason, letter.position.offset):
            return False
        summary.read += 1
        if reason is None:
            summary.of_other_streams += 1
        elif reason not in self._reasons:
            summary.not_asked_for += 1
        elif redrives(letter) >= self._stream.max_redrives:
            summary.at_the_cap += 1
        elif any(name in OMITTED for name, _ in letter.headers):
            summary.not_whole += 1
        else:
            summary.sent += 1
            summary.reasons[reason] += 1
            return True
        return False
