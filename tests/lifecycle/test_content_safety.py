"""The whole life of a custom category, on a server of ours over HTTP, and what may come between."""

import asyncio
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from service import settings
from service.errors import Misconfigured, Unavailable
from service.lifecycle.containers import Folder
from service.lifecycle.content_safety import CustomCategory
from service.model.examples import Example, ExamplesError
from service.transport.http import PacedClient
from tests.lifecycle.documents import classes
from tests.providers.conftest import Received, Replay, Reply
from tests.providers.documented import Documented
from tests.server.conftest import DRUGS, KEY, process

FIRST, SECOND = "2024-05-15-preview", "2024-09-15-preview"
HARMLESS = [f"my {thing} for the {use}" for thing in ("cake", "bike", "sofa", "lamp") for use in ("hall", "party")]
ROWS = [
    *(Example(f"d{n}", text, ("Drugs",)) for n, text in enumerate(DRUGS)),
    *(Example(f"h{n}", text, ()) for n, text in enumerate(HARMLESS)),
]
DEFINITION = "Drugs on offer."
HTML = Reply(502, b"<html>Bad Gateway</html>", {"Content-Type": "text/html"})
SOON = {"retry-after-ms": "10"}
MISSING = Reply(404, {"error": {"code": "ResourceNotFound", "message": "There is no such category."}})


def branch(url: str, version: str = FIRST, **more: Any) -> settings.ContentSafety:
    given = {"provider": "content_safety", "endpoint": url, "key": KEY, "category": "Drugs", "api_version": version}
    return settings.ContentSafety.model_validate({**given, **more})


# A life on a server of ours ------------------------------------------------------------------------


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("samples")


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory, samples: Path) -> Iterator[str]:
    with process(tmp_path_factory.mktemp("data"), "--container", f"samples={samples}") as (url, _):
        yield url


@pytest.mark.parametrize("version", [FIRST, SECOND])
async def test_a_category_is_trained_asked_trained_again_and_deleted(
    version: str, url: str, samples: Path, http: PacedClient
) -> None:
    said: list[str] = []
    category, folder = CustomCategory(branch(url, version), http, said.append), Folder("samples", samples)
    built = await category.train(ROWS, DEFINITION, folder)
    assert (built.number, built.is_built) == (1, True)
    assert said[0] == "Drugs version 1 is made"
    assert said[-1] in {"Drugs version 1: BuildSucceeded", "Drugs version 1: Succeeded"}
    found = await classes(branch(url, version), [*DRUGS[:10], *HARMLESS])
    assert found[:10].count("Drugs") > 8
    assert found[10:].count("Drugs") < 2
    assert (await category.train(ROWS[::-1], DEFINITION, folder)).number == 1  # the same rows: nothing is built anew
    assert (await category.train(ROWS[:-1], DEFINITION, folder)).number == 2
    assert (await category.deployed()).number == 2
    assert (await CustomCategory(branch(url, version, category_version=1), http, said.append).deployed()).number == 1
    assert [(each.category, each.number) for each in await category.listed()] == [("Drugs", 2)]
    await category.delete(2)
    assert (await category.deployed()).number == 1
    await category.delete(None)
    with pytest.raises(Misconfigured, match="nothing to delete: category Drugs is not there"):
        await category.delete(None)
    with pytest.raises(Misconfigured, match="there is no category Drugs: train it"):
        await category.deployed()


async def test_what_the_server_cannot_learn_from_says_why(url: str, tmp_path: Path, http: PacedClient) -> None:
    category = CustomCategory(branch(url, category="Elsewhere"), http, str)
    rows = [Example(row.id, row.text, ("Elsewhere",)) for row in ROWS]
    with pytest.raises(Misconfigured, match=r"Elsewhere version 1 could not be built \(BuildFailed\).*no container"):
        await category.train(rows, DEFINITION, Folder("nobody", tmp_path))
    with pytest.raises(Misconfigured, match=r"Elsewhere version 1 is not built .BuildFailed.: train it"):
        await category.deployed()
    await category.delete(None)


