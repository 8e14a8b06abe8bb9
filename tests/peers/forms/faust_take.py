"""faust-streaming as its documentation has batches: an agent that takes some at a time."""

import sys

import aiohttp
import faust
import orjson
from endpoint import BATCH, BOOTSTRAP, GROUP, INPUT, OUTPUT, SESSION_TIMEOUT, classify

app = faust.App(
    GROUP,
    broker=f"kafka://{BOOTSTRAP}",
    value_serializer="raw",
    store="memory://",
    broker_session_timeout=SESSION_TIMEOUT,
    broker_heartbeat_interval=SESSION_TIMEOUT / 4,
    consumer_auto_offset_reset="earliest",
    topic_disable_leader=True,
)
incoming = app.topic(INPUT, value_serializer="raw")
outgoing = app.topic(OUTPUT, value_serializer="raw")


@app.agent(incoming)
async def handle(stream: faust.StreamT[bytes]) -> None:
    async with aiohttp.ClientSession() as session:
        async for values in stream.take(BATCH, within=0.2):
            for each in await classify(session, [orjson.loads(value) for value in values]):
                await outgoing.send(value=orjson.dumps(each))


sys.argv[1:] = ["worker", "--without-web", "--loglevel", "error"]
app.main()
