"""`docs/reference.md`, made from the code: `python -m tests.reference` (or `make reference`) writes it anew.

What the code says of itself is read from there: settings, metrics, commands. What it does not say (fields of records,
log events) has its line in `reference.yaml`; how far the APIs go is in `coverage/`, as the README tells, too.
"""

import ast
import inspect
import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from enum import Enum
from itertools import pairwise
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, NamedTuple, Union, get_args, get_origin

import typer
import yaml
from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.metrics import MetricWrapperBase
from pydantic import BaseModel, SecretStr
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined
from typer.main import get_command

from service import cli, settings
from service.dispatch import account, calls
from service.documents import AnsweredFrom, Reason
from service.limits import breaker
from service.observability import health, telemetry
from service.providers import (
    azure_language_dialects,
    comprehend,
    comprehend_jobs,
    content_safety,
    content_understanding,
)
from service.routing.cases import Case
from service.server import telemetry as server_telemetry
from service.simulation.endpoint import Behaviour
from service.simulation.scenario import Arrivals, Expected, Load, load, shipped
from service.transport import aws
from service.transport.failures import Rule
from tests.ops.prometheus import alerts

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "reference.md"
README = ROOT / "README.md"
SAID: dict[str, Any] = yaml.safe_load(Path(__file__).with_suffix(".yaml").read_text("utf-8"))
COVERAGE: list[dict[str, Any]] = [
    yaml.safe_load(file.read_text("utf-8")) for file in sorted((ROOT / "tests" / "coverage").glob("*.yaml"))
]

_NOUNS = (  # what has a written form of its own is told by how it is read
    (get_args(settings.Seconds)[1], "duration"),
    (get_args(settings.Bytes)[1], "size"),
    (get_args(settings.Pointer)[1], "JSON pointer"),
)
_TYPES = {
    bool: "`true` or `false`",
    int: "whole number",
    float: "number",
    str: "text",
    Path: "path",
    SecretStr: "secret",
    settings.Condition: "condition",
    Any: "anything",
}
_MILLISECONDS = {"h": 3_600_000, "m": 60_000, "s": 1000, "ms": 1}
_BYTES = {"GiB": 1024**3, "MiB": 1024**2, "KiB": 1024, "B": 1}
_MANY: dict[object, str] = {dict: ".NAME", tuple: "[]"}
_EXIT_CODE = re.compile(r"(\d+) (.+?)(?=, \d|\.)")
_PIPE = r"\|"
_LEVELS = {"debug", "info", "warning", "error", "exception", "critical"}


FAILURES: dict[str, tuple[Rule, ...]] = {
    "`azure_language`": azure_language_dialects.RULES,
    "`azure_language` by `model_id`": azure_language_dialects.RULES_OF_A_MODEL,
    "`content_safety`": content_safety.RULES,
    "`content_safety` with a `category`": content_safety.RULES_OF_A_CATEGORY,
    **{f"`content_understanding` with {kind}": rules for kind, rules in content_understanding.RULES.items()},
    "`comprehend` and `comprehend_jobs`, first": aws.RULES,
    "`comprehend`, then": comprehend.RULES,
    "`comprehend_jobs`, then": comprehend_jobs.RULES,
}
"""The tables that the providers decide by."""


class Setting(NamedTuple):
    """One setting; `provider` tells accounts apart, `variable` (of the environment) is empty where there is none.

    `meaning` is the docstring under it, empty where it has none.
    """

    path: str
    provider: str
    variable: str
    field: FieldInfo
    default: Any
    meaning: str

    @property
    def kind(self) -> str:
        return _kind(self.field.annotation, self.field.metadata)


class Branch(NamedTuple):
    """A part of the settings with those that are directly in it."""

    path: str
    provider: str
    meaning: str
    settings: list[Setting]


