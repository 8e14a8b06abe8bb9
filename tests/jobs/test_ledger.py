"""A job outlives the process that submitted it: crashes and restarts of a pipeline in memory, with its notes kept."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import pytest
from structlog.testing import capture_logs

from service.dispatch.answers import Answer, Batch
from service.dispatch.dispatcher import Dispatcher
from service.documents import Document, Outcome
from service.errors import JobLost, Unavailable
from service.jobs.ledger import Ledger
from service.jobs.notes import Job
from service.observability.telemetry import Telemetry
from service.offsets import Mark, Partition
from service.pipeline import run
from service.streams.memory import MemoryNotes, MemorySink, MemorySource, TransactionalMemorySource
from tests.classifiers import FirstWordByJobs, account
from tests.clock import now, virtual_time
from tests.records import INPUT, document, written
from tests.test_pipeline import stream, tickets

OTHER = Partition("incoming", 1)


class Life:
    """One process after another over the same input, output, notes and classifier."""

    def __init__(self, source: MemorySource, sink: MemorySink, provider: FirstWordByJobs, **document: object) -> None:
        self.document = document
        self.source = source
        self.sink = sink
        self.provider = provider
        self.telemetry = Telemetry()

    @property
    def results(self) -> list[tuple[int, int]]:
        return sorted(message.source[1:] for message in self.sink.to("classified"))

    @property
    def submitted(self) -> int:
        return sum(len(texts) for _, texts in self.provider.calls)

    def kept(self) -> int:
        """How many notes there are."""
        kept = {(message.source.partition, message.key): message.value for message in self.sink.to("jobs")}
        return sum(value is not None for value in kept.values())

    async def live(self, seconds: float | None = None, *, name: str = "first") -> None:
        """Run to the end of the input, or until it is killed."""
        self.telemetry = Telemetry()
        asked = account(self.provider, name, telemetry=self.telemetry)
        settings = stream(classify_with=[name], commit_every="200ms", document=self.document)
        running = asyncio.create_task(
            run(
                settings,
                self.source,
                self.sink,
                Dispatcher([asked], 1.0, settings.document.most_parts),
                telemetry=self.telemetry,
                stop=asyncio.Event(),
                ledger=Ledger(MemoryNotes(self.sink)),
            )
        )
        await asyncio.wait([running], timeout=seconds)
        if running.done():
            await running
            return
        sink, self.sink.messages = self.sink.messages[:], []
        commits = dict(self.source.committed)
        running.cancel()
        await asyncio.wait([running])
        self.sink.messages, self.source.committed = sink, commits  # what it does while it dies, kill -9 has it not do


def life(*, exactly_once: bool = False, seconds: float = 10.0, documents: int = 60) -> Life:
    sink = MemorySink()
    records = tickets(documents // 2) + tickets(documents // 2, OTHER)
    source = TransactionalMemorySource(sink, records) if exactly_once else MemorySource(records)
    return Life(source, sink, FirstWordByJobs(seconds=seconds))


@pytest.mark.parametrize("exactly_once", [False, True])
def test_a_job_that_was_out_when_the_process_died_is_asked_after_and_not_paid_again(exactly_once: bool) -> None:
    @virtual_time
    async def lives() -> None:
        it = life(exactly_once=exactly_once)
        for _ in range(3):
            await it.live(2)
        assert (it.submitted, it.results) == (60, [])
        assert it.kept() == 4  # three jobs, one of which has documents of both partitions
        await it.live()
        assert it.submitted == 60
        assert it.results == [(partition, offset) for partition in (0, 1) for offset in range(30)]
        assert it.kept() == 0
        who = {"account": "first", "provider": "fake"}
        assert it.telemetry.registry.get_sample_value("labelstream_records_resumed_total", who) == 60

    lives()


@pytest.mark.parametrize("exactly_once", [False, True])
@pytest.mark.parametrize("moment", [0.05, 1.0, 1.24, 1.26, 1.3, 1.45, 1.7, 2.9])
def test_whenever_it_dies_nothing_is_lost_and_nothing_paid_twice(moment: float, exactly_once: bool) -> None:
    @virtual_time
    async def lives() -> None:
        it = life(exactly_once=exactly_once, seconds=1.0, documents=200)
        await it.live(moment)
        await it.live()
        assert it.submitted == 200
        assert sorted(set(it.results)) == [(partition, offset) for partition in (0, 1) for offset in range(100)]
        if exactly_once:
            assert len(it.results) == 200
        assert it.kept() == 0

    lives()


LONG = "billing is wrong. " * 19


def life_of_parts(*, exactly_once: bool = False, seconds: float = 1.0, documents_per_call: int = 25) -> Life:
    """Twenty documents, every other of four parts of 90 characters, which jobs have one or several of."""
    provider = FirstWordByJobs(seconds=seconds, characters_per_document=100, documents_per_call=documents_per_call)
    records = [written(offset, f"{LONG if offset % 2 else 'refund'} {offset}") for offset in range(20)]
    sink = MemorySink()
    source = TransactionalMemorySource(sink, records) if exactly_once else MemorySource(records)
    return Life(source, sink, provider, too_long="split")


@pytest.mark.parametrize("exactly_once", [False, True])
@pytest.mark.parametrize("documents_per_call", [1, 3, 25])
@pytest.mark.parametrize("moment", [0.05, 0.5, 1.19, 1.24, 1.3, 1.45, 2.9])
def test_whenever_it_dies_no_part_of_a_document_is_lost_or_paid_twice(
    moment: float, documents_per_call: int, exactly_once: bool
) -> None:
    @virtual_time
    async def lives() -> None:
        it = life_of_parts(exactly_once=exactly_once, documents_per_call=documents_per_call)
        await it.live(moment)
        await it.live()
        assert it.submitted == 10 + 10 * 4
        assert sorted(set(it.results)) == [(0, offset) for offset in range(20)]
        if exactly_once:
            assert len(it.results) == 20
        assert it.kept() == 0
        split = [message for message in it.sink.to("classified") if b"split into 4 parts" in (message.value or b"")]
        assert {message.source.offset for message in split} == set(range(1, 20, 2))

    lives()


@virtual_time
async def test_only_the_parts_whose_jobs_are_lost_are_submitted_again() -> None:
    it = life_of_parts(seconds=10.0, documents_per_call=2)
    it.source = MemorySource([written(0, LONG)])
    await it.live(2)
    assert (it.submitted, it.kept()) == (4, 2)
    lost = [JobLost("gone")]
    it.provider = replace(it.provider, trouble=lambda: lost.pop() if lost and now() > 2 else None)
    await it.live()
    assert (it.submitted, it.results) == (6, [(0, 0)])
    assert it.kept() == 0


@virtual_time
async def test_parts_are_asked_after_at_the_account_that_has_them_though_another_is_preferred() -> None:
    sink, long = MemorySink(), document(0, LONG)
    first = FirstWordByJobs(characters_per_document=200, trouble=lambda: Unavailable("502"))
    second = FirstWordByJobs(characters_per_document=100, documents_per_call=3, seconds=60)

    async def asked(seconds: float | None) -> Answer | None:
        ledger = Ledger(MemoryNotes(sink))
        await ledger.restore({INPUT: None})
        dispatcher = Dispatcher([account(first), account(second, "second")], 1.0, 20)
        asking = asyncio.create_task(dispatcher.classify(Batch([long]), ledger))
        await asyncio.wait([asking], timeout=seconds)
        if asking.done():
            return asking.result()[0]
        asking.cancel()
        await asyncio.wait([asking])
        return None

    assert await asked(20) is None
    assert [len(texts) for _, texts in second.calls] == [3, 1]
    first.trouble = lambda: None
    answer = await asked(None)
    assert answer is not None
    assert answer.account.name == "second"
    assert (len(first.calls), len(second.calls)) == (0, 2)


@virtual_time
async def test_parts_of_a_text_that_was_changed_meanwhile_are_not_given_the_answers_of_the_old() -> None:
    it = life_of_parts(seconds=10.0)
    it.source = MemorySource([written(0, LONG)])
    await it.live(2)
    it.source = MemorySource([written(0, LONG.replace("wrong", "right"))])
    await it.live()
    assert (it.submitted, it.results) == (8, [(0, 0)])


@dataclass
class Forgetful(FirstWordByJobs):
    """Knows of no job but those that were submitted to this very one."""

    known: set[str] = field(default_factory=set)

    async def submit(self, documents: Sequence[Document]) -> str:
        job = await super().submit(documents)
        self.known.add(job)
        return job

    async def poll(self, job: str, documents: Mapping[int, Document]) -> list[Outcome] | None:
        if job not in self.known:
            raise JobLost("gone")
        return await super().poll(job, documents)


@virtual_time
async def test_a_job_that_is_lost_meanwhile_gives_its_documents_back() -> None:
    it = life()
    await it.live(2)
    it.provider = Forgetful(seconds=it.provider.seconds, calls=it.provider.calls)
    with capture_logs() as logs:
        await it.live()
    assert sum(entry["event"] == "job_not_resumed" for entry in logs) == 3
    assert len(it.results) == 60
    assert it.submitted == 120
    assert it.kept() == 0


@virtual_time
async def test_an_outage_while_a_job_is_out_does_not_lose_it() -> None:
    it = life()
    await it.live(2)
    it.provider = replace(it.provider, trouble=lambda: Unavailable("502") if 2 < now() < 100 else None)
    await it.live()
    assert (it.submitted, len(it.results)) == (60, 60)
    assert now() > 100


@virtual_time
async def test_a_document_that_stands_in_anothers_place_is_not_given_its_answer() -> None:
    it = life()
    await it.live(2)
    replaced = [written(offset, f"refund {offset}") for offset in range(30)]
    it.source = MemorySource(replaced + tickets(30, OTHER))
    await it.live()
    values = {message.source[1:]: message.value or b"" for message in it.sink.to("classified")}
    assert all((b'"refund"' in value) == (partition == 0) for (partition, _), value in values.items())
    assert len(values) == 60
    assert it.submitted == 90


@virtual_time
async def test_documents_of_a_job_that_do_not_come_again_are_not_waited_for() -> None:
    it = life()
    await it.live(2)
    it.source = MemorySource(tickets(20), ends=False, partitions=[INPUT])
    living = asyncio.create_task(it.live(60))
    await living
    assert it.results == [(0, offset) for offset in range(20)]
    assert it.submitted == 60


@virtual_time
async def test_jobs_of_an_account_that_is_gone_are_submitted_again() -> None:
    it = life()
    await it.live(2)
    await it.live(name="second")
    assert (it.submitted, len(it.results)) == (120, 60)


@virtual_time
async def test_jobs_of_another_model_are_submitted_again() -> None:
    it = life()
    await it.live(2)
    it.provider = replace(it.provider, model="newer")
    await it.live()
    assert (it.submitted, len(it.results)) == (120, 60)


@virtual_time
async def test_what_a_job_has_left_behind_is_cleared_once_it_is_all_committed() -> None:
    it = life(seconds=0.1)
    await it.live()
    assert len(it.provider.cleared) == len(set(it.provider.cleared)) == 3
    assert it.provider.cancelled == []


@virtual_time
async def test_a_job_whose_documents_were_all_submitted_again_is_given_up() -> None:
    it = life(documents=50)
    await it.live(2)
    jobs, older = MemoryNotes(it.sink), Ledger(MemoryNotes(it.sink))
    await older.restore({INPUT: None, OTHER: None})
    newer = Job("first", "first-word", str(now() + 1), 9e9, 25)
    await older.note(newer, [document(n, f"billing {n}") for n in range(25)])
    assert len(await jobs.read([INPUT, OTHER])) == 3
    await it.live()
    assert len(it.provider.cancelled) == 1
    assert (it.submitted, len(it.results)) == (50, 50)


@virtual_time
async def test_a_batch_that_outlives_a_rebalance_leaves_its_job_to_whoever_resumes_it() -> None:
    it = life(seconds=60.0)
    it.source = MemorySource(tickets(30) + tickets(30, OTHER), ends=False)
    living = asyncio.create_task(it.live(200))
    for _ in range(2):
        await asyncio.sleep(5)
        await it.source.revoke([INPUT, OTHER])
        await it.source.assign([INPUT, OTHER])
    await living
    assert it.submitted == 60
    assert it.results == [(partition, offset) for partition in (0, 1) for offset in range(30)]


@virtual_time
async def test_a_clock_that_is_ahead_elsewhere_has_no_older_job_believed() -> None:
    sink = MemorySink()
    documents = [document(n, f"billing {n}") for n in range(3)]
    for name, at in (("ahead", 2e9), ("newer", 1e9)):
        ledger = Ledger(MemoryNotes(sink))
        await ledger.restore({INPUT: None})
        await ledger.note(Job("first", "model", name, at, 3), documents)
    ledger = Ledger(MemoryNotes(sink))
    await ledger.restore({INPUT: None})
    assert ledger.claim(documents, 0.0) == []
    (resumed,) = ledger.ready(lambda _: 2, 0.0)
    assert resumed.job.name == "newer"
    assert [job.name for job in ledger.orphans()] == ["ahead"]


@virtual_time
async def test_a_job_that_still_speaks_for_some_documents_is_not_given_up() -> None:
    two = TwoOwners()
    first = await two.ledger(INPUT, OTHER)
    await first.note(two.job, two.documents)
    await first.note(two.job._replace(name="again", submitted_at=2.0, documents=3), two.documents[:3])
    assert (await two.ledger(INPUT, OTHER)).orphans() == []


class TwoOwners:
    """A job whose documents have two owners by now."""

    def __init__(self) -> None:
        self.sink = MemorySink()
        self.documents = [document(n, f"billing {n}") for n in range(3)]
        self.documents += [document(n, f"refund {n}", partition=OTHER) for n in range(2)]
        self.job = Job("first", "model", "job", 1.0, 5)

    async def ledger(self, *partitions: Partition) -> Ledger:
        ledger = Ledger(MemoryNotes(self.sink))
        await ledger.restore(dict.fromkeys(partitions))
        return ledger

    def of(self, partition: Partition) -> Sequence[Document]:
        return [each for each in self.documents if each.record.position.partition == partition.number]


@virtual_time
async def test_each_owner_asks_for_its_own_part_of_a_job() -> None:
    two = TwoOwners()
    await (await two.ledger(INPUT, OTHER)).note(two.job, two.documents)
    for mine in (INPUT, OTHER):
        ledger = await two.ledger(mine)
        assert ledger.claim(two.documents, 0.0) == [each for each in two.documents if each not in two.of(mine)]
        (resumed,) = ledger.ready(lambda _: 2, 0.0)
        assert [*resumed.documents.values()] == two.of(mine)
        ledger.discard(ledger.superfluous(mine, Mark(3)))
        await ledger.sweep()
        assert ledger.done() == []  # the other may still need it
