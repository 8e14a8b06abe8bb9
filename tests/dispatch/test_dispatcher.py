import asyncio
import math
import random
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise

import pytest

from service import settings
from service.dispatch.account import Account
from service.dispatch.answers import Answer, Batch
from service.dispatch.calls import MOST_LOSSES
from service.dispatch.dispatcher import Dispatcher
from service.documents import Classified, Document, Outcome, Reason, Refused
from service.errors import CallFailed, JobLost, Misconfigured, Rejected, Throttled, Unavailable
from service.limits.admission import Held
from service.limits.breaker import State
from service.limits.gate import Limits
from service.limits.in_flight import START
from service.observability.telemetry import Telemetry
from tests.classifiers import POISON, UNWANTED, FirstWord, FirstWordByJobs, account, unnoted
from tests.clock import now, virtual_time
from tests.records import document


@pytest.fixture(autouse=True)
def the_same_chances() -> None:
    random.seed(7)  # the back-off is spread by chance


def batch(*texts: str) -> Batch:
    return Batch([document(i, text) for i, text in enumerate(texts or ["billing please"])])


def until(moment: float, failure: CallFailed) -> Callable[[], CallFailed | None]:
    return lambda: failure if now() < moment else None


def times(count: int, failure: CallFailed) -> Callable[[], CallFailed | None]:
    left = [failure] * count
    return lambda: left.pop() if left else None


def flat(answers: Sequence[Answer]) -> list[tuple[Document, Outcome]]:
    return [pair for answer in answers for pair in zip(answer.documents, answer.outcomes, strict=True)]


OUTAGE = Unavailable("502")


def by(*accounts: Account) -> Dispatcher:
    return Dispatcher(accounts)


@virtual_time
async def test_a_batch_is_answered_by_one_call_of_the_first_account() -> None:
    first, second = FirstWord(), FirstWord()
    asked = batch("billing a", "refund b")
    (answer,) = await by(account(first), account(second, "second")).classify(asked, unnoted())
    assert answer.documents == asked.documents
    assert [outcome.classes[0].name for outcome in answer.outcomes if isinstance(outcome, Classified)] == [
        "billing",
        "refund",
    ]
    assert (answer.account.name, answer.attempts) == ("first", 1)
    assert (len(first.calls), len(second.calls)) == (1, 0)


@pytest.mark.parametrize("failure", [Throttled("slow down", 9.0), Throttled("slow down"), Unavailable("502", 9.0)])
def test_the_next_account_answers_at_once_where_the_first_cannot(failure: CallFailed) -> None:
    @virtual_time
    async def dispatch() -> None:
        first, second = FirstWord(trouble=until(60, failure)), FirstWord()
        dispatcher = by(account(first), account(second, "second"))
        (answer,) = await dispatcher.classify(batch(), unnoted())
        assert (answer.account.name, answer.attempts) == ("second", 2)
        assert now() == pytest.approx(0.2)
        (answer,) = await dispatcher.classify(batch(), unnoted())
        assert (answer.account.name, answer.attempts) == ("second", 1), "the first is left alone for a while"

    dispatch()


@virtual_time
async def test_the_next_account_answers_while_the_first_fails_and_it_alone_when_that_is_evidence_enough() -> None:
    first = FirstWord(trouble=until(60, Unavailable("502")))
    dispatcher = by(account(first), account(FirstWord(), "second"))
    answers = [answer for _ in range(7) for answer in await dispatcher.classify(batch(), unnoted())]
    assert [answer.account.name for answer in answers] == ["second"] * 7
    assert [answer.attempts for answer in answers] == [2, 2, 2, 2, 2, 1, 1]


@virtual_time
async def test_one_failure_among_many_answers_holds_up_nothing_but_its_batch() -> None:
    provider = FirstWord(trouble=times(1, Unavailable("502")))
    asked = account(provider, in_flight=50)
    answers = await asyncio.gather(*(by(asked).classify(batch(), unnoted()) for _ in range(50)))
    assert sorted(answer.attempts for (answer,) in answers) == [1] * 49 + [2]
    assert asked.statistics().limits.breaker.opened == 0
    assert now() < 0.75


