r"""Header names that are not UTF-8, which would keep aiokafka from ever reading past the record that has one.

Kafka says that a header's name is a string and checks nothing, and aiokafka 0.14 fails on the whole fetch. So the sets
of records that it fetches are read through `Records`: a batch with such a name is read anew, by aiokafka's parser in
pure Python, and the name goes on with its odd bytes written as \xNN. Other batches are read as ever.
"""

import struct
from collections.abc import Iterator
from typing import Any

import structlog
from aiokafka.consumer import fetcher
from aiokafka.record.default_records import _DefaultRecordBatchPy
from aiokafka.record.memory_records import MemoryRecords

_BEFORE_LENGTH, _OVERHEAD = 8, 12  # of a batch: its first offset, and the length of what follows

log = structlog.get_logger(__name__)


class _Lenient(bytearray):
    """Bytes whose parts are text whatever they hold."""

    def __getitem__(self, index: Any) -> Any:
        part = super().__getitem__(index)
        return _Lenient(part) if isinstance(part, bytearray) else part

    def decode(self, encoding: str = "utf-8", errors: str = "backslashreplace") -> str:
        return super().decode(encoding, errors)


class _Batch:
    """A batch of records as the fetcher sees it."""

    def __init__(self, batch: Any, content: memoryview) -> None:
        self._batch = batch
        self._content = content

    def __getattr__(self, name: str) -> Any:
        return getattr(self._batch, name)

    def __next__(self) -> Any:
        return next(self._batch)

    def __iter__(self) -> Iterator[Any]:
        try:
            return iter(list(self._batch))
        except UnicodeDecodeError:
            log.warning("header_name_not_text", offset=self._batch.base_offset, advice="the producer's header names")
        anew = _DefaultRecordBatchPy(self._content)
        anew._maybe_uncompress()  # noqa: SLF001  its buffer is what it decodes names from, and there is no other way in
        anew._buffer = _Lenient(anew._buffer)  # noqa: SLF001  as above
        return iter(anew)


class Records:
    """A fetched record set, batch by batch; stands in for `aiokafka.record.MemoryRecords`."""

    def __init__(self, content: bytes) -> None:
        self._records = MemoryRecords(content)
        self._content = memoryview(content)
        self._at = 0

    def has_next(self) -> bool:
        """Whether there is another whole batch."""
        return bool(self._records.has_next())

    def size_in_bytes(self) -> int:
        """Bytes of the whole set."""
        return len(self._content)

    def next_batch(self) -> _Batch:
        """The next batch."""
        begin = self._at
        (length,) = struct.unpack_from(">i", self._content, begin + _BEFORE_LENGTH)
        self._at = begin + _OVERHEAD + length
        return _Batch(self._records.next_batch(), self._content[begin : self._at])


def read_any_header_name() -> None:
    """Have every consumer of this process read record sets through `Records`."""
    fetcher.MemoryRecords = Records
