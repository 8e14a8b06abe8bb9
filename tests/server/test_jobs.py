import asyncio
import threading
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from service.errors import Unavailable
from service.server import jobs as under_test
from service.server.faults import Rule
from service.server.jobs import Done, Jobs, Work, alongside
from service.server.store import PENDING, Change, Job, State, Store
from service.server.telemetry import Telemetry
from tests.server.conftest import Clock

KIND = "echo"


def echo(job: Job) -> Done:
    return Done(State.SUCCEEDED, job.request, {"tickets": 1})


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    async with Store.open(tmp_path) as store:
        yield store


def jobs(store: Store, work: Work = echo, clock: Clock | None = None) -> Jobs:
    return Jobs(store, {KIND: work}, Telemetry(), clock=clock or Clock())


async def ended(made: Jobs, job_id: str) -> Job:
    while (job := await made.find(KIND, job_id)) is None or job.state in PENDING:  # noqa: ASYNC110  threads do it
        await asyncio.sleep(0.002)
    return job


async def test_a_job_waits_is_done_and_loses_its_request(store: Store) -> None:
    made = jobs(store)
    job = await made.submit(KIND, b"about", b"request")
    assert await made.find(KIND, job.id) == job
    assert (made.statistics().waiting, made.statistics().waiting_bytes) == (1, 7)
    async with made.working():
        done = await ended(made, job.id)
    assert (done.state, done.result, done.request) == (State.SUCCEEDED, b"request", None)
    assert (made.statistics().waiting, made.statistics().waiting_bytes) == (0, 0)
    assert await store.find(job.id) == done


async def test_jobs_left_unfinished_are_done_by_the_next_run(store: Store) -> None:
    left = [await jobs(store).submit(KIND, b"", b"%d" % number) for number in range(5)]
    made = jobs(store)
    async with made.working():
        assert [(await ended(made, job.id)).result for job in left] == [b"0", b"1", b"2", b"3", b"4"]
    assert await store.unfinished() == []


async def test_a_job_that_was_running_when_the_run_ended_is_done_by_the_next(store: Store) -> None:
    began, go_on = threading.Event(), threading.Event()

    def work(job: Job) -> Done:
        began.set()
        go_on.wait()
        return echo(job)

    made = jobs(store, work)
    async with made.working():
        job = await made.submit(KIND, b"", b"request")
        await asyncio.to_thread(began.wait)
        found = await made.find(KIND, job.id)
        assert found is not None
        assert found.state is State.RUNNING
        asyncio.get_running_loop().call_later(0.05, go_on.set)
    assert [one.id for one in await store.unfinished()] == [job.id]
    made = jobs(store)
    async with made.working():
        assert (await ended(made, job.id)).state is State.SUCCEEDED


async def test_what_is_cancelled_while_it_runs_comes_to_nothing(store: Store) -> None:
    began, go_on, done = threading.Event(), threading.Event(), threading.Event()

    def work(job: Job) -> Done:
        if job.request == b"cancelled":
            began.set()
            go_on.wait()
            done.set()
        return echo(job)

    made = jobs(store, work)
    async with made.working():
        job = await made.submit(KIND, b"", b"cancelled")
        await asyncio.to_thread(began.wait)
        await made.cancel(job)
        go_on.set()
        await asyncio.to_thread(done.wait)
        other = await made.submit(KIND, b"", b"other")
        assert (await ended(made, other.id)).result == b"other"
        found = await made.find(KIND, job.id)
        assert found is not None
        assert (found.state, found.result) == (State.CANCELLED, None)
    assert await store.find(job.id) == found


async def test_work_that_raises_fails_its_job_and_the_next_is_done(store: Store) -> None:
    def work(job: Job) -> Done:
        if job.request == b"bad":
            raise RuntimeError("broken")
        return echo(job)

    made = jobs(store, work)
    async with made.working():
        bad, good = await made.submit(KIND, b"", b"bad"), await made.submit(KIND, b"", b"good")
        assert (await ended(made, bad.id)).state is State.FAILED
        assert (await ended(made, good.id)).state is State.SUCCEEDED


