"""What Azure Language's runtime is asked: submissions, their documents and tasks, and whether they can be done."""

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import orjson

from service.server.gateway import Refusal
from service.server.store import Project

TASKS = {"CustomSingleLabelClassification": "single_label", "CustomMultiLabelClassification": "multi_label"}
_NAMED = (
    "af Afrikaans, am Amharic, ar Arabic, as Assamese, az Azerbaijani, be Belarusian, bg Bulgarian, bn Bengali, "
    "br Breton, bs Bosnian, ca Catalan, cs Czech, cy Welsh, da Danish, de German, el Greek, en-us English (US), "
    "eo Esperanto, es Spanish, et Estonian, eu Basque, fa Persian, fi Finnish, fr French, fy Western Frisian, "
    "ga Irish, gd Scottish Gaelic, gl Galician, gu Gujarati, ha Hausa, he Hebrew, hi Hindi, hr Croatian, hu Hungarian, "
    "hy Armenian, id Indonesian, it Italian, ja Japanese, jv Javanese, ka Georgian, kk Kazakh, km Khmer, kn Kannada, "
    "ko Korean, ku Kurdish, ky Kyrgyz, la Latin, lo Lao, lt Lithuanian, lv Latvian, mg Malagasy, mk Macedonian, "
    "ml Malayalam, mn Mongolian, mr Marathi, ms Malay, my Burmese, ne Nepali, nl Dutch, nb Norwegian (Bokmal), "
    "or Odia, pa Punjabi, pl Polish, ps Pashto, pt-br Portuguese (Brazil), pt-pt Portuguese (Portugal), ro Romanian, "
    "ru Russian, sa Sanskrit, sd Sindhi, si Sinhala, sk Slovak, sl Slovenian, so Somali, sq Albanian, sr Serbian, "
    "su Sundanese, sv Swedish, sw Swahili, ta Tamil, te Telugu, th Thai, tl Tagalog, tr Turkish, ug Uyghur, "
    "uk Ukrainian, ur Urdu, uz Uzbek, vi Vietnamese, xh Xhosa, yi Yiddish, zh-hans Chinese (Simplified), zu Zulu"
)
LANGUAGES: Mapping[str, str] = dict(one.split(" ", 1) for one in _NAMED.split(", "))
"""The languages that documents may be in, as they are listed: names by codes."""
_PRIMARY = frozenset(code.partition("-")[0] for code in LANGUAGES)
MOST_DOCUMENTS = 25
MOST_CHARACTERS = 125_000
MOST_TASKS = 25
MOST_BYTES = 1_048_576
NAME = re.compile(r"[A-Za-z0-9_.-]{1,50}")
BAD_DOCUMENTS = "Invalid document in request."
BAD_PARAMETER = "Invalid parameter in request."
_BODY = "Invalid request."
_TASK = "Invalid task in request."


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


def parse(body: bytes) -> Submission:
    """What a request body asks for; raises `Refusal`."""
    if not body:
        raise refused(_BODY, "EmptyRequest", "The request has no body.")
    try:
        request = _object(orjson.loads(body), "The body")
    except orjson.JSONDecodeError:
        raise _malformed("The body is not JSON.") from None
    given = documents(request)
    tasks = _list(request.get("tasks"), "tasks")
    if not 1 <= len(tasks) <= MOST_TASKS:
        raise refused(_TASK, "InvalidParameterValue", f"tasks is to hold 1 to {MOST_TASKS} tasks.")
    return Submission(
        _text(request, "displayName", "The body"),
        given,
        [_task(one, f"tasks[{index}]") for index, one in enumerate(tasks)],
    )


def documents(request: dict[str, Any]) -> list[Document]:
    """The documents of a request; raises `Refusal`."""
    given = _list(_object(request.get("analysisInput"), "analysisInput").get("documents"), "analysisInput.documents")
    if not given:
        raise refused(_BODY, "MissingInputDocuments", "analysisInput.documents is missing or empty.")
    if len(given) > MOST_DOCUMENTS:
        raise refused(BAD_DOCUMENTS, "InvalidDocumentBatch", f"Max {MOST_DOCUMENTS} records are permitted.")
    found = [_document(one, f"analysisInput.documents[{index}]") for index, one in enumerate(given)]
    if len({document.id for document in found}) < len(found):
        raise refused(BAD_DOCUMENTS, "InvalidDocument", "Two documents have the same id.")
    if sum(len(document.text) for document in found) > MOST_CHARACTERS:
        message = f"The documents hold more than {MOST_CHARACTERS:,} characters together."
        raise refused(BAD_DOCUMENTS, "InvalidDocumentBatch", message)
    return found


def check(tasks: Sequence[Task], projects: Mapping[str, Project], authored: Collection[str]) -> None:
    """Refuse tasks that no deployment here can do; raises `Refusal`."""
    for task in tasks:
        project = deployed(task.project, task.deployment, projects, authored)
        if TASKS[task.kind] != project.task:
            kind = next(kind for kind, does in TASKS.items() if does == project.task)
            raise refused(_TASK, "InvalidParameterValue", f"Project {task.project!r} is for tasks of kind {kind}.")


def deployed(name: str, deployment: str, projects: Mapping[str, Project], authored: Collection[str]) -> Project:
    """The project that has a deployment; `authored` are projects that may have none. Raises `Refusal`."""
    project = projects.get(name)
    if project is None and name not in authored:
        raise Refusal(404, {"code": "ProjectNotFound", "message": f"There is no project {name!r}."})
    if project is None or deployment not in project.deployments:
        raise Refusal(404, {"code": "NotFound", "message": f"Project {name!r} has no deployment {deployment!r}."})
    return project


def _document(given: object, where: str) -> Document:
    fields = _object(given, where)
    document = Document(
        _text(fields, "id", where) or "", _text(fields, "text", where) or "", _text(fields, "language", where) or None
    )
    if not document.id:
        raise refused(BAD_DOCUMENTS, "InvalidDocument", f"{where} has no id.")
    if not document.text:
        raise refused(BAD_DOCUMENTS, "InvalidDocumentBatch", f"{where} has no text.")
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
        raise refused(BAD_PARAMETER, "InvalidParameterValue", f"{where}.parameters.{key} is missing.")
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
    return refused(message, "InvalidRequestBodyFormat", detail)


def refused(message: str, inner: str, detail: str) -> Refusal:
    """A request that makes no sense, in the words of this API."""
    error = {"code": "InvalidRequest", "message": message, "innererror": {"code": inner, "message": detail}}
    return Refusal(400, error)


def is_language(code: str) -> bool:
    """Whether documents may be in a language, or in a regional variant of one."""
    return code.lower().partition("-")[0] in _PRIMARY
