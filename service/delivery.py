"""How outcomes leave the pipeline: published and resolved, with the guarantee that a stream has asked for.

At least once, messages are published as they come and offsets committed on a timer: a crash in between repeats results.
Exactly once, results gather until the timer, and leave with the offsets they are for in one transaction a partition:
both are seen, or neither. What a transaction says is finished is exactly what it holds, so where there is no room in
the commit's metadata to say so of a result, that result waits until there is.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from operator import is_
from typing import Protocol, runtime_checkable

import structlog

from service.documents import Message, Outcome, Position, Reason, Record, Refused
from service.errors import Fenced, Unavailable
from service.jobs.ledger import Ledger
from service.observability.telemetry import StreamTelemetry
from service.offsets import Mark, Offsets, Partition
from service.routing.records import dead_letter
from service.settings import Stream

log = structlog.get_logger(__name__)


class Sink(Protocol):
    """Where messages go."""

    async def publish(self, messages: Sequence[Message]) -> list[Message]:
        """Publish all of them; when this returns they are safe. It waits while nobody can take them.

        Gives those that are too large for their topic, which are not published.
        """
        ...


class Committing(Protocol):
    """Where marks are kept."""

    async def commit(self, marks: Mapping[Partition, Mark]) -> None:
        """Remember how far we are. Raises Fenced or Unavailable."""
        ...


@runtime_checkable
class Transactions(Protocol):
    """Where a mark and the messages that it speaks of become visible together."""

    async def transact(self, partition: Partition, mark: Mark, messages: Sequence[Message]) -> list[Message]:
        """Publish the messages and commit the mark, or do neither. It waits while nobody can take them.

        Gives the messages that are too large for their topic, in which case nothing was done. Raises Fenced when the
        partition is another's by now.
        """
        ...


@dataclass(frozen=True, slots=True)
class Finished:
    """Records that are done with, and the messages that say so.

    Each has its outcome (None: it is skipped), and the number of times that it was asked for.
    """

    records: Sequence[Record]
    outcomes: Sequence[Outcome | None]
    attempts: Sequence[int]
    messages: Sequence[Message]

    def of(self, records: Iterable[Record]) -> "Finished":
        """The same of some of the records, in that order."""
        wanted = list(records)
        if len(wanted) == len(self.records) and all(map(is_, wanted, self.records)):
            return self
        places = {id(record): place for place, record in enumerate(self.records)}
        messages: dict[Position, list[Message]] = {}
        for message in self.messages:
            messages.setdefault(message.source, []).append(message)
        chosen = [places[id(record)] for record in wanted]
        return Finished(
            wanted,
            [self.outcomes[place] for place in chosen],
            [self.attempts[place] for place in chosen],
            [message for record in wanted for message in messages.get(record.position, ())],
        )


class Delivery(Protocol):
    """What the pipeline hands finished records to."""

    def expect(self, records: Sequence[Record]) -> None:
        """Take note of records that were taken in hand, in the order of the input."""
        ...

    async def deliver(self, finished: Finished) -> None:
        """Have records published and resolved; when this returns they are, or they are not ours any more."""
        ...

    async def hand_on(self, finished: Finished) -> Awaitable[None]:
        """The same, but return as soon as what is handed on next will be seen after it; gives what ends when it is."""
        ...

    async def commit(self) -> None:
        """Commit what may be committed."""
        ...

    def give_up(self, records: Iterable[Record]) -> None:
        """Take note that records are left to the next owner of their partitions."""
        ...

    def forget(self, partitions: Sequence[Partition]) -> None:
        """Let go of what is held of partitions that are another's from now on."""
        ...


class AtLeastOnce:
    """Publishes at once and commits later; a failed commit costs repeats after a restart and nothing else."""

    def __init__(
        self,
        stream: Stream,
        source: Committing,
        sink: Sink,
        offsets: Offsets,
        *,
        ledger: Ledger,
        telemetry: StreamTelemetry,
    ) -> None:
        self._stream = stream
        self._source = source
        self._sink = sink
        self._offsets = offsets
        self._ledger = ledger
        self._telemetry = telemetry
        self._turn = asyncio.Lock()

    async def deliver(self, finished: Finished) -> None:
        """As `Delivery.deliver`."""
        if too_large := await self._sink.publish(finished.messages):
            finished, letters = _without(self._stream, finished, too_large)
            await self._sink.publish(letters)
        self._offsets.resolve(finished.records)
        self._telemetry.finished(finished.records, finished.outcomes)

    async def hand_on(self, finished: Finished) -> Awaitable[None]:
        """As `Delivery.hand_on`: once it is published."""
        await self.deliver(finished)
        return _nothing()

    async def commit(self) -> None:
        """As `Delivery.commit`."""
        async with self._turn:
            if not (marks := self._offsets.committable()):
                return
            began = time.monotonic()
            try:
                await self._source.commit(marks)
            except Fenced:
                self._telemetry.committed("fenced", time.monotonic() - began)
            except Unavailable as error:
                self._telemetry.committed("failed", time.monotonic() - began)
                log.warning("commit_failed", topic=self._stream.input, reason=str(error))
            else:
                self._offsets.committed(marks)
                self._telemetry.committed("committed", time.monotonic() - began)
                for partition, mark in marks.items():
                    self._ledger.discard(self._ledger.superfluous(partition, mark))

    def expect(self, records: Sequence[Record]) -> None:
        """As `Delivery.expect`, in no order."""

    def give_up(self, records: Iterable[Record]) -> None:
        """As `Delivery.give_up`: nothing waits for them."""

    def forget(self, partitions: Sequence[Partition]) -> None:
        """As `Delivery.forget`: nothing is held."""


