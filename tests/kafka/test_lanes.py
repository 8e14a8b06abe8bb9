"""Several classifiers for a stream, by `labelstream run` on a real broker: one in the worker, one behind the wire."""

import asyncio
import signal
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest

from tests.commands import TEXTS, Running, served_account, serving, small_model, started, tree, write_config
from tests.kafka.topics import committed, counted, fill, read

MakeTopic = Callable[..., str]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_model(tmp_path_factory.mktemp("models") / "small")


@pytest.fixture
def topics(topic: MakeTopic) -> tuple[str, str, str]:
    return topic(partitions=3), topic(partitions=3), topic()


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory, model: Path) -> Iterator[str]:
    with serving(tmp_path_factory.mktemp("served"), model) as (url, _):
        yield url


def documents(each: int) -> list[bytes]:
    """So many of either class, every other one in German, as it says."""
    return [
        orjson.dumps({"id": f"{label}-{n}", "text": text.format(n), "lang": "de-AT" if n % 2 else "en"})
        for label, text in TEXTS.items()
        for n in range(each)
    ]


def told(
    bootstrap: str, topics: tuple[str, str, str], folder: Path, accounts: tuple[Path, str], **changed: Any
) -> dict[str, Any]:
    """The results of 400 documents, by their ids, once all is committed and the worker has ended."""
    incoming, classified, _ = topics
    model, url = accounts
    configured = tree(bootstrap, served_account(url), topics, classify_with="onsite", **changed)
    configured["accounts"]["onsite"] = {"provider": "local", "model": str(model)}
    fill(bootstrap, incoming, documents(200))
    with started(folder, "run", write_config(folder / "triage.yaml", configured)) as worker:
        worker.wait_until(lambda: _progress(bootstrap, incoming) == 400)
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
    bootstrap: str, topics: tuple[str, str, str], tmp_path: Path, model: Path, served: str
) -> None:
    unsure = {"when": {"best": "access"}, "ask": "served"}
    results = told(bootstrap, topics, tmp_path, (model, served), unsure=unsure)
    assert Counter((body["best"]["name"], body["account"]) for body in results.values()) == {
        ("access", "served"): 200,
        ("delivery", "onsite"): 200,
    }
    one = results["access-0"]
    assert [each["account"] for each in one["stages"]] == ["onsite", "served"]
    assert "stages" not in results["delivery-0"]


def test_each_language_is_asked_of_its_account(
    bootstrap: str, topics: tuple[str, str, str], tmp_path: Path, model: Path, served: str
) -> None:
    results = told(
        bootstrap, topics, tmp_path, (model, served), by_language={"de": "served"}, document={"language": "/lang"}
    )
    accounts = {name: body["account"] for name, body in results.items()}
    assert accounts == {name: "served" if int(name.split("-")[1]) % 2 else "onsite" for name in results}


def test_the_answers_of_two_accounts_are_one_result_and_exactly_one(
    bootstrap: str, topics: tuple[str, str, str], tmp_path: Path, model: Path, served: str
) -> None:
    results = told(bootstrap, topics, tmp_path, (model, served), merge_with="served", delivery="exactly_once")
    assert {tuple(each["account"] for each in body["stages"]) for body in results.values()} == {("served", "onsite")}
    assert {body["task"] for body in results.values()} == {"multi_label"}
    for name, body in results.items():
        names = [each["name"] for each in body["classes"]]
        assert sorted(names) == sorted(set(names))
        assert body["best"]["name"] == name.split("-")[0]
