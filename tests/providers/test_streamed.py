"""A thousand documents through the whole pipeline, for each dialect of Azure's clients: none lost, none twice."""

import asyncio
import json
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import httpx
import pytest
from pydantic import TypeAdapter

from service import pipeline, settings
from service.dispatch import accounts
from service.dispatch.dispatcher import Dispatcher
from service.documents import Position, Record
from service.errors import Unavailable
from service.model.examples import Example
from service.model.train import train
from service.observability.telemetry import Telemetry
from service.streams.memory import MemorySink, MemorySource
from tests.commands import CANARY_KEY, rows, served_account, serving, small_model
from tests.providers.conftest import Received, Replay, Reply
from tests.providers.test_contract import (
    ANALYZER,
    CLASSIFIER,
    CUSTOM,
    CUSTOMIZED,
    GA,
    HARMS,
    KEY,
    PREVIEW_31,
    PREVIEW_32,
)
from tests.server.conftest import MULTI

LABELLED = MULTI
"""Documents to which none, one, or two of three classes apply."""
CONTAINER = "https://contoso.blob.core.windows.net/samples"
ACCOUNT: TypeAdapter[settings.Account] = TypeAdapter(settings.Account)


async def streamed(account: Mapping[str, Any], texts: list[str], **document: Any) -> MemorySink:
    """What is published when these texts go through the pipeline."""
    stream = settings.Stream(
        name="tickets",
        input="in",
        document=settings.Fields(format="text", id=None, **document),
        classify_with=("azure",),
        batch=settings.Batch(wait=0.01),
        output="out",
        dead_letter="dead",
    )
    branch = ACCOUNT.validate_python({"limits": {"in_flight": 100}, **account})
    source = MemorySource(Record(Position("in", 0, i), 0, None, text.encode()) for i, text in enumerate(texts))
    sink, telemetry = MemorySink(), Telemetry()
    async with accounts.opened({"azure": branch}, ["azure"], telemetry) as ready:
        await pipeline.run(
            stream,
            source,
            sink,
            Dispatcher([ready["azure"]], 1.0, stream.document.most_parts),
            telemetry=telemetry,
            stop=asyncio.Event(),
        )
    return sink


def results(sink: MemorySink) -> dict[int, str | None]:
    """The best class of each document, by its offset."""
    assert not sink.to("dead")
    found = [json.loads(message.value or b"") for message in sink.to("out")]
    assert len(found) == len({each["source"]["offset"] for each in found})
    return {each["source"]["offset"]: (each["best"] or {"name": None})["name"] for each in found}


def classes_of(sink: MemorySink) -> dict[int, set[str]]:
    """The classes of each document, by its offset."""
    assert not sink.to("dead")
    found = [json.loads(message.value or b"") for message in sink.to("out")]
    assert len(found) == len({each["source"]["offset"] for each in found})
    return {each["source"]["offset"]: {one["name"] for one in each["classes"]} for each in found}


def rightly_labelled(found: Mapping[int, set[str]]) -> int:
    """How many of a thousand documents, those of `LABELLED` in turn, were given exactly the classes that apply."""
    assert found.keys() == set(range(1_000))
    assert {len(names) for names in found.values()} >= {0, 1, 2}
    return sum(names == set(LABELLED[number % len(LABELLED)].labels) for number, names in found.items())


class Jobs:
    """An API that works through jobs, and fails on the way as it may; texts are answered with their last word."""

    def __init__(self, path: str, done: Callable[[list[str]], object], texts: Callable[[Received], list[str]]) -> None:
        self._path = path
        self._done = done
        self._texts = texts
        self._jobs: list[list[str]] = []
        self._requests = 0

    def __call__(self, received: Received) -> Reply:
        self._requests += 1
        if self._requests in {11, 23}:
            return Reply(429, headers={"Retry-After": "0"}) if self._requests == 11 else Reply(503)
        if received.method == "POST":
            self._jobs.append(self._texts(received))
            location = f"http://{{host}}{self._path}/{len(self._jobs) - 1}"
            return Reply(202, headers={"Operation-Location": location})
        if self._requests == 31:
            return Reply(404)  # lost: to be submitted again
        return Reply(200, self._done(self._jobs[int(received.path.rpartition("/")[2])]))


