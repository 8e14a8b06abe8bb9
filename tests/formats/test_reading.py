import string
from collections.abc import Callable
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.documents import Document, Reason, Refused
from service.formats.reading import Reader
from service.settings import Fields
from tests.records import record

NOW = 1_700_000_000.25


def longer_than(most: int) -> Callable[[str], str | None]:
    return lambda text: f"longer than {most}" if len(text) > most else None


def read(value: bytes | None, *, most: int = 1000, **fields: Any) -> Document | Refused:
    return Reader(Fields(**fields), longer_than(most)).read(record(7, value), NOW)


def found(value: object, **fields: Any) -> Document:
    document = read(orjson.dumps(value), **fields)
    assert isinstance(document, Document), document
    return document


def refused(value: bytes | None, **fields: Any) -> Refused:
    refusal = read(value, **fields)
    assert isinstance(refusal, Refused), refusal
    return refusal


def test_a_document_has_its_text_its_id_its_language_and_the_time_it_was_read() -> None:
    document = found({"id": "T-1", "text": "My invoice is wrong", "lang": "en"}, language="/lang")
    assert document == Document(document.record, "T-1", "My invoice is wrong", "en", NOW)
    assert document.record.value == b'{"id":"T-1","text":"My invoice is wrong","lang":"en"}'


@pytest.mark.parametrize(
    ("pointer", "body"),
    [
        ("/text", {"text": "here"}),
        ("/ticket/body", {"ticket": {"body": "here"}}),
        ("/parts/1/text", {"parts": [{}, {"text": "here"}]}),
        ("/a~1b", {"a/b": "here"}),
        ("/a~0b", {"a~b": "here"}),
        ("/~01", {"~1": "here"}),  # first ~1, then ~0: the other order would make a slash of it
        ("/0", {"0": "here"}),
        ("/0", ["here"]),
        ("/", {"": "here"}),
        ("/größe", {"größe": "here"}),
    ],
)
def test_a_json_pointer_finds_what_it_points_at(pointer: str, body: object) -> None:
    assert found(body, text=pointer).text == "here"


@pytest.mark.parametrize(
    ("pointer", "body"),
    [
        ("/text", {}),
        ("/text", {"text": None}),
        ("/text", []),
        ("/text", "text"),
        ("/text", 5),
        ("/text", None),
        ("/a/b", {"a": "b"}),
        ("/a/b/c", {"a": {}}),
        ("/2", ["a", "b"]),
        ("/-1", ["a", "b"]),
        ("/-", ["a", "b"]),
        ("/1e0", ["a", "b"]),
    ],
)
def test_a_text_that_is_not_there_is_refused_by_the_name_of_its_pointer(pointer: str, body: object) -> None:
    refusal = refused(orjson.dumps(body), text=pointer)
    assert refusal == Refused(Reason.MISSING_TEXT, f"there is no {pointer} in the record")


def test_several_texts_are_joined_in_order_and_those_that_are_missing_left_out() -> None:
    fields = {"text": ("/subject", "/body", "/note")}
    assert found({"note": "c", "subject": "a", "body": "b"}, **fields).text == "a\nb\nc"
    assert found({"note": "c", "subject": None}, **fields).text == "c"
    assert refused(b"{}", **fields).message == "there is no /subject or /body or /note in the record"


@pytest.mark.parametrize("text", [5, True, 1.5, ["a"], {"a": "b"}])
def test_a_text_that_is_not_a_string_is_refused_and_not_quoted(text: object) -> None:
    refusal = refused(orjson.dumps({"subject": "CANARY", "body": text}), text=("/subject", "/body"))
    assert refusal == Refused(Reason.MISSING_TEXT, "/subject or /body is not a string")


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"CANARY",
        b'{"text": "CANARY"',
        b'{"text": "CANARY"} more',
        b"\xff\xfe\x00",
        b'{"text": "\xe9"}',
        rb'{"text": "\ud800"}',  # half of a surrogate pair: no UTF-8 can hold it
        b'{"text": NaN}',
        b"[" * 100_000,
        "\ufeff{}".encode(),
    ],
)
def test_what_is_not_json_is_undecodable_and_not_quoted(value: bytes) -> None:
    refusal = refused(value)
    assert refusal.reason is Reason.UNDECODABLE
    assert refusal.message.startswith("not JSON: ")
    assert "CANARY" not in refusal.message


