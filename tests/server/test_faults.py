import asyncio
import re
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from service.errors import Misconfigured
from service.server import faults
from service.server.faults import DocumentError, Faults, parse
from tests.server.conftest import BILLING, CRASH, JOBS, KEY, VERSION, Serve, Server, submission


async def submitted(server: Server) -> httpx.Response:
    return await server.client.post(JOBS, params={"api-version": VERSION}, json=submission(BILLING))


# Rules


def test_the_first_rule_that_matches_answers() -> None:
    rules = Faults(parse([{"on": "poll", "status": 503}, {"status": 429}, {"on": "submit", "status": 500}]))
    answers = [rules.next("azure_language", "poll"), rules.next("azure_language", "submit")]
    assert [rule and rule.status for rule in answers] == [503, 429]


def test_a_rule_for_one_api_leaves_the_others_alone() -> None:
    rules = Faults(parse([{"api": "comprehend", "status": 503}]))
    assert rules.next("azure_language", "submit") is None
    assert rules.next("comprehend", "classify") is not None


def test_a_rule_applies_as_often_as_it_says_and_then_lets_the_next_answer() -> None:
    rules = Faults(parse([{"on": "submit", "status": 429, "times": 2}, {"on": "submit", "status": 503, "times": 1}]))
    asked = [rules.next("azure_language", operation) for operation in ("submit", "poll", "submit", "submit", "submit")]
    assert [rule and rule.status for rule in asked] == [429, None, 429, 503, None]


def test_probability_is_drawn_from_the_seed_and_so_always_the_same() -> None:
    def struck(seed: int) -> list[bool]:
        rules = Faults(parse([{"status": 503, "probability": 0.3, "seed": seed}]))
        return [rules.next("azure_language", "poll") is not None for _ in range(1000)]

    assert struck(7) == struck(7) != struck(8)
    assert 250 < sum(struck(7)) < 350


def test_documents_are_struck_by_number_by_place_and_by_pattern() -> None:
    ids = ["a", "b", "bad-1", "d", "bad"]
    for rule, struck in (
        (DocumentError(every=2), [1, 3]),
        (DocumentError(indexes=(0, 4)), [0, 4]),
        (DocumentError(ids=("bad-*", "d")), [2, 3]),
    ):
        assert [index for index, name in enumerate(ids) if rule.strikes(index, name)] == struck


@pytest.mark.parametrize(
    ("rules", "wrong"),
    [
        ({}, "rules: "),
        ([{"on": "submit"}], "rule 0: .*does nothing"),
        ([{"status": 503}, {"on": "login", "status": 503}], "rule 1.on"),
        ([{"status": 200}], "rule 0.status"),
        ([{"status": 503, "tims": 2}], "rule 0.tims"),
        ([{"slow": 1, "retry_after": 1}], "retry_after goes with a status"),
        ([{"job": "failed"}], "go with 'on: submit'"),
        ([{"on": "submit", "job": "failed", "status": 500}], "make two rules"),
        ([{"on": "submit", "error": "ThrottlingException"}], "rule 0: .*error goes with 'api: comprehend'"),
        ([{"api": "comprehend", "error": "429"}], "rule 0.error"),
        ([{"on": "submit", "api": "comprehend", "job": "lost", "error": "Throttling"}], "make two rules"),
        ([{"on": "submit", "document_error": {"every": 0}}], "rule 0.document_error.every"),
        ([{"slow": float("inf")}], "rule 0.slow"),
    ],
)
def test_a_rule_that_makes_no_sense_is_named(rules: object, wrong: str) -> None:
    with pytest.raises(ValueError, match=wrong):
        parse(rules)


def test_rules_are_read_from_yaml_and_json_and_on_is_a_word(tmp_path: Path) -> None:
    file = tmp_path / "faults.yaml"
    file.write_text("- {on: submit, status: 429, retry_after: 1, times: 2}\n- on: poll\n  slow: 0.5\n")
    assert [rule.on for rule in faults.load(file)] == ["submit", "poll"]
    file.write_text('[{"on": "poll", "status": 502, "body": "html", "times": 1}]')
    assert faults.load(file)[0].body == "html"


