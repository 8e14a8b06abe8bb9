"""Results of a key in the order of the input: what was answered early waits for those before it, and nothing else does.

Documents are asked for in whatever order is best: only what is finished waits here until it is its turn. Lines are of a
partition and a key; a record without a key is in none. What is refused, or skipped, has its turn like all others, so
that a key's results and dead letters tell one story.

A record that is left to the next owner of its partition takes with it those behind it, which are read again after it.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Sequence
from itertools import takewhile

from service.delivery import Delivery, Finished
from service.documents import Record
from service.offsets import Offsets, Partition

_Key = tuple[str, int, bytes]


class Lines:
    """Who is before whom. Pure; `is_ours` says whether a record is still to be finished by us."""

    def __init__(self, is_ours: Callable[[Record], bool]) -> None:
        self._is_ours = is_ours
        self._lines: dict[_Key, deque[Record]] = {}
        self._standing = set[int]()

    def join(self, records: Iterable[Record]) -> None:
        """Records were read, in this order."""
        for record in records:
            if record.key is not None:
                self._lines.setdefault(_key(record), deque()).append(record)
                self._standing.add(id(record))

    def has(self, record: Record) -> bool:
        """Whether a record has its turn still to come; one without a key has it at any time."""
        return record.key is None or id(record) in self._standing

    def turn(self, records: Sequence[Record]) -> list[Record]:
        """Those of the records whose turn it is, in order; they stand in line until they `go`."""
        wanted, turn = set(map(id, records)), [record for record in records if record.key is None]
        for key in dict.fromkeys(_key(record) for record in records if record.key is not None):
            line = self._lines.get(key, deque())
            while line and id(line[0]) not in wanted and not self._is_ours(line[0]):
                self._standing.discard(id(line.popleft()))  # the input was begun anew, and this is not in it
            turn += takewhile(lambda record: id(record) in wanted, line)
        return turn

    def go(self, records: Iterable[Record]) -> list[Record]:
        """Records whose turn it was are gone; gives those whose turn it is now."""
        called = dict[_Key, Record]()
        for record in records:
            if record.key is None or not self.has(record):
                continue
            line = self._lines[key := _key(record)]
            self._standing.discard(id(line.popleft()))
            called.pop(key, None)
            if line:
                called[key] = line[0]
            else:
                del self._lines[key]
        return [*called.values()]

    def leave(self, records: Iterable[Record]) -> list[Record]:
        """Records are left to others, and so are those behind them, which are given."""
        gone = []
        for record in records:
            if record.key is not None and self.has(record):
                line = self._lines[_key(record)]
                while line[-1] is not record:
                    gone.append(line.pop())
                gone.append(line.pop())
                self._standing.difference_update(map(id, gone))
                if not line:
                    del self._lines[_key(record)]
        return gone

    def forget(self, partitions: Iterable[Partition]) -> list[Record]:
        """Partitions are another's, with all who stand in line there; these are given."""
        others = {tuple(partition) for partition in partitions}
        keys = [key for key in self._lines if key[:2] in others]
        gone = [record for key in keys for record in self._lines.pop(key)]
        self._standing.difference_update(map(id, gone))
        return gone


def _key(record: Record) -> _Key:
    topic, number, _ = record.position
    return topic, number, record.key or b""


class InOrder:
    """A `Delivery` that hands on to another what it is given, each record once those before it have been handed on."""

    def __init__(self, then: Delivery, offsets: Offsets) -> None:
        self._then = then
        self._offsets = offsets
        self._lines = Lines(lambda record: bool(offsets.owned([record])))
        self._waiting: dict[int, asyncio.Event] = {}
        self.commit = then.commit

    def expect(self, records: Sequence[Record]) -> None:
        """As `Delivery.expect`."""
        self._lines.join(records)

    async def deliver(self, finished: Finished) -> None:
        """As `Delivery.deliver`. What is left to others while it waits is not delivered."""
        await (await self.hand_on(finished))

    async def hand_on(self, finished: Finished) -> Awaitable[None]:
        """As `Delivery.hand_on`."""
        moved, handed = asyncio.Event(), list[Awaitable[None]]()
        while left := [each for each in finished.records if self._lines.has(each)]:
            if turn := self._lines.turn(left):
                self._offsets.take_up(turn)
                handed.append(await self._then.hand_on(finished.of(turn)))
                self._wake(self._lines.go(turn))
                gone = set(map(id, turn))
                finished = finished.of(each for each in left if id(each) not in gone)
            else:
                await self._wait(left, moved)
        return _all(handed)

    def give_up(self, records: Iterable[Record]) -> None:
        """As `Delivery.give_up`."""
        self._wake(self._lines.leave(records))

    def forget(self, partitions: Sequence[Partition]) -> None:
        """As `Delivery.forget`."""
        self._wake(self._lines.forget(partitions))
        self._then.forget(partitions)

    async def _wait(self, records: Sequence[Record], moved: asyncio.Event) -> None:
        """Wait until it is the turn of one of the records, or of none any more; they hold up no stop meanwhile."""
        self._offsets.abandon(records)
        moved.clear()
        self._waiting |= dict.fromkeys(map(id, records), moved)
        try:
            await moved.wait()
        finally:
            for record in records:
                self._waiting.pop(id(record), None)

    def _wake(self, records: Iterable[Record]) -> None:
        for record in records:
            if id(record) in self._waiting:
                self._waiting[id(record)].set()


async def _all(handed: Iterable[Awaitable[None]]) -> None:
    for each in handed:
        await each