@pytest.mark.parametrize("text", ["", " ", "\n\t ", "\u2003\u00a0"])
def test_a_text_without_a_letter_in_it_is_empty(text: str) -> None:
    assert refused(orjson.dumps({"text": text})).reason is Reason.EMPTY_TEXT
    assert refused(orjson.dumps({"a": text, "b": text}), text=("/a", "/b")).reason is Reason.EMPTY_TEXT


def test_no_value_is_a_tombstone() -> None:
    assert refused(None).reason is Reason.TOMBSTONE
    assert refused(None, format="text").reason is Reason.TOMBSTONE


def test_a_text_is_as_long_as_its_characters_and_may_be_as_long_as_allowed() -> None:
    longest = "ä" * 1000
    assert found({"text": longest}).text == longest
    refusal = refused(orjson.dumps({"text": longest + "é"}))
    assert refusal == Refused(Reason.TOO_LONG, "longer than 1000")


@pytest.mark.parametrize(("setting", "length", "is_read"), [(10, 10, True), (10, 11, False), (5000, 1001, False)])
def test_the_lower_of_the_setting_and_what_accounts_take_is_the_bound(setting: int, length: int, is_read: bool) -> None:
    outcome = read(orjson.dumps({"text": "x" * length}), max_characters=setting)
    assert isinstance(outcome, Document) is is_read


@pytest.mark.parametrize(
    ("body", "name"),
    [
        ({"id": "T-1"}, "T-1"),
        ({"id": 1001}, "1001"),
        ({"id": 0}, "0"),
        ({"id": ""}, "incoming-0-7"),
        ({"id": None}, "incoming-0-7"),
        ({"id": True}, "incoming-0-7"),
        ({"id": 1.5}, "incoming-0-7"),
        ({"id": {"a": 1}}, "incoming-0-7"),
        ({}, "incoming-0-7"),
    ],
)
def test_an_id_is_a_string_or_a_whole_number_and_else_the_records_place(body: dict[str, Any], name: str) -> None:
    assert found({**body, "text": "x"}).id == name


def test_without_a_pointer_to_an_id_the_place_is_the_id() -> None:
    assert found({"id": "T-1", "text": "x"}, id=None).id == "incoming-0-7"


@pytest.mark.parametrize("spoken", ["", None, 5, ["en"]])
def test_a_language_that_is_no_string_is_none(spoken: object) -> None:
    assert found({"text": "x", "lang": spoken}, language="/lang").language is None


def test_a_text_record_is_its_document() -> None:
    document = read("Straße".encode(), format="text")
    assert isinstance(document, Document)
    assert (document.text, document.id, document.language) == ("Straße", "incoming-0-7", None)
    assert read(b"ab\xff", format="text") == Refused(Reason.UNDECODABLE, "not UTF-8 text: invalid start byte at byte 2")
    assert refused(b"  ", format="text").reason is Reason.EMPTY_TEXT


NESTED = Reader(Fields(text=("/a/0", "/b~1c"), language="/a", id="/b"), longer_than(50))
PLAIN = Reader(Fields(format="text"), longer_than(50))
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from(["a", "b", "b/c", "0", "é"]) | st.text(), inner),
)


@given(st.none() | st.binary() | st.text(string.printable).map(str.encode) | JSON.map(orjson.dumps))
def test_whatever_the_bytes_there_is_a_document_or_a_reason(value: bytes | None) -> None:
    for reader in (NESTED, PLAIN):
        outcome = reader.read(record(7, value), NOW)
        if isinstance(outcome, Document):
            assert outcome.text.strip()
            assert len(outcome.text) <= 50
            assert outcome.id
            assert outcome.record.value is value
        else:
            assert outcome.reason in Reason
            assert outcome.message


@pytest.mark.parametrize("encoding", ["latin-1", "utf-16", "cp1252", "UTF-8"])
def test_a_text_record_may_be_in_an_encoding_of_its_own(encoding: str) -> None:
    document = read("Straße".encode(encoding), format="text", encoding=encoding)
    assert isinstance(document, Document)
    assert document.text == "Straße"


def test_what_is_not_in_that_encoding_is_refused() -> None:
    message = "not UTF-16 text: truncated data at byte 2"
    assert read(b"a\0b", format="text", encoding="utf-16") == Refused(Reason.UNDECODABLE, message)
