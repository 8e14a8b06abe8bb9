"""The server's state in one SQLite file: what clients have made (resources), projects, their deployments, and jobs.

One thread of its own holds the only connection and commits whatever has gathered while it was committing, so many
submissions share one sync to disk and the event loop never waits for it. What was awaited is on disk, also after a
loss of power (`synchronous=FULL`). Deleted text is overwritten: in the file at once, in its log after seconds of quiet.

The file is locked for as long as it is open, so two servers never share a folder; the lock dies with its process.
"""

import asyncio
import queue
import sqlite3
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, fields
from enum import StrEnum
from operator import attrgetter
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self, TypeVar

import orjson
import structlog

from service.errors import Misconfigured, Unavailable

T = TypeVar("T")
Work = Callable[[sqlite3.Connection], T]

FILE_NAME = "server.sqlite"
SCHEMA_VERSION = 3
LARGEST_COMMIT = 256  # pieces of work in one transaction: bounds how long the first of them waits for the last
PRUNED_AT_ONCE = 500  # rows deleted in one transaction, for the same reason
QUIET = 2.0  # seconds without work after which the log is emptied

_RESOURCES = """
CREATE TABLE resources (kind TEXT NOT NULL, name TEXT NOT NULL, value BLOB NOT NULL, PRIMARY KEY (kind, name)) STRICT;
"""
_SCHEMA = f"""
{_RESOURCES}CREATE TABLE projects (name TEXT PRIMARY KEY, task TEXT NOT NULL) STRICT;
CREATE TABLE deployments (
    project TEXT NOT NULL, name TEXT NOT NULL, model TEXT NOT NULL, PRIMARY KEY (project, name)
) STRICT;
CREATE TABLE jobs (
    id TEXT PRIMARY KEY, kind TEXT NOT NULL, state TEXT NOT NULL,
    created REAL NOT NULL, updated REAL NOT NULL, ready REAL NOT NULL, expires REAL NOT NULL,
    about BLOB NOT NULL, fault TEXT, result BLOB, request BLOB
) STRICT;
CREATE INDEX jobs_by_expiry ON jobs (expires);
CREATE INDEX jobs_unfinished ON jobs (created) WHERE request IS NOT NULL;
"""

_LACKED: Mapping[str, Mapping[str, object]] = {  # what resources of format 2 may not say, by kind, and what they meant
    "comprehend/classifier": {"asked": None},
    "comprehend/endpoint": {"asked": None, "desired": None, "status": "IN_SERVICE"},
}

log = structlog.get_logger(__name__)


class State(StrEnum):
    """Where a job is; each API has words of its own for it."""

    WAITING = "waiting"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    PARTIAL = "partial"
    FAILED = "failed"
    CANCELLED = "cancelled"


PENDING = frozenset({State.WAITING, State.RUNNING})


@dataclass(frozen=True, slots=True)
class Job:
    """Work that was accepted and is asked after; times are seconds since the epoch.

    `kind` names the API whose work it is. `about` and `result` are that API's own JSON; `request` is the request body
    as it came, kept until the work is done. A result is not shown before `ready`. `fault` is a `faults.Rule` as JSON.
    """

    id: str
    kind: str
    state: State
    created: float
    updated: float
    ready: float
    expires: float
    about: bytes
    fault: str | None = None
    result: bytes | None = field(default=None, repr=False)
    request: bytes | None = field(default=None, repr=False)

    def state_at(self, now: float) -> State:
        """The state as a client sees it: a job is at work until its result may be shown."""
        early = self.state not in PENDING and self.state is not State.CANCELLED and now < self.ready
        return State.RUNNING if early else self.state


_COLUMNS = [column.name for column in fields(Job)]
_SELECT = f"SELECT {', '.join(_COLUMNS)} FROM jobs"  # noqa: S608 (the names of the dataclass)
_INSERT = f"INSERT INTO jobs ({', '.join(_COLUMNS)}) VALUES ({', '.join('?' for _ in _COLUMNS)})"  # noqa: S608 (as above)
_row = attrgetter(*_COLUMNS)


@dataclass(frozen=True, slots=True)
class Project:
    """What a project's models do, and the model (by its digest) behind each deployment."""

    task: str
    deployments: Mapping[str, str]


class Change(NamedTuple):
    """A resource as it is to be from now on: its value, JSON of its API's own, or None where it is to be gone."""

    kind: str
    name: str
    value: Mapping[str, Any] | None


