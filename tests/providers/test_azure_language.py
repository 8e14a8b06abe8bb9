import asyncio
import logging
import ssl
import traceback
from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextlib import suppress
from typing import Any

import pytest
import trustme

from service import settings
from service.documents import Classified, ClassScore, Document, Outcome, Position, Reason, Record, Refused
from service.errors import CallFailed, JobLost, Misconfigured, Rejected, Throttled, Unavailable
from service.providers.azure_language import AzureLanguage
from service.transport.http import PacedClient
from tests.providers.conftest import Replay, Reply, client
from tests.providers.documented import Documented, files
from tests.providers.networks import bystander, listening, raw
from tests.records import numbered

KEY = "4n4zur3k3yth4t1sn0tt0b3s33n"
JOBS = "/language/analyze-text/jobs"
JOB = f"http://{{host}}{JOBS}/0001?api-version=2023-04-01"
ACCEPTED = Reply(202, headers={"Operation-Location": JOB})
HTML = b"<html><body>Please log in</body></html>"
IS_HTML = {"Content-Type": "text/html"}


def document(
    text: str = "I was charged twice.", number: int = 0, name: str = "T-1", language: str | None = None
) -> Document:
    record = Record(Position("tickets.incoming", 3, 800 + number), 0, None, b"")
    return Document(record, name, text, language, 0.0)


def azure(endpoint: str, http: PacedClient, **changes: Any) -> AzureLanguage:
    given: dict[str, Any] = {
        "provider": "azure_language",
        "endpoint": endpoint,
        "key": KEY,
        "project": "tickets",
        "deployment": "production",
        "task": "single_label",
    }
    return AzureLanguage(settings.AzureLanguage(**given | changes), http)


def job_at(replay: Replay) -> str:
    return JOB.replace("{host}", replay.host)


def answer(number: object, *classes: tuple[object, object], **more: object) -> dict[str, object]:
    found = [{"category": name, "confidenceScore": score} for name, score in classes]
    return {"id": number, "class": found, "warnings": [], **more}


def finished(
    *answers: object, errors: Iterable[object] = (), status: object = "succeeded", **more: object
) -> dict[str, object]:
    results = {"documents": list(answers), "errors": list(errors), "projectName": "tickets"}
    item = {"kind": "CustomSingleLabelClassificationLROResults", "status": "succeeded", "results": results}
    return {"jobId": "0001", "status": status, "errors": [], "tasks": {"items": [item]}, **more}


def ended(*codes: str, status: str = "failed") -> dict[str, object]:
    errors = [{"code": code, "message": "No.", "target": "#/tasks/items/0"} for code in codes]
    return {"jobId": "0001", "status": status, "errors": errors, "tasks": {"items": [{"status": "failed"}]}}


def fault(code: str, inner: str = "", message: str = "No.") -> dict[str, object]:
    error: dict[str, object] = {"code": code, "message": message}
    if inner:
        error["innererror"] = {"code": inner, "message": message}
    return error


async def polled(replay: Replay, http: PacedClient, body: object, *documents: Document) -> list[Outcome] | None:
    replay.answer(Reply(200, body))
    return await azure(replay.url, http).poll(job_at(replay), numbered(documents or [document()]))


# The documented examples


KINDS = {
    "CustomSingleLabelClassification": "single_label",
    "CustomMultiLabelClassification": "multi_label",
    "customSingleClassificationTasks": "single_label",
    "customClassificationTasks": "single_label",
    "customMultiClassificationTasks": "multi_label",
}
"""The tasks of all dialects."""


def documents_of(documented: Documented) -> list[Document]:
    given = (documented.requests[0]["body"] or {}).get("analysisInput", {}).get("documents", [{"text": "-"}])
    return [document(each["text"], number, language=each.get("language")) for number, each in enumerate(given)]


def provider_of(documented: Documented, replay: Replay, http: PacedClient) -> AzureLanguage:
    """One that sends what the file has sent first."""
    replay.answer(*documented.replies)
    changes: dict[str, Any] = {"api_version": documented.version}
    if documented.requests[0]["body"]:
        tasks = documented.requests[0]["body"]["tasks"]
        (kind, (task,)), *_ = tasks.items() if isinstance(tasks, dict) else [(tasks[0]["kind"], tasks)]
        names = {name.replace("-n", "N"): value for name, value in task["parameters"].items()}
        changes |= {
            "project": names.get("projectName"),
            "deployment": names.get("deploymentName"),
            "model_id": names.get("modelId"),
            "task": KINDS[kind],
        }
    return azure(replay.url, http, **changes)


