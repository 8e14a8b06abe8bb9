import asyncio
import re
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from service.model.classifier import FILE_NAME
from tests.server.conftest import Serve, Server
from tests.server.content_safety import (
    BASE,
    BLOB,
    FIRST,
    NEGATIVES,
    OF_IT,
    POSITIVES,
    SECOND,
    asked,
    call,
    container,
    jsonl,
    made,
    refusal,
    shown,
)

TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")
TIMES = {"createdTime", "lastBuildTriggeredTime"}
CATEGORY = "/text/categories/DrugAbuse"
MIXED = sorted([*POSITIVES, *NEGATIVES], key=lambda text: sha256(text.encode()).digest())


def timeless(value: Any) -> Any:
    """What is told of a version, with the times looked at and left out."""
    if not isinstance(value, dict):
        return value
    assert all(TIME.fullmatch(value[name]) for name in TIMES & value.keys())
    return {name: timeless(part) for name, part in value.items() if name not in TIMES}


async def detected(server: Server, text: str = OF_IT, **one: Any) -> Any:
    body = {"text": text, "customizedCategories": [{"categoryName": "DrugAbuse", **one}]}
    return await call(server, "POST", "/text:analyze", FIRST, body)


@pytest.fixture
def samples(tmp_path: Path) -> str:
    return container(tmp_path / "samples")


async def test_a_version_is_not_begun_building_and_built(serve: Serve, samples: str) -> None:
    async with serve(containers=[samples], works=False) as server:
        response = await call(server, "PUT", CATEGORY, FIRST, asked(blobDelimiter="/"))
        version = {
            "categoryName": "DrugAbuse",
            "definition": "All about DrugAbuse.",
            "sampleBlobUrl": BLOB,
            "sampleBlobCopyUrl": BLOB,
            "version": 1,
            "status": "BuildNotStarted",
        }
        assert (response.status_code, timeless(response.json())) == (201, version)
        assert timeless(await shown(server)) == version
        response = await call(server, "POST", f"{CATEGORY}:build", FIRST, version=1)
        assert (response.status_code, response.content) == (202, b"")
        assert "operation-location" not in response.headers
        building = {**version, "status": "Building", "buildInfo": {}}
        assert timeless(await shown(server)) == building
        assert refusal(await detected(server)) == (400, "InvalidRequestBody")
        response = await call(server, "POST", f"{CATEGORY}:build", FIRST, version=1)
        assert (refusal(response), response.headers["Retry-After"]) == ((429, "TooManyRequests"), "5")
        async with server.jobs.working():
            await server.idle()
        assert timeless(await shown(server)) == {**building, "status": "BuildSucceeded"}
        assert (await detected(server)).json()["textCustomizedCategoriesAnalysis"][0]["detected"] is True


async def test_the_later_version_follows_a_build_by_its_operation(serve: Serve, samples: str) -> None:
    async with serve(containers=[samples], works=False) as server:
        response = await call(server, "PUT", CATEGORY, SECOND, asked())
        version = {
            "categoryName": "DrugAbuse",
            "definition": "All about DrugAbuse.",
            "sampleBlobUrl": BLOB,
            "sampleBlobSnapshotUrl": BLOB,
            "version": 1,
            "status": "NotStarted",
        }
        assert (response.status_code, timeless(response.json())) == (201, version)
        response = await call(server, "POST", f"{CATEGORY}:build", SECOND, version=1)
        operation = response.json()
        assert (response.status_code, operation) == (202, {"id": operation["id"], "status": "NotStarted"})
        location = response.headers["Operation-Location"]
        path = f"{BASE}/text/categories/operations/{operation['id']}"
        assert location == f"http://server:8080{path}?api-version={SECOND}"
        assert (await server.client.get(location)).json()["status"] == "NotStarted"
        assert (await shown(server, api=SECOND))["status"] == "Running"
        async with server.jobs.working():
            await server.idle()
        assert (await server.client.get(location)).json() == {"id": operation["id"], "status": "Succeeded"}
        assert timeless(await shown(server, api=SECOND)) == {**version, "status": "Succeeded"}
        response = await call(server, "DELETE", CATEGORY, SECOND)
        assert (response.status_code, response.content) == (204, b"")


