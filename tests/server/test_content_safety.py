from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from service.server.content_safety import VERSIONS
from service.server.content_safety_categories import VERSION, Categories
from service.server.gateway import Refusal
from service.server.store import Change
from tests.server.conftest import KEY, Serve, Server
from tests.server.content_safety import BASE, FIRST, NOT_OF_IT, OF_IT, SECOND, asked, call, refusal

GA = "2024-09-01"
ZERO = [{"category": name, "severity": 0} for name in ("Hate", "SelfHarm", "Sexual", "Violence")]


async def analyzed(server: Server, body: Any, version: str = GA) -> Any:
    return await call(server, "POST", "/text:analyze", version, body)


@pytest.mark.parametrize("version", sorted(VERSIONS))
async def test_harm_without_a_model_is_0_in_every_version(server: Server, version: str) -> None:
    response = await analyzed(server, {"text": "I hate you all"}, version)
    assert response.status_code == 200
    assert response.json() == {"blocklistsMatch": [], "categoriesAnalysis": ZERO}


async def test_harm_is_answered_by_the_registered_models_in_four_levels_or_eight(
    serve: Serve, harm_models: Path
) -> None:
    async with serve(harm_models=[f"Hate={harm_models / 'drugs'}"]) as server:
        eight = (await analyzed(server, {"text": OF_IT, "outputType": "EightSeverityLevels"})).json()
        four = (await analyzed(server, {"text": OF_IT})).json()
        one = (await analyzed(server, {"text": NOT_OF_IT, "categories": ["Violence", "Hate", "Hate"]})).json()
    severities = {found["category"]: found["severity"] for found in eight["categoriesAnalysis"]}
    assert severities["Hate"] >= 4
    assert [severities[name] for name in ("SelfHarm", "Sexual", "Violence")] == [0, 0, 0]
    assert four["categoriesAnalysis"][0] == {"category": "Hate", "severity": severities["Hate"] // 2 * 2}
    assert one["categoriesAnalysis"] == [ZERO[0], ZERO[3]]


async def test_terms_of_the_named_blocklists_are_told(server: Server) -> None:
    ids = {}
    for name, texts in (("words", ["scalper", "tout"]), ("others", ["reseller"])):
        await call(server, "PATCH", f"/text/blocklists/{name}", GA, {})
        items = {"blocklistItems": [{"text": text} for text in texts]}
        response = await call(server, "POST", f"/text/blocklists/{name}:addOrUpdateBlocklistItems", GA, items)
        ids.update({item["text"]: item["blocklistItemId"] for item in response.json()["blocklistItems"]})

    def match(name: str, text: str) -> dict[str, str]:
        return {"blocklistName": name, "blocklistItemId": ids[text], "blocklistItemText": text}

    body = {"text": "Tout! Scalper! Reseller!", "blocklistNames": ["words", "words"]}
    found = (await analyzed(server, body)).json()
    assert found == {
        "blocklistsMatch": [match("words", "scalper"), match("words", "tout")],
        "categoriesAnalysis": ZERO,
    }
    halted = (await analyzed(server, {**body, "haltOnBlocklistHit": True})).json()
    assert halted == {**found, "categoriesAnalysis": []}
    other = (await analyzed(server, {**body, "blocklistNames": ["others", "words"]})).json()
    assert other["blocklistsMatch"][0] == match("others", "reseller")
    untouched = {"text": "Nobody", "blocklistNames": ["words"], "haltOnBlocklistHit": True}
    assert (await analyzed(server, untouched)).json() == {"blocklistsMatch": [], "categoriesAnalysis": ZERO}


@pytest.fixture
async def built(serve: Serve, harm_models: Path) -> AsyncIterator[Server]:
    """A server with a category whose model, learnt elsewhere, is put in place of a build."""
    async with serve() as server:
        await call(server, "PUT", "/text/categories/DrugAbuse", FIRST, asked())
        model = server.backend.models.add(harm_models / "drugs").digest
        version = server.store.resource(VERSION, "DrugAbuse/1")
        outcome = {"model": model, "error": None, "triggered": server.clock(), "ready": server.clock()}
        await server.store.change(
            Change(VERSION, "DrugAbuse/1", {**(version or {}), "models": [model], "outcome": outcome})
        )
        yield server


async def test_a_custom_category_is_detected_or_not(built: Server) -> None:
    for text, detected in ((OF_IT, True), (NOT_OF_IT, False)):
        for one in ({"categoryName": "DrugAbuse", "version": 1}, {"categoryName": "DrugAbuse"}):
            response = await analyzed(built, {"text": text, "customizedCategories": [one]}, FIRST)
            assert response.json() == {
                "blocklistsMatch": [],
                "categoriesAnalysis": ZERO,
                "textCustomizedCategoriesAnalysis": [{"categoryName": "DrugAbuse", "detected": detected}],
            }
        body = {"text": text, "categoryName": "DrugAbuse"}
        for asked_for in (body, {**body, "version": 1}):
            response = await call(built, "POST", "/text:analyzeCustomCategory", SECOND, asked_for)
            assert response.json() == {"customCategoryAnalysis": {"detected": detected}}


async def test_custom_categories_are_a_part_of_an_analysis_in_one_version_only(built: Server) -> None:
    body = {"text": OF_IT, "customizedCategories": [{"categoryName": "DrugAbuse"}]}
    assert "textCustomizedCategoriesAnalysis" not in (await analyzed(built, body)).json()
    response = await call(built, "POST", "/text:analyzeCustomCategory", FIRST, body)
    assert refusal(response) == (400, "InvalidRequestBody")
    response = await analyzed(built, {**body, "customizedCategories": []}, FIRST)
    assert response.json()["textCustomizedCategoriesAnalysis"] == []


async def test_a_halt_stops_custom_categories_too(built: Server) -> None:
    await call(built, "PATCH", "/text/blocklists/words", FIRST, {})
    items = {"blocklistItems": [{"text": "pills"}]}
    await call(built, "POST", "/text/blocklists/words:addOrUpdateBlocklistItems", FIRST, items)
    body = {
        "text": OF_IT,
        "customizedCategories": [{"categoryName": "DrugAbuse"}],
        "blocklistNames": ["words"],
        "haltOnBlocklistHit": True,
    }
    found = (await analyzed(built, body, FIRST)).json()
    assert (found["categoriesAnalysis"], found["textCustomizedCategoriesAnalysis"]) == ([], [])


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({}, (400, "InvalidRequestBody")),
        ({"text": ""}, (400, "InvalidRequestBody")),
        ({"text": 7}, (400, "InvalidRequestBody")),
        ({"text": "x" * 10_001}, (400, "InvalidRequestBody")),
        ({"text": "🙂" * 10_001}, (400, "InvalidRequestBody")),
        ([], (400, "InvalidRequestBody")),
        ({"text": "x", "categories": ["Rudeness"]}, (400, "InvalidRequestBody")),
        ({"text": "x", "categories": "Hate"}, (400, "InvalidRequestBody")),
        ({"text": "x", "categories": [["Hate"]]}, (400, "InvalidRequestBody")),
        ({"text": "x", "outputType": "TenSeverityLevels"}, (400, "InvalidRequestBody")),
        ({"text": "x", "outputType": ["FourSeverityLevels"]}, (400, "InvalidRequestBody")),
        ({"text": "x", "haltOnBlocklistHit": "true"}, (400, "InvalidRequestBody")),
        ({"text": "x", "blocklistNames": ["unknown"]}, (404, "ResourceNotFound")),
        ({"text": "x", "blocklistNames": [{}]}, (400, "InvalidRequestBody")),
        ({"text": "x", "customizedCategories": [{"categoryName": "Unknown"}]}, (404, "ResourceNotFound")),
        ({"text": "x", "customizedCategories": [{}]}, (404, "ResourceNotFound")),
        ({"text": "x", "customizedCategories": ["Unknown"]}, (400, "InvalidRequestBody")),
        (
            {"text": "x", "customizedCategories": [{"categoryName": "DrugAbuse", "version": 9}]},
            (404, "ResourceNotFound"),
        ),
        (
            {"text": "x", "customizedCategories": [{"categoryName": "DrugAbuse", "version": "1"}]},
            (400, "InvalidRequestBody"),
        ),
        ({"text": "x", "customizedCategories": [{"categoryName": "DrugAbuse"}]}, (400, "InvalidRequestBody")),
        ({"text": "x" * 1_001, "customizedCategories": [{"categoryName": "DrugAbuse"}]}, (400, "InvalidRequestBody")),
    ],
)
async def test_what_cannot_be_analyzed_is_refused(server: Server, body: Any, expected: tuple[int, str]) -> None:
    assert (await call(server, "PUT", "/text/categories/DrugAbuse", FIRST, asked())).status_code == 201
    assert refusal(await analyzed(server, body, FIRST)) == expected


