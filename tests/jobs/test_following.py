import asyncio
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count
from statistics import mean, median

import pytest

from service.documents import Classified, ClassScore, Document, Outcome
from service.errors import CallFailed, JobLost, Misconfigured, Rejected, Throttled, Unavailable
from service.jobs.following import follow
from service.jobs.poll_times import PollTimes
from tests.clock import now, virtual_time
from tests.records import document, numbered

DOCUMENTS = [document(0), document(1)]
ANSWER: list[Outcome] = [Classified((ClassScore(each.id, 1.0),)) for each in DOCUMENTS]


@dataclass
class JobService:
    """Finishes a job as long after its submission as `duration` says; `faults` are raised by the first polls."""

    duration: Callable[[], float]
    submitting: Callable[[], float] = lambda: 0.01
    faults: list[CallFailed] = field(default_factory=list)
    polls: list[float] = field(default_factory=list)
    cancelled: list[str] = field(default_factory=list)
    cleared: list[str] = field(default_factory=list)
    _due: dict[str, float] = field(default_factory=dict)
    _names: "count[int]" = field(default_factory=count)

    async def submit(self, documents: Sequence[Document]) -> str:
        assert documents
        await asyncio.sleep(self.submitting())
        name = f"job-{next(self._names)}"
        self._due[name] = now() + self.duration()
        return name

    async def poll(self, job: str, documents: Mapping[int, Document]) -> list[Outcome] | None:
        await asyncio.sleep(0.01)
        self.polls.append(now())
        if self.faults:
            raise self.faults.pop(0)
        if now() < self._due[job]:
            return None
        return [Classified((ClassScore(each.id, 1.0),)) for each in documents.values()]

    async def cancel(self, job: str) -> None:
        self.cancelled.append(job)

    async def clear(self, job: str) -> None:
        self.cleared.append(job)


def after(seconds: float) -> Callable[[], float]:
    return lambda: seconds


async def ask(service: JobService, times: PollTimes | None = None, deadline: float = 600) -> tuple[list[Outcome], int]:
    job = await service.submit(DOCUMENTS)
    return await follow(
        service, job, numbered(DOCUMENTS), times or PollTimes(), deadline=deadline, setback=lambda _: None
    )


@virtual_time
async def test_a_job_is_submitted_asked_after_until_it_is_done_and_read() -> None:
    service = JobService(after(2))
    outcomes, polls = await ask(service)
    assert outcomes == ANSWER
    assert polls == len(service.polls) > 1
    assert 2 < now() < 3


@pytest.mark.parametrize("duration", [0.02, 0.25, 1.0, 7.0, 25.0])
def test_polling_learns_a_constant_duration(duration: float) -> None:
    times, polls, late = PollTimes(), list[int](), list[float]()

    @virtual_time
    async def jobs() -> None:
        service = JobService(after(duration))
        for _ in range(600):
            began = now()
            polls.append((await ask(service, times))[1])
            late.append(now() - began - duration - 0.02)

    jobs()
    assert mean(polls[200:]) <= 1.3
    assert mean(late[200:]) <= max(0.1 * duration, 0.02)


def test_polling_follows_a_service_that_becomes_faster_or_slower() -> None:
    times = PollTimes()

    @virtual_time
    async def jobs() -> None:
        for duration in (0.5, 8.0, 1.0):
            for _ in range(300):
                await ask(JobService(after(duration)), times)
            assert duration * 0.85 < times.usual < duration * 1.2

    jobs()


def test_that_jobs_take_less_from_now_on_is_seen_by_the_next_whatever_older_ones_say() -> None:
    times = PollTimes()

    @virtual_time
    async def jobs() -> None:
        for _ in range(40):
            await ask(JobService(after(8.0)), times)
        older = asyncio.create_task(ask(JobService(after(8.3)), times))
        await asyncio.sleep(1)
        times.expect(0.5)
        newer = asyncio.create_task(ask(JobService(after(4.0)), times))
        await older
        await newer
        assert 3.5 < times.usual < 4.5

    jobs()


def test_that_jobs_were_expected_to_take_less_in_vain_costs_a_few_polls_each_of_one_round() -> None:
    times, polls = PollTimes(), list[int]()

    @virtual_time
    async def jobs() -> None:
        service = JobService(after(8.0))
        for number in range(30):
            if number == 20:
                times.expect(0.5)
            polls.extend(taken for _, taken in await asyncio.gather(*(ask(service, times) for _ in range(8))))

    jobs()
    assert max(polls[160:168]) <= 4
    assert max(polls[176:]) <= 3
    assert times.usual > 6


def test_jobs_that_are_always_done_at_once_are_learnt_from_for_ever() -> None:
    times = PollTimes()
    for _ in range(20_000):
        times.observe(0, times.first())
    assert 0 < times.usual < 0.01


