import asyncio
import base64
from collections.abc import Iterable
from itertools import accumulate

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from service.documents import Record
from service.offsets import METADATA_LIMIT, Mark, Offsets, Partition, Range, Room, decode, encode
from tests.clock import now, virtual_time
from tests.records import INPUT, record

OTHER = Partition("incoming", 1)


def tracking(*offsets: int, committed: Mark | None = None) -> tuple[Offsets, list[Record]]:
    tracker = Offsets(100, 10_000)
    tracker.assign(INPUT, committed)
    return tracker, tracker.track([record(offset) for offset in offsets])


def mark(tracker: Offsets, partition: Partition = INPUT) -> Mark:
    return tracker.committable()[partition]


def numbers(records: Iterable[Record]) -> list[int]:
    return [each.position.offset for each in records]


def test_the_mark_stays_below_the_first_unfinished_record_whatever_is_finished_above_it() -> None:
    tracker, records = tracking(0, 1, 2, 3, 4)
    assert tracker.committable() == {}
    tracker.resolve(records[1:3])
    assert mark(tracker) == Mark(0, encode(0, [Range(1, 2)]))
    tracker.resolve(records[:1])
    assert mark(tracker) == Mark(3)
    tracker.resolve([records[4]])
    assert mark(tracker) == Mark(3, encode(3, [Range(4, 4)]))
    tracker.resolve([records[3]])
    assert mark(tracker) == Mark(5)


def test_offsets_that_were_never_received_hold_nothing_up() -> None:
    tracker, records = tracking(3, 7, 20)  # compaction and transaction markers leave gaps
    tracker.resolve(records[1:2])
    assert mark(tracker) == Mark(3, encode(3, [Range(4, 19)]))
    tracker.resolve(records[:1])
    assert mark(tracker) == Mark(20)
    tracker.resolve(records[2:])
    assert mark(tracker) == Mark(21)


def test_what_is_committed_is_not_committed_again() -> None:
    tracker, records = tracking(0, 1)
    tracker.resolve(records[:1])
    tracker.committed(tracker.committable())
    assert tracker.committable() == {}
    tracker.resolve(records[1:])
    assert mark(tracker) == Mark(2)


def test_a_mark_that_was_committed_before_is_where_an_assignment_begins() -> None:
    tracker, records = tracking(committed=Mark(7))
    assert tracker.committable() == {}
    assert tracker.statistics().partitions[INPUT].low_water == 7
    tracker.track([record(9)])
    assert mark(tracker) == Mark(9)
    assert records == []


def test_after_a_restart_only_what_was_unfinished_is_worked_on_again() -> None:
    first, records = tracking(*range(10))
    first.resolve(records[i] for i in (0, 2, 3, 7))
    again, repeated = tracking(*range(1, 12), committed=mark(first))
    assert numbers(repeated) == [1, 4, 5, 6, 8, 9, 10, 11]
    again.resolve(repeated)
    assert mark(again) == Mark(12)


@pytest.mark.parametrize("read", range(2, 11))
def test_a_restart_before_the_finished_records_were_read_again_does_not_forget_them(read: int) -> None:
    first, records = tracking(*range(10))
    first.resolve(records[i] for i in (0, 4, 5, 6, 9))
    second, repeated = tracking(*range(1, read), committed=mark(first))
    second.resolve(repeated[:1])
    _, thirdly = tracking(*range(2, 10), committed=mark(second))
    assert numbers(thirdly) == [2, 3, 7, 8]


def test_a_late_answer_of_an_earlier_assignment_resolves_nothing() -> None:
    tracker, early = tracking(0, 1)
    tracker.forget([INPUT])
    tracker.assign(INPUT, None)
    tracker.track([record(0), record(1)])
    tracker.resolve(early)
    tracker.abandon(early)
    assert not tracker.owned(early)
    assert tracker.committable() == {}
    assert tracker.statistics().documents == 2


def test_an_assignment_without_a_revocation_before_it_begins_anew() -> None:
    tracker, early = tracking(0, 1)
    tracker.assign(INPUT, Mark(1))
    assert tracker.statistics().documents == 0
    assert tracker.room() == Room(100, 10_000)
    assert not tracker.owned(early)


def test_an_input_that_begins_anew_is_read_whatever_was_finished_in_what_was_there_before() -> None:
    first, records = tracking(*range(100, 110))
    first.resolve(records[i] for i in (0, 5, 6))
    tracker, _ = tracking(committed=mark(first))
    assert numbers(tracker.track(record(offset) for offset in range(110))) == list(range(110))
    assert tracker.statistics().documents == 110


