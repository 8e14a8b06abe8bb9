"""The contract of `tests.providers.contract`, kept by Azure's clients in all dialects, and by the embedded model."""

from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter

from service import settings
from service.documents import Classified, ClassScore, Document, Outcome
from service.model.classifier import Classifier
from service.providers.azure_language import AzureLanguage
from service.providers.content_safety import ContentSafety
from service.providers.content_understanding import ContentUnderstanding
from service.providers.local import Local
from service.transport.http import PacedClient
from tests.commands import small_model
from tests.providers.conftest import Replay, Reply
from tests.providers.contract import WAITS, LocatedJobContract, Provider, ProviderContract, RemoteContract

KEY = "4n4zur3k3yth4t1sn0tt0b3s33n"
ACCOUNT: TypeAdapter[settings.Account] = TypeAdapter(settings.Account)
PROVIDERS: Mapping[str, Callable[[Any, PacedClient], Provider]] = {
    "azure_language": AzureLanguage,
    "content_safety": ContentSafety,
    "content_understanding": ContentUnderstanding,
}
SAID: Mapping[str, tuple[int, str, str]] = {
    "wrong key": (401, "401", "Access denied due to invalid subscription key or wrong API endpoint."),
    "forbidden": (403, "403", "Public access is disabled."),
    "out of quota": (403, "403", "Out of call volume quota for TextAnalytics F0 pricing tier."),
    "not found": (404, "404", "Resource not found"),
    "timed out": (408, "Timeout", "Timed out."),
    "conflict": (409, "Conflict", "Conflict."),
    "throttled": (429, "429", "Requests have exceeded the rate limit of your pricing tier."),
    "server error": (500, "InternalServerError", "Something went wrong."),
    "busy": (503, "ServiceUnavailable", "Try again."),
}


@dataclass(frozen=True)
class Api:
    """One dialect: an account's settings, and the bodies it is answered with."""

    account: Mapping[str, Any]
    done: Callable[[Sequence[Document]], object]
    expected: Callable[[Document], Outcome]
    well: Reply
    jobs: str = ""
    at_work: Callable[[str], object] = lambda status: {"status": status}
    cancelled: Sequence[Reply] = ()
    looks: bool = False
    """Whether it looks at what it asks before a document is blamed."""


def score(document: Document) -> float:
    return len(document.text) % 100 / 100


def shuffled(documents: Sequence[Document]) -> list[tuple[str, Document]]:
    numbered = [(str(number), document) for number, document in enumerate(documents)]
    return numbered[1::2] + numbered[::2]


def results(spelling: str, documents: Sequence[Document], *, alone: bool = False) -> list[dict[str, object]]:
    """The tasks of a finished job, with documents in another order than they were sent in."""
    found = []
    for number, document in shuffled(documents):
        one = {"category": f"class {document.id}", "confidenceScore": score(document)}
        found.append({"id": number, spelling: one if alone else [one], "warnings": []})
    return [{"results": {"documents": found, "errors": []}}]


def scored(document: Document) -> Outcome:
    return Classified((ClassScore(f"class {document.id}", score(document)),), units=1)


LANGUAGE = {"provider": "azure_language", "task": "single_label"}
PROJECT = {"project": "tickets", "deployment": "production"}
GA = Api(
    {**LANGUAGE, **PROJECT},
    lambda documents: {"status": "succeeded", "tasks": {"items": results("class", documents)}},
    scored,
    Reply(404, {"error": {"code": "NotFound"}}),
    "/language/analyze-text/jobs",
    cancelled=[Reply(202)],
)
PREVIEW_32 = Api(
    {**LANGUAGE, **PROJECT, "api_version": "v3.2-preview.2"},
    lambda documents: {
        "status": "succeeded",
        "tasks": {"customSingleClassificationTasks": results("classification", documents, alone=True)},
    },
    scored,
    GA.well,
    "/text/analytics/v3.2-preview.2/analyze/jobs",
)
PREVIEW_31 = Api(
    {**LANGUAGE, "model_id": "0_SingleClassification_latest", "api_version": "v3.1-preview.ct.1"},
    lambda documents: {
        "status": "completed",
        "tasks": {"tasks": {"customClassificationTasks": results("classes", documents)}},
    },
    scored,
    GA.well,
    "/text/analytics/v3.1-preview.ct.1/analyze/jobs",
)

HARMS = Api(
    {"provider": "content_safety"},
    lambda _: {
        "blocklistsMatch": [],
        "categoriesAnalysis": [
            {"category": "Hate", "severity": 0},
            {"category": "Sexual", "severity": 2},
            {"category": "Violence", "severity": 6},
        ],
    },
    lambda _: Classified((ClassScore("Violence", None, 6), ClassScore("Sexual", None, 2)), units=1),
    Reply(200, {"value": []}),
    looks=True,
)
BUILT = Reply(200, {"value": [{"categoryName": "DrugAbuse", "version": 1, "status": "BuildSucceeded"}]})
CUSTOMIZED = Api(
    {"provider": "content_safety", "category": "DrugAbuse", "api_version": "2024-05-15-preview"},
    lambda _: {"textCustomizedCategoriesAnalysis": [{"categoryName": "DrugAbuse", "detected": True}]},
    lambda _: Classified((ClassScore("DrugAbuse", None),), units=1),
    BUILT,
    looks=True,
)
CUSTOM = Api(
    {"provider": "content_safety", "category": "DrugAbuse", "api_version": "2024-09-15-preview"},
    lambda _: {"customCategoryAnalysis": {"detected": False}},
    lambda _: Classified((), units=1),
    BUILT,
    looks=True,
)

