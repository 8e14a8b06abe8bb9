"""What is asked for together, and what comes of it."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import compress

from service.dispatch.account import Account
from service.documents import AnsweredFrom, Document, Outcome
from service.jobs.notes import Job


@dataclass(slots=True, eq=False)
class Batch:
    """Documents that are asked for together, by as many `calls` as are out at accounts just now.

    `asked_at` is when they first were, as Unix time; `answered` is whether a part of them has its answer. `job` is one
    of an earlier life that has them already, under these `numbers`.
    """

    documents: Sequence[Document]
    job: Job | None = None
    numbers: Sequence[int] = ()
    calls: int = 0
    answered: bool = False
    asked_at: float | None = None

    @property
    def asked(self) -> bool:
        """Whether it is out at an account, so worth waiting for."""
        return self.calls > 0

    @contextmanager
    def out(self) -> Iterator[None]:
        """Mark the batch as asked for the length of the block."""
        self.calls += 1
        self.asked_at = self.asked_at or time.time()
        try:
            yield
        finally:
            self.calls -= 1


@dataclass(frozen=True, slots=True)
class Answer:
    """Outcomes of some documents, and who gave them; `at` is the wall clock in seconds.

    `answered_from` is None where they were asked for; else `saved` is what asking would have been billed for. `second`
    is what a call may be billed for that was late, where another was the first to be answered.
    """

    documents: Sequence[Document]
    outcomes: Sequence[Outcome]
    account: Account
    attempts: int
    at: float
    answered_from: AnsweredFrom | None = None
    saved: float = 0.0
    second: float = 0.0

    @property
    def cost(self) -> float:
        """What was billed for it by the unit, or may have been."""
        return self.account.limits.tariff.cost(self.outcomes) + self.second

    def part(self, keeps: Sequence[bool]) -> "Answer":
        """The same of those of its documents for which `keeps` is true."""
        documents = list(compress(self.documents, keeps))
        return replace(self, documents=documents, outcomes=list(compress(self.outcomes, keeps)))
