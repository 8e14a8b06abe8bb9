"""Starting and ending aiokafka's clients, against brokers that are silent."""

import asyncio
import gc
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from aiokafka import AIOKafkaProducer

from service import settings
from service.streams.kafka_clients import connection, producer_stopped, started

_API_VERSIONS = 18


class Silent:
    """A broker that says what it speaks, and then nothing more."""

    def __init__(self) -> None:
        self.port = 0
        self.has_been_asked = asyncio.Event()
        self.was_left = asyncio.Event()

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while size := await reader.readexactly(4):
                request = await reader.readexactly(int.from_bytes(size))
                kind, _, correlation = struct.unpack(">hhi", request[:8])
                if kind != _API_VERSIONS:
                    self.has_been_asked.set()
                    continue
                body = (
                    struct.pack(">ihi", correlation, 0, 2)
                    + struct.pack(">hhh", 3, 0, 5)
                    + struct.pack(">hhh", 18, 0, 0)
                )
                writer.write(len(body).to_bytes(4) + body)
        except asyncio.IncompleteReadError:
            self.was_left.set()
        finally:
            writer.close()


@asynccontextmanager
async def silent() -> AsyncIterator[Silent]:
    broker = Silent()
    server = await asyncio.start_server(broker.answer, "127.0.0.1", 0)
    broker.port = server.sockets[0].getsockname()[1]
    async with server:
        yield broker


async def test_a_start_that_is_cancelled_leaves_no_connection_behind() -> None:
    async with silent() as broker:
        kafka = settings.Kafka(bootstrap_servers=f"127.0.0.1:{broker.port}", group_id="g")
        producer = AIOKafkaProducer(**connection(kafka))
        starting = asyncio.create_task(started(producer, kafka))
        await broker.has_been_asked.wait()
        starting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await starting
        await producer_stopped(producer)
        async with asyncio.timeout(10):
            await broker.was_left.wait()
    del producer, starting
    gc.collect()  # a connection that nobody closed would complain
