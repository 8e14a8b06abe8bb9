"""Azure Language, custom text classification: the runtime API, answered by models trained here.

::

    POST /language/analyze-text/jobs              a job of tasks over documents: 202, operation-location
    GET  /language/analyze-text/jobs/{id}         how far it is, and a page of its results: ?showStats=&top=&skip=
    POST /language/analyze-text/jobs/{id}:cancel  202, operation-location

Versions, in which these two kinds of task are alike: 2022-05-01, 2023-04-01, 2025-11-01, and the previews among
`VERSIONS`. Kinds: CustomSingleLabelClassification (one class a document) and CustomMultiLabelClassification (those
that apply, if any). Parameters are read in both spellings, `projectName` and `project-name`. Scores are the model's,
not rounded.

Behaviour chosen where the service's is not documented:

* An api-version that is missing or unknown is a 400, also when polling.
* What is missing or of the wrong type is InvalidRequestBodyFormat, what has the right type and a wrong value
  InvalidParameterValue; a document without an id is InvalidDocument, one without text InvalidDocumentBatch. A body of
  nothing is EmptyRequest. Characters are Unicode code points; 1 MB is 1,048,576 bytes.
* At most 25 tasks a job, none of which may be of another kind.
* An unknown project is 404 ProjectNotFound, an unknown deployment 404 NotFound. A task of the other kind than the
  project's is InvalidParameterValue.
* A text of spaces, or a language outside the documented list, fails that document and not the job; regional variants
  of a listed language pass. The models do without the language.
* A job can be done at the first poll. Until it is done its tasks count as in progress and there are no items.
* A page is `top` documents of each task, 20 unless asked, after `skip`, in the order of the request; failed documents
  have their place in it. Statistics are always those of the whole task; a transaction is 1,000 characters begun.
* Cancelling takes effect at once, with no results kept; a job that has ended is a 400 InvalidRequest. Unknown jobs
  and those older than 24 hours are 404 NotFound.
* When more requests wait than the server wants to hold, it answers 503 with Retry-After. Where documented rates are
  kept, it is today's: 1,000 requests a minute, of all three operations together.

Not done: the synchronous `:analyze-text`, other kinds of task, warnings; `stringIndexType` has no effect
(nothing here has an offset), nor has `loggingOptOut` (nothing is logged, and text is deleted when its job ends).
"""

import re
from functools import partial

import orjson
from starlette.responses import Response
from starlette.routing import Route

from service.server.azure_language_records import PROJECT
from service.server.azure_language_requests import MOST_BYTES, Submission, check, parse
from service.server.azure_language_results import asked_page, describe
from service.server.backend import Backend
from service.server.gateway import Call, Gateway, Operation, Refusal, Resource, answer
from service.server.jobs import Jobs
from service.server.store import PENDING, Job

KIND = "azure_language"
PATH = "/language/analyze-text/jobs"
VERSIONS = frozenset(
    {
        "2022-05-01",
        "2022-05-15-preview",
        "2022-10-01-preview",
        "2023-04-01",
        "2023-04-15-preview",
        "2024-11-15-preview",
        "2025-05-15-preview",
        "2025-11-01",
        "2026-05-15-preview",
    }
)
_JOB_ID = re.compile(r"[0-9a-f-]{36}")


class Runtime:
    """The three operations, over the server's jobs and projects."""

    def __init__(self, backend: Backend, jobs: Jobs) -> None:
        self._store = backend.store
        self._jobs = jobs
        self._window = backend.window(1_000, 60.0)

    def routes(self, gateway: Gateway) -> list[Route]:
        """The paths of this API, behind a gateway."""
        submit = {"POST": Operation("submit", self.submit, self._window)}
        poll = {"GET": Operation("poll", self.poll, self._window)}
        cancel = {"POST": Operation("cancel", self.cancel, self._window)}
        return [
            Route(PATH, Resource(gateway, "azure_language", VERSIONS, submit)),
            Route(f"{PATH}/{{job_id}}:cancel", Resource(gateway, "azure_language", VERSIONS, cancel)),
            Route(f"{PATH}/{{job_id}}", Resource(gateway, "azure_language", VERSIONS, poll)),
        ]

    async def submit(self, call: Call) -> Response:
        """Accept a job."""
        body = await call.body(MOST_BYTES)
        submission = parse(body)
        check(submission.tasks, self._store.projects, self._store.resources(PROJECT))
        job = await self._jobs.submit(KIND, _about(submission), body, call.fault)
        return _accepted(call, job)

    async def poll(self, call: Call) -> Response:
        """Say how far a job is and show a page of what came of it."""
        page = asked_page(call.query)
        job = await self._find(call)
        return answer(describe(job, self._jobs.clock(), page, partial(_location, call, job)))

    async def cancel(self, call: Call) -> Response:
        """Cancel a job that has not ended."""
        job = await self._find(call)
        if job.state_at(self._jobs.clock()) not in PENDING:
            raise Refusal(
                400, {"code": "InvalidRequest", "message": f"Job {job.id} has ended and cannot be cancelled."}
            )
        await self._jobs.cancel(job)
        return _accepted(call, job)

    async def _find(self, call: Call) -> Job:
        job_id = call.parameter("job_id")
        job = await self._jobs.find(KIND, job_id) if _JOB_ID.fullmatch(job_id) else None
        if job is None:
            raise Refusal(404, {"code": "NotFound", "message": "There is no such job, or it has expired."})
        return job


def _accepted(call: Call, job: Job) -> Response:
    return Response(b"", 202, {"operation-location": _location(call, job)})


def _location(call: Call, job: Job, query: str = "") -> str:
    return call.url(f"{PATH}/{job.id}", f"api-version={call.version}{query}")


def _about(submission: Submission) -> bytes:
    """What of a submission is told for as long as there is the job."""
    return orjson.dumps([submission.display_name, [list(task) for task in submission.tasks]])