@pytest.mark.parametrize("name", files("azure_language"))
async def test_the_requests_are_those_documented(name: str, replay: Replay, http: PacedClient) -> None:
    documented = Documented.read(name)
    provider, documents = provider_of(documented, replay, http), documents_of(documented)
    job = f"{replay.url}{documented.requests[0]['path']}?{documented.requests[0]['query']}"
    for request in documented.requests:
        with suppress(CallFailed):
            if request["path"].endswith(":cancel"):
                await provider.cancel(job)
            elif request["method"] == "POST":
                job = await provider.submit(documents)
            elif "skip=" not in request["query"]:  # later pages are asked for by the same poll as the first
                await provider.poll(job, numbered(documents))
    documented.check(replay, KEY)


async def outcomes_of(name: str, replay: Replay, http: PacedClient) -> list[Outcome]:
    documented = Documented.read(f"azure_language/{name}")
    provider, documents = provider_of(documented, replay, http), documents_of(documented)
    job = await provider.submit(documents)
    while (outcomes := await provider.poll(job, numbered(documents))) is None:
        pass
    return outcomes


async def test_a_single_label_job_gives_one_class_a_document(replay: Replay, http: PacedClient) -> None:
    assert await outcomes_of("2023-04-01/single_label.json", replay, http) == [
        Classified((ClassScore("billing", 0.93),), units=1),
        Classified((ClassScore("crash", 0.88),), units=1),
        Classified((ClassScore("account", 0.71),), units=1),
    ]
    assert len(replay.requests) == 4


@pytest.mark.parametrize("version", ["2022-05-01", "2023-04-01"])
async def test_a_multi_label_job_gives_classes_best_first(version: str, replay: Replay, http: PacedClient) -> None:
    first, *others = await outcomes_of(f"{version}/multi_label.json", replay, http)
    assert first == Classified((ClassScore("Action", 0.99), ClassScore("Comedy", 0.96)), units=1)
    assert all(other == Classified((), units=1) for other in others)


async def test_results_are_gathered_from_all_pages(replay: Replay, http: PacedClient) -> None:
    assert await outcomes_of("2023-04-01/paged.json", replay, http) == [
        Classified((ClassScore("Drama", 0.81),), units=1),
        Classified((ClassScore("Comedy", 0.62), ClassScore("Drama", 0.55)), units=1),
        Classified((), units=1),
    ]


async def test_a_refused_document_does_not_spoil_the_others(replay: Replay, http: PacedClient) -> None:
    first, empty, klingon, long_words = await outcomes_of("2023-04-01/document_errors.json", replay, http)
    assert first == Classified((ClassScore("billing", 0.93),), units=1)
    assert isinstance(empty, Refused)
    assert empty.reason is Reason.REFUSED_BY_CLASSIFIER
    assert empty.message.startswith("InvalidDocument in InvalidArgument: a document is empty")
    assert isinstance(klingon, Refused)
    assert "UnsupportedLanguageCode" in klingon.message
    assert long_words == Classified((ClassScore("other", 0.4),), units=1, warnings=("LongWordsInDocument",))


async def test_a_job_that_fails_by_itself_is_lost(replay: Replay, http: PacedClient) -> None:
    with pytest.raises(JobLost, match=r"failed without results \(InternalServerError\)"):
        await outcomes_of("2023-04-01/failed.json", replay, http)


async def test_a_job_can_be_cancelled_and_is_lost_then(replay: Replay, http: PacedClient) -> None:
    documented = Documented.read("azure_language/2023-04-01/cancelled.json")
    provider, documents = provider_of(documented, replay, http), documents_of(documented)
    job = await provider.submit(documents)
    await provider.cancel(job)
    assert await provider.poll(job, numbered(documents)) is None
    with pytest.raises(JobLost, match="cancelled"):
        await provider.poll(job, numbered(documents))


REFUSALS: list[tuple[type[CallFailed], float | None, str]] = [
    (Misconfigured, None, "401.*check key.*endpoint"),
    (Throttled, 3600.0, "403.*Out of call volume quota"),
    (Misconfigured, None, "404 ProjectNotFound.*project, deployment.*endpoint"),
    (Unavailable, None, "408 Timeout"),
    (Rejected, None, "400 InvalidDocumentBatch in InvalidRequest: a document is empty, or there are too many"),
    (Misconfigured, None, "400 InvalidParameterValue in InvalidRequest: check project, deployment, task and api"),
    (Throttled, 7.0, "429.*rate limit"),
    (Unavailable, None, "500 InternalServerError"),
    (Unavailable, 2.0, "503 ServiceUnavailable"),
]


async def test_documented_refusals_are_named_by_what_to_do_next(replay: Replay, http: PacedClient) -> None:
    documented = Documented.read("azure_language/2023-04-01/refusals.json")
    provider, documents = provider_of(documented, replay, http), documents_of(documented)
    for _, (kind, retry_after, words) in zip(documented.exchanges, REFUSALS, strict=True):
        with pytest.raises(kind, match=words) as caught:
            await provider.submit(documents)
        assert type(caught.value) is kind
        assert getattr(caught.value, "retry_after", None) == retry_after


