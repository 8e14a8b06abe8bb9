import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

import orjson
import pytest
from structlog.testing import capture_logs

from service import settings
from service.dispatch.account import Account
from service.dispatch.dispatcher import Dispatcher
from service.documents import Document, Message, Outcome, Position, Record
from service.errors import CallFailed, Fenced, Misconfigured, Rejected, Throttled, Unavailable
from service.limits.costs import Tariff
from service.limits.gate import Limits
from service.observability.telemetry import Telemetry
from service.offsets import Mark, Partition, Room, decode
from service.pipeline import run
from service.settings import Stream
from service.streams.memory import MemorySink, MemorySource
from tests.classifiers import POISON, UNWANTED, FirstWord, FirstWordByJobs, account
from tests.clock import now, virtual_time
from tests.records import INPUT, record, written

OTHER = Partition("incoming", 1)
OUTAGE = Unavailable("502")


@pytest.fixture(autouse=True)
def the_same_chances() -> None:
    random.seed(7)  # the back-off is spread by chance


def stream(**changed: Any) -> Stream:
    return Stream.model_validate(
        {
            "name": "tickets",
            "input": "incoming",
            "classify_with": "first",
            "output": "classified",
            "dead_letter": "dead",
            **changed,
        }
    )


def tickets(count: int, partition: Partition = INPUT, first: int = 0) -> list[Record]:
    return [written(offset, f"billing {offset}", partition=partition) for offset in range(first, first + count)]


class Story:
    """A pipeline between memory and memory, watched: no mark may pass a record that was not published."""

    def __init__(
        self,
        records: Iterable[Record] = (),
        *,
        settings: Stream | None = None,
        classifiers: Sequence[FirstWord] = (),
        in_flight: int = 16,
        committed: Mapping[Partition, Mark] | None = None,
        ends: bool = True,
        sink: MemorySink | None = None,
    ) -> None:
        self.settings = settings or stream()
        self.telemetry = Telemetry()
        self.sink = sink or MemorySink()
        self.source = Watched(self.sink, records, committed=committed, ends=ends, partitions=[INPUT, OTHER])
        self.classifiers = classifiers or [FirstWord()]
        self.accounts: list[Account] = [
            account(classifier, f"account-{i}", in_flight=in_flight, telemetry=self.telemetry)
            for i, classifier in enumerate(self.classifiers)
        ]
        self.stop = asyncio.Event()

    async def run(self) -> None:
        dispatcher = Dispatcher(self.accounts, 1.0, self.settings.document.most_parts)
        await run(self.settings, self.source, self.sink, dispatcher, telemetry=self.telemetry, stop=self.stop)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[asyncio.Task[None]]:
        """Run beside the block; the end of the block is a crash, if it has not ended by then."""
        task = asyncio.create_task(self.run())
        try:
            yield task
        finally:
            task.cancel()
            await asyncio.wait([task])

    @property
    def results(self) -> list[str]:
        return [orjson.loads(message.value or b"")["id"] for message in self.sink.to("classified")]

    @property
    def letters(self) -> dict[int, tuple[str, bytes | None]]:
        """By offset, why each dead letter is one and what it holds."""
        return {
            message.source.offset: (dict(message.headers)["labelstream-error-type"].decode(), message.value)
            for message in self.sink.to("dead")
        }

    def sample(self, name: str, **labels: str) -> float | None:
        return self.telemetry.registry.get_sample_value(f"labelstream_{name}", {"topic": "incoming", **labels})


class Watched(MemorySource):
    """Memory that checks what is committed against what was published, and how much is in hand."""

    def __init__(self, sink: MemorySink, records: Iterable[Record] = (), **changed: Any) -> None:
        super().__init__(records, **changed)
        self.sink = sink
        self.skipped: set[Position] = set()
        self.read: dict[Position, Record] = {}
        self.most_documents = self.most_bytes = self.commits = 0
        self.failures: list[Exception] = []

    async def poll(self, room: Room, timeout: float) -> list[Record] | None:
        records = await super().poll(room, timeout)
        self.read |= {each.position: each for each in records or ()}
        published = {message.source for message in self.sink.messages}
        in_hand = [each for position, each in self.read.items() if position not in published]
        self.most_documents = max(self.most_documents, len(in_hand))
        self.most_bytes = max(self.most_bytes, sum(each.size for each in in_hand))
        return records

    async def commit(self, marks: Mapping[Partition, Mark]) -> None:
        self.commits += 1
        published = {message.source for message in self.sink.messages} | self.skipped
        for partition in marks:
            for each in self._records[partition]:
                assert each.position in published or not is_told(each.position, marks), "committed, but not published"
        if self.failures:
            raise self.failures.pop()
        await super().commit(marks)


