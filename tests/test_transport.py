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
        assert answer.content == (b"the endpoint" if on_this_machine else b"the proxy")
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


async def test_a_request_goes_out_as_it_is_asked_for_and_no_redirect_is_followed() -> None:
    moved = b"HTTP/1.1 302 Found\r\nlocation: /elsewhere\r\nset-cookie: a=b\r\nx: \xff\r\ncontent-length: 0\r\n\r\n"
    async with server(moved) as (url, heard), client(on_this_machine=True) as http:
        answer = await http.exchange("GET", f"{url}/jobs?a=%2Fb", {})
        assert (answer.status_code, answer.headers.get("Location"), answer.content) == (302, "/elsewhere", b"")
        assert not answer.is_success
        assert heard == [b"GET /jobs?a=%2Fb HTTP/1.1\r\n"]


async def test_a_request_that_is_given_up_takes_its_connection_with_it_and_others_go_on() -> None:
    async with server(OK, *[b"x"] * 100, drip=0.05) as (url, heard), client(on_this_machine=True) as http:
        asked = asyncio.create_task(http.exchange("GET", url, {}))
        while not heard:  # noqa: ASYNC110  it has no event to wait for
            await asyncio.sleep(0.001)
        asked.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asked
    async with server(OK, b"well") as (url, _), client(on_this_machine=True) as http:
        assert (await http.exchange("GET", url, {})).content == b"well"


async def test_a_connection_that_was_closed_meanwhile_costs_no_answer() -> None:
    """And no request is sent twice: a server that hangs up without an answer has heard it once."""
    async with client(on_this_machine=True) as http:
        async with server(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok") as (url, heard):
            assert (await http.exchange("GET", url, {})).content == b"ok"
            assert (await http.exchange("POST", url, {}, b"body")).content == b"ok"
            assert heard == [b"GET / HTTP/1.1\r\n", b"POST / HTTP/1.1\r\n"]
        async with server() as (url, heard):
            with pytest.raises(httpx.RemoteProtocolError):
                await http.exchange("POST", url, {}, b"body")
            assert heard == [b"POST / HTTP/1.1\r\n"]
