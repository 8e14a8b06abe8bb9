"""The vendor's page on the custom category API: every request printed there, in the order printed, over HTTP."""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx

from tests.server.conftest import KEY, process
from tests.server.content_safety import NOT_OF_IT, OF_IT, container

NAME, VERSION = "DrugAbuse", "api-version=2024-05-15-preview"
BLOB = "https://example.blob.core.windows.net/example-container/drugsample.jsonl"
HEADERS = {"Ocp-Apim-Subscription-Key": KEY, "Content-Type": "application/json"}
PENDING = {"BuildNotStarted", "Building"}
NEW = {
    "categoryName": NAME,
    "definition": "This category is related to Drug Abuse.",
    "sampleBlobUrl": BLOB,
    "blobDelimiter": "/",
}


def as_curl(method: str, url: str, body: dict[str, Any] | None = None) -> httpx.Response:
    """The page's first half: the body as it is printed, with its line breaks and indentation."""
    printed = None if body is None else json.dumps(body, indent=8)
    return httpx.request(method, url, headers={**HEADERS, "User-Agent": "curl/8.5.0"}, content=printed)


def as_python(method: str, url: str, body: dict[str, Any] | None = None) -> httpx.Response:
    """Its second half."""
    return httpx.request(method, url, headers=HEADERS, json=body)


def test_every_request_of_the_page_gets_what_the_page_says(tmp_path: Path) -> None:
    options = ["--container", container(tmp_path / "samples"), "--log-level", "warning"]
    with process(tmp_path / "data", *options) as (url, _):
        for send in (as_curl, as_python):
            follow_the_page(f"{url}/contentsafety", send)


def follow_the_page(url: str, send: Callable[..., httpx.Response]) -> None:
    def ask(method: str, path: str, body: dict[str, Any] | None = None) -> tuple[int, Any]:
        response = send(method, f"{url}{path}", body)
        return response.status_code, response.json() if response.content else None

    category = f"/text/categories/{NAME}"
    status, made = ask("PUT", f"{category}?{VERSION}", NEW)
    assert status in {200, 201}
    assert (made["categoryName"], made["version"], made["status"]) == (NAME, 1, "BuildNotStarted")

    assert ask("POST", f"{category}:build?{VERSION}&version=1") == (202, None)
    while (shown := ask("GET", f"{category}?{VERSION}&version=1")[1]["value"][0])["status"] in PENDING:
        time.sleep(0.05)
    assert shown["status"] == "BuildSucceeded"

    for text, detected in ((OF_IT, True), (NOT_OF_IT, False), ("Example text to analyze", False)):
        for asked in ({"categoryName": NAME, "version": 1}, {"categoryName": NAME}):
            body = {"text": text, "customizedCategories": [asked]}
            status, found = ask("POST", f"/text:analyze?{VERSION}", body)
            assert status == 200
            assert found["textCustomizedCategoriesAnalysis"] == [{"categoryName": NAME, "detected": detected}]

    assert ask("GET", f"{category}?{VERSION}") == (200, {"value": [shown]})
    assert ask("GET", f"{category}?{VERSION}&version=1") == (200, {"value": [shown]})
    assert ask("GET", f"/text/categories?{VERSION}") == (200, {"value": [shown]})
    assert ask("DELETE", f"{category}?{VERSION}&version=1")[0] == 202
    while (status := ask("GET", f"{category}?{VERSION}")[0]) == 200:
        time.sleep(0.01)
    assert status == 404
