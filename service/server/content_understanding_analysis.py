"""Content Understanding, analysis: the document of a request, its pages, and the contents that it consists of."""

import base64
import binascii
import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from service.server import pages
from service.server.containers import Containers
from service.server.content_understanding_wire import (
    Page,
    Part,
    invalid,
    json_body,
    likeness,
    numbered,
    source_url,
    split,
    whole,
)
from service.server.pages import Unreadable

_RANGE = re.compile(r"[0-9]{1,6}(-([0-9]{1,6})?)?(,[0-9]{1,6}(-([0-9]{1,6})?)?){0,99}")
_UNITS_OF_A_PAGE = 3_000  # of UTF-16, in a document that has no pages of its own
_WIDTHS = {"utf16": "utf-16-le", "utf8": "utf-8"}


class Given(NamedTuple):
    """A document as it was sent, or the URL where it is, and the pages of it that are asked for."""

    content: bytes
    url: str | None
    range: str | None


def in_json(body: bytes, is_known: Callable[[str], bool]) -> Given:
    """The document of a body; not for the event loop. Raises `Refusal`."""
    inputs = json_body(body).get("inputs")
    if not isinstance(inputs, list) or len(inputs) != 1 or not isinstance(inputs[0], dict):
        raise invalid("inputs is to be a list of one document.")
    (given,) = inputs
    if (given.get("url") is None) == (given.get("data") is None):
        raise invalid("An input has either url or data.")
    asked = pages_asked(given.get("range"))
    if given.get("url") is not None:
        return Given(b"\0", source_url(given, is_known), asked)
    return Given(_decoded(given), None, asked)


def pages_asked(given: object) -> str | None:
    """The pages of a document that are asked for; raises `Refusal`."""
    if given is not None and not (isinstance(given, str) and _RANGE.fullmatch(given)):
        raise invalid('range is to be pages, as in "1-3,5,9-".')
    return given


def _is_in(number: int, asked: str | None) -> bool:
    """Whether a page is one of those that are asked for."""
    if asked is None:
        return True
    spans = (span.partition("-") for span in asked.split(","))
    return any(
        int(first) <= number and (number <= int(last) if last else bool(dash) or number == int(first))
        for first, dash, last in spans
    )


def _decoded(given: Mapping[str, Any]) -> bytes:
    try:
        content = base64.b64decode(given["data"], validate=True)
    except (binascii.Error, ValueError, TypeError):
        raise invalid("data is to be base64.") from None
    if not content:
        raise invalid("data is empty.")
    return content


def analyzed(about: Mapping[str, Any], content: bytes, containers: Containers) -> dict[str, Any]:
    """The contents of a document, and how many pages they count as; raises `Unreadable` and `BlobMissing`."""
    document = pages.read(containers.read_url(about["url"]) if about["url"] else content)
    asked = [page for page in numbered(document) if _is_in(page.number, about.get("range"))]
    if not asked:
        raise Unreadable(f"the document has none of the pages {about['range']}")
    return {
        "contents": _contents(document.kind, asked, about["config"], about["encoding"]),
        "pages": _charged(document.kind, asked),
    }


def _charged(kind: str, asked: Sequence[Page]) -> int:
    """How many pages a document counts as in its usage."""
    if kind == "application/pdf":
        return len(asked)
    return max(1, math.ceil(_length(whole(asked).text, "utf16") / _UNITS_OF_A_PAGE))


def _contents(kind: str, asked: Sequence[Page], config: Mapping[str, Any], encoding: str) -> list[dict[str, Any]]:
    described = config.get("contentCategories")
    if not described:
        return [_content("input1", kind, whole(asked))]
    mode = "perPage" if config.get("segmentPerPage") else "auto" if config.get("enableSegment") else "noSplit"
    parts = split(asked, likeness(described), mode)
    if mode == "noSplit":
        return [_content("input1", kind, parts[0])]
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
    own = [_content(f"input1/segment{number}", kind, part) for number, part in enumerate(parts, start=1)]
    if config.get("omitContent"):
        return own
    return [{**_content("input1", kind, whole(asked)), "segments": segments}, *own]


def _content(path: str, kind: str, part: Part) -> dict[str, Any]:
    shown = {
        "path": path,
        "kind": "document",
        "mimeType": kind,
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
