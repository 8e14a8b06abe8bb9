from collections.abc import Sequence
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.dispatch.answers import Answer
from service.documents import Classified, ClassScore, Document, Message, Outcome, Position, Reason, Record, Refused
from service.formats.framing import HEADER
from service.review.join import proposed
from service.routing.records import Routing, dead_letter, redrives, sent_back
from service.routing.rules import Rules
from service.settings import Review, Route, Stream
from tests.classifiers import FirstWord, account
from tests.records import record

STREAM = Stream(name="tickets", input="incoming", classify_with=("azure",), output="classified", dead_letter="dead")
ROUTED = STREAM.model_copy(
    update={
        "routes": (
            Route.model_validate({"class": "billing", "at_least": 0.8, "to": "billing"}),
            Route.model_validate({"class": "refund", "to": "billing"}),
            Route.model_validate({"best_below": 0.6, "to": "review"}),
            Route.model_validate({"class": "spam", "to": "classified"}),
        )
    }
)
AT = 1_795_251_600.871


def route(stream: Stream, answered: Answer) -> list[Message]:
    return Routing(Rules(stream)).route(answered)


def scores(**classes: float | None) -> Classified:
    return Classified(tuple(ClassScore(name, score) for name, score in classes.items()))


def answer(*outcomes: Outcome, documents: Sequence[Document] = (), attempts: int = 1) -> Answer:
    documents = documents or [ticket(offset) for offset in range(len(outcomes))]
    return Answer(documents, outcomes, account(FirstWord(model="tickets/production"), "azure"), attempts, AT)


def ticket(offset: int, **fields: Any) -> Document:
    read = record(offset, b'{"id":"T-1001","text":"My invoice"}', key=b"customer-1", **fields)
    return Document(read, "T-1001", "My invoice", None, AT - 0.751)


def test_a_result_says_what_was_found_by_whom_when_and_where_the_document_came_from() -> None:
    outcome = Classified((ClassScore("billing", 0.93), ClassScore("refund", 0.04)), units=1, warnings=("truncated",))
    (message,) = route(STREAM, answer(outcome, documents=[ticket(812)]))
    assert orjson.loads(message.value or b"") == {
        "id": "T-1001",
        "stream": "tickets",
        "task": "single_label",
        "classes": [{"name": "billing", "score": 0.93}, {"name": "refund", "score": 0.04}],
        "best": {"name": "billing", "score": 0.93},
        "account": "azure",
        "provider": "fake",
        "model": "tickets/production",
        "source": {"topic": "incoming", "partition": 0, "offset": 812},
        "received_at": "2026-11-21T09:00:00.120Z",
        "classified_at": "2026-11-21T09:00:00.871Z",
        "attempts": 1,
        "usage": {"characters": 10, "units": 1, "cost": None},
        "warnings": ["truncated"],
    }


def test_a_copy_for_reviewers_has_the_text_the_rule_and_the_classes_on_offer_and_no_other_has() -> None:
    reviewed = ROUTED.model_copy(update={"review": Review(topic="review", decisions="decisions")})
    asked = ticket(812)._replace(text="half a \ud83d pair")
    routing = Routing(Rules(reviewed), classes={"refund", "billing"})
    result, question = routing.route(answer(scores(billing=0.5, refund=0.4), documents=[asked]))[::2]
    assert (result.topic, question.topic, question.key) == ("classified", "review", b"customer-1")
    found = orjson.loads(question.value or b"")
    assert found.pop("text") == "half a ? pair"
    assert found.pop("review") == {
        "question": "tickets:incoming-0-812",
        "rules": ["routes[2]"],
        "proposed": ["billing"],
        "classes_offered": ["billing", "refund"],
    }
    assert found == orjson.loads(result.value or b"")
    (_, copy, _) = routing.route(answer(scores(billing=0.5, refund=0.4), documents=[asked]))
    assert copy.value == result.value


def test_of_several_labels_those_are_proposed_that_reach_their_thresholds() -> None:
    stream = ROUTED.model_copy(update={"thresholds": {"refund": 0.5}})
    found = scores(a=0.9, refund=0.4, b=None).classes
    assert proposed(stream, found, "multi_label") == ["a", "b"]
    assert proposed(stream, found, "single_label") == ["a"]
    assert proposed(stream, (), "single_label") == []


def test_a_result_keeps_the_key_and_the_headers_of_its_record_and_has_an_id_that_repeats() -> None:
    asked = ticket(812, headers=[("traceparent", b"00-1"), ("x", b""), ("x", b"\xff")])
    first, again = (route(STREAM, answer(scores(billing=1), documents=[asked]))[0] for _ in range(2))
    assert (first.topic, first.key, first.source) == ("classified", b"customer-1", Position("incoming", 0, 812))
    assert list(first.headers) == [
        ("traceparent", b"00-1"),
        ("x", b""),
        ("x", b"\xff"),
        ("labelstream-id", b"tickets:incoming-0-812"),
    ]
    assert first == again


