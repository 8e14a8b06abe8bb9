"""What every provider has to keep, whatever is behind it: a suite for each kind, given a harness.

`ProviderContract` is for all of them, `RemoteContract` for those that ask over HTTP, `JobContract` for those, of these,
that answer through jobs, and `LocatedJobContract` where a job is known by a URL. What each API says in its own words, a
harness knows.
"""

import re
import traceback
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from typing import Protocol

import pytest

from service.dispatch.account import CallProvider, JobbingProvider
from service.documents import Classified, Document, Outcome, Position, Record, Refused
from service.errors import CallFailed, JobLost, Misconfigured, Rejected, Throttled, Unavailable
from service.jobs.following import follow
from service.jobs.poll_times import PollTimes
from tests.providers.conftest import Replay, Reply
from tests.providers.networks import bystander, raw
from tests.records import numbered

Provider = CallProvider | JobbingProvider

SECRET = "my password is tr0ub4dor"
HTML = b"<html><body>Please log in</body></html>"
IS_HTML = {"Content-Type": "text/html"}
HARMLESS = "There is nothing the matter."
TEXTS = ["I was charged twice.", "Größe 🙂 \u0000", "cut here: \ud83d", "שלום עולם", "line\r\nbreak\u2028s", "x" * 900]

FAILURES: Mapping[str, type[CallFailed]] = {
    "wrong key": Misconfigured,
    "forbidden": Misconfigured,
    "out of quota": Throttled,
    "not found": Misconfigured,
    "timed out": Unavailable,
    "conflict": Unavailable,
    "throttled": Throttled,
    "server error": Unavailable,
    "busy": Unavailable,
}
"""Refusals of a whole call, and what they are to be taken for."""
WAITS: Sequence[tuple[Mapping[str, str], float | None]] = [
    ({}, None),
    ({"Retry-After": "7"}, 7.0),
    ({"Retry-After": "soon"}, None),
]
"""Headers that ask for a wait, and the seconds that they mean."""
NONSENSE: Iterable[Reply] = [
    Reply(200, {}),
    Reply(200, []),
    Reply(200, b"null", {"Content-Type": "application/json"}),
    Reply(200, b'{"status": "succeed', {"Content-Type": "application/json"}),
    Reply(200, b""),
    Reply(200, b"\xff\xfe", {"Content-Type": "application/json"}),
    Reply(200, HTML, IS_HTML),
    Reply(200, HTML, {"Content-Type": "application/json"}),
    Reply(204),
]
"""What no API answers to what is asked of it."""
PROXIES: Iterable[tuple[int, tuple[type[CallFailed], ...]]] = [
    (400, (Unavailable,)),
    (401, (Misconfigured,)),
    (403, (Misconfigured,)),
    (404, (Misconfigured,)),
    (407, (Misconfigured,)),
    (502, (Unavailable,)),
    (503, (Unavailable,)),
    (504, (Unavailable,)),
]
"""Error pages of something between us and the API."""


def document(text: str = "I was charged twice.", number: int = 0) -> Document:
    return Document(Record(Position("tickets.incoming", 3, 800 + number), 0, None, b""), f"T-{number}", text, None, 0.0)


class Harness(Protocol):
    """A provider that is ready to be asked."""

    @property
    def provider(self) -> Provider:
        """The provider."""
        ...

    def will_answer(self, documents: Sequence[Document]) -> Sequence[Outcome] | None:
        """Arrange that these documents are answered next; gives what to expect, None where that is anybody's guess."""
        ...

    def will_be_well(self) -> None:
        """Arrange that what looks after the provider next finds it well."""
        ...

    def sent(self) -> Sequence[bytes]:
        """The bodies of all that has left this process."""
        ...


class RemoteHarness(Harness, Protocol):
    """A provider whose API is played by `replay`."""

    secret: str
    """What must be seen nowhere."""
    waits: Sequence[tuple[Mapping[str, str], float | None]]
    """The API's ways of asking for a wait, as in `WAITS`."""
    replay: Replay

    def at(self, url: str) -> AbstractAsyncContextManager[Provider]:
        """The same provider, asking somebody else."""
        ...

    def failing(self, name: str) -> Reply:
        """How the API says one of `FAILURES`."""
        ...

    def refusing(self, words: str) -> Sequence[Reply]:
        """What the API answers, request by request, to a document it takes exception to, saying why in these words."""
        ...


