import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
import pytest

from service import settings
from service.limits import Limits
from service.telemetry import Telemetry
from service.transport import PacedClient


def client(*, on_this_machine: bool, request_timeout: float = 5.0) -> PacedClient:
    events = Telemetry().account("azure", "azure_language")
    return PacedClient(Limits(settings.Limits()), events, request_timeout, on_this_machine=on_this_machine)


@asynccontextmanager
async def server(*parts: bytes, drip: float = 0.0) -> AsyncIterator[tuple[str, list[bytes]]]:
    """Answers every connection with these bytes, and keeps the first line that it heard."""
    heard: list[bytes] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heard.append(await reader.readline())
        try:
            for part in parts:
                writer.write(part)
                await writer.drain()
                await asyncio.sleep(drip)
            writer.write_eof()
            await reader.read()
        except ConnectionError:
            pass  # the client has had enough
        finally:
            writer.transport.abort()
            done.release()

    listening, done = await asyncio.start_server(answer, "127.0.0.1", 0), asyncio.Semaphore(0)
    async with listening:
        host, port = listening.sockets[0].getsockname()
        yield f"http://{host}:{port}", heard
        for _ in heard:
            await done.acquire()


OK = b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n"


@pytest.mark.parametrize("on_this_machine", [True, False])
async def test_a_proxy_is_told_nothing_that_stays_on_this_machine(
    monkeypatch: pytest.MonkeyPatch, on_this_machine: bool
) -> None:
    async with server(OK, b"the proxy") as (proxy, told), server(OK, b"the endpoint") as (url, _):
        monkeypatch.setenv("HTTP_PROXY", proxy)
        monkeypatch.delenv("NO_PROXY", raising=False)
        async with client(on_this_machine=on_this_machine) as http:
            answer = await http.exchange("GET", f"{url}/jobs", {"Ocp-Apim-Subscription-Key": "a-key"})
        assert answer.text == ("the endpoint" if on_this_machine else "the proxy")
        assert bool(told) is not on_this_machine


async def test_an_answer_that_drips_is_given_up_in_time() -> None:
    async with (
        server(OK, *[b"x"] * 100, drip=0.05) as (url, _),
        client(on_this_machine=True, request_timeout=0.2) as http,
    ):
        with pytest.raises(httpx.ReadTimeout):
            await http.exchange("GET", url, {})


async def test_an_answer_without_an_end_is_given_up() -> None:
    async with server(OK, *[b"x" * 1024**2] * 20) as (url, _), client(on_this_machine=True) as http:
        with pytest.raises(httpx.RemoteProtocolError, match="longer than"):
            await http.exchange("GET", url, {})


async def test_an_object_is_sent_as_it_is() -> None:
    async with server(OK, b"{}") as (url, heard), client(on_this_machine=True) as http:
        assert (await http.get(f"{url}/jobs?a=1")).json() == {}
        assert heard == [b"GET /jobs?a=1 HTTP/1.1\r\n"]
