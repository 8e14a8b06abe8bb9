"""The documented exchanges of `tests/contract`, as clients are held to them; a body that is text is sent as it is."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.providers.conftest import Received, Replay, Reply

CONTRACT = Path(__file__).parents[1] / "contract"


def files(api: str, pattern: str = "*/*.json") -> list[str]:
    """The files of an API, as `Documented.read` takes them."""
    return sorted(str(path.relative_to(CONTRACT)) for path in (CONTRACT / api).glob(pattern))


@dataclass(frozen=True)
class Documented:
    """A file of exchanges in one version of an API."""

    version: str
    exchanges: list[dict[str, Any]]

    @classmethod
    def read(cls, name: str) -> "Documented":
        _, version, *_ = Path(name).parts
        return cls(version, json.loads((CONTRACT / name).read_text(encoding="utf-8"))["exchanges"])

    @property
    def requests(self) -> list[dict[str, Any]]:
        return [exchange["request"] for exchange in self.exchanges]

    @property
    def replies(self) -> list[Reply]:
        responses = [exchange["response"] for exchange in self.exchanges]
        return [Reply(response["status"], response["body"], response["headers"]) for response in responses]

    def check(self, replay: Replay, key: str) -> None:
        """See that the requests that came are those of the file."""
        documented = json.loads(json.dumps(self.requests).replace("{key}", key))
        assert [_as_documented(*pair) for pair in zip(replay.requests, documented, strict=True)] == documented


def _as_documented(received: Received, documented: dict[str, Any]) -> dict[str, Any]:
    """The request in the form of the files, with the headers that the file has; more may be sent."""
    return {
        "method": received.method,
        "path": received.path,
        "query": received.query,
        "headers": {name: received.headers.get(name.lower()) for name in documented["headers"]},
        "body": received.body.decode() if isinstance(documented["body"], str) else received.json,
    }