def is_told(position: Position, committed: Mapping[Partition, Mark]) -> bool:
    """Whether what is committed says that the record is finished."""
    mark = committed.get(Partition(*position[:2]), Mark(0))
    return position.offset < mark.offset or any(first <= position.offset <= last for first, last in decode(mark))


def named(*ranges: tuple[Partition, range]) -> list[str]:
    return [f"{partition.number}/{offset}" for partition, offsets in ranges for offset in offsets]


@virtual_time
async def test_every_document_is_classified_once_and_committed() -> None:
    story = Story([*tickets(500), *tickets(300, OTHER, first=7)])
    await story.run()
    assert Counter(story.results) == Counter(named((INPUT, range(500)), (OTHER, range(7, 307))))
    assert story.source.committed == {INPUT: Mark(500), OTHER: Mark(307)}
    assert story.letters == {}
    (classifier,) = story.classifiers
    assert max(len(texts) for _, texts in classifier.calls) == 25
    assert len(classifier.calls) == 800 / 25
    assert story.sample("records_consumed_total") == 800
    assert story.sample("records_finished_total", outcome="classified") == 800
    assert story.sample("labels_total", label="billing") == 800


@virtual_time
async def test_lengths_and_languages_of_documents_are_counted_and_no_text_becomes_a_language() -> None:
    named = ["de", "de-AT", "EN", "a secret", "x" * 40, *(f"{a}{b}" for a in "qrs" for b in "abcdefghijklmnop")]
    records = [written(offset, "billing", lang=name) for offset, name in enumerate(named)]
    story = Story([*records, written(len(named), "billing please")], settings=stream(document={"language": "/lang"}))
    await story.run()
    assert story.sample("record_languages_total", language="de") == 2
    assert story.sample("record_languages_total", language="en") == 1
    families = {family.name: family for family in story.telemetry.registry.collect()}
    languages = {sample.labels["language"]: sample.value for sample in families["labelstream_record_languages"].samples}
    assert len(languages) <= 32
    assert languages["other"] > 20
    assert sum(languages.values()) == len(named) + 1
    assert story.sample("record_characters_count") == len(named) + 1
    assert story.sample("record_characters_sum") == 7 * len(named) + 14


@virtual_time
async def test_an_empty_input_ends() -> None:
    story = Story()
    await story.run()
    assert story.sink.messages == []
    assert now() < 1


@virtual_time
async def test_answers_out_of_order_are_published_as_they_come_and_committed_in_order() -> None:
    chance = random.Random(3)  # noqa: S311  repeatable

    class Moody(FirstWord):
        async def classify(self, documents: Sequence[Document]) -> list[Outcome]:
            self.seconds = chance.uniform(0.1, 20)
            return await super().classify(documents)

    story = Story(tickets(2000), classifiers=[Moody()], settings=stream(batch={"documents": 10}))
    await story.run()
    assert sorted(story.results) == sorted(named((INPUT, range(2000))))
    assert story.results != named((INPUT, range(2000)))
    assert story.source.committed == {INPUT: Mark(2000)}
    assert story.source.commits > 10


@virtual_time
async def test_a_lone_document_waits_no_longer_for_company_than_it_may() -> None:
    story = Story(ends=False, settings=stream(batch={"wait": "2s"}))
    async with story.running():
        await asyncio.sleep(10)
        story.source.add(written(0, "billing"))
        await asyncio.sleep(1.9)
        assert story.classifiers[0].calls == []
        await asyncio.sleep(0.3)
        assert story.results == ["0/0"]
    ((moment, _),) = story.classifiers[0].calls
    assert moment == pytest.approx(12, abs=0.01)


BAD: dict[str, bytes | None] = {
    "undecodable": b"\xff\x00 not json",
    "missing_text": b'{"id": "no text"}',
    "empty_text": b'{"text": " \\n "}',
    "too_long": b'{"text": "' + b"x" * 2000 + b'"}',
    "tombstone": None,
    "refused_by_classifier": f'{{"text": "{UNWANTED} this one"}}'.encode(),
}


@pytest.mark.parametrize("reason", BAD)
def test_a_bad_document_becomes_a_dead_letter_as_it_came_and_holds_nothing_up(reason: str) -> None:
    @virtual_time
    async def tell() -> None:
        bad = record(5, BAD[reason], key=b"k\xff", headers=[("h", b"\xfe")])
        story = Story([*tickets(5), bad, *tickets(50, first=6)], settings=stream(document={"max_characters": 1000}))
        await story.run()
        assert story.letters == {5: (reason, BAD[reason])}
        (letter,) = story.sink.to("dead")
        assert letter.key == b"k\xff"
        assert ("h", b"\xfe") in letter.headers
        assert sorted(story.results) == sorted(named((INPUT, range(5)), (INPUT, range(6, 56))))
        assert story.source.committed == {INPUT: Mark(56)}
        assert story.sample("dead_letters_total", reason=reason) == 1

    tell()