@virtual_time
async def test_the_first_account_is_gone_back_to_when_it_is_well_again() -> None:
    first = FirstWord(trouble=until(60, Unavailable("502")))
    dispatcher = by(account(first), account(FirstWord(), "second"))
    for _ in range(60):
        await dispatcher.classify(batch(), unnoted())
        await asyncio.sleep(2)
    (answer,) = await dispatcher.classify(batch(), unnoted())
    assert (answer.account.name, answer.attempts) == ("first", 1)
    assert len(first.calls) < 60


@virtual_time
async def test_while_nobody_can_answer_a_batch_is_held() -> None:
    first = FirstWord(trouble=until(3600, Unavailable("502")))
    second = FirstWord(trouble=until(1800, Throttled("slow down")))
    (answer,) = await by(account(first), account(second, "second")).classify(batch(), unnoted())
    assert answer.account.name == "second"
    assert 1800 <= now() <= 1830
    assert answer.attempts == len(first.calls) + len(second.calls) < 250


@virtual_time
async def test_an_account_that_throttles_and_does_not_say_for_how_long_is_left_alone_longer_each_time() -> None:
    provider = FirstWord(seconds=0, trouble=times(12, Throttled("slow down")))
    asked = account(provider)
    await by(asked).classify(batch(), unnoted())
    moments = [moment for moment, _ in provider.calls]
    waits = [after - before for before, after in pairwise(moments)]
    for wait, longest in zip(waits, [0.5, 1, 2, 4, 8, 16, 30, 30, 30, 30, 30, 30], strict=True):
        assert longest / 2 <= wait <= longest * 1.01
    assert asked.statistics().limits.breaker.opened == 0, "throttling is no failure"


@virtual_time
async def test_calls_that_were_out_together_and_fail_are_one_outage() -> None:
    provider = FirstWord(trouble=until(5, Unavailable("502")))
    asked = account(provider)
    calls = [asyncio.create_task(by(asked).classify(batch(), unnoted())) for _ in range(10)]
    await asyncio.sleep(0.15)
    stands = asked.statistics().limits
    assert (stands.breaker.state, stands.breaker.failures, stands.breaker.opened) == (State.OPEN, 5, 1)
    assert stands.quiet <= 0.5
    await asyncio.gather(*calls)


@virtual_time
async def test_calls_that_were_out_together_are_one_outage_however_far_apart_they_time_out() -> None:
    provider = FirstWord(seconds=30, trouble=until(61, Unavailable("timed out")))
    asked = account(provider)
    calls = []
    for _ in range(16):
        calls.append(asyncio.create_task(by(asked).classify(batch(), unnoted())))
        await asyncio.sleep(1.5)
    await asyncio.sleep(30)
    assert asked.statistics().limits.breaker.opened == 1
    await asyncio.gather(*calls)


@virtual_time
async def test_batches_that_wait_for_an_account_to_be_well_say_so() -> None:
    asked = account(FirstWord(trouble=until(60, Unavailable("502"))))
    await asyncio.gather(*(by(asked).classify(batch(), unnoted()) for _ in range(50)))
    held = asked.statistics().limits.held
    assert held[Held.BREAKER] > 50
    assert held[Held.QUIET] == 0


@virtual_time
async def test_as_long_as_the_account_asks_for_it_is_left_alone() -> None:
    provider = FirstWord(seconds=0, trouble=times(1, Throttled("slow down", 120.0)))
    await by(account(provider)).classify(batch(), unnoted())
    first, second = (moment for moment, _ in provider.calls)
    assert second - first == pytest.approx(120)


@virtual_time
async def test_an_account_that_asks_for_no_wait_at_all_is_not_asked_in_a_tight_loop() -> None:
    provider = FirstWord(seconds=0.01, trouble=until(10, Throttled("slow down", 0.0)))
    await by(account(provider)).classify(batch(), unnoted())
    assert len(provider.calls) < 20


