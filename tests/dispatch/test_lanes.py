"""Lanes: where a document goes, by itself and by its answers; and a pipeline in memory that has several."""

import asyncio
import random
from collections import Counter
from collections.abc import Sequence
from typing import Any

import orjson
import pytest

from service import settings
from service.dispatch.account import Account
from service.dispatch.dispatcher import Dispatcher
from service.dispatch.lanes import Course
from service.documents import Classified, ClassScore, Document, Outcome, Reason, Refused, Stage
from service.errors import Misconfigured, Unavailable
from service.jobs.ledger import Ledger
from service.jobs.notes import Job
from service.limits.costs import Tariff
from service.limits.gate import Limits
from service.observability.telemetry import Telemetry
from service.offsets import Mark, Partition
from service.pipeline import run
from service.routing.rules import Rules, check_classes
from service.streams.memory import MemoryNotes, MemorySink, MemorySource
from tests.classifiers import UNWANTED, FirstWord, FirstWordByJobs, account
from tests.clock import Clock, now, virtual_time
from tests.records import INPUT, document, written
from tests.test_pipeline import OTHER, Story, named, stream, tickets

CHEAP, PAID = "account-0", "account-1"
DOWN = Unavailable("503")
WHEN = {"when": {"best_below": 0.6}, "ask": PAID}
_GUESS = Classified((ClassScore("guess", 0.5),))


@pytest.fixture(autouse=True)
def the_same_chances() -> None:
    random.seed(7)


class Cheap(FirstWord):
    """Is unsure of what says so."""

    async def classify(self, documents: Sequence[Document]) -> list[Outcome]:
        outcomes = await super().classify(documents)
        return [_GUESS if "unsure" in each.text else found for each, found in zip(documents, outcomes, strict=True)]


def mixed(count: int, partition: Partition = INPUT, every: int = 4) -> list[Any]:
    """Documents of which one in so many is unsure."""
    texts = (f"billing {'unsure' if n % every == 0 else ''} {n}" for n in range(count))
    return [written(n, text, partition=partition) for n, text in enumerate(texts)]


def cascade(unanswered: str = "hold", **changed: Any) -> settings.Stream:
    return stream(classify_with=CHEAP, unsure={**WHEN, "unanswered": unanswered}, **changed)


def bodies(story: Story) -> dict[str, dict[str, Any]]:
    found = [orjson.loads(message.value or b"") for message in story.sink.to("classified")]
    assert len(found) == len({body["id"] for body in found})
    return {body["id"]: body for body in found}


# Where a document goes


def course(**changed: Any) -> Course:
    return Course(stream(classify_with="first", document={"language": "/lang"}, **changed))


UNSURE = {"when": {"best_below": 0.6}, "ask": "paid"}


def walked(course: Course, language: str | None, *, unsure: bool) -> list[str]:
    """The lanes that a document goes through."""
    through, one = list[str](), document(0, language=language)
    while True:
        place = course.belongs(one)
        through.append(course.lanes[place].name)
        job = Job(course.lanes[place].accounts[0], "m", "job", 0.0, 1)
        assert course.of_job(job, one) == place, "a job of an earlier life finds its lane"
        if not course.goes_on(one, _stage(place), lambda *_: unsure):
            return through
        one = one._replace(stages=(*one.stages, _stage(place)))


def _stage(lane: int, outcome: Outcome = _GUESS) -> Stage:
    return Stage(lane, "somebody", "model", outcome, 1, 0.0, None)


