import asyncio
import base64
import csv
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import orjson
import pytest

from service.dispatch.dispatcher import Dispatcher
from service.errors import Misconfigured, Unavailable
from service.observability.telemetry import Telemetry
from service.offsets import Room
from service.pipeline import run
from service.settings import Stream
from service.streams.files import Files
from tests.classifiers import UNWANTED, FirstWord, account
from tests.clock import virtual_time
from tests.streams.contract import Holder

DOWN = FirstWord(trouble=lambda: Unavailable("502"))


class Folder:
    """A folder with inputs, and a run over them."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.inputs: list[Path] = []
        self.output, self.dead = path / "out.jsonl", path / "out.jsonl.dead"
        self.note = path / "out.jsonl.progress"

    def write(self, name: str, content: str | bytes) -> Path:
        path = self.path / name
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        self.inputs.append(path)
        return path

    def files(self) -> Files:
        return Files(self.inputs, self.output, self.dead, "dead")

    async def classify(self, classifier: FirstWord | None = None, files: Files | None = None, **changed: Any) -> Files:
        files = files or self.files()
        tree: dict[str, Any] = {
            "name": "s",
            "input": "files",
            "classify_with": "a",
            "output": "output",
            "dead_letter": "dead",
        }
        tree |= {"batch": {"documents": 10}, "dead_letter_limit": {"share": 1}}  # as `labelstream classify` has it
        stream = Stream.model_validate({**tree, **changed})
        await run(
            stream,
            files,
            files,
            Dispatcher([account(classifier or FirstWord())]),
            telemetry=Telemetry(),
            stop=asyncio.Event(),
        )
        return files

    async def killed(self, after: float, classifier: FirstWord, **changed: Any) -> None:
        """Classify, and be killed after so long: what is in the files then is all that is left."""
        task = asyncio.create_task(self.classify(classifier, **changed))
        await asyncio.sleep(after)
        left = {path: path.read_bytes() for path in (self.output, self.dead, self.note) if path.exists()}
        task.cancel()
        await asyncio.wait([task])
        for path, content in left.items():
            path.write_bytes(content)

    @property
    def results(self) -> list[dict[str, Any]]:
        return [orjson.loads(line) for line in self.output.read_bytes().splitlines()]

    @property
    def letters(self) -> list[dict[str, Any]]:
        return [orjson.loads(line) for line in self.dead.read_bytes().splitlines()]


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path)


def lines(*texts: str) -> str:
    return "".join(orjson.dumps({"id": text, "text": text}).decode() + "\n" for text in texts)


def best(results: Sequence[dict[str, Any]]) -> list[tuple[int, str]]:
    return sorted((result["source"]["offset"], result["best"]["name"]) for result in results)


@virtual_time
async def test_json_lines_are_documents_and_their_numbers_are_offsets(folder: Folder) -> None:
    path = folder.write("in.jsonl", "\ufeff" + lines("billing") + "\n  \n" + lines("refund").strip())
    await folder.classify()
    assert best(folder.results) == [(0, "billing"), (3, "refund")]
    assert {result["source"]["topic"] for result in folder.results} == {path.as_posix()}
    assert folder.letters == []


@virtual_time
async def test_lines_of_text_are_documents(folder: Folder) -> None:
    folder.write("in.TXT", b"billing one\r\n\r\n  refund \xc3\xa4\n\xff\n")
    await folder.classify()
    assert best(folder.results) == [(0, "billing"), (2, "refund")]
    assert [(letter["source"]["offset"], letter["reason"]) for letter in folder.letters] == [(3, "undecodable")]
    assert base64.b64decode(folder.letters[0]["value_base64"]) == b"\xff"


@virtual_time
async def test_rows_of_a_table_are_documents_by_their_header(folder: Folder) -> None:
    folder.write("in.csv", '\ufeffid,text\r\nT-1,"billing ""twice"",\r\nand again"\r\n\r\nT-2,refund,more\r\nT-3\r\n')
    await folder.classify()
    assert best(folder.results) == [(0, "billing"), (1, "refund")]
    assert sorted(result["id"] for result in folder.results) == ["T-1", "T-2"]
    (letter,) = folder.letters
    assert (letter["source"]["offset"], letter["reason"]) == (2, "missing_text")
    assert orjson.loads(letter["value"]) == {"id": "T-3", "text": None}


@virtual_time
async def test_a_table_with_an_endless_field_is_refused_by_its_line(folder: Folder) -> None:
    path = folder.write("in.csv", "id,text\nT-1,billing\nT-2," + "x" * (16 * 1024**2 + 1) + "\n")
    with pytest.raises(ExceptionGroup) as failed:
        await folder.classify()
    assert failed.group_contains(Misconfigured, match=f"{path}: line 3: field larger than field limit")
    csv.field_size_limit(128 * 1024)


@virtual_time
async def test_an_empty_file_has_no_documents(folder: Folder) -> None:
    for name in ("in.csv", "in.jsonl", "in.txt"):
        folder.write(name, "")
    await folder.classify()
    assert (folder.results, folder.letters) == ([], [])


@virtual_time
async def test_a_dead_letter_says_where_why_and_what(folder: Folder) -> None:
    folder.write("in.jsonl", lines("billing") + "not json\n" + lines(f"{UNWANTED} one"))
    files = await folder.classify()
    assert [(letter["source"]["offset"], letter["reason"]) for letter in folder.letters] == [
        (1, "undecodable"),
        (2, "refused_by_classifier"),
    ]
    assert folder.letters[0]["value"] == "not json"
    assert folder.letters[1]["message"] == "the classifier does not want it"
    assert (files.classified, files.refused) == (1, 2)


@virtual_time
async def test_several_files_are_read_one_after_the_other(folder: Folder) -> None:
    first, second = folder.write("b.jsonl", lines("billing")), folder.write("a.txt", "refund\n")
    files = await folder.classify()
    assert [(result["source"]["topic"], result["source"]["offset"]) for result in folder.results] == [
        (first.as_posix(), 0),
        (second.as_posix(), 0),
    ]
    assert files.bytes_read > 0


@virtual_time
async def test_the_progress_is_kept_until_it_is_finished_with(folder: Folder) -> None:
    folder.write("in.jsonl", lines("billing"))
    assert not folder.files().resumed
    files = await folder.classify()
    assert folder.files().resumed
    files.finish()
    files.finish()
    assert not folder.files().resumed


@pytest.mark.parametrize("after", [0.0, 0.05, 0.9, 1.05, 2.5, 4.7, 6.95])
def test_a_run_that_is_killed_is_gone_on_with_to_every_document_exactly_once(folder: Folder, after: float) -> None:
    @virtual_time
    async def tell() -> None:
        for name in ("a.jsonl", "b.jsonl"):
            content = [f"billing {name} {i}" if i % 7 else f"{UNWANTED} {name} {i}" for i in range(500)]
            folder.write(name, lines(*content) + "not json\n")
        await folder.killed(after, FirstWord(seconds=0.3))
        written = folder.output.stat().st_size
        await folder.killed(after, FirstWord(seconds=0.7))
        await folder.classify()
        sources = [each["source"] for each in folder.results + folder.letters]
        places = Counter((source["topic"], source["offset"]) for source in sources)
        assert len(places) == 2 * 501
        assert set(places.values()) == {1}
        assert len(folder.letters) == 2 * (72 + 1)
        assert after < 1 or written > 0, "the run was killed in the middle"

    tell()


@virtual_time
async def test_a_run_that_is_killed_during_an_outage_repeats_nothing_however_scattered_what_is_finished(
    folder: Folder,
) -> None:
    folder.write("in.jsonl", "".join(lines(f"billing {i}") + "not json\n" for i in range(5_000)))
    await folder.killed(30, DOWN, capacity={"documents": 10_000})
    assert len(folder.letters) == 5_000
    await folder.classify(FirstWord(seconds=0.01))
    assert len(folder.letters) == 5_000
    assert len(folder.results) == 5_000


@virtual_time
async def test_a_run_goes_on_where_outputs_are_longer_than_noted(folder: Folder) -> None:
    folder.write("in.jsonl", lines(*(f"billing {i}" for i in range(100))))
    await folder.killed(1.1, FirstWord(seconds=1))
    with folder.output.open("ab") as output:
        output.write(b'{"half a li')
    await folder.classify()
    assert len(best(folder.results)) == 100


@virtual_time
async def test_an_output_that_is_shorter_than_noted_is_not_filled_with_nothing(folder: Folder) -> None:
    folder.write("in.jsonl", lines("billing"))
    await folder.classify()
    folder.output.write_bytes(b"")
    with pytest.raises(Misconfigured, match=r"out\.jsonl: has 0 bytes, but \d+ were written; remove the outputs and"):
        await folder.classify()


@pytest.mark.parametrize("which", ["output", "dead"])
def test_an_output_of_somebody_else_is_not_overwritten(folder: Folder, which: str) -> None:
    path: Path = getattr(folder, which)
    path.write_text("precious\n", encoding="utf-8")
    folder.write("in.jsonl", lines("billing"))
    with pytest.raises(Misconfigured, match=f"{path}: exists already; remove it, or write to another file"):
        virtual_time(folder.classify)()
    assert path.read_text("utf-8") == "precious\n"


@pytest.mark.parametrize(
    "note", [b"", b"{", b"[]", b"{}", b'{"sizes": [0], "marks": []}', b'{"sizes": [0, 0], "marks": [["in"]]}', b"null"]
)
def test_a_damaged_note_is_said_and_nothing_is_touched(folder: Folder, note: bytes) -> None:
    folder.write("in.jsonl", lines("billing"))
    virtual_time(folder.classify)()
    before = folder.output.read_bytes()
    folder.note.write_bytes(note)
    with pytest.raises(Misconfigured, match=r"out\.jsonl\.progress: is damaged; remove it and the outputs"):
        virtual_time(folder.classify)()
    assert folder.output.read_bytes() == before


@virtual_time
async def test_a_note_of_a_run_over_other_files_is_refused_by_their_name(folder: Folder) -> None:
    path = folder.write("in.jsonl", lines("billing"))
    await folder.classify()
    folder.inputs.clear()
    folder.write("another.jsonl", lines("refund"))
    with pytest.raises(Misconfigured, match=f"belongs to a run over {path.as_posix()}; give the same files"):
        await folder.classify()


@virtual_time
async def test_a_file_may_be_added_when_a_run_is_gone_on_with(folder: Folder) -> None:
    folder.write("in.jsonl", lines("billing"))
    await folder.classify()
    folder.write("another.jsonl", lines("refund"))
    await folder.classify()
    assert [name for _, name in best(folder.results)] == ["billing", "refund"]


@virtual_time
async def test_an_input_that_cannot_be_read_is_said_by_its_name(folder: Folder) -> None:
    folder.inputs.append(folder.path / "nowhere.jsonl")
    with pytest.raises(ExceptionGroup) as failed:
        await folder.classify()
    assert failed.group_contains(Misconfigured, match=r"nowhere\.jsonl: cannot be read: No such file or directory")


@virtual_time
async def test_an_output_that_cannot_be_written_is_said_by_its_name(folder: Folder) -> None:
    folder.write("in.jsonl", lines("billing"))
    folder.output = folder.path / "nowhere" / "out.jsonl"
    with pytest.raises(Misconfigured, match=r"nowhere/out\.jsonl: cannot be written: No such file or directory"):
        await folder.classify()


@virtual_time
async def test_reading_lets_others_have_their_turn(folder: Folder) -> None:
    folder.write("in.jsonl", lines("billing"))
    files = folder.files()
    async with files.opened(Holder(files)):
        other = asyncio.create_task(asyncio.sleep(0))
        await files.poll(Room(1, 1000), timeout=0)
        await files.poll(Room(1, 1000), timeout=0)
        assert other.done()


@virtual_time
async def test_files_are_read_no_faster_than_documents_are_answered(folder: Folder) -> None:
    folder.write("in.jsonl", lines(*(f"billing {i}" for i in range(1000))))
    files = folder.files()
    task = asyncio.create_task(folder.classify(DOWN, files, capacity={"documents": 50}))
    await asyncio.sleep(60)
    assert 0 < files.bytes_read < 50 * 60
    task.cancel()
    await asyncio.wait([task])