class JobHarness(RemoteHarness, Protocol):
    """A provider whose API works through jobs."""

    gone: Sequence[Reply]
    """How the API says that it does not know a job, or not any more."""

    def submitted(self) -> Reply:
        """What the API answers to a job that is handed in."""
        ...

    def at_work(self, status: str) -> Reply:
        """What it says of a job with some status and no results."""
        ...

    def cancelled(self) -> Sequence[Reply]:
        """What it answers, request by request, when a job is given up."""
        ...


async def answer(provider: Provider, documents: Sequence[Document]) -> list[Outcome]:
    """The outcomes of documents, without waiting between polls."""
    if not isinstance(provider, JobbingProvider):
        return await provider.classify(documents)
    job = await provider.submit(documents)
    while (outcomes := await provider.poll(job, numbered(documents))) is None:
        pass
    return outcomes


async def failure(provider: Provider, *documents: Document) -> CallFailed:
    """What a call fails with."""
    with pytest.raises(CallFailed) as caught:
        await answer(provider, documents or [document()])
    return caught.value


def seen(error: BaseException) -> str:
    """All that a person sees of an error."""
    return "".join([repr(error), *traceback.format_exception(error)])


class ProviderContract:
    """Subclass it with a fixture `harness`."""

    async def test_there_is_an_outcome_for_each_document_in_their_order(self, harness: Harness) -> None:
        provider = harness.provider
        documents = [document(text, number) for number, text in enumerate(TEXTS)]
        size = provider.documents_per_call
        for call in (documents[start : start + size] for start in range(0, len(documents), size)):
            expected = harness.will_answer(call)
            outcomes = await answer(provider, call)
            assert len(outcomes) == len(call)
            assert expected is None or outcomes == list(expected)

    async def test_documents_of_one_id_are_answered_each_for_itself(self, harness: Harness) -> None:
        documents = [document(text, number)._replace(id="T-0") for number, text in enumerate(TEXTS[:3])]
        size = harness.provider.documents_per_call
        for call in (documents[start : start + size] for start in range(0, len(documents), size)):
            expected = harness.will_answer(call)
            assert await answer(harness.provider, call) == expected

    async def test_a_full_call_is_answered_in_order(self, harness: Harness) -> None:
        documents = [document(f"text {number}", number) for number in range(harness.provider.documents_per_call)]
        expected = harness.will_answer(documents)
        outcomes = await answer(harness.provider, documents)
        assert len(outcomes) == len(documents)
        assert expected is None or outcomes == list(expected)

    async def test_classes_have_names_and_the_surest_comes_first(self, harness: Harness) -> None:
        harness.will_answer([document()])
        (outcome,) = await answer(harness.provider, [document()])
        assert isinstance(outcome, Classified)
        assert all(isinstance(found.name, str) and found.name for found in outcome.classes)
        scores = [found.score for found in outcome.classes if found.score is not None]
        assert scores == sorted(scores, reverse=True)
        assert all(0 <= score <= 1 for score in scores)
        assert outcome.units >= 0

    async def test_a_probe_costs_nothing(self, harness: Harness) -> None:
        harness.will_be_well()
        await harness.provider.probe()
        assert not any(harness.sent()), "a probe that sends something may be billed"

    async def test_what_one_call_may_hold_is_told(self, harness: Harness) -> None:
        provider = harness.provider
        assert provider.documents_per_call >= 1
        assert provider.characters_per_call >= provider.characters_per_document >= 1
        assert provider.bytes_per_call >= provider.bytes_per_document >= provider.characters_per_document
        assert provider.task in {"single_label", "multi_label"}
        assert provider.model


