"""`/livez`, `/readyz` and `/metrics`, read from `statistics()`; no document, key or address is shown.

Alive means that the event loop turns. Ready means that every stream has joined its group and is not draining. Neither
asks whether Kafka or a provider is well: an outage is waited out, not restarted away.
"""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import uvicorn
from prometheus_client.exposition import choose_encoder
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from service import settings
from service.errors import Misconfigured
from service.telemetry import Telemetry


def app(telemetry: Telemetry) -> Starlette:
    """The application that answers for one process."""

    async def livez(_: Request) -> Response:
        return JSONResponse({"alive": True})

    async def readyz(_: Request) -> Response:
        streams = {
            stream.topic: {
                "joined": stream.joined,
                "assigned_partitions": len(stream.ends),
                "draining": stream.draining,
                "dead_letter_limit_reached": stream.dead_letter_limit_reached,
            }
            for stream in telemetry.stream_statistics()
        }
        ready = bool(streams) and all(each["joined"] and not each["draining"] for each in streams.values())
        return JSONResponse({"ready": ready, "streams": streams}, 200 if ready else 503)

    async def metrics(request: Request) -> Response:
        encode, content_type = choose_encoder(request.headers.get("accept", ""))
        return Response(encode(telemetry.registry), media_type=content_type)

    return Starlette(routes=[Route("/livez", livez), Route("/readyz", readyz), Route("/metrics", metrics)])


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield  # signals are the command's to handle, not the health port's


@asynccontextmanager
async def served(telemetry: Telemetry, health: settings.Health) -> AsyncIterator[str]:
    """Answer on the configured port for the length of the block; gives the URL. Raises Misconfigured."""
    family = socket.AF_INET6 if ":" in health.host else socket.AF_INET
    try:
        listening = socket.create_server((health.host, health.port), family=family)
    except OSError as error:
        raise Misconfigured(f"health: cannot listen on {health.host}:{health.port}: {error.strerror}") from None
    server = _Server(uvicorn.Config(app(telemetry), log_config=None, access_log=False, lifespan="off"))
    async with asyncio.TaskGroup() as running:
        serving = running.create_task(server.serve([listening]))
        host = f"[{health.host}]" if family == socket.AF_INET6 else health.host
        try:
            yield f"http://{host}:{listening.getsockname()[1]}"
        finally:
            server.should_exit = True
            await serving  # where the block has failed, the group would cut it off with its connections open
