"""One of several documents that are alike is asked for: the decisions by themselves, and through the pipeline."""

import asyncio
import random
import tracemalloc
from collections import Counter
from collections.abc import Sequence
from typing import Any

import orjson
import pytest

from service import settings
from service.dispatch.account import Account
from service.dispatch.answers import Answer
from service.dispatch.identical import AskedOnce, Cache, EachAsked, Kept, likes
from service.documents import Classified, ClassScore, Document, Outcome, Reason, Refused
from service.errors import Misconfigured, Unavailable
from service.limits.costs import Tariff
from service.limits.gate import Limits
from service.observability.telemetry import Telemetry
from service.offsets import Mark
from service.streams.memory import MemorySink, TransactionalMemorySource
from tests.classifiers import POISON, UNWANTED, FirstWord, FirstWordByJobs, account
from tests.clock import now, virtual_time
from tests.records import INPUT, document, written
from tests.test_pipeline import OTHER, Story, named, stream


@pytest.fixture(autouse=True)
def the_same_chances() -> None:
    random.seed(7)  # the back-off is spread by chance


SPAM = Classified((ClassScore("spam", 0.9),), units=2)


def remembering(*accounts: Account, **changed: Any) -> AskedOnce:
    return AskedOnce(settings.Identical(**{"ttl": 60, **changed}), accounts or [account(FirstWord())])


def answer(by: Account, *given: tuple[Document, Outcome]) -> Answer:
    return Answer([document for document, _ in given], [outcome for _, outcome in given], by, 1, 5.0)


def told(answers: Sequence[Answer]) -> list[tuple[list[Document], str | None, str]]:
    return [([*each.documents], each.answered_from, each.account.name) for each in answers]


def test_a_stream_that_does_not_want_it_has_each_asked_for() -> None:
    each, documents = likes(None, ()), [document(0), document(1)]
    assert isinstance(each, EachAsked)
    asked, known = each.sort(documents, 0.0)
    assert (asked is documents, known) == (True, [])
    assert (each.answered([], 0.0), each.next(), each.drop(bool), each.statistics()) == ([], [], [], Kept())


@virtual_time
async def test_of_documents_that_are_alike_one_is_asked_for_and_the_others_get_its_answer() -> None:
    first = account(FirstWord())
    once, documents = remembering(first), [document(n, text) for n, text in enumerate(["a", "b", "a", "a"])]
    assert once.sort(documents[:3], 0.0) == (documents[:2], [])
    assert once.sort(documents[3:], 0.1) == ([], [])
    passed_on = once.answered([answer(first, (documents[0], SPAM), (documents[1], SPAM))], 0.2)
    assert told(passed_on) == [(documents[2:], "in_flight", "first")]
    assert passed_on[0].outcomes == [SPAM._replace(units=0)] * 2
    assert (passed_on[0].attempts, passed_on[0].at) == (0, 5.0)


@virtual_time
async def test_an_answer_is_given_again_for_a_while_with_what_that_saves() -> None:
    limits = Limits(settings.Limits(), Tariff(0.5))
    first = Account("first", "fake", FirstWord(), limits=limits, telemetry=Telemetry().account("first", "fake"))
    once = remembering(first, ttl=10)
    asked, _ = once.sort([document(0, "a")], 0.0)
    once.answered([answer(first, (asked[0], SPAM))], 1.0)
    again = [document(1, "a"), document(2, "b"), document(3, "a")]
    to_ask, known = once.sort(again, 10.9)
    assert (to_ask, told(known)) == ([again[1]], [([again[0], again[2]], "cache", "first")])
    assert (known[0].saved, known[0].cost, known[0].at) == (2.0, 0.0, again[0].read_at)
    assert once.sort(again[2:], 11.0) == (again[2:], [])


