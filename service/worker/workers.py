"""`labelstream run --workers N`: a process for each core, all of one consumer group, seen from outside as one.

Each is a worker as `run` is alone. This one beside them starts them, passes signals on, and answers at the health port
for all. A worker that is killed (by the kernel for memory, by a person) is started again, and its partitions are the
others' meanwhile; one that ends by itself, as over a wrong setting, ends the whole run with its exit code.
"""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from functools import partial
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess

import structlog

from service.observability import health, messages
from service.process import started
from service.settings import Health, Settings
from service.worker import worker
from service.worker.reload import at_each_hangup

_FIRST_WAIT, _LONGEST_WAIT, _WELL = 1.0, 30.0, 60.0
"""Seconds before a worker that was killed is started again, at first and at most, and after which it counts as well."""
_SHORT_OF_TIME = 10.0
"""Seconds that workers have to end which are told so twice."""

log = structlog.get_logger(__name__)

Target = Callable[[Connection, int], None]
"""What a worker's process runs: told its number, and where to say that it has started."""


async def supervise(settings: Settings, count: int, target: Target, stop: asyncio.Event) -> int:
    """Run so many workers until `stop` is set or one of them ends; gives the exit code. Raises Misconfigured."""
    first, *others = workers = [_Worker(number, target) for number in range(count)]
    async with (
        messages.kept() as last,
        health.served(health.app_of_workers(workers, last), settings.health) as url,
        _told_to_end(workers, stop),
        asyncio.TaskGroup() as keeping,
    ):
        passing_on = keeping.create_task(at_each_hangup(partial(_reload, workers), stop))
        kept = [keeping.create_task(first.keep(stop))]
        await first.has_started_or_ended.wait()  # what is wrong with the settings is to be told once
        kept += [keeping.create_task(each.keep(stop)) for each in others]
        log.info("workers_started", workers=count, health=url)
        await asyncio.wait(kept)
        passing_on.cancel()
    return max(task.result() for task in kept)


async def _reload(workers: Sequence["_Worker"]) -> None:
    """Have each worker take up its configuration anew."""
    for each in workers:
        each.reload()


@asynccontextmanager
async def _told_to_end(workers: Sequence["_Worker"], stop: asyncio.Event) -> AsyncIterator[None]:
    """Tell the workers to end once `stop` is set, and again where nobody wants to wait for that."""

    async def tell() -> None:
        await stop.wait()
        for each in workers:
            each.end()

    telling = asyncio.create_task(tell())
    try:
        yield
    except asyncio.CancelledError:
        for each in workers:
            each.end()
        for each in workers:
            each.end_by_force()
        raise
    finally:
        telling.cancel()


class _Worker:
    """One of the workers, whether its process runs or not; as `health.Watched`."""

    def __init__(self, number: int, target: Target) -> None:
        self.name = str(number)
        self.url: str | None = None
        self.restarts = 0
        self.has_started_or_ended = asyncio.Event()
        self._number = number
        self._target = target
        self._process: BaseProcess | None = None
        self._is_to_reload = False

    async def keep(self, stop: asyncio.Event) -> int:
        """Have it run, again where it is killed; gives the exit code with which it ends by itself, and sets `stop`."""
        wait, loop = _FIRST_WAIT, asyncio.get_running_loop()
        while not stop.is_set():
            began = loop.time()
            code = await self._run()
            if code >= 0:
                stop.set()
                self.has_started_or_ended.set()
                return code
            if stop.is_set():
                break
            wait = _FIRST_WAIT if loop.time() - began >= _WELL else wait
            log.error("worker_killed", worker=self.name, signal=-code, again_in=wait)
            self.restarts += 1
            with suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), wait)
            wait = min(2 * wait, _LONGEST_WAIT)
        self.has_started_or_ended.set()
        return 0

    async def _run(self) -> int:
        """Run its process to its end; gives the exit code, or less than 0 for the signal that killed it."""
        loop, over = asyncio.get_running_loop(), asyncio.Event()
        self._is_to_reload = False
        process, ours = started(self._target, self._number)
        self._process = process

        def told() -> None:
            loop.remove_reader(ours.fileno())
            with suppress(EOFError, OSError):
                self.url = ours.recv()
                self.has_started_or_ended.set()
                if self._is_to_reload:
                    self.reload()

        loop.add_reader(ours.fileno(), told)
        loop.add_reader(process.sentinel, over.set)
        try:
            await over.wait()
        finally:
            loop.remove_reader(process.sentinel)
            loop.remove_reader(ours.fileno())
            ours.close()
            self.url = None
        process.join()
        return process.exitcode or 0

    def reload(self) -> None:
        """Have it take up its configuration anew, once it has started: before, that would end it."""
        self._is_to_reload = self.url is None
        if self.url is not None and self._process is not None and self._process.pid is not None:
            os.kill(self._process.pid, signal.SIGHUP)

    def end(self) -> None:
        """Ask it to finish what is out, and to end."""
        if self._process is not None and self._process.is_alive():
            self._process.terminate()

    def end_by_force(self) -> None:
        """See that it ends."""
        if self._process is not None:
            self._process.join(_SHORT_OF_TIME)
            self._process.kill()


async def work(load: Callable[[], Settings], number: int, beside: Connection, stop: asyncio.Event) -> None:
    """What one of several workers does: as `worker.work`, until `stop` is set or nobody is beside it any more."""
    os.setpgid(0, 0)  # Ctrl-C reaches all of a terminal's group: it is passed on as one signal
    asyncio.get_running_loop().add_reader(beside.fileno(), stop.set)  # nothing is sent: it can only have closed
    structlog.contextvars.bind_contextvars(worker=str(number))

    def mine() -> Settings:
        return _of_worker(load(), number)

    await worker.work(mine(), stop, beside.send, mine)


def _of_worker(settings: Settings, number: int) -> Settings:
    """The settings of one worker: no two have the same name, and health is asked on this machine."""
    named = settings.kafka.group_instance_id
    kafka = settings.kafka.model_copy(update={"group_instance_id": f"{named}-{number}"}) if named else settings.kafka
    return settings.model_copy(update={"kafka": kafka, "health": Health(host="127.0.0.1", port=0)})