def test_nothing_but_a_dead_letter_names_the_schema_of_its_record() -> None:
    asked = ticket(812, headers=[("kept", b"1"), (HEADER, b"\0\0\0\0\7")])
    result, copy = route(ROUTED, answer(scores(billing=1), documents=[asked]))
    for message in (result, copy):
        assert [name for name, _ in message.headers] == ["kept", "labelstream-id"]
    (dead,) = route(ROUTED, answer(Refused(Reason.REFUSED_BY_CLASSIFIER, "no"), documents=[asked]))
    assert HEADER in dict(dead.headers)


def test_a_result_of_a_record_that_was_a_result_or_a_dead_letter_before_is_neither() -> None:
    refusal = Refused(Reason.REFUSED_BY_CLASSIFIER, "no")
    (dead,) = route(STREAM, answer(refusal))
    redriven = ticket(5, headers=[*dead.headers, ("labelstream-id", b"another:incoming-0-1"), ("kept", b"1")])
    (message,) = route(STREAM, answer(scores(billing=1), documents=[redriven]))
    assert not message.is_dead_letter
    assert [value for name, value in message.headers if name == "labelstream-id"] == [b"tickets:incoming-0-5"]
    assert ("kept", b"1") in message.headers
    (again,) = route(STREAM, answer(refusal, documents=[redriven]))
    assert [name for name, _ in again.headers].count("labelstream-error-type") == 1


def test_a_result_without_classes_or_without_scores_says_so() -> None:
    none, unscored = route(STREAM, answer(Classified(()), scores(hate=None)))
    body = orjson.loads(none.value or b"")
    assert (body["classes"], body["best"]) == ([], None)
    body = orjson.loads(unscored.value or b"")
    assert body["best"] == {"name": "hate", "score": None}


def test_a_result_has_the_severity_of_a_class_beside_its_score_where_there_is_one() -> None:
    harms = Classified((ClassScore("blocklist/slurs", None), ClassScore("Violence", None, 4), ClassScore("rude", 0.5)))
    (message,) = route(STREAM, answer(harms))
    assert orjson.loads(message.value or b"")["classes"] == [
        {"name": "blocklist/slurs", "score": None},
        {"name": "Violence", "score": None, "severity": 4},
        {"name": "rude", "score": 0.5},
    ]
    (message,) = route(STREAM, answer(Classified((ClassScore("Violence", None, 6),))))
    assert orjson.loads(message.value or b"")["best"] == {"name": "Violence", "score": None, "severity": 6}


def test_a_dead_letter_is_the_record_byte_for_byte_and_says_why_it_is_there() -> None:
    value, headers = b"\x00\xff not json", [("traceparent", b"00-1"), ("odd", b"\xfe")]
    read = record(9, value, key=b"\x80", headers=headers)
    message = dead_letter(STREAM, read, Refused(Reason.UNDECODABLE, "not JSON: täg"))
    assert (message.topic, message.key, message.value) == ("dead", b"\x80", value)
    assert message.is_dead_letter
    assert list(message.headers[:2]) == headers
    about = dict(message.headers[2:])
    assert about.pop("labelstream-version")
    assert about == {
        "__connect.errors.topic": b"incoming",
        "__connect.errors.partition": b"0",
        "__connect.errors.offset": b"9",
        "__connect.errors.stage": b"READ",
        "__connect.errors.exception.class.name": b"labelstream.undecodable",
        "__connect.errors.exception.message": "not JSON: täg".encode(),
        "labelstream-error-type": b"undecodable",
        "labelstream-stream": b"tickets",
        "labelstream-attempts": b"0",
    }


def test_a_dead_letter_of_a_record_without_value_and_key_has_none_either() -> None:
    message = dead_letter(STREAM, record(1, None), Refused(Reason.TOMBSTONE, "no value"))
    assert (message.key, message.value) == (None, None)


def test_refused_documents_of_an_answer_become_dead_letters_in_their_place() -> None:
    refusal = Refused(Reason.REFUSED_BY_CLASSIFIER, "InvalidDocument")
    messages = route(ROUTED, answer(scores(other=0.9), refusal, scores(other=0.9), attempts=3))
    assert [message.topic for message in messages] == ["classified", "dead", "classified"]
    assert messages[1].value == b'{"id":"T-1001","text":"My invoice"}'
    about = dict(messages[1].headers)
    assert (about["__connect.errors.stage"], about["labelstream-attempts"]) == (b"CLASSIFY", b"3")


def test_an_answer_with_fewer_outcomes_than_documents_is_an_error() -> None:
    with pytest.raises(ValueError, match="shorter"):
        route(STREAM, answer(scores(a=1), documents=[ticket(0), ticket(1)]))


