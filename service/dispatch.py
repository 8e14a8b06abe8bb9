"""Who answers a batch: accounts in order of preference, tried until one does.

An outage is not the documents' fault: while no account can answer, a batch waits here and its offsets stay uncommitted.
A request that is refused for its content, or whose job is lost time and again while others are answered, is halved
until the document at fault stands alone.
"""

import asyncio
import math
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import structlog

from service.admission import Stream
from service.batches import Batcher
from service.documents import Document, Outcome, Reason, Refused
from service.errors import CallFailed, JobLost, Misconfigured, Rejected, Throttled, Unavailable
from service.jobs import JobProvider, PollTimes, follow
from service.limits import Limits
from service.notes import Job
from service.telemetry import AccountStatistics, AccountTelemetry

FIRST_BACK_OFF, LONGEST_BACK_OFF = 0.5, 30.0
"""Seconds that an account is left alone after a failure, and at most after many in a row."""
MOST_LOSSES = 4
"""Jobs that a batch, or at last a document, may lose while others are answered, before it is taken to be the cause."""
_NOTE_PATIENCE = 5.0
"""Seconds that a job's note may still take where the batch is given up."""
LONGEST_QUIET = 3600.0
"""Seconds that a `Retry-After` is believed: a slip in one header must not silence an account for years."""

log = structlog.get_logger(__name__)


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


class JobNotes(Protocol):
    """Where is noted which jobs are under way."""

    async def note(self, job: Job, documents: Sequence[Document]) -> None:
        """Note a job that was submitted; when this returns, that is safe. Raises Misconfigured."""
        ...


class Unnoted:
    """Where nothing is noted."""

    async def note(self, job: Job, documents: Sequence[Document]) -> None:
        """As `JobNotes.note`."""