@virtual_time
async def test_a_document_of_two_megabytes_is_refused_whole_and_one_that_is_allowed_is_answered() -> None:
    huge, large = written(1, "x" * 2 * 1024**2), written(3, "billing " + "x" * 900_000)
    story = Story(
        [written(0, "billing"), huge, written(2, "billing"), large],
        classifiers=[FirstWord(characters_per_document=1_000_000)],
    )
    await story.run()
    assert story.letters == {1: ("too_long", huge.value)}
    assert Counter(story.results) == Counter(["0/0", "0/2", "0/3"])
    assert story.source.committed == {INPUT: Mark(4)}


@virtual_time
async def test_bad_documents_are_not_held_up_by_an_outage() -> None:
    story = Story(
        [written(0, "billing"), record(1, b"{"), record(2, None)], classifiers=[FirstWord(trouble=lambda: OUTAGE)]
    )
    async with story.running():
        await asyncio.sleep(5)
        assert sorted(story.letters) == [1, 2]
        assert story.results == []
        assert decode(story.source.committed[INPUT])[0][:2] == (1, 2)
        assert story.source.committed[INPUT].offset == 0


@virtual_time
async def test_unwanted_tombstones_are_passed_over() -> None:
    records = [record(0, None), *tickets(2, first=1), record(3, None)]
    story = Story(records, settings=stream(tombstones="skip"))
    story.source.skipped = {records[0].position, records[3].position}
    await story.run()
    assert story.letters == {}
    assert len(story.results) == 2
    assert story.source.committed == {INPUT: Mark(4)}
    assert story.sample("records_finished_total", outcome="skipped") == 2


@virtual_time
async def test_the_same_id_twice_is_two_documents() -> None:
    story = Story([written(0, "billing", id="same"), written(1, "refund", id="same")])
    await story.run()
    assert story.results == ["same", "same"]
    assert story.source.committed == {INPUT: Mark(2)}


@virtual_time
async def test_documents_that_make_a_whole_call_fail_are_found_and_the_others_answered() -> None:
    records = tickets(100)
    for offset in (3, 50, 99):
        records[offset] = written(offset, f"{POISON} {offset}")
    story = Story(records)
    await story.run()
    assert sorted(story.letters) == [3, 50, 99]
    assert len(story.results) == 97
    assert story.source.committed == {INPUT: Mark(100)}


@virtual_time
async def test_what_is_misconfigured_stops_the_stream_loudly_and_commits_nothing_unfinished() -> None:
    story = Story(tickets(200), classifiers=[FirstWord()], settings=stream(batch={"documents": 10}), in_flight=2)
    loop = asyncio.get_running_loop()
    trouble = Misconfigured("accounts.first.key: was refused")
    loop.call_later(0.45, setattr, story.classifiers[0], "trouble", lambda: trouble)
    with pytest.raises(ExceptionGroup) as stopped:
        await story.run()
    assert stopped.group_contains(Misconfigured, match=r"accounts\.first\.key")
    assert len(story.results) == 80, "four times two calls of ten"
    assert story.source.committed == {INPUT: Mark(80)}
    assert len(asyncio.all_tasks()) == 1


@virtual_time
async def test_an_outage_holds_documents_and_ends_without_a_trace() -> None:
    down = FirstWord()
    down.trouble = lambda: OUTAGE if 1 < now() < 600 else None
    story = Story(tickets(3000), classifiers=[down], settings=stream(capacity={"documents": 500}), in_flight=4)
    async with story.running() as running:
        await asyncio.sleep(2.5)
        before, committed = len(story.results), dict(story.source.committed)
        await asyncio.sleep(500)
        assert len(story.results) == before
        assert story.source.committed == committed
        assert story.letters == {}
        assert len(down.calls) < 300, "an account that is down is not hammered"
        await running
    assert Counter(story.results) == Counter(named((INPUT, range(3000))))
    assert story.letters == {}
    assert story.source.committed == {INPUT: Mark(3000)}
    assert 600 < now() < 700


@virtual_time
async def test_while_one_account_is_down_the_next_answers() -> None:
    down, well = FirstWord(trouble=lambda: OUTAGE), FirstWord()
    story = Story(tickets(1000), classifiers=[down, well])
    await story.run()
    assert len(story.results) == 1000
    assert {orjson.loads(message.value or b"")["account"] for message in story.sink.messages} == {"account-1"}
    assert now() < 10


@pytest.mark.parametrize("failure", [Throttled("slow down", 3.0), Throttled("slow down"), OUTAGE])
def test_passing_failures_cost_time_and_nothing_else(failure: CallFailed) -> None:
    @virtual_time
    async def tell() -> None:
        chance = random.Random(11)  # noqa: S311  repeatable
        story = Story(
            tickets(1000), classifiers=[FirstWord(trouble=lambda: failure if chance.random() < 0.3 else None)]
        )
        await story.run()
        assert Counter(story.results) == Counter(named((INPUT, range(1000))))
        assert story.source.committed == {INPUT: Mark(1000)}

    tell()


