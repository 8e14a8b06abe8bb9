"""What travels through the pipeline: a record is read, becomes a document, gets an outcome, and leaves as messages."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Literal, NamedTuple

Headers = Sequence[tuple[str, bytes]]


class Position(NamedTuple):
    """Where a record stands in its input."""

    topic: str
    partition: int
    offset: int

    def __str__(self) -> str:
        return f"{self.topic}-{self.partition}-{self.offset}"


class Record(NamedTuple):
    """One record of an input, as it was read; `timestamp` is the broker's or producer's, in milliseconds UTC."""

    position: Position
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: Headers = ()

    @property
    def size(self) -> int:
        """Bytes held while the record is in hand (key, value and headers)."""
        _, _, key, value, headers = self
        size = len(key or b"") + len(value or b"")
        for name, told in headers:
            size += len(name) + len(told or b"")
        return size


class Document(NamedTuple):
    """A record whose text has been found; `id` is the user's own and need not be unique, `read_at` is Unix time.

    `part` is 0 where that is its whole text, else which part of it, from 1 on. `fields` is what the record has at each
    of the pointers that routes ask for: the scalar there, or those of a list there, or nothing. `stages` are the
    answers that it has had by now, where one is not enough.
    """

    record: Record
    id: str
    text: str
    language: str | None
    read_at: float
    part: int = 0
    fields: tuple[tuple[object, ...], ...] = ()
    stages: tuple["Stage", ...] = ()


def bytes_of(text: str) -> int:
    """How long a text is in UTF-8; half a surrogate pair counts as the U+FFFD that is sent in its place."""
    return len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))


class ClassScore(NamedTuple):
    """A class and how sure the classifier is of it, 0 to 1; None where the API gives no score.

    `severity` is how grave it is, 0 to 7, where the API says so (Content Safety's harm categories).
    """

    name: str
    score: float | None
    severity: int | None = None


class Reason(StrEnum):
    """Why a document was refused: the closed set of dead-letter reasons and of the `reason` metric label."""

    UNDECODABLE = "undecodable"
    MISSING_TEXT = "missing_text"
    EMPTY_TEXT = "empty_text"
    TOO_LONG = "too_long"
    TOMBSTONE = "tombstone"
    REFUSED_BY_CLASSIFIER = "refused_by_classifier"
    RESULT_TOO_LARGE = "result_too_large"


class Classified(NamedTuple):
    """The classes of one document, best first (possibly none, in multi-label classification).

    `units` is what the account is billed for, in the provider's own unit (Azure: text records of 1,000 characters,
    Comprehend's jobs: hundreds of characters); 0 where nothing is billed for it. `warnings` are the classifier's own.
    """

    classes: tuple[ClassScore, ...]
    units: int = 0
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Refused:
    """One document that nobody will classify; `message` tells a person why and never holds the document's text."""

    reason: Reason
    message: str


Outcome = Classified | Refused


class Stage(NamedTuple):
    """What one account has answered of a document that more are asked of, in which lane, and what it has cost.

    `cost` is None where the account has no price; `at` is Unix time.
    """

    lane: int
    account: str
    model: str
    outcome: Outcome
    attempts: int
    at: float
    cost: float | None


AnsweredFrom = Literal["cache", "in_flight"]
"""Where an answer comes from that was not asked for: it was kept, or an identical document was just asked for."""


class Message(NamedTuple):
    """What a sink publishes; `source` is where the document came from."""

    topic: str
    key: bytes | None
    value: bytes | None
    headers: Headers
    source: Position

    @property
    def size(self) -> int:
        """Bytes of key, value and headers."""
        headers = sum(len(name) + len(value or b"") for name, value in self.headers)
        return len(self.key or b"") + len(self.value or b"") + headers

    @property
    def is_dead_letter(self) -> bool:
        """Whether this is a document that was refused, as it came."""
        return any(name == "labelstream-error-type" for name, _ in self.headers)
