"""Analyzers of 2025-11-01, below what the vendor's client shows (`test_sdk_contentunderstanding`)."""

import base64
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.server.conftest import Serve, Server
from tests.server.documents import pdf
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


@pytest.mark.parametrize(
    ("encoding", "smile", "accent"), [("codePoint", 1, 1), ("utf16", 2, 1), ("utf8", 4, 2)], ids=str
)
async def test_spans_count_in_the_encoding_asked_for(server: Server, encoding: str, smile: int, accent: int) -> None:
    await put(server, enableSegment=True)
    shown = await analyzed(server, f"{INVOICE} \U0001f642".encode(), stringEncoding=encoding)
    (segment,) = shown["result"]["contents"][0]["segments"]
    assert segment["span"] == {"offset": 0, "length": len(INVOICE) + 1 + smile}
    shown = await analyzed(server, pdf([f"{INVOICE} é", COMPLAINT]), stringEncoding=encoding)
    spans = [segment["span"] for segment in shown["result"]["contents"][0]["segments"]]
    length = len(INVOICE) + 1 + accent
    assert spans == [{"offset": 0, "length": length}, {"offset": length + 1, "length": len(COMPLAINT)}]
    assert shown["usage"] == {"documentPagesStandard": 2}


@pytest.mark.parametrize("split", [{}, {"enableSegment": True}, {"segmentPerPage": True}], ids=str)
async def test_a_text_is_one_page_whatever_form_feeds_it_has(server: Server, split: dict[str, Any]) -> None:
    await put(server, **split)
    text = f"{INVOICE}\f{COMPLAINT}"
    shown = await analyzed(server, text.encode())
    whole, *parts = shown["result"]["contents"]
    assert [(one["startPageNumber"], one["endPageNumber"]) for one in (whole, *parts)] == [(1, 1)] * (1 + len(parts))
    assert whole["markdown"] == text
    assert shown["usage"] == {"documentPagesStandard": 1}


async def test_the_whole_is_left_out_where_that_is_asked_for(server: Server) -> None:
    await put(server, segmentPerPage=True, omitContent=True)
    shown = await analyzed(server, pdf([INVOICE, COMPLAINT]))
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


@pytest.mark.parametrize(
    ("asked", "numbers"),
    [("1", [1]), ("2-3", [2, 3]), ("3-", [3, 4]), ("1,3-3,4-", [1, 3, 4]), ("4-1,2", [2]), ("2-9", [2, 3, 4])],
)
async def test_pages_are_those_that_are_asked_for(server: Server, asked: str, numbers: list[int]) -> None:
    await put(server, segmentPerPage=True)
    document = pdf([INVOICE, COMPLAINT] * 2)
    data = {"data": base64.b64encode(document).decode(), "range": asked}
    url = f"{BASE}/analyzers/mail:analyze"
    in_json = await server.client.post(url, params=VERSION, json={"inputs": [data]})
    for shown in (await analyzed(server, document, range=asked), await ended(server, in_json)):
        whole, *parts = shown["result"]["contents"]
        assert [part["startPageNumber"] for part in parts] == numbers
        assert (whole["startPageNumber"], whole["endPageNumber"]) == (numbers[0], numbers[-1])
        assert shown["usage"] == {"documentPagesStandard": len(numbers)}
        for part, segment in zip(parts, whole["segments"], strict=True):
            begin = segment["span"]["offset"]
            assert whole["markdown"][begin : begin + segment["span"]["length"]] == part["markdown"]
            assert part["category"] == segment["category"] == ("invoice", "complaint")[1 - part["startPageNumber"] % 2]


@pytest.mark.parametrize(
    ("text", "counted"),
    [
        ("x" * 3_000, 1),
        ("x" * 3_001, 2),
        ("\U0001f642" * 1_501, 2),
        ("x\f" * 20, 1),
        ("x" * 2_999 + "\f" + "x" * 2_999, 2),
    ],
)
async def test_a_text_counts_as_pages_of_three_thousand_units(server: Server, text: str, counted: int) -> None:
    await put(server, enableSegment=True)
    assert (await analyzed(server, text.encode()))["usage"] == {"documentPagesStandard": counted}


