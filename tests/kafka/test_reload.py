"""SIGHUP to `labelstream run` on a real broker: what changes does, what does not is said, and no document is lost."""

import asyncio
import os
import pty
import signal
import subprocess
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest

from tests.commands import (
    LABELSTREAM,
    PATIENCE,
    Running,
    environment,
    served_account,
    serving,
    small_model,
    started,
    tree,
    write_config,
)
from tests.kafka.test_several_workers import children
from tests.kafka.topics import committed, fill, size

MakeTopic = Callable[..., str]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_model(tmp_path_factory.mktemp("models") / "small")


@pytest.fixture
def topics(topic: MakeTopic) -> tuple[str, str, str]:
    return topic(partitions=4), topic(), topic()


def configured(bootstrap: str, account: Mapping[str, Any], topics: tuple[str, str, str]) -> dict[str, Any]:
    return {**tree(bootstrap, account, topics, drain="5s"), "log": {"level": "info", "format": "json"}}


def local(model: Path) -> dict[str, Any]:
    return {"provider": "local", "model": str(model), "threads": 1}


def parcels(count: int) -> list[bytes]:
    return [orjson.dumps({"id": n, "text": f"the parcel number {n} has not arrived"}) for n in range(count)]


def hang_up(run: Running, event: str) -> dict[str, Any]:
    """Send SIGHUP; gives what is said of it."""
    before = len(run.events(event))
    run.process.send_signal(signal.SIGHUP)
    run.wait_until(lambda: len(run.events(event)) > before)
    return run.events(event)[-1]


def test_routes_limits_and_log_level_change_while_it_runs(
    bootstrap: str, topics: tuple[str, str, str], topic: MakeTopic, tmp_path: Path, model: Path
) -> None:
    incoming, classified, _ = topics
    urgent, path = topic(), tmp_path / "triage.yaml"
    with serving(tmp_path, model) as (url, _), ExitStack() as stack:
        settings = configured(bootstrap, served_account(url), topics)
        run = stack.enter_context(started(tmp_path, "run", write_config(path, settings)))
        fill(bootstrap, incoming, parcels(100))
        run.wait_until(lambda: size(bootstrap, classified) == 100)

        settings["streams"][0]["routes"] = [{"class": "delivery", "to": urgent}]
        settings["accounts"]["served"]["limits"] = {"in_flight": 3}
        settings["log"]["level"] = "warning"
        write_config(path, settings)
        run.process.send_signal(signal.SIGHUP)
        limit = 'labelstream_concurrency_limit{account="served",provider="azure_language"} 3.0'
        run.wait_until(lambda: limit in metrics(run))
        assert not run.events("reloaded"), "which is less than a warning"
        fill(bootstrap, incoming, parcels(50))
        run.wait_until(lambda: size(bootstrap, classified) == 150)
        assert size(bootstrap, urgent) == 50

        path.write_text("streams: [", "utf-8")
        assert "is not YAML" in hang_up(run, "reload_failed")["reason"]
        settings["streams"][0]["routes"] = []
        write_config(path, {**settings, "kafka": {**settings["kafka"], "group_id": "another"}})
        assert hang_up(run, "reload_refused")["settings"] == ["kafka.group_id"]
        settings["streams"][0]["routes"] = [{"class": "delivery", "to": "nosuch"}]
        write_config(path, settings)
        assert "there is no topic 'nosuch'" in hang_up(run, "reload_failed")["reason"]
        fill(bootstrap, incoming, parcels(50))
        run.wait_until(lambda: size(bootstrap, classified) == 200)
        assert size(bootstrap, urgent) == 100, "the old routes are in force, for each of these"

        settings["streams"][0]["routes"], settings["log"]["level"] = [], "info"
        write_config(path, settings)
        assert hang_up(run, "reloaded")["settings"] == ["streams.tickets.routes", "log.level"]
        fill(bootstrap, incoming, parcels(50))
        run.wait_until(lambda: size(bootstrap, classified) == 250)
        assert size(bootstrap, urgent) == 100
        assert run.ended_by(signal.SIGTERM) == 0
    assert sum(mark.offset for mark in asyncio.run(committed(bootstrap, incoming, incoming)).values()) == 250


def metrics(run: Running) -> str:
    return httpx.get(f"{run.events('started')[0]['health']}/metrics", trust_env=False).text


def test_the_option_for_the_level_outlasts_the_file(
    bootstrap: str, topics: tuple[str, str, str], tmp_path: Path, model: Path
) -> None:
    path, settings = tmp_path / "triage.yaml", configured(bootstrap, local(model), topics)
    with started(tmp_path, "run", write_config(path, settings), "--log-level", "debug") as run:
        run.wait_until(lambda: run.events("started"))
        settings["log"]["level"] = "error"
        write_config(path, settings)
        assert hang_up(run, "reloaded")["settings"] == []


def test_each_of_several_workers_takes_it_up(
    bootstrap: str, topics: tuple[str, str, str], tmp_path: Path, model: Path
) -> None:
    path, settings = tmp_path / "triage.yaml", configured(bootstrap, local(model), topics)
    with started(tmp_path, "run", write_config(path, settings), "--workers", 2) as run:
        run.wait_until(lambda: len(run.events("started")) == 2)
        settings["streams"][0]["routes"] = [{"class": "delivery", "to": topics[1]}]
        write_config(path, settings)
        run.process.send_signal(signal.SIGHUP)
        run.wait_until(lambda: len(run.events("reloaded")) == 2)
        assert {said["worker"] for said in run.events("reloaded")} == {"0", "1"}
        assert len(children(run.process.pid)) == 2
        assert run.ended_by(signal.SIGTERM) == 0
        assert not run.events("worker_killed")


def test_a_terminal_that_is_closed_ends_it(
    bootstrap: str, topics: tuple[str, str, str], tmp_path: Path, model: Path
) -> None:
    config = write_config(tmp_path / "triage.yaml", configured(bootstrap, local(model), topics))
    ours, theirs = pty.openpty()
    command = ["setsid", "--ctty", *LABELSTREAM, "run", str(config)]
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(command, stdin=theirs, stderr=log, env=environment(), text=True)
    os.close(theirs)
    run = Running(process, tmp_path / "log")
    try:
        run.wait_until(lambda: run.events("started"))
        os.close(ours)
        assert process.wait(PATIENCE) == 0
        assert run.events("stopped")
    finally:
        process.kill()
        process.wait()