@pytest.mark.parametrize(
    "other",
    [document(1, "A"), document(1, "a "), document(1, "a", language="en"), document(1, "a")._replace(text="a\ud800")],
)
@virtual_time
async def test_what_is_not_the_same_to_the_last_character_and_language_is_not_alike(other: Document) -> None:
    first = account(FirstWord())
    once = remembering(first)
    one, again = document(0, "a"), other._replace(id="another")
    assert once.sort([one, other], 0.0) == ([one, other], [])
    once.answered([answer(first, (one, SPAM))], 0.0)
    assert once.sort([again], 0.0) == ([], [])
    assert once.drop(lambda _: True) == [again]


@virtual_time
async def test_a_language_cannot_pass_for_the_beginning_of_a_text() -> None:
    once = remembering()
    pair = [document(0, "b", language="1:a"), document(1, "ab", language="1:")]
    assert once.sort(pair, 0.0)[0] == pair


@virtual_time
async def test_answers_are_of_one_account_model_and_task_alone() -> None:
    provider = FirstWord()
    first, second = account(provider), account(FirstWord(), "second")
    once = remembering(first, second)
    one, two = document(0, "a"), document(1, "b")
    once.sort([one, two], 0.0)
    once.answered([answer(second, (one, SPAM)), answer(first, (two, SPAM))], 0.0)
    assert once.sort([one], 0.0) == ([one], [])  # the first is well, and has not been asked
    once.promote([one])
    assert told(once.sort([two], 0.0)[1]) == [([two], "cache", "first")]
    first.limits.quiet(5.0)
    assert told(once.sort([one], 0.0)[1]) == [([one], "cache", "second")]
    for change in ("model", "task"):
        setattr(provider, change, "another")
        assert once.sort([two], 0.0) == ([two], [])
        once.promote([two])
        setattr(provider, change, getattr(FirstWord(), change))
    assert told(once.sort([two], 0.0)[1]) == [([two], "cache", "first")]


@virtual_time
async def test_whose_like_is_refused_is_asked_for_itself_and_the_refusal_is_not_kept() -> None:
    first = account(FirstWord())
    once, documents = remembering(first), [document(n, "a") for n in range(4)]
    once.sort(documents, 0.0)
    refusal = Refused(Reason.REFUSED_BY_CLASSIFIER, "no")
    assert once.answered([answer(first, (documents[0], refusal))], 0.0) == []
    assert once.next() == documents[1:]
    assert once.next() == []
    assert once.answered([answer(first, *((each, SPAM) for each in documents[1:]))], 0.0) == []
    assert once.statistics() == Kept()


@virtual_time
async def test_where_one_is_given_up_the_next_that_waits_takes_its_place() -> None:
    once, documents = remembering(), [document(n, "a") for n in range(4)]
    once.sort(documents, 0.0)
    assert once.drop(lambda each: each is documents[1]) == [documents[1]]
    assert once.drop(lambda each: each is documents[2], out={id(documents[0])}) == []
    once.promote([documents[0], documents[3]])
    assert once.next() == [documents[2]]
    once.promote([documents[2]])
    assert once.drop(lambda each: each is documents[3]) == [documents[3]]
    assert once.next() == []
    once.promote([documents[3]])
    assert once.sort(documents[:1], 0.0) == (documents[:1], [])


@virtual_time
async def test_no_text_is_kept_and_what_tells_texts_apart_is_another_in_each_process() -> None:
    first = account(FirstWord())
    keys = []
    for once in (remembering(first), remembering(first)):
        asked, _ = once.sort([document(0, "the canary sings")], 0.0)
        once.answered([answer(first, (asked[0], SPAM))], 0.0)
        assert "canary" not in repr(once._cache._kept)
        keys += [*once._cache._kept]
    assert keys[0] != keys[1]


def key(number: int) -> tuple[str, str, str, bytes]:
    return "azure", "model", "task", number.to_bytes(16)