async def test_old_results_leave_memory_and_are_read_from_disk(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(under_test, "MOST_YOUNG", 4000)
    made = jobs(store)
    async with made.working():
        made_jobs = [await made.submit(KIND, b"", b"%d" % number) for number in range(20)]
        results = [(await ended(made, job.id)).result for job in made_jobs]
        assert made.statistics().young_bytes <= 4000
        assert [(await ended(made, job.id)).result for job in made_jobs] == results == [b"%d" % n for n in range(20)]


async def test_more_than_the_server_wants_to_hold_is_put_off(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(under_test, "MOST_WAITING", 10)
    made = jobs(store)
    first = await made.submit(KIND, b"", b"123456")
    with pytest.raises(Unavailable) as refused:
        await made.submit(KIND, b"", b"123456")
    assert refused.value.retry_after == 1.0
    await made.cancel(first)
    await made.submit(KIND, b"", b"123456")


async def test_a_submission_that_was_not_kept_is_not_held_either(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    made = jobs(store)
    monkeypatch.setattr(under_test, "_ids", iter(["same", "same"]))
    await made.submit(KIND, b"", b"1234")
    with pytest.raises(Unavailable):
        await made.submit(KIND, b"", b"1234")
    assert (made.statistics().waiting, made.statistics().waiting_bytes) == (1, 4)


async def test_a_job_of_another_api_is_unknown_and_so_is_an_expired_one(store: Store) -> None:
    clock = Clock()
    made = jobs(store, clock=clock)
    job = await made.submit(KIND, b"", b"request")
    assert await made.find("another", job.id) is None
    clock.now += under_test.LIFETIME
    assert await made.find(KIND, job.id) is None
    async with made.working():
        while await store.find(job.id):  # noqa: ASYNC110  pruning tells nobody
            await asyncio.sleep(0.002)


async def test_a_lost_job_is_kept_nowhere(store: Store) -> None:
    made = jobs(store)
    job = await made.submit(KIND, b"", b"request", Rule(on="submit", job="lost"))
    assert await made.find(KIND, job.id) is None
    assert made.statistics().waiting == 0


async def test_a_task_that_fails_ends_what_it_was_to_last_for_with_its_own_error() -> None:
    async def fails() -> None:
        raise LookupError("background")

    with pytest.raises(LookupError, match="background"):
        async with alongside(fails()):
            await asyncio.Event().wait()


async def test_the_error_of_a_context_is_not_wrapped() -> None:
    with pytest.raises(KeyError, match="mine"):
        async with alongside(asyncio.sleep(60)):
            raise KeyError("mine")


def how(state: str) -> Change:
    return Change("thing", "one", {"state": state})


async def test_what_changes_with_a_job_comes_about_with_it(store: Store, tmp_path: Path) -> None:
    made = jobs(store)
    first = await made.submit(KIND, b"", b"first", changes=[how("begun")])
    assert store.resource("thing", "one") == {"state": "begun"}
    second = await made.submit(KIND, b"", b"second", changes=[how("changed")], instead_of=first)
    assert made.pending(KIND) == [second]
    assert (await made.find(KIND, first.id) or second).state is State.CANCELLED
    assert made.statistics().waiting_bytes == len(b"second")
    await made.cancel(second, [how("given up")])
    assert store.resource("thing", "one") == {"state": "given up"}
    assert made.pending(KIND) == await store.unfinished() == []
    await store.__aexit__(None, None, None)
    async with Store.open(tmp_path) as again:
        assert again.resource("thing", "one") == {"state": "given up"}


async def test_what_a_job_takes_the_place_of_is_done_where_it_cannot_be_kept(store: Store) -> None:
    made = jobs(store)
    first = await made.submit(KIND, b"", b"first")
    with pytest.raises(Unavailable):
        await made.submit(KIND, b"", b"second", job_id=first.id, changes=[how("changed")], instead_of=first)
    assert store.resource("thing", "one") is None
    assert made.statistics().waiting_bytes == len(b"first")
    async with made.working():
        assert (await ended(made, first.id)).result == b"first"


async def test_a_job_that_runs_says_since_when(store: Store) -> None:
    clock, seen = Clock(), []

    def work(job: Job) -> Done:
        seen.append(job.updated - job.created)
        return echo(job)

    made = jobs(store, work, clock)
    job = await made.submit(KIND, b"", b"")
    clock.now += 7
    async with made.working():
        await ended(made, job.id)
    assert seen == [7.0]