@pytest.mark.parametrize("duration", [0.02, 1.0, 4.0, 60.0, 400.0])
def test_the_first_jobs_of_a_service_that_nobody_knows_take_few_polls_each(duration: float) -> None:
    times, polls = PollTimes(), list[int]()

    @virtual_time
    async def jobs() -> None:
        service = JobService(after(duration))
        for _ in range(4):  # rounds of eight at a time
            polls.extend(taken for _, taken in await asyncio.gather(*(ask(service, times, 7_200) for _ in range(8))))

    jobs()
    assert max(polls[:8]) <= 20
    assert median(polls) <= 2.5
    assert max(polls[16:]) <= 3


@virtual_time
async def test_a_job_that_was_submitted_long_ago_is_looked_at_at_once_and_teaches_nothing() -> None:
    service, times = JobService(after(0)), PollTimes(first_guess=100)
    job = await service.submit(DOCUMENTS)
    began = now()
    outcomes, polls = await follow(
        service, job, {1: DOCUMENTS[1]}, times, deadline=600, setback=lambda _: None, age=5_000
    )
    assert (outcomes, polls) == (ANSWER[1:], 1)
    assert now() - began < 1
    assert times.usual == pytest.approx(100)


@virtual_time
async def test_what_is_learnt_is_the_jobs_own_time_however_long_its_submission_waited() -> None:
    times, chance = PollTimes(), random.Random(1)  # noqa: S311  repeatable
    service = JobService(after(1), submitting=lambda: chance.uniform(0, 5))
    polls = [(await ask(service, times))[1] for _ in range(400)]
    assert mean(polls[200:]) <= 1.3
    assert 0.9 < times.usual < 1.2


@virtual_time
async def test_a_poll_that_fails_for_a_passing_reason_does_not_lose_the_job() -> None:
    faults: list[CallFailed] = [Throttled("slow down", 7.0), Unavailable("502"), Throttled("slow down")]
    service, setbacks = JobService(after(0.1), faults=list(faults)), list[CallFailed]()
    job = await service.submit(DOCUMENTS)
    outcomes, polls = await follow(
        service, job, numbered(DOCUMENTS), PollTimes(), deadline=600, setback=setbacks.append
    )
    assert outcomes == ANSWER
    assert setbacks == faults
    assert polls == 4
    first, second, third, fourth = service.polls
    assert second - first >= 7, "as long as was asked for"
    assert min(third - second, fourth - third) >= 1, "not at once where nothing was asked for"
    assert service.cancelled == []


@virtual_time
async def test_a_job_that_is_not_done_by_its_deadline_is_cancelled_and_lost() -> None:
    service = JobService(after(3600))
    with pytest.raises(JobLost, match=r"a job had no answer .* s after it was submitted \(job_deadline 60 s\)"):
        await ask(service, deadline=60)
    assert 30 < now() <= 60.1
    assert service.cancelled == ["job-0"]


@virtual_time
async def test_an_account_that_cannot_be_asked_loses_the_job_an_hour_after_its_deadline() -> None:
    service = JobService(after(0), faults=[Unavailable("503") for _ in range(1000)])
    with pytest.raises(JobLost):
        await ask(service, deadline=60)
    assert 3_660 - 120 < now() <= 3_660.1, "the last look was that long before, at most"


@virtual_time
async def test_one_poll_that_fails_long_after_the_deadline_does_not_cost_a_job_that_is_done() -> None:
    service = JobService(after(0), faults=[Unavailable("503")])
    job = await service.submit(DOCUMENTS)
    outcomes, polls = await follow(
        service, job, numbered(DOCUMENTS), PollTimes(), deadline=60, setback=lambda _: None, age=900
    )
    assert (outcomes, polls) == (ANSWER, 2)
    assert service.cancelled == []


@virtual_time
async def test_a_cancellation_that_fails_leaves_the_job_lost() -> None:
    class Deaf(JobService):
        async def cancel(self, job: str) -> None:
            raise Unavailable(f"nobody hears of {job}")

    with pytest.raises(JobLost, match="job_deadline"):
        await ask(Deaf(after(3600)), deadline=10)


@pytest.mark.parametrize("failure", [JobLost("gone"), Misconfigured("the key is wrong"), Rejected("too large")])
def test_a_job_that_is_lost_or_refused_says_so_at_once(failure: CallFailed) -> None:
    @virtual_time
    async def job() -> None:
        service = JobService(after(1), faults=[failure])
        with pytest.raises(type(failure), match=str(failure)):
            await ask(service)
        assert len(service.polls) == 1

    job()


@virtual_time
async def test_a_submission_that_fails_is_not_polled() -> None:
    class Full(JobService):
        async def submit(self, documents: Sequence[Document]) -> str:
            raise Throttled(f"{len(documents)} are too many", 3)

    service = Full(after(1))
    with pytest.raises(Throttled):
        await ask(service)
    assert service.polls == []