@virtual_time
async def test_documents_are_answered_by_jobs_alike() -> None:
    jobs = FirstWordByJobs(seconds=3)
    story = Story(tickets(1000), classifiers=[jobs])
    await story.run()
    assert Counter(story.results) == Counter(named((INPUT, range(1000))))
    assert len(jobs.calls) == 40


@virtual_time
async def test_no_more_is_read_than_may_be_in_hand() -> None:
    story = Story(
        [*tickets(2000), *tickets(2000, OTHER)],
        settings=stream(capacity={"documents": 110}, batch={"documents": 10}),
        classifiers=[FirstWord(seconds=5)],
        in_flight=100,
    )
    await story.run()
    assert 100 <= story.source.most_documents <= 110
    assert len(story.results) == 4000
    assert story.sample("inflight_limit") == 110


@virtual_time
async def test_no_more_bytes_are_read_than_may_be_in_hand_but_for_the_last_record() -> None:
    story = Story([written(offset, "billing " + "x" * 9_000) for offset in range(500)])
    story.settings = stream(capacity={"bytes": "256KiB"}, batch={"documents": 5})
    await story.run()
    assert 200_000 < story.source.most_bytes <= 256 * 1024 + 9_100
    assert len(story.results) == 500


@virtual_time
async def test_a_capacity_below_one_batch_is_slow_but_no_deadlock() -> None:
    story = Story(tickets(60), settings=stream(capacity={"documents": 7}))
    await story.run()
    assert len(story.results) == 60
    assert story.source.most_documents <= 7
    assert now() < 60


@virtual_time
async def test_a_record_larger_than_the_capacity_is_read_by_itself() -> None:
    story = Story([written(offset, "billing " + "x" * 5_000) for offset in range(4)])
    story.settings = stream(capacity={"bytes": 1000})
    await story.run()
    assert len(story.results) == 4
    assert story.source.most_documents == 1


@virtual_time
async def test_a_stop_waits_for_what_is_out_and_leaves_the_rest() -> None:
    story = Story(
        tickets(1000), classifiers=[FirstWord(seconds=10)], settings=stream(batch={"documents": 10}), in_flight=3
    )
    async with story.running() as running:
        await asyncio.sleep(15)
        story.stop.set()
        await running
    assert now() == pytest.approx(20, abs=0.01)
    assert Counter(story.results) == Counter(named((INPUT, range(60))))
    assert story.source.committed == {INPUT: Mark(60)}
    assert len(story.classifiers[0].calls) == 6
    assert story.sample("records_abandoned_total") == 1000 - 60


@virtual_time
async def test_what_is_read_while_the_stop_comes_is_left() -> None:
    story = Story(settings=stream(batch={"wait": 0}), ends=False)
    async with story.running() as running:
        await asyncio.sleep(5.1)
        story.stop.set()
        story.source.add(written(0, "billing"))
        await running
    assert story.source.read
    assert story.classifiers[0].calls == []
    assert now() < 6


@virtual_time
async def test_a_stop_that_takes_too_long_is_cut_off_and_commits_what_is_finished() -> None:
    story = Story(
        tickets(100),
        classifiers=[FirstWord(seconds=3600)],
        settings=stream(drain="25s", document={"max_characters": 1000}),
    )
    story.source.add(record(100, b"{"))
    async with story.running() as running:
        await asyncio.sleep(15)
        story.stop.set()
        await running
    assert now() == pytest.approx(40, abs=0.01)
    assert story.results == []
    assert story.source.committed[INPUT].offset == 0
    assert [tuple(stretch) for stretch in decode(story.source.committed[INPUT])] == [(100, 100)]


@virtual_time
async def test_a_stop_during_an_outage_does_not_wait_for_its_end() -> None:
    story = Story(tickets(1000), classifiers=[FirstWord(trouble=lambda: OUTAGE)])
    async with story.running() as running:
        await asyncio.sleep(100)
        story.stop.set()
        await running
    assert now() < 130
    assert story.results == []
    assert story.source.committed == {}


class SlowSink(MemorySink):
    """Takes a second to publish."""

    async def publish(self, messages: Sequence[Message]) -> list[Message]:
        await asyncio.sleep(1)
        return await super().publish(messages)


@virtual_time
async def test_answers_that_are_being_published_when_the_stop_comes_are_published() -> None:
    story = Story(tickets(10), classifiers=[FirstWord(seconds=5)], sink=SlowSink(), ends=False)
    async with story.running() as running:
        await asyncio.sleep(5.7)  # a batch left at 0.2, was answered at 5.2 and will be published at 6.2
        story.stop.set()
        await running
    assert len(story.results) == 10
    assert story.source.committed == {INPUT: Mark(10)}


