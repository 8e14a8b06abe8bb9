"""Whatever an API of Azure puts in place of what it says, a document has an outcome, or the call fails as calls may."""

import copy
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest

from service.dispatch.account import JobbingProvider
from service.documents import Outcome
from service.errors import CallFailed
from service.transport.http import PacedClient
from tests.providers.conftest import Replay, Reply
from tests.providers.contract import Provider, document
from tests.providers.test_contract import (
    ANALYZER,
    CLASSIFIER,
    CUSTOM,
    CUSTOMIZED,
    GA,
    HARMS,
    PREVIEW_31,
    PREVIEW_32,
    Api,
    Azure,
    name,
)
from tests.records import numbered

GONE = object()
ODD: list[Any] = [
    GONE, None, True, -1, 0, 7, 1.5, 1e308, 10**18, "", "x", "2", "\u0000", "\u202e", [], [[]], [None], ["x"], [7],
    {}, {"": {}}, {"a": None}, [{}], [{"id": "0"}], [{"id": []}],
]  # fmt: skip


def spoilt(body: Any) -> Iterator[Any]:
    """The body with something odd in each of its places, in turn."""
    yield from (odd for odd in ODD if odd is not GONE)
    for path in places(body):
        for odd in ODD:
            other = copy.deepcopy(body)
            within = other
            for step in path[:-1]:
                within = within[step]
            if odd is GONE:
                del within[path[-1]]
            else:
                within[path[-1]] = odd
            yield other


def places(body: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    items = body.items() if isinstance(body, dict) else enumerate(body) if isinstance(body, list) else ()
    for step, part in items:
        yield (*path, step)
        yield from places(part, (*path, step))


async def asked(provider: Provider) -> None:
    """Ask for a document, and see that there is an outcome for it if there are any."""
    documents, outcomes = [document()], None
    with suppress(CallFailed):
        if isinstance(provider, JobbingProvider):
            job = await provider.submit(documents)
            outcomes = await provider.poll(job, numbered(documents))
        else:
            outcomes = await provider.classify(documents)
    assert outcomes is None or len(outcomes) == 1
    assert all(isinstance(outcome, Outcome) for outcome in outcomes or ())


@pytest.mark.parametrize("api", [GA, PREVIEW_32, PREVIEW_31, CLASSIFIER, ANALYZER, HARMS, CUSTOMIZED, CUSTOM], ids=name)
async def test_what_azure_answers(api: Api, replay: Replay, http: PacedClient) -> None:
    harness = Azure(api, replay, http)
    for body in spoilt(api.done([document()])):
        replay.answer(*([harness.submitted()] if api.jobs else []), Reply(200, body))
        await asked(harness.provider)
        assert not replay.replies


@pytest.mark.parametrize("api", [CLASSIFIER, ANALYZER, HARMS, CUSTOMIZED, CUSTOM], ids=name)
async def test_what_azure_answers_to_a_look(api: Api, replay: Replay, http: PacedClient) -> None:
    harness = Azure(api, replay, http)
    for body in spoilt(api.well.body):
        replay.answer(Reply(200, body))
        with suppress(CallFailed):
            await harness.provider.probe()


@pytest.mark.parametrize("api", [GA, PREVIEW_32, PREVIEW_31, CLASSIFIER, ANALYZER, HARMS, CUSTOM], ids=name)
async def test_how_azure_refuses(api: Api, replay: Replay, http: PacedClient) -> None:
    harness = Azure(api, replay, http)
    error = {"code": "InvalidRequest", "message": "m", "innererror": {"code": "InvalidDocument", "innererror": {}}}
    for status in (400, 429):
        for body in spoilt({"error": error}):
            replay.answer(Reply(status, body), *([harness._api.well] if api.looks and status == 400 else []))
            await asked(harness.provider)
            replay.replies.clear()
