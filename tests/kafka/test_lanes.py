"""Several classifiers for a stream, by `labelstream run` on a real broker: one in the worker, one behind the wire."""

import asyncio
import signal
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest

from service.dispatch.trials import is_drawn
from service.model.examples import Example
from service.model.train import train
from tests.commands import (
    TEXTS,
    Running,
    labelstream,
    served_account,
    serving,
    small_model,
    started,
    tree,
    write_config,
)
from tests.kafka.topics import committed, counted, fill, read
from tests.records import document

MakeTopic = Callable[..., str]
SUBMITTED = (
    'labelstream_provider_request_duration_seconds_count{account="served",operation="submit",outcome="2xx",'
    'provider="azure_language"}'
)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_model(tmp_path_factory.mktemp("models") / "small")


@pytest.fixture
def topics(topic: MakeTopic) -> tuple[str, str, str]:
    return topic(partitions=3), topic(partitions=3), topic()


@pytest.fixture(scope="module")
def accounts(tmp_path_factory: pytest.TempPathFactory, model: Path) -> Iterator[tuple[Path, str]]:
    """The model of the worker, and where the same is behind the wire."""
    with serving(tmp_path_factory.mktemp("served"), model) as (url, _):
        yield model, url


def documents(each: int) -> list[bytes]:
    """So many of either class, every other one in German, as it says."""
    return [
        orjson.dumps({"id": f"{label}-{n}", "text": text.format(n), "lang": "de-AT" if n % 2 else "en"})
        for label, text in TEXTS.items()
        for n in range(each)
    ]


def other_model(folder: Path) -> Path:
    """A model that calls parcels otherwise."""
    learn = [
        Example(f"{label}-{n}", text.format(n), (label if label == "access" else "post",))
        for label, text in TEXTS.items()
        for n in range(10)
    ]
    train(learn, task="single_label", name="other").save(folder)
    return folder


def told(
    bootstrap: str,
    topics: tuple[str, str, str],
    folder: Path,
    accounts: tuple[Path, str],
    look: Callable[[str], None] = lambda _: None,
    **changed: Any,
) -> dict[str, Any]:
    """The results of 400 documents, by their ids, once all is committed and the worker has ended.

    Before it ends, `look` is given the URL of its health port.
    """
    incoming, classified, _ = topics
    model, url = accounts
    configured = tree(bootstrap, served_account(url), topics, classify_with="onsite", **changed)
    configured["accounts"]["onsite"] = {"provider": "local", "model": str(model)}
    configured["accounts"]["candidate"] = {"provider": "local", "model": str(other_model(folder / "candidate"))}
    fill(bootstrap, incoming, documents(200))
    with started(folder, "run", write_config(folder / "triage.yaml", configured)) as worker:
        worker.wait_until(lambda: _progress(bootstrap, incoming) == 400)
        look(worker.events("started")[0]["health"])
        _ended(worker)
    results = read(bootstrap, classified)
    assert set(counted(results).values()) == {1}
    return {body["id"]: body for body in (orjson.loads(each.value or b"") for each in results)}


def _progress(bootstrap: str, incoming: str) -> int:
    return sum(mark.offset for mark in asyncio.run(committed(bootstrap, incoming, incoming)).values())


def _ended(worker: Running) -> None:
    assert worker.ended_by(signal.SIGTERM) == 0
    assert worker.events("stopped")


def test_what_the_model_of_the_worker_is_unsure_of_is_asked_of_the_account_behind_the_wire(
    bootstrap: str, topics: tuple[str, str, str], tmp_path: Path, accounts: tuple[Path, str]
) -> None:
    unsure = {"when": {"best": "access"}, "ask": "served"}
    results = told(bootstrap, topics, tmp_path, accounts, unsure=unsure)
    assert Counter((body["best"]["name"], body["account"]) for body in results.values()) == {
        ("access", "served"): 200,
        ("delivery", "onsite"): 200,
    }
    one = results["access-0"]
    assert [each["account"] for each in one["stages"]] == ["onsite", "served"]
    assert "stages" not in results["delivery-0"]


def test_each_language_is_asked_of_its_account(
    bootstrap: str, topics: tuple[str, str, str], tmp_path: Path, accounts: tuple[Path, str]
) -> None:
    results = told(bootstrap, topics, tmp_path, accounts, by_language={"de": "served"}, document={"language": "/lang"})
    asked = {name: body["account"] for name, body in results.items()}
    assert asked == {name: "served" if int(name.split("-")[1]) % 2 else "onsite" for name in results}


