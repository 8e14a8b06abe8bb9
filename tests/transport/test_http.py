import asyncio
import gzip
import socket
import ssl
import sys
import threading
import time
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
import trustme

from service import settings
from service.limits.gate import Limits
from service.observability.telemetry import Telemetry
from service.transport.http import PacedClient
from tests.providers.networks import listening, raw


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


@pytest.mark.parametrize(("spared", "answered"), [("127.0.0.1", b"the endpoint"), ("example.com", b"the proxy")])
async def test_hosts_that_need_no_proxy_get_none(monkeypatch: pytest.MonkeyPatch, spared: str, answered: bytes) -> None:
    async with server(OK, b"the proxy") as (proxy, _), server(OK, b"the endpoint") as (url, _):
        monkeypatch.setenv("HTTP_PROXY", proxy)
        monkeypatch.setenv("NO_PROXY", spared)
        async with client(on_this_machine=False) as http:
            assert (await http.exchange("GET", url, {})).content == answered


@pytest.mark.parametrize("where", ["SSL_CERT_FILE", "SSL_CERT_DIR"])
async def test_an_authority_that_the_environment_names_is_trusted_and_no_other(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, where: str
) -> None:
    monkeypatch.delenv("SSL_CERT_FILE", raising=False)
    authority, tls = trustme.CA(), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(tls)
    theirs = tmp_path / "0123abcd.0"  # as `openssl rehash` names them
    trustme.CA().cert_pem.write_to_path(str(theirs))
    async with raw(OK + b"well", tls) as host:
        monkeypatch.setenv(where, str(theirs if where == "SSL_CERT_FILE" else tmp_path))
        async with client(on_this_machine=True) as http:
            with pytest.raises(httpx.ConnectError, match="UnknownIssuer"):
                await http.exchange("GET", f"https://{host}", {})
        authority.cert_pem.write_to_path(str(theirs))
        async with client(on_this_machine=True) as http:
            assert (await http.exchange("GET", f"https://{host}", {})).content == b"well"


