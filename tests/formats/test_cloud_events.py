"""Events as they are read and written, judged by the project's own SDK."""

import string
from typing import Any

import orjson
import pytest
from cloudevents.core.bindings.kafka import KafkaMessage, from_kafka_event, to_binary_event, to_structured_event
from cloudevents.core.v1.event import CloudEvent
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from service.dispatch.answers import Answer
from service.documents import Classified, ClassScore, Document, Headers, Message, Outcome, Reason, Record, Refused
from service.formats.reading import Reader
from service.routing.records import Routing
from service.routing.rules import Rules
from service.settings import Fields, Results, Stream
from tests.classifiers import FirstWord, account
from tests.records import record

ATTRIBUTES = {"id": "E-1", "source": "/shop", "type": "ticket.opened", "subject": "T-7"}
FIELDS = Fields(format="cloudevents", id="/subject", text=("/data/title", "/data/body"), language="/lang")
READER = Reader(FIELDS, lambda _: None, ("/data/tier", "/type"))
STRUCTURED = (("content-type", b"application/cloudevents+json; charset=UTF-8"),)
AT = 1_795_251_600.871


def sent(message: KafkaMessage) -> Record:
    return record(7, message.value, headers=tuple(message.headers.items()))


def structured(headers: Headers = STRUCTURED, **event: Any) -> Record:
    return record(7, orjson.dumps({"specversion": "1.0", **ATTRIBUTES, **event}), headers=headers)


def binary(value: bytes, **headers: bytes) -> Record:
    named = {"ce_specversion": b"1.0", **{f"ce_{name}": said.encode() for name, said in ATTRIBUTES.items()}}
    return record(7, value, headers=tuple((named | {k.replace("__", "-"): v for k, v in headers.items()}).items()))


def found(read: Record, reader: Reader = READER) -> Document:
    document = reader.read(read, AT)
    assert isinstance(document, Document), document
    return document


def whole(format: str = "cloudevents") -> Reader:  # noqa: A002  as the setting
    return Reader(Fields.model_validate({"format": format, "text": "/data"}), lambda _: None)


@pytest.mark.parametrize("mode", [to_binary_event, to_structured_event])
def test_an_event_is_read_alike_in_both_modes(mode: Any) -> None:
    data = {"title": "Rechnung", "body": "falsch für März", "tier": "gold"}
    document = found(sent(mode(CloudEvent({**ATTRIBUTES, "lang": "de"}, data))))
    assert (document.id, document.text, document.language) == ("T-7", "Rechnung\nfalsch für März", "de")
    assert document.fields == (("gold",), ("ticket.opened",))


def test_what_tells_no_mode_is_taken_for_structured() -> None:
    assert found(structured((), data={"body": "here"})).text == "here"


@pytest.mark.parametrize(
    "read",
    [
        binary("für".encode("latin-1"), content__type=b"text/plain; charset=latin-1"),
        binary('"für"'.encode()),
        binary('"für"'.encode(), content__type=b"application/vnd.shop+json"),
        structured(data="für"),
        structured(data_base64="ZsO8cg==", datacontenttype="text/plain"),
        structured(data_base64="ImbDvHIi"),
    ],
)
def test_data_is_json_or_text_in_the_charset_that_the_event_says(read: Record) -> None:
    assert found(read, whole()).text == "für"


@pytest.mark.parametrize(
    ("read", "why"),
    [
        (structured(specversion="0.3"), "no specversion 1.0"),
        (structured(type=""), "its type is missing"),
        (structured(source=5), "its source is missing"),
        (record(7, b"[]", headers=STRUCTURED), "no JSON object"),
        (record(7, b"{", headers=STRUCTURED), "not JSON"),
        (structured((("Content-Type", b"application/cloudevents+avro"),)), "another form than JSON"),
        (structured((("content-type", b"application/cloudevents-batch+json"),)), "another form than JSON"),
        (structured(data_base64="?"), "not Base64"),
        (structured(data_base64="ü"), "not Base64"),
        (structured(data_base64=1), "data_base64 is not a string"),
        (record(7, b'"x"', headers=(("content-type", b"application/json"),)), "no specversion 1.0"),
        (binary(b"{", content__type=b"application/json"), "not JSON"),
        (binary(b"x", content__type=b"image/png"), "neither JSON nor text"),
        (binary(b"\xff", content__type=b"text/plain"), "not utf-8 text"),
        (binary(b"x", content__type=b"text/plain; charset=klingon"), "names a charset that is not known"),
        (binary(b"x", content__type=b"text/plain; charset=hex"), "names a charset that is not known"),
        (binary(b"x", content__type=b"text/plain; charset=a\0b"), "content type cannot be read"),
        (binary(b"x", content__type=b"text/plain; charset*%b=z" % (b"1" * 900)), "content type cannot be read"),
        (binary(b"x", content__type=b"text/plain; charset*%b=z" % (b"1" * 5_000)), "content type cannot be read"),
        (structured(data_base64="eA==", datacontenttype="text/plain; charset=a\0b"), "content type cannot be read"),
        (binary(b'"x"', ce_subject=b"\xff"), "not utf-8 text"),
    ],
)
def test_what_is_no_event_or_has_no_text_in_it_is_refused(read: Record, why: str) -> None:
    refused = whole().read(read, AT)
    assert isinstance(refused, Refused)
    assert refused.reason is Reason.UNDECODABLE
    assert why in refused.message


