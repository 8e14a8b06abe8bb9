"""What a worker's cost is held against: the same calls by aiokafka and aiohttp with nothing around them.

No commits, limits, errors or metrics: it is what these cost on this machine, at this hour.
"""

import asyncio
from multiprocessing.connection import Connection
from typing import Any

import aiohttp
import orjson
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka import TopicPartition as KafkaPartition

from service.bench.place import BATCH, IN_FLIGHT, PARTITIONS, Place
from service.bench.worker import watched
from service.process import loop_factory, settle_memory


def bare_loop(connection: Connection, place: Place) -> None:
    """Work as `worker` does."""
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        runner.run(_loop(connection, place))


async def _loop(connection: Connection, place: Place) -> None:
    where, done = place.bootstrap, 0
    consumer = AIOKafkaConsumer(bootstrap_servers=where, fetch_max_wait_ms=5, auto_offset_reset="earliest")
    producer = AIOKafkaProducer(bootstrap_servers=where, enable_idempotence=True, max_batch_size=128 * 1024)
    session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), cookie_jar=aiohttp.DummyCookieJar())
    jobs, places = f"{place.url}/language/analyze-text/jobs?api-version=2023-04-01", asyncio.Semaphore(IN_FLIGHT)
    tasks = [{"kind": "CustomSingleLabelClassification", "parameters": {"projectName": "b", "deploymentName": "b"}}]

    async def settle(records: list[Any]) -> None:
        nonlocal done
        texts = [orjson.loads(record.value)["text"] for record in records]
        documents = [{"id": str(i), "text": text} for i, text in enumerate(texts)]
        body = orjson.dumps({"analysisInput": {"documents": documents}, "tasks": tasks})
        async with session.post(jobs, data=body, headers={"Content-Type": "application/json"}) as response:
            job = response.headers["operation-location"]
        await asyncio.sleep(place.seconds)
        while True:
            async with session.get(job) as response:
                answer = orjson.loads(await response.read())
            if answer["status"] == "succeeded":
                break
        places.release()
        answers = answer["tasks"]["items"][0]["results"]["documents"]
        sent = [
            await producer.send(
                place.classified, orjson.dumps(each), record.key, record.partition, headers=list(record.headers)
            )
            for record, each in zip(records, answers, strict=True)
        ]
        await asyncio.gather(*sent)
        done += len(records)

    async def run() -> None:
        async with asyncio.TaskGroup() as under_way:
            while True:
                await places.acquire()
                found = await consumer.getmany(timeout_ms=1000, max_records=BATCH)
                under_way.create_task(settle([record for records in found.values() for record in records]))

    async with consumer, producer, session:
        ours = range(place.number, PARTITIONS, place.workers)
        consumer.assign([KafkaPartition(place.incoming, number) for number in ours])
        settle_memory()
        running = asyncio.create_task(run())
        connection.send(await watched(connection, lambda: done))
        running.cancel()
        await asyncio.wait([running])