async def test_more_versions_than_there_may_be(url: str, samples: Path, http: PacedClient) -> None:
    category, folder = CustomCategory(branch(url, category="Many"), http, str), Folder("samples", samples)
    rows = [Example(row.id, row.text, ("Many",)) for row in ROWS]
    headers = {"Ocp-Apim-Subscription-Key": KEY, "Content-Type": "application/json"}
    body = {"categoryName": "Many", "definition": "Many.", "sampleBlobUrl": "https://contoso.example/samples/a.jsonl"}
    for _ in range(3):
        address = f"{url}/contentsafety/text/categories/Many?api-version={FIRST}"
        assert (await http.exchange("PUT", address, headers, json.dumps(body).encode())).is_success
    with pytest.raises(Misconfigured, match=r"400 InvalidRequestBody: .*as many categories or versions.*delete one"):
        await category.train(rows, "One more", folder)
    await category.delete(None)


# What may come between -----------------------------------------------------------------------------


class Scripted:
    """A container that keeps what it is given."""

    name = "samples"

    def __init__(self) -> None:
        self.kept: dict[str, bytes] = {}

    async def put(self, blob: str, content: bytes) -> str:
        self.kept[blob] = content
        return f"https://contoso.blob.core.windows.net/samples/{blob}"


def shown(container: Scripted, status: str, **more: Any) -> Reply:
    (blob,) = container.kept
    url = f"https://contoso.blob.core.windows.net/samples/{blob}"
    version = {"categoryName": "Drugs", "definition": DEFINITION, "sampleBlobUrl": url, "version": 7, "status": status}
    return Reply(200, {"value": [{**version, **more}]})


class Service:
    """A category that is as each of `statuses` in turn, after what is in `trouble` first."""

    def __init__(self, container: Scripted, *statuses: str | Reply) -> None:
        self.container = container
        self.statuses = list(statuses)
        self.asked: list[str] = []

    def __call__(self, received: Received) -> Reply:
        self.asked.append(f"{received.method} {received.path.rpartition('/')[2]}")
        status = self.statuses.pop(0) if len(self.statuses) > 1 else self.statuses[0]
        if isinstance(status, Reply):
            return status
        reply = shown(self.container, status)
        if received.method == "POST":
            return Reply(202)
        assert isinstance(reply.body, dict)
        return Reply(201, reply.body["value"][0]) if received.method == "PUT" else reply


async def trained(replay: Replay, http: PacedClient, *statuses: str | Reply, version: str = FIRST) -> Service:
    said: list[str] = []
    service = Service(Scripted(), *statuses)
    replay.otherwise = service
    category = CustomCategory(branch(replay.url, version), http, said.append)
    built = await category.train(ROWS, DEFINITION, service.container)
    assert built.number == 7
    assert not any(text in line for line in said for text in [*DRUGS, KEY])
    return service


async def test_what_passes_is_waited_out(replay: Replay, http: PacedClient) -> None:
    throttled = Reply(429, {"error": {"code": "TooManyRequests", "message": "Slow down."}}, SOON)
    busy = Reply(503, {"error": {"code": "ServerBusy", "message": "Busy."}}, SOON)
    service = await trained(
        replay, http, throttled, MISSING, "BuildNotStarted", "BuildNotStarted", "202", HTML, throttled, "Building",
        busy, "BuildSucceeded",
    )  # fmt: skip
    assert service.asked == [
        *["GET Drugs"] * 2, "PUT Drugs", "GET Drugs", "POST Drugs:build", *["GET Drugs"] * 5,
    ]  # fmt: skip


async def test_a_version_whose_making_was_not_answered_is_found(replay: Replay, http: PacedClient) -> None:
    service = await trained(
        replay, http, MISSING, Reply(503, None, SOON), "BuildNotStarted", "BuildNotStarted", "202", "BuildSucceeded"
    )
    assert service.asked.count("PUT Drugs") == 1


async def test_a_build_whose_beginning_was_not_answered_is_not_begun_again(replay: Replay, http: PacedClient) -> None:
    service = await trained(
        replay, http, "BuildNotStarted", "BuildNotStarted", Reply(500, None, SOON), "Building", "BuildSucceeded"
    )
    assert service.asked.count("POST Drugs:build") == 1


async def test_waiting_that_is_broken_off_goes_on_with_the_next_command(replay: Replay, http: PacedClient) -> None:
    service = Service(Scripted(), MISSING, "BuildNotStarted", "BuildNotStarted", "202", "Building")
    replay.otherwise = service
    waiting = asyncio.Event()

    def say(line: str) -> None:
        if line == "Drugs version 7: Building":
            waiting.set()

    category = CustomCategory(branch(replay.url), http, say)
    training = asyncio.create_task(category.train(ROWS, DEFINITION, service.container))
    await waiting.wait()
    training.cancel()
    with pytest.raises(asyncio.CancelledError):
        await training
    service.statuses = ["Building", "Building", "Building", "BuildSucceeded"]
    assert (await category.train(ROWS[::-1], DEFINITION, service.container)).is_built
    assert [each for each in service.asked if not each.startswith("GET")] == ["PUT Drugs", "POST Drugs:build"]


