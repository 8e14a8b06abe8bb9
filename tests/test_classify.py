"""`labelstream classify`: files in, JSON lines out, each document exactly once whatever happens on the way."""

import re
import signal
import sqlite3
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest

from service.classify import Summary
from tests.commands import (
    CANARY_KEY,
    CANARY_TEXT,
    NOWHERE,
    labelstream,
    read_lines,
    rows,
    served_account,
    serving,
    small_model,
    started,
    tree,
    write_config,
    write_lines,
)

TOPICS = ("incoming", "classified", "dead")
REFUSED: list[tuple[bytes, str]] = [
    (b'{"id": "empty", "text": " "}', "empty_text"),
    (b'{"id": "nothing"}', "missing_text"),
    (b"not json", "undecodable"),
    (b'{"id": "\xff"}', "undecodable"),
]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_model(tmp_path_factory.mktemp("models") / "small")


def best(result: dict[str, Any]) -> tuple[str, str]:
    return result["id"], result["best"]["name"]


def test_each_form_of_file_is_read_and_a_summary_told(tmp_path: Path, model: Path) -> None:
    write_lines(tmp_path / "a.jsonl", [{"id": "one", "text": "the parcel number 1 has not arrived"}])
    (tmp_path / "b.csv").write_text('text,id\n"my password\n""x"", is not accepted",two\n', encoding="utf-8")
    (tmp_path / "c.txt").write_text("the parcel has not arrived\n\nmy password is not accepted", encoding="utf-8")
    files = ("a.jsonl", "b.csv", "c.txt")
    run = labelstream("classify", *files, "--model", model, "--out", "out.jsonl", "--json", cwd=tmp_path)
    assert run.returncode == 0, run.stderr
    summary = orjson.loads(run.stdout)
    assert summary.pop("seconds") > 0
    assert summary == {
        "documents": 4,
        "classified": 4,
        "dead_letters": 0,
        "finished": True,
        "resumed": False,
        "output": "out.jsonl",
    }
    results = read_lines(tmp_path / "out.jsonl")
    assert sorted(map(best, results)) == [
        ("c.txt-0-0", "delivery"),
        ("c.txt-0-2", "access"),
        ("one", "delivery"),
        ("two", "access"),
    ]
    assert {(result["provider"], result["task"]) for result in results} == {("local", "single_label")}
    assert sorted(path.name for path in tmp_path.iterdir()) == [*files, "out.jsonl", "out.jsonl.dead"]


def test_refused_documents_are_kept_beside_with_the_reason_and_as_they_came(tmp_path: Path, model: Path) -> None:
    lines = [orjson.dumps(rows(1)[0]), *(line for line, _ in REFUSED)]
    (tmp_path / "in.jsonl").write_bytes(b"\n".join(lines))
    run = labelstream("classify", "in.jsonl", "--model", model, "--out", "out.jsonl", cwd=tmp_path)
    assert run.returncode == 0, run.stderr
    assert run.stdout.startswith("1 classified into out.jsonl, 4 refused (why is in out.jsonl.dead), in ")
    assert [result["id"] for result in read_lines(tmp_path / "out.jsonl")] == ["delivery-0"]
    letters = read_lines(tmp_path / "out.jsonl.dead")
    assert [letter["source"] for letter in letters] == [
        {"topic": "in.jsonl", "partition": 0, "offset": offset} for offset in (1, 2, 3, 4)
    ]
    assert [letter["reason"] for letter in letters] == [reason for _, reason in REFUSED]
    assert all(letter["message"] for letter in letters)
    assert [letter.get("value") for letter in letters[:3]] == [line.decode() for line, _ in REFUSED[:3]]
    assert "value_base64" in letters[3]


def test_a_run_that_was_stopped_says_so_and_how_to_go_on() -> None:
    summary = Summary(1200, 1200, 0, finished=False, resumed=False, seconds=2, output="out.jsonl")
    told = "1,200 classified into out.jsonl, 0 refused, in 2.0 s"
    assert str(summary) == f"{told}; stopped before the end, and the same command goes on"