def test_reading_that_goes_back_holds_the_mark_back_and_loses_nothing() -> None:
    tracker, records = tracking(*range(10))
    tracker.resolve(records[:3])
    again = tracker.track(record(offset) for offset in range(5, 12))
    assert numbers(again) == [5, 6, 7, 8, 9, 10, 11]
    assert tracker.statistics().documents == 2 + 7
    tracker.resolve(records)
    assert mark(tracker) == Mark(5)
    tracker.resolve(again)
    assert mark(tracker) == Mark(12)
    assert tracker.room() == Room(100, 10_000)


def test_records_of_partitions_that_are_not_ours_or_about_to_go_are_left_out() -> None:
    tracker, records = tracking(0)
    assert tracker.track([record(0, partition=OTHER)]) == []
    tracker.close([INPUT, OTHER])
    assert tracker.track([record(1)]) == []
    tracker.resolve(records)
    assert mark(tracker) == Mark(1)


def test_room_is_what_is_left_of_documents_and_bytes_and_comes_back() -> None:
    tracker = Offsets(documents=10, bytes=1000)
    tracker.assign(INPUT, None)
    assert tracker.room() == Room(10, 1000)
    records = tracker.track([record(0, b"x" * 60, key=b"k" * 30, headers=[("h" * 4, b"v" * 6)]), record(1, b"")])
    assert tracker.room() == Room(8, 900)
    records += tracker.track([record(2, b"x" * 500)])
    assert tracker.room() == Room(2, 400)  # those to come are thought to be as large as those in hand
    records += tracker.track([record(3, b"x" * 390)])
    assert tracker.room() == Room(1, 10)
    records += tracker.track([record(4, b"x" * 500)])
    assert tracker.room() == Room(0, 0)
    tracker.resolve(records[:-1])
    assert tracker.room() == Room(1, 500)
    tracker.forget([INPUT])
    assert tracker.room() == Room(10, 1000)


def test_there_is_no_room_when_either_bound_is_reached() -> None:
    tracker = Offsets(documents=2, bytes=1000)
    tracker.assign(INPUT, None)
    tracker.track([record(0), record(1)])
    assert tracker.room() == Room(0, 0)


def test_statistics_tell_of_every_partition_also_of_one_that_is_not_read_yet() -> None:
    tracker = Offsets(100, 1000)
    tracker.assign(INPUT, Mark(5))
    tracker.assign(OTHER, Mark(50))
    first, *_ = tracker.track([record(6, timestamp=1_000), record(9, timestamp=2_000)])
    tracker.resolve([first])
    stands = tracker.statistics()
    assert (stands.documents, stands.bytes) == (1, 1)
    here, there = stands.partitions[INPUT], stands.partitions[OTHER]
    assert (here.low_water, here.committed, here.highest, here.unfinished, here.oldest) == (9, 5, 9, 1, 2_000)
    assert (there.low_water, there.committed, there.unfinished, there.oldest) == (50, 50, 0, None)
    tracker.forget([INPUT])
    assert list(tracker.statistics().partitions) == [OTHER]


def test_a_record_without_a_timestamp_is_of_no_age() -> None:
    tracker, _ = tracking()
    tracker.track([record(0, timestamp=-1), record(1, timestamp=0), record(2, timestamp=7)])
    assert tracker.statistics().partitions[INPUT].oldest == 7


@virtual_time
async def test_waiting_for_room_ends_when_there_is_enough() -> None:
    tracker = Offsets(documents=10, bytes=1000)
    tracker.assign(INPUT, None)
    assert await tracker.wait_room(5, timeout=1) == Room(10, 1000)
    records = tracker.track(record(offset) for offset in range(8))
    loop = asyncio.get_running_loop()
    loop.call_later(1, tracker.resolve, records[:2])
    loop.call_later(2, tracker.resolve, records[2:4])
    assert (await tracker.wait_room(5, timeout=9)).documents == 6
    assert now() == pytest.approx(2)


@virtual_time
async def test_waiting_for_room_ends_with_the_time_and_gives_what_there_is() -> None:
    tracker = Offsets(documents=10, bytes=1000)
    tracker.assign(INPUT, None)
    tracker.track(record(offset) for offset in range(8))
    assert (await tracker.wait_room(5, timeout=3)).documents == 2
    assert now() == pytest.approx(3)


@virtual_time
async def test_waiting_for_more_room_than_there_can_be_ends_when_everything_is_finished() -> None:
    tracker = Offsets(documents=4, bytes=1000)
    tracker.assign(INPUT, None)
    records = tracker.track(record(offset) for offset in range(4))
    asyncio.get_running_loop().call_later(2, tracker.resolve, records)
    assert await tracker.wait_room(25, timeout=60) == Room(4, 1000)
    assert now() == pytest.approx(2)