async def test_positives_and_negatives_are_learnt_from(serve: Serve, tmp_path: Path) -> None:
    samples = container(tmp_path / "samples", jsonl(POSITIVES, NEGATIVES))
    async with serve(containers=[samples]) as server:
        assert (await made(server))["status"] == "BuildSucceeded"
        for text, expected in ((POSITIVES[3], True), (NEGATIVES[3], False)):
            found = (await detected(server, text)).json()["textCustomizedCategoriesAnalysis"]
            assert found[0]["detected"] is expected


@pytest.mark.parametrize(
    ("content", "code", "reason"),
    [
        (jsonl(POSITIVES[:20]), "InvalidRequestBody", "20 positive samples; give 50 to 5,000."),
        (jsonl(POSITIVES[::2] + POSITIVES[1::2], [POSITIVES[0]]), "InvalidRequestBody", "Line 61 repeats"),
        (jsonl(MIXED[:60], MIXED[60:]), "InvalidRequestBody", "the category cannot be told from the negatives"),
        (b"x" * 128_001, "InvalidRequestBody", "The sample file is larger than 128,000 bytes."),
        (None, "ResourceNotFound", "The samples cannot be read: there is no blob 'drugsample.jsonl'"),
    ],
)
async def test_what_cannot_be_learnt_fails_the_build_with_the_reason(
    serve: Serve, tmp_path: Path, content: bytes | None, code: str, reason: str
) -> None:
    samples = container(tmp_path / "samples", content or b"")
    if content is None:
        (tmp_path / "samples" / "drugsample.jsonl").unlink()
    async with serve(containers=[samples]) as server:
        told = await made(server)
        assert told["status"] == "BuildFailed"
        error = told["buildInfo"]["buildError"]["error"]
        assert (error["code"], error["details"]) == (code, [])
        assert reason in error["message"]
        (listed,) = (await call(server, "GET", "/text/categories")).json()["value"]
        assert listed["buildInfo"]["buildError"]["error"] == {**error, "errorCode": code}
        later = await shown(server, api=SECOND)
        assert (later["status"], later["errorMessage"]) == ("Failed", error["message"])
        assert refusal(await detected(server)) == (400, "InvalidRequestBody")
        response = await call(server, "POST", f"{CATEGORY}:build", SECOND, version=1)
        await server.idle()
        operation = (await server.client.get(response.headers["Operation-Location"])).json()
        assert (operation["status"], operation["error"]) == ("Failed", error)


async def test_only_containers_that_the_operator_named_are_read(serve: Serve) -> None:
    async with serve() as server:
        error = (await made(server))["buildInfo"]["buildError"]["error"]
    assert error["code"] == "ResourceNotFound"
    assert "there is no container 'example-container'" in error["message"]


async def test_without_a_version_the_newest_that_is_built_answers(serve: Serve, tmp_path: Path) -> None:
    samples = container(tmp_path / "samples")
    async with serve(containers=[samples]) as server:
        await made(server)
        response = await call(server, "PUT", CATEGORY, FIRST, asked(definition="Better."))
        assert (response.status_code, response.json()["version"]) == (200, 2)
        assert (await detected(server)).status_code == 200
        assert refusal(await detected(server, version=2)) == (400, "InvalidRequestBody")
        container(tmp_path / "samples", jsonl(NEGATIVES))
        await call(server, "POST", f"{CATEGORY}:build", FIRST, version=2)
        await server.idle()
        for version, expected in ((None, False), (1, True), (2, False)):
            found = (await detected(server, version=version)).json()["textCustomizedCategoriesAnalysis"]
            assert found[0]["detected"] is expected
        assert (await shown(server))["version"] == 2
        assert (await shown(server))["definition"] == "Better."
        assert (await shown(server, version=1))["definition"] == "All about DrugAbuse."


