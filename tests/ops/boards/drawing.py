"""What the boards are drawn with: panels that have a title, a description, a unit and the alerts' thresholds.

Grafana Foundation SDK: https://grafana.github.io/grafana-foundation-sdk/
"""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from grafana_foundation_sdk.builders import (
    common,
    dashboard,
    heatmap,
    prometheus,
    stat,
    statetimeline,
    table,
    timeseries,
)
from grafana_foundation_sdk.models import common as shapes
from grafana_foundation_sdk.models import dashboard as models
from grafana_foundation_sdk.models.heatmap import HeatmapColorMode
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

from tests.ops import prometheus as rules

SOURCE = shapes.DataSourceRef(type_val="prometheus", uid="${datasource}")
JOB = 'namespace=~"$namespace", job=~"$job"'
POD = f'{JOB}, instance=~"$instance"'
TOPIC = f'{POD}, topic=~"$topic"'
STREAM = f'{JOB}, topic=~"$topic"'
ACCOUNT = f'{POD}, account=~"$account"'
RATE = "$__rate_interval"

GREEN, ORANGE, RED = "green", "orange", "red"
COLOURS = {
    "classified": GREEN,
    "skipped": "blue",
    "dead_letter": RED,
    "2xx": GREEN,
    "3xx": "blue",
    "4xx": ORANGE,
    "5xx": RED,
    "error": "dark-red",
    "committed": GREEN,
    "fenced": ORANGE,
    "failed": RED,
}
"""Of what comes to an end, the same on every panel."""
_ENDINGS = {"{{outcome}}", "{{result}}"}


class Query(NamedTuple):
    """What is asked, and what each series of the answer is called."""

    expr: str
    legend: str = ""


class Limit(NamedTuple):
    """Where a panel turns to a colour: `at` that value and beyond, or below it."""

    at: float
    colour: str
    below: bool = False

    def steps(self) -> list[models.Threshold]:
        first, then = (self.colour, GREEN) if self.below else (GREEN, self.colour)
        return [models.Threshold(None, first), models.Threshold(self.at, then)]


NO_LIMIT = Limit(0, GREEN)


def alerting(name: str, window: str | None = None) -> Limit:
    """Where an alert begins, in red if it pages; the number is the rule's."""
    alert = next(each for each in rules.alerts() if (each.name, each.window) == (name, window))
    colour = RED if alert.labels["severity"] == "page" else ORANGE
    return Limit(alert.threshold, colour, below="<" in alert.expr)


Panel = Any
"""A builder of one of the SDK's kinds of panels, which have no common type with these methods."""


def stat_of(title: str, says: str, unit: str, *queries: Query, limit: Limit = NO_LIMIT, decimals: int = 1) -> Panel:
    """A number, coloured by how bad it is."""
    panel = stat.Panel().color_mode(shapes.BigValueColorMode.BACKGROUND).graph_mode(shapes.BigValueGraphMode.NONE)
    options = common.ReduceDataOptions().calcs(["lastNotNull"])
    return _panel(panel.reduce_options(options).decimals(decimals), title, says, unit, queries, limit=limit)


_AT_LEAST = {"percentunit": 0.05, "suffix:/s": 0.1}
"""How far axes go at least, by their unit: where all is zero, they would go to a hundred."""


def lines(title: str, says: str, unit: str, *queries: Query, limit: Limit | None = None) -> Panel:
    """Lines over time; where an alert begins, a dashed one goes across."""
    panel = timeseries.Panel().line_width(1).fill_opacity(8).show_points(shapes.VisibilityMode.NEVER).min(0)
    panel = panel.legend(_legend()).tooltip(_tooltip())
    if unit in _AT_LEAST:
        panel = panel.axis_soft_max(_AT_LEAST[unit])
    if limit is not None:
        style = common.GraphThresholdsStyleConfig().mode(shapes.GraphThresholdsStyleMode.DASHED)
        panel = panel.thresholds_style(style)
    panel = _panel(panel, title, says, unit, queries, limit=limit or NO_LIMIT)
    return _coloured(panel) if any(query.legend in _ENDINGS for query in queries) else panel


def stacked(
    title: str, says: str, unit: str, *queries: Query, mode: shapes.StackingMode = shapes.StackingMode.NORMAL
) -> Panel:
    """Parts of a whole over time."""
    return lines(title, says, unit, *queries).fill_opacity(60).stacking(common.StackingConfig().mode(mode))


def on_right_axis(panel: Panel, legend: str, unit: str) -> Panel:
    """A series of another unit, on an axis of its own."""
    values = {"custom.axisPlacement": "right", "unit": unit}
    return panel.override_by_regexp(legend, [models.DynamicConfigValue(name, value) for name, value in values.items()])


