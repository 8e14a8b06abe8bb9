"""The previews of 2021, request by request as the vendor's page prints them, in its order."""

import asyncio
import json
from pathlib import Path
from typing import Any

import httpx
import pytest

from service.server import azure_language_2021 as authoring
from tests.server.conftest import BILLING, CRASH, MULTI, SINGLE, Serve, Server

P = "/language/text/authoring/v1.0-preview.2/projects"
FIRST, BRIDGE = "/text/analytics/v3.1-preview.ct.1", "/text/analytics/v3.2-preview.2"
PROJECT = {
    "name": "MyProject",
    "modelType": "MultiClassification",
    "multiLingual": False,
    "description": "My new CT project",
    "culture": "en-us",
    "storageInputContainerName": "MyContainer",
    "labelsLocation": "myLabels.json",
}


def labelled(folder: Path) -> Path:
    """A container with labelled documents: many labels in myLabels.json, one each in single.json."""
    folder.mkdir(exist_ok=True)
    for file, rows in (("myLabels.json", MULTI), ("single.json", SINGLE * 3)):
        documents = []
        for number, row in enumerate(rows):
            location = f"{file}-{number}.txt"
            (folder / location).write_text(row.text, encoding="utf-8")
            classifiers = [{"classifierName": label} for label in row.labels]
            documents.append({"location": location, "language": "en-us", "classifiers": classifiers})
        names = sorted({label for row in rows for label in row.labels})
        labels = {"classifiers": [{"name": name} for name in names], "documents": documents}
        (folder / file).write_text(json.dumps(labels), encoding="utf-8")
    return folder


@pytest.fixture
def container(tmp_path: Path) -> str:
    return f"MyContainer={labelled(tmp_path / 'container')}"


async def until(server: Server, where: str, pending: set[str]) -> dict[str, Any]:
    while True:
        response = await server.client.get(where)
        assert response.status_code == 200, response.text
        shown: dict[str, Any] = response.json()
        if shown["status"] not in pending:
            return shown
        await asyncio.sleep(0.01)


async def published(server: Server, **changes: Any) -> str:
    """A model that was trained and published; gives its id."""
    project = {**PROJECT, **changes}
    assert (await server.client.post(P, json=project)).status_code == 201
    model = {"tasks": [{"trainingModelName": "MyModel"}]}
    begun = await server.client.post(f"{P}/{project['name']}/train", json=model)
    trained = await until(server, begun.headers["location"], {"notStarted", "inProgress"})
    assert trained["status"] == "completed", trained
    response = await server.client.post(f"{P}/{project['name']}/publish", json=model)
    shown = (await server.client.get(response.headers["location"])).json()
    model_id: str = shown["tasks"][0]["modelId"]
    return model_id


async def test_every_request_of_the_vendors_page_works_in_its_order(serve: Serve, container: str) -> None:
    async with serve(containers=[container]) as server:
        client = server.client
        created = await client.post(P, json=PROJECT)
        assert (created.status_code, created.json()) == (201, PROJECT)
        model = {"tasks": [{"trainingModelName": "MyModel"}]}
        begun = await client.post(f"{P}/MyProject/train", json=model)
        assert (begun.status_code, begun.content) == (202, b"")
        assert begun.headers["location"].startswith(f"http://server:8080{P}/MyProject/train/jobs/")
        trained = await until(server, begun.headers["location"], {"notStarted", "inProgress"})
        assert (trained["status"], trained["completed"], trained["total"], trained["errors"]) == ("completed", 1, 1, [])
        (task,) = trained["tasks"]
        assert (task["trainingModelName"], task["status"]) == ("MyModel", "completed")
        assert task["evaluationStatus"]["status"] == "completed"
        publishing = await client.post(f"{P}/MyProject/publish", json=model)
        assert (publishing.status_code, publishing.content) == (202, b"")
        shown = (await client.get(publishing.headers["location"])).json()
        assert shown["status"] == "completed"
        model_id = shown["tasks"][0]["modelId"]
        assert model_id.endswith("_MultiClassification_latest")
        query = {"trainingModelName": "MyModel"}
        evaluation = (await client.get(f"{P}/MyProject/evaluation", params=query)).json()
        assert evaluation["singleClassificationEvaluation"] is None
        assert set(evaluation["multiClassificationEvaluation"]["classes"]) == {"account", "billing", "crash"}
        submitted = await client.post(
            f"{FIRST}/analyze",
            json={
                "displayName": "MyJobName",
                "analysisInput": {
                    "documents": [{"id": "doc1", "text": BILLING}, {"id": "doc2", "text": "hello there"}]
                },
                "tasks": {
                    "customMultiClassificationTasks": [
                        {"parameters": {"modelId": model_id, "stringIndexType": "TextElements_v8"}}
                    ]
                },
            },
        )
        assert (submitted.status_code, submitted.content) == (202, b"")
        assert submitted.headers["operation-location"].startswith(f"http://server:8080{FIRST}/analyze/jobs/")
        found = await until(server, submitted.headers["operation-location"], {"notStarted", "inProgress"})
        assert (found["status"], found["displayName"], found["errors"]) == ("completed", "MyJobName", [])
        assert found["tasks"]["details"]["status"] == "completed"
        (item,) = found["tasks"]["tasks"]["customMultiClassificationTasks"]
        assert item["name"] == "MyJobName"
        first, second = item["results"]["documents"]
        assert (first["id"], [one["category"] for one in first["classes"]]) == ("doc1", ["billing"])
        assert (second["id"], second["classes"], second["warnings"]) == ("doc2", [], [])
        assert item["results"]["statistics"]["validDocumentsCount"] == 2
        assert (await client.delete(f"{P}/MyProject")).status_code == 204
        assert (await client.post(f"{P}/MyProject/train", json=model)).status_code == 404


