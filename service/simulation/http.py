"""The endpoints of a scenario over HTTP, in a process of their own, and a scenario that is played against them."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from functools import partial
from multiprocessing.connection import Connection

from service import settings
from service.dispatch import accounts
from service.dispatch.account import Account
from service.observability.telemetry import Telemetry
from service.process import loop_factory, received, spawned
from service.progress import Advance
from service.simulation.endpoint import Behaviour, Endpoint
from service.simulation.play import Figure, play
from service.simulation.scenario import Scenario
from service.simulation.wire import listening
from service.transport.http import Answer


async def play_over_http(scenario: Scenario, advance: Advance) -> list[Figure]:
    """Play a scenario in real time. Raises as `play`."""
    with spawned(serve, scenario.endpoints) as endpoints:
        base = await asyncio.to_thread(received, endpoints)
        opened = partial(_opened, endpoints)
        return await play(scenario, base, opened, advance)


def _opened(
    endpoints: Connection, wanted: settings.Settings, telemetry: Telemetry
) -> AbstractAsyncContextManager[Mapping[str, Account]]:
    endpoints.send("begin")
    return accounts.opened(wanted.accounts, wanted.accounts, telemetry)


def serve(connection: Connection, phases: Mapping[str, Sequence[Behaviour]]) -> None:
    """Answer for the endpoints of these names, each below a path of its name, until the connection closes."""

    async def answering() -> None:
        loop, told = asyncio.get_running_loop(), asyncio.Event()
        endpoints = dict[str, Endpoint]()
        async with asyncio.TaskGroup() as tasks:

            async def answer(method: str, url: str, body: bytes, give: Callable[[Answer], None]) -> None:
                give(await endpoints[url.split("/")[1]].answer(method, url, body))

            def asked(method: str, url: str, body: bytes, give: Callable[[Answer], None]) -> None:
                tasks.create_task(answer(method, url, body, give))

            async with listening(asked) as base:
                endpoints |= {name: Endpoint(each, f"{base}/{name}") for name, each in phases.items()}
                connection.send(base)
                loop.add_reader(connection.fileno(), told.set)
                await told.wait()
                connection.recv()  # the scenario begins
                for endpoint in endpoints.values():
                    endpoint.began = loop.time()
                told.clear()
                await told.wait()  # nothing more is sent: it can only have closed

    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        runner.run(answering())