@virtual_time
async def test_answers_that_are_being_published_when_a_partition_goes_are_published() -> None:
    story = Story(tickets(10), classifiers=[FirstWord(seconds=5)], sink=SlowSink(), ends=False)
    async with story.running():
        await asyncio.sleep(5.7)
        await story.source.revoke([INPUT])
        assert now() == pytest.approx(6.2, abs=0.01)
        assert story.source.committed == {INPUT: Mark(10)}


@virtual_time
async def test_a_revocation_waits_for_what_is_out_and_commits_it() -> None:
    story = Story(tickets(100), classifiers=[FirstWord(seconds=10)], settings=stream(batch={"documents": 10}))
    story.accounts[0] = account(story.classifiers[0], in_flight=3)
    async with story.running():
        await asyncio.sleep(12)
        await story.source.revoke([INPUT])
        assert now() == pytest.approx(20, abs=0.01)
        assert story.source.committed == {INPUT: Mark(60)}
        await asyncio.sleep(60)
        assert len(story.results) == 60, "the rest is left to the next owner"
        assert len(story.classifiers[0].calls) == 6


@virtual_time
async def test_a_revocation_does_not_wait_for_documents_that_wait_for_company() -> None:
    story = Story(tickets(10), settings=stream(batch={"wait": "60s"}), ends=False)
    async with story.running():
        await asyncio.sleep(5)
        await story.source.revoke([INPUT])
        assert now() == pytest.approx(5, abs=0.01)
        await asyncio.sleep(100)
        assert story.classifiers[0].calls == []
        assert story.sample("records_abandoned_total") == 10


@virtual_time
async def test_what_is_still_read_of_a_partition_that_is_about_to_go_is_left_to_its_next_owner() -> None:
    class Prefetching(Watched):
        async def revoke(self, partitions: Iterable[Partition]) -> None:
            partitions = list(partitions)
            assert self._owner is not None
            await self._owner.revoked(partitions)
            await super().revoke(partitions)

    story = Story(classifiers=[FirstWord(seconds=10)])
    story.source = Prefetching(story.sink, tickets(25), ends=False)
    async with story.running():
        await asyncio.sleep(5)
        asyncio.get_running_loop().call_later(1, story.source.add, written(25, "late"))
        await story.source.revoke([INPUT])
        assert now() == pytest.approx(10, abs=0.1)
        await asyncio.sleep(10)
    assert len(story.classifiers[0].calls) == 1
    assert story.source.committed == {INPUT: Mark(25)}


@virtual_time
async def test_an_answer_that_comes_after_its_partition_went_is_not_published() -> None:
    story = Story(
        [*tickets(5), *tickets(5, OTHER)], classifiers=[FirstWord(seconds=60)], settings=stream(drain="20s"), ends=False
    )
    async with story.running():
        await asyncio.sleep(30)
        await story.source.revoke([INPUT])
        assert now() == pytest.approx(50, abs=0.01)
        await asyncio.sleep(30)
        assert sorted(story.results) == named((OTHER, range(5)))
        await story.source.assign([INPUT])
        await asyncio.sleep(100)
    assert Counter(story.results) == Counter(named((INPUT, range(5)), (OTHER, range(5))))
    assert story.source.committed == {INPUT: Mark(5), OTHER: Mark(5)}


@virtual_time
async def test_a_revocation_does_not_wait_for_batches_that_are_not_out() -> None:
    story = Story([*tickets(5), *tickets(5, OTHER)], classifiers=[FirstWord(trouble=lambda: OUTAGE)], ends=False)
    async with story.running():
        await asyncio.sleep(30)
        began = now()
        await story.source.revoke([INPUT])
        assert now() - began < 1
        story.classifiers[0].trouble = lambda: None
        await asyncio.sleep(60)
    assert sorted(story.results) == named((OTHER, range(5)))
    assert story.source.committed == {OTHER: Mark(5)}


@virtual_time
async def test_partitions_that_come_and_go_lose_and_repeat_nothing() -> None:
    chance = random.Random(5)  # noqa: S311  repeatable
    story = Story(
        [*tickets(1500), *tickets(1500, OTHER)],
        classifiers=[FirstWord(seconds=2)],
        settings=stream(batch={"documents": 10}, capacity={"documents": 200}),
        ends=False,
    )
    async with story.running():
        for _ in range(12):
            await asyncio.sleep(chance.uniform(0.5, 5))
            gone = chance.choice([[INPUT], [OTHER], [INPUT, OTHER]])
            await story.source.revoke(gone)
            await asyncio.sleep(chance.uniform(0, 2))
            await story.source.assign(gone)
        await asyncio.sleep(300)
    assert Counter(story.results) == Counter(named((INPUT, range(1500)), (OTHER, range(1500))))
    assert story.source.committed == {INPUT: Mark(1500), OTHER: Mark(1500)}


