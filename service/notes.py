"""What is noted of a job, so that whoever has its documents next asks after it instead of paying again. Pure.

A note tells which documents a job holds by where they stand and what they are like (a checksum of the text), never by
what is in them. A job whose documents come from several partitions has a note in each: they may have different owners.
"""

import zlib
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

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


class Claim(NamedTuple):
    """A document of a job: its number there, from 0, and the checksum of its text."""

    number: int
    checksum: int


class Note(NamedTuple):
    """The documents that a job has of one partition, by their offsets, which ascend."""

    job: Job
    partition: Partition
    claims: dict[int, Claim]

    @property
    def key(self) -> str:
        """What tells a note from the others of its partition."""
        return f"{self.job.account} {next(iter(self.claims.values())).number} {self.job.name}"

    @property
    def last(self) -> int:
        """The highest of its offsets."""
        return next(reversed(self.claims))

    def holds(self, document: Document) -> bool:
        """Whether this very document is one of them, and not another that stands in its place by now."""
        claim = self.claims.get(document.record.position.offset)
        return claim is not None and claim.checksum == _checksum(document)

    def is_superfluous(self, mark: Mark, finished: Sequence[Range]) -> bool:
        """Whether all of its documents are finished by what is committed: a mark, and what that says of those above."""
        if self.last < mark.offset:
            return True
        return all(offset < mark.offset or _is_in(finished, offset) for offset in self.claims)


def notes_of(job: Job, documents: Sequence[Document]) -> list[Note]:
    """The notes of a job that holds these documents, in its order."""
    claims: dict[Partition, dict[int, Claim]] = {}
    for number, document in enumerate(documents):
        topic, partition, offset = document.record.position
        claims.setdefault(Partition(topic, partition), {})[offset] = Claim(number, _checksum(document))
    return [
        Note(job, partition, dict(some))
        for partition, all_of_it in claims.items()
        for some in _some_at_a_time(sorted(all_of_it.items()))
    ]


def superfluous(notes: Iterable[Note], mark: Mark) -> list[Note]:
    """Those of a partition's notes that nobody needs once this mark is committed."""
    notes = list(notes)
    finished = decode(mark) if notes else ()
    return [note for note in notes if note.is_superfluous(mark, finished)]


def newest_claims(notes: Iterable[Note]) -> tuple[dict[int, Note], list[Note]]:
    """Which note of a partition speaks for each offset, the newest where there are several, and those that for none."""
    claims: dict[int, Note] = {}
    ordered = sorted(notes, key=lambda note: note.job.submitted_at)
    for note in ordered:
        claims |= dict.fromkeys(note.claims, note)
    heard = {note.key for note in claims.values()}
    return claims, [note for note in ordered if note.key not in heard]


def written(note: Note) -> bytes:
    """A note as it is kept: JSON, with offsets as the distance from the one before."""
    before, claims = 0, []
    for offset, (number, checksum) in note.claims.items():
        claims.append((offset - before, number, checksum))
        before = offset
    return orjson.dumps({"format": _FORMAT, **note.job._asdict(), "claims": claims})


def read(partition: Partition, value: bytes) -> Note | None:
    """What `written` wrote; None where it is damaged, or of a form that is not known here."""
    try:
        told = orjson.loads(value)
        if told.pop("format") != _FORMAT:
            return None
        offset, claims = 0, {}
        for distance, number, checksum in told.pop("claims"):
            offset += distance
            claims[offset] = Claim(int(number), int(checksum))
        job = Job(**told)
        names = (job.account, job.model, job.name)
        whole = claims and all(isinstance(name, str) for name in names) and job.documents > max(claims.values())[0]
        return Note(job._replace(submitted_at=float(job.submitted_at)), partition, claims) if whole else None
    except (AttributeError, KeyError, TypeError, ValueError):
        return None


def _is_in(stretches: Sequence[Range], offset: int) -> bool:
    i = bisect_right(stretches, offset, key=lambda stretch: stretch.first)
    return i > 0 and offset <= stretches[i - 1].last


def _some_at_a_time(claims: Sequence[tuple[int, Claim]]) -> Iterator[Sequence[tuple[int, Claim]]]:
    for begin in range(0, len(claims), _MOST_DOCUMENTS):
        yield claims[begin : begin + _MOST_DOCUMENTS]


def _checksum(document: Document) -> int:
    return zlib.crc32(document.text.encode("utf-8", "surrogatepass"))
