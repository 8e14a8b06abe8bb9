"""CloudEvents 1.0 as Kafka has them: a record is read as an event, and a result becomes the data of one. Pure.

The specification's Kafka protocol binding and JSON event format say how: github.com/cloudevents/spec.
"""

import base64
import codecs
from collections.abc import Callable, Iterable
from email.message import Message as _Mail
from functools import lru_cache

import orjson

from service.documents import Headers, Reason, Record, Refused

_ATTRIBUTE = "ce_"
_CONTENT_TYPE = "content-type"
_EVENT = "application/cloudevents"
_REQUIRED = ("id", "source", "type")
_STRUCTURED = (_CONTENT_TYPE, b"application/cloudevents+json; charset=UTF-8")
_BINARY = (_CONTENT_TYPE, b"application/json")
_LONGEST_CONTENT_TYPE = 1_000
"""Characters: the time that it takes to read one grows with the square of its length."""
_OF_NO_TEXT = {"idna", "punycode", "raw-unicode-escape", "undefined", "unicode-escape", "utf-7"}
"""Codecs of Python that are slow, or give what UTF-8 cannot write, and that nobody's text is in."""

Enveloped = tuple[bytes, list[tuple[str, bytes]]]


def event(record: Record) -> object | Refused:
    """The event in its JSON form, whichever mode it was sent in; its `data` is parsed JSON, or text.

    What tells no mode by its headers is taken for a structured event, as the content type may be left out.
    """
    headers = {name.lower(): value or b"" for name, value in record.headers}
    try:
        content_type = headers.get(_CONTENT_TYPE, b"").decode()
        is_structured = content_type.lower().startswith(_EVENT)
        if is_structured or (not content_type and f"{_ATTRIBUTE}specversion" not in headers):
            return _structured(record.value or b"", content_type)
        return _binary(record.value or b"", content_type, headers)
    except orjson.JSONDecodeError as error:
        return _undecodable(f"not JSON: {error.msg} at character {error.pos}")
    except UnicodeDecodeError as error:
        return _undecodable(f"the event is not {error.encoding} text: {error.reason} at byte {error.start}")
    except (LookupError, ValueError):
        return _undecodable("the event's content type cannot be read, or names a charset that is not known")


def _structured(value: bytes, content_type: str) -> object | Refused:
    if content_type and _media(content_type)[0] != f"{_EVENT}+json":
        return _undecodable("the event is in another form than JSON: of structured events, only that can be read")
    found = orjson.loads(value)
    if not isinstance(found, dict):
        return _undecodable("the event is no JSON object")
    if (packed := found.pop("data_base64", None)) is not None:
        if not isinstance(packed, str):
            return _undecodable("the event's data_base64 is not a string")
        try:
            data = base64.b64decode(packed, validate=True)
        except ValueError:
            return _undecodable("the event's data_base64 is not Base64")
        return _with_data(found, data)
    return _sound(found)


def _binary(value: bytes, content_type: str, headers: dict[str, bytes]) -> object | Refused:
    found: dict[str, object] = {
        name.removeprefix(_ATTRIBUTE): said.decode() for name, said in headers.items() if name.startswith(_ATTRIBUTE)
    }
    if content_type:
        found["datacontenttype"] = content_type
    return _with_data(found, value)


def _with_data(found: dict[str, object], data: bytes) -> object | Refused:
    content_type = found.get("datacontenttype")
    kind, charset = _media(content_type if isinstance(content_type, str) else "application/json")
    if kind.endswith(("/json", "+json")):
        found["data"] = orjson.loads(data)
    elif kind.startswith("text/"):
        found["data"] = data.decode(_known(charset))
    else:
        return _undecodable("the event's data is neither JSON nor text, as its content type says")
    return _sound(found)


def _sound(found: dict[str, object]) -> object | Refused:
    if found.get("specversion") != "1.0":
        return _undecodable("not a CloudEvent 1.0: there is no specversion 1.0")
    missing = next((name for name in _REQUIRED if not (isinstance(found.get(name), str) and found[name])), None)
    return _undecodable(f"not a CloudEvent: its {missing} is missing") if missing else found


def _undecodable(why: str) -> Refused:
    return Refused(Reason.UNDECODABLE, why)


@lru_cache(maxsize=256)
def _media(content_type: str) -> tuple[str, str]:
    """Media type and charset. Raises LookupError and ValueError."""
    if len(content_type) > _LONGEST_CONTENT_TYPE:
        raise ValueError(content_type[:_LONGEST_CONTENT_TYPE])
    mail = _Mail()
    mail["content-type"] = content_type
    return mail.get_content_type(), mail.get_content_charset("utf-8")


def _known(charset: str) -> str:
    """The charset, if it is one. Raises LookupError and ValueError."""
    if (name := codecs.lookup(charset).name) in _OF_NO_TEXT:
        raise LookupError(name)
    return charset


def _without_attributes(headers: Iterable[tuple[str, bytes]]) -> list[tuple[str, bytes]]:
    """The headers less those that make an event of a record, as a result is not the event that was asked about."""
    return [
        each for each in headers if not (each[0].lower().startswith(_ATTRIBUTE) or each[0].lower() == _CONTENT_TYPE)
    ]


Envelope = Callable[[str, str, bytes, bytes, Headers], Enveloped]
"""Makes an event of what a result's id, its subject (the document's id), its time, its JSON and its headers are."""


def bare(_name: str, _subject: str, _time: bytes, result: bytes, headers: Headers) -> Enveloped:
    """No event at all, where what was asked about was one."""
    return result, _without_attributes(headers)


def binary(source: str, kind: str) -> Envelope:
    """Attributes are headers, the result is the value as it is."""
    common = [
        _BINARY,
        ("ce_specversion", b"1.0"),
        ("ce_source", source.encode()),
        ("ce_type", kind.encode()),
    ]

    def envelope(name: str, subject: str, time: bytes, result: bytes, headers: Headers) -> Enveloped:
        own = [("ce_id", name.encode()), ("ce_subject", subject.encode()), ("ce_time", time)]
        return result, [*_without_attributes(headers), *common, *own]

    return envelope


def structured(source: str, kind: str) -> Envelope:
    """The value is an event in its JSON form, the result its data."""
    common = b'{"specversion":"1.0","source":%b,"type":%b' % (orjson.dumps(source), orjson.dumps(kind))
    form = (
        common.replace(b"%", b"%%")
        + b',"id":%b,"subject":%b,"time":"%b","datacontenttype":"application/json","data":%b}'
    )

    def envelope(name: str, subject: str, time: bytes, result: bytes, headers: Headers) -> Enveloped:
        value = form % (orjson.dumps(name), orjson.dumps(subject), time, result)
        return value, [*_without_attributes(headers), _STRUCTURED]

    return envelope
