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
* When more requests wait than the server wants to hold, it answers 503 with Retry-After.

Not done: the synchronous `:analyze-text`, other kinds of task, authoring, warnings; `stringIndexType` has no effect
(nothing here has an offset), nor has `loggingOptOut` (nothing is logged, and text is deleted when its job ends).
"""

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Any, NamedTuple

import orjson
import structlog
from starlette.datastructures import QueryParams
from starlette.responses import Response
from starlette.routing import Route

from service.documents import ClassScore
from service.model.classifier import Classifier, ModelError
from service.server.backend import Backend
from service.server.faults import DocumentError, Rule
from service.server.gateway import Call, Gateway, Operation, Refusal, Resource, answer
from service.server.jobs import Done, Jobs
from service.server.store import PENDING, Job, Project, State

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
TASKS = {"CustomSingleLabelClassification": "single_label", "CustomMultiLabelClassification": "multi_label"}
STATUSES = {
    State.WAITING: "notStarted",
    State.RUNNING: "running",
    State.SUCCEEDED: "succeeded",
    State.PARTIAL: "partiallyCompleted",
    State.FAILED: "failed",
    State.CANCELLED: "cancelled",
}
LANGUAGES = frozenset(
    [
        *("af", "am", "ar", "as", "az", "be", "bg", "bn", "br", "bs", "ca", "cs", "cy", "da", "de", "el", "en", "eo"),
        *("es", "et", "eu", "fa", "fi", "fr", "fy", "ga", "gd", "gl", "gu", "ha", "he", "hi", "hr", "hu", "hy", "id"),
        *("it", "ja", "jv", "ka", "kk", "km", "kn", "ko", "ku", "ky", "la", "lo", "lt", "lv", "mg", "mk", "ml", "mn"),
        *("mr", "ms", "my", "ne", "nl", "nb", "or", "pa", "pl", "ps", "pt", "ro", "ru", "sa", "sd", "si", "sk", "sl"),
        *("so", "sq", "sr", "su", "sv", "sw", "ta", "te", "th", "tl", "tr", "ug", "uk", "ur", "uz", "vi", "xh", "yi"),
        *("zh", "zu"),
    ]
)
MOST_DOCUMENTS = 25
MOST_CHARACTERS = 125_000
MOST_TASKS = 25
MOST_BYTES = 1_048_576
PAGE = 20
TRANSACTION = 1_000  # characters


NAME = re.compile(r"[A-Za-z0-9_.-]{1,50}")
TASK_FAILED = {"code": "InternalServerError", "message": "The task failed."}

_JOB_ID = re.compile(r"[0-9a-f-]{36}")
_NUMBER = re.compile(r"[0-9]{1,9}")
_BODY = "Invalid request."
_DOCUMENTS = "Invalid document in request."
_PARAMETER = "Invalid parameter in request."
_TASK = "Invalid task in request."

log = structlog.get_logger(__name__)


class Document(NamedTuple):
    """One document to classify."""

    id: str
    text: str
    language: str | None


class Task(NamedTuple):
    """What to do with every document."""

    kind: str
    name: str | None
    project: str
    deployment: str


@dataclass(frozen=True, slots=True)
class Submission:
    """A job as it was asked for."""

    display_name: str | None
    documents: Sequence[Document]
    tasks: Sequence[Task]


class Page(NamedTuple):
    """The part of the results that is asked for."""

    top: int
    skip: int
    statistics: bool


class Runtime:
    """The three operations, over the server's jobs and projects."""

    def __init__(self, backend: Backend, jobs: Jobs) -> None:
        self._store = backend.store
        self._jobs = jobs

    def routes(self, gateway: Gateway) -> list[Route]:
        """The paths of this API, behind a gateway."""
        submit = {"POST": Operation("submit", self.submit)}
        poll = {"GET": Operation("poll", self.poll)}
        cancel = {"POST": Operation("cancel", self.cancel)}
        return [
            Route(PATH, Resource(gateway, "azure_language", VERSIONS, submit)),
            Route(f"{PATH}/{{job_id}}:cancel", Resource(gateway, "azure_language", VERSIONS, cancel)),
            Route(f"{PATH}/{{job_id}}", Resource(gateway, "azure_language", VERSIONS, poll)),
        ]

    async def submit(self, call: Call) -> Response:
        """Accept a job."""
        body = await call.body(MOST_BYTES)
        submission = parse(body)
        check(submission.tasks, self._store.projects)
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


