import asyncio
import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from service.errors import Misconfigured, Unavailable
from service.server.store import FILE_NAME, PRUNED_AT_ONCE, Change, Job, Project, State, Store

SECRET = b"a sentence that must not be found again"


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    async with Store.open(tmp_path) as store:
        yield store


def job(name: str, created: float = 1.0, **changes: object) -> Job:
    made = Job(name, "kind", State.WAITING, created, created, created, created + 10, b"[]", request=SECRET)
    return replace(made, **changes)  # type: ignore[arg-type]


async def test_a_job_is_found_as_it_was_kept(store: Store) -> None:
    kept = job("one", fault='{"job":"failed"}')
    await store.add(kept)
    assert await store.find("one") == kept
    assert await store.find("two") is None


async def test_an_ended_job_has_its_result_and_no_longer_its_request(store: Store) -> None:
    await store.add(job("one"))
    await store.end(job("one", state=State.SUCCEEDED, updated=5.0, result=b"[1]"))
    found = await store.find("one")
    assert found == job("one", state=State.SUCCEEDED, updated=5.0, result=b"[1]", request=None)
    assert found is not None
    assert found.state is State.SUCCEEDED


async def test_what_is_written_behind_is_seen_by_whoever_asks_after(store: Store) -> None:
    await store.add(job("one"))
    store.end_nowait(job("one", state=State.FAILED))
    found = await store.find("one")
    assert found is not None
    assert found.state is State.FAILED


async def test_all_is_there_after_a_restart_oldest_unfinished_job_first(tmp_path: Path) -> None:
    async with Store.open(tmp_path) as store:
        await store.deploy("tickets", "production", "single_label", "digest")
        for name, created in (("late", 3.0), ("early", 1.0), ("ended", 2.0)):
            await store.add(job(name, created))
        store.end_nowait(job("ended", 2.0, state=State.SUCCEEDED))
    async with Store.open(tmp_path) as store:
        assert store.projects == {"tickets": Project("single_label", {"production": "digest"})}
        assert [one.id for one in await store.unfinished()] == ["early", "late"]


async def test_many_at_once_share_commits_and_all_are_kept(store: Store) -> None:
    changes: list[str] = []
    store._connection.set_trace_callback(changes.append)
    await asyncio.gather(*[store.add(job(str(number), number)) for number in range(300)])
    store._connection.set_trace_callback(None)
    assert len(await store.unfinished()) == 300
    assert changes.count("COMMIT") < 30


async def test_a_statement_that_fails_takes_its_neighbours_with_it_but_not_the_store(store: Store) -> None:
    await store.add(job("one"))
    with pytest.raises(Unavailable, match="UNIQUE"):
        await store.add(job("one"))
    assert isinstance(store.failure, sqlite3.IntegrityError)
    await store.add(job("two"))
    assert store.failure is None


async def test_expired_jobs_are_pruned_however_many_they_are(store: Store) -> None:
    await asyncio.gather(*[store.add(job(str(number))) for number in range(PRUNED_AT_ONCE + 5)])
    await store.add(job("young", created=100.0))
    assert await store.prune(now=11.0) == PRUNED_AT_ONCE + 5
    assert await store.prune(now=11.0) == 0
    assert [one.id for one in await store.unfinished()] == ["young"]


async def test_nothing_of_a_request_is_left_on_disk_once_its_job_has_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def on_disk() -> bytes:
        return b"".join(file.read_bytes() for file in tmp_path.glob(f"{FILE_NAME}*"))

    monkeypatch.setattr("service.server.store.QUIET", 0.05)
    async with Store.open(tmp_path) as store:
        await store.add(job("one", request=SECRET * 1000))
        assert SECRET in on_disk()
        await store.end(job("one", state=State.SUCCEEDED, result=b"[]"))
        while SECRET in on_disk():  # noqa: ASYNC110  until the log has been emptied, which tells nobody
            await asyncio.sleep(0.02)


async def test_a_folder_serves_one_server_at_a_time(tmp_path: Path) -> None:
    async with Store.open(tmp_path):
        with pytest.raises(Misconfigured, match="in use by another server"):
            Store.open(tmp_path)
    async with Store.open(tmp_path) as store:
        assert store.projects == {}


