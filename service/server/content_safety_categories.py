"""Custom categories of Content Safety: versions that clients make, learnt from samples in a container.

A version is a resource of its own, so that what comes of its build replaces nothing else. What is under way is a job
(a build, a deletion) and told from there; what has come of a build is kept in the version.
"""

import asyncio
import re
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import orjson
import structlog
from starlette.responses import Response
from starlette.routing import Route

from service.model.examples import ExamplesError
from service.server import content_safety_samples
from service.server.backend import Backend
from service.server.containers import BlobMissing
from service.server.content_safety_requests import (
    BASE,
    body,
    invalid,
    not_found,
    number,
    page,
    refused,
    resource_name,
    same_name,
    text,
    time_of,
    too_many,
)
from service.server.content_safety_samples import SamplesError
from service.server.gateway import Call, Gateway, Operation, Resource, answer
from service.server.jobs import Done, Jobs
from service.server.store import PENDING, Change, Job, State
from service.server.training import TrainingFailed, learn_category

PATH = f"{BASE}/text/categories"
BUILD, DELETION = "content_safety_build", "content_safety_deletion"
CATEGORY, VERSION = "content_safety_category", "content_safety_category_version"
FIRST = "2024-05-15-preview"
SECOND = frozenset({"2024-02-15-preview", "2024-09-15-preview"})
LONGEST_NAME = 128
LONGEST_DEFINITION = 1_000
LONGEST_URL = 500
LONGEST_TEXT = 1_000  # to be classified
MOST_CATEGORIES = 3
MOST_VERSIONS = 3  # of a category
LIFETIME = 7 * 24 * 3600.0  # seconds for which a build's or a deletion's operation is told of
RATE = (5, 1.0)  # texts to be classified, in so many seconds
RETRY_AFTER = 5  # seconds until another build is worth asking for

_OPERATION = {
    State.WAITING: "NotStarted",
    State.RUNNING: "Running",
    State.SUCCEEDED: "Succeeded",
    State.FAILED: "Failed",
    State.CANCELLED: "Canceled",
}
_FIRST_WORDS = {"NotStarted": "BuildNotStarted", "Running": "Building", "Succeeded": "BuildSucceeded"}
_JOB_ID = re.compile(r"[0-9a-f-]{36}")

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Detector:
    """A category's model that a text is to be put to."""

    category: str
    model: str