class RemoteContract(ProviderContract):
    """Subclass it with a fixture `harness`."""

    @pytest.mark.parametrize("name", FAILURES)
    async def test_a_refusal_is_named_by_what_to_do_next(self, name: str, harness: RemoteHarness) -> None:
        harness.replay.answer(harness.failing(name))
        error = await failure(harness.provider)
        assert type(error) is FAILURES[name]
        assert harness.replay.host in str(error), "who refused it is not said"
        if isinstance(error, Misconfigured):
            assert re.search("check|allow", str(error)), "what to do about it is not said"

    @pytest.mark.parametrize("name", ["throttled", "busy"])
    async def test_the_wait_that_is_asked_for_is_passed_on(self, name: str, harness: RemoteHarness) -> None:
        refusal = harness.failing(name)
        for headers, seconds in harness.waits:
            harness.replay.answer(replace(refusal, headers={**refusal.headers, **headers}))
            error = await failure(harness.provider)
            assert isinstance(error, Throttled | Unavailable)
            assert error.retry_after == seconds

    @pytest.mark.parametrize("reply", NONSENSE)
    async def test_nonsense_is_an_outage(self, reply: Reply, harness: RemoteHarness) -> None:
        harness.replay.answer(reply)
        assert type(await failure(harness.provider)) is Unavailable

    @pytest.mark.parametrize(("status", "kinds"), PROXIES)
    async def test_a_page_of_somebody_else_blames_no_document(
        self, status: int, kinds: tuple[type[CallFailed], ...], harness: RemoteHarness
    ) -> None:
        harness.replay.answer(Reply(status, HTML, IS_HTML))
        assert isinstance(await failure(harness.provider), kinds)

    @pytest.mark.parametrize("status", [301, 302, 307, 308])
    async def test_a_redirect_is_not_followed(self, status: int, harness: RemoteHarness) -> None:
        async with bystander() as (other, heard):
            harness.replay.answer(Reply(status, headers={"Location": f"http://{other}/"}))
            assert type(await failure(harness.provider)) is Unavailable
            assert not heard

    @pytest.mark.parametrize("content_type", ["text/plain", "text/html", ""])
    async def test_answers_are_read_whatever_type_they_are_said_to_be(
        self, content_type: str, harness: RemoteHarness
    ) -> None:
        expected = harness.will_answer([document()])
        replies = [
            replace(reply, headers={**reply.headers, "Content-Type": content_type}) for reply in harness.replay.replies
        ]
        harness.replay.replies.clear()
        harness.replay.answer(*replies)
        assert await answer(harness.provider, [document()]) == expected

    async def test_a_closed_port_is_an_outage(self, harness: RemoteHarness) -> None:
        async with raw(b"") as host:
            pass
        async with harness.at(f"http://{host}") as provider:
            assert type(await failure(provider)) is Unavailable
            with pytest.raises(Unavailable, match=host):
                await provider.probe()

    @pytest.mark.parametrize(
        "sent",
        [
            b"",
            b"HTTP/1.1 200 O",
            b'HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n{"status"',
            b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n{",
            b"SSH-2.0-OpenSSH_9.2\r\n\r\n",
        ],
    )
    async def test_an_answer_that_breaks_off_is_an_outage(self, sent: bytes, harness: RemoteHarness) -> None:
        async with raw(sent) as host, harness.at(f"http://{host}") as provider:
            assert type(await failure(provider)) is Unavailable

    async def test_a_document_that_is_refused_is_found_and_not_quoted(self, harness: RemoteHarness) -> None:
        harness.replay.answer(*harness.refusing(f"cannot read {SECRET!r}"))
        refusal: Outcome | CallFailed
        try:
            (refusal,) = await answer(harness.provider, [document(SECRET)])
        except CallFailed as error:
            refusal = error
        assert isinstance(refusal, Refused | Rejected)
        assert "tr0ub4dor" not in (seen(refusal) if isinstance(refusal, Rejected) else refusal.message)

    @pytest.mark.parametrize("name", sorted(FAILURES.keys() - {"wrong key", "forbidden", "out of quota", "throttled"}))
    async def test_the_text_of_a_document_is_in_no_error(self, name: str, harness: RemoteHarness) -> None:
        refusal = harness.failing(name)
        quoting = Reply(refusal.status, {"error": {"code": SECRET, "message": ""}, "message": "", "text": SECRET})
        harness.replay.answer(quoting)
        assert "tr0ub4dor" not in seen(await failure(harness.provider, document(SECRET)))

    @pytest.mark.parametrize("body", [SECRET.encode(), {"status": SECRET, "error": SECRET, "result": [SECRET]}])
    async def test_the_text_of_a_document_is_in_no_error_about_nonsense(
        self, body: object, harness: RemoteHarness
    ) -> None:
        harness.replay.answer(Reply(200, body))
        assert "tr0ub4dor" not in seen(await failure(harness.provider, document(SECRET)))

    @pytest.mark.parametrize("name", FAILURES)
    async def test_the_key_is_seen_nowhere(
        self, name: str, harness: RemoteHarness, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level("INFO")
        refusal, key = harness.failing(name), harness.secret
        telling = {"error": {"code": key, "message": f"the key {key} is wrong"}, "message": key, "__type": key}
        harness.replay.answer(Reply(refusal.status, telling, {"X-Key": key}))
        error = await failure(harness.provider)
        assert key[:12] not in seen(error) + repr(harness.provider) + str(vars(harness.provider)) + caplog.text

    @pytest.mark.parametrize("name", sorted(FAILURES.keys() - {"not found"}))  # which may be what a probe asks after
    async def test_a_probe_fails_as_a_call_does(self, name: str, harness: RemoteHarness) -> None:
        harness.replay.answer(harness.failing(name))
        with pytest.raises(FAILURES[name]) as caught:
            await harness.provider.probe()
        assert type(caught.value) is FAILURES[name]

    @pytest.mark.parametrize("reply", [Reply(200, HTML, IS_HTML), Reply(404, HTML, IS_HTML), Reply(200, {})])
    async def test_a_probe_sees_who_is_not_the_service(self, reply: Reply, harness: RemoteHarness) -> None:
        harness.replay.answer(reply)
        with pytest.raises((Misconfigured, Unavailable)):
            await harness.provider.probe()


class JobContract(RemoteContract):
    """Subclass it with a fixture `harness`."""

    @pytest.mark.parametrize(
        "status", ["notStarted", "Running", "cancelling", "IN_PROGRESS", "queued for tea", "ready"]
    )
    async def test_a_status_nobody_knows_is_pending(self, status: str, harness: JobHarness) -> None:
        harness.replay.answer(harness.submitted(), *[harness.at_work(status)] * 3)
        provider = jobbing(harness)
        job = await provider.submit([document()])
        for _ in range(3):
            assert await provider.poll(job, numbered([document()])) is None

    async def test_a_job_is_pending_until_its_deadline_and_lost_then(self, harness: JobHarness) -> None:
        harness.replay.answer(harness.submitted(), harness.at_work("queued for tea"), *harness.cancelled())
        provider, documents = jobbing(harness), [document()]
        job = await provider.submit(documents)
        with pytest.raises(JobLost, match="job_deadline"):
            await follow(provider, job, numbered(documents), PollTimes(0.002), deadline=0.0, setback=lambda _: None)

    async def test_a_job_that_expired_or_is_unknown_is_lost(self, harness: JobHarness) -> None:
        for reply in harness.gone:
            harness.replay.answer(harness.submitted(), reply)
            assert type(await failure(harness.provider)) is JobLost

    @pytest.mark.parametrize("status", ["failed", "Failed", "cancelled", "Canceled"])
    async def test_a_job_that_ends_without_results_is_lost(self, status: str, harness: JobHarness) -> None:
        harness.replay.answer(harness.submitted(), harness.at_work(status))
        assert type(await failure(harness.provider)) is JobLost

    @pytest.mark.parametrize("name", FAILURES)
    async def test_a_poll_that_fails_blames_no_document(self, name: str, harness: JobHarness) -> None:
        harness.replay.answer(harness.submitted(), harness.failing(name))
        assert type(await failure(harness.provider)) is (JobLost if name == "not found" else FAILURES[name])

    @pytest.mark.parametrize("reply", NONSENSE)
    async def test_a_poll_that_gives_nonsense_is_an_outage(self, reply: Reply, harness: JobHarness) -> None:
        harness.replay.answer(harness.submitted(), reply)
        assert type(await failure(harness.provider)) is Unavailable

    async def test_a_failing_poll_does_not_lose_the_job(self, harness: JobHarness) -> None:
        provider, setbacks = jobbing(harness), []
        expected = harness.will_answer([document()])
        submitted, *polls = harness.replay.replies
        harness.replay.replies.clear()
        harness.replay.answer(submitted, harness.failing("busy"), *polls)
        job = await provider.submit([document()])
        outcomes: list[Outcome] | None = None
        while outcomes is None:
            try:
                outcomes = await provider.poll(job, numbered([document()]))
            except Unavailable as error:
                setbacks.append(error)
        assert (outcomes, len(setbacks)) == (expected, 1)

    async def test_a_job_can_be_given_up(self, harness: JobHarness) -> None:
        harness.replay.answer(harness.submitted(), *harness.cancelled())
        provider = jobbing(harness)
        await provider.cancel(await provider.submit([document()]))


class LocatedJobContract(JobContract):
    """Subclass it with a fixture `harness`."""

    async def test_a_job_at_another_address_is_lost_and_nobody_is_asked(self, harness: JobHarness) -> None:
        async with bystander() as (other, heard):
            for ask in (
                jobbing(harness).poll(f"http://{other}/jobs/1", numbered([document()])),
                jobbing(harness).cancel(f"http://{other}/jobs/1"),
            ):
                with pytest.raises(JobLost):
                    await ask
            assert not heard


def jobbing(harness: JobHarness) -> JobbingProvider:
    assert isinstance(harness.provider, JobbingProvider)
    return harness.provider
