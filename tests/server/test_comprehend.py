"""The front of Comprehend and its endpoints, over ASGI."""

from pathlib import Path
from typing import Any

import pytest

from service.errors import Misconfigured
from service.server.app import Endpoint
from tests.server.comprehend import ENDPOINT, registered, well
from tests.server.comprehend import asked as ask
from tests.server.conftest import BILLING, KEY, Serve, Server


async def classified(server: Server, text: str) -> int:
    return (await ask(server, "ClassifyDocument", EndpointArn=ENDPOINT, Text=text)).status_code


@pytest.mark.parametrize("path", ["/", "/v/comp", "/v/comp/", "/language"])
async def test_a_path_before_it_makes_no_difference(serve: Serve, path: str) -> None:
    async with serve(keys=()) as server:
        answer = await ask(await registered(server), "ClassifyDocument", path, EndpointArn=ENDPOINT, Text=BILLING)
        assert answer.json()["Classes"][0]["Name"] == "billing"


async def test_other_paths_stay_what_they_were(server: Server) -> None:
    assert (await server.client.post("/v/comp")).json()["error"]["code"] == "404"
    assert (await server.client.get("/livez")).text == "ok\n"
    headers = {"X-Amz-Target": "Comprehend_20171127.ListEndpoints"}
    url = "/language/analyze-text/jobs/x?api-version=2023-04-01"
    assert "error" in (await server.client.get(url, headers=headers)).json()


async def test_errors_are_told_twice(serve: Serve) -> None:
    async with serve(keys=()) as server:
        answer = await ask(server, "DescribeEndpoint", EndpointArn=ENDPOINT)
        assert answer.status_code == 400
        assert answer.json()["__type"] == answer.headers["x-amzn-ErrorType"] == "ResourceNotFoundException"
        assert answer.json()["Message"]
        assert len(answer.headers["x-amzn-RequestId"]) == 36


@pytest.mark.parametrize(
    ("keys", "aws_keys", "code"),
    [
        ((), {}, None),
        ((KEY,), {}, "UnrecognizedClientException"),
        ((), {"A": "b"}, "MissingAuthenticationTokenException"),
    ],
)
async def test_signatures_are_asked_for_unless_nothing_is(
    serve: Serve, keys: tuple[str, ...], aws_keys: dict[str, str], code: str | None
) -> None:
    async with serve(keys=keys, aws_keys=aws_keys) as server:
        assert (await ask(server, "ListEndpoints")).json().get("__type") == code


@pytest.mark.parametrize(
    ("rule", "status", "code"),
    [
        ({"status": 401}, 400, "UnrecognizedClientException"),
        ({"status": 403}, 400, "AccessDeniedException"),
        ({"status": 408}, 400, "RequestTimeoutException"),
        ({"status": 429, "retry_after": 3}, 400, "ThrottlingException"),
        ({"status": 418}, 418, "InvalidRequestException"),
        ({"status": 503}, 503, "InternalServerException"),
        ({"error": "TooManyRequestsException"}, 400, "TooManyRequestsException"),
        ({"error": "ThrottlingException", "status": 429}, 429, "ThrottlingException"),
        ({"error": "ExpiredTokenException"}, 400, "ExpiredTokenException"),
        ({"error": "InternalServerException"}, 500, "InternalServerException"),
    ],
)
async def test_a_fault_is_told_as_amazon_tells_it(serve: Serve, rule: dict[str, Any], status: int, code: str) -> None:
    async with serve(keys=(), faults=[{"on": "classify", "api": "comprehend", **rule}]) as server:
        answer = await ask(await registered(server), "ClassifyDocument", EndpointArn=ENDPOINT, Text=BILLING)
    assert (answer.status_code, answer.json()["__type"], answer.headers["x-amzn-ErrorType"]) == (status, code, code)
    assert "Retry-After" not in answer.headers


async def test_a_unit_is_two_documents_and_a_hundred_characters_a_second(serve: Serve) -> None:
    async with serve(keys=()) as server:
        await registered(server, units=1)
        assert [await classified(server, "short") for _ in range(4)] == [200, 200, 400, 400]
        server.clock.now += 0.5
        assert [await classified(server, "short") for _ in range(2)] == [200, 400]
        server.clock.now += 10
        assert [await classified(server, "a" * 300), await classified(server, "short")] == [200, 400]
        server.clock.now += 1.99  # the characters are paid off in three seconds, one of which may be owed
        assert await classified(server, "short") == 400
        server.clock.now += 0.02
        assert await classified(server, "short") == 200
        shown = (await ask(server, "DescribeEndpoint", EndpointArn=ENDPOINT)).json()["EndpointProperties"]
        assert shown["CurrentInferenceUnits"] == 1


async def test_what_is_refused_for_its_characters_costs_no_documents(serve: Serve) -> None:
    async with serve(keys=()) as server:
        await registered(server, units=1)
        assert await classified(server, "a" * 150) == 200
        assert [await classified(server, "short") for _ in range(20)] == [400] * 20
        server.clock.now += 0.6
        assert await classified(server, "short") == 200


async def test_without_units_nothing_is_throttled(serve: Serve) -> None:
    async with serve(keys=()) as server:
        await registered(server)
        assert {await classified(server, "a" * 1000) for _ in range(20)} == {200}


async def test_documented_rates_are_kept_where_they_are_asked_for(serve: Serve) -> None:
    async with serve(keys=(), documented_rates=True, works=False) as server:
        codes = [(await ask(server, "ListDocumentClassifiers")).json().get("__type") for _ in range(12)]
        assert codes[:10] == [None] * 10
        assert "TooManyRequestsException" in codes
        codes = [
            (await ask(server, "UntagResource", ResourceArn=f"{ENDPOINT}s", TagKeys=[])).json()["__type"]
            for _ in range(2)
        ]
        assert codes == ["ResourceNotFoundException", "ThrottlingException"]


async def test_otherwise_no_rates_are_kept(serve: Serve) -> None:
    async with serve(keys=(), works=False) as server:
        for _ in range(15):
            await well(server, "ListDocumentClassifiers")


def test_an_endpoint_may_have_units() -> None:
    assert Endpoint.parse("tickets=models/tickets") == Endpoint("tickets", Path("models/tickets"))
    assert Endpoint.parse("tickets=models/tickets:10") == Endpoint("tickets", Path("models/tickets"), 10)


@pytest.mark.parametrize("text", ["", "tickets", "tickets=", "=models", "-a=models", "a_b=models"])
def test_an_endpoint_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(Misconfigured, match="NAME=FOLDER"):
        Endpoint.parse(text)
