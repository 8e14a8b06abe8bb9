"""Results of a key come in the order of its records, whatever becomes of each of them on the way."""

import asyncio
import random
from collections import Counter, defaultdict
from collections.abc import Awaitable, Iterable, Sequence
from itertools import pairwise

import orjson
import pytest
from hypothesis import given
from hypothesis import settings as effort
from hypothesis import strategies as st

from service.delivery import Finished
from service.dispatch.dispatcher import Dispatcher
from service.documents import Document, Message, Outcome, Position, Record
from service.errors import Throttled, Unavailable
from service.observability.telemetry import Telemetry
from service.offsets import Mark, Offsets, Partition
from service.order import InOrder
from service.pipeline import run
from service.streams.memory import MemorySink, TransactionalMemorySource
from tests.classifiers import POISON, UNWANTED, FirstWord, account
from tests.clock import now, virtual_time
from tests.records import INPUT, record
from tests.test_pipeline import OTHER, Story, stream

KEYS = 40


class Moody(FirstWord):
    """Answers after any time, or fails."""

    async def classify(self, documents: Sequence[Document]) -> list[Outcome]:
        self.seconds = self.chance.choice([0.01, 0.1, 0.5, 3.0])
        self.trouble = lambda: self.chance.choice([None, None, None, Unavailable("502"), Throttled("429")])
        return await super().classify(documents)

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.chance = random.Random(seed)  # noqa: S311  repeatable


def update(offset: int, partition: Partition = INPUT, *, text: str = "billing", keys: int = KEYS) -> Record:
    body = orjson.dumps({"id": f"{partition.number}/{offset}", "text": f"{text} {offset}"})
    return record(offset, body, partition=partition, key=b"ticket-%d" % (offset * 7 % keys))


def inversions(messages: Iterable[Message]) -> int:
    """How often a message of a key comes after a later one of it."""
    offsets = defaultdict[tuple[int, bytes | None], list[int]](list)
    for message in messages:
        offsets[message.source.partition, message.key].append(message.source.offset)
    return sum(before > after for line in offsets.values() for before, after in pairwise(line))


@pytest.mark.parametrize("seed", range(5))
def test_results_of_a_key_are_in_order_through_failures_and_halving_and_dead_letters(seed: int) -> None:
    @virtual_time
    async def tell() -> None:
        records = [update(offset) for offset in range(1500)] + [update(offset, OTHER) for offset in range(500)]
        records[77] = update(77, text=POISON)
        records[600] = update(600, text=UNWANTED)
        records[900] = records[900]._replace(value=b"{")
        story = Story(records, classifiers=[Moody(seed)], settings=stream(ordered_by="key", batch={"documents": 10}))
        await story.run()
        assert len(story.results) == 1997
        assert sorted(story.letters) == [77, 600, 900]
        assert inversions(story.sink.messages) == 0
        assert story.source.committed == {INPUT: Mark(1500), OTHER: Mark(500)}
        unordered = Story(records, classifiers=[Moody(seed)], settings=stream(batch={"documents": 10}))
        await unordered.run()
        assert inversions(unordered.sink.messages) > 0, "there is something to put in order"

    tell()


@virtual_time
async def test_exactly_once_keeps_the_order_too() -> None:
    chosen = stream(ordered_by="key", delivery="exactly_once", batch={"documents": 10})
    sink = MemorySink()
    source = TransactionalMemorySource(sink, [update(offset) for offset in range(1000)])
    dispatcher = Dispatcher([account(Moody(3))])
    await run(chosen, source, sink, dispatcher, telemetry=Telemetry(), stop=asyncio.Event())
    assert Counter(message.source.offset for message in sink.messages) == Counter(range(1000))
    assert inversions(sink.messages) == 0


@virtual_time
async def test_batches_are_as_full_and_calls_as_many_as_without_an_order() -> None:
    calls = []
    for chosen in (stream(), stream(ordered_by="key")):
        story = Story([update(offset, keys=3) for offset in range(1000)], settings=chosen)
        await story.run()
        calls.append((len(story.classifiers[0].calls), story.classifiers[0].most_out))
    assert calls[0] == calls[1] == (40, 16)


@virtual_time
async def test_records_without_a_key_wait_for_nobody() -> None:
    slow, story = asyncio.Event(), Story(settings=stream(ordered_by="key", batch={"documents": 1}), ends=False)

    class Stalling(FirstWord):
        async def classify(self, documents: Sequence[Document]) -> list[Outcome]:
            if documents[0].text.startswith("slow"):
                await slow.wait()
            return await super().classify(documents)

    story = Story(
        [
            update(0, text="slow", keys=1),
            update(1, keys=1),
            update(2)._replace(key=None),
            update(3)._replace(key=b"another"),
        ],
        settings=stream(ordered_by="key", batch={"documents": 1}),
        classifiers=[Stalling()],
    )
    async with story.running() as running:
        await asyncio.sleep(5)
        assert sorted(story.results) == ["0/2", "0/3"]
        slow.set()
        await running
    assert story.results[2:] == ["0/0", "0/1"]


