"""The whole life of a project of 2021, on a server of ours over HTTP, and what may come between."""

import asyncio
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from service import settings
from service.errors import Misconfigured
from service.lifecycle.azure_language import MADE_BEFORE
from service.lifecycle.verbs import Doomed, Labelled, Wanted
from service.model.examples import Example, ExamplesError
from tests.lifecycle.documents import classes
from tests.lifecycle.telling import Telling, life
from tests.providers.conftest import Received, Replay, Reply
from tests.server.conftest import BILLING, CRASH, KEY, MULTI, SINGLE, process

ROWS = [Example(f"{one.id} {n}", f"{one.text} {n}", one.labels) for one in SINGLE for n in range(3)]
BASE = "/language/text/authoring/v1.0-preview.2/projects"
ALL = Doomed("all")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("training")


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory, folder: Path) -> Iterator[str]:
    with process(tmp_path_factory.mktemp("data"), "--container", f"training={folder}", "--allow-faults") as (url, _):
        yield url


def branch(url: str, folder: Path, project: str, **more: Any) -> settings.AzureLanguage:
    """An account of a published model, which its project can make anew."""
    given = {
        "provider": "azure_language", "endpoint": url, "key": KEY, "model_id": "none_yet", "task": "single_label",
        "api_version": "v3.1-preview.ct.1", "training": {"container": f"training={folder}", "project": project},
    }  # fmt: skip
    return settings.AzureLanguage.model_validate({**given, **more})


@pytest.mark.parametrize("task", ["single_label", "multi_label"])
async def test_a_project_is_trained_looked_at_published_asked_and_deleted(task: str, url: str, folder: Path) -> None:
    rows, telling = ROWS if task == "single_label" else MULTI, Telling()
    async with life(branch(url, folder, f"life-{task}", task=task), telling) as it:
        trained = await it.train(Labelled(rows))
        name, worth = trained.model.name, trained.evaluation
        assert telling.steps[-1] == f"training {name}"
        assert telling.shares[-1] == 1
        assert worth is not None
        assert worth.f1_micro is not None
        assert worth.f1_micro > 0.3
        assert worth.documents == len([row for row in rows if row.labels]) // 10
        assert bool(worth.confusion) == (task == "single_label")
        again = await it.train(Labelled(rows[::-1]))
        assert (again.model, again.evaluation, again.notes) == (trained.model, worth, (MADE_BEFORE,))
        await it.train(Labelled(rows[1:], "second"))
        assert await it.evaluate(name) == worth
        deployed = await it.deploy(Wanted(model=name))
        kind = "SingleClassification" if task == "single_label" else "MultiClassification"
        assert re.fullmatch(f".+_{kind}_latest", deployed.deployed_as)
        assert deployed.notes == (f"the account asks none_yet until it has model_id: {deployed.deployed_as}",)
    asked = branch(url, folder, f"life-{task}", task=task, model_id=deployed.deployed_as)
    assert await classes(asked, [BILLING, CRASH]) == ["billing", "crash"]
    async with life(asked) as it:
        assert (await it.deploy(Wanted(model=name))).notes == ()
        await it.delete(ALL)
        with pytest.raises(Misconfigured, match=f"there is no project 'life-{task}' to delete"):
            await it.delete(ALL)


async def test_what_this_version_does_not_know_is_said_plainly(url: str, folder: Path) -> None:
    async with life(branch(url, folder, "unknown")) as it:
        for asked, told in (
            (it.list(), "has no list of models"),
            (it.evaluate(None), "--name is missing"),
            (it.evaluate("m"), "there is no trained model 'm' in project unknown"),
            (it.deploy(Wanted()), "--name is missing"),
            (it.deploy(Wanted(deployment="production")), "--as: means nothing"),
            (it.deploy(Wanted(model="m")), "answered 404 NotFound .*check training.project and --name"),
            (it.delete(Doomed("model", "m")), "deletes no single model, only the project: --all"),
        ):
            with pytest.raises(Misconfigured, match=told):
                await asked
    with pytest.raises(Misconfigured, match="training is missing: project"):
        async with life(branch(url, folder, "unknown", training=None)):
            pass


async def test_a_class_of_too_few_rows_is_named_before_anything_is_paid_for(folder: Path) -> None:
    async with life(branch("http://127.0.0.1:1", folder, "p")) as it:
        few = [row for row in ROWS if row.labels != ("crash",)] + [row for row in ROWS if row.labels == ("crash",)][:9]
        with pytest.raises(ExamplesError, match="'crash' has 9 rows; each class takes at least 10"):
            await it.train(Labelled(few, "m"))


