"""The rules, by promtool: they are well formed, each alert fires when it should and is silent when it should not."""

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.ops.prometheus import ROOT, RULES, Alert, alerts, groups, program, recorded

CASES: list[dict[str, Any]] = yaml.safe_load(Path(__file__).with_name("alerts.yaml").read_text("utf-8"))
WHOSE = {"namespace": "support", "job": "support/triage"}
RUNBOOKS = (ROOT / "docs" / "runbooks.md").read_text("utf-8")


def identity(case: dict[str, Any] | Alert) -> tuple[str, str | None]:
    if isinstance(case, Alert):
        return case.name, case.window
    return case["alert"], case.get("window")


ALERTS = {identity(alert): alert for alert in alerts()}


def promtool(*arguments: str | Path) -> None:
    done = subprocess.run([program("promtool"), *arguments], capture_output=True, text=True, check=False, timeout=100)
    assert done.returncode == 0, done.stdout + done.stderr


def ours(series: str) -> str:
    name, _, labels = series.partition("{")
    whose = ",".join(f'{key}="{value}"' for key, value in WHOSE.items())
    return f"{name}{{{whose},{labels}"


def expected(alert: Alert, fires: dict[str, str]) -> dict[str, Any]:
    labels = {**WHOSE, **{name: value for name, value in fires.items() if name != "value"}}

    def message(template: str) -> str:
        said = re.sub(r"\{\{ \$labels\.(\w+) \}\}", lambda found: labels[found[1]], template)
        return re.sub(r"\{\{ [^}]*\$value[^}]*\}\}", lambda _: fires["value"], said)

    return {
        "exp_labels": {**labels, **alert.labels},
        "exp_annotations": {name: message(template) for name, template in alert.annotations.items()},
    }


def played(case: dict[str, Any]) -> dict[str, Any]:
    alert = ALERTS[identity(case)]
    others = [other for other in ALERTS.values() if other.name == alert.name and other.window != alert.window]
    fires = [expected(alert, case["fires"])] if "fires" in case else []
    # By ALERTS rather than by name: burn rates of the same name are for other cases to look at.
    window = f',window="{alert.window}"' if others else ""
    return {
        "name": f"{alert.name}: {case['case']}",
        "interval": case.get("every", "1m"),
        "input_series": [{"series": ours(name), "values": values} for name, values in case["series"].items()],
        "promql_expr_test": [
            {
                "expr": f'count(ALERTS{{alertname="{alert.name}",alertstate="firing"{window}}})',
                "eval_time": case["at"],
                "exp_samples": [{"labels": "{}", "value": 1}] if fires else [],
            }
        ],
        "alert_rule_test": [] if others else [{"eval_time": case["at"], "alertname": alert.name, "exp_alerts": fires}],
    }


def test_promtool_finds_nothing_to_object_to() -> None:
    promtool("check", "rules", "--lint=all", "--lint-fatal", *RULES)


@pytest.mark.parametrize("every", sorted({case.get("every", "1m") for case in CASES}))
def test_alerts_fire_and_are_silent_when_they_should(every: str, tmp_path: Path) -> None:
    tests = [played(case) for case in CASES if case.get("every", "1m") == every]
    # What is recorded comes first: at long steps, that of the step before is too old to be seen.
    order = [group["name"] for group in sorted(groups(), key=lambda group: "alert" in group["rules"][0])]
    settings = {"rule_files": [str(path) for path in RULES], "evaluation_interval": every, "group_eval_order": order}
    file = tmp_path / f"every-{every}.yml"
    file.write_text(yaml.safe_dump({**settings, "tests": tests}), encoding="utf-8")
    promtool("test", "rules", file)


@pytest.mark.parametrize("alert", ALERTS.values(), ids=lambda alert: "-".join(filter(None, identity(alert))))
def test_every_alert_is_played_firing_and_silent_and_says_what_to_do(alert: Alert) -> None:
    cases = [case for case in CASES if identity(case) == identity(alert)]
    assert {"fires" in case for case in cases} == {True, False}
    assert set(alert.annotations) == {"summary", "description", "runbook_url", "dashboard"}
    assert alert.labels["severity"] in {"page", "ticket"}
    assert alert.annotations["runbook_url"] == f"docs/runbooks.md#{alert.name.lower()}"
    entry = RUNBOOKS.partition(f"## {alert.name}\n")[2].partition("\n## ")[0]
    for part in ("**What it means.**", "**What to look at.**", "**What to do.**"):
        assert part in entry, f"{alert.name} has no runbook entry with {part}"


def test_recorded_series_are_named_by_level_metric_and_operation() -> None:
    for each in recorded():
        assert re.fullmatch(
            r"namespace_job_topic(_label|_language|_band)?:labelstream_[a-z_]+:[a-z_]+(\d+[mhd])", each.name
        )
        levels = [level for level in each.name.partition(":")[0].split("_") if level not in each.labels]
        assert f"by ({', '.join(levels)})" in each.expr
