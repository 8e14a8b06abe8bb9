"""What Content Understanding's classifiers and analyzers have in common: bodies, refusals, parts of documents."""

import re
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

import orjson
from starlette.responses import Response

from service.model import embeddings
from service.model.similarity import Categories, Category
from service.server.faults import Rule
from service.server.gateway import Call, Refusal, answer
from service.server.jobs import Done, Jobs
from service.server.pages import Pages
from service.server.store import Job, State

BASE = "/contentunderstanding"
ID = re.compile(r"[a-zA-Z0-9._-]{1,64}")
ENCODINGS = ("codePoint", "utf16", "utf8")
MOST_BODY = 2**20
MOST_DESCRIPTION = 1_024
MOST_EXAMPLES = 100
MOST_IN_CATEGORY = 120  # characters of name and description together
MOST_TAGS = 10
MOST_URL = 8_192
MOST_LISTED = 100  # in a page of a list
RATE = (3_000, 60.0)  # operations, seconds
OTHER = "$OTHER"
STATUSES = {
    State.WAITING: "NotStarted",
    State.RUNNING: "Running",
    State.SUCCEEDED: "Succeeded",
    State.PARTIAL: "Succeeded",
    State.FAILED: "Failed",
    State.CANCELLED: "Canceled",
}
_JOB_ID = re.compile(r"[0-9a-f-]{36}")


class Part(NamedTuple):
    """A run of pages, counted from 1, both included, and what it is."""

    first: int
    last: int
    category: str
    text: str


class Page(NamedTuple):
    """A page of a document, by its number from 1."""

    number: int
    text: str


def numbered(document: Pages) -> list[Page]:
    """All pages of a document."""
    return [Page(number, page) for number, page in enumerate(document.texts, start=1)]


def whole(pages: Sequence[Page], category: str = "") -> Part:
    """Pages taken together."""
    return Part(pages[0].number, pages[-1].number, category, "\n".join(page.text for page in pages))


def page_numbers(part: Part) -> list[dict[str, int]]:
    """The pages of a part, as contents tell of them."""
    return [{"pageNumber": number} for number in range(part.first, part.last + 1)]


def split(pages: Sequence[Page], categories: Categories, mode: str) -> list[Part]:
    """What pages of a document consist of, in the way that is asked for."""
    if mode == "noSplit":
        part = whole(pages)
        return [part._replace(category=categories.classify(part.text) or OTHER)]
    parts: list[Part] = []
    for number, page in pages:
        category = categories.classify(page) or OTHER
        if mode == "auto" and parts and parts[-1][1:3] == (number - 1, category):
            parts[-1] = parts[-1]._replace(last=number, text=f"{parts[-1].text}\n{page}")
        else:
            parts.append(Part(number, number, category, page))
    return parts


def likeness(described: Mapping[str, Mapping[str, Any]]) -> Categories:
    """What documents are compared with: categories as a body names them, but for `$OTHER`."""
    return Categories(
        [
            Category(name, one.get("description") or "", tuple(one.get("examples") or ()))
            for name, one in described.items()
            if name != OTHER
        ],
        embeddings.installed(),
    )


def refused(refusal: Refusal) -> Response:
    """A refusal with its code in a header too, unless it is the gateway's, which has a number."""
    code = str(refusal.error["code"])
    headers = {} if code.isdigit() else {"x-ms-error-code": code}
    return answer({"error": {"details": [], **refusal.error}}, refusal.status, {**refusal.headers, **headers})


def refusal(status: int, code: str, message: str) -> Refusal:
    """An error by its code."""
    return Refusal(status, {"code": code, "message": message})


def invalid(message: str) -> Refusal:
    """A request that makes no sense."""
    return refusal(400, "InvalidRequest", message)


def not_found(message: str) -> Refusal:
    """Something that is not there."""
    return refusal(404, "NotFound", message)


def accepted(call: Call, where: str) -> dict[str, str]:
    """The headers of an answer about something that is under way, or has just been made."""
    headers = {"Operation-Location": where}
    if (request_id := call.headers.get(b"x-ms-client-request-id")) is not None:
        headers["x-ms-client-request-id"] = request_id.decode("latin-1")
    return headers


def named(call: Call) -> str:
    """The name in the path; raises `Refusal`."""
    name = call.parameter("name")
    if not ID.fullmatch(name):
        raise invalid("The id is to be 1 to 64 letters, digits and . _ -")
    return name


def json_body(body: bytes) -> dict[str, Any]:
    """A body that is a JSON object; raises `Refusal`."""
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError:
        raise invalid("The body is not JSON.") from None
    if not isinstance(value, dict):
        raise invalid("The body is to be an object.")
    return value


def text(body: Mapping[str, Any], key: str, most: int) -> str | None:
    """A string of a body, if it is there; raises `Refusal`."""
    value = body.get(key)
    if value is not None and (not isinstance(value, str) or len(value) > most):
        raise invalid(f"{key} is to be a string of at most {most:,} characters.")
    return value


