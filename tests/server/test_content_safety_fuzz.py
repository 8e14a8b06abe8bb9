"""Whatever is sent to Content Safety, it answers, never with 500, and keeps what it has."""

import asyncio
import json
from collections.abc import Iterator
from contextlib import AsyncExitStack
from typing import Any
from urllib.parse import urlencode

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.server.conftest import Serve
from tests.server.content_safety import BASE, FIRST, SECOND, asked
from tests.server.test_fuzz import Asking, headers, json_values

FAST = settings(max_examples=1000, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
KEPT = {"/text/categories/Kept": asked("Kept"), "/text/blocklists/kept": {"description": "d"}}
BODIES: dict[str, Any] = {
    "/text:analyze": {
        "text": "x",
        "categories": ["Hate", "Violence"],
        "blocklistNames": ["kept"],
        "haltOnBlocklistHit": True,
        "outputType": "EightSeverityLevels",
        "customizedCategories": [{"categoryName": "Kept", "version": 1}],
    },
    "/text:analyzeCustomCategory": {"text": "x", "categoryName": "Kept", "version": 1},
    "/text/categories/Other": asked("Other", blobDelimiter="/"),
    "/text/blocklists/other": {"blocklistName": "other", "description": "d"},
    "/text/blocklists/kept:addOrUpdateBlocklistItems": {"blocklistItems": [{"text": "t", "description": "d"}]},
    "/text/blocklists/kept:removeBlocklistItems": {"blocklistItemIds": ["a", "b"]},
}
METHODS = {"/text/categories/Other": "PUT", "/text/blocklists/other": "PATCH"}
versions = st.sampled_from([FIRST, SECOND])


@pytest.fixture
def asking(serve: Serve) -> Iterator[Asking]:
    """A server with a category and a blocklist, which are still there at the end."""
    with asyncio.Runner() as runner:
        stack = AsyncExitStack()
        server = runner.run(stack.enter_async_context(serve()))
        asking = Asking(runner, server)
        query = f"api-version={FIRST}".encode()
        try:
            for path, body in KEPT.items():
                method = "PUT" if "categories" in path else "PATCH"
                assert asking.ask(method, f"{BASE}{path}", query, json.dumps(body).encode(), []) == 201
            yield asking
            for path in KEPT:
                assert asking.ask("GET", f"{BASE}{path}", query, b"", []) == 200
        finally:
            runner.run(stack.aclose())


@FAST
@given(
    method=st.sampled_from(["GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", ""]),
    path=st.sampled_from([*BODIES, "/text/blocklists", "/text/categories", "/text/categories/Kept:build"])
    | st.text(max_size=20).map(lambda text: f"/text/categories/{text}")
    | st.text(max_size=20).map(lambda text: f"/text/blocklists/{text}")
    | st.text(st.characters(), max_size=20).map(lambda text: f"/text/blocklists/kept/blocklistItems/{text}")
    | st.text(st.characters(), max_size=20).map(lambda text: f"/text/categories/operations/{text}")
    | st.text(max_size=20).map(lambda text: f"/{text}"),
    query=st.binary(max_size=20)
    | st.dictionaries(st.sampled_from(["top", "skip", "maxpagesize", "version"]), st.text(max_size=12), max_size=3).map(
        lambda query: urlencode({"api-version": FIRST, **query}).encode()
    ),
    body=st.binary(max_size=50),
    more=headers,
)
def test_any_request_is_answered(  # noqa: PLR0917  hypothesis gives them by name
    asking: Asking, method: str, path: str, query: bytes, body: bytes, more: list[tuple[bytes, bytes]]
) -> None:
    if method == "DELETE" and path.endswith(("/Kept", "/kept")):
        return
    assert asking.ask(method, f"{BASE}{path}", query, body, more) < 500


@st.composite
def nearly_bodies(draw: st.DrawFn) -> tuple[str, Any]:
    """A path with its good body, of which something somewhere has been replaced or taken out."""
    path = draw(st.sampled_from(sorted(BODIES)))
    body: Any = json.loads(json.dumps(BODIES[path]))
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
    return path, body


@FAST
@given(given=nearly_bodies(), version=versions)
def test_any_json_is_accepted_or_refused(asking: Asking, given: tuple[str, Any], version: str) -> None:
    path, body = given
    content = json.dumps(body).encode()  # as lenient as JSON can be: NaN, halves of surrogate pairs
    status = asking.ask(METHODS.get(path, "POST"), f"{BASE}{path}", f"api-version={version}".encode(), content, [])
    assert status in {200, 201, 204, 400, 404}


@FAST
@given(path=st.sampled_from(sorted(BODIES)), body=json_values, version=versions)
def test_other_json_is_refused(asking: Asking, path: str, body: Any, version: str) -> None:
    content = json.dumps(body).encode()
    status = asking.ask(METHODS.get(path, "POST"), f"{BASE}{path}", f"api-version={version}".encode(), content, [])
    assert status in {200, 201, 400, 404}  # an empty object is a whole patch
