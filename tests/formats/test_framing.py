from uuid import UUID

import pytest
from confluent_kafka.schema_registry.serde import SchemaId as VendorsId
from hypothesis import given
from hypothesis import strategies as st

from service.documents import Headers, Reason, Refused
from service.formats.framing import Framed, SchemaId, framed, prefix
from service.formats.registered import Decode, Schema, Unusable, decoder, refusing, schema_of, value
from tests.records import record

GUID = UUID("89791762-2336-4186-9674-299b90a802e2")
HEADER = "__value_schema_id"


@given(st.integers(0, 2**32 - 1), st.binary())
def test_a_number_stands_where_the_vendors_client_has_it(number: int, payload: bytes) -> None:
    assert prefix(number) == VendorsId("AVRO", number).id_to_bytes()
    assert framed(record(0, prefix(number) + payload)) == Framed(number, payload)
    assert framed(record(0, payload, headers=[(HEADER, prefix(number))])) == Framed(number, payload)


@given(st.uuids(), st.binary())
def test_so_does_a_guid(guid: UUID, payload: bytes) -> None:
    named = VendorsId("AVRO", guid=str(guid)).guid_to_bytes()
    assert framed(record(0, named + payload)) == Framed(guid, payload)
    assert framed(record(0, payload, headers=[(HEADER, named)])) == Framed(guid, payload)


@pytest.mark.parametrize(
    ("given_value", "headers", "why"),
    [
        (b"", (), "names no schema"),
        (b"{}", (), "names no schema"),
        (b"\0\0\0\0", (), "names no schema"),
        (b"\1" + bytes(15), (), "names no schema"),
        (b"\2\0\0\0\1", (), "names no schema"),
        (prefix(1), [(HEADER, b"1")], "neither a schema's number nor its GUID"),
        (prefix(1), [(HEADER, prefix(1) + b"x")], "neither a schema's number nor its GUID"),
    ],
)
def test_what_names_no_schema_is_refused(given_value: bytes, headers: Headers, why: str) -> None:
    found = framed(record(0, given_value, headers=headers))
    assert isinstance(found, Refused)
    assert found.reason is Reason.UNDECODABLE
    assert why in found.message
    assert schema_of(record(0, given_value, headers=headers)) is None


def test_a_tombstone_names_no_schema_and_waits_for_none() -> None:
    assert schema_of(record(0, None)) is None


@given(st.binary(), st.lists(st.tuples(st.sampled_from([HEADER, "x"]), st.binary())))
def test_whatever_the_bytes_there_is_a_schema_or_a_reason(payload: bytes, headers: Headers) -> None:
    assert isinstance(framed(record(0, payload, headers=headers)), Framed | Refused)


def test_json_is_read_and_not_held_against_its_schema() -> None:
    decoders: dict[SchemaId, Decode] = {7: decoder(7, Schema("JSON", '{"type": "string"}'))}
    assert value(decoders, record(0, prefix(7) + b'{"a": [1]}')) == {"a": [1]}
    found = value(decoders, record(0, prefix(7) + b"{"))
    assert isinstance(found, Refused)
    assert found.message.startswith("not JSON behind its schema: ")


def test_avro_that_does_not_fit_names_its_schema_and_nothing_of_the_record() -> None:
    decoders: dict[SchemaId, Decode] = {GUID: decoder(GUID, Schema("AVRO", '"string"'))}
    found = value(decoders, record(0, b"\x40canary", headers=[(HEADER, b"\1" + GUID.bytes)]))
    assert found == Refused(Reason.UNDECODABLE, f"not Avro of schema {GUID}: it ends too early")


@pytest.mark.parametrize(
    ("schema", "why"),
    [
        (Schema("PROTOBUF", "message"), "it is Protobuf, and only Avro and JSON are read"),
        (Schema("AVRO", "message"), "it is not JSON"),
        (Schema("AVRO", "{}"), "it is no Avro schema"),
    ],
)
def test_schemas_that_are_not_read_say_why(schema: Schema, why: str) -> None:
    with pytest.raises(Unusable, match=why):
        decoder(1, schema)
    assert value({1: refusing(why)}, record(0, prefix(1))) == Refused(Reason.UNDECODABLE, why)
