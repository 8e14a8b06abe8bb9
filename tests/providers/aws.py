"""What the tests of AWS's clients share: accounts of ours, replies in AWS JSON 1.1, servers that misbehave."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import strategies as st

from service import pipeline, settings
from service.dispatch import accounts
from service.dispatch.account import Account
from service.dispatch.dispatcher import Dispatcher
from service.documents import Document, Position, Record
from service.observability.telemetry import Telemetry
from service.streams.memory import MemorySink, MemorySource
from tests.providers.conftest import Reply
from tests.providers.networks import Speak

ACCESS_KEY, SECRET_KEY = "AKIDEXAMPLE000000000", "wJalrXUtnFEMI-K7MDENG-bPxRfiCYEXAMPLEKEY"
REGION = "arn:aws:comprehend:eu-west-1:111122223333"
ENDPOINT_ARN = f"{REGION}:document-classifier-endpoint/tickets"
CLASSIFIER_ARN = f"{REGION}:document-classifier/tickets/version/2"
CONTRACT = Path(__file__).parents[1] / "contract" / "comprehend" / "2017-11-27"
HTML = Reply(500, b"<html><body>Bad Gateway</body></html>", {"Content-Type": "text/html"})

WORDS = ["Classes", "Labels", "Errors", "Warnings", "Name", "Score", "ErrorCode", "WarnCode", "Line"]
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 2) | st.floats() | st.sampled_from(["0", "a", "INTERNAL_SERVER_ERROR"]),
    lambda deeper: st.lists(deeper, max_size=3) | st.dictionaries(st.sampled_from(WORDS), deeper, max_size=5),
)
"""JSON with the words of answers in all the wrong places."""


def document(text: str = "I was charged twice.", number: int = 0) -> Document:
    return Document(Record(Position("tickets.incoming", 3, 800 + number), 0, None, b""), f"T-{number}", text, None, 0.0)


def well(**body: Any) -> Reply:
    """An answer as the service gives it."""
    return Reply(200, json.dumps(body).encode(), {"Content-Type": "application/x-amz-json-1.1"})


def no(code: str, status: int = 400, message: str = "No.", **more: Any) -> Reply:
    """An error as the service gives it."""
    headers = {"Content-Type": "application/x-amz-json-1.1", "x-amzn-ErrorType": code}
    return Reply(status, json.dumps({"__type": code, "Message": message, **more}).encode(), headers)


def own(reply: Reply, headers: dict[str, str]) -> Reply:
    """The same reply with headers besides."""
    return Reply(reply.status, reply.body, {**reply.headers, **headers})


@asynccontextmanager
async def opened(branch: settings.Account, telemetry: Telemetry | None = None) -> AsyncIterator[Account]:
    """The account that the service would open."""
    async with accounts.opened({"aws": branch}, ["aws"], telemetry or Telemetry()) as ready:
        yield ready["aws"]


async def streamed(account: Account, texts: Iterable[str], **batch: Any) -> MemorySink:
    """What is published when these texts go through the pipeline."""
    stream = settings.Stream(
        name="tickets",
        input="in",
        document=settings.Fields(format="text", id=None),
        classify_with=("aws",),
        batch=settings.Batch(**batch),
        output="out",
        dead_letter="dead",
    )
    source = MemorySource(Record(Position("in", 0, i), 0, None, text.encode()) for i, text in enumerate(texts))
    sink = MemorySink()
    await pipeline.run(stream, source, sink, Dispatcher([account]), telemetry=Telemetry(), stop=asyncio.Event())
    return sink


def alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Let nothing that this machine knows of AWS be found."""
    for name in ("AWS_PROFILE", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_ENDPOINT_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))


def saying(sent: bytes) -> Speak:
    """Answer anything with these bytes and hang up."""

    async def speak(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(65_536)
        writer.write(sent)
        await writer.drain()

    return speak
