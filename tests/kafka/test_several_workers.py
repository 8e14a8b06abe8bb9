"""`labelstream run --workers 2` on a real broker: seen from outside as one, and nothing is lost whoever dies."""

import asyncio
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.commands import PATIENCE, Running, small_model, started, tree, write_config
from tests.kafka.topics import committed, counted, document, fill, read

MakeTopic = Callable[..., str]
DOCUMENTS = 2000


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_model(tmp_path_factory.mktemp("models") / "small")


@pytest.fixture
def topics(topic: MakeTopic) -> tuple[str, str, str]:
    return topic(partitions=4), topic(partitions=4), topic()


@contextmanager
def running(
    tmp_path: Path, bootstrap: str, model: Path, topics: tuple[str, str, str], **kafka: Any
) -> Iterator[tuple[Running, httpx.Client]]:
    settings = tree(bootstrap, {"provider": "local", "model": str(model), "threads": 1}, topics, drain="5s")
    settings["kafka"] |= {"session_timeout": "6s", "rebalance_timeout": "8s", **kafka}
    with started(tmp_path, "run", write_config(tmp_path / "c.yaml", settings), "--workers", 2) as run:
        run.wait_until(lambda: run.events("workers_started"))
        with httpx.Client(base_url=run.events("workers_started")[0]["health"], trust_env=False) as http:
            yield run, http


def partitions(http: httpx.Client) -> list[int]:
    """How many each of the workers has."""
    workers = http.get("/readyz").json()["workers"].values()
    return [sum(each["assigned_partitions"] for each in (of or {"streams": {}})["streams"].values()) for of in workers]


def children(process: int) -> list[int]:
    """The workers' processes: those of its children that run the service."""
    found = [int(child) for child in Path(f"/proc/{process}/task/{process}/children").read_text().split()]
    return [child for child in found if b"spawn_main" in Path(f"/proc/{child}/cmdline").read_bytes()]


def done(bootstrap: str, topics: tuple[str, str, str]) -> int:
    return sum(mark.offset for mark in asyncio.run(committed(bootstrap, topics[0], topics[0])).values())


def test_two_workers_share_the_partitions_and_look_like_one(
    bootstrap: str, topics: tuple[str, str, str], tmp_path: Path, model: Path
) -> None:
    fill(bootstrap, topics[0], map(document, range(DOCUMENTS)))
    with running(tmp_path, bootstrap, model, topics, group_instance_id="pod-7") as (run, http):
        run.wait_until(lambda: partitions(http) == [2, 2])
        assert http.get("/readyz").status_code == 200
        assert http.get("/livez").json() == {"alive": True, "silent": []}
        fill(bootstrap, topics[0], map(document, range(DOCUMENTS, 2 * DOCUMENTS)))
        run.wait_until(lambda: done(bootstrap, topics) == 2 * DOCUMENTS)

        families = {family.name: family for family in text_string_to_metric_families(http.get("/metrics").text)}
        finished = {
            sample.labels["worker"]: sample.value
            for sample in families["labelstream_records_finished"].samples
            if sample.name.endswith("_total") and sample.labels["outcome"] == "classified"
        }
        assert finished.keys() == {"0", "1"}
        assert sum(finished.values()) == 2 * DOCUMENTS
        assert min(finished.values()) > 0
        assert {sample.value for sample in families["labelstream_worker_up"].samples} == {1}
        assert {event["worker"] for event in run.events("started")} == {"0", "1"}

        assert run.ended_by(signal.SIGTERM) == 0
        assert len(run.events("stopped")) == 2
        assert run.events("drain_incomplete") == []
    results = counted(read(bootstrap, topics[1]))
    assert (len(results), set(results.values())) == (2 * DOCUMENTS, {1})


def test_a_worker_that_is_killed_loses_nothing_and_is_started_again(
    bootstrap: str, topics: tuple[str, str, str], tmp_path: Path, model: Path
) -> None:
    with running(tmp_path, bootstrap, model, topics) as (run, http):
        run.wait_until(lambda: partitions(http) == [2, 2])
        fill(bootstrap, topics[0], map(document, range(DOCUMENTS)))
        run.wait_until(lambda: done(bootstrap, topics) > 0)
        first, _ = children(run.process.pid)
        os.kill(first, signal.SIGKILL)
        run.wait_until(lambda: run.events("worker_killed"))
        assert http.get("/livez").status_code == 200, "the others do"
        run.wait_until(lambda: done(bootstrap, topics) == DOCUMENTS and partitions(http) == [2, 2])
        assert 'labelstream_worker_restarts_total{worker="0"} 1.0' in http.get("/metrics").text
        assert run.ended_by(signal.SIGTERM) == 0
    assert len(counted(read(bootstrap, topics[1]))) == DOCUMENTS


def test_workers_do_not_outlive_the_process_beside_them(
    bootstrap: str, topics: tuple[str, str, str], tmp_path: Path, model: Path
) -> None:
    fill(bootstrap, topics[0], map(document, range(DOCUMENTS)))
    with running(tmp_path, bootstrap, model, topics) as (run, http):
        run.wait_until(lambda: partitions(http) == [2, 2])
        workers = children(run.process.pid)
        run.process.kill()
        run.process.wait()
        deadline = time.monotonic() + PATIENCE
        while any(Path(f"/proc/{worker}/cmdline").exists() and is_alive(worker) for worker in workers):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        assert len(run.events("stopped")) == 2


def is_alive(process: int) -> bool:
    try:
        return "State:\tZ" not in Path(f"/proc/{process}/status").read_text()
    except OSError:
        return False


def test_a_setting_that_is_wrong_ends_all_of_it_and_is_told_once(
    bootstrap: str, topics: tuple[str, str, str], tmp_path: Path, model: Path
) -> None:
    settings = tree(bootstrap, {"provider": "local", "model": str(model)}, (topics[0], "nosuch", topics[2]))
    with started(tmp_path, "run", write_config(tmp_path / "c.yaml", settings), "--workers", 2) as run:
        assert run.process.wait(PATIENCE) == 2
        assert run.said().count("there is no topic 'nosuch'") == 1


def test_an_interruption_from_a_terminal_is_one_signal_to_each(
    bootstrap: str, topics: tuple[str, str, str], tmp_path: Path, model: Path
) -> None:
    with running(tmp_path, bootstrap, model, topics) as (run, http):
        run.wait_until(lambda: partitions(http) == [2, 2])
        assert run.ended_by(signal.SIGINT) == 0
        assert len(run.events("stopped")) == 2
