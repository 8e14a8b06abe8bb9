import asyncio
from pathlib import Path
from typing import Any

import httpx
import pytest

from service.server import azure_language_deployments as deployments
from service.server import azure_language_records as records
from service.server import azure_language_trainings as trainings
from tests.server.conftest import BILLING, MULTI, SINGLE, Serve, Server, submission

BASE = "/language/authoring/analyze-text/projects"
VERSION = {"api-version": "2023-04-01"}
JOB = "/language/analyze-text/jobs/00000000-0000-0000-0000-000000000000"
PROJECT = {
    "projectKind": "CustomMultiLabelClassification",
    "storageInputContainerName": "c",
    "projectName": "p",
    "language": "en-us",
    "multilingual": False,
    "description": "tickets",
}


def labelled(folder: Path) -> Path:
    """A container with the documents that `exported` labels."""
    folder.mkdir(exist_ok=True)
    for number, row in enumerate(MULTI):
        (folder / f"{number}.txt").write_text(row.text, encoding="utf-8")
    for number, row in enumerate(SINGLE * 3):
        (folder / f"single-{number}.txt").write_text(row.text, encoding="utf-8")
    return folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return labelled(tmp_path / "container")


@pytest.fixture
def serve_it(serve: Serve, folder: Path) -> Any:
    return lambda **more: serve(containers=[f"c={folder}"], **more)


def exported(*, single: bool = False, **changes: Any) -> dict[str, Any]:
    """A project with its labels, as it is imported."""
    documents: list[dict[str, Any]] = []
    for number, row in enumerate(SINGLE * 3 if single else MULTI):
        classes = [{"category": label} for label in row.labels]
        named = {"class": classes[0]} if single else {"classes": classes}
        dataset = "Test" if number % 4 == 3 else "Train"
        location = f"{'single-' if single else ''}{number}.txt"
        documents.append({"location": location, "language": "en-us", "dataset": dataset, **named})
    kind = "CustomSingleLabelClassification" if single else "CustomMultiLabelClassification"
    return {
        "projectFileVersion": "2022-05-01",
        "stringIndexType": "Utf16CodeUnit",
        "metadata": {**PROJECT, "projectKind": kind},
        "assets": {"projectKind": kind, "classes": [], "documents": documents},
        **changes,
    }


async def ask(server: Server, method: str, path: str, body: object = None, **query: str) -> httpx.Response:
    return await server.client.request(method, f"{BASE}{path}", params={**VERSION, **query}, json=body)


async def ended(server: Server, response: httpx.Response) -> dict[str, Any]:
    assert response.status_code == 202, response.text
    while True:
        shown: dict[str, Any] = (await server.client.get(response.headers["operation-location"])).json()
        if shown["status"] not in {"notStarted", "running"}:
            return shown
        await asyncio.sleep(0.01)


async def trained(server: Server, label: str = "m1", *, single: bool = False, **options: Any) -> dict[str, Any]:
    assert (await ended(server, await ask(server, "POST", "/p/:import", exported(single=single))))[
        "status"
    ] == "succeeded"
    asked = {"modelLabel": label, "trainingConfigVersion": "2022-05-01", **options}
    return await ended(server, await ask(server, "POST", "/p/:train", asked))


