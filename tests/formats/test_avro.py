import io
import resource
import uuid
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Any

import fastavro
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.formats.avro import Unfitting, decoder
from service.formats.registered import Unusable

TREE = {
    "type": "record",
    "name": "Tree",
    "fields": [{"name": "said", "type": "string"}, {"name": "under", "type": {"type": "array", "items": "Tree"}}],
}
CHAIN = {"type": "record", "name": "Chain", "fields": [{"name": "next", "type": ["null", "Chain"]}]}
FLAG = {"type": "record", "name": "Flag", "fields": [{"name": "flag", "type": "boolean"}]}
RECORD = {
    "type": "record",
    "name": "Ticket",
    "namespace": "desk",
    "fields": [
        {"name": "id", "type": "long"},
        {"name": "text", "type": ["null", "string"]},
        {"name": "tags", "type": {"type": "array", "items": "string"}},
        {"name": "more", "type": {"type": "map", "values": ["boolean", "double", "bytes"]}},
        {"name": "kind", "type": {"type": "enum", "name": "Kind", "symbols": ["A", "B"]}},
        {"name": "at", "type": {"type": "long", "logicalType": "timestamp-micros"}},
        {"name": "worth", "type": ["null", {"type": "bytes", "logicalType": "decimal", "precision": 20, "scale": 3}]},
        {"name": "sum", "type": {"type": "fixed", "name": "Sum", "size": 4}},
        {"name": "other", "type": ["null", "Sum"]},
    ],
}


def written(schema: Any, value: object) -> bytes:
    into = io.BytesIO()
    fastavro.schemaless_writer(into, fastavro.parse_schema(schema), value)
    return into.getvalue()


def a(kind: object, logical: str, **more: object) -> dict[str, object]:
    return {"type": kind, "logicalType": logical, **more}


AT = datetime(2026, 11, 21, 9, 0, 0, 120_000, UTC)


@pytest.mark.parametrize(
    ("schema", "value", "said"),
    [
        ("bytes", b"\xff\x00", "/wA="),
        ({"type": "bytes"}, b"", ""),
        (["null", "bytes"], b"a", "YQ=="),
        ({"type": "fixed", "name": "F", "size": 3}, b"abc", "YWJj"),
        (a("bytes", "decimal", precision=9, scale=2), Decimal("-12.30"), "-12.30"),
        (a("bytes", "decimal", precision=9), Decimal(7), "7"),
        (a("fixed", "decimal", name="D", size=8, precision=9, scale=9), Decimal("0.000000001"), "0.000000001"),
        (a("int", "date"), date(1969, 12, 31), "1969-12-31"),
        (a("int", "time-millis"), time(1, 2, 3, 4_000), "01:02:03.004"),
        (a("long", "time-micros"), time(23, 59, 59, 999_999), "23:59:59.999999"),
        (a("long", "timestamp-millis"), AT, "2026-11-21T09:00:00.120Z"),
        (a("long", "timestamp-millis"), -1, "1969-12-31T23:59:59.999Z"),
        (a("long", "timestamp-micros"), AT, "2026-11-21T09:00:00.120000Z"),
        (a("long", "timestamp-nanos"), 1_700_000_000_123_456_789, "2023-11-14T22:13:20.123456Z"),
        (a("long", "local-timestamp-millis"), 0, "1970-01-01T00:00:00.000"),
        (a("string", "uuid"), uuid.UUID(int=1), str(uuid.UUID(int=1))),
        (a("fixed", "duration", name="D", size=12), b"\1\0\0\0\2\0\0\0\xdc\5\0\0", "P1M2DT1.500S"),
        (a("string", "iso-country"), "CH", "CH"),
        (a("long", "timestamp-millis"), 2**60, 2**60),
        (a("int", "date"), 2**30, 2**30),
        ({"type": "map", "values": "bytes"}, {"k": b"a"}, {"k": "YQ=="}),
        ("null", None, None),
        (
            TREE,
            {"said": "a", "under": [{"said": "b", "under": []}]},
            {"said": "a", "under": [{"said": "b", "under": []}]},
        ),
    ],
)
def test_a_value_is_what_json_would_say(schema: object, value: object, said: object) -> None:
    plain = schema if not isinstance(value, int | bytes) else _without_logical(schema)
    assert decoder(schema)(written(plain, value)) == said
    orjson.dumps(said)