class _Asked(NamedTuple):
    work: Work[Any]
    answer: asyncio.Future[Any] | None


class Store:
    """The state in a data folder: `async with Store.open(folder) as store`.

    `projects` and `resources` are what the file holds, kept in memory; `failure` is what the last change failed of.
    Whatever is awaited raises `Unavailable` if the file cannot be read or written (a full disk), and works again when
    it can.
    """

    def __init__(self, connection: sqlite3.Connection) -> None:
        self.projects: Mapping[str, Project] = {}
        self.failure: Exception | None = None
        self._resources: dict[str, dict[str, Mapping[str, Any]]] = {}
        self._connection = connection
        self._asked: queue.SimpleQueue[_Asked | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._serve, name="store")

    @classmethod
    def open(cls, folder: Path) -> Self:
        """The store of a data folder, which is made if need be; raises `Misconfigured`."""
        file = folder / FILE_NAME
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            connection = sqlite3.connect(file, timeout=0, isolation_level=None, check_same_thread=False)
        except (OSError, sqlite3.Error) as error:
            raise Misconfigured(
                f"data folder {folder} cannot be used ({error}); name one that can be written"
            ) from None
        try:
            _prepare(connection, file)
        except sqlite3.Error as error:
            connection.close()
            if error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_BUSY:
                advice = "stop it, or give this server a data folder of its own"
                raise Misconfigured(f"data folder {folder} is in use by another server; {advice}") from None
            raise Misconfigured(f"{file} cannot be used ({error}); restore it, or move it out of the way") from None
        except Misconfigured:
            connection.close()
            raise
        return cls(connection)

    async def __aenter__(self) -> Self:
        self._thread.start()
        self.projects = await self._ask(_read_projects)
        for kind, name, value in await self._ask(_read_resources):
            self._remember([Change(kind, name, value)])
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._asked.put(None)
        self._thread.join()  # one commit away, and nothing else is left to do meanwhile
        self._connection.close()

    async def deploy(self, project: str, deployment: str, task: str, model: str) -> None:
        """Put a model behind a deployment, making project and deployment if need be; raises `Misconfigured`."""
        known = self.projects.get(project)
        others = sorted(set(known.deployments) - {deployment}) if known else []
        if known and others and known.task != task:
            raise Misconfigured(
                f"project {project!r} does {known.task} (deployments: {', '.join(others)}), but the model for "
                f"{project}/{deployment} does {task}; deploy it in a project of its own"
            )

        def write(connection: sqlite3.Connection) -> Mapping[str, Project]:
            connection.execute(
                "INSERT INTO projects (name, task) VALUES (?, ?) ON CONFLICT DO UPDATE SET task = excluded.task",
                (project, task),
            )
            connection.execute(
                "INSERT INTO deployments (project, name, model) VALUES (?, ?, ?) "
                "ON CONFLICT DO UPDATE SET model = excluded.model",
                (project, deployment, model),
            )
            return _read_projects(connection)

        self.projects = await self._ask(write)

    async def undeploy(self, project: str, deployment: str) -> None:
        """Take a deployment away, and the project with its last one."""

        def write(connection: sqlite3.Connection) -> Mapping[str, Project]:
            connection.execute("DELETE FROM deployments WHERE project = ? AND name = ?", (project, deployment))
            connection.execute("DELETE FROM projects WHERE name NOT IN (SELECT project FROM deployments)")
            return _read_projects(connection)

        self.projects = await self._ask(write)

    def resources(self, kind: str) -> Mapping[str, Mapping[str, Any]]:
        """The resources of a kind, by name, in the order in which they were first made."""
        return self._resources.get(kind, {})

    def resource(self, kind: str, name: str) -> Mapping[str, Any] | None:
        """One resource; its value is not to be changed but replaced, by `change`."""
        return self.resources(kind).get(name)

    async def change(self, *changes: Change) -> None:
        """Make, replace or remove resources, all of them or none; on disk when this returns, and only then seen."""
        rows = [_change_row(change) for change in changes]
        await self._ask(lambda connection: _write_changes(connection, rows))
        self._remember(changes)

    async def add(self, job: Job, changes: Sequence[Change] = (), ended: Job | None = None) -> None:
        """Keep a new job, what changes with it, and how the one ended that it takes the place of: all or nothing.

        On disk when this returns.
        """
        row, rows = _row(job), [_change_row(change) for change in changes]

        def write(connection: sqlite3.Connection) -> None:
            connection.execute(_INSERT, row)
            _write_changes(connection, rows)
            if ended is not None:
                _write_end(connection, ended, [])

        await self._ask(write)
        self._remember(changes)

    async def find(self, job_id: str) -> Job | None:
        """A job by its id."""
        rows = await self._ask(lambda connection: _read_jobs(connection, "WHERE id = ?", [job_id]))
        return rows[0] if rows else None

    async def of_kind(self, kind: str) -> list[Job]:
        """The jobs of one kind, oldest first."""
        return await self._ask(lambda connection: _read_jobs(connection, "WHERE kind = ? ORDER BY created", [kind]))

    async def unfinished(self) -> list[Job]:
        """The jobs that are still to be done, oldest first."""
        return await self._ask(
            lambda connection: _read_jobs(connection, "WHERE request IS NOT NULL ORDER BY created", [])
        )

    async def end(self, job: Job, changes: Sequence[Change] = ()) -> None:
        """Keep how a job ended and what changes with it, and forget its request; on disk when this returns."""
        rows = [_change_row(change) for change in changes]
        await self._ask(lambda connection: _write_end(connection, job, rows))
        self._remember(changes)

    async def forget(self, job_id: str) -> None:
        """Delete a job; gone from disk when this returns."""
        await self._ask(lambda connection: connection.execute("DELETE FROM jobs WHERE id = ?", (job_id,)).rowcount)

    def end_nowait(self, job: Job, changes: Sequence[Change] = ()) -> None:
        """Keep how a job ended in the background, and the resources that came of it, which are seen at once.

        Were it lost, the job would be done again at the next start.
        """
        rows = [_change_row(change) for change in changes]
        self._remember(changes)
        self._asked.put(_Asked(lambda connection: _write_end(connection, job, rows), None))

    async def check(self) -> None:
        """Find out whether there is room for a job."""
        row = _row(Job("room", "", State.WAITING, 0, 0, 0, 0, about=bytes(65_536)))

        def write(connection: sqlite3.Connection) -> None:
            connection.execute(_INSERT, row)
            connection.execute("DELETE FROM jobs WHERE id = ?", row[:1])

        await self._ask(write)

    async def prune(self, now: float) -> int:
        """Delete the jobs that have expired; how many they were."""
        pruned = deleted = await self._ask(lambda connection: _delete_expired(connection, now))
        while deleted == PRUNED_AT_ONCE:
            deleted = await self._ask(lambda connection: _delete_expired(connection, now))
            pruned += deleted
        return pruned

    def _remember(self, changes: Iterable[Change]) -> None:
        for kind, name, value in changes:
            of_kind = self._resources.setdefault(kind, {})
            if value is None:
                of_kind.pop(name, None)
            else:
                of_kind[name] = value

    async def _ask(self, work: Work[T]) -> T:
        answer: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._asked.put(_Asked(work, answer))
        return await answer

    def _serve(self) -> None:
        """The thread: commit what has gathered, then tell everybody who waits for it, until asked to end."""
        while asked := self._gather():
            answers = self._commit(asked)
            told = [(one.answer, answer) for one, answer in zip(asked, answers, strict=True) if one.answer is not None]
            if told:
                told[0][0].get_loop().call_soon_threadsafe(_tell, told)

    def _gather(self) -> list[_Asked]:
        """All that is asked for by now, at least one piece of work; nothing at the end."""
        gathered: list[_Asked] = []
        one = self._first()
        while one is not None:
            gathered.append(one)
            if len(gathered) == LARGEST_COMMIT or self._asked.empty():
                return gathered
            one = self._asked.get()
        if gathered:
            self._asked.put(None)  # for the next round
        return gathered

    def _first(self) -> _Asked | None:
        try:
            return self._asked.get(timeout=QUIET)
        except queue.Empty:
            with suppress(sqlite3.Error):  # a full disk; the next commit tells
                self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").close()
            return self._asked.get()

    def _commit(self, asked: Sequence[_Asked]) -> Sequence[object]:
        changes = self._connection.total_changes
        try:
            with _transaction(self._connection):
                answers = [work(self._connection) for work, _ in asked]
        except Exception as error:  # noqa: BLE001 (who asked is told; the thread goes on for the others)
            if self.failure is None:
                log.critical("state_unavailable", reason=str(error))
            self.failure = error
            return [Unavailable(f"the server's state cannot be read or written ({error})")] * len(asked)
        if self._connection.total_changes > changes:
            self.failure = None
        return answers