async def test_lengths_are_counted_in_code_points(server: Server) -> None:
    assert (await analyzed(server, {"text": "🙂" * 10_000})).status_code == 200
    response = await call(server, "POST", "/text:analyzeCustomCategory", SECOND, {"text": "🙂" * 1_001})
    assert refusal(response) == (400, "InvalidRequestBody")


@pytest.mark.parametrize("version", ["", "2023-04-30-preview", "2022-01-01"])
async def test_other_versions_are_refused(server: Server, version: str) -> None:
    assert refusal(await analyzed(server, {"text": "x"}, version)) == (400, "InvalidRequestBody")


async def test_what_the_gateway_refuses_has_its_code_in_the_header(serve: Serve) -> None:
    faults = [
        {"on": "classify", "api": "content_safety", "status": 429, "retry_after": 3, "times": 1},
        {"on": "classify", "status": 503, "retry_after": 2, "times": 1},
        {"on": "classify", "status": 500, "times": 1},
    ]
    async with serve(faults=faults) as server:
        response = await analyzed(server, {"text": "x"})
        assert (refusal(response), response.headers["Retry-After"]) == ((429, "TooManyRequests"), "3")
        assert refusal(await analyzed(server, {"text": "x"})) == (503, "ServerBusy")
        assert refusal(await analyzed(server, {"text": "x"})) == (500, "InternalError")
        assert (await analyzed(server, {"text": "x"})).status_code == 200
        wrong = {"Ocp-Apim-Subscription-Key": "wrong"}
        assert refusal(await server.client.post(f"{BASE}/text:analyze", headers=wrong)) == (401, "401")
        bearer = httpx.AsyncClient(transport=httpx.ASGITransport(server.app), base_url="http://server")
        response = await bearer.post(
            f"{BASE}/text:analyze",
            params={"api-version": GA},
            headers={"Authorization": f"Bearer {KEY}"},
            json={"text": "x"},
        )
        assert response.status_code == 200
        assert refusal(await server.client.get(f"{BASE}/text:analyze")) == (405, "405")
        response = await server.client.post(
            f"{BASE}/text:analyze", params={"api-version": GA}, content=b'{"text": "' + b"x" * 1_048_576
        )
        assert refusal(response) == (413, "413")
        for content in (b"", b"{", b'{"text": "\\ud800"}', b'{"text": "\xff"}'):
            response = await server.client.post(f"{BASE}/text:analyze", params={"api-version": GA}, content=content)
            assert refusal(response) == (400, "InvalidRequestBody")


