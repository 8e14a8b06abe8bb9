"""The jobs of Azure Language's runtime, done in a thread: what comes of each task and document, faults included."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import orjson
import structlog

from service.documents import ClassScore
from service.errors import ModelError
from service.model.classifier import Classifier
from service.server.azure_language_requests import BAD_DOCUMENTS, LANGUAGES, Document, Task, is_language, parse
from service.server.backend import Backend
from service.server.faults import DocumentError, Rule
from service.server.jobs import Done
from service.server.store import Job, State

log = structlog.get_logger(__name__)


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
            errors[document.id] = _document_error(BAD_DOCUMENTS, "InvalidDocument", "Document text is empty.")
        elif document.language and not is_language(document.language):
            known = f"Supported languages: {', '.join(LANGUAGES)}."
            errors[document.id] = _document_error("Invalid language code.", "UnsupportedLanguageCode", known)
        elif struck and struck.strikes(index, document.id):
            errors[document.id] = _document_error(
                BAD_DOCUMENTS, "InvalidDocument", "A fault rule matches this document."
            )
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
