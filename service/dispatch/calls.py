"""A call, asked of one account after the other until one answers, however long it takes.

An outage is not the documents' fault: while nobody can answer, a call waits here. One that is refused for its content,
or whose job is lost time and again while others are answered, is halved until the document at fault stands alone.
"""

import asyncio
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from service.dispatch.account import Account, JobNotes
from service.dispatch.answers import Answer, Batch
from service.documents import Document, Outcome, Reason, Refused
from service.errors import CallFailed, JobLost, Rejected, Throttled, Unavailable
from service.jobs.notes import Job
from service.limits.admission import Stream
from service.limits.breaker import BackOff
from service.limits.hedging import Hedging

LONGEST_PAUSE = 4.0
"""Seconds, at most, that a call waits which nobody has answered, while an account is taken to be well."""
MOST_LOSSES = 4
"""Jobs that a call, or at last a document, may lose while others are answered, before it is taken to be the cause."""


class Elsewhere(Exception):
    """The account that has begun a document in parts is down, and another is well."""


@dataclass(frozen=True, slots=True)
class Able:
    """Accounts that take some documents, in order of preference; the one that has `begun` alone, until it is down."""

    accounts: Sequence[Account]
    begun: Account | None = None

    @property
    def first(self) -> Account:
        """The first that is ready; where nobody is, whoever will be first, unless one has begun."""
        return next((account for account in self._asked if account.is_ready), self.begun or self._soonest)

    def first_but(self, failed: Collection[Account]) -> Account | None:
        """As `first`, but without those that have just failed on the documents; None where that leaves no one for now.

        Raises Elsewhere where it is another than had begun.
        """
        ready = [account for account in self._asked if account.is_ready]
        account = next((account for account in ready if account not in failed), None) if ready else self.first
        if account is not None and self.begun not in {None, account}:
            raise Elsewhere
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


class Calls:
    """The calls of a stream, with its priority among the streams that ask the same accounts."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream

    async def ask(
        self,
        batch: Batch,
        documents: Sequence[Document],
        notes: JobNotes,
        able: Able,
        most_losses: int = MOST_LOSSES,
    ) -> list[Answer]:
        """Answers that together cover these documents of a batch.

        Jobs that are submitted on the way are noted. Raises Misconfigured, and Elsewhere as `Able.first_but` does.
        """
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
            first = await self.ask(batch, documents[:half], notes, able, _losses(half))
            rest = documents[half:]
            return first + await self.ask(batch, rest, notes, able, _losses(len(rest)))

    async def _in_time(
        self, account: Account, documents: Sequence[Document], characters: int, notes: JobNotes, able: Able
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


async def resume(batch: Batch, job: Job, documents: Mapping[int, Document], account: Account) -> Answer:
    """What a job of an earlier life answers for documents of a batch, by their numbers in it.

    Raises JobLost, Rejected and Misconfigured.
    """
    with batch.out():
        outcomes = await account.resume(job, documents)
    account.telemetry.resumed(len(outcomes))
    batch.answered = True
    return Answer([*documents.values()], outcomes, account, 1, time.time())


def _losses(documents: int) -> int:
    """Jobs that a part of a batch may lose: to halve it again costs little, the verdict on one document is final."""
    return MOST_LOSSES if documents == 1 else 1


def _is_answered(call: asyncio.Task[list[Outcome]]) -> bool:
    return call.done() and call.exception() is None


async def _ended(*tasks: asyncio.Task[Any] | None) -> None:
    """Have tasks end, whatever comes of them."""
    left = [task for task in tasks if task is not None]
    for task in left:
        task.cancel()
    await asyncio.gather(*left, return_exceptions=True)


def _now() -> float:
    return asyncio.get_running_loop().time()
