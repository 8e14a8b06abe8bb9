"""aiokafka and httpx in a plain loop: read a wave, ask for its batches at once, publish, commit."""

import asyncio
import signal
from typing import Any

import httpx
import orjson
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from endpoint import (
    BATCH,
    BOOTSTRAP,
    GROUP,
    IN_FLIGHT,
    INPUT,
    JOBS,
    JSON,
    OUTPUT,
    SECONDS,
    SESSION_TIMEOUT,
    body,
    results,
)

ATTEMPTS = 5


async def asked(http: httpx.AsyncClient, tickets: list[dict[str, Any]]) -> list[dict[str, Any]]:
    response = await http.post(JOBS, content=body(tickets), headers=JSON)
    response.raise_for_status()
    await asyncio.sleep(SECONDS)
    while True:
        job = await http.get(response.headers["operation-location"])
        job.raise_for_status()
        if (found := results(tickets, orjson.loads(job.content))) is not None:
            return found
        await asyncio.sleep(0.005)


async def classify(http: httpx.AsyncClient, tickets: list[dict[str, Any]]) -> list[dict[str, Any]]:
    for attempt in range(ATTEMPTS):
        try:
            return await asked(http, tickets)
        except httpx.HTTPError:
            await asyncio.sleep(0.2 * 2**attempt)
    return await asked(http, tickets)


async def main() -> None:
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    consumer = AIOKafkaConsumer(
        INPUT,
        bootstrap_servers=BOOTSTRAP,
        group_id=GROUP,
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        session_timeout_ms=int(SESSION_TIMEOUT * 1000),
    )
    producer = AIOKafkaProducer(bootstrap_servers=BOOTSTRAP, enable_idempotence=True)
    limits = httpx.Limits(max_connections=IN_FLIGHT, max_keepalive_connections=IN_FLIGHT)
    async with consumer, producer, httpx.AsyncClient(limits=limits, timeout=30) as http:
        while not stop.is_set():
            read = await consumer.getmany(timeout_ms=200, max_records=BATCH * IN_FLIGHT)
            tickets = [orjson.loads(record.value) for records in read.values() for record in records]
            batches = [tickets[i : i + BATCH] for i in range(0, len(tickets), BATCH)]
            found = await asyncio.gather(*(classify(http, batch) for batch in batches))
            sent = [await producer.send(OUTPUT, orjson.dumps(each)) for batch in found for each in batch]
            await asyncio.gather(*sent)
            if read:
                await consumer.commit()


asyncio.run(main())
