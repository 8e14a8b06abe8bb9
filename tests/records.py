"""Records and documents for tests."""

from collections.abc import Sequence
from typing import Any

import orjson

from service.documents import Document, Headers, Position, Record
from service.offsets import Partition

INPUT = Partition("incoming", 0)


def record(
    offset: int,
    value: bytes | None = b"x",
    *,
    partition: Partition = INPUT,
    key: bytes | None = None,
    headers: Headers = (),
    timestamp: int = 1_700_000_000_000,
) -> Record:
    return Record(Position(*partition, offset), timestamp, key, value, headers)


def written(offset: int, text: str, *, partition: Partition = INPUT, **fields: Any) -> Record:
    """A record that holds a document as JSON, named after its place."""
    body = {"id": f"{partition.number}/{offset}", "text": text, **fields}
    return record(offset, orjson.dumps(body), partition=partition)


def document(offset: int, text: str = "text", *, partition: Partition = INPUT, language: str | None = None) -> Document:
    return Document(record(offset, text.encode(), partition=partition), str(offset), text, language, 1_700_000_000.5)


def numbered(documents: Sequence[Document]) -> dict[int, Document]:
    """Documents as a job is asked after them: by their numbers in it."""
    return dict(enumerate(documents))
