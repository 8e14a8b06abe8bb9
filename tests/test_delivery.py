"""Exactly once, in memory: what a commit says is finished is what was published with it, neither more nor less."""

import asyncio
from collections.abc import Iterable, Sequence

from hypothesis import given, settings
from hypothesis import strategies as st

from service.delivery import ExactlyOnce, Finished
from service.dispatch.dispatcher import Dispatcher
from service.documents import Classified, ClassScore, Message, Position, Record
from service.errors import Fenced
from service.jobs.ledger import Ledger, NoShelf
from service.observability.telemetry import Telemetry
from service.offsets import METADATA_LIMIT, Mark, Offsets, Partition, decode
from service.pipeline import run
from service.settings import Stream
from service.streams.memory import MemorySink, TransactionalMemorySource
from tests.classifiers import UNWANTED, FirstWord, account
from tests.clock import now, virtual_time
from tests.records import INPUT, record, written

OTHER = Partition("incoming", 1)
STREAM = Stream.model_validate(
    {
        "name": "tickets",
        "input": "incoming",
        "classify_with": "first",
        "output": "classified",
        "dead_letter": "dead",
        "delivery": "exactly_once",
        "batch": {"documents": 5},
    }
)


class Broker:
    """Takes transactions, as long as nobody else has the partition."""

    def __init__(self) -> None:
        self.marks: dict[Partition, Mark] = {}
        self.messages: list[Message] = []
        self.fenced = False
        self.answers = asyncio.Event()
        self.answers.set()

    async def transact(self, partition: Partition, mark: Mark, messages: Sequence[Message]) -> list[Message]:
        await self.answers.wait()
        if self.fenced:
            raise Fenced("another has it")
        self.marks[partition] = mark
        self.messages += messages
        return []


class Desk:
    """A delivery with its tracker; everything finished has one message."""

    def __init__(self, metadata_limit: int = METADATA_LIMIT) -> None:
        self.broker = Broker()
        self.offsets = Offsets(10_000, 10**9, metadata_limit)
        self.telemetry = Telemetry()
        events = self.telemetry.stream("incoming", lambda: None)  # type: ignore[arg-type,return-value]
        self.delivery = ExactlyOnce(
            STREAM, self.broker, self.offsets, ledger=Ledger(NoShelf()), telemetry=events, fenced=self._let_go
        )
        for partition in (INPUT, OTHER):
            self.offsets.assign(partition, None)

    def _let_go(self, partition: Partition) -> None:
        self.offsets.forget([partition])
        self.delivery.forget([partition])

    def read(self, *offsets: int, partition: Partition = INPUT) -> dict[int, Record]:
        records = self.offsets.track([record(offset, partition=partition) for offset in offsets])
        return {each.position.offset: each for each in records}

    def finish(self, records: Iterable[Record]) -> "asyncio.Task[None]":
        records = list(records)
        messages = [Message("classified", None, b"{}", [], each.position) for each in records]
        outcomes = [Classified((ClassScore("a", 1.0),))] * len(records)
        return asyncio.create_task(self.delivery.deliver(Finished(records, outcomes, [1] * len(records), messages)))

    def published(self) -> set[Position]:
        positions = [message.source for message in self.broker.messages]
        assert len(positions) == len(set(positions)), "published twice"
        return set(positions)

    def told(self) -> set[Position]:
        """What the broker's marks say is finished, of the records that were ever read."""
        return {
            Position(*partition, offset)
            for partition, mark in self.broker.marks.items()
            for offset in range(10_000)
            if offset < mark.offset or any(first <= offset <= last for first, last in decode(mark))
        }


async def test_what_is_finished_waits_for_the_commit_and_is_seen_with_it() -> None:
    desk = Desk()
    records = desk.read(0, 1, 2, 3)
    delivering = desk.finish([records[1], records[3]])
    await asyncio.sleep(0)
    assert desk.broker.messages == []
    assert not delivering.done()
    await desk.delivery.commit()
    await delivering
    assert {position.offset for position in desk.published()} == {1, 3}
    assert desk.told() == desk.published()
    await desk.delivery.commit()  # there is nothing new
    assert len(desk.broker.messages) == 2


async def test_a_batch_of_two_partitions_is_done_when_both_are() -> None:
    desk = Desk()
    delivering = desk.finish([desk.read(0)[0], desk.read(7, partition=OTHER)[7]])
    await asyncio.sleep(0)
    await desk.delivery.commit()
    await delivering
    assert desk.broker.marks == {INPUT: Mark(1), OTHER: Mark(8)}