class Categories:
    """The categories and their versions; changes come one after another."""

    def __init__(self, backend: Backend, jobs: Jobs) -> None:
        self._store = backend.store
        self._jobs = jobs
        self._changing = asyncio.Lock()
        self._window = backend.window(*RATE)

    def routes(self, gateway: Gateway) -> list[Route]:
        """The paths of categories, behind a gateway."""

        def route(path: str, **methods: Operation) -> Route:
            return Route(f"{PATH}{path}", Resource(gateway, "content_safety", {FIRST, *SECOND}, methods, refused))

        return [
            route("", GET=Operation("manage", self.list_all)),
            route("/operations/{id}", GET=Operation("poll", self.operation)),
            route("/{name}:build", POST=Operation("train", self.build)),
            route(
                "/{name}",
                PUT=Operation("manage", self.put),
                GET=Operation("poll", self.get),
                DELETE=Operation("manage", self.delete),
            ),
        ]

    def admit(self) -> None:
        """Let a text through to the models of categories; refuses more than the documented rate, where it is kept."""
        if self._window and (wait := self._window.admit(time.monotonic())):
            raise too_many(f"More than {RATE[0]} texts a second are put to custom categories.", int(wait) + 1)

    def detector(self, name: object, version: object) -> Detector:
        """The model of a category's version, or of the newest that is built; refuses one that is not there."""
        if not isinstance(name, str) or not (versions := self._versions(name)):
            raise not_found("There is no such category.")
        if version is not None and (isinstance(version, bool) or not isinstance(version, int)):
            raise invalid("version is to be a whole number.")
        asked = [one for one in versions if version in {None, one["version"]}]
        if not asked:
            raise not_found(f"Category {name!r} has no version {version}.")
        now = self._jobs.clock()
        for one in reversed(asked):
            outcome = one["outcome"]
            if outcome and outcome["model"] and outcome["ready"] <= now:
                return Detector(name, outcome["model"])
        raise invalid(f"Category {name!r} has no version that is built." if version is None else "It is not built.")

    async def put(self, call: Call) -> Response:
        """Make a new version of a category, which need not be there yet."""
        name = resource_name(call, LONGEST_NAME)
        given = await body(call)
        text(given, "categoryName", LONGEST_NAME)
        same_name(given, "categoryName", name)
        definition = text(given, "definition", LONGEST_DEFINITION)
        sample = _blob_url(text(given, "sampleBlobUrl", LONGEST_URL))
        if not isinstance(given.get("blobDelimiter", "/"), str):
            raise invalid("blobDelimiter is to be a string.")
        async with self._changing:
            known = self._store.resource(CATEGORY, name)
            if known is None and len(self._store.resources(CATEGORY)) >= MOST_CATEGORIES:
                raise invalid(f"There are {MOST_CATEGORIES} categories, which is the most; delete one.")
            if len(self._versions(name)) >= MOST_VERSIONS:
                raise invalid(f"Category {name!r} has {MOST_VERSIONS} versions, which is the most; delete one.")
            last = known["last"] + 1 if known else 1
            version: dict[str, Any] = {
                "category": name,
                "version": last,
                "definition": definition,
                "sample": sample,
                "created": self._jobs.clock(),
                "models": [],
                "outcome": None,
            }
            await self._store.change(Change(CATEGORY, name, {"last": last}), Change(VERSION, f"{name}/{last}", version))
        return answer(describe(version, None, call.version), 200 if known else 201)

    async def build(self, call: Call) -> Response:
        """Begin to learn a version."""
        name = resource_name(call, LONGEST_NAME)
        asked = number(call, "version")
        if asked is None:
            raise invalid("version is missing: it says which version is to be built.")
        async with self._changing:
            self._find(name, asked)
            if await self._building(name):
                raise too_many(f"A version of category {name!r} is being built; one is at a time.", RETRY_AFTER)
            asked_for = orjson.dumps([name, asked])
            job = await self._jobs.submit(BUILD, asked_for, asked_for, lifetime=LIFETIME)
        if call.version == FIRST:
            return Response(status_code=202)
        return self._accepted(call, job)

    async def get(self, call: Call) -> Response:
        """One version, or the newest."""
        name = resource_name(call, LONGEST_NAME)
        asked = number(call, "version")
        if call.version == FIRST and (going := await self._going(name, asked)):
            return answer({"value": [going]})
        found = self._find(name, asked)[-1]
        building = await self._building(name)
        return answer({"value": [describe(found, building.get(found["version"]), call.version)]})

    async def list_all(self, call: Call) -> Response:
        """The newest version of each category."""
        newest = [self._versions(name)[-1] for name in self._store.resources(CATEGORY)]
        building = [(await self._building(one["category"])).get(one["version"]) for one in newest]
        described = [describe(one, job, call.version) for one, job in zip(newest, building, strict=True)]
        for one in described:
            if error := one.get("buildInfo", {}).get("buildError"):
                error["error"]["errorCode"] = error["error"]["code"]
        return page(call, PATH, described)

    async def delete(self, call: Call) -> Response:
        """Remove a version or a whole category; what is being built of it comes to nothing."""
        name = resource_name(call, LONGEST_NAME)
        asked = number(call, "version")
        async with self._changing:
            going = self._find(name, asked)
            building = await self._building(name)
            for job in (building[one["version"]] for one in going if one["version"] in building):
                await self._jobs.cancel(job)
            removals = [Change(VERSION, f"{name}/{one['version']}", None) for one in going]
            if len(going) == len(self._versions(name)):
                removals.append(Change(CATEGORY, name, None))
            await self._store.change(*removals)
            models = sorted({model for one in going for model in one["models"]})
            described = orjson.dumps([describe(one, None, FIRST) for one in going])
            job = await self._jobs.submit(DELETION, described, orjson.dumps(models), lifetime=LIFETIME)
        return self._accepted(call, job) if call.version == FIRST else Response(status_code=204)

    async def operation(self, call: Call) -> Response:
        """How far a build or a deletion is."""
        job_id = call.parameter("id")
        if _JOB_ID.fullmatch(job_id):
            for kind in (BUILD, DELETION):
                if job := await self._jobs.find(kind, job_id):
                    return answer(self._told(job))
        raise not_found("There is no such operation, or it is too long ago.")

    def _accepted(self, call: Call, job: Job) -> Response:
        location = call.url(f"{PATH}/operations/{job.id}", f"api-version={call.version}")
        return answer(self._told(job), 202, {"Operation-Location": location})

    def _told(self, job: Job) -> dict[str, Any]:
        state = job.state_at(self._jobs.clock())
        told: dict[str, Any] = {"id": job.id, "status": _OPERATION[state]}
        if state is State.FAILED:
            told["error"] = {**orjson.loads(job.result or _FAILED), "details": []}
        return told

    def _versions(self, name: str) -> Sequence[Mapping[str, Any]]:
        """A category's versions, the newest last."""
        known = self._store.resource(CATEGORY, name)
        numbers = range(1, known["last"] + 1) if known else ()
        versions = (self._store.resource(VERSION, f"{name}/{each}") for each in numbers)
        return [version for version in versions if version is not None]

    def _find(self, name: str, asked: int | None) -> Sequence[Mapping[str, Any]]:
        """The version asked for, or all; refuses one that is not there."""
        versions = self._versions(name)
        if not versions:
            raise not_found(f"There is no category {name!r}.")
        found = [one for one in versions if asked in {None, one["version"]}]
        if not found:
            raise not_found(f"Category {name!r} has no version {asked}.")
        return found

    async def _building(self, name: str) -> Mapping[int, Job]:
        """The builds of a category that have not ended, by version."""
        now = self._jobs.clock()
        under_way = [job for job in await self._jobs.of_kind(BUILD) if job.state_at(now) in PENDING]
        versions = [(*orjson.loads(job.about), job) for job in under_way]
        return {version: job for category, version, job in versions if category == name}

    async def _going(self, name: str, asked: int | None) -> dict[str, Any] | None:
        """The version asked for, or the newest, where it is gone and its models are being removed."""
        here = {one["version"] for one in self._versions(name)}
        if asked in here or (asked is None and here):
            return None
        now = self._jobs.clock()
        under_way = [job for job in await self._jobs.of_kind(DELETION) if job.state_at(now) in PENDING]
        for job in reversed(under_way):
            for one in reversed(orjson.loads(job.about or b"[]")):
                if one["categoryName"] == name and asked in {None, one["version"]}:
                    triggered = {"deleteTriggeredTime": time_of(job.created)}
                    return {**one, "status": "Deleting", "deleteInfo": triggered}
        return None


