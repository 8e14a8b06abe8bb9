"""What is done about a failure: the rules that providers decide by, row by row. Pure.

Each provider has one table of them; the first row that fits decides. docs/reference.md shows the same tables.
"""

from collections.abc import Collection, Iterable
from enum import StrEnum
from typing import NamedTuple

from service.errors import CallFailed, JobLost, Misconfigured, Rejected, Throttled, Unavailable

NO_CODE = "no code"
"""Stands for the codes of an answer that gives none."""
NOT_JSON = "not JSON"
"""Stands for the codes of an answer that is no JSON object, and so most likely not the service's own."""


class Then(StrEnum):
    """What is done, and what that means to the documents."""

    WAIT = "wait"
    HOLD = "hold"
    SUBMIT_AGAIN = "submit again"
    SPLIT = "split"
    REFUSE = "refuse"
    STOP = "stop"


class At(StrEnum):
    """What has failed."""

    REQUEST = "request"
    POLL = "poll"
    JOB = "job"
    DOCUMENT = "document"
    LOOK = "look"


class Rule(NamedTuple):
    """A row: what is done where it fits, and what a person is told beside it.

    `at`, `statuses` and `codes` are what it fits; one that is empty fits everything.
    """

    then: Then
    says: str = ""
    at: Collection[At] = ()
    statuses: Collection[int] = ()
    codes: Collection[str] = ()

    def fits(self, at: At, status: int, codes: Collection[str]) -> bool:
        """Whether the row is about this failure."""
        return (
            (not self.at or at in self.at)
            and (not self.statuses or status in self.statuses)
            and (not self.codes or any(code in self.codes for code in codes))
        )

    def error(self, told: str, retry_after: float | None = None) -> CallFailed:
        """What is raised, where `told` is what happened; `retry_after` as in `Throttled`."""
        said = f"{told}: {self.says}" if self.says else told
        match self.then:
            case Then.WAIT:
                return Throttled(said, retry_after)
            case Then.HOLD:
                return Unavailable(said, retry_after)
            case Then.SUBMIT_AGAIN:
                return JobLost(said)
            case Then.STOP:
                return Misconfigured(said)
        return Rejected(said)


def first_that_fits(rules: Iterable[Rule], at: At, status: int = 0, codes: Collection[str] = ()) -> Rule:
    """The row that decides. What no row foresees is no document's fault."""
    return next((rule for rule in rules if rule.fits(at, status, codes)), _UNFORESEEN)


_UNFORESEEN = Rule(Then.HOLD)
