"""Who answers a batch: accounts in order of preference, tried until one does.

An outage is not the documents' fault: while no account can answer, a batch waits here and its offsets stay uncommitted.
A request that is refused for its content, or whose job is lost time and again while others are answered, is halved
until the document at fault stands alone.
"""

import asyncio
import math
import time
from collections.abc import (
    AsyncIterator,
    Awaitable,
    Callable,
    Collection,
    Coroutine,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
)
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import structlog

from service import spending
from service.admission import Stream
from service.batches import Most, packed
from service.breaker import FIRST_WAIT, BackOff, BreakerStatistics, State
from service.documents import AnsweredFrom, Document, Outcome, Reason, Refused, bytes_of
from service.errors import CallFailed, JobLost, Misconfigured, Rejected, Throttled, Unavailable
from service.hedging import Hedging
from service.jobs import JobProvider, PollTimes, follow
from service.limits import Limits
from service.notes import Job
from service.offsets import Partition
from service.parts import merged, split
from service.spending import Spending
from service.telemetry import AccountStatistics, AccountTelemetry

LONGEST_BACK_OFF = 30.0
"""Seconds, at most, that an account is left alone which throttles and does not say for how long."""
LONGEST_PAUSE = 4.0
"""Seconds, at most, that a batch waits which nobody has answered, while an account is taken to be well."""
MOST_LOSSES = 4
"""Jobs that a batch, or at last a document, may lose while others are answered, before it is taken to be the cause."""
_NOTE_PATIENCE = 5.0
"""Seconds that a job's note may still take where the batch is given up."""
_SOONER = 0.5
"""Times what jobs seem to take, after which they are looked for when that is doubted."""
_BYTES_OF_A_CHARACTER = 4  # at most
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


class Unnoted:
    """Where nothing is noted."""

    async def note(self, job: Job, documents: Sequence[Document]) -> None:
        """As `JobNotes.note`."""

    def claimed(self, part: Document, account: str) -> None:
        """As `JobNotes.claimed`."""


_UNNOTED = Unnoted()


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
        self._poll_times = PollTimes()
        self._doubts = 0
        limits.breaker.changed = self._log_breaker

    @property
    def most(self) -> Most:
        """What one call may hold."""
        provider = self.provider
        return Most(provider.documents_per_call, provider.characters_per_call, provider.bytes_per_call)

    def takes(self, text: str) -> bool:
        """Whether the account takes a text of that length at all."""
        characters, most = len(text), self.provider.bytes_per_document
        return characters <= self.provider.characters_per_document and (
            characters * _BYTES_OF_A_CHARACTER <= most or bytes_of(text) <= most
        )

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
        return AccountStatistics(self.name, self.kind, self.limits.statistics())

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


class _Elsewhere(Exception):
    """The account that has begun a document in parts is down, and another is well."""


@dataclass(frozen=True, slots=True)
class _Able:
    """Accounts that take some documents, in order of preference; the one that has `begun` alone, until it is down."""

    accounts: Sequence[Account]
    begun: Account | None = None

    @property
    def first(self) -> Account:
        """The first that is ready; where nobody is, whoever will be first, unless one has begun."""
        return next((account for account in self._asked if account.is_ready), self.begun or self._soonest)

    def first_but(self, failed: Collection[Account]) -> Account | None:
        """As `first`, but without those that have just failed on the documents; None where that leaves no one for now.

        Raises _Elsewhere where it is another than had begun.
        """
        ready = [account for account in self._asked if account.is_ready]
        account = next((account for account in ready if account not in failed), None) if ready else self.first
        if account is not None and self.begun not in {None, account}:
            raise _Elsewhere
        return account

    def other_than(self, account: Account) -> Account:
        """Who is asked a second time: the next that is ready and answers calls, or else the same."""
        others = () if self.begun is not None else self.accounts
        return next((each for each in others if each is not account and each.is_ready and not each.has_jobs), account)

    def has_one(self) -> bool:
        """Whether one of them is ready."""
        return any(account.is_ready for account in self._asked)

    @property
    def _soonest(self) -> Account:
        return min(self.accounts, key=lambda account: account.limits.quiet_for)

    @property
    def _asked(self) -> Sequence[Account]:
        return self.accounts if self.begun is None or self.begun.is_down else (self.begun,)