def of_language(received: Received) -> list[str]:
    return [each["text"] for each in json.loads(received.body)["analysisInput"]["documents"]]


def of_understanding(received: Received) -> list[str]:
    return [received.body.decode()]


def classes(spelling: str, texts: list[str], *, alone: bool = False) -> list[object]:
    found = []
    for number, text in enumerate(texts):
        one = {"category": text.rpartition(" ")[2], "confidenceScore": 0.9}
        found.append({"id": str(number), spelling: one if alone else [one], "warnings": []})
    return [{"results": {"documents": found[::-1], "errors": []}}]


def understood(texts: list[str]) -> object:
    return {"status": "Succeeded", "result": {"contents": [{"category": texts[0].rpartition(" ")[2]}]}}


DONE: Mapping[str, Any] = {
    "GA": (GA, of_language, lambda texts: {"status": "succeeded", "tasks": {"items": classes("class", texts)}}),
    "v3.2": (
        PREVIEW_32,
        of_language,
        lambda texts: {
            "status": "succeeded",
            "tasks": {"customSingleClassificationTasks": classes("classification", texts, alone=True)},
        },
    ),
    "v3.1": (
        PREVIEW_31,
        of_language,
        lambda texts: {
            "status": "completed",
            "tasks": {"tasks": {"customClassificationTasks": classes("classes", texts)}},
        },
    ),
    "classifier": (CLASSIFIER, of_understanding, understood),
    "analyzer": (ANALYZER, of_understanding, understood),
}
TEXTS = [f"ticket {number} is about class-{number % 7}" for number in range(1_000)]
EXPECTED = {number: f"class-{number % 7}" for number in range(1_000)}


@pytest.mark.parametrize("dialect", DONE)
async def test_jobs_answer_a_thousand_documents(dialect: str, replay: Replay) -> None:
    api, texts, done = DONE[dialect]
    replay.otherwise = Jobs(api.jobs, done, texts)
    sink = await streamed({"endpoint": replay.url, "key": KEY, **api.account}, TEXTS)
    assert results(sink) == EXPECTED


def harms(text: str) -> object:
    return {"categoriesAnalysis": [{"category": text.rpartition(" ")[2], "severity": 4}]}


def customized(text: str) -> object:
    return {"textCustomizedCategoriesAnalysis": [{"categoryName": "DrugAbuse", "detected": text.endswith("0")}]}


def custom(text: str) -> object:
    return {"customCategoryAnalysis": {"detected": text.endswith("0")}}


@pytest.mark.parametrize(("api", "analysis"), [(HARMS, harms), (CUSTOMIZED, customized), (CUSTOM, custom)])
async def test_calls_answer_a_thousand_documents(api: Any, analysis: Callable[[str], object], replay: Replay) -> None:
    trouble = {10: Reply(429, headers={"Retry-After": "0"}), 300: Reply(503), 700: Reply(200, b"{")}

    def answer(received: Received) -> Reply:
        return trouble.pop(len(replay.requests), None) or Reply(200, analysis(json.loads(received.body)["text"]))

    replay.otherwise = answer
    found = results(await streamed({"endpoint": replay.url, "key": KEY, **api.account}, TEXTS))
    detected = {number: "DrugAbuse" if number % 7 == 0 else None for number in range(1_000)}
    assert found == (EXPECTED if api is HARMS else detected)
    assert not trouble


