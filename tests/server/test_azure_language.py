import re
from pathlib import Path
from typing import Any

import orjson
import pytest

from service.model.classifier import Classifier
from service.server.azure_language import VERSIONS
from service.server.azure_language_requests import LANGUAGES
from tests.server.conftest import BILLING, CRASH, JOBS, VERSION, Serve, Server, submission

GREETING = "good morning"


async def refusal(server: Server, body: object, status: int = 400) -> tuple[str, str | None, str]:
    """The code, the inner code and the inner message (or the message) that a submission is refused with."""
    content = body if isinstance(body, bytes) else orjson.dumps(body)
    response = await server.client.post(JOBS, params={"api-version": VERSION}, content=content)
    assert response.status_code == status, response.text
    assert response.headers["content-type"].startswith("application/json")
    assert response.headers["apim-request-id"]
    error = response.json()["error"]
    inner = error.get("innererror", {})
    return error["code"], inner.get("code"), inner.get("message", error["message"])


def item(shown: dict[str, Any], index: int = 0) -> dict[str, Any]:
    one: dict[str, Any] = shown["tasks"]["items"][index]
    return one


def documents(shown: dict[str, Any], index: int = 0) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = item(shown, index)["results"]["documents"]
    return found


# A job from its submission to its results


async def test_a_submission_is_answered_with_where_to_ask_and_nothing_else(server: Server) -> None:
    response = await server.client.post(JOBS, params={"api-version": VERSION}, json=submission(BILLING))
    assert response.status_code == 202
    assert response.content == b""
    place = rf"http://server:8080{JOBS}/[0-9a-f-]{{36}}\?api-version={VERSION}"
    assert re.fullmatch(place, response.headers["operation-location"])
    assert response.headers["apim-request-id"]
    assert "retry-after" not in response.headers


async def test_a_single_label_job_gives_each_document_its_one_class(server: Server, models: Path) -> None:
    location = await server.submit(submission(BILLING, CRASH))
    shown = await server.ended(location)
    scores = Classifier.load(models / "tickets").classify([BILLING, CRASH])
    moment = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z"
    assert re.fullmatch(moment, item(shown).pop("lastUpdateDateTime"))
    for name in ("createdDateTime", "lastUpdatedDateTime", "expirationDateTime"):
        assert re.fullmatch(moment, shown.pop(name))
    assert shown == {
        "jobId": location.split("/")[-1].split("?")[0],
        "displayName": "a job",
        "status": "succeeded",
        "errors": [],
        "tasks": {
            "completed": 1,
            "failed": 0,
            "inProgress": 0,
            "total": 1,
            "items": [
                {
                    "kind": "CustomSingleLabelClassificationLROResults",
                    "taskName": "only",
                    "status": "succeeded",
                    "results": {
                        "documents": [
                            {
                                "id": str(number),
                                "class": [{"category": best.name, "confidenceScore": best.score}],
                                "warnings": [],
                            }
                            for number, (best, *_) in enumerate(scores)
                        ],
                        "errors": [],
                        "projectName": "tickets",
                        "deploymentName": "production",
                    },
                }
            ],
        },
    }
    assert [one["class"][0]["category"] for one in documents(await server.poll(location))] == ["billing", "crash"]


async def test_a_multi_label_job_gives_each_document_the_classes_that_apply(server: Server) -> None:
    both = f"{BILLING} and {CRASH}"
    shown = await server.ended(await server.submit(submission(both, CRASH, GREETING, project="topics", kind="Multi")))
    assert item(shown)["kind"] == "CustomMultiLabelClassificationLROResults"
    found = [sorted(one["category"] for one in document["class"]) for document in documents(shown)]
    assert found == [["billing", "crash"], ["crash"], []]


