"""An endpoint of Amazon Comprehend's asynchronous jobs that counts what it is asked for, and S3 beside it."""

import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import orjson
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from tests.chaos.endpoint import Endpoint, class_of
from tests.providers.aws import CLASSIFIER_ARN
from tests.providers.s3 import Buckets, archive, prediction, settled, stored


class Comprehend(Endpoint):
    """Starts one job for a token, however often it is asked with that, and has it done some seconds later."""

    def __init__(self, seconds: float = 8.0) -> None:
        super().__init__(seconds)
        self._started: dict[str, tuple[str, float, list[str]]] = {}
        self._buckets: Buckets

    @property
    def account(self) -> dict[str, Any]:
        """As `Endpoint.account`."""
        return settled(self.url, self._buckets.url)

    @contextmanager
    def listening(self) -> Iterator[None]:
        """As `Endpoint.listening`."""
        with stored() as self._buckets, super().listening():
            yield

    def _routes(self) -> list[Route]:
        return [Route("/", self._asked, methods=["POST"])]

    async def _asked(self, request: Request) -> Response:
        given = orjson.loads(await request.body())
        match request.headers["x-amz-target"].rpartition(".")[2]:
            case "DescribeDocumentClassifier":
                shown = {"DocumentClassifierArn": CLASSIFIER_ARN, "Status": "TRAINED", "Mode": "MULTI_CLASS"}
                return JSONResponse({"DocumentClassifierProperties": shown})
            case "StartDocumentClassificationJob":
                return JSONResponse(await run_in_threadpool(self._start, given))
            case "DescribeDocumentClassificationJob":
                return JSONResponse(await run_in_threadpool(self._describe, given["JobId"]))
        return JSONResponse({"__type": "InvalidRequestException", "Message": "no"}, 400)

    def _start(self, given: dict[str, Any]) -> dict[str, str]:
        known = next((job for job, (token, *_) in self._started.items() if token == given["ClientRequestToken"]), None)
        if known is None:
            known = uuid.uuid4().hex
            key = given["InputDataConfig"]["S3Uri"].removeprefix("s3://tickets-in/")
            texts = [line.strip() for line in self._buckets.read(key).decode().splitlines()]
            self._started[known] = given["ClientRequestToken"], time.monotonic() + self._seconds, texts
            for text in texts:
                self.accepted.setdefault(text, []).append(known)
        return {"JobId": known, "JobStatus": "SUBMITTED"}

    def _describe(self, job: str) -> dict[str, Any]:
        _, due, texts = self._started[job]
        where = {"S3Uri": f"s3://tickets-out/labelstream/{job}/output.tar.gz"}
        status = "COMPLETED" if time.monotonic() > due else "IN_PROGRESS"
        if status == "COMPLETED":
            lines = [prediction(str(number), (class_of(text), 0.9)) for number, text in enumerate(texts)]
            self._buckets.put(archive(lines), f"{job}/output.tar.gz")
        return {"DocumentClassificationJobProperties": {"JobId": job, "JobStatus": status, "OutputDataConfig": where}}
