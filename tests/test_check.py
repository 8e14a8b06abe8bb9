"""`labelstream check`: everything that `run` would open, looked at and told."""

from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import httpx
import orjson
import pytest
from prometheus_client.parser import text_string_to_metric_families

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


def classified(url: str) -> float:
    """How many documents a server has classified."""
    families = text_string_to_metric_families(httpx.get(f"{url}/metrics", trust_env=False).text)
    return sum(
        each.value for family in families for each in family.samples if each.name.endswith("documents_classified_total")
    )


def test_a_probe_document_is_sent_only_when_asked_for_and_both_times_is_told_for_how_much(
    tmp_path: Path, model: Path
) -> None:
    with serving(tmp_path, model) as (url, _), mock_broker(*TOPICS, JOBS) as bootstrap:
        settings = tree(bootstrap, served_account(url, price={"per_unit": 0.25}), TOPICS)
        settings["accounts"]["onsite"] = {"provider": "local", "model": str(model)}
        without = found(checked(tmp_path, settings, "--json"))
        assert without["accounts.served"][1].endswith("; a document of 500 characters would be billed 0.25 at most")
        assert "billed" not in without["accounts.onsite"][1], "as it is not"
        assert classified(url) == 0
        run = checked(tmp_path, settings, "--json", "--probe", "the parcel number 5 has not arrived")
        assert run.returncode == 0, run.stdout
        findings = found(run)
        for name, bill in (("served", "1 units, 0.25"), ("onsite", "0 units")):
            ok, said = findings[f"accounts.{name}.probe"]
            assert ok
            assert said.startswith(f"accounts.{name}.probe: delivery 0.")
            assert said.endswith(f" s; billed are {bill}")
        assert classified(url) == 1

        run = checked(tmp_path, settings, "--json", "--probe", "")
        assert run.returncode == 1, "Azure Language refuses a text of nothing"
        assert not found(run)["accounts.served.probe"][0]


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


CASES = """
- {name: a bill, result: {billing: 0.93, refund: 0.04}, to: billing, rule: money}
- {name: unsure, result: {billing: 0.31}, to: [review]}
- {name: dear customer, result: {other: 0.9}, record: {text: hello, tier: gold}, to: vip}
- {name: long, result: {other: 0.9}, characters: 500, language: de, headers: {form: a}, to: long}
- {name: nothing, result: {}, to: review}
"""
ROUTES = [
    {"name": "money", "class": "billing", "at_least": 0.5, "to": "billing"},
    {"best_below": 0.5, "to": "review"},
    {"fields": {"/tier": "gold"}, "to": "vip"},
    {"characters_at_least": 500, "language": "de", "headers": {"form": "*"}, "to": "long"},
]


def tried(folder: Path, cases: str, *options: str) -> CompletedProcess[str]:
    (folder / "cases.yaml").write_text(cases, encoding="utf-8")
    settings = tree(NOWHERE, served_account(f"http://{NOWHERE}"), TOPICS, routes=ROUTES)
    return checked(folder, settings, "--cases", str(folder / "cases.yaml"), *options)


def test_routes_are_tried_on_cases_of_ones_own_with_nothing_opened(tmp_path: Path) -> None:
    run = tried(tmp_path, CASES, "--json")
    assert run.returncode == 0, run.stderr
    told = orjson.loads(run.stdout)
    assert told["ok"]
    assert [(each["name"], each["to"], each["rules"]) for each in told["cases"]] == [
        ("a bill", ["billing"], ["money"]),
        ("unsure", ["review"], ["routes[1]"]),
        ("dear customer", ["vip"], ["routes[2]"]),
        ("long", ["long"], ["routes[3]"]),
        ("nothing", ["review"], ["routes[1]"]),
    ]


def test_a_case_that_goes_elsewhere_is_told_and_fails(tmp_path: Path) -> None:
    run = tried(tmp_path, CASES + "- {result: {billing: 0.4}, to: billing}\n- {result: {a: 1}, to: [], rule: x}\n")
    assert run.returncode == 1
    lines = [line for line in run.stdout.splitlines() if " no " in line]
    assert len(lines) == 2
    assert all(word in lines[0] for word in ("case 6", "review", "routes[1]", "billing"))
    assert "case 7" in lines[1]


@pytest.mark.parametrize(
    ("cases", "complaint"),
    [
        ("[]", "cases.yaml: must not be empty"),
        ("- {result: {a: 1}}", "cases.yaml: [0].to: is required"),
        ("- {result: {a: 80}, to: x}", "cases.yaml: [0].result.a.score: Input should be less than or equal to 1"),
        ("- {results: {a: 1}, to: x}", "cases.yaml: [0]: unknown key 'results', did you mean 'result'?"),
        ("- {stream: posts, result: {}, to: x}", "the configuration has no stream 'posts'"),
        ("- {result: {}, record: {body: x}, to: x}", "case 1: this record has no result, as it would become a dead"),
    ],
)
def test_cases_that_make_no_sense_are_wrong_usage(tmp_path: Path, cases: str, complaint: str) -> None:
    run = tried(tmp_path, cases)
    assert (run.returncode, run.stdout) == (2, "")
    assert complaint in run.stderr


def test_routes_that_cannot_be_followed_are_told(tmp_path: Path, model: Path) -> None:
    routes = [{"class": "delivery", "to": "tickets.a"}, {"class": "acces", "to": "tickets.b"}]
    with mock_broker(*TOPICS, "tickets.a", "tickets.b") as bootstrap:
        settings = tree(bootstrap, {"provider": "local", "model": str(model)}, TOPICS, routes=routes)
        findings = found(checked(tmp_path, settings, "--json"))
    ok, said = findings.pop("streams.tickets.routes")
    assert not ok
    assert "routes[1]: no account of the stream has the class 'acces', did you mean 'access'?" in said
    assert all(ok for ok, _ in findings.values())
