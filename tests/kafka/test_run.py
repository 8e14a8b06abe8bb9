"""`labelstream run` on a real broker and a real server: what it does, and what it says when it cannot."""

import asyncio
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest
from confluent_kafka.admin import AdminClient

from tests.commands import (
    CANARY_KEY,
    CANARY_TEXT,
    NOWHERE,
    Running,
    labelstream,
    served_account,
    serving,
    small_model,
    started,
    tree,
    write_config,
)
from tests.kafka.topics import committed, counted, fill, read, size

FAMILIES = (
    "records_consumed",
    "records_finished",
    "dead_letters",
    "record_end_to_end_seconds",
    "commits",
    "consumer_lag_records",
    "provider_request_duration_seconds",
    "job_polls",
    "event_loop_lag_seconds",
)
MakeTopic = Callable[..., str]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_model(tmp_path_factory.mktemp("models") / "small")


@pytest.fixture
def topics(topic: MakeTopic) -> tuple[str, str, str]:
    return topic(partitions=3), topic(partitions=3), topic()


def documents(count: int) -> list[bytes]:
    return [orjson.dumps({"id": n, "text": f"the parcel {n} has not arrived, {CANARY_TEXT}"}) for n in range(count)]


def progress(bootstrap: str, incoming: str) -> int:
    return sum(mark.offset for mark in asyncio.run(committed(bootstrap, incoming, incoming)).values())


def health(worker: Running) -> httpx.Client:
    worker.wait_until(lambda: worker.events("started"))
    return httpx.Client(base_url=worker.events("started")[0]["health"])


def test_documents_are_classified_and_committed_and_it_ends_when_asked(
    bootstrap: str, topics: tuple[str, str, str], tmp_path: Path, model: Path
) -> None:
    incoming, classified, dead = topics
    fill(bootstrap, incoming, [*documents(400), b'{"id": "empty", "text": ""}', f"no JSON: {CANARY_TEXT}".encode()])
    with serving(tmp_path, model, "--log-level", "debug") as (url, server):
        config = write_config(tmp_path / "triage.yaml", tree(bootstrap, served_account(url), topics))
        with started(tmp_path, "run", config) as worker, health(worker) as client:
            worker.wait_until(lambda: client.get("/readyz").status_code == 200)
            worker.wait_until(lambda: progress(bootstrap, incoming) == 402)
            assert client.get("/livez").status_code == 200
            shown = client.get("/metrics").text + client.get("/readyz").text
            for family in FAMILIES:
                assert f"# HELP labelstream_{family}" in shown
            fill(bootstrap, incoming, documents(100))
            assert worker.ended_by(signal.SIGTERM) == 0
            assert worker.line() == ""
            results, letters = read(bootstrap, classified), read(bootstrap, dead)
            assert progress(bootstrap, incoming) == len(results) + len(letters)
            assert set(counted(results).values()) == {1}
            assert {orjson.loads(result.value or b"")["best"]["name"] for result in results} == {"delivery"}
            assert [letter.header("labelstream-error-type") for letter in letters] != []
            assert len(letters) == 2
            assert worker.events("stopped")
        for said in (worker.said(), server.said(), shown):
            assert CANARY_TEXT not in said
            assert CANARY_KEY not in said


def refused(tmp_path: Path, settings: dict[str, Any]) -> tuple[int, str]:
    run = labelstream("run", write_config(tmp_path / "triage.yaml", settings))
    assert run.stdout == ""
    assert CANARY_KEY not in run.stderr
    return run.returncode, run.stderr.splitlines()[-1]


def test_a_topic_that_is_missing_is_named_by_its_setting(
    bootstrap: str, topics: tuple[str, str, str], tmp_path: Path, model: Path
) -> None:
    local = {"provider": "local", "model": str(model)}
    code, said = refused(tmp_path, tree(bootstrap, local, (topics[0], "nosuch", topics[2])))
    assert code == 2
    assert "streams.tickets.output: there is no topic 'nosuch'" in said


def test_an_endpoint_that_is_not_there_is_named_by_its_account(
    bootstrap: str, topics: tuple[str, str, str], tmp_path: Path
) -> None:
    code, said = refused(tmp_path, tree(bootstrap, served_account(f"http://{NOWHERE}"), topics))
    assert code == 1
    assert f"accounts.served: {NOWHERE} did not answer" in said


def test_a_wrong_key_ends_it_before_anything_is_read(
    bootstrap: str, topics: tuple[str, str, str], tmp_path: Path, model: Path
) -> None:
    incoming, classified, dead = topics
    fill(bootstrap, incoming, documents(10))
    with serving(tmp_path, model, key="another-key") as (url, _):
        code, said = refused(tmp_path, tree(bootstrap, served_account(url), topics))
    assert code == 2
    assert "accounts.served: " in said
    assert "401" in said
    assert "check key" in said
    assert asyncio.run(committed(bootstrap, incoming, incoming)) == {}
    assert (size(bootstrap, classified), size(bootstrap, dead)) == (0, 0)


def test_a_key_that_is_taken_back_ends_it_with_what_was_not_answered_uncommitted(
    bootstrap: str, topics: tuple[str, str, str], tmp_path: Path, model: Path
) -> None:
    incoming, classified, dead = topics
    fill(bootstrap, incoming, documents(60))
    with (
        serving(tmp_path, model, "--allow-faults") as (url, _),
        started(
            tmp_path, "run", write_config(tmp_path / "c.yaml", tree(bootstrap, served_account(url), topics))
        ) as worker,
    ):
        worker.wait_until(lambda: progress(bootstrap, incoming) == 60)
        rules = [{"on": "submit", "status": 401}]
        headers = {"Ocp-Apim-Subscription-Key": CANARY_KEY}
        assert httpx.put(f"{url}/_faults", json=rules, headers=headers).is_success
        fill(bootstrap, incoming, documents(60))
        assert worker.process.wait(100) == 2
        last = worker.said().splitlines()[-1]
    assert last.startswith("labelstream: accounts.served: ")
    assert "check key" in last
    assert CANARY_KEY not in last
    assert progress(bootstrap, incoming) == 60
    assert (size(bootstrap, classified), size(bootstrap, dead)) == (60, 0)


def test_check_tries_transactions_and_the_topic_of_the_jobs_and_makes_nothing(
    bootstrap: str, topics: tuple[str, str, str], tmp_path: Path, model: Path
) -> None:
    with serving(tmp_path, model) as (url, _):
        settings = tree(bootstrap, served_account(url), topics)
        settings["streams"][0]["delivery"] = "exactly_once"
        run = labelstream("check", write_config(tmp_path / "triage.yaml", settings), "--json")
        assert run.returncode == 0, run.stdout + run.stderr
        said = {each["what"]: each["said"] for each in orjson.loads(run.stdout)["checks"]}
        assert said["streams.tickets.delivery"] == "transactions can be had"
        assert "can be made" in said["streams.tickets.jobs_topic"]
        assert f"{topics[0]}.{topics[0]}.jobs" not in AdminClient({"bootstrap.servers": bootstrap}).list_topics().topics

        settings["streams"][0]["jobs_topic"] = "jobs"
        settings["streams"][0]["note_jobs"] = False
        run = labelstream("check", write_config(tmp_path / "triage.yaml", settings), "--json")
        assert "streams.tickets.jobs_topic" not in run.stdout