def _tell(told: Sequence[tuple[asyncio.Future[Any], object]]) -> None:
    for waiting, answer in told:
        if waiting.done():  # who asked has left
            continue
        if isinstance(answer, Exception):
            waiting.set_exception(answer)
        else:
            waiting.set_result(answer)


@contextmanager
def _transaction(connection: sqlite3.Connection) -> Iterator[None]:
    connection.execute("BEGIN")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def _prepare(connection: sqlite3.Connection, file: Path) -> None:
    for pragma in ("locking_mode=EXCLUSIVE", "journal_mode=WAL", "synchronous=FULL", "secure_delete=ON"):
        connection.execute(f"PRAGMA {pragma}").fetchall()
    connection.execute("BEGIN IMMEDIATE")  # takes the lock
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    connection.execute("COMMIT")
    if version == 0:
        connection.executescript(f"BEGIN; {_SCHEMA} PRAGMA user_version={SCHEMA_VERSION}; COMMIT;")
    elif version == 1:
        connection.executescript(f"BEGIN; {_RESOURCES} PRAGMA user_version={SCHEMA_VERSION}; COMMIT;")
    elif version == 2:
        with _transaction(connection):
            _write_changes(connection, map(_change_row, _completed(connection)))
            connection.execute(f"PRAGMA user_version={SCHEMA_VERSION}")
    elif version != SCHEMA_VERSION:
        raise Misconfigured(
            f"{file} has format {version}, this version of labelstream reads format {SCHEMA_VERSION}; "
            "use the version that wrote it, or move it out of the way"
        )