class Dispatcher:
    """The accounts of a stream, in order of preference, and its priority among the streams that ask them, too.

    A document that is too long for every one of them is asked for in parts, at most `most_parts`.
    """

    def __init__(self, accounts: Sequence[Account], priority: float = 1.0, most_parts: int = 1) -> None:
        self.accounts = accounts
        self._stream = Stream(priority)
        self._most_parts = most_parts
        self.most = Most(*map(min, zip(*(account.most for account in accounts), strict=True)))
        self._roomiest = max((account.provider for account in accounts), key=lambda each: each.characters_per_document)
        self._never_too_long = min(
            self._roomiest.characters_per_document, self._roomiest.bytes_per_document // _BYTES_OF_A_CHARACTER
        )

    def too_long(self, text: str) -> str | None:
        """Why no account takes a text, not even in parts; None where one does."""
        if len(text) <= self._never_too_long or any(account.takes(text) for account in self.accounts):
            return None
        if self._most_parts > 1 and any(account.cut(text, self._most_parts) for account in self.accounts):
            return None
        parts = f"{self._most_parts} parts of " if self._most_parts > 1 else ""
        if len(text) > self._most_parts * self._roomiest.characters_per_document:
            return f"the text has {len(text):,} characters, more than {parts}{self._roomiest.characters_per_document:,}"
        most = self._roomiest.bytes_per_document
        return f"the text has {bytes_of(text):,} bytes in UTF-8, more than {parts}{most:,}"

    def share(self, partitions: int, of: int) -> None:
        """So many of the stream's partitions are ours, and so much of what its accounts may be asked for."""
        for account in self.accounts:
            account.limits.share(self._stream, min(1.0, max(partitions, 1) / max(of, 1)))

    def take_over(self, partition: Partition, metadata: str, of: int) -> None:
        """A partition is ours, one of so many of the stream's: what was spent for it before counts from now on."""
        kept = spending.read(metadata)
        for name, each in self._budgets:
            each.take_over(partition, 1 / max(of, 1), kept.get(name))

    def beside(self, partition: Partition, of: int) -> str:
        """What is to be kept with a partition of what was spent, as `take_over` reads it."""
        return spending.written({name: each.kept(partition, 1 / max(of, 1)) for name, each in self._budgets})

    def settle(self) -> None:
        """Have it be exact what is kept with partitions, as some are about to move."""
        for _, each in self._budgets:
            each.settle()

    def give_up_partitions(self, partitions: Iterable[Partition]) -> None:
        """Partitions are another's, and so is what was spent for them."""
        for partition in partitions:
            for _, each in self._budgets:
                each.give_up(partition)

    @property
    def _budgets(self) -> Iterator[tuple[str, Spending]]:
        return ((each.name, each.limits.spending) for each in self.accounts if each.limits.spending is not None)

    async def classify(self, batch: Batch, notes: JobNotes = _UNNOTED) -> list[Answer]:
        """Answers that together cover every document of the batch, however long it takes.

        Jobs that are submitted on the way are noted. Raises Misconfigured: asking again would not help.
        """
        if batch.job is None:
            return await self._ask(batch, batch.documents, notes)
        try:
            return [await self._resume(batch, batch.job)]
        except (JobLost, Rejected, Misconfigured) as loss:  # if a setting is wrong, the next job says so
            log.info("job_not_resumed", account=batch.job.account, documents=len(batch.documents), reason=str(loss))
        return await self._ask_apart(batch, packed(batch.documents, self.most), notes)

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

    async def _ask_apart(self, batch: Batch, groups: Iterable[Sequence[Document]], notes: JobNotes) -> list[Answer]:
        asking = [self._ask(batch, documents, notes) for documents in groups]
        return [answer for answers in await asyncio.gather(*asking) for answer in answers]

    async def _ask(self, batch: Batch, documents: Sequence[Document], notes: JobNotes) -> list[Answer]:
        """Answers of the accounts that take each of the documents; those that none takes are asked for in parts."""
        if able := [account for account in self.accounts if all(account.takes(each.text) for each in documents)]:
            return await self._classify(batch, documents, MOST_LOSSES, notes, _Able(able))
        if len(documents) == 1:
            return [await self._ask_in_parts(batch, documents[0], notes)]
        apart = [[each] for each in documents if not any(account.takes(each.text) for account in self.accounts)]
        over_long = {id(each) for (each,) in apart}
        if together := [each for each in documents if id(each) not in over_long]:
            half = len(together) if apart else len(together) // 2  # each has its account, all have none
            apart += [part for part in (together[:half], together[half:]) if part]
        return await self._ask_apart(batch, apart, notes)

    async def _ask_in_parts(self, batch: Batch, document: Document, notes: JobNotes) -> Answer:
        """The answer for a document that is too long for every account, of one that is asked for all of its parts.

        Which account began it is believed to be well for a while, as what it has answered is paid for. If another has
        to take over it does so from the beginning, for no two models' scores are alike.
        """
        cut = {account: _parts(document, account.cut(document.text, self._most_parts)) for account in self.accounts}
        able = [account for account in self.accounts if cut[account]]
        if not able:
            refused = Refused(Reason.TOO_LONG, self.too_long(document.text) or "")
            return Answer([document], [refused], self.accounts[0], 1, time.time())
        answers = {account: await self._resume_parts(batch, account, cut[account], notes) for account in able}
        begun = next((account for account in able if answers[account]), None)
        while True:
            account = begun or _Able(able).first
            parts, answered, begun = cut[account], answers[account], None
            missing = [part for part in parts if part.part not in answered]
            one = _Able([account, *(other for other in able if other is not account)], begun=account)
            portions = packed(missing, account.most)
            asking = [self._classify(batch, portion, MOST_LOSSES, notes, one) for portion in portions]
            for came in await asyncio.gather(*asking, return_exceptions=True):
                if isinstance(came, BaseException) and not isinstance(came, _Elsewhere):
                    raise came
                if not isinstance(came, BaseException):
                    answered |= {part.part: answer for answer in came for part in answer.documents}
            if len(answered) == len(parts):
                return _joined(document, parts, answered)

    async def _resume_parts(
        self, batch: Batch, account: Account, parts: Sequence[Document], notes: JobNotes
    ) -> dict[int, Answer]:
        """What jobs of an earlier life answer of a document's parts."""
        jobs: dict[Job, dict[int, Document]] = {}
        for part in parts:
            if claim := notes.claimed(part, account.name):
                job, number = claim
                jobs.setdefault(job, {})[number] = part
        answered = dict[int, Answer]()
        for job, held in jobs.items():
            resumed = Batch([*held.values()], job, [*held])
            try:
                with batch.out():
                    answer = await self._resume(resumed, job)
            except (JobLost, Rejected, Misconfigured) as loss:
                log.info("job_not_resumed", account=job.account, documents=1, reason=str(loss))
            else:
                batch.answered = True
                answered |= {part.part: answer for part in answer.documents}
        return answered

    async def _classify(
        self, batch: Batch, documents: Sequence[Document], most_losses: int, notes: JobNotes, able: "_Able"
    ) -> list[Answer]:
        attempts, losses, began = 0, 0, _now()
        failed, pause = set[Account](), BackOff()
        characters = sum(len(document.text) for document in documents)
        while True:
            account = able.first_but(failed)
            if account is None:
                await asyncio.sleep(pause.next(LONGEST_PAUSE))
                failed.clear()
                continue
            async with account.limits.admit(characters, len(documents), able.has_one, self._stream) as admitted:
                if not admitted:
                    continue
                attempts += 1
                with batch.out():
                    try:
                        account.telemetry.asked(len(documents), characters, account.provider.documents_per_call)
                        outcomes, by, second = await self._in_time(account, documents, characters, notes, able)
                    except JobLost as loss:
                        losses += 1
                        failed.add(account)
                        if losses < most_losses or account.answered_at < began:
                            continue  # others fare no better, so it is not these documents' fault
                        rejection: CallFailed = loss
                    except (Throttled, Unavailable):
                        failed.add(account)
                        continue
                    except Rejected as refusal:
                        rejection = refusal
                    else:
                        batch.answered = True
                        return [Answer(documents, outcomes, by, attempts, time.time(), second=second)]
                    if len(documents) == 1:
                        refused = Refused(Reason.REFUSED_BY_CLASSIFIER, str(rejection))
                        batch.answered = True
                        return [Answer(documents, [refused], account, attempts, time.time())]
            half = len(documents) // 2
            first = await self._classify(batch, documents[:half], _losses(half), notes, able)
            rest = documents[half:]
            return first + await self._classify(batch, rest, _losses(len(rest)), notes, able)

    async def _in_time(
        self, account: Account, documents: Sequence[Document], characters: int, notes: JobNotes, able: "_Able"
    ) -> tuple[list[Outcome], Account, float]:
        """The outcomes, who gave them, and what a call may cost that was given up, as another was answered first.

        A call that is late is asked a second time, where that is wanted and nothing would hold it.
        """
        hedging = account.limits.hedging
        if hedging is None:
            return await account.classify(documents, notes), account, 0.0
        began = _now()
        hedging.asked()
        first = asyncio.create_task(account.classify(documents, notes))
        second: asyncio.Task[list[Outcome] | None] | None = None
        try:
            await asyncio.wait([first], timeout=hedging.after)
            if not first.done() and hedging.may:
                hedging.take()
                other = able.other_than(account)
                second = asyncio.create_task(self._ask_again(other, hedging, documents, characters, notes))
                await asyncio.wait([first, second], return_when=asyncio.FIRST_COMPLETED)
                if not _is_answered(first) and (outcomes := await second) is not None:
                    account.telemetry.hedged(won=True)
                    hedging.answered(_now() - began)
                    return outcomes, other, account.limits.charge(outcomes)
            outcomes = await first
            hedging.answered(_now() - began)
            paid = 0.0
            if second is not None and not (second.done() and second.result() is None):
                account.telemetry.hedged(won=False)
                paid = other.limits.charge(outcomes) if not second.done() else other.limits.tariff.cost(outcomes)
            return outcomes, account, paid
        finally:
            await _ended(first, second)

    async def _ask_again(
        self, other: Account, hedging: Hedging, documents: Sequence[Document], characters: int, notes: JobNotes
    ) -> list[Outcome] | None:
        """What another answers that is free; None where it is not, or fails."""
        async with other.limits.spare(characters, len(documents), self._stream) as admitted:
            if not admitted:
                hedging.give_back()
                return None
            other.telemetry.asked(len(documents), characters, other.provider.documents_per_call)
            try:
                return await other.classify(documents, notes)
            except CallFailed:
                return None


