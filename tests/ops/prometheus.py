"""The rules of `config/prometheus` as they are written, and where Prometheus' own programs are."""

import re
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "config" / "prometheus"
RULES = tuple(sorted(FOLDER.glob("*.rules.yml")))
PROGRAMS = ("prometheus", "promtool")
HOW_TO_GET_PROMETHEUS = "Debian, Ubuntu: sudo apt install prometheus"


class Alert(NamedTuple):
    """An alert as its file has it; `held` is for how long it is so, `window` tells burn rates of one name apart."""

    name: str
    expr: str
    labels: dict[str, str]
    annotations: dict[str, str]
    held: str = "0m"

    @property
    def window(self) -> str | None:
        return self.labels.get("window")

    @property
    def threshold(self) -> float:
        """What its first comparison compares with."""
        found = re.search(r"[<>]=? ([0-9.]+)(?: \* ([0-9.]+))?", self.expr)
        if found is None:
            raise ValueError(f"{self.name} compares with no number")
        return float(found[1]) * float(found[2] or 1)


class Recorded(NamedTuple):
    """A series that a rule records."""

    name: str
    expr: str
    labels: Mapping[str, str]


def groups() -> Iterator[dict[str, Any]]:
    """Every group of rules of every file."""
    for path in RULES:
        yield from yaml.safe_load(path.read_text("utf-8"))["groups"]


def rules() -> Iterator[dict[str, Any]]:
    """Every rule."""
    for group in groups():
        yield from group["rules"]


def alerts() -> list[Alert]:
    """Every alert."""
    return [
        Alert(rule["alert"], rule["expr"], rule["labels"], rule["annotations"], rule["for"])
        for rule in rules()
        if "alert" in rule
    ]


def recorded() -> list[Recorded]:
    """Every series that is recorded."""
    return [Recorded(rule["record"], rule["expr"], rule.get("labels", {})) for rule in rules() if "record" in rule]


def program(name: str) -> str:
    """The path of `prometheus` or `promtool`; skips the test where it is not there."""
    if found := shutil.which(name):
        return found
    pytest.skip(f"{name} is not installed. {HOW_TO_GET_PROMETHEUS}")