@pytest.mark.parametrize("after", [0.05, 1.3, 3.97, 10.0, 20.5])
def test_after_a_crash_nothing_is_lost_and_only_what_was_answered_since_the_last_commit_repeats(after: float) -> None:
    @virtual_time
    async def tell() -> None:
        chance = random.Random(after)  # noqa: S311  repeatable

        class Moody(FirstWord):
            async def classify(self, documents: Sequence[Document]) -> list[Outcome]:
                self.seconds = chance.uniform(0.1, 4)
                return await super().classify(documents)

        records = [*tickets(1000), *tickets(1000, OTHER, first=3)]
        settings = stream(batch={"documents": 10}, capacity={"documents": 300})
        first = Story(records, classifiers=[Moody()], settings=settings)

        async with first.running():
            await asyncio.sleep(after)
            committed = dict(first.source.committed)  # a process that is killed commits nothing more
            published = {message.source for message in first.sink.messages}

        second = Story(records, classifiers=[Moody()], settings=settings, committed=committed)
        second.source.skipped = published  # they count for the marks that are committed now
        await second.run()
        again = Counter(message.source for message in second.sink.messages)
        assert set(again.values()) == {1}
        known = {position for position in published if is_told(position, committed)}
        assert set(again) == {each.position for each in records} - known
        assert second.source.committed == {INPUT: Mark(1000), OTHER: Mark(1003)}

    tell()


@virtual_time
async def test_after_a_stop_nothing_is_repeated() -> None:
    records, results, committed = tickets(3000), list[str](), dict[Partition, Mark]()
    while len(results) < 3000:
        story = Story(records, committed=committed, classifiers=[FirstWord(seconds=0.5)])
        story.source.skipped = {message.source for message in story.sink.messages} | {
            each.position for each in records if f"0/{each.position.offset}" in set(results)
        }
        asyncio.get_running_loop().call_later(1.2, story.stop.set)
        await story.run()
        assert story.results
        results, committed = results + story.results, story.source.committed
    assert Counter(results) == Counter(named((INPUT, range(3000))))


@virtual_time
async def test_a_run_that_is_cancelled_leaves_no_task_and_commits_what_is_finished() -> None:
    story = Story(
        tickets(1000), classifiers=[FirstWord(seconds=10)], settings=stream(batch={"documents": 10}), in_flight=3
    )
    async with story.running() as running:
        await asyncio.sleep(15)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
    assert asyncio.all_tasks() == {asyncio.current_task()}
    assert now() == pytest.approx(15, abs=0.01)
    assert story.source.committed == {INPUT: Mark(30)}


@virtual_time
async def test_a_commit_that_fails_costs_nothing_but_is_counted() -> None:
    story = Story(tickets(500), classifiers=[FirstWord(seconds=5)], settings=stream(batch={"documents": 5}))
    story.source.failures = [Unavailable("no broker"), Fenced("a rebalance"), Unavailable("no broker")]
    await story.run()
    assert len(story.results) == 500
    assert story.source.committed == {INPUT: Mark(500)}
    assert story.sample("commits_total", result="failed") == 2
    assert story.sample("commits_total", result="fenced") == 1


@virtual_time
async def test_what_is_committed_is_committed_once() -> None:
    story = Story(tickets(100), ends=False)
    async with story.running():
        await asyncio.sleep(60)
    assert story.source.committed == {INPUT: Mark(100)}
    assert story.source.commits == 1


@virtual_time
async def test_a_result_that_its_topic_does_not_take_becomes_a_dead_letter_and_a_copy_is_merely_missing() -> None:
    records = [written(0, "billing"), written(1, "billing", id="n" * 900), written(2, "billing", id="n" * 2000)]
    routed = stream(routes=[{"class": "billing", "to": "copies"}])
    story = Story(records, settings=routed, sink=MemorySink({"classified": 1800, "copies": 900}))
    await story.run()
    assert story.letters == {2: ("result_too_large", records[2].value)}
    assert {message.source.offset for message in story.sink.to("classified")} == {0, 1}
    assert {message.source.offset for message in story.sink.to("copies")} == {0}
    assert story.source.committed == {INPUT: Mark(3)}
    assert story.sample("records_finished_total", outcome="classified") == 2
    assert story.sample("dead_letters_total", reason="result_too_large") == 1


@virtual_time
async def test_a_sink_that_fails_stops_the_stream_and_what_it_did_not_take_is_not_committed() -> None:
    class Full(MemorySink):
        async def publish(self, messages: Sequence[Message]) -> list[Message]:
            if len(self.messages) >= 50:
                raise Misconfigured("topic classified: nobody may write there")
            return await super().publish(messages)

    story = Story(tickets(100), sink=Full(), settings=stream(batch={"documents": 10}), in_flight=1)
    with pytest.raises(ExceptionGroup) as stopped:
        await story.run()
    assert stopped.group_contains(Misconfigured, match="nobody may write")
    assert story.source.committed == {INPUT: Mark(50)}


