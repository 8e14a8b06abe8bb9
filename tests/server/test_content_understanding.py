"""Classifiers of 2025-05-01-preview; the requests in SEED are those that the vendor's page prints, in its order."""

import asyncio
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.server.conftest import KEY, Serve, Server
from tests.server.documents import pdf, word

VERSION = {"api-version": "2025-05-01-preview"}
BASE = "/contentunderstanding"
SEED = {
    "description": "My classifier",
    "tags": {"createdBy": "John"},
    "splitMode": "auto",
    "categories": {"receipt": {"description": "Sales receipts"}, "invoice": {"analyzerId": "myInvoice"}},
}
MAIL = {
    "categories": {
        "invoice": {"description": "A bill that asks for payment of goods or services, with an amount due"},
        "complaint": {"description": "An unhappy customer complains about broken or late goods"},
    }
}
INVOICE, COMPLAINT = "Invoice 17: the amount due for services is 20 EUR", "I complain: the goods came late and broken"


async def put(server: Server, name: str = "mail", **changes: Any) -> httpx.Response:
    return await server.client.put(f"{BASE}/classifiers/{name}", params=VERSION, json={**MAIL, **changes})


async def classified(server: Server, content: bytes, name: str = "mail", **query: str) -> dict[str, Any]:
    response = await server.client.post(
        f"{BASE}/classifiers/{name}:classify",
        params={**VERSION, **query},
        content=content,
        headers={"Content-Type": "application/octet-stream"},
    )
    assert response.status_code == 202, response.text
    return await ended(server, response)


async def ended(server: Server, response: httpx.Response) -> dict[str, Any]:
    while True:
        shown = await server.client.get(response.headers["operation-location"])
        if shown.json()["status"] not in {"NotStarted", "Running"}:
            found: dict[str, Any] = shown.json()
            return found
        await asyncio.sleep(0.002)


def ranges(shown: dict[str, Any]) -> list[tuple[int, int, str]]:
    return [(one["startPageNumber"], one["endPageNumber"], one["category"]) for one in shown["result"]["contents"]]


async def test_the_request_of_the_vendors_page_gets_the_answer_of_the_page(server: Server) -> None:
    headers = {"x-ms-client-request-id": "4b3f"}
    response = await server.client.put(f"{BASE}/classifiers/myClassifier", params=VERSION, json=SEED, headers=headers)
    assert response.status_code == 201
    assert response.headers["x-ms-client-request-id"] == "4b3f"
    made = response.json()
    assert {key: made[key] for key in SEED} == SEED
    assert (made["classifierId"], made["status"], made["processingLocation"]) == (
        "myClassifier",
        "creating",
        "geography",
    )
    where = response.headers["operation-location"]
    assert where.startswith(f"http://server:8080{BASE}/classifiers/myClassifier/operations/")
    assert where.endswith("?api-version=2025-05-01-preview")
    operation = (await server.client.get(where)).json()
    assert (operation["status"], operation["result"]["status"]) == ("Succeeded", "ready")
    again = await server.client.put(f"{BASE}/classifiers/myClassifier", params=VERSION, json=SEED)
    assert (again.status_code, again.json()["createdAt"]) == (200, made["createdAt"])
    assert (await server.client.get(where)).status_code == 404


async def test_a_document_is_what_it_is_most_like_or_other(server: Server) -> None:
    await put(server)
    for content, category in ((INVOICE, "invoice"), (COMPLAINT, "complaint"), ("Happy birthday, Anna", "$OTHER")):
        shown = await classified(server, content.encode())
        assert shown["status"] == "Succeeded"
        assert shown["result"]["contents"] == [
            {"kind": "document", "startPageNumber": 1, "endPageNumber": 1, "category": category}
        ]
        assert (shown["result"]["classifierId"], shown["result"]["apiVersion"]) == ("mail", "2025-05-01-preview")