async def test_documented_rates_throttle_where_they_are_kept(serve: Serve) -> None:
    async with serve(documented_rates=True) as server:
        categories = Categories(server.backend, server.jobs)

        def crowd() -> None:
            for _ in range(11):  # more than two windows could hold
                categories.admit()

        with pytest.raises(Refusal) as caught:
            crowd()
        assert (caught.value.status, caught.value.headers["Retry-After"]) == (429, "1")
        responses = [await analyzed(server, {"text": "x"}) for _ in range(1_001)]
        throttled = next(response for response in responses if response.status_code == 429)
        assert refusal(throttled) == (429, "TooManyRequests")
        assert 1 <= int(throttled.headers["Retry-After"]) <= 10


async def test_a_model_that_is_gone_is_an_error_of_the_server_and_tells_nothing(built: Server) -> None:
    (model,) = [one["models"][0] for one in built.store.resources(VERSION).values()]
    built.backend.models.remove(model)
    body = {"text": OF_IT, "customizedCategories": [{"categoryName": "DrugAbuse"}]}
    response = await analyzed(built, body, FIRST)
    assert refusal(response) == (500, "InternalError")
    assert "DrugAbuse" not in response.text


async def test_what_is_classified_is_counted_by_category(built: Server) -> None:
    body = {"text": OF_IT, "customizedCategories": [{"categoryName": "DrugAbuse"}]}
    await analyzed(built, body, FIRST)
    await call(built, "POST", "/text:analyzeCustomCategory", SECOND, {"text": OF_IT, "categoryName": "DrugAbuse"})
    page = built.telemetry.page().decode()
    assert 'labelstream_server_documents_classified_total{project="DrugAbuse"} 2.0' in page
    assert 'requests_total{api="content_safety",operation="classify",status="200"} 2.0' in page
