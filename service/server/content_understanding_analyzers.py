"""Azure Content Understanding, analyzers with `contentCategories` (2025-11-01): classification as it is since then.

::

    PUT    /contentunderstanding/analyzers/{id}?allowReplace=       201 new, 200 replaced, 409 taken; Operation-Location
    GET    /contentunderstanding/analyzers/{id}/operations/{op}     how the making of it went
    GET    /contentunderstanding/analyzers/{id}                     GET /contentunderstanding/analyzers
    PATCH  /contentunderstanding/analyzers/{id}                     description and tags (merge-patch)
    DELETE /contentunderstanding/analyzers/{id}                     204
    POST   /contentunderstanding/analyzers/{id}:analyze             inputs as base64 or URL: 202, Operation-Location
    POST   /contentunderstanding/analyzers/{id}:analyzeBinary       the document itself: 202, Operation-Location
    GET    /contentunderstanding/analyzerResults/{op}               DELETE forgets what came of it
    GET    /contentunderstanding/defaults                           PATCH, merge-patch

Also spoken as 2026-06-01-preview. Documents are classified as `content_understanding` says; see there for what is
compared, read and refused. `enableSegment` false is its `noSplit`, true its `auto`, and `segmentPerPage` its `perPage`.

Behaviour chosen where the service's is not documented:

* A document that is not split is one content with its category; one that is split is a content with `segments`, and a
  content more for each of them, at `input1/segment1` and so on. `omitContent` leaves the first out.
* Spans count in the `stringEncoding` asked for. `markdown` is the plain text of the pages.
* An analyzer without categories gives the text alone. `baseAnalyzerId` and `models` are kept and mean nothing here.

Not done: fields, tables, figures and their `files`; prebuilt analyzers; `range`; inline analysis; usage but for pages.
"""

import asyncio
import base64
import binascii
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import orjson
from starlette.responses import Response
from starlette.routing import Route

from service.server import pages
from service.server.backend import Backend
from service.server.containers import BlobMissing
from service.server.content_understanding_wire import (
    BASE,
    ENCODINGS,
    MOST_BODY,
    MOST_DESCRIPTION,
    Part,
    accepted,
    categories,
    failed,
    found_job,
    invalid,
    json_body,
    likeness,
    listed,
    moment,
    named,
    not_found,
    patched,
    refusal,
    shown_job,
    source_url,
    split,
    struck,
    tags,
    text,
)
from service.server.gateway import Call, Gateway, Operation, Resource, answer
from service.server.jobs import Done, Jobs, new_id
from service.server.pages import Pages, Unreadable
from service.server.store import Change, Job, State

KIND = "content_understanding/analysis"
VERSIONS = frozenset({"2025-11-01", "2026-06-01-preview"})
MOST_CATEGORIES = 200
RESOURCE = "understanding/analyzer"
DEFAULTS = "understanding/defaults"
_MOST_ENCODED = pages.MOST_BYTES * 4 // 3 + MOST_BODY  # a document as base64, and what is around it
_WIDTHS = {"utf16": "utf-16-le", "utf8": "utf-8"}


