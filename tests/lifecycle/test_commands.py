"""`labelstream models` as it is given: the same five verbs for each provider, on servers of ours."""

import json
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml
from rich.console import Console

from service import cli, settings
from service.errors import Misconfigured
from service.lifecycle.content_safety import CategoryLife
from service.lifecycle.verbs import Doomed, Labelled, Wanted
from service.progress import Waiting
from service.transport.http import PacedClient
from tests.commands import started, write_lines
from tests.lifecycle.test_comprehend import CREATED, NONE, Service, described, shown
from tests.providers.aws import well
from tests.providers.conftest import Replay, Reply
from tests.server.conftest import DRUGS, KEY, SINGLE
from tests.server.test_sdk_comprehend import AWS_KEY, AWS_SECRET, BUCKET, ROLE, served

HARMLESS = [f"my {thing} for the {use}" for thing in ("cake", "bike", "sofa", "lamp") for use in ("hall", "party")]
REGION = "arn:aws:comprehend:eu-west-1:111122223333"


class Said(NamedTuple):
    """How a command ended, and what it wrote where."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        assert self.code == 0, self
        return json.loads(self.out)


Models = Callable[..., Said]


@pytest.fixture
def models(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Models:
    """Run `labelstream models …` to its end."""

    def run(*arguments: object) -> Said:
        monkeypatch.setattr(sys, "argv", ["labelstream", "models", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        code = ended.value.code
        return Said(code if isinstance(code, int) else 0, *capsys.readouterr())

    return run


def config(path: Path, **account: Any) -> tuple[object, ...]:
    """The options that name an account, in a configuration of its own."""
    stream = {"name": "s", "input": "in", "classify_with": "it", "output": "out", "dead_letter": "dead"}
    tree = {"kafka": {"bootstrap_servers": "127.0.0.1:1", "group_id": "g"}, "accounts": {"it": account}}
    path.write_text(yaml.safe_dump({**tree, "streams": [stream]}), encoding="utf-8")
    return "--account", "it", "--config", path


def rows(path: Path, labelled: dict[str, list[str]]) -> Path:
    lines = [
        {"id": text, "text": text, "labels": [label] if label else []}
        for label, texts in labelled.items()
        for text in texts
    ]
    return write_lines(path, lines)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("samples")


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory, folder: Path, s3: tuple[str, Any]) -> Iterator[str]:
    with served(tmp_path_factory.mktemp("data"), s3[0], "--container", f"samples={folder}") as url:
        yield url


def test_the_life_of_a_category(url: str, folder: Path, models: Models, tmp_path: Path) -> None:
    training = {"definition": "Drugs on offer.", "container": f"samples={folder}"}
    account = {"provider": "content_safety", "endpoint": url, "key": KEY, "category": "Drugs"}
    it = config(tmp_path / "c.yaml", **account, api_version="2024-09-15-preview", training=training)
    file = rows(tmp_path / "rows.jsonl", {"Drugs": DRUGS, "": HARMLESS})
    trained = models("train", file, *it)
    assert (trained.code, trained.out) == (0, "Drugs/1: Succeeded\n"), trained
    assert "Drugs version 1: Running" in trained.err or "Drugs version 1: Succeeded" in trained.err
    measured = models("evaluate", file, *it, "--json").json
    assert measured["documents"] == 68
    assert measured["f1_micro"] > 0.9
    none = models("evaluate", *it)
    assert (none.code, "tells no figures" in none.err) == (2, True)
    assert models("deploy", *it).out == "Drugs: answers with Drugs/1\n"
    (listed,) = models("list", *it, "--json").json
    assert (listed["name"], listed["state"], listed["deployed_as"]) == ("Drugs/1", "Succeeded", ["Drugs"])
    strange = models("deploy", *it, "--units", 2)
    assert (strange.code, "--units: means nothing" in strange.err) == (2, True)
    assert "'one' is no version of Drugs" in models("delete", "one", "--yes", *it).err
    assert "say so with --yes" in models("delete", "--all", *it).err
    assert models("delete", "--all", "--yes", *it).out == "it: everything is deleted\n"
    again = models("delete", "--all", "--yes", *it)
    assert (again.code, "accounts.it: there is nothing to delete" in again.err) == (2, True)
    assert models("list", *it, "--json").json == []


async def test_versions_of_a_category_are_called_by_their_number(replay: Replay, http: PacedClient) -> None:
    built = {"categoryName": "Drugs", "version": 2, "status": "Succeeded"}
    replay.otherwise = lambda _: Reply(200, {"value": [built]})
    account = {"provider": "content_safety", "endpoint": replay.url, "key": KEY, "category": "Drugs"}
    branch = settings.ContentSafety.model_validate(
        {**account, "api_version": "2024-09-15-preview", "category_version": 1}
    )
    life = CategoryLife(branch, http, None, Waiting(Console(quiet=True)))
    for name in ("2", "Drugs/2"):
        deployed = await life.deploy(Wanted(model=name))
        assert deployed.notes[-1] == "the account asks 1, until it has category_version: 2"
        assert replay.requests[-1].query.endswith("version=2")
    with pytest.raises(Misconfigured, match="a category has no deployment"):
        await life.delete(Doomed("deployment", "x"))
    with pytest.raises(Misconfigured, match="training is missing"):
        await life.train(Labelled([]))


@pytest.mark.parametrize("kind", ["classifier", "analyzer"])
def test_the_life_of_what_is_described(kind: str, url: str, models: Models, tmp_path: Path) -> None:
    version = {"classifier": "2025-05-01-preview", "analyzer": "2025-11-01"}[kind]
    account = {"provider": "content_understanding", "endpoint": url, "key": KEY, kind: "mail"}
    it = config(tmp_path / "c.yaml", **account, api_version=version)
    texts = {"invoice": ["The invoice asks for a payment"], "recipe": ["Cook the ingredients of this recipe"]}
    file = rows(tmp_path / "rows.jsonl", texts)
    trained = models("train", file, *it)
    assert trained.code == 2
    assert f"accounts.it: {kind} mail is not trained" in trained.err
    assert "--categories" in trained.err
    categories = tmp_path / "categories.yaml"
    categories.write_text("invoice: An invoice that asks for payment\nrecipe: How to cook, with ingredients\n", "utf-8")
    assert "--categories is missing" in models("deploy", *it).err
    assert models("deploy", *it, "--categories", categories).out == f"{kind} mail: answers with 2 categories\n"
    assert models("evaluate", file, *it, "--json").json["accuracy"] == 1
    assert [each["name"] for each in models("list", *it, "--json").json] == ["mail"]
    assert f"the account has {kind} mail alone" in models("delete", "other", "--yes", *it).err
    assert models("delete", "mail", "--yes", *it).out == "it: model mail is deleted\n"


def endpoint_account(url: str, s3_url: str) -> dict[str, Any]:
    training = {"classifier": "tickets", "data_access_role_arn": ROLE, "data_uri": f"s3://{BUCKET}/training"}
    return {
        "provider": "comprehend",
        "endpoint_url": url,
        "access_key_id": AWS_KEY,
        "secret_access_key": AWS_SECRET,
        "endpoint_arn": f"{REGION}:endpoint/tickets",
        "task": "single_label",
        "training": {**training, "storage_url": s3_url},
    }


def test_the_life_of_an_endpoint(url: str, s3: tuple[str, Any], models: Models, tmp_path: Path) -> None:
    it = config(tmp_path / "c.yaml", **endpoint_account(url, s3[0]))
    file = write_lines(tmp_path / "rows.jsonl", [{"text": row.text, "labels": row.labels} for row in SINGLE * 3])
    trained = models("train", file, *it, "--json").json
    version = trained["model"]["name"]
    assert trained["model"]["state"] == "TRAINED"
    assert trained["evaluation"]["documents"] == 3
    assert models("evaluate", *it, "--json").json == trained["evaluation"]
    deployed = models("deploy", *it, "--units", 9)
    assert deployed.out == f"document-classifier-endpoint/tickets: answers with {version}\n"
    assert "9 inference units take 900 characters and 18 documents a second" in deployed.err
    assert models("evaluate", file, *it, "--json").json["accuracy"] > 0.9
    model, endpoint = models("list", *it, "--json").json
    assert (model["name"], model["deployed_as"]) == (version, ["document-classifier-endpoint/tickets"])
    assert (endpoint["name"], endpoint["state"]) == ("document-classifier-endpoint/tickets", "IN_SERVICE")
    used = models("delete", version, "--yes", *it)
    assert "still used by document-classifier-endpoint/tickets: delete that first" in used.err
    assert models("delete", "--deployment", "tickets", "--yes", *it).code == 0
    assert models("delete", version, "--yes", *it).out == f"it: model {version} is deleted\n"
    assert "has no version 'x'; it has none" in models("deploy", *it, "--name", "x").err


def test_the_life_of_a_classifier_for_jobs(url: str, s3: tuple[str, Any], models: Models, tmp_path: Path) -> None:
    account = {
        "provider": "comprehend_jobs", "endpoint_url": url, "access_key_id": AWS_KEY, "secret_access_key": AWS_SECRET,
        "classifier_arn": f"{REGION}:document-classifier/backlog", "task": "single_label", "storage_url": s3[0],
        "data_access_role_arn": ROLE, "input_uri": f"s3://{BUCKET}/in", "output_uri": f"s3://{BUCKET}/out",
    }  # fmt: skip
    it = config(tmp_path / "c.yaml", **account)
    file = write_lines(tmp_path / "rows.jsonl", [{"text": row.text, "labels": row.labels} for row in SINGLE * 3])
    arn = models("train", file, *it, "--json").json["model"]["more"]["arn"]
    assert f"the account asks it once it has classifier_arn: {arn}" in models("deploy", *it).err.replace("\n", "")
    it = config(tmp_path / "c.yaml", **{**account, "classifier_arn": arn})
    deployed = models("deploy", *it)
    assert deployed.out == f"jobs: answers with {arn.rpartition('/')[2]}\n"
    assert "once it has" not in deployed.err
    assert models("evaluate", file, *it, "--json").json["accuracy"] > 0.9
    assert models("delete", "--all", "--yes", *it).code == 0
    assert models("list", *it, "--json").json == []


def test_a_command_that_is_interrupted_goes_on_when_it_is_given_again(
    replay: Replay, models: Models, tmp_path: Path
) -> None:
    replay.otherwise = service = Service(
        ListDocumentClassifiers=NONE, CreateDocumentClassifier=CREATED, DescribeDocumentClassifier=described("TRAINING")
    )
    it = config(tmp_path / "c.yaml", **endpoint_account(replay.url, replay.url))
    file = write_lines(tmp_path / "rows.jsonl", [{"text": row.text, "labels": row.labels} for row in SINGLE])
    with started(tmp_path, "models", "train", file, *it) as command:
        command.wait_until(lambda: "TRAINING" in command.said())
        assert command.ended_by(signal.SIGINT) == 130
        assert "no longer waiting; the same command goes on with it" in command.said()
    version = next(body["VersionName"] for body in service.bodies if isinstance(body, dict) and "VersionName" in body)
    service.replies["ListDocumentClassifiers"] = [well(DocumentClassifierPropertiesList=[shown("TRAINING", version)])]
    service.replies["DescribeDocumentClassifier"] = [described("TRAINED")]
    assert models("train", file, *it).out.startswith("v: TRAINED\n")
    assert service.asked.count("CreateDocumentClassifier") == 1


WRONG = {
    "empty": ("train", b"", "holds no rows"),
    "not json": ("train", b"nonsense", "line 1: is not JSON"),
    "no labels": ("evaluate", b'{"text": "a text", "labels": []}', "no row has a label"),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_files_that_will_not_do(wrong: str, url: str, models: Models, tmp_path: Path) -> None:
    verb, content, told = WRONG[wrong]
    (tmp_path / "rows.jsonl").write_bytes(content)
    account = {"provider": "content_understanding", "endpoint": url, "key": KEY, "classifier": "nobody"}
    it = config(tmp_path / "c.yaml", **account)
    if verb == "evaluate":
        (tmp_path / "categories.yaml").write_text("invoice: An invoice")
        assert models("deploy", *it, "--categories", tmp_path / "categories.yaml").code == 0
    said = models(verb, tmp_path / "rows.jsonl", *it)
    assert said.code == 2
    assert told in said.err


def test_an_account_that_is_not_there(models: Models, tmp_path: Path) -> None:
    it = config(tmp_path / "c.yaml", provider="local", model=str(tmp_path))
    assert "no account 'other'; there is it" in models("list", "--account", "other", *it[2:]).err
    assert models("list", "--account", "it").code == 2


def test_options_that_do_not_go_together(models: Models, tmp_path: Path) -> None:
    file = rows(tmp_path / "rows.jsonl", {"a": ["one"], "b": ["two"]})
    assert "give either --out or --account" in models("train", file).err
    assert "give MODEL and FILE" in models("evaluate", file).err


# Embedded models ----------------------------------------------------------------------------------


def test_embedded_models_are_reported_compared_and_their_rows_judged(models: Models, tmp_path: Path) -> None:
    lines = [{"id": row.id, "text": row.text, "labels": row.labels, "split": "train"} for row in SINGLE * 2]
    file = write_lines(tmp_path / "rows.jsonl", [*lines, lines[0] | {"id": "copy", "split": "test"}])
    for name in ("one", "other"):
        assert models("train", file, "--split", "train", "--out", tmp_path / name).code == 0
    one, report = tmp_path / "one", tmp_path / "report"
    said = models("evaluate", one, file, "--report", report, "--json")
    assert said.json["documents"] == len(lines) + 1
    assert f"report written: {report / 'index.html'}" in said.err
    assert str(lines[0]["text"]) not in (report / "index.html").read_text("utf-8")
    compared = models("compare", one, tmp_path / "other", file, "--json").json
    assert (compared["only_first"], compared["p_accuracy"]) == (0, 1)
    assert "95 %" in models("compare", one, tmp_path / "other", file).out
    suggested = models("suggest", file, "--split", "train", "--measured", "test", "--json").json
    assert [each["measured"] for each in suggested["alike"]] == ["copy"]
    shown = models("suggest", file, "--split", "train", "--measured", "test", "--texts").out
    assert str(lines[0]["text"]).split()[0] in shown


@pytest.mark.parametrize("options", [("--texts",), ("--report", "x", "--account", "it")])
def test_what_goes_with_a_report_is_told(options: tuple[str, ...], models: Models, tmp_path: Path) -> None:
    assert models("evaluate", tmp_path, tmp_path, *options).code == 2