def branches(
    model: type[BaseModel] = settings.Settings, path: str = "", provider: str = "", given: Any = None
) -> Iterator[Branch]:
    """The tree from a model on; `given` is one with other defaults than the model's own."""
    if "provider" in model.model_fields:
        (provider,) = get_args(model.model_fields["provider"].annotation)
    own, deeper, meanings = [], [], _meanings(model)
    for name, field in model.model_fields.items():
        place = f"{path}.{field.alias or name}".removeprefix(".")
        default = getattr(given, name) if isinstance(given, model) else field.default
        if below := [each for each in _models(field.annotation) if _is_told_apart(each, model)]:
            place += _MANY.get(get_origin(field.annotation), "")
            deeper += [branches(each, place, provider, default) for each in below]
        else:
            variable = "" if "[]" in place else f"LABELSTREAM_{place.upper().replace('.', '__')}"
            own.append(Setting(place, provider, variable, field, default, meanings.get(name, "")))
    yield Branch(path, provider, " ".join((model.__doc__ or "").split()), own)
    for each in deeper:
        yield from each


def _is_told_apart(branch: type[BaseModel], model: type[BaseModel]) -> bool:
    """Whether what is in a model has a table of its own: what it is a kind of has none, and conditions have one."""
    return branch is not settings.Condition and not issubclass(model, branch)


def _meanings(model: type[BaseModel]) -> dict[str, str]:
    """The docstrings under a model's fields, its own and those of the classes that it is made from."""
    found: dict[str, str] = {}
    for each in reversed(model.__mro__):
        if issubclass(each, BaseModel) and each is not BaseModel:
            (definition,) = ast.parse(inspect.getsource(each)).body
            assert isinstance(definition, ast.ClassDef)
            for field, under in pairwise(definition.body):
                match field, under:
                    case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(said))):
                        found[name] = inspect.cleandoc(said)
    return found


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for part in get_args(annotation):
        yield from _models(part)


def _kind(annotation: Any, metadata: Sequence[Any]) -> str:
    origin, parts = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        more = [mark for each in parts[1:] for mark in (each.metadata if isinstance(each, FieldInfo) else [each])]
        return _kind(parts[0], [*metadata, *more])
    if origin in (Union, UnionType):
        written = [part for part in parts if part is not NoneType]  # None is what nobody writes
        return " or ".join(_kind(part, metadata) for part in written)
    if origin is Literal:
        return " or ".join(f"`{each}`" for each in parts)
    if origin is tuple:
        return f"list of {_kind(parts[0], ())}s"
    if origin is dict:
        return f"{_kind(parts[1], metadata)} by {_kind(parts[0], ())}"
    return next((noun for mark, noun in _NOUNS if mark in metadata), _TYPES[annotation]) + _bounds(metadata)


def _bounds(metadata: Sequence[Any]) -> str:
    names = ("ge", "gt", "le", "pattern")
    match {name: getattr(mark, name) for mark in metadata for name in names if hasattr(mark, name)}:
        case {"pattern": pattern}:
            return f" `{pattern.strip('^$')}`"
        case {"ge": least, "le": most}:
            return f", {least:,} to {most:,}"
        case {"gt": bound}:
            return f" above {bound}"
        case {"ge": least} if least:
            return f" from {least}"
    return ""


def shown(setting: Setting) -> str:
    """A default as it is written in a file."""
    value = setting.default
    if value is PydanticUndefined:
        return "required"
    if value is None:
        return "none"
    if setting.kind.startswith("duration"):
        value = _in_units(round(value * 1000), _MILLISECONDS)
    elif setting.kind.startswith("size"):
        value = _in_units(value, _BYTES)
    elif isinstance(value, tuple):
        value = f"[{', '.join(value)}]"
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"


def _in_units(value: int, units: dict[str, int]) -> str:
    return next(f"{value // size}{unit}" for unit, size in units.items() if value % size == 0)


class Metric(NamedTuple):
    """One metric, under the name that a query uses."""

    name: str
    type: str
    labels: Iterable[str]
    meaning: str


