"""What every source and every sink has to keep, whatever is behind it: a suite for each, given a harness."""

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Protocol

import pytest

from service.delivery import Sink
from service.documents import Message, Position, Record
from service.errors import Fenced
from service.offsets import METADATA_LIMIT, Mark, Offsets, Partition, Range, Room, encode
from service.source import Source

Found = tuple[bytes | None, bytes | None, list[tuple[str, bytes]]]
"""Key, value and headers of a message."""

PATIENCE = 30.0
PLENTY = Room(1000, 64 * 1024**2)


class SourceHarness(Protocol):
    """An input with one partition, empty at first."""

    async def fill(self, values: Sequence[bytes]) -> None:
        """Append a record for each value; each value is a JSON object on one line."""
        ...

    def source(self) -> Source:
        """A new source, which goes on where what was committed by the one before it says."""
        ...


class GroupHarness(SourceHarness, Protocol):
    """The same, of a source whose partitions come and go."""

    def taken_away(self, source: Source) -> AbstractAsyncContextManager[None]:
        """Take the partition away from an open source, as a rebalance does, and give it back when the block ends."""
        ...


class SinkHarness(Protocol):
    """Topics with one partition each, empty at first."""

    def topic(self) -> str:
        """A new topic."""
        ...

    def sink(self) -> AbstractAsyncContextManager[Sink]:
        """A sink that is open for the length of the block."""
        ...

    async def published(
        self, topic: str, count: int
    ) -> Sequence[tuple[bytes | None, bytes | None, list[tuple[str, bytes]]]]:
        """Key, value and headers of the messages of a topic, which are `count`, in order."""
        ...


def values(count: int, first: int = 0) -> list[bytes]:
    return [b'{"text": "%d"}' % number for number in range(first, first + count)]


@dataclass
class Holder:
    """Holds partitions as a pipeline does: tracks what is read, and commits what is finished."""

    source: Source
    offsets: Offsets = field(default_factory=lambda: Offsets(10_000, 64 * 1024**2))
    marks: dict[Partition, Mark | None] = field(default_factory=dict)
    told: list[str] = field(default_factory=list)

    async def assigned(self, marks: Mapping[Partition, Mark | None]) -> None:
        self.told.append("assigned")
        self.marks |= marks
        for partition, mark in marks.items():
            self.offsets.assign(partition, mark)

    async def revoked(self, partitions: Iterable[Partition]) -> None:
        partitions = list(partitions)
        self.told.append("revoked")
        await self.commit()
        self.offsets.forget(partitions)

    async def poll(self, room: Room = PLENTY, timeout: float = 0.2) -> list[Record] | None:
        return await self.source.poll(room, timeout)

    async def take(self, count: int, room: Room = PLENTY) -> list[Record]:
        """Poll until so many records have come, and not one more."""
        taken: list[Record] = []
        async with asyncio.timeout(PATIENCE):
            while len(taken) < count:
                records = await self.poll(room)
                assert records is not None, f"the input ended after {len(taken)} of {count}"
                assert len(records) <= room.documents
                taken += records
        assert len(taken) == count
        return self.offsets.track(taken)

    async def commit(self) -> None:
        if marks := self.offsets.committable():
            await self.source.commit(marks)
            self.offsets.committed(marks)