@virtual_time
async def test_batches_that_wait_at_an_account_go_elsewhere_when_it_falls_ill() -> None:
    first, second = FirstWord(trouble=until(3600, Unavailable("502"))), FirstWord()
    dispatcher = by(account(first, in_flight=2), account(second, "second", in_flight=50))
    await asyncio.gather(*(dispatcher.classify(batch(f"a {i}"), unnoted()) for i in range(200)))
    assert now() < 2
    assert len(second.calls) == 200


@virtual_time
async def test_single_calls_find_out_whether_an_account_is_well_again_and_the_others_go_elsewhere() -> None:
    first, second = FirstWord(seconds=30, trouble=until(3600, Unavailable("timed out"))), FirstWord()
    dispatcher = by(account(first, in_flight=8), account(second, "second"))
    await dispatcher.classify(batch(), unnoted())
    latencies = []

    async def one() -> None:
        began = now()
        await dispatcher.classify(batch(), unnoted())
        latencies.append(now() - began)

    async with asyncio.TaskGroup() as calls:
        for _ in range(600):
            calls.create_task(one())
            await asyncio.sleep(1)
    assert len(first.calls) < 100
    assert sum(latency > 1 for latency in latencies) < 100


def test_the_only_account_is_asked_by_all_when_its_back_off_is_over() -> None:
    @virtual_time
    async def dispatch() -> None:
        provider = FirstWord(trouble=until(1, Unavailable("502")))
        dispatcher = by(account(provider))
        await asyncio.gather(*(dispatcher.classify(batch(), unnoted()) for _ in range(10)))
        assert now() < 5

    dispatch()


@pytest.mark.parametrize("at_fault", [(), (0,), (24,), (3, 4), (0, 7, 12, 24), tuple(range(25))])
def test_a_refused_call_is_halved_until_exactly_the_documents_at_fault_are_refused(at_fault: tuple[int, ...]) -> None:
    @virtual_time
    async def dispatch() -> None:
        provider = FirstWord()
        asked = batch(*(f"{POISON} {i}" if i in at_fault else f"fine {i}" for i in range(25)))
        pairs = flat(await by(account(provider)).classify(asked, unnoted()))
        assert [document for document, _ in pairs] == asked.documents
        refused = [i for i, (_, outcome) in enumerate(pairs) if isinstance(outcome, Refused)]
        assert refused == list(at_fault)
        for _, outcome in pairs:
            if isinstance(outcome, Refused):
                assert outcome == Refused(Reason.REFUSED_BY_CLASSIFIER, "one of the documents is at fault")
        assert len(provider.calls) <= 1 + 2 * math.ceil(math.log2(25)) * len(at_fault)

    dispatch()


@virtual_time
async def test_a_document_that_is_refused_by_itself_costs_no_further_call() -> None:
    provider = FirstWord()
    pairs = flat(await by(account(provider)).classify(batch("fine a", f"{UNWANTED} b"), unnoted()))
    assert [type(outcome) for _, outcome in pairs] == [Classified, Refused]
    assert len(provider.calls) == 1


@virtual_time
async def test_what_is_misconfigured_is_said_at_once() -> None:
    first, second = FirstWord(trouble=until(3600, Misconfigured("accounts.first.key is wrong"))), FirstWord()
    with pytest.raises(Misconfigured, match=r"accounts\.first\.key"):
        await by(account(first), account(second, "second")).classify(batch(), unnoted())
    assert second.calls == []


@virtual_time
async def test_a_batch_counts_as_asked_only_while_it_is_out() -> None:
    provider = FirstWord(seconds=1, trouble=times(1, Throttled("slow down", 10)))
    dispatcher, asked = by(account(provider, in_flight=1)), batch()
    blocking = asyncio.create_task(dispatcher.classify(batch(), unnoted()))
    await asyncio.sleep(0.5)
    waiting = asyncio.create_task(dispatcher.classify(asked, unnoted()))
    seen = []
    for _ in range(16):
        seen.append((round(now()), asked.asked))
        await asyncio.sleep(1)
    # The first is out until 1 and throttled, both wait until 11, the first is out again and then the second.
    assert [moment for moment, is_out in seen if is_out] in ([11], [12])
    assert asked.asked_at is not None
    await asyncio.gather(blocking, waiting)
    assert not asked.asked