async def test_a_pdf_counts_as_the_pages_that_were_asked_for(server: Server) -> None:
    await put(server)
    document = pdf(["one", "two", "three"])
    assert (await analyzed(server, document))["usage"] == {"documentPagesStandard": 3}
    assert (await analyzed(server, document, range="2-"))["usage"] == {"documentPagesStandard": 2}


async def test_pages_that_are_apart_are_not_one_segment(server: Server) -> None:
    await put(server, enableSegment=True)
    shown = await analyzed(server, pdf([INVOICE] * 4), range="1-2,4")
    segments = shown["result"]["contents"][0]["segments"]
    assert [(one["startPageNumber"], one["endPageNumber"]) for one in segments] == [(1, 2), (4, 4)]


@pytest.mark.parametrize("asked", ["", "a", "1-2-3", ",", "-2", "1, 2", "1" * 7])
async def test_a_range_that_is_none_is_refused(server: Server, asked: str) -> None:
    await put(server)
    url = f"{BASE}/analyzers/mail:analyzeBinary"
    refused = await server.client.post(url, params={**VERSION, "range": asked}, content=b"x")
    assert (refused.status_code, refused.headers["x-ms-error-code"]) == (400, "InvalidRequest")


async def test_a_document_without_the_pages_asked_for_cannot_be_read(server: Server) -> None:
    await put(server)
    shown = await analyzed(server, INVOICE.encode(), range="2-")
    assert (shown["status"], shown["error"]["code"]) == ("Failed", "InvalidContent")


async def test_inline_a_document_is_answered_at_once_as_it_would_be_later(server: Server) -> None:
    await put(server, enableSegment=True)
    document = pdf([INVOICE, COMPLAINT])
    later = await analyzed(server, document, range="2")
    version, url = {"api-version": "2026-06-01-preview", "stringEncoding": "utf16"}, f"{BASE}/analyzers/mail"
    inputs = {"inputs": [{"data": base64.b64encode(document).decode(), "range": "2"}]}
    for answer in (
        await server.client.post(f"{url}:analyzeInline", params=version, json=inputs),
        await server.client.post(f"{url}:analyzeBinaryInline", params={**version, "range": "2"}, content=document),
    ):
        assert answer.status_code == 200, answer.text
        found = answer.json()
        assert (found["status"], found["usage"]) == ("Succeeded", {"documentPagesStandardInline": 1})
        assert found["result"]["contents"] == later["result"]["contents"]
        assert (found["result"]["apiVersion"], found["result"]["stringEncoding"]) == ("2026-06-01-preview", "utf16")
        assert found["result"].keys() == later["result"].keys()
    for status, code, refused in (
        (400, "InvalidContent", await server.client.post(f"{url}:analyzeBinaryInline", params=version, content=b"\0")),
        (400, "InvalidRequest", await server.client.post(f"{url}:analyzeBinaryInline", params=version)),
        (400, "InvalidRequest", await server.client.post(f"{url}:analyzeInline", params=version, json={"inputs": []})),
        (404, "NotFound", await server.client.post(f"{url}x:analyzeBinaryInline", params=version, content=b"x")),
        (400, "InvalidRequest", await server.client.post(f"{url}:analyzeBinaryInline", params=VERSION, content=b"x")),
    ):
        assert (refused.status_code, refused.headers.get("x-ms-error-code")) == (status, code), refused.text


@pytest.mark.parametrize(("path", "version"), [("classifiers", "2025-05-01-preview"), ("analyzers", "2025-11-01")])
async def test_documented_rates_are_kept_where_asked_for(serve: Serve, path: str, version: str) -> None:
    async with serve(documented_rates=True) as server:
        url = f"{BASE}/{path}?api-version={version}"
        answers = [(await server.client.get(url)).status_code for _ in range(3_001)]
    assert (set(answers[:-1]), answers[-1]) == ({200}, 429)