@virtual_time
async def test_waiting_for_idleness_ends_when_every_record_is_finished_or_given_up() -> None:
    tracker = Offsets(documents=10, bytes=1000)
    tracker.assign(INPUT, None)
    tracker.assign(OTHER, None)
    first, second, third = tracker.track(record(offset) for offset in range(3))
    tracker.track([record(0, partition=OTHER)])
    loop = asyncio.get_running_loop()
    loop.call_later(1, tracker.abandon, [first])
    loop.call_later(2, tracker.abandon, [first])  # saying it twice is not saying it of another
    loop.call_later(3, tracker.resolve, [first])  # nor is finishing it after all
    loop.call_later(4, tracker.resolve, [second])
    loop.call_later(5, tracker.abandon, [third])
    assert await tracker.wait_idle([INPUT], timeout=9)
    assert now() == pytest.approx(5)
    assert not await tracker.wait_idle([INPUT, OTHER], timeout=1)
    assert now() == pytest.approx(6)
    assert await tracker.wait_idle([Partition("unknown", 0)], timeout=1)


STRETCHES = st.lists(st.tuples(st.integers(0, 2**40), st.integers(0, 2**40)), max_size=60)


@given(st.integers(0, 2**62), STRETCHES)
def test_what_is_encoded_is_decoded(offset: int, gaps: list[tuple[int, int]]) -> None:
    stretches, end = [], offset
    for distance, length in gaps:
        stretches.append(Range(end + distance, end + distance + length))
        end = stretches[-1].last + 1
    assert decode(Mark(offset, encode(offset, stretches))) == tuple(stretches)


@pytest.mark.parametrize("step", [2, 300, 2**40])
def test_what_does_not_fit_into_the_metadata_is_left_out_from_above(step: int) -> None:
    stretches = [Range(first, first) for first in range(1, 5000 * step, step)]
    metadata = encode(0, stretches)
    assert METADATA_LIMIT - 20 < len(metadata) <= METADATA_LIMIT
    assert metadata.isascii()
    kept = decode(Mark(0, metadata))
    assert kept == tuple(stretches[: len(kept)])
    assert 300 < len(kept) < 5000


def test_a_tracker_whose_finished_records_do_not_fit_repeats_only_those_above() -> None:
    tracker = Offsets(20_000, 10**9)
    tracker.assign(INPUT, None)
    records = tracker.track(record(offset) for offset in range(10_000))
    tracker.resolve(records[1::2])
    again = Offsets(20_000, 10**9)
    again.assign(INPUT, mark(tracker))
    repeated = numbers(again.track(record(offset) for offset in range(10_000)))
    assert set(repeated) >= set(range(0, 10_000, 2))
    first_that_did_not_fit = next(offset for offset in repeated if offset % 2)
    assert first_that_did_not_fit > 3000
    assert [offset for offset in repeated if offset < first_that_did_not_fit] == list(
        range(0, first_that_did_not_fit, 2)
    )


HOSTILE = (
    st.text()
    | st.text().map("1:".__add__)
    | st.binary(max_size=3069).map(lambda packed: "1:" + base64.b64encode(packed).decode())
)


@given(HOSTILE, st.integers(0, 2**62))
@settings(max_examples=200)
def test_metadata_of_others_is_no_error(metadata: str, offset: int) -> None:
    stretches = decode(Mark(offset, metadata))
    assert all(offset <= stretch.first <= stretch.last for stretch in stretches)
    tracker, (one,) = Offsets(10, 1000), [record(offset)]
    tracker.assign(INPUT, Mark(offset, metadata))
    tracker.resolve(tracker.track([one]))
    assert all(len(each.metadata) <= METADATA_LIMIT for each in tracker.committable().values())


@pytest.mark.parametrize(
    "metadata",
    [
        "",
        "2:AQE=",  # of a format to come
        "AQE=",
        "1:AQE",
        "1:A.QE=",
        "1:AQ==",  # half a pair
        "1:gIA=",  # a number without an end
        "1:" + "é" * 4,
        "{}",
    ],
)
def test_metadata_that_says_nothing_costs_no_document(metadata: str) -> None:
    _, records = tracking(*range(10, 20), committed=Mark(10, metadata))
    assert numbers(records) == list(range(10, 20))