async def test_a_job_the_service_does_not_know_is_lost(replay: Replay, http: PacedClient) -> None:
    documented = Documented.read("azure_language/2023-04-01/unknown_job.json")
    provider = provider_of(documented, replay, http)
    with pytest.raises(JobLost):
        await provider.poll(
            f"{replay.url}{documented.requests[0]['path']}?api-version=2023-04-01", numbered(documents_of(documented))
        )


# Submitting


async def test_ids_of_documents_may_repeat(replay: Replay, http: PacedClient) -> None:
    documents = [document("billing", 0, name="same"), document("crash", 1, name="same")]
    replay.answer(ACCEPTED, Reply(200, finished(answer("0", ("billing", 0.9)), answer("1", ("crash", 0.8)))))
    provider = azure(replay.url, http)
    outcomes = await provider.poll(await provider.submit(documents), numbered(documents))
    assert outcomes == [Classified((ClassScore(name, score),), 1) for name, score in (("billing", 0.9), ("crash", 0.8))]


async def test_half_an_emoji_is_replaced_and_nothing_else_is_touched(replay: Replay, http: PacedClient) -> None:
    replay.answer(ACCEPTED)
    whole, halved = "Größe 🙂 \u0000", "cut here: \ud83d"
    await azure(replay.url, http).submit([document(whole), document(halved, language="d\ud83d")])
    sent = replay.requests[0].json
    assert isinstance(sent, dict)
    assert sent["analysisInput"]["documents"] == [
        {"id": "0", "text": whole},
        {"id": "1", "text": "cut here: \ufffd", "language": "d\ufffd"},
    ]


async def test_an_endpoint_may_have_a_path_and_a_slash(replay: Replay, http: PacedClient) -> None:
    replay.answer(ACCEPTED)
    await azure(f"{replay.url}/gateway/", http, api_version="2022-05-01").submit([document()])
    assert replay.requests[0].path == f"/gateway{JOBS}"
    assert replay.requests[0].query == "api-version=2022-05-01"


@pytest.mark.parametrize(
    ("reply", "kind", "words"),
    [
        (Reply(401, HTML, IS_HTML), Misconfigured, "check key"),
        (Reply(401, {"statusCode": 401, "message": "Access denied"}), Misconfigured, "Access denied.*check key"),
        (Reply(403, {"error": fault("403", message="Firewall rules.")}), Misconfigured, "Firewall.*key and endpoint"),
        (Reply(403, {"statusCode": 403, "message": "Out of call volume quota."}), Throttled, "quota"),
        (Reply(403, {"error": fault("QuotaExceeded")}), Throttled, "QuotaExceeded"),
        (Reply(404, {"error": fault("404", message="Resource not found")}), Misconfigured, "project.*endpoint"),
        (Reply(404, {"error": fault("DeploymentNotFound")}), Misconfigured, "DeploymentNotFound.*deployment"),
        (Reply(404, HTML, IS_HTML), Misconfigured, "project, deployment.*endpoint"),
        (Reply(400, {"error": fault("ProjectNotFound")}), Misconfigured, "check project"),
        (Reply(400, {"error": fault("InvalidRequest", "InvalidDocument")}), Rejected, "InvalidDocument"),
        (Reply(400, {"error": {"code": "InvalidRequest", "innerError": {"code": "EmptyRequest"}}}), Rejected, "Empty"),
        (Reply(400, {"message": "no envelope"}), Rejected, "400"),
        (Reply(400, HTML, IS_HTML), Unavailable, "something else at endpoint"),
        (Reply(413, HTML, IS_HTML), Rejected, "413"),
        (Reply(422, {"error": fault("UnsupportedLanguageCode")}), Rejected, "language"),
        (Reply(405), Misconfigured, "405.*endpoint and api_version"),
        (Reply(407), Misconfigured, "407.*endpoint"),
        (Reply(410), Misconfigured, "410.*api_version"),
        (Reply(302, headers={"Location": "/login"}), Unavailable, "302: it is not followed, endpoint"),
        (Reply(409), Unavailable, "409"),
        (Reply(429), Throttled, "429"),
        (Reply(502, HTML, IS_HTML), Unavailable, "502"),
        (Reply(504), Unavailable, "504"),
        (Reply(599, b'{"error": 5}'), Unavailable, "599"),
        (Reply(200, HTML, IS_HTML), Unavailable, "no operation-location"),
        (Reply(202), Unavailable, "no operation-location"),
        (Reply(202, headers={"Operation-Location": "http://[::"}), Unavailable, "URL"),
    ],
)
async def test_a_submit_that_fails_says_what_to_do_next(
    reply: Reply, kind: type[CallFailed], words: str, replay: Replay, http: PacedClient
) -> None:
    replay.answer(reply)
    with pytest.raises(kind, match=words) as caught:
        await azure(replay.url, http).submit([document()])
    assert type(caught.value) is kind
    assert str(caught.value).startswith((replay.host, f"endpoint {replay.host}"))


