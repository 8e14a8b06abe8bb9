"""Azure Content Understanding, analyzers with `contentCategories` (2025-11-01): classification as it is since then.

::

    PUT    /contentunderstanding/analyzers/{id}?allowReplace=       201 new, 200 replaced, 409 taken; Operation-Location
    GET    /contentunderstanding/analyzers/{id}/operations/{op}     how the making of it went
    GET    /contentunderstanding/analyzers/{id}                     GET /contentunderstanding/analyzers
    PATCH  /contentunderstanding/analyzers/{id}                     description and tags (merge-patch)
    DELETE /contentunderstanding/analyzers/{id}                     204
    POST   /contentunderstanding/analyzers/{id}:analyze             inputs as base64 or URL: 202, Operation-Location
    POST   /contentunderstanding/analyzers/{id}:analyzeBinary       the document itself: 202, Operation-Location
    POST   …:analyzeInline, :analyzeBinaryInline                    the same, answered at once (2026-06-01-preview)
    GET    /contentunderstanding/analyzerResults/{op}               DELETE forgets what came of it
    GET    /contentunderstanding/defaults                           PATCH, merge-patch

Also spoken as 2026-06-01-preview. Documents are classified as `content_understanding` says; see there for what is
compared, read and refused. `enableSegment` false is its `noSplit`, true its `auto`, and `segmentPerPage` its `perPage`.

Behaviour chosen where the service's is not documented:

* A document that is not split is one content with its category; one that is split is a content with `segments`, and a
  content more for each of them, at `input1/segment1` and so on. `omitContent` leaves the first out.
* Spans count in the `stringEncoding` asked for. `markdown` is the plain text of the pages.
* `range` is of pages, "1-3,5,9-", in an input or in the query of `:analyzeBinary`; a document that has none of them
  ends as one that cannot be read does. Inline, that is a 400 InvalidContent.
* Usage counts the pages of a PDF, and 3,000 UTF-16 code units of any other document as a page, as documented, all at
  the standard level.
* An analyzer without categories gives the text alone. `baseAnalyzerId` and `models` are kept and mean nothing here.

Rate, where such are kept: 3,000 operations a minute.

Not done: fields, tables, figures and their `files`; prebuilt analyzers, and those behind categories; usage but for the
number of pages.
"""

import asyncio
from collections.abc import Mapping
from functools import partial
from typing import Any

import orjson
from starlette.responses import Response
from starlette.routing import Route

from service.server import pages
from service.server.backend import Backend
from service.server.containers import BlobMissing
from service.server.content_understanding_analysis import Given, analyzed, in_json, pages_asked
from service.server.content_understanding_resources import NamedResources
from service.server.content_understanding_wire import (
    BASE,
    ENCODINGS,
    MOST_BODY,
    MOST_DESCRIPTION,
    RATE,
    accepted,
    categories,
    failed,
    found_job,
    invalid,
    json_body,
    moment,
    named,
    refusal,
    refused,
    shown_job,
    struck,
    tags,
    text,
)
from service.server.gateway import Call, Gateway, Operation, Resource, answer
from service.server.jobs import Done, Jobs
from service.server.pages import Unreadable
from service.server.store import Change, Job, State

KIND = "content_understanding/analysis"
VERSIONS = frozenset({"2025-11-01", "2026-06-01-preview"})
INLINE_VERSIONS = frozenset({"2026-06-01-preview"})
MOST_CATEGORIES = 200
RESOURCE = "understanding/analyzer"
DEFAULTS = "understanding/defaults"
_MOST_ENCODED = pages.MOST_BYTES * 4 // 3 + MOST_BODY  # a document as base64, and what is around it


