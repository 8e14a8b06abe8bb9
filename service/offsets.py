"""What has been read, what is finished, and what may therefore be committed.

Documents finish out of order; Kafka's commit is one number a partition. What is committed is the position below which
everything is finished (the low-water mark), and beside it, in the commit's metadata, the finished offsets above it, so
that a restart repeats only what was unfinished.

A record is its own receipt: what counts is the very object that was read under the present assignment. A partition
that was taken away and given back holds other objects, so an answer that comes late resolves nothing.

The tracker's capacity is the back-pressure: a source is asked for only as much as there is room.
Offsets are those received, never a range, because compaction and transaction markers leave gaps.
"""

import asyncio
import base64
import binascii
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import NamedTuple

from service.documents import Record

METADATA_LIMIT = 4096
"""Bytes of metadata that a broker takes with an offset (`offset.metadata.max.bytes`, default)."""

_FORMAT = "1:"
_BESIDE = ";"
"""Ends whatever stands before the finished stretches."""
_NOTHING = (None, 0)


class Partition(NamedTuple):
    """One partition of an input topic."""

    topic: str
    number: int


class Mark(NamedTuple):
    """What is committed for a partition: the next offset to read, and which offsets above it are finished."""

    offset: int
    metadata: str = ""


class Room(NamedTuple):
    """How much more may be read: records, and bytes."""

    documents: int
    bytes: int


class Range(NamedTuple):
    """Offsets from `first` to `last`, both included."""

    first: int
    last: int


@dataclass(frozen=True, slots=True)
class PartitionStatistics:
    """A partition as it stands.

    `low_water` is the next mark, `committed` the last (or where reading began), `oldest` the timestamp (ms) of the
    first unfinished record that has one.
    """

    low_water: int
    committed: int
    highest: int
    unfinished: int
    oldest: int | None


@dataclass(frozen=True, slots=True)
class OffsetsStatistics:
    """How full the tracker is, and every assigned partition."""

    documents: int
    bytes: int
    partitions: Mapping[Partition, PartitionStatistics]


class _Progress:
    __slots__ = ("abandoned", "closing", "committed", "highest", "restored", "unfinished")

    def __init__(self, committed: Mark | None) -> None:
        self.unfinished: dict[int, tuple[Record, int]] = {}  # with sizes; ascending, as records arrive in that order
        self.abandoned: set[int] = set()  # of those, which nobody is working on any more
        self.highest = committed.offset - 1 if committed else -1
        self.restored = decode(committed) if committed else ()
        self.committed = committed
        self.closing = False

    @property
    def low_water(self) -> int:
        return next(iter(self.unfinished), self.highest + 1)

    def mark(self, limit: int, beside: str, finished: AbstractSet[int] = frozenset()) -> tuple[Mark, bool]:
        """What would be committed if these offsets were finished too, and whether all of it has room in it.

        `beside` is kept before it in the metadata.
        """
        unfinished = [offset for offset in self.unfinished if offset not in finished]
        low_water = unfinished[0] if unfinished else self.highest + 1
        above = list(self._finished_above(low_water, unfinished))
        mark = Mark(low_water, beside + encode(low_water, above, limit - len(beside)))
        return mark, len(decode(mark)) == len(above)

    @property
    def is_idle(self) -> bool:
        return len(self.abandoned) == len(self.unfinished)

    def was_finished_before(self, offset: int) -> bool:
        i = bisect_right(self.restored, offset, key=lambda stretch: stretch.first)
        return i > 0 and offset <= self.restored[i - 1].last

    def _finished_above(self, low_water: int, unfinished: Iterable[int]) -> Iterator[Range]:
        following = low_water
        for offset in unfinished:
            if offset > following:
                yield Range(following, offset - 1)
            following = offset + 1
        if self.highest >= following:
            yield Range(following, self.highest)
        for stretch in self.restored:
            if stretch.last > self.highest:
                yield Range(max(stretch.first, self.highest + 1), stretch.last)