@pytest.mark.parametrize(
    ("mode", "found"),
    [
        ("noSplit", [(1, 4, "invoice")]),
        ("perPage", [(1, 1, "invoice"), (2, 2, "invoice"), (3, 3, "complaint"), (4, 4, "$OTHER")]),
        ("auto", [(1, 2, "invoice"), (3, 3, "complaint"), (4, 4, "$OTHER")]),
    ],
)
async def test_a_document_is_split_as_the_classifier_says(
    server: Server, mode: str, found: list[tuple[int, int, str]]
) -> None:
    await put(server, splitMode=mode)
    pages = [INVOICE, INVOICE, COMPLAINT, "Happy birthday, Anna"]
    assert ranges(await classified(server, pdf(pages))) == found
    assert ranges(await classified(server, "\f".join(pages).encode())) == [(1, 1, "invoice")]  # text is one page


async def test_a_word_document_and_a_blob_of_a_known_container_are_read(serve: Serve, tmp_path: Path) -> None:
    folder = tmp_path / "mail"
    folder.mkdir()
    (folder / "one.docx").write_bytes(word([INVOICE]))
    async with serve(containers=[f"mail={folder}"]) as server:
        await put(server)
        assert ranges(await classified(server, word([COMPLAINT]))) == [(1, 1, "complaint")]
        url = f"{BASE}/classifiers/mail:analyze"
        source = "https://account.blob.core.windows.net/mail/one.docx"
        response = await server.client.post(url, params=VERSION, json={"url": source})
        assert ranges(await ended(server, response)) == [(1, 1, "invoice")]
        gone = await server.client.post(url, params=VERSION, json={"url": f"{source}x"})
        assert (await ended(server, gone))["error"]["code"] == "InvalidContent"
        foreign = await server.client.post(url, params=VERSION, json={"url": "http://169.254.169.254/latest"})
        assert (foreign.status_code, foreign.headers["x-ms-error-code"]) == (400, "InvalidRequest")
        garbled = await server.client.post(url, params=VERSION, json={"url": "http://["})
        assert garbled.status_code == 400
        large = await server.client.post(url, params=VERSION, json={"url": "x" * 2**20})
        assert large.status_code == 413


async def test_a_category_that_names_an_analyzer_shows_its_text(server: Server) -> None:
    await put(server, categories={"invoice": {**MAIL["categories"]["invoice"], "analyzerId": "a"}, "other": {}})
    (content,) = (await classified(server, INVOICE.encode()))["result"]["contents"]
    assert (content["markdown"], content["fields"]) == (INVOICE, {})


async def test_a_file_that_cannot_be_read_fails_and_says_why(server: Server) -> None:
    await put(server)
    shown = await classified(server, b"%PDF-1.4 damaged")
    assert shown["status"] == "Failed"
    assert shown["error"]["code"] == "InvalidContent"


async def test_classifiers_are_shown_changed_and_deleted(server: Server) -> None:
    await put(server, "a", description="one", tags={"x": "1", "y": "2"})
    await put(server, "b")
    listed = (await server.client.get(f"{BASE}/classifiers", params=VERSION)).json()["value"]
    assert [one["classifierId"] for one in listed] == ["a", "b"]
    patch = {"description": "two", "tags": {"x": None, "z": "3"}, "splitMode": "auto"}
    headers = {"Content-Type": "application/merge-patch+json"}
    changed = await server.client.patch(f"{BASE}/classifiers/a", params=VERSION, json=patch, headers=headers)
    assert changed.status_code == 200
    shown = (await server.client.get(f"{BASE}/classifiers/a", params=VERSION)).json()
    assert (shown["description"], shown["tags"], shown["splitMode"]) == ("two", {"y": "2", "z": "3"}, "noSplit")
    assert (await server.client.delete(f"{BASE}/classifiers/a", params=VERSION)).status_code == 204
    gone = await server.client.get(f"{BASE}/classifiers/a", params=VERSION)
    assert (gone.status_code, gone.json()["error"]["code"], gone.headers["x-ms-error-code"]) == (404,) + (
        "NotFound",
    ) * 2