def _without_logical(schema: Any) -> Any:
    return {key: each for key, each in schema.items() if key != "logicalType"} if isinstance(schema, dict) else schema


def test_a_uuid_of_sixteen_bytes_is_written_as_uuids_are() -> None:
    assert decoder(a("fixed", "uuid", name="U", size=16))(bytes(15) + b"\1") == str(uuid.UUID(int=1))


def test_as_many_records_as_anybody_means_are_read() -> None:
    read = decoder({"type": "array", "items": FLAG})
    for _ in range(2):  # each value has its own count
        assert read(b"\xc0\x9a\x0c" + bytes(100_000) + b"\0") == [{"flag": False}] * 100_000


def test_a_type_within_a_type_is_that_type() -> None:
    assert decoder({"type": {"type": "array", "items": a("int", "date")}})(b"\2\0\0") == ["1970-01-01"]


def test_names_that_other_schemas_define_are_known() -> None:
    inner = {"type": "record", "name": "Inner", "namespace": "n", "fields": [{"name": "b", "type": "bytes"}]}
    middle = {"type": "record", "name": "Middle", "namespace": "n", "fields": [{"name": "inner", "type": "Inner"}]}
    outer = {"type": "record", "name": "Outer", "fields": [{"name": "m", "type": ["null", "n.Middle"]}]}
    assert decoder(outer, inner, middle)(b"\2\2a") == {"m": {"inner": {"b": "YQ=="}}}
    assert decoder("n.Inner", inner)(b"\2a") == {"b": "YQ=="}
    assert decoder(["n.Inner", "n.Middle"], inner, middle)(b"\2\2a") == {"inner": {"b": "YQ=="}}
    with pytest.raises(Unusable, match="names that it does not define"):
        decoder(outer, middle)


@pytest.mark.parametrize(
    ("schema", "value", "why"),
    [
        ("string", b"\x08abc", "it ends too early"),
        ("string", b"", "it ends too early"),
        ("int", b"\2\2", "1 bytes are left over"),
        ("string", b"\4\xff\xfe", "its bytes are not what the schema says"),
        (["null", "string"], b"\x08", "its bytes are not what the schema says"),
        ({"type": "enum", "name": "E", "symbols": ["A"]}, b"\x08", "its bytes are not what the schema says"),
        ("bytes", b"\xfe\xff\xff\xff\xff\xff\xff\xff\xff\1x", "it ends too early"),  # says that it is 2**62 bytes
        ("string", b"\1x", "it ends too early"),  # and -1
        ({"type": "array", "items": "string"}, b"\xfe\xff\xff\xff\xff\xff\xff\xff\xff\1\2a", "it ends too early"),
        ({"type": "map", "values": "int"}, b"\xfe\xff\xff\xff\xff\xff\xff\xff\xff\1\2a\2", "it ends too early"),
        ("long", b"\xff" * 40, "its bytes are not what the schema says"),
        (a("bytes", "decimal", precision=9), b"\x92\4" + bytes(265), "its bytes are not what the schema says"),
        (
            {"type": "array", "items": FLAG},
            b"\x80\x89\x7a" + bytes(1_000_000) + b"\0",
            "more than 100,000 records within",
        ),
        (CHAIN, b"\2" * 1_000_000, "it is nested too deeply"),
        (TREE, b"\2a\2" * 300_000, "it is nested too deeply"),
    ],
)
def test_bytes_that_do_not_fit_are_told_and_cost_nothing(schema: object, value: bytes, why: str) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(Unfitting, match=why):
        decoder(schema)(value)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 64 * 1024