class Analyzers:
    """The operations on analyzers, over the server's state and jobs."""

    def __init__(self, backend: Backend, jobs: Jobs) -> None:
        self._store = backend.store
        self._containers = backend.containers
        self._jobs = jobs

    def routes(self, gateway: Gateway) -> list[Route]:
        """The paths of this API, behind a gateway."""
        one = {
            "PUT": Operation("train", self.put),
            "GET": Operation("manage", self.get),
            "PATCH": Operation("manage", self.patch),
            "DELETE": Operation("manage", self.delete),
        }
        defaults = {"GET": Operation("manage", self.defaults), "PATCH": Operation("manage", self.patch_defaults)}
        results = {"GET": Operation("poll", self.result), "DELETE": Operation("cancel", self.forget)}
        paths = {
            f"{BASE}/analyzers/{{name}}:analyze": {"POST": Operation("submit", self.analyze)},
            f"{BASE}/analyzers/{{name}}:analyzeBinary": {"POST": Operation("submit", self.analyze_binary)},
            f"{BASE}/analyzers/{{name}}/operations/{{operation}}": {"GET": Operation("poll", self.operation)},
            f"{BASE}/analyzers/{{name}}": one,
            f"{BASE}/analyzers": {"GET": Operation("manage", self.list)},
            f"{BASE}/analyzerResults/{{job_id}}": results,
            f"{BASE}/defaults": defaults,
        }
        return [Route(path, Resource(gateway, "content_understanding", VERSIONS, does)) for path, does in paths.items()]

    async def put(self, call: Call) -> Response:
        """Make an analyzer; another in its place only where that is allowed."""
        name = named(call)
        body = json_body(await call.body(MOST_BODY))
        before, now = self._store.resource(RESOURCE, name), self._jobs.clock()
        if before and call.query.get("allowReplace", "false").lower() != "true":
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
        operation = new_id()
        kept = {**made, "created": before["created"] if before else now, "modified": now, "operation": operation}
        await self._store.change(Change(RESOURCE, name, kept))
        where = call.url(f"{BASE}/analyzers/{name}/operations/{operation}", f"api-version={call.version}")
        return answer(_shown(name, kept, "creating"), 200 if before else 201, accepted(call, where))

    async def operation(self, call: Call) -> Response:
        """How the making of an analyzer went."""
        name, kept = self._known(call)
        if call.parameter("operation") != kept["operation"]:
            raise not_found("There is no such operation.")
        return answer({"id": kept["operation"], "status": "Succeeded", "result": _shown(name, kept)})

    async def get(self, call: Call) -> Response:
        """Show an analyzer."""
        return answer(_shown(*self._known(call)))

    async def list(self, call: Call) -> Response:
        """Show the analyzers, page by page."""
        return answer(listed(call, self._store.resources(RESOURCE), _shown))

    async def patch(self, call: Call) -> Response:
        """Change description and tags."""
        name, kept = self._known(call)
        changed = patched(kept, json_body(await call.body(MOST_BODY)), self._jobs.clock())
        await self._store.change(Change(RESOURCE, name, changed))
        return answer(_shown(name, changed))

    async def delete(self, call: Call) -> Response:
        """Forget an analyzer."""
        name, _ = self._known(call)
        await self._store.change(Change(RESOURCE, name, None))
        return Response(status_code=204)

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
        """Accept documents, in JSON or by URL."""
        name, kept = self._known(call)
        body = await call.body(_MOST_ENCODED)
        content, url = await asyncio.to_thread(_document, body, self._containers.has_url)
        return await self._accept(call, name, kept, content, url)

    async def analyze_binary(self, call: Call) -> Response:
        """Accept a document as it is."""
        name, kept = self._known(call)
        content = await call.body(pages.MOST_BYTES)
        if not content:
            raise invalid("The request has no document.")
        return await self._accept(call, name, kept, content, None)

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

    async def _accept(
        self, call: Call, name: str, kept: Mapping[str, Any], content: bytes, url: str | None
    ) -> Response:
        encoding = call.query.get("stringEncoding", ENCODINGS[0])
        if encoding not in ENCODINGS:
            raise invalid(f"stringEncoding is to be one of {', '.join(ENCODINGS)}.")
        about = {"name": name, "version": call.version, "encoding": encoding, "config": kept["config"], "url": url}
        job = await self._jobs.submit(KIND, orjson.dumps(about), content, call.fault)
        where = call.url(f"{BASE}/analyzerResults/{job.id}", f"api-version={call.version}")
        shown = {"id": job.id, "status": "NotStarted", "result": {"contents": []}}
        return answer(shown, 202, accepted(call, where))

    def _known(self, call: Call) -> tuple[str, Mapping[str, Any]]:
        name = named(call)
        kept = self._store.resource(RESOURCE, name)
        if kept is None:
            raise not_found(f"There is no analyzer {name!r}.")
        return name, kept


