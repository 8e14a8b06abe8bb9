"""`labelstream reviews`: what people have decided, as figures and as rows that models learn from."""

from collections.abc import Collection
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import orjson
import typer
from rich.table import Table

from service import console, settings
from service.errors import Misconfigured
from service.observability import logs
from service.review.join import Became, Decided, Reviews, agreement
from service.settings import Log

reviews = typer.Typer(help="What people decide of results that are sent to them.", no_args_is_help=True)


class Which(StrEnum):
    """Which decisions are exported."""

    CORRECTED = "corrected"
    ALL = "all"


@dataclass
class Summary:
    """What came of the decisions; `agreement` is a share by class, `decisions` what became of how many."""

    stream: str
    exported: int
    decisions: dict[str, int] = field(default_factory=dict)
    agreement: dict[str, float] = field(default_factory=dict)


@reviews.command("export")
def export(
    config: Annotated[Path, typer.Option(help="The configuration that the stream is run with.")],
    out: Annotated[Path, typer.Option(help="Where the rows go: JSON lines, as `models train` takes them.")],
    stream: Annotated[str | None, typer.Option(help="Which stream of the configuration.")] = None,
    which: Annotated[Which, typer.Option(help="Only what was corrected, or all that was decided.")] = Which.CORRECTED,
    as_json: console.AsJson = False,
) -> None:
    """Write what people have decided as labelled rows: id, text, labels; and say how often they agree."""
    logs.configure(Log(level="warning"))
    configured = settings.load(config)
    chosen = configured.stream(stream)
    joined = console.run_unless_interrupted(_joined(configured.kafka, chosen))
    rows = [each for each in joined.decided if which is Which.ALL or each.labels != each.question.proposed]
    _write(rows, out)
    counts = {what.value: sum(n for (_, became), n in joined.became.items() if became is what) for what in Became}
    summary = Summary(chosen.name, len(rows), counts, agreement(joined.became))
    if as_json:
        console.print_json(summary)
        return
    table = Table("class", "agreement")
    for name, share in summary.agreement.items():
        table.add_row(name, f"{share:.1%}")
    console.out().print(table)
    said = ", ".join(f"{count:,} {what}" for what, count in counts.items() if count)
    console.out().print(f"{len(rows):,} rows into {out}; of the decisions: {said or 'none'}", highlight=False)


@reviews.command("watch")
def watch(config: Annotated[Path, typer.Argument(help="The configuration that the streams are run with.")]) -> None:
    """Show how often people agree, as metrics at `health.port`, until SIGTERM or SIGINT; one process is enough."""
    from service.review import watch as watching  # noqa: PLC0415  as below

    wanted = settings.load(config)
    logs.configure(wanted.log)
    console.run(lambda stop: watching.watch(wanted, stop))


async def _joined(connection: settings.Kafka, stream: settings.Stream) -> Reviews:
    from service.review.topics import Topics  # noqa: PLC0415  Kafka's client, which whoever mistypes does not wait for

    if stream.review is None:
        raise Misconfigured(f"streams.{stream.name}.review: there is none, so nobody is asked anything; give it")
    joined, topics = Reviews(stream.review.within), Topics(connection, stream.review)
    await topics.check()
    await topics.read(joined, texts=True)
    return joined


def _write(rows: Collection[Decided], out: Path) -> None:
    lines = (
        orjson.dumps({"id": row.question.id, "text": row.question.text, "labels": row.labels}) + b"\n" for row in rows
    )
    try:
        out.write_bytes(b"".join(lines))
    except OSError as error:
        raise Misconfigured(f"--out {out}: cannot be written: {error.strerror}") from None
