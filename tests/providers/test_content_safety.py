import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from service import settings
from service.documents import Classified, ClassScore, Outcome, Reason, Refused
from service.errors import CallFailed, Misconfigured, Rejected, Throttled, Unavailable
from service.providers.content_safety import (
    ContentSafety,
    CustomCategory,
    CustomizedCategory,
    HarmCategories,
    _question,
)
from service.transport.http import PacedClient
from tests.providers.conftest import Replay, Reply
from tests.providers.contract import document
from tests.providers.documented import Documented, files

KEY = "4n4zur3k3yth4t1sn0tt0b3s33n"
MAY, SEPTEMBER = "2024-05-15-preview", "2024-09-15-preview"
NOTHING = Classified((), units=1)


def branch(endpoint: str = "https://contoso.cognitiveservices.azure.com", **changes: Any) -> settings.ContentSafety:
    return settings.ContentSafety(provider="content_safety", endpoint=endpoint, key=KEY, **changes)


def custom(version: str, **changes: Any) -> dict[str, Any]:
    return {"category": "DrugAbuse", "api_version": version, **changes}


async def classified(replay: Replay, http: PacedClient, body: object, text: str = "Hello.", **changes: Any) -> Outcome:
    replay.answer(Reply(200, body))
    (outcome,) = await ContentSafety(branch(replay.url, **changes), http).classify([document(text)])
    return outcome


def analysis(*harms: tuple[object, object], **more: object) -> dict[str, object]:
    return {"categoriesAnalysis": [{"category": name, "severity": severity} for name, severity in harms], **more}


def hit(name: object) -> dict[str, object]:
    return {"blocklistName": name, "blocklistItemId": "1", "blocklistItemText": "foo"}


# The documented examples


def asked_in(documented: Documented) -> dict[str, Any]:
    """The settings with which the requests of a file are made."""
    sent: dict[str, Any] = next((request["body"] for request in documented.requests if request["body"]), {})
    categories = sent.get("customizedCategories") or [sent]
    named = categories[0].get("categoryName")
    if named or not sent:
        version = categories[0].get("version") if sent else 1
        return {"api_version": documented.version, "category": named or "DrugAbuse", "category_version": version}
    given = {
        "harm_categories": sent["categories"],
        "output_type": sent["outputType"],
        "blocklists": sent.get("blocklistNames", ()),
        "halt_on_blocklist_hit": sent.get("haltOnBlocklistHit", False),
    }
    return {"api_version": documented.version, **given}


async def said(name: str, replay: Replay, http: PacedClient) -> list[Outcome | CallFailed | None]:
    """What comes of each request of a file that the client makes by itself, in order."""
    documented = Documented.read(name)
    provider = ContentSafety(branch(replay.url, **asked_in(documented)), http)
    replay.answer(*documented.replies)
    came: list[Outcome | CallFailed | None] = []
    while replay.replies:
        request = documented.requests[len(replay.requests)]
        try:
            if request["method"] == "GET":
                await provider.probe()
                came.append(None)
            else:
                came += await provider.classify([document(request["body"]["text"])])
        except CallFailed as error:
            came.append(error)
    documented.check(replay, KEY)
    return came


@pytest.mark.parametrize("name", files("content_safety", "*/client/*.json"))
async def test_the_requests_are_those_documented(name: str, replay: Replay, http: PacedClient) -> None:
    assert await said(name, replay, http)


@pytest.mark.parametrize("version", ["2023-10-01", "2024-09-01"])
async def test_harms_come_with_their_severity_the_worst_first(version: str, replay: Replay, http: PacedClient) -> None:
    harmless, harmful = await said(f"content_safety/{version}/client/analyze.json", replay, http)
    assert harmless == NOTHING
    assert harmful == Classified((ClassScore("Violence", None, 4), ClassScore("Hate", None, 2)), units=1)


async def test_a_blocklist_that_is_hit_is_a_class_before_any_harm(replay: Replay, http: PacedClient) -> None:
    clean, halted, probed = await said("content_safety/2024-09-01/client/blocklists.json", replay, http)
    assert clean == Classified((ClassScore("Hate", None, 3),), units=1)
    assert halted == Classified((ClassScore("blocklist/slurs", None),), units=1)
    assert probed is None


