"""`labelstream classify`: files in, JSON lines out, by the pipeline that serves Kafka."""

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from service import pipeline, settings
from service.dispatch import accounts
from service.dispatch.dispatcher import Dispatcher
from service.jobs.ledger import Ledger, NoShelf
from service.observability.telemetry import Telemetry
from service.progress import Advance
from service.streams.files import Files
from service.streams.sqlite_notes import SqliteNotes

_OUTPUT, _DEAD_LETTERS = "output", "dead-letters"
_NO_LIMIT = settings.DeadLetterLimit(share=1)  # a file that waits for an operator helps nobody: its refusals are a file


@dataclass(frozen=True)
class Summary:
    """What became of the documents of this run; `finished` is False where it was stopped before the end."""

    documents: int
    classified: int
    dead_letters: int
    finished: bool
    resumed: bool
    seconds: float
    output: str

    def __str__(self) -> str:
        more = " more" * self.resumed
        why = f" (why is in {self.output}.dead)" * bool(self.dead_letters)
        counts = f"{self.classified:,}{more} classified into {self.output}, {self.dead_letters:,}{more} refused{why}"
        ending = "" if self.finished else "; stopped before the end, and the same command goes on"
        return f"{counts}, in {self.seconds:.1f} s{ending}"


def local_stream(model: Path) -> tuple[dict[str, settings.Account], settings.Stream]:
    """The accounts and stream for classifying with one embedded model."""
    local = settings.Local(provider="local", model=model)
    stream = settings.Stream(
        name="classify",
        input="files",
        classify_with=("local",),
        output=_OUTPUT,
        dead_letter=_DEAD_LETTERS,
        batch=settings.Batch(documents=256, characters=1_000_000, wait=0),
        dead_letter_limit=_NO_LIMIT,
    )
    return {"local": local}, stream


def configured_stream(configured: settings.Settings, name: str | None) -> settings.Stream:
    """A stream of a configuration, or its only one, with files for edges. Raises Misconfigured."""
    edges = {
        "input": "files",
        "output": _OUTPUT,
        "dead_letter": _DEAD_LETTERS,
        "routes": (),
        "otherwise": (),
        "dead_letter_limit": _NO_LIMIT,
    }
    stream = configured.stream(name)
    lines: dict[str, object] = {"document": stream.document.as_json}
    if stream.results.by_schema:
        lines["results"] = settings.Results()
    return stream.model_copy(update=edges | lines)


async def classify(
    inputs: Sequence[Path],
    output: Path,
    known: Mapping[str, settings.Account],
    stream: settings.Stream,
    *,
    stop: asyncio.Event,
    advance: Advance,
) -> Summary:
    """Classify the documents of files; goes on where an earlier run over the same files was broken off.

    Raises Misconfigured or Unavailable, naming the file or setting.
    """
    began, telemetry = time.monotonic(), Telemetry()
    files = Files(inputs, output, output.with_name(output.name + ".dead"), _DEAD_LETTERS)
    has_jobs = any(settings.has_jobs(known[name]) for name in stream.accounts_published)
    notes = SqliteNotes(output.with_name(output.name + ".jobs")) if has_jobs else None
    resumed = files.resumed
    async with accounts.opened(known, stream.accounts_asked, telemetry) as ready:
        await accounts.probe(ready.values())

        async def report() -> None:
            while True:
                await asyncio.sleep(0.1)
                advance(files.bytes_read)

        async with asyncio.TaskGroup() as tasks:
            reporting = tasks.create_task(report())
            asked = [ready[name] for name in stream.accounts_asked]
            dispatcher = Dispatcher(asked, stream.priority, stream.document.most_parts)
            ledger = Ledger(notes or NoShelf())
            await pipeline.run(stream, files, files, dispatcher, telemetry=telemetry, stop=stop, ledger=ledger)
            reporting.cancel()
    if not stop.is_set():
        files.finish()
        if notes is not None:
            notes.finish()
    return Summary(
        documents=files.classified + files.refused,
        classified=files.classified,
        dead_letters=files.refused,
        finished=not stop.is_set(),
        resumed=resumed,
        seconds=round(time.monotonic() - began, 3),
        output=str(output),
    )