async def test_a_wrong_key_is_named_and_not_repeated(url: str, folder: Path) -> None:
    async with life(branch(url, folder, "p", key="another-key")) as it:
        with pytest.raises(Misconfigured, match=r"answered 401 .*check key") as caught:
            await it.train(Labelled(ROWS))
    assert "another-key" not in str(caught.value)


async def test_labels_that_the_server_cannot_read_are_told(url: str, tmp_path: Path) -> None:
    async with life(branch(url, tmp_path, "elsewhere")) as it:  # a folder that is not the one the server reads
        with pytest.raises(Misconfigured, match="answered 400 InvalidArgument: labelsLocation: there is no"):
            await it.train(Labelled(ROWS))


@pytest.mark.parametrize(
    "rule",
    [
        {"on": "poll", "status": 429, "retry_after": 0, "times": 2},
        {"on": "poll", "status": 502, "body": "html", "times": 1},
        {"on": "train", "status": 503, "times": 1},
    ],
    ids=lambda rule: f"{rule['on']} {rule['status']}",
)
async def test_throttling_outages_and_proxies_are_waited_out(rule: dict[str, Any], url: str, folder: Path) -> None:
    telling = Telling()
    async with httpx.AsyncClient(base_url=url, headers={"Ocp-Apim-Subscription-Key": KEY}) as server:
        assert (await server.put("/_faults", json=[rule])).is_success
        async with life(branch(url, folder, f"passing-{rule['status']}"), telling) as it:
            assert (await it.train(Labelled(ROWS))).evaluation is not None
        await server.delete("/_faults")
    assert len([line for line in telling.lines if f"answered {rule['status']}" in line]) == rule["times"]


JOB: dict[str, Any] = {"jobId": "j", "status": "completed", "errors": []}
RUNNING = {**JOB, "status": "inProgress"}
FAILED = {
    **JOB,
    "status": "failed",
    "tasks": [{"status": "failed", "error": {"code": "InvalidArgument", "message": "odd"}}],
}
EVALUATED = {"status": "completed"}
ENDINGS: dict[str, tuple[list[dict[str, Any]], str]] = {
    "evaluation": (
        [
            RUNNING,
            {**JOB, "tasks": [{"evaluationStatus": {"status": "inProgress"}}]},
            {**JOB, "tasks": [{"evaluationStatus": EVALUATED}]},
        ],
        "",
    ),
    "no evaluation": ([{**JOB, "tasks": [{}]}], ""),
    "an odd evaluation": ([{**JOB, "tasks": [{"evaluationStatus": ["completed"]}]}], ""),
    "failed": ([RUNNING, FAILED], r"m was not trained \(failed\): InvalidArgument: odd"),
    "cancelled": ([{**JOB, "status": "cancelled"}], r"m was not trained \(cancelled\): no reason is given"),
}


@pytest.mark.parametrize("ending", ENDINGS)
async def test_how_trainings_end(ending: str, replay: Replay, folder: Path) -> None:
    pages, told = ENDINGS[ending]
    left = list(pages)

    def answer(request: Received) -> Reply:
        match request.method, request.path.removeprefix(BASE):
            case "POST", "":
                return Reply(409, {"error": {"code": "Conflict", "message": "There is a project."}})
            case "POST", "/p/train":
                return Reply(202, None, {"location": "http://{host}" + f"{BASE}/p/train/jobs/j"})
            case "GET", "/p/train/jobs/j":
                return Reply(200, left.pop(0))
        return Reply(404, {"error": {"code": "NotFound", "message": "no"}})

    replay.otherwise = answer
    async with life(branch(replay.url, folder, "p")) as it:
        if told:
            with pytest.raises(Misconfigured, match=told):
                await it.train(Labelled(ROWS, "m"))
        else:
            assert (await it.train(Labelled(ROWS, "m"))).evaluation is None
    assert left == []


async def test_whoever_does_not_wait_is_told_that_the_training_goes_on_unseen(replay: Replay, folder: Path) -> None:
    def answer(request: Received) -> Reply:
        match request.method, request.path.removeprefix(BASE):
            case "POST", "":
                return Reply(201, {})
            case "POST", "/p/train":
                return Reply(202, None, {"location": f"{BASE}/p/train/jobs/j"})
            case "GET", "/p/train/jobs/j":
                return Reply(200, RUNNING)
        return Reply(404, {"error": {"code": "NotFound", "message": "no"}})

    replay.otherwise = answer
    telling = Telling()
    async with life(branch(replay.url, folder, "p"), telling) as it:
        waiting = asyncio.create_task(it.train(Labelled(ROWS, "m")))
        await telling.heard_of_training()
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
    assert telling.broken_off.startswith("the service goes on training m, unseen: give the same command again when")
