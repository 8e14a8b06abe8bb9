"""What the rooms of Content Safety share: reading what is asked, refusing it in this API's words, a page of a list."""

import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import orjson
from starlette.responses import Response

from service.server.gateway import Call, Refusal, answer

BASE = "/contentsafety"
MOST_BYTES = 1_048_576
PAGE = 100  # resources in a page unless fewer are asked for

_NAME = re.compile(r"[0-9A-Za-z._~-]+")
_NUMBER = re.compile(r"[0-9]{1,9}")
_WORDS = {  # what the gateway calls it, and this API
    "400": "InvalidRequestBody",
    "InvalidRequest": "InvalidRequestBody",
    "429": "TooManyRequests",
    "InternalServerError": "InternalError",
    "ServiceUnavailable": "ServerBusy",
}


def refused(refusal: Refusal) -> Response:
    """A refusal in this API's words, with its code in a header too."""
    given = str(refusal.error["code"])
    code = _WORDS.get(given, given)
    error = {"code": code, "message": refusal.error["message"], "details": []}
    return answer({"error": error}, refusal.status, {**refusal.headers, "x-ms-error-code": code})


def invalid(message: str) -> Refusal:
    """What is asked makes no sense, or is more than there may be."""
    return Refusal(400, {"code": "InvalidRequestBody", "message": message})


def not_found(message: str) -> Refusal:
    """What is named is not there."""
    return Refusal(404, {"code": "ResourceNotFound", "message": message})


def too_many(message: str, retry_after: int) -> Refusal:
    """Not now, but in so many seconds."""
    return Refusal(429, {"code": "TooManyRequests", "message": message}, {"Retry-After": str(retry_after)})


def resource_name(call: Call, longest: int) -> str:
    """The name in the path; refuses one that no resource can have."""
    name = call.parameter("name")
    if len(name) > longest or not _NAME.fullmatch(name):
        message = f"A name is 1 to {longest} letters, digits and any of . _ ~ - long."
        raise Refusal(400, {"code": "InvalidResourceName", "message": message})
    return name


async def body(call: Call) -> dict[str, Any]:
    """The JSON object in a request's body."""
    try:
        given = orjson.loads(await call.body(MOST_BYTES))
    except orjson.JSONDecodeError:
        raise invalid("The body is not JSON.") from None
    if not isinstance(given, dict):
        raise invalid("The body is to be an object.")
    return given


def text(fields: Mapping[str, Any], name: str, most: int) -> str:
    """A string that has to be there, of 1 to `most` code points."""
    value = fields.get(name)
    if not isinstance(value, str) or not value:
        raise invalid(f"{name} is missing, empty or no string.")
    if len(value) > most:
        raise invalid(f"{name} is longer than {most:,} characters.")
    return value


def strings(fields: Mapping[str, Any], name: str) -> list[str]:
    """A list of strings, empty where there is none."""
    value = fields.get(name)
    if value is None:
        return []
    if not isinstance(value, list) or not all(isinstance(one, str) for one in value):
        raise invalid(f"{name} is to be a list of strings.")
    return value


def objects(fields: Mapping[str, Any], name: str) -> list[dict[str, Any]]:
    """A list of objects, empty where there is none."""
    value = fields.get(name)
    if value is None:
        return []
    if not isinstance(value, list) or not all(isinstance(one, dict) for one in value):
        raise invalid(f"{name} is to be a list of objects.")
    return value


def same_name(fields: Mapping[str, Any], field: str, name: str) -> None:
    """Refuse a body that names another resource than the path does."""
    if fields.get(field) is not None and fields[field] != name:
        raise invalid(f"{field} is not the name in the path.")


def number(call: Call, name: str) -> int | None:
    """A whole number of the query, None where it is not given."""
    value = call.query.get(name)
    if value is None:
        return None
    if not _NUMBER.fullmatch(value):
        raise invalid(f"{name} is to be a whole number.")
    return int(value)


def page(call: Call, path: str, items: Sequence[object]) -> Response:
    """The part of a list that is asked for by top, skip and maxpagesize, and where the next one is."""
    skip, size = number(call, "skip") or 0, number(call, "maxpagesize")
    if size == 0:
        raise invalid("maxpagesize is to be 1 or more.")
    top = number(call, "top")
    end = len(items) if top is None else min(len(items), skip + top)
    shown_to = min(end, skip + min(size or PAGE, PAGE))
    content: dict[str, object] = {"value": items[skip:shown_to]}
    if shown_to < end:
        left = f"&top={end - shown_to}" if top is not None else ""
        sized = f"&maxpagesize={size}" if size is not None else ""
        content["nextLink"] = call.url(path, f"api-version={call.version}&skip={shown_to}{left}{sized}")
    return answer(content)


def time_of(seconds: float) -> str:
    """A point in time as this API writes it."""
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S.%f}"[:-3] + "Z"