def analyses() -> Iterator[tuple[str, dict[str, Any]]]:
    """Every analysis that was documented for the server."""
    for name in files("content_safety"):
        for exchange in Documented.read(name).exchanges:
            if "/text:analyze" in exchange["request"]["path"] and exchange["response"]["status"] == 200:
                yield name, exchange


def test_what_the_server_is_to_answer_is_understood() -> None:
    read = 0
    for name, exchange in analyses():
        answer, (_, version, _) = exchange["response"]["body"], name.split("/")
        question = _question(branch(**custom(version) if "preview" in version else {}))
        assert all(found.name and found.score is None for found in question.classes(answer))
        read += 1
    assert read >= 5


REFUSALS: list[tuple[type[CallFailed], float | None, str]] = [
    (Misconfigured, None, "401.*check key"),
    (Misconfigured, None, "404.*check blocklists, api_version and endpoint"),
    (Throttled, 1.0, "429 TooManyRequests"),
    (Unavailable, None, "500 InternalError"),
    (Unavailable, 2.0, "503 ServerBusy"),
]


async def test_documented_refusals_are_named_by_what_to_do_next(replay: Replay, http: PacedClient) -> None:
    errors = await said("content_safety/2024-09-01/client/refusals.json", replay, http)
    for error, (kind, retry_after, words) in zip(errors, REFUSALS, strict=True):
        assert type(error) is kind
        assert re.search(words, str(error))
        assert getattr(error, "retry_after", None) == retry_after


async def test_a_text_that_is_refused_is_a_value_once_nothing_else_is_at_fault(
    replay: Replay, http: PacedClient
) -> None:
    (outcome,) = await said("content_safety/2024-09-01/client/too_long.json", replay, http)
    assert isinstance(outcome, Refused)
    assert outcome.reason is Reason.REFUSED_BY_CLASSIFIER
    assert "400 InvalidRequestBody: its text is empty, too long" in outcome.message


@pytest.mark.parametrize("name", [f"{MAY}/client/analyze.json", f"{SEPTEMBER}/client/analyze.json"])
async def test_a_custom_category_is_there_or_not(name: str, replay: Replay, http: PacedClient) -> None:
    probed, yes, no = await said(f"content_safety/{name}", replay, http)
    assert probed is None
    assert yes == Classified((ClassScore("DrugAbuse", None),), units=1)
    assert no == NOTHING


async def test_without_a_version_the_latest_is_asked(replay: Replay, http: PacedClient) -> None:
    probed, outcome = await said(f"content_safety/{MAY}/client/latest.json", replay, http)
    assert probed is None
    assert isinstance(outcome, Classified)


async def test_a_category_that_is_not_built_is_no_texts_fault(replay: Replay, http: PacedClient) -> None:
    (error,) = await said(f"content_safety/{MAY}/client/unbuilt.json", replay, http)
    assert isinstance(error, Misconfigured)
    assert "DrugAbuse/1 is not built (buildnotstarted): build it, or change category_version" in str(error)


async def test_a_category_that_is_being_built_is_waited_for(replay: Replay, http: PacedClient) -> None:
    (error,) = await said(f"content_safety/{SEPTEMBER}/client/building.json", replay, http)
    assert isinstance(error, Unavailable)


# Reading answers


async def test_every_blocklist_is_one_class_however_often_it_is_hit(replay: Replay, http: PacedClient) -> None:
    body = analysis(("Hate", 1), ("Sexual", 5), blocklistsMatch=[hit("b"), hit("a"), hit("b")])
    outcome = await classified(replay, http, body, blocklists=["a", "b"])
    assert isinstance(outcome, Classified)
    assert [(name, severity) for name, _, severity in outcome.classes] == [
        ("blocklist/b", None),
        ("blocklist/a", None),
        ("Sexual", 5),
        ("Hate", 1),
    ]
    assert "foo" not in repr(outcome)


async def test_a_hit_that_halts_need_not_have_harms_at_all(replay: Replay, http: PacedClient) -> None:
    outcome = await classified(replay, http, {"blocklistsMatch": [hit("a")]}, blocklists=["a"])
    assert outcome == Classified((ClassScore("blocklist/a", None),), units=1)


