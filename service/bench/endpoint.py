"""The endpoint of a benchmark: Azure Language's jobs, with constant answers after a constant time."""

import asyncio
import math
import time
from collections.abc import Callable
from multiprocessing.connection import Connection

from service.process import loop_factory
from service.simulation import language
from service.simulation.wire import listening
from service.transport import Answer


def endpoint(connection: Connection, seconds: float) -> None:
    """Do each job in so many seconds, until the connection closes."""

    async def serve() -> None:
        orphaned = asyncio.Event()
        jobs: dict[str, tuple[float, Answer]] = {}

        def asked(method: str, url: str, body: bytes, give: Callable[[Answer], None]) -> None:
            now = time.monotonic()
            if method == "POST":
                name = str(len(jobs))
                jobs[name] = now + seconds, language.succeeded(language.documents_in(body))
                give(language.submitted(base, name))
                return
            name = language.job_of(url)
            due, answer = jobs.get(name, (math.inf, language.RUNNING))
            if now < due:
                answer = language.RUNNING
            else:
                jobs[name] = due, language.RUNNING  # it is read once, and to be let go of
            give(answer)

        async with listening(asked) as base:
            connection.send(base)
            asyncio.get_running_loop().add_reader(connection.fileno(), orphaned.set)  # it can only have closed
            await orphaned.wait()

    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        runner.run(serve())