def nested(depth: int, innermost: object = "int") -> object:
    for _ in range(depth):
        innermost = {"type": "array", "items": innermost}
    return innermost


EMPTY = {"type": "record", "name": "Empty", "fields": []}


@pytest.mark.parametrize(
    ("schema", "why"),
    [
        (5, "no Avro schema"),
        (None, "no Avro schema"),
        ("Nothing", "no Avro schema"),
        ({"type": "record", "name": "R", "fields": [{"name": "f"}]}, "no Avro schema"),
        ({"type": "record", "name": "R", "fields": "f"}, "no Avro schema"),
        ({"type": "array", "items": "null"}, "items may take no bytes"),
        ({"type": "array", "items": EMPTY}, "items may take no bytes"),
        ({"type": "map", "values": {"type": "array", "items": {"type": "fixed", "name": "F", "size": 0}}}, "no bytes"),
        (
            {"type": "record", "name": "R", "fields": [{"name": "f", "type": {"type": "array", "items": "null"}}]},
            "no b",
        ),
        (nested(2_000), "nested too deeply"),
    ],
)
def test_what_is_no_schema_or_a_dangerous_one_is_told(schema: object, why: str) -> None:
    with pytest.raises(Unusable, match=why):
        decoder(schema)


def test_a_record_that_holds_itself_without_end_is_never_whole() -> None:
    with pytest.raises(Unfitting):
        decoder({"type": "record", "name": "R", "fields": [{"name": "r", "type": "R"}]})(b"")


PLAIN = st.none() | st.booleans() | st.integers(-9, 9) | st.sampled_from(["null", "string", "bytes", "R", "record"])
SCHEMAS = st.recursive(
    PLAIN,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["type", "name", "items", "values", "fields", "symbols", "size", "logicalType", "scale"]),
            inner | st.sampled_from(["record", "array", "map", "enum", "fixed", "decimal", "uuid", "date"]),
            max_size=4,
        )
    ),
    max_leaves=10,
)


@given(SCHEMAS, st.binary(max_size=50))
def test_whatever_the_schema_and_the_bytes_nothing_else_is_raised(schema: object, value: bytes) -> None:
    with suppress(Unusable, Unfitting):
        decoder(schema)(value)


READ = decoder(RECORD)
TREES = decoder(TREE)


@pytest.mark.parametrize("read", [READ, TREES], ids=["flat", "recursive"])
@given(st.binary(max_size=200))
def test_whatever_the_bytes_they_are_read_or_do_not_fit(read: Callable[[bytes], object], value: bytes) -> None:
    try:
        found = read(value)
    except Unfitting:
        return
    orjson.dumps(found)


LONG = st.integers(-(2**63), 2**63 - 1)
TICKETS = st.fixed_dictionaries(
    {
        "id": LONG,
        "text": st.none() | st.text(),
        "tags": st.lists(st.text()),
        "more": st.dictionaries(st.text(), st.booleans() | st.floats(allow_nan=False)),
        "kind": st.sampled_from("AB"),
        "at": st.datetimes(datetime(1, 1, 2), datetime(9999, 12, 30)),  # noqa: DTZ001
        "worth": st.none() | st.decimals(-(10**9), 10**9, places=3),
        "sum": st.binary(min_size=4, max_size=4),
        "other": st.none(),
    }
)


@given(TICKETS)
def test_what_was_written_is_read(ticket: dict[str, Any]) -> None:
    found: Any = READ(written(RECORD, {**ticket, "at": ticket["at"].replace(tzinfo=UTC)}))
    assert [found[name] for name in ("id", "text", "tags", "more", "kind")] == [
        ticket[name] for name in ("id", "text", "tags", "more", "kind")
    ]
    assert datetime.fromisoformat(found["at"]) - ticket["at"].replace(tzinfo=UTC) == timedelta(0)
    assert (found["worth"] and Decimal(found["worth"])) == ticket["worth"]
