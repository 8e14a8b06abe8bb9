"""The endpoint of a benchmark: Azure Language's jobs, with constant answers after some time."""

import asyncio
import random
import time
from collections.abc import Callable
from multiprocessing.connection import Connection

from service.process import loop_factory
from service.simulation import language
from service.simulation.wire import listening
from service.transport.http import Answer


def endpoint(connection: Connection, seconds: float, spread: float = 0.0) -> None:
    """Do each job in so many seconds, or up to `spread` less or more by a chance that is always the same.

    It goes on until the connection closes.
    """
    chance = random.Random(7)  # noqa: S311  repeatable

    async def serve() -> None:
        orphaned = asyncio.Event()
        jobs: dict[str, tuple[float, Answer]] = {}

        def asked(method: str, url: str, body: bytes, give: Callable[[Answer], None]) -> None:
            now = time.monotonic()
            if method == "POST":
                name = str(len(jobs))
                jobs[name] = (
                    now + seconds + chance.uniform(-spread, spread),
                    language.succeeded(language.documents_in(body)),
                )
                give(language.submitted(base, name))
                return
            name = language.job_of(url)
            due, answer = jobs.get(name, (0.0, language.NO_SUCH_JOB))  # whether the key is right is asked so
            if now < due:
                answer = language.RUNNING
            elif name in jobs:
                jobs[name] = due, language.RUNNING  # it is read once, and to be let go of
            give(answer)

        async with listening(asked) as base:
            connection.send(base)
            asyncio.get_running_loop().add_reader(connection.fileno(), orphaned.set)  # it can only have closed
            await orphaned.wait()

    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        runner.run(serve())
