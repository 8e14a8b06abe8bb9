"""The endpoints of a scenario over HTTP, in a process of their own, and a scenario that is played against them."""

import asyncio
import socket
from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from functools import partial
from multiprocessing.connection import Connection
from typing import cast

import httptools

from service import accounts, settings
from service.account import Account
from service.process import loop_factory, received, spawned
from service.progress import Advance
from service.simulation.endpoint import Behaviour, Endpoint
from service.simulation.play import Figure, play
from service.simulation.scenario import Scenario
from service.telemetry import Telemetry


async def play_over_http(scenario: Scenario, advance: Advance) -> list[Figure]:
    """Play a scenario in real time. Raises as `play`."""
    with spawned(serve, scenario.endpoints) as endpoints:
        base = await asyncio.to_thread(received, endpoints)
        opened = partial(_opened, endpoints)
        return await play(scenario, base, opened, advance)


def _opened(
    endpoints: Connection, wanted: settings.Settings, telemetry: Telemetry
) -> AbstractAsyncContextManager[Mapping[str, Account]]:
    endpoints.send("begin")
    return accounts.opened(wanted.accounts, wanted.accounts, telemetry)


class _Connection(asyncio.Protocol):
    """One connection; requests on it are answered one after the other, as HTTP/1.1 clients send them."""

    def __init__(self, endpoints: Mapping[str, Endpoint]) -> None:
        self._endpoints = endpoints
        self._parser = httptools.HttpRequestParser(self)
        self._transport: asyncio.Transport
        self._answering: asyncio.Task[None] | None = None
        self._url = self._body = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def connection_lost(self, _: Exception | None) -> None:
        if self._answering is not None:
            self._answering.cancel()

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_url(self, url: bytes) -> None:
        self._url, self._body = url, b""

    def on_body(self, body: bytes) -> None:
        self._body += body

    def on_message_complete(self) -> None:
        answering = self._answer(self._parser.get_method().decode(), self._url.decode(), self._body)
        self._answering = asyncio.get_running_loop().create_task(answering)

    async def _answer(self, method: str, url: str, body: bytes) -> None:
        answer = await self._endpoints[url.split("/")[1]].answer(method, url, body)
        lines = [f"HTTP/1.1 {answer.status_code} As-Simulated", f"content-length: {len(answer.content)}"]
        lines += [f"{name}: {value}" for name, value in answer.headers.items()]
        self._transport.write("\r\n".join((*lines, "\r\n")).encode() + answer.content)


def serve(connection: Connection, phases: Mapping[str, Sequence[Behaviour]]) -> None:
    """Answer for the endpoints of these names, each below a path of its name, until the connection closes."""

    async def answering() -> None:
        loop, told = asyncio.get_running_loop(), asyncio.Event()
        with socket.create_server(("127.0.0.1", 0)) as listening:
            base = f"http://127.0.0.1:{listening.getsockname()[1]}"
            endpoints = {name: Endpoint(each, f"{base}/{name}") for name, each in phases.items()}
            server = await loop.create_server(lambda: _Connection(endpoints), sock=listening)
            connection.send(base)
            loop.add_reader(connection.fileno(), told.set)
            await told.wait()
            connection.recv()  # the scenario begins
            for endpoint in endpoints.values():
                endpoint.began = loop.time()
            told.clear()
            await told.wait()  # nothing more is sent: it can only have closed
            server.close()

    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        runner.run(answering())
