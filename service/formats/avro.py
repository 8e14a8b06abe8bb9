"""Avro as records have it, read as JSON would say it, by the schema that it was written by. Pure; takes fastavro.

Before a schema is used, its logical types are exchanged for ours, which give JSON's values: text for dates, times,
decimals and UUIDs, Base64 for bytes. What a record could do to the process is seen by the schema: one whose arrays have
items of no bytes at all is not used, as a few bytes would claim any number of them. Records within are counted, as what
is one byte takes hundreds in memory.
"""

import base64
import io
import struct
from collections.abc import Callable, Mapping
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import fastavro
from fastavro._read_py import schemaless_reader as _read_in_python  # see `decoder`
from fastavro.read import LOGICAL_READERS

from service.formats.registered import Unusable

_LONGEST_DECIMAL = 256
"""Bytes of a decimal that is still written out: 616 digits. To write longer ones takes ever longer."""
_MOST_SCALE = 1_000
_MOST_RECORDS = 100_000
"""Records within a value: a message of a megabyte may claim ten times as many, which are 200 MB and seconds."""
_OURS = "labelstream-"
_WHOLE = "labelstream_whole"
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_FAULTS = (ArithmeticError, EOFError, LookupError, RecursionError, TypeError, ValueError, struct.error)
"""What fastavro raises where bytes, or a schema, are not what they should be."""


class Unfitting(Exception):
    """A record is not what its schema says; the message says how, in no word of it."""


def decoder(schema: object, *references: object) -> Callable[[bytes], object]:
    """What reads values that were written by a schema, which raises Unfitting.

    Both are parsed JSON; references are the schemas whose names it uses, each behind those that it uses itself.
    Raises Unusable.
    """
    names: dict[str, Any] = {}
    try:
        for each in references:
            fastavro.parse_schema(_ours(each), named_schemas=names)
        # fastavro finds names of others in what a record has, and not in a union or a name that stands alone.
        whole = {"type": "record", "name": _WHOLE, "fields": [{"name": _WHOLE, "type": _ours(schema)}]}
        parsed = fastavro.parse_schema(whole, named_schemas=names)
        nesting = _Nesting(names)
        nesting.follow(parsed)
    except RecursionError:
        raise Unusable("it is nested too deeply") from None
    except (*_FAULTS, fastavro.schema.SchemaParseException, fastavro.schema.UnknownType):
        raise Unusable("it is no Avro schema, or uses names that it does not define") from None
    # Python's own stack has a bottom, which C's has not: what nests as deeply as a record likes would end the process.
    read: Callable[..., Any] = _read_in_python if nesting.is_endless else fastavro.schemaless_reader

    def decode(value: bytes) -> object:
        rest = io.BytesIO(value)
        _Records.left = _MOST_RECORDS
        try:
            found: object = read(rest, parsed, None)[_WHOLE]
        except EOFError:
            raise Unfitting("it ends too early") from None
        except RecursionError:
            raise Unfitting("it is nested too deeply") from None
        except _TooMany:
            raise Unfitting(f"it has more than {_MOST_RECORDS:,} records within") from None
        except _FAULTS:
            raise Unfitting("its bytes are not what the schema says") from None
        if rest.tell() != len(value):
            raise Unfitting(f"{len(value) - rest.tell():,} bytes are left over")
        return found

    return decode


def _ours(schema: Any) -> Any:
    """The schema with our logical types in place of its own."""
    if isinstance(schema, list):
        return [_ours(each) for each in schema]
    if not isinstance(schema, dict):
        return {"type": "bytes", "logicalType": _named("bytes", {})} if schema == "bytes" else schema
    found = {key: value for key, value in schema.items() if key != "logicalType"}
    match kind := schema.get("type"):
        case "record" | "error" if isinstance(fields := schema.get("fields"), list):
            found["logicalType"] = f"{_OURS}counted"
            found["fields"] = [{**each, "type": _ours(each.get("type"))} for each in fields]
        case "array":
            found["items"] = _ours(schema.get("items"))
        case "map":
            found["values"] = _ours(schema.get("values"))
        case str():
            if logical := _named(kind, schema):
                found["logicalType"] = logical
        case _:
            return _ours(kind)
    return found


def _named(kind: str, schema: Mapping[str, Any]) -> str | None:
    """The name of our logical type that reads what a schema of a kind describes; None where it is JSON's already."""
    logical = schema.get("logicalType")
    if kind in {"bytes", "fixed"}:
        if logical == "decimal" and _is_number(schema.get("scale", 0)):
            return f"{_OURS}decimal"
        own = isinstance(logical, str) and f"{kind}-{_OURS}{logical}" in LOGICAL_READERS
        return f"{_OURS}{logical}" if own else f"{_OURS}base64"
    return f"{_OURS}{logical}" if f"{kind}-{_OURS}{logical}" in LOGICAL_READERS else None