class ExactlyOnce:
    """Holds what is finished until the next commit, which publishes it with the offsets in one transaction.

    A partition is another's as soon as a transaction is `fenced`, whatever the group says of it yet.
    """

    def __init__(
        self,
        stream: Stream,
        transactions: Transactions,
        offsets: Offsets,
        *,
        ledger: Ledger,
        telemetry: StreamTelemetry,
        fenced: Callable[[Partition], None],
    ) -> None:
        self._stream = stream
        self._transactions = transactions
        self._offsets = offsets
        self._ledger = ledger
        self._telemetry = telemetry
        self._fenced = fenced
        self._held: dict[Partition, list[_Held]] = {}
        self._turn = asyncio.Lock()

    def expect(self, records: Sequence[Record]) -> None:
        """As `Delivery.expect`, in no order."""

    async def deliver(self, finished: Finished) -> None:
        """As `Delivery.deliver`."""
        await (await self.hand_on(finished))

    async def hand_on(self, finished: Finished) -> Awaitable[None]:
        """As `Delivery.hand_on`: at once, as transactions take what was handed on first."""
        waiting, messages = _Waiting(len(finished.records)), dict[Position, list[Message]]()
        for message in finished.messages:
            messages.setdefault(message.source, []).append(message)
        for each in zip(finished.records, finished.outcomes, finished.attempts, strict=True):
            topic, number, _ = position = each[0].position
            held = _Held(*each, messages.get(position, []), waiting)
            self._held.setdefault(Partition(topic, number), []).append(held)
        return waiting.done

    async def commit(self) -> None:
        """As `Delivery.commit`: one transaction for each partition that has something new."""
        async with self._turn, asyncio.TaskGroup() as transactions:
            for partition in {*self._held, *self._offsets.partitions}:
                transactions.create_task(self._transact(partition))

    def give_up(self, records: Iterable[Record]) -> None:
        """As `Delivery.give_up`: nothing waits for them."""

    def forget(self, partitions: Sequence[Partition]) -> None:
        """As `Delivery.forget`."""
        for partition in partitions:
            for each in self._held.pop(partition, ()):
                each.waiting.told()

    async def _transact(self, partition: Partition) -> None:
        held, began = self._held.get(partition, []), time.monotonic()
        covering = self._offsets.covering(partition, [each.record for each in held])
        if covering is None:
            return
        mark, records = covering
        covered = set(map(id, records))
        leaving = [each for each in held if id(each.record) in covered]
        finished = _together(leaving)
        erased = self._ledger.superfluous(partition, mark)
        erasing = self._ledger.erasing(erased)
        try:
            while too_large := await self._transactions.transact(partition, mark, [*finished.messages, *erasing]):
                finished, _ = _without(self._stream, finished, too_large)
        except Fenced as error:
            log.warning("partition_fenced", topic=partition.topic, partition=partition.number, reason=str(error))
            self._telemetry.committed("fenced", time.monotonic() - began)
            self._fenced(partition)
            return
        self._offsets.resolve(records)
        self._offsets.committed({partition: mark})
        self._ledger.strike(erased)
        self._telemetry.committed("committed", time.monotonic() - began)
        self._telemetry.finished(finished.records, finished.outcomes)
        if partition in self._held:  # else it was forgotten meanwhile, and everybody has been told
            self._held[partition] = [each for each in self._held[partition] if id(each.record) not in covered]
            for each in leaving:
                each.waiting.told()


async def _nothing() -> None:
    """What is over already."""


class _Waiting:
    """What a deliverer waits for: done when each of its records is."""

    def __init__(self, records: int) -> None:
        self.left = records
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._look()

    def told(self) -> None:
        """One of them is."""
        self.left -= 1
        self._look()

    def _look(self) -> None:
        if self.left == 0 and not self.done.done():
            self.done.set_result(None)


@dataclass(frozen=True, slots=True, eq=False)
class _Held:
    record: Record
    outcome: Outcome | None
    attempts: int
    messages: Sequence[Message]
    waiting: _Waiting


def _together(held: Sequence[_Held]) -> Finished:
    return Finished(
        [each.record for each in held],
        [each.outcome for each in held],
        [each.attempts for each in held],
        [message for each in held for message in each.messages],
    )


def _without(stream: Stream, finished: Finished, too_large: Sequence[Message]) -> tuple[Finished, list[Message]]:
    """The same with dead letters in place of results that their topic does not take; a copy is merely missing."""
    outcomes, letters, left_out = [*finished.outcomes], list[Message](), set(map(id, too_large))
    places = {record.position: place for place, record in enumerate(finished.records)}
    for message in too_large:
        if message.topic != stream.output:
            log.warning("copy_too_large", topic=message.topic, position=str(message.source), bytes=message.size)
            continue
        place = places[message.source]
        said = f"the result has {message.size:,} bytes with its key and headers, more than its topic takes"
        refused = outcomes[place] = Refused(Reason.RESULT_TOO_LARGE, said)
        letters.append(dead_letter(stream, finished.records[place], refused, finished.attempts[place]))
    kept = [message for message in finished.messages if id(message) not in left_out]
    return replace(finished, outcomes=outcomes, messages=[*kept, *letters]), letters
