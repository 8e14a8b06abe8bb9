"""Somebody who can answer: a provider of classes, what it may be asked for, and how its calls and jobs go.

How a call fares is noted here, whoever asked for it: an account that throttles is left alone for a while, one that
fails has its breaker know.
"""

import asyncio
import math
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Protocol, runtime_checkable

import structlog

from service.batches import Most
from service.dispatch.parts import split
from service.documents import Document, Outcome, bytes_of
from service.errors import CallFailed, JobLost, Misconfigured, Rejected, Throttled, Unavailable
from service.jobs.following import JobProvider, follow
from service.jobs.notes import Job
from service.jobs.poll_times import CHEAP, DEAR, PollTimes
from service.limits.breaker import FIRST_WAIT, BackOff, BreakerStatistics, State
from service.limits.gate import Limits
from service.observability.telemetry import AccountStatistics, AccountTelemetry

LONGEST_BACK_OFF = 30.0
"""Seconds, at most, that an account is left alone which throttles and does not say for how long."""
LONGEST_QUIET = 3600.0
"""Seconds that a `Retry-After` is believed: a slip in one header must not silence an account for years."""
_NOTE_PATIENCE = 5.0
"""Seconds that a job's note may still take where the batch is given up."""
_SOONER = 0.5
"""Times what jobs seem to take, after which they are looked for when that is doubted."""
_BYTES_OF_A_CHARACTER = 4  # at most

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
    def bytes_per_call(self) -> int:
        """The most bytes that its texts may have in UTF-8."""
        ...

    @property
    def characters_per_document(self) -> int:
        """The most characters that one document may have."""
        ...

    @property
    def bytes_per_document(self) -> int:
        """The most bytes that its text may have in UTF-8."""
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


@runtime_checkable
class ClassesKnown(Protocol):
    """A classifier that can tell beforehand which classes it may give."""

    @property
    def classes(self) -> Sequence[str]:
        """All of them."""
        ...


class JobNotes(Protocol):
    """Where is noted which jobs are under way."""

    async def note(self, job: Job, documents: Sequence[Document]) -> None:
        """Note a job that was submitted; when this returns, that is safe. Raises Misconfigured."""
        ...

    def claimed(self, part: Document, account: str) -> tuple[Job, int] | None:
        """The job of an earlier life that an account has a part of a document in, and its number there; told once."""
        ...


