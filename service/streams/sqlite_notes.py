"""Notes of jobs in an SQLite file, beside the output of `labelstream classify`."""

import asyncio
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

from service.documents import Message
from service.errors import Misconfigured
from service.jobs import notes
from service.jobs.notes import Note
from service.offsets import Partition

_TABLE = """CREATE TABLE IF NOT EXISTS notes (
    topic TEXT NOT NULL, partition INTEGER NOT NULL, key TEXT NOT NULL, note BLOB NOT NULL,
    PRIMARY KEY (topic, partition, key)) WITHOUT ROWID"""


class SqliteNotes:
    """The notes of the jobs that hold documents of files. Opened for each use: that is seldom beside what it is about.

    Raises Misconfigured where the file is none of ours or cannot be written.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    async def read(self, partitions: Iterable[Partition]) -> list[Note]:
        """As `ledger.Shelf.read`."""
        return await asyncio.to_thread(self._read, list(partitions))

    async def write(self, notes: Sequence[Note]) -> None:
        """As `ledger.Shelf.write`."""
        await asyncio.to_thread(self._write, notes)

    async def erase(self, notes: Sequence[Note]) -> None:
        """As `ledger.Shelf.erase`."""
        if notes:
            await asyncio.to_thread(self._erase, notes)

    def erasing(self, notes: Sequence[Note]) -> list[Message]:
        """As `ledger.Shelf.erasing`; files have no transactions."""
        raise NotImplementedError(notes)

    def finish(self) -> None:
        """Forget all of them: everything is done."""
        self._path.unlink(missing_ok=True)

    def _read(self, partitions: Sequence[Partition]) -> list[Note]:
        with self._opened() as database:
            rows = [
                (partition, value)
                for partition in partitions
                for (value,) in database.execute("SELECT note FROM notes WHERE topic = ? AND partition = ?", partition)
            ]
        return [note for partition, value in rows if (note := notes.read(partition, value))]

    def _write(self, kept: Sequence[Note]) -> None:
        rows = [(*note.partition, note.key, notes.written(note)) for note in kept]
        with self._opened() as database:
            database.executemany("INSERT OR REPLACE INTO notes VALUES (?, ?, ?, ?)", rows)

    def _erase(self, erased: Sequence[Note]) -> None:
        rows = [(*note.partition, note.key) for note in erased]
        with self._opened() as database:
            database.executemany("DELETE FROM notes WHERE topic = ? AND partition = ? AND key = ?", rows)

    @contextmanager
    def _opened(self) -> Iterator[sqlite3.Connection]:
        try:
            with closing(sqlite3.connect(self._path, timeout=30)) as database, database:
                database.execute(_TABLE)
                yield database
        except sqlite3.Error as error:
            full = isinstance(error, sqlite3.OperationalError)  # or locked, and what is noted is paid for
            advice = "when they can, the same command goes on" if full else "remove it to begin anew"
            raise Misconfigured(f"{self._path}: the jobs under way cannot be kept there: {error}; {advice}") from None
