import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from service import settings
from service.errors import Misconfigured, Unavailable
from service.limits.gate import Limits
from service.observability.telemetry import Telemetry
from service.transport import aws
from tests.providers.aws import ACCESS_KEY, CLASSIFIER_ARN, SECRET_KEY, alone, saying
from tests.providers.networks import listening

ARN = "arn:aws:comprehend:eu-west-1:111122223333:document-classifier-endpoint/tickets"
WELL = b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\n{}"


@pytest.fixture(autouse=True)
def nothing_ambient(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    alone(monkeypatch, tmp_path)


def branch(**changes: Any) -> settings.Comprehend:
    given = {"provider": "comprehend", "endpoint_arn": ARN, "task": "single_label"}
    key = {"access_key_id": ACCESS_KEY, "secret_access_key": SECRET_KEY}
    return settings.Comprehend(**{**given, **key, **changes})


def jobs() -> settings.ComprehendJobs:
    return settings.ComprehendJobs(
        provider="comprehend_jobs",
        classifier_arn=CLASSIFIER_ARN.replace("arn:aws:comprehend:eu-west-1", "arn:aws-cn:comprehend:cn-north-1"),
        task="single_label",
        data_access_role_arn="arn:aws-cn:iam::111122223333:role/data",
        input_uri="s3://tickets-in",
        output_uri="s3://tickets-out",
        endpoint_url="https://comprehend.example",
    )


async def hosts(branch: settings.Comprehend | settings.ComprehendJobs) -> list[str]:
    events = Telemetry().account("aws", branch.provider)
    async with aws.opened([aws.COMPREHEND, aws.S3], branch, Limits(branch.limits), events) as clients:
        return [client.host for client in clients]


async def test_who_is_asked_is_up_to_the_arn_and_the_settings_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://elsewhere.example")
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://elsewhere.example")
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    assert await hosts(branch()) == ["comprehend.eu-west-1.amazonaws.com", "s3.eu-west-1.amazonaws.com"]
    assert await hosts(jobs()) == ["comprehend.example", "s3.cn-north-1.amazonaws.com.cn"]


async def test_a_proxy_of_the_environment_is_for_others_than_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    events = Telemetry().account("aws", "comprehend")
    async with listening(saying(WELL)) as host:
        here = branch(endpoint_url=f"http://{host}")
        async with aws.opened([aws.COMPREHEND], here, Limits(here.limits), events) as (client,):
            assert "ResponseMetadata" in await client.call("describe_endpoint", EndpointArn=ARN)
    there = branch(endpoint_url="http://comprehend.example", plaintext=True)
    async with aws.opened([aws.COMPREHEND], there, Limits(there.limits), events) as (client,):
        with pytest.raises(Unavailable, match=r"it cannot be reached \(Connect"):
            await client.call("describe_endpoint", EndpointArn=ARN)


@pytest.mark.parametrize(
    ("profile", "words"),
    [
        ("role_arn = arn:aws:iam::1:role/x\nsource_profile = nobody", "what this machine says of AWS"),
        ("aws_access_key_id = AKID", "PartialCredentialsError"),
        ('credential_process = sh -c "exit 1"', "CredentialRetrievalError"),
    ],
)
async def test_credentials_that_cannot_be_had_are_told(profile: str, words: str, tmp_path: Path) -> None:
    (tmp_path / "config").write_text(f"[default]\n{profile}\n")
    with pytest.raises(Misconfigured, match=words):
        await hosts(branch(access_key_id=None, secret_access_key=None))


async def test_credentials_that_cannot_be_renewed_are_an_outage(tmp_path: Path) -> None:
    once = {"Version": 1, "AccessKeyId": "A", "SecretAccessKey": "S", "SessionToken": "T"}
    (tmp_path / "keys").write_text(json.dumps(once | {"Expiration": "2020-01-01T00:00:00Z"}))
    (tmp_path / "once").write_text(f"cat {tmp_path}/keys && rm {tmp_path}/keys")
    (tmp_path / "config").write_text(f"[default]\ncredential_process = sh {tmp_path}/once\n")
    given = branch(access_key_id=None, secret_access_key=None, endpoint_url="http://127.0.0.1:1")
    events = Telemetry().account("aws", "comprehend")
    async with aws.opened([aws.COMPREHEND], given, Limits(given.limits), events) as (client,):
        with pytest.raises(Unavailable, match="the credentials of this process cannot be renewed"):
            await client.call("describe_endpoint", EndpointArn=ARN)


async def test_warming_up_is_cut_short_by_no_deadline_of_ours() -> None:
    heard: list[bytes] = []

    async def listen(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        heard.append(await reader.readline())

    events = Telemetry().account("aws", "comprehend")
    async with listening(listen) as host:
        hasty = branch(endpoint_url=f"http://{host}", request_timeout=0.001)  # less than it takes to get ready
        async with aws.opened([aws.COMPREHEND], hasty, Limits(hasty.limits), events) as (client,):
            with pytest.raises(Unavailable, match="it took too long"):
                await client.call("describe_endpoint", EndpointArn=ARN)
            assert not heard
            await client.warm_up("describe_endpoint", EndpointArn=ARN)
    assert heard, "the warm-up has not come as far as the server"


def test_a_client_shows_whom_it_asks_and_no_more() -> None:
    assert SECRET_KEY not in repr(branch())
    assert repr(aws.S3) == "Service(name='s3', url='storage_url')"