class Restarts(RuleBasedStateMachine):
    """Two partitions with gaps in their offsets, read by a tracker that is revoked, restarted and answered late."""

    @initialize(gaps=st.lists(st.lists(st.integers(1, 3), min_size=1, max_size=25), min_size=2, max_size=2))
    def begin(self, gaps: list[list[int]]) -> None:
        self.log = {partition: list(accumulate(each)) for partition, each in zip((INPUT, OTHER), gaps, strict=True)}
        self.finished: dict[Partition, set[int]] = {INPUT: set(), OTHER: set()}
        self.broker: dict[Partition, Mark] = {}
        self.known: dict[Partition, set[int]] = {INPUT: set(), OTHER: set()}  # what the broker's mark tells of
        self.late: list[Record] = []
        self.restart()

    @rule()
    def restart(self) -> None:
        self.late += getattr(self, "in_hand", [])
        self.tracker = Offsets(1000, 10_000)
        self.in_hand: list[Record] = []
        self.position: dict[Partition, int] = {}

    @rule(partition=st.sampled_from([INPUT, OTHER]))
    def assign(self, partition: Partition) -> None:
        if partition not in self.position:
            committed = self.broker.get(partition)
            self.tracker.assign(partition, committed)
            self.position[partition] = committed.offset if committed else 0

    @precondition(lambda self: self.position)
    @rule(data=st.data(), count=st.integers(1, 8))
    def read(self, data: st.DataObject, count: int) -> None:
        partition = data.draw(st.sampled_from(sorted(self.position)))
        offsets = [offset for offset in self.log[partition] if offset >= self.position[partition]][:count]
        tracked = self.tracker.track([record(offset, partition=partition) for offset in offsets])
        self.in_hand += tracked
        self.position[partition] = offsets[-1] + 1 if offsets else self.position[partition]
        left_out = set(offsets) - set(numbers(tracked))
        assert left_out == set(offsets) & self.known[partition], "unfinished records, all of them, and only they"

    @precondition(lambda self: self.in_hand)
    @rule(data=st.data())
    def resolve(self, data: st.DataObject) -> None:
        done = data.draw(st.lists(st.sampled_from(self.in_hand), unique_by=id))
        self.tracker.resolve(done)
        for each in done:
            self.finished[Partition(*each.position[:2])].add(each.position.offset)
        self.in_hand = [each for each in self.in_hand if not any(each is other for other in done)]

    @precondition(lambda self: self.in_hand)
    @rule(data=st.data())
    def abandon(self, data: st.DataObject) -> None:
        self.tracker.abandon([data.draw(st.sampled_from(self.in_hand))])

    @precondition(lambda self: self.late)
    @rule(data=st.data())
    def answer_late(self, data: st.DataObject) -> None:
        late = data.draw(st.sampled_from(self.late))
        before = self.tracker.statistics(), self.tracker.committable()
        self.tracker.resolve([late])
        self.tracker.abandon([late])
        assert (self.tracker.statistics(), self.tracker.committable()) == before

    @precondition(lambda self: self.position)
    @rule(data=st.data())
    def revoke(self, data: st.DataObject) -> None:
        partition = data.draw(st.sampled_from(sorted(self.position)))
        self.tracker.close([partition])
        assert self.tracker.track([record(self.position[partition], partition=partition)]) == []
        self.tracker.forget([partition])
        del self.position[partition]
        self.late += [each for each in self.in_hand if each.position[:2] == partition]
        self.in_hand = [each for each in self.in_hand if each.position[:2] != partition]

    @rule()
    def commit(self) -> None:
        marks = self.tracker.committable()
        for partition, (offset, metadata) in marks.items():
            unfinished = [each.position.offset for each in self.in_hand if each.position[:2] == partition]
            assert offset <= min(unfinished, default=offset)
            assert len(metadata) <= METADATA_LIMIT
            received = {each for each in self.log[partition] if each < self.position[partition]}
            self.known[partition] = (self.known[partition] | received) & self.finished[partition]
        self.broker |= marks
        self.tracker.committed(marks)
        assert self.tracker.committable() == {}

    @invariant()
    def nothing_is_lost(self) -> None:
        for partition, committed in self.broker.items():
            stretches = decode(committed)
            for offset in self.log[partition]:
                if offset < committed.offset or any(first <= offset <= last for first, last in stretches):
                    assert offset in self.finished[partition]

    @invariant()
    def room_is_what_is_not_in_hand(self) -> None:
        assert self.tracker.statistics().documents == len(self.in_hand)
        assert self.tracker.statistics().bytes == len(self.in_hand)
        assert self.tracker.owned(self.in_hand) == list(self.in_hand)


Restarts.TestCase.settings = settings(max_examples=120, stateful_step_count=40)
TestRestarts = Restarts.TestCase