async def test_a_long_list_comes_in_pages(server: Server) -> None:
    names = [f"c{number:03}" for number in range(205)]
    for name in reversed(names):
        await put(server, name)
    found, sizes, where = [], [], f"http://server:8080{BASE}/classifiers?api-version=2025-05-01-preview"
    while where:
        page = (await server.client.get(where)).json()
        found += [one["classifierId"] for one in page["value"]]
        sizes.append(len(page["value"]))
        await server.client.delete(f"{BASE}/classifiers/{found[0]}", params=VERSION)  # shifts nothing
        where = page.get("nextLink")
    assert (found, sizes) == (names, [100, 100, 5])


async def test_classifiers_and_results_survive_a_restart(serve: Serve) -> None:
    async with serve() as server:
        await put(server)
        url = f"{BASE}/classifiers/mail:classify"
        response = await server.client.post(url, params=VERSION, content=INVOICE.encode())
        before = await ended(server, response)
    async with serve() as server:
        assert await ended(server, response) == before
        assert ranges(await classified(server, INVOICE.encode())) == [(1, 1, "invoice")]


WRONG: list[dict[str, Any]] = [
    {"categories": None},
    {"categories": []},
    {"categories": {}},
    {"categories": {str(n): {} for n in range(51)}},
    {"categories": {"$mine": {}}},
    {"categories": {"": {}}},
    {"categories": {"a": "b"}},
    {"categories": {"a": {"description": "x" * 120}}},
    {"categories": {"a": {"description": 1}}},
    {"categories": {"a": {"examples": "x"}}},
    {"splitMode": "none"},
    {"processingLocation": "moon"},
    {"description": "x" * 1025},
    {"tags": {str(n): "x" for n in range(11)}},
    {"tags": {"a": 1}},
]


@pytest.mark.parametrize("changes", WRONG, ids=str)
async def test_a_classifier_that_makes_no_sense_is_refused(server: Server, changes: dict[str, Any]) -> None:
    response = await put(server, **changes)
    assert (response.status_code, response.headers["x-ms-error-code"]) == (400, "InvalidRequest")
    assert (await server.client.get(f"{BASE}/classifiers", params=VERSION)).json() == {"value": []}


async def test_requests_that_make_no_sense_are_refused(server: Server) -> None:
    await put(server)
    client, classify = server.client, f"{BASE}/classifiers/mail:classify"
    for status, response in (
        (400, await client.put(f"{BASE}/classifiers/{'x' * 65}", params=VERSION, json=MAIL)),
        (400, await client.put(f"{BASE}/classifiers/a", params=VERSION, content=b"{")),
        (400, await client.put(f"{BASE}/classifiers/a", params={"api-version": "2024-01-01"}, json=MAIL)),
        (400, await client.post(classify, params=VERSION)),
        (400, await client.post(classify, params={**VERSION, "stringEncoding": "ebcdic"}, content=b"x")),
        (400, await client.post(classify, params=VERSION, json={"text": "x"})),
        (404, await client.post(f"{BASE}/classifiers/nobody:classify", params=VERSION, content=b"x")),
        (404, await client.get(f"{BASE}/classifierResults/nobody", params=VERSION)),
        (405, await client.post(f"{BASE}/classifiers/mail", params=VERSION)),
        (401, await client.get(f"{BASE}/classifiers", params=VERSION, headers={"Ocp-Apim-Subscription-Key": "no"})),
    ):
        assert response.status_code == status, (response.request.url, response.text)
        assert response.json()["error"]["code"]
    bearer = {"Authorization": f"Bearer {KEY}"}
    del client.headers["Ocp-Apim-Subscription-Key"]
    assert (await client.get(f"{BASE}/classifiers", params=VERSION, headers=bearer)).status_code == 200


async def test_faults_strike_here_too(serve: Serve) -> None:
    rules = [
        {"api": "content_understanding", "on": "submit", "job": "failed", "times": 1},
        {"api": "content_understanding", "on": "submit", "job": "lost", "times": 1},
        {"api": "azure_language", "status": 503},
    ]
    async with serve(faults=rules) as server:
        await put(server)
        assert (await classified(server, INVOICE.encode()))["status"] == "Failed"
        lost = await server.client.post(f"{BASE}/classifiers/mail:classify", params=VERSION, content=b"x")
        assert (await server.client.get(lost.headers["operation-location"])).status_code == 404
        assert (await classified(server, INVOICE.encode()))["status"] == "Succeeded"
