"""The runtimes of 2021 against documented exchanges: what is alike whatever model, ids and times has to be equal.

A page may be as long as it is asked to be, so those that are documented as shorter are asked for as they are.
"""

import json
import re
from pathlib import Path
from typing import Any

import httpx
import pytest

from service.server.azure_language_2021 import PUBLISHED
from service.server.store import Change
from tests.server.conftest import KEY, Serve, Server

CONTRACT = Path(__file__).parents[1] / "contract" / "azure_language"
FILES = sorted(str(file.relative_to(CONTRACT)) for file in CONTRACT.glob("v*/*.json"))
JOB = re.compile(r"/jobs/[0-9a-f-]{36}")
TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z")
UNTOLD = {"displayName", "name", "statistics", "@nextLink"}
"""What one side may say and the other leave out."""


def shape(value: Any, name: str = "") -> Any:
    """What a body is made of, with what may differ made the same; a task has its state by either of two names."""
    if name in {"classes", "classifications"}:
        return all(shape(one) == {"category": True, "confidenceScore": True} for one in value)
    if name in {"category", "jobId", "message"}:
        return isinstance(value, str)
    if name == "confidenceScore":
        return isinstance(value, float)
    if isinstance(value, dict):
        return {{"state": "status"}.get(key, key): shape(part, key) for key, part in value.items() if key not in UNTOLD}
    if isinstance(value, list):
        return [shape(part) for part in value]
    return "time" if isinstance(value, str) and TIME.fullmatch(value) else value


async def published(server: Server, task: dict[str, Any]) -> None:
    """The model that a task names, whatever it is."""
    (key,) = task
    parameters = task[key][0]["parameters"]
    names = {"single_label": "tickets", "multi_label": "topics"}
    kind = "multi_label" if "Multi" in key else "single_label"
    digest = server.store.projects[names[kind]].deployments["production"]
    if "modelId" in parameters:
        await server.store.change(Change(PUBLISHED, parameters["modelId"], {"digest": digest, "project": "p"}))
    else:
        await server.store.deploy(parameters["project-name"], parameters["deployment-name"], kind, digest)


async def asked(server: Server, request: dict[str, Any], location: str) -> httpx.Response:
    path = JOB.sub(JOB.search(location)[0], request["path"]) if location else request["path"]  # type: ignore[index]
    headers = {name: value.replace("{key}", KEY) for name, value in request["headers"].items()}
    content = None if request["body"] is None else json.dumps(request["body"])
    query = f"?{request['query'].replace('$top=25', '$top=20')}" if request["query"] else ""
    return await server.client.request(request["method"], f"{path}{query}", content=content, headers=headers)


def test_there_are_exchanges_to_be_held_to() -> None:
    assert {file.partition("/")[0] for file in FILES} == {"v3.1-preview.ct.1", "v3.2-preview.2"}
    assert len(FILES) >= 9


@pytest.mark.parametrize("name", FILES)
async def test_a_documented_exchange_happens_so_here(serve: Serve, name: str) -> None:
    faults = [{"on": "submit", "job": "failed"}] if name.endswith("failed.json") else []
    submitted, *polls = json.loads((CONTRACT / name).read_text("utf-8"))["exchanges"]
    async with serve(faults=faults, works=False) as server:
        await published(server, submitted["request"]["body"]["tasks"])
        response = await asked(server, submitted["request"], "")
        location = response.headers["operation-location"]
        assert (response.status_code, response.content) == (submitted["response"]["status"], b"")
        documented = submitted["response"]["headers"]["operation-location"].replace("{host}", "server:8080")
        assert JOB.sub("", location) == JOB.sub("", documented)
        pending = [one for one in polls if one["response"]["body"]["status"] in {"notStarted", "running"}]
        first = (await asked(server, pending[0]["request"], location)).json()
        assert shape(first) == shape(pending[0]["response"]["body"])
        async with server.jobs.working():
            await server.idle()
            for exchange in polls[len(pending) :]:
                response = await asked(server, exchange["request"], location)
                found, documented = response.json(), exchange["response"]["body"]
                if found["status"] == "failed" and "tasks" not in documented["tasks"]:
                    found["tasks"].pop("tasks", None)  # as the later version does, a task that failed is told by itself
                assert response.status_code == exchange["response"]["status"]
                assert shape(found) == shape(documented)
