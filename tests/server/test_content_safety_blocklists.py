import asyncio
from typing import Any

import pytest

from service.server.content_safety_blocklists import MOST_TERMS, Term, matches
from tests.server.conftest import Serve, Server
from tests.server.content_safety import call, refusal

GA = "2024-09-01"


async def ask(server: Server, method: str, path: str, body: Any = None, **query: Any) -> Any:
    return await call(server, method, f"/text/blocklists{path}", GA, body, **query)


async def listed(server: Server, name: str, *texts: str) -> list[dict[str, str]]:
    """A blocklist with items; gives them."""
    assert (await ask(server, "PATCH", f"/{name}", {"description": "d"})).status_code in {200, 201}
    response = await ask(server, "POST", f"/{name}:addOrUpdateBlocklistItems", items(*texts))
    assert response.status_code == 200, response.text
    found: list[dict[str, str]] = response.json()["blocklistItems"]
    return found


def items(*texts: str, **more: Any) -> dict[str, Any]:
    return {"blocklistItems": [{"text": text, **more} for text in texts]}


@pytest.mark.parametrize(
    ("term", "content", "found"),
    [
        ("scalper", "You SCALPER!", True),
        ("scalper", "scalpers everywhere", False),
        ("ass", "a class act", False),
        ("rotten  scalper", "so rotten\n scalper.", True),
        ("k*ll", "I will k*ll it", True),
        ("*", "a*b", True),
        ("straße", "in der STRASSE", True),
        ("spam", "ｓｐａｍ here", True),
        ("刀", "买一把小刀吧", True),
        ("class", "glass class", True),
        ("a", "aa aaa", False),
        ("a", "aa a", True),
    ],
)
def test_a_term_matches_where_a_text_holds_it_whole(term: str, content: str, found: bool) -> None:
    expected = [{"blocklistName": "words", "blocklistItemId": "1", "blocklistItemText": term}]
    assert matches(content, [Term("words", "1", term)]) == (expected if found else [])


async def test_a_list_is_made_described_and_removed(server: Server) -> None:
    response = await ask(server, "PATCH", "/words", {"blocklistName": "words", "description": "first"})
    assert (response.status_code, response.json()) == (201, {"blocklistName": "words", "description": "first"})
    response = await ask(server, "PATCH", "/words", {})
    assert (response.status_code, response.json()["description"]) == (200, "first")
    response = await ask(server, "PATCH", "/words", {"description": None})
    assert response.json() == (await ask(server, "GET", "/words")).json() == {"blocklistName": "words"}
    await listed(server, "words", "scalper")
    response = await ask(server, "DELETE", "/words")
    assert (response.status_code, response.content) == (204, b"")
    assert refusal(await ask(server, "GET", "/words")) == (404, "ResourceNotFound")
    await ask(server, "PATCH", "/words", {})
    assert (await ask(server, "GET", "/words/blocklistItems")).json() == {"value": []}


async def test_the_same_text_is_the_same_item(server: Server) -> None:
    (item,) = await listed(server, "words", "scalper")
    response = await ask(
        server, "POST", "/words:addOrUpdateBlocklistItems", items("tout", "scalper", description="new")
    )
    tout, again = response.json()["blocklistItems"]
    assert again == {**item, "description": "new"}
    assert tout["blocklistItemId"] != item["blocklistItemId"]
    assert (await ask(server, "GET", f"/words/blocklistItems/{item['blocklistItemId']}")).json() == again
    assert (await ask(server, "GET", "/words/blocklistItems")).json() == {"value": [again, tout]}


async def test_items_are_removed_all_of_a_call_or_none(server: Server) -> None:
    one, other = await listed(server, "words", "scalper", "tout")
    ids = [one["blocklistItemId"], "unknown"]
    response = await ask(server, "POST", "/words:removeBlocklistItems", {"blocklistItemIds": ids})
    assert refusal(response) == (404, "ResourceNotFound")
    assert len((await ask(server, "GET", "/words/blocklistItems")).json()["value"]) == 2
    response = await ask(server, "POST", "/words:removeBlocklistItems", {"blocklistItemIds": ids[:1] * 2})
    assert (response.status_code, response.content) == (204, b"")
    assert (await ask(server, "GET", "/words/blocklistItems")).json() == {"value": [other]}
    response = await ask(server, "GET", f"/words/blocklistItems/{one['blocklistItemId']}")
    assert refusal(response) == (404, "ResourceNotFound")


async def test_a_list_is_told_in_pages(server: Server) -> None:
    made = [f"w{n}" for n in range(250)]
    for at in (0, 100, 200):
        await listed(server, "words", *made[at : at + 100])
    pages = [(await ask(server, "GET", "/words/blocklistItems")).json()]
    while "nextLink" in pages[-1]:
        link = pages[-1]["nextLink"]
        assert link.startswith("http://server:8080/contentsafety/text/blocklists/words/blocklistItems?")
        pages.append((await server.client.get(link)).json())
    assert [item["text"] for page in pages for item in page["value"]] == made
    assert len(pages) == 3
    body = (await ask(server, "GET", "/words/blocklistItems", top=3, skip=2, maxpagesize=2)).json()
    assert [item["text"] for item in body["value"]] == ["w2", "w3"]
    (last,) = (await server.client.get(body["nextLink"])).json()["value"]
    assert last["text"] == "w4"
    assert (await ask(server, "GET", "", top=0)).json() == {"value": []}


