"""The two previews of 2021, where they differ from the versions that `test_azure_language` is about."""

from typing import Any

import pytest

from service import settings
from service.documents import Classified, ClassScore, Outcome, Reason, Refused
from service.errors import JobLost, Misconfigured, Rejected, Unavailable
from service.providers.azure_language import AzureLanguage
from service.transport.http import PacedClient
from tests.providers.conftest import Replay, Reply
from tests.providers.contract import document
from tests.providers.test_azure_language import KEY, outcomes_of
from tests.records import numbered

OCTOBER, JULY = "v3.2-preview.2", "v3.1-preview.ct.1"
NAMES: dict[str, dict[str, str]] = {
    OCTOBER: {"project": "tickets", "deployment": "production"},
    JULY: {"model_id": "3fa85f64_MultiClassification_latest"},
}
TASKS = "customMultiClassificationTasks"
both = pytest.mark.parametrize("version", [OCTOBER, JULY])


def preview(version: str, replay: Replay, http: PacedClient) -> AzureLanguage:
    given: dict[str, Any] = {"endpoint": replay.url, "key": KEY, "task": "multi_label", "api_version": version}
    return AzureLanguage(settings.AzureLanguage(provider="azure_language", **given, **NAMES[version]), http)


def job(version: str, items: object, status: str = "succeeded", **more: object) -> dict[str, object]:
    tasks = {TASKS: items}
    return {"status": status, "tasks": tasks if version == OCTOBER else {"tasks": tasks}, **more}


def found(*documents: object, errors: object = ()) -> dict[str, object]:
    return {"results": {"documents": list(documents), "errors": errors}}


def a_class(number: int) -> dict[str, object]:
    return {"id": str(number), "classes": [{"category": "a", "confidenceScore": 0.5}], "warnings": []}


async def polled(version: str, replay: Replay, http: PacedClient, body: object) -> list[Outcome] | None:
    replay.answer(Reply(200, body))
    return await preview(version, replay, http).poll(f"{replay.url}/jobs/1", numbered([document()]))


async def test_in_october_a_single_label_is_an_object(replay: Replay, http: PacedClient) -> None:
    assert await outcomes_of(f"{OCTOBER}/single_label.json", replay, http) == [
        Classified((ClassScore("billing", 0.93),), units=1),
        Classified((ClassScore("crash", 0.88),), units=1),
    ]


async def test_in_october_a_document_may_have_no_label(replay: Replay, http: PacedClient) -> None:
    assert await outcomes_of(f"{OCTOBER}/multi_label.json", replay, http) == [
        Classified((ClassScore("Action", 0.99), ClassScore("Comedy", 0.96)), units=1),
        Classified((), units=1),
    ]


async def test_in_october_the_next_page_is_followed(replay: Replay, http: PacedClient) -> None:
    outcomes = await outcomes_of(f"{OCTOBER}/paged.json", replay, http)
    assert [outcome.classes[0].score for outcome in outcomes if isinstance(outcome, Classified)] == [0.9] * 20 + [
        0.8
    ] * 5
    assert [request.query for request in replay.requests[-2:]] == ["$top=25", "$skip=20&$top=25"]


@pytest.mark.parametrize(("name", "count"), [("multi_label", 2), ("single_label", 1)])
async def test_in_july_results_are_in_tasks_within_tasks(
    name: str, count: int, replay: Replay, http: PacedClient
) -> None:
    outcomes = await outcomes_of(f"{JULY}/{name}.json", replay, http)
    assert len(outcomes) == count
    assert all(isinstance(outcome, Classified) and outcome.classes for outcome in outcomes)


async def test_in_july_statistics_of_all_documents_are_nobodys_units(replay: Replay, http: PacedClient) -> None:
    first, second = await outcomes_of(f"{JULY}/multi_label.json", replay, http)
    assert first == Classified((ClassScore("Class_1", 0.0551877357),), units=1)
    assert second == Classified((ClassScore("Class_1", 0.0551877357), ClassScore("Class_2", 0.0551877357)), units=1)


@both
async def test_a_refused_document_does_not_spoil_the_others(version: str, replay: Replay, http: PacedClient) -> None:
    first, empty = await outcomes_of(f"{version}/document_errors.json", replay, http)
    assert isinstance(first, Classified)
    assert isinstance(empty, Refused)
    assert empty.reason is Reason.REFUSED_BY_CLASSIFIER
    assert empty.message.startswith("InvalidDocument in InvalidArgument: a document is empty")


