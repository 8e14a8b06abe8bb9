"""What answers cost, and how much of it may be spent in an hour and in a day. Pure, but for the clock it is given."""

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from service import settings
from service.documents import Classified, Outcome

HOUR, DAY = 3600.0, 86_400.0
_SLICE = 0.002
"""The part of a limit that is asked for at once, where it is shared."""
_ASKING, _ASK_AGAIN = 0.05, 60.0
"""Seconds that asking takes at most, before it is looked again; and that a refusal is believed."""


@dataclass(frozen=True, slots=True)
class Tariff:
    """What an account bills, by the unit and by the second, in whatever currency its prices are in.

    A unit is of so many characters, and a document has so many at least; seconds are billed whether asked or not.
    """

    per_unit: float | None = None
    per_second: float = 0.0
    characters_per_unit: int = 1000
    least_units: int = 1

    def cost(self, outcomes: Iterable[Outcome]) -> float:
        """What is billed for these by the unit."""
        if not self.per_unit:
            return 0.0
        return self.per_unit * sum(outcome.units for outcome in outcomes if isinstance(outcome, Classified))

    def at_most(self, documents: int, characters: int) -> float:
        """What so many documents of so many characters in all may be billed for by the unit."""
        if not self.per_unit:
            return 0.0
        return self.per_unit * (documents * self.least_units + characters // self.characters_per_unit)


FREE = Tariff()
_UNITS: Mapping[str, tuple[int, int]] = {
    "azure_language": (1000, 1),  # text records
    "content_safety": (1000, 1),
    "content_understanding": (3000, 1),  # pages
    "comprehend_jobs": (100, 3),
}


def tariff(branch: settings.Account) -> Tariff:
    """What an account bills, by the prices in its settings."""
    price = branch.price
    return Tariff(price.per_unit, price.per_second or 0.0, *_UNITS.get(branch.provider, (1000, 0)))


@dataclass(frozen=True, slots=True)
class Spent:
    """Money: all since the start, and what was spent or is spoken for in this hour and in this day (UTC)."""

    total: float = 0.0
    hour: float = 0.0
    day: float = 0.0


class Budget:
    """The money of an account: what was spent, and what may still be.

    What a call may cost is set aside before it goes, so that an hour or a day (UTC) never costs more than it may; only
    a call that alone costs more goes, as the first. What it did cost is booked when it has ended. What is billed by the
    second is booked from the start on.

    Where it `is_shared`, what may be spent is granted bit by bit: `wanted` is what is to be asked for.
    """

    def __init__(
        self,
        tariff: Tariff,
        per_hour: float | None = None,
        per_day: float | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.tariff = tariff
        self._clock = clock
        self._at = clock()
        self._total = 0.0
        self._set_aside = 0.0
        self._share = 1.0
        self._unreported = 0.0
        self._denied_until = 0.0
        self.is_shared = False
        self.wanted = self._least = 0.0
        self._hour = _Window(HOUR, per_hour, self._at)
        self._day = _Window(DAY, per_day, self._at)

    @property
    def is_limited(self) -> bool:
        """Whether there is money that may not be spent."""
        return self._hour.limit is not None or self._day.limit is not None

    @property
    def per_hour(self) -> float | None:
        """What this worker may spend in an hour, its share taken."""
        return self._hour.limit

    @property
    def per_day(self) -> float | None:
        """What this worker may spend in a day, its share taken."""
        return self._day.limit

    def wait(self, documents: int, characters: int) -> float:
        """Seconds until such a call may be paid for."""
        at, cost = self._pass(), self.tariff.at_most(documents, characters)
        if self.is_shared:
            return self._wait_for_grant(cost, at)
        return max(window.wait(self._set_aside, cost, at) for window in (self._hour, self._day))

    @property
    def is_asking(self) -> bool:
        """Whether it is not known yet if there is money left."""
        return self.is_shared and self.wanted > 0

    def _wait_for_grant(self, cost: float, at: float) -> float:
        limited = [window for window in (self._hour, self._day) if window.limit is not None]
        lacking = max(window.used + self._set_aside + cost - window.granted for window in limited)
        if lacking <= 0:
            return 0.0
        if at < self._denied_until:
            return self._denied_until - at
        slices = [_SLICE * window.whole for window in limited if window.whole is not None]
        self.wanted, self._least = max(lacking, *slices), lacking
        return _ASKING

    def report(self) -> tuple[float, float, float, int, int]:
        """What is to be told and asked of all: spent unasked, wanted and at least, and the numbers of hour and day."""
        at = self._pass()
        wanted, least = (self.wanted, self._least) if self.is_asking else (0.0, 0.0)
        return self._unreported, wanted, least, int(at // HOUR), int(at // DAY)

    def leftover(self) -> float:
        """What was granted and is not needed; it is not ours any more."""
        self._pass()
        limited = [window for window in (self._hour, self._day) if window.limit is not None]
        left = max(0.0, min(window.granted - window.used for window in limited) - self._set_aside)
        for window in limited:
            window.granted -= left
        return left

    def grant(self, amount: float, hour: float, day: float, reported: float) -> None:
        """So much may be spent; this is what all have spent, or have been granted. So much of ours is known to all."""
        at = self._pass()
        self._unreported -= reported
        asked, self.wanted = self.wanted, 0.0
        for window, total in ((self._hour, hour), (self._day, day)):
            window.granted += amount
            window.spent = self._share * total
        if asked and not amount:
            spent = [window for window, total in ((self._hour, hour), (self._day, day)) if window.lacks(total, asked)]
            until = max((window.end for window in spent or [self._hour]), default=at)
            self._denied_until = min(until, at + _ASK_AGAIN)

    def go_shared(self, *, shared: bool) -> None:
        """Spend what is granted from now on, or our share."""
        self._pass()
        if shared != self.is_shared:
            self.is_shared, self.wanted, self._denied_until = shared, 0.0, 0.0
            for window in (self._hour, self._day):
                window.granted = window.used = 0.0

    def set_aside(self, documents: int, characters: int) -> float:
        """Keep back what such a call may cost, to be given to `book`."""
        cost = self.tariff.at_most(documents, characters)
        self._set_aside += cost
        return cost

    def book(self, set_aside: float, cost: float) -> None:
        """Note what a call has cost for which so much was set aside."""
        self._pass()
        self._set_aside = max(0.0, self._set_aside - set_aside)
        self._spend(cost)

    def limit(self, per_hour: float | None, per_day: float | None) -> None:
        """Spend so much at most from now on; what has no limit gets none, and what has one keeps one."""
        for window, limit in ((self._hour, per_hour), (self._day, per_day)):
            window.whole = limit
            window.share(self._share)

    def share(self, share: float) -> None:
        """Spend this share of it from now on, and of what is billed by the second."""
        self._pass()
        self._share = share
        self._hour.share(share)
        self._day.share(share)

    def spent(self) -> Spent:
        """What was spent by now."""
        self._pass()
        return Spent(self._total, self._hour.spent + self._set_aside, self._day.spent + self._set_aside)

    def booked(self) -> tuple[int, float, float]:
        """The number of this hour since 1970, and what was spent in it and in its day."""
        at = self._pass()
        return int(at // HOUR), self._hour.spent, self._day.spent

    def add(self, at: float, hour: float, day: float) -> None:
        """Count what another has spent, or has taken over (less than nothing), in the hour and day of that moment."""
        self._pass()
        self._hour.add(at, hour)
        self._day.add(at, day)

    @property
    def limits(self) -> tuple[float | None, float | None]:
        """What may be spent in an hour and in a day; None is no limit."""
        return self._hour.limit, self._day.limit

    def exceeded(self) -> str:
        """Which limit is used up, as settings call it."""
        day, hour = self._day, self._hour
        if day.limit is not None and (hour.limit is None or day.limit - day.spent <= hour.limit - hour.spent):
            return f"limits.spend_per_day ({day.limit:g})"
        return f"limits.spend_per_hour ({hour.limit or 0:g})"

    def _pass(self) -> float:
        """Let time pass: windows begin anew, and seconds are billed."""
        at = self._clock()
        seconds, self._at = max(0.0, at - self._at), at
        self._hour.go_to(at)
        self._day.go_to(at)
        if self.tariff.per_second:
            self._spend(seconds * self.tariff.per_second * self._share)
        return at

    def _spend(self, cost: float) -> None:
        self._total += cost
        self._hour.used += cost
        self._day.used += cost
        if not self.is_shared:
            self._unreported += cost
        self._hour.spent += cost
        self._day.spent += cost


class _Window:
    """An hour or a day, and what was spent in it."""

    def __init__(self, seconds: float, limit: float | None, at: float) -> None:
        self._seconds = seconds
        self._number = at // seconds
        self.limit = self.whole = limit
        self.spent = 0.0
        self.granted = self.used = 0.0

    @property
    def end(self) -> float:
        return (self._number + 1) * self._seconds

    def lacks(self, total: float, amount: float) -> bool:
        return self.whole is not None and total + amount > self.whole

    def share(self, share: float) -> None:
        if self.whole is not None:
            self.limit = share * self.whole

    def go_to(self, at: float) -> None:
        if at // self._seconds > self._number:  # a clock that is set back opens no window twice
            self._number = at // self._seconds
            self.spent = 0.0
            self.granted = self.used = 0.0

    def add(self, at: float, amount: float) -> None:
        if at // self._seconds == self._number:  # else it is of another time
            self.spent = max(0.0, self.spent + amount)

    def wait(self, set_aside: float, cost: float, at: float) -> float:
        before = self.spent + set_aside
        if self.limit is None or before + cost <= self.limit or before == 0.0:
            return 0.0
        return max(0.0, (self._number + 1) * self._seconds - at)