@pytest.mark.parametrize("version", ["2023-04-01", "v3.2-preview.2"])
async def test_a_server_of_ours_answers_a_thousand_documents_of_a_project(version: str, tmp_path: Path) -> None:
    texts = [f"{rows()[number % len(rows())]['text']} {number}" for number in range(1_000)]
    with serving(tmp_path, small_model(tmp_path / "small")) as (url, _):
        found = results(await streamed(served_account(url, api_version=version), texts))
    right = [found[number] == rows()[number % len(rows())]["labels"][0] for number in range(1_000)]
    assert sum(right) > 900, Counter(found.values())


async def test_a_server_of_ours_answers_a_document_longer_than_it_takes_in_parts(tmp_path: Path) -> None:
    delivery, access = "the parcel number 7 has not arrived. " * 4_000, "my password 9 is not accepted. " * 3_000
    texts = [delivery + access, "my password 5 is not accepted", "x" * 3_000_000]
    with serving(tmp_path, small_model(tmp_path / "small")) as (url, _):
        sink = await streamed(served_account(url), texts, too_long="split")
        refused = await streamed(served_account(url), texts)
    found = {json.loads(message.value or b"")["source"]["offset"]: message.value or b"" for message in sink.to("out")}
    assert found.keys() == {0, 1}
    long = json.loads(found[0])
    assert [each["name"] for each in long["classes"]] == ["delivery", "access"]
    assert 0.5 < long["best"]["score"] < len(delivery) / len(texts[0]) + 0.1
    assert long["warnings"] == ["split into 3 parts"]
    assert long["usage"]["characters"] == len(texts[0])
    assert len(texts[0]) / 1_000 <= long["usage"]["units"] <= len(texts[0]) / 1_000 + 3
    assert json.loads(found[1])["warnings"] == []
    (too_long,) = sink.to("dead")
    assert dict(too_long.headers)["labelstream-error-type"] == b"too_long"
    assert [message.source.offset for message in refused.to("dead")] == [0, 2]


async def published(url: str, folder: Path, kind: str, labelled: list[Example]) -> str:
    """The id of a model that the first preview has trained on these documents, and published."""
    labels = []
    for number, row in enumerate(labelled):
        (folder / f"{number}.txt").write_text(row.text, encoding="utf-8")
        classifiers = [{"classifierName": name} for name in row.labels]
        labels.append({"location": f"{number}.txt", "language": "en-us", "classifiers": classifiers})
    tree = {"classifiers": [{"name": name} for name in sorted({name for row in labelled for name in row.labels})]}
    (folder / "labels.json").write_text(json.dumps({**tree, "documents": labels}), encoding="utf-8")
    project = {
        "name": "desk",
        "modelType": kind,
        "multiLingual": False,
        "culture": "en-us",
        "storageInputContainerName": "labelled",
        "labelsLocation": "labels.json",
    }
    model, path = {"tasks": [{"trainingModelName": "first"}]}, "/language/text/authoring/v1.0-preview.2/projects"
    async with httpx.AsyncClient(base_url=url, headers={"Ocp-Apim-Subscription-Key": CANARY_KEY}) as http:
        assert (await http.post(path, json=project)).status_code == 201
        training = await http.post(f"{path}/desk/train", json=model)
        while (shown := (await http.get(training.headers["location"])).json())["status"] != "completed":
            assert shown["status"] in {"notStarted", "inProgress"}, shown
            await asyncio.sleep(0.05)
        publishing = await http.post(f"{path}/desk/publish", json=model)
        model_id: str = (await http.get(publishing.headers["location"])).json()["tasks"][0]["modelId"]
        return model_id


def of_the_first_preview(url: str, model_id: str, task: str) -> dict[str, Any]:
    named = {"api_version": "v3.1-preview.ct.1", "model_id": model_id, "task": task}
    return {"provider": "azure_language", "endpoint": url, "key": CANARY_KEY, **named}


