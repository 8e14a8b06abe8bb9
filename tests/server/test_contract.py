"""The server against documented exchanges: what is alike whatever the model, ids and times, has to be equal."""

import json
import re
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.server.conftest import KEY, Serve, Server

CONTRACT = Path(__file__).parents[1] / "contract" / "azure_language"
FILES = sorted(str(file.relative_to(CONTRACT)) for file in CONTRACT.glob("20*/*.json"))
JOB = re.compile(r"http://[^/\"]+/language/analyze-text/jobs/[0-9a-f-]{36}")
UNNAMED = {"jobId": str, "message": str, "category": str, "confidenceScore": float}
FAULTS = {403, 408, 429, 500, 503}

# What of a submission has to be changed for it to be refused with this status and inner code
SPOILT: dict[tuple[int, str | None], dict[str, Any]] = {
    (404, None): {"tasks": [{"parameters": {"projectName": "unknown", "deploymentName": "production"}}]},
    (400, "InvalidDocumentBatch"): {"documents": 26},
    (400, "InvalidParameterValue"): {"tasks": [{"kind": "CustomMultiLabelClassification"}]},
}


def exchanges(name: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((CONTRACT / name).read_text())["exchanges"]
    return found


def alike(value: Any, name: str = "") -> Any:
    """A response body with what may differ made the same: ids, times, messages, classes and scores, optional parts."""
    if name in UNNAMED:
        return isinstance(value, UNNAMED[name])
    if name.endswith("DateTime"):
        return re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z", value) is not None
    if name == "nextLink":
        return JOB.sub("job", value)
    if name == "class":
        return all(alike(one) == {"category": True, "confidenceScore": True} for one in value)
    if isinstance(value, dict):
        return {key: alike(part, key) for key, part in value.items() if key != "warnings"}
    return [alike(part) for part in value] if isinstance(value, list) else value


def test_there_are_exchanges_to_be_held_to() -> None:
    assert len(FILES) >= 9


async def deployed(server: Server) -> Server:
    """Under the names of the documents."""
    topics = server.store.projects["topics"].deployments["production"]
    for project in ("movie-classifier", "movies"):
        await server.store.deploy(project, "test-release", "multi_label", topics)
    return server


async def asked(server: Server, request: dict[str, Any], location: str) -> httpx.Response:
    path = request["path"]
    if location:
        path = re.sub(r"/jobs/[0-9a-f-]{36}", f"/jobs/{httpx.URL(location).path.rpartition('/')[2]}", path)
    headers = {name: value.replace("{key}", KEY) for name, value in request["headers"].items()}
    content = None if request["body"] is None else json.dumps(request["body"])
    url = f"{path}?{request['query']}"
    return await server.client.request(request["method"], url, content=content, headers=headers)


@pytest.mark.parametrize("name", [name for name in FILES if not name.endswith("refusals.json")])
async def test_a_documented_exchange_happens_so_here(serve: Serve, name: str) -> None:
    fault = {"failed.json": [{"on": "submit", "job": "failed"}]}.get(Path(name).name, [])
    cancelled, paged = name.endswith("cancelled.json"), name.endswith("paged.json")
    location = ""
    async with serve(faults=fault, works=not cancelled) as server:
        await deployed(server)
        for exchange in exchanges(name):
            request, expected = exchange["request"], exchange["response"]
            if request["path"].endswith("/jobs"):
                response = await asked(server, request, "")
                location = response.headers["operation-location"]
                if not cancelled:
                    await server.idle()
            else:
                if paged and "top=" not in request["query"]:
                    request["query"] += "&top=1"
                response = await asked(server, request, location)
            assert response.status_code == expected["status"]
            for header, value in expected["headers"].items():
                assert JOB.sub("job", response.headers[header]) == JOB.sub("job", value.replace("{host}", "h"))
            if expected["body"] is None:
                assert response.content == b""
            elif expected["body"].get("status") not in {"notStarted", "running", "cancelling"}:  # may be skipped
                assert alike(response.json()) == alike(expected["body"])


async def test_documented_pending_jobs_look_so_here(serve: Serve) -> None:
    pending = {"notStarted", "running"}
    async with serve(works=False) as server:
        await deployed(server)
        seen = 0
        for name in FILES:
            for exchange in exchanges(name):
                request, expected = exchange["request"], exchange["response"]["body"]
                if request["path"].endswith("/jobs") and exchange["response"]["status"] == 202:
                    location = (await asked(server, request, "")).headers["operation-location"]
                elif expected and expected.get("status") in pending:
                    shown = (await asked(server, request, location)).json()
                    assert shown["status"] in pending
                    assert alike({**shown, "status": expected["status"]}) == alike(expected)
                    seen += 1
        assert seen >= 4


@pytest.mark.parametrize("number", range(9))
async def test_a_documented_refusal_is_given_so_here(serve: Serve, number: int) -> None:
    exchange = exchanges("2023-04-01/refusals.json")[number]
    request, expected = exchange["request"], exchange["response"]
    status, error = expected["status"], expected["body"]["error"]
    rules = []
    if status in FAULTS:
        rules = [
            {"on": "submit", "status": status, "retry_after": int(expected["headers"].get("Retry-After", 0)) or None}
        ]
    elif status == 401:
        request["headers"]["Ocp-Apim-Subscription-Key"] = "wrong"
    else:
        change = SPOILT[status, error.get("innererror", {}).get("code")]
        for task in change.get("tasks", []):
            request["body"]["tasks"][0].update(task)
        document = request["body"]["analysisInput"]["documents"][0]
        copies = [{**document, "id": str(n)} for n in range(change.get("documents", 1))]
        request["body"]["analysisInput"]["documents"] = copies
    async with serve(faults=rules) as server:
        response = await asked(server, request, "")
    assert response.status_code == status
    assert response.headers.get("Retry-After") == expected["headers"].get("Retry-After")
    assert alike(response.json()) == alike(expected["body"])