@pytest.mark.parametrize(("length", "units"), [(1, 1), (1000, 1), (1001, 2), (10_000, 10)])
async def test_a_unit_is_a_thousand_characters_begun(
    length: int, units: int, replay: Replay, http: PacedClient
) -> None:
    assert await classified(replay, http, analysis(), text="ß" * length) == Classified((), units)


@pytest.mark.parametrize(
    "body",
    [
        {"blocklistsMatch": []},
        {"categoriesAnalysis": None},
        {"categoriesAnalysis": [5]},
        {"categoriesAnalysis": {"Hate": 2}},
        analysis(("Hate", None)),
        analysis(("Hate", "2")),
        analysis(("Hate", 8)),
        analysis(("Hate", -1)),
        analysis(("Hate", True)),
        analysis(("Hate", 2.0)),
        analysis(("", 2)),
        analysis((5, 2)),
        analysis(blocklistsMatch=[hit(None)]),
        analysis(blocklistsMatch=["slurs"]),
        analysis(blocklistsMatch=5),
    ],
)
async def test_an_analysis_of_another_shape_is_an_outage(body: object, replay: Replay, http: PacedClient) -> None:
    with pytest.raises(Unavailable, match="an analysis"):
        await classified(replay, http, body)


@pytest.mark.parametrize(
    ("version", "body"),
    [
        (MAY, analysis(("Hate", 6))),
        (MAY, {"textCustomizedCategoriesAnalysis": []}),
        (MAY, {"textCustomizedCategoriesAnalysis": [{"detected": "yes"}]}),
        (MAY, {"textCustomizedCategoriesAnalysis": [{"detected": True}, {"detected": True}]}),
        (MAY, {"customCategoryAnalysis": {"detected": True}}),
        (SEPTEMBER, {"customCategoryAnalysis": {}}),
        (SEPTEMBER, {"customCategoryAnalysis": {"detected": 1}}),
        (SEPTEMBER, {"customCategoryAnalysis": None}),
        (SEPTEMBER, {"textCustomizedCategoriesAnalysis": [{"detected": True}]}),
    ],
)
async def test_a_category_that_is_answered_otherwise_is_an_outage(
    version: str, body: object, replay: Replay, http: PacedClient
) -> None:
    with pytest.raises(Unavailable, match="an analysis of another shape"):
        await classified(replay, http, body, **custom(version))


WORDS = ["categoriesAnalysis", "blocklistsMatch", "category", "severity", "blocklistName", "detected"]
WORDS += ["customCategoryAnalysis", "textCustomizedCategoriesAnalysis"]
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers(-1, 9) | st.floats() | st.sampled_from(["", "Hate"]),
    lambda deeper: st.lists(deeper, max_size=3) | st.dictionaries(st.sampled_from(WORDS), deeper, max_size=4),
)
MODES = [
    HarmCategories(branch()),
    CustomizedCategory(branch(**custom(MAY))),
    CustomCategory(branch(**custom(SEPTEMBER))),
]


@pytest.mark.parametrize("question", MODES)
@hypothesis_settings(max_examples=150)
@given(answer=st.dictionaries(st.sampled_from(WORDS), ANYTHING))
def test_whatever_an_answer_holds_means_something(
    question: HarmCategories | CustomCategory, answer: dict[str, Any]
) -> None:
    try:
        classes = question.classes(answer)
    except (AttributeError, KeyError, TypeError, ValueError):
        return
    assert all(isinstance(name, str) and name and score is None for name, score, _ in classes)
    assert all(severity is None or 1 <= severity <= 7 for *_, severity in classes)


# Asking


async def test_half_an_emoji_is_replaced(replay: Replay, http: PacedClient) -> None:
    await classified(replay, http, analysis(), text="cut here: \ud83d")
    assert json.loads(replay.requests[0].body)["text"] == "cut here: \ufffd"


async def test_several_documents_are_several_calls(replay: Replay, http: PacedClient) -> None:
    replay.answer(Reply(200, analysis(("Hate", 2))), Reply(200, analysis()))
    outcomes = await ContentSafety(branch(replay.url), http).classify([document("one", 0), document("two", 1)])
    assert outcomes == [Classified((ClassScore("Hate", None, 2),), units=1), NOTHING]