def test_the_answers_of_two_accounts_are_one_result_and_exactly_one(
    bootstrap: str, topics: tuple[str, str, str], tmp_path: Path, accounts: tuple[Path, str]
) -> None:
    results = told(bootstrap, topics, tmp_path, accounts, merge_with="served", delivery="exactly_once")
    assert {tuple(each["account"] for each in body["stages"]) for body in results.values()} == {("served", "onsite")}
    assert {body["task"] for body in results.values()} == {"multi_label"}
    for name, body in results.items():
        names = [each["name"] for each in body["classes"]]
        assert sorted(names) == sorted(set(names))
        assert body["best"]["name"] == name.split("-")[0]


@pytest.mark.parametrize("trial", [("shadow", 1.0), ("canary", 0.25)])
def test_a_candidate_is_tried_beside_and_a_command_says_how_it_does(
    bootstrap: str, topics: tuple[str, str, str], tmp_path: Path, accounts: tuple[Path, str], trial: tuple[str, float]
) -> None:
    said, (kind, share) = dict[str, Any](), trial

    def look(url: str) -> None:
        while True:  # what is asked beside is no part of any commit
            answer = labelstream("trial", url, "--json")
            assert answer.returncode == 0, answer.stderr
            (told,) = orjson.loads(answer.stdout)["trials"]
            said.update(told)
            if sum(told["became"].values()) == drawn:
                break
        assert "delivery → post" in labelstream("trial", url).stdout

    ids = [f"{label}-{n}" for label in TEXTS for n in range(200)]
    drawn = sum(is_drawn(document(0)._replace(id=each), share) for each in ids)
    results = told(bootstrap, topics, tmp_path, accounts, look, **{kind: {"ask": "candidate", "share": share}})
    answered = Counter(body["account"] for body in results.values())
    assert answered["candidate"] == (0 if kind == "shadow" else drawn)
    assert sum(answered.values()) == 400
    assert (said["trial"], said["became"].get("dropped", 0)) == (kind, 0)
    ((present, candidate, differing),) = said["differences"]
    assert (present, candidate) == ("delivery", "post")
    assert differing == said["became"]["differed"]
    assert said["agreement"] == pytest.approx(1 - differing / drawn)


def test_what_a_worker_that_is_killed_has_paid_for_in_the_second_stage_is_not_paid_for_again(
    bootstrap: str, topics: tuple[str, str, str], tmp_path: Path, model: Path
) -> None:
    incoming, classified, _ = topics
    (faults := tmp_path / "faults.yaml").write_text("[{on: submit, job: slow, job_seconds: 8}]", encoding="utf-8")
    fill(bootstrap, incoming, documents(200))

    def sample(worker: Running, name: str) -> float:
        metrics = httpx.get(worker.events("started")[0]["health"] + "/metrics").text
        return sum(float(line.split()[-1]) for line in metrics.splitlines() if line.startswith(name))

    asked = "labelstream_batch_size_records"
    noted = f'labelstream_messages_produced_total{{topic="{incoming}.{incoming}.jobs"}}'  # and safe at the broker
    with serving(tmp_path, model, "--faults", faults) as (url, _):
        unsure = {"when": {"best": "access"}, "ask": "served"}
        configured = tree(bootstrap, served_account(url), topics, classify_with="onsite", unsure=unsure)
        configured["accounts"]["onsite"] = {"provider": "local", "model": str(model)}
        configured["kafka"]["session_timeout"] = "1500ms"
        config = write_config(tmp_path / "triage.yaml", configured)
        with started(tmp_path, "run", config) as worker:
            worker.wait_until(lambda: worker.events("started"))
            worker.wait_until(lambda: sample(worker, f'{asked}_sum{{account="served"') == 200)
            worker.wait_until(lambda: sample(worker, SUBMITTED) == sample(worker, f'{asked}_count{{account="served"'))
            worker.wait_until(lambda: 8 <= sample(worker, "labelstream_job_notes") == sample(worker, noted))
            assert worker.ended_by(signal.SIGKILL) == -signal.SIGKILL
        with started(tmp_path, "run", config) as worker:
            worker.wait_until(lambda: _progress(bootstrap, incoming) == 400)
            assert sample(worker, 'labelstream_records_resumed_total{account="served"') == 200
            assert sample(worker, 'labelstream_batch_size_records_sum{account="served"') == 0
            _ended(worker)
    bodies = [orjson.loads(each.value or b"") for each in read(bootstrap, classified)]
    assert Counter(body["account"] for body in bodies if body["best"]["name"] == "access") == {"served": 200}
    assert len({body["id"] for body in bodies}) == 400
