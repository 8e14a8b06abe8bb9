"""Content Safety against documented exchanges: what is alike whatever the models, ids and times, has to be equal."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from tests.server.conftest import KEY, Serve
from tests.server.content_safety import container

CONTRACT = Path(__file__).parents[1] / "contract" / "content_safety"
FILES = sorted(str(file.relative_to(CONTRACT)) for file in CONTRACT.glob("*/*.json"))
ID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab0][0-9a-f]{3}-[0-9a-f]{12}")
TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z")
UNNAMED = {"message": str, "severity": int, "detected": bool}


def alike(value: Any, name: str = "") -> Any:
    """A body with what may differ made the same: ids, times, messages, severities, and whether a category is found."""
    if name in UNNAMED:
        return isinstance(value, UNNAMED[name])
    if isinstance(value, dict):
        return {key: alike(part, key) for key, part in value.items()}
    if isinstance(value, list):
        return [alike(part) for part in value]
    return TIME.sub("time", ID.sub("id", value)) if isinstance(value, str) else value


def test_there_are_exchanges_to_be_held_to() -> None:
    assert {file.partition("/")[0] for file in FILES} == {"2023-10-01", "2024-05-15-preview", "2024-09-15-preview"}


@pytest.mark.parametrize("name", FILES)
async def test_a_documented_exchange_happens_so_here(serve: Serve, tmp_path: Path, name: str) -> None:
    ids: dict[str, str] = {}
    async with serve(containers=[container(tmp_path / "samples")]) as server:
        for exchange in json.loads((CONTRACT / name).read_text())["exchanges"]:
            sent, expected = json.dumps(exchange["request"]), exchange["response"]
            for documented, here in ids.items():
                sent = sent.replace(documented, here)
            request = json.loads(sent.replace("{key}", KEY))
            response = await server.client.request(
                request["method"],
                f"{request['path']}?{request['query']}",
                content=None if request["body"] is None else json.dumps(request["body"]),
                headers=request["headers"],
            )
            await server.idle()
            assert response.status_code == expected["status"], response.text
            ids.update(zip(ID.findall(json.dumps(expected)), ID.findall(response.text), strict=False))
            for header, value in expected["headers"].items():
                assert ID.sub("id", response.headers[header]) == ID.sub("id", value).replace("{host}", "server:8080")
            assert alike(response.json() if response.content else None) == alike(expected["body"])