def test_no_more_answers_are_kept_than_may_be_and_the_longest_unused_go() -> None:
    cache = Cache(entries=3, bytes=1_000_000, ttl=10)
    for number in (0, 1, 2, 0):
        cache.keep(key(number), SPAM, 0.0)
    assert cache.get(key(1), 1.0) == SPAM
    cache.keep(key(3), SPAM, 1.0)
    assert [number for number in range(4) if cache.get(key(number), 1.0)] == [0, 1, 3]
    assert cache.get(key(0), 10.0) is None
    assert cache.statistics().answers == 2


def test_no_more_memory_is_taken_than_may_be() -> None:
    most = 2_000_000
    cache, names = Cache(entries=1_000_000, bytes=most, ttl=10), [f"class {number} 日本" for number in range(40)]
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        for number in range(5_000):
            scores = tuple(ClassScore("".join(names[n]), number / 7 + n) for n in range(number % 40))
            cache.keep(key(number), Classified(scores, 1, (f"warning {number}",) * (number % 3)), 0.0)
            assert cache.statistics().bytes <= most
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert most / 4 < after - before <= most


def test_an_answer_larger_than_all_that_may_be_kept_drives_no_others_out() -> None:
    cache = Cache(entries=10, bytes=5_000, ttl=10)
    cache.keep(key(0), SPAM, 0.0)
    cache.keep(key(1), Classified((ClassScore("x" * 2_000, 0.5),)), 0.0)
    assert (cache.get(key(0), 0.0), cache.get(key(1), 0.0)) == (SPAM, None)


def test_without_a_ttl_nothing_is_kept() -> None:
    cache = Cache(entries=10, bytes=1_000_000, ttl=0)
    cache.keep(key(0), SPAM, 0.0)
    assert cache.get(key(0), 0.0) is None


# Through the pipeline


def posts(count: int, texts: int = 3, partition: Any = INPUT) -> list[Any]:
    return [written(n, f"spam {n % texts}", partition=partition) for n in range(count)]


def told_from(story: Story) -> Counter[str | None]:
    return Counter(orjson.loads(message.value or b"").get("answered_from") for message in story.sink.to("classified"))


def once(**identical: Any) -> settings.Stream:
    return stream(identical=identical)


@virtual_time
async def test_identical_documents_are_asked_for_once_and_each_has_its_own_result() -> None:
    story = Story([*posts(400), *posts(400, partition=OTHER)], settings=once())
    await story.run()
    assert Counter(story.results) == Counter(named((INPUT, range(400)), (OTHER, range(400))))
    assert story.source.committed == {INPUT: Mark(400), OTHER: Mark(400)}
    assert Counter(story.classifiers[0].asked) == {"spam 0": 1, "spam 1": 1, "spam 2": 1}
    assert told_from(story) == {None: 3, "in_flight": 797}
    assert story.sample("records_spared_total", answered_from="in_flight") == 797
    bodies = [orjson.loads(message.value or b"") for message in story.sink.to("classified")]
    spared = [body for body in bodies if "answered_from" in body]
    assert {(body["attempts"], body["usage"]["units"], body["account"]) for body in spared} == {(0, 0, "account-0")}
    assert {body["best"]["name"] for body in spared} == {"spam"}


@virtual_time
async def test_what_is_kept_answers_later_documents_at_once_for_nothing() -> None:
    story = Story(posts(3), settings=once(ttl="1m"), ends=False)
    (provider,) = story.classifiers
    limits, events = Limits(settings.Limits(), Tariff(0.25)), story.telemetry.account("priced", "fake")
    story.accounts = [Account("priced", "fake", provider, limits=limits, telemetry=events)]
    async with story.running():
        await asyncio.sleep(5)
        began = now()
        for n in range(3, 10):
            story.source.add(written(n, f"spam {n % 3}"))
        while len(story.results) < 10:  # noqa: ASYNC110  on virtual time
            await asyncio.sleep(0.001)
        assert now() - began < 0.1, "they wait for no company"
        await asyncio.sleep(60)
        assert len(provider.asked) == 3
        story.source.add(written(10, "spam 0"))
        await asyncio.sleep(5)
    assert len(provider.asked) == 4
    assert told_from(story) == {None: 4, "cache": 7}
    costs = Counter(orjson.loads(message.value or b"")["usage"]["cost"] for message in story.sink.to("classified"))
    assert costs == {0.25: 4, 0.0: 7}
    assert story.sample("cost_total") == 1.0
    assert story.sample("cost_saved_total") == 7 * 0.25
    assert story.sample("answers_kept") == 3
    assert 0 < (story.sample("answers_kept_bytes") or 0) < 10_000


