"""A record is read by the schema that it names: JSON, or Avro as JSON would say it. Pure.

JSON is not held against its schema: that is its producer's to do, takes longer than all the rest of reading, and what
is asked of a record here is its text alone.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import orjson

from service.documents import Reason, Record, Refused
from service.formats.framing import SchemaId, framed

Decode = Callable[[bytes], object | Refused]
"""Reads a value; one whose schema is of no use is refused, whatever it is."""
Decoders = Mapping[SchemaId, Decode]


class Unusable(Exception):
    """A schema cannot be used; the message says why."""


class Schema(NamedTuple):
    """A schema as it is registered: `AVRO`, `JSON` or `PROTOBUF`, its text, and those of the schemas that it names.

    Of these, each stands behind those that it names itself.
    """

    kind: str
    text: str
    references: Sequence[str] = ()


def value(decoders: Decoders, record: Record) -> object | Refused:
    """What a record says; raises KeyError where its schema is not among the decoders."""
    found = framed(record)
    return found if isinstance(found, Refused) else decoders[found.schema](found.payload)


def schema_of(record: Record) -> SchemaId | None:
    """The schema that a record names, if it has a value and names one."""
    found = framed(record) if record.value is not None else None
    return found.schema if isinstance(found, tuple) else None


def decoder(name: SchemaId, schema: Schema) -> Decode:
    """What reads the values that were written by a schema. Raises Unusable."""
    match schema.kind:
        case "AVRO":
            return _avro(name, schema)
        case "JSON":
            return _json
    raise Unusable(f"it is {schema.kind.capitalize()}, and only Avro and JSON are read")


def refusing(why: str) -> Decode:
    """What refuses every value, for this reason."""
    refused = Refused(Reason.UNDECODABLE, why)
    return lambda _: refused


def _json(payload: bytes) -> object | Refused:
    try:
        found: object = orjson.loads(payload)
    except orjson.JSONDecodeError as error:
        return Refused(Reason.UNDECODABLE, f"not JSON behind its schema: {error.msg} at character {error.pos}")
    return found


def _avro(name: SchemaId, schema: Schema) -> Decode:
    from service.formats import avro  # noqa: PLC0415  takes an extra, for those who want it

    try:
        read = avro.decoder(*map(orjson.loads, (schema.text, *schema.references)))
    except orjson.JSONDecodeError:
        raise Unusable("it is not JSON, as Avro's are") from None

    def decode(payload: bytes) -> object | Refused:
        try:
            return read(payload)
        except avro.Unfitting as error:
            return Refused(Reason.UNDECODABLE, f"not Avro of schema {name}: {error}")

    return decode
