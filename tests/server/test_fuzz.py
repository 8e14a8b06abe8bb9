"""Whatever is sent, the server answers, and never with 500."""

import asyncio
import json
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.server.conftest import BILLING, JOBS, KEY, Serve, Server, submission

FAST = settings(max_examples=2000, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=10), inner, max_size=3),
    max_leaves=8,
)
headers = st.lists(
    st.tuples(
        st.sampled_from([b"host", b"content-length", b"content-type", b"ocp-apim-subscription-key", b"x-other"]),
        st.binary(max_size=20),
    ),
    max_size=3,
)


class Asking:
    """The server's application, called as an ASGI server would, in a loop of its own."""

    def __init__(self, runner: asyncio.Runner, server: Server) -> None:
        self._runner = runner
        self.server = server

    def ask(self, method: str, path: str, query: bytes, body: bytes, more: list[tuple[bytes, bytes]]) -> int:
        scope = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": method,
            "path": path,
            "raw_path": path.encode("utf-8", "surrogatepass"),
            "root_path": "",
            "query_string": query,
            "scheme": "http",
            "server": ("127.0.0.1", 8080),
            "client": ("127.0.0.1", 9),
            "headers": [(b"host", b"h"), (b"ocp-apim-subscription-key", KEY.encode()), *more],
        }
        half = len(body) // 2
        parts = [
            {"type": "http.request", "body": body[:half], "more_body": True},
            {"type": "http.request", "body": body[half:], "more_body": False},
        ]
        sent: list[dict[str, Any]] = []

        async def receive() -> dict[str, Any]:
            return parts.pop(0) if parts else {"type": "http.disconnect"}

        async def send(message: Any) -> None:
            sent.append(message)

        async def answered() -> None:
            await self.server.app(scope, receive, send)

        self._runner.run(answered())
        status: int = sent[0]["status"]
        content = b"".join(message.get("body", b"") for message in sent[1:])
        if status >= 400 and path != "/_faults":
            told = json.loads(content)
            assert told.get("__type") if path == "/" and "error" not in told else told["error"]["code"]
        return status


@pytest.fixture
def asking(serve: Serve) -> Iterator[Asking]:
    with asyncio.Runner() as runner:
        stack = AsyncExitStack()
        server = runner.run(stack.enter_async_context(serve()))
        try:
            yield Asking(runner, server)
        finally:
            runner.run(stack.aclose())


@FAST
@given(
    method=st.sampled_from(["GET", "POST", "PUT", "DELETE", "HEAD", "OPTIONS", "", "get"]),
    path=st.sampled_from(["/", JOBS, f"{JOBS}/", f"{JOBS}/x:cancel", "/_faults"])
    | st.text(max_size=40).map(lambda text: f"/{text}")
    | st.text(st.characters(), max_size=40).map(lambda text: f"{JOBS}/{text}"),
    query=st.binary(max_size=30)
    | st.sampled_from([b"api-version=2023-04-01", b"api-version=2023-04-01&top=1&skip=1&showStats=x"]),
    body=st.binary(max_size=50),
    more=headers,
)
def test_any_request_is_answered(  # noqa: PLR0917  hypothesis gives them by name
    asking: Asking, method: str, path: str, query: bytes, body: bytes, more: list[tuple[bytes, bytes]]
) -> None:
    assert asking.ask(method, path, query, body, more) < 500


@st.composite  # once: it reads the function's source
def nearly(draw: st.DrawFn, make: Callable[[], Any]) -> Any:
    """A good body, of which something somewhere has been replaced or taken out."""
    body = make()
    for _ in range(draw(st.integers(1, 3))):
        part, step = body, draw(st.sampled_from(sorted(body)))
        while isinstance(part[step], dict | list) and part[step] and draw(st.booleans()):
            part = part[step]
            step = draw(st.integers(0, len(part) - 1) if isinstance(part, list) else st.sampled_from(sorted(part)))
        if draw(st.booleans()) or len(part) == 1:
            part[step] = draw(json_values)
        else:
            del part[step]
        if not body:
            break
    return body


@FAST
@given(body=nearly(lambda: submission(BILLING, BILLING)) | json_values)
def test_any_json_is_accepted_or_refused(asking: Asking, body: Any) -> None:
    content = json.dumps(body).encode()  # as lenient as JSON can be: NaN, halves of surrogate pairs
    status = asking.ask("POST", JOBS, b"api-version=2023-04-01", content, [])
    assert status in {202, 400, 404}


