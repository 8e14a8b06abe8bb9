"""`labelstream check`: everything that `run` would open, looked at and told."""

from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import orjson
import pytest

from tests.commands import (
    CANARY_KEY,
    NOWHERE,
    labelstream,
    mock_broker,
    served_account,
    serving,
    small_model,
    tree,
    write_config,
)

TOPICS = ("tickets.incoming", "tickets.classified", "tickets.dead")
JOBS = "tickets.incoming.tickets.incoming.jobs"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_model(tmp_path_factory.mktemp("models") / "small")


def found(run: CompletedProcess[str]) -> dict[str, tuple[bool, str]]:
    told = orjson.loads(run.stdout)
    assert told.keys() == {"ok", "checks"}
    assert told["ok"] == all(each["ok"] for each in told["checks"])
    return {each["what"]: (each["ok"], each["said"]) for each in told["checks"]}


def checked(folder: Path, settings: dict[str, Any], *options: str) -> CompletedProcess[str]:
    run = labelstream("check", write_config(folder / "triage.yaml", settings), *options)
    assert CANARY_KEY not in run.stdout + run.stderr
    return run


def test_all_is_well_where_the_topics_are_there_and_the_accounts_let_us_in(tmp_path: Path, model: Path) -> None:
    with serving(tmp_path, model) as (url, _), mock_broker(*TOPICS, JOBS) as bootstrap:
        settings = tree(bootstrap, served_account(url), TOPICS)
        settings["accounts"]["onsite"] = {"provider": "local", "model": str(model)}
        run = checked(tmp_path, settings, "--json")
        assert run.returncode == 0, run.stderr
        findings = found(run)
        jobs = "streams.tickets.jobs_topic"
        assert findings.keys() == {"configuration", "kafka", jobs, "accounts.served", "accounts.onsite"}
        assert all(ok for ok, _ in findings.values())
        assert findings["kafka"][1] == f"{bootstrap} answers and has every topic"
        assert "tickets/production, single_label" in findings["accounts.served"][1]

        run = checked(tmp_path, settings)
        assert run.returncode == 0
        assert [line[:4] for line in run.stdout.splitlines()] == ["ok  "] * 5

        wrong = {"key": "another-key", "project": "tickets"}
        run = checked(tmp_path, tree(bootstrap, served_account(url, **wrong), TOPICS), "--json")
        assert run.returncode == 1
        ok, said = found(run)["accounts.served"]
        assert not ok
        assert "accounts.served: " in said
        assert "401" in said
        assert "check key" in said


def test_everything_that_is_wrong_is_told_at_once(tmp_path: Path) -> None:
    settings = tree(NOWHERE, served_account(f"http://{NOWHERE}"), TOPICS)
    settings["accounts"]["onsite"] = {"provider": "local", "model": str(tmp_path / "nosuch")}
    run = checked(tmp_path, settings)
    assert run.returncode == 1
    first, *rest = run.stdout.splitlines()
    assert first == "ok  every setting is valid"
    assert [line[:3] for line in rest] == ["no "] * 3
    for line, said in zip(rest, ("kafka.bootstrap_servers", "accounts.onsite: ", "accounts.served: "), strict=True):
        assert said in line


def test_topics_that_are_missing_are_named_by_their_settings(tmp_path: Path, model: Path) -> None:
    with mock_broker("tickets.incoming") as bootstrap:
        settings = tree(bootstrap, {"provider": "local", "model": str(model)}, TOPICS)
        run = checked(tmp_path, settings, "--json")
    assert run.returncode == 1
    missing = [each["said"] for each in orjson.loads(run.stdout)["checks"] if not each["ok"]]
    assert [said.split(":")[0] for said in sorted(missing)] == ["streams.tickets.dead_letter", "streams.tickets.output"]
    assert "there is no topic 'tickets.dead'" in min(missing)


def test_a_configuration_that_is_wrong_is_wrong_usage(tmp_path: Path) -> None:
    run = checked(tmp_path, {"kafka": {}}, "--json")
    assert (run.returncode, run.stdout) == (2, "")
    assert "triage.yaml: kafka.bootstrap_servers: is required" in run.stderr