@virtual_time
async def test_without_the_setting_each_is_asked_for() -> None:
    story = Story(posts(100))
    await story.run()
    assert len(story.classifiers[0].asked) == 100
    assert told_from(story) == {None: 100}


@virtual_time
async def test_identical_documents_that_are_refused_are_each_refused_in_their_own_right() -> None:
    records = [written(n, f"{UNWANTED if n % 2 else POISON} post") for n in range(40)]
    story = Story([*records, written(40, "fine")], settings=once(ttl="1m"))
    await story.run()
    assert sorted(story.letters) == list(range(40))
    assert story.results == ["0/40"]
    assert now() < 10, "they are not asked for one after the other"


@virtual_time
async def test_an_outage_holds_documents_that_wait_for_others_too() -> None:
    down = FirstWord()
    down.trouble = lambda: Unavailable("502") if now() < 100 else None
    story = Story(posts(50), settings=once(), classifiers=[down])
    await story.run()
    assert len(story.results) == 50
    assert len(set(down.asked)) == 3
    assert story.source.committed == {INPUT: Mark(50)}


@virtual_time
async def test_where_the_document_that_was_asked_for_goes_with_its_partition_another_is_asked_for() -> None:
    down = FirstWord(trouble=lambda: Unavailable("502"))
    story = Story(
        [*posts(5, texts=1), *posts(5, texts=1, partition=OTHER)], settings=once(), classifiers=[down], ends=False
    )
    async with story.running():
        await asyncio.sleep(5)
        await story.source.revoke([INPUT])
        down.trouble = lambda: None
        await asyncio.sleep(60)
        assert sorted(story.results) == named((OTHER, range(5)))
        assert story.source.committed == {OTHER: Mark(5)}
        await story.source.assign([INPUT])
        await asyncio.sleep(60)
    assert Counter(story.results) == Counter(named((INPUT, range(5)), (OTHER, range(5))))


@virtual_time
async def test_a_document_whose_partition_goes_while_its_like_is_out_is_answered_before() -> None:
    story = Story([*posts(5, texts=1), *posts(5, texts=1, partition=OTHER)], settings=once(), ends=False)
    story.classifiers[0].seconds = 10
    async with story.running():
        await asyncio.sleep(5)
        await story.source.revoke([OTHER])
        assert now() == pytest.approx(10.2, abs=0.01)
        assert story.source.committed[OTHER] == Mark(5)
        await asyncio.sleep(5)
    assert len(story.results) == 10
    assert len(story.classifiers[0].asked) == 1


@virtual_time
async def test_one_that_is_out_too_long_for_its_partition_leaves_the_others_to_be_asked_for() -> None:
    story = Story(
        [*posts(1), *posts(3, texts=1, partition=OTHER)],
        settings=stream(identical={}, drain="5s", batch={"documents": 1}),
        ends=False,
    )
    story.classifiers[0].seconds = 60
    async with story.running():
        await asyncio.sleep(1)
        story.classifiers[0].seconds = 0.1
        await story.source.revoke([INPUT])
        await asyncio.sleep(10)
        assert sorted(story.results) == named((OTHER, range(3)))
    assert story.classifiers[0].asked == ["spam 0", "spam 0"]


