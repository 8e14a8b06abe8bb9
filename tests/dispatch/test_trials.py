"""Shadow and canary: who is asked beside, what comes of it, and that nobody waits for that."""

import asyncio
import random
from collections import Counter
from collections.abc import Sequence
from typing import Any

import orjson
import pytest
from structlog.testing import capture_logs

from service import settings
from service.dispatch.account import Account
from service.dispatch.trials import PATIENCE, is_drawn
from service.documents import Classified, ClassScore, Document, Outcome, Reason, Refused
from service.errors import Misconfigured, Unavailable
from service.limits.costs import Tariff
from service.limits.gate import Limits
from service.observability.comparing import Compared
from service.observability.health import app, served
from service.observability.messages import Messages
from service.observability.status import picture
from service.observability.telemetry import Telemetry
from service.offsets import Mark
from service.trial_report import asked as asked_of
from service.trial_report import reported
from tests.classifiers import UNWANTED, FirstWord
from tests.clock import now, virtual_time
from tests.commands import NOWHERE
from tests.records import INPUT, document, written
from tests.test_pipeline import Story, stream, tickets

PRESENT, CANDIDATE = "account-0", "account-1"


@pytest.fixture(autouse=True)
def the_same_chances() -> None:
    random.seed(7)


class Second(FirstWord):
    """Says the second word, and is surer."""

    async def classify(self, documents: Sequence[Document]) -> list[Outcome]:
        await super().classify(documents)
        return [
            Refused(Reason.REFUSED_BY_CLASSIFIER, "no")
            if each.text.startswith(UNWANTED)
            else Classified((ClassScore(each.text.split()[1], 0.97),), units=1)
            for each in documents
        ]


def shadowed(share: float = 1.0, **changed: Any) -> settings.Stream:
    return stream(classify_with=PRESENT, shadow={"ask": CANDIDATE, "share": share, **changed})


def two(count: int, every: int = 4) -> list[Any]:
    """Documents of which one in so many has two words that differ."""
    return [written(n, f"billing {'refund' if n % every == 0 else 'billing'} {n}") for n in range(count)]


def became(story: Story, trial: str = "shadow") -> dict[str, float]:
    found = {each: story.sample("trial_records_total", trial=trial, became=each) for each in BECAME}
    return {each: count for each, count in found.items() if count}


BECAME = ("agreed", "differed", "refused", "dropped")


def results(story: Story) -> list[dict[str, Any]]:
    return [orjson.loads(message.value or b"") for message in story.sink.to("classified")]


@virtual_time
async def test_a_shadow_is_asked_of_what_is_answered_and_compared_and_nothing_of_it_is_published() -> None:
    story = Story(two(200), settings=shadowed(), classifiers=[FirstWord(), Second(seconds=1)])
    story.accounts = [
        Account(name, "fake", each, limits=Limits(settings.Limits(), Tariff(price)), telemetry=events)
        for each, name, price in zip(story.classifiers, (PRESENT, CANDIDATE), (0.5, 2.0), strict=True)
        for events in [story.telemetry.account(name, "fake")]
    ]
    await story.run()
    assert {body["account"] for body in results(story)} == {PRESENT}
    assert became(story) == {"agreed": 150, "differed": 50}
    pair = {"trial": "shadow", "present": "billing", "candidate": "refund"}
    assert story.sample("trial_differences_total", **pair) == 50
    assert story.sample("trial_score_shift_bucket", trial="shadow", le="0.05") == 0
    assert story.sample("trial_score_shift_bucket", trial="shadow", le="0.1") == 200
    costs = [story.sample("trial_cost_total", trial="shadow", classifier=each) for each in ("present", "candidate")]
    assert costs == [100, 400]
    assert story.sample("cost_total") == 500
    assert story.accounts[1].limits.statistics().spent.total == 400
    took = [story.sample("trial_seconds_sum", trial="shadow", classifier=each) for each in ("present", "candidate")]
    assert (took[1] or 0) > (took[0] or 0) > 0


