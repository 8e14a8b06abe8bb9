"""Who answers a batch: accounts in order of preference, tried until one does.

An outage is not the documents' fault: while no account can answer, a batch waits here and its offsets stay uncommitted.
A request that is refused for its content, or whose job is lost time and again while others are answered, is halved
until the document at fault stands alone.
"""

import asyncio
import math
import random
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from service.documents import Document, Outcome, Reason, Refused
from service.errors import CallFailed, JobLost, Misconfigured, Rejected, Throttled, Unavailable
from service.jobs import JobProvider, PollTimes, follow
from service.limits import Limits
from service.telemetry import AccountStatistics, AccountTelemetry

FIRST_BACK_OFF, LONGEST_BACK_OFF = 0.5, 30.0
"""Seconds that an account is left alone after a failure, and at most after many in a row."""
MOST_LOSSES = 4
"""Jobs that a batch, or at last a document, may lose while others are answered, before it is taken to be the cause."""
LONGEST_QUIET = 3600.0
"""Seconds that a `Retry-After` is believed: a slip in one header must not silence an account for years."""


class Provider(Protocol):
    """A classifier behind some API: what it is, and how much one call may hold."""

    @property
    def documents_per_call(self) -> int:
        """The most documents that one call may hold."""
        ...

    @property
    def characters_per_call(self) -> int:
        """The most characters that one call may hold."""
        ...

    @property
    def characters_per_document(self) -> int:
        """The most characters that one document may have."""
        ...

    @property
    def model(self) -> str:
        """What classifies, as results name it."""
        ...

    @property
    def task(self) -> str:
        """Either `single_label` or `multi_label`."""
        ...

    async def probe(self) -> None:
        """See whether it can be reached and lets us in, at no cost. Raises Misconfigured or Unavailable."""
        ...


class CallProvider(Provider, Protocol):
    """A classifier that answers in the call itself; errors as in `service.errors`."""

    async def classify(self, documents: Sequence[Document]) -> list[Outcome]:
        """One outcome for each document, in their order."""
        ...


@runtime_checkable
class JobbingProvider(Provider, JobProvider, Protocol):
    """A classifier that answers through jobs."""


class Account:
    """Somebody who can answer: a provider, the limits of what it may be asked for, and how well it is.

    After a failure it is left alone for a while, twice as long after each further one, until it answers again.
    """

    def __init__(
        self,
        name: str,
        kind: str,
        provider: CallProvider | JobbingProvider,
        *,
        limits: Limits,
        telemetry: AccountTelemetry,
        job_deadline: float = 600.0,
    ) -> None:
        self.name = name
        self.kind = kind
        self.provider = provider
        self.limits = limits
        self.telemetry = telemetry
        self._failures = 0
        self._failed_at = -math.inf
        self.answered_at = -math.inf
        if isinstance(provider, JobbingProvider):
            self._ask = self._by_job(provider, job_deadline)
        else:
            self._ask = provider.classify

    def fits(self, characters: int) -> bool:
        """Whether the account takes a document of so many characters at all."""
        return characters <= self.provider.characters_per_document

    async def classify(self, documents: Sequence[Document]) -> list[Outcome]:
        """One outcome for each document; errors as in `service.errors`, and the account takes note of them."""
        asked_at = _now()
        try:
            outcomes = await self._ask(documents)
        except (Throttled, Unavailable) as error:
            self._set_back(error, asked_at)
            raise
        except Rejected:
            self.telemetry.error("classify", "document_error")
            raise
        except Misconfigured as error:
            self.telemetry.error("classify", "auth")
            raise Misconfigured(f"accounts.{self.name}: {error}") from None
        self._failures = 0
        self.answered_at = _now()
        self.telemetry.answered(outcomes)
        return outcomes

    @property
    def is_on_trial(self) -> bool:
        """Whether it has failed, and is being asked whether it is well again."""
        return self._failures > 0 and self.limits.statistics().in_flight > 0

    def statistics(self) -> AccountStatistics:
        """A picture of this moment."""
        return AccountStatistics(self.name, self.kind, self.limits.statistics(), self._failures)

    def _by_job(
        self, provider: JobbingProvider, deadline: float
    ) -> Callable[[Sequence[Document]], Awaitable[list[Outcome]]]:
        times = PollTimes()

        async def ask(documents: Sequence[Document]) -> list[Outcome]:
            began = _now()
            outcomes, polls = await follow(provider, documents, times, deadline, self._set_back)
            self.telemetry.job(_now() - began, polls)
            return outcomes

        return ask

    def _set_back(self, error: Throttled | Unavailable, asked_at: float = math.inf) -> None:
        reason = _reason(error)
        self.telemetry.retried(reason, error.retry_after)
        if isinstance(error, JobLost):
            self.telemetry.error("job", "job_lost")
        if error.retry_after and error.retry_after >= FIRST_BACK_OFF:  # less is no reason to ask again, and again
            self.limits.quiet(min(error.retry_after, LONGEST_QUIET))
        elif asked_at > self._failed_at and not self.limits.quiet_for:  # calls that were out together fail as one
            self._failures += 1
            self._failed_at = _now()
            longest = min(LONGEST_BACK_OFF, FIRST_BACK_OFF * 2.0 ** min(self._failures - 1, 16))
            self.limits.quiet(longest * random.uniform(0.5, 1))  # noqa: S311  spreads replicas, keeps no secret