async def test_one_class_each_is_what_single_classification_gives(serve: Serve, container: str) -> None:
    async with serve(containers=[container]) as server:
        model_id = await published(server, name="one", modelType="SingleClassification", labelsLocation="single.json")
        body = {
            "analysisInput": {"documents": [{"id": str(n), "text": text} for n, text in enumerate([BILLING, CRASH])]},
            "tasks": {"customClassificationTasks": [{"parameters": {"modelId": model_id}}]},
        }
        submitted = await server.client.post(f"{FIRST}/analyze", json=body)
        found = await until(server, submitted.headers["operation-location"], {"notStarted", "inProgress"})
        (item,) = found["tasks"]["tasks"]["customClassificationTasks"]
        assert [len(one["classes"]) for one in item["results"]["documents"]] == [1, 1]
        evaluation = (await server.client.get(f"{P}/one/evaluation", params={"trainingModelName": "MyModel"})).json()
        assert "confusionMatrix" in evaluation["singleClassificationEvaluation"]


def bridge(key: str, project: str, *texts: str) -> dict[str, Any]:
    """A submission as azure-ai-textanalytics 5.2.0b2 makes it: with an array for each kind of task there is."""
    empty = ["entityRecognitionTasks", "keyPhraseExtractionTasks", "customEntityRecognitionTasks"]
    task = {"parameters": {"project-name": project, "deployment-name": "production"}, "taskName": "0"}
    return {
        "tasks": {**{name: [] for name in empty}, key: [task]},
        "analysisInput": {
            "documents": [{"id": str(n), "text": text, "language": "en"} for n, text in enumerate(texts)]
        },
    }


async def test_the_bridge_asks_deployments_and_has_spellings_of_its_own(server: Server) -> None:
    for key, project, spelt in (
        ("customSingleClassificationTasks", "tickets", "classification"),
        ("customMultiClassificationTasks", "topics", "classifications"),
    ):
        submitted = await server.client.post(f"{BRIDGE}/analyze", json=bridge(key, project, BILLING, " "))
        assert submitted.status_code == 202, submitted.text
        found = await until(server, submitted.headers["operation-location"], {"notStarted", "running"})
        assert found["status"] == "succeeded"
        (item,) = found["tasks"][key]
        assert (item["state"], item["taskName"]) == ("succeeded", "0")
        assert (item["results"]["projectName"], item["results"]["deploymentName"]) == (project, "production")
        (document,) = item["results"]["documents"]
        best = document[spelt] if spelt == "classification" else document[spelt][0]
        assert best["category"] == "billing"
        assert [one["id"] for one in item["results"]["errors"]] == ["1"]