def _is_number(scale: object) -> bool:
    return isinstance(scale, int) and not isinstance(scale, bool) and 0 <= scale <= _MOST_SCALE


class _Nesting:
    """What is in what: a schema's named types are followed to see whether they end."""

    def __init__(self, names: Mapping[str, Any]) -> None:
        self.is_endless = False
        self._names = names
        self._known: dict[str, bool] = {}
        self._within: set[str] = set()

    def follow(self, schema: Any) -> bool:
        """Whether what it describes may take no bytes at all. Raises Unusable for an array of that."""
        match schema:
            case list():
                for each in schema:
                    self.follow(each)
            case str() if schema in self._names:
                return self._follow_name(schema)
            case {"type": "record" | "error", "name": name}:
                return self._follow_name(name)
            case {"type": "array", "items": items}:
                if self.follow(items):
                    raise Unusable("it has an array whose items may take no bytes, so that any number of them fits")
            case {"type": "map", "values": values}:
                self.follow(values)
            case {"type": "fixed", "size": size}:
                return bool(size == 0)
            case {"type": inner}:
                return self.follow(inner)
        return bool(schema == "null")

    def _follow_name(self, name: str) -> bool:
        if name in self._within:
            self.is_endless = True
            return False  # what ends by a branch or a block has that byte, and what does not end is never whole
        if name not in self._known:
            schema = self._names[name]
            if schema["type"] not in {"record", "error"}:
                return self.follow(schema)
            self._within.add(name)
            sizes = [self.follow(field["type"]) for field in schema["fields"]]
            self._within.discard(name)
            self._known[name] = all(sizes)
        return self._known[name]


class _TooMany(Exception):
    """A value has more records within than anybody means."""


class _Records:
    """How many may still be in the value that is being read, of which there is one at a time."""

    left = _MOST_RECORDS


def _counted(record: object, *_: object) -> object:
    _Records.left -= 1
    if _Records.left < 0:
        raise _TooMany
    return record


def _base64(value: bytes, *_: object) -> str:
    return base64.b64encode(value).decode()


def _decimal(value: bytes, schema: dict[Any, Any] | None, *_: object) -> str:
    if len(value) > _LONGEST_DECIMAL:
        raise ValueError("a decimal that nobody would write")
    scale = int(schema.get("scale", 0)) if schema else 0
    unscaled = int.from_bytes(value, "big", signed=True)
    digits = tuple(map(int, str(abs(unscaled))))
    return format(Decimal((int(unscaled < 0), digits, -scale)), "f")


def _uuid(value: bytes, *_: object) -> str:
    return str(UUID(bytes=value))


def _duration(value: bytes, *_: object) -> str:
    months, days, milliseconds = struct.unpack("<III", value)
    return f"P{months}M{days}DT{milliseconds // 1000}.{milliseconds % 1000:03}S"


def _moment(units: int, *, zone: str) -> Callable[..., str | int]:
    """Reads a moment that is counted in so many parts of a second."""
    form = {1_000: "milliseconds", 1_000_000: "microseconds", 1_000_000_000: "microseconds"}[units]

    def read(value: int, *_: object) -> str | int:
        try:
            moment = _EPOCH + timedelta(seconds=value // units, microseconds=value % units * 1_000_000 // units)
        except OverflowError:
            return value  # before the year 1 or after 9999: there is no other way to write it
        return moment.replace(tzinfo=None).isoformat(timespec=form) + zone

    return read


def _date(value: int, *_: object) -> str | int:
    try:
        return (date(1970, 1, 1) + timedelta(days=value)).isoformat()
    except OverflowError:
        return value  # as above


def _time(units: int) -> Callable[..., str]:
    read = _moment(units, zone="")
    return lambda value, *_: str(read(value)).rpartition("T")[2]


LOGICAL_READERS |= {
    f"record-{_OURS}counted": _counted,
    f"error-{_OURS}counted": _counted,
    f"bytes-{_OURS}base64": _base64,
    f"fixed-{_OURS}base64": _base64,
    f"bytes-{_OURS}decimal": _decimal,
    f"fixed-{_OURS}decimal": _decimal,
    f"fixed-{_OURS}uuid": _uuid,
    f"fixed-{_OURS}duration": _duration,
    f"int-{_OURS}date": _date,
    f"int-{_OURS}time-millis": _time(1_000),
    f"long-{_OURS}time-micros": _time(1_000_000),
    f"long-{_OURS}timestamp-millis": _moment(1_000, zone="Z"),
    f"long-{_OURS}timestamp-micros": _moment(1_000_000, zone="Z"),
    f"long-{_OURS}timestamp-nanos": _moment(1_000_000_000, zone="Z"),
    f"long-{_OURS}local-timestamp-millis": _moment(1_000, zone=""),
    f"long-{_OURS}local-timestamp-micros": _moment(1_000_000, zone=""),
    f"long-{_OURS}local-timestamp-nanos": _moment(1_000_000_000, zone=""),
}
