"""Azure Content Understanding, classifiers (2025-05-01-preview), answered by likeness to what the categories say.

::

    PUT    /contentunderstanding/classifiers/{id}                    201 new, 200 replaced; Operation-Location
    GET    /contentunderstanding/classifiers/{id}/operations/{op}    how the making of it went
    GET    /contentunderstanding/classifiers/{id}                    GET /contentunderstanding/classifiers
    PATCH  /contentunderstanding/classifiers/{id}                    description and tags (merge-patch)
    DELETE /contentunderstanding/classifiers/{id}                    204
    POST   /contentunderstanding/classifiers/{id}:classify           202, Operation-Location; `:analyze` is the same
    GET    /contentunderstanding/classifierResults/{op}              how far it is, and what came of it

A category has a name and a description and nothing to learn from, so a document is compared with those, word by word
(`service.model.similarity`), and is `$OTHER` where it is like none of them. A category may also have `examples`, texts
in a list; the service does not know that key.

Behaviour chosen where the service's is not documented:

* A PUT answers with the status `creating`, as documented; it is ready when the answer has gone out. Operations are
  those of the last PUT; PATCH changes description and tags alone, and null removes them.
* Input is the request's bytes, of whatever content type: plain text, PDF or Word (`pages`); or JSON with a `url`, which
  is read only if its container is one that the operator named.
* `noSplit` gives one content; `perPage` one a page; `auto` one for each run of pages of one category. Plain text
  (inferred) and Word are one page, so they are never split. A content has `markdown` and `pages` where its category
  names an analyzer, as documented; `fields` are empty, and pages are told by their numbers, without their sizes.
* A file that cannot be read ends as Failed with InvalidContent. An id that is taken is replaced, never a 409.

Lists come in pages of a hundred, in the order of ids, with a `nextLink`.

Rate, where such are kept: 3,000 operations a minute.

Not done: analyzers behind categories, tags as filters, usage.
"""

from collections.abc import Mapping
from functools import partial
from typing import Any

import orjson
from starlette.responses import Response
from starlette.routing import Route

from service.server import pages
from service.server.backend import Backend
from service.server.containers import BlobMissing
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
    likeness,
    moment,
    numbered,
    one_of,
    page_numbers,
    refused,
    shown_job,
    source_url,
    split,
    struck,
    tags,
    text,
)
from service.server.gateway import Call, Gateway, Operation, Resource, answer
from service.server.jobs import Done, Jobs
from service.server.pages import Unreadable
from service.server.store import Job, State

KIND = "content_understanding"
VERSIONS = frozenset({"2025-05-01-preview"})
MOST_CATEGORIES = 50
RESOURCE = "understanding/classifier"
SPLITS = ("noSplit", "perPage", "auto")
_LOCATIONS = ("geography", "dataZone", "global")


class Classifiers:
    """The operations on classifiers, over the server's state and jobs."""

    def __init__(self, backend: Backend, jobs: Jobs) -> None:
        self._containers = backend.containers
        self._jobs = jobs
        self._kept = NamedResources(backend.store, jobs, RESOURCE, "classifier", _shown)
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
        classify = {"POST": operation("submit", self.classify)}
        paths = {
            f"{BASE}/classifiers/{{name}}:classify": classify,
            f"{BASE}/classifiers/{{name}}:analyze": classify,
            f"{BASE}/classifiers/{{name}}/operations/{{operation}}": {"GET": operation("poll", self._kept.operation)},
            f"{BASE}/classifiers/{{name}}": one,
            f"{BASE}/classifiers": {"GET": operation("manage", self._kept.list)},
            f"{BASE}/classifierResults/{{job_id}}": {"GET": operation("poll", self.result)},
        }
        return [
            Route(path, Resource(gateway, "content_understanding", VERSIONS, does, refused))
            for path, does in paths.items()
        ]

    async def put(self, call: Call) -> Response:
        """Make a classifier, or another in its place."""
        body = json_body(await call.body(MOST_BODY))
        made = {
            "description": text(body, "description", MOST_DESCRIPTION),
            "tags": tags(body),
            "splitMode": one_of(body, "splitMode", SPLITS) or SPLITS[0],
            "processingLocation": one_of(body, "processingLocation", _LOCATIONS) or _LOCATIONS[0],
            "categories": categories(body.get("categories"), "categories", MOST_CATEGORIES),
        }
        return await self._kept.make(call, made)

    async def classify(self, call: Call) -> Response:
        """Accept a document."""
        name, kept = self._kept.asked(call)
        encoding = call.query.get("stringEncoding", ENCODINGS[0])
        if encoding not in ENCODINGS:
            raise invalid(f"stringEncoding is to be one of {', '.join(ENCODINGS)}.")
        is_json = call.headers.get(b"content-type", b"").partition(b";")[0].strip().lower() == b"application/json"
        content = await call.body(MOST_BODY if is_json else pages.MOST_BYTES)
        url = None
        if is_json:
            url, content = source_url(json_body(content), self._containers.has_url), b""
        elif not content:
            raise invalid("The request has no document.")
        about = {"name": name, "version": call.version, "encoding": encoding, "classifier": dict(kept), "url": url}
        job = await self._jobs.submit(KIND, orjson.dumps(about), content or b"\0", call.fault)
        where = call.url(f"{BASE}/classifierResults/{job.id}", f"api-version={call.version}")
        return answer({"id": job.id, "status": "NotStarted"}, 202, accepted(call, where))

    async def result(self, call: Call) -> Response:
        """Say how far a classification is, and what came of it."""
        job = await found_job(self._jobs, KIND, call.parameter("job_id"))
        return answer(shown_job(job, self._jobs.clock(), _result))


def classify(job: Job, backend: Backend) -> Done:
    """Classify the document of a job."""
    about = orjson.loads(job.about)
    classifier = about["classifier"]
    ended = struck(job)
    if ended is not None:
        return ended
    try:
        content = backend.containers.read_url(about["url"]) if about["url"] else job.request or b""
        document = pages.read(content)
    except (Unreadable, BlobMissing) as error:
        return failed(str(error))
    parts = split(numbered(document), likeness(classifier["categories"]), classifier["splitMode"])
    routed = {name for name, one in classifier["categories"].items() if one.get("analyzerId")}
    contents = [
        {"kind": "document", "startPageNumber": part.first, "endPageNumber": part.last, "category": part.category}
        | ({"markdown": part.text, "pages": page_numbers(part), "fields": {}} if part.category in routed else {})
        for part in parts
    ]
    return Done(State.SUCCEEDED, orjson.dumps(contents), {about["name"]: 1})


def _shown(name: str, kept: Mapping[str, Any], status: str = "ready") -> dict[str, Any]:
    return {
        "classifierId": name,
        **{key: kept[key] for key in ("description", "tags") if kept[key] is not None},
        "status": status,
        "createdAt": moment(kept["created"]),
        "lastModifiedAt": moment(kept["modified"]),
        "splitMode": kept["splitMode"],
        "processingLocation": kept["processingLocation"],
        "categories": kept["categories"],
    }


def _result(about: Mapping[str, Any], job: Job) -> dict[str, Any]:
    return {
        "classifierId": about["name"],
        "apiVersion": about["version"],
        "createdAt": moment(job.created),
        "warnings": [],
        "stringEncoding": about["encoding"],
        "contents": orjson.loads(job.result or b"[]"),
    }