async def test_results_come_in_pages(server: Server) -> None:
    body = bridge("customSingleClassificationTasks", "tickets", *[BILLING] * 25)
    where = (await server.client.post(f"{BRIDGE}/analyze", json=body)).headers["operation-location"]
    first = await until(server, where, {"notStarted", "running"})
    rest = (await server.client.get(first["@nextLink"])).json()
    counted = [
        len(page["tasks"]["customSingleClassificationTasks"][0]["results"]["documents"]) for page in (first, rest)
    ]
    assert (counted, "@nextLink" in rest) == ([20, 5], False)
    whole = (await server.client.get(where, params={"$top": 25, "showStats": "True"})).json()
    (item,) = whole["tasks"]["customSingleClassificationTasks"]
    assert len(item["results"]["documents"]) == 25
    assert item["results"]["documents"][0]["statistics"]["transactionsCount"] == 1


async def test_trainings_that_cannot_be_done_say_why(serve: Serve, container: str) -> None:
    folder = Path(container.partition("=")[2])
    async with serve(containers=[container]) as server:
        await server.client.post(P, json=PROJECT)
        (folder / "myLabels.json-0.txt").unlink()
        begun = await server.client.post(f"{P}/MyProject/train", json={"tasks": [{"trainingModelName": "m"}]})
        failed = await until(server, begun.headers["location"], {"notStarted", "inProgress"})
        assert (failed["status"], failed["failed"]) == ("failed", 1)
        assert "myLabels.json-0.txt" in failed["errors"][0]["message"]
        assert failed["tasks"][0]["error"]["code"] == "InvalidArgument"


async def test_a_project_trains_one_model_at_a_time_and_gives_it_up_when_it_is_deleted(
    serve: Serve, container: str
) -> None:
    model = {"tasks": [{"trainingModelName": "m"}]}
    async with serve(containers=[container], works=False) as server:
        await server.client.post(P, json=PROJECT)
        assert (await server.client.post(f"{P}/MyProject/train", json=model)).status_code == 202
        second = await server.client.post(f"{P}/MyProject/train", json=model)
        assert (second.status_code, second.json()["error"]["code"]) == (409, "Conflict")
        assert (await server.client.delete(f"{P}/MyProject")).status_code == 204
        assert server.jobs.statistics().waiting == 0


async def test_of_requests_at_once_that_are_at_odds_one_is_done(serve: Serve, container: str) -> None:
    model = {"tasks": [{"trainingModelName": "MyModel"}]}
    async with serve(containers=[container], works=False) as server:
        made = await asyncio.gather(*(server.client.post(P, json=PROJECT) for _ in range(8)))
        assert sorted(one.status_code for one in made) == [201, *[409] * 7]
        begun = await asyncio.gather(*(server.client.post(f"{P}/MyProject/train", json=model) for _ in range(8)))
        assert sorted(one.status_code for one in begun) == [202, *[409] * 7]
        gone = await asyncio.gather(*(server.client.delete(f"{P}/MyProject") for _ in range(8)))
        assert sorted(one.status_code for one in gone) == [204, *[404] * 7]
        assert (await server.client.post(P, json=PROJECT)).status_code == 201
        (location,) = (one.headers["location"] for one in begun if one.status_code == 202)
        assert (await server.client.get(location)).status_code == 404  # of the project that had the name before


async def test_there_is_an_end_to_projects_and_models(
    serve: Serve, container: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert (authoring.MOST_PROJECTS, authoring.MOST_MODELS) == (500, 10)
    monkeypatch.setattr(authoring, "MOST_PROJECTS", 1)
    monkeypatch.setattr(authoring, "MOST_MODELS", 1)
    async with serve(containers=[container]) as server:
        await published(server)
        for one_more in (
            await server.client.post(P, json={**PROJECT, "name": "second"}),
            await server.client.post(f"{P}/MyProject/train", json={"tasks": [{"trainingModelName": "m"}]}),
        ):
            assert (one_more.status_code, one_more.json()["error"]["code"]) == (400, "QuotaExceeded")
        again = {"tasks": [{"trainingModelName": "MyModel"}]}
        assert (await server.client.post(f"{P}/MyProject/train", json=again)).status_code == 202


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([("a",)] * 9, "9 documents are labelled"),
        ([("a",)] * 20, "there are 1 classes; it takes 2 to 200"),
        ([("a",)] * 20 + [("b",)] * 9, "class 'b' has 9 documents; it takes 10"),
    ],
)
async def test_there_are_ten_documents_of_two_classes_at_least(
    serve: Serve, tmp_path: Path, rows: list[tuple[str, ...]], said: str
) -> None:
    documents = [
        {"location": f"{number}.txt", "classifiers": [{"classifierName": name} for name in names]}
        for number, names in enumerate(rows)
    ]
    (tmp_path / "myLabels.json").write_text(json.dumps({"documents": documents}), encoding="utf-8")
    async with serve(containers=[f"MyContainer={tmp_path}"]) as server:
        assert (await server.client.post(P, json=PROJECT)).status_code == 201
        begun = await server.client.post(f"{P}/MyProject/train", json={"tasks": [{"trainingModelName": "m"}]})
        failed = await until(server, begun.headers["location"], {"notStarted", "inProgress"})
    assert failed["errors"][0]["message"].startswith(said)


