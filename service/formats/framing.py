"""How a record says which schema it was written by: Confluent's wire format, before the value or in a header. Pure.

Before the value stands a zero and the schema's number in four bytes, or a one and its GUID in sixteen; in a header, the
same alone.
"""

import struct
from typing import NamedTuple
from uuid import UUID

from service.documents import Reason, Record, Refused

SchemaId = int | UUID
"""What a registry calls a schema: the number that it has there, or the GUID that it has everywhere."""

HEADER = "__value_schema_id"
"""The header that names a value's schema."""
_NUMBER = struct.Struct(">xI")
_GUID = 17


class Framed(NamedTuple):
    """A record's value, and the schema that it was written by."""

    schema: SchemaId
    payload: bytes


def framed(record: Record) -> Framed | Refused:
    """What a record says of its schema, and the rest of it; the header goes before the value, where there are both."""
    value = record.value or b""
    told = next((told for name, told in record.headers if name == HEADER), None)
    if told is not None:
        found = _read(told)
        if found is None or found.payload:
            return Refused(Reason.UNDECODABLE, f"the header {HEADER} is neither a schema's number nor its GUID")
        return Framed(found.schema, value)
    return _read(value) or Refused(
        Reason.UNDECODABLE, "the record names no schema: it does not begin as Confluent's wire format does"
    )


def _read(given: bytes) -> Framed | None:
    match given[:1]:
        case b"\0" if len(given) >= _NUMBER.size:
            return Framed(_NUMBER.unpack_from(given)[0], given[_NUMBER.size :])
        case b"\1" if len(given) >= _GUID:
            return Framed(UUID(bytes=given[1:_GUID]), given[_GUID:])
    return None


def prefix(number: int) -> bytes:
    """What stands before a value that was written by the schema of this number."""
    return _NUMBER.pack(number)