@pytest.mark.parametrize("status", [403, 429, 503])
@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"Retry-After": "7"}, 7.0),
        ({"Retry-After": "0"}, 0.0),
        ({"Retry-After": "1.5"}, 1.5),
        ({"retry-after-ms": "250", "Retry-After": "1"}, 0.25),
        ({"x-ms-retry-after-ms": "90000"}, 90.0),
        ({"Retry-After": "Sat, 21 Nov 2026 09:01:30 GMT", "Date": "Sat, 21 Nov 2026 09:00:00 GMT"}, 90.0),
        ({"Retry-After": "Sat, 21 Nov 2026 08:59:00 GMT", "Date": "Sat, 21 Nov 2026 09:00:00 GMT"}, 0.0),
        ({"Retry-After": "Sat, 21 Nov 2009 09:00:00 GMT"}, 0.0),
        ({"Retry-After": "-3"}, None),
        ({"Retry-After": "nan"}, None),
        ({"Retry-After": "inf"}, None),
        ({"Retry-After": "soon"}, None),
        ({"Retry-After": "Sat, 99 Nov 2026 09:00:00 GMT"}, None),
    ],
)
async def test_the_wait_that_is_asked_for_is_passed_on(
    status: int, headers: Mapping[str, str], seconds: float | None, replay: Replay, http: PacedClient
) -> None:
    replay.answer(Reply(status, {"error": fault("QuotaExceeded")}, headers))
    with pytest.raises((Throttled, Unavailable)) as caught:
        await azure(replay.url, http).submit([document()])
    assert isinstance(caught.value, Throttled | Unavailable)
    assert caught.value.retry_after == seconds


# Reading results


async def test_outcomes_are_in_the_order_of_the_documents(replay: Replay, http: PacedClient) -> None:
    documents = [document(f"text {number}", number) for number in range(25)]
    answers = [answer(str(number), (f"class {number}", number / 25)) for number in range(25)]
    shuffled = [answers[number * 7 % 25] for number in range(25)]
    outcomes = await polled(replay, http, finished(*shuffled), *documents)
    assert outcomes == [Classified((ClassScore(f"class {number}", number / 25),), 1) for number in range(25)]


@pytest.mark.parametrize("status", ["notStarted", "running", "RUNNING", "cancelling", "cancelled soon", "InProgress"])
async def test_an_unfinished_job_has_no_outcomes_yet(status: str, replay: Replay, http: PacedClient) -> None:
    assert await polled(replay, http, {"status": status, "tasks": {"items": []}}) is None


@pytest.mark.parametrize("status", ["succeeded", "Succeeded", "completed", "partiallyCompleted", "partiallySucceeded"])
async def test_a_finished_job_has_outcomes_however_it_says_so(status: str, replay: Replay, http: PacedClient) -> None:
    outcomes = await polled(replay, http, finished(answer("0", ("billing", 1)), status=status))
    assert outcomes == [Classified((ClassScore("billing", 1.0),), 1)]


@pytest.mark.parametrize("status", ["failed", "Rejected", "cancelled", "canceled", "partiallyCompleted", "succeeded"])
@pytest.mark.parametrize(
    ("codes", "kind", "words"),
    [
        ([], JobLost, "no code given"),
        (["InternalServerError"], JobLost, "InternalServerError"),
        (["InvalidRequest", "Timeout"], JobLost, "Timeout in InvalidRequest"),
        (["InvalidRequest"], Rejected, "InvalidRequest"),
        (["InvalidArgument"], Rejected, "InvalidArgument"),
        (["Warning", "InvalidDocument"], Rejected, "InvalidDocument"),
        (["InvalidArgument", "DeploymentNotFound"], Misconfigured, "check deployment"),
    ],
)
async def test_a_job_that_ends_without_results_is_told_by_its_codes(
    status: str, codes: list[str], kind: type[CallFailed], words: str, *, replay: Replay, http: PacedClient
) -> None:
    with pytest.raises(kind, match=words) as caught:
        await polled(replay, http, ended(*codes, status=status))
    assert type(caught.value) is kind


async def test_codes_are_read_from_the_task_too(replay: Replay, http: PacedClient) -> None:
    item = {"status": "failed", "error": fault("InvalidRequest", "UnsupportedLanguageCode")}
    with pytest.raises(Rejected, match="UnsupportedLanguageCode in InvalidRequest: the language"):
        await polled(replay, http, {"status": "failed", "tasks": {"items": [item]}})


@pytest.mark.parametrize("name", ["class", "classes", "classifications"])
async def test_every_spelling_of_the_classes_is_read_and_sorted(name: str, replay: Replay, http: PacedClient) -> None:
    scores = [("c", 0.2), ("a", 0.7), ("b", 0.2)]
    classes = [{"category": category, "confidenceScore": score} for category, score in scores]
    (outcome,) = await polled(replay, http, finished({"id": "0", name: classes})) or []
    assert outcome == Classified((ClassScore("a", 0.7), ClassScore("c", 0.2), ClassScore("b", 0.2)), 1)


