"""Files in, files out: labelled by the same pipeline, resumable, without a broker.

Reading and writing are one object, because what makes a run resumable is one note that says both how far the inputs
were read and how long the outputs were then. After a crash the outputs are cut back to that length, so every document
is answered exactly once.
"""

import asyncio
import base64
import contextlib
import csv
import os
import sys
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import BinaryIO

import orjson

from service.documents import Message, Position, Record
from service.errors import Misconfigured
from service.offsets import Mark, Partition, Room
from service.source import Owner

_LONGEST_FIELD = 16 * 1024**2


class Files:
    """Input files as a source, an output file (and one for dead letters) as a sink.

    `.csv` rows become JSON objects by their header, `.txt` lines objects with a `text`, everything else is read as JSON
    lines; empty lines are passed over. A record's offset is its line or row, from 0. How far the work has come is kept
    in `OUTPUT.progress` until the inputs are done. The counts are of this run alone.
    """

    metadata_limit = sys.maxsize  # whatever were left out would be answered twice

    def __init__(self, inputs: Sequence[Path], output: Path, dead_letters: Path, dead_letter_topic: str) -> None:
        self._inputs = {Partition(path.as_posix(), 0): path for path in inputs}
        self._output = output
        self._dead_letters = dead_letters
        self._dead_letter_topic = dead_letter_topic
        self._note = output.with_name(output.name + ".progress")
        self._marks: dict[Partition, Mark] = {}
        self._records: Iterator[Record] = iter(())
        self.bytes_read = 0
        self.classified = 0
        self.refused = 0

    @property
    def resumed(self) -> bool:
        """Whether there is a note of an earlier run to go on from."""
        return self._note.exists()

    @asynccontextmanager
    async def opened(self, owner: Owner) -> AsyncIterator[None]:
        """As `source.Source.opened`; goes on where an earlier run was broken off."""
        sizes = self._restore()
        with contextlib.ExitStack() as stack:
            self._files = [
                stack.enter_context(_appended(path, size))
                for path, size in zip((self._output, self._dead_letters), sizes, strict=True)
            ]
            await self.commit({})  # so that a run that is killed at once can be gone on with, too
            await owner.assigned({partition: self._marks.get(partition) for partition in self._inputs})
            self._records = self._read()
            yield

    async def poll(self, room: Room, timeout: float) -> list[Record] | None:  # noqa: ARG002  a file never keeps one waiting
        """As `source.Source.poll`."""
        await asyncio.sleep(0)  # a file has always more: let others have their turn
        if not room.documents:
            return []
        taken: list[Record] = []
        size = 0
        for record in self._records:
            taken.append(record)
            size += record.size + 1
            if len(taken) >= min(room.documents, 500) or size >= room.bytes:
                break
        self.bytes_read += size
        return taken or None

    async def publish(self, messages: Sequence[Message]) -> list[Message]:
        """As `delivery.Sink.publish`; without an await, so that no commit comes between writing and resolving."""
        for message in messages:
            dead = message.topic == self._dead_letter_topic
            with _writing(self._dead_letters if dead else self._output):
                self._files[dead].write(_letter(message) if dead else (message.value or b"") + b"\n")
            self.refused += dead
            self.classified += not dead
        return []

    async def commit(self, marks: Mapping[Partition, Mark]) -> None:
        """As `source.Source.commit`: one note, replaced as a whole, of offsets and lengths together."""
        self._marks.update(marks)
        for path, file in zip((self._output, self._dead_letters), self._files, strict=True):
            with _writing(path):
                file.flush()
                os.fsync(file.fileno())
        note = {
            "sizes": [file.tell() for file in self._files],
            "marks": [[*partition, *mark] for partition, mark in self._marks.items()],
        }
        draft = self._note.with_name(self._note.name + ".draft")
        with _writing(self._note):
            with draft.open("wb") as file:
                file.write(orjson.dumps(note))
                file.flush()
                os.fsync(file.fileno())
            draft.replace(self._note)

    def partitions(self) -> int:
        """As `source.Source.partitions`; nobody else reads these files."""
        return 1

    def ends(self) -> dict[Partition, int]:
        """As `source.Source.ends`; the length of a file is not known before it is read."""
        return {}

    def finish(self) -> None:
        """Forget the progress: everything is done."""
        self._note.unlink(missing_ok=True)

    def _restore(self) -> Sequence[int]:
        if not self._note.exists():
            for path in (self._output, self._dead_letters):
                if path.exists() and path.stat().st_size:
                    raise Misconfigured(f"{path}: exists already; remove it, or write to another file")
            return (0, 0)
        try:
            note = orjson.loads(self._note.read_bytes())
            marks = {Partition(path, number): Mark(offset, said) for path, number, offset, said in note["marks"]}
            first, second = note["sizes"]
        except (orjson.JSONDecodeError, KeyError, TypeError, ValueError):
            raise Misconfigured(f"{self._note}: is damaged; remove it and the outputs to begin anew") from None
        if strange := marks.keys() - self._inputs.keys():
            raise Misconfigured(
                f"{self._note}: belongs to a run over {strange.pop().topic}; give the same files,"
                " or remove it and the outputs to begin anew"
            )
        self._marks = marks
        return first, second

    def _read(self) -> Iterator[Record]:
        for partition, path in self._inputs.items():
            mark = self._marks.get(partition)
            for offset, value in _values(path):
                if mark is None or offset >= mark.offset:
                    yield Record(Position(partition.topic, 0, offset), 0, None, value)


