"""What an account may be asked for."""

from typing import Annotated, Literal

from pydantic import (
    BeforeValidator,
    Field,
)

from service.settings.values import Branch, Seconds, Share


def _calls(value: object) -> object:
    number = isinstance(value, int | str) and str(value).isdecimal() and 1 <= int(value) <= 10_000
    if value != "adaptive" and not number:
        raise ValueError("write adaptive, or a whole number from 1 to 10,000")
    return value


class Price(Branch):
    """What an account bills, in a currency of your own choosing."""

    per_unit: Annotated[float, Field(ge=0)] | None = None
    """For each unit: text records of 1,000 characters (Azure), pages, or 100 characters (Comprehend's jobs)."""
    per_second: Annotated[float, Field(ge=0)] | None = None
    """For each second, asked or not: inference units of a Comprehend endpoint times their price."""


def priced(limits: "Limits", price: Price) -> None:
    """Raises ValueError where money is limited that nobody counts."""
    if (limits.spend_per_hour or limits.spend_per_day) and price.per_unit is None and price.per_second is None:
        raise ValueError("limits.spend_per_hour and spend_per_day go by price: set price.per_unit or price.per_second")


class Breaker(Branch):
    """When an account is taken to be unwell, and left alone but for a call on trial; throttling is no failure."""

    failures: Annotated[int, Field(ge=1, le=1000)] = 5
    """So many calls in a row that fail."""
    share: Annotated[Share, Field(gt=0)] = 0.5
    """Or this share of the calls of the last ten to twenty seconds."""
    of: Annotated[int, Field(ge=2, le=100_000)] = 20
    """The calls of these seconds that `share` takes at least."""
    slow_after: Annotated[Seconds, Field(gt=0)] | None = None
    """Answers that take longer count as failures; by default only those that never come, by how long others take."""
    longest: Annotated[Seconds, Field(ge=0.5)] = 30.0
    """The most seconds between two trials: 0.5 s at first, doubling to 4 s, then a twentieth of the outage so far."""


class Hedge(Branch):
    """Calls that are late are asked a second time: of the stream's next account that is free, or of the same one.

    The first answer counts. What the other costs is counted, too, for it may be billed.
    """

    after: Annotated[Literal["p95"] | Annotated[Seconds, Field(gt=0)], Field(union_mode="left_to_right")] = "p95"
    """When a call is late: later than 19 of 20 are, as measured, or after so long."""
    at_most: Annotated[Share, Field(gt=0, le=0.5)] = 0.05
    """The share of calls that may be asked twice; never one that quota, budget or breaker would hold."""


class Limits(Branch):
    """What an account may be asked for; None is no limit of that kind."""

    in_flight: Annotated[Literal["adaptive"] | Annotated[int, Field(ge=1, le=10_000)], BeforeValidator(_calls)] = 16
    """Calls (jobs) at once; `adaptive` comes to as many as the service works at, by what calls take and it refuses."""
    most_in_flight: Annotated[int, Field(ge=1, le=10_000)] = 200
    """The most calls at once that `adaptive` comes to."""
    requests_per_second: Annotated[float, Field(gt=0)] | None = None
    """HTTP requests a second, polls included."""
    requests_per_minute: Annotated[float, Field(gt=0)] | None = None
    """HTTP requests a minute, polls included."""
    documents_per_second: Annotated[float, Field(gt=0)] | None = None
    """Documents a second; a Comprehend endpoint takes 2 for each of its inference units."""
    characters_per_second: Annotated[float, Field(gt=0)] | None = None
    """Characters of text a second; a Comprehend endpoint takes 100 for each of its inference units."""
    quotas_of: Literal["group", "worker"] = "group"
    """Whose quotas and money these are: the group's, shared by partitions or through `redis`, or each worker's."""
    spend_per_hour: Annotated[float, Field(gt=0)] | None = None
    """Money an hour (UTC), in the currency of the account's `price`; what is spent is kept with committed offsets."""
    spend_per_day: Annotated[float, Field(gt=0)] | None = None
    """Money a day (UTC), as `spend_per_hour`."""
    when_spent: Literal["hold", "stop"] = "hold"
    """Whether documents wait for the next hour or day, or the worker ends; an account that is well is asked first."""
    breaker: Breaker = Breaker()
    hedge: Hedge | None = None
    """Not of accounts that answer by jobs."""

    @property
    def connections(self) -> int:
        """The most calls that are ever out at once."""
        return self.most_in_flight if self.in_flight == "adaptive" else self.in_flight
