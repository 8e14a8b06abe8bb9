"""What the rooms of Azure Language's authoring say in the same words: bodies, names, refusals, pages, times."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import orjson
from starlette.datastructures import QueryParams
from starlette.responses import Response

from service.server.azure_language_requests import NAME
from service.server.gateway import Call, Refusal, answer
from service.server.store import State

BASE = "/language/authoring/analyze-text/projects"
MOST_BODY = 64 * 2**20
YEAR = 365 * 86_400.0  # seconds that models are kept for
STATUSES = {
    State.WAITING: "notStarted",
    State.RUNNING: "running",
    State.SUCCEEDED: "succeeded",
    State.PARTIAL: "partiallyCompleted",
    State.FAILED: "failed",
    State.CANCELLED: "cancelled",
}
KINDS = {"single_label": "CustomSingleLabelClassification", "multi_label": "CustomMultiLabelClassification"}
_INDEXES = ("Utf16CodeUnit", "UnicodeCodePoint", "TextElements_v8")


def invalid(message: str) -> Refusal:
    """A request that makes no sense."""
    inner = {"code": "InvalidParameterValue", "message": message}
    return Refusal(400, {"code": "InvalidRequest", "message": "Invalid parameter in request.", "innererror": inner})


def full(message: str) -> Refusal:
    """A request for more than there may be."""
    inner = {"code": "QuotaExceeded", "message": message}
    return Refusal(400, {"code": "InvalidRequest", "message": message, "innererror": inner})


def missing(message: str, code: str = "NotFound") -> Refusal:
    """Something that is not there."""
    return Refusal(404, {"code": code, "message": message})


def conflict(message: str) -> Refusal:
    """Something that cannot be done as things are."""
    return Refusal(409, {"code": "Conflict", "message": message})


def json_body(content: bytes) -> dict[str, Any]:
    """A body that is a JSON object; raises `Refusal`."""
    try:
        body = orjson.loads(content)
    except orjson.JSONDecodeError:
        raise invalid("The body is not JSON.") from None
    if not isinstance(body, dict):
        raise invalid("The body is to be an object.")
    return body


def part(body: Mapping[str, Any], key: str) -> dict[str, Any]:
    """An object of a body; raises `Refusal`."""
    value = body.get(key)
    if not isinstance(value, dict):
        raise invalid(f"{key} is to be an object.")
    return value


def word(body: Mapping[str, Any], key: str) -> str:
    """A string of a body; raises `Refusal`."""
    value = body.get(key)
    if not isinstance(value, str) or not value:
        raise invalid(f"{key} is missing.")
    return value


def named(call: Call, what: str) -> str:
    """The name in the path of something that is to be made; raises `Refusal`."""
    name = call.parameter(what)
    if not NAME.fullmatch(name):
        raise invalid(f"A {what} is named by up to 50 letters, digits and _ . -")
    return name


def index_type(call: Call) -> str:
    """How the client counts characters, which it has to say; raises `Refusal`."""
    given = call.query.get("stringIndexType")
    if given not in _INDEXES:
        raise invalid(f"stringIndexType is to be one of {', '.join(_INDEXES)}.")
    return given


def accepted(call: Call, path: str) -> Response:
    """The answer about a job that is asked after at a path."""
    return Response(b"", 202, {"operation-location": call.url(path, f"api-version={call.version}")})


def page(call: Call, found: Sequence[object]) -> Response:
    """The part of a list that is asked for by `top`, `skip` and `maxpagesize`, and where the next is."""
    skip, size = _number(call.query, "skip", 0, 0), _number(call.query, "maxpagesize", 100, 1)
    top = _number(call.query, "top", len(found), 0)
    shown_here = found[skip : skip + min(top, size)]
    shown: dict[str, Any] = {"value": shown_here}
    left = min(len(found), skip + top) - skip - len(shown_here)
    if left > 0:
        query = f"api-version={call.version}&top={left}&skip={skip + len(shown_here)}&maxpagesize={size}"
        shown["nextLink"] = call.url(call.scope["path"], query)
    return answer(shown)


def _number(query: QueryParams, name: str, usual: int, least: int) -> int:
    given = query.get(name, str(usual))
    if not given.isdecimal() or len(given) > 10 or int(given) < least:
        raise invalid(f"{name} is to be a whole number from {least} on.")
    return int(given)


def kind(call: Call, task: str) -> str:
    """The kind of a project, as the version spells it."""
    return lower(KINDS[task]) if call.version.startswith("2022-05-01") else KINDS[task]


def lower(name: str) -> str:
    """A kind as the keys of evaluations begin."""
    return name[0].lower() + name[1:]


def day(seconds: float) -> str:
    """A date as these APIs write it."""
    return datetime.fromtimestamp(seconds, UTC).date().isoformat()
