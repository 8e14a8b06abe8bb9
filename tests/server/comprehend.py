"""What the tests of Comprehend's rooms share: asking over ASGI, and classifiers that need no training."""

import asyncio
import json
from typing import Any

import httpx

from service.server import comprehend_classifiers, comprehend_endpoints
from service.server.store import Change
from tests.server.conftest import Server

HERE = "arn:aws:comprehend:us-east-1:000000000000"
CLASSIFIER, ENDPOINT = f"{HERE}:document-classifier/tickets", f"{HERE}:document-classifier-endpoint/kept"
ROLE = "arn:aws:iam::111122223333:role/data"
TRAINING: dict[str, Any] = {
    "DocumentClassifierName": "c",
    "DataAccessRoleArn": ROLE,
    "LanguageCode": "en",
    "InputDataConfig": {"S3Uri": "s3://nowhere/a"},
}
JOB: dict[str, Any] = {
    "DocumentClassifierArn": CLASSIFIER,
    "DataAccessRoleArn": ROLE,
    "InputDataConfig": {"S3Uri": "s3://nowhere/a"},
    "OutputDataConfig": {"S3Uri": "s3://nowhere/out"},
}


async def asked(server: Server, operation: str, path: str = "/", **given: Any) -> httpx.Response:
    headers = {"X-Amz-Target": f"Comprehend_20171127.{operation}", "Content-Type": "application/x-amz-json-1.1"}
    return await server.client.post(path, content=json.dumps(given), headers=headers)


async def well(server: Server, operation: str, **given: Any) -> dict[str, Any]:
    """What is answered to a request that is followed."""
    response = await asked(server, operation, **given)
    assert response.status_code == 200, response.text
    found: dict[str, Any] = response.json()
    return found


async def refused(server: Server, operation: str, **given: Any) -> str:
    """The code that a request is refused with, which is told twice."""
    response = await asked(server, operation, **given)
    code: str = response.json()["__type"]
    assert (response.status_code, response.headers["x-amzn-ErrorType"]) == (400, code), response.text
    return code


async def registered(server: Server, units: int | None = None) -> Server:
    """The server, with an endpoint `kept` of the operator's."""
    digest = server.store.projects["tickets"].deployments["production"]
    await comprehend_endpoints.register(server.backend, "kept", digest, server.clock(), units)
    return server


async def classifier(server: Server, name: str = "tickets", **more: Any) -> str:
    """A classifier whose model was trained elsewhere; gives its ARN."""
    arn = f"{HERE}:document-classifier/{name}"
    kept = {
        "arn": arn,
        "status": "TRAINED",
        "mode": "MULTI_CLASS",
        "input": {},
        "output": {},
        "submitted": server.clock(),
        "job": "none",
        "digest": server.store.projects["tickets"].deployments["production"],
        "token": None,
        "asked": None,
        "echoed": {},
        **more,
    }
    await server.store.change(Change(comprehend_classifiers.RESOURCE, name, kept))
    return arn


async def endpoint(server: Server) -> dict[str, Any]:
    """How the endpoint `kept` is."""
    found: dict[str, Any] = (await well(server, "DescribeEndpoint", EndpointArn=ENDPOINT))["EndpointProperties"]
    return found


async def worked(server: Server) -> None:
    """Let what waits be done, and stop again."""
    async with server.jobs.working():
        await asyncio.wait_for(server.idle(), 30)