async def test_an_operation_is_asked_and_one_that_is_forgotten_is_done_without(
    replay: Replay, http: PacedClient
) -> None:
    location = {"Operation-Location": "http://{host}/contentsafety/text/categories/operations/o1?api-version=x"}
    begun = Reply(202, {"id": "o1", "status": "NotStarted"}, location)
    for operations in ([Reply(200, {"status": "Running"}), Reply(200, {"status": "Succeeded"})], [Reply(404)]):
        service = await trained(
            replay, http, MISSING, "NotStarted", "NotStarted", begun, *operations, "Succeeded", version=SECOND
        )
        assert (
            service.asked[4:] == [*["GET o1?api-version=x"] * len(operations), "GET Drugs"] or "o1" in service.asked[4]
        )


class Written(Scripted):
    """Keeps samples where the documentation has them."""

    async def put(self, blob: str, content: bytes) -> str:
        await super().put(blob, content)
        return "https://example.blob.core.windows.net/example-container/drugsample.jsonl"


def built(replay: Replay) -> bool:
    return any(each.path.endswith(":build") for each in replay.requests)


@pytest.mark.parametrize("version", [FIRST, SECOND])
async def test_the_requests_are_those_documented(version: str, replay: Replay, http: PacedClient) -> None:
    documented = Documented.read(f"content_safety/{version}/category.json")
    left: dict[tuple[str, ...], list[Reply]] = {}
    unbuilt = Reply(200, {"value": [documented.exchanges[0]["response"]["body"]]})
    for request, reply in zip(documented.requests, documented.replies, strict=True):
        left.setdefault((request["method"], request["path"], request["query"]), []).append(reply)

    def answer(received: Received) -> Reply:
        if received.method == "DELETE":
            left.pop(("GET", received.path, received.query))
        if received.method == "GET" and received.path.endswith("/DrugAbuse") and not built(replay):
            return unbuilt if "&version=" in received.query else MISSING
        replies = left.get((received.method, received.path, received.query), [MISSING])
        return replies.pop(0) if len(replies) > 1 else replies[0]

    replay.otherwise = answer
    category = CustomCategory(branch(replay.url, version, category="DrugAbuse"), http, str)
    rows = [row._replace(labels=("DrugAbuse",) if row.labels else ()) for row in ROWS]
    definition = documented.requests[0]["body"]["definition"]
    assert (await category.train(rows, definition, Written())).number == 1
    assert [each.number for each in await category.listed()] == [1]
    await category.delete(1)
    made = [(each.method, each.path, each.query, each.json) for each in replay.requests]
    for request in documented.requests:
        if "/text/categories" in request["path"]:
            assert (request["method"], request["path"], request["query"], request["body"]) in made
    assert {each.headers["ocp-apim-subscription-key"] for each in replay.requests} == {KEY}


FAILURES: list[tuple[str, str]] = [
    ("Line 3: isPositive is to be true or false.", "InvalidRequestBody: Line 3: isPositive is to be true or false."),
    (f"Line 3 ({DRUGS[4]}) repeats the text of line 2.", "what it says quotes a text, and is not repeated here"),
]


@pytest.mark.parametrize(("message", "told"), FAILURES, ids=["of a line", "quoting"])
async def test_a_build_that_fails_says_why_and_quotes_nobody(
    message: str, told: str, replay: Replay, http: PacedClient
) -> None:
    container = Scripted()
    error = {"buildInfo": {"buildError": {"error": {"code": "InvalidRequestBody", "message": message}}}}

    def answer(received: Received) -> Reply:
        if received.method == "POST":
            return Reply(202)
        return shown(container, "BuildFailed", **error)

    replay.otherwise = answer
    with pytest.raises(Misconfigured) as failed:
        await CustomCategory(branch(replay.url), http, str).train(ROWS, DEFINITION, container)
    assert told in str(failed.value)
    assert DRUGS[4] not in str(failed.value)


