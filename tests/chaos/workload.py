"""A topic of tickets, the workers that classify it, and what has become of every one of them in the end."""

import asyncio
import secrets
import sys
import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import orjson
import yaml
from confluent_kafka import Consumer, KafkaException, TopicPartition

from service.documents import Position
from service.offsets import decode
from tests.chaos.endpoint import Endpoint, document
from tests.kafka import topics
from tests.kafka.broker import Broker
from tests.kafka.topics import PATIENCE, Read
from tests.kafka.workers import Worker, worker

PARTITIONS = 8


@dataclass(frozen=True)
class Accounted:
    """What became of the documents."""

    documents: int
    lost: int
    duplicates: int
    submitted_twice: int
    submitted_unnoted: int
    dead_letters: int
    misrouted: int


class Workload:
    """Tickets on a broker, and an endpoint that counts."""

    def __init__(self, broker: Broker, endpoint: Endpoint, folder: Path, mode: str, **stream: Any) -> None:
        self.broker, self.endpoint = broker, endpoint
        name = f"chaos-{secrets.token_hex(4)}"
        self.input, self.output = f"{name}.in", f"{name}.out"
        self.access, self.dead = f"{name}.access", f"{name}.dead"
        for topic in (self.input, self.output, self.access, self.dead):
            broker.create_topic(topic, PARTITIONS)
        self._config = folder / f"{name}.yaml"
        self._config.write_text(yaml.safe_dump(self._settings(mode, stream)), encoding="utf-8")
        self._workers = ExitStack()
        self._counter = Consumer({"bootstrap.servers": broker.bootstrap, "group.id": "counts", "log_level": 0})
        self._fed = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._workers.close()
        self._counter.close()

    def feed(self, count: int, *, poisoned_every: int = 0) -> None:
        """Append documents; every so many of them is one that the endpoint refuses."""
        numbers = range(self._fed, self._fed + count)
        values = (document(number, poison=bool(poisoned_every) and number % poisoned_every == 0) for number in numbers)
        topics.fill(self.broker.bootstrap, self.input, values)
        self._fed += count

    def worker(self) -> Worker:
        """Another worker; it ends with the workload at the latest."""
        return self._workers.enter_context(worker(self._config))

    def done(self) -> int:
        """Roughly how many results there are, whatever of; what it was before where no broker says."""
        partitions = [TopicPartition(self.output, number) for number in range(PARTITIONS)]
        try:
            return sum(self._counter.get_watermark_offsets(tp, timeout=PATIENCE)[1] for tp in partitions)
        except KafkaException:
            return 0

    def until(self, condition: Callable[[], bool], seconds: float = 300.0) -> None:
        """Wait until something is so."""
        deadline = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > deadline:
                raise TimeoutError(f"it did not come about in {seconds:.0f} s")
            time.sleep(0.05)

    def are_done(self) -> bool:
        """Whether the group has committed the end of the input."""
        ends = {number: (end, "") for number, end in topics.ends(self.broker.bootstrap, self.input).items()}
        committed = asyncio.run(topics.committed(self.broker.bootstrap, self.group, self.input))
        return {number: tuple(mark) for number, mark in committed.items()} == ends

    @property
    def group(self) -> str:
        """The consumer group of the workers."""
        return self.input

    def uncommitted(self) -> int:
        """Results that are there for good and of which the group does not know, once no more of them come."""
        before = -1
        while (now := self.done()) != before:
            before = now
            time.sleep(0.3)
        marks = asyncio.run(topics.committed(self.broker.bootstrap, self.group, self.input))
        finished = {
            (number, offset)
            for number, mark in marks.items()
            for first, last in decode(mark)
            for offset in range(first, last + 1)
        }

        def is_known(at: Position) -> bool:
            begun = at.partition in marks and at.offset < marks[at.partition].offset
            return begun or (at.partition, at.offset) in finished

        return sum(not is_known(result.source) for result in self._read(self.output))

    def accounted(self) -> Accounted:
        """Count, once all is done."""
        results, copies, letters = map(self._read, (self.output, self.access, self.dead))
        counted = topics.counted(results)
        dead = {_position(letter) for letter in letters}
        ends = topics.ends(self.broker.bootstrap, self.input)
        documents = {Position(self.input, number, offset) for number, end in ends.items() for offset in range(end)}
        texts = Counter(_class(result) for result in results)
        again, unnoted = self.endpoint.submitted_twice(self.noted())
        twice = (counted.total() - len(counted)) + (len(letters) - len(dead))
        return Accounted(
            documents=len(documents),
            lost=len(documents - counted.keys() - dead),
            duplicates=twice,
            submitted_twice=again,
            submitted_unnoted=unnoted,
            dead_letters=len(dead),
            misrouted=sum(_class(copy) != "access" for copy in copies) + abs(texts["access"] - len(copies)),
        )

    def noted(self) -> set[str]:
        """The jobs of which there has ever been a note."""
        kept = (orjson.loads(note.value) for note in self._read(f"{self.group}.{self.input}.jobs") if note.value)
        return {note["name"].split("?")[0].rsplit("/", 1)[-1] for note in kept}

    def _read(self, topic: str) -> list[Read]:
        return topics.read(self.broker.bootstrap, topic)

    def _settings(self, mode: str, stream: dict[str, Any]) -> dict[str, Any]:
        return {
            "kafka": {
                "bootstrap_servers": self.broker.bootstrap,
                "group_id": self.input,
                "session_timeout": "3s",
                "rebalance_timeout": "15s",
                "fetch_max_wait": "50ms",
                "request_timeout": "10s",
            },
            "accounts": {"endpoint": self.endpoint.account},
            "streams": [
                {
                    "name": "tickets",
                    "input": self.input,
                    "classify_with": "endpoint",
                    "batch": {"documents": 25, "wait": "20ms"},
                    "output": self.output,
                    "routes": [{"class": "access", "at_least": 0.5, "to": self.access}],
                    "dead_letter": self.dead,
                    "delivery": mode,
                    "commit_every": "200ms",
                    "drain": "5s",
                    **stream,
                }
            ],
            "health": {"port": 0},
            "log": {"format": "json"},
        }


def say(words: str) -> None:
    """Tell whoever waits how far it is."""
    sys.stderr.write(f"{time.strftime('%H:%M:%S')} {words}\n")
    sys.stderr.flush()


def _class(result: Read) -> str:
    found: str = orjson.loads(result.value or b"")["best"]["name"]
    return found


def _position(letter: Read) -> Position:
    topic, number, offset = (letter.header(f"__connect.errors.{name}") for name in ("topic", "partition", "offset"))
    return Position((topic or b"").decode(), int(number or b"-1"), int(offset or b"-1"))
