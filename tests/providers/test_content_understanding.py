from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from service import settings
from service.documents import Classified, ClassScore, Outcome
from service.errors import CallFailed, JobLost, Misconfigured, Rejected, Throttled, Unavailable
from service.providers.content_understanding import ContentUnderstanding, _classified
from service.transport.http import PacedClient
from tests.providers.conftest import Replay, Reply
from tests.providers.contract import document
from tests.providers.documented import Documented, files
from tests.records import numbered

KEY = "4n4zur3k3yth4t1sn0tt0b3s33n"
MAY, NOVEMBER = "2025-05-01-preview", "2025-11-01"
NAMES = {MAY: {"classifier": "myClassifier"}, NOVEMBER: {"analyzer": "myc"}}
both = pytest.mark.parametrize("version", [MAY, NOVEMBER])


def understanding(version: str, replay: Replay, http: PacedClient, **changes: Any) -> ContentUnderstanding:
    given: dict[str, Any] = {"endpoint": replay.url, "key": KEY, "api_version": version, **NAMES[version], **changes}
    return ContentUnderstanding(settings.ContentUnderstanding(provider="content_understanding", **given), http)


async def polled(replay: Replay, http: PacedClient, body: object) -> list[Outcome] | None:
    replay.answer(Reply(200, body))
    return await understanding(NOVEMBER, replay, http).poll(f"{replay.url}/jobs/1", numbered([document()]))


def done(*contents: object, **more: object) -> dict[str, object]:
    return {"status": "Succeeded", "result": {"contents": contents, **more}}


# The documented examples


async def came_of(name: str, replay: Replay, http: PacedClient) -> list[Outcome] | CallFailed | None:
    """What comes of the exchanges of a file in the end, after its requests were made."""
    documented = Documented.read(f"content_understanding/{name}")
    provider = understanding(documented.version, replay, http)
    replay.answer(*documented.replies)
    job = ""
    came: list[Outcome] | CallFailed | None = None
    for request in documented.requests:
        try:
            if request["method"] == "POST":
                job = await provider.submit([document(request["body"])])
            elif request["method"] == "DELETE":
                await provider.cancel(job)
            elif "Results/" in request["path"]:
                came = await provider.poll(job, numbered([document()]))
            else:
                await provider.probe()
        except CallFailed as error:
            came = error
    documented.check(replay, KEY)
    return came


@pytest.mark.parametrize("name", files("content_understanding"))
async def test_the_requests_are_those_documented(name: str, replay: Replay, http: PacedClient) -> None:
    assert await came_of(name.partition("/")[2], replay, http)


async def test_a_document_has_the_class_of_its_content(replay: Replay, http: PacedClient) -> None:
    assert await came_of(f"{MAY}/classify.json", replay, http) == [Classified((ClassScore("receipt", None),), units=1)]


async def test_a_document_that_is_split_has_the_classes_of_its_contents_once_each(
    replay: Replay, http: PacedClient
) -> None:
    found = tuple(ClassScore(name, None) for name in ("invoice", "receipt", "$OTHER"))
    assert await came_of(f"{MAY}/split.json", replay, http) == [Classified(found, units=6)]


async def test_an_analyzer_classifies_as_well(replay: Replay, http: PacedClient) -> None:
    assert await came_of(f"{NOVEMBER}/analyze.json", replay, http) == [
        Classified((ClassScore("Invoice", None),), units=1)
    ]


async def test_a_content_that_is_split_has_the_classes_of_its_segments(replay: Replay, http: PacedClient) -> None:
    found = (ClassScore("Invoice", None), ClassScore("Letter", None))
    assert await came_of(f"{NOVEMBER}/segments.json", replay, http) == [Classified(found, units=1)]


async def test_a_job_that_fails_by_itself_is_lost(replay: Replay, http: PacedClient) -> None:
    error = await came_of(f"{MAY}/failed.json", replay, http)
    assert type(error) is JobLost
    assert "failed without results (InternalServerError)" in str(error)


async def test_a_job_that_fails_for_its_document_finds_it(replay: Replay, http: PacedClient) -> None:
    error = await came_of(f"{NOVEMBER}/failed.json", replay, http)
    assert type(error) is Rejected
    assert "X in InvalidRequest: the document is empty" in str(error)


async def test_what_comes_of_a_job_that_is_given_up_is_deleted(replay: Replay, http: PacedClient) -> None:
    assert type(await came_of(f"{NOVEMBER}/deleted.json", replay, http)) is JobLost


# Asking


@both
async def test_a_text_goes_out_as_it_is(version: str, replay: Replay, http: PacedClient) -> None:
    replay.answer(Reply(202, headers={"Operation-Location": "http://{host}/jobs/1"}))
    await understanding(version, replay, http).submit([document("Größe 🙂\r\n\u0000 cut: \ud83d")])
    (request,) = replay.requests
    assert request.body == "Größe 🙂\r\n\u0000 cut: \ufffd".encode()
    assert request.headers["content-type"] == "application/octet-stream"


@both
@pytest.mark.parametrize(
    ("looked_at", "kind"),
    [
        (Reply(200, {"status": "ready"}), Rejected),
        (Reply(200, {"status": "creating"}), Unavailable),
        (Reply(200, {"status": "failed"}), Misconfigured),
        (Reply(404, {"error": {"code": "NotFound"}}), Misconfigured),
        (Reply(429), Throttled),
    ],
)
async def test_a_document_is_not_blamed_before_what_is_asked_has_been_looked_at(
    version: str, looked_at: Reply, kind: type[CallFailed], *, replay: Replay, http: PacedClient
) -> None:
    replay.answer(Reply(400, {"error": {"code": "InvalidRequest"}}), looked_at)
    with pytest.raises(kind) as caught:
        await understanding(version, replay, http).submit([document()])
    assert type(caught.value) is kind


