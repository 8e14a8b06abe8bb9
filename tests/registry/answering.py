"""A registry that answers what a test wants answered; how real ones answer is seen in tests/kafka/test_registry.py."""

import asyncio
import ssl
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import orjson

from service import settings
from service.observability.telemetry import Telemetry
from service.registry.client import Registry, opened
from tests.providers.networks import listening

UNKNOWN = (404, {"error_code": 40403, "message": "Schema not found"})


@dataclass
class Answering:
    """What is answered to requests, by method and path: a status and a body, or several, one after the other.

    `asked` counts the requests, `headers` are those of the last. Nothing is answered while `goes_on` is not set.
    """

    answers: Mapping[str, Any]
    seconds: float = 0.0
    asked: Counter[str] = field(default_factory=Counter)
    headers: dict[str, str] = field(default_factory=dict)
    goes_on: asyncio.Event = field(default_factory=asyncio.Event)
    at_once: int = 0
    most_at_once: int = 0

    async def speak(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        request, *lines = head.strip().split("\r\n")
        self.headers = {name.lower(): said for name, _, said in (line.partition(": ") for line in lines)}
        await reader.readexactly(int(self.headers.get("content-length", 0)))
        method, path, _ = request.split(" ")
        self.asked[asked := f"{method} {path}"] += 1
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        await asyncio.sleep(self.seconds)
        await self.goes_on.wait()
        self.at_once -= 1
        answer = self.answers.get(asked, UNKNOWN)
        if isinstance(answer, list):
            answer = answer.pop(0) if len(answer) > 1 else answer[0]
        status, said, *headers = answer
        body = said if isinstance(said, bytes) else orjson.dumps(said)
        told = "".join(f"{name}: {value}\r\n" for name, value in headers)
        writer.write(f"HTTP/1.1 {status} x\r\nconnection: close\r\ncontent-length: {len(body)}\r\n{told}\r\n".encode())
        writer.write(body)
        await writer.drain()


@asynccontextmanager
async def answering(
    answers: Mapping[str, Any], seconds: float = 0.0, tls: ssl.SSLContext | None = None, path: str = "", **branch: Any
) -> AsyncIterator[tuple[Registry, Answering]]:
    """The registry as it is asked, with these settings, and what was asked of it."""
    server = Answering(answers, seconds)
    server.goes_on.set()
    async with listening(server.speak, tls) as host:
        url = f"{'https' if tls else 'http'}://{branch.pop('host', None) or host}{path}"
        configured = settings.Registry(**{"url": url, "request_timeout": 5, **branch})
        async with opened(configured, Telemetry()) as registry:
            yield registry, server


def avro(schema: object, references: Sequence[tuple[str, int]] = ()) -> tuple[int, object]:
    """How a schema is told."""
    named = [{"name": subject, "subject": subject, "version": version} for subject, version in references]
    return 200, {"schema": orjson.dumps(schema).decode()} | ({"references": named} if named else {})