class Account:
    """Somebody who can answer: a provider, and the limits of what it may be asked for, for as long as it is well."""

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
        self._throttling = BackOff()
        self._throttled_at = -math.inf
        self.answered_at = -math.inf
        self._jobs = provider if isinstance(provider, JobbingProvider) else None
        self._ask = self._by_job(provider) if isinstance(provider, JobbingProvider) else _by_call(provider)
        self._job_deadline = job_deadline
        self._poll_times = PollTimes(worth=lambda: DEAR if limits.is_short_of_requests else CHEAP)
        self._heard: dict[str, float] = {}
        self._doubts = 0
        limits.breaker.changed = self._log_breaker

    @property
    def most(self) -> Most:
        """What one call may hold."""
        provider = self.provider
        return Most(provider.documents_per_call, provider.characters_per_call, provider.bytes_per_call)

    @property
    def takes_any_of(self) -> int:
        """The most characters of which it takes any text, whatever they are in UTF-8."""
        provider = self.provider
        return min(provider.characters_per_document, provider.bytes_per_document // _BYTES_OF_A_CHARACTER)

    def takes(self, text: str) -> bool:
        """Whether the account takes a text of that length at all."""
        if len(text) <= self.takes_any_of:
            return True
        provider = self.provider
        return len(text) <= provider.characters_per_document and bytes_of(text) <= provider.bytes_per_document

    def cut(self, text: str, most_parts: int) -> list[str] | None:
        """A text in parts that the account takes; None where those would be too many."""
        return split(text, self.provider.characters_per_document, self.provider.bytes_per_document, most_parts)

    async def classify(self, documents: Sequence[Document], notes: JobNotes) -> list[Outcome]:
        """One outcome for each document; errors as in `service.errors`, and the account takes note of them."""
        if (tracing := self.telemetry.tracing) is None:
            return await self._attended(self._ask(documents, notes))
        with tracing.call(self.name, self.kind, documents):
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
            if isinstance(error, Unavailable):
                self.limits.failed()
            raise
        except Rejected:
            self.limits.taken()
            self.telemetry.error("classify", "document_error")
            raise
        except Misconfigured as error:
            self.telemetry.error("classify", "auth")
            raise Misconfigured(f"accounts.{self.name}: {error}") from None
        self._throttling.reset()
        self.limits.answered(outcomes)
        self.answered_at = _now()
        self.telemetry.answered(outcomes)
        return outcomes

    @property
    def has_jobs(self) -> bool:
        """Whether it answers through jobs."""
        return self._jobs is not None

    @property
    def is_ready(self) -> bool:
        """Whether it may be asked just now."""
        return not self.limits.quiet_for

    @property
    def is_down(self) -> bool:
        """Whether it is not worth waiting for."""
        return self.limits.breaker.is_trying or self.limits.quiet_for > LONGEST_BACK_OFF

    def statistics(self) -> AccountStatistics:
        """A picture of this moment."""
        silent_for = _now() - min(self._heard.values()) if self._heard else 0.0
        return AccountStatistics(self.name, self.kind, self.limits.statistics(), len(self._heard), silent_for)

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
            self._look_sooner()
            name = await provider.submit(documents)
            self.limits.taken()
            job = Job(self.name, provider.model, name, time.time(), len(documents))
            async with _meanwhile(notes.note(job, documents)):
                outcomes, polls = await self._follow(provider, job, dict(enumerate(documents)))
            self.telemetry.job(_now() - began, polls)
            return outcomes

        return ask

    def _look_sooner(self) -> None:
        """Where jobs seem to stand in a queue, see how long they do take: they were looked for no sooner."""
        if self.limits.doubts > self._doubts:
            self._doubts = self.limits.doubts
            self._poll_times.expect(_SOONER)

    async def _resumed(self, job: Job, documents: Mapping[int, Document]) -> list[Outcome]:
        if self._jobs is None or self._jobs.model != job.model:
            raise JobLost(f"accounts.{self.name}: a job was submitted to another model, {job.model}")
        age = max(0.001, time.time() - job.submitted_at)
        outcomes, _ = await self._follow(self._jobs, job, documents, age)
        return outcomes

    async def _follow(
        self, provider: JobbingProvider, job: Job, documents: Mapping[int, Document], age: float = 0.0
    ) -> tuple[list[Outcome], int]:
        def heard() -> None:
            self._heard[job.name] = _now()

        heard()
        try:
            return await follow(
                provider,
                job.name,
                documents,
                self._poll_times,
                deadline=self._job_deadline,
                setback=self._set_back,
                heard=heard,
                age=age,
            )
        finally:
            self._heard.pop(job.name, None)

    def _set_back(self, error: Throttled | Unavailable, asked_at: float = math.inf) -> None:
        reason = _reason(error)
        self.telemetry.retried(reason, error.retry_after)
        if isinstance(error, JobLost):
            self.telemetry.error("job", "job_lost")
        if isinstance(error, Throttled):
            self.limits.throttled()
        if error.retry_after and error.retry_after >= FIRST_WAIT:  # less is no reason to ask again, and again
            self.limits.quiet(min(error.retry_after, LONGEST_QUIET))
        elif isinstance(error, Throttled) and asked_at > self._throttled_at and not self.limits.quiet_for:
            # Calls that were out together are one too many together.
            self._throttled_at = _now()
            self.limits.quiet(self._throttling.next(LONGEST_BACK_OFF))

    def _log_breaker(self, stands: BreakerStatistics) -> None:
        match stands.state:
            case State.OPEN if not stands.trials:
                log.warning("breaker_opened", account=self.name, reason=stands.why, failures=stands.failures)
            case State.CLOSED:
                log.info("breaker_closed", account=self.name, trials=stands.trials, seconds=round(stands.away, 1))
            case _:
                log.debug("breaker_trial", account=self.name, state=stands.state, trials=stands.trials)


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


def _reason(error: CallFailed) -> str:
    if isinstance(error, JobLost):
        return "job_lost"
    return "throttled" if isinstance(error, Throttled) else "unavailable"


def _now() -> float:
    return asyncio.get_running_loop().time()