@virtual_time
async def test_a_batch_that_is_cancelled_leaves_its_place() -> None:
    provider = FirstWord(seconds=5)
    one, dispatcher = batch(), by(account(provider, in_flight=1))
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(1):
            await dispatcher.classify(one, unnoted())
    assert not one.asked
    await dispatcher.classify(batch(), unnoted())
    assert now() == pytest.approx(6)


@virtual_time
async def test_documents_too_long_for_one_account_go_to_one_that_takes_them() -> None:
    short, long = FirstWord(characters_per_document=10), FirstWord(characters_per_document=100)
    dispatcher = by(account(short), account(long, "long"))
    assert dispatcher.too_long("x" * 100) is None
    assert dispatcher.too_long("x" * 101) == "the text has 101 characters, more than 100"
    (answer,) = await dispatcher.classify(batch("a short", "a " + "x" * 50), unnoted())
    assert answer.account.name == "long"
    (answer,) = await dispatcher.classify(batch("a short"), unnoted())
    assert answer.account.name == "first"


@virtual_time
async def test_documents_of_too_many_bytes_for_one_account_go_to_one_that_counts_characters() -> None:
    counts_bytes, counts_characters = FirstWord(bytes_per_document=100), FirstWord(characters_per_document=100)
    dispatcher = by(account(counts_bytes), account(counts_characters, "characters"))
    for text, name in (("a " + "ä" * 49, "first"), ("a " + "ä" * 50, "characters")):
        (answer,) = await dispatcher.classify(batch(text), unnoted())
        assert answer.account.name == name
    bytes_alone = by(account(FirstWord(bytes_per_document=100)))
    assert bytes_alone.too_long("ä" * 51) == "the text has 102 bytes in UTF-8, more than 100"


@virtual_time
async def test_documents_that_no_account_takes_together_are_asked_for_apart() -> None:
    counts_bytes, counts_characters = FirstWord(bytes_per_document=100), FirstWord(characters_per_document=80)
    dispatcher = by(account(counts_bytes), account(counts_characters, "characters"))
    answers = await dispatcher.classify(batch("a", "a " + "x" * 90, "b", "a " + "ä" * 60), unnoted())
    who = {each.text[:3]: answer.account.name for answer in answers for each in answer.documents}
    assert who == {"a": "first", "a x": "first", "b": "characters", "a ä": "characters"}


LONG = "billing is wrong. " * 10 + "refund it, please. " * 9


def splitting(*accounts: Account, most_parts: int = 20) -> Dispatcher:
    return Dispatcher(accounts, 1.0, most_parts)


@virtual_time
async def test_a_document_too_long_for_all_is_asked_for_in_parts_beside_the_others() -> None:
    provider, telemetry = FirstWord(characters_per_document=200), Telemetry()
    dispatcher = splitting(account(provider, telemetry=telemetry))
    assert dispatcher.too_long(LONG) is None
    asked = batch("other short", LONG, "other too")
    answered = flat(await dispatcher.classify(asked, unnoted()))
    assert {id(document) for document, _ in answered} == set(map(id, asked.documents))
    (outcome,) = (outcome for document, outcome in answered if document.text == LONG)
    assert isinstance(outcome, Classified)
    assert [each.name for each in outcome.classes] == ["billing", "refund", "other"]
    assert (outcome.units, outcome.warnings) == (2, ("split into 2 parts",))
    assert [len(texts) for _, texts in provider.calls] == [2, 2]
    assert "".join(provider.calls[1][1]) == LONG
    who = {"account": "first", "provider": "fake"}
    assert telemetry.registry.get_sample_value("labelstream_record_parts_sum", who) == 2


def test_what_is_longer_than_the_parts_that_there_may_be_is_too_long() -> None:
    dispatcher = splitting(account(FirstWord(characters_per_document=100)), most_parts=3)
    assert dispatcher.too_long("x" * 300) is None
    assert dispatcher.too_long("x" * 301) == "the text has 301 characters, more than 3 parts of 100"
    dispatcher = splitting(account(FirstWord(bytes_per_document=100)), most_parts=3)
    assert dispatcher.too_long("ä" * 151) == "the text has 302 bytes in UTF-8, more than 3 parts of 100"


