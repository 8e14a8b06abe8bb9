"""`labelstream models` for Azure Language and embedded models, as it is given: label, train, look, deploy, classify."""

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest

from service.model.evaluate import evaluate
from service.model.examples import Example
from service.model.train import train
from tests.commands import LABELSTREAM, environment, started, write_lines
from tests.lifecycle.test_commands import Models, config
from tests.server.conftest import KEY, SINGLE, process

LINES = [
    {"id": f"{one.id} {n}", "text": f"{one.text} {n}", "labels": one.labels, "split": "test" if n == 2 else "train"}
    for one in SINGLE
    for n in range(4)
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("training")


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory, folder: Path) -> Iterator[str]:
    with process(tmp_path_factory.mktemp("data"), "--container", f"training={folder}") as (url, _):
        yield url


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return write_lines(tmp_path / "tickets.jsonl", LINES)


def account(url: str, folder: Path, **more: Any) -> dict[str, Any]:
    named = {"project": "tickets", "deployment": "production", "task": "single_label"}
    training = {"container": f"training={folder}"}
    return {"provider": "azure_language", "endpoint": url, "key": KEY, **named, "training": training, **more}


def local_keys() -> list[str]:
    rows = [Example(one.id, one.text, one.labels) for one in SINGLE]
    return list(evaluate(train(rows, task="single_label", name="m").classifier, rows).to_json())