@virtual_time
async def test_a_source_that_fails_stops_the_stream_and_what_is_finished_is_committed() -> None:
    story = Story(tickets(100), ends=False)
    poll = story.source.poll

    async def fail(room: Room, timeout: float) -> list[Record] | None:
        if now() > 5:
            raise Misconfigured("kafka.group_id: not authorized")
        return await poll(room, timeout)

    story.source.poll = fail  # type: ignore[method-assign]
    with pytest.raises(ExceptionGroup) as stopped:
        await story.run()
    assert stopped.group_contains(Misconfigured, match=r"kafka\.group_id")
    assert story.source.committed == {INPUT: Mark(100)}


@pytest.mark.parametrize("mistake", ["fewer", "more"])
def test_a_classifier_that_answers_with_too_few_or_too_many_outcomes_is_not_believed(mistake: str) -> None:
    class Confused(FirstWord):
        async def classify(self, documents: Sequence[Document]) -> list[Outcome]:
            outcomes = await super().classify(documents)
            return outcomes[1:] if mistake == "fewer" else [*outcomes, *outcomes]

    @virtual_time
    async def tell() -> None:
        story = Story(tickets(10), classifiers=[Confused()])
        with pytest.raises(ExceptionGroup) as stopped:
            await story.run()
        assert stopped.group_contains(ValueError)
        assert story.sink.messages == []
        assert story.source.committed == {}

    tell()


@virtual_time
async def test_results_are_copied_by_their_class() -> None:
    routes = [{"class": "refund", "to": "refunds"}]
    story = Story([written(0, "billing"), written(1, "refund")], settings=stream(routes=routes))
    await story.run()
    assert [orjson.loads(message.value or b"")["id"] for message in story.sink.to("refunds")] == ["0/1"]
    assert story.results == ["0/0", "0/1"]


@virtual_time
async def test_what_is_in_hand_is_seen_from_outside() -> None:
    story = Story(tickets(100), classifiers=[FirstWord(seconds=10)], settings=stream(batch={"documents": 10}))
    async with story.running():
        await asyncio.sleep(5)
        assert story.sample("records_inflight") == 100
        assert story.sample("batches_inflight") == 10
        assert story.sample("assigned_partitions") == 2
        assert story.sample("consumer_lag_records", partition="0") == 100
        await asyncio.sleep(5.1)
        assert story.sample("records_inflight") == 0
        assert story.sample("consumer_lag_records", partition="0") == 0
        assert story.sample("queue_wait_seconds_count") == 10


@virtual_time
async def test_a_partition_that_is_gone_is_not_seen_any_more() -> None:
    story = Story(tickets(100), ends=False)
    async with story.running():
        await asyncio.sleep(5)
        assert story.sample("consumer_lag_records", partition="0") == 0
        await story.source.revoke([INPUT])
        assert story.sample("consumer_lag_records", partition="0") is None
        assert story.sample("assigned_partitions") == 1
        assert story.sample("rebalances_total", event="revoked") == 1


# The dead-letter limit


def refuses_all_until(moment: float) -> Callable[[], CallFailed | None]:
    return lambda: Rejected("400 SomethingNew") if now() < moment else None


def said(logged: Iterable[Mapping[str, Any]], event: str) -> int:
    return sum(line["event"] == event for line in logged)


@virtual_time
async def test_a_classifier_that_refuses_everything_is_not_believed_and_everything_is_asked_again() -> None:
    story = Story(tickets(1500), classifiers=[FirstWord(trouble=refuses_all_until(1500))], ends=False)
    with capture_logs() as logged:
        async with story.running() as task:
            await asyncio.sleep(1000)
            assert len(story.letters) == 100
            assert story.sample("dead_letter_limit_reached") == 1
            assert story.source.committed[INPUT].offset <= 100
            assert said(logged, "dead_letter_limit_reached") == 1
            await asyncio.sleep(1)
            calls = len(story.classifiers[0].calls)
            await asyncio.sleep(290)
            assert len(story.classifiers[0].calls) - calls <= 50, "one trial in five minutes"
            await asyncio.sleep(1810 - now())
            story.stop.set()
            await task
    assert len(story.letters) == 100
    assert len(story.results) == len(set(story.results)) == 1400
    assert story.sample("dead_letter_limit_reached") == 0
    assert said(logged, "dead_letter_limit_lifted") == 1
    assert story.source.committed == {INPUT: Mark(1500)}


