"""Records and messages in memory: the same two shapes as Kafka, for tests and for trying things out."""

import asyncio
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

from service.documents import Message, Position, Record
from service.errors import Fenced
from service.jobs import notes
from service.jobs.notes import Note
from service.offsets import METADATA_LIMIT, Mark, Partition, Room
from service.source import Owner


class MemorySource:
    """Gives what was added to it; ends after that when `ends`, else waits for more.

    `committed` is what a broker would remember: hand it to the next source to go on where this one left off.
    """

    metadata_limit = METADATA_LIMIT

    def __init__(
        self,
        records: Iterable[Record] = (),
        *,
        committed: Mapping[Partition, Mark] | None = None,
        ends: bool = True,
        partitions: Iterable[Partition] = (),
    ) -> None:
        self.committed: dict[Partition, Mark] = dict(committed or {})
        self._records: dict[Partition, list[Record]] = {partition: [] for partition in partitions}
        self._next: dict[Partition, int] = {}
        self._assigned: set[Partition] = set()
        self._reading: set[Partition] = set()  # of those, which are not about to be taken away
        self._ends = ends
        self._added = asyncio.Event()
        self._owner: Owner | None = None
        for record in records:
            self.add(record)

    def add(self, record: Record) -> None:
        """Append a record to its partition."""
        self._records.setdefault(Partition(*record.position[:2]), []).append(record)
        self._added.set()

    @asynccontextmanager
    async def opened(self, owner: Owner) -> AsyncIterator[None]:
        """Read every partition on behalf of `owner`."""
        self._owner = owner
        await self.assign(self._records)
        try:
            yield
        finally:
            self._owner = None

    async def assign(self, partitions: Iterable[Partition]) -> None:
        """Give partitions to the owner, as a rebalance does."""
        partitions = list(partitions)
        marks = {partition: self.committed.get(partition) for partition in partitions}
        for partition, mark in marks.items():
            records = self._records[partition]
            begin = mark.offset if mark else 0
            following = (i for i, record in enumerate(records) if record.position.offset >= begin)
            self._next[partition] = next(following, len(records))
        self._assigned.update(partitions)
        if self._owner is not None:
            await self._owner.assigned(marks)
        self._reading.update(partitions)
        self._added.set()

    async def revoke(self, partitions: Iterable[Partition]) -> None:
        """Take partitions from the owner, as a rebalance does."""
        partitions = list(partitions)
        self._reading.difference_update(partitions)
        if self._owner is not None:
            await self._owner.revoked(partitions)
        self._assigned.difference_update(partitions)

    async def poll(self, room: Room, timeout: float) -> list[Record] | None:
        """As `source.Source.poll`."""
        if room.documents and not self._pending():
            if self._ends:
                return None
            self._added.clear()
            try:
                await asyncio.wait_for(self._added.wait(), timeout)
            except TimeoutError:
                return []
        await asyncio.sleep(0)  # as with a broker, others have their turn
        taken: list[Record] = []
        size = 0
        for partition in sorted(self._reading):
            records, begin = self._records[partition], self._next[partition]
            for record in records[begin : begin + room.documents]:
                if len(taken) >= room.documents or size >= room.bytes:
                    break
                taken.append(Record(*record))  # each time another object, as from a broker
                size += record.size
                self._next[partition] += 1
        return taken

    async def commit(self, marks: Mapping[Partition, Mark]) -> None:
        """As `source.Source.commit`."""
        if lost := [partition for partition in marks if partition not in self._assigned]:
            raise Fenced(f"not assigned: {lost}")
        self.committed.update(marks)

    def partitions(self) -> int:
        """As `source.Source.partitions`."""
        return len(self._records)

    def ends(self) -> dict[Partition, int]:
        """As `source.Source.ends`."""
        return {
            partition: self._records[partition][-1].position.offset + 1 if self._records[partition] else 0
            for partition in self._assigned
        }

    def _pending(self) -> bool:
        return any(self._next[partition] < len(self._records[partition]) for partition in self._reading)


class TransactionalMemorySource(MemorySource):
    """A source whose marks and messages become visible together, the messages in `sink`."""

    def __init__(self, sink: "MemorySink", records: Iterable[Record] = (), **source: Any) -> None:
        super().__init__(records, **source)
        self._sink = sink

    async def transact(self, partition: Partition, mark: Mark, messages: Sequence[Message]) -> list[Message]:
        """As `delivery.Transactions.transact`."""
        await asyncio.sleep(0)
        if too_large := self._sink.too_large(messages):
            return too_large
        await self.commit({partition: mark})
        await self._sink.publish(messages)
        return []


class MemoryNotes:
    """Notes of jobs among the messages of a sink, in a topic of theirs."""

    def __init__(self, sink: "MemorySink", topic: str = "jobs") -> None:
        self._sink = sink
        self._topic = topic

    async def read(self, partitions: Iterable[Partition]) -> list[Note]:
        """As `ledger.Shelf.read`."""
        wanted, kept = set(partitions), dict[tuple[Partition, bytes | None], bytes | None]()
        for message in self._sink.to(self._topic):
            kept[Partition(*message.source[:2]), message.key] = message.value
        found = [notes.read(partition, value) for (partition, _), value in kept.items() if value]
        return [note for note in found if note and note.partition in wanted]

    async def write(self, kept: Sequence[Note]) -> None:
        """As `ledger.Shelf.write`."""
        await self._sink.publish([self._message(note, notes.written(note)) for note in kept])

    async def erase(self, erased: Sequence[Note]) -> None:
        """As `ledger.Shelf.erase`."""
        await self._sink.publish(self.erasing(erased))

    def erasing(self, erased: Sequence[Note]) -> list[Message]:
        """As `ledger.Shelf.erasing`."""
        return [self._message(note, None) for note in erased]

    def _message(self, note: Note, value: bytes | None) -> Message:
        return Message(self._topic, note.key.encode(), value, (), Position(*note.partition, note.last))


class MemorySink:
    """Keeps the messages that are published, in order; `largest` is the most bytes of a message, by topic."""

    def __init__(self, largest: Mapping[str, int] | None = None) -> None:
        self.messages: list[Message] = []
        self._largest = largest or {}

    async def publish(self, messages: Sequence[Message]) -> list[Message]:
        """As `delivery.Sink.publish`."""
        left_out = self.too_large(messages)
        self.messages += [message for message in messages if message not in left_out]
        await asyncio.sleep(0)
        return left_out

    def too_large(self, messages: Sequence[Message]) -> list[Message]:
        """Those that their topic does not take."""
        return [message for message in messages if message.size > self._largest.get(message.topic, message.size)]

    def to(self, topic: str) -> list[Message]:
        """The messages published to a topic."""
        return [message for message in self.messages if message.topic == topic]