def heat(title: str, says: str, unit: str, buckets: str) -> Panel:
    """A histogram over time: `buckets` are its series by `le`."""
    colours = heatmap.HeatmapColorOptions().mode(HeatmapColorMode.SCHEME).scheme("Oranges").steps(64)
    panel = heatmap.Panel().calculate(calculate=False).color(colours).y_axis(heatmap.YAxisConfig().unit(unit))
    shown = panel.title(title).description(says).datasource(SOURCE).unit(unit)
    return shown.with_target(_target(Query(buckets, "{{le}}"), "A").format(PromQueryFormat.HEATMAP))


def states(title: str, says: str, query: Query, names: dict[str, tuple[str, str]]) -> Panel:
    """Which state it is in, over time; `names` are words and colours of the values."""
    mappings = {value: models.ValueMappingResult(text=text, color=colour) for value, (text, colour) in names.items()}
    panel = statetimeline.Panel().show_value(shapes.VisibilityMode.NEVER).legend(_legend()).tooltip(_tooltip())
    return _panel(panel.mappings([models.ValueMap(options=mappings)]), title, says, "none", [query], limit=NO_LIMIT)


def rows_of(title: str, says: str, columns: dict[str, tuple[str, str, Limit]], sort: str) -> Panel:
    """A table with a row for each set of labels: `columns` have a query, a unit and where they turn to a colour."""
    panel = table.Panel().title(title).description(says).datasource(SOURCE).unit("short")
    renamed = {}
    for letter, (column, (expr, unit, limit)) in zip("ABCDEFGH", columns.items(), strict=False):
        panel = panel.with_target(_target(Query(expr), letter).format(PromQueryFormat.TABLE).instant())
        renamed[f"Value #{letter}"] = column
        shown: dict[str, Any] = {
            "unit": unit,
            "thresholds": {"mode": "absolute", "steps": limit.steps()},
            "custom.cellOptions": {"type": "color-text"},
        }
        panel = panel.override_by_name(column, [models.DynamicConfigValue(name, it) for name, it in shown.items()])
    merged = models.DataTransformerConfig("merge", options={})
    organised = models.DataTransformerConfig(
        "organize", options={"excludeByName": {"Time": True}, "renameByName": renamed}
    )
    return panel.transformations([merged, organised]).sort_by([_sorted(sort)])


class Row(NamedTuple):
    """A question, and the panels that answer it; once for each value of the variable `each`, if there is one."""

    question: str
    panels: Sequence[Panel]
    height: int = 8
    each: str | None = None


def variable(name: str, query: str, label: str) -> dashboard.QueryVariable:
    """A choice on top of the board, of all or some; it follows the time range."""
    everything = models.VariableOption(selected=True, text=["All"], value=["$__all"])
    chosen = dashboard.QueryVariable(name).label(label).query(query).datasource(SOURCE).current(everything)
    chosen = chosen.refresh(models.VariableRefresh.ON_TIME_RANGE_CHANGED).sort(models.VariableSort.ALPHABETICAL_ASC)
    return chosen.multi(multi=True).include_all(include_all=True).all_value(".*")


PARTS = "labelstream_build_info|labelstream_server_job_seconds_count"
VARIABLES = {
    "topic": ("Input topic", f"label_values(labelstream_assigned_partitions{{{POD}}}, topic)"),
    "account": ("Account", f"label_values(labelstream_concurrency_limit{{{POD}}}, account)"),
}


_COLUMNS, _ABREAST = 24, 4