# A submission: what was asked for, and whether it can be done -------------------------------------


def parse(body: bytes) -> Submission:
    """What a request body asks for; raises `Refusal`."""
    if not body:
        raise _refused(_BODY, "EmptyRequest", "The request has no body.")
    try:
        request = _object(orjson.loads(body), "The body")
    except orjson.JSONDecodeError:
        raise _malformed("The body is not JSON.") from None
    given = documents(request)
    tasks = _list(request.get("tasks"), "tasks")
    if not 1 <= len(tasks) <= MOST_TASKS:
        raise _refused(_TASK, "InvalidParameterValue", f"tasks is to hold 1 to {MOST_TASKS} tasks.")
    return Submission(
        _text(request, "displayName", "The body"),
        given,
        [_task(one, f"tasks[{index}]") for index, one in enumerate(tasks)],
    )


def documents(request: dict[str, Any]) -> list[Document]:
    """The documents of a request; raises `Refusal`."""
    given = _list(_object(request.get("analysisInput"), "analysisInput").get("documents"), "analysisInput.documents")
    if not given:
        raise _refused(_BODY, "MissingInputDocuments", "analysisInput.documents is missing or empty.")
    if len(given) > MOST_DOCUMENTS:
        raise _refused(_DOCUMENTS, "InvalidDocumentBatch", f"Max {MOST_DOCUMENTS} records are permitted.")
    found = [_document(one, f"analysisInput.documents[{index}]") for index, one in enumerate(given)]
    if len({document.id for document in found}) < len(found):
        raise _refused(_DOCUMENTS, "InvalidDocument", "Two documents have the same id.")
    if sum(len(document.text) for document in found) > MOST_CHARACTERS:
        message = f"The documents hold more than {MOST_CHARACTERS:,} characters together."
        raise _refused(_DOCUMENTS, "InvalidDocumentBatch", message)
    return found


def check(tasks: Sequence[Task], projects: Mapping[str, Project]) -> None:
    """Refuse tasks that no deployment here can do; raises `Refusal`."""
    for task in tasks:
        project = projects.get(task.project)
        if project is None:
            raise Refusal(404, {"code": "ProjectNotFound", "message": f"There is no project {task.project!r}."})
        if task.deployment not in project.deployments:
            message = f"Project {task.project!r} has no deployment {task.deployment!r}."
            raise Refusal(404, {"code": "NotFound", "message": message})
        if TASKS[task.kind] != project.task:
            kind = next(kind for kind, does in TASKS.items() if does == project.task)
            raise _refused(_TASK, "InvalidParameterValue", f"Project {task.project!r} is for tasks of kind {kind}.")


def _document(given: object, where: str) -> Document:
    fields = _object(given, where)
    document = Document(
        _text(fields, "id", where) or "", _text(fields, "text", where) or "", _text(fields, "language", where) or None
    )
    if not document.id:
        raise _refused(_DOCUMENTS, "InvalidDocument", f"{where} has no id.")
    if not document.text:
        raise _refused(_DOCUMENTS, "InvalidDocumentBatch", f"{where} has no text.")
    return document


def _task(given: object, where: str) -> Task:
    fields = _object(given, where)
    kind = _text(fields, "kind", where)
    if kind is None or kind not in TASKS:
        raise _malformed(f"{where}.kind is not supported here; it can be {' or '.join(TASKS)}.", _TASK)
    parameters = _object(fields.get("parameters"), f"{where}.parameters")
    return Task(
        kind,
        _text(fields, "taskName", where),
        _name(parameters, "projectName", "project-name", where),
        _name(parameters, "deploymentName", "deployment-name", where),
    )


def _name(parameters: dict[str, Any], key: str, dashed: str, where: str) -> str:
    name = _text(parameters, key, f"{where}.parameters") or _text(parameters, dashed, f"{where}.parameters")
    if not name:
        raise _refused(_PARAMETER, "InvalidParameterValue", f"{where}.parameters.{key} is missing.")
    return name