async def test_a_job_may_have_several_tasks_each_echoed_by_its_name(server: Server) -> None:
    single, multi = submission("x")["tasks"][0], submission("x", project="topics", kind="Multi")["tasks"][0]
    tasks = [{**single, "taskName": "queue"}, {**multi, "taskName": "topics"}]
    shown = await server.ended(await server.submit(submission(CRASH, tasks=tasks)))
    assert [(one["taskName"], one["kind"][:-10], one["status"]) for one in shown["tasks"]["items"]] == [
        ("queue", "CustomSingleLabelClassification", "succeeded"),
        ("topics", "CustomMultiLabelClassification", "succeeded"),
    ]
    assert shown["tasks"]["completed"] == shown["tasks"]["total"] == 2
    assert documents(shown, 0)[0]["class"][0]["category"] == documents(shown, 1)[0]["class"][0]["category"] == "crash"


async def test_names_that_were_not_given_are_not_made_up(server: Server) -> None:
    body = submission(BILLING)
    del body["displayName"], body["tasks"][0]["taskName"]
    shown = await server.ended(await server.submit(body))
    assert "displayName" not in shown
    assert "taskName" not in item(shown)


async def test_parameters_are_read_in_both_spellings(server: Server) -> None:
    body = submission(BILLING)
    body["tasks"][0]["parameters"] = {"project-name": "tickets", "deployment-name": "production"}
    shown = await server.ended(await server.submit(body))
    assert item(shown)["results"]["projectName"] == "tickets"
    assert item(shown)["results"]["deploymentName"] == "production"


@pytest.mark.parametrize("version", sorted(VERSIONS))
async def test_every_version_is_answered_in_the_same_way(server: Server, version: str) -> None:
    response = await server.client.post(JOBS, params={"api-version": version}, json=submission(BILLING))
    location = response.headers["operation-location"]
    assert location.endswith(f"?api-version={version}")
    assert documents(await server.ended(location))[0]["class"][0]["category"] == "billing"


async def test_a_job_nobody_has_begun_is_not_started(serve: Serve) -> None:
    async with serve(works=False) as server:
        shown = await server.poll(await server.submit(submission(BILLING)))
    assert shown["status"] == "notStarted"
    assert shown["errors"] == []
    assert shown["tasks"] == {"completed": 0, "failed": 0, "inProgress": 1, "total": 1, "items": []}


async def test_a_job_is_running_until_the_least_time_has_passed(serve: Serve) -> None:
    async with serve(least_seconds=10.0) as server:
        location = await server.submit(submission(BILLING))
        await server.idle()
        shown = await server.poll(location)
        assert (shown["status"], shown["tasks"]["items"], shown["tasks"]["inProgress"]) == ("running", [], 1)
        server.clock.now += 10.0
        assert (await server.poll(location))["status"] == "succeeded"


# Pages and statistics


async def test_results_come_in_pages_of_20_with_a_link_to_the_next(server: Server) -> None:
    location = await server.submit(submission(*[f"{BILLING} {n}" for n in range(25)]))
    first = await server.ended(location)
    assert [one["id"] for one in documents(first)] == [str(n) for n in range(20)]
    assert first["nextLink"] == f"{location}&skip=20&top=20"
    second = await server.poll(first["nextLink"])
    assert [one["id"] for one in documents(second)] == [str(n) for n in range(20, 25)]
    assert "nextLink" not in second


async def test_top_and_skip_choose_the_page(server: Server) -> None:
    location = await server.submit(submission(*[f"{BILLING} {n}" for n in range(5)]))
    await server.ended(location)
    shown = await server.poll(location, top="2", skip="1")
    assert [one["id"] for one in documents(shown)] == ["1", "2"]
    assert shown["nextLink"] == f"{location}&skip=3&top=2"
    shown = await server.poll(location, top="2", skip="3")
    assert [one["id"] for one in documents(shown)] == ["3", "4"]
    assert "nextLink" not in shown
    assert documents(await server.poll(location, skip="99")) == []
    assert "nextLink" not in await server.poll(location, top="5")


