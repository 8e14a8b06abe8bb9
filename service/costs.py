"""What answers cost, and how much of it may be spent in an hour and in a day. Pure, but for the clock it is given."""

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from service import settings
from service.documents import Classified, Outcome

HOUR, DAY = 3600.0, 86_400.0


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
        return max(window.wait(self._set_aside, cost, at) for window in (self._hour, self._day))

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
        self._hour.spent += cost
        self._day.spent += cost


class _Window:
    """An hour or a day, and what was spent in it."""

    def __init__(self, seconds: float, limit: float | None, at: float) -> None:
        self._seconds = seconds
        self._number = at // seconds
        self.limit = self._whole = limit
        self.spent = 0.0

    def share(self, share: float) -> None:
        if self._whole is not None:
            self.limit = share * self._whole

    def go_to(self, at: float) -> None:
        if at // self._seconds > self._number:  # a clock that is set back opens no window twice
            self._number = at // self._seconds
            self.spent = 0.0

    def add(self, at: float, amount: float) -> None:
        if at // self._seconds == self._number:  # else it is of another time
            self.spent = max(0.0, self.spent + amount)

    def wait(self, set_aside: float, cost: float, at: float) -> float:
        before = self.spent + set_aside
        if self.limit is None or before + cost <= self.limit or before == 0.0:
            return 0.0
        return max(0.0, (self._number + 1) * self._seconds - at)
