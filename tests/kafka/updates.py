"""What an order costs: updates of tickets through `labelstream run` with one and without, on a real broker.

`make bench-order` measures 100,000 updates of 1,000 tickets, at an endpoint whose jobs take from 50 to 150 ms.
"""

import random
import secrets
import signal
import tempfile
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

import orjson
from confluent_kafka import Producer

from service.bench.endpoint import endpoint
from service.process import received, spawned
from tests.commands import started, tree, write_config
from tests.kafka.broker import Broker
from tests.kafka.topics import Read, counted, read, size

UPDATES, TICKETS = 100_000, 1_000
_PARTITIONS = 4


@dataclass(frozen=True)
class Measured:
    """What came of updates: results, how fast, and how often a ticket's came in the wrong order."""

    results: int
    repeated: int
    per_second: float
    inversions: int


def measured(bootstrap: str, topics: tuple[str, str, str], updates: int, folder: Path, **stream: Any) -> Measured:
    """Have a worker answer updates that are there already."""
    incoming, classified, _ = topics
    _fill(bootstrap, incoming, updates)
    with spawned(endpoint, 0.1, 0.05) as answering:
        account = {
            "provider": "azure_language",
            "endpoint": received(answering),
            "key": "k",
            "project": "p",
            "deployment": "d",
            "task": "single_label",
            "limits": {"in_flight": 32},
        }
        settings = tree(bootstrap, account, topics, batch={"wait": "5ms"}, commit_every="1s", **stream)
        settings["log"]["level"] = "info"
        with started(folder, "run", write_config(folder / "c.yaml", settings)) as worker:
            worker.wait_until(lambda: size(bootstrap, classified) >= updates)
            assert worker.ended_by(signal.SIGTERM) == 0
    results = read(bootstrap, classified)
    times = [message.timestamp for message in results]
    seconds = (max(times) - min(times)) / 1000
    return Measured(
        len(results), len(results) - len(counted(results)), round(len(results) / seconds, 1), inversions(results)
    )


def inversions(results: Iterable[Read]) -> int:
    """How often a result of a key stands before one of an earlier record."""
    lines = defaultdict[bytes | None, list[int]](list)
    for message in sorted(results, key=lambda message: (message.partition, message.offset)):
        lines[message.key].append(message.source.offset)
    return sum(before > after for line in lines.values() for before, after in pairwise(line))


def _fill(bootstrap: str, topic: str, updates: int) -> None:
    """Append updates, those of a ticket into one partition."""
    chance = random.Random(5)  # noqa: S311  repeatable
    producer = Producer({"bootstrap.servers": bootstrap, "linger.ms": 50, "queue.buffering.max.messages": updates})
    for number in range(updates):
        ticket = chance.randrange(TICKETS)
        value = orjson.dumps({"id": f"T-{ticket}/{number}", "text": f"update {number}: the parcel has not arrived yet"})
        producer.produce(topic, value, b"T-%d" % ticket, ticket % _PARTITIONS)
    assert producer.flush(60) == 0


def main() -> None:
    """Measure with an order and without, in turn, three times each."""
    figures = defaultdict[str, list[Measured]](list)
    with tempfile.TemporaryDirectory() as folder, Broker(Path(folder) / "kafka") as broker:
        for turn in range(3):
            for name, stream in {"in any order": {}, "ordered_by: key": {"ordered_by": "key"}}.items():
                topics = tuple(f"{kind}-{secrets.token_hex(4)}" for kind in ("incoming", "classified", "dead"))
                for topic in topics:
                    broker.create_topic(topic, _PARTITIONS)
                place = Path(folder) / f"{turn}{len(stream)}"
                place.mkdir()
                found = measured(broker.bootstrap, topics, UPDATES, place, **stream)  # type: ignore[arg-type]
                figures[name].append(found)
                print(f"{name:16} {found}", flush=True)  # noqa: T201  what the command is for
    free, ordered = (median(each.per_second for each in runs) for runs in figures.values())
    print(f"{ordered / free:.1%} of the documents/s without an order (goal: 80%)")  # noqa: T201


if __name__ == "__main__":
    main()
