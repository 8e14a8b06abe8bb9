"""The chart's README, from the comments of its values: `python -m tests.ops.chart` (or `make reference`) writes it."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import orjson
import yaml

ROOT = Path(__file__).parents[2]
CHART = ROOT / "helm" / "labelstream"
README = CHART / "README.md"

OPENING = """\
# labelstream

Runs [labelstream](../../README.md) on Kubernetes: workers that read Kafka and classify, and the compatible server
(`serve.enabled`) beside them if you like. Made from `values.yaml` by `make reference`.

```sh
helm upgrade --install triage helm/labelstream --namespace support --values triage-values.yaml
helm test triage --namespace support --logs     # `labelstream check`, in a pod like the workers'
```

with, at the least,

```yaml
{least}```

Keys are in a secret that you make (`kubectl create secret generic labelstream-keys --from-file=azure-language=…`), or
come with the pods' identity (`podIdentity`).

What the chart decides, and why:

* **Probes** ask whether the event loop turns and the group is joined, never whether Kafka or a classifier is well.
* **The grace period** is the longest `drain` of the streams and 15 s more; a shorter one is refused.
* **A rollout** takes one worker away before its successor comes (`maxSurge: 0`): fewer rebalances than with a surge,
  and what one worker less does is a little lag.
* **Workers** are never more than partitions, where the chart is told how many these are.
* **Autoscaling** by KEDA follows the group's lag, and adds nobody while quotas, money or a throttled account hold the
  calls (`autoscaling.keda.prometheus`). A partition whose offset does not move is left out of the lag, so that it does
  not scale out for ever.
* **Pods** pass the Pod Security Standard `restricted`: not root, a read-only root file system, no capabilities.
* **Rules and boards** are the files of `config/prometheus` and `config/grafana`, linked into the chart.

## Values

| Value | Default | Meaning |
| --- | --- | --- |
"""


class Value(NamedTuple):
    """A value that can be set: its path, its default, and what is said of it."""

    path: str
    default: Any
    meaning: str


def values() -> Iterator[Value]:
    """Every value that has a comment, in order."""
    text = (CHART / "values.yaml").read_text("utf-8")
    tree = yaml.safe_load(text)
    path: list[str] = []
    said: list[str] = []
    for line in text.splitlines():
        if comment := re.fullmatch(r" *# (-- )?(.*)", line):
            said = [comment[2]] if comment[1] else [*said, comment[2]] if said else []
        elif found := re.match(r"( *)([\w-]+):", line):
            path = [*path[: len(found[1]) // 2], found[2]]
            if said:
                default = tree
                for name in path:
                    default = default[name]
                yield Value(".".join(path), default, " ".join(said))
            said = []
        else:
            said = []


def readme() -> str:
    """The whole page."""
    least = (CHART / "ci" / "minimal-values.yaml").read_text("utf-8").partition("\n")[2]
    rows = (
        f"| `{each.path}` | `{orjson.dumps(each.default).decode()}` | {each.meaning.replace('|', chr(92) + '|')} |\n"
        for each in values()
    )
    return OPENING.replace("{least}", least) + "".join(rows)


if __name__ == "__main__":
    README.write_text(readme(), encoding="utf-8")
