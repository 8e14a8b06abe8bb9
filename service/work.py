"""What a stream has in hand: records that are tracked, documents that wait for company, batches that are out."""

import asyncio
import math
import time
from collections.abc import AsyncIterator, Coroutine, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial

import structlog

from service.batches import Batcher, Most, packed
from service.dead_letter_gate import DeadLetterGate
from service.delivery import AtLeastOnce, Delivery, ExactlyOnce, Finished, Sink, Transactions
from service.dispatch.answers import Answer, Batch
from service.dispatch.dispatcher import Dispatcher
from service.dispatch.identical import likes
from service.dispatch.lanes import Lane, Lanes, first_answers
from service.documents import Document, Reason, Record, Refused, Stage
from service.formats.reading import Reader
from service.jobs.ledger import Ledger, Resumed
from service.observability.telemetry import StreamStatistics, Telemetry
from service.offsets import Mark, Offsets, Partition, Room
from service.order import InOrder
from service.redaction import redaction
from service.registry.schemas import Awaited, Schemas
from service.routing.records import Routing, dead_letter
from service.settings import Stream
from service.source import Source

log = structlog.get_logger(__name__)

_TICK = 0.5
"""The longest, in seconds, that reading waits before it looks whether to stop."""

_SHORTEST_TICK = 0.05
"""The shortest that it waits for documents that go from lane to lane, where a batch's own wait is even less."""

_LAST_COMMIT = 10.0
"""Seconds that the last commit of a partition may take, before it is left to its next owner to read it all again."""


class _Lane:
    """A queue of documents to some of the accounts: what waits for company, or for the answer of its like."""

    def __init__(self, stream: Stream, lane: Lane, place: int, dispatcher: Dispatcher, of: int) -> None:
        self.place = place
        self.name = lane.name
        self.gives_way = lane.gives_way
        self.dispatcher = dispatcher
        documents = min(stream.batch.documents, dispatcher.most.documents)
        characters = min(stream.batch.characters, dispatcher.most.characters)
        self.most = Most(documents, characters, dispatcher.most.bytes)
        self.batcher = Batcher(self.most, stream.batch.wait)
        self.likes = likes(stream.identical, dispatcher.accounts, of)