async def test_what_is_trained_and_deployed_is_answered_from_at_once(serve_it: Any) -> None:
    async with serve_it() as server:
        done = await trained(server, evaluationOptions={"kind": "manual"})
        assert (done["status"], done["result"]["trainingStatus"]["percentComplete"]) == ("succeeded", 100)
        listed = (await ask(server, "GET", "/p/models")).json()["value"]
        assert [(one["label"], one["modelTrainingConfigVersion"]) for one in listed] == [("m1", "2022-05-01")]
        summary = (await ask(server, "GET", "/p/models/m1/evaluation/summary-result")).json()
        assert summary["evaluationOptions"] == {"kind": "manual"}
        found = summary["customMultiLabelClassificationEvaluation"]
        assert set(found["classes"]) == {"account", "billing", "crash"}
        assert "confusionMatrix" not in found
        results = (await ask(server, "GET", "/p/models/m1/evaluation/result", stringIndexType="Utf16CodeUnit")).json()
        expected = [one for number, one in enumerate(MULTI) if number % 4 == 3]
        assert len(results["value"]) == len(expected)
        first = next(one for one in results["value"] if one["location"] == "3.txt")
        assert first["customMultiLabelClassificationResult"]["expectedClasses"] == list(MULTI[3].labels)
        await ended(server, await ask(server, "PUT", "/p/deployments/d", {"trainedModelLabel": "m1"}))
        shown = (await ask(server, "GET", "/p/deployments/d")).json()
        assert (shown["deploymentName"], shown["modelId"]) == ("d", listed[0]["modelId"])
        body = submission(BILLING, project="p", kind="Multi")
        body["tasks"][0]["parameters"]["deploymentName"] = "d"
        answered = await server.ended(await server.submit(body))
        (document,) = answered["tasks"]["items"][0]["results"]["documents"]
        assert [one["category"] for one in document["class"]] == ["billing"]
        taken = await ask(server, "DELETE", "/p/models/m1")
        assert (taken.status_code, taken.json()["error"]["code"]) == (409, "Conflict")
        await ended(server, await ask(server, "DELETE", "/p/deployments/d"))
        assert (await ask(server, "DELETE", "/p/models/m1")).status_code == 204
        assert (await server.client.post("/language/analyze-text/jobs", params=VERSION, json=body)).status_code == 404


async def test_one_label_each_has_a_confusion_matrix_in_percent_of_its_rows(serve_it: Any) -> None:
    async with serve_it() as server:
        split = {"kind": "percentage", "trainingSplitPercentage": 10, "testingSplitPercentage": 90}
        few = await trained(server, single=True, evaluationOptions=split)
        assert (few["status"], few["errors"][0]["code"]) == ("failed", "InvalidArgument")
        await trained(server, single=True, evaluationOptions={"kind": "manual"})
        summary = (await ask(server, "GET", "/p/models/m1/evaluation/summary-result")).json()
    matrix = summary["customSingleLabelClassificationEvaluation"]["confusionMatrix"]
    assert all(sum(cell["normalizedValue"] for cell in row.values()) == pytest.approx(100) for row in matrix.values())
    assert sum(cell["rawValue"] for row in matrix.values() for cell in row.values()) == len(SINGLE) * 3 // 4


@pytest.mark.parametrize(("version", "kind"), [("2022-05-01", "custom"), ("2023-04-01", "Custom")])
async def test_kinds_are_spelt_as_the_version_has_it(server: Server, version: str, kind: str) -> None:
    made = await ask(server, "PATCH", "/p", {**PROJECT, "projectKind": "customMultiLabelClassification"})
    assert made.status_code == 201
    shown = (await ask(server, "GET", "/p", **{"api-version": version})).json()
    assert shown["projectKind"] == f"{kind}MultiLabelClassification"


async def test_projects_are_made_changed_listed_exported_and_deleted(serve_it: Any) -> None:
    async with serve_it() as server:
        assert (await ask(server, "PATCH", "/p", PROJECT)).status_code == 201
        changed = await ask(server, "PATCH", "/p", {"description": "other"})
        assert (changed.status_code, changed.json()["description"], changed.json()["language"]) == (
            200,
            "other",
            "en-us",
        )
        given = exported()
        await ended(server, await ask(server, "POST", "/p/:import", given))
        job = await ended(server, await ask(server, "POST", "/p/:export", stringIndexType="Utf16CodeUnit"))
        got = (await server.client.get(job["resultUrl"])).json()
        assert got["assets"]["documents"] == given["assets"]["documents"]
        assert got["metadata"]["projectName"] == "p"
        for name in ("a", "b"):
            await ask(server, "PATCH", f"/{name}", {**PROJECT, "projectName": name})
        page = (await ask(server, "GET", "", maxpagesize="2")).json()
        rest = (await server.client.get(page["nextLink"])).json()
        assert [one["projectName"] for one in page["value"] + rest["value"]] == ["p", "a", "b"]
        assert "nextLink" not in rest
        gone = await ended(server, await ask(server, "DELETE", "/p"))
        assert gone["status"] == "succeeded"
        assert (await ask(server, "GET", "/p")).json()["error"]["code"] == "ProjectNotFound"


