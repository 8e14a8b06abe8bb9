"""Samples of a custom category and the shape of its requests, for the tests of Content Safety."""

import json
from itertools import product
from pathlib import Path
from typing import Any

from tests.server.conftest import DRUGS, Server

BASE = "/contentsafety"
FIRST, SECOND = "2024-05-15-preview", "2024-09-15-preview"
BLOB = "https://example.blob.core.windows.net/example-container/drugsample.jsonl"
OF_IT = "my friend sells pills, we all get high on powder and smoke weed at the party"
NOT_OF_IT = "My parcel has not arrived yet, can you tell me where it is?"
POSITIVES = DRUGS
NEGATIVES = [
    f"{who} {what} {where}"
    for who, what, where in product(
        ("anyone", "my doctor", "we always", "a friend of mine", "you should try and"),
        ("bakes bread", "take the bus", "read a novel", "buy some apples cheaply"),
        ("behind the station", "before class", "at the party tonight"),
    )
]


def jsonl(positives: list[str], negatives: list[str] = []) -> bytes:  # noqa: B006  only read
    rows = [*({"text": text, "isPositive": True} for text in positives)]
    rows += [{"text": text, "isPositive": False} for text in negatives]
    return "\n".join(json.dumps(row) for row in rows).encode()


def container(folder: Path, content: bytes = jsonl(POSITIVES)) -> str:
    """A container of that name that holds the samples."""
    folder.mkdir(exist_ok=True)
    (folder / "drugsample.jsonl").write_bytes(content)
    return f"example-container={folder}"


def asked(name: str = "DrugAbuse", **changes: Any) -> dict[str, Any]:
    """The body that makes a version of a category."""
    return {"categoryName": name, "definition": f"All about {name}.", "sampleBlobUrl": BLOB, **changes}


async def call(server: Server, method: str, path: str, api: str = FIRST, body: Any = None, **query: Any) -> Any:
    """What the server answers."""
    parameters = {"api-version": api, **query}
    return await server.client.request(method, f"{BASE}{path}", params=parameters, json=body)


async def made(server: Server, name: str = "DrugAbuse", api: str = FIRST) -> dict[str, Any]:
    """A category with a version that is built."""
    response = await call(server, "PUT", f"/text/categories/{name}", api, asked(name))
    assert response.status_code in {200, 201}, response.text
    number = response.json()["version"]
    response = await call(server, "POST", f"/text/categories/{name}:build", api, version=number)
    assert response.status_code == 202, response.text
    await server.idle()
    return await shown(server, name, api)


async def shown(server: Server, name: str = "DrugAbuse", api: str = FIRST, **query: Any) -> dict[str, Any]:
    """A category's version, as told of it."""
    (value,) = (await call(server, "GET", f"/text/categories/{name}", api, **query)).json()["value"]
    assert isinstance(value, dict)
    return value


def refusal(response: Any) -> tuple[int, str]:
    """The status and code of a refusal, which a header repeats."""
    error = response.json()["error"]
    assert error["message"]
    assert response.headers["x-ms-error-code"] == error["code"]
    return response.status_code, error["code"]