def tags(body: Mapping[str, Any]) -> dict[str, str] | None:
    """The tags of a body, if there are any; raises `Refusal`."""
    value = body.get("tags")
    if value is None:
        return None
    if not isinstance(value, dict) or len(value) > MOST_TAGS or not _are_strings([*value.values()]):
        raise invalid(f"tags is to be an object of at most {MOST_TAGS} strings.")
    return value


def one_of(body: Mapping[str, Any], key: str, known: Sequence[str]) -> str | None:
    """A word of a body, if it is there; raises `Refusal`."""
    value = body.get(key)
    if value is not None and value not in known:
        raise invalid(f"{key} is to be one of {', '.join(known)}.")
    return value


def categories(value: object, where: str, most: int) -> dict[str, dict[str, Any]]:
    """Categories by their names; raises `Refusal`."""
    if not isinstance(value, dict) or not 1 <= len(value) <= most:
        raise invalid(f"{where} is to be an object of 1 to {most} categories.")
    for name, one in value.items():
        if not isinstance(one, dict):
            raise invalid(f"{where}: a category is to be an object.")
        if not name or name.startswith("$"):
            raise invalid(f"{where}: a name is not to be empty or begin with $.")
        description = text(one, "description", MOST_IN_CATEGORY) or ""
        if len(name) + len(description) > MOST_IN_CATEGORY:
            raise invalid(f"{where}: name and description are to have at most {MOST_IN_CATEGORY} characters together.")
        text(one, "analyzerId", 64)
        examples = one.get("examples")
        if examples is not None and not _are_strings(examples):
            raise invalid(f"{where}: examples is to be a list of at most {MOST_EXAMPLES} strings.")
    return value


def _are_strings(value: object) -> bool:
    return isinstance(value, list) and len(value) <= MOST_EXAMPLES and all(isinstance(each, str) for each in value)


def patched(kept: Mapping[str, Any], changes: Mapping[str, Any], now: float) -> dict[str, Any]:
    """A resource with the description and tags of a merge-patch."""
    changed = {**kept, "modified": now}
    if "description" in changes:
        changed["description"] = text(changes, "description", MOST_DESCRIPTION)
    if "tags" in changes:
        given = changes["tags"]
        if isinstance(given, dict):
            merged = {**(kept["tags"] or {}), **given}
            given = {key: value for key, value in merged.items() if value is not None}
        changed["tags"] = tags({"tags": given})
    return changed


def source_url(body: Mapping[str, Any], is_known: Callable[[str], bool]) -> str:
    """The URL of a document that may be read; raises `Refusal`."""
    url = text(body, "url", MOST_URL)
    if not url:
        raise invalid("url is missing.")
    if not is_known(url):
        raise invalid("url is not in a storage container that this server may read; send the document itself.")
    return url


def struck(job: Job) -> Done | None:
    """How a job ends if a fault rule says so."""
    fault = Rule.model_validate_json(job.fault) if job.fault else None
    if fault is None:
        return None
    if fault.job == "cancelled":
        return Done(State.CANCELLED, None, {})
    is_bad = fault.job in {"failed", "partial"} or fault.document_error is not None
    return failed("A fault rule matches this document.") if is_bad else None


def failed(message: str) -> Done:
    """The end of a job whose document cannot be read."""
    return Done(State.FAILED, orjson.dumps({"code": "InvalidContent", "message": message}), {})


async def found_job(jobs: Jobs, kind: str, job_id: str) -> Job:
    """A job by its id; raises `Refusal`."""
    job = await jobs.find(kind, job_id) if _JOB_ID.fullmatch(job_id) else None
    if job is None:
        raise not_found("There is no such result, or it has expired.")
    return job


def shown_job(job: Job, now: float, result: Callable[[Mapping[str, Any], Job], dict[str, Any]]) -> dict[str, Any]:
    """A job as this API shows it; `result` makes the result of what was kept about it."""
    state = job.state_at(now)
    shown: dict[str, Any] = {"id": job.id, "status": STATUSES[state]}
    if state is State.FAILED:
        unforeseen = {"code": "InternalServerError", "message": "The document could not be worked on."}
        shown["error"] = orjson.loads(job.result) if job.result else unforeseen
    elif state in {State.SUCCEEDED, State.PARTIAL}:
        shown["result"] = result(orjson.loads(job.about), job)
    return shown


def listed(call: Call, kept: Mapping[str, Mapping[str, Any]], show: Callable[..., dict[str, Any]]) -> dict[str, Any]:
    """A page of a list: what comes after a name, in the order of names, and where the next page is."""
    after = call.query.get("after", "")
    names = sorted(name for name in kept if name > after)
    page: dict[str, Any] = {"value": [show(name, kept[name]) for name in names[:MOST_LISTED]]}
    if len(names) > MOST_LISTED:
        query = f"api-version={call.version}&after={names[MOST_LISTED - 1]}"
        page["nextLink"] = call.url(str(call.scope["path"]), query)
    return page


def moment(seconds: float) -> str:
    """A time as this API writes it."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