@both
async def test_a_job_that_fails_is_lost(version: str, replay: Replay, http: PacedClient) -> None:
    with pytest.raises(JobLost, match=r"failed without results \(InternalServerError\)"):
        await outcomes_of(f"{version}/failed.json", replay, http)


@both
@pytest.mark.parametrize("status", ["completed", "succeeded", "Completed", "partiallyCompleted", "partiallySucceeded"])
async def test_a_job_is_done_in_the_words_of_either(
    version: str, status: str, replay: Replay, http: PacedClient
) -> None:
    outcomes = await polled(version, replay, http, job(version, [found(a_class(0))], status))
    assert outcomes == [Classified((ClassScore("a", 0.5),), units=1)]


@both
@pytest.mark.parametrize("status", ["rejected", "cancelled", "failed", "partiallyCompleted", "completed"])
@pytest.mark.parametrize("items", [None, [], [{"state": "failed"}], [{"status": "failed", "results": None}]])
async def test_a_job_without_results_is_told_by_its_codes(
    version: str, status: str, items: object, replay: Replay, http: PacedClient
) -> None:
    errors = [{"code": "InvalidRequest", "message": "No.", "target": f"#/tasks/{TASKS}/0"}]
    with pytest.raises(Rejected, match="InvalidRequest"):
        await polled(version, replay, http, job(version, items, status, errors=errors))


@both
async def test_a_task_says_why_it_failed(version: str, replay: Replay, http: PacedClient) -> None:
    failed = [{"state": "failed", "errors": [{"code": "UnsupportedLanguageCode"}]}]
    with pytest.raises(Rejected, match="UnsupportedLanguageCode: the language"):
        await polled(version, replay, http, job(version, failed, "failed"))


@both
@pytest.mark.parametrize(
    "tasks", [None, [], {"tasks": []}, {"tasks": {TASKS: 5}}, {TASKS: 5, "tasks": 5}, {TASKS: ["?"], "tasks": "?"}]
)
async def test_results_of_another_shape_are_not_taken_for_an_answer(
    version: str, tasks: object, replay: Replay, http: PacedClient
) -> None:
    with pytest.raises(Unavailable):
        await polled(version, replay, http, {"status": "succeeded", "tasks": tasks})


@both
async def test_partial_completion_gives_what_there_is_only_if_it_is_all(
    version: str, replay: Replay, http: PacedClient
) -> None:
    replay.answer(Reply(200, job(version, [found(a_class(0))], "partiallyCompleted")))
    with pytest.raises(JobLost, match="without an answer"):
        await preview(version, replay, http).poll(
            f"{replay.url}/jobs/1", numbered([document("one", 0), document("two", 1)])
        )


@both
async def test_nothing_cancels_a_job(version: str, replay: Replay, http: PacedClient) -> None:
    await preview(version, replay, http).cancel(f"{replay.url}/jobs/1")
    assert not replay.requests


@both
async def test_a_probe_asks_below_the_path_of_the_version(version: str, replay: Replay, http: PacedClient) -> None:
    replay.answer(Reply(404, {"error": {"code": "NotFound"}}))
    await preview(version, replay, http).probe()
    (request,) = replay.requests
    assert (request.method, request.query) == ("GET", "")
    assert request.path.startswith(f"/text/analytics/{version}/analyze/jobs/")


@pytest.mark.parametrize(
    ("version", "code", "setting"),
    [
        (OCTOBER, "404", "check project, deployment"),
        (OCTOBER, "ModelVersionIncorrect", "check deployment"),
        (JULY, "404", "check model_id and endpoint"),
        (JULY, "ModelVersionIncorrect", "check model_id"),
        (JULY, "InvalidParameterValue", "check model_id, task and api_version"),
    ],
)
async def test_a_wrong_name_is_called_as_the_settings_call_it(
    version: str, code: str, setting: str, replay: Replay, http: PacedClient
) -> None:
    replay.answer(Reply(404 if code == "404" else 400, {"error": {"code": code}}))
    with pytest.raises(Misconfigured, match=setting):
        await preview(version, replay, http).submit([document()])


def test_results_name_what_classified(replay: Replay, http: PacedClient) -> None:
    assert preview(OCTOBER, replay, http).model == "tickets/production"
    assert preview(JULY, replay, http).model == "3fa85f64_MultiClassification_latest"