async def test_lists_survive_a_restart(serve: Serve) -> None:
    async with serve() as server:
        (item,) = await listed(server, "words", "scalper")
    async with serve() as server:
        assert (await ask(server, "GET", "")).json() == {"value": [{"blocklistName": "words", "description": "d"}]}
        assert (await ask(server, "GET", "/words/blocklistItems")).json() == {"value": [item]}


@pytest.mark.parametrize(
    ("method", "path", "body", "expected"),
    [
        ("PATCH", "/no%20spaces", {}, (400, "InvalidResourceName")),
        ("PATCH", f"/{'n' * 65}", {}, (400, "InvalidResourceName")),
        ("GET", "/sl@sh", None, (400, "InvalidResourceName")),
        ("PATCH", "/words", {"description": "d" * 1025}, (400, "InvalidRequestBody")),
        ("PATCH", "/words", {"description": 7}, (400, "InvalidRequestBody")),
        ("PATCH", "/words", {"blocklistName": "others"}, (400, "InvalidRequestBody")),
        ("PATCH", "/words", [], (400, "InvalidRequestBody")),
        ("DELETE", "/unknown", None, (404, "ResourceNotFound")),
        ("GET", "/unknown/blocklistItems", None, (404, "ResourceNotFound")),
        ("POST", "/unknown:addOrUpdateBlocklistItems", items("x"), (404, "ResourceNotFound")),
        ("POST", "/unknown:removeBlocklistItems", {"blocklistItemIds": ["x"]}, (404, "ResourceNotFound")),
        ("POST", "/words:addOrUpdateBlocklistItems", items(), (400, "InvalidRequestBody")),
        ("POST", "/words:addOrUpdateBlocklistItems", items(*map(str, range(101))), (400, "InvalidRequestBody")),
        ("POST", "/words:addOrUpdateBlocklistItems", items("x" * 129), (400, "InvalidRequestBody")),
        ("POST", "/words:addOrUpdateBlocklistItems", items(""), (400, "InvalidRequestBody")),
        ("POST", "/words:addOrUpdateBlocklistItems", items(" \u3000"), (400, "InvalidRequestBody")),
        ("POST", "/words:addOrUpdateBlocklistItems", items("(a+)+$", isRegex=True), (400, "InvalidRequestBody")),
        ("POST", "/words:addOrUpdateBlocklistItems", {"blocklistItems": ["x"]}, (400, "InvalidRequestBody")),
        ("POST", "/words:removeBlocklistItems", {"blocklistItemIds": []}, (400, "InvalidRequestBody")),
        ("POST", "/words:removeBlocklistItems", {"blocklistItemIds": [1]}, (400, "InvalidRequestBody")),
        ("GET", "?skip=-1", None, (400, "InvalidRequestBody")),
        ("GET", "?maxpagesize=0", None, (400, "InvalidRequestBody")),
        ("PUT", "/words", {}, (405, "405")),
    ],
)
async def test_what_cannot_be_is_refused(
    server: Server, method: str, path: str, body: Any, expected: tuple[int, str]
) -> None:
    await listed(server, "words", "scalper")
    path, _, query = path.partition("?")
    parameters = dict([query.split("=")]) if query else {}
    assert refusal(await ask(server, method, path, body, **parameters)) == expected
    assert len((await ask(server, "GET", "/words/blocklistItems")).json()["value"]) == 1


async def test_all_lists_together_hold_so_many_terms_and_no_more(server: Server) -> None:
    await listed(server, "words", "scalper")
    for name in ("many", "more"):
        await ask(server, "PATCH", f"/{name}", {})
        for at in range(0, MOST_TERMS // 2, 100):
            texts = [f"{name}{n}" for n in range(at, at + 100)]
            if len(texts) + at + 5_000 * (name == "more") == MOST_TERMS:
                texts = texts[1:]
            response = await ask(server, "POST", f"/{name}:addOrUpdateBlocklistItems", items(*texts))
            assert response.status_code == 200, response.text
    response = await ask(server, "POST", "/words:addOrUpdateBlocklistItems", items("one too many"))
    assert refusal(response) == (400, "InvalidRequestBody")
    assert (await ask(server, "POST", "/words:addOrUpdateBlocklistItems", items("scalper"))).status_code == 200
    body = {"text": "more4998 and many0", "blocklistNames": ["more", "many"]}
    found = (await call(server, "POST", "/text:analyze", GA, body)).json()["blocklistsMatch"]
    assert [one["blocklistItemText"] for one in found] == ["more4998", "many0"]


async def test_items_added_at_once_are_all_kept(server: Server) -> None:
    await listed(server, "words", "scalper")
    await asyncio.gather(
        *(ask(server, "POST", "/words:addOrUpdateBlocklistItems", items("same", f"w{n}")) for n in range(20))
    )
    texts = [item["text"] for item in (await ask(server, "GET", "/words/blocklistItems")).json()["value"]]
    assert sorted(texts) == sorted(["scalper", "same", *(f"w{n}" for n in range(20))])