@virtual_time
async def test_the_share_is_of_the_same_documents_each_time() -> None:
    asked = []
    for _ in range(2):
        story = Story(two(1000), settings=shadowed(0.2), classifiers=[FirstWord(), Second()])
        await story.run()
        asked.append(Counter(story.classifiers[1].asked))
    assert asked[0] == asked[1]
    assert 150 < asked[0].total() < 250


def test_a_share_is_that_share_of_ids() -> None:
    drawn = [is_drawn(document(n), 0.1) for n in range(20_000)]
    assert 0.09 < sum(drawn) / len(drawn) < 0.11
    assert all(is_drawn(document(n), 1.0) for n in range(1000))


@virtual_time
async def test_a_shadow_that_is_down_holds_up_neither_results_nor_commits_nor_the_end() -> None:
    story = Story(
        two(400),
        settings=shadowed(waiting=50),
        classifiers=[FirstWord(), Second(trouble=lambda: Unavailable("503"))],
        ends=False,
    )
    async with story.running() as running:
        await asyncio.sleep(5)
        assert len(results(story)) == 400
        assert story.source.committed == {INPUT: Mark(400)}
        assert became(story) == {"dropped": 350}
        began = now()
        story.stop.set()
        await running
        assert now() - began <= PATIENCE + 0.5
    assert became(story) == {"dropped": 400}


@virtual_time
async def test_what_is_out_at_the_end_has_a_moment_and_no_more() -> None:
    story = Story(two(100), settings=shadowed(), classifiers=[FirstWord(), Second(seconds=1)])
    await story.run()
    assert became(story) == {"agreed": 75, "differed": 25}
    story = Story(two(100), settings=shadowed(), classifiers=[FirstWord(), Second(seconds=60)])
    await story.run()
    assert now() < 10
    assert became(story) == {"dropped": 100}


@virtual_time
async def test_a_shadow_that_is_misconfigured_ends_by_itself_and_is_told_once() -> None:
    class Locked(Second):
        async def classify(self, documents: Sequence[Document]) -> list[Outcome]:
            await super().classify(documents)
            raise Misconfigured("401")

    story = Story(two(400), settings=shadowed(), classifiers=[FirstWord(), Locked()])
    with capture_logs() as logs:
        await story.run()
    assert len(results(story)) == 400
    assert story.source.committed == {INPUT: Mark(400)}
    assert [(each["event"], each["reason"]) for each in logs if each["log_level"] == "error"] == [
        ("trial_ended", f"accounts.{CANDIDATE}: 401")
    ]
    assert became(story) == {"dropped": 400}


@virtual_time
async def test_what_the_shadow_refuses_is_counted_and_no_dead_letter() -> None:
    class Easy(FirstWord):
        async def classify(self, documents: Sequence[Document]) -> list[Outcome]:
            return await super().classify([each._replace(text=f"fine {each.text}") for each in documents])

    story = Story(
        [written(0, f"{UNWANTED} x"), *tickets(9, first=1)], settings=shadowed(), classifiers=[Easy(), Second()]
    )
    await story.run()
    assert story.letters == {}
    assert became(story)["refused"] == 1


@virtual_time
async def test_a_canary_answers_its_share_and_those_whose_place_it_takes_are_asked_beside() -> None:
    story = Story(
        two(1000),
        settings=stream(classify_with=PRESENT, canary={"ask": CANDIDATE, "share": 0.1}),
        classifiers=[FirstWord(), Second(model="new")],
    )
    await story.run()
    by = Counter(body["account"] for body in results(story))
    assert sum(by.values()) == 1000
    assert 60 < by[CANDIDATE] < 140
    assert {body["model"] for body in results(story) if body["account"] == CANDIDATE} == {"new"}
    assert sum(became(story, "canary").values()) == by[CANDIDATE]
    assert len(story.classifiers[0].asked) == 1000  # those of the share, too
    pair = {"trial": "canary", "present": "billing", "candidate": "refund"}
    assert story.sample("trial_differences_total", **pair) == became(story, "canary")["differed"]
    assert story.sample("trial_score_shift_bucket", trial="canary", le="0.05") == 0  # it is surer, whoever is beside
    assert story.sample("lane_records_total", lane="canary", became="finished") == by[CANDIDATE]