def test_results_are_never_written_over(tmp_path: Path, model: Path) -> None:
    write_lines(tmp_path / "in.jsonl", rows(1))
    (tmp_path / "out.jsonl").write_text("precious\n")
    run = labelstream("classify", "in.jsonl", "--model", model, "--out", "out.jsonl", cwd=tmp_path)
    assert (run.returncode, run.stdout) == (2, "")
    assert "out.jsonl: exists already" in run.stderr
    assert (tmp_path / "out.jsonl").read_text() == "precious\n"


@pytest.mark.parametrize(("number", "code"), [(signal.SIGKILL, -9), (signal.SIGINT, 130)])
def test_a_run_that_is_broken_off_is_gone_on_with(tmp_path: Path, model: Path, number: int, code: int) -> None:
    documents = [{"id": str(n), "text": f"the parcel number {n} has not arrived"} for n in range(5_000)]
    write_lines(tmp_path / "in.jsonl", documents)
    out, note = tmp_path / "out.jsonl", tmp_path / "out.jsonl.progress"

    with serving(tmp_path, model, "--log-level", "warning") as (url, _):
        account = served_account(url, limits={"characters_per_second": 35 * 1000})  # a thousand documents a second
        slowly = write_config(tmp_path / "slowly.yaml", tree(NOWHERE, account, TOPICS, commit_every="50ms"))
        with started(tmp_path, "classify", "in.jsonl", "--config", slowly, "--out", out, "--json") as run:
            run.wait_until(lambda: note.exists() and orjson.loads(note.read_bytes())["sizes"][0])
            assert run.ended_by(number) == code
            if number == signal.SIGINT:
                said = orjson.loads(run.line())
                assert (said["finished"], said["resumed"]) == (False, False)
                assert 0 < said["documents"] < len(documents)
        assert 0 < out.read_bytes().count(b"\n") < len(documents)
        with out.open("ab") as torn:
            torn.write(b'{"id":"4999","stream":"tick')  # what a power cut leaves

        config = write_config(tmp_path / "triage.yaml", tree(NOWHERE, served_account(url), TOPICS))
        resumed = labelstream("classify", "in.jsonl", "--config", config, "--out", out, "--json", cwd=tmp_path)
    assert resumed.returncode == 0, resumed.stderr
    summary = orjson.loads(resumed.stdout)
    assert (summary["finished"], summary["resumed"]) == (True, True)
    assert 0 < summary["documents"] < len(documents)
    found = [result["id"] for result in read_lines(out)]
    assert sorted(found, key=int) == [document["id"] for document in documents]
    assert not note.exists()


def test_the_parts_of_long_documents_that_are_out_at_a_kill_are_not_submitted_again(
    tmp_path: Path, model: Path
) -> None:
    delivery, access = "the parcel number 7 has not arrived. " * 4_000, "my password 9 is not accepted. " * 3_000
    documents = [
        {"id": str(n), "text": delivery + access if n % 2 else f"my password {n} is no good"} for n in range(6)
    ]
    write_lines(tmp_path / "in.jsonl", documents)
    (faults := tmp_path / "faults.yaml").write_text("- {on: submit, job: slow, job_seconds: 4}\n", encoding="utf-8")
    with serving(tmp_path, model, "--faults", faults, "--log-level", "warning") as (url, _):
        settings = tree(NOWHERE, served_account(url), TOPICS, document={"too_long": "split"})
        config = write_config(tmp_path / "triage.yaml", settings)
        command = ("classify", "in.jsonl", "--config", config, "--out", "out.jsonl", "--json")
        with started(tmp_path, *command) as run:
            run.wait_until(lambda: len(noted(tmp_path / "out.jsonl.jobs")) == 1 + 3 * 3)
            assert run.ended_by(signal.SIGKILL) == -9
        resumed = labelstream(*command, cwd=tmp_path)
        assert resumed.returncode == 0, resumed.stderr
        metrics = httpx.get(f"{url}/metrics", headers={"Ocp-Apim-Subscription-Key": CANARY_KEY}).text
    results = {result["id"]: result for result in read_lines(tmp_path / "out.jsonl")}
    assert {name: result["warnings"] for name, result in results.items()} == {
        str(n): ["split into 3 parts"] if n % 2 else [] for n in range(6)
    }
    assert [each["name"] for each in results["1"]["classes"]] == ["delivery", "access"]
    (submitted,) = re.findall(r'requests_total\{api="azure_language",operation="submit",status="202"\} (\d+)', metrics)
    assert int(submitted) == 1 + 3 * 3


