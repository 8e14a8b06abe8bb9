"""Jobs under way: accepted on disk, done in threads, looked up in memory while they are young.

A job is acknowledged when its row is committed, so one that is found unfinished at start-up is done again. The work is
a synchronous function of the API that took the job, called in one of as many threads as there are cores; trainings have
a thread of their own, so that learning never holds up answering. How a job ended is known here at once and written
behind, together with the resources that came of it; the store answers in the order it is asked, so nobody sees an
older state.
"""

import asyncio
import os
import sys
import time
import uuid
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace
from typing import NamedTuple

import structlog

from service.errors import Unavailable
from service.server.faults import Rule
from service.server.store import Change, Job, State, Store
from service.server.telemetry import Telemetry

LIFETIME = 24 * 3600.0  # seconds after which a job and its results are gone
MOST_WAITING = 256 * 2**20  # bytes of requests held in memory; who submits more is told to come back
MOST_YOUNG = 32 * 2**20  # bytes of results held in memory: most are asked for once, and soon
PRUNE_EVERY = 60.0  # seconds

log = structlog.get_logger(__name__)


class Done(NamedTuple):
    """What came of a job: how it ended, its result in the API's own JSON, and the documents classified, by project.

    `changes` are the resources that the job made, changed or removed: they come about as the job ends, or not at all.
    """

    state: State
    result: bytes | None
    documents: Mapping[str, int]
    changes: Sequence[Change] = ()


class Interrupted(Exception):
    """Work was broken off because the server stops: the next run does it again."""


Work = Callable[[Job], Done]


@asynccontextmanager
async def alongside(*coroutines: Coroutine[object, object, None]) -> AsyncIterator[None]:
    """Tasks that last as long as the context; one that fails ends the context with its error."""
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(coroutine) for coroutine in coroutines]
            try:
                yield
            finally:
                for task in tasks:
                    task.cancel()
    except BaseExceptionGroup as failed:
        if len(failed.exceptions) > 1:
            raise
        raise failed.exceptions[0] from None


@dataclass(frozen=True, slots=True)
class Statistics:
    """Jobs that have not ended, the bytes of their requests, and the bytes of the results held in memory."""

    waiting: int
    running: int
    waiting_bytes: int
    young_bytes: int