class Offsets:
    """The tracker of one stream: `documents` and `bytes` are the most that may be unfinished at once.

    A mark's metadata is at most `metadata_limit` characters long. What else is to be kept with a partition is given by
    `beside`: nothing, or text that ends with a semicolon and has no colon.
    """

    def __init__(
        self,
        documents: int,
        bytes: int,  # noqa: A002  the field's own word, as in the settings
        metadata_limit: int = METADATA_LIMIT,
        beside: Callable[[Partition], str] = lambda _: "",
    ) -> None:
        self._partitions: dict[tuple[str, int], _Progress] = {}  # a Partition is equal to the plain pair
        self._capacity = documents
        self._byte_capacity = bytes
        self._metadata_limit = metadata_limit
        self._beside = beside
        self._documents = 0
        self._bytes = 0
        self._changed = asyncio.Event()

    def assign(self, partition: Partition, committed: Mark | None) -> None:
        """Begin a partition where its last commit left it (None: it has none)."""
        self.forget([partition])  # whatever was read under a former assignment is read again
        self._partitions[partition] = _Progress(committed)

    def track(self, records: Iterable[Record]) -> list[Record]:
        """Take records into account and give those that need work: others were finished in an earlier life.

        Records of a partition that is not assigned, or is being given up, are left out; their next owner reads them.
        """
        wanted = []
        for record in records:
            topic, number, offset = record.position
            progress = self._partitions.get((topic, number))
            if progress is None or progress.closing:
                continue
            if progress.committed is None:
                progress.committed = Mark(offset)  # where it begins: no news, so nothing to commit
            elif offset <= progress.highest:
                self._go_back(progress, offset)
            progress.highest = offset
            if progress.restored and progress.was_finished_before(offset):
                continue
            size = record.size
            progress.unfinished[offset] = record, size
            self._documents += 1
            self._bytes += size
            wanted.append(record)
        return wanted

    def _go_back(self, progress: _Progress, offset: int) -> None:
        """The input was begun anew (a topic that was cut off or made again): what is read now replaces what was."""
        for replaced in [before for before in progress.unfinished if before >= offset]:
            self._drop(progress, replaced)
        progress.restored = ()

    def _drop(self, progress: _Progress, offset: int) -> None:
        _, size = progress.unfinished.pop(offset)
        progress.abandoned.discard(offset)
        self._documents -= 1
        self._bytes -= size

    def owned(self, records: Iterable[Record]) -> list[Record]:
        """Those of the records that are unfinished and ours to finish: these very objects, not their likes."""
        found = []
        for record in records:
            topic, number, offset = record.position
            progress = self._partitions.get((topic, number))
            if progress is not None and progress.unfinished.get(offset, _NOTHING)[0] is record:
                found.append(record)
        return found

    def resolve(self, records: Iterable[Record]) -> None:
        """Say that records are finished; those of a former assignment change nothing."""
        for record in records:
            topic, number, offset = record.position
            progress = self._partitions.get((topic, number))
            if progress is not None and progress.unfinished.get(offset, _NOTHING)[0] is record:
                self._drop(progress, offset)
        self._changed.set()

    def abandon(self, records: Iterable[Record]) -> None:
        """Say that records, where unfinished, are not being worked on any more; they still hold the mark."""
        for record in self.owned(records):
            topic, number, offset = record.position
            self._partitions[topic, number].abandoned.add(offset)
        self._changed.set()

    def take_up(self, records: Iterable[Record]) -> None:
        """Say that abandoned records, where unfinished, are being worked on again."""
        if any(progress.abandoned for progress in self._partitions.values()):
            for record in self.owned(records):
                topic, number, offset = record.position
                self._partitions[topic, number].abandoned.discard(offset)

    def highest(self, partition: Partition) -> int:
        """The highest offset read; -1 where the partition is not ours, or nothing was read yet."""
        progress = self._partitions.get(partition)
        return -1 if progress is None else progress.highest

    def close(self, partitions: Iterable[Partition]) -> None:
        """Take no more records of these partitions: they are about to be given up."""
        for partition in partitions:
            if progress := self._partitions.get(partition):
                progress.closing = True

    def is_closing(self, record: Record) -> bool:
        """Whether the record's partition is about to be given up, or is not ours at all."""
        progress = self._partitions.get(record.position[:2])
        return progress is None or progress.closing

    def forget(self, partitions: Iterable[Partition]) -> None:
        """Give partitions up, with whatever is unfinished in them."""
        for partition in partitions:
            if progress := self._partitions.pop(partition, None):
                for offset in list(progress.unfinished):
                    self._drop(progress, offset)
        self._changed.set()

    def committable(self) -> dict[Partition, Mark]:
        """The marks that differ from what is committed."""
        marks = {}
        for partition, progress in self._partitions.items():
            if progress.committed is None:
                continue
            mark, _ = progress.mark(self._metadata_limit, self._beside(Partition(*partition)))
            if mark != progress.committed:
                marks[Partition(*partition)] = mark
        return marks

    def covering(self, partition: Partition, records: Iterable[Record]) -> tuple[Mark, list[Record]] | None:
        """A mark that says that these records are finished too, and those of them that it has room to say it of.

        The lowest come first, for they close gaps. What was finished before keeps its place: it is not unsaid. None
        where the partition is not ours, or nothing in it is new.
        """
        progress = self._partitions.get(partition)
        if progress is None or progress.committed is None:
            return None
        owned = sorted(self.owned(records), key=lambda record: record.position.offset)
        beside = self._beside(partition)

        def tried(count: int) -> tuple[Mark, bool]:
            return progress.mark(self._metadata_limit, beside, {record.position.offset for record in owned[:count]})

        fits = len(owned)
        mark, whole = tried(fits)
        if not whole:
            fits = bisect_left(range(1, len(owned) + 1), x=True, key=lambda count: not tried(count)[1])
            mark, whole = tried(fits)
        return (mark, owned[:fits]) if whole and mark != progress.committed else None

    def committed(self, marks: Mapping[Partition, Mark]) -> None:
        """Take note that these marks are committed."""
        for partition, mark in marks.items():
            if progress := self._partitions.get(partition):
                progress.committed = mark

    @property
    def partitions(self) -> Sequence[Partition]:
        """The assigned partitions."""
        return tuple(Partition(*partition) for partition in self._partitions)

    def room(self) -> Room:
        """How much more may be read; none while either bound is reached."""
        documents, free = self._capacity - self._documents, self._byte_capacity - self._bytes
        if documents <= 0 or free <= 0:
            return Room(0, 0)
        if self._documents:  # sizes to come are guessed from those in hand
            documents = min(documents, max(1, free * self._documents // max(1, self._bytes)))
        return Room(documents, free)

    async def wait_room(self, at_least: int, timeout: float) -> Room:
        """Wait until `at_least` records may be read, or all that the capacity ever allows, or the time is up."""
        await self._wait(lambda: not self._documents or self.room().documents >= at_least, timeout)
        return self.room()

    async def wait_idle(self, partitions: Iterable[Partition], timeout: float) -> bool:
        """Wait until nothing of these partitions is being worked on; False when the time is up before."""
        watched = [progress for partition in partitions if (progress := self._partitions.get(partition))]
        return await self._wait(lambda: all(progress.is_idle for progress in watched), timeout)

    async def _wait(self, condition: Callable[[], bool], timeout: float) -> bool:
        try:
            async with asyncio.timeout(timeout):
                while not condition():
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            return False
        return True

    def statistics(self) -> OffsetsStatistics:
        """A picture of this moment."""
        return OffsetsStatistics(
            self._documents,
            self._bytes,
            {
                Partition(*partition): PartitionStatistics(
                    progress.low_water,
                    progress.committed.offset,
                    progress.highest,
                    len(progress.unfinished),
                    next(
                        (record.timestamp for record, _ in progress.unfinished.values() if record.timestamp > 0), None
                    ),
                )
                for partition, progress in self._partitions.items()
                if progress.committed is not None
            },
        )


def encode(mark: int, finished: Iterable[Range], limit: int = METADATA_LIMIT) -> str:
    """Write finished stretches above a mark as text of at most `limit` characters, the lowest first.

    The form is `1:` and base64 of unsigned LEB128 pairs: the distance from the last stretch (at first from the mark),
    and the length less one. Stretches that do not fit are left out; they repeat after a restart, nothing else.
    """
    room = (limit - len(_FORMAT)) // 4 * 3
    packed, end = bytearray(), mark
    for first, last in finished:
        pair = _varint(first - end) + _varint(last - first)
        if len(packed) + len(pair) > room:
            break
        packed += pair
        end = last + 1
    return _FORMAT + base64.b64encode(packed).decode() if packed else ""


def decode(mark: Mark) -> tuple[Range, ...]:
    """The stretches that `encode` wrote; none where the metadata is somebody else's or damaged."""
    stretches = mark.metadata.rpartition(_BESIDE)[2]
    if not stretches.startswith(_FORMAT):
        return ()
    try:
        packed = base64.b64decode(stretches.removeprefix(_FORMAT), validate=True)
    except (binascii.Error, ValueError):
        return ()
    numbers = list(_numbers(packed))
    finished, end = [], mark.offset
    for distance, length in zip(numbers[::2], numbers[1::2], strict=False):
        finished.append(Range(end + distance, end + distance + length))
        end = finished[-1].last + 1
    return tuple(finished)


def _varint(number: int) -> bytes:
    packed = bytearray()
    while number > 0x7F:
        packed.append(number & 0x7F | 0x80)
        number >>= 7
    packed.append(number)
    return bytes(packed)


def _numbers(packed: bytes) -> Iterator[int]:
    number = shift = 0
    for byte in packed:
        number |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            yield number
            number = shift = 0
