"""The whole life of a project, on a server of ours over HTTP, and what may come between."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from service import settings
from service.errors import Misconfigured
from service.lifecycle import evaluation
from service.lifecycle.azure_language import MADE_BEFORE
from service.lifecycle.verbs import Doomed, Labelled, Wanted
from service.model.examples import Example, ExamplesError
from tests.lifecycle.documents import classes
from tests.lifecycle.telling import Telling, life
from tests.providers.conftest import Received, Replay, Reply
from tests.server.conftest import BILLING, CRASH, KEY, MULTI, SINGLE, process

ROWS = [Example(f"{one.id} {n}", f"{one.text} {n}", one.labels) for one in SINGLE for n in range(3)]
BASE = "/language/authoring/analyze-text/projects"
ALL = Doomed("all")
DIALECTS = [("2022-05-01", "single_label"), ("2023-04-01", "multi_label"), ("v3.2-preview.2", "single_label")]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("training")


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory, folder: Path) -> Iterator[str]:
    options = ("--container", f"training={folder}", "--allow-faults")
    with process(tmp_path_factory.mktemp("data"), *options) as (url, _):
        yield url


@pytest.fixture
async def server(url: str) -> AsyncIterator[httpx.AsyncClient]:
    """The server, asked as its own clients do."""
    async with httpx.AsyncClient(base_url=url, headers={"Ocp-Apim-Subscription-Key": KEY}) as client:
        yield client
        await client.delete("/_faults")


def branch(url: str, folder: Path, project: str, **more: Any) -> settings.AzureLanguage:
    """An account of a project."""
    given = {
        "provider": "azure_language", "endpoint": url, "key": KEY, "project": project, "deployment": "production",
        "task": "single_label", "training": {"container": f"training={folder}"},
    }  # fmt: skip
    return settings.AzureLanguage.model_validate({**given, **more})


async def trainings(server: httpx.AsyncClient, project: str) -> list[dict[str, Any]]:
    answer = await server.get(f"{BASE}/{project}/train/jobs", params={"api-version": "2023-04-01"})
    found: list[dict[str, Any]] = answer.json()["value"]
    return found


# A life on a server of ours


@pytest.mark.parametrize(("version", "task"), DIALECTS)
async def test_a_project_is_trained_looked_at_deployed_asked_and_deleted(
    version: str, task: str, url: str, folder: Path, server: httpx.AsyncClient
) -> None:
    project, rows = f"life-{task}-{version}", ROWS if task == "single_label" else MULTI
    account, telling = branch(url, folder, project, api_version=version, task=task), Telling()
    async with life(account, telling) as it:
        assert await it.list() == []
        trained = await it.train(Labelled(rows))
        name = trained.model.name
        assert (trained.model.state, trained.model.deployed_as) == ("trained", ())
        assert telling.steps[-1] == f"training {name}"
        assert telling.shares[-1] == 1
        worth = trained.evaluation
        assert worth is not None
        assert worth.f1_micro is not None
        assert worth.f1_micro > 0.5
        assert worth.documents == len([row for row in rows if row.labels]) // 5
        if task == "single_label":
            assert worth.accuracy == pytest.approx(worth.f1_micro)
            assert sum(worth.confusion.values()) == worth.documents
        assert [each.name for each in worth.classes] == sorted({label for row in rows for label in row.labels})
        again = await it.train(Labelled(rows[::-1]))
        assert (again.model, again.evaluation, again.notes) == (trained.model, worth, (MADE_BEFORE,))
        assert len(await trainings(server, project)) == 1
        other = await it.train(Labelled(rows[1:], "second"))
        assert [each.name for each in await it.list()] == ["second", name]
        assert other.model.trained_at is not None
        deployed = await it.deploy(Wanted())
        assert (deployed.model, deployed.deployed_as, deployed.notes) == ("second", f"{project}/production", ())
        assert (await it.deploy(Wanted(model=name))).model == name
        assert [each.deployed_as for each in await it.list()] == [(), ("production",)]
        assert await it.evaluate(None) == worth
        assert await it.evaluate("second") == other.evaluation
        assert await classes(account, [BILLING, CRASH]) == ["billing", "crash"]
        measured = await evaluation.measured("it", account, rows, lambda _: None)
        assert measured.accuracy > 0.9
        elsewhere = await it.deploy(Wanted(model="second", deployment="staging"))
        assert elsewhere.notes == ("the account asks production until it has deployment: staging",)
        with pytest.raises(Misconfigured, match=f"{name} answers as production: deploy another there"):
            await it.delete(Doomed("model", name))
        for doomed in (Doomed("deployment", "production"), Doomed("model", name), ALL):
            await it.delete(doomed)
        for doomed, told in ((ALL, f"project {project} is not there"), (Doomed("deployment", "x"), "deployment x in")):
            with pytest.raises(Misconfigured, match=told):
                await it.delete(doomed)


# What is paid for once


async def test_a_training_that_is_not_waited_for_is_found_again(tmp_path: Path, folder: Path) -> None:
    with process(tmp_path, "--container", f"training={folder}", "--least-job-seconds", "4") as (url, _):
        account, telling = branch(url, folder, "slow"), Telling()
        async with (
            life(account, telling) as it,
            httpx.AsyncClient(base_url=url, headers={"Ocp-Apim-Subscription-Key": KEY}) as server,
        ):
            waiting = asyncio.create_task(it.train(Labelled(ROWS)))
            await telling.heard_of_training()
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
            (under_way,) = await it.list()
            assert (
                telling.broken_off
                == f"the service goes on training {under_way.name}; the same command waits for it again"
            )
            assert under_way.state in {"notStarted, 0%", "running, 0%"}
            with pytest.raises(Misconfigured, match=r"there is no model 'm-.*' in project slow; there is none"):
                await it.deploy(Wanted(model=under_way.name))
            trained = await it.train(Labelled(ROWS))
            assert trained.model.name == under_way.name
            assert f"{under_way.name} is being trained already, and is waited for" in telling.lines
            assert len(await trainings(server, "slow")) == 1


async def test_a_training_of_another_model_is_waited_for_first(tmp_path: Path, folder: Path) -> None:
    with process(tmp_path, "--container", f"training={folder}", "--least-job-seconds", "1") as (url, _):
        account, telling = branch(url, folder, "busy"), Telling()
        begins = Telling()
        async with life(account, begins) as first, life(account, telling) as second:
            begun = asyncio.create_task(first.train(Labelled(ROWS, "first")))
            await begins.heard_of_training()
            waiting = asyncio.create_task(second.train(Labelled(ROWS, "second")))
            await telling.heard(lambda: telling.lines)
            assert "first is being trained" in telling.lines[0]
            assert "one model at a time; asking again in 30 s" in telling.lines[0]
            for task in (begun, waiting):
                task.cancel()
            await asyncio.wait([begun, waiting])


async def test_an_acceptance_that_was_not_heard_of_is_not_paid_for_twice(replay: Replay, tmp_path: Path) -> None:
    asked: list[tuple[str, str]] = []
    job = {"jobId": "j1", "status": "running", "result": {"modelLabel": "m"}}

    model = {"label": "m", "modelId": "1", "lastTrainedDateTime": "2026-11-01T00:00:00Z"}
    missing = Reply(404, {"error": {"code": "ProjectNotFound", "message": "There is no such project."}})
    before = {("POST", "/:import"): Reply(202), ("GET", "/train/jobs"): Reply(200, {"value": []})}
    after = {
        ("GET", "/train/jobs"): Reply(200, {"value": [job]}),
        ("GET", "/train/jobs/j1"): Reply(200, {**job, "status": "succeeded"}),
        ("GET", "/models"): Reply(200, {"value": [model]}),
    }

    def answer(request: Received) -> Reply:
        asked.append((request.method, request.path.removeprefix(f"{BASE}/p")))
        if asked[-1] == ("POST", "/:train"):  # it arrives, and the answer does not
            return Reply(503, b"<html>Bad Gateway</html>", {"retry-after-ms": "1"})
        answers = after if ("POST", "/:train") in asked else before
        if asked[-1] == ("GET", "/train/jobs") and ("GET", "/train/jobs/j1") in asked:
            return Reply(200, {"value": []})
        return answers.get(asked[-1], missing)

    replay.otherwise = answer
    telling = Telling()
    async with life(branch(replay.url, tmp_path, "p"), telling) as it:
        trained = await it.train(Labelled(ROWS, "m"))
    assert (trained.model.name, trained.evaluation) == ("m", None)
    assert asked.count(("POST", "/:train")) == 1
    assert "answered 503; asking again in 0 s" in telling.lines[0]


# A container of Azure Blob Storage


async def test_documents_are_put_by_a_signature_that_nobody_else_is_told(replay: Replay) -> None:
    replies = {"/:import": Reply(202), "/:train": Reply(400, {"error": {"code": "InvalidRequest", "message": "no"}})}
    missing = Reply(404, {"error": {"code": "ProjectNotFound", "message": "There is no such project."}})

    def answer(request: Received) -> Reply:
        if request.path.startswith("/account/tickets/"):
            return Reply(201)
        return replies.get(request.path.removeprefix(f"{BASE}/p"), missing)

    replay.otherwise = answer
    container = f"{replay.url}/account/tickets?sv=1&sig=the-signature"
    telling = Telling()
    async with life(branch(replay.url, Path(), "p", training={"container": container}), telling) as it:
        with pytest.raises(Misconfigured, match="answered 400 InvalidRequest: no"):
            await it.train(Labelled(ROWS))
    put = [request for request in replay.requests if request.method == "PUT"]
    assert len({request.path for request in put}) == len(ROWS)
    assert {request.body.decode() for request in put} == {row.text for row in ROWS}
    assert {(request.query, request.headers["x-ms-blob-type"]) for request in put} == {
        ("sv=1&sig=the-signature", "BlockBlob")
    }
    assert not any("ocp-apim-subscription-key" in request.headers for request in put)
    others = [request for request in replay.requests if request.method != "PUT"]
    assert not any("the-signature" in f"{request.query}{request.body!r}" for request in others)
    (imported,) = [request.json for request in others if request.path.endswith("/:import")]
    assert isinstance(imported, dict)
    assert imported["metadata"]["storageInputContainerName"] == "tickets"
    assert telling.steps[0] == f"putting {len(ROWS)} documents into tickets"
    assert telling.shares[len(ROWS) - 1] == 1


async def test_a_signature_that_is_not_enough_is_not_repeated(replay: Replay) -> None:
    def answer(request: Received) -> Reply:
        if request.path.startswith("/account/"):
            return Reply(403, b"<Error/>", {"x-ms-error-code": "AuthorizationPermissionMismatch"})
        return Reply(404, {"error": {"code": "ProjectNotFound", "message": "There is no such project."}})

    replay.otherwise = answer
    training = {"container": f"{replay.url}/account/tickets?sig=the-signature"}
    async with life(branch(replay.url, Path(), "p", training=training)) as it:
        with pytest.raises(
            Misconfigured, match="403 AuthorizationPermissionMismatch: check that it is there"
        ) as caught:
            await it.train(Labelled(ROWS))
    assert "the-signature" not in str(caught.value)


# What passes is waited out


PASSING = [
    {"on": "poll", "status": 429, "retry_after": 0, "times": 2},
    {"on": "poll", "status": 502, "body": "html", "times": 1},
    {"on": "manage", "status": 503, "times": 2},
    {"on": "manage", "status": 500, "body": "html", "times": 1},
    {"on": "train", "status": 429, "retry_after": 0, "times": 1},
]


@pytest.mark.parametrize("rule", PASSING, ids=lambda rule: f"{rule['on']} {rule['status']} {rule.get('body', '')}")
async def test_throttling_outages_and_proxies_are_waited_out(
    rule: dict[str, Any], url: str, folder: Path, server: httpx.AsyncClient
) -> None:
    telling, project = Telling(), f"passing-{PASSING.index(rule)}"
    assert (await server.put("/_faults", json=[rule])).is_success
    async with life(branch(url, folder, project), telling) as it:
        assert (await it.train(Labelled(ROWS))).model.state == "trained"
        assert len([line for line in telling.lines if f"answered {rule['status']}" in line]) == rule["times"]
        await it.delete(ALL)


# What asking again would not change


async def test_a_training_that_fails_says_why(url: str, tmp_path: Path) -> None:
    async with life(branch(url, tmp_path, "other-folder")) as it:  # which is not the one that the server reads
        with pytest.raises(
            Misconfigured, match=r"^m was not trained \(failed\): InvalidArgument: there is no blob 'm-"
        ):
            await it.train(Labelled(ROWS[2:], "m"))
        assert await it.list() == []


async def test_a_training_that_is_cancelled_is_said_to_be(tmp_path: Path, folder: Path) -> None:
    with process(tmp_path, "--container", f"training={folder}", "--least-job-seconds", "30") as (url, _):
        telling = Telling()
        async with (
            httpx.AsyncClient(base_url=url, headers={"Ocp-Apim-Subscription-Key": KEY}) as server,
            life(branch(url, folder, "p"), telling) as it,
        ):
            waiting = asyncio.create_task(it.train(Labelled(ROWS, "m")))
            await telling.heard_of_training()
            (job,) = await trainings(server, "p")
            version = {"api-version": "2023-04-01"}
            cancelled = await server.post(f"{BASE}/p/train/jobs/{job['jobId']}/:cancel", params=version)
            assert cancelled.status_code == 202
            with pytest.raises(Misconfigured, match=r"m was not trained \(cancelled\): no reason is given"):
                await waiting


async def test_what_a_failure_says_is_not_repeated_where_it_quotes_a_document(replay: Replay, tmp_path: Path) -> None:
    message = f"Document 3 is odd: {ROWS[3].text}"
    failed = {"jobId": "j", "status": "failed", "errors": [{"code": "InvalidRequest", "message": message}]}
    pending = {"jobId": "j", "status": "running", "result": {"modelLabel": "m"}}
    pages = {
        "/train/jobs": {"value": [pending]},
        "/train/jobs/j": failed,
        "": {"projectKind": "CustomSingleLabelClassification"},
    }
    replay.otherwise = lambda request: Reply(200, pages[request.path.removeprefix(f"{BASE}/p")])
    async with life(branch(replay.url, tmp_path, "p")) as it:
        with pytest.raises(Misconfigured, match="quotes a text, and is not repeated here") as caught:
            await it.train(Labelled(ROWS, "m"))
    assert ROWS[3].text not in str(caught.value)


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "key": ({"key": "another"}, "answered 401 .*check key"),
    "training": ({"training": None}, "training is missing: say there where documents are put"),
}


@pytest.mark.parametrize("wrong", WRONG)
async def test_wrong_settings_are_named(wrong: str, url: str, folder: Path) -> None:
    more, told = WRONG[wrong]
    async with life(branch(url, folder, "wrong", **more)) as it:
        with pytest.raises(Misconfigured, match=told) as caught:
            await it.train(Labelled(ROWS))
    assert KEY not in str(caught.value)


async def test_a_project_of_another_kind_is_left_alone(url: str, folder: Path, server: httpx.AsyncClient) -> None:
    body = {"projectKind": "CustomMultiLabelClassification", "storageInputContainerName": "c", "language": "en"}
    await server.patch(f"{BASE}/kinds", params={"api-version": "2023-04-01"}, json=body)
    async with life(branch(url, folder, "kinds")) as it:
        with pytest.raises(Misconfigured, match="project kinds is of another kind than single_label: check task"):
            await it.train(Labelled(ROWS))


async def test_a_container_that_the_service_does_not_know_is_told_by_the_training(url: str, folder: Path) -> None:
    training = {"container": f"unknown={folder}"}
    async with life(branch(url, folder, "containers", training=training)) as it:
        with pytest.raises(Misconfigured, match="there is no container 'unknown'"):
            await it.train(Labelled(ROWS))


@pytest.mark.parametrize("name", ["", "a b", "../up", "a\n", "ü", "a" * 51])
@pytest.mark.parametrize("version", ["2023-04-01", "v3.1-preview.ct.1"])
async def test_a_name_that_no_model_may_have_leaves_the_labels_that_are_there(
    name: str, version: str, tmp_path: Path
) -> None:
    told = {"container": f"training={tmp_path}", "project": "p"}
    account = branch("http://127.0.0.1:1", tmp_path, "p")
    if version.startswith("v3"):
        given = {"provider": "azure_language", "endpoint": "http://127.0.0.1:1", "key": KEY, "model_id": "none_yet"}
        more = {"api_version": version, "task": "single_label", "training": told}
        account = settings.AzureLanguage.model_validate({**given, **more})
    async with life(account) as it:
        with pytest.raises(Misconfigured, match=r"^--name .* up to 50 letters, digits and _ \. -$"):
            await it.train(Labelled(ROWS, name))
    assert sorted(tmp_path.iterdir()) == []  # noqa: ASYNC240  nothing else runs


async def test_what_is_not_taken_is_refused_once_in_the_services_words(url: str, folder: Path) -> None:
    account, training = branch(url, folder, "names"), {"container": f"training={folder}", "language": "xx"}
    async with life(branch(url, folder, "names", training=training)) as it:
        with pytest.raises(
            Misconfigured, match=r"answered 400 InvalidParameterValue in InvalidRequest: (?!Invalid)[^:]*language"
        ):
            await it.train(Labelled(ROWS))
    async with life(account) as it:
        with pytest.raises(Misconfigured, match="there is no trained model in project names: train one"):
            await it.deploy(Wanted())
        with pytest.raises(Misconfigured, match="there is no trained model in project names: train one"):
            await it.evaluate(None)
        with pytest.raises(Misconfigured, match="--units: means nothing"):
            await it.deploy(Wanted(units=2))


async def test_rows_that_nothing_can_be_learnt_from_reach_no_service(folder: Path) -> None:
    async with life(branch("http://127.0.0.1:1", folder, "p")) as it:
        with pytest.raises(ExamplesError, match="tells at least two classes apart"):
            await it.train(Labelled([row for row in ROWS * 2 if row.labels == ("crash",)]))


# Answers that are odd


@pytest.mark.parametrize("odd", [[], {}, [{}], 7, None])
async def test_models_with_odd_ids_are_listed_all_the_same(odd: object, replay: Replay, tmp_path: Path) -> None:
    replay.answer(
        Reply(200, {"value": [{"deploymentName": "production", "modelId": odd}]}),
        Reply(200, {"value": [{"label": "one", "modelId": odd}]}),
        Reply(200, {"value": []}),
    )
    async with life(branch(replay.url, tmp_path, "p")) as it:
        assert [(each.name, each.deployed_as) for each in await it.list()] == [("one", ("production",))]


async def test_pages_are_followed_where_they_are_the_services_own(replay: Replay, tmp_path: Path) -> None:
    model = {"label": "one", "modelId": "1", "lastTrainedDateTime": "2026-11-01T00:00:00Z"}
    newer = {"label": "two", "modelId": "2", "lastTrainedDateTime": "2026-11-02T00:00:00Z"}
    link = "http://{host}" + f"{BASE}/p/models?api-version=2023-04-01&skip=1"
    replay.answer(
        Reply(200, {"value": [{"deploymentName": "production", "modelId": "1"}], "nextLink": None}),
        Reply(200, {"value": [model], "nextLink": link}),
        Reply(200, {"value": [newer]}),
        Reply(200, {"value": []}),
    )
    async with life(branch(replay.url, tmp_path, "p")) as it:
        assert [(each.name, each.deployed_as) for each in await it.list()] == [("two", ()), ("one", ("production",))]
    replay.answer(Reply(200, {"value": [], "nextLink": "https://elsewhere.example/models"}))
    async with life(branch(replay.url, tmp_path, "p")) as it:
        with pytest.raises(Misconfigured, match="gives URLs at another scheme, host or port"):
            await it.list()
