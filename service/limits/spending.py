"""What was spent of an account's budget, kept beside the offsets of a stream's partitions. Pure.

A budget is shared by partitions: whoever owns one may spend its part. So what was spent is kept with them, too, spread
over a worker's partitions as the right to spend is. A partition that moves takes both along; then what all workers may
still spend, taken together, is what is left, however often partitions move.

It is written into the metadata of the commits that are made anyway, so it is as safe as the offsets are: after a kill
what is missing was spent since the last commit, and one part in a hundred of the limit at most.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple
from urllib.parse import quote, unquote

from service.limits.costs import DAY, HOUR, Budget
from service.offsets import Partition

_WORTH_NOTING = 0.01
"""By how much of its limit a part has to differ from what is noted before it is noted anew: commits are not free."""
_HOURS_A_DAY = int(DAY // HOUR)


class Kept(NamedTuple):
    """What was spent in an hour, given by its number since 1970 (UTC), and in the day it belongs to until then."""

    number: int
    hour: float
    day: float

    def at(self, number: int) -> "Kept":
        """How much of it counts in a later hour."""
        if number <= self.number:
            return self
        same_day = number // _HOURS_A_DAY == self.number // _HOURS_A_DAY
        return Kept(number, 0.0, self.day if same_day else 0.0)


class Spending:
    """What was spent of one budget, by the partitions that it is kept with."""

    def __init__(self, budget: Budget) -> None:
        self._budget = budget
        self._parts: dict[Partition, tuple[float, Kept]] = {}

    def take_over(self, partition: Partition, weight: float, kept: Kept | None) -> None:
        """A partition is ours that has so much of the right to spend; this was kept with it."""
        self.give_up(partition)
        kept = kept or self._nothing()
        self._parts[partition] = weight, kept
        self._budget.add(kept.number * HOUR, kept.hour, kept.day)

    def kept(self, partition: Partition, weight: float) -> Kept:
        """What is to be kept with a partition."""
        _, kept = self._parts.setdefault(partition, (weight, self._nothing()))
        due = self._due(weight)
        known = kept.at(due.number)
        if any(
            limit is not None and abs(now - before) > _WORTH_NOTING * self._of_the_whole(weight) * limit
            for limit, now, before in zip(self._budget.limits, due[1:], known[1:], strict=True)
        ):
            self._parts[partition] = weight, due
            return due
        return kept

    def settle(self) -> None:
        """Have what is kept be exact, as partitions are about to move."""
        for partition, (weight, _) in self._parts.items():
            self._parts[partition] = weight, self._due(weight)

    def give_up(self, partition: Partition) -> None:
        """A partition is another's, with what was kept with it last."""
        if (part := self._parts.pop(partition, None)) is not None:
            kept = part[1]
            self._budget.add(kept.number * HOUR, -kept.hour, -kept.day)

    def _due(self, weight: float) -> Kept:
        number, hour, day = self._budget.booked()
        part = self._of_the_whole(weight)
        return Kept(number, part * hour, part * day)

    def _of_the_whole(self, weight: float) -> float:
        return weight / sum(each for each, _ in self._parts.values())

    def _nothing(self) -> Kept:
        return Kept(self._budget.booked()[0], 0.0, 0.0)


def written(kept: Mapping[str, Kept]) -> str:
    """What is kept of each account, as it goes into metadata: `NAME=HOUR,spent,spent;` each, none of it secret."""
    return "".join(
        f"{quote(name, safe='')}={each.number},{each.hour:.9g},{each.day:.9g};" for name, each in kept.items()
    )


def read(metadata: str) -> dict[str, Kept]:
    """What `written` wrote; nothing of what is damaged, or somebody else's."""
    found = {}
    for name, numbers in _fields(metadata.split(";")[:-1]):
        try:
            number, hour, day = numbers
            kept = Kept(int(number), float(hour), float(day))
        except ValueError:
            continue
        if 0 <= kept.hour < float("inf") and 0 <= kept.day < float("inf") and 0 <= kept.number < 1 << 40:
            found[unquote(name)] = kept
    return found


def _fields(texts: Iterable[str]) -> Iterable[tuple[str, Sequence[str]]]:
    return [(name, numbers.split(",")) for name, sign, numbers in (text.partition("=") for text in texts) if sign]