async def test_statistics_are_of_all_documents_and_follow_through_the_pages(server: Server) -> None:
    texts = [BILLING, "x" * 1000, "y" * 1001, " "]
    location = await server.submit(submission(*texts))
    await server.ended(location)
    shown = await server.poll(location, showStats="True", top="2")
    assert [one["statistics"] for one in documents(shown)] == [
        {"charactersCount": len(BILLING), "transactionsCount": 1},
        {"charactersCount": 1000, "transactionsCount": 1},
    ]
    whole = {"documentsCount": 4, "validDocumentsCount": 3, "erroneousDocumentsCount": 1, "transactionsCount": 4}
    assert item(shown)["results"]["statistics"] == whole
    assert shown["nextLink"] == f"{location}&skip=2&top=2&showStats=true"
    second = await server.poll(shown["nextLink"])
    assert documents(second)[0]["statistics"] == {"charactersCount": 1001, "transactionsCount": 2}
    assert item(second)["results"]["statistics"] == whole
    assert [one["id"] for one in item(second)["results"]["errors"]] == ["3"]


async def test_statistics_are_left_out_unless_asked_for(server: Server) -> None:
    shown = await server.ended(await server.submit(submission(BILLING)))
    assert "statistics" not in item(shown)["results"]
    assert "statistics" not in documents(shown)[0]


@pytest.mark.parametrize(
    "query", ["top=0", "top=-1", "top=x", "top=1.5", "top=", "top=9999999999", "skip=-1", "skip=x", "showStats=maybe"]
)
async def test_a_page_that_cannot_be_is_refused(server: Server, query: str) -> None:
    location = await server.submit(submission(BILLING))
    response = await server.client.get(f"{location}&{query}")
    assert response.status_code == 400
    assert response.json()["error"]["innererror"]["code"] == "InvalidParameterValue"


# Documents that fail


async def test_a_document_that_fails_is_told_apart_and_the_job_succeeds(server: Server) -> None:
    body = submission(BILLING, "nuqneH", " \n", CRASH)
    body["analysisInput"]["documents"][1]["language"] = "tlh"
    shown = await server.ended(await server.submit(body))
    assert shown["status"] == "succeeded"
    assert [one["id"] for one in documents(shown)] == ["0", "3"]
    errors = item(shown)["results"]["errors"]
    assert [(one["id"], one["error"]["code"], one["error"]["innererror"]["code"]) for one in errors] == [
        ("1", "InvalidArgument", "UnsupportedLanguageCode"),
        ("2", "InvalidArgument", "InvalidDocument"),
    ]
    assert "en-us, " in errors[0]["error"]["innererror"]["message"]


async def test_documented_languages_pass_with_and_without_a_region(server: Server) -> None:
    languages = ["en", "en-us", "PT-br", "pt", "zh-hans", "", None, *list(LANGUAGES)[:15]]
    body = submission(*[BILLING] * len(languages))
    for document, language in zip(body["analysisInput"]["documents"], languages, strict=True):
        document["language"] = language
    shown = await server.ended(await server.submit(body), top="25")
    assert item(shown)["results"]["errors"] == []


async def test_a_model_that_cannot_be_loaded_fails_its_task_and_no_other(serve: Serve, tmp_path: Path) -> None:
    single, multi = submission("x")["tasks"][0], submission("x", project="topics", kind="Multi")["tasks"][0]
    data = tmp_path / "data"
    async with serve(folder=data, works=False) as server:
        location = await server.submit(submission(BILLING, tasks=[single, multi]))
        alone = await server.submit(submission(BILLING))
        digest = server.store.projects["tickets"].deployments["production"]
    broken = data / "models" / "broken" / "model.zip"
    broken.parent.mkdir()
    broken.write_bytes((data / "models" / digest / "model.zip").read_bytes()[:100])
    async with serve(folder=data, works=False) as server:
        await server.store.deploy("tickets", "production", "single_label", "broken")
        async with server.jobs.working():
            shown = await server.ended(location)
            assert shown["status"] == "partiallyCompleted"
            assert shown["errors"] == [
                {"code": "InternalServerError", "message": "The task failed.", "target": "#/tasks/items/0"}
            ]
            assert [one["status"] for one in shown["tasks"]["items"]] == ["failed", "succeeded"]
            assert "results" not in item(shown)
            assert (shown["tasks"]["completed"], shown["tasks"]["failed"]) == (1, 1)
            shown = await server.ended(alone)
            assert (shown["status"], shown["tasks"]["failed"]) == ("failed", 1)


