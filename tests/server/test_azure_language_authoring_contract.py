"""The authoring of both eras against documented exchanges: a project's life, in order, with labels and times like them.

How often a client has to ask until something is done is not documented, so what is documented as under way is compared
if it still is when it is asked for, and what is documented as done when it is.
"""

import asyncio
import json
import re
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.server.conftest import KEY, Serve, Server

CONTRACT = Path(__file__).parents[1] / "contract" / "azure_language_authoring"
FILES = sorted(str(file.relative_to(CONTRACT)) for file in CONTRACT.glob("*/*.json"))
TEXTS = {"A": "an apple and a pear, fruit number", "B": "the bicycle has a wheel and a bell, part"}
JOB = re.compile(r"/jobs/[^/?]+|/deletion-jobs/[^/?]+")
MODEL_ID = re.compile(r"[0-9a-f-]{36}_(Single|Multi)Classification_latest")
TIME = re.compile(r"\d{4}-\d\d-\d\d(T\d\d:\d\d:\d\d(\.\d+)?Z)?")
PENDING = {"notStarted", "running", "inProgress"}
UNTOLD = {"startDateTime", "endDateTime", "estimatedEndDateTime", "hasSnapshot", "message", "nextLink", "settings"}
"""What one side may say and the other leave out."""
VARIED = {"jobId", "modelId", "description"}


def shape(value: Any, name: str = "") -> Any:
    """What a body is made of, with what may differ made the same: ids, times and figures, and what is confused."""
    if name == "confusionMatrix":
        return sorted({key for row in value.values() for cell in row.values() for key in cell})
    if isinstance(value, dict):
        return {key: shape(part, key) for key, part in value.items() if key not in UNTOLD}
    if isinstance(value, list):
        return [shape(part) for part in value]
    if name in VARIED and isinstance(value, str):
        return MODEL_ID.sub(r"\1", value) if MODEL_ID.fullmatch(value) else "text"
    if isinstance(value, str):
        return "time" if TIME.fullmatch(value) else value
    return "number" if isinstance(value, int | float) and not isinstance(value, bool) else value


def under_way(body: Any) -> bool:
    """Whether a body is of work that goes on, be it only that of an evaluation."""
    return any(f'"status": "{status}"' in json.dumps(body) for status in PENDING)


def settled(body: Any) -> Any:
    """The shape of a body of work that goes on, whatever of it is done by now."""
    return json.loads(re.sub(r'"status": "[a-zA-Z]+"', '"status": "some"', json.dumps(shape(body))))


async def asked(server: Server, request: dict[str, Any], location: str) -> httpx.Response:
    path = request["path"]
    if found := JOB.search(httpx.URL(location).path):
        path = JOB.sub(found[0], path)
    headers = {name: value.replace("{key}", KEY) for name, value in request["headers"].items()}
    content = None if request["body"] is None else json.dumps(request["body"])
    query = f"?{request['query']}" if request["query"] else ""
    return await server.client.request(request["method"], f"{path}{query}", content=content, headers=headers)


def put(folder: Path, exchanges: list[dict[str, Any]]) -> str:
    """The container of the documents that a file speaks of; gives it as an operator names it."""
    given = exchanges[3]["request"]["body"] or exchanges[0]["request"]["body"]
    if "assets" in given:
        for number, one in enumerate(given["assets"]["documents"]):
            (folder / one["location"]).write_text(f"{TEXTS[one['class']['category']]} {number}", "utf-8")
        return f"{given['metadata']['storageInputContainerName']}={folder}"
    documents = []
    for number in range(30):
        names = (["A"], ["B"], ["A", "B"])[number % 3]
        (folder / f"doc-{number}.txt").write_text(f"{', '.join(TEXTS[name] for name in names)} {number}", "utf-8")
        classifiers = [{"classifierName": name} for name in names]
        documents.append({"location": f"doc-{number}.txt", "language": "en-us", "classifiers": classifiers})
    labels = {"classifiers": [{"name": "A"}, {"name": "B"}], "documents": documents}
    (folder / given["labelsLocation"]).write_text(json.dumps(labels), "utf-8")
    return f"{given['storageInputContainerName']}={folder}"


def test_there_are_exchanges_to_be_held_to() -> None:
    assert [file.partition("/")[0] for file in FILES] == ["2023-04-01", "v1.0-preview.2"]


@pytest.mark.parametrize("name", FILES)
async def test_a_documented_life_of_a_project_is_lived_so_here(serve: Serve, tmp_path: Path, name: str) -> None:
    folder = tmp_path / "container"
    folder.mkdir()
    exchanges = json.loads((CONTRACT / name).read_text("utf-8"))["exchanges"]
    location = ""
    async with serve(containers=[put(folder, exchanges)]) as server:
        for exchange in exchanges:
            request, expected = exchange["request"], exchange["response"]
            response = await asked(server, request, location)
            while response.status_code == 200 and under_way(response.json()) and not under_way(expected["body"]):
                await asyncio.sleep(0.01)
                response = await asked(server, request, location)
            assert response.status_code == expected["status"], (request["path"], response.text)
            for header, value in expected["headers"].items():
                location = response.headers[header]
                assert JOB.sub("", location) == JOB.sub("", value.replace("{host}", "server:8080"))
            if expected["body"] is None:
                assert request["method"] == "POST" or response.content == b""
            elif not under_way(expected["body"]):
                assert shape(response.json()) == shape(expected["body"]), request["path"]
            elif under_way(response.json()):
                assert settled(response.json()) == settled(expected["body"]), request["path"]
