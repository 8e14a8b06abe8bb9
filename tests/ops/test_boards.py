"""The boards: as the code draws them, as Grafana reads them, and about metrics that are there."""

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.plugins import register_default_plugins
from grafana_foundation_sdk.models.dashboard import Dashboard

from service.observability.telemetry import Telemetry
from service.server.telemetry import Telemetry as ServerTelemetry
from tests.ops.boards.written import BOARDS, FOLDER, text
from tests.ops.prometheus import alerts, recorded, rules
from tests.reference import _several_workers, metrics

FILES: dict[str, dict[str, Any]] = {
    path.stem: json.loads(path.read_text("utf-8")) for path in sorted(FOLDER.glob("*.json"))
}
EXPORTED = {
    metric.name: metric.type
    for registry in (Telemetry().registry, _several_workers(), ServerTelemetry().registry)
    for metric in metrics(registry)
} | {
    "process_cpu_seconds_total": "counter",
    "process_resident_memory_bytes": "gauge",
    "process_virtual_memory_bytes": "gauge",
    "process_start_time_seconds": "gauge",
    "process_open_fds": "gauge",
    "process_max_fds": "gauge",
}
UNSHOWN = {
    "labelstream_registry_request_duration_seconds": "a schema is asked for once; records that wait for it are shown",
    "process_virtual_memory_bytes": "address space, of which threads take what they like; resident memory counts",
    "process_start_time_seconds": "the annotation of deploys and the pods' restarts say when a process began",
}
"""Metrics that are on no board, each with why."""
WINDOWS = {
    "1h": "pairs of classes take many records",
    "30d": "the length of the budgets",
    "30m": "as the alert LabelstreamDeadLetters",
    "15m": "as the alert LabelstreamRebalanceStorm",
}
"""Lengths of time in queries that do not follow the board's own resolution, each with why."""


def shown(board: dict[str, Any]) -> list[dict[str, Any]]:
    return [panel for panel in board["panels"] if panel["type"] != "row"]


def queries(board: dict[str, Any]) -> Iterator[str]:
    for panel in shown(board):
        yield from (target["expr"] for target in panel["targets"])
    yield from (event["expr"] for event in board["annotations"]["list"])


def exported(expr: str) -> set[str]:
    """The metrics that a query names, by their names in the registry."""
    names = re.findall(r"(?<![:\w])(?:labelstream|process)_[a-z0-9_]+(?![:\w])", re.sub(r'"[^"]*"', "", expr))
    return {name if name in EXPORTED else re.sub("_(bucket|count|sum)$", "", name) for name in names}


@pytest.mark.parametrize("name", BOARDS)
def test_the_files_are_what_the_code_draws(name: str) -> None:
    assert (FOLDER / f"{name}.json").read_text("utf-8") == text(name), "run `make dashboards`"


def test_there_are_no_other_files() -> None:
    assert set(FILES) == set(BOARDS)


@pytest.mark.parametrize("board", FILES.values(), ids=FILES)
def test_grafana_knows_every_key(board: dict[str, Any]) -> None:
    register_default_plugins()
    assert json.loads(json.dumps(Dashboard.from_json(board), cls=JSONEncoder)) == board


@pytest.mark.parametrize("board", FILES.values(), ids=FILES)
def test_a_board_can_be_used_anywhere_and_is_not_edited_in_place(board: dict[str, Any]) -> None:
    assert board.get("id") is None
    assert board["editable"] is False
    variables = {each["name"]: each for each in board["templating"]["list"]}
    assert {"datasource", "namespace", "job", "instance"} <= set(variables)
    assert variables.pop("datasource")["type"] == "datasource"
    for each in variables.values():
        assert (each["refresh"], each["multi"], each["includeAll"], each["allValue"]) == (2, True, True, ".*")
    asking = (*shown(board), *variables.values(), *board["annotations"]["list"])
    sources = [each["datasource"]["uid"] for each in asking]
    sources += [target["datasource"]["uid"] for panel in shown(board) for target in panel["targets"]]
    assert set(sources) == {"${datasource}"}


@pytest.mark.parametrize("board", FILES.values(), ids=FILES)
def test_every_row_asks_and_every_panel_says_what_it_shows(board: dict[str, Any]) -> None:
    rows = [panel["title"] for panel in board["panels"] if panel["type"] == "row"]
    assert all(title.endswith("?") for title in rows)
    titles = [panel["title"] for panel in shown(board)]
    assert len(set(titles)) == len(titles)
    for panel in shown(board):
        assert re.fullmatch(r"[A-Za-z0-9].{20,}\.", panel["description"]), panel["title"]
        assert panel["fieldConfig"]["defaults"]["unit"], panel["title"]
        assert panel["targets"], panel["title"]


@pytest.mark.parametrize("board", FILES.values(), ids=FILES)
def test_queries_are_of_the_chosen_deployment_and_follow_the_resolution(board: dict[str, Any]) -> None:
    for expr in queries(board):
        for labels in re.findall(r"(?:labelstream_[a-z0-9_:]+|process_[a-z_]+|ALERTS)(\{[^}]*\}|\b)", expr):
            assert 'namespace=~"$namespace", job=~"$job"' in labels, expr
        for window in re.findall(r"\[([^\]]+)\]", expr):
            assert window == "$__rate_interval" or window in WINDOWS, expr
        for before, name in re.findall(r"(\w*)\(?(?<![:\w])((?:labelstream|process)_[a-z0-9_]+)\{", expr):
            if EXPORTED.get(name) == "counter" or name.endswith(("_bucket", "_sum", "_count")):
                assert before in {"rate", "increase"}, expr


def test_every_metric_that_is_asked_for_is_exported() -> None:
    asked = {name for board in FILES.values() for expr in queries(board) for name in exported(expr)}
    asked |= {name for rule in rules() for name in exported(rule["expr"])}
    assert asked - set(EXPORTED) == set()
    known = {each.name for each in recorded()}
    named = re.compile(r"namespace_job[a-z_]*:labelstream_[a-z_]+:[a-z0-9_]+")
    exprs = [rule["expr"] for rule in rules()] + [expr for board in FILES.values() for expr in queries(board)]
    assert {name for expr in exprs for name in named.findall(expr)} - known == set()


def test_every_metric_that_is_exported_is_on_a_board_or_left_out_for_a_reason() -> None:
    seen = {name for board in FILES.values() for expr in queries(board) for name in exported(expr)}
    assert set(EXPORTED) - seen == set(UNSHOWN)


def test_panels_turn_to_a_colour_where_alerts_begin() -> None:
    named = {each.name: each for each in alerts()}
    drawn = set()
    for board in FILES.values():
        for panel in shown(board):
            steps = panel["fieldConfig"]["defaults"].get("thresholds", {}).get("steps", [])
            for name in re.findall(r"Alert: (\w+)", panel["description"]):
                if len(steps) > 1 and not name.endswith("BudgetBurns"):  # what is left of a budget ends at 0
                    assert steps[1]["value"] == pytest.approx(named[name].threshold), panel["title"]
                    drawn.add(name)
    assert len(drawn) > 9


def test_every_alert_is_named_on_the_board_that_it_points_to() -> None:
    for alert in alerts():
        board = re.fullmatch(r"/d/labelstream-(\w+)\?.*", alert.annotations["dashboard"])
        assert board, alert.name
        assert any(alert.name in panel["description"] for panel in shown(FILES[board[1]])), alert.name
