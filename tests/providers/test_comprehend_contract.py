"""The contract of `tests.providers.contract`, kept by Comprehend's clients: calls of an endpoint, and jobs with S3."""

from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import pytest_asyncio

from service import settings
from service.documents import Classified, ClassScore, Document, Outcome
from tests.providers.aws import ACCESS_KEY, ENDPOINT_ARN, SECRET_KEY, alone, no, opened, well
from tests.providers.conftest import Replay, Reply
from tests.providers.contract import WAITS, JobContract, Provider, RemoteContract
from tests.providers.s3 import STARTED, Buckets, archive, classifier, job, prediction, stored
from tests.providers.s3 import branch as branch_of_jobs

pytestmark = pytest.mark.asyncio(loop_scope="module")

SAID: Mapping[str, Reply] = {
    "wrong key": no("UnrecognizedClientException"),
    "forbidden": no("AccessDeniedException"),
    "out of quota": no("TooManyRequestsException"),
    "not found": no("ResourceNotFoundException"),
    "timed out": no("RequestTimeout", 408),
    "conflict": no("ResourceInUseException", 409),
    "throttled": no("ThrottlingException"),
    "server error": no("InternalServerException", 500),
    "busy": no("ServiceUnavailable", 503),
}


class Api:
    """What both are like, with the API played by `replay`."""

    secret = SECRET_KEY
    waits = WAITS

    def __init__(self, provider: Provider, replay: Replay) -> None:
        self.provider = provider
        self.replay = replay
        replay.requests.clear()

    def sent(self) -> Sequence[bytes]:
        told = [request for request in self.replay.requests if "Describe" not in request.headers["x-amz-target"]]
        return [request.body for request in told]

    def failing(self, name: str) -> Reply:
        return SAID[name]


class Endpoint(Api):
    """An endpoint, asked document by document."""

    @asynccontextmanager
    async def at(self, url: str) -> AsyncIterator[Provider]:
        async with opened(branch(url)) as account:
            yield account.provider

    def will_answer(self, documents: Sequence[Document]) -> Sequence[Outcome]:
        names = [f"class {document.id}" for document in documents]
        self.replay.answer(*(well(Classes=[{"Name": name, "Score": 0.5}]) for name in names))
        return [Classified((ClassScore(name, 0.5),)) for name in names]

    def will_be_well(self) -> None:
        self.replay.answer(well(EndpointProperties={"Status": "IN_SERVICE"}))

    def refusing(self, words: str) -> Sequence[Reply]:
        return [no("InvalidRequestException", message=words)]


class Jobs(Api):
    """A classifier, asked through jobs that read and write S3."""

    gone = (no("JobNotFoundException"), no("ResourceNotFoundException"))

    def __init__(self, provider: Provider, replay: Replay, buckets: Buckets) -> None:
        super().__init__(provider, replay)
        self._buckets = buckets

    @asynccontextmanager
    async def at(self, url: str) -> AsyncIterator[Provider]:
        async with opened(branch_of_jobs(url, self._buckets.url)) as account:
            yield account.provider

    def will_answer(self, documents: Sequence[Document]) -> Sequence[Outcome]:
        scores = [len(document.text) % 100 / 100 for document in documents]
        lines = [prediction(n, (f"class {n}", score)) for n, score in enumerate(scores)]
        self._buckets.put(archive(lines[1::2] + lines[::2]))
        self.replay.answer(self.submitted(), self.at_work("SUBMITTED"), job("COMPLETED"))
        return [
            Classified((ClassScore(f"class {n}", score),), units=max(3, -(-len(document.text) // 100)))
            for n, (document, score) in enumerate(zip(documents, scores, strict=True))
        ]

    def will_be_well(self) -> None:
        self.replay.answer(classifier("TRAINED"))

    def sent(self) -> Sequence[bytes]:
        return [*super().sent(), *(self._buckets.read(key) for key in self._buckets.keys("tickets-in"))]

    def refusing(self, words: str) -> Sequence[Reply]:
        line = {"File": "0.txt", "Line": "0", "ErrorCode": "PAGE_CHARACTERS_EXCEEDED", "ErrorMessage": words}
        self._buckets.put(archive([line]))
        return [self.submitted(), job("COMPLETED")]

    def submitted(self) -> Reply:
        return STARTED

    def at_work(self, status: str) -> Reply:
        return job({"failed": "FAILED", "cancelled": "STOPPED", "canceled": "STOPPED"}.get(status.lower(), status))

    def cancelled(self) -> Sequence[Reply]:
        return ()  # what is given up is deleted from S3


def branch(url: str) -> settings.Comprehend:
    return settings.Comprehend.model_validate(
        {
            "provider": "comprehend",
            "endpoint_arn": ENDPOINT_ARN,
            "task": "single_label",
            "access_key_id": ACCESS_KEY,
            "secret_access_key": SECRET_KEY,
            "endpoint_url": url,
        }
    )


@pytest.fixture(autouse=True)
def nothing_ambient(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    alone(monkeypatch, tmp_path)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def provider(replaying: Replay) -> AsyncIterator[Provider]:
    async with opened(branch(replaying.url)) as account:
        yield account.provider


class TestComprehend(RemoteContract):
    @pytest.fixture
    def harness(self, provider: Provider, replay: Replay) -> Endpoint:
        return Endpoint(provider, replay)


@pytest.fixture(scope="module")
def moto() -> Iterator[Buckets]:
    with stored() as buckets:
        yield buckets


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def jobs(replaying: Replay, moto: Buckets) -> AsyncIterator[Provider]:
    async with opened(branch_of_jobs(replaying.url, moto.url)) as account:
        yield account.provider


class TestComprehendJobs(JobContract):
    @pytest.fixture
    def harness(self, jobs: Provider, replay: Replay, moto: Buckets) -> Jobs:
        moto.clear()
        return Jobs(jobs, replay, moto)
