"""Which dead letters of a partition have been dealt with, so that each run of `labelstream replay` goes on from there.

A run looks at a stretch of offsets and at some of the reasons, and what it has looked at is dealt with for these: sent
back, or left for good. The rest is left to another run. So each reason has its own stretches, as many as runs with gaps
between them (`--since`) have made. Below a committed offset all of our reasons are dealt with, what is above stands in
the commit's metadata; letters that are not ours (`other`) are always there, as their offsets hold nothing up. Pure.
"""

from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

import orjson

from service.documents import Reason
from service.errors import Misconfigured
from service.offsets import METADATA_LIMIT, Mark

OTHER = "other"
"""Stands for the reason of a letter that says none of ours."""
REASONS: tuple[str, ...] = tuple(Reason)


class Stretch(NamedTuple):
    """Offsets from `first` to before `end`."""

    first: int
    end: int


class Redriven:
    """What has been dealt with in one partition, by reason."""

    def __init__(self, mark: Mark, beginning: int = 0) -> None:
        """Begin where the mark leaves off, or at the topic's beginning where that is later."""
        self._offset = max(mark.offset, beginning)
        self._stretches = _decoded(mark.metadata)

    def covers(self, reason: str, offset: int) -> bool:
        """Whether a letter has been dealt with."""
        if reason != OTHER and offset < self._offset:
            return True
        return any(first <= offset < end for first, end in self._stretches.get(reason, ()))

    def first_open(self, reasons: Collection[str], beginning: int) -> int:
        """The first offset from `beginning` on that may hold a letter of these reasons that has not been dealt with."""
        return min(self._end_from(reason, beginning) for reason in reasons)

    def add(self, reasons: Collection[str], first: int, end: int) -> None:
        """Take note that all letters of these reasons from `first` to before `end` have been dealt with."""
        if first >= end:
            return
        for reason in reasons:
            joined = Stretch(first, end)
            apart = []
            for stretch in self._stretches.get(reason, ()):
                if stretch.first <= joined.end and joined.first <= stretch.end:
                    joined = Stretch(min(stretch.first, joined.first), max(stretch.end, joined.end))
                else:
                    apart.append(stretch)
            self._stretches[reason] = sorted([*apart, joined])
        self._offset = min(self._end_from(reason, self._offset) for reason in REASONS)
        for reason in REASONS:
            above = [stretch for stretch in self._stretches.get(reason, ()) if stretch.end > self._offset]
            self._stretches[reason] = [Stretch(max(begin, self._offset), end) for begin, end in above]

    def mark(self) -> Mark:
        """What is committed. Raises Misconfigured where the runs before have left more gaps than a commit can name."""
        above = {str(reason): list(map(list, found)) for reason, found in self._stretches.items() if found}
        metadata = orjson.dumps(above, option=orjson.OPT_SORT_KEYS).decode() if above else ""
        if len(metadata) > METADATA_LIMIT:
            raise Misconfigured(
                "so many runs with --since have left gaps between them that there is no room to note this one: "
                "run it once without --since, which closes them"
            )
        return Mark(self._offset, metadata)

    def _end_from(self, reason: str, offset: int) -> int:
        """The first offset from `offset` on that has not been dealt with."""
        end = offset if reason == OTHER else max(offset, self._offset)
        for stretch in self._stretches.get(reason, ()):
            if stretch.first <= end < stretch.end:
                end = stretch.end
        return end


def _decoded(metadata: str) -> dict[str, list[Stretch]]:
    """The stretches of a mark; none where the metadata is not ours, as after a reset by Kafka's own tools."""
    try:
        found: Mapping[str, Any] = orjson.loads(metadata)
        return {
            reason: sorted(Stretch(int(first), int(end)) for first, end in found[reason])
            for reason in (*REASONS, OTHER)
            if reason in found
        }
    except (ValueError, TypeError, KeyError, AttributeError):
        return {}
