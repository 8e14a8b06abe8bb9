"""A server on this machine that replays responses and keeps the requests it was sent."""

import socket
import threading
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from dataclasses import dataclass, field

import orjson
import pytest
import uvicorn
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from service import settings
from service.limits.gate import Limits
from service.observability.telemetry import Telemetry
from service.transport.http import PacedClient


def client(request_timeout: float = 10.0) -> PacedClient:
    """The client that the service makes for an account."""
    return PacedClient(Limits(settings.Limits()), Telemetry().account("azure", "azure_language"), request_timeout)


@dataclass(frozen=True)
class Reply:
    """A response to give: `body` is JSON, or bytes as they are; `{host}` in it and in `headers` is the server's."""

    status: int = 200
    body: object = None
    headers: Mapping[str, str] = field(default_factory=dict)

    def at(self, host: str) -> Response:
        content = self.body if isinstance(self.body, bytes) else b"" if self.body is None else orjson.dumps(self.body)
        headers = {name: value.replace("{host}", host) for name, value in self.headers.items()}
        if isinstance(self.body, dict | list):
            headers.setdefault("Content-Type", "application/json")
        return Response(content.replace(b"{host}", host.encode()), self.status, headers)


@dataclass(frozen=True)
class Received:
    """A request as it came; the names of headers are in lower case."""

    method: str
    path: str
    query: str
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> object:
        return orjson.loads(self.body) if self.body else None


class Replay:
    """Answers each request with the next reply, and as `otherwise` has it (with 501) when there is none left."""

    def __init__(self, host: str) -> None:
        self.host = host
        self.url = f"http://{host}"
        self.requests: list[Received] = []
        self.replies: deque[Reply] = deque()
        self.otherwise: Callable[[Received], Reply] = lambda _: Reply(501)

    def answer(self, *replies: Reply) -> None:
        self.replies.extend(replies)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        path, query = scope["raw_path"].decode("ascii"), scope["query_string"].decode("ascii")
        received = Received(request.method, path, query, dict(request.headers), await request.body())
        self.requests.append(received)
        reply = self.replies.popleft() if self.replies else self.otherwise(received)
        await reply.at(self.host)(scope, receive, send)


@pytest.fixture(scope="session")
def replaying() -> Iterator[Replay]:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        replay = Replay(f"127.0.0.1:{listening.getsockname()[1]}")
        config = uvicorn.Config(
            replay, lifespan="off", ws="none", log_config=None, date_header=False, server_header=False
        )
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, args=([listening],))
        thread.start()
        yield replay
        server.should_exit = True
        thread.join()


@pytest.fixture
def replay(replaying: Replay) -> Iterator[Replay]:
    replaying.requests.clear()
    replaying.replies.clear()
    replaying.otherwise = lambda _: Reply(501)
    yield replaying
    assert not replaying.replies, "fewer requests came than there are replies"


@pytest.fixture
async def http() -> AsyncIterator[PacedClient]:
    async with client() as ready:
        yield ready