@pytest.mark.parametrize(
    ("refusal", "looked_at", "changes", "kind"),
    [
        (400, Reply(404, {"error": {"code": "ResourceNotFound"}}), custom(MAY), Misconfigured),
        (400, Reply(503), {}, Unavailable),
        (413, Reply(429), {}, Throttled),
        (400, Reply(404, {"error": {"code": "ResourceNotFound"}}), {"blocklists": ["gone"]}, Misconfigured),
    ],
)
async def test_a_text_is_not_blamed_before_what_is_asked_has_been_looked_at(
    refusal: int,
    looked_at: Reply,
    changes: dict[str, Any],
    kind: type[CallFailed],
    *,
    replay: Replay,
    http: PacedClient,
) -> None:
    replay.answer(Reply(refusal, {"error": {"code": "InvalidRequestBody"}}), looked_at)
    with pytest.raises(kind) as caught:
        await ContentSafety(branch(replay.url, **changes), http).classify([document()])
    assert not isinstance(caught.value, Rejected)


async def test_every_blocklist_is_looked_for(replay: Replay, http: PacedClient) -> None:
    replay.answer(Reply(200, {"blocklistName": "a"}), Reply(404, {"error": {"code": "ResourceNotFound"}}))
    with pytest.raises(Misconfigured, match="check blocklists"):
        await ContentSafety(branch(replay.url, blocklists=["a", "b"]), http).probe()
    assert [request.path.rpartition("/")[2] for request in replay.requests] == ["a", "b"]


@pytest.mark.parametrize("status", ["BuildFailed", "Failed", "DeleteFailed", "Deleting"])
async def test_a_category_that_will_never_be_built_is_a_setting_to_change(
    status: str, replay: Replay, http: PacedClient
) -> None:
    replay.answer(Reply(200, {"value": [{"version": 1, "status": status}]}))
    with pytest.raises(Misconfigured, match="change category_version"):
        await ContentSafety(branch(replay.url, **custom(MAY)), http).probe()


@pytest.mark.parametrize("status", ["Building", "Running", "NotStarted", "having tea"])
async def test_a_category_in_any_other_state_may_yet_be_built(status: str, replay: Replay, http: PacedClient) -> None:
    replay.answer(Reply(200, {"value": [{"version": 1, "status": status}]}))
    with pytest.raises(Unavailable, match="still being built"):
        await ContentSafety(branch(replay.url, **custom(MAY)), http).probe()


async def test_the_latest_version_is_that_with_the_highest_number(replay: Replay, http: PacedClient) -> None:
    versions = [{"version": 1, "status": "BuildFailed"}, {"version": 3, "status": "BuildSucceeded"}]
    replay.answer(Reply(200, {"value": [*versions, {"version": 2, "status": "Building"}]}))
    await ContentSafety(branch(replay.url, **custom(MAY)), http).probe()


@pytest.mark.parametrize("body", [{}, {"value": []}, {"value": [5]}, {"value": [{"version": 1}]}, {"value": 5}])
async def test_a_category_without_a_version_is_an_outage(body: object, replay: Replay, http: PacedClient) -> None:
    replay.answer(Reply(200, body))
    with pytest.raises(Unavailable, match="a category without a version"):
        await ContentSafety(branch(replay.url, **custom(MAY)), http).probe()


def test_what_it_is_can_be_seen_but_not_its_key(http: PacedClient) -> None:
    harms = ContentSafety(branch(), http)
    assert repr(harms) == "ContentSafety('contoso.cognitiveservices.azure.com', 'text:analyze@2024-09-01')"
    assert (harms.documents_per_call, harms.characters_per_document, harms.task) == (1, 10_000, "multi_label")
    assert ContentSafety(branch(**custom(MAY)), http).model == "DrugAbuse/latest"
    versioned = ContentSafety(branch(**custom(SEPTEMBER, category_version=2)), http)
    assert (versioned.model, versioned.characters_per_call) == ("DrugAbuse/2", 1_000)
