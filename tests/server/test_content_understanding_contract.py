"""Content Understanding against documented exchanges: what is alike whatever the text, ids and times, has to be equal.

What a document is like is not the service's word here, so a request for parts is sent as a PDF of so many pages, as the
documentation's text stands for one, and parts are compared by their shapes.
"""

import json
import re
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.server.conftest import KEY, Serve, Server
from tests.server.documents import pdf
from tests.server.test_content_understanding import BASE

CONTRACT = Path(__file__).parents[1] / "contract" / "content_understanding"
FILES = sorted(str(file.relative_to(CONTRACT)) for file in CONTRACT.glob("*/*.json"))
RESULT = re.compile(r"(classifier|analyzer)Results/[^/?]+")
TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z")
PENDING = {"NotStarted", "Running"}
UNTOLD = {"processingLocation", "details", "innererror", "width", "height", "warnings"}
"""What one side may say and the other leave out."""
PARTS = ["Invoice 1, with an amount due", "Receipt of a sale", "Happy birthday, Anna", "Invoice 2, with an amount due"]


def exchanges(name: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((CONTRACT / name).read_text("utf-8"))["exchanges"]
    return found


def shape(value: Any, name: str = "") -> Any:
    """What a body is made of, with what may differ made the same: ids, times, messages, texts, numbers of pages."""
    if isinstance(value, dict):
        return {key: shape(part, key) for key, part in value.items() if key not in UNTOLD}
    if isinstance(value, list):
        return [shape(part) for part in value]
    if name in {"id", "message", "code", "category", "markdown", "description", "path", "segmentId"}:
        return type(value).__name__
    if isinstance(value, str):
        return TIME.sub("time", value)
    return type(value).__name__


def is_like(found: Any, documented: Any) -> bool:
    """Whether a body has the shape of another, in which lists may be longer or shorter, of the same kinds of things."""
    if isinstance(found, dict) and isinstance(documented, dict):
        return found.keys() == documented.keys() and all(is_like(found[key], documented[key]) for key in found)
    if isinstance(found, list) and isinstance(documented, list):
        return bool(found) == bool(documented) and all(
            any(is_like(one, other) for other in documented) for one in found
        )
    return bool(found == documented)


async def made(server: Server, name: str) -> None:
    """The classifier and the analyzer that the documents speak of."""
    described = exchanges("2025-05-01-preview/classify.json")[0]["response"]["body"]
    classifier = {key: described[key] for key in ("description", "tags", "splitMode", "categories")}
    described = exchanges("2025-11-01/analyze.json")[0]["response"]["body"]
    analyzer = {key: described[key] for key in ("description", "baseAnalyzerId", "config", "models")}
    analyzer["config"]["enableSegment"] = name.endswith("segments.json")
    for path, version, body in (
        ("classifiers/myClassifier", "2025-05-01-preview", classifier),
        ("analyzers/myc", "2025-11-01", analyzer),
    ):
        assert (await server.client.put(f"{BASE}/{path}?api-version={version}", json=body)).status_code == 201


async def asked(server: Server, request: dict[str, Any], location: str, content: str | bytes | None) -> httpx.Response:
    path = RESULT.sub(lambda _: RESULT.search(location)[0], request["path"]) if location else request["path"]  # type: ignore[index]
    headers = {name: value.replace("{key}", KEY) for name, value in request["headers"].items()}
    url = f"{path}?{request['query']}"
    return await server.client.request(request["method"], url, content=content, headers=headers)


def test_there_are_exchanges_to_be_held_to() -> None:
    assert {file.partition("/")[0] for file in FILES} == {"2025-05-01-preview", "2025-11-01"}
    assert len(FILES) >= 7


@pytest.mark.parametrize("name", FILES)
async def test_a_documented_exchange_happens_so_here(serve: Serve, name: str) -> None:
    faults = [{"on": "submit", "job": "failed"}] if name.endswith("failed.json") else []
    location, categories = "", []
    async with serve(faults=faults, works=False) as server, AsyncExitStack() as at_work:
        await made(server, name)
        for exchange in exchanges(name):
            request, expected = exchange["request"], exchange["response"]
            parted = name.endswith("split.json")
            content = pdf(PARTS) if parted and request["method"] == "POST" else request["body"]
            ends = isinstance(expected["body"], dict) and expected["body"].get("status") in {"Succeeded", "Failed"}
            if ends:
                await at_work.enter_async_context(server.jobs.working())
                await server.idle()
            response = await asked(server, request, location, content)
            assert response.status_code == expected["status"], response.text
            found: Any = response.json() if response.content else None
            if "Operation-Location" in expected["headers"]:
                location = response.headers["operation-location"]
                here = expected["headers"]["Operation-Location"].replace("{host}", "server:8080")
                assert RESULT.sub("", location) == RESULT.sub("", here)
                assert found["id"] in location
            if found and expected["body"].get("status") in PENDING:
                assert found["status"] in PENDING
                found["status"] = expected["body"]["status"]
            assert is_like(shape(found), shape(expected["body"])), (found, expected["body"])
            if ends and "result" in found:
                categories = [one.get("category") for one in found["result"]["contents"]]
    if name.endswith("split.json"):
        assert categories == ["invoice", "receipt", "$OTHER", "invoice"]