@pytest.mark.parametrize(
    ("method", "path", "rate"),
    [("POST", P, 10), ("GET", f"{P}/p/evaluation", 100), ("GET", f"{FIRST}/analyze/jobs/x", 1_000)],
)
async def test_documented_rates_are_kept_where_asked_for(serve: Serve, method: str, path: str, rate: int) -> None:
    async with serve(documented_rates=True) as server:
        answers = [await server.client.request(method, path) for _ in range(rate + 1)]
    assert 429 not in {one.status_code for one in answers[:-1]}
    assert answers[-1].status_code == 429
    assert 0 < int(answers[-1].headers["retry-after"]) <= 60


async def test_what_was_published_survives_a_restart(serve: Serve, container: str) -> None:
    async with serve(containers=[container]) as server:
        model_id = await published(server)
    async with serve(containers=[container]) as server:
        task = {"parameters": {"modelId": model_id}}
        body = {**bridge("x", "y", BILLING), "tasks": {"customMultiClassificationTasks": [task]}}
        submitted = await server.client.post(f"{FIRST}/analyze", json=body)
        found = await until(server, submitted.headers["operation-location"], {"notStarted", "inProgress"})
        assert found["status"] == "completed"


async def test_requests_that_make_no_sense_are_refused(serve: Serve, container: str) -> None:
    async with serve(containers=[container]) as server:
        client = server.client

        async def create(**changes: Any) -> httpx.Response:
            return await client.post(P, json={**PROJECT, **changes})

        assert (await create()).status_code == 201
        analyze = {"analysisInput": {"documents": [{"id": "1", "text": "x"}]}}
        unknown = {"customMultiClassificationTasks": [{"parameters": {"modelId": "x_MultiClassification_latest"}}]}
        for status, response in (
            (409, await create()),
            (400, await create(name="a b")),
            (400, await create(name="b", modelType="Extraction")),
            (400, await create(name="b", labelsLocation="nowhere.json")),
            (400, await create(name="b", labelsLocation="myLabels.json-0.txt")),
            (400, await create(name="b", storageInputContainerName="theirs")),
            (400, await create(name="b", multiLingual="no")),
            (400, await create(name="b", description=["x"])),
            (400, await client.post(f"{FIRST}/analyze", json={**analyze, "tasks": unknown, "displayName": {}})),
            (400, await client.post(P, content=b"{")),
            (404, await client.post(f"{P}/nobody/train", json={"tasks": [{"trainingModelName": "m"}]})),
            (400, await client.post(f"{P}/MyProject/train", json={"tasks": []})),
            (404, await client.post(f"{P}/MyProject/publish", json={"tasks": [{"trainingModelName": "m"}]})),
            (404, await client.get(f"{P}/MyProject/train/jobs/x")),
            (404, await client.get(f"{P}/MyProject/publish/jobs/x")),
            (404, await client.get(f"{P}/MyProject/evaluation")),
            (404, await client.get(f"{FIRST}/analyze/jobs/x")),
            (404, await client.post(f"{FIRST}/analyze", json={**analyze, "tasks": unknown})),
            (400, await client.post(f"{FIRST}/analyze", json={**analyze, "tasks": {}})),
            (400, await client.post(f"{FIRST}/analyze", json={**analyze, "tasks": {"sentimentAnalysisTasks": [{}]}})),
            (400, await client.post(f"{FIRST}/analyze", json={"analysisInput": {"documents": []}, "tasks": unknown})),
            (404, await client.post(f"{BRIDGE}/analyze", json=bridge("customMultiClassificationTasks", "no", "x"))),
            (
                400,
                await client.post(f"{BRIDGE}/analyze", json=bridge("customMultiClassificationTasks", "tickets", "x")),
            ),
        ):
            assert response.status_code == status, (response.request.url, response.text)
            assert response.json()["error"]["code"]