def analyze(job: Job, backend: Backend) -> Done:
    """Classify the document of a job."""
    about = orjson.loads(job.about)
    if (ended := struck(job)) is not None:
        return ended
    try:
        content = backend.containers.read_url(about["url"]) if about["url"] else job.request or b""
        document = pages.read(content)
    except (Unreadable, BlobMissing) as error:
        return failed(str(error))
    contents = _contents(document, about["config"], about["encoding"])
    kept = {"contents": contents, "pages": len(document.texts)}
    return Done(State.SUCCEEDED, orjson.dumps(kept), {about["name"]: 1})


def _contents(document: Pages, config: Mapping[str, Any], encoding: str) -> list[dict[str, Any]]:
    described = config.get("contentCategories")
    whole = Part(1, len(document.texts), "", "\n".join(document.texts))
    if not described:
        return [_content("input1", document, whole)]
    mode = "perPage" if config.get("segmentPerPage") else "auto" if config.get("enableSegment") else "noSplit"
    parts = split(document, likeness(described), mode)
    if mode == "noSplit":
        return [_content("input1", document, parts[0])]
    segments = [
        {
            "segmentId": f"segment{number}",
            "category": part.category,
            "span": {"offset": offset, "length": _length(part.text, encoding)},
            "startPageNumber": part.first,
            "endPageNumber": part.last,
        }
        for number, (part, offset) in enumerate(zip(parts, _offsets(parts, encoding), strict=True), start=1)
    ]
    own = [_content(f"input1/segment{number}", document, part) for number, part in enumerate(parts, start=1)]
    if config.get("omitContent"):
        return own
    return [{**_content("input1", document, whole), "segments": segments}, *own]


def _content(path: str, document: Pages, part: Part) -> dict[str, Any]:
    shown = {
        "path": path,
        "kind": "document",
        "mimeType": document.kind,
        "startPageNumber": part.first,
        "endPageNumber": part.last,
        "markdown": part.text,
    }
    return shown | ({"category": part.category} if part.category else {})


def _offsets(parts: Sequence[Part], encoding: str) -> list[int]:
    """Where parts begin in the text of the whole, in which a line break stands between any two."""
    offsets, at = [], 0
    for part in parts:
        offsets.append(at)
        at += _length(part.text, encoding) + 1
    return offsets


def _length(of: str, encoding: str) -> int:
    if encoding not in _WIDTHS:
        return len(of)
    return len(of.encode(_WIDTHS[encoding], "surrogatepass")) // (2 if encoding == "utf16" else 1)


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


def _document(body: bytes, is_known: Callable[[str], bool]) -> tuple[bytes, str | None]:
    """The document of a body, or the URL where it is; not for the event loop. Raises `Refusal`."""
    inputs = json_body(body).get("inputs")
    if not isinstance(inputs, list) or len(inputs) != 1 or not isinstance(inputs[0], dict):
        raise invalid("inputs is to be a list of one document.")
    (given,) = inputs
    if (given.get("url") is None) == (given.get("data") is None):
        raise invalid("An input has either url or data.")
    if given.get("url") is not None:
        return b"\0", source_url(given, is_known)
    return _decoded(given), None


def _decoded(given: Mapping[str, Any]) -> bytes:
    try:
        content = base64.b64decode(given["data"], validate=True)
    except (binascii.Error, ValueError, TypeError):
        raise invalid("data is to be base64.") from None
    if not content:
        raise invalid("data is empty.")
    return content


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
    return {
        "analyzerId": about["name"],
        "apiVersion": about["version"],
        "createdAt": moment(job.created),
        "warnings": [],
        "stringEncoding": about["encoding"],
        **orjson.loads(job.result or b"{}"),
    }