class Jobs:
    """The jobs of all APIs; they are worked on inside `async with jobs.working()`.

    `works` holds each kind's work, `trainings` that of the kinds that take long. No result is shown before
    `least_seconds` have passed since its job was accepted.
    """

    def __init__(
        self,
        store: Store,
        works: Mapping[str, Work],
        telemetry: Telemetry,
        least_seconds: float = 0.0,
        *,
        trainings: Mapping[str, Work] | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.clock = clock
        self._store = store
        self._trainings = dict(trainings or {})
        self._works = {**works, **self._trainings}
        self._telemetry = telemetry
        self._least_seconds = least_seconds
        self._queue: asyncio.Queue[str] = asyncio.Queue()
        self._long_queue: asyncio.Queue[str] = asyncio.Queue()
        self._live: dict[str, Job] = {}
        self._live_bytes = 0
        self._young = _Young()
        telemetry.jobs.labels("waiting").set_function(lambda: self.statistics().waiting)
        telemetry.jobs.labels("running").set_function(lambda: self.statistics().running)

    @asynccontextmanager
    async def working(self) -> AsyncIterator[None]:
        """Do jobs, beginning with those an earlier run left unfinished; at the end, leave the rest to the next run."""
        for job in await self._store.unfinished():
            if job.id not in self._live:
                self._live_bytes += len(job.request or b"")
                self._enqueue(job)
        count = _worker_threads()
        threads = ThreadPoolExecutor(count + 1, "jobs")
        workers = [self._work(self._queue, threads) for _ in range(count)]
        try:
            async with alongside(*workers, self._work(self._long_queue, threads), self._prune()):
                yield
        finally:
            await asyncio.to_thread(threads.shutdown)

    async def submit(
        self,
        kind: str,
        about: bytes,
        request: bytes,
        fault: Rule | None = None,
        *,
        lifetime: float = LIFETIME,
        job_id: str | None = None,
        changes: Sequence[Change] = (),
        instead_of: Job | None = None,
    ) -> Job:
        """Accept a job, to be kept for `lifetime` seconds: it is on disk when this returns. Raises `Unavailable`.

        `changes` come about with it, or not at all; so does the end of the job that it takes the place of.
        """
        now = self.clock()
        slow = fault.job_seconds if fault and fault.job == "slow" else 0.0
        job = Job(
            id=job_id or new_id(),
            kind=kind,
            state=State.WAITING,
            created=now,
            updated=now,
            ready=now + max(slow, self._least_seconds),
            expires=now + lifetime,
            about=about,
            fault=fault.model_dump_json(exclude_unset=True) if fault and (fault.job or fault.document_error) else None,
            request=request,
        )
        if fault and fault.job == "lost":
            return job
        if self._live_bytes + len(request) > MOST_WAITING:
            raise Unavailable("more jobs are waiting than the server holds", retry_after=1.0)
        self._live_bytes += len(request)
        ended = self._cancelled(instead_of) if instead_of else None
        try:
            await self._store.add(job, changes, ended)
        except BaseException:
            self._live_bytes -= len(request)
            if instead_of:
                self._live_bytes += len(instead_of.request or b"")
                self._enqueue(instead_of)
            raise
        self._enqueue(job)
        return job

    async def find(self, kind: str, job_id: str) -> Job | None:
        """A job by its id, unless it has expired."""
        if not job_id.isascii():  # as none is; and half a surrogate pair would be an error of the store's
            return None
        job = self._live.get(job_id) or self._young.get(job_id) or await self._store.find(job_id)
        return job if job and job.kind == kind and self.clock() < job.expires else None

    async def of_kind(self, kind: str) -> list[Job]:
        """The jobs of one kind that have not expired, oldest first."""
        now = self.clock()
        kept = [self._live.get(job.id) or self._young.get(job.id) or job for job in await self._store.of_kind(kind)]
        return [job for job in kept if now < job.expires]

    def pending(self, kind: str) -> list[Job]:
        """The jobs of one kind that have not ended."""
        return [job for job in self._live.values() if job.kind == kind]

    async def cancel(self, job: Job, changes: Sequence[Change] = ()) -> None:
        """End a job without a result; what is being done of it comes to nothing. `changes` come about with its end."""
        await self._store.end(self._cancelled(job), changes)

    async def forget(self, job: Job) -> None:
        """Delete a job as if it had expired; what is being done of it comes to nothing."""
        live = self._live.pop(job.id, None)
        self._live_bytes -= len(live.request or b"") if live else 0
        self._young.remove(job.id)
        await self._store.forget(job.id)

    def statistics(self) -> Statistics:
        """How much there is to do, and how much is held."""
        running = sum(job.state is State.RUNNING for job in self._live.values())
        return Statistics(len(self._live) - running, running, self._live_bytes, self._young.bytes)

    def _enqueue(self, job: Job) -> None:
        self._live[job.id] = job
        (self._long_queue if job.kind in self._trainings else self._queue).put_nowait(job.id)

    def _cancelled(self, job: Job) -> Job:
        ended = replace(job, state=State.CANCELLED, updated=self.clock(), result=None, request=None)
        self._leave(ended)
        return ended

    def _leave(self, ended: Job) -> None:
        live = self._live.pop(ended.id, None)
        self._live_bytes -= len(live.request or b"") if live else 0
        self._young.add(ended)
        self._telemetry.jobs_ended.labels(ended.state).inc()
        self._telemetry.job_seconds.observe(max(0.0, ended.updated - ended.created))

    async def _work(self, queue: asyncio.Queue[str], threads: ThreadPoolExecutor) -> None:
        loop = asyncio.get_running_loop()
        while True:
            job_id = await queue.get()
            if job_id not in self._live:  # cancelled while it waited
                continue
            job = self._live[job_id] = replace(self._live[job_id], state=State.RUNNING, updated=self.clock())
            done = await loop.run_in_executor(threads, self._do, job)
            if done is None or job_id not in self._live:  # left to the next run, or cancelled while it was done
                continue
            ended = replace(job, state=done.state, updated=self.clock(), result=done.result, request=None)
            self._leave(ended)
            self._store.end_nowait(ended, done.changes)
            for project, documents in done.documents.items():
                self._telemetry.documents.labels(project).inc(documents)

    def _do(self, job: Job) -> Done | None:
        try:
            return self._works[job.kind](job)
        except Interrupted:
            return None
        except Exception:  # the job failed, its API says so, and the rest go on
            log.exception("job_failed", job=job.id, kind=job.kind)
            return Done(State.FAILED, None, {})

    async def _prune(self) -> None:
        while True:
            with suppress(Unavailable):  # the store has told the operator
                if pruned := await self._store.prune(self.clock()):
                    log.info("jobs_expired", jobs=pruned)
            await asyncio.sleep(PRUNE_EVERY)


def _worker_threads() -> int:
    """As many as there are cores, if threads can use them.

    Where they share one interpreter lock, which classifying hardly ever lets go of, one thread does as much as two (as
    measured: 540 jobs of short texts a second, or 67 of long ones); the second keeps a large job from holding up all
    small ones.
    """
    shares_a_lock = getattr(sys, "_is_gil_enabled", lambda: True)()
    return 2 if shares_a_lock else os.cpu_count() or 1


def _random_ids() -> Iterator[str]:
    """Random UUIDs, drawn many at a time: a system call may cost its thread the interpreter lock for milliseconds."""
    while True:
        noise = os.urandom(16 * 256)
        for at in range(0, len(noise), 16):
            yield str(uuid.UUID(bytes=noise[at : at + 16], version=4))


_ids = _random_ids()


def new_id() -> str:
    """A random UUID, as jobs and operations are named."""
    return next(_ids)


class _Young:
    """The jobs that ended last, as many as `MOST_YOUNG` bytes of results hold."""

    def __init__(self) -> None:
        self.bytes = 0
        self._jobs: OrderedDict[str, Job] = OrderedDict()

    def get(self, job_id: str) -> Job | None:
        return self._jobs.get(job_id)

    def remove(self, job_id: str) -> None:
        self._forget(self._jobs.pop(job_id, None))

    def add(self, job: Job) -> None:
        self.remove(job.id)
        self._jobs[job.id] = job
        self.bytes += _size(job)
        while self.bytes > MOST_YOUNG:
            self._forget(self._jobs.popitem(last=False)[1])

    def _forget(self, job: Job | None) -> None:
        self.bytes -= _size(job) if job else 0


def _size(job: Job) -> int:
    return 1024 + len(job.about) + len(job.result or b"")  # about a kilobyte goes into the objects around them
