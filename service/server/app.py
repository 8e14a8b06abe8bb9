"""`labelstream serve`: the APIs of cloud classifiers, answered by models trained here.

Everything the server keeps is in one data folder: its state (`store`) and the models behind its deployments
(`models`). This module puts the parts together, opens the listening socket, and says when that is safe.

Besides the APIs: /livez answers while the process runs, /readyz while it can also keep what it accepts, /metrics is for
Prometheus (none of these asks for a key or tells of documents), and /_faults is described in `faults`.
"""

import asyncio
import ipaddress
import re
import socket
import ssl
import time
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Self

import structlog
import uvicorn
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route, Router
from starlette.types import ASGIApp

from service.errors import Misconfigured, Unavailable
from service.model import embeddings
from service.server import (
    azure_language,
    azure_language_2021,
    azure_language_2021_runtime,
    azure_language_authoring,
    azure_language_evaluations,
    azure_language_tasks,
    azure_language_trainings,
    comprehend,
    comprehend_classifiers,
    comprehend_endpoints,
    comprehend_jobs,
    comprehend_tags,
    content_safety_categories,
    content_safety_samples,
    content_understanding,
    content_understanding_analyzers,
    faults,
)
from service.server.backend import Backend
from service.server.comprehend_account import Account, Quotas
from service.server.containers import Containers
from service.server.content_safety import ContentSafety
from service.server.content_safety_harms import Harms
from service.server.faults import Faults
from service.server.gateway import Gateway, Resource, Window, fault_route
from service.server.jobs import Jobs, Work, alongside
from service.server.models import Models
from service.server.s3 import S3
from service.server.store import Store
from service.server.telemetry import Telemetry
from service.server.training import Trainer

KEEP_ALIVE = 75  # seconds: longer than clients wait between polls, so that a poll does not meet a closing connection
GRACE = 10  # seconds that requests under way have to finish once the server stops