class SourceContract:
    """Subclass it with a fixture `harness`."""

    async def test_every_record_is_read_once_and_in_order(self, harness: SourceHarness) -> None:
        await harness.fill(values(50))
        holder = Holder(harness.source())
        async with holder.source.opened(holder):
            records = await holder.take(50)
            assert not await holder.poll()
        assert [each.value for each in records] == values(50)
        positions = [each.position for each in records]
        assert positions == sorted(set(positions))
        assert len({position[:2] for position in positions}) == 1

    async def test_the_owner_is_told_of_its_partitions_before_it_gets_records(self, harness: SourceHarness) -> None:
        await harness.fill(values(1))
        holder = Holder(harness.source())
        async with holder.source.opened(holder):
            (first,) = await holder.take(1)
            assert Partition(*first.position[:2]) in holder.marks
            (mark,) = holder.marks.values()
            assert mark in (None, Mark(first.position.offset)), (
                "where nothing was committed, it begins at the beginning"
            )

    async def test_no_more_is_given_than_there_is_room_for(self, harness: SourceHarness) -> None:
        await harness.fill(values(20))
        holder = Holder(harness.source())
        async with holder.source.opened(holder):
            records = await holder.take(3, Room(3, PLENTY.bytes))
            assert await holder.poll(Room(0, 0)) == []
            records += await holder.take(1, Room(1, PLENTY.bytes))
            assert await holder.poll(Room(0, 0)) == []
            records += await holder.take(16)
        assert [each.value for each in records] == values(20)

    async def test_a_poll_without_room_reads_nothing_and_comes_back(self, harness: SourceHarness) -> None:
        holder = Holder(harness.source())
        async with holder.source.opened(holder), asyncio.timeout(PATIENCE):
            assert await holder.poll(Room(0, 0)) == []

    async def test_a_poll_gives_up_in_time(self, harness: SourceHarness) -> None:
        holder, loop = Holder(harness.source()), asyncio.get_running_loop()
        async with holder.source.opened(holder):
            for timeout in (0, 0.2):
                began = loop.time()
                assert not await holder.poll(timeout=timeout)
                assert loop.time() - began < timeout + 2

    async def test_the_next_source_goes_on_where_this_one_committed(self, harness: SourceHarness) -> None:
        await harness.fill(values(10))
        first = Holder(harness.source())
        async with first.source.opened(first):
            records = await first.take(10)
            first.offsets.resolve(records[:4] + records[6:8])
            await first.commit()
        await harness.fill(values(2, first=10))
        second = Holder(harness.source())
        async with second.source.opened(second):
            async with asyncio.timeout(PATIENCE):
                read: list[Record] = []
                while len(read) < 8:
                    read += await second.poll() or []
            wanted = second.offsets.track(read)
        assert [each.value for each in wanted] == [values(1, number)[0] for number in (4, 5, 8, 9, 10, 11)]
        (mark,) = second.marks.values()
        assert mark is not None
        assert mark.offset == records[4].position.offset

    async def test_what_was_not_committed_is_read_again(self, harness: SourceHarness) -> None:
        await harness.fill(values(3))
        for _ in range(2):
            holder = Holder(harness.source())
            async with holder.source.opened(holder):
                assert [each.value for each in await holder.take(3)] == values(3)

    async def test_metadata_comes_back_as_it_was_committed(self, harness: SourceHarness) -> None:
        await harness.fill(values(5))
        first = Holder(harness.source())
        async with first.source.opened(first):
            (record, *_) = await first.take(5)
            partition = Partition(*record.position[:2])
            stretches = [Range(first, first) for first in range(7, 2800, 2)]
            mark = Mark(record.position.offset + 2, encode(record.position.offset + 2, stretches))
            assert METADATA_LIMIT // 2 < len(mark.metadata) <= METADATA_LIMIT
            await first.source.commit({partition: mark})
        second = Holder(harness.source())
        async with second.source.opened(second):
            await second.take(3)
            assert second.marks == {partition: mark}


