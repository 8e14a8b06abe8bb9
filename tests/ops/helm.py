"""The chart as Helm itself renders it."""

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import helm_python
import yaml

from tests.ops.chart import CHART

helm_python.disable_logging()

VALUES: dict[str, dict[str, Any]] = {
    path.name.removesuffix("-values.yaml"): yaml.safe_load(path.read_text("utf-8"))
    for path in sorted((CHART / "ci").glob("*-values.yaml"))
}

OPERATORS = {"PodMonitor", "PrometheusRule", "ScaledObject", "TriggerAuthentication"}
"""Kinds that operators bring along; API servers of their own do not know them."""


@cache
def chart() -> helm_python.Chart:
    """The chart, loaded once."""
    return helm_python.Chart.load(CHART)


def with_values(name: str, **changed: Any) -> dict[str, Any]:
    """Values of `ci/`, some of them changed; of what is a mapping on both sides, only what is given."""
    return _merged(VALUES[name], changed)


def rendered(values: Mapping[str, Any], release: str = "prod") -> list[dict[str, Any]]:
    """Every object of a release."""
    texts = chart().render(dict(values), name=release, namespace="support")
    manifests = [text for path, text in texts.items() if Path(path).suffix == ".yaml"]
    return [each for manifest in manifests for each in yaml.safe_load_all(manifest) if each]


def only(objects: list[dict[str, Any]], kind: str, name: str | None = None) -> dict[str, Any]:
    """The one object of a kind, or the one of that name."""
    (found,) = [each for each in objects if each["kind"] == kind and name in (None, each["metadata"]["name"])]
    return found


def _merged(values: Mapping[str, Any], changed: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(values)
    for name, value in changed.items():
        before = merged.get(name)
        merged[name] = _merged(before, value) if isinstance(before, dict) and isinstance(value, dict) else value
    return merged