def _object(value: object, what: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise _malformed(f"{what} is to be an object.")
    return value


def _list(value: object, what: str) -> list[Any]:
    if value is None:
        return []
    if not isinstance(value, list):
        raise _malformed(f"{what} is to be a list.")
    return value


def _text(fields: dict[str, Any], name: str, where: str) -> str | None:
    value = fields.get(name)
    if value is not None and not isinstance(value, str):
        raise _malformed(f"{where}.{name} is to be a string.")
    return value


def _malformed(detail: str, message: str = _BODY) -> Refusal:
    return _refused(message, "InvalidRequestBodyFormat", detail)


def _refused(message: str, inner: str, detail: str) -> Refusal:
    error = {"code": "InvalidRequest", "message": message, "innererror": {"code": inner, "message": detail}}
    return Refusal(400, error)


def _about(submission: Submission) -> bytes:
    """What of a submission is told for as long as there is the job."""
    return orjson.dumps([submission.display_name, [list(task) for task in submission.tasks]])


# The work, done in a thread -----------------------------------------------------------------------


def classify(job: Job, backend: Backend) -> Done:
    """Do every task of a job; of a task that failed the result is null."""
    submission = parse(job.request or b"")
    fate = struck(job, submission.documents, len(submission.tasks))
    if fate is None:
        return Done(State.CANCELLED, None, {})
    results = [
        None if index in fate.failing else _done(task, submission.documents, fate.errors, backend)
        for index, task in enumerate(submission.tasks)
    ]
    counted: Counter[str] = Counter()
    for task, result in zip(submission.tasks, results, strict=True):
        counted[task.project] += len(submission.documents) - len(fate.errors) if result else 0
    return Done(ending(results, fate), orjson.dumps(results), counted)


class Fate(NamedTuple):
    """What is to go wrong with a job: documents by their ids, tasks by their places; `partial` in any case."""

    errors: Mapping[str, object]
    failing: range
    partial: bool


def struck(job: Job, given: Sequence[Document], tasks: int) -> Fate | None:
    """What goes wrong with a job by its documents and by a fault rule; None where it is cancelled."""
    fault = Rule.model_validate_json(job.fault) if job.fault else None
    fate = fault.job if fault else None
    if fate == "cancelled":
        return None
    of_documents = fault.document_error if fault else None
    if fate == "partial" and tasks == 1:
        of_documents = DocumentError(every=2)
    return Fate(_document_errors(given, of_documents), _failing_tasks(tasks, fate), fate == "partial")


def _done(
    task: Task, given: Sequence[Document], errors: Mapping[str, object], backend: Backend
) -> dict[str, Any] | None:
    try:
        digest = backend.store.projects[task.project].deployments[task.deployment]
        return classified(backend.models.get(digest), given, errors)
    except (KeyError, ModelError) as error:
        log.warning("deployment_unusable", project=task.project, deployment=task.deployment, reason=str(error))
        return None


def classified(classifier: Classifier, given: Sequence[Document], errors: Mapping[str, object]) -> dict[str, Any]:
    """What is shown of each document, in their order, and how many characters each has."""
    good = [document for document in given if document.id not in errors]
    most = 1 if classifier.task == "single_label" else None
    classes = dict(zip([one.id for one in good], classifier.classify([one.text for one in good]), strict=True))
    return {
        "documents": [
            {"id": one.id, "error": errors[one.id]}
            if one.id in errors
            else {"id": one.id, "class": _categories(classes[one.id][:most]), "warnings": []}
            for one in given
        ],
        "characters": [len(one.text) for one in given],
    }


def _categories(classes: Sequence[ClassScore]) -> list[dict[str, Any]]:
    return [{"category": name, "confidenceScore": score} for name, score, _ in classes]


def _document_errors(documents: Sequence[Document], struck: DocumentError | None) -> dict[str, object]:
    """The documents that fail, by id, and of what."""
    errors: dict[str, object] = {}
    for index, document in enumerate(documents):
        if document.text.isspace():
            errors[document.id] = _document_error(_DOCUMENTS, "InvalidDocument", "Document text is empty.")
        elif document.language and document.language.lower().partition("-")[0] not in LANGUAGES:
            known = f"Supported languages: {', '.join(sorted(LANGUAGES))}."
            errors[document.id] = _document_error("Invalid language code.", "UnsupportedLanguageCode", known)
        elif struck and struck.strikes(index, document.id):
            errors[document.id] = _document_error(_DOCUMENTS, "InvalidDocument", "A fault rule matches this document.")
    return errors


def _document_error(message: str, inner: str, detail: str) -> dict[str, object]:
    return {"code": "InvalidArgument", "message": message, "innererror": {"code": inner, "message": detail}}


def _failing_tasks(count: int, fate: str | None) -> range:
    if fate == "failed":
        return range(count)
    return range(count - 1, count) if fate == "partial" and count > 1 else range(0)


def ending(results: Sequence[object], fate: Fate) -> State:
    """How a job ends by the results of its tasks."""
    if not any(results):
        return State.FAILED
    return State.SUCCEEDED if all(results) and not fate.partial else State.PARTIAL


# A job as it is shown -----------------------------------------------------------------------------


def asked_page(query: QueryParams, top: str = "top", skip: str = "skip") -> Page:
    """The page that a query asks for, under these names; raises `Refusal`."""
    statistics = query.get("showStats", "false").lower()
    if statistics not in {"true", "false"}:
        raise _refused(_PARAMETER, "InvalidParameterValue", "showStats is to be true or false.")
    return Page(_number(query, top, PAGE, 1), _number(query, skip, 0, 0), statistics == "true")


def _number(query: QueryParams, name: str, usual: int, least: int) -> int:
    given = query.get(name, str(usual))
    if not _NUMBER.fullmatch(given) or int(given) < least:
        raise _refused(_PARAMETER, "InvalidParameterValue", f"{name} is to be a whole number from {least} on.")
    return int(given)


def describe(job: Job, now: float, page: Page, location: Callable[[str], str]) -> dict[str, Any]:
    """A job as this API shows it; `location` gives the URL of the job with more of a query."""
    state = job.state_at(now)
    display_name, tasks = orjson.loads(job.about)
    shown: dict[str, Any] = {
        "jobId": job.id,
        "createdDateTime": moment(job.created),
        "lastUpdatedDateTime": moment(job.updated),
        "expirationDateTime": moment(job.expires),
        "status": STATUSES[state],
        "errors": [],
        "tasks": {"completed": 0, "failed": 0, "inProgress": 0, "total": len(tasks), "items": []},
    }
    if display_name is not None:
        shown["displayName"] = display_name
    if state in PENDING:
        shown["tasks"]["inProgress"] = len(tasks)
    elif state is not State.CANCELLED:
        results = orjson.loads(job.result) if job.result else [None] * len(tasks)
        failed = [index for index, result in enumerate(results) if result is None]
        shown["errors"] = [{**TASK_FAILED, "target": f"#/tasks/items/{index}"} for index in failed]
        shown["tasks"]["completed"] = len(tasks) - len(failed)
        shown["tasks"]["failed"] = len(failed)
        shown["tasks"]["items"] = [
            _item(task, result, job.updated, page) for task, result in zip(tasks, results, strict=True)
        ]
        if any(result and len(result["documents"]) > page.skip + page.top for result in results):
            statistics = "&showStats=true" if page.statistics else ""
            shown["nextLink"] = location(f"&skip={page.skip + page.top}&top={page.top}{statistics}")
    return shown


def _item(task: Sequence[Any], result: dict[str, Any] | None, updated: float, page: Page) -> dict[str, Any]:
    kind, name, project, deployment = task
    item = {"kind": f"{kind}LROResults", "lastUpdateDateTime": moment(updated, "microseconds")}
    if name is not None:
        item["taskName"] = name
    if result is None:
        return {**item, "status": "failed"}
    named = {"projectName": project, "deploymentName": deployment}
    return {**item, "status": "succeeded", "results": {**results_of(result, page), **named}}


def results_of(result: dict[str, Any], page: Page) -> dict[str, Any]:
    """A page of what came of a task."""
    part = slice(page.skip, page.skip + page.top)
    shown: dict[str, Any] = {
        "documents": [one for one in result["documents"][part] if "class" in one],
        "errors": [one for one in result["documents"][part] if "error" in one],
    }
    if page.statistics:
        characters = {
            one["id"]: count
            for one, count in zip(result["documents"], result["characters"], strict=True)
            if "class" in one
        }
        for one in shown["documents"]:
            one["statistics"] = _statistics(characters[one["id"]])
        shown["statistics"] = {
            "documentsCount": len(result["documents"]),
            "validDocumentsCount": len(characters),
            "erroneousDocumentsCount": len(result["documents"]) - len(characters),
            "transactionsCount": sum(_transactions(count) for count in characters.values()),
        }
    return shown


def _statistics(characters: int) -> dict[str, int]:
    return {"charactersCount": characters, "transactionsCount": _transactions(characters)}


def _transactions(characters: int) -> int:
    return -(-characters // TRANSACTION)


def moment(seconds: float, precision: str = "seconds") -> str:
    """A time as these APIs write it."""
    return datetime.fromtimestamp(seconds, UTC).replace(tzinfo=None).isoformat(timespec=precision) + "Z"