# Submissions that are refused


async def test_what_is_not_a_submission_is_refused_by_its_format(server: Server) -> None:
    for body in (
        b"{",
        b"nonsense",
        b"\xff\xfe",
        b'"text"',
        b"[]",
        b"null",
        b"{}",
        b'{"analysisInput": []}',
        b"[" * 9999,
    ):
        code, inner, _ = await refusal(server, body)
        assert (code, inner) == ("InvalidRequest", "InvalidRequestBodyFormat"), body
    assert (await refusal(server, b""))[:2] == ("InvalidRequest", "EmptyRequest")


@pytest.mark.parametrize(
    ("where", "value"),
    [
        (("analysisInput",), "text"),
        (("analysisInput", "documents"), {}),
        (("analysisInput", "documents", 0), "text"),
        (("analysisInput", "documents", 0, "id"), 1),
        (("analysisInput", "documents", 0, "text"), ["text"]),
        (("analysisInput", "documents", 0, "language"), {}),
        (("tasks",), {}),
        (("tasks", 0), "task"),
        (("tasks", 0, "kind"), 1),
        (("tasks", 0, "kind"), None),
        (("tasks", 0, "kind"), "KeyPhraseExtraction"),
        (("tasks", 0, "kind"), "customSingleLabelClassification"),
        (("tasks", 0, "taskName"), 1),
        (("tasks", 0, "parameters"), None),
        (("tasks", 0, "parameters", "projectName"), 1),
        (("displayName",), []),
    ],
)
async def test_what_has_the_wrong_type_is_named(server: Server, where: tuple[str | int, ...], value: object) -> None:
    body: Any = submission(BILLING)
    part = body
    for step in where[:-1]:
        part = part[step]
    part[where[-1]] = value
    code, inner, message = await refusal(server, body)
    assert (code, inner) == ("InvalidRequest", "InvalidRequestBodyFormat")
    named = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in where).removeprefix(".")
    assert named in message
    assert BILLING not in message


async def test_documents_have_to_be_there_few_enough_and_short_enough(server: Server) -> None:
    assert (await refusal(server, submission()))[1] == "MissingInputDocuments"
    assert (await refusal(server, {"analysisInput": {}, "tasks": []}))[1] == "MissingInputDocuments"
    _, inner, message = await refusal(server, submission(*["x"] * 26))
    assert (inner, message) == ("InvalidDocumentBatch", "Max 25 records are permitted.")
    assert (await refusal(server, submission("x" * 62_501, "y" * 62_500)))[1] == "InvalidDocumentBatch"
    await server.submit(submission("x" * 62_500, "🙂" * 62_500))
    await server.submit(submission(*["x"] * 25))


async def test_documents_need_ids_of_their_own_and_text(server: Server) -> None:
    def with_document(**changes: object) -> dict[str, Any]:
        body = submission(BILLING, CRASH)
        body["analysisInput"]["documents"][1].update(changes)
        return body

    assert (await refusal(server, with_document(id="0")))[:2] == ("InvalidRequest", "InvalidDocument")
    assert (await refusal(server, with_document(id="")))[1] == "InvalidDocument"
    assert (await refusal(server, with_document(id=None)))[1] == "InvalidDocument"
    assert (await refusal(server, with_document(text="")))[1] == "InvalidDocumentBatch"
    assert (await refusal(server, with_document(text=None)))[1] == "InvalidDocumentBatch"


async def test_tasks_have_to_be_there_and_few_enough(server: Server) -> None:
    task = submission("x")["tasks"][0]
    for tasks in ([], None, [task] * 26):
        assert (await refusal(server, submission(BILLING, tasks=tasks)))[1] == "InvalidParameterValue"
    await server.submit(submission(BILLING, tasks=[task] * 25))