@pytest.mark.parametrize(
    ("changed", "language", "unsure", "through"),
    [
        ({}, None, True, ["first"]),
        ({"unsure": UNSURE}, None, False, ["first"]),
        ({"unsure": UNSURE}, None, True, ["first", "unsure"]),
        ({"by_language": {"de": "german", "DE-at": "austrian"}}, "de", True, ["language de"]),
        ({"by_language": {"de": "german", "DE-at": "austrian"}}, "de-AT-1996", True, ["language DE-at"]),
        ({"by_language": {"de": "german"}}, "DE-CH", True, ["language de"]),
        ({"by_language": {"de": "german"}}, "den", True, ["first"]),
        ({"by_language": {"de": "german"}}, None, True, ["first"]),
        ({"by_language": {"de": "german"}, "unsure": UNSURE}, "de", True, ["language de", "unsure"]),
        ({"merge_with": ["harms", "spam"]}, None, True, ["merged harms", "merged spam", "first"]),
        ({"merge_with": ["harms"], "unsure": UNSURE}, None, True, ["merged harms", "first", "unsure"]),
        ({"merge_with": ["harms"], "unsure": UNSURE}, None, False, ["merged harms", "first"]),
    ],
)
def test_a_document_goes_through_the_lanes_that_are_its(
    changed: dict[str, Any], language: str | None, unsure: bool, through: list[str]
) -> None:
    assert walked(course(**changed), language, unsure=unsure) == through


def test_what_is_missing_after_a_job_of_an_earlier_life_is_asked_for_then() -> None:
    lanes = course(merge_with=["harms"], unsure=UNSURE)
    one = document(0)
    unsure = lanes.of_job(Job("paid", "m", "job", 0.0, 1), one)
    assert lanes.lanes[unsure].name == "unsure"
    assert lanes.goes_on(one, _stage(unsure), lambda *_: True)
    one = one._replace(stages=(_stage(unsure),))
    harms = lanes.belongs(one)
    assert lanes.lanes[harms].name == "merged harms"
    assert not lanes.goes_on(one, _stage(harms), lambda *_: True)


def test_who_is_for_what_is_unsure_and_has_answered_in_the_first_place_is_not_asked_again() -> None:
    lanes = Course(stream(classify_with=["first", "paid"], unsure=UNSURE))
    assert lanes.goes_on(document(0), _stage(0), lambda *_: True)
    assert not lanes.goes_on(document(0), _stage(0)._replace(account="paid"), lambda *_: True)
    assert lanes.lanes[lanes.of_job(Job("paid", "m", "job", 0.0, 1), document(0))].name == "unsure"


def test_a_refusal_ends_the_way_but_for_the_first_of_two_stages() -> None:
    refused = Refused(Reason.REFUSED_BY_CLASSIFIER, "no")
    lanes, one = course(merge_with=["harms"], unsure=UNSURE), document(0)
    assert not lanes.goes_on(one, _stage(lanes.belongs(one), refused), lambda *_: False)
    one = one._replace(stages=(_stage(lanes.belongs(one)),))
    first = lanes.belongs(one)
    assert lanes.goes_on(one, _stage(first, refused), lambda *_: False)
    one = one._replace(stages=(*one.stages, _stage(first, refused)))
    assert not lanes.goes_on(one, _stage(lanes.belongs(one), refused), lambda *_: False)
    assert lanes.first_answer(one) is None


