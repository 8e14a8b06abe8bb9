"""A record becomes a document: its text is found, or it is refused with the reason. Pure."""

import math
from collections.abc import Callable, Sequence
from functools import partial
from types import MappingProxyType

import orjson

from service.documents import Document, Reason, Record, Refused
from service.formats import cloud_events
from service.formats.registered import Decoders, value
from service.settings import Fields

_MISSING = object()
_MOST_OF_A_LIST = 1_000


class Reader:
    """Finds documents in records as `fields` say; texts are refused where `too_long` gives the reason.

    `beside` are pointers to what else is wanted of a JSON record: a document's `fields`; `redact` changes texts.
    `decoders` read the values of records by the schemas that they name, which have to be known by then.
    """

    def __init__(
        self,
        fields: Fields,
        too_long: Callable[[str], str | None],
        beside: Sequence[str] = (),
        redact: Callable[[str], str] = str,
        decoders: Decoders = MappingProxyType({}),
    ) -> None:
        self._decoders = decoders
        self._most = fields.max_characters or math.inf
        self._too_long = too_long
        self._redact = redact
        self._where = " or ".join(fields.text)
        self._read = self._format(fields, beside)

    def read(self, record: Record, now: float) -> Document | Refused:
        """The document of a record that was read at `now` (Unix seconds)."""
        if record.value is None:
            return Refused(Reason.TOMBSTONE, "the record has no value (a tombstone)")
        found = self._read(record)
        if isinstance(found, Refused):
            return found
        name, text, language, beside = found
        text = self._redact(text)
        if not text or text.isspace():
            return Refused(Reason.EMPTY_TEXT, "the document's text is empty or white space")
        if len(text) > self._most:
            return Refused(Reason.TOO_LONG, f"the text has {len(text):,} characters, more than {self._most:,}")
        if (why := self._too_long(text)) is not None:
            return Refused(Reason.TOO_LONG, why)
        return Document(record, name or str(record.position), text, language, now, fields=beside)

    def _format(self, fields: Fields, beside: Sequence[str]) -> Callable[[Record], "_Found | Refused"]:
        match fields.format:
            case "json":
                return _json(self._addressed(fields, beside))
            case "cloudevents":
                return _whole(cloud_events.event, self._addressed(fields, beside))
            case "registry":
                return _whole(partial(value, self._decoders), self._addressed(fields, beside))
            case "text":
                return _plain(fields.encoding)

    def _addressed(self, fields: Fields, beside: Sequence[str]) -> Callable[[object], "_Found | Refused"]:
        texts = [_follow(pointer) for pointer in fields.text]
        identity = _follow(fields.id) if fields.id else _nothing
        language = _follow(fields.language) if fields.language else _nothing
        asked = [_follow(pointer) for pointer in beside]

        def read(body: object) -> "_Found | Refused":
            parts = []
            for find in texts:
                part = find(body)
                if isinstance(part, str):
                    parts.append(part)
                elif part is not None and part is not _MISSING:
                    return Refused(Reason.MISSING_TEXT, f"{self._where} is not a string")
            if not parts:
                return Refused(Reason.MISSING_TEXT, f"there is no {self._where} in the record")
            spoken = language(body)
            return (
                _name(identity(body)),
                "\n".join(parts),
                spoken if isinstance(spoken, str) and spoken else None,
                tuple([_scalars(find(body)) for find in asked]) if asked else (),
            )

        return read


_Found = tuple[str | None, str, str | None, tuple[tuple[object, ...], ...]]


def _json(addressed: Callable[[object], _Found | Refused]) -> Callable[[Record], _Found | Refused]:
    def read(record: Record) -> _Found | Refused:
        try:
            body = orjson.loads(record.value or b"")
        except orjson.JSONDecodeError as error:
            return Refused(Reason.UNDECODABLE, f"not JSON: {error.msg} at character {error.pos}")
        return addressed(body)

    return read


def _whole(
    made: Callable[[Record], object | Refused], addressed: Callable[[object], _Found | Refused]
) -> Callable[[Record], _Found | Refused]:
    def read(record: Record) -> _Found | Refused:
        body = made(record)
        return body if isinstance(body, Refused) else addressed(body)

    return read


def _plain(encoding: str) -> Callable[[Record], _Found | Refused]:
    def read(record: Record) -> _Found | Refused:
        try:
            return None, (record.value or b"").decode(encoding), None, ()
        except UnicodeDecodeError as error:
            return Refused(Reason.UNDECODABLE, f"not {encoding.upper()} text: {error.reason} at byte {error.start}")

    return read


def _name(value: object) -> str | None:
    if isinstance(value, str):
        return value or None
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else None


def _scalars(value: object) -> tuple[object, ...]:
    """What may be compared with: itself, or what is in a list of it."""
    found = value[:_MOST_OF_A_LIST] if isinstance(value, list) else [value]
    return tuple(each for each in found if isinstance(each, str | int | float))


def _nothing(body: object) -> object:  # noqa: ARG001  has the shape of what `_follow` gives
    return _MISSING


def _follow(pointer: str) -> Callable[[object], object]:
    """A function that finds what a JSON pointer (RFC 6901) points at."""
    steps = [step.replace("~1", "/").replace("~0", "~") for step in pointer.split("/")[1:]]
    (first, *others) = steps

    def find_at_the_top(body: object) -> object:
        return body.get(first, _MISSING) if isinstance(body, dict) else find(body)

    def find(body: object) -> object:
        for step in steps:
            if isinstance(body, dict):
                body = body.get(step, _MISSING)
            elif isinstance(body, list) and step.isdecimal() and int(step) < len(body):
                body = body[int(step)]
            else:
                return _MISSING
        return body

    return find if others else find_at_the_top