async def test_projects_and_deployments_have_to_be_there(server: Server) -> None:
    body = submission(BILLING, project="Tickets")  # names are case-sensitive
    assert (await refusal(server, body, 404))[0] == "ProjectNotFound"
    body = submission(BILLING)
    body["tasks"][0]["parameters"]["deploymentName"] = "staging"
    code, _, message = await refusal(server, body, 404)
    assert code == "NotFound"
    assert "staging" in message
    for name in ("projectName", "deploymentName"):
        body = submission(BILLING)
        del body["tasks"][0]["parameters"][name]
        _, inner, message = await refusal(server, body)
        assert inner == "InvalidParameterValue"
        assert name in message


async def test_a_task_of_another_kind_than_its_project_is_refused(server: Server) -> None:
    for project, kind, right in (("tickets", "Multi", "Single"), ("topics", "Single", "Multi")):
        code, inner, message = await refusal(server, submission(BILLING, project=project, kind=kind))
        assert (code, inner) == ("InvalidRequest", "InvalidParameterValue")
        assert f"Custom{right}LabelClassification" in message


async def test_a_body_of_more_than_a_megabyte_is_refused_whether_it_says_so_or_not(server: Server) -> None:
    read = []

    async def chunks() -> Any:
        for number in range(100):
            read.append(number)
            yield b"x" * 65_536

    for content in (b"x" * 1_048_577, chunks()):
        response = await server.client.post(JOBS, params={"api-version": VERSION}, content=content)
        assert response.status_code == 413
        assert response.json()["error"]["code"] == "413"
    assert len(read) == 17  # no further than to know


# Jobs that are gone, and cancelling


@pytest.mark.parametrize("job", ["0" * 36, "nothing", "%00", "%F0%9F%99%82", "a" * 5000, "..;x"])
async def test_an_unknown_job_is_not_found(server: Server, job: str) -> None:
    for method, path in (("GET", job), ("POST", f"{job}:cancel")):
        response = await server.client.request(
            method, f"{JOBS}/{job if method == 'GET' else path}?api-version={VERSION}"
        )
        assert response.status_code == 404
        assert response.json()["error"]["code"] == "NotFound"


async def test_a_job_is_gone_after_a_day(server: Server) -> None:
    location = await server.submit(submission(BILLING))
    shown = await server.ended(location)
    assert shown["createdDateTime"] == "2026-11-18T11:06:40Z"
    assert shown["expirationDateTime"] == "2026-11-19T11:06:40Z"
    server.clock.now += 24 * 3600 - 1
    assert (await server.poll(location))["status"] == "succeeded"
    server.clock.now += 1
    assert (await server.client.get(location)).status_code == 404


async def test_a_job_that_waits_can_be_cancelled_once(serve: Serve) -> None:
    async with serve(works=False) as server:
        location = await server.submit(submission(BILLING))
        place, query = location.split("?")
        response = await server.client.post(f"{place}:cancel?{query}")
        assert (response.status_code, response.headers["operation-location"]) == (202, location)
        shown = await server.poll(location)
        assert (shown["status"], shown["errors"]) == ("cancelled", [])
        assert shown["tasks"] == {"completed": 0, "failed": 0, "inProgress": 0, "total": 1, "items": []}
        response = await server.client.post(f"{place}:cancel?{query}")
        assert (response.status_code, response.json()["error"]["code"]) == (400, "InvalidRequest")
        async with server.jobs.working():
            other = await server.ended(await server.submit(submission(CRASH)))
            assert other["status"] == "succeeded"
            assert (await server.poll(location))["status"] == "cancelled"


async def test_a_job_whose_result_is_not_shown_yet_can_be_cancelled(serve: Serve) -> None:
    async with serve(least_seconds=10.0) as server:
        location = await server.submit(submission(BILLING))
        place, query = location.split("?")
        assert (await server.client.post(f"{place}:cancel?{query}")).status_code == 202
        server.clock.now += 20.0
        assert (await server.poll(location))["status"] == "cancelled"


async def test_a_job_that_has_ended_cannot_be_cancelled(server: Server) -> None:
    location = await server.submit(submission(BILLING))
    await server.ended(location)
    place, query = location.split("?")
    response = await server.client.post(f"{place}:cancel?{query}")
    assert (response.status_code, response.json()["error"]["code"]) == (400, "InvalidRequest")
    assert (await server.poll(location))["status"] == "succeeded"
