from pathlib import Path

import pytest

from service.errors import Misconfigured
from service.offsets import Partition
from service.streams.sqlite_notes import SqliteNotes

INPUT = [Partition("in.jsonl", 0)]


async def test_a_file_that_is_no_database_is_to_be_removed(tmp_path: Path) -> None:
    (path := tmp_path / "out.jsonl.jobs").write_text("no database, and longer than the header of one" * 10)
    with pytest.raises(Misconfigured, match=r"out\.jsonl\.jobs: .*; remove it to begin anew"):
        await SqliteNotes(path).read(INPUT)


async def test_notes_of_jobs_that_are_paid_for_are_not_to_be_removed_where_there_is_no_room(tmp_path: Path) -> None:
    notes = SqliteNotes(tmp_path / "nosuch" / "out.jsonl.jobs")
    with pytest.raises(Misconfigured, match=r"out\.jsonl\.jobs: .*; when they can, the same command goes on"):
        await notes.read(INPUT)
