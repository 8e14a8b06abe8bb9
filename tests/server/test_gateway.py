import math
from itertools import accumulate
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from service.server.faults import Faults
from service.server.gateway import Gateway, Window
from service.server.telemetry import Telemetry
from tests.server.conftest import BILLING, JOBS, KEY, VERSION, Serve, Server, submission

UNREADABLE = b"{ this is not JSON"


def gateway(*keys: str, public_url: str | None = None) -> Gateway:
    return Gateway([key.encode() for key in keys], Faults(), Telemetry(), public_url=public_url)


@pytest.mark.parametrize("key", [None, "", "wrong", KEY[:-1], KEY + "x", KEY.upper(), "\u00e9"])
async def test_without_a_known_key_nothing_is_answered_and_no_body_read(server: Server, key: str | None) -> None:
    headers = {} if key is None else {b"Ocp-Apim-Subscription-Key": key.encode()}
    del server.client.headers["Ocp-Apim-Subscription-Key"]
    for method, path in (
        ("POST", f"{JOBS}?api-version={VERSION}"),
        ("POST", JOBS),
        ("GET", f"{JOBS}/unknown"),
        ("GET", "/nowhere"),
        ("DELETE", JOBS),
        ("GET", "/_faults"),
    ):
        body = UNREADABLE if method == "POST" else None
        response = await server.client.request(method, path, content=body, headers=headers)
        assert response.status_code == 401
        assert response.json()["error"]["code"] == "401"


async def test_a_key_may_come_as_a_bearer_token(server: Server) -> None:
    del server.client.headers["Ocp-Apim-Subscription-Key"]
    for authorization, status in ((f"Bearer {KEY}", 405), ("Bearer wrong", 401), (f"Basic {KEY}", 401), (KEY, 401)):
        response = await server.client.get(JOBS, headers={"Authorization": authorization})
        assert response.status_code == status, authorization


async def test_each_of_several_keys_is_known(serve: Serve) -> None:
    async with serve(keys=("first", "second")) as server:
        for key, status in (("first", 400), ("second", 400), ("third", 401)):
            response = await server.client.post(JOBS, headers={"Ocp-Apim-Subscription-Key": key})
            assert response.status_code == status


async def test_with_no_keys_none_is_asked_for(serve: Serve) -> None:
    async with serve(keys=()) as server:
        del server.client.headers["Ocp-Apim-Subscription-Key"]
        assert (await server.client.get("/nowhere")).status_code == 404


async def test_a_path_that_no_api_has_is_not_found_in_the_gateways_words(server: Server) -> None:
    for path in ("/", "/language", f"{JOBS}/", f"{JOBS}/1/2", "/language/:analyze-text", "//", "/live"):
        response = await server.client.get(path)
        assert response.status_code == 404
        assert response.json() == {"error": {"code": "404", "message": "Resource not found"}}
        assert response.headers["apim-request-id"]


@pytest.mark.parametrize(
    ("method", "path"), [("GET", JOBS), ("PUT", JOBS), ("HEAD", JOBS), ("DELETE", f"{JOBS}/1"), ("PATCH", f"{JOBS}/1")]
)
async def test_a_method_that_a_path_does_not_have_is_not_allowed(server: Server, method: str, path: str) -> None:
    assert (await server.client.request(method, path)).status_code == 405


@pytest.mark.parametrize(
    "query", ["", "api-version=", "api-version=2021-01-01", "api-version=2023-04-01x", "version=1"]
)
async def test_a_version_that_is_missing_or_unknown_is_refused(server: Server, query: str) -> None:
    for method, path in (("POST", JOBS), ("GET", f"{JOBS}/unknown"), ("POST", f"{JOBS}/unknown:cancel")):
        response = await server.client.request(method, f"{path}?{query}")
        assert response.status_code == 400
        error = response.json()["error"]
        assert (error["code"], error["innererror"]["code"]) == ("InvalidRequest", "InvalidParameterValue")
        assert VERSION in error["innererror"]["message"]


# Where clients are told to ask