async def test_the_list_tells_the_newest_version_of_each_category(serve: Serve) -> None:
    async with serve() as server:
        for name in ("A", "B", "A", "C"):
            await call(server, "PUT", f"/text/categories/{name}", FIRST, asked(name))
        body = (await call(server, "GET", "/text/categories", maxpagesize=2)).json()
        assert [(one["categoryName"], one["version"]) for one in body["value"]] == [("A", 2), ("B", 1)]
        body = (await server.client.get(body["nextLink"])).json()
        assert [one["categoryName"] for one in body["value"]] == ["C"]
        assert "nextLink" not in body


async def test_there_are_so_many_categories_and_versions_and_no_more(serve: Serve) -> None:
    async with serve() as server:
        for expected in (201, 200, 200):
            response = await call(server, "PUT", CATEGORY, FIRST, asked())
            assert response.status_code == expected
        assert refusal(await call(server, "PUT", CATEGORY, FIRST, asked())) == (400, "InvalidRequestBody")
        for name in ("B", "C"):
            assert (await call(server, "PUT", f"/text/categories/{name}", FIRST, asked(name))).status_code == 201
        response = await call(server, "PUT", "/text/categories/D", FIRST, asked("D"))
        assert refusal(response) == (400, "InvalidRequestBody")
        await call(server, "DELETE", CATEGORY, FIRST, version=3)
        response = await call(server, "PUT", CATEGORY, FIRST, asked())
        assert (response.status_code, response.json()["version"]) == (200, 4)


async def test_versions_made_at_once_have_numbers_of_their_own(server: Server) -> None:
    responses = await asyncio.gather(*(call(server, "PUT", CATEGORY, FIRST, asked()) for _ in range(5)))
    assert sorted(response.json()["version"] for response in responses if response.status_code < 300) == [1, 2, 3]
    assert [response.status_code for response in responses].count(400) == 2


async def test_what_is_deleted_is_gone_with_its_models(serve: Serve, samples: str, tmp_path: Path) -> None:
    async with serve(containers=[samples]) as server:
        await made(server)
        (version,) = server.store.resources("content_safety_category_version").values()
        file = tmp_path / "data" / "models" / version["models"][0] / FILE_NAME
        await made(server)  # the same samples and so the same model
        assert file.exists()
        response = await call(server, "DELETE", CATEGORY, FIRST, version=1)
        deletion = response.json()
        assert (response.status_code, deletion["status"]) == (202, "NotStarted")
        await server.idle()
        assert file.exists()
        assert (await server.client.get(response.headers["Operation-Location"])).json() == {
            "id": deletion["id"],
            "status": "Succeeded",
        }
        assert refusal(await call(server, "GET", CATEGORY, version=1)) == (404, "ResourceNotFound")
        assert refusal(await detected(server, version=1)) == (404, "ResourceNotFound")
        assert (await detected(server)).status_code == 200
        await call(server, "DELETE", CATEGORY, SECOND)
        await server.idle()
        assert not file.parent.exists()
        assert refusal(await call(server, "GET", CATEGORY)) == (404, "ResourceNotFound")
        assert (await call(server, "GET", "/text/categories")).json() == {"value": []}
        assert refusal(await detected(server)) == (404, "ResourceNotFound")
        assert (await call(server, "PUT", CATEGORY, FIRST, asked())).json()["version"] == 1