def _is_answered(call: asyncio.Task[list[Outcome]]) -> bool:
    return call.done() and call.exception() is None


async def _ended(*tasks: asyncio.Task[Any] | None) -> None:
    """Have tasks end, whatever comes of them."""
    left = [task for task in tasks if task is not None]
    for task in left:
        task.cancel()
    await asyncio.gather(*left, return_exceptions=True)


def _parts(document: Document, texts: Sequence[str] | None) -> list[Document]:
    return [document._replace(text=text, part=number) for number, text in enumerate(texts or (), 1)]


def _joined(document: Document, parts: Sequence[Document], answers: Mapping[int, Answer]) -> Answer:
    """The answer for a document by those for its parts."""
    given = [answers[part.part] for part in parts]
    outcomes = [
        dict(zip((each.part for each in answer.documents), answer.outcomes, strict=True))[part.part]
        for part, answer in zip(parts, given, strict=True)
    ]
    account = given[0].account
    account.telemetry.joined(len(parts))
    outcome = merged([part.text for part in parts], outcomes, account.provider.task)
    return Answer([document], [outcome], account, max(each.attempts for each in given), max(each.at for each in given))


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


def _reason(error: CallFailed) -> str:
    if isinstance(error, JobLost):
        return "job_lost"
    return "throttled" if isinstance(error, Throttled) else "unavailable"


def _now() -> float:
    return asyncio.get_running_loop().time()