_UNNOTED = Unnoted()


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
        self._jobs = provider if isinstance(provider, JobbingProvider) else None
        self._ask = self._by_job(provider) if isinstance(provider, JobbingProvider) else _by_call(provider)
        self._job_deadline = job_deadline
        self._poll_times = PollTimes()

    def fits(self, characters: int) -> bool:
        """Whether the account takes a document of so many characters at all."""
        return characters <= self.provider.characters_per_document

    async def classify(self, documents: Sequence[Document], notes: JobNotes) -> list[Outcome]:
        """One outcome for each document; errors as in `service.errors`, and the account takes note of them."""
        return await self._attended(self._ask(documents, notes))

    async def resume(self, job: Job, documents: Mapping[int, Document]) -> list[Outcome]:
        """The same for documents of a job that was submitted in an earlier life, by their numbers in it."""
        return await self._attended(self._resumed(job, documents))

    async def _attended(self, asking: Awaitable[list[Outcome]]) -> list[Outcome]:
        asked_at = _now()
        try:
            outcomes = await asking
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
        self.limits.answered(outcomes)
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

    async def give_up(self, job: Job) -> None:
        """Have a job cancelled that nobody wants the answers of."""
        if self._jobs is not None:
            await self._tidied(self._jobs.cancel(job.name))

    async def clear(self, job: Job) -> None:
        """Have what a job has left behind taken away."""
        if self._jobs is not None:
            await self._tidied(self._jobs.clear(job.name))

    async def _tidied(self, tidying: Awaitable[None]) -> None:
        try:
            await tidying
        except CallFailed as error:
            log.warning("job_left", account=self.name, reason=str(error))

    def _by_job(self, provider: JobbingProvider) -> Callable[[Sequence[Document], JobNotes], Awaitable[list[Outcome]]]:
        async def ask(documents: Sequence[Document], notes: JobNotes) -> list[Outcome]:
            began = _now()
            name = await provider.submit(documents)
            job = Job(self.name, provider.model, name, time.time(), len(documents))
            async with _meanwhile(notes.note(job, documents)):
                outcomes, polls = await self._follow(provider, job, dict(enumerate(documents)))
            self.telemetry.job(_now() - began, polls)
            return outcomes

        return ask

    async def _resumed(self, job: Job, documents: Mapping[int, Document]) -> list[Outcome]:
        if self._jobs is None or self._jobs.model != job.model:
            raise JobLost(f"accounts.{self.name}: a job was submitted to another model, {job.model}")
        age = max(0.001, time.time() - job.submitted_at)
        outcomes, _ = await self._follow(self._jobs, job, documents, age)
        return outcomes

    async def _follow(
        self, provider: JobbingProvider, job: Job, documents: Mapping[int, Document], age: float = 0.0
    ) -> tuple[list[Outcome], int]:
        return await follow(
            provider,
            job.name,
            documents,
            self._poll_times,
            deadline=self._job_deadline,
            setback=self._set_back,
            age=age,
        )

    def _set_back(self, error: Throttled | Unavailable, asked_at: float = math.inf) -> None:
        reason = _reason(error)
        self.telemetry.retried(reason, error.retry_after)
        if isinstance(error, JobLost):
            self.telemetry.error("job", "job_lost")
        if isinstance(error, Throttled):
            self.limits.throttled()
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

    `asked_at` is when they first were, as Unix time; `answered` is whether a part of them has its answer. `job` is one
    of an earlier life that has them already, under these `numbers`.
    """

    documents: Sequence[Document]
    job: Job | None = None
    numbers: Sequence[int] = ()
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

    @property
    def cost(self) -> float:
        """What was billed for it by the unit."""
        return self.account.limits.tariff.cost(self.outcomes)


class Dispatcher:
    """The accounts of a stream, in order of preference, and its priority among the streams that ask them, too."""

    def __init__(self, accounts: Sequence[Account], priority: float = 1.0) -> None:
        self.accounts = accounts
        self._stream = Stream(priority)
        providers = [account.provider for account in accounts]
        self.documents_per_call = min(provider.documents_per_call for provider in providers)
        self.characters_per_call = min(provider.characters_per_call for provider in providers)
        self.characters_per_document = max(provider.characters_per_document for provider in providers)

    def share(self, partitions: int, of: int) -> None:
        """So many of the stream's partitions are ours, and so much of what its accounts may be asked for."""
        for account in self.accounts:
            account.limits.share(self._stream, min(1.0, max(partitions, 1) / max(of, 1)))

    async def classify(self, batch: Batch, notes: JobNotes = _UNNOTED) -> list[Answer]:
        """Answers that together cover every document of the batch, however long it takes.

        Jobs that are submitted on the way are noted. Raises Misconfigured: asking again would not help.
        """
        if batch.job is None:
            return await self._classify(batch, batch.documents, MOST_LOSSES, notes)
        try:
            return [await self._resume(batch, batch.job)]
        except (JobLost, Rejected, Misconfigured) as loss:  # if a setting is wrong, the next job says so
            log.info("job_not_resumed", account=batch.job.account, documents=len(batch.documents), reason=str(loss))
        portions = [self._classify(batch, portion, MOST_LOSSES, notes) for portion in self._portions(batch.documents)]
        return [answer for answers in await asyncio.gather(*portions) for answer in answers]

    async def give_up(self, jobs: Iterable[Job]) -> None:
        """Have jobs cancelled whose answers nobody wants."""
        for job in jobs:
            if (account := self._named(job.account)) is not None:
                await account.give_up(job)

    async def clear(self, jobs: Iterable[Job]) -> None:
        """Have what jobs have left behind taken away, as all that came of them is safe."""
        accounts = [(account, job) for job in jobs if (account := self._named(job.account)) is not None]
        await asyncio.gather(*(account.clear(job) for account, job in accounts))

    def _named(self, name: str) -> Account | None:
        return next((account for account in self.accounts if account.name == name), None)

    async def _resume(self, batch: Batch, job: Job) -> Answer:
        """What a job of an earlier life answers. Raises JobLost, Rejected and Misconfigured."""
        if (account := self._named(job.account)) is None:
            raise JobLost(f"there is no account {job.account!r} any more")
        with batch.out():
            outcomes = await account.resume(job, dict(zip(batch.numbers, batch.documents, strict=True)))
        account.telemetry.resumed(len(outcomes))
        batch.answered = True
        return Answer(batch.documents, outcomes, account, 1, time.time())

    def _portions(self, documents: Sequence[Document]) -> Iterator[Sequence[Document]]:
        """Documents that belonged together elsewhere, as they can be asked for here."""
        batcher = Batcher(self.documents_per_call, self.characters_per_call, math.inf)
        yield from batcher.add(documents, 0.0)
        yield from batcher.flush()

    async def _classify(
        self, batch: Batch, documents: Sequence[Document], most_losses: int, notes: JobNotes
    ) -> list[Answer]:
        attempts, losses, began = 0, 0, _now()
        lengths = [len(document.text) for document in documents]
        fitting, characters = [account for account in self.accounts if account.fits(max(lengths))], sum(lengths)
        while True:
            account = await _ready(fitting)
            async with account.limits.admit(
                characters, len(documents), lambda: _well(fitting) is not None, self._stream
            ) as admitted:
                if not admitted:
                    continue
                attempts += 1
                with batch.out():
                    try:
                        account.telemetry.asked(len(documents), characters, account.provider.documents_per_call)
                        outcomes = await account.classify(documents, notes)
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
            first = await self._classify(batch, documents[:half], _losses(half), notes)
            return first + await self._classify(batch, documents[half:], _losses(len(documents) - half), notes)


def _losses(documents: int) -> int:
    """Jobs that a part of a batch may lose: to halve it again costs little, the verdict on one document is final."""
    return MOST_LOSSES if documents == 1 else 1


def _by_call(provider: CallProvider) -> Callable[[Sequence[Document], JobNotes], Awaitable[list[Outcome]]]:
    return lambda documents, _: provider.classify(documents)


@asynccontextmanager
async def _meanwhile(noting: Coroutine[None, None, None]) -> AsyncIterator[None]:
    """Have it noted while the block waits for answers: these leave no sooner than the note is safe."""
    task = asyncio.create_task(noting)
    try:
        yield
        await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait([task], timeout=_NOTE_PATIENCE)
        task.cancel()
        raise
    except BaseException:
        await task
        raise


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