async def test_a_version_is_being_deleted_until_its_model_is_gone(serve: Serve, samples: str) -> None:
    async with serve(containers=[samples], works=False) as server:
        await call(server, "PUT", CATEGORY, FIRST, asked())
        await call(server, "PUT", CATEGORY, FIRST, asked())
        await call(server, "DELETE", CATEGORY, FIRST, version=1)
    async with serve(containers=[samples], works=False) as server:
        going = await shown(server, version=1)
        assert (going["version"], going["status"]) == (1, "Deleting")
        assert TIME.fullmatch(going["deleteInfo"]["deleteTriggeredTime"])
        assert refusal(await call(server, "GET", CATEGORY, SECOND, version=1)) == (404, "ResourceNotFound")
        assert refusal(await detected(server, version=1)) == (404, "ResourceNotFound")
        assert ((await shown(server))["version"], (await shown(server))["status"]) == (2, "BuildNotStarted")
        await call(server, "DELETE", CATEGORY, FIRST)
        assert ((await shown(server))["version"], (await shown(server))["status"]) == (2, "Deleting")
        async with server.jobs.working():
            await server.idle()
        assert refusal(await call(server, "GET", CATEGORY, FIRST)) == (404, "ResourceNotFound")


async def test_what_is_deleted_while_it_is_built_does_not_come_back(serve: Serve, samples: str) -> None:
    async with serve(containers=[samples], works=False) as server:
        await call(server, "PUT", CATEGORY, FIRST, asked())
        build = await call(server, "POST", f"{CATEGORY}:build", SECOND, version=1)
        await call(server, "DELETE", CATEGORY, SECOND)
        assert refusal(await call(server, "GET", CATEGORY, SECOND)) == (404, "ResourceNotFound")
        await call(server, "PUT", CATEGORY, FIRST, asked())
        async with server.jobs.working():
            await server.idle()
        assert (await shown(server))["status"] == "BuildNotStarted"
        assert (await server.client.get(build.headers["Operation-Location"])).json()["status"] == "Canceled"


async def test_categories_survive_a_restart_and_a_build_under_way_is_done_again(serve: Serve, samples: str) -> None:
    async with serve(containers=[samples]) as server:
        told = await made(server)
        second = await call(server, "PUT", CATEGORY, FIRST, asked())
        assert second.json()["version"] == 2
    async with serve(containers=[samples], works=False) as server:
        build = await call(server, "POST", f"{CATEGORY}:build", SECOND, version=2)
        assert (await shown(server))["status"] == "Building"
    async with serve(containers=[samples], works=False) as server:
        assert (await shown(server))["status"] == "Building"
        async with server.jobs.working():
            await server.idle()
        assert (await shown(server))["status"] == "BuildSucceeded"
        assert (await server.client.get(build.headers["Operation-Location"])).json()["status"] == "Succeeded"
        assert await shown(server, version=1) == told
        for version in (1, 2):
            found = (await detected(server, version=version)).json()["textCustomizedCategoriesAnalysis"]
            assert found[0]["detected"] is True


async def test_a_build_takes_as_long_as_the_operator_says(serve: Serve, samples: str) -> None:
    async with serve(containers=[samples], least_seconds=60.0) as server:
        told = await made(server)
        assert told["status"] == "Building"
        assert refusal(await detected(server)) == (400, "InvalidRequestBody")
        server.clock.now += 61
        assert (await shown(server))["status"] == "BuildSucceeded"
        assert (await detected(server)).status_code == 200


async def test_a_signature_of_the_blob_is_not_kept(server: Server) -> None:
    signed = BLOB.replace("https://", "https://user:secret@") + "?sv=2024&sig=secret"
    response = await call(server, "PUT", CATEGORY, FIRST, asked(sampleBlobUrl=signed))
    assert response.json()["sampleBlobUrl"] == BLOB
    assert "secret" not in str(dict(server.store.resources("content_safety_category_version")))