def test_the_examples_of_the_module_are_rules() -> None:
    blocks = (faults.__doc__ or "").split("::\n\n")[2:]
    examples = ["\n".join(line for line in block.splitlines() if line.startswith("    ")) for block in blocks]
    assert [len(parse(yaml.load(example, faults._Loader))) for example in examples] == [3, 2, 2]  # noqa: S506


def test_the_examples_of_the_readme_are_rules() -> None:
    readme = (Path(__file__).parents[2] / "README.md").read_text("utf-8")
    (given,) = re.findall(r"```yaml\n(- \{on: .+?)```", readme, re.DOTALL)
    assert len(parse(yaml.load(given, faults._Loader))) == len(given.splitlines())  # noqa: S506  as above


@pytest.mark.parametrize("content", [None, "- {on: [", "nonsense", "- {status: 1}"])
def test_a_file_that_holds_no_rules_is_named(tmp_path: Path, content: str | None) -> None:
    file = tmp_path / "faults.yaml"
    if content is not None:
        file.write_text(content)
    with pytest.raises(Misconfigured, match=r"faults\.yaml"):
        faults.load(file)


# What they do to requests


async def test_a_status_is_answered_with_its_envelope_and_only_then_with_retry_after(serve: Serve) -> None:
    rules = [
        {"on": "submit", "status": 429, "retry_after": 7, "times": 1},
        *({"on": "submit", "status": status, "times": 1} for status in (429, 401, 403, 408, 500, 503, 502)),
    ]
    async with serve(faults=rules) as server:
        answers = [await submitted(server) for _ in range(9)]
    assert [(one.status_code, one.headers.get("retry-after")) for one in answers[:2]] == [(429, "7"), (429, None)]
    assert [(one.status_code, one.json()["error"]["code"]) for one in answers[1:-1]] == [
        (429, "429"),
        (401, "401"),
        (403, "403"),
        (408, "Timeout"),
        (500, "InternalServerError"),
        (503, "ServiceUnavailable"),
        (502, "502"),
    ]
    assert "Out of call volume quota for TextAnalytics F0 pricing tier" in answers[3].json()["error"]["message"]
    assert answers[-1].status_code == 202


async def test_an_answer_can_be_slow(serve: Serve) -> None:
    async with serve(faults=[{"on": "submit", "slow": 0.2, "times": 1}]) as server:
        began = asyncio.get_running_loop().time()
        assert (await submitted(server)).status_code == 202
        assert asyncio.get_running_loop().time() - began >= 0.2


async def test_a_body_can_be_spoilt_whatever_the_answer_was(serve: Serve) -> None:
    bodies = ("html", "truncated", "empty")
    rules = [{"on": "poll", "body": body, "times": 1} for body in bodies]
    async with serve(faults=[*rules, {"on": "submit", "status": 502, "body": "html", "times": 1}]) as server:
        proxy = await submitted(server)
        location = await server.submit(submission(BILLING))
        await server.idle()
        html, truncated, empty = [await server.client.get(location) for _ in bodies]
        whole = await server.client.get(location)
    assert (proxy.status_code, proxy.headers["content-type"]) == (502, "text/html")
    assert html.text.startswith("<html>")
    assert [one.status_code for one in (html, truncated, empty)] == [200, 200, 200]
    assert whole.content.startswith(truncated.content)
    assert 0 < len(truncated.content) < len(whole.content)
    assert empty.content == b""


# What they do to jobs


async def ended(serve: Serve, rule: dict[str, Any], body: object) -> dict[str, Any]:
    async with serve(faults=[{"on": "submit", **rule}]) as server:
        return await server.ended(await server.submit(body))


async def test_a_job_can_fail(serve: Serve) -> None:
    shown = await ended(serve, {"job": "failed"}, submission(BILLING))
    assert (shown["status"], shown["tasks"]["failed"]) == ("failed", 1)
    assert [(one["code"], one["target"]) for one in shown["errors"]] == [("InternalServerError", "#/tasks/items/0")]


async def test_a_job_can_be_cancelled_by_itself(serve: Serve) -> None:
    shown = await ended(serve, {"job": "cancelled"}, submission(BILLING))
    assert (shown["status"], shown["tasks"]["items"]) == ("cancelled", [])