@virtual_time
async def test_parts_go_out_in_as_many_calls_as_they_take() -> None:
    provider = FirstWord(characters_per_document=100, characters_per_call=220)
    await splitting(account(provider)).classify(batch(LONG), unnoted())
    assert [len(texts) for _, texts in provider.calls] == [2, 2]
    assert all(sum(map(len, texts)) <= 220 for _, texts in provider.calls)


@virtual_time
async def test_a_document_is_split_as_the_account_that_is_asked_takes_it() -> None:
    down, well = FirstWord(characters_per_document=200, trouble=lambda: OUTAGE), FirstWord(characters_per_document=100)
    (answer,) = await splitting(account(down), account(well, "well")).classify(batch(LONG), unnoted())
    assert answer.account.name == "well"
    assert max(map(len, well.asked)) <= 100
    assert answer.outcomes[0] == Classified(answer.outcomes[0].classes, 4, ("split into 4 parts",))  # type: ignore[union-attr]


@virtual_time
async def test_an_account_that_fails_a_little_between_parts_is_not_left_and_no_part_paid_twice() -> None:
    failures = [None, OUTAGE, Throttled("slow down", 2.0), None, None, None]
    first = FirstWord(characters_per_document=100, documents_per_call=1, trouble=lambda: failures.pop(0))
    other = FirstWord(characters_per_document=100)
    (answer,) = await splitting(account(first, in_flight=1), account(other, "other")).classify(batch(LONG), unnoted())
    assert (answer.account.name, other.calls) == ("first", [])
    assert len(first.calls) == 4 + 2


@virtual_time
async def test_a_document_begun_at_an_account_that_stays_away_is_answered_by_another_alone() -> None:
    first = FirstWord(characters_per_document=100, documents_per_call=1)
    other = FirstWord(characters_per_document=200)
    first.trouble = lambda: OUTAGE if len(first.calls) > 1 else None
    (answer,) = await splitting(account(first, in_flight=1), account(other, "other")).classify(batch(LONG), unnoted())
    assert answer.account.name == "other"
    assert "".join(other.asked) == LONG
    assert now() < 10


@virtual_time
async def test_a_part_that_is_refused_has_its_document_refused() -> None:
    text = LONG + f"{POISON} this is. " * 30
    provider = FirstWord(characters_per_document=200)
    ((_, outcome),) = flat(await splitting(account(provider)).classify(batch(text), unnoted()))
    assert isinstance(outcome, Refused)
    assert outcome.message.startswith("part ")
    assert outcome.message.endswith(": one of the documents is at fault")


@virtual_time
async def test_what_is_misconfigured_is_so_for_parts_too() -> None:
    provider = FirstWord(characters_per_document=200, trouble=lambda: Misconfigured("key was refused"))
    with pytest.raises(Misconfigured, match=r"accounts\.first: key"):
        await splitting(account(provider)).classify(batch(LONG), unnoted())


def test_a_call_holds_no_more_than_every_account_takes() -> None:
    small = FirstWord(documents_per_call=5, characters_per_call=1000)
    large = FirstWord(documents_per_call=10, characters_per_call=500)
    dispatcher = by(account(small), account(large, "second"))
    assert dispatcher.most[:2] == (5, 500)


@virtual_time
async def test_jobs_are_followed_to_their_answers_and_counted() -> None:
    telemetry, provider = Telemetry(), FirstWordByJobs(seconds=2)
    (answer,) = await by(account(provider, telemetry=telemetry)).classify(batch("billing a", "refund b"), unnoted())
    assert len(answer.outcomes) == 2
    assert 2 <= now() < 3
    who = {"account": "first", "provider": "fake"}
    assert telemetry.registry.get_sample_value("labelstream_job_polls_count", who) == 1
    assert telemetry.registry.get_sample_value("labelstream_job_duration_seconds_sum", who) == pytest.approx(now())
    assert telemetry.registry.get_sample_value("labelstream_provider_text_units_total", who) == 2