def _completed(connection: sqlite3.Connection) -> list[Change]:
    """The resources of format 2 that do not say all that those of format 3 do, as they are there."""
    return [
        Change(kind, name, {**lacked, **value})
        for kind, name, value in _read_resources(connection)
        if (lacked := _LACKED.get(kind)) and not lacked.keys() <= value.keys()
    ]


def _read_projects(connection: sqlite3.Connection) -> Mapping[str, Project]:
    deployments = connection.execute("SELECT project, name, model FROM deployments").fetchall()
    return {
        name: Project(task, {deployment: model for project, deployment, model in deployments if project == name})
        for name, task in connection.execute("SELECT name, task FROM projects").fetchall()
    }


def _read_jobs(connection: sqlite3.Connection, where: str, values: Sequence[object]) -> list[Job]:
    rows = connection.execute(f"{_SELECT} {where}", values).fetchall()
    return [Job(job_id, kind, State(state), *rest) for job_id, kind, state, *rest in rows]


def _read_resources(connection: sqlite3.Connection) -> list[tuple[str, str, Mapping[str, Any]]]:
    rows = connection.execute("SELECT kind, name, value FROM resources ORDER BY rowid").fetchall()
    return [(kind, name, orjson.loads(value)) for kind, name, value in rows]


def _change_row(change: Change) -> tuple[str, str, bytes | None]:
    return change.kind, change.name, None if change.value is None else orjson.dumps(change.value)


def _write_changes(connection: sqlite3.Connection, rows: Iterable[tuple[str, str, bytes | None]]) -> None:
    for kind, name, value in rows:
        if value is None:
            connection.execute("DELETE FROM resources WHERE kind = ? AND name = ?", (kind, name))
        else:
            connection.execute(
                "INSERT INTO resources (kind, name, value) VALUES (?, ?, ?) "
                "ON CONFLICT DO UPDATE SET value = excluded.value",
                (kind, name, value),
            )


def _write_end(connection: sqlite3.Connection, job: Job, changes: Iterable[tuple[str, str, bytes | None]]) -> None:
    _write_changes(connection, changes)
    connection.execute(
        "UPDATE jobs SET state = ?, updated = ?, result = ?, request = NULL, fault = NULL WHERE id = ?",
        (job.state, job.updated, job.result, job.id),
    )


def _delete_expired(connection: sqlite3.Connection, now: float) -> int:
    expired = "SELECT id FROM jobs WHERE expires <= ? LIMIT ?"
    return connection.execute(f"DELETE FROM jobs WHERE id IN ({expired})", (now, PRUNED_AT_ONCE)).rowcount  # noqa: S608