@virtual_time
async def test_what_waits_for_its_turn_holds_up_no_stop_and_is_read_again_by_the_next() -> None:
    """The first of two is never answered: the second is answered and left, and the next worker has both in order."""

    class Deaf(FirstWord):
        async def classify(self, documents: Sequence[Document]) -> list[Outcome]:
            if documents[0].text.startswith("deaf"):
                raise Unavailable("502")
            return await super().classify(documents)

    records = [update(0, text="deaf", keys=1), *(update(offset, keys=1) for offset in range(1, 6))]
    chosen = stream(ordered_by="key", batch={"documents": 1, "wait": 0}, drain="25s")
    story = Story(records, settings=chosen, classifiers=[Deaf()], ends=False)
    async with story.running() as running:
        await asyncio.sleep(3)
        began = now()
        story.stop.set()
        await running
        assert now() - began < 10, "nobody waits for the drain"
    assert story.results == []
    again = Story(records, settings=chosen, committed=story.source.committed)
    await again.run()
    assert again.results == [f"0/{offset}" for offset in range(6)]


@virtual_time
async def test_partitions_that_go_take_their_lines_with_them() -> None:
    story = Story(
        [update(offset) for offset in range(300)] + [update(offset, OTHER) for offset in range(300)],
        settings=stream(ordered_by="key", batch={"documents": 10}, drain="1s"),
        classifiers=[Moody(1)],
        ends=False,
    )
    async with story.running():
        await asyncio.sleep(0.7)
        await story.source.revoke([OTHER])
        left = len(story.sink.to("classified"))
        assert left < 600
        await story.source.assign([OTHER])
        await asyncio.sleep(120)
    first = dict[Position, int]()
    for place, message in enumerate(story.sink.messages):
        first.setdefault(message.source, place)
    assert len(first) == 600
    assert inversions(story.sink.messages[place] for place in first.values()) == 0


class Shelf:
    """A delivery that takes any time, and remembers what was handed on."""

    def __init__(self, offsets: Offsets) -> None:
        self.offsets = offsets
        self.handed: list[Record] = []

    async def hand_on(self, finished: Finished) -> Awaitable[None]:
        self.handed += finished.records
        assert [message.source for message in finished.messages] == [each.position for each in finished.records]
        await asyncio.sleep(random.random())  # noqa: S311
        self.offsets.resolve(finished.records)
        return asyncio.sleep(0)

    async def deliver(self, finished: Finished) -> None:
        await (await self.hand_on(finished))

    async def commit(self) -> None: ...
    def expect(self, records: Sequence[Record]) -> None: ...
    def give_up(self, records: Iterable[Record]) -> None: ...
    def forget(self, partitions: Sequence[Partition]) -> None: ...


def done(records: Sequence[Record]) -> Finished:
    messages = [Message("classified", each.key, b"{}", [], each.position) for each in records]
    return Finished(records, [None] * len(records), [1] * len(records), messages)


@effort(max_examples=60)
@given(keys=st.lists(st.sampled_from([None, b"a", b"b", b"c"]), min_size=1, max_size=40), chance=st.randoms())
def test_in_any_order_of_answers_each_record_is_handed_on_once_in_its_turn(
    keys: Sequence[bytes | None], chance: random.Random
) -> None:
    @virtual_time
    async def tell() -> None:
        offsets = Offsets(1000, 10**9)
        offsets.assign(INPUT, None)
        shelf = Shelf(offsets)
        order = InOrder(shelf, offsets)
        records = offsets.track(record(offset, key=key) for offset, key in enumerate(keys))
        order.expect(records)
        shuffled = chance.sample(records, len(records))
        async with asyncio.TaskGroup() as answers:
            while shuffled:
                some = [shuffled.pop() for _ in range(min(len(shuffled), chance.randint(1, 5)))]
                answers.create_task(order.deliver(done(some)))
                await asyncio.sleep(chance.random() * 2)
        assert Counter(map(id, shelf.handed)) == Counter(map(id, records))
        for key in (b"a", b"b", b"c"):
            line = [each.position.offset for each in shelf.handed if each.key == key]
            assert line == sorted(line)

    tell()


@virtual_time
async def test_what_is_left_to_others_takes_with_it_what_stands_behind_it_and_nothing_before() -> None:
    offsets = Offsets(1000, 10**9)
    offsets.assign(INPUT, None)
    shelf = Shelf(offsets)
    order = InOrder(shelf, offsets)
    first, second, third, fourth, other = offsets.track(
        [record(offset, key=b"a") for offset in range(4)] + [record(4, key=b"b")]
    )
    order.expect([first, second, third, fourth, other])
    async with asyncio.TaskGroup() as answers:
        answers.create_task(order.deliver(done([third, other])))
        await asyncio.sleep(5)
        assert shelf.handed == [other]
        order.give_up([second])
        await asyncio.sleep(5)
        answers.create_task(order.deliver(done([first])))
        answers.create_task(order.deliver(done([fourth])))
    assert shelf.handed == [other, first]
    assert offsets.owned([second, third, fourth]) == [second, third, fourth]


@virtual_time
async def test_an_input_that_is_begun_anew_does_not_wait_for_what_is_no_more_in_it() -> None:
    offsets = Offsets(1000, 10**9)
    offsets.assign(INPUT, None)
    shelf = Shelf(offsets)
    order = InOrder(shelf, offsets)
    stale = offsets.track([record(5, key=b"a")])
    order.expect(stale)
    fresh = offsets.track([record(0, key=b"a"), record(1, key=b"a")])
    order.expect(fresh)
    await order.deliver(done(fresh))
    assert shelf.handed == fresh