class GroupContract(SourceContract):
    """Subclass it, in place of `SourceContract`, for a source whose partitions come and go."""

    async def test_partitions_that_come_back_go_on_where_they_were_committed(self, harness: GroupHarness) -> None:
        await harness.fill(values(10))
        holder = Holder(harness.source())
        async with holder.source.opened(holder):
            records = await holder.take(10)
            holder.offsets.resolve(records[:4] + records[6:8])
            async with harness.taken_away(holder.source):
                assert holder.offsets.partitions == (), "it was told, and was let commit before"
                await harness.fill(values(1, first=10))
                assert not await holder.poll()
            async with asyncio.timeout(PATIENCE):
                read: list[Record] = []
                while len(read) < 7:
                    read += await holder.poll() or []
            wanted = holder.offsets.track(read)
        assert [each.value for each in wanted] == [values(1, number)[0] for number in (4, 5, 8, 9, 10)]
        assert [holder.told[0], holder.told[-1]] == ["assigned", "assigned"]
        assert "revoked" in holder.told

    async def test_a_commit_for_a_partition_that_is_gone_is_fenced(self, harness: GroupHarness) -> None:
        await harness.fill(values(1))
        holder = Holder(harness.source())
        async with holder.source.opened(holder):
            (record,) = await holder.take(1)
            async with harness.taken_away(holder.source):
                with pytest.raises(Fenced):
                    await holder.source.commit({Partition(*record.position[:2]): Mark(1)})

    async def test_the_ends_of_assigned_partitions_are_known(self, harness: GroupHarness) -> None:
        await harness.fill(values(7))
        holder = Holder(harness.source())
        async with holder.source.opened(holder):
            (first, *_) = await holder.take(7)
            partition = Partition(*first.position[:2])
            assert holder.source.ends() == {partition: first.position.offset + 7}
            async with harness.taken_away(holder.source):
                assert partition not in holder.source.ends()


class SinkContract:
    """Subclass it with a fixture `harness`."""

    async def test_what_was_published_is_there_in_order_when_publish_returns(self, harness: SinkHarness) -> None:
        topic = harness.topic()
        async with harness.sink() as sink:
            await sink.publish([message(topic, b"%d" % i) for i in range(40)])
            await sink.publish([message(topic, b"%d" % i) for i in range(40, 50)])
            found = await harness.published(topic, 50)
        assert [value for _, value, _ in found] == [b"%d" % i for i in range(50)]

    async def test_key_value_and_headers_arrive_byte_for_byte(self, harness: SinkHarness) -> None:
        topic, headers = harness.topic(), [("a", b"\xff\x00"), ("ä", b""), ("a", b"again")]
        async with harness.sink() as sink:
            await sink.publish([message(topic, b"\x00\xff\n", key=b"\xfe", headers=headers)])
            assert await harness.published(topic, 1) == [(b"\xfe", b"\x00\xff\n", headers)]

    async def test_key_and_value_may_each_be_missing(self, harness: SinkHarness) -> None:
        topic = harness.topic()
        async with harness.sink() as sink:
            await sink.publish([message(topic, None, key=b"k"), message(topic, b"v"), message(topic, b"", key=b"")])
            assert await harness.published(topic, 3) == [(b"k", None, []), (None, b"v", []), (b"", b"", [])]

    async def test_messages_of_one_call_may_go_to_several_topics(self, harness: SinkHarness) -> None:
        one, other = harness.topic(), harness.topic()
        async with harness.sink() as sink:
            await sink.publish([message(one, b"1"), message(other, b"2"), message(one, b"3")])
            assert [value for _, value, _ in await harness.published(one, 2)] == [b"1", b"3"]
            assert [value for _, value, _ in await harness.published(other, 1)] == [b"2"]

    async def test_nothing_to_publish_is_no_error(self, harness: SinkHarness) -> None:
        async with harness.sink() as sink:
            await sink.publish([])

    async def test_many_may_publish_at_once(self, harness: SinkHarness) -> None:
        topic = harness.topic()
        async with harness.sink() as sink:
            await asyncio.gather(
                *(sink.publish([message(topic, b"%d-%d" % (i, j)) for j in range(5)]) for i in range(20))
            )
            found = [value or b"" for _, value, _ in await harness.published(topic, 100)]
        for i in range(20):
            assert [value for value in found if value.startswith(b"%d-" % i)] == [b"%d-%d" % (i, j) for j in range(5)]


def message(
    topic: str, value: bytes | None, *, key: bytes | None = None, headers: Sequence[tuple[str, bytes]] = ()
) -> Message:
    return Message(topic, key, value, headers, Position(topic, 0, 0))
