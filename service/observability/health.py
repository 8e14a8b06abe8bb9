"""`/livez`, `/readyz`, `/metrics`, and for people the status page at `/`; no document and no key is shown.

Alive means that the event loop turns. Ready means that every stream has joined its group and is not draining. Neither
asks whether Kafka or a provider is well: an outage is waited out, not restarted away.

The page is one file that asks `/status` every second. It takes nothing from elsewhere and runs no script but its own,
by its digest; whatever it shows is set as text.
"""

import asyncio
import base64
import contextlib
import hashlib
import re
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from importlib.resources import files
from typing import Any, Protocol

import httpx
import uvicorn
from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.openmetrics.parser import text_string_to_metric_families
from prometheus_client.registry import Collector
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from service import settings
from service.errors import Misconfigured
from service.observability import status
from service.observability.messages import Messages
from service.observability.telemetry import Telemetry

_PAGE = files("service.observability").joinpath("status.html").read_text("utf-8")


def _digests(tag: str) -> str:
    """What the page has in such tags, as a policy names it."""
    found = re.findall(rf"<{tag}>(.*?)</{tag}>", _PAGE, re.DOTALL)
    return " ".join(f"'sha256-{base64.b64encode(hashlib.sha256(each.encode()).digest()).decode()}'" for each in found)


_FOR_EVERY_ANSWER = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}
_FOR_THE_PAGE = {
    **_FOR_EVERY_ANSWER,
    "Content-Security-Policy": "; ".join(
        [
            "default-src 'none'",
            f"script-src {_digests('script')}",
            f"style-src {_digests('style')}",
            "connect-src 'self'",
            "img-src data:",
            "base-uri 'none'",
            "form-action 'none'",
            "frame-ancestors 'none'",
            "require-trusted-types-for 'script'",
            "trusted-types 'none'",
        ]
    ),
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
}


_Answer = Callable[[Request], Awaitable[Response]]


async def _page(_: Request) -> Response:
    return Response(_PAGE, media_type="text/html", headers=_FOR_THE_PAGE)


def _answering(livez: _Answer, readyz: _Answer, metrics: _Answer, status_now: _Answer) -> Starlette:
    return Starlette(
        routes=[
            Route("/livez", livez),
            Route("/readyz", readyz),
            Route("/metrics", metrics),
            Route("/status", status_now),
            Route("/", _page),
        ]
    )


def app(telemetry: Telemetry, messages: Messages) -> Starlette:
    """The application that answers for one process."""

    def streams() -> dict[str, dict[str, Any]]:
        return {
            stream.topic: {
                "joined": stream.joined,
                "assigned_partitions": len(stream.ends),
                "draining": stream.draining,
                "dead_letter_limit_reached": stream.dead_letter_limit_reached,
            }
            for stream in telemetry.stream_statistics()
        }

    async def livez(_: Request) -> Response:
        return JSONResponse({"alive": True})

    async def readyz(_: Request) -> Response:
        known = streams()
        ready = bool(known) and all(each["joined"] and not each["draining"] for each in known.values())
        return JSONResponse({"ready": ready, "streams": known}, 200 if ready else 503)

    async def metrics(request: Request) -> Response:
        encode, content_type = choose_encoder(request.headers.get("accept", ""))
        return Response(encode(telemetry.registry), media_type=content_type)

    async def status_now(_: Request) -> Response:
        now = status.picture(telemetry.registry.collect(), streams(), messages.last())
        return JSONResponse(now, headers=_FOR_EVERY_ANSWER)

    return _answering(livez, readyz, metrics, status_now)


_WITH_EXAMPLES = "application/openmetrics-text; version=1.0.0"
"""The format in which metrics have the traces that are examples of them."""
_SILENCE = 5.0
"""Seconds in which a worker is to say how it is."""


class Watched(Protocol):
    """A worker in a process of its own; `url` is where it is asked how it is, None while it has not started."""

    name: str
    url: str | None
    restarts: int