@pytest.mark.parametrize(
    ("outcome", "topics"),
    [
        (scores(billing=0.8, refund=0.1), ["classified", "billing"]),  # also by a class that is not the best
        (scores(billing=0.79), ["classified"]),
        (scores(other=0.9, refund=0.01), ["classified", "billing"]),
        (scores(billing=0.9, refund=0.9), ["classified", "billing"]),  # once, though two rules say so
        (scores(other=0.59), ["classified", "review"]),
        (scores(other=0.6), ["classified"]),
        (scores(refund=0.5), ["classified", "billing", "review"]),
        (scores(billing=None), ["classified", "billing"]),  # without a score a class counts as certain
        (scores(spam=1.0), ["classified"]),
        (Classified(()), ["classified", "review"]),  # nothing was found, so nothing is certain
    ],
)
def test_a_result_goes_to_the_output_and_once_to_each_topic_whose_rule_it_meets(
    outcome: Classified, topics: list[str]
) -> None:
    messages = route(ROUTED, answer(outcome))
    assert [message.topic for message in messages] == topics
    assert len({message[1:3] for message in messages}) == 1, "every copy is the same"


@pytest.mark.parametrize(
    ("outcome", "said"),
    [
        (scores(refund=0.7), {"rule": "routes[1]", "to": ["billing"]}),
        (scores(refund=0.5), {"rule": "routes[1]", "to": ["billing", "review"], "also": ["routes[2]"]}),
        (scores(other=0.9), None),
    ],
)
def test_a_result_says_which_rules_it_met_and_where_its_copies_are(outcome: Classified, said: object) -> None:
    for message in route(ROUTED, answer(outcome)):
        assert orjson.loads(message.value or b"")["route"] == said
    assert b'"route"' not in (route(STREAM, answer(outcome))[0].value or b"")


def test_only_a_message_that_says_why_it_was_refused_is_a_dead_letter() -> None:
    assert not Message("classified", None, b"", [("x", b"")], Position("a", 0, 0)).is_dead_letter


NAMES = st.sampled_from(["own", "traceparent", "labelstream-id", "x-labelstream", "__connect.errors.task.id", "ü", ""])


@given(
    key=st.none() | st.binary(max_size=9),
    value=st.none() | st.binary(max_size=9),
    headers=st.lists(st.tuples(NAMES, st.binary(max_size=9)), max_size=5),
    times=st.integers(1, 4),
    where=st.integers(0, 99),
)
def test_a_dead_letter_that_is_sent_back_is_the_document_again_and_knows_how_often(
    key: bytes | None, value: bytes | None, headers: list[tuple[str, bytes]], times: int, where: int
) -> None:
    read = Record(Position("incoming", where, 7), 0, key, value, headers)
    for count in range(1, times + 1):
        letter = dead_letter(STREAM, read, Refused(Reason.TOO_LONG, "long"), attempts=1)
        assert redrives(Record(*_stored(letter))) == count - 1
        back = sent_back(STREAM, Record(*_stored(letter)))
        assert back[:3] == ("incoming", key, value)
        assert back.source[:2] == ("incoming", where)
        assert list(back.headers) == [*headers, ("labelstream-redrives", str(count).encode())]
        read = read._replace(headers=back.headers)


def _stored(letter: Message) -> tuple[Position, int, bytes | None, bytes | None, Sequence[tuple[str, bytes]]]:
    return Position("dead", 0, 3), 0, letter.key, letter.value, letter.headers


@pytest.mark.parametrize(
    ("given", "count"),
    [(b"3", 3), (b"", 0), (b"-1", 0), (b"many", 0), (b"9" * 40, 0), (b"\xb2", 0), ("٣".encode(), 0)],
)
def test_a_count_that_is_none_is_none(given: bytes, count: int) -> None:
    assert redrives(record(0, headers=[("labelstream-redrives", given)])) == count


@pytest.mark.parametrize("number", [b"", b"-1", b"x", b"9" * 40])
def test_a_letter_that_does_not_say_where_it_was_goes_by_its_own_place(number: bytes) -> None:
    headers = [("__connect.errors.topic", b"incoming"), ("__connect.errors.partition", number)]
    assert sent_back(STREAM, record(5, headers=headers)).source == Position("incoming", 0, 5)


def test_a_letter_of_another_topic_goes_by_its_own_place() -> None:
    headers = [("__connect.errors.topic", b"before"), ("__connect.errors.partition", b"3")]
    letter = record(5, headers=headers)._replace(position=Position("dead", 2, 5))
    assert sent_back(STREAM, letter).source == Position("dead", 2, 5)


def test_a_result_tells_nothing_of_how_often_its_document_came() -> None:
    (message,) = route(STREAM, answer(scores(a=1.0), documents=[ticket(1, headers=[("labelstream-redrives", b"2")])]))
    assert [name for name, _ in message.headers] == ["labelstream-id"]