async def test_a_class_that_is_not_in_a_list_is_read(replay: Replay, http: PacedClient) -> None:
    one = {"id": "0", "classification": {"category": "a", "confidenceScore": 0.5}}
    assert await polled(replay, http, finished(one)) == [Classified((ClassScore("a", 0.5),), 1)]


async def test_no_class_at_all_is_an_answer_even_for_a_single_label(replay: Replay, http: PacedClient) -> None:
    assert await polled(replay, http, finished(answer("0"))) == [Classified((), 1)]


@pytest.mark.parametrize(("length", "units"), [(0, 1), (1, 1), (1000, 1), (1001, 2), (125_000, 125)])
async def test_a_unit_is_a_thousand_characters_begun(
    length: int, units: int, replay: Replay, http: PacedClient
) -> None:
    assert await polled(replay, http, finished(answer("0")), document("ß" * length)) == [Classified((), units)]


async def test_units_the_service_counted_come_before_our_own(replay: Replay, http: PacedClient) -> None:
    statistics = {"charactersCount": 2400, "transactionsCount": 3}
    assert await polled(replay, http, finished(answer("0", statistics=statistics))) == [Classified((), 3)]


@pytest.mark.parametrize(
    "body",
    [
        HTML,
        b'{"status": "succeed',
        b"",
        [],
        {},
        {"status": None},
        {"status": 3},
        {"status": "succeeded"},
        {"status": "succeeded", "tasks": []},
        {"status": "succeeded", "tasks": {"items": ["?"]}},
        {"status": "succeeded", "tasks": {"items": [{"results": []}, {"results": {"errors": []}}]}},
        finished("?"),
        finished(answer("25", ("billing", 0.9))),
        finished(answer(0, ("billing", 0.9))),
        finished(answer(["0"], ("billing", 0.9))),
        finished(answer("0", ("billing", 0.9)), answer("0", ("crash", 0.9))),
        finished(answer("0", ("billing", 0.9)), errors=[{"id": "0", "error": fault("InvalidArgument")}]),
        finished(errors=[{"id": "0"}]),
        finished(errors=[{"id": "25", "error": fault("InvalidArgument")}]),
        finished({"id": "0"}),
        finished({"id": "0", "class": "billing"}),
        finished(answer("0", ("billing", 1.01))),
        finished(answer("0", ("billing", -0.01))),
        finished(answer("0", ("billing", "0.9"))),
        finished(answer("0", ("billing", True))),
        finished(answer("0", ("billing", None))),
        finished(answer("0", ("", 0.9))),
        finished(answer("0", (5, 0.9))),
        finished(answer("0", ("billing", 0.9), warnings=5)),
    ],
)
async def test_results_of_another_shape_are_not_taken_for_an_answer(
    body: object, replay: Replay, http: PacedClient
) -> None:
    with pytest.raises(Unavailable, match="answered with") as caught:
        await polled(replay, http, body)
    assert type(caught.value) is Unavailable


async def test_a_document_without_a_result_is_not_lost(replay: Replay, http: PacedClient) -> None:
    documents = [document("one", 0), document("two", 1)]
    with pytest.raises(JobLost, match=r"tickets\.incoming-3-801 without an answer"):
        await polled(replay, http, finished(answer("0", ("billing", 0.9))), *documents)


@pytest.mark.parametrize("code", ["InternalServerError", "ServiceUnavailable", "Timeout", "TooManyRequests"])
async def test_a_failure_of_the_service_is_not_blamed_on_the_document(
    code: str, replay: Replay, http: PacedClient
) -> None:
    with pytest.raises(JobLost, match=rf"tickets\.incoming-3-800.*{code}"):
        await polled(replay, http, finished(errors=[{"id": "0", "error": fault(code)}]))


async def test_a_wrong_setting_is_not_blamed_on_the_document(replay: Replay, http: PacedClient) -> None:
    with pytest.raises(Misconfigured, match="check deployment"):
        await polled(
            replay, http, finished(errors=[{"id": "0", "error": fault("InvalidArgument", "ModelVersionIncorrect")}])
        )


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, JobLost),
        (401, Misconfigured),
        (403, Misconfigured),
        (404, JobLost),
        (410, JobLost),
        (408, Unavailable),
        (429, Throttled),
        (500, Unavailable),
        (503, Unavailable),
    ],
)
async def test_a_poll_that_fails_never_blames_the_documents(
    status: int, kind: type[CallFailed], replay: Replay, http: PacedClient
) -> None:
    replay.answer(Reply(status, {"error": fault("InvalidRequest", "InvalidDocument")}))
    with pytest.raises(kind) as caught:
        await azure(replay.url, http).poll(job_at(replay), numbered([document()]))
    assert type(caught.value) is kind