@pytest.mark.parametrize("codec", ["idna", "punycode", "utf7", "unicode_escape", "raw_unicode_escape", "undefined"])
def test_a_codec_of_python_that_is_slow_or_gives_half_characters_is_no_charset(codec: str) -> None:
    refused = whole().read(binary(b"+2AA-", content__type=b"text/plain; charset=%b" % codec.encode()), AT)
    assert isinstance(refused, Refused)
    assert "names a charset that is not known" in refused.message


def test_a_content_type_that_would_take_seconds_to_read_is_refused_at_once() -> None:
    refused = whole().read(binary(b"x", content__type=b"text/plain" + b";" * 1_000), AT)
    assert isinstance(refused, Refused)
    assert "content type cannot be read" in refused.message


def test_an_event_without_data_is_a_tombstone_in_binary_mode_and_without_text_in_structured_mode() -> None:
    for read, reason in (
        (binary(b"")._replace(value=None), Reason.TOMBSTONE),
        (structured(), Reason.MISSING_TEXT),
    ):
        refused = READER.read(read, AT)
        assert isinstance(refused, Refused)
        assert refused.reason is reason


NAMES = st.sampled_from(["ce_specversion", "ce_id", "ce_type", "ce_source", "content-type", "CE_x", "other"])
SAID = st.binary(max_size=9) | st.sampled_from([b"1.0", b"text/a;charset=x", b"text/x;charset*0*=\xff", b"a/b+json"])
BODIES = (
    st.binary() | st.text(string.printable).map(str.encode) | st.just(b'{"specversion":"1.0","data_base64":"\\u00fc"}')
)


@given(BODIES, st.lists(st.tuples(NAMES, SAID)))
def test_whatever_the_bytes_and_headers_there_is_a_document_or_a_reason(value: bytes, headers: Headers) -> None:
    assert isinstance(whole().read(record(7, value, headers=headers), AT), Document | Refused)


def routed(results: Results, read: Record, fields: Fields = FIELDS, outcome: Outcome | None = None) -> list[Message]:
    stream = Stream.model_validate(
        {"name": "tickets", "input": "incoming", "classify_with": "a", "output": "classified", "dead_letter": "dead"}
        | {"document": fields, "results": results, "routes": [{"class": "billing", "to": "money"}]}
    )
    outcome = outcome or Classified((ClassScore("billing", 0.9),))
    document = Document(read, "T-7/ü", "text", None, AT)
    return Routing(Rules(stream)).route(Answer([document], [outcome], account(FirstWord(), "a"), 1, AT))


EVENT = binary(b'{"body": "x"}', content__type=b"application/json", traceparent=b"00-1", ce_partitionkey=b"k")


@pytest.mark.parametrize("mode", ["binary", "structured"])
def test_a_result_is_an_event_that_the_sdk_reads_and_no_other_event_than_its_own(mode: str) -> None:
    results = Results.model_validate(
        {"format": "cloudevents", "mode": mode, "source": "/a%20b", "type": "org.example.c"}
    )
    plain = routed(Results(), EVENT)[0]
    for message in routed(results, EVENT):
        assert len(message.headers) == len(dict(message.headers)), "a name stands for one header"
        event = from_kafka_event(KafkaMessage(dict(message.headers), message.key, message.value or b""))
        assert event.get_data() == orjson.loads(plain.value or b"")
        assert (event.get_id(), event.get_subject()) == ("tickets:incoming-0-7", "T-7/ü")
        assert (event.get_source(), event.get_type()) == ("/a%20b", "org.example.c")
        assert (event.get_datacontenttype(), event.get_specversion()) == ("application/json", "1.0")
        assert (at := event.get_time()) is not None
        assert at.isoformat() == "2026-11-21T09:00:00.871000+00:00"
        assert dict(message.headers)["traceparent"] == b"00-1"
        assert event.get_extension("partitionkey") is None
    assert {message.topic for message in routed(results, EVENT)} == {"classified", "money"}


def test_a_plain_result_is_not_taken_for_the_event_that_was_asked_about() -> None:
    assert [name for name, _ in routed(Results(), EVENT)[0].headers] == ["traceparent", "labelstream-id"]


def test_headers_of_records_that_are_no_events_are_left_alone() -> None:
    names = {name for name, _ in routed(Results(), EVENT, Fields())[0].headers}
    assert names == {name for name, _ in EVENT.headers} | {"labelstream-id"}


def test_a_dead_letter_is_the_event_as_it_came() -> None:
    (letter,) = routed(Results(format="cloudevents"), EVENT, outcome=Refused(Reason.REFUSED_BY_CLASSIFIER, "no"))
    assert letter.value == EVENT.value
    assert list(letter.headers)[: len(EVENT.headers)] == list(EVENT.headers)


@pytest.mark.parametrize(
    ("branch", "why"),
    [
        ({"document": {"format": "cloudevents"}}, "say where in the event it is"),
        ({"document": {"encoding": "latin-1"}}, "encoding goes with format: text"),
        ({"document": {"format": "text", "encoding": "hex"}}, "no encoding of text that Python knows"),
        ({"document": {"format": "text", "encoding": "klingon"}}, "no encoding of text that Python knows"),
        ({"results": {"mode": "structured"}}, "mode goes with format: cloudevents"),
        ({"results": {"format": "cloudevents", "source": "a b"}}, "pattern"),
    ],
)
def test_settings_that_mean_nothing_are_refused(branch: dict[str, Any], why: str) -> None:
    kind: Any = Fields if "document" in branch else Results
    with pytest.raises(ValidationError, match=why):
        kind.model_validate(next(iter(branch.values())))