def app_of_workers(workers: Sequence[Watched], messages: Messages) -> Starlette:
    """The application that answers for several workers, by asking each.

    Alive are those that answer or have not started, and the whole is ready when each of them is. Metrics are those of
    each, with the label `worker`; the status page adds them up.
    """

    async def asked(path: str, accept: str = "*/*") -> dict[str, httpx.Response | None]:
        async with httpx.AsyncClient(timeout=_SILENCE, trust_env=False) as http:

            async def answer(url: str | None) -> httpx.Response | None:
                with contextlib.suppress(httpx.HTTPError):
                    return await http.get(url + path, headers={"accept": accept}) if url is not None else None
                return None

            answers = await asyncio.gather(*(answer(each.url) for each in workers))
            return dict(zip([each.name for each in workers], answers, strict=True))

    async def livez(_: Request) -> Response:
        answers = await asked("/livez")
        silent = [each.name for each in workers if each.url is not None and answers[each.name] is None]
        return JSONResponse({"alive": not silent, "silent": silent}, 503 if silent else 200)

    async def readyz(_: Request) -> Response:
        answers = await asked("/readyz")
        workers: dict[str, Any] = {name: answer and answer.json() for name, answer in answers.items()}
        ready = all(each is not None and each["ready"] for each in workers.values())
        return JSONResponse({"ready": ready, "workers": workers}, 200 if ready else 503)

    async def collected() -> "WorkersCollector":
        answers = await asked("/metrics", _WITH_EXAMPLES)
        pages = {name: answer.text for name, answer in answers.items() if answer is not None}
        return WorkersCollector(workers, pages)

    async def metrics(request: Request) -> Response:
        registry = CollectorRegistry()
        registry.register(await collected())
        encode, content_type = choose_encoder(request.headers.get("accept", ""))
        return Response(encode(registry), media_type=content_type)

    async def status_now(_: Request) -> Response:
        answers, samples = await asked("/status"), await collected()
        said = {name: answer.json() if answer is not None else None for name, answer in answers.items()}
        now = status.together(samples.collect(), said, messages.last())
        return JSONResponse(now, headers=_FOR_EVERY_ANSWER)

    return _answering(livez, readyz, metrics, status_now)


class WorkersCollector(Collector):
    """The metrics of all workers, by what each shows, with the label `worker`; and those of the process beside them."""

    def __init__(self, workers: Sequence[Watched], pages: Mapping[str, str]) -> None:
        self._workers = workers
        self._pages = pages

    def collect(self) -> Iterable[Metric]:
        """Every metric, once."""
        up = GaugeMetricFamily("labelstream_worker_up", "Whether (1 or 0) a worker has started.", labels=["worker"])
        restarts = CounterMetricFamily(
            "labelstream_worker_restarts", "Starts of a worker that was killed.", labels=["worker"]
        )
        for each in self._workers:
            up.add_metric([each.name], each.url is not None)
            restarts.add_metric([each.name], each.restarts)
        families: dict[str, Metric] = {}
        for name, page in self._pages.items():
            for family in text_string_to_metric_families(page):  # type: ignore[no-untyped-call]
                known = families.setdefault(family.name, Metric(family.name, family.documentation, family.type))
                for sample in family.samples:
                    labels = {"worker": name, **sample.labels}
                    known.add_sample(sample.name, labels, sample.value, exemplar=sample.exemplar)
        yield from (up, restarts, *families.values())


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield  # signals are the command's to handle, not the health port's


@asynccontextmanager
async def served(app: Starlette, health: settings.Health) -> AsyncIterator[str]:
    """Answer on the configured port for the length of the block; gives the URL. Raises Misconfigured."""
    family = socket.AF_INET6 if ":" in health.host else socket.AF_INET
    try:
        listening = socket.create_server((health.host, health.port), family=family)
    except OSError as error:
        raise Misconfigured(f"health: cannot listen on {health.host}:{health.port}: {error.strerror}") from None
    server = _Server(uvicorn.Config(app, log_config=None, access_log=False, lifespan="off"))
    async with asyncio.TaskGroup() as running:
        serving = running.create_task(server.serve([listening]))
        host = f"[{health.host}]" if family == socket.AF_INET6 else health.host
        try:
            yield f"http://{host}:{listening.getsockname()[1]}"
        finally:
            server.should_exit = True
            await serving  # where the block has failed, the group would cut it off with its connections open
