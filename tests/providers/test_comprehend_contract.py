"""The contract of `tests.providers.contract`, kept by Comprehend's real-time client."""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import pytest_asyncio

from service import settings
from service.documents import Classified, ClassScore, Document, Outcome
from tests.providers.aws import ACCESS_KEY, ENDPOINT_ARN, SECRET_KEY, alone, no, opened, well
from tests.providers.conftest import Replay, Reply
from tests.providers.contract import WAITS, Provider, RemoteContract

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


class Endpoint:
    """An endpoint that is played by `replay`."""

    secret = SECRET_KEY
    waits = WAITS

    def __init__(self, provider: Provider, replay: Replay) -> None:
        self.provider = provider
        self.replay = replay
        replay.requests.clear()

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

    def sent(self) -> Sequence[bytes]:
        told = [request for request in self.replay.requests if "Describe" not in request.headers["x-amz-target"]]
        return [request.body for request in told]

    def failing(self, name: str) -> Reply:
        return SAID[name]

    def refusing(self, words: str) -> Sequence[Reply]:
        return [no("InvalidRequestException", message=words)]


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
