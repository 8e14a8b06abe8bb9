"""The boards as the files of `config/grafana` have them."""

import json
from collections.abc import Callable

from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.dashboard import Dashboard

from tests.ops.boards import overview, providers, results
from tests.ops.prometheus import ROOT

FOLDER = ROOT / "config" / "grafana"
BOARDS: dict[str, Callable[[], Dashboard]] = {
    "overview": overview.draw,
    "providers": providers.draw,
    "results": results.draw,
}


def text(name: str) -> str:
    """A board's file."""
    return json.dumps(BOARDS[name](), cls=JSONEncoder, indent=2, sort_keys=True, ensure_ascii=False) + "\n"