@pytest.mark.parametrize("head", [OK, b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n"])
async def test_an_answer_that_drips_is_given_up_in_time(head: bytes) -> None:
    async with (
        server(head, *[b"x"] * 100, drip=0.05) as (url, _),
        client(on_this_machine=True, request_timeout=0.2) as http,
    ):
        with pytest.raises(httpx.ReadTimeout):
            await http.exchange("GET", url, {})


LONG = b"x" * 1024**2


@pytest.mark.parametrize(
    ("head", "part"),
    [
        (b"connection: close", LONG),
        (b"content-length: 20971520", LONG),
        (b"content-length: 3\r\ntransfer-encoding: identity", LONG),
        (b"content-length: 3\r\ntransfer-encoding: chunked", b"100000\r\n" + LONG + b"\r\n"),
    ],
)
async def test_an_answer_that_is_too_long_is_given_up_whatever_it_says_of_its_length(head: bytes, part: bytes) -> None:
    async with (
        server(b"HTTP/1.1 200 OK\r\n" + head + b"\r\n\r\n", *[part] * 20) as (url, _),
        client(on_this_machine=True) as http,
    ):
        with pytest.raises(httpx.RemoteProtocolError, match="longer than"):
            await http.exchange("GET", url, {})


@pytest.mark.parametrize(
    ("sent", "content"),
    [
        (b"HTTP/1.1 204 No Content\r\ncontent-length: \xff\r\n\r\n", b""),
        (b"HTTP/1.1 200 OK\r\ncontent-length: \xff\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", b"ok"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: " + b"0" * 5_000 + b"2\r\n\r\nok", b"ok"),
    ],
)
async def test_a_length_that_makes_no_sense_is_as_good_as_none(sent: bytes, content: bytes) -> None:
    async with raw(sent) as host, client(on_this_machine=True) as http:
        assert (await http.exchange("GET", f"http://{host}", {})).content == content


async def test_an_answer_that_is_packed_unasked_is_not_unpacked() -> None:
    packed = gzip.compress(b"x" * 1_000)
    async with (
        raw(b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\n\r\n" + packed) as host,
        client(on_this_machine=True) as http,
    ):
        with pytest.raises(httpx.RemoteProtocolError, match="packed"):
            await http.exchange("GET", f"http://{host}", {})


async def test_headers_are_those_that_are_text() -> None:
    sent = b"HTTP/1.1 200 OK\r\nX: 1\r\nx: 2\r\nlocation: \xff\r\ncontent-length: 0\r\n\r\n"
    async with raw(sent) as host, client(on_this_machine=True) as http:
        headers = (await http.exchange("GET", f"http://{host}", {})).headers
    assert dict(headers) == {"x": "1", "content-length": "0"}
    assert len(headers) == 2
    assert headers.get("Location") is None


async def test_a_request_goes_out_as_it_is_asked_for_and_no_redirect_is_followed() -> None:
    moved = b"HTTP/1.1 302 Found\r\nlocation: /elsewhere\r\nset-cookie: a=b\r\nx: \xff\r\ncontent-length: 0\r\n\r\n"
    async with server(moved) as (url, heard), client(on_this_machine=True) as http:
        answer = await http.exchange("GET", f"{url}/jobs?a=%2Fb", {})
        assert (answer.status_code, answer.headers.get("Location"), answer.content) == (302, "/elsewhere", b"")
        assert not answer.is_success
        assert heard == [b"GET /jobs?a=%2Fb HTTP/1.1\r\n"]


async def test_a_request_that_is_given_up_keeps_its_connection_no_longer_than_it_may_take_and_others_go_on() -> None:
    heard, hung_up = asyncio.Event(), asyncio.Event()

    async def listen(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if (await reader.readline()).startswith(b"GET /well"):
            writer.write(OK + b"well")
            return
        heard.set()
        await reader.read()  # until it hangs up
        hung_up.set()

    async with listening(listen) as host, client(on_this_machine=True, request_timeout=0.5) as http:
        asked = asyncio.create_task(http.exchange("GET", f"http://{host}/never", {}))
        await heard.wait()
        asked.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asked
        assert (await http.exchange("GET", f"http://{host}/well", {})).content == b"well"
        await asyncio.wait_for(hung_up.wait(), 10)


async def test_a_post_on_a_kept_connection_that_ends_without_an_answer_is_not_sent_again() -> None:
    heard: list[bytes] = []

    async def hang_up_on_the_second(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heard.append(await reader.readuntil(b"body"))
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
        with suppress(asyncio.IncompleteReadError):  # nothing came on this one, which may be kept too late for the next
            heard.append(await reader.readuntil(b"body"))

    async with listening(hang_up_on_the_second) as host, client(on_this_machine=True) as http:
        sent = 0

        async def send_until_it_fails() -> None:
            nonlocal sent
            while sent < 100:
                sent += 1
                await http.exchange("POST", f"http://{host}", {}, b"body")

        with pytest.raises(httpx.RemoteProtocolError):
            await send_until_it_fails()
        assert len(heard) == sent


async def test_a_client_that_is_closed_keeps_no_connection() -> None:
    kept: set[asyncio.StreamReader] = set()
    none_kept = asyncio.Event()

    async def listen(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        kept.add(reader)
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
        await reader.read()
        kept.remove(reader)
        if not kept:
            none_kept.set()

    async with listening(listen) as host:
        http = client(on_this_machine=True)
        await http.exchange("GET", f"http://{host}", {})
        assert kept
        await http.aclose()
        await asyncio.wait_for(none_kept.wait(), 10)


ENDING = """
import asyncio, sys
from tests.transport.test_http import client

async def main(url):
    asyncio.get_running_loop().slow_callback_duration = 60  # a busy machine is not what this is about
    asked = asyncio.create_task(client(on_this_machine=True, request_timeout=60).exchange("GET", url, {}))
    await asyncio.to_thread(sys.stdin.readline)

if sys.argv[2] == "uvloop":
    import uvloop
    uvloop.run(main(sys.argv[1]))
else:
    asyncio.run(main(sys.argv[1]))
"""


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
async def test_a_process_ends_at_once_whatever_is_under_way(loop: str) -> None:
    heard = asyncio.Event()

    async def listen(reader: asyncio.StreamReader, _: Any) -> None:
        await reader.readline()
        heard.set()
        await reader.read()

    async with listening(listen) as host:
        pipe = asyncio.subprocess.PIPE
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-X", "dev", "-W", "error", "-c", ENDING, f"http://{host}", loop), stdin=pipe, stderr=pipe
        )
        await heard.wait()
        _, told = await asyncio.wait_for(process.communicate(b"\n"), 20)
        assert (process.returncode, told) == (0, b"")


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


class Slow:
    """A server in a thread of its own that answers each request when it is told to."""

    def __init__(self) -> None:
        self.heard, self.may_answer, self.has_answered = (threading.Semaphore(0) for _ in range(3))

    def serve(self, listening: socket.socket, times: int) -> None:
        for _ in range(times):
            connection, _ = listening.accept()
            with connection:
                connection.recv(65_536)
                self.heard.release()
                self.may_answer.acquire()
                connection.sendall(b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\n{}")
                self.has_answered.release()


async def test_a_cancellation_is_heard_also_when_the_answer_is_there_already() -> None:
    times, slow, cancelled = 20, Slow(), list[bool]()
    with socket.create_server(("127.0.0.1", 0)) as listening, ThreadPoolExecutor() as threads:
        serving = threads.submit(slow.serve, listening, times)
        async with client(on_this_machine=True) as http:
            for _ in range(times):
                asked = asyncio.create_task(http.exchange("GET", f"http://127.0.0.1:{listening.getsockname()[1]}/", {}))
                await asyncio.to_thread(slow.heard.acquire)
                slow.may_answer.release()
                slow.has_answered.acquire()  # the event loop hears nothing of the answer meanwhile,
                time.sleep(0.01)  # noqa: ASYNC251  which a thread of the client's has
                asked.cancel()
                await asyncio.wait([asked])
                cancelled.append(asked.cancelled())
        serving.result(10)
    assert cancelled == [True] * times