async def test_deployments_swap_their_models(serve_it: Any) -> None:
    async with serve_it() as server:
        await trained(server, "m1", evaluationOptions={"kind": "manual"})
        await trained(server, "m2")
        for name, label in (("one", "m1"), ("two", "m2")):
            await ended(server, await ask(server, "PUT", f"/p/deployments/{name}", {"trainedModelLabel": label}))
        before = dict(server.store.projects["p"].deployments)
        names = {"firstDeploymentName": "one", "secondDeploymentName": "two"}
        await ended(server, await ask(server, "POST", "/p/deployments/:swap", names))
        assert server.store.projects["p"].deployments == {"one": before["two"], "two": before["one"]}


async def test_a_training_is_given_up_listed_and_one_at_a_time(serve_it: Any) -> None:
    async with serve_it(works=False) as server:
        await ask(server, "POST", "/p/:import", exported())
        begun = await ask(server, "POST", "/p/:train", {"modelLabel": "m"})
        second = await ask(server, "POST", "/p/:train", {"modelLabel": "n"})
        assert (second.status_code, second.json()["error"]["code"]) == (409, "Conflict")
        job_id = begun.headers["operation-location"].rpartition("/")[2].partition("?")[0]
        assert (await ask(server, "POST", f"/p/train/jobs/{job_id}/:cancel")).status_code == 202
        listed = (await ask(server, "GET", "/p/train/jobs")).json()["value"]
        assert [(one["jobId"], one["status"]) for one in listed] == [(job_id, "cancelled")]
        assert (await ask(server, "POST", f"/p/train/jobs/{job_id}/:cancel")).status_code == 400


async def test_of_trainings_asked_for_at_once_one_begins(serve_it: Any) -> None:
    async with serve_it(works=False) as server:
        await ask(server, "POST", "/p/:import", exported())
        begun = await asyncio.gather(*(ask(server, "POST", "/p/:train", {"modelLabel": f"m{n}"}) for n in range(8)))
        assert sorted(one.status_code for one in begun) == [202, *[409] * 7]
        assert len((await ask(server, "GET", "/p/train/jobs")).json()["value"]) == 1


async def test_what_is_deployed_while_its_project_or_model_goes_is_gone_or_there(serve_it: Any) -> None:
    async with serve_it() as server:
        for path in ("/p", "/p/models/m1"):
            await trained(server)
            deploying = [ask(server, "PUT", f"/p/deployments/d{n}", {"trainedModelLabel": "m1"}) for n in range(6)]
            answers = await asyncio.gather(*deploying[:3], ask(server, "DELETE", path), *deploying[3:])
            assert {one.status_code for one in answers} <= {202, 204, 404, 409}
            listed = await ask(server, "GET", "/p/deployments")
            told = {one["deploymentName"] for one in listed.json().get("value", ())}
            there = server.store.projects.get("p")
            assert told == (set(there.deployments) if there else set())
            models = (await ask(server, "GET", "/p/models")).json().get("value", [])
            assert models or not told


async def test_a_project_knows_nothing_of_one_that_had_its_name(serve_it: Any) -> None:
    async with serve_it(works=False) as server:
        await ask(server, "POST", "/p/:import", exported())
        begun = await ask(server, "POST", "/p/:train", {"modelLabel": "m"})
        assert (await ask(server, "DELETE", "/p")).status_code == 202
        await ask(server, "POST", "/p/:import", exported())
        assert (await ask(server, "GET", "/p/train/jobs")).json()["value"] == []
        assert (await server.client.get(begun.headers["operation-location"])).status_code == 404
        async with server.jobs.working():
            await server.idle()
        assert (await ask(server, "GET", "/p/models")).json()["value"] == []


