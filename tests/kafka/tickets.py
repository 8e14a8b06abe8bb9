"""A stream of tickets in this process: its topics, its settings, and a classifier that does as it is told."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

from service import pipeline, settings
from service.dispatch.account import Account
from service.dispatch.dispatcher import Dispatcher
from service.documents import Classified, ClassScore, Document, Outcome, Reason, Refused
from service.limits.gate import Limits
from service.observability.telemetry import Telemetry
from service.offsets import Mark
from service.streams.kafka import KafkaSource
from service.streams.kafka_sink import producing
from service.streams.kafka_transactions import TransactionalKafkaSource
from tests.kafka import topics
from tests.kafka.topics import Read, fill, read

MAKE_TOPIC = Callable[..., str]
PATIENCE = 30


class Words:
    """Classifies by the number of words; refuses documents that say so, and does as it is told when asked."""

    documents_per_call = 10
    characters_per_call = 10_000
    characters_per_document = 5_000
    bytes_per_call = 40_000
    bytes_per_document = 20_000
    model = "words"
    task = "single_label"

    def __init__(self) -> None:
        self.answers = asyncio.Event()
        self.answers.set()
        self.pause = 0.0
        self.asked: Counter[str] = Counter()
        self.answered = 0
        self.failures: list[Exception] = []

    async def classify(self, documents: Sequence[Document]) -> list[Outcome]:
        self.asked.update(document.id for document in documents)
        if self.failures:
            raise self.failures.pop(0)
        await self.answers.wait()
        await asyncio.sleep(self.pause)
        self.answered += len(documents)
        return [self._outcome(document.text.split()) for document in documents]

    async def probe(self) -> None:
        pass

    def _outcome(self, words: list[str]) -> Outcome:
        if "unspeakable" in words:
            return Refused(Reason.REFUSED_BY_CLASSIFIER, "there is an unspeakable word")
        return Classified((ClassScore("long" if len(words) > 5 else "short", 1.0),))


class Tickets:
    """A stream of tickets: its topics and its settings."""

    def __init__(self, bootstrap: str, topic: MAKE_TOPIC, **changed: Any) -> None:
        partitions, connection = changed.pop("partitions", 3), changed.pop("kafka", {})
        self.kafka = settings.Kafka(
            **{
                "bootstrap_servers": bootstrap,
                "group_id": topic(),
                "session_timeout": 1.5,
                "fetch_max_wait": 0.1,
                **connection,
            }
        )
        self.stream = settings.Stream.model_validate(
            {
                "name": "tickets",
                "input": topic(partitions),
                "output": topic(partitions),
                "dead_letter": topic(config={"max.message.bytes": str(4 * 1024**2)}),
                "classify_with": "words",
                "batch": {"wait": 0.02},
                "commit_every": 0.1,
                "drain": 5,
                **changed,
            }
        )

    def fill(self, values: Sequence[bytes | None], **more: Any) -> None:
        fill(self.kafka.bootstrap_servers, self.stream.input, values, **more)

    def results(self) -> list[Read]:
        return read(self.kafka.bootstrap_servers, self.stream.output)

    def letters(self) -> list[Read]:
        return read(self.kafka.bootstrap_servers, self.stream.dead_letter)

    async def committed(self) -> dict[int, Mark]:
        return await topics.committed(self.kafka.bootstrap_servers, self.kafka.group_id, self.stream.input)

    def ends(self) -> dict[int, Mark]:
        return {
            number: Mark(end) for number, end in topics.ends(self.kafka.bootstrap_servers, self.stream.input).items()
        }

    async def are_done(self) -> None:
        """Wait until all that was put in is committed."""
        async with asyncio.timeout(PATIENCE):
            while await self.committed() != self.ends():  # noqa: ASYNC110  it is the broker's to say
                await asyncio.sleep(0.05)

    def source(self, telemetry: Telemetry) -> KafkaSource:
        if self.stream.delivery == "exactly_once":
            return TransactionalKafkaSource(self.kafka, self.stream.input, telemetry)
        return KafkaSource(self.kafka, self.stream.input)

    @asynccontextmanager
    async def running(
        self, account: Account, telemetry: Telemetry, source: KafkaSource | None = None, **more: Any
    ) -> AsyncIterator[asyncio.Event]:
        """A worker of this process; gives what stops it, which the end of the block does, too."""
        stop, source = asyncio.Event(), source or self.source(telemetry)
        async with producing(self.kafka, telemetry) as sink, asyncio.timeout(PATIENCE), asyncio.TaskGroup() as workers:
            dispatcher = Dispatcher([account])
            work = pipeline.run(self.stream, source, sink, dispatcher, telemetry=telemetry, stop=stop, **more)
            workers.create_task(work)
            yield stop
            stop.set()


def account(words: Words, telemetry: Telemetry, in_flight: int = 4) -> Account:
    events = telemetry.account("words", "test")
    return Account("words", "test", words, limits=Limits(settings.Limits(in_flight=in_flight)), telemetry=events)


@asynccontextmanager
async def running(tickets: Tickets, words: Words) -> AsyncIterator[asyncio.Event]:
    telemetry = Telemetry()
    async with tickets.running(account(words, telemetry), telemetry) as stop:
        yield stop


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE):
        while not condition():  # noqa: ASYNC110  what is looked at is elsewhere
            await asyncio.sleep(0.02)