@virtual_time
async def test_where_a_canary_is_down_those_before_it_answer() -> None:
    story = Story(
        two(400),
        settings=stream(classify_with=PRESENT, canary={"ask": CANDIDATE, "share": 0.5}),
        classifiers=[FirstWord(), Second(trouble=lambda: Unavailable("503"))],
    )
    await story.run()
    assert Counter(body["account"] for body in results(story)) == {PRESENT: 400}
    assert became(story, "canary") == {}
    assert story.source.committed == {INPUT: Mark(400)}


@virtual_time
async def test_a_shadow_sees_what_is_published_where_the_paid_account_answered() -> None:
    class Unsure(FirstWord):
        async def classify(self, documents: Sequence[Document]) -> list[Outcome]:
            await super().classify(documents)
            return [Classified((ClassScore("guess", 0.3),))] * len(documents)

    story = Story(
        tickets(50),
        settings=stream(
            classify_with=PRESENT,
            unsure={"when": {"best_below": 0.5}, "ask": CANDIDATE},
            shadow={"ask": "account-2", "share": 1},
        ),
        classifiers=[Unsure(), FirstWord(), FirstWord()],
    )
    await story.run()
    assert became(story) == {"agreed": 50}
    assert {body["account"] for body in results(story)} == {CANDIDATE}


def test_no_more_pairs_are_told_apart_than_there_is_room_for() -> None:
    telemetry = Telemetry()
    trial = telemetry.stream("incoming", lambda: None).trial("shadow")  # type: ignore[arg-type, return-value]
    for n in range(300):
        present, candidate = (Classified((ClassScore(f"class {n + one}", 0.5),)) for one in (0, 1))
        trial.compared(Compared(present, candidate, 0.1, 0.1, 0, 0))
    telemetry._streams.clear()  # of which nobody is to be asked how it is
    families = {family.name: family for family in telemetry.registry.collect()}
    samples = [each for each in families["labelstream_trial_differences"].samples if each.name.endswith("_total")]
    assert len(samples) == 101
    assert sum(each.value for each in samples) == 300
    assert next(each.value for each in samples if each.labels["present"] == "other") == 200


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        (
            {"shadow": {"ask": "x", "share": 0.1}, "canary": {"ask": "y", "share": 0.1}},
            "shadow and canary: one at a time",
        ),
        ({"shadow": {"ask": "x", "share": 0.1}, "merge_with": "y"}, "with merge_with a result is of several"),
        ({"canary": {"ask": "first", "share": 0.1}}, "canary.ask: an account of classify_with"),
        ({"shadow": {"ask": "x", "share": 0}}, "greater than 0"),
    ],
)
def test_trials_that_would_tell_nothing_are_refused(changed: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        stream(**{"classify_with": "first", **changed})


# What the command says


@virtual_time
async def test_workers_that_try_the_same_are_added_up() -> None:
    told = []
    for _ in range(2):
        story = Story(two(200), settings=shadowed(), classifiers=[FirstWord(), Second(seconds=1)])
        await story.run()
        pictured = picture(story.telemetry.registry.collect(), {}, [])
        told += pictured["streams"]
    (one,), (both,) = reported(told[:1]), reported(told)
    assert one.became == {"agreed": 150, "differed": 50}
    assert both.became == {"agreed": 300, "differed": 100}
    assert (both.topic, both.trial, both.agreement) == ("incoming", "shadow", 0.75)
    assert both.differences == [("billing", "refund", 100)]
    assert (both.surer, both.less_sure) == (1.0, 0.0)
    assert both.candidate.seconds > both.present.seconds > 0
    assert both.candidate.seconds == pytest.approx(one.candidate.seconds)


async def test_who_has_nobody_on_trial_or_is_no_worker_is_told_so() -> None:
    async with served(app(Telemetry(), Messages()), settings.Health(port=0)) as url:
        with pytest.raises(Misconfigured, match=f"no stream at {url} has a classifier on trial"):
            await asked_of([url])
    with pytest.raises(Unavailable, match="does not say how it is"):
        await asked_of([f"http://{NOWHERE}"])
    with pytest.raises(Misconfigured, match="is no address"):
        await asked_of(["worker:9464"])