@settings(FAST, max_examples=300)
@given(
    body=st.lists(
        st.dictionaries(st.sampled_from(["on", "status", "job", "times", "slow", "x"]), json_values), max_size=2
    )
    | json_values
)
def test_any_rules_are_accepted_or_refused(asking: Asking, body: Any) -> None:
    assert asking.ask("PUT", "/_faults", b"", json.dumps(body).encode(), []) in {200, 400}
    asking.ask("DELETE", "/_faults", b"", b"", [])


UNDERSTANDING = "/contentunderstanding"
CLASSIFIER = {
    "description": "mail",
    "tags": {"a": "b"},
    "splitMode": "auto",
    "processingLocation": "geography",
    "categories": {"invoice": {"description": "a bill", "examples": ["please pay"]}, "other": {"analyzerId": "a"}},
}
ANALYZER = {
    "description": "mail",
    "tags": {"a": "b"},
    "baseAnalyzerId": "prebuilt-document",
    "config": {"enableSegment": True, "contentCategories": CLASSIFIER["categories"]},
    "models": {"completion": "x"},
}
INPUTS = {"inputs": [{"url": "http://h/mail/a.txt"}, {"data": "eA=="}]}
INPUT = {"inputs": [{"data": "eA==", "range": "1-2,4-"}]}
OF_CLASSIFIERS, OF_ANALYZERS = b"api-version=2025-05-01-preview", b"api-version=2025-11-01&allowReplace=true"


def copied(body: Any) -> Callable[[], Any]:
    return lambda: json.loads(json.dumps(body))


@FAST
@given(
    asked=st.sampled_from(
        [
            ("PUT", "classifiers/mail", OF_CLASSIFIERS, CLASSIFIER),
            ("PATCH", "classifiers/kept", OF_CLASSIFIERS, CLASSIFIER),
            ("POST", "classifiers/kept:classify", OF_CLASSIFIERS, INPUTS["inputs"][0]),
            ("PUT", "analyzers/mail", OF_ANALYZERS, ANALYZER),
            ("PATCH", "analyzers/kept", OF_ANALYZERS, ANALYZER),
            ("POST", "analyzers/kept:analyze", OF_ANALYZERS, INPUTS),
            ("POST", "analyzers/kept:analyze", OF_ANALYZERS, INPUT),
            ("POST", "analyzers/kept:analyzeInline", b"api-version=2026-06-01-preview", INPUT),
            ("PATCH", "defaults", OF_ANALYZERS, {"modelDeployments": {"a": "b"}}),
        ]
    ).flatmap(lambda one: st.tuples(st.just(one[:3]), nearly(copied(one[3])) | json_values))
)
def test_any_json_is_understood_or_refused(asking: Asking, asked: tuple[tuple[str, str, bytes], Any]) -> None:
    resources = asking.server.store.resources
    if not resources("understanding/classifier"):
        for path, query, made in (
            ("classifiers/kept", OF_CLASSIFIERS, CLASSIFIER),
            ("analyzers/kept", OF_ANALYZERS, ANALYZER),
        ):
            assert asking.ask("PUT", f"{UNDERSTANDING}/{path}", query, json.dumps(made).encode(), []) == 201
    (method, path, query), body = asked
    json_type = [(b"content-type", b"application/json")]
    status = asking.ask(method, f"{UNDERSTANDING}/{path}", query, json.dumps(body).encode(), json_type)
    assert status in {200, 201, 202, 400}
    assert resources("understanding/classifier")["kept"]["categories"] == CLASSIFIER["categories"]
    assert resources("understanding/analyzer")["kept"]["config"] == ANALYZER["config"]


@settings(FAST, max_examples=1000)
@given(
    method=st.sampled_from(["GET", "POST", "PUT", "PATCH", "DELETE", "HEAD"]),
    path=st.sampled_from(["classifiers", "analyzers", "classifierResults", "analyzerResults", "defaults"]),
    rest=st.sampled_from(
        ["", "/a:classify", "/a:analyze", "/a:analyzeBinary", "/a:analyzeBinaryInline", "/a/operations/b", ":"]
    )
    | st.text(max_size=20).map(lambda text: f"/{text}"),
    query=st.sampled_from([OF_CLASSIFIERS, OF_ANALYZERS, OF_CLASSIFIERS + b"&after=%ff&stringEncoding=x"])
    | st.binary(max_size=30),
    body=st.binary(max_size=50),
    more=headers,
)
def test_any_request_to_understand_is_answered(  # noqa: PLR0917  hypothesis gives them by name
    asking: Asking, method: str, path: str, rest: str, query: bytes, body: bytes, more: list[tuple[bytes, bytes]]
) -> None:
    assert asking.ask(method, f"{UNDERSTANDING}/{path}{rest}", query, body, more) < 500
