"""What holds for every command, and those that have no file of their own: `run` without Kafka, `serve`, `models`."""

import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest
import typer
from typer.testing import CliRunner

from service.cli import app
from tests.commands import (
    CANARY_KEY,
    CANARY_TEXT,
    NOWHERE,
    environment,
    labelstream,
    rows,
    served_account,
    serving,
    small_model,
    started,
    tree,
    write_config,
    write_lines,
)

TOPICS = ("tickets.incoming", "tickets.classified", "tickets.dead")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_model(tmp_path_factory.mktemp("models") / "small")


def configured(folder: Path, **parts: Any) -> Path:
    """A configuration of which nothing can be reached; `parts` replace branches of it."""
    return write_config(folder / "triage.yaml", tree(NOWHERE, served_account(f"http://{NOWHERE}"), TOPICS) | parts)


# Help and usage


def commands(group: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    yield path
    for name, command in getattr(group, "commands", {}).items():
        yield from commands(command, (*path, name))


@pytest.mark.parametrize("path", list(commands(typer.main.get_command(app))), ids=" ".join)
def test_every_command_says_what_it_does(path: tuple[str, ...]) -> None:
    shown = CliRunner().invoke(app, [*path, "--help"])
    assert shown.exit_code == 0
    assert " ".join(("Usage:", "labelstream", *path)) in shown.output.replace("root", "labelstream")
    assert "--help" in shown.output


def test_without_a_command_it_shows_which_there_are() -> None:
    run = labelstream()
    for name in ("run", "check", "classify", "demo", "serve", "bench", "models"):
        assert f" {name} " in run.stdout
    assert run.stderr == ""


HEAVY = {"aiokafka", "botocore", "docx", "numpy", "pypdf", "sklearn", "starlette"}


@pytest.mark.parametrize(
    ("module", "heavy"), [("service.cli", HEAVY), ("service.server.app", HEAVY - {"numpy", "starlette"})]
)
def test_what_is_not_needed_yet_is_not_waited_for(module: str, heavy: set[str]) -> None:
    program = f"import sys, {module}; print(*sys.modules)"
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True, env=environment(), text=True)
    assert heavy.intersection(run.stdout.split()) == set()


def test_an_unknown_option_is_wrong_usage_and_said_on_standard_error_alone() -> None:
    run = labelstream("demo", "--nosuch")
    assert (run.returncode, run.stdout) == (2, "")
    assert "--nosuch" in run.stderr


# What ends a command


@pytest.mark.parametrize(
    ("parts", "said"),
    [
        ({"kafka": {"bootstrap_server": "k:1", "group_id": "g"}}, "did you mean 'bootstrap_servers'?"),
        ({"accounts": {"servd": served_account(f"http://{NOWHERE}")}}, "no account 'served', did you mean 'servd'?"),
    ],
)
def test_a_wrong_setting_is_named_with_its_file_and_the_nearest_that_is_right(
    tmp_path: Path, parts: dict[str, Any], said: str
) -> None:
    path = configured(tmp_path, **parts)
    run = labelstream("run", path)
    assert (run.returncode, run.stdout) == (2, "")
    assert run.stderr.startswith(f"labelstream: {path}: ")
    assert said in run.stderr
    assert CANARY_KEY not in run.stderr


def test_a_configuration_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    run = labelstream("run", tmp_path / "nosuch.yaml")
    assert run.returncode == 2
    assert "nosuch.yaml: cannot be read: No such file" in run.stderr


def test_what_is_wrong_with_yaml_is_named_by_its_line_without_quoting_it(tmp_path: Path) -> None:
    (tmp_path / "triage.yaml").write_text(f"accounts:\n  azure: {{key: {CANARY_KEY}: }}\n")
    run = labelstream("run", tmp_path / "triage.yaml")
    assert run.returncode == 2
    assert "triage.yaml: is not YAML at line 2" in run.stderr
    assert CANARY_KEY not in run.stderr


def test_a_broker_that_is_not_there_ends_a_run_by_its_setting(tmp_path: Path, model: Path) -> None:
    config = tree(NOWHERE, {"provider": "local", "model": str(model)}, TOPICS)
    run = labelstream("run", write_config(tmp_path / "triage.yaml", config))
    assert (run.returncode, run.stdout) == (1, "")
    assert f"kafka.bootstrap_servers: no broker of {NOWHERE}" in run.stderr.splitlines()[-1]


