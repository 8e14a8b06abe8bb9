"""Servers that misbehave, each on a port of its own."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

Speak = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def listening(speak: Speak, tls: ssl.SSLContext | None = None) -> AsyncIterator[str]:
    """A server on a port of its own; its conversations are over when it is left."""

    async def converse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError, asyncio.IncompleteReadError):  # who asks may leave before it is all said
            await speak(reader, writer)
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()

    async with asyncio.TaskGroup() as conversations:

        def begin(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            conversations.create_task(converse(reader, writer))

        async with await asyncio.start_server(begin, "127.0.0.1", 0, ssl=tls) as server:
            yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}"


@asynccontextmanager
async def bystander() -> AsyncIterator[tuple[str, list[bytes]]]:
    """Somebody else's port, and what is sent there."""
    heard: list[bytes] = []

    async def listen(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        heard.append(await reader.read(65_536))

    async with listening(listen) as host:
        yield host, heard


@asynccontextmanager
async def raw(sent: bytes, tls: ssl.SSLContext | None = None) -> AsyncIterator[str]:
    """A server that answers anything with some bytes and hangs up."""

    async def speak(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            await reader.read(65_536)
            writer.write(sent)
            await writer.drain()

    async with listening(speak, tls) as host:
        yield host