def noted(path: Path) -> list[bytes]:
    """The notes of jobs in a file."""
    if not path.exists():
        return []
    with closing(sqlite3.connect(path)) as database, suppress(sqlite3.OperationalError):  # it is just being made
        return [note for (note,) in database.execute("SELECT note FROM notes")]
    return []


def test_the_accounts_of_a_configuration_classify_files_and_neither_side_tells(tmp_path: Path, model: Path) -> None:
    faults = write_config(tmp_path / "faults.yaml", {})
    faults.write_text("- {on: poll, status: 429, retry_after: 0, times: 1}\n- {on: submit, status: 503, times: 1}\n")
    lines = [{"ticket": row["id"], "subject": row["text"], "body": CANARY_TEXT} for row in rows(20)]
    write_lines(tmp_path / "in.jsonl", lines)
    with serving(tmp_path, model, "--faults", faults, "--log-level", "debug") as (url, server):
        document = {"id": "/ticket", "text": ["/subject", "/body"]}
        other = {**tree(url, {}, TOPICS)["streams"][0], "name": "other", "input": "others"}
        settings = tree(NOWHERE, served_account(url), TOPICS, document=document)
        settings["streams"].append(other)
        config = write_config(tmp_path / "triage.yaml", settings)
        command = ("classify", "in.jsonl", "--config", config, "--out", "out.jsonl", "--json")
        run = labelstream(*command, cwd=tmp_path)
        assert run.returncode == 2
        assert "has the streams tickets, other: say which with --stream" in run.stderr
        run = labelstream(*command, "--stream", "tickets", cwd=tmp_path)
        assert run.returncode == 0, run.stderr
        assert orjson.loads(run.stdout)["classified"] == len(lines)
        results = read_lines(tmp_path / "out.jsonl")
        assert sorted(map(best, results)) == sorted((row["id"], row["labels"][0]) for row in rows(20))
        assert {(result["account"], result["provider"]) for result in results} == {("served", "azure_language")}
        for said in (run.stderr, server.said()):
            assert CANARY_TEXT not in said
            assert CANARY_KEY not in said


def test_a_full_disk_is_told_by_the_file_and_gone_on_with_when_there_is_room(tmp_path: Path, model: Path) -> None:
    documents = [{"id": str(n), "text": f"{CANARY_TEXT} {n}"} for n in range(2000)]
    write_lines(tmp_path / "in.jsonl", documents)
    settings = tree(NOWHERE, {"provider": "local", "model": str(model)}, TOPICS)
    settings["accounts"]["azure"] = served_account(f"http://{NOWHERE}")
    config = write_config(tmp_path / "triage.yaml", settings)
    command = ("classify", "in.jsonl", "--config", config, "--out", "out.jsonl")
    run = labelstream(*command, cwd=tmp_path, under='ulimit -f 128; exec "$@"')  # the disk is full
    assert (run.returncode, run.stdout) == (2, "")
    said = "out.jsonl: cannot be written: File too large; when it can, the same command goes on"
    assert run.stderr.splitlines()[-1] == f"labelstream: {said}"
    assert "Traceback" not in run.stderr
    assert CANARY_TEXT not in run.stderr
    assert CANARY_KEY not in run.stderr
    run = labelstream(*command, cwd=tmp_path)
    assert run.returncode == 0, run.stderr
    assert " more classified into out.jsonl, 0 more refused, in " in run.stdout
    assert sorted(result["id"] for result in read_lines(tmp_path / "out.jsonl")) == sorted(
        document["id"] for document in documents
    )


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["in.jsonl", "--out", "out.jsonl"], "either --model or --config"),
        (["nosuch.jsonl", "--model", "small", "--out", "out.jsonl"], "nosuch.jsonl: cannot be read"),
        (["in.jsonl", "--model", "small", "--out", "nosuch/out.jsonl"], "nosuch/out.jsonl: cannot be written"),
    ],
)
def test_what_is_missing_is_named(tmp_path: Path, model: Path, arguments: list[str], said: str) -> None:
    (tmp_path / "small").symlink_to(model)
    write_lines(tmp_path / "in.jsonl", rows(1))
    run = labelstream("classify", *arguments, cwd=tmp_path)
    assert (run.returncode, run.stdout) == (2, "")
    assert said in run.stderr
