"""Other forms than JSON, in and out, on a real broker."""

from typing import Any

import orjson
import pytest
from cloudevents.core.bindings.kafka import KafkaMessage, from_kafka_event, to_binary_event, to_structured_event
from cloudevents.core.v1.event import CloudEvent

from tests.kafka.tickets import MAKE_TOPIC, Tickets, Words, running
from tests.kafka.topics import Read

DOCUMENT = {"format": "cloudevents", "id": "/subject", "text": ["/data/title", "/data/body"]}


def event(number: int) -> CloudEvent:
    attributes = {"id": str(number), "source": "/shop", "type": "ticket.opened", "subject": f"T-{number}"}
    return CloudEvent(attributes, {"title": "Rechnung", "body": "falsch für März"})


def of(message: Read) -> Any:
    headers = {name: value or b"" for name, value in message.headers}
    return from_kafka_event(KafkaMessage(headers, message.key, message.value or b""))


@pytest.mark.parametrize("delivery", ["at_least_once", "exactly_once"])
@pytest.mark.parametrize("mode", ["binary", "structured"])
async def test_events_of_both_modes_become_events(bootstrap: str, topic: MAKE_TOPIC, mode: str, delivery: str) -> None:
    results = {"format": "cloudevents", "mode": mode}
    tickets = Tickets(bootstrap, topic, document=DOCUMENT, results=results, delivery=delivery)
    for number in range(12):
        message = (to_binary_event if number % 2 else to_structured_event)(event(number))
        tickets.fill([message.value], key=b"k", partition=number % 3, headers=list(message.headers.items()))
    broken = to_binary_event(event(99))
    tickets.fill([broken.value[:-1]], headers=list(broken.headers.items()))
    async with running(tickets, Words()):
        await tickets.are_done()
    events = [of(each) for each in tickets.results()]
    assert {each.get_subject() for each in events} == {f"T-{number}" for number in range(12)}
    assert len({each.get_id() for each in events}) == len(events) == 12
    assert {(each.get_source(), each.get_type()) for each in events} == {
        ("/labelstream/tickets", "labelstream.classified")
    }
    assert all(each.get_data()["best"]["name"] == "short" for each in events)
    (letter,) = tickets.letters()
    assert letter.value == broken.value[:-1]
    assert set(broken.headers.items()) <= set(letter.headers)
    assert letter.header("labelstream-error-type") == b"undecodable"


@pytest.mark.parametrize("encoding", ["latin-1", "utf-16"])
async def test_texts_in_another_encoding_are_read_and_what_is_not_is_a_dead_letter(
    bootstrap: str, topic: MAKE_TOPIC, encoding: str
) -> None:
    tickets = Tickets(bootstrap, topic, document={"format": "text", "encoding": encoding})
    tickets.fill([f"für {number}".encode(encoding) for number in range(20)])
    odd = {"latin-1": [], "utf-16": [b"abc"]}[encoding]
    tickets.fill(odd)
    async with running(tickets, Words()):
        await tickets.are_done()
    characters = [orjson.loads(each.value or b"")["usage"]["characters"] for each in tickets.results()]
    assert sorted(characters) == [5] * 10 + [6] * 10
    assert [each.value for each in tickets.letters()] == odd