def metrics(registry: CollectorRegistry) -> Iterator[Metric]:
    """Every metric of a registry, also those that have no series yet."""
    for collector in registry._collector_to_names:
        if isinstance(collector, ProcessCollector):
            continue  # its names are the same everywhere, and it has none where there is no /proc
        families = collector.describe() if isinstance(collector, MetricWrapperBase) else collector.collect()
        for family in families:
            labels = getattr(collector, "_labelnames", ()) or getattr(family, "_labelnames", ())
            if family.type == "info":
                labels = next(iter(collector.collect())).samples[0].labels
            suffix = {"counter": "_total", "info": "_info"}.get(family.type, "")
            yield Metric(family.name + suffix, family.type, labels, family.documentation)


def commands(command: Any = None, name: str = "labelstream") -> Iterator[tuple[str, Any]]:
    """Every command, by all its words; Typer's types of them are not public."""
    command = command or get_command(cli.app)
    if below := getattr(command, "commands", None):
        for word, each in below.items():
            yield from commands(each, f"{name} {word}")
    else:
        yield name, command


class Event(NamedTuple):
    """A log event: its name, the levels at which it is logged, and what is told with it."""

    name: str
    levels: set[str]
    fields: dict[str, None]


def events() -> list[Event]:
    """Every event that the code logs."""
    found: dict[str, Event] = {}
    for path in sorted((ROOT / "service").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            for name, level, fields in _logged(node):
                event = found.setdefault(name, Event(name, set(), {}))
                event.levels.add(level)
                event.fields.update(dict.fromkeys(fields))
    return [found[name] for name in sorted(found)]


def _logged(node: ast.AST) -> Iterator[tuple[str, str, list[str]]]:
    match node:
        case ast.Call(func=ast.Attribute(attr=level, value=logger), args=[name, *_]) if level in _LEVELS and re.search(
            r"log$|get_logger", ast.unparse(logger)
        ):
            fields = [keyword.arg for keyword in node.keywords if keyword.arg and keyword.arg != "exc_info"]
            constant = str(name.value) if isinstance(name, ast.Constant) else ast.unparse(name)
            yield constant, "error" if level == "exception" else level, fields
        case ast.Dict(keys=keys, values=values):  # a line of somebody else's under a name of ours
            told = {key.value: value for key, value in zip(keys, values, strict=True) if isinstance(key, ast.Constant)}
            if isinstance(event := told.get("event"), ast.Constant):
                yield str(event.value), "its own", [str(key) for key in told if key != "event"]


def page() -> str:
    """The whole document."""
    said = SAID["introductions"]
    exit_codes = _EXIT_CODE.findall((cli.__doc__ or "").partition("Exit codes")[2])
    sections = [
        ("# Reference", said["page"]),
        ("## Settings", said["settings"]),
        *((_title(branch), branch.meaning + _settings(branch)) for branch in branches() if branch.settings),
        ("## Metrics", said["metrics"]),
        ("### Of `labelstream run`", _metrics(telemetry.Telemetry().registry)),
        ("### Of `labelstream run --workers`, besides", _metrics(_several_workers())),
        ("### Of `labelstream serve`", _metrics(server_telemetry.Telemetry().registry)),
        (
            "### Values of labels",
            _table("Label | Values", ([f"`{name}`", _code(each)] for name, each in _VALUES.items())),
        ),
        ("## Alerts", said["alerts"] + _alerts()),
        ("## Commands", said["commands"] + _table("Exit code | Meaning", exit_codes)),
        *((f"### `{name}`", command.help + _options(command)) for name, command in commands()),
        ("### `check --cases`", f"{said['cases']}\n\n{_keys(Case, 'cases[]')}"),
        ("## Scenarios", said["scenarios"] + _scenarios()),
        *((f"### `{place}`", _keys(form, place)) for place, form in _SCENARIO.items()),
        ("### `expect[]`", said["expect"] + _table("Key | Meaning", _expected())),
        ("## What labelstream does about each failure", said["failures"] + _consequences()),
        *((f"### Of {title}", _failures(rules)) for title, rules in FAILURES.items()),
        (
            "## Result records",
            said["results"]
            + _said("Field", "result")
            + _said("Field where the stream has routes", "result_of_routes")
            + _said("Field of a document that was not asked for", "result_of_identical")
            + _said("Field of a copy for reviewers", "result_of_review")
            + _said("Field of a decision", "decision")
            + _said("Field of a document that several accounts were asked for", "result_of_stages")
            + _said("Header", "result_headers"),
        ),
        (
            "## Dead-letter records",
            said["dead_letters"] + _said("Header", "dead_letter_headers") + _said("Reason", "reasons"),
        ),
        ("### Of `labelstream classify`", said["dead_letter_lines"] + _said("Field", "dead_letter_lines")),
        ("## Log events", said["events"] + _events()),
        ("## APIs", said["coverage"]),
        *((f"### {each['title']}", _coverage(each)) for each in COVERAGE),
    ]
    return "\n".join(f"{title}\n\n{text.strip()}\n" for title, text in sections)


_SCENARIO: dict[str, type[BaseModel]] = {
    "endpoints.NAME[]": Behaviour,
    "load.NAME": Load,
    "load.NAME.arrivals[]": Arrivals,
}


def _several_workers() -> CollectorRegistry:
    registry = CollectorRegistry()
    registry.register(health.WorkersCollector([], {}))
    return registry


def _scenarios() -> str:
    return _table("Scenario | Shows that", ([f"`{name}`", load(path).about] for name, path in shipped().items()))


def _keys(form: type[BaseModel], place: str) -> str:
    own = next(branches(form, place))
    rows = ([f"`{each.path.rpartition('.')[2]}`", each.kind, shown(each), each.meaning] for each in own.settings)
    return own.meaning + _table("Key | Value | Default | Meaning", rows)


def _expected() -> Iterator[list[str]]:
    for name, meaning in _meanings(Expected).items():
        yield [f"`{Expected.model_fields[name].alias or name}`", meaning]


_VALUES: dict[str, Iterable[str]] = {
    "labelstream_dead_letters_total{reason}": Reason,
    "labelstream_provider_errors_total{error_type}": get_args(telemetry.ErrorType),
    "labelstream_records_spared_total{answered_from}": get_args(AnsweredFrom),
    "labelstream_trial_records_total{became}": get_args(telemetry.TrialBecame),
    "labelstream_lane_records_total{became}": get_args(telemetry.Became),
}


def _table(header: str, rows: Iterable[Sequence[str]]) -> str:
    columns = header.split(" | ")
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n\n" + "\n".join(f"| {' | '.join(cell.replace('|', _PIPE) for cell in line)} |" for line in lines)


def _code(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


def _title(branch: Branch) -> str:
    of = f" of provider `{branch.provider}`" if branch.provider else ""
    return f"### `{branch.path}`{of}" if branch.path else "### At the top"


def _settings(branch: Branch) -> str:
    rows = []
    for each in branch.settings:
        name = f"`{each.path}`" + (f"<br>`{each.variable}`" if each.variable else "")
        rows.append([name, each.kind, shown(each), each.meaning])
    return _table("Setting, environment variable | Type | Default | Meaning", rows)


def _alerts() -> str:
    rows = []
    for each in alerts():
        says = re.sub(r"\{\{ \$labels\.(\w+) \}\}", r"*\1*", each.annotations["summary"])
        severity = each.labels["severity"] + (f", over {each.window}" if each.window else "")
        link = f"[`{each.name}`](runbooks.md#{each.name.lower()})"
        rows.append([link, severity, each.held, re.sub(r"\{\{ [^}]* \}\}", "*N*", says)])
    return _table("Alert | Severity | After | Says", rows)


def _metrics(registry: CollectorRegistry) -> str:
    rows = [[f"`{each.name}`", each.type, _code(each.labels), each.meaning] for each in metrics(registry)]
    return _table("Metric | Type | Labels | Meaning", rows)


def _options(command: Any) -> str:
    return _table("Argument or option | Default | Meaning", map(_option, command.params))


def _option(option: Any) -> Sequence[str]:
    if option.param_type_name == "argument":
        name = str(option.display_name_raw).upper()
    else:
        takes = option.metavar or option.display_type(typer.Context(get_command(cli.app))).strip("<>")
        takes = takes.removeprefix("list[").removesuffix("]").removesuffix(" range")
        name = option.opts[0] if option.is_flag else f"{option.opts[0]} {takes}"
    default = option.default.value if isinstance(option.default, Enum) else option.default
    usual = "required" if option.required else "" if default is None or default is False else f"`{default}`"
    again = " May be given several times." if option.multiple else ""
    variable = f" Environment variable: `{option.envvar}`." if option.envvar else ""
    return f"`{name}`", usual, f"{option.help}{again}{variable}"


def _said(header: str, what: str) -> str:
    return _table(f"{header} | Meaning", ([f"`{name}`", meaning] for name, meaning in SAID[what].items()))


def _consequences() -> str:
    numbers = {
        "first": f"{breaker.FIRST_WAIT:g} s",
        "at_first": f"{breaker.LONGEST_AT_FIRST:g} s",
        "longest": f"{account.LONGEST_BACK_OFF:g} s",
        "quiet": f"{account.LONGEST_QUIET / 3600:g} h",
        "losses": calls.MOST_LOSSES,
    }
    return _table("Done | What that is", ([then, text.format(**numbers)] for then, text in SAID["then"].items()))


def _failures(rules: Iterable[Rule]) -> str:
    return _table(
        "Failure of | Status | Codes | Done | Told beside it",
        (
            [
                " or ".join(rule.at) or "anything",
                _statuses(rule.statuses),
                _code(rule.codes) or "any",
                f"**{rule.then}**",
                rule.says,
            ]
            for rule in rules
        ),
    )


def _statuses(statuses: Collection[int]) -> str:
    """Statuses with those that follow each other as one stretch."""
    stretches: list[list[int]] = []
    for status in sorted(statuses):
        if stretches and status == stretches[-1][-1] + 1:
            stretches[-1].append(status)
        else:
            stretches.append([status])
    parts = (f"{part[0]}" if len(part) == 1 else f"{max(part[0], 100)} to {part[-1]}" for part in stretches)
    return ", ".join(parts) or "any"


def _events() -> str:
    rows = []
    for name, levels, fields in events():
        rows.append([f"`{name}`", " or ".join(sorted(levels)), _code(fields), SAID["events"].get(name, "")])
    return _table("Event | Level | Fields | Meaning", rows)


def _coverage(api: dict[str, Any]) -> str:
    rows = []
    for each in api["operations"]:
        proofs = ", ".join(f"[{Path(test).stem.removeprefix('test_')}](../tests/{test})" for test in each["proven_by"])
        versions = _code(each["versions"])
        rows.append([f"`{each['request']}`", versions, _yes(each["client"]), _yes(each["server"]), proofs])
    left_out = "\n".join(f"- {line}" for line in api["not_served"])
    table = _table("Request | Versions | Client | Server | Proven by", rows)
    return f"`serve` does not do:\n\n{left_out}{table}"


def _yes(given: bool) -> str:
    return "yes" if given else ""


def apis() -> str:
    """The table of the README: each API with its versions, and how much of it is asked and served."""
    rows = []
    for api in COVERAGE:
        operations = api["operations"]
        versions = dict.fromkeys(version for each in operations for version in each["versions"])
        asked, served = (sum(bool(each[side]) for each in operations) for side in ("client", "server"))
        proofs = len({test for each in operations for test in each["proven_by"]})
        rows.append([api["title"], ", ".join(versions), f"{asked}", f"{served}", f"{proofs}"])
    return _table("API | Versions | Operations asked | Operations served | Test files", rows).strip()


def readme() -> str:
    """The README with its generated part as it should be."""
    text = README.read_text("utf-8")
    begin, end = "<!-- apis -->\n", "\n<!-- /apis -->"
    return text[: text.index(begin) + len(begin)] + apis() + text[text.index(end) :]


if __name__ == "__main__":
    PAGE.parent.mkdir(exist_ok=True)
    PAGE.write_text(page(), encoding="utf-8")
    README.write_text(readme(), encoding="utf-8")
