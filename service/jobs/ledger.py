"""The jobs of one stream that are under way: noted when they are submitted, and known again after a restart.

A note is safe before the answers of its job leave, and is erased once what came of the job is committed. Whoever is
assigned a partition reads its notes first: documents that a job holds are then not submitted again, the job is asked
after to its end instead. What happens in between decides nothing: an account that has lost a job gives its documents
back, and the notes of a job that was submitted since speak louder.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import structlog

from service.documents import Document, Message
from service.jobs import notes
from service.jobs.notes import Job, Note, Place, place_of
from service.offsets import Mark, Partition

PATIENCE = 5.0
"""Seconds that the documents of a job wait for the others that it has, before they are asked for without them."""

log = structlog.get_logger(__name__)


class Shelf(Protocol):
    """Where notes are kept."""

    async def read(self, partitions: Iterable[Partition]) -> list[Note]:
        """The notes of these partitions; it waits while nobody can say. Raises Misconfigured."""
        ...

    async def write(self, notes: Sequence[Note]) -> None:
        """Keep notes; when this returns they are safe. Raises Misconfigured."""
        ...

    async def erase(self, notes: Sequence[Note]) -> None:
        """Keep them no longer."""
        ...

    def erasing(self, notes: Sequence[Note]) -> list[Message]:
        """The messages that erase notes, for a transaction to take along."""
        ...


class NoShelf:
    """Keeps nothing: a crash costs what was out at a classifier."""

    async def read(self, partitions: Iterable[Partition]) -> list[Note]:  # noqa: ARG002  as Shelf
        """As `Shelf.read`."""
        return []

    async def write(self, notes: Sequence[Note]) -> None:
        """As `Shelf.write`."""

    async def erase(self, notes: Sequence[Note]) -> None:
        """As `Shelf.erase`."""

    def erasing(self, notes: Sequence[Note]) -> list[Message]:  # noqa: ARG002  as Shelf
        """As `Shelf.erasing`."""
        return []


@dataclass(slots=True)
class Resumed:
    """A job of an earlier life, and its documents, by their numbers there, as they come in again."""

    job: Job
    since: float
    documents: dict[int, Document] = field(default_factory=dict)


class Ledger:
    """The notes of a stream's partitions, on a shelf."""

    def __init__(self, shelf: Shelf) -> None:
        self._shelf = shelf
        self._notes: dict[Partition, dict[str, Note]] = {}
        self._claims: dict[Partition, dict[Place, Note]] = {}
        self._lasts: dict[Job, dict[Partition, int]] = {}
        self._waiting: dict[Job, Resumed] = {}
        self._left: dict[Job, int] = {}  # documents to finish, of jobs that are ours as a whole
        self._done: list[Job] = []
        self._orphans: list[Job] = []
        self._stale: list[Note] = []  # erased as soon as that may be
        self._clock = 0.0  # when the newest of the restored was submitted, by whoever's clock

    async def restore(self, marks: Mapping[Partition, Mark | None]) -> None:
        """Read the notes of partitions that begin at these marks. Raises Misconfigured."""
        found = await self._shelf.read(marks)
        silent, speaking = list[Note](), set[Job]()
        for partition, mark in marks.items():
            here = {note.key: note for note in found if note.partition == partition}
            stale = notes.superfluous(here.values(), mark) if mark else []
            for note in stale:
                del here[note.key]
            self._notes[partition] = here
            self._claims[partition], overruled = notes.newest_claims(here.values())
            silent += overruled
            speaking |= {note.job for note in self._claims[partition].values()}
            self._clock = max([self._clock, *(note.job.submitted_at for note in here.values())])
            self._stale += stale
            self._done += [job for job, parts in _by_job(stale).items() if _is_whole(job, parts)]
        unheard = {job: parts for job, parts in _by_job(silent).items() if job not in speaking}
        self._orphans += [job for job, parts in unheard.items() if _is_whole(job, parts)]
        for job, parts in _by_job(note for partition in marks for note in self._notes[partition].values()).items():
            self._lasts[job] = self._lasts.get(job, {}) | {note.partition: note.last for note in parts}
            if _is_whole(job, parts):
                self._left[job] = job.documents
        if known := sum(len(self._notes[partition]) for partition in marks):
            log.info("jobs_restored", notes=known)

    async def note(self, job: Job, documents: Sequence[Document]) -> None:
        """Note a job that was submitted; when this returns, that is safe. Raises Misconfigured."""
        if job.submitted_at <= self._clock:  # by a clock that is ahead of ours; this job is the newer for all that
            job = job._replace(submitted_at=self._clock + 0.001)
        ours = [note for note in notes.notes_of(job, documents) if note.partition in self._notes]
        for note in ours:
            self._notes[note.partition][note.key] = note
        if _is_whole(job, ours):
            self._left[job] = job.documents
        await self._shelf.write(ours)

    def claim(self, documents: Iterable[Document], now: float) -> list[Document]:
        """Keep the documents that a job has already, and give the others."""
        unclaimed = []
        for document in documents:
            topic, number, _ = document.record.position
            claims = self._claims.get(Partition(topic, number))
            note = claims.pop(place_of(document), None) if claims else None  # there is hardly ever one
            if note is None or not note.holds(document):
                unclaimed.append(document)
                continue
            resumed = self._waiting.setdefault(note.job, Resumed(note.job, now))
            resumed.documents[note.number_of(document)] = document
        return unclaimed

    def claimed(self, part: Document, account: str) -> tuple[Job, int] | None:
        """The job that an account has this part of a document in already, and its number there; told once."""
        topic, number, _ = part.record.position
        claims = self._claims.get(Partition(topic, number), {})
        note = claims.get(place_of(part))
        if note is None or note.job.account != account or not note.holds(part):
            return None
        del claims[place_of(part)]
        return note.job, note.number_of(part)

    def ready(self, highest: Callable[[Partition], int], now: float) -> list[Resumed]:
        """Jobs whose documents are all there by the highest offsets read, or have waited long enough for the others."""
        if not self._waiting:
            return []
        ready = [
            each for each in self._waiting.values() if now > each.since + PATIENCE or self._is_whole(each, highest)
        ]
        for each in ready:
            del self._waiting[each.job]
        return ready

    def drop(self, unwanted: Callable[[Document], bool]) -> list[Document]:
        """Take out the waiting documents that nobody wants any more."""
        dropped = []
        for each in self._waiting.values():
            gone = {number for number, document in each.documents.items() if unwanted(document)}
            dropped += [each.documents.pop(number) for number in gone]
        self._waiting = {job: each for job, each in self._waiting.items() if each.documents}
        return dropped

    def superfluous(self, partition: Partition, mark: Mark) -> list[Note]:
        """The notes of a partition that nobody needs once this mark is committed."""
        return notes.superfluous(self._notes.get(partition, {}).values(), mark)

    def erasing(self, erased: Sequence[Note]) -> list[Message]:
        """The messages that erase notes, for a transaction to take along; `strike` says that it has."""
        return self._shelf.erasing(erased)

    def discard(self, erased: Sequence[Note]) -> None:
        """Need notes no longer; the next `sweep` erases them."""
        self.strike(erased)
        self._stale += erased

    async def sweep(self) -> None:
        """Erase what has been discarded."""
        stale, self._stale = self._stale, []
        if stale:
            await self._shelf.erase(stale)

    def strike(self, erased: Iterable[Note]) -> None:
        """Say that notes have been erased."""
        for note in erased:
            if self._notes.get(note.partition, {}).pop(note.key, None) is None:
                continue
            self._lasts.pop(note.job, None)
            if (left := self._left.pop(note.job, 0) - len(note.claims)) > 0:
                self._left[note.job] = left
            elif left == 0:
                self._done.append(note.job)

    def forget(self, partitions: Iterable[Partition]) -> None:
        """Let go of partitions that are another's from now on."""
        for partition in partitions:
            for note in self._notes.pop(partition, {}).values():
                self._left.pop(note.job, None)
                self._lasts.pop(note.job, None)
            self._claims.pop(partition, None)

    def done(self) -> list[Job]:
        """Jobs, each once, of which every document has been finished here."""
        done, self._done = self._done, []
        return done

    def orphans(self) -> list[Job]:
        """Jobs, each once, whose documents have all been submitted again since."""
        orphans, self._orphans = self._orphans, []
        return orphans

    def statistics(self) -> int:
        """How many notes there are."""
        return sum(map(len, self._notes.values()))

    def _is_whole(self, resumed: Resumed, highest: Callable[[Partition], int]) -> bool:
        """Whether none of its documents can come any more, by the highest offsets read."""
        return all(highest(partition) >= last for partition, last in self._lasts.get(resumed.job, {}).items())


def _by_job(kept: Iterable[Note]) -> dict[Job, list[Note]]:
    jobs: dict[Job, list[Note]] = {}
    for note in kept:
        jobs.setdefault(note.job, []).append(note)
    return jobs


def _is_whole(job: Job, parts: Iterable[Note]) -> bool:
    """Whether these notes have all documents of a job."""
    return sum(len(note.claims) for note in parts) == job.documents