def test_a_broker_that_says_nothing_ends_a_run_within_its_request_timeout(tmp_path: Path, model: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as mute:
        local = {"provider": "local", "model": str(model)}
        config = tree(f"127.0.0.1:{mute.getsockname()[1]}", local, TOPICS, drain="100ms")
        config["kafka"]["request_timeout"] = "500ms"
        run = labelstream("run", write_config(tmp_path / "triage.yaml", config))
    assert run.returncode == 1
    assert "kafka.bootstrap_servers" in run.stderr.splitlines()[-1]


def test_a_crash_shows_neither_texts_nor_keys(tmp_path: Path, model: Path) -> None:
    path = write_lines(tmp_path / "rows.jsonl", [{"id": 1, "text": CANARY_TEXT, "labels": ["delivery"]}])
    no_standard_output = 'exec "$@" >&-'  # which is not thought of
    run = labelstream(
        "models", "evaluate", model, path, "--json", under=no_standard_output, LABELSTREAM_SERVE_KEY=CANARY_KEY
    )
    assert run.returncode == 1
    (line,) = [orjson.loads(line) for line in run.stderr.splitlines()]
    assert (line["event"], line["level"]) == ("failed", "critical")
    assert line["exception"][0]["frames"], "where it happened is not told"
    assert CANARY_TEXT not in run.stderr
    assert CANARY_KEY not in run.stderr


# serve


def test_serve_says_where_it_serves_and_ends_when_asked(tmp_path: Path, model: Path) -> None:
    body = {
        "analysisInput": {"documents": [{"id": "1", "language": "en", "text": CANARY_TEXT}]},
        "tasks": [
            {
                "kind": "CustomSingleLabelClassification",
                "parameters": {"projectName": "tickets", "deploymentName": "production"},
            }
        ],
    }
    with (
        serving(tmp_path, model, "--log-level", "debug") as (url, server),
        httpx.Client(base_url=url, params={"api-version": "2023-04-01"}) as client,
    ):
        jobs = "/language/analyze-text/jobs"
        keys = [{}, {"Ocp-Apim-Subscription-Key": "another"}, {"Ocp-Apim-Subscription-Key": CANARY_KEY}]
        assert [client.post(jobs, json=body, headers=key).status_code for key in keys] == [401, 401, 202]
        assert client.post(jobs, content=CANARY_TEXT, headers=keys[2]).status_code == 400
        assert server.ended_by(signal.SIGTERM) == 0
        assert server.line() == ""
        assert "small" not in server.said().replace(str(model), "")
        assert CANARY_TEXT not in server.said()
        assert CANARY_KEY not in server.said()


def test_serve_refuses_what_is_unsafe(tmp_path: Path) -> None:
    run = labelstream("serve", "--data", tmp_path, "--port", 0, "--host", "::", "--key", CANARY_KEY)
    assert (run.returncode, run.stdout) == (2, "")
    assert "serving on :: without TLS" in run.stderr
    assert CANARY_KEY not in run.stderr


# models


def test_a_model_is_trained_and_measured(tmp_path: Path) -> None:
    split = [{**row, "split": "test" if n >= 30 else "train"} for n, row in enumerate(rows(20))]
    path = write_lines(tmp_path / "rows.jsonl", split)
    trained = labelstream("models", "train", path, "--out", "made/small", "--split", "train", "--json", cwd=tmp_path)
    assert trained.returncode == 0, trained.stderr
    said = orjson.loads(trained.stdout)
    assert said["model"] == "made/small/model.zip"
    assert (said["documents"], said["unlabelled"], said["estimate"]["task"]) == (30, 0, "single_label")
    assert "training on 30 documents" in trained.stderr

    measured = labelstream("models", "evaluate", "made/small", path, "--split", "test", "--json", cwd=tmp_path)
    assert measured.returncode == 0, measured.stderr
    figures = orjson.loads(measured.stdout)
    shares = [f"{what}_{how}" for what in ("precision", "recall", "f1") for how in ("micro", "macro")]
    assert {"documents", "accuracy", *shares, "hamming_loss", "ece", "seconds"} <= figures.keys()
    assert (figures["documents"], figures["accuracy"], figures["f1_macro"]) == (10, 1.0, 1.0)


def test_a_task_can_be_asked_for_and_a_table_is_shown_to_people(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "rows.jsonl", rows())
    trained = labelstream("models", "train", path, "--out", "small", "--task", "multi_label", cwd=tmp_path)
    assert trained.returncode == 0, trained.stderr
    assert "small/model.zip: learnt 2 classes from 20 documents" in trained.stdout
    measured = labelstream("models", "evaluate", "small", path, cwd=tmp_path)
    assert measured.returncode == 0, measured.stderr
    assert "macro-F1" in measured.stdout
    assert measured.stderr == ""


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["train", "bad.jsonl", "--out", "m"], "bad.jsonl, line 2: is not JSON"),
        (["train", "rows.jsonl", "--out", "bad.jsonl/m"], "--out bad.jsonl/m: the model cannot be written there"),
        (["evaluate", "bad.jsonl", "rows.jsonl"], "bad.jsonl: is not a model that can be used"),
    ],
)
def test_files_that_are_wrong_are_named(tmp_path: Path, arguments: list[str], said: str) -> None:
    write_lines(tmp_path / "rows.jsonl", rows())
    (tmp_path / "bad.jsonl").write_text('{"text": "good", "label": "a"}\n{"text"\n')
    run = labelstream("models", *arguments, cwd=tmp_path)
    assert (run.returncode, run.stdout) == (2, "")
    assert said in run.stderr


def test_training_can_be_interrupted(tmp_path: Path) -> None:
    many = [{**row, "id": str(n), "text": f"{row['text']} {n}"} for n, row in enumerate(rows(5000))]
    path = write_lines(tmp_path / "rows.jsonl", many)
    with started(tmp_path, "models", "train", path, "--out", "m") as training:
        training.wait_until(lambda: "training on 10,000 documents" in training.said())
        assert training.ended_by(signal.SIGINT) == 130
        assert "Traceback" not in training.said()
    assert not (tmp_path / "m").exists()