async def test_a_page_is_not_asked_for_when_every_answer_is_there(replay: Replay, http: PacedClient) -> None:
    body = finished(answer("0", ("billing", 0.9)), nextLink=f"{JOB}&skip=1")
    assert await polled(replay, http, body) == [Classified((ClassScore("billing", 0.9),), 1)]
    assert len(replay.requests) == 1


async def test_a_page_that_leads_to_itself_is_left(replay: Replay, http: PacedClient) -> None:
    page = Reply(200, finished(answer("0", ("billing", 0.9)), nextLink=f"{JOB}&skip=1"))
    replay.answer(page, page)
    with pytest.raises(Unavailable, match="without an end"):
        await azure(replay.url, http).poll(job_at(replay), numbered([document("one", 0), document("two", 1)]))


async def test_pages_that_lead_nowhere_are_left(replay: Replay, http: PacedClient) -> None:
    pages = [Reply(200, finished(answer("0", ("a", 0.9)), nextLink=f"{JOB}&skip={number}")) for number in range(26)]
    replay.answer(*pages)
    with pytest.raises(Unavailable, match="without an end"):
        await azure(replay.url, http).poll(job_at(replay), numbered([document("one", 0), document("two", 1)]))


@pytest.mark.parametrize("link", [5, ["x"], "http://[::", f"{JOB}&skip=\t1", f"{JOB}&skip={'1' * 70_000}"])
async def test_a_link_that_leads_nowhere_is_malformed(link: object, replay: Replay, http: PacedClient) -> None:
    with pytest.raises(Unavailable, match="answered with"):
        await polled(replay, http, finished(answer("0"), nextLink=link), document("one", 0), document("two", 1))


# Cancelling and probing


@pytest.mark.parametrize("status", [200, 202, 204, 400, 409])
async def test_cancelling_a_job_that_has_ended_is_no_error(status: int, replay: Replay, http: PacedClient) -> None:
    replay.answer(Reply(status))
    await azure(replay.url, http).cancel(job_at(replay))
    (request,) = replay.requests
    assert (request.method, request.path, request.body) == ("POST", f"{JOBS}/0001:cancel", b"")


@pytest.mark.parametrize(
    ("status", "kind"), [(401, Misconfigured), (404, JobLost), (429, Throttled), (503, Unavailable)]
)
async def test_cancelling_fails_as_everything_else_does(
    status: int, kind: type[CallFailed], replay: Replay, http: PacedClient
) -> None:
    replay.answer(Reply(status))
    with pytest.raises(kind):
        await azure(replay.url, http).cancel(job_at(replay))


async def test_a_probe_asks_after_a_job_that_does_not_exist(replay: Replay, http: PacedClient) -> None:
    replay.answer(Reply(404, {"error": fault("NotFound")}), Reply(404))
    provider = azure(replay.url, http)
    await provider.probe()
    await provider.probe()
    first, second = replay.requests
    assert first.method == second.method == "GET"
    assert first.path.startswith(f"{JOBS}/")
    assert first.path != second.path
    assert first.query == "api-version=2023-04-01"
    assert first.headers["ocp-apim-subscription-key"] == KEY


@pytest.mark.parametrize(
    ("reply", "kind", "words"),
    [
        (Reply(401, {"error": fault("401")}), Misconfigured, "check key"),
        (Reply(403, {"error": fault("403")}), Misconfigured, "key and endpoint"),
        (Reply(400, {"error": fault("InvalidRequest")}), Misconfigured, "check api_version"),
        (Reply(404, HTML, IS_HTML), Misconfigured, "check endpoint"),
        (Reply(200, HTML, IS_HTML), Misconfigured, "check endpoint"),
        (Reply(200, {"status": "succeeded"}), Misconfigured, "check endpoint"),
        (Reply(429), Throttled, "429"),
        (Reply(503), Unavailable, "503"),
    ],
)
async def test_a_probe_that_fails_says_which_setting_is_wrong(
    reply: Reply, kind: type[CallFailed], words: str, replay: Replay, http: PacedClient
) -> None:
    replay.answer(reply)
    with pytest.raises(kind, match=words):
        await azure(replay.url, http).probe()


# The key, and where it goes


ELSEWHERE = [
    "http://{other}/jobs/1",
    "http://localhost:{port}/jobs/1",
    "https://{own}/jobs/1",
    "http://{own}@{other}/jobs/1",
    "http://user:password@{own}/jobs/1",
    "http://{own}.example.com/jobs/1",
    "http://{own}\\@{other}/jobs/1",
    "//{other}/jobs/1",
    "ftp://{own}/jobs/1",
]