def test_the_life_of_a_project(  # noqa: PLR0917  fixtures
    url: str, folder: Path, file: Path, models: Models, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    it = config(tmp_path / "c.yaml", **account(url, folder))
    trained = models("train", file, "--split", "train", "--name", "first", *it)
    assert trained.code == 0, trained
    assert trained.out.startswith("first: trained\n")
    assert "micro-F1" in trained.out
    assert "putting 36 documents into training …" in trained.err
    assert "training first …" in trained.err
    assert "100%" in trained.err
    assert "fewer than 10 documents" not in trained.err
    again = models("train", file, "--split", "train", "--name", "first", "--json", *it)
    assert again.json["model"]["name"] == "first"
    assert again.json["warnings"] == ["it was made of the same rows before, and is not trained again"]
    assert list(again.json["evaluation"]) == local_keys()
    assert models("deploy", *it).out == "tickets/production: answers with first\n"
    own = models("evaluate", *it, "--json").json
    assert own == again.json["evaluation"]
    asked = models("evaluate", file, "--split", "test", *it, "--json").json
    assert list(asked) == local_keys()
    assert (asked["documents"], asked["accuracy"] > 0.9) == (12, True)
    monkeypatch.setenv("LABELSTREAM_CONFIG", str(it[-1]))
    (model,) = models("list", "--account", "it", "--json").json
    assert (model["name"], model["state"], model["deployed_as"]) == ("first", "trained", ["production"])
    assert "production" in models("list", "--account", "it").out
    refused = models("delete", "--account", "it", "first", "--yes")
    assert (refused.code, "accounts.it: first answers as production" in refused.err) == (2, True)
    unknown = models("delete", "--account", "it", "second", "--yes")
    assert (unknown.code, "there is no model 'second' in project tickets; there is first" in unknown.err) == (2, True)
    nobody = models("delete", "--account", "it", "--all")
    assert (nobody.code, "say so with --yes" in nobody.err) == (2, True)
    gone = models("delete", "--account", "it", "--deployment", "production", "--yes", "--json")
    assert gone.json == {"account": "it", "deleted": "deployment production"}
    assert models("delete", "--account", "it", "first", "--yes").out == "it: model first is deleted\n"
    assert models("delete", "--account", "it", "--all", "--yes").out == "it: everything is deleted\n"


def test_the_life_of_an_embedded_model(file: Path, models: Models, tmp_path: Path) -> None:
    it = config(tmp_path / "c.yaml", provider="local", model=str(tmp_path / "tickets"))
    trained = models("train", file, "--split", "train", *it, "--json").json
    assert list(trained["evaluation"]) == local_keys()
    name = trained["model"]["name"]
    assert models("deploy", *it).out == f"{tmp_path / 'tickets'}: answers with {name}\n"
    asked = models("evaluate", file, "--split", "test", *it, "--json").json
    given = models("evaluate", tmp_path / "tickets", file, "--split", "test", "--json").json
    told = ("documents", "accuracy", "f1_micro", "f1_macro", "classes", "confusion", "unlabelled", "task")
    assert {figure: asked[figure] for figure in told} == {figure: given[figure] for figure in told}
    assert [each["deployed_as"] for each in models("list", *it, "--json").json] == [[str(tmp_path / "tickets")]]
    assert models("delete", "--all", "--yes", *it).code == 0


@pytest.mark.parametrize(("answer", "code"), [(b"n\n", 1), (b"y\n", 0)])
def test_on_a_terminal_it_asks_before_it_deletes(answer: bytes, code: int, tmp_path: Path) -> None:
    it = config(tmp_path / "c.yaml", provider="local", model=str(tmp_path / "tickets"))
    train(SINGLE, task="single_label", name="m").save(tmp_path / "tickets")
    ours, theirs = os.openpty()
    try:
        os.write(ours, answer)
        run = subprocess.run(
            [*LABELSTREAM, "models", "delete", "--all", *map(str, it)],
            env=environment(), stdin=theirs, capture_output=True, timeout=100, check=False, text=True,
        )  # fmt: skip
    finally:
        os.close(ours)
        os.close(theirs)
    assert (run.returncode, "Delete everything of it? [y/N]" in run.stderr) == (code, True), run
    assert (tmp_path / "tickets" / "model.zip").exists() == bool(code)


def test_whoever_stops_waiting_is_told_how_to_go_on(file: Path, folder: Path, models: Models, tmp_path: Path) -> None:
    with process(tmp_path / "data", "--container", f"training={folder}", "--least-job-seconds", "3") as (url, _):
        it = config(tmp_path / "c.yaml", **account(url, folder))
        with started(tmp_path, "models", "train", file, "--name", "first", *it) as command:
            command.wait_until(lambda: "training first …" in command.said())
            assert command.ended_by(signal.SIGINT) == 130
            assert "the service goes on training first; the same command waits for it again" in command.said()
        (model,) = models("list", *it, "--json").json
        assert model["state"] in {"running, 0%", "notStarted, 0%"}
        again = models("train", file, "--name", "first", *it)
        assert again.out.startswith("first: trained\n")
        assert "first is being trained already, and is waited for" in again.err


WRONG: dict[str, tuple[list[str], dict[str, Any], str]] = {
    "an account": (["list", "--account", "other"], {}, "no account 'other'; there is it"),
    "a key": (["list"], {"key": "another"}, "accounts.it: 127.0.0.1:"),
    "no training": (["train", "FILE"], {"training": None}, "accounts.it: training is missing"),
    "a setting": (["list"], {"training": {"container": "x"}}, "container is to be NAME=FOLDER or https://"),
    "one class": (["train", "FILE", "--split", "one"], {}, "tells at least two classes apart"),
    "few": (["train", "FILE", "--split", "few"], {}, "9 rows have a label; it takes 10"),
    "no split": (["train", "FILE", "--split", "none"], {}, "no row has the split 'none'"),
    "two of three": (["delete", "m", "--all"], {}, "give one of MODEL, --deployment and --all"),
    "nothing": (["delete"], {}, "give one of MODEL, --deployment and --all"),
    "a task": (["train", "FILE", "--task", "single_label"], {}, "--task goes with --out"),
    "a name": (["evaluate", "FILE", "--name", "m"], {}, "--name goes with --account and no FILE"),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_wrong_usage_and_data_end_with_2_and_say_why(
    wrong: str, url: str, folder: Path, models: Models, tmp_path: Path
) -> None:
    arguments, more, told = WRONG[wrong]
    lines = [{"text": f"{n}", "label": "only", "split": "one"} for n in range(12)]
    lines += [{"text": f"{n}", "label": str(n % 2), "split": "few"} for n in range(9)]
    given = [write_lines(tmp_path / "rows.jsonl", lines) if one == "FILE" else one for one in arguments]
    it = config(tmp_path / "c.yaml", **account(url, folder, **more))
    said = models(*given, *(it[2:] if "--account" in arguments else it))
    assert said.code == 2, said
    assert told in " ".join(said.err.replace("│", " ").split())
    assert KEY not in said.err


def test_an_empty_file_is_named(url: str, folder: Path, models: Models, tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_bytes(b"")
    said = models("train", tmp_path / "rows.jsonl", *config(tmp_path / "c.yaml", **account(url, folder)))
    assert (said.code, "rows.jsonl: holds no rows" in said.err) == (2, True)


def test_answers_for_programs_are_one_object_on_standard_output(file: Path, models: Models, tmp_path: Path) -> None:
    it = config(tmp_path / "c.yaml", provider="local", model=str(tmp_path / "tickets"))
    said = models("train", file, "--name", "one", "--json", *it)
    assert set(orjson.loads(said.out)) == {"account", "model", "warnings", "evaluation"}
    deployed = models("deploy", "--json", *it).json
    assert set(deployed) == {"account", "model", "deployed_as", "notes", "more"}