@virtual_time
async def test_a_job_that_is_lost_is_submitted_again() -> None:
    telemetry, provider = Telemetry(), FirstWordByJobs(trouble=times(0, JobLost("")))
    jobs = account(provider, telemetry=telemetry)
    loop = asyncio.get_running_loop()
    loop.call_later(0.05, setattr, provider, "trouble", times(1, JobLost("gone")))
    (answer,) = await by(jobs).classify(batch(), unnoted())
    assert answer.attempts == 2
    assert len(provider.calls) == 2
    who = {"account": "first", "provider": "fake"}
    retries = "labelstream_provider_retries_total"
    assert telemetry.registry.get_sample_value(retries, {**who, "reason": "job_lost"}) == 1


class LosesCursed(FirstWord):
    """Loses the job of every call that holds a cursed document."""

    async def classify(self, documents: Sequence[Document]) -> list[Outcome]:
        outcomes = await super().classify(documents)
        if any(document.text.startswith("cursed") for document in documents):
            raise JobLost("the job ended and gave nothing")
        return outcomes


@virtual_time
async def test_a_document_whose_jobs_are_always_lost_is_found_while_others_are_answered() -> None:
    dispatcher = by(account(LosesCursed()))

    async def others() -> None:
        while True:
            await dispatcher.classify(batch("billing"), unnoted())
            await asyncio.sleep(1)

    company = asyncio.create_task(others())
    answered = flat(await dispatcher.classify(batch("refund a", "cursed b", "refund c"), unnoted()))
    company.cancel()
    assert [type(outcome) for _, outcome in answered] == [Classified, Refused, Classified]


@virtual_time
async def test_jobs_that_are_out_are_told_and_for_how_long_nothing_was_heard_of_them() -> None:
    provider = FirstWordByJobs(seconds=100)
    asked = account(provider)
    async with asyncio.TaskGroup() as asking:
        asking.create_task(by(asked).classify(batch("billing a"), unnoted()))
        await asyncio.sleep(50)
        assert asked.statistics().jobs == 1
        assert asked.statistics().silent_for < 50, "it was asked after meanwhile"
        provider.trouble = lambda: OUTAGE
        await asyncio.sleep(60)
        assert asked.statistics().silent_for > 59
        provider.trouble = lambda: None
    assert (asked.statistics().jobs, asked.statistics().silent_for) == (0, 0)


class FailsPoisoned(FirstWordByJobs):
    """Has jobs that fail as a whole for what is in one of their documents."""

    async def poll(self, job: str, documents: Mapping[int, Document]) -> list[Outcome] | None:
        if any(document.text.startswith(POISON) for document in documents.values()):
            raise Rejected("the job failed for a document")
        return await super().poll(job, documents)


@pytest.mark.parametrize("at_fault", range(0, 25, 6))
def test_a_job_that_fails_for_one_document_costs_no_more_calls_than_halving_takes(at_fault: int) -> None:
    @virtual_time
    async def dispatch() -> None:
        provider = FailsPoisoned()
        texts = [f"{POISON} {i}" if i == at_fault else f"fine {i}" for i in range(25)]
        outcomes = [outcome for _, outcome in flat(await by(account(provider)).classify(batch(*texts), unnoted()))]
        assert [i for i, outcome in enumerate(outcomes) if isinstance(outcome, Refused)] == [at_fault]
        assert len(provider.calls) <= 1 + 2 * math.ceil(math.log2(25))

    dispatch()


@virtual_time
async def test_a_document_whose_jobs_are_always_lost_costs_few_more() -> None:
    provider = LosesCursed()
    dispatcher = by(account(provider))

    async def others() -> None:
        while True:
            await dispatcher.classify(batch("billing"), unnoted())
            await asyncio.sleep(0.2)

    company = asyncio.create_task(others())
    answered = flat(
        await dispatcher.classify(batch(*(f"refund {i}" for i in range(12)), "cursed", *["refund"] * 12), unnoted())
    )
    company.cancel()
    assert [i for i, (_, outcome) in enumerate(answered) if isinstance(outcome, Refused)] == [12]
    ours = [texts for _, texts in provider.calls if texts != ["billing"]]
    assert len(ours) <= MOST_LOSSES + 2 * math.ceil(math.log2(25)) + MOST_LOSSES - 1


