"""What is noted of a job, so that whoever has its documents next asks after it instead of paying again. Pure.

A note tells which documents a job holds by where they stand and what they are like (a checksum), never by what is in
them. A job whose documents come from several partitions has a note in each: they may have different owners.
"""

from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple
from zlib import crc32

import orjson

from service.documents import Document
from service.offsets import Mark, Partition, Range, decode

_FORMAT = 1
_MOST_DOCUMENTS = 10_000
"""In one note, so that it stays below what a topic takes as a message."""


class Job(NamedTuple):
    """A job that was submitted: by which account, to which model, under which name, when (Unix time), of what size."""

    account: str
    model: str
    name: str
    submitted_at: float
    documents: int


class Place(NamedTuple):
    """Where a document stands in its partition, and which part of it is meant, from 1 on; 0 is the whole."""

    offset: int
    part: int = 0


class Note(NamedTuple):
    """The documents, or parts of documents, that a job has of one partition.

    `claims` have, by its place, a document's number in the job and the checksum of its text and language; `last` is the
    highest offset, and `key` tells a note from the others of its partition.
    """

    job: Job
    partition: Partition
    claims: Mapping[Place, tuple[int, int]]
    last: int
    key: str

    def holds(self, document: Document) -> bool:
        """Whether this very document is one of them, and not another that stands in its place by now."""
        claim = self.claims.get(place_of(document))
        return claim is not None and claim[1] == _checksum(document)

    def number_of(self, document: Document) -> int:
        """The number in the job of a document that it holds."""
        return self.claims[place_of(document)][0]

    def is_superfluous(self, mark: Mark, finished: Sequence[Range]) -> bool:
        """Whether all of its documents are finished by what is committed: a mark, and what that says of those above."""
        if self.last < mark.offset:
            return True
        return all(offset < mark.offset or _is_in(finished, offset) for offset, _ in self.claims)


def place_of(document: Document) -> Place:
    """Where a document, or a part of one, stands in its partition."""
    return Place(document.record.position.offset, document.part)


def notes_of(job: Job, documents: Sequence[Document]) -> list[Note]:
    """The notes of a job that holds these documents, in its order."""
    found: list[tuple[Partition, dict[Place, tuple[int, int]]]] = []
    parts: dict[tuple[str, int], dict[Place, tuple[int, int]]] = {}
    for number, document in enumerate(documents):
        topic, partition, offset = document.record.position
        part = parts.get((topic, partition))
        if part is None or len(part) == _MOST_DOCUMENTS:
            part = parts[topic, partition] = {}
            found.append((Partition(topic, partition), part))
        part[Place(offset, document.part)] = number, _checksum(document)
    return [_note(job, partition, part) for partition, part in found]


def _note(job: Job, partition: Partition, claims: Mapping[Place, tuple[int, int]]) -> Note:
    first, _ = next(iter(claims.values()))
    return Note(job, partition, claims, max(claims).offset, f"{job.account} {first} {job.name}")


def superfluous(notes: Iterable[Note], mark: Mark) -> list[Note]:
    """Those of a partition's notes that nobody needs once this mark is committed."""
    notes = list(notes)
    finished = decode(mark) if notes else ()
    return [note for note in notes if note.is_superfluous(mark, finished)]


def newest_claims(notes: Iterable[Note]) -> tuple[dict[Place, Note], list[Note]]:
    """Which note of a partition speaks for each place, the newest where there are several, and those that for none."""
    claims: dict[Place, Note] = {}
    ordered = sorted(notes, key=lambda note: note.job.submitted_at)
    for note in ordered:
        claims |= dict.fromkeys(note.claims, note)
    heard = {note.key for note in claims.values()}
    return claims, [note for note in ordered if note.key not in heard]


def written(note: Note) -> bytes:
    """A note as it is kept: JSON."""
    account, model, name, submitted_at, documents = note.job
    return orjson.dumps(
        {
            "format": _FORMAT,
            "account": account,
            "model": model,
            "name": name,
            "submitted_at": submitted_at,
            "documents": documents,
            "claims": [
                (offset, number, checksum, part) if part else (offset, number, checksum)
                for (offset, part), (number, checksum) in note.claims.items()
            ],
        }
    )


def read(partition: Partition, value: bytes) -> Note | None:
    """What `written` wrote; None where it is damaged, or of a form that is not known here."""
    try:
        told = orjson.loads(value)
        if told.pop("format") != _FORMAT:
            return None
        claims = {
            Place(int(offset), *map(int, part)): (int(number), int(checksum))
            for offset, number, checksum, *part in told.pop("claims")
        }
        job = Job(**told)
        names = (job.account, job.model, job.name)
        whole = claims and all(isinstance(name, str) for name in names) and job.documents > max(claims.values())[0]
        return _note(job._replace(submitted_at=float(job.submitted_at)), partition, claims) if whole else None
    except (AttributeError, KeyError, TypeError, ValueError):
        return None


def _is_in(stretches: Sequence[Range], offset: int) -> bool:
    i = bisect_right(stretches, offset, key=lambda stretch: stretch.first)
    return i > 0 and offset <= stretches[i - 1].last


def _checksum(document: Document) -> int:
    checksum = crc32(document.text.encode("utf-8", "surrogatepass"))
    return crc32(document.language.encode(), checksum) if document.language else checksum
