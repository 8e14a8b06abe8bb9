"""Whatever is sent to Azure Language's authoring and previews, they answer, never with 500, and keep what they have."""

import asyncio
import json
from collections.abc import Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.server import test_azure_language_2021 as of_2021
from tests.server import test_azure_language_authoring as authoring
from tests.server.conftest import BILLING, Serve, Server
from tests.server.test_azure_language_2021 import BRIDGE, FIRST, P
from tests.server.test_azure_language_authoring import BASE, PROJECT, ended, exported
from tests.server.test_fuzz import Asking, copied, headers, json_values, nearly

FAST = settings(max_examples=1600, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
GA = b"api-version=2023-04-01"
ANALYSIS = {"displayName": "n", "analysisInput": {"documents": [{"id": "1", "text": BILLING, "language": "en"}]}}
BODIES: list[tuple[str, str, bytes, Any]] = [
    ("PATCH", f"{BASE}/other", GA, {**PROJECT, "projectName": "other", "settings": {"confidenceThreshold": 0.7}}),
    ("POST", f"{BASE}/other/:import", GA, {**exported(), "metadata": {**PROJECT, "projectName": "other"}}),
    (
        "POST",
        f"{BASE}/p/:train",
        GA,
        {
            "modelLabel": "m2",
            "trainingConfigVersion": "2022-05-01",
            "evaluationOptions": {"kind": "percentage", "trainingSplitPercentage": 80, "testingSplitPercentage": 20},
        },
    ),
    (
        "POST",
        f"{BASE}/p/models/m1/:evaluate",
        GA,
        {"kind": "percentage", "trainingSplitPercentage": 80, "testingSplitPercentage": 20},
    ),
    ("PUT", f"{BASE}/p/deployments/d", GA, {"trainedModelLabel": "m1", "assignedResourceIds": ["x"]}),
    ("POST", f"{BASE}/p/deployments/:swap", GA, {"firstDeploymentName": "d", "secondDeploymentName": "d"}),
    ("POST", P, b"", {**of_2021.PROJECT, "name": "other"}),
    ("POST", f"{P}/MyProject/train", b"", {"tasks": [{"trainingModelName": "other"}]}),
    ("POST", f"{P}/MyProject/publish", b"", {"tasks": [{"trainingModelName": "MyModel"}]}),
    (
        "POST",
        f"{FIRST}/analyze",
        b"",
        {**ANALYSIS, "tasks": {"customMultiClassificationTasks": [{"parameters": {"modelId": "{model}"}}]}},
    ),
    ("POST", f"{BRIDGE}/analyze", b"", of_2021.bridge("customMultiClassificationTasks", "topics", BILLING)),
]
KEPT = ("", "/models/m1", "/models/m1/evaluation/summary-result", "/deployments/d")


@pytest.fixture
def asking(serve: Serve, tmp_path: Path) -> Iterator[Asking]:
    """A server with models of both eras, trained and deployed, that are still there and answer at the end.

    Their documents are gone, so that whatever is trained meanwhile fails at once.
    """
    folder = tmp_path / "container"
    authoring.labelled(folder)
    of_2021.labelled(folder)
    with asyncio.Runner() as runner:
        stack = AsyncExitStack()
        server = runner.run(stack.enter_async_context(serve(containers=[f"c={folder}", f"MyContainer={folder}"])))
        try:
            model_id = runner.run(made(server))
            for file in folder.glob("*.txt"):
                file.unlink()
            yield Asking(runner, server)
            runner.run(still_answers(server, model_id))
        finally:
            runner.run(stack.aclose())


async def made(server: Server) -> str:
    await authoring.trained(server)
    await ended(server, await authoring.ask(server, "PUT", "/p/deployments/d", {"trainedModelLabel": "m1"}))
    return await of_2021.published(server)


async def still_answers(server: Server, model_id: str) -> None:
    for part in KEPT:
        assert (await authoring.ask(server, "GET", f"/p{part}")).status_code == 200
    tasks = {"customMultiClassificationTasks": [{"parameters": {"modelId": model_id}}]}
    submitted = await server.client.post(f"{FIRST}/analyze", json={**ANALYSIS, "tasks": tasks})
    found = await of_2021.until(server, submitted.headers["operation-location"], {"notStarted", "inProgress"})
    assert found["status"] == "completed"


paths = (
    st.sampled_from([path for _, path, _, _ in BODIES])
    | st.sampled_from(
        [BASE, *(f"{BASE}/p{part}" for part in KEPT), f"{BASE}/global/languages", f"{BASE}/p/:export", f"{P}/MyProject"]
    )
    | st.tuples(
        st.sampled_from(
            [
                f"{BASE}/",
                f"{BASE}/p/",
                f"{BASE}/p/models/",
                f"{BASE}/p/deployments/",
                f"{BASE}/p/train/jobs/",
                f"{BASE}/p/import/jobs/",
                f"{BASE}/global/",
                f"{P}/",
                f"{P}/MyProject/train/jobs/",
                f"{P}/MyProject/publish/jobs/",
                f"{FIRST}/analyze/jobs/",
                f"{BRIDGE}/analyze/jobs/",
            ]
        ),
        st.text(st.characters(), max_size=20),
    ).map("".join)
)


@FAST
@given(
    method=st.sampled_from(["GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", ""]),
    path=paths,
    query=st.binary(max_size=20)
    | st.dictionaries(
        st.sampled_from(["top", "skip", "maxpagesize", "stringIndexType", "$top", "showStats", "trainingModelName"]),
        st.text(max_size=12) | st.integers(-2, 10**12).map(str),
        max_size=3,
    ).map(lambda query: urlencode({"api-version": "2023-04-01", **query}).encode()),
    body=st.binary(max_size=50),
    more=headers,
)
def test_any_request_is_answered(  # noqa: PLR0917  hypothesis gives them by name
    asking: Asking, method: str, path: str, query: bytes, body: bytes, more: list[tuple[bytes, bytes]]
) -> None:
    if method == "DELETE" and path.startswith((f"{BASE}/p", f"{P}/MyProject")):
        return
    assert asking.ask(method, path, query, body, more) < 500


@FAST
@given(
    asked=st.sampled_from(BODIES).flatmap(lambda one: st.tuples(st.just(one[:3]), nearly(copied(one[3])) | json_values))
)
def test_any_json_is_accepted_or_refused(asking: Asking, asked: tuple[tuple[str, str, bytes], Any]) -> None:
    (method, path, query), body = asked
    content = json.dumps(body).encode()  # as lenient as JSON can be: NaN, halves of surrogate pairs
    assert asking.ask(method, path, query, content, []) in {200, 201, 202, 400, 404, 409}