async def test_a_server_of_ours_answers_a_thousand_documents_of_the_first_preview(tmp_path: Path) -> None:
    (folder := tmp_path / "labelled").mkdir()
    labelled = [Example(row["id"], row["text"], tuple(row["labels"])) for row in rows()]
    texts = [f"{rows()[number % len(rows())]['text']} {number}" for number in range(1_000)]
    with serving(tmp_path, small_model(tmp_path / "small"), "--container", f"labelled={folder}") as (url, _):
        model_id = await published(url, folder, "SingleClassification", labelled)
        found = results(await streamed(of_the_first_preview(url, model_id, "single_label"), texts))
    right = [found[number] == rows()[number % len(rows())]["labels"][0] for number in range(1_000)]
    assert sum(right) > 900, Counter(found.values())


@pytest.mark.parametrize("version", ["2022-05-01", "2023-04-01", "v3.2-preview.2", "v3.1-preview.ct.1"])
async def test_a_server_of_ours_gives_a_thousand_documents_the_classes_that_apply(version: str, tmp_path: Path) -> None:
    (folder := tmp_path / "labelled").mkdir()
    train(LABELLED, task="multi_label", name="topics").save(tmp_path / "topics")
    texts = [LABELLED[number % len(LABELLED)].text for number in range(1_000)]
    with serving(tmp_path, tmp_path / "topics", "--container", f"labelled={folder}") as (url, _):
        if version == "v3.1-preview.ct.1":
            model_id = await published(url, folder, "MultiClassification", LABELLED)
            account = of_the_first_preview(url, model_id, "multi_label")
        else:
            account = served_account(url, api_version=version, task="multi_label")
        found = classes_of(await streamed(account, texts))
    assert rightly_labelled(found) > 900, Counter(map(frozenset, found.values()))