REFUSALS = {
    "key": (Reply(401, {"error": {"code": "401", "message": f"Access denied: {KEY}"}}), "401.*check key"),
    "route": (Reply(404, {"error": {"code": "404", "message": "Resource not found"}}), "404.*check category"),
    "name": (Reply(400, {"error": {"code": "InvalidResourceName", "message": "No."}}), "Name.*check category"),
    "html": (Reply(404, b"<html>Nobody</html>", {"Content-Type": "text/html"}), "404.*endpoint"),
}


@pytest.mark.parametrize("refusal", REFUSALS)
async def test_what_will_not_pass_says_what_to_change(refusal: str, replay: Replay, http: PacedClient) -> None:
    reply, told = REFUSALS[refusal]
    replay.otherwise = lambda _: reply
    with pytest.raises(Misconfigured, match=told) as failed:
        await CustomCategory(branch(replay.url), http, str).train(ROWS, DEFINITION, Scripted())
    assert KEY not in str(failed.value)


BAD_ROWS: list[tuple[Callable[[], list[Example]], str]] = [
    (lambda: ROWS[60:], "no row has the label 'Drugs', as the category is called; the labels are: none at all"),
    (lambda: ROWS[20:], "40 different texts have the label 'Drugs', and 50 to 5,000 are learnt from"),
    (lambda: [*ROWS, Example("again", DRUGS[0], ())], "the same text has the label 'Drugs' elsewhere|and not here"),
    (lambda: [Example(str(n), f"text {n}", ("Drugs",)) for n in range(5_001)], "5,001 different texts"),
]


@pytest.mark.parametrize(("rows", "told"), BAD_ROWS, ids=["none", "few", "both ways", "many"])
async def test_rows_that_are_not_learnt_from_are_refused_before_anything_is_sent(
    rows: Callable[[], list[Example]], told: str, replay: Replay, http: PacedClient
) -> None:
    with pytest.raises(ExamplesError, match=told):
        await CustomCategory(branch(replay.url), http, str).train(rows(), DEFINITION, Scripted())
    assert not replay.requests


async def test_positives_alone_will_do_and_a_text_counts_once(replay: Replay, http: PacedClient) -> None:
    container = Scripted()
    replay.otherwise = lambda _: shown(container, "BuildSucceeded")
    rows = [*ROWS[:60], *ROWS[:5], Example("odd", "half an emoji \ud83d", ("Drugs",))]
    assert (await CustomCategory(branch(replay.url), http, str).train(rows, DEFINITION, container)).is_built
    (content,) = container.kept.values()
    lines = [json.loads(line) for line in content.splitlines()]
    assert len(lines) == 61
    assert {line["isPositive"] for line in lines} == {True}
    assert any(line["text"] == "half an emoji \ufffd" for line in lines)


async def test_a_version_that_is_being_built_is_not_in_use_yet(replay: Replay, http: PacedClient) -> None:
    container = Scripted()
    container.kept["x.jsonl"] = b""
    replay.otherwise = lambda _: shown(container, "Building")
    with pytest.raises(Unavailable, match="Drugs version 7 is still being built"):
        await asyncio.wait_for(CustomCategory(branch(replay.url), http, str).deployed(), 5)


async def test_lists_come_page_by_page_and_from_nowhere_else(replay: Replay, http: PacedClient) -> None:
    container = Scripted()
    container.kept["x.jsonl"] = b""
    page = shown(container, "Building").body
    assert isinstance(page, dict)
    following = {"nextLink": "http://{host}/contentsafety/text/categories?page=2"}
    replay.answer(Reply(200, {**page, **following}), Reply(200, page))
    category = CustomCategory(branch(replay.url), http, str)
    assert len(await category.listed()) == 2
    replay.answer(Reply(200, {**page, "nextLink": "https://elsewhere.example/"}))
    with pytest.raises(Misconfigured, match="another scheme, host or port"):
        await category.listed()
    replay.otherwise = lambda _: Reply(200, {**page, **following})
    with pytest.raises(Unavailable, match="pages without an end"):
        await category.listed()


def test_harm_categories_are_nobodys_to_train(http: PacedClient) -> None:
    harms = settings.ContentSafety.model_validate(
        {"provider": "content_safety", "endpoint": "https://contoso.example", "key": KEY}
    )
    with pytest.raises(Misconfigured, match="name a category of your own in category"):
        CustomCategory(harms, http, str)
