"""FastStream as its documentation has batches: one batch in flight, acknowledged when it is done."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
from endpoint import BATCH, BOOTSTRAP, GROUP, INPUT, OUTPUT, SESSION_TIMEOUT, classify
from faststream import AckPolicy, ContextRepo, FastStream
from faststream.kafka import KafkaBroker

broker = KafkaBroker(BOOTSTRAP, enable_idempotence=True, max_batch_size=1024**2, logger=None)


@asynccontextmanager
async def lifespan(context: ContextRepo) -> AsyncIterator[None]:
    async with aiohttp.ClientSession() as session:
        context.set_global("session", session)
        yield


app = FastStream(broker, lifespan=lifespan, logger=None)


@broker.subscriber(
    INPUT,
    group_id=GROUP,
    batch=True,
    max_records=BATCH,
    auto_offset_reset="earliest",
    ack_policy=AckPolicy.NACK_ON_ERROR,
    session_timeout_ms=int(SESSION_TIMEOUT * 1000),
)
async def handle(tickets: list[dict[str, Any]]) -> None:
    found = await classify(app.context.get("session"), tickets)
    await broker.publish_batch(*found, topic=OUTPUT)


asyncio.run(app.run())