@virtual_time
async def test_documents_whose_jobs_are_lost_as_all_others_are_held() -> None:
    held = asyncio.create_task(by(account(LosesCursed())).classify(batch("cursed"), unnoted()))
    await asyncio.sleep(600)
    assert not held.done()
    held.cancel()


@virtual_time
async def test_what_happens_is_counted_by_its_reason() -> None:
    telemetry = Telemetry()
    troubles: list[CallFailed | None] = [None, Unavailable("502"), Throttled("slow down", 3.0)]
    provider = FirstWord(trouble=troubles.pop)
    await by(account(provider, telemetry=telemetry)).classify(batch("a", "b"), unnoted())
    who = {"account": "first", "provider": "fake"}
    sample = telemetry.registry.get_sample_value
    assert sample("labelstream_provider_retries_total", {**who, "reason": "throttled"}) == 1
    assert sample("labelstream_provider_retries_total", {**who, "reason": "unavailable"}) == 1
    assert sample("labelstream_provider_throttled_total", who) == 1
    assert sample("labelstream_provider_retry_after_seconds_sum", who) == 3
    assert sample("labelstream_batch_size_records_sum", who) == 6
    assert sample("labelstream_batch_fill_ratio_sum", who) == pytest.approx(3 * 2 / 25)


def adaptive(provider: FirstWord) -> Account:
    gate = Limits(settings.Limits(in_flight="adaptive", most_in_flight=50))
    return Account("first", "fake", provider, limits=gate, telemetry=Telemetry().account("first", "fake"))


@pytest.mark.parametrize("provider", [FirstWord(), FirstWordByJobs(seconds=2)])
def test_an_account_that_answers_is_asked_more_at_once_as_long_as_batches_wait(provider: FirstWord) -> None:
    @virtual_time
    async def dispatch() -> None:
        asked = adaptive(provider)
        await asyncio.gather(*(by(asked).classify(batch(), unnoted()) for _ in range(500)))
        assert asked.statistics().limits.in_flight_limit == 50

    dispatch()


@virtual_time
async def test_an_account_that_throttles_is_asked_more_slowly_from_then_on() -> None:
    provider = FirstWord(seconds=0.05)
    asked = account(provider, in_flight=1)
    await by(asked).classify(batch(), unnoted())
    provider.trouble = times(1, Throttled("slow down"))
    await asyncio.gather(*(by(asked).classify(batch(), unnoted()) for _ in range(40)))
    assert asked.statistics().limits.held[Held.REQUESTS] > 0


@virtual_time
async def test_an_account_is_asked_for_the_share_of_the_partitions_that_are_ours() -> None:
    gate = Limits(settings.Limits(documents_per_second=10))
    asked = Account("first", "fake", FirstWord(), limits=gate, telemetry=Telemetry().account("first", "fake"))
    dispatcher = by(asked)
    dispatcher.share(3, 12)
    await asyncio.gather(*(dispatcher.classify(batch(), unnoted()) for _ in range(26)))
    assert now() == pytest.approx(25 / 2.5, rel=0.05)
    for partitions, of in ((0, 12), (0, 0), (5, 3)):  # between owners, before anything is known, and as topics grow
        dispatcher.share(partitions, of)


class PacedJobs(FirstWordByJobs):
    """Asks the gate of its account before each request, as a client does."""

    gate: Limits

    async def submit(self, documents: Sequence[Document]) -> str:
        await self.gate.request()
        return await super().submit(documents)

    async def poll(self, job: str, documents: Mapping[int, Document]) -> list[Outcome] | None:
        await self.gate.request()
        return await super().poll(job, documents)


@virtual_time
async def test_polls_that_are_throttled_do_not_take_jobs_their_places() -> None:
    provider = PacedJobs(seconds=5)
    asked = adaptive(provider)
    provider.gate = asked.limits
    asyncio.get_running_loop().call_later(2, setattr, provider, "trouble", times(3, Throttled("slow down")))
    await asyncio.gather(*(by(asked).classify(batch(), unnoted()) for _ in range(4)))
    assert asked.statistics().limits.in_flight_limit == START