def test_a_file_that_is_not_the_servers_is_left_alone_and_named(tmp_path: Path) -> None:
    (tmp_path / FILE_NAME).write_bytes(b"something else altogether" * 100)
    with pytest.raises(Misconfigured, match=FILE_NAME):
        Store.open(tmp_path)
    newer = tmp_path / "newer"
    newer.mkdir()
    connection = sqlite3.connect(newer / FILE_NAME)
    connection.execute("PRAGMA user_version=99")
    connection.close()
    with pytest.raises(Misconfigured, match="format 99"):
        Store.open(newer)
    with pytest.raises(Misconfigured, match="data folder"):
        Store.open(tmp_path / FILE_NAME / "inside a file")


async def test_a_project_keeps_to_one_task(store: Store) -> None:
    await store.deploy("tickets", "production", "single_label", "one")
    await store.deploy(
        "tickets", "production", "multi_label", "two"
    )  # its only deployment: the project changes with it
    await store.deploy("tickets", "staging", "multi_label", "three")
    with pytest.raises(Misconfigured, match=r"'tickets' does multi_label \(deployments: staging\)"):
        await store.deploy("tickets", "production", "single_label", "one")
    assert store.projects == {"tickets": Project("multi_label", {"production": "two", "staging": "three"})}


@pytest.mark.parametrize("state", list(State))
def test_a_result_is_not_shown_before_its_time_but_a_cancellation_is(state: State) -> None:
    one = job("one", state=state, ready=5.0)
    early = state if state in {State.WAITING, State.RUNNING, State.CANCELLED} else State.RUNNING
    assert one.state_at(4.9) is early
    assert one.state_at(5.0) is state


async def test_resources_survive_a_restart_and_come_about_together(tmp_path: Path) -> None:
    async with Store.open(tmp_path) as store:
        await store.change(Change("category", "a", {"n": 1}), Change("category", "b", {"n": 2}))
        await store.change(Change("category", "a", {"n": 3}), Change("category", "b", None))
        assert store.resources("category") == {"a": {"n": 3}}
        assert store.resource("category", "b") is None
    async with Store.open(tmp_path) as store:
        assert store.resources("category") == {"a": {"n": 3}}


async def test_what_came_of_a_job_is_seen_at_once_and_kept(tmp_path: Path) -> None:
    async with Store.open(tmp_path) as store:
        kept = job("1", kind="train")
        await store.add(kept)
        store.end_nowait(replace(kept, state=State.SUCCEEDED), [Change("model", "m", {"digest": "d"})])
        assert store.resource("model", "m") == {"digest": "d"}
    async with Store.open(tmp_path) as store:
        assert store.resource("model", "m") == {"digest": "d"}
        assert [one.state for one in await store.of_kind("train")] == [State.SUCCEEDED]


async def test_what_a_file_of_the_second_format_leaves_out_is_completed(tmp_path: Path) -> None:
    kept: dict[str, dict[str, object]] = {
        "comprehend/endpoint": {"arn": "a", "units": 1, "token": None},
        "comprehend/classifier": {"arn": "b", "status": "TRAINED", "asked": "c"},
        "another": {"d": 1},
    }
    async with Store.open(tmp_path) as store:
        await store.change(*(Change(kind, "one", value) for kind, value in kept.items()))
    with closing(sqlite3.connect(tmp_path / FILE_NAME)) as connection:
        connection.execute("PRAGMA user_version=2")
    async with Store.open(tmp_path) as store:
        lacked = {"asked": None, "desired": None, "status": "IN_SERVICE"}
        assert store.resource("comprehend/endpoint", "one") == {**kept["comprehend/endpoint"], **lacked}
        assert store.resource("comprehend/classifier", "one") == kept["comprehend/classifier"]
        assert store.resource("another", "one") == kept["another"]
    with closing(sqlite3.connect(tmp_path / FILE_NAME)) as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (3,)


async def test_a_file_of_the_first_format_is_taken_over(tmp_path: Path) -> None:
    async with Store.open(tmp_path) as store:
        await store.deploy("tickets", "production", "single_label", "digest")
    with closing(sqlite3.connect(tmp_path / FILE_NAME)) as connection:
        connection.executescript("DROP TABLE resources; PRAGMA user_version=1;")
    async with Store.open(tmp_path) as store:
        assert store.projects["tickets"].deployments == {"production": "digest"}
        await store.change(Change("category", "a", {}))


async def test_a_project_goes_with_its_last_deployment(tmp_path: Path) -> None:
    async with Store.open(tmp_path) as store:
        await store.deploy("tickets", "production", "single_label", "one")
        await store.deploy("tickets", "staging", "single_label", "two")
        await store.undeploy("tickets", "production")
        assert store.projects["tickets"].deployments == {"staging": "two"}
        await store.undeploy("tickets", "staging")
        assert store.projects == {}