def test_a_merged_result_has_each_class_once_with_its_highest_score() -> None:
    lanes = course(merge_with=["harms"])
    says = Classified((ClassScore("billing", 0.7), ClassScore("spam", 0.2)), 1, ("a",))
    adds = Classified((ClassScore("Violence", None, 4), ClassScore("spam", 0.9)), 2, ("a", "b"))
    one = document(0)._replace(stages=(_stage(1, adds), _stage(0, says)))
    found = lanes.concluded(one)
    assert found.classes == (ClassScore("Violence", None, 4), ClassScore("spam", 0.9), ClassScore("billing", 0.7))
    assert (found.units, found.warnings) == (3, ("a", "b"))


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"merge_with": "first"}, "merge_with: the account 'first' is asked already"),
        ({"merge_with": ["x", "x"]}, "merge_with: the account 'x' is asked already"),
        ({"unsure": {**UNSURE, "ask": "first"}}, "unsure.ask: nobody else is asked in the first place"),
        ({"by_language": {"de": "german"}, "document": {}}, "by_language: give document.language"),
        ({"by_language": {"de": "a", "DE": "b"}}, "by_language: a language is given twice"),
    ],
)
def test_lanes_that_lead_nowhere_are_refused(changed: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        stream(**{"classify_with": "first", "document": {"language": "/lang"}, **changed})


def test_a_condition_that_no_answer_meets_or_that_names_no_class_is_refused() -> None:
    never = {"all": [{"best_below": 0.3}, {"best_at_least": 0.5}]}
    with pytest.raises(Misconfigured, match=r"streams.tickets.unsure.when: no answer can ever be that"):
        Rules(cascade().model_copy(update={"unsure": settings.Unsure.model_validate({"when": never, "ask": PAID})}))
    named = cascade().model_copy(
        update={"unsure": settings.Unsure.model_validate({"when": {"best": "bil"}, "ask": PAID})}
    )
    with pytest.raises(
        Misconfigured, match=r"streams.tickets.unsure.when: no account .* 'bil', did you mean 'billing'"
    ):
        check_classes(named, [["billing"], ["billing"]])


# The pipeline


@virtual_time
async def test_what_is_unsure_is_asked_of_the_paid_account_in_full_batches_and_says_what_it_has_passed() -> None:
    story = Story(mixed(400), settings=cascade(), classifiers=[Cheap(), FirstWord(model="large")])
    cheap, paid = story.classifiers
    await story.run()
    assert Counter(bodies(story).keys()) == Counter(named((INPUT, range(400))))
    assert story.source.committed == {INPUT: Mark(400)}
    assert len(cheap.asked) == 400
    assert len(paid.asked) == 100
    unsure, sure = bodies(story)["0/0"], bodies(story)["0/1"]
    assert (unsure["account"], unsure["model"], unsure["best"]["name"]) == (PAID, "large", "billing")
    assert [(each["account"], each["classes"][0]["name"]) for each in unsure["stages"]] == [
        (CHEAP, "guess"),
        (PAID, "billing"),
    ]
    assert (sure["account"], "stages" in sure) == (CHEAP, False)
    assert story.sample("records_abandoned_total") == 0
    assert story.sample("lane_records_total", lane="first", became="finished") == 300
    assert story.sample("lane_records_total", lane="first", became="went_on") == 100
    assert story.sample("lane_records_total", lane="unsure", became="finished") == 100


@virtual_time
async def test_unsure_documents_are_packed_anew() -> None:
    story = Story(settings=cascade(batch={"wait": "1s"}), classifiers=[Cheap(), FirstWord()], ends=False)
    async with story.running():
        for each in mixed(400):
            story.source.add(each)
        await asyncio.sleep(10)
    assert [len(texts) for _, texts in story.classifiers[1].calls] == [25] * 4


@virtual_time
async def test_what_all_stages_cost_is_in_the_result_and_counted_once() -> None:
    story = Story(mixed(8), settings=cascade(), classifiers=[Cheap(), FirstWord()])
    story.accounts = [
        Account(name, "fake", each, limits=Limits(settings.Limits(), Tariff(price)), telemetry=events)
        for each, name, price in zip(story.classifiers, (CHEAP, PAID), (0.25, 2.0), strict=True)
        for events in [story.telemetry.account(name, "fake")]
    ]
    await story.run()
    assert bodies(story)["0/0"]["usage"]["cost"] == 2.0  # a guess is for nothing
    assert bodies(story)["0/1"]["usage"]["cost"] == 0.25
    assert story.sample("cost_total") == 6 * 0.25 + 2 * 2.0


@virtual_time
async def test_while_the_paid_account_is_down_unsure_documents_are_held_and_no_others() -> None:
    paid = FirstWord(trouble=lambda: DOWN if now() < 300 else None)
    story = Story(mixed(100), settings=cascade(), classifiers=[Cheap(), paid], ends=False)
    async with story.running():
        await asyncio.sleep(200)
        assert len(bodies(story)) == 75
        assert story.source.committed[INPUT].offset == 0
        await asyncio.sleep(300)
        assert len(bodies(story)) == 100
        assert story.source.committed == {INPUT: Mark(100)}


@virtual_time
async def test_or_they_are_published_with_their_first_answer_which_says_so_until_it_is_well_again() -> None:
    paid = FirstWord(trouble=lambda: DOWN if now() < 300 else None)
    story = Story(mixed(100), settings=cascade("first_answer"), classifiers=[Cheap(), paid], ends=False)
    async with story.running():
        await asyncio.sleep(200)
        assert len(bodies(story)) == 100
        unsure = bodies(story)["0/0"]
        assert (unsure["account"], unsure["best"]["name"]) == (CHEAP, "guess")
        assert unsure["warnings"] == [f"unsure, and {PAID} could not be asked"]
        assert "stages" not in unsure
        assert story.source.committed == {INPUT: Mark(100)}
        assert story.sample("lane_records_total", lane="unsure", became="first_answer") == 25
        for offset in range(100, 200):
            await asyncio.sleep(10)
            story.source.add(written(offset, f"billing unsure {offset}"))
        await asyncio.sleep(100)
        assert len(bodies(story)) == 200
        assert bodies(story)["0/199"]["account"] == PAID
        assert {body["account"] for body in bodies(story).values()} == {CHEAP, PAID}


@virtual_time
async def test_when_the_money_is_spent_what_is_unsure_has_its_first_answer_until_there_is_more() -> None:
    clock = Clock(1_700_000_000.0)
    story = Story(settings=cascade("first_answer"), classifiers=[Cheap(), FirstWord()], ends=False)
    events = story.telemetry.account(PAID, "fake")
    limits = Limits(settings.Limits(spend_per_day=10), Tariff(1.0), clock)
    story.accounts[1] = Account(PAID, "fake", story.classifiers[1], limits=limits, telemetry=events)
    async with story.running():
        for offset in range(40):
            story.source.add(written(offset, f"billing unsure {offset}"))
            await asyncio.sleep(1)
        assert Counter(body["account"] for body in bodies(story).values()) == {PAID: 10, CHEAP: 30}
        clock.at += 86_400
        await asyncio.sleep(60)
        story.source.add(written(40, "billing unsure 40"))
        await asyncio.sleep(5)
        assert bodies(story)["0/40"]["account"] == PAID
    assert limits.statistics().spent.total == 11


@pytest.mark.parametrize("unanswered", ["hold", "first_answer"])
def test_what_the_paid_account_refuses_is_a_dead_letter_or_stays_with_its_first_answer(unanswered: str) -> None:
    @virtual_time
    async def tell() -> None:
        story = Story(
            [written(0, f"{UNWANTED} unsure"), *tickets(9, first=1)],
            settings=cascade(unanswered),
            classifiers=[Cheap(), FirstWord()],
        )
        await story.run()
        if unanswered == "hold":
            assert [*story.letters] == [0]
            assert len(bodies(story)) == 9
        else:
            assert story.letters == {}
            said = f"unsure, and {PAID} refuses it: the classifier does not want it"
            assert bodies(story)["0/0"]["warnings"] == [said]
        assert story.source.committed == {INPUT: Mark(10)}

    tell()


@virtual_time
async def test_what_the_first_stage_refuses_goes_on() -> None:
    story = Story(
        [written(0, f"{UNWANTED} this"), *tickets(9, first=1)], settings=cascade(), classifiers=[Cheap(), Tolerant()]
    )
    await story.run()
    body = bodies(story)["0/0"]
    assert (body["account"], body["stages"][0]["refused"]) == (PAID, "the classifier does not want it")
    assert story.letters == {}


class Tolerant(FirstWord):
    async def classify(self, documents: Sequence[Document]) -> list[Outcome]:
        return await super().classify([each._replace(text=f"fine {each.text}") for each in documents])


@virtual_time
async def test_documents_too_long_for_the_first_stage_are_the_second_s() -> None:
    story = Story(
        [written(0, "billing " + "x" * 200), written(1, "x" * 5000), written(2, "billing")],
        settings=cascade(),
        classifiers=[Cheap(characters_per_document=100), FirstWord(characters_per_document=1000)],
    )
    await story.run()
    assert {name: body["account"] for name, body in bodies(story).items()} == {"0/0": PAID, "0/2": CHEAP}
    assert story.letters[1][0] == "too_long"


@virtual_time
async def test_each_language_has_its_accounts() -> None:
    records = [written(n, f"billing {n}", lang=("de-AT", "en", None)[n % 3]) for n in range(300)]
    story = Story(
        records,
        settings=stream(classify_with=CHEAP, by_language={"de": PAID}, document={"language": "/lang"}),
        classifiers=[FirstWord(), FirstWord()],
    )
    await story.run()
    assert Counter(body["account"] for body in bodies(story).values()) == {CHEAP: 200, PAID: 100}
    assert story.source.committed == {INPUT: Mark(300)}


@virtual_time
async def test_several_classifiers_make_one_result() -> None:
    class Harms(FirstWord):
        async def classify(self, documents: Sequence[Document]) -> list[Outcome]:
            await super().classify(documents)
            return [Classified((ClassScore("Violence", None, 4),), units=1)] * len(documents)

    story = Story(
        [*tickets(50), written(50, f"{UNWANTED} one")],
        settings=stream(
            classify_with=CHEAP,
            merge_with=PAID,
            routes=[{"class": "Violence", "severity_at_least": 4, "to": "held"}],
        ),
        classifiers=[FirstWord(), Harms(task="multi_label")],
    )
    await story.run()
    body = bodies(story)["0/7"]
    assert [each["name"] for each in body["classes"]] == ["Violence", "billing", "other"]
    assert (body["account"], body["task"]) == (CHEAP, "multi_label")
    assert {each["account"]: [found["name"] for found in each["classes"]] for each in body["stages"]} == {
        CHEAP: ["billing", "other"],
        PAID: ["Violence"],
    }
    assert body["usage"]["units"] == 2
    assert len(story.sink.to("held")) == 50
    assert [*story.letters] == [50]
    assert story.source.committed == {INPUT: Mark(51)}


@virtual_time
async def test_the_answers_of_each_stage_are_kept_and_given_to_identical_documents() -> None:
    story = Story(
        [written(n, "billing unsure") for n in range(200)],
        settings=cascade(identical={"ttl": "1h"}),
        classifiers=[Cheap(), FirstWord()],
    )
    await story.run()
    assert [len(each.asked) for each in story.classifiers] == [1, 1]
    assert Counter(body["account"] for body in bodies(story).values()) == {PAID: 200}
    assert story.source.committed == {INPUT: Mark(200)}


@virtual_time
async def test_identical_documents_stay_with_the_first_answer_together() -> None:
    story = Story(
        [written(n, "billing unsure") for n in range(200)],
        settings=cascade("first_answer", identical={"ttl": "1h"}),
        classifiers=[Cheap(), FirstWord(trouble=lambda: DOWN)],
    )
    await story.run()
    assert Counter(body["account"] for body in bodies(story).values()) == {CHEAP: 200}
    assert story.source.committed == {INPUT: Mark(200)}


@virtual_time
async def test_a_stop_leaves_what_waits_for_the_second_stage_and_commits_none_of_it() -> None:
    story = Story(
        mixed(75), settings=cascade(batch={"wait": "20s"}), classifiers=[Cheap(seconds=1), FirstWord()], ends=False
    )
    async with story.running() as running:
        await asyncio.sleep(1.5)
        began = now()
        story.stop.set()
        await running
        assert now() - began < 2
    assert len(bodies(story)) == 56
    assert story.classifiers[1].calls == []
    assert story.source.committed[INPUT].offset == 0


@pytest.mark.parametrize("ordered_by", [None, "key"])
def test_a_stop_waits_for_no_turn_of_what_does_not_go_on_any_more(ordered_by: str | None) -> None:
    @virtual_time
    async def tell() -> None:
        records = [each._replace(key=b"one") for each in mixed(75)]
        settings = cascade(batch={"wait": "20s"}, ordered_by=ordered_by)
        story = Story(records, settings=settings, classifiers=[Cheap(seconds=5), FirstWord()], ends=False)
        async with story.running() as running:
            await asyncio.sleep(2)
            story.stop.set()
            await running
            assert now() < 6
        assert len(bodies(story)) == (56 if ordered_by is None else 0)
        assert story.classifiers[1].calls == []
        assert story.sample("records_abandoned_total") == (19 if ordered_by is None else 75)

    tell()


@virtual_time
async def test_a_revocation_waits_for_documents_that_are_out_in_a_further_lane() -> None:
    story = Story(mixed(100), settings=cascade(), classifiers=[Cheap(), FirstWord(seconds=5)], ends=False)
    async with story.running():
        await asyncio.sleep(2)
        assert len(bodies(story)) == 75
        await story.source.revoke([INPUT])
        assert len(bodies(story)) == 100
        assert story.source.committed == {INPUT: Mark(100)}


@virtual_time
async def test_a_revocation_does_not_wait_for_documents_that_wait_in_a_further_lane() -> None:
    story = Story(
        [*mixed(12), *mixed(12, OTHER)],
        settings=cascade(batch={"wait": "20s"}),
        classifiers=[Cheap(), FirstWord()],
        ends=False,
    )
    async with story.running():
        await asyncio.sleep(30)  # the first lane has answered; the second waits for company
        began = now()
        await story.source.revoke([OTHER])
        assert now() - began < 1
        await asyncio.sleep(21)
        assert len([name for name in bodies(story) if name.startswith("0/")]) == 12
        assert len([name for name in bodies(story) if name.startswith("1/")]) == 9
        assert story.source.committed[INPUT] == Mark(12)


@pytest.mark.parametrize("after", [0.3, 0.9, 1.7, 2.6, 4.0])
def test_after_a_crash_nothing_is_lost(after: float) -> None:
    @virtual_time
    async def tell() -> None:
        sink = MemorySink()
        one = Story(
            mixed(500), settings=cascade(), classifiers=[Cheap(), FirstWord(seconds=0.7)], in_flight=2, sink=sink
        )
        async with one.running():
            await asyncio.sleep(after)
        two = Story(
            mixed(500),
            settings=cascade(),
            classifiers=[Cheap(), FirstWord(seconds=0.7)],
            sink=sink,
            committed=one.source.committed,
        )
        await two.run()
        assert set(two.results) == set(named((INPUT, range(500))))
        assert two.source.committed == {INPUT: Mark(500)}

    tell()


@virtual_time
async def test_a_job_of_an_earlier_life_goes_on_in_its_own_lane_and_nothing_is_submitted_or_asked_again() -> None:
    sink, paid = MemorySink(), FirstWordByJobs(seconds=60)
    cheap = [Cheap(), Cheap()]
    source = MemorySource(mixed(100), ends=False)
    shelf = MemoryNotes(sink, "jobs")
    for life in cheap:
        telemetry = Telemetry()
        asked = [account(life, CHEAP, telemetry=telemetry), account(paid, PAID, telemetry=telemetry)]
        living = run(
            cascade(commit_every="200ms"),
            source,
            sink,
            Dispatcher(asked),
            telemetry=telemetry,
            stop=asyncio.Event(),
            ledger=Ledger(shelf),
        )
        running = asyncio.create_task(living)
        await asyncio.sleep(10 if life is cheap[0] else 100)
        running.cancel()
        await asyncio.wait([running])
    assert len(paid.asked) == 25
    assert cheap[1].asked == []
    results = [orjson.loads(message.value or b"") for message in sink.to("classified")]
    assert Counter(body["account"] for body in results) == {CHEAP: 75, PAID: 25}
    assert source.committed == {INPUT: Mark(100)}


@pytest.mark.parametrize("seed", range(5))
def test_whatever_comes_and_goes_each_document_is_answered_once(seed: int) -> None:
    @virtual_time
    async def tell() -> None:
        chance = random.Random(seed)  # noqa: S311  repeatable
        paid = FirstWord(seconds=0.5, trouble=lambda: DOWN if chance.random() < 0.3 else None)
        story = Story(
            [*mixed(300), *mixed(300, OTHER, every=2)],
            settings=cascade(chance.choice(["hold", "first_answer"]), identical={"ttl": "10s"}),
            classifiers=[Cheap(seconds=0.2), paid],
            in_flight=3,
            ends=False,
        )
        async with story.running():
            for _ in range(5):
                await asyncio.sleep(chance.uniform(0, 2))
                await story.source.revoke([OTHER])
                await asyncio.sleep(chance.uniform(0, 1))
                await story.source.assign([OTHER])
            await asyncio.sleep(500)
        assert set(bodies(story)) == set(named((INPUT, range(300)), (OTHER, range(300))))
        assert story.source.committed == {INPUT: Mark(300), OTHER: Mark(300)}

    tell()