@dataclass(slots=True, eq=False)
class Batch:
    """Documents that are asked for together; `asked` while they are out at an account, so worth waiting for.

    `asked_at` is when they first were, as Unix time; `answered` is whether a part of them has its answer.
    """

    documents: Sequence[Document]
    asked: bool = False
    answered: bool = False
    asked_at: float | None = None

    @contextmanager
    def out(self) -> Iterator[None]:
        """Mark the batch as asked for the length of the block."""
        self.asked = True
        self.asked_at = self.asked_at or time.time()
        try:
            yield
        finally:
            self.asked = False


@dataclass(frozen=True, slots=True)
class Answer:
    """Outcomes of some documents, and who gave them; `at` is the wall clock in seconds."""

    documents: Sequence[Document]
    outcomes: Sequence[Outcome]
    account: Account
    attempts: int
    at: float


class Dispatcher:
    """The accounts of a stream, in order of preference."""

    def __init__(self, accounts: Sequence[Account]) -> None:
        self.accounts = accounts
        providers = [account.provider for account in accounts]
        self.documents_per_call = min(provider.documents_per_call for provider in providers)
        self.characters_per_call = min(provider.characters_per_call for provider in providers)
        self.characters_per_document = max(provider.characters_per_document for provider in providers)

    async def classify(self, batch: Batch) -> list[Answer]:
        """Answers that together cover every document of the batch, however long it takes.

        Raises Misconfigured: asking again would not help.
        """
        return await self._classify(batch, batch.documents, MOST_LOSSES)

    async def _classify(self, batch: Batch, documents: Sequence[Document], most_losses: int) -> list[Answer]:
        attempts, losses, began = 0, 0, _now()
        lengths = [len(document.text) for document in documents]
        fitting, characters = [account for account in self.accounts if account.fits(max(lengths))], sum(lengths)
        while True:
            account = await _ready(fitting)
            async with account.limits.admit(characters, leave=lambda: _well(fitting) is not None) as admitted:
                if not admitted:
                    continue
                attempts += 1
                with batch.out():
                    try:
                        account.telemetry.asked(len(documents), characters, account.provider.documents_per_call)
                        outcomes = await account.classify(documents)
                    except JobLost as loss:
                        losses += 1
                        if losses < most_losses or account.answered_at < began:
                            continue  # others fare no better, so it is not these documents' fault
                        rejection: CallFailed = loss
                    except (Throttled, Unavailable):
                        continue
                    except Rejected as refusal:
                        rejection = refusal
                    else:
                        batch.answered = True
                        return [Answer(documents, outcomes, account, attempts, time.time())]
                    if len(documents) == 1:
                        refused = Refused(Reason.REFUSED_BY_CLASSIFIER, str(rejection))
                        batch.answered = True
                        return [Answer(documents, [refused], account, attempts, time.time())]
            half = len(documents) // 2
            first = await self._classify(batch, documents[:half], _losses(half))
            return first + await self._classify(batch, documents[half:], _losses(len(documents) - half))


def _losses(documents: int) -> int:
    """Jobs that a part of a batch may lose: to halve it again costs little, the verdict on one document is final."""
    return MOST_LOSSES if documents == 1 else 1


async def _ready(accounts: Sequence[Account]) -> Account:
    while (account := _well(accounts)) is None:  # noqa: ASYNC110  until a time that is known, unless it is put off
        await asyncio.sleep(min(account.limits.quiet_for for account in accounts))
    return account


def _well(accounts: Sequence[Account]) -> Account | None:
    """The first that may be asked now; one call finds out whether an account is well again, the others go elsewhere."""
    awake = [account for account in accounts if not account.limits.quiet_for]
    return next((account for account in awake if not account.is_on_trial), awake[0] if awake else None)


def _reason(error: CallFailed) -> str:
    if isinstance(error, JobLost):
        return "job_lost"
    return "throttled" if isinstance(error, Throttled) else "unavailable"


def _now() -> float:
    return asyncio.get_running_loop().time()
