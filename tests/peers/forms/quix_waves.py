"""Quix Streams tuned by hand: a sink that asks for a wave at each checkpoint, and produces the results itself."""

import asyncio

import aiohttp
import orjson
from endpoint import BATCH, BOOTSTRAP, GROUP, IN_FLIGHT, INPUT, OUTPUT, SESSION_TIMEOUT, wave
from quixstreams import Application
from quixstreams.sinks import BatchingSink, SinkBatch

PARTITIONS = 4

app = Application(
    broker_address=BOOTSTRAP,
    consumer_group=GROUP,
    auto_offset_reset="earliest",
    commit_every=PARTITIONS * BATCH * IN_FLIGHT,
    commit_interval=0.5,
    consumer_extra_config={"session.timeout.ms": int(SESSION_TIMEOUT * 1000)},
    loglevel="ERROR",
)


class Classifier(BatchingSink):
    """Classifies what a partition has since the last checkpoint."""

    def __init__(self) -> None:
        super().__init__()
        self._loop = asyncio.new_event_loop()
        self._producer = app.get_producer()

    def setup(self) -> None:
        async def session() -> aiohttp.ClientSession:
            return aiohttp.ClientSession()

        self._session = self._loop.run_until_complete(session())

    def write(self, batch: SinkBatch) -> None:
        for chunk in batch.iter_chunks(BATCH * IN_FLIGHT):
            tickets = [item.value for item in chunk]
            for each in self._loop.run_until_complete(wave(self._session, tickets)):
                self._producer.produce(OUTPUT, orjson.dumps(each))
        self._producer.flush()


app.dataframe(app.topic(INPUT, value_deserializer="json")).sink(Classifier())
app.run()