_KEY = re.compile(r"[!-~]+")
_NAME = re.compile(r"[A-Za-z0-9_.-]{1,50}")

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Registration:
    """A trained model (a folder with a `model.zip`, or that file) to put behind a deployment of a project."""

    project: str
    deployment: str
    model: Path

    def __post_init__(self) -> None:
        for what, name in (("project", self.project), ("deployment", self.deployment)):
            if not _NAME.fullmatch(name):
                allowed = "up to 50 of A-Z a-z 0-9 _ . -"
                raise Misconfigured(f"--model: {what} name {name!r} is not allowed; write {allowed}")

    @classmethod
    def parse(cls, text: str) -> Self:
        """A registration written PROJECT/DEPLOYMENT=FOLDER; raises `Misconfigured`."""
        names, equals, model = text.partition("=")
        project, slash, deployment = names.partition("/")
        if not (equals and slash and model):
            raise Misconfigured(
                f"--model {text!r} is not PROJECT/DEPLOYMENT=FOLDER (tickets/production=models/tickets)"
            )
        return cls(project, deployment, Path(model))


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A trained model to put behind an endpoint of Amazon Comprehend, with so many inference units or no limit."""

    name: str
    model: Path
    units: int | None = None

    @classmethod
    def parse(cls, text: str) -> Self:
        """An endpoint written NAME=FOLDER or NAME=FOLDER:UNITS; raises `Misconfigured`."""
        found = re.fullmatch("([a-zA-Z0-9](?:-*[a-zA-Z0-9]){0,39})=(.+?)(?::([1-9][0-9]{0,3}))?", text)
        if found is None:
            form = "NAME=FOLDER or NAME=FOLDER:UNITS (tickets=models/tickets:10)"
            raise Misconfigured(f"--comprehend-endpoint {text!r} is not {form}")
        return cls(found[1], Path(found[2]), int(found[3]) if found[3] else None)


@dataclass(frozen=True, slots=True)
class ServeOptions:
    """How to serve; raises `Misconfigured` where that would not be safe.

    `keys` are those that clients may use, one of which each request has to bring; there may be none on a loopback
    address. `port` 0 takes a free one. `plaintext` allows HTTP without TLS on other addresses. `public_url` is where
    clients reach the server when that is not what they write as Host (behind a proxy that ends TLS). `containers` are
    where training data may be read, each NAME=FOLDER or NAME=URL. `aws_keys` are those that may sign requests to Amazon
    Comprehend, each ACCESS_KEY_ID:SECRET; `comprehend_quotas` are how much may be made there, each NAME=NUMBER, where
    that is not as documented; `s3_endpoint_url` is where S3 is, if not at AWS. `harm_models` answer for
    Content Safety's harm categories, each CATEGORY=FOLDER; its sample files may have `largest_sample_file` bytes, and
    its custom categories are learnt with the extra `embeddings` where `by_meaning` says so.
    `documented_rates` throttles as the clouds document it, `requests_per_minute` at a rate of one's own. `faults` is a
    file of rules, `allow_faults` opens /_faults. No job is shown as done before `least_job_seconds`.
    """

    data: Path
    host: str = "127.0.0.1"
    port: int = 8080
    keys: tuple[str, ...] = field(default=(), repr=False)
    tls_certificate: Path | None = None
    tls_key: Path | None = None
    plaintext: bool = False
    public_url: str | None = None
    models: tuple[Registration, ...] = ()
    containers: tuple[str, ...] = field(default=(), repr=False)
    aws_keys: tuple[str, ...] = field(default=(), repr=False)
    comprehend_endpoints: tuple[Endpoint, ...] = ()
    comprehend_quotas: tuple[str, ...] = ()
    s3_endpoint_url: str | None = None
    harm_models: tuple[str, ...] = ()
    largest_sample_file: int = content_safety_samples.MOST_BYTES
    by_meaning: bool = False
    documented_rates: bool = False
    requests_per_minute: int | None = None
    least_job_seconds: float = 0.0
    allow_faults: bool = False
    faults: Path | None = None

    def __post_init__(self) -> None:
        if not all(_KEY.fullmatch(key) for key in self.keys):
            raise Misconfigured("a key of the server is empty or holds spaces, line breaks or non-ASCII characters")
        if (self.tls_certificate is None) != (self.tls_key is None):
            raise Misconfigured("TLS takes both a certificate file and a key file, only one of them is given")
        if self.requests_per_minute is not None and self.requests_per_minute < 1:
            raise Misconfigured("requests per minute are to be at least 1")
        if self.public_url is not None and not re.fullmatch(r"https?://[^/?#\s]+", self.public_url):
            raise Misconfigured(f"public URL {self.public_url!r} is to be https://host or https://host:port")
        if not _is_loopback(self.host):
            if not self.keys:
                raise Misconfigured(
                    f"serving on {self.host} takes a key, or anybody could use it; or serve on 127.0.0.1"
                )
            if self.tls_certificate is None and not self.plaintext:
                raise Misconfigured(
                    f"serving on {self.host} without TLS would send keys and documents readable over the network; "
                    "give a certificate and a key file, or allow plaintext (behind a proxy that ends TLS)"
                )


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


@asynccontextmanager
async def serving(options: ServeOptions) -> AsyncIterator[str]:
    """The server, for as long as the context lasts; gives its URL. Raises `Misconfigured`.

    At the end, requests under way are finished; jobs that are not done by then are done at the next start.
    """
    rules = faults.load(options.faults) if options.faults else ()
    containers, secrets = Containers.parse(options.containers), _secrets(options.aws_keys)
    harms, quotas = await asyncio.to_thread(Harms.load, options.harm_models), Quotas.parse(options.comprehend_quotas)
    telemetry = Telemetry()
    models = Models(options.data / "models")
    if options.by_meaning:
        await asyncio.to_thread(embeddings.encoder)  # or it would be missed only when a category is built
    async with Store.open(options.data) as store:
        await _deploy(options.models, models, store)
        trainer, s3, rates = Trainer(), S3(options.s3_endpoint_url), options.documented_rates
        largest = options.largest_sample_file
        backend = Backend(store, models, trainer, containers, s3, rates, harms, largest, quotas, options.by_meaning)
        for endpoint in options.comprehend_endpoints:
            classifier = await asyncio.to_thread(models.add, endpoint.model)
            await comprehend_endpoints.register(backend, endpoint.name, classifier.digest, time.time(), endpoint.units)
        if not (store.projects or store.resources(comprehend_endpoints.RESOURCE) or options.harm_models):
            log.warning("nothing_deployed", advice="give --model PROJECT/DEPLOYMENT=FOLDER, or have clients train")
        jobs = make_jobs(backend, telemetry, options.least_job_seconds)
        async with jobs.working():
            with trainer:  # left before the jobs, which do not wait for what is being learnt
                keys = tuple(key.encode() for key in options.keys)
                window = Window(options.requests_per_minute) if options.requests_per_minute else None
                gateway = Gateway(keys, Faults(rules), telemetry, window, options.public_url)
                routes = [*apis(backend, jobs, gateway, secrets), *health(store, telemetry)]
                if options.allow_faults:
                    routes.append(fault_route(gateway))
                async with _listening(options, application(gateway, routes)) as url:
                    yield url


def make_jobs(
    backend: Backend, telemetry: Telemetry, least_seconds: float = 0.0, clock: Callable[[], float] = time.time
) -> Jobs:
    """The jobs of every API: what each kind is, and which of them train."""
    works: dict[str, Work] = {
        azure_language.KIND: partial(azure_language_tasks.classify, backend=backend),
        azure_language_2021_runtime.KIND: partial(azure_language_2021_runtime.analyze, backend=backend),
        comprehend_classifiers.DELETION: partial(comprehend_classifiers.delete, backend=backend),
        comprehend_endpoints.KIND: partial(comprehend_endpoints.bring, backend=backend, clock=clock),
        content_safety_categories.DELETION: partial(content_safety_categories.delete, backend=backend),
        content_understanding.KIND: partial(content_understanding.classify, backend=backend),
        content_understanding_analyzers.KIND: partial(content_understanding_analyzers.analyze, backend=backend),
    }
    trainings: dict[str, Work] = {
        azure_language_evaluations.KIND: partial(azure_language_evaluations.evaluate, backend=backend),
        azure_language_trainings.KIND: partial(azure_language_trainings.learn, backend=backend),
        azure_language_2021.KIND: partial(azure_language_2021.learn, backend=backend),
        comprehend_classifiers.KIND: partial(comprehend_classifiers.train, backend=backend, clock=clock),
        comprehend_jobs.KIND: partial(comprehend_jobs.classify, backend=backend, s3=backend.s3),
        content_safety_categories.BUILD: partial(content_safety_categories.build, backend=backend),
    }
    return Jobs(backend.store, works, telemetry, least_seconds, trainings=trainings, clock=clock)


def apis(backend: Backend, jobs: Jobs, gateway: Gateway, aws_keys: Mapping[str, str] | None = None) -> list[Route]:
    """The paths of every API; `aws_keys` are the secrets of those who may sign, by their access key ids."""
    return [
        *azure_language.Runtime(backend, jobs).routes(gateway),
        *azure_language_authoring.Authoring(backend, jobs).routes(gateway),
        *azure_language_2021.Authoring(backend, jobs).routes(gateway),
        *azure_language_2021_runtime.Runtimes(backend, jobs).routes(gateway),
        *ContentSafety(backend, jobs).routes(gateway),
        *content_understanding.Classifiers(backend, jobs).routes(gateway),
        *content_understanding_analyzers.Analyzers(backend, jobs).routes(gateway),
        *_comprehend(backend, jobs, gateway, aws_keys or {}).routes(),
    ]


def _comprehend(backend: Backend, jobs: Jobs, gateway: Gateway, aws_keys: Mapping[str, str]) -> comprehend.Front:
    account = Account(backend.comprehend_quotas)
    classifiers = comprehend_classifiers.Classifiers(backend, jobs, account)
    endpoints = comprehend_endpoints.Endpoints(backend, jobs, account, classifiers)
    started = comprehend_jobs.ClassificationJobs(backend, jobs, account, classifiers)
    known = {
        comprehend_classifiers.ARN_KIND: classifiers.has,
        comprehend_endpoints.ARN_KIND: endpoints.has,
        comprehend_jobs.ARN_KIND: started.has,
    }
    tags = comprehend_tags.Tags(backend, account, known)
    actions = {**classifiers.actions(), **endpoints.actions(), **started.actions(), **tags.actions()}
    for name, limit in comprehend.RATES.items():
        actions[name] = actions[name]._replace(window=backend.window(limit, 1.0))
    return comprehend.Front(gateway, aws_keys, actions)


def application(gateway: Gateway, routes: Sequence[Route]) -> ASGIApp:
    """The server as an ASGI application: its paths, and an answer for every other."""
    return Router(routes, redirect_slashes=False, default=Resource(gateway, "none", (), {}))


def _secrets(keys: Iterable[str]) -> dict[str, str]:
    secrets = {}
    for key in keys:
        access_key_id, colon, secret = key.partition(":")
        if not (colon and _KEY.fullmatch(access_key_id) and _KEY.fullmatch(secret)):
            raise Misconfigured("--aws-key is to be ACCESS_KEY_ID:SECRET")
        secrets[access_key_id] = secret
    return secrets


async def _deploy(registrations: Sequence[Registration], models: Models, store: Store) -> None:
    for given in registrations:
        classifier = await asyncio.to_thread(models.add, given.model)
        await store.deploy(given.project, given.deployment, classifier.task, classifier.digest)
    for project, made in store.projects.items():
        for deployment, digest in made.deployments.items():
            if not models.has(digest):
                advice = f"register it again with --model {project}/{deployment}=FOLDER"
                raise Misconfigured(f"the model {digest} of {project}/{deployment} is not in the data folder; {advice}")
            log.info("deployment_ready", project=project, deployment=deployment, task=made.task, model=digest)


def health(store: Store, telemetry: Telemetry) -> list[Route]:
    """The paths that tell how the server is."""

    async def livez(_: Request) -> Response:
        return PlainTextResponse("ok\n")

    async def readyz(_: Request) -> Response:
        try:
            if store.failure is not None:
                await store.check()
        except Unavailable as error:
            return PlainTextResponse(f"{error}\n", 503)
        return PlainTextResponse("ok\n")

    async def metrics(_: Request) -> Response:
        return Response(telemetry.page(), media_type=CONTENT_TYPE_LATEST)

    return [Route("/livez", livez), Route("/readyz", readyz), Route("/metrics", metrics)]


@asynccontextmanager
async def _listening(options: ServeOptions, app: ASGIApp) -> AsyncIterator[str]:
    config = uvicorn.Config(
        app,
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        timeout_keep_alive=KEEP_ALIVE,
        timeout_graceful_shutdown=GRACE,
        ssl_certfile=options.tls_certificate,
        ssl_keyfile=options.tls_key,
    )
    try:
        config.load()
    except (OSError, ssl.SSLError) as error:
        files = f"{options.tls_certificate} and {options.tls_key}"
        raise Misconfigured(f"TLS certificate and key {files} cannot be used ({error})") from None
    listener = _bound(options.host, options.port)
    server = uvicorn.Server(config)
    server.lifespan = config.lifespan_class(config)
    await server.startup([listener])
    async with alongside(server.main_loop()):
        try:
            yield _url(options, listener)
        finally:
            await server.shutdown([listener])


def _bound(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=2048)
    except OSError as error:
        raise Misconfigured(f"cannot listen on {host} port {port} ({error.strerror}); choose another, or 0") from None


def _url(options: ServeOptions, listener: socket.socket) -> str:
    scheme = "https" if options.tls_certificate else "http"
    host = f"[{options.host}]" if ":" in options.host else options.host
    return f"{scheme}://{host}:{listener.getsockname()[1]}"
