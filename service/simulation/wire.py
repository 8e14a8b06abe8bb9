"""HTTP/1.1 for endpoints of our own: as spare as can be, for what it takes to answer is not to be measured."""

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import cast

import httptools

from service.transport.http import Answer

Asked = Callable[[str, str, bytes, Callable[[Answer], None]], None]
"""What is done about a request: its method, URL and body, and whom to give the answer to, then or later."""


@asynccontextmanager
async def listening(asked: Asked) -> AsyncIterator[str]:
    """Listen at a free port of this machine's own for the length of the block; gives the URL."""
    with socket.create_server(("127.0.0.1", 0)) as here:
        server = await asyncio.get_running_loop().create_server(lambda: _Connection(asked), sock=here)
        try:
            yield f"http://127.0.0.1:{here.getsockname()[1]}"
        finally:
            server.close()


class _Connection(asyncio.Protocol):
    """One connection; requests on it come one after the other, as HTTP/1.1 clients send them."""

    def __init__(self, asked: Asked) -> None:
        self._asked = asked
        self._parser = httptools.HttpRequestParser(self)
        self._transport: asyncio.Transport
        self._url = self._body = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_url(self, url: bytes) -> None:
        self._url, self._body = url, b""

    def on_body(self, body: bytes) -> None:
        self._body += body

    def on_message_complete(self) -> None:
        self._asked(self._parser.get_method().decode(), self._url.decode(), self._body, self._answer)

    def _answer(self, answer: Answer) -> None:
        if self._transport.is_closing():
            return
        lines = [f"HTTP/1.1 {answer.status_code} As-Simulated", f"content-length: {len(answer.content)}"]
        lines += [f"{name}: {value}" for name, value in answer.headers.items()]
        self._transport.write("\r\n".join((*lines, "\r\n")).encode() + answer.content)
