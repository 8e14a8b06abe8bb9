"""What answers cost, and how much of it may be spent in an hour and in a day. Pure, but for the clock it is given."""

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

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


class Report(NamedTuple):
    """What is told to all who share a budget, and asked of them.

    So much was spent that nobody knows of, or is given back (less than nothing), in the hour and in the day of these
    numbers since 1970 (UTC). So much more is wanted, and less than the least would not help.
    """

    hour: int
    day: int
    spent_in_hour: float
    spent_in_day: float
    wanted: float
    least: float


class Grant(NamedTuple):
    """What comes of a report: so much may be spent; all have spent, or been granted, this in its hour and its day."""

    amount: float
    hour: float
    day: float


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
    def limits(self) -> tuple[float | None, float | None]:
        """What this worker may spend in an hour and in a day, its share taken; None is no limit."""
        return self._hour.limit, self._day.limit

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

    def report(self) -> Report:
        """What is to be told to all, and asked of them."""
        self._pass()
        hour, day = self._hour, self._day
        asked = (self.wanted, self._least) if self.is_asking else (0.0, 0.0)
        return Report(hour.number, day.number, hour.unreported, day.unreported, *asked)

    def rest(self) -> Report:
        """What is to be told at the end: what was granted and is not needed is given back, and not ours any more."""
        self._pass()
        for window in (self._hour, self._day):
            window.give_back(keep=self._set_aside)
        return self.report()._replace(wanted=0.0, least=0.0)

    def grant(self, report: Report, grant: Grant) -> None:
        """What was reported is known to all, and so much is granted."""
        at = self._pass()
        asked, self.wanted = self.wanted, 0.0
        self._hour.grant(report.hour, report.spent_in_hour, grant.amount, self._share * grant.hour)
        self._day.grant(report.day, report.spent_in_day, grant.amount, self._share * grant.day)
        if asked and not grant.amount:
            totals = ((self._hour, grant.hour), (self._day, grant.day))
            spent = [window for window, total in totals if window.lacks(total, asked)]
            until = max(window.end for window in spent or [self._hour])
            self._denied_until = min(until, at + _ASK_AGAIN)

    def go_shared(self) -> None:
        """Spend what is granted from now on."""
        self._pass()
        self.is_shared = True

    def go_alone(self) -> None:
        """Spend our share from now on."""
        self._pass()
        self.is_shared, self.wanted, self._denied_until = False, 0.0, 0.0
        for window in (self._hour, self._day):
            window.give_back(keep=0.0)
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
        hour = self._hour.number
        self._hour.go_to(at)
        self._day.go_to(at)
        if self.is_shared and self._hour.number != hour:  # it was granted for both
            self._day.give_back(keep=self._set_aside)
        if self.tariff.per_second:
            self._spend(seconds * self.tariff.per_second * self._share)
        return at

    def _spend(self, cost: float) -> None:
        self._total += cost
        for window in (self._hour, self._day):
            window.spent += cost
            if self.is_shared:
                window.used += cost
            else:
                window.unreported += cost


class _Window:
    """An hour or a day, and what was spent in it.

    Of what was `granted` so much is `used`; what is `unreported` others do not know of.
    """

    def __init__(self, seconds: float, limit: float | None, at: float) -> None:
        self._seconds = seconds
        self.number = int(at // seconds)
        self.limit = self.whole = limit
        self._empty()

    def _empty(self) -> None:
        self.spent = self.granted = self.used = self.unreported = 0.0

    @property
    def end(self) -> float:
        return (self.number + 1) * self._seconds

    def lacks(self, total: float, amount: float) -> bool:
        return self.whole is not None and total + amount > self.whole

    def share(self, share: float) -> None:
        if self.whole is not None:
            self.limit = share * self.whole

    def go_to(self, at: float) -> None:
        if at // self._seconds > self.number:  # a clock that is set back opens no window twice
            self.number = int(at // self._seconds)
            self._empty()

    def add(self, at: float, amount: float) -> None:
        if at // self._seconds == self.number:  # else it is of another time
            self.spent = max(0.0, self.spent + amount)

    def grant(self, number: int, reported: float, amount: float, spent: float) -> None:
        if number == self.number:  # else it was another hour, or day, that was reported on
            self.unreported -= reported
            self.granted += amount
            self.spent = spent

    def give_back(self, keep: float) -> None:
        left = max(0.0, self.granted - self.used - keep)
        self.granted -= left
        self.unreported -= left

    def wait(self, set_aside: float, cost: float, at: float) -> float:
        before = self.spent + set_aside
        if self.limit is None or before + cost <= self.limit or before == 0.0:
            return 0.0
        return max(0.0, self.end - at)