@pytest.mark.parametrize("url", ELSEWHERE)
async def test_the_key_is_not_sent_to_another_host(url: str, replay: Replay, http: PacedClient) -> None:
    provider = azure(replay.url, http)
    async with bystander() as (other, heard):
        hostile = url.format(other=other, own=replay.host, port=replay.host.split(":")[1])
        replay.answer(Reply(202, headers={"Operation-Location": hostile}))
        with pytest.raises((Misconfigured, Unavailable)) as refused:
            await provider.submit([document()])
        assert "endpoint" in str(refused.value) or "URL" in str(refused.value)
        with pytest.raises(JobLost, match="another endpoint"):
            await provider.poll(hostile, numbered([document()]))
        with pytest.raises(JobLost, match="another endpoint"):
            await provider.cancel(hostile)
        replay.answer(Reply(200, finished(answer("0", ("billing", 0.9)), nextLink=hostile)))
        with pytest.raises((Misconfigured, Unavailable)):
            await provider.poll(job_at(replay), numbered([document("one", 0), document("two", 1)]))
        assert not heard
    assert len(replay.requests) == 2


@pytest.mark.parametrize("status", [301, 302, 307, 308])
async def test_a_redirect_is_not_followed(status: int, replay: Replay, http: PacedClient) -> None:
    async with bystander() as (other, heard):
        replay.answer(*[Reply(status, headers={"Location": f"http://{other}/"})] * 4)
        provider = azure(replay.url, http)
        calls: list[Callable[[], Awaitable[object]]] = [
            lambda: provider.submit([document()]),
            lambda: provider.poll(job_at(replay), numbered([document()])),
            lambda: provider.cancel(job_at(replay)),
            provider.probe,
        ]
        for call in calls:
            with pytest.raises(Unavailable, match="not followed"):
                await call()
        assert not heard


@pytest.mark.parametrize(
    ("location", "path"),
    [
        (f"{JOBS}/0001?api-version=2023-04-01", f"{JOBS}/0001"),
        (f"HTTP://{{host}}{JOBS}/0001?api-version=2023-04-01", f"{JOBS}/0001"),
        (f"http://{{host}}{JOBS}/4d37982f_637858368000000000", f"{JOBS}/4d37982f_637858368000000000"),
    ],
)
async def test_any_spelling_of_the_endpoint_itself_is_followed(
    location: str, path: str, replay: Replay, http: PacedClient
) -> None:
    replay.answer(Reply(202, headers={"Operation-Location": location}), Reply(200, {"status": "running"}))
    provider = azure(replay.url, http)
    assert await provider.poll(await provider.submit([document()]), numbered([document()])) is None
    assert replay.requests[1].path == path


async def test_a_job_of_an_earlier_endpoint_is_lost(replay: Replay, http: PacedClient) -> None:
    with pytest.raises(JobLost, match="another endpoint"):
        await azure(replay.url, http).poll("https://old.cognitiveservices.azure.com/jobs/1", numbered([document()]))


ECHO = Reply(401, {"error": fault("401", message=f"the key {KEY} is wrong")}, {"X-Key": KEY})
TELLING = [
    ECHO,
    Reply(403, {"error": fault(KEY, KEY, f"the key {KEY} may not")}),
    Reply(404, {"error": fault("ProjectNotFound", message="x" * 190 + KEY)}),
    Reply(400, {"error": fault("InvalidRequest", message=KEY)}),
    Reply(429, {"error": fault("429", message=KEY)}),
    Reply(500, KEY.encode()),
    Reply(202, headers={"Operation-Location": f"http://example.com/{KEY}"}),
    Reply(302, headers={"Location": f"http://example.com/{KEY}"}),
]