async def test_a_training_left_unfinished_is_done_by_the_next_run_and_all_is_kept(serve_it: Any) -> None:
    async with serve_it(works=False) as server:
        await ask(server, "POST", "/p/:import", exported())
        begun = await ask(server, "POST", "/p/:train", {"modelLabel": "m"})
    async with serve_it() as server:
        assert (await ended(server, begun))["status"] == "succeeded"
        await ended(server, await ask(server, "PUT", "/p/deployments/d", {"trainedModelLabel": "m"}))
    async with serve_it() as server:
        assert [one["label"] for one in (await ask(server, "GET", "/p/models")).json()["value"]] == ["m"]
        assert "d" in server.store.projects["p"].deployments


async def test_a_document_that_is_missing_fails_the_training_by_its_name(serve_it: Any, folder: Path) -> None:
    (folder / "0.txt").unlink()
    async with serve_it() as server:
        failed = await trained(server)
        assert failed["status"] == "failed"
        assert "0.txt" in failed["errors"][0]["message"]


@pytest.mark.parametrize(
    ("method", "path", "rate"), [("PATCH", f"{BASE}/p", 10), ("GET", f"{BASE}/p", 100), ("GET", JOB, 1_000)]
)
async def test_documented_rates_are_kept_where_asked_for(serve: Serve, method: str, path: str, rate: int) -> None:
    async with serve(documented_rates=True) as server:
        answers = [await server.client.request(method, path, params=VERSION, json=PROJECT) for _ in range(rate + 1)]
    assert 429 not in {one.status_code for one in answers[:-1]}
    assert (answers[-1].status_code, answers[-1].json()["error"]["code"]) == (429, "429")
    assert 0 < int(answers[-1].headers["retry-after"]) <= 60