READY = Reply(200, {"status": "ready", "config": {"contentCategories": {"Invoice": {}}}})
CLASSIFIER = Api(
    {"provider": "content_understanding", "classifier": "myClassifier", "api_version": "2025-05-01-preview"},
    lambda _: {"status": "Succeeded", "result": {"contents": [{"category": "$OTHER", "endPageNumber": 1}]}},
    lambda _: Classified((ClassScore("$OTHER", None),), units=1),
    READY,
    "/contentunderstanding/classifierResults",
    looks=True,
)
ANALYZER = Api(
    {"provider": "content_understanding", "analyzer": "myc", "api_version": "2025-11-01"},
    lambda _: {"status": "Succeeded", "result": {"contents": [{"category": "Invoice", "endPageNumber": 1}]}},
    lambda _: Classified((ClassScore("Invoice", None),), units=1),
    READY,
    "/contentunderstanding/analyzerResults",
    cancelled=[Reply(204)],
    looks=True,
)


class Azure:
    """A client of one of the dialects, with the API played by `replay`."""

    secret = KEY
    waits = (
        *WAITS,
        ({"Retry-After": "Sat, 21 Nov 2026 09:01:30 GMT", "Date": "Sat, 21 Nov 2026 09:00:00 GMT"}, 90.0),
        ({"retry-after-ms": "250", "Retry-After": "1"}, 0.25),
    )
    gone = (Reply(404), Reply(404, {"error": {"code": "NotFound"}}), Reply(410))

    def __init__(self, api: Api, replay: Replay, http: PacedClient) -> None:
        self._api = api
        self._http = http
        self.replay = replay
        self.provider = self._at(replay.url)

    @asynccontextmanager
    async def at(self, url: str) -> AsyncIterator[Provider]:
        yield self._at(url)

    def _at(self, url: str) -> Provider:
        branch = ACCOUNT.validate_python({"endpoint": url, "key": KEY, **self._api.account})
        return PROVIDERS[branch.provider](branch, self._http)

    def will_answer(self, documents: Sequence[Document]) -> Sequence[Outcome]:
        if self._api.jobs:
            self.replay.answer(self.submitted(), self.at_work("running"))
        self.replay.answer(Reply(200, self._api.done(documents)))
        return [self._api.expected(document) for document in documents]

    def will_be_well(self) -> None:
        self.replay.answer(self._api.well)

    def sent(self) -> Sequence[bytes]:
        return [request.body for request in self.replay.requests]

    def failing(self, name: str) -> Reply:
        status, code, message = SAID[name]
        return Reply(status, {"error": {"code": code, "message": message}})

    def refusing(self, words: str) -> Sequence[Reply]:
        refusal = Reply(400, {"error": {"code": "InvalidRequest", "message": words, "innererror": {"code": words}}})
        return [refusal, self._api.well] if self._api.looks else [refusal]

    def submitted(self) -> Reply:
        return Reply(202, headers={"Operation-Location": f"http://{{host}}{self._api.jobs}/0001"})

    def at_work(self, status: str) -> Reply:
        return Reply(200, self._api.at_work(status))

    def cancelled(self) -> Sequence[Reply]:
        return self._api.cancelled


def name(api: Api) -> str:
    return f"{api.account['provider']}-{api.jobs or 'calls'}-{api.account.get('api_version', '')}"


class TestJobs(LocatedJobContract):
    @pytest.fixture(params=[GA, PREVIEW_32, PREVIEW_31, CLASSIFIER, ANALYZER], ids=name)
    def harness(self, request: pytest.FixtureRequest, replay: Replay, http: PacedClient) -> Azure:
        return Azure(request.param, replay, http)


class TestCalls(RemoteContract):
    @pytest.fixture(params=[HARMS, CUSTOMIZED, CUSTOM], ids=name)
    def harness(self, request: pytest.FixtureRequest, replay: Replay, http: PacedClient) -> Azure:
        return Azure(request.param, replay, http)


class Embedded:
    """A small model of our own; nothing leaves the machine."""

    def __init__(self, folder: Path, processes: int) -> None:
        self.provider = Local(settings.Local(provider="local", model=folder, processes=processes))
        self._classifier = Classifier.load(folder)

    def will_answer(self, documents: Sequence[Document]) -> Sequence[Outcome]:
        return [Classified(self._classifier.classify([document.text])[0]) for document in documents]

    def will_be_well(self) -> None:
        pass

    def sent(self) -> Sequence[bytes]:
        return []


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_model(tmp_path_factory.mktemp("models") / "small")


class TestLocal(ProviderContract):
    @pytest.fixture(params=[0, 1], ids=["threads", "processes"])
    def harness(self, model: Path, request: pytest.FixtureRequest) -> Iterator[Embedded]:
        embedded = Embedded(model, request.param)
        yield embedded
        embedded.provider.close()
