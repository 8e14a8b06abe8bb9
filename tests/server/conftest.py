"""A server with small trained models, its parts in reach, asked over ASGI; or as a process of its own, over HTTP."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.types import ASGIApp

from service.model.category import learn_category
from service.model.examples import Example
from service.model.train import train
from service.server.app import apis, application, health, make_jobs
from service.server.backend import Backend
from service.server.containers import Containers
from service.server.content_safety_harms import Harms
from service.server.faults import Faults, parse
from service.server.gateway import Gateway, Window, fault_route
from service.server.jobs import Jobs
from service.server.models import Models
from service.server.s3 import S3
from service.server.store import Store
from service.server.telemetry import Telemetry
from service.server.training import Trainer

KEY = "a-key-of-the-server"
VERSION = "2023-04-01"
JOBS = "/language/analyze-text/jobs"
BILLING, CRASH = "I was charged twice on my invoice", "the app crashes when it starts"
PENDING = {"notStarted", "running"}
TEXTS = {
    "billing": [BILLING, "please refund the payment", "the invoice is wrong", "charged after cancelling"],
    "crash": [CRASH, "it crashes with an error", "the app freezes and closes", "error message at start"],
    "account": ["I cannot log in", "reset my password", "delete my account please", "log in code never arrives"],
}
SINGLE = [Example(text, text, (label,)) for label, texts in TEXTS.items() for text in texts]
MULTI = [
    *(Example(f"{one.id} {n}", f"{one.text} {n}", one.labels) for one in SINGLE for n in range(3)),
    *(
        Example(f"{one} {other}", f"{one} and {other}", ("billing", "crash"))
        for one in TEXTS["billing"]
        for other in TEXTS["crash"]
    ),
    *(Example(text, text, ()) for text in ("good morning", "hello there", "thank you all", "nice day")),
]


DRUGS = [
    f"{who} {what} {where}"
    for who in ("anyone", "my dealer", "we always", "a friend of mine", "you should try and")
    for what in ("sells pills", "smoke weed", "get high on powder", "buy some pills cheaply")
    for where in ("behind the station", "before class", "at the party tonight")
]


class Clock:
    """The time of day, moved by hand."""

    def __init__(self) -> None:
        self.now = 1_795_000_000.0

    def __call__(self) -> float:
        return self.now


@dataclass(frozen=True)
class Server:
    """A server's parts, and a client that brings the key."""

    app: ASGIApp
    client: httpx.AsyncClient
    backend: Backend
    jobs: Jobs
    telemetry: Telemetry
    clock: Clock

    @property
    def store(self) -> Store:
        return self.backend.store

    async def submit(self, body: object) -> str:
        response = await self.client.post(JOBS, params={"api-version": VERSION}, json=body)
        assert response.status_code == 202, response.text
        return response.headers["operation-location"]

    async def poll(self, location: str, **query: str) -> dict[str, Any]:
        response = await self.client.get(httpx.URL(location).copy_merge_params(query))
        assert response.status_code == 200, response.text
        shown: dict[str, Any] = response.json()
        return shown

    async def ended(self, location: str, **query: str) -> dict[str, Any]:
        """The job once it has ended."""
        while (shown := await self.poll(location, **query))["status"] in PENDING:  # noqa: ASYNC110  all a client can do
            await asyncio.sleep(0.002)
        return shown

    async def idle(self) -> None:
        """Wait until every job has been done, whether that may be shown or not."""
        while self.jobs.statistics().waiting or self.jobs.statistics().running:  # noqa: ASYNC110  threads do them
            await asyncio.sleep(0.002)