@virtual_time
async def test_a_stop_waits_for_documents_whose_like_is_out_and_leaves_those_whose_is_not() -> None:
    story = Story(posts(100, texts=50), settings=stream(identical={}, batch={"documents": 10}), in_flight=3)
    story.classifiers[0].seconds = 10
    async with story.running() as running:
        await asyncio.sleep(5)
        story.stop.set()
        await running
    assert now() == pytest.approx(10, abs=0.3)
    assert Counter(story.results) == Counter(named((INPUT, range(30)), (INPUT, range(50, 80))))
    assert story.sample("records_abandoned_total") == 40


@virtual_time
async def test_what_is_misconfigured_stops_the_stream_with_documents_waiting() -> None:
    story = Story(posts(100), settings=once(), classifiers=[FirstWord(trouble=lambda: Misconfigured("key"))])
    with pytest.raises(ExceptionGroup):
        await story.run()
    assert story.source.committed == {}
    assert len(asyncio.all_tasks()) == 1


@virtual_time
async def test_with_exactly_once_each_has_one_result_and_they_do_not_wait_for_each_other() -> None:
    sink = MemorySink()
    story = Story(settings=stream(identical={"ttl": "1h"}, delivery="exactly_once"), sink=sink)
    records = [*posts(200), *[written(n, f"new {n}") for n in range(200, 250)], *posts(200, partition=OTHER)]
    source = TransactionalMemorySource(sink, records)
    story.source = source  # type: ignore[assignment]
    await story.run()
    assert Counter(story.results) == Counter(named((INPUT, range(250)), (OTHER, range(200))))
    assert len(story.classifiers[0].asked) == 53
    assert now() < 5


@pytest.mark.parametrize("seed", range(12))
def test_whatever_comes_and_goes_each_document_is_answered_once_be_it_alike_long_or_bad(seed: int) -> None:
    @virtual_time
    async def tell() -> None:
        chance = random.Random(seed)  # noqa: S311  repeatable
        kinds = ["spam", "billing", UNWANTED, POISON, *["billing is wrong. " * n for n in (3, 20, 60)]]
        records = [
            written(n, f"{chance.choice(kinds)} {chance.randrange(40)}", partition=partition)
            for partition in (INPUT, OTHER)
            for n in range(400)
        ]
        provider = FirstWordByJobs(characters_per_document=300) if seed % 2 else FirstWord(characters_per_document=300)
        provider.seconds = 2
        provider.trouble = lambda: Unavailable("502") if chance.random() < 0.1 else None
        settings = stream(
            identical={"ttl": "5s"} if seed % 3 else {},
            document={"too_long": "split"},
            batch={"documents": 10},
            capacity={"documents": 100},
            dead_letter_limit={"share": 1},
        )
        story = Story(records, settings=settings, classifiers=[provider], ends=False)
        async with story.running() as running:
            for _ in range(15):
                await asyncio.sleep(chance.uniform(0.1, 5))
                gone = chance.choice([[INPUT], [OTHER], [INPUT, OTHER]])
                await story.source.revoke(gone)
                await asyncio.sleep(chance.uniform(0, 2))
                await story.source.assign(gone)
            await asyncio.sleep(900)
            assert not running.done(), running.exception()
        outcomes = Counter(message.source for message in story.sink.messages)
        assert outcomes == Counter(each.position for each in records)
        assert story.source.committed == {INPUT: Mark(400), OTHER: Mark(400)}
        assert told_from(story)["in_flight"] > 50
        values = {message.source: orjson.loads(message.value or b"") for message in story.sink.to("classified")}
        texts = {each.position: orjson.loads(each.value or b"")["text"] for each in records}
        assert all((len(texts[position]) > 300) == ("split into" in str(value)) for position, value in values.items())
        assert all(value["best"]["name"] == texts[position].split()[0] for position, value in values.items())

    tell()