@pytest.mark.parametrize(
    ("host", "place"),
    [
        ("contoso.example", "http://contoso.example"),
        ("127.0.0.1:8080", "http://127.0.0.1:8080"),
        ("[::1]:8080", "http://[::1]:8080"),
        ("", "http://10.0.0.7:8081"),
        ("evil/path?x=", "http://10.0.0.7:8081"),
        ('quote"<x>', "http://10.0.0.7:8081"),
        ("user@host", "http://10.0.0.7:8081"),
    ],
)
def test_the_poll_url_is_on_the_host_that_the_client_wrote_if_it_is_one(host: str, place: str) -> None:
    scope = {"scheme": "http", "server": ("10.0.0.7", 8081)}
    assert gateway().base_url(scope, {b"host": host.encode()}) == place


async def test_forwarding_headers_are_not_believed(server: Server) -> None:
    forwarded = {"X-Forwarded-Host": "evil.example", "X-Forwarded-Proto": "https", "Forwarded": "host=evil.example"}
    response = await server.client.post(
        JOBS, params={"api-version": VERSION}, json=submission(BILLING), headers=forwarded
    )
    assert response.headers["operation-location"].startswith("http://server:8080/")


def test_a_public_url_comes_before_the_host() -> None:
    scope: dict[str, Any] = {"scheme": "http", "server": None}
    assert gateway(public_url="https://ta.example").base_url(scope, {b"host": b"inside"}) == "https://ta.example"


# The rate


@given(st.integers(1, 5), st.lists(st.integers(0, 30), max_size=60).map(lambda gaps: list(accumulate(gaps))))
def test_a_window_never_lets_more_in_than_its_limit_and_says_when_it_will(limit: int, arrivals: list[int]) -> None:
    window, admitted = Window(limit, 60), list[float]()
    for now in arrivals:
        if wait := window.admit(now):
            assert 0 < wait <= 60
            twin = Window(limit, 60)
            for earlier in [*admitted, now + wait]:
                assert twin.admit(earlier) == 0
        else:
            admitted.append(now)
    assert all(sum(begin <= at < begin + 60 for at in admitted) <= 2 * limit for begin in admitted)


@given(st.floats(0, 1e9), st.floats(0, 59.9))
@example(60.07518085552393, 0.0)  # where adding the window first rounds up
def test_nobody_is_told_to_wait_for_longer_than_a_window(began: float, later: float) -> None:
    window = Window(1, 60.0)
    assert window.admit(began) == 0
    assert math.ceil(window.admit(began + later)) <= 60


async def test_requests_beyond_the_rate_are_throttled_until_the_window_ends(serve: Serve) -> None:
    async with serve(window=Window(2)) as server:
        assert (await server.client.get("/nowhere")).status_code == 404  # no operation, so not counted
        await server.submit(submission(BILLING))
        assert (await server.client.get(f"{JOBS}/unknown?api-version={VERSION}")).status_code == 404
        response = await server.client.post(JOBS, params={"api-version": VERSION}, content=UNREADABLE)
        assert response.status_code == 429
        assert 1 <= int(response.headers["retry-after"]) <= math.ceil(60)
        assert response.json()["error"]["code"] == "429"
        assert f"retry after {response.headers['retry-after']} seconds" in response.json()["error"]["message"]
        unknown = await server.client.get(f"{JOBS}/unknown", headers={"Ocp-Apim-Subscription-Key": "wrong"})
        assert unknown.status_code == 401


async def test_requests_are_counted_by_operation_and_status(server: Server) -> None:
    location = await server.submit(submission(BILLING))
    await server.ended(location)
    await server.client.get("/nowhere")
    await server.client.post(JOBS)
    registry, name = server.telemetry.registry, "labelstream_server_requests_total"

    def counted(name: str, labels: dict[str, str]) -> float | None:
        api = {"api": "azure_language"} if "operation" in labels else {}
        return registry.get_sample_value(name, {**api, **labels})

    assert counted(name, {"operation": "submit", "status": "202"}) == 1
    assert counted(name, {"operation": "submit", "status": "400"}) == 1
    assert registry.get_sample_value(name, {"api": "none", "operation": "unknown", "status": "404"}) == 1
    assert (counted(name, {"operation": "poll", "status": "200"}) or 0) >= 1
    assert counted("labelstream_server_request_seconds_count", {"operation": "submit"}) == 2
    assert counted("labelstream_server_documents_classified_total", {"project": "tickets"}) == 1
    assert counted("labelstream_server_jobs_ended_total", {"state": "succeeded"}) == 1
    assert counted("labelstream_server_jobs", {"state": "waiting"}) == 0