Serve = Callable[..., AbstractAsyncContextManager[Server]]


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of trained models: `tickets` gives one label, `topics` those that apply."""
    folder = tmp_path_factory.mktemp("models")
    train(SINGLE, task="single_label", name="tickets").save(folder / "tickets")
    train(MULTI, task="multi_label", name="topics").save(folder / "topics")
    return folder


@pytest.fixture(scope="session")
def harm_models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Trained models: `hate` is of one category, `moderation` multi-label, `verdict` single-label."""
    folder = tmp_path_factory.mktemp("harms")
    learn_category("drugs", DRUGS).save(folder / "drugs")
    labels = {"billing": ("self_harm",), "crash": ("Violence",), "account": ()}
    rows = [Example(one.id, f"{one.text} {n}", labels[one.labels[0]]) for one in SINGLE for n in range(3)]
    train(rows, task="multi_label", name="moderation").save(folder / "moderation")
    verdicts = [Example(one.id, one.text, ("positive" if one.labels[0] == "crash" else "fine",)) for one in SINGLE]
    train(verdicts, task="single_label", name="verdict").save(folder / "verdict")
    return folder


@pytest.fixture(scope="session")
def trainer() -> Iterator[Trainer]:
    """One process that trains for all tests: it takes seconds to start."""
    with Trainer() as trainer:
        yield trainer


@pytest.fixture
def serve(models: Path, trainer: Trainer, tmp_path: Path) -> Serve:
    """Make a server over a data folder in which `tickets/production` and `topics/production` are deployed."""

    @asynccontextmanager
    async def serve(
        *,
        keys: Sequence[str] = (KEY,),
        faults: object = (),
        window: Window | None = None,
        works: bool = True,
        folder: Path = tmp_path / "data",
        clock: Clock | None = None,
        containers: Sequence[str] = (),
        s3: str | None = None,
        aws_keys: Mapping[str, str] | None = None,
        documented_rates: bool = False,
        harm_models: Sequence[str] = (),
        **more: Any,
    ) -> AsyncIterator[Server]:
        telemetry, clock, kept = Telemetry(), clock or Clock(), Models(folder / "models")
        async with Store.open(folder) as store:
            for name in ("tickets", "topics"):
                classifier = kept.add(models / name)
                await store.deploy(name, "production", classifier.task, classifier.digest)
            read, harms = Containers.parse(containers), Harms.load(harm_models)
            backend = Backend(store, kept, trainer, read, S3(s3), documented_rates, harms)
            jobs = make_jobs(backend, telemetry, clock=clock, **more)
            gateway = Gateway([key.encode() for key in keys], Faults(parse(faults)), telemetry, window, public_url=None)
            app = application(
                gateway, [*apis(backend, jobs, gateway, aws_keys), fault_route(gateway), *health(store, telemetry)]
            )
            headers = {"Ocp-Apim-Subscription-Key": KEY}
            transport = httpx.ASGITransport(app)
            async with httpx.AsyncClient(transport=transport, base_url="http://server:8080", headers=headers) as client:
                server = Server(app, client, backend, jobs, telemetry, clock)
                if not works:
                    yield server
                    return
                async with jobs.working():
                    yield server

    return serve


@pytest.fixture
async def server(serve: Serve) -> AsyncIterator[Server]:
    async with serve() as server:
        yield server


def submission(*texts: str, project: str = "tickets", kind: str = "Single", **changes: Any) -> dict[str, Any]:
    """The body of a job of one task; documents have the ids 0, 1, …"""
    task = {
        "kind": f"Custom{kind}LabelClassification",
        "taskName": "only",
        "parameters": {"projectName": project, "deploymentName": "production"},
    }
    documents = [{"id": str(number), "language": "en", "text": text} for number, text in enumerate(texts)]
    return {"displayName": "a job", "analysisInput": {"documents": documents}, "tasks": [task], **changes}


@contextmanager
def process(data: Path, *options: str, key: str = KEY) -> Iterator[tuple[str, "subprocess.Popen[str]"]]:
    """The server as its users start it; gives its URL. Ends it with SIGTERM unless it has ended."""
    command = [sys.executable, "-m", "service", "serve", "--data", str(data), "--port", "0", *options]
    with subprocess.Popen(
        command,
        env={**os.environ, "LABELSTREAM_SERVE_KEY": key},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as running:
        assert running.stdout is not None
        try:
            said = running.stdout.readline()
            assert said.startswith("serving on "), (said, running.stderr.read() if running.stderr else "")
            yield said.removeprefix("serving on ").strip(), running
        finally:
            if running.poll() is None:
                running.send_signal(signal.SIGTERM)
            running.communicate(timeout=30)