class Analyzers:
    """The operations on analyzers, over the server's state and jobs."""

    def __init__(self, backend: Backend, jobs: Jobs) -> None:
        self._store = backend.store
        self._containers = backend.containers
        self._jobs = jobs
        self._kept = NamedResources(backend.store, jobs, RESOURCE, "analyzer", _shown)
        self._window = backend.window(*RATE)

    def routes(self, gateway: Gateway) -> list[Route]:
        """The paths of this API, behind a gateway."""
        operation = partial(Operation, window=self._window)
        one = {
            "PUT": operation("train", self.put),
            "GET": operation("manage", self._kept.get),
            "PATCH": operation("manage", self._kept.patch),
            "DELETE": operation("manage", self._kept.delete),
        }
        defaults = {"GET": operation("manage", self.defaults), "PATCH": operation("manage", self.patch_defaults)}
        results = {"GET": operation("poll", self.result), "DELETE": operation("cancel", self.forget)}
        analyze, binary = f"{BASE}/analyzers/{{name}}:analyze", f"{BASE}/analyzers/{{name}}:analyzeBinary"
        paths = {
            analyze: {"POST": operation("submit", self.analyze)},
            binary: {"POST": operation("submit", self.analyze_binary)},
            f"{BASE}/analyzers/{{name}}/operations/{{operation}}": {"GET": operation("poll", self._kept.operation)},
            f"{BASE}/analyzers/{{name}}": one,
            f"{BASE}/analyzers": {"GET": operation("manage", self._kept.list)},
            f"{BASE}/analyzerResults/{{job_id}}": results,
            f"{BASE}/defaults": defaults,
        }
        inline = {
            f"{analyze}Inline": {"POST": operation("classify", self.analyze_inline)},
            f"{binary}Inline": {"POST": operation("classify", self.analyze_binary_inline)},
        }
        resource = partial(Resource, gateway, "content_understanding", refused=refused)
        return [
            *(Route(path, resource(INLINE_VERSIONS, does)) for path, does in inline.items()),
            *(Route(path, resource(VERSIONS, does)) for path, does in paths.items()),
        ]

    async def put(self, call: Call) -> Response:
        """Make an analyzer; another in its place only where that is allowed."""
        name = named(call)
        body = json_body(await call.body(MOST_BODY))
        if self._kept.find(name) and call.query.get("allowReplace", "false").lower() != "true":
            raise refusal(
                409, "Conflict", f"There is an analyzer {name!r}; allowReplace=true puts another in its place."
            )
        made = {
            "description": text(body, "description", MOST_DESCRIPTION),
            "tags": tags(body),
            "baseAnalyzerId": text(body, "baseAnalyzerId", 64),
            "config": _config(body.get("config")),
            "models": _object(body, "models"),
        }
        return await self._kept.make(call, made)

    async def defaults(self, call: Call) -> Response:  # noqa: ARG002  nothing of the request matters
        """Show what analyzers without models of their own would use."""
        return answer(self._store.resource(DEFAULTS, "") or {"modelDeployments": {}})

    async def patch_defaults(self, call: Call) -> Response:
        """Change those."""
        changes = _object(json_body(await call.body(MOST_BODY)), "modelDeployments") or {}
        kept = self._store.resource(DEFAULTS, "") or {"modelDeployments": {}}
        merged = {**kept["modelDeployments"], **changes}
        changed = {"modelDeployments": {key: value for key, value in merged.items() if value is not None}}
        await self._store.change(Change(DEFAULTS, "", changed))
        return answer(changed)

    async def analyze(self, call: Call) -> Response:
        """Accept a document, in JSON or by URL."""
        name, kept = self._kept.asked(call)
        return await self._accept(call, name, kept, await self._in_json(call))

    async def analyze_binary(self, call: Call) -> Response:
        """Accept a document as it is."""
        name, kept = self._kept.asked(call)
        return await self._accept(call, name, kept, await self._as_it_is(call))

    async def analyze_inline(self, call: Call) -> Response:
        """Analyze a document, in JSON or by URL, while the client waits."""
        name, kept = self._kept.asked(call)
        return await self._answer(call, name, kept, await self._in_json(call))

    async def analyze_binary_inline(self, call: Call) -> Response:
        """Analyze a document as it is, while the client waits."""
        name, kept = self._kept.asked(call)
        return await self._answer(call, name, kept, await self._as_it_is(call))

    async def result(self, call: Call) -> Response:
        """Say how far an analysis is, and what came of it."""
        job = await found_job(self._jobs, KIND, call.parameter("job_id"))
        shown = shown_job(job, self._jobs.clock(), _result)
        if "result" in shown:
            shown["usage"] = {"documentPagesStandard": shown["result"].pop("pages")}
        return answer(shown)

    async def forget(self, call: Call) -> Response:
        """Delete what came of an analysis."""
        await self._jobs.forget(await found_job(self._jobs, KIND, call.parameter("job_id")))
        return Response(status_code=204)

    async def _in_json(self, call: Call) -> Given:
        return await asyncio.to_thread(in_json, await call.body(_MOST_ENCODED), self._containers.has_url)

    async def _as_it_is(self, call: Call) -> Given:
        content = await call.body(pages.MOST_BYTES)
        if not content:
            raise invalid("The request has no document.")
        return Given(content, None, pages_asked(call.query.get("range")))

    async def _accept(self, call: Call, name: str, kept: Mapping[str, Any], given: Given) -> Response:
        about = _about(call, name, kept, given)
        job = await self._jobs.submit(KIND, orjson.dumps(about), given.content, call.fault)
        where = call.url(f"{BASE}/analyzerResults/{job.id}", f"api-version={call.version}")
        shown = {"id": job.id, "status": "NotStarted", "result": {"contents": []}}
        return answer(shown, 202, accepted(call, where))

    async def _answer(self, call: Call, name: str, kept: Mapping[str, Any], given: Given) -> Response:
        about, now = _about(call, name, kept, given), self._jobs.clock()
        try:
            found = await asyncio.to_thread(analyzed, about, given.content, self._containers)
        except (Unreadable, BlobMissing) as error:
            raise refusal(400, "InvalidContent", str(error)) from None
        usage = {"documentPagesStandardInline": found.pop("pages")}
        return answer({"status": "Succeeded", "result": {**_head(about, now), **found}, "usage": usage})


