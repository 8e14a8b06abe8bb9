"""Comprehend against documented exchanges: what is alike whatever the model, ids and times, has to be equal.

Of what is documented, four refusals are never given here: there is no Textract to deny access to, there are no session
tokens to expire, who may ask may ask for everything, and a rate is only ever told as a ThrottlingException.
"""

import base64
import json
import re
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import boto3
import httpx
import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from moto.server import ThreadedMotoServer

from service.server import comprehend_endpoints
from tests.server.conftest import BILLING, KEY, SINGLE, Serve, Server

CONTRACT = Path(__file__).parents[1] / "contract" / "comprehend" / "2017-11-27"
FILES = sorted(file.stem for file in CONTRACT.glob("*.json"))
AWS_KEY, AWS_SECRET = "AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"
ARN = re.compile(r"(arn:aws:comprehend:)[a-z0-9-]+:\d{12}:")
JOB_ID = re.compile(r"(?<![0-9A-Za-z])[0-9A-Za-z]{32}(?![0-9A-Za-z])")
WORDED = {"Message": str, "Score": float, "JobName": str, "S3Uri": str}
TIMES = {"CreationTime", "LastModifiedTime", "SubmitTime", "EndTime"}


def exchanges(name: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((CONTRACT / f"{name}.json").read_text("utf-8"))["exchanges"]
    return found


def alike(value: Any, name: str = "") -> Any:
    """A body with what may differ made the same: accounts, regions, ids, times, messages, scores; classes by number."""
    if name in WORDED:
        return isinstance(value, WORDED[name])
    if name in TIMES:
        return isinstance(value, float) and value > 1_600_000_000
    if name in {"Classes", "Labels"}:
        return all(alike(one) == {"Name": True, "Score": True} for one in value)
    if name == "Name":
        return bool(value)
    if isinstance(value, dict):
        return {key: alike(part, key) for key, part in value.items() if key != "message"}
    return JOB_ID.sub("id", ARN.sub(r"\1", value)) if isinstance(value, str) else value


async def asked(server: Server, request: dict[str, Any], **changes: Any) -> httpx.Response:
    content = json.dumps({**request["body"], **changes})
    return await server.client.request(request["method"], request["path"], content=content, headers=request["headers"])


async def registered(server: Server, project: str = "tickets", units: int | None = None) -> None:
    """The endpoint that the documents speak of."""
    digest = server.store.projects[project].deployments["production"]
    await comprehend_endpoints.register(server.backend, "tickets", digest, server.clock(), units)


def is_as_documented(response: httpx.Response, documented: dict[str, Any]) -> None:
    assert response.status_code == documented["status"], response.text
    for header, value in documented["headers"].items():
        assert response.headers[header] == value
    assert alike(response.json()) == alike(documented["body"]), response.text


def test_there_are_exchanges_to_be_held_to() -> None:
    assert FILES == [
        "classify_multi_class",
        "classify_multi_label",
        "describe_endpoint",
        "job",
        "job_failed",
        "refusals",
    ]


@pytest.mark.parametrize(("name", "project"), [("classify_multi_class", "tickets"), ("classify_multi_label", "topics")])
async def test_a_document_is_answered_as_documented(serve: Serve, name: str, project: str) -> None:
    (exchange,) = exchanges(name)
    async with serve(keys=()) as server:
        await registered(server, project)
        response = await asked(server, exchange["request"], Text=BILLING)
    is_as_documented(response, exchange["response"])
    (found,) = response.json().values()
    assert found[0]["Name"] == "billing"
    assert len(found) == 3 or project == "topics"


async def test_an_endpoint_is_shown_as_documented(serve: Serve) -> None:
    *states, unknown = exchanges("describe_endpoint")
    async with serve(keys=()) as server:
        is_as_documented(await asked(server, unknown["request"]), unknown["response"])
        await registered(server)
        for exchange in states:
            shown = (await asked(server, exchange["request"])).json()["EndpointProperties"]
            documented = exchange["response"]["body"]["EndpointProperties"]
            assert shown.keys() == documented.keys() - {"Message"}
            assert shown["Status"] == "IN_SERVICE"
            assert ARN.sub("", shown["EndpointArn"]) == ARN.sub("", documented["EndpointArn"])
            assert all(alike(shown[time], time) for time in TIMES & shown.keys())


@pytest.fixture(scope="module")
def s3() -> Iterator[tuple[str, Any]]:
    """S3 with the buckets of the documents and a table to learn from."""
    moto = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    moto.start()
    host, port = moto.get_host_and_port()
    url = f"http://{host}:{port}"
    client = boto3.client(
        "s3", endpoint_url=url, region_name="us-east-1", aws_access_key_id="a", aws_secret_access_key="b"
    )
    buckets = ("tickets-in", "tickets-out")
    for bucket in buckets:
        client.create_bucket(Bucket=bucket)
    table = "\n".join(f'"{row.labels[0]}","{row.text}"' for row in SINGLE for _ in range(3))
    client.put_object(Bucket="tickets-in", Key="train.csv", Body=table.encode())
    yield url, client
    for bucket in buckets:  # all of moto's servers in a process have the same buckets
        for one in client.list_objects_v2(Bucket=bucket).get("Contents", []):
            client.delete_object(Bucket=bucket, Key=one["Key"])
        client.delete_bucket(Bucket=bucket)
    client.close()
    moto.stop()


@pytest.fixture
async def trained(serve: Serve, s3: tuple[str, Any], monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Server]:
    """A server with the classifier of the documents, whose jobs wait."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "a")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "b")
    start = exchanges("job")[0]["request"]
    body = {
        "DocumentClassifierName": "tickets",
        "VersionName": "2",
        "DataAccessRoleArn": start["body"]["DataAccessRoleArn"],
        "InputDataConfig": {"S3Uri": "s3://tickets-in/train.csv"},
        "LanguageCode": "en",
    }
    headers = {**start["headers"], "X-Amz-Target": "Comprehend_20171127.CreateDocumentClassifier"}
    async with serve(keys=(), s3=s3[0], works=False) as server:
        made = await server.client.post("/", content=json.dumps(body), headers=headers)
        assert made.status_code == 200, made.text
        async with server.jobs.working():
            await server.idle()
        yield server


async def started(server: Server, token: str) -> str:
    """The id of a job that is begun as documented."""
    start, *_ = exchanges("job")
    start["request"]["body"] = json.loads(json.dumps(start["request"]["body"]).replace("{token}", token))
    response = await asked(server, start["request"])
    is_as_documented(response, start["response"])
    job_id: str = response.json()["JobId"]
    return job_id


async def test_a_job_goes_as_documented_from_its_start_to_its_end(trained: Server, s3: tuple[str, Any]) -> None:
    _, submitted, under_way, completed = exchanges("job")
    s3[1].put_object(Bucket="tickets-in", Key="labelstream/a.txt", Body=f"{BILLING}\n".encode())
    job_id = await started(trained, "a")
    is_as_documented(await asked(trained, submitted["request"], JobId=job_id), submitted["response"])
    shown = (await asked(trained, under_way["request"], JobId=job_id)).json()
    assert alike({**shown["DocumentClassificationJobProperties"], "JobStatus": "IN_PROGRESS"}) == alike(
        under_way["response"]["body"]["DocumentClassificationJobProperties"]
    )
    async with trained.jobs.working():
        await trained.idle()
    response = await asked(trained, completed["request"], JobId=job_id)
    is_as_documented(response, completed["response"])
    output = response.json()["DocumentClassificationJobProperties"]["OutputDataConfig"]["S3Uri"]
    assert re.fullmatch(rf"s3://tickets-out/labelstream/\d{{12}}-CLN-{job_id}/output/output.tar.gz", output)
    assert s3[1].head_object(Bucket="tickets-out", Key=output.removeprefix("s3://tickets-out/"))


async def test_a_job_fails_as_documented(trained: Server) -> None:
    failed, _, unknown = exchanges("job_failed")
    job_id = await started(trained, "nothing-of-that-name")
    async with trained.jobs.working():
        await trained.idle()
    is_as_documented(await asked(trained, failed["request"], JobId=job_id), failed["response"])
    is_as_documented(await asked(trained, unknown["request"]), unknown["response"])


def refusal(code: str, reason: str | None = None) -> dict[str, Any]:
    """The documented exchange that ends in a refusal."""
    return next(
        one
        for one in exchanges("refusals")
        if one["response"]["body"]["__type"] == code
        and (reason is None or one["response"]["body"]["Detail"]["Reason"] == reason)
    )


async def test_documents_that_are_too_much_are_refused_as_documented(serve: Serve) -> None:
    too_long, too_large = refusal("TextSizeLimitExceededException"), refusal("InvalidRequestException")
    async with serve(keys=()) as server:
        await registered(server)
        is_as_documented(await asked(server, too_long["request"], Text="x" * 10_001), too_long["response"])
        content = base64.b64encode(bytes(10 * 2**20 + 1)).decode()
        is_as_documented(await asked(server, too_large["request"], Bytes=content, Text=None), too_large["response"])


async def test_more_than_an_endpoint_has_units_for_is_throttled_as_documented(serve: Serve) -> None:
    throttled = refusal("ThrottlingException")
    async with serve(keys=()) as server:
        await registered(server, units=1)
        answers = [await asked(server, throttled["request"], Text="short") for _ in range(3)]
    assert [one.status_code for one in answers] == [200, 200, 400]
    is_as_documented(answers[-1], throttled["response"])


async def test_what_does_not_serve_is_told_as_documented(serve: Serve) -> None:
    gone, broken = refusal("ResourceUnavailableException"), refusal("InternalServerException")
    async with serve(keys=(), faults=[{"on": "classify", "status": 500, "times": 1}]) as server:
        await comprehend_endpoints.register(server.backend, "tickets", "0" * 64, server.clock())
        is_as_documented(await asked(server, broken["request"]), broken["response"])
        is_as_documented(await asked(server, gone["request"]), gone["response"])


@pytest.mark.parametrize("code", ["AccessDeniedException", "ExpiredTokenException", "TooManyRequestsException"])
async def test_what_only_the_cloud_refuses_is_told_as_documented_on_request(serve: Serve, code: str) -> None:
    exchange = refusal(code)
    async with serve(keys=(), faults=[{"on": "classify", "api": "comprehend", "error": code}]) as server:
        is_as_documented(await asked(server, exchange["request"]), exchange["response"])


@pytest.mark.parametrize(
    ("code", "key", "secret"),
    [
        ("UnrecognizedClientException", "AKIDOTHER", AWS_SECRET),
        ("InvalidSignatureException", AWS_KEY, "another"),
    ],
)
async def test_who_may_not_ask_is_refused_as_documented(serve: Serve, code: str, key: str, secret: str) -> None:
    exchange = refusal(code)
    request = exchange["request"]
    content = json.dumps(request["body"])
    signed = AWSRequest("POST", "http://server:8080/", data=content, headers=request["headers"])
    SigV4Auth(Credentials(key, secret), "comprehend", "eu-west-1").add_auth(signed)
    async with serve(keys=(KEY,), aws_keys={AWS_KEY: AWS_SECRET}) as server:
        response = await server.client.post("/", content=content, headers=dict(signed.headers))
    is_as_documented(response, exchange["response"])
