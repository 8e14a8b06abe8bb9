"""Who answers a batch: the accounts of a stream in order of preference, of those that take its documents."""

import asyncio
import time
from collections.abc import Collection, Iterable, Iterator, Sequence

import structlog

from service.batches import Most, packed
from service.dispatch.account import Account, JobNotes
from service.dispatch.answers import Answer, Batch
from service.dispatch.calls import Able, Calls, resume
from service.dispatch.in_parts import InParts
from service.documents import Document, Reason, Refused, bytes_of
from service.errors import JobLost, Misconfigured, Rejected
from service.jobs.notes import Job
from service.limits import spending
from service.limits.admission import Stream
from service.limits.spending import Spending
from service.offsets import Partition

log = structlog.get_logger(__name__)


class Dispatcher:
    """The accounts of a stream, in order of preference, and its priority among the streams that ask them, too.

    A document that is too long for every one of them is asked for in parts, at most `most_parts`.
    """

    def __init__(self, accounts: Sequence[Account], priority: float | Stream = 1.0, most_parts: int = 1) -> None:
        self.accounts = accounts
        self._stream = priority if isinstance(priority, Stream) else Stream(priority)
        self._calls = Calls(self._stream)
        self._in_parts = InParts(accounts, self._calls, most_parts)
        self.most = Most(*map(min, zip(*(account.most for account in accounts), strict=True)))
        self._roomiest = max((account.provider for account in accounts), key=lambda each: each.characters_per_document)
        self._all = Able(accounts)
        self.takes_any_of = min(account.takes_any_of for account in accounts)
        """The most characters of which each of them takes any text."""

    def among(self, names: Collection[str], priority: float | None = None) -> "Dispatcher":
        """The same for some of its accounts, in the order of these names, on behalf of the same stream.

        With a `priority` it is as good as another stream, which is asked for beside.
        """
        accounts = [account for name in names for account in self.accounts if account.name == name]
        return Dispatcher(accounts, self._stream if priority is None else priority, self._in_parts.most)

    @property
    def is_away(self) -> bool:
        """Whether none of its accounts is worth waiting for: each is down, or its money is spent."""
        return not any(account.is_ready or not account.is_down for account in self.accounts)

    def too_long(self, text: str) -> str | None:
        """Why no account takes a text, not even in parts; None where one does."""
        if len(text) <= self.takes_any_of or any(account.takes(text) for account in self.accounts):
            return None
        if self._in_parts.can_cut(text):
            return None
        most_parts = self._in_parts.most
        parts = f"{most_parts} parts of " if most_parts > 1 else ""
        if len(text) > most_parts * self._roomiest.characters_per_document:
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

    async def classify(self, batch: Batch, notes: JobNotes) -> list[Answer]:
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
        return await resume(batch, job, dict(zip(batch.numbers, batch.documents, strict=True)), account)

    async def _ask_apart(self, batch: Batch, groups: Iterable[Sequence[Document]], notes: JobNotes) -> list[Answer]:
        asking = [self._ask(batch, documents, notes) for documents in groups]
        return [answer for answers in await asyncio.gather(*asking) for answer in answers]

    async def _ask(self, batch: Batch, documents: Sequence[Document], notes: JobNotes) -> list[Answer]:
        """Answers of the accounts that take each of the documents; those that none takes are asked for in parts."""
        if max(len(each.text) for each in documents) <= self.takes_any_of:
            return await self._calls.ask(batch, documents, notes, self._all)
        if able := [account for account in self.accounts if all(account.takes(each.text) for each in documents)]:
            return await self._calls.ask(batch, documents, notes, Able(able))
        if len(documents) == 1:
            return [await self._ask_in_parts(batch, documents[0], notes)]
        apart = [[each] for each in documents if not any(account.takes(each.text) for account in self.accounts)]
        over_long = {id(each) for (each,) in apart}
        if together := [each for each in documents if id(each) not in over_long]:
            half = len(together) if apart else len(together) // 2  # each has its account, all have none
            apart += [part for part in (together[:half], together[half:]) if part]
        return await self._ask_apart(batch, apart, notes)

    async def _ask_in_parts(self, batch: Batch, document: Document, notes: JobNotes) -> Answer:
        if (answer := await self._in_parts.ask(batch, document, notes)) is not None:
            return answer
        refused = Refused(Reason.TOO_LONG, self.too_long(document.text) or "")
        return Answer([document], [refused], self.accounts[0], 1, time.time())