async def test_a_job_of_one_task_can_be_done_in_part(serve: Serve) -> None:
    shown = await ended(serve, {"job": "partial"}, submission(BILLING, CRASH, BILLING + "!"))
    assert (shown["status"], shown["tasks"]["completed"]) == ("partiallyCompleted", 1)
    results = shown["tasks"]["items"][0]["results"]
    assert [one["id"] for one in results["documents"]] == ["0", "2"]
    assert [one["id"] for one in results["errors"]] == ["1"]


async def test_of_a_job_of_several_tasks_the_last_can_fail(serve: Serve) -> None:
    task = submission(BILLING)["tasks"][0]
    shown = await ended(serve, {"job": "partial"}, submission(BILLING, tasks=[task, task]))
    assert shown["status"] == "partiallyCompleted"
    assert [one["status"] for one in shown["tasks"]["items"]] == ["succeeded", "failed"]
    assert [one["target"] for one in shown["errors"]] == ["#/tasks/items/1"]


async def test_documents_can_fail_one_by_one(serve: Serve) -> None:
    shown = await ended(serve, {"document_error": {"every": 2}}, submission(*[BILLING] * 5))
    assert shown["status"] == "succeeded"
    results = shown["tasks"]["items"][0]["results"]
    assert [one["id"] for one in results["errors"]] == ["1", "3"]
    assert {one["error"]["innererror"]["code"] for one in results["errors"]} == {"InvalidDocument"}
    assert [one["id"] for one in results["documents"]] == ["0", "2", "4"]


async def test_a_job_can_be_accepted_and_lost(serve: Serve) -> None:
    async with serve(faults=[{"on": "submit", "job": "lost", "times": 1}]) as server:
        location = await server.submit(submission(BILLING))
        assert (await server.client.get(location)).status_code == 404
        assert (await server.ended(await server.submit(submission(BILLING))))["status"] == "succeeded"


async def test_a_slow_job_runs_for_as_long_as_it_says_also_over_a_restart(serve: Serve) -> None:
    rule = {"on": "submit", "job": "slow", "job_seconds": 30, "document_error": {"indexes": [0]}}
    async with serve(faults=[rule], works=False) as server:
        location, clock = await server.submit(submission(BILLING, CRASH)), server.clock
    async with serve(clock=clock) as server:
        await server.idle()
        clock.now += 29.9
        assert (await server.poll(location))["status"] == "running"
        clock.now += 0.1
        shown = await server.poll(location)
        assert shown["status"] == "succeeded"
        assert [one["id"] for one in shown["tasks"]["items"][0]["results"]["errors"]] == ["0"]


# Over HTTP


async def test_rules_are_changed_and_counted_while_the_server_runs(server: Server) -> None:
    assert (await server.client.get("/_faults")).json() == []
    rule = {"on": "submit", "status": 503, "times": 1}
    response = await server.client.put("/_faults", json=[rule])
    assert response.json() == [{**rule, "seen": 0, "applied": 0}]
    assert [(await submitted(server)).status_code for _ in range(3)] == [503, 202, 202]
    assert (await server.client.get("/_faults")).json() == [{**rule, "seen": 3, "applied": 1}]
    assert (
        server.telemetry.registry.get_sample_value(
            "labelstream_server_faults_total", {"api": "azure_language", "operation": "submit"}
        )
        == 1
    )
    assert (await server.client.delete("/_faults")).status_code == 204
    assert (await server.client.get("/_faults")).json() == []


@pytest.mark.parametrize("body", [b"", b"{", b"{}", b'[{"status": 1}]', b"[" + b" " * 300_000 + b"]"])
async def test_rules_that_are_none_are_refused_and_the_old_ones_stay(serve: Serve, body: bytes) -> None:
    async with serve(faults=[{"on": "submit", "status": 503}]) as server:
        response = await server.client.put("/_faults", content=body)
        assert response.status_code in {400, 413}
        assert (await submitted(server)).status_code == 503


async def test_the_rules_are_for_those_with_the_key(server: Server) -> None:
    for method in ("GET", "PUT", "DELETE"):
        response = await server.client.request(method, "/_faults", headers={"Ocp-Apim-Subscription-Key": KEY[:-1]})
        assert response.status_code == 401