def _values(path: Path) -> Iterator[tuple[int, bytes]]:
    try:
        if path.suffix.lower() == ".csv":
            yield from _rows(path)
            return
        with path.open("rb") as lines:
            for offset, line in enumerate(lines):
                if value := line.strip().removeprefix(b"\xef\xbb\xbf"):
                    yield offset, _object(value) if path.suffix.lower() == ".txt" else value
    except OSError as error:
        raise Misconfigured(f"{path}: cannot be read: {error.strerror}") from None


def _object(line: bytes) -> bytes:
    try:
        return orjson.dumps({"text": line.decode()})
    except UnicodeDecodeError:
        return line  # refused as undecodable, with the bytes as they are


def _rows(path: Path) -> Iterator[tuple[int, bytes]]:
    csv.field_size_limit(_LONGEST_FIELD)
    with path.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.DictReader(file)
        try:
            for offset, row in enumerate(reader):
                yield offset, orjson.dumps({name: value for name, value in row.items() if isinstance(name, str)})
        except UnicodeDecodeError:
            raise Misconfigured(f"{path}: is not UTF-8 after line {reader.line_num}; save it as UTF-8") from None
        except csv.Error as error:
            raise Misconfigured(f"{path}: line {reader.line_num + 1}: {error}") from None


@contextmanager
def _appended(path: Path, size: int) -> Iterator[BinaryIO]:
    file = _cut(path, size)
    try:
        yield file
    finally:
        with _writing(path):  # what is written last meets the full disk only here
            file.close()


def _cut(path: Path, size: int) -> BinaryIO:
    with _writing(path):
        path.touch()
        written = path.stat().st_size
        if written >= size:
            os.truncate(path, size)
            return path.open("ab")
    raise Misconfigured(
        f"{path}: has {written:,} bytes, but {size:,} were written; remove the outputs and their progress"
    )


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise Misconfigured(
            f"{path}: cannot be written: {error.strerror}; when it can, the same command goes on"
        ) from None


def _letter(message: Message) -> bytes:
    headers = {name: value.decode(errors="replace") for name, value in message.headers}
    try:
        original: dict[str, object] = {"value": (message.value or b"").decode()}
    except UnicodeDecodeError:
        original = {"value_base64": base64.b64encode(message.value or b"").decode()}
    letter = {
        "source": message.source._asdict(),
        "reason": headers["labelstream-error-type"],
        "message": headers["__connect.errors.exception.message"],
        **original,
    }
    return orjson.dumps(letter) + b"\n"