@pytest.mark.parametrize("reply", TELLING)
async def test_the_key_is_seen_nowhere(
    reply: Reply, replay: Replay, http: PacedClient, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    replay.answer(reply)
    provider = azure(replay.url, http)
    with pytest.raises(CallFailed) as caught:
        await provider.submit([document()])
    seen = [repr(provider), repr(caught.value), caplog.text, *traceback.format_exception(caught.value)]
    assert KEY[:8] not in "".join(seen)
    assert KEY not in str(http.headers)
    assert replay.requests[0].headers["ocp-apim-subscription-key"] == KEY


async def test_what_the_service_says_is_cut_short(replay: Replay, http: PacedClient) -> None:
    replay.answer(Reply(401, {"error": fault("401", message="no " * 10_000)}))
    with pytest.raises(Misconfigured) as caught:
        await azure(replay.url, http).submit([document()])
    assert len(str(caught.value)) < 400


SECRET = "my password is tr0ub4dor"


@pytest.mark.parametrize("status", [400, 408, 413, 422, 500, 503])
async def test_the_text_of_a_document_is_in_no_error_of_a_submit(
    status: int, replay: Replay, http: PacedClient
) -> None:
    replay.answer(Reply(status, {"error": fault(SECRET, "InvalidDocument", f"cannot read {SECRET!r}")}))
    with pytest.raises(CallFailed) as caught:
        await azure(replay.url, http).submit([document(SECRET)])
    assert "tr0ub4dor" not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize(
    "body",
    [
        {"status": "failed", "errors": [fault("InvalidArgument", message=SECRET)], "tasks": {}},
        {"status": "succeeded", "tasks": {"items": [{"results": {"documents": [{"id": SECRET, "class": SECRET}]}}]}},
        finished(answer("0"), errors=[{"id": "1", "error": fault("InternalServerError", message=SECRET)}]),
        finished(answer("0")),
        SECRET.encode(),
    ],
)
async def test_the_text_of_a_document_is_in_no_error_of_a_poll(body: object, replay: Replay, http: PacedClient) -> None:
    with pytest.raises(CallFailed) as caught:
        await polled(replay, http, body, document(SECRET, 0), document(SECRET, 1))
    assert "tr0ub4dor" not in "".join(traceback.format_exception(caught.value))


async def test_the_text_of_a_document_is_not_in_its_refusal(replay: Replay, http: PacedClient) -> None:
    refusal = finished(errors=[{"id": "0", "error": fault("InvalidArgument", "InvalidDocument", f"no: {SECRET}")}])
    (outcome,) = await polled(replay, http, refusal, document(SECRET)) or []
    assert "tr0ub4dor" not in repr(outcome)


def test_what_it_is_can_be_seen_but_not_its_key(http: PacedClient) -> None:
    provider = azure("https://contoso.cognitiveservices.azure.com", http, task="multi_label")
    assert repr(provider) == "AzureLanguage('contoso.cognitiveservices.azure.com', 'tickets/production', 'multi_label')"
    assert (provider.model, provider.task) == ("tickets/production", "multi_label")
    assert (provider.documents_per_call, provider.characters_per_call) == (25, 125_000)


@pytest.mark.parametrize("character", ["\x01", "😀", '"', "\ud800"])
async def test_all_the_characters_of_a_call_make_a_body_below_a_megabyte(
    character: str, replay: Replay, http: PacedClient
) -> None:
    provider, length = azure(replay.url, http), AzureLanguage.characters_per_call // AzureLanguage.documents_per_call
    full = [
        document()._replace(text=character * length, language="zh-hans") for _ in range(provider.documents_per_call)
    ]
    replay.answer(ACCEPTED)
    await provider.submit(full)
    assert len(replay.requests[-1].body) < provider.bytes_per_call == 1_000_000


# Networks that fail


@pytest.mark.parametrize(
    ("sent", "words"),
    [
        (b"", "broke the connection off"),
        (b"HTTP/1.1 202 Accepted\r\noperation-loc", "broke the connection off"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{", "broke its answer off"),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n{", "cannot be read"),
        (b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\nconnection: close\r\n\r\nnot gzip", "cannot be read"),
        (b"SSH-2.0-OpenSSH_9.2\r\n\r\n", "cannot be read"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n{}", "cannot be read"),
    ],
)
async def test_an_answer_that_is_not_http_is_an_outage(sent: bytes, words: str, http: PacedClient) -> None:
    async with raw(sent) as host:
        provider = azure(f"http://{host}", http)
        with pytest.raises(Unavailable, match=f"{host} did not answer: .*{words}"):
            await provider.submit([document()])
        with pytest.raises(Unavailable, match=words):
            await provider.poll(f"http://{host}/jobs/1", numbered([document()]))
        with pytest.raises(Unavailable, match=words):
            await provider.cancel(f"http://{host}/jobs/1")
        with pytest.raises(Unavailable, match=words):
            await provider.probe()


async def test_a_closed_port_is_an_outage(http: PacedClient) -> None:
    async with raw(b"") as host:
        pass
    with pytest.raises(Unavailable, match=f"{host} did not answer: it refuses connections"):
        await azure(f"http://{host}", http).probe()


async def test_silence_is_an_outage() -> None:
    async def listen(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        await reader.read()

    async with listening(listen) as host, client(request_timeout=0.05) as http:
        with pytest.raises(Unavailable, match="it took too long"):
            await azure(f"http://{host}", http).submit([document()])


async def test_plain_http_where_tls_was_expected_is_an_outage(http: PacedClient) -> None:
    async with raw(b"HTTP/1.1 400 Bad Request\r\n\r\n") as host:
        with pytest.raises(Unavailable, match="TLS could not be agreed on"):
            await azure(f"https://{host}", http).probe()


@pytest.fixture
def unknown_authority() -> ssl.SSLContext:
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert("127.0.0.1", "localhost").configure_cert(tls)
    return tls


async def test_a_certificate_that_nobody_vouches_for_is_named(
    unknown_authority: ssl.SSLContext, http: PacedClient
) -> None:
    async with raw(b"", unknown_authority) as host:
        with pytest.raises(Unavailable, match=r"its certificate is not to be trusted .*UnknownIssuer"):
            await azure(f"https://{host}", http).probe()