class Work:
    """What is in hand: records tracked, documents in the tray, batches waiting or out."""

    def __init__(
        self,
        stream: Stream,
        source: Source,
        sink: Sink,
        dispatcher: Dispatcher,
        *,
        ledger: Ledger,
        telemetry: Telemetry,
        stop: asyncio.Event,
        routing: Routing,
        schemas: Schemas | None,
    ) -> None:
        self._stream = stream
        self._routing = routing
        self._awaited = Awaited(schemas) if schemas is not None and stream.document.format == "registry" else None
        self._source = source
        self._dispatcher = dispatcher
        self._ledger = ledger
        self._stop = stop
        lanes = Lanes(stream, dispatcher)
        self._course = lanes.course
        self._lanes = [
            _Lane(stream, lane, place, each, len(lanes.dispatchers))
            for place, (lane, each) in enumerate(zip(lanes.course.lanes, lanes.dispatchers, strict=True))
        ]
        self._is_one_lane = len(self._lanes) == 1
        self._tick = _TICK if self._is_one_lane else min(_TICK, max(_SHORTEST_TICK, stream.batch.wait))
        self._ended = False
        self._batches: dict[Batch, asyncio.Task[None]] = {}
        self._joined = False
        self._telemetry = telemetry.stream(stream.input, self.statistics)
        self._tracing = telemetry.tracing
        self.trial = lanes.trial(stream, self._telemetry)
        redact = redaction(stream.redact, self._telemetry.redacted)
        decoders = schemas.decoders if schemas is not None else {}
        self._reader = Reader(stream.document, lanes.too_long, stream.fields_asked, redact, decoders)
        fullest = max(lane.most.documents for lane in self._lanes)
        self.worthwhile = max(fullest, stream.capacity.documents // 20)  # a poll costs as much as two documents
        self.offsets = Offsets(
            stream.capacity.documents,
            stream.capacity.bytes,
            source.metadata_limit,
            lambda partition: dispatcher.beside(partition, source.partitions()),
        )
        delivery: Delivery = (
            ExactlyOnce(
                stream, source, self.offsets, ledger=ledger, telemetry=self._telemetry, fenced=self._let_go_at_once
            )
            if isinstance(source, Transactions)
            else AtLeastOnce(stream, source, sink, self.offsets, ledger=ledger, telemetry=self._telemetry)
        )
        self._delivery = InOrder(delivery, self.offsets) if stream.ordered_by == "key" else delivery
        self.commit = self._delivery.commit
        self._gate = DeadLetterGate(stream, self.offsets)
        self._trial: Batch | None = None

    def patience(self) -> float:
        """Seconds that reading may wait: until a batch must leave, or until a look at `stop` is due."""
        now, longest = _now(), self._tick
        for lane in self._lanes:
            if (due := lane.batcher.due_in(now)) is not None and due < longest:
                longest = due
        return longest

    async def room(self) -> Room:
        """How much may be read, once that is worth a poll; nothing while the dead-letter limit is reached."""
        if self._gate.reached:
            await asyncio.sleep(self.patience())
            return Room(0, 0)
        return await self.offsets.wait_room(self.worthwhile, timeout=self.patience())

    def go_on(self, under_way: asyncio.TaskGroup) -> None:
        """Begin what has been waiting: jobs of an earlier life, and what the dead-letter limit holds back.

        Of that, some is asked for on trial, and all when the limit is lifted.
        """
        self._resume(self._ledger.ready(self.offsets.highest, _now()), under_way)
        self._ask_in_place(under_way)
        if orphans := self._ledger.orphans():
            under_way.create_task(self._dispatcher.give_up(orphans))
        if self._trial is None and (documents := self._gate.trial(_now())) is not None:
            self._trial = self._start(self._lane_of(documents), documents, under_way)
        held, garbage = self._gate.released()
        for documents in held:
            self._start(self._lane_of(documents), documents, under_way)
        if garbage:
            under_way.create_task(self._refuse(garbage))

    def take(self, records: Sequence[Record], under_way: asyncio.TaskGroup) -> None:
        """Take records in hand: those that are documents go into batches, the others become dead letters.

        A document that a job has already waits for that, one that is like another for its answer, and a record whose
        schema is not known yet until it is.
        """
        if records:
            self._telemetry.consumed(len(records))
        tracked = self.offsets.track(records)
        self._delivery.expect(tracked)
        if self._awaited is not None:
            tracked = self._awaited.ready(tracked, under_way, partial(self._read, under_way=under_way))
        self._read(tracked, under_way)

    def _read(self, records: Sequence[Record], under_way: asyncio.TaskGroup) -> None:
        now, documents, refused = time.time(), [], []
        for record in records:
            document = self._reader.read(record, now)
            if isinstance(document, Refused):
                refused.append((record, document))
            else:
                documents.append(document)
        if refused:
            under_way.create_task(self._refuse(refused))
        self._telemetry.documents(documents)
        documents = self._ledger.claim(documents, _now())
        if self._is_one_lane:
            self._enter(self._lanes[0], documents, under_way)
            return
        self._enter_each(documents, under_way)

    def _enter_each(self, documents: Iterable[Document], under_way: asyncio.TaskGroup) -> None:
        """Have documents wait in the lanes where they belong, and begin the batches that are due in any."""
        entering: list[list[Document]] = [[] for _ in self._lanes]
        for document in documents:
            entering[self._course.belongs(document)].append(document)
        for lane, those in zip(self._lanes, entering, strict=True):
            self._enter(lane, those, under_way)

    def _enter(self, lane: _Lane, documents: list[Document], under_way: asyncio.TaskGroup) -> None:
        """Have documents wait in a lane for company, and begin the batches there that are due."""
        documents, known = lane.likes.sort(documents, _now())
        self._give(lane, known, under_way)
        self.start(lane, lane.batcher.add(documents, _now()), under_way)
        if self._ended:
            self.start(lane, lane.batcher.flush(), under_way)

    def _lane_of(self, documents: Sequence[Document]) -> _Lane:
        return self._lanes[0 if self._is_one_lane else self._course.belongs(documents[0])]

    def flush(self, under_way: asyncio.TaskGroup) -> None:
        """Begin all that waits for company: there will be none."""
        self._resume(self._ledger.ready(self.offsets.highest, math.inf), under_way)
        self._ended = True
        for lane in self._lanes:
            self.start(lane, lane.batcher.flush(), under_way)

    def _resume(self, jobs: Iterable[Resumed], under_way: asyncio.TaskGroup) -> None:
        for job, documents in ((each.job, each.documents) for each in jobs):
            batch = Batch([*documents.values()], job, [*documents])
            lane = self._lanes[0 if self._is_one_lane else self._course.of_job(job, batch.documents[0])]
            self._begin(batch, self._settle(lane, batch, under_way), under_way)

    def start(self, lane: _Lane, batches: Iterable[Sequence[Document]], under_way: asyncio.TaskGroup) -> None:
        """Begin to settle batches of a lane."""
        for documents in batches:
            self._start(lane, documents, under_way)

    def _start(self, lane: _Lane, documents: Sequence[Document], under_way: asyncio.TaskGroup) -> Batch:
        batch = Batch(documents)
        self._begin(batch, self._settle(lane, batch, under_way), under_way)
        return batch

    def _give(self, lane: _Lane, answers: Iterable[Answer], under_way: asyncio.TaskGroup) -> None:
        """Begin to publish answers of documents that were not asked for."""
        for answer in answers:
            if answer.answered_from:
                self._telemetry.spared(answer.answered_from, len(answer.documents), answer.saved)
            batch = Batch(answer.documents, answered=True)
            self._begin(batch, self._answered(lane, batch, [answer], under_way), under_way)

    def _ask_in_place(self, under_way: asyncio.TaskGroup) -> None:
        """Begin documents that have waited for the answers of others in vain."""
        for lane in self._lanes:
            if waited := lane.likes.next():
                self.start(lane, packed(self._without_those_that_go(waited), lane.most), under_way)

    def _without_those_that_go(self, documents: Sequence[Document]) -> list[Document]:
        """Leave to others the documents that are not to go out any more; gives the rest."""
        left = [document for document in documents if self._stop.is_set() or self.offsets.is_closing(document.record)]
        self._leave(left)
        self._delivery.give_up([document.record for document in left])
        gone = set(map(id, left))
        return [document for document in documents if id(document) not in gone]

    def _leave(self, documents: Sequence[Document]) -> None:
        self.offsets.abandon(document.record for document in documents)
        self._telemetry.abandoned(len(documents))

    def _begin(self, batch: Batch, settling: Coroutine[None, None, None], under_way: asyncio.TaskGroup) -> None:
        if self._tracing is not None:
            self._tracing.begin(self._stream, [each for each in batch.documents if not each.stages])
        task = self._batches[batch] = under_way.create_task(settling)
        task.add_done_callback(partial(self._done, batch))

    def give_up_waiting(self, partitions: Iterable[Partition]) -> None:
        """Leave to the next owner of these partitions what has not gone out to a classifier yet."""
        given_up = set(partitions)

        def is_given_up(document: Document) -> bool:
            return Partition(*document.record.position[:2]) in given_up

        gone = [document for tray in self._trays for document in tray.drop(is_given_up)]
        left = [document.record for document in gone]
        for held in (self._gate, *([self._awaited] if self._awaited is not None else ())):
            left += held.drop(lambda record: Partition(*record.position[:2]) in given_up)
        self.offsets.abandon(left)
        self._telemetry.abandoned(len(left))
        out = set[int]()
        for batch, task in self._batches.items():
            if batch.asked or batch.answered:
                out |= set(map(id, batch.documents))
            elif all(map(is_given_up, batch.documents)):
                task.cancel()
                gone += batch.documents
                left += [document.record for document in batch.documents]
            else:
                records = [document.record for document in batch.documents if is_given_up(document)]
                self.offsets.abandon(records)
                left += records
        for lane in self._lanes:
            alike = lane.likes.drop(is_given_up, out)
            self._leave(alike)
            lane.likes.promote(gone)
            left += [document.record for document in alike]
        self._delivery.give_up(left)

    @property
    def _trays(self) -> "Sequence[Batcher | Ledger]":
        """Where documents wait that are not in a batch."""
        return (*(lane.batcher for lane in self._lanes), self._ledger)

    def _let_go_at_once(self, partition: Partition) -> None:
        """Stop work on a partition that was taken from us unasked."""
        self.give_up_waiting([partition])
        self._forget([partition])

    def _forget(self, partitions: Sequence[Partition]) -> None:
        """Let go of partitions, and end batches that have nothing of ours left: the next owner asks after the jobs."""
        self._delivery.forget(partitions)
        self._ledger.forget(partitions)
        self._dispatcher.give_up_partitions(partitions)
        self.offsets.forget(partitions)
        for lane in self._lanes:
            lane.likes.drop(lambda document: not self.offsets.owned([document.record]))
        for batch, task in self._batches.items():
            if not self.offsets.owned(document.record for document in batch.documents):
                task.cancel()
                for lane in self._lanes:
                    lane.likes.promote(batch.documents)

    async def _settle(self, lane: _Lane, batch: Batch, under_way: asyncio.TaskGroup) -> None:
        answers = await (self._unless_away if lane.gives_way else self._asked)(lane, batch, under_way)
        await asyncio.sleep(0)  # whoever has the place at the account now goes out first, and is worked at meanwhile
        if batch.asked_at is not None:
            self._telemetry.asked(batch.asked_at - batch.documents[0].read_at)
        self._give(lane, lane.likes.answered(answers, _now()), under_way)
        self._ask_in_place(under_way)
        answers = [self._ours(answer) for answer in answers]
        if batch is self._trial and any(answer.documents for answer in answers):
            self._gate.judge([outcome for answer in answers for outcome in answer.outcomes])
        await self._answered(lane, batch, answers, under_way)

    async def _asked(self, lane: _Lane, batch: Batch, _: asyncio.TaskGroup) -> list[Answer]:
        return await lane.dispatcher.classify(batch, self._ledger)

    async def _unless_away(self, lane: _Lane, batch: Batch, under_way: asyncio.TaskGroup) -> list[Answer]:
        """The answers of a lane, or none where it is away: documents that have an answer are published with that."""
        asking = asyncio.create_task(lane.dispatcher.classify(batch, self._ledger))
        try:
            while not (await asyncio.wait([asking], timeout=self._tick))[0]:
                if lane.dispatcher.is_away and not batch.asked and not batch.answered and not batch.job:
                    firsts = [(each, self._course.first_answer(each)) for each in batch.documents]
                    if able := [(each, stage) for each, stage in firsts if stage is not None]:
                        break
            else:
                return asking.result()
        finally:
            asking.cancel()
            await asyncio.wait([asking])
        if rest := [each for each, stage in firsts if stage is None]:
            self._start(lane, rest, under_way)
        batch.documents = [each for each, _ in able]
        lane.likes.promote(batch.documents)
        self._ask_in_place(under_way)
        why = f"unsure, and {', '.join(each.name for each in lane.dispatcher.accounts)} could not be asked"
        await self._publish(batch, self._first_answers(lane, [(*each, why) for each in able]))
        return []

    async def _answered(
        self, lane: _Lane, batch: Batch, answers: Sequence[Answer], under_way: asyncio.TaskGroup
    ) -> None:
        """Publish what is finished by these answers, and have the rest go on into other lanes."""
        for answer in answers:
            self._telemetry.billed(answer.cost)
        if not self._is_one_lane:
            answers = [final for answer in answers for final in self._sent_on(lane, batch, answer, under_way)]
        await self._publish(batch, answers)

    def _sent_on(self, lane: _Lane, batch: Batch, answer: Answer, under_way: asyncio.TaskGroup) -> list[Answer]:
        """Have the documents go on that are not finished by an answer; gives what is to be published of the others."""
        onward = self._course.after(lane.place, answer, self._routing.rules.is_unsure)
        self._telemetry.passed(lane.name, "finished", len(onward.finished))
        if onward.further:
            self._telemetry.passed(lane.name, "went_on", len(onward.further))
            gone = {id(document.record) for document in onward.further}
            batch.documents = [document for document in batch.documents if id(document.record) not in gone]
            self._enter_each(self._without_those_that_go(onward.further), under_way)
        documents, outcomes = [each for each, _ in onward.finished], [outcome for _, outcome in onward.finished]
        finals = [replace(answer, documents=documents, outcomes=outcomes)] if documents else []
        return [*finals, *self._first_answers(lane, onward.staying)]

    def _first_answers(self, lane: _Lane, staying: Sequence[tuple[Document, Stage, str]]) -> list[Answer]:
        self._telemetry.passed(lane.name, "first_answer", len(staying))
        return first_answers(staying, self._course, self._dispatcher)

    async def _publish(self, batch: Batch, answers: Sequence[Answer]) -> None:
        answers = [self._gate.within_limit(answer, _now()) for answer in answers]
        with batch.out():  # answered and paid for: as much worth waiting for as before
            for answer in answers:
                ours = self._ours(answer)
                records = [document.record for document in ours.documents]
                self.offsets.take_up(records)  # else a rebalance is over while they are published, and others repeat it
                attempts = [ours.attempts] * len(records)
                await self._delivery.deliver(Finished(records, ours.outcomes, attempts, self._routing.route(ours)))
                self._telemetry.published(records, ours.outcomes, ours.account.name)
                self.trial.published(ours)

    async def _refuse(self, refused: Sequence[tuple[Record, Refused]]) -> None:
        refused = self._gate.garbage(refused, _now())
        keeps_tombstones = self._stream.tombstones == "dead_letter"
        outcomes = [why if keeps_tombstones or why.reason is not Reason.TOMBSTONE else None for _, why in refused]
        records = [record for record, _ in refused]
        letters = [dead_letter(self._stream, record, why) for record, why in zip(records, outcomes, strict=True) if why]
        await self._delivery.deliver(Finished(records, outcomes, [0] * len(records), letters))

    def _ours(self, answer: Answer) -> Answer:
        """The part of an answer that is still ours to publish: the next owner of the rest asks again."""
        owned = self.offsets.owned([document.record for document in answer.documents])
        if len(owned) == len(answer.documents):
            return answer
        ours = set(map(id, owned))
        return answer.part([id(document.record) in ours for document in answer.documents])

    def _done(self, batch: Batch, _task: asyncio.Task[None]) -> None:
        del self._batches[batch]
        if self._tracing is not None:
            self._tracing.leave(batch.documents)
        if batch is self._trial:
            self._trial = None
        if left := self.offsets.owned([document.record for document in batch.documents]):
            self.offsets.abandon(left)
            self._telemetry.abandoned(len(left))

    async def assigned(self, marks: Mapping[Partition, Mark | None]) -> None:
        """Begin partitions where their last commit left them."""
        began = _now()
        for partition, mark in marks.items():
            self.offsets.assign(partition, mark)
            if mark is not None:
                self._dispatcher.take_over(partition, mark.metadata, self._source.partitions())
        await self._ledger.restore(marks)
        self._dispatcher.share(len(self.offsets.partitions), self._source.partitions())
        self._joined = True
        self._telemetry.rebalanced("assigned", _now() - began)
        log.info("partitions_assigned", topic=self._stream.input, partitions=[number for _, number in marks])

    async def revoked(self, partitions: Iterable[Partition]) -> None:
        """Finish what is out at a classifier, commit it, and forget the rest."""
        partitions, began = list(partitions), _now()
        self._joined = False
        self.offsets.close(partitions)
        self.give_up_waiting(partitions)
        drained = await self.offsets.wait_idle(partitions, self._stream.drain)
        await self._commit_at_last()
        self._forget(partitions)
        self._dispatcher.share(len(self.offsets.partitions), self._source.partitions())
        self._telemetry.rebalanced("revoked", _now() - began)
        log.info(
            "partitions_revoked",
            topic=self._stream.input,
            partitions=[number for _, number in partitions],
            drained=drained,
        )

    async def _commit_at_last(self) -> None:
        """Commit what others will go on from, unless no broker takes it in a while."""
        self._dispatcher.settle()
        try:
            async with asyncio.timeout(_LAST_COMMIT):
                await self.commit()
        except TimeoutError:
            log.warning("commit_failed", topic=self._stream.input, reason=f"no broker took it in {_LAST_COMMIT:.0f} s")

    @asynccontextmanager
    async def committing(self) -> AsyncIterator[None]:
        """Commit on a timer for the length of the block, and once more when it ends, however it ends."""

        async def every_so_often() -> None:
            while True:
                await asyncio.sleep(self._stream.seconds_between_commits)
                await self.commit()
                timers.create_task(self._tidy())

        try:
            async with asyncio.TaskGroup() as timers:
                timer = timers.create_task(every_so_often())
                try:
                    yield
                finally:
                    timer.cancel()
        finally:
            await self._commit_at_last()
            await self._tidy()

    async def _tidy(self) -> None:
        """Erase the notes that nobody needs, and what their jobs have left behind; what takes too long stays."""
        try:
            async with asyncio.timeout(_LAST_COMMIT):
                await self._ledger.sweep()
                await self._dispatcher.clear(self._ledger.done())
        except TimeoutError:
            log.warning("jobs_not_tidied", topic=self._stream.input, seconds=_LAST_COMMIT)

    @asynccontextmanager
    async def drained(self) -> AsyncIterator[None]:
        """Once `stop` is set, leave what waits and bound what is out; what is unfinished then is read again."""

        async def expire() -> None:
            await self._stop.wait()
            deadline.reschedule(_now() + self._stream.drain)
            log.info("draining", topic=self._stream.input, batches=len(self._batches), seconds=self._stream.drain)
            self.give_up_waiting(self.offsets.partitions)

        try:
            async with asyncio.timeout(None) as deadline, asyncio.TaskGroup() as watch:
                expiry = watch.create_task(expire())
                try:
                    yield
                finally:
                    expiry.cancel()
        except TimeoutError:
            if not deadline.expired():
                raise
            log.warning("drain_incomplete", topic=self._stream.input, unfinished=self.offsets.statistics().documents)

    def statistics(self) -> StreamStatistics:
        """A picture of this moment."""
        kept = [lane.likes.statistics() for lane in self._lanes]
        return StreamStatistics(
            self._stream.input,
            self._stream.capacity.documents,
            len(self._batches),
            self.offsets.statistics(),
            self._source.ends(),
            joined=self._joined,
            draining=self._stop.is_set(),
            dead_letter_limit_reached=self._gate.reached,
            job_notes=self._ledger.statistics(),
            answers_kept=sum(each.answers for each in kept),
            bytes_kept=sum(each.bytes for each in kept),
            baseline=self._stream.baseline,
            awaiting_schema=len(self._awaited) if self._awaited is not None else 0,
        )


def _now() -> float:
    return asyncio.get_running_loop().time()