async def test_a_server_of_ours_finds_harm_in_a_thousand_documents(tmp_path: Path) -> None:
    harmful = ["I will beat you up", "they kicked him bloody", "he threatened to stab her", "we will break your legs"]
    peaceful = ["the tomatoes are ripe", "a walk by the lake", "we met for coffee", "the choir sings on Sunday"]
    samples = [
        *(Example(f"harmful-{n}", f"{harmful[n % 4]} {n}", ("positive",)) for n in range(20)),
        *(Example(f"peaceful-{n}", f"{peaceful[n % 4]} {n}", ("negative",)) for n in range(20)),
    ]
    train(samples, task="single_label", name="violence").save(tmp_path / "violence")
    account = {"provider": "content_safety", "key": CANARY_KEY}
    texts = [(harmful if number % 2 else peaceful)[number // 2 % 4] for number in range(1_000)]
    registered = ("--harm-model", f"Violence={tmp_path / 'violence'}")
    with serving(tmp_path, small_model(tmp_path / "small"), *registered) as (url, _):
        found = results(await streamed({"endpoint": url, **account}, texts))
    assert found == {number: "Violence" if number % 2 else None for number in range(1_000)}


@pytest.mark.parametrize(("kind", "version"), [("classifier", "2025-05-01-preview"), ("analyzer", "2025-11-01")])
async def test_a_server_of_ours_answers_a_thousand_documents_by_what_classes_are_called(
    kind: str, version: str, tmp_path: Path
) -> None:
    categories = {
        "invoice": {"description": "an invoice with an amount due and a bank account"},
        "recipe": {"description": "a recipe with ingredients, butter and flour"},
    }
    body: dict[str, Any] = {"categories": categories}
    if kind == "analyzer":
        body = {"baseAnalyzerId": "prebuilt-document", "config": {"contentCategories": categories}}
    account = {"provider": "content_understanding", "key": CANARY_KEY, kind: "papers", "api_version": version}
    texts = ["the amount due on this invoice, to a bank account", "ingredients: butter and flour, a recipe"]
    with serving(tmp_path, small_model(tmp_path / "small")) as (url, _):
        path = f"{url}/contentunderstanding/{kind}s/papers"
        async with httpx.AsyncClient(headers={"Ocp-Apim-Subscription-Key": CANARY_KEY}) as http:
            created = await http.put(path, params={"api-version": version}, json=body)
            assert created.status_code in {200, 201}, created.text
            while (await http.get(path, params={"api-version": version})).json()["status"] != "ready":  # noqa: ASYNC110  nobody tells
                await asyncio.sleep(0.05)
        found = results(await streamed({"endpoint": url, **account}, [f"{texts[i % 2]} {i}" for i in range(1_000)]))
    assert found == {number: ("invoice", "recipe")[number % 2] for number in range(1_000)}


async def test_a_server_of_ours_finds_what_is_on_a_blocklist_in_a_thousand_documents(tmp_path: Path) -> None:
    account = {"provider": "content_safety", "key": CANARY_KEY, "blocklists": ["slurs"]}
    version = {"api-version": "2024-09-01"}
    with serving(tmp_path, small_model(tmp_path / "small")) as (url, _):
        path = f"{url}/contentsafety/text/blocklists/slurs"
        async with httpx.AsyncClient(headers={"Ocp-Apim-Subscription-Key": CANARY_KEY}, params=version) as http:
            assert (await http.patch(path, json={"description": "Words we do not print."})).is_success
            items = {"blocklistItems": [{"text": "balderdash"}]}
            assert (await http.post(f"{path}:addOrUpdateBlocklistItems", json=items)).is_success
        texts = [f"What {'balderdash' if number % 7 == 0 else 'joy'}, said number {number}." for number in range(1_000)]
        found = results(await streamed({"endpoint": url, **account}, texts))
    assert found == {number: None if number % 7 else "blocklist/slurs" for number in range(1_000)}


@pytest.mark.parametrize("version", ["2024-05-15-preview", "2024-09-15-preview"])
async def test_a_server_of_ours_finds_a_custom_category_in_a_thousand_documents(version: str, tmp_path: Path) -> None:
    things = ["pills", "powder", "syringes", "weed", "crystals", "mushrooms"]
    offers = ["selling {} cheap", "who wants {} tonight", "fresh {} just came in", "got {} for you", "best {} in town"]
    positives = [f"{offer.format(thing)}{mark}" for thing in things for offer in offers for mark in ("", "!")]
    negatives = [f"my {thing} for the {use}" for thing in ("cake", "bike", "sofa", "lamp") for use in ("hall", "party")]
    lines = [{"text": text, "isPositive": True} for text in positives]
    lines += [{"text": text, "isPositive": False} for text in negatives]
    (tmp_path / "samples").mkdir()
    samples = tmp_path / "samples" / "drugs.jsonl"
    samples.write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    account = {"provider": "content_safety", "key": CANARY_KEY, "api_version": version, "category": "Drugs"}
    model = small_model(tmp_path / "small")
    with serving(tmp_path, model, "--container", f"samples={samples.parent}") as (url, _):
        path = f"{url}/contentsafety/text/categories/Drugs"
        body = {"categoryName": "Drugs", "definition": "Drugs on offer.", "sampleBlobUrl": f"{CONTAINER}/drugs.jsonl"}
        headers = {"Ocp-Apim-Subscription-Key": CANARY_KEY}
        async with httpx.AsyncClient(headers=headers, params={"api-version": version}) as http:
            assert (await http.put(path, json=body)).is_success
            assert (await http.post(f"{path}:build", params={"api-version": version, "version": "1"})).is_success
        await built({"endpoint": url, **account})
        texts = [positives[number % 60] if number % 2 else negatives[number % 8] for number in range(1_000)]
        found = results(await streamed({"endpoint": url, **account}, texts))
    right = [(found[number] == "Drugs") == bool(number % 2) for number in range(1_000)]
    assert sum(right) > 900, Counter(found.values())


async def built(account: Mapping[str, Any]) -> None:
    """Wait until the category is built, as its account sees it."""
    branch = ACCOUNT.validate_python(account)
    async with accounts.opened({"azure": branch}, ["azure"], Telemetry()) as ready:
        while True:
            try:
                return await ready["azure"].provider.probe()
            except Unavailable:
                await asyncio.sleep(0.1)