async def test_what_is_finished_while_a_transaction_is_under_way_goes_with_the_next() -> None:
    desk = Desk()
    records = desk.read(0, 1)
    first = desk.finish([records[0]])
    desk.broker.answers.clear()
    committing = asyncio.create_task(desk.delivery.commit())
    await asyncio.sleep(0)
    second = desk.finish([records[1]])
    await asyncio.sleep(0)
    desk.broker.answers.set()
    await committing
    await first
    assert not second.done()
    await desk.delivery.commit()
    await second
    assert desk.broker.marks == {INPUT: Mark(2)}


async def test_a_partition_that_is_anothers_is_let_go_and_the_others_go_on() -> None:
    desk = Desk()
    lost, kept = desk.read(0, 1), desk.read(0, partition=OTHER)
    delivering = desk.finish(lost.values())
    await asyncio.sleep(0)
    desk.broker.fenced = True
    await desk.delivery.commit()
    await delivering  # nobody waits for what will not come
    assert desk.broker.messages == []
    assert desk.offsets.partitions == (OTHER,)
    assert desk.offsets.owned(lost.values()) == []
    desk.broker.fenced = False
    delivering = desk.finish(kept.values())
    await asyncio.sleep(0)
    await desk.delivery.commit()
    await delivering
    assert desk.published() == {kept[0].position}


async def test_nobody_waits_for_a_partition_that_was_revoked_in_the_meantime() -> None:
    desk = Desk()
    delivering = desk.finish(desk.read(0).values())
    await asyncio.sleep(0)
    desk.delivery.forget([INPUT])
    desk.offsets.forget([INPUT])
    await delivering
    await desk.delivery.commit()
    assert desk.broker.messages == []


@settings(max_examples=60, deadline=None)
@given(
    order=st.permutations(range(40)),
    cuts=st.lists(st.integers(1, 39), max_size=6),
    limit=st.sampled_from([2, 6, 10, 14, METADATA_LIMIT]),
)
def test_a_commit_tells_of_exactly_what_was_published_however_little_room_it_has(
    order: list[int], cuts: list[int], limit: int
) -> None:
    async def story() -> None:
        desk = Desk(limit)
        records = desk.read(*range(40))
        delivering = []
        for begin, end in zip([0, *sorted(cuts)], [*sorted(cuts), 40], strict=True):
            if begin < end:
                delivering.append(desk.finish(records[number] for number in order[begin:end]))
            await asyncio.sleep(0)
            await desk.delivery.commit()
            read = {each.position for each in records.values()}
            assert desk.told() & read == desk.published()
            for mark in desk.broker.marks.values():
                assert len(mark.metadata) <= limit
        await asyncio.gather(*delivering)  # the last commit has no gap left, so nothing waits any more
        assert desk.broker.marks == {INPUT: Mark(40)}
        assert len(desk.published()) == 40

    asyncio.run(story())


@virtual_time
async def test_the_pipeline_delivers_through_transactions_where_the_source_has_them() -> None:
    sink, unused = MemorySink({"classified": 1_000}), MemorySink()
    texts = [f"{UNWANTED} {i}" if i % 10 == 3 else f"billing {i}" for i in range(60)]
    records = [written(i, text, id="x" * (2_000 if i == 5 else 1)) for i, text in enumerate(texts)]
    source = TransactionalMemorySource(sink, [*records, record(60, b"not JSON"), record(61, None)])
    dispatcher = Dispatcher([account(FirstWord())])
    await run(STREAM, source, unused, dispatcher, telemetry=Telemetry(), stop=asyncio.Event())
    assert unused.messages == []
    assert sorted(message.source.offset for message in sink.messages) == list(range(62))
    assert {message.source.offset for message in sink.to("dead")} == {3, 5, 13, 23, 33, 43, 53, 60, 61}
    assert source.committed == {INPUT: Mark(62)}


class Taken(TransactionalMemorySource):
    """A source whose partition is another's after a while, which nobody has told us of."""

    async def transact(self, partition: Partition, mark: Mark, messages: Sequence[Message]) -> list[Message]:
        if now() > 0.3:
            raise Fenced("another has it")
        return await super().transact(partition, mark, messages)


@virtual_time
async def test_nothing_more_is_asked_for_once_a_partition_is_anothers() -> None:
    sink, classifier = MemorySink(), FirstWord(seconds=0.1)
    source = Taken(sink, [written(i, f"billing {i}") for i in range(100)])
    dispatcher = Dispatcher([account(classifier, in_flight=1)])
    await run(STREAM, source, sink, dispatcher, telemetry=Telemetry(), stop=asyncio.Event())
    assert 2 <= len(classifier.calls) <= 5  # of twenty: those until the first transaction that was refused
    assert len(sink.to("classified")) <= 15
