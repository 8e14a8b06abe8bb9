"""Analyzers of 2025-11-01, below what the vendor's client shows (`test_sdk_contentunderstanding`)."""

import base64
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.server.conftest import Serve, Server
from tests.server.test_content_understanding import BASE, COMPLAINT, INVOICE, MAIL, ended

VERSION = {"api-version": "2025-11-01"}
WRONG: list[list[Any]] = [
    [],
    ["x"],
    [{}],
    [{"data": "%"}],
    [{"data": ""}],
    [{"data": 1}],
    [{"url": "http://["}],
    [{"url": "http://169.254.169.254/"}],
    [{"data": "eA==", "url": "x"}],
    [{"data": "eA=="}] * 2,
]


async def put(server: Server, name: str = "mail", **config: Any) -> httpx.Response:
    body = {"config": {"contentCategories": MAIL["categories"], **config}}
    return await server.client.put(f"{BASE}/analyzers/{name}", params=VERSION, json=body)


async def analyzed(server: Server, content: bytes, **query: str) -> dict[str, Any]:
    url = f"{BASE}/analyzers/mail:analyzeBinary"
    response = await server.client.post(url, params={**VERSION, **query}, content=content)
    assert response.status_code == 202, response.text
    return await ended(server, response)


@pytest.mark.parametrize(("encoding", "width"), [("codePoint", 1), ("utf16", 2), ("utf8", 4)])
async def test_spans_count_in_the_encoding_asked_for(server: Server, encoding: str, width: int) -> None:
    await put(server, enableSegment=True)
    first = f"{INVOICE} \U0001f642"
    shown = await analyzed(server, f"{first}\f{COMPLAINT}".encode(), stringEncoding=encoding)
    spans = [segment["span"] for segment in shown["result"]["contents"][0]["segments"]]
    length = len(INVOICE) + 1 + width
    assert spans == [{"offset": 0, "length": length}, {"offset": length + 1, "length": len(COMPLAINT)}]
    assert shown["usage"] == {"documentPagesStandard": 2}


async def test_the_whole_is_left_out_where_that_is_asked_for(server: Server) -> None:
    await put(server, segmentPerPage=True, omitContent=True)
    shown = await analyzed(server, f"{INVOICE}\f{COMPLAINT}".encode())
    found = [(one["path"], one["category"], one["startPageNumber"]) for one in shown["result"]["contents"]]
    assert found == [("input1/segment1", "invoice", 1), ("input1/segment2", "complaint", 2)]


async def test_a_deleted_result_is_gone(serve: Serve) -> None:
    async with serve() as server:
        await put(server)
        url = f"{BASE}/analyzers/mail:analyzeBinary"
        response = await server.client.post(url, params=VERSION, content=INVOICE.encode())
        await ended(server, response)
        where = response.headers["operation-location"]
        assert (await server.client.delete(where)).status_code == 204
        assert (await server.client.get(where)).status_code == 404
        assert (await server.client.delete(where)).status_code == 404
    async with serve() as server:
        assert (await server.client.get(where)).status_code == 404


async def test_a_result_deleted_before_it_is_there_never_comes(serve: Serve) -> None:
    async with serve(works=False) as server:
        await put(server)
        url = f"{BASE}/analyzers/mail:analyzeBinary"
        response = await server.client.post(url, params=VERSION, content=INVOICE.encode())
        await server.client.delete(response.headers["operation-location"])
        assert server.jobs.statistics().waiting_bytes == 0
    async with serve() as server:
        await server.idle()
        assert (await server.client.get(response.headers["operation-location"])).status_code == 404


async def test_documents_in_json_are_read_or_refused(serve: Serve, tmp_path: Path) -> None:
    folder = tmp_path / "mail"
    folder.mkdir()
    (folder / "one.txt").write_text(INVOICE)
    url, data = f"{BASE}/analyzers/mail:analyze", base64.b64encode(COMPLAINT.encode()).decode()
    async with serve(containers=[f"mail={folder}"]) as server:
        await put(server)
        for given, category in (
            ({"url": "https://account.blob.core.windows.net/mail/one.txt"}, "invoice"),
            ({"data": data}, "complaint"),
        ):
            response = await server.client.post(url, params=VERSION, json={"inputs": [given]})
            (content,) = (await ended(server, response))["result"]["contents"]
            assert content["category"] == category
        for wrong in WRONG:
            refused = await server.client.post(url, params=VERSION, json={"inputs": wrong})
            assert (refused.status_code, refused.headers["x-ms-error-code"]) == (400, "InvalidRequest"), wrong


async def test_an_analyzer_is_replaced_only_where_that_is_allowed(server: Server) -> None:
    assert (await put(server)).status_code == 201
    taken = await put(server, enableSegment=True)
    assert (taken.status_code, taken.headers["x-ms-error-code"]) == (409, "Conflict")
    query = {**VERSION, "allowReplace": "True"}
    assert (await server.client.put(f"{BASE}/analyzers/mail", params=query, json={})).status_code == 200