def describe(version: Mapping[str, Any], build: Job | None, api_version: str) -> dict[str, Any]:
    """A version as clients see it; `build` is what is under way of it."""
    outcome = version["outcome"]
    if build is not None:
        status = "Running"
    elif outcome is None:
        status = "NotStarted"
    else:
        status = "Succeeded" if outcome["model"] else "Failed"
    error = outcome["error"] if status == "Failed" else None
    first = api_version == FIRST
    described: dict[str, Any] = {
        "categoryName": version["category"],
        "definition": version["definition"],
        "sampleBlobUrl": version["sample"],
        "sampleBlobCopyUrl" if first else "sampleBlobSnapshotUrl": version["sample"],
        "version": version["version"],
        "createdTime": time_of(version["created"]),
        "status": _FIRST_WORDS.get(status, "BuildFailed") if first else status,
    }
    if first and status != "NotStarted":
        triggered = build.created if build else outcome["triggered"]
        described["buildInfo"] = {"lastBuildTriggeredTime": time_of(triggered)}
        if error:
            described["buildInfo"]["buildError"] = {"error": {**error, "details": []}}
    elif error:
        described["errorMessage"] = error["message"]
    return described


def _blob_url(url: str) -> str:
    """Where samples are, without what signs it: the operator's containers need none."""
    try:
        parts = urlsplit(url)
    except ValueError:
        raise invalid("sampleBlobUrl is no URL.") from None
    container, _, blob = parts.path.lstrip("/").partition("/")
    if parts.scheme not in {"https", "http"} or not (container and blob.endswith(".jsonl")):
        raise invalid("sampleBlobUrl is to be https://ACCOUNT.blob.core.windows.net/CONTAINER/NAME.jsonl.")
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


# The work, done in threads ------------------------------------------------------------------------

_FAILED = b'{"code":"InternalError","message":"It came to nothing."}'


def build(job: Job, backend: Backend) -> Done:
    """Learn a version from its samples; what comes of it is kept in the version."""
    name, asked = orjson.loads(job.request or b"")
    key = f"{name}/{asked}"
    version = backend.store.resource(VERSION, key)
    if version is None:
        return Done(State.CANCELLED, None, {})
    model, error = None, None
    try:
        samples = content_safety_samples.parse(
            backend.containers.read_url(version["sample"]), backend.largest_sample_file
        )
        learnt = backend.trainer.run(learn_category, backend.models.folder, name, *samples, backend.by_meaning)
        model = learnt.digest
        told = {"model": model, "ranking": round(learnt.ranking, 3), "warnings": learnt.warnings}
        log.info("category_built", category=name, version=asked, **told)
    except BlobMissing as missing:
        error = {"code": "ResourceNotFound", "message": f"The samples cannot be read: {missing}."}
    except (SamplesError, ExamplesError) as unusable:
        error = {"code": "InvalidRequestBody", "message": str(unusable)}
    except TrainingFailed as failed:
        error = {"code": "InternalError", "message": str(failed)}
    if error:
        log.warning("category_not_built", category=name, version=asked, reason=error["message"])
    if backend.store.resource(VERSION, key) is not version:  # deleted meanwhile
        _remove_unused(backend, [model] if model else [])
        return Done(State.CANCELLED, None, {})
    outcome = {"model": model, "error": error, "triggered": job.created, "ready": job.ready}
    models = sorted({*version["models"], *([model] if model else [])})
    state = State.SUCCEEDED if model else State.FAILED
    result = orjson.dumps(error) if error else None
    return Done(state, result, {}, [Change(VERSION, key, {**version, "models": models, "outcome": outcome})])


def delete(job: Job, backend: Backend) -> Done:
    """Remove the models of versions that are gone: they hold words of the samples."""
    _remove_unused(backend, orjson.loads(job.request or b""))
    return Done(State.SUCCEEDED, None, {})


def _remove_unused(backend: Backend, models: Iterable[str]) -> None:
    used = {model for version in [*backend.store.resources(VERSION).values()] for model in version["models"]}
    for model in set(models) - used:
        backend.models.remove(model)


def detected(detector: Detector, content: str, backend: Backend) -> bool:
    """Whether a text is of the category; not for the event loop. Raises `ModelError`."""
    (classes,) = backend.models.get(detector.model).classify([content])
    return bool(classes)