@both
@pytest.mark.parametrize(
    ("status", "kind", "words"),
    [
        ("creating", Unavailable, r"is not ready yet \(creating\)"),
        ("having tea", Unavailable, "is not ready yet"),
        ("deleting", Misconfigured, "is deleting: check"),
        ("failed", Misconfigured, "is failed: check"),
    ],
)
async def test_a_probe_sees_how_far_it_is(
    version: str, status: str, kind: type[CallFailed], words: str, *, replay: Replay, http: PacedClient
) -> None:
    replay.answer(Reply(200, {"status": status}))
    with pytest.raises(kind, match=words):
        await understanding(version, replay, http).probe()


async def test_a_name_nobody_knows_is_called_as_the_settings_call_it(replay: Replay, http: PacedClient) -> None:
    replay.answer(*[Reply(404, {"error": {"code": "NotFound", "message": "No such thing."}})] * 4)
    for version, setting in ((MAY, "classifier"), (NOVEMBER, "analyzer")):
        with pytest.raises(Misconfigured, match=f"No such thing.*check {setting} and endpoint"):
            await understanding(version, replay, http).submit([document()])
        with pytest.raises(Misconfigured, match=f"check {setting} and endpoint"):
            await understanding(version, replay, http).probe()


async def test_a_text_that_is_too_long_is_not_sent(replay: Replay, http: PacedClient) -> None:
    with pytest.raises(Rejected, match="1,000,001 bytes in UTF-8, and 1,000,000 are the most"):
        await understanding(MAY, replay, http).submit([document("ß" * 500_000 + "s")])
    assert not replay.requests


# Reading results


@pytest.mark.parametrize(
    ("contents", "names"),
    [
        ([{"category": "a"}, {"category": "b"}, {"category": "a"}], ["a", "b"]),
        ([{"segments": [{"category": "b"}, {"category": "a"}]}, {"category": "a"}], ["b", "a"]),
        ([{"category": "a", "segments": None}], ["a"]),
        ([{"kind": "document"}], []),
        ([{"category": "$OTHER"}], ["$OTHER"]),
    ],
)
async def test_the_first_class_is_that_of_the_first_part(
    contents: list[object], names: list[str], replay: Replay, http: PacedClient
) -> None:
    (outcome,) = await polled(replay, http, done(*contents)) or []
    assert isinstance(outcome, Classified)
    assert [found.name for found in outcome.classes] == names
    assert all(found.score is None for found in outcome.classes)


async def test_warnings_are_kept_by_their_codes(replay: Replay, http: PacedClient) -> None:
    body = done({"category": "a"}, warnings=[{"code": "Truncated", "message": "It was long."}, {"message": "?"}])
    (outcome,) = await polled(replay, http, body) or []
    assert isinstance(outcome, Classified)
    assert outcome.warnings == ("Truncated",)


async def test_a_finished_job_without_any_content_is_lost(replay: Replay, http: PacedClient) -> None:
    with pytest.raises(JobLost, match=r"found nothing in tickets\.incoming-3-800"):
        await polled(replay, http, done())


@pytest.mark.parametrize(
    "body",
    [
        {"status": "Succeeded"},
        {"status": "Succeeded", "result": {}},
        {"status": "Succeeded", "result": {"contents": None}},
        done("invoice"),
        done({"category": 5}),
        done({"category": ""}),
        done({"category": ["a"]}),
        done({"segments": "a"}),
        done({"category": "a", "endPageNumber": "1"}),
        done({"category": "a"}, warnings=5),
        {"status": 3},
    ],
)
async def test_results_of_another_shape_are_an_outage(body: object, replay: Replay, http: PacedClient) -> None:
    with pytest.raises(Unavailable, match="answered with") as caught:
        await polled(replay, http, body)
    assert type(caught.value) is Unavailable


WORDS = ["result", "contents", "segments", "category", "endPageNumber", "warnings", "code", "innererror"]
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers(-1, 3) | st.floats() | st.sampled_from(["", "a", "$OTHER"]),
    lambda deeper: st.lists(deeper, max_size=3) | st.dictionaries(st.sampled_from(WORDS), deeper, max_size=4),
)


@hypothesis_settings(max_examples=300)
@given(result=st.dictionaries(st.sampled_from(WORDS), ANYTHING))
def test_whatever_a_result_holds_means_something(result: dict[str, Any]) -> None:
    try:
        outcome = _classified({"result": result})
    except (AttributeError, KeyError, TypeError, ValueError):
        return
    if outcome is not None:
        assert all(isinstance(name, str) and name and score is None for name, score, _ in outcome.classes)
        assert isinstance(outcome.units, int)


@both
async def test_what_it_is_can_be_seen_but_not_its_key(version: str, replay: Replay, http: PacedClient) -> None:
    provider = understanding(version, replay, http, task="multi_label")
    assert repr(provider) == f"ContentUnderstanding('{replay.host}', '{provider.model}', 'multi_label')"
    assert provider.model == ("classifiers/myClassifier" if version == MAY else "analyzers/myc")
    assert (provider.documents_per_call, provider.characters_per_document) == (1, 1_000_000)