async def test_there_is_an_end_to_projects_models_and_deployments(
    serve_it: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    for room, name in ((records, "PROJECTS"), (trainings, "MODELS"), (deployments, "DEPLOYMENTS")):
        documented = {"PROJECTS": 500, "MODELS": 10, "DEPLOYMENTS": 10}[name]
        assert getattr(room, f"MOST_{name}") == documented
        monkeypatch.setattr(room, f"MOST_{name}", 1)
    async with serve_it() as server:
        await trained(server, "m1")
        await ended(server, await ask(server, "PUT", "/p/deployments/d", {"trainedModelLabel": "m1"}))
        second = exported(metadata={**PROJECT, "projectName": "q"})
        for one_more in (
            await ask(server, "PATCH", "/q", {**PROJECT, "projectName": "q"}),
            await ask(server, "POST", "/q/:import", second),
            await ask(server, "POST", "/p/:train", {"modelLabel": "m2"}),
            await ask(server, "PUT", "/p/deployments/e", {"trainedModelLabel": "m1"}),
        ):
            error = one_more.json()["error"]
            found = (one_more.status_code, error["code"], error["innererror"]["code"])
            assert found == (400, "InvalidRequest", "QuotaExceeded")
        for as_before in (
            await ask(server, "PATCH", "/p", {"description": "other"}),
            await ask(server, "POST", "/p/:train", {"modelLabel": "m1"}),
            await ask(server, "PUT", "/p/deployments/d", {"trainedModelLabel": "m1"}),
        ):
            assert as_before.is_success, as_before.text


@pytest.mark.parametrize(
    "changed",
    [
        {"location": "a b.txt"},
        {"location": "folder/a.txt"},
        {"location": "a.pdf"},
        {"classes": [{"category": "x" * 51}]},
        *({"classes": [{"category": f"a{mark}b"}]} for mark in ":$&%*()+~#/?"),
    ],
)
async def test_documents_and_classes_have_names_as_documented(server: Server, changed: dict[str, Any]) -> None:
    given = exported()
    given["assets"]["documents"][0] |= {"classes": [{"category": "Ünïted, [x] !"}]}
    assert (await ask(server, "POST", "/p/:import", given)).status_code == 202
    given["assets"]["documents"][0] |= changed
    refused = await ask(server, "POST", "/p/:import", given)
    assert (refused.status_code, refused.json()["error"]["innererror"]["code"]) == (400, "InvalidParameterValue")


async def test_a_model_gives_the_labels_back_that_it_was_trained_on(serve_it: Any) -> None:
    async with serve_it() as server:
        await trained(server)
        given, fewer = exported(), exported()
        fewer["assets"]["documents"] = fewer["assets"]["documents"][:3]

        async def labels(**query: str) -> list[Any]:
            asked = await ask(server, "POST", "/p/:export", stringIndexType="Utf16CodeUnit", **query)
            job = await ended(server, asked)
            found: list[Any] = (await server.client.get(job["resultUrl"])).json()["assets"]["documents"]
            return found

        await ended(server, await ask(server, "POST", "/p/:import", fewer))
        assert await labels() == fewer["assets"]["documents"]
        assert await labels(trainedModelLabel="m1") == given["assets"]["documents"]
        assert (await ask(server, "GET", "/p/models/m1")).json()["hasSnapshot"] is True
        loaded = await ask(server, "POST", "/p/models/m1/:load-snapshot")
        assert "/p/models/m1/load-snapshot/jobs/" in loaded.headers["operation-location"]
        assert (await ended(server, loaded))["status"] == "succeeded"
        assert await labels() == given["assets"]["documents"]


async def test_a_model_is_measured_again_on_the_labels_of_today(serve_it: Any) -> None:
    async with serve_it() as server:
        await trained(server, evaluationOptions={"kind": "manual"})

        async def measured() -> tuple[Any, int]:
            summary = (await ask(server, "GET", "/p/models/m1/evaluation/summary-result")).json()
            query = {"stringIndexType": "Utf16CodeUnit"}
            results = (await ask(server, "GET", "/p/models/m1/evaluation/result", **query)).json()["value"]
            return summary["evaluationOptions"], len(results)

        assert await measured() == ({"kind": "manual"}, len(MULTI) // 4)
        halves = {"kind": "percentage", "trainingSplitPercentage": 50, "testingSplitPercentage": 50}
        begun = await ask(server, "POST", "/p/models/m1/:evaluate", halves)
        assert "/p/models/m1/evaluate/jobs/" in begun.headers["operation-location"]
        done = await ended(server, begun)
        assert (done["status"], done["result"]) == (
            "succeeded",
            {
                "evaluationOptions": halves,
                "modelLabel": "m1",
                "trainingConfigVersion": "2022-05-01",
                "percentComplete": 100,
            },
        )
        in_training = sum(number % 4 != 3 for number in range(len(MULTI)))
        assert await measured() == (halves, in_training // 2)
        nothing = exported()
        nothing["assets"]["documents"] = []
        await ended(server, await ask(server, "POST", "/p/:import", nothing))
        failed = await ended(server, await ask(server, "POST", "/p/models/m1/:evaluate", {}))
        assert (failed["status"], failed["errors"][0]["code"]) == ("failed", "InvalidArgument")
        assert await measured() == (halves, in_training // 2)


async def test_a_model_that_is_trained_again_before_it_is_measured_keeps_its_own_evaluation(serve_it: Any) -> None:
    async with serve_it() as server:
        await trained(server)
    async with serve_it(works=False) as server:
        await ask(server, "POST", "/p/:train", {"modelLabel": "m1", "evaluationOptions": {"kind": "manual"}})
        begun = await ask(server, "POST", "/p/models/m1/:evaluate", {})
        async with server.jobs.working():
            assert (await ended(server, begun))["status"] == "cancelled"
        summary = (await ask(server, "GET", "/p/models/m1/evaluation/summary-result")).json()
        assert summary["evaluationOptions"] == {"kind": "manual"}


async def test_a_model_that_is_deleted_while_it_is_measured_does_not_come_back(serve_it: Any) -> None:
    async with serve_it() as server:
        await trained(server)
    async with serve_it(works=False) as server:
        await ask(server, "POST", "/p/models/m1/:evaluate", {})
        await ask(server, "DELETE", "/p/models/m1")
        async with server.jobs.working():
            await server.idle()
        assert (await ask(server, "GET", "/p/models")).json() == {"value": []}


async def test_a_project_that_is_deleted_gives_its_training_up_and_leaves_nothing(serve_it: Any) -> None:
    async with serve_it(works=False) as server:
        await ask(server, "POST", "/p/:import", exported())
        await ask(server, "POST", "/p/:train", {"modelLabel": "m"})
        await ask(server, "DELETE", "/p")
        assert server.jobs.statistics().waiting == 0
    async with serve_it() as server:
        await server.idle()
        await ask(server, "PATCH", "/p", PROJECT)
        assert (await ask(server, "GET", "/p/models")).json() == {"value": []}


async def test_a_project_tells_when_it_was_trained_and_deployed(serve_it: Any) -> None:
    async with serve_it() as server:
        await ended(server, await ask(server, "POST", "/p/:import", exported()))
        assert not {"lastTrainedDateTime", "lastDeployedDateTime"} & (await ask(server, "GET", "/p")).json().keys()
        await trained(server)
        await ended(server, await ask(server, "PUT", "/p/deployments/d", {"trainedModelLabel": "m1"}))
        shown = (await ask(server, "GET", "/p")).json()
        deployed = (await ask(server, "GET", "/p/deployments/d")).json()
        for when in ("lastTrainedDateTime", "lastDeployedDateTime"):
            assert shown[when] == deployed[when]


async def test_an_operation_is_known_where_it_happened(server: Server) -> None:
    await ask(server, "POST", "/p/:import", exported())
    gone = (await ask(server, "DELETE", "/p")).headers["operation-location"]
    elsewhere = gone.replace("/global/deletion-jobs/", "/p/import/jobs/")
    assert (await server.client.get(gone)).status_code == 200
    assert (await server.client.get(elsewhere)).status_code == 404


async def test_requests_that_make_no_sense_are_refused(serve_it: Any) -> None:
    async with serve_it() as server:
        await ask(server, "PATCH", "/p", PROJECT)
        bad = exported()
        bad["assets"]["documents"][0] = {"location": 1}
        options = {"kind": "percentage", "trainingSplitPercentage": 80, "testingSplitPercentage": 30}
        of_another_kind = exported()
        of_another_kind["assets"]["projectKind"] = "CustomSingleLabelClassification"
        swapped = {"firstDeploymentName": "a", "secondDeploymentName": "b"}
        for status, response in (
            (400, await ask(server, "PATCH", "/a b", PROJECT)),
            (400, await ask(server, "PATCH", "/q", {**PROJECT, "projectName": "other"})),
            (400, await ask(server, "PATCH", "/q", {**PROJECT, "projectName": "q", "projectKind": "CustomEntity"})),
            (400, await ask(server, "PATCH", "/q", {**PROJECT, "projectName": "q", "language": "tlh"})),
            (400, await ask(server, "PATCH", "/p", {"projectKind": "CustomSingleLabelClassification"})),
            (400, await ask(server, "POST", "/p/:import", bad)),
            (400, await ask(server, "POST", "/p/:import", {"metadata": PROJECT})),
            (400, await ask(server, "POST", "/p/:export")),
            (400, await ask(server, "POST", "/p/:train", {"modelLabel": "a b"})),
            (400, await ask(server, "POST", "/p/:train", {"modelLabel": "m", "trainingConfigVersion": "1999"})),
            (400, await ask(server, "POST", "/p/:train", {"modelLabel": "m", "evaluationOptions": options})),
            (404, await ask(server, "POST", "/nobody/:train", {"modelLabel": "m"})),
            (404, await ask(server, "PUT", "/p/deployments/d", {"trainedModelLabel": "m"})),
            (400, await ask(server, "PUT", "/p/deployments/d", {"trainedModelLabel": 1})),
            (400, await ask(server, "PUT", "/p/deployments/d d", {"trainedModelLabel": "m"})),
            (400, await ask(server, "POST", "/p/deployments/:swap", {})),
            (404, await ask(server, "POST", "/p/deployments/:swap", swapped)),
            (404, await ask(server, "POST", "/p/models/m/:load-snapshot")),
            (404, await ask(server, "POST", "/p/models/m/:evaluate", {})),
            (404, await ask(server, "GET", "/p/models/m/evaluate/jobs/x")),
            (404, await ask(server, "POST", "/p/:export", stringIndexType="Utf16CodeUnit", trainedModelLabel="m")),
            (400, await ask(server, "POST", "/p/:export", stringIndexType="Bytes")),
            (400, await ask(server, "POST", "/p/:import", of_another_kind)),
            (400, await ask(server, "POST", "/p/:train", {"modelLabel": "m", "trainingConfigVersion": ["latest"]})),
            (400, await ask(server, "POST", "/p/:train", {"modelLabel": "m", "evaluationOptions": {"kind": [1]}})),
            (400, await ask(server, "GET", "", maxpagesize="0")),
            (404, await ask(server, "GET", "/p/models/m")),
            (404, await ask(server, "GET", "/p/import/jobs/x")),
            (404, await ask(server, "GET", "/p/train/jobs/x")),
            (400, await ask(server, "GET", "", top="many")),
            (400, await ask(server, "GET", "", **{"api-version": "2019-01-01"})),
        ):
            assert response.status_code == status, (response.request.url, response.text)
            error = response.json()["error"]
            unknown = "ProjectNotFound" if "/nobody" in response.request.url.path else "NotFound"
            assert (error["code"], bool(error["message"])) == ("InvalidRequest" if status == 400 else unknown, True)
            if status == 400:
                assert error["innererror"]["code"] == "InvalidParameterValue"
            assert len(response.headers["apim-request-id"]) == 36
        stranger = {"Ocp-Apim-Subscription-Key": "wrong"}
        locked = await server.client.get(f"{BASE}/p", params=VERSION, headers=stranger)
        assert (locked.status_code, locked.json()["error"]["code"]) == (401, "401")
        for what in ("languages", "training-config-versions"):
            found = await ask(server, "GET", f"/global/{what}", projectKind="CustomMultiLabelClassification")
            assert found.json()["value"]


async def test_a_project_without_a_deployment_is_known_and_cannot_be_asked(serve_it: Any) -> None:
    async with serve_it() as server:
        await ask(server, "PATCH", "/p", PROJECT)
        given = submission("x", project="p", kind="Multi")
        later = await server.client.post("/language/analyze-text/jobs", params=VERSION, json=given)
        parameters = {"project-name": "p", "deployment-name": "production"}
        given["tasks"] = {"customMultiClassificationTasks": [{"parameters": parameters}]}
        earlier = await server.client.post("/text/analytics/v3.2-preview.2/analyze", json=given)
        for response in (later, earlier):
            assert response.status_code == 404
            told = {"code": "NotFound", "message": "Project 'p' has no deployment 'production'."}
            assert response.json()["error"] == told


async def test_languages_are_listed_by_the_codes_that_are_documented(serve_it: Any) -> None:
    async with serve_it() as server:
        listed = await ask(server, "GET", "/global/languages", projectKind="CustomMultiLabelClassification")
    codes = [one["languageCode"] for one in listed.json()["value"]]
    assert len(codes) == 93
    assert {"en-us", "pt-br", "pt-pt", "zh-hans"} < set(codes)
    assert not {"en", "pt", "zh"} & set(codes)