def _about(call: Call, name: str, kept: Mapping[str, Any], given: Given) -> dict[str, Any]:
    """What an analysis is to know besides the document; raises `Refusal`."""
    encoding = call.query.get("stringEncoding", ENCODINGS[0])
    if encoding not in ENCODINGS:
        raise invalid(f"stringEncoding is to be one of {', '.join(ENCODINGS)}.")
    asked = {"encoding": encoding, "config": kept["config"], "url": given.url, "range": given.range}
    return {"name": name, "version": call.version, **asked}


def analyze(job: Job, backend: Backend) -> Done:
    """Classify the document of a job."""
    about = orjson.loads(job.about)
    if (ended := struck(job)) is not None:
        return ended
    try:
        kept = analyzed(about, job.request or b"", backend.containers)
    except (Unreadable, BlobMissing) as error:
        return failed(str(error))
    return Done(State.SUCCEEDED, orjson.dumps(kept), {about["name"]: 1})


def _config(value: object) -> dict[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise invalid("config is to be an object.")
    for key in ("enableSegment", "segmentPerPage", "omitContent", "returnDetails"):
        if value.get(key) is not None and not isinstance(value[key], bool):
            raise invalid(f"config.{key} is to be true or false.")
    if value.get("contentCategories") is not None:
        categories(value["contentCategories"], "config.contentCategories", MOST_CATEGORIES)
    return value


def _object(body: Mapping[str, Any], key: str) -> dict[str, Any] | None:
    value = body.get(key)
    if value is not None and not isinstance(value, dict):
        raise invalid(f"{key} is to be an object.")
    return value


def _shown(name: str, kept: Mapping[str, Any], status: str = "ready") -> dict[str, Any]:
    keys = ("description", "tags", "baseAnalyzerId", "config", "models")
    return {
        "analyzerId": name,
        "status": status,
        "createdAt": moment(kept["created"]),
        "lastModifiedAt": moment(kept["modified"]),
        **{key: kept[key] for key in keys if kept[key]},
    }


def _result(about: Mapping[str, Any], job: Job) -> dict[str, Any]:
    return {**_head(about, job.created), **orjson.loads(job.result or b"{}")}


def _head(about: Mapping[str, Any], created: float) -> dict[str, Any]:
    return {
        "analyzerId": about["name"],
        "apiVersion": about["version"],
        "createdAt": moment(created),
        "warnings": [],
        "stringEncoding": about["encoding"],
    }