@pytest.mark.parametrize(
    ("method", "path", "body", "query", "expected"),
    [
        ("PUT", "/text/categories/no%20spaces", asked(), {}, (400, "InvalidResourceName")),
        ("PUT", f"/text/categories/{'n' * 129}", asked(), {}, (400, "InvalidResourceName")),
        ("PUT", CATEGORY, asked("Other"), {}, (400, "InvalidRequestBody")),
        ("PUT", CATEGORY, {**asked(), "categoryName": None}, {}, (400, "InvalidRequestBody")),
        ("PUT", CATEGORY, asked(definition=""), {}, (400, "InvalidRequestBody")),
        ("PUT", CATEGORY, asked(definition="d" * 1_001), {}, (400, "InvalidRequestBody")),
        ("PUT", CATEGORY, asked(sampleBlobUrl=None), {}, (400, "InvalidRequestBody")),
        ("PUT", CATEGORY, asked(sampleBlobUrl=f"{BLOB}?{'x' * 500}"), {}, (400, "InvalidRequestBody")),
        ("PUT", CATEGORY, asked(sampleBlobUrl="file:///etc/passwd.jsonl"), {}, (400, "InvalidRequestBody")),
        ("PUT", CATEGORY, asked(sampleBlobUrl="https://a/container/x.csv"), {}, (400, "InvalidRequestBody")),
        ("PUT", CATEGORY, asked(sampleBlobUrl="https://a/x.jsonl"), {}, (400, "InvalidRequestBody")),
        ("PUT", CATEGORY, asked(sampleBlobUrl="https://[/c/x.jsonl"), {}, (400, "InvalidRequestBody")),
        ("PUT", CATEGORY, asked(blobDelimiter=1), {}, (400, "InvalidRequestBody")),
        ("GET", "/text/categories/Unknown", None, {}, (404, "ResourceNotFound")),
        ("GET", CATEGORY, None, {"version": "2"}, (404, "ResourceNotFound")),
        ("GET", CATEGORY, None, {"version": "one"}, (400, "InvalidRequestBody")),
        ("DELETE", "/text/categories/Unknown", None, {}, (404, "ResourceNotFound")),
        ("DELETE", CATEGORY, None, {"version": "2"}, (404, "ResourceNotFound")),
        ("POST", f"{CATEGORY}:build", None, {}, (400, "InvalidRequestBody")),
        ("POST", f"{CATEGORY}:build", None, {"version": "2"}, (404, "ResourceNotFound")),
        ("POST", "/text/categories/Unknown:build", None, {"version": "1"}, (404, "ResourceNotFound")),
        ("POST", CATEGORY, None, {}, (405, "405")),
        ("GET", "/text/categories/operations/nothing", None, {}, (404, "ResourceNotFound")),
        ("GET", f"/text/categories/operations/{'0' * 36}", None, {}, (404, "ResourceNotFound")),
        ("GET", "/text/categories", None, {"top": "x"}, (400, "InvalidRequestBody")),
        ("GET", "/text/categories", None, {"api-version": "2024-09-01"}, (400, "InvalidRequestBody")),
    ],
)
async def test_what_cannot_be_is_refused(  # noqa: PLR0917  the parameters of a table
    server: Server, method: str, path: str, body: Any, query: dict[str, str], expected: tuple[int, str]
) -> None:
    await call(server, "PUT", CATEGORY, FIRST, asked())
    response = await server.client.request(method, f"{BASE}{path}", params={"api-version": FIRST, **query}, json=body)
    assert refusal(response) == expected
    assert (await shown(server))["version"] == 1


async def test_operations_are_counted_by_what_they_do(serve: Serve, samples: str) -> None:
    async with serve(containers=[samples], works=False) as server:
        for method, path, name, query in (
            ("PUT", CATEGORY, "manage", {}),
            ("POST", f"{CATEGORY}:build", "train", {"version": 1}),
            ("GET", CATEGORY, "poll", {}),
            ("GET", "/text/categories/operations/x", "poll", {}),
            ("GET", "/text/categories", "manage", {}),
            ("DELETE", CATEGORY, "manage", {}),
        ):
            body = asked() if method == "PUT" else None
            status = str((await call(server, method, path, FIRST, body, **query)).status_code)
            labels = {"api": "content_safety", "operation": name, "status": status}
            total = server.telemetry.registry.get_sample_value("labelstream_server_requests_total", labels)
            assert total, (method, path, name, status)
        assert "submit" not in server.telemetry.page().decode()
