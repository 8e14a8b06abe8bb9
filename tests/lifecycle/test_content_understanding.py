"""The whole life of a classifier and of an analyzer, on a server of ours over HTTP, and what may come between."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest

from service import settings
from service.errors import Misconfigured, Unavailable
from service.lifecycle.content_understanding import Described, categories_in
from service.transport.http import PacedClient
from tests.lifecycle.documents import classes
from tests.providers.conftest import Received, Replay, Reply
from tests.server.conftest import KEY, process

CATEGORIES = {
    "invoice": {"description": "An invoice or bill that asks for a payment that is due"},
    "recipe": {"description": "A recipe for a meal with its ingredients and how to cook it"},
}
KINDS = {"classifier": {"classifier": "papers"}, "analyzer": {"analyzer": "papers", "api_version": "2025-11-01"}}
SOON = {"retry-after-ms": "10"}
HTML = Reply(502, b"<html>Bad Gateway</html>", {"Content-Type": "text/html"})


def branch(url: str, kind: str = "classifier", **more: Any) -> settings.ContentUnderstanding:
    given = {"provider": "content_understanding", "endpoint": url, "key": KEY, **KINDS[kind], **more}
    return settings.ContentUnderstanding.model_validate(given)


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with process(tmp_path_factory.mktemp("data")) as (url, _):
        yield url


@pytest.mark.parametrize("kind", KINDS)
async def test_it_is_described_asked_replaced_and_deleted(kind: str, url: str, http: PacedClient) -> None:
    said: list[str] = []
    described = Described(branch(url, kind), http, said.append)
    made = await described.deploy(CATEGORIES)
    assert (made.name, made.status, made.categories) == ("papers", "ready", ("invoice", "recipe"))
    assert said == [f"{kind} papers: Succeeded", f"{kind} papers: ready"]
    texts = ["The invoice asks for a payment that is due in May", "Cook the ingredients of this recipe", "Hello"]
    assert await classes(branch(url, kind), texts) == ["invoice", "recipe", "$OTHER"]
    replaced = {**CATEGORIES, "greeting": {"description": "Hello, good morning, good evening"}}
    assert (await described.deploy(replaced)).categories == ("invoice", "recipe", "greeting")
    assert await classes(branch(url, kind), texts[2:]) == ["greeting"]
    assert [each.name for each in await described.listed()] == ["papers"]
    await described.delete()
    assert await described.listed() == []
    with pytest.raises(Misconfigured, match=f"nothing to delete: {kind} papers is not there"):
        await described.delete()


async def test_what_the_server_refuses_says_what_may_be(url: str, http: PacedClient) -> None:
    many = {f"category {number}": {"description": "One of many"} for number in range(51)}
    with pytest.raises(Misconfigured, match=r"400 InvalidRequest: .*up to 50 categories"):
        await Described(branch(url), http, str).deploy(many)
    with pytest.raises(Misconfigured, match=r"401.*check key") as failed:
        await Described(branch(url, key="another"), http, str).deploy(CATEGORIES)
    assert "another" not in str(failed.value)


# What may come between -----------------------------------------------------------------------------


def made(status: str) -> Reply:
    return Reply(200, {"classifierId": "papers", "status": status, "categories": CATEGORIES})


def accepted(status: int = 201) -> Reply:
    where = "http://{host}/contentunderstanding/classifiers/papers/operations/o1?api-version=2025-05-01-preview"
    return Reply(status, made("creating").body, {"Operation-Location": where})


async def test_what_passes_is_waited_out(replay: Replay, http: PacedClient) -> None:
    throttled = Reply(429, {"error": {"code": "429", "message": "Slow down."}}, SOON)
    running, done = Reply(200, {"status": "Running"}), Reply(200, {"status": "Succeeded"})
    replay.answer(throttled, HTML, accepted(), running, throttled, HTML, done, made("creating"), made("ready"))
    said: list[str] = []
    await Described(branch(replay.url), http, said.append).deploy(CATEGORIES)
    assert [each.method for each in replay.requests] == ["PUT"] * 3 + ["GET"] * 6
    assert [line for line in said if line.startswith("classifier")] == [
        "classifier papers: Running",
        "classifier papers: Succeeded",
        "classifier papers: creating",
        "classifier papers: ready",
    ]
    assert sum("asking again" in line for line in said) == 4
    assert not any(KEY in line for line in said)


async def test_documents_are_split_where_they_may_have_several_classes(replay: Replay, http: PacedClient) -> None:
    replay.otherwise = lambda _: made("ready")
    await Described(branch(replay.url, task="multi_label"), http, str).deploy(CATEGORIES)
    await Described(branch(replay.url), http, str).deploy(CATEGORIES)
    bodies = [each.json for each in replay.requests if each.method == "PUT"]
    assert bodies == [{"splitMode": mode, "categories": CATEGORIES} for mode in ("auto", "noSplit")]
    replay.requests.clear()
    replay.otherwise = lambda _: Reply(200, {"analyzerId": "papers", "status": "ready"})
    await Described(branch(replay.url, "analyzer", task="multi_label"), http, str).deploy(CATEGORIES)
    assert replay.requests[0].query == "api-version=2025-11-01&allowReplace=true"
    config = {"enableSegment": True, "contentCategories": CATEGORIES}
    assert replay.requests[0].json == {"baseAnalyzerId": "prebuilt-document", "config": config}


async def test_waiting_that_is_broken_off_goes_on_with_the_next_command(replay: Replay, http: PacedClient) -> None:
    waiting = asyncio.Event()
    state = {"status": "Running"}

    def answer(received: Received) -> Reply:
        if received.method == "PUT":
            return accepted(200)
        if "/operations/" in received.path:
            return Reply(200, state)
        return made("ready")

    def say(line: str) -> None:
        if line.endswith("Running"):
            waiting.set()

    replay.otherwise = answer
    described = Described(branch(replay.url), http, say)
    deploying = asyncio.create_task(described.deploy(CATEGORIES))
    await waiting.wait()
    deploying.cancel()
    with pytest.raises(asyncio.CancelledError):
        await deploying
    state["status"] = "Succeeded"
    assert (await described.deploy(CATEGORIES)).status == "ready"  # the same again, in place of what there is


FAILURES = {
    "operation": (
        [accepted(), Reply(200, {"status": "Failed", "error": {"code": "InvalidCategories", "message": "x"}})],
        "could not be made .InvalidCategories.: check its categories",
    ),
    "made": ([Reply(201, made("creating").body), made("failed")], "could not be made .failed."),
    "taken": ([Reply(409, {"error": {"code": "Conflict", "message": "x"}})], "delete it first"),
    "html": ([Reply(404, b"<html></html>", {"Content-Type": "text/html"})], "404.*check classifier and endpoint"),
    "deleted": (
        [Reply(201, made("creating").body), Reply(404, {"error": {"code": "NotFound", "message": "x"}})],
        "deleted while it was being made",
    ),
}


@pytest.mark.parametrize("failure", FAILURES)
async def test_what_fails_says_what_to_do(failure: str, replay: Replay, http: PacedClient) -> None:
    replies, told = FAILURES[failure]
    replay.answer(*replies)
    with pytest.raises(Misconfigured, match=told):
        await Described(branch(replay.url), http, str).deploy(CATEGORIES)


async def test_an_operation_that_is_forgotten_is_done_without(replay: Replay, http: PacedClient) -> None:
    replay.answer(accepted(), Reply(404, {"error": {"code": "NotFound", "message": "x"}}), made("ready"))
    assert (await Described(branch(replay.url), http, str).deploy(CATEGORIES)).status == "ready"


async def test_a_deletion_whose_answer_is_lost_is_one(replay: Replay, http: PacedClient) -> None:
    missing = Reply(404, {"error": {"code": "NotFound", "message": "x"}})
    replay.answer(made("ready"), Reply(503, None, SOON), missing, missing)
    await Described(branch(replay.url), http, str).delete()


async def test_lists_come_page_by_page(replay: Replay, http: PacedClient) -> None:
    following = {"nextLink": "http://{host}/contentunderstanding/classifiers?after=papers"}
    replay.answer(Reply(200, {"value": [made("ready").body], **following}), Reply(200, {"value": [made("ready").body]}))
    assert len(await Described(branch(replay.url), http, str).listed()) == 2
    replay.otherwise = lambda _: Reply(200, {"value": [], **following})
    with pytest.raises(Unavailable, match="pages without an end"):
        await Described(branch(replay.url), http, str).listed()


# Files of categories -------------------------------------------------------------------------------


def test_categories_come_as_yaml_or_json(tmp_path: Path) -> None:
    file = tmp_path / "categories.yaml"
    file.write_text("invoice: Bills\nrecipe: {description: Meals, analyzerId: meals}\nletter:\n", encoding="utf-8")
    read = {"invoice": {"description": "Bills"}, "recipe": {"description": "Meals", "analyzerId": "meals"}}
    assert categories_in(file) == {**read, "letter": {}}
    file.write_bytes(b"\xef\xbb\xbf" + orjson.dumps(read))
    assert categories_in(file) == read


WRONG = {
    "empty": (b"", "is to name categories"),
    "a list": (b"- invoice", "is to name categories"),
    "not yaml": (b"{invoice: [", "neither YAML nor JSON"),
    "not text": (b"\xff\xfe\x00", "not UTF-8"),
    "a number": (b"invoice: 3", "invoice: the description is to be text"),
    "reserved": (b"$OTHER: All else", "names do not begin with"),
    "long": (b"invoice: " + b"x" * 120, "more than 120 characters together"),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_a_file_that_names_no_categories_says_so(wrong: str, tmp_path: Path) -> None:
    content, told = WRONG[wrong]
    (tmp_path / "categories.yaml").write_bytes(content)
    with pytest.raises(Misconfigured, match=told):
        categories_in(tmp_path / "categories.yaml")


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(Misconfigured, match="cannot be read: No such file"):
        categories_in(tmp_path / "categories.yaml")