@virtual_time
async def test_garbage_stays_where_it_is_until_somebody_restarts_the_worker() -> None:
    garbage = [record(offset, b"no JSON") for offset in range(500)]
    story = Story(garbage, ends=False, settings=stream(drain=20))
    with capture_logs() as logged:
        async with story.running() as task:
            await asyncio.sleep(600)
            assert len(story.letters) == 100
            assert said(logged, "dead_letter_limit_reached") == 1
            began = now()
            story.stop.set()
            await task
            assert now() - began < 1, "there is nothing to drain"
    assert story.source.committed == {INPUT: Mark(100)}
    again = Story(garbage, ends=False, committed=story.source.committed)
    async with again.running():
        await asyncio.sleep(60)
        assert sorted(again.letters) == list(range(100, 200))


@virtual_time
async def test_what_is_held_back_goes_with_its_partition() -> None:
    records = [*tickets(50), *tickets(300, OTHER)]  # of the first batches that are refused some are the other's
    story = Story(records, classifiers=[FirstWord(trouble=refuses_all_until(300))], ends=False)
    async with story.running() as task:
        await asyncio.sleep(100)
        await story.source.revoke([OTHER])
        assert now() < 102, "nobody waits for what is held back"
        mine = story.source.committed[OTHER]
        await asyncio.sleep(600)
        story.stop.set()
        await task
    assert {each for each in range(300) if is_told(Position(*OTHER, each), {OTHER: mine})} == {
        message.source.offset for message in story.sink.messages if message.source.partition == OTHER.number
    }
    assert story.source.committed[INPUT] == Mark(50)


@virtual_time
async def test_one_document_in_three_that_is_refused_is_not_absurd() -> None:
    records = [written(offset, "unwanted" if offset % 3 == 0 else "billing") for offset in range(1500)]
    story = Story(records)
    await story.run()
    assert len(story.letters) == 500
    assert len(story.results) == 1000


@virtual_time
async def test_tombstones_are_no_refusals() -> None:
    story = Story([record(offset, None) for offset in range(500)])
    await story.run()
    assert len(story.letters) == 500


@virtual_time
async def test_what_answers_cost_is_in_them_and_counted_by_stream_and_account() -> None:
    story = Story(tickets(50))
    gate = Limits(settings.Limits(spend_per_day=1), Tariff(0.002))
    telemetry = story.telemetry.account("paid", "fake")
    story.accounts = [Account("paid", "fake", FirstWord(), limits=gate, telemetry=telemetry)]
    story.telemetry.watch_account(story.accounts[0].statistics)
    await story.run()
    assert {orjson.loads(message.value or b"")["usage"]["cost"] for message in story.sink.to("classified")} == {0.002}
    assert story.sample("cost_total") == pytest.approx(0.1)
    who = {"account": "paid", "provider": "fake"}
    sample = story.telemetry.registry.get_sample_value
    assert sample("labelstream_account_cost_total", who) == pytest.approx(0.1)
    assert sample("labelstream_account_spent", {**who, "period": "day"}) == pytest.approx(0.1)
    assert sample("labelstream_account_spend_limit", {**who, "period": "day"}) == 1


@virtual_time
async def test_a_rebalance_changes_how_much_of_the_quotas_is_ours() -> None:
    story = Story([*tickets(200), *tickets(200, OTHER)], settings=stream(batch={"documents": 1}), ends=False)
    gate = Limits(settings.Limits(documents_per_second=10))
    telemetry = story.telemetry.account("shared", "fake")
    story.accounts = [Account("shared", "fake", FirstWord(), limits=gate, telemetry=telemetry)]
    async with story.running():
        await asyncio.sleep(10)
        assert len(story.results) == pytest.approx(98, abs=3)
        await story.source.revoke([OTHER])
        before = len(story.results)
        await asyncio.sleep(20)
        assert len(story.results) - before == pytest.approx(98, abs=3)


@virtual_time
async def test_what_was_given_up_and_is_answered_all_the_same_is_published_before_its_partition_goes() -> None:
    failures = [OUTAGE]
    classifier = FirstWord(seconds=1, trouble=lambda: failures.pop() if failures else None)
    mixed = [written(0, "billing 0"), written(0, "billing 0", partition=OTHER)]
    story = Story(mixed, settings=stream(batch={"documents": 2}), classifiers=[classifier], sink=SlowSink(), ends=False)
    async with story.running():
        await asyncio.sleep(1.19)  # the first call has failed, and its documents wait to be asked for again
        for each in tickets(2, first=1):
            story.source.add(each)
        await asyncio.sleep(0.03)
        # It waits for those two, which are out, and published at 3.2 s. The first two are being published then.
        await story.source.revoke([INPUT])
        await story.source.assign([INPUT])
        await asyncio.sleep(10)
    assert sorted(story.results) == ["0/0", "0/1", "0/2", "1/0"]
    assert len(classifier.calls) == 3