def board(name: str, says: str, rows: Sequence[Row], by: Sequence[str]) -> models.Dashboard:
    """A board with its variables; `by` names those of `VARIABLES` that it has beside the usual ones."""
    drawn = (
        dashboard.Dashboard(f"labelstream: {name}")
        .uid(f"labelstream-{name.lower()}")
        .description(says)
        .tags(["labelstream"])
        .readonly()
        .timezone("browser")
        .refresh("30s")
        .time("now-3h", "now")
        .tooltip(models.DashboardCursorSync.CROSSHAIR)
        .link(
            dashboard.DashboardLink("labelstream")
            .type(models.DashboardLinkType.DASHBOARDS)
            .tags(["labelstream"])
            .include_vars(include_vars=True)
            .keep_time(keep_time=True)
        )
        .with_variable(dashboard.DatasourceVariable("datasource").label("Prometheus").type("prometheus"))
        .with_variable(variable("namespace", f'label_values({{__name__=~"{PARTS}"}}, namespace)', "Namespace"))
        .with_variable(
            variable("job", f'label_values({{__name__=~"{PARTS}", namespace=~"$namespace"}}, job)', "Deployment")
        )
        .with_variable(variable("instance", f'label_values({{__name__=~"{PARTS}", {JOB}}}, instance)', "Pod"))
        .annotation(
            _event(
                "Rebalances", f"sum by (topic) (increase(labelstream_rebalances_total{{{POD}}}[{RATE}])) > 0", "topic"
            )
        )
        .annotation(
            _event(
                "Deploys",
                f"count by (version) (labelstream_build_info{{{POD}}})"
                f" unless count by (version) (labelstream_build_info{{{POD}}} offset 5m)",
                "version",
            )
        )
    )
    for each in by:
        label, query = VARIABLES[each]
        drawn = drawn.with_variable(variable(each, query, label))
    for row in rows:
        heading = dashboard.Row(row.question)
        drawn = drawn.with_row(heading.repeat(row.each) if row.each else heading)
        for panel, width in zip(row.panels, _widths(len(row.panels)), strict=True):
            drawn = drawn.with_panel(panel.height(row.height).span(width))
    built = drawn.build()
    for number, panel in enumerate(built.panels or (), start=1):
        panel.id_val = number
    return built


def _widths(panels: int) -> Iterator[int]:
    """How wide panels are, in as few lines as hold at most four each: in a narrower one the title is cut."""
    lines = -(-panels // _ABREAST)
    for line in range(lines):
        abreast = panels // lines + (line < panels % lines)
        wide, wider = divmod(_COLUMNS, abreast)
        yield from (wide + (number < wider) for number in range(abreast))


def quantiles(metric: str, labels: str, *shares: float, by: str = "") -> list[Query]:
    """Quantiles of a histogram, over all pods."""
    kept = f"le, {by}" if by else "le"
    names = f" {{{{{by}}}}}" if by else ""
    return [
        Query(
            f"histogram_quantile({share}, sum by ({kept}) (rate({metric}_bucket{{{labels}}}[{RATE}])))",
            f"p{share * 100:g}{names}",
        )
        for share in shares
    ]


def mean(metric: str, labels: str, legend: str) -> Query:
    """The mean of what a histogram has observed."""
    return Query(f"sum(rate({metric}_sum{{{labels}}}[{RATE}])) / sum(rate({metric}_count{{{labels}}}[{RATE}]))", legend)


def per_second(metric: str, labels: str, by: str) -> Query:
    """How fast a counter goes, by a label."""
    return Query(f"sum by ({by}) (rate({metric}{{{labels}}}[{RATE}]))", f"{{{{{by}}}}}")


def _panel(panel: Panel, title: str, says: str, unit: str, queries: Sequence[Query], *, limit: Limit) -> Panel:
    steps = dashboard.ThresholdsConfig().mode(models.ThresholdsMode.ABSOLUTE).steps(limit.steps())
    panel = panel.title(title).description(says).datasource(SOURCE).unit(unit).thresholds(steps)
    for letter, query in zip("ABCDEFGH", queries, strict=False):
        panel = panel.with_target(_target(query, letter))
    return panel


def _target(query: Query, letter: str) -> prometheus.Dataquery:
    return prometheus.Dataquery().expr(query.expr).legend_format(query.legend).ref_id(letter).datasource(SOURCE)


def _coloured(panel: Panel) -> Panel:
    for name, colour in COLOURS.items():
        value = {"mode": "fixed", "fixedColor": colour}
        panel = panel.override_by_name(name, [models.DynamicConfigValue("color", value)])
    return panel


def _legend() -> common.VizLegendOptions:
    legend = common.VizLegendOptions().show_legend(show_legend=True).display_mode(shapes.LegendDisplayMode.LIST)
    return legend.placement(shapes.LegendPlacement.BOTTOM).calcs([])


def _tooltip() -> common.VizTooltipOptions:
    return common.VizTooltipOptions().mode(shapes.TooltipDisplayMode.MULTI).sort(shapes.SortOrder.DESCENDING)


def _sorted(column: str) -> common.TableSortByFieldState:
    return common.TableSortByFieldState().display_name(column).desc(desc=True)


def _event(name: str, expr: str, label: str) -> dashboard.AnnotationQuery:
    event = dashboard.AnnotationQuery().name(name).datasource(SOURCE).enable(enable=True).hide(hide=False)
    event = event.icon_color("purple" if name == "Deploys" else "blue").expr(expr).step("60s")
    return event.title_format(name).tag_keys(label)
