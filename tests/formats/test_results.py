"""Results by a schema: what the code writes, held against the schemas that are committed, by other readers."""

import io
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime
from typing import Any

import fastavro
import jsonschema
import orjson
import pytest

from service.dispatch.answers import Answer
from service.dispatch.lanes import stage_of
from service.documents import Classified, ClassScore, Document, Message, Reason, Refused
from service.formats.framing import prefix
from service.formats.results import Written, written
from service.routing.records import Routing
from service.routing.rules import Rules
from service.settings import Results, Stream
from tests import reference
from tests.classifiers import FirstWord, account
from tests.records import record

AT = 1_700_000_000.871
RULES = [{"best": "refund", "to": "refunds"}, {"best_at_least": 0.5, "to": "refunds"}]
HARM = ClassScore("Hate", None, 4)


def stream(form: str, **more: Any) -> Stream:
    least = {"name": "tickets", "input": "in", "output": "out", "dead_letter": "dead", "classify_with": "a"}
    return Stream.model_validate({**least, "results": {"format": form}, **more})


def least() -> Answer:
    document = Document(record(7), "T-1", "text", None, AT)
    return Answer([document], [Classified(())], account(FirstWord(), "a"), 1, AT)


def most() -> Answer:
    """Everything that a result may have."""
    answer, classes = least(), Classified((ClassScore("refund", 0.9), HARM), 3, ("split into 2 parts",))
    refused = Refused(Reason.REFUSED_BY_CLASSIFIER, "no")
    stages = (stage_of(0, answer, classes)._replace(cost=0.25), stage_of(1, answer, refused))
    document = answer.documents[0]._replace(stages=stages)
    return replace(answer, documents=[document], outcomes=[classes], answered_from="cache")


def routed(answer: Answer, form: str, **more: Any) -> list[Message]:
    configured = stream(form, **more)
    if (numbered := written(configured.results)) is not None:
        for place, topic in enumerate(configured.topics_of_results):
            numbered.number(topic, 40 + place)
    return Routing(Rules(configured), written=numbered).route(answer)


ANSWERS = {"least": (least(), {}), "most": (most(), {"routes": RULES}), "no route": (least(), {"routes": RULES})}
EACH = pytest.mark.parametrize(("answer", "more"), ANSWERS.values(), ids=ANSWERS)


@EACH
def test_every_result_is_as_the_json_schema_says(answer: Answer, more: dict[str, Any]) -> None:
    for place, message in enumerate(routed(answer, "json_schema", **more)):
        value = message.value or b""
        assert value.startswith(prefix(40 + place))
        assert value[5:] == routed(answer, "json", **more)[0].value
        check = jsonschema.Draft7Validator.FORMAT_CHECKER
        jsonschema.validate(orjson.loads(value[5:]), orjson.loads(Written("json_schema").text), format_checker=check)


@EACH
def test_every_result_in_avro_says_what_it_does_in_json(answer: Answer, more: dict[str, Any]) -> None:
    (plain, *_) = routed(answer, "json", **more)
    schema = fastavro.parse_schema(orjson.loads(Written("avro").text))
    for place, message in enumerate(routed(answer, "avro", **more)):
        value = message.value or b""
        assert value.startswith(prefix(40 + place))
        found: Any = fastavro.schemaless_reader(io.BytesIO(value[5:]), schema, None)
        assert without_defaults(found) == without_defaults(orjson.loads(plain.value or b""))


def without_defaults(said: Any) -> Any:
    """What is said, less what stands for nothing; moments as Avro's readers have them."""
    if isinstance(said, dict):
        moments = {
            name: datetime.fromisoformat(said[name])
            for name in ("received_at", "classified_at")
            if name in said and isinstance(said[name], str)
        }
        return {name: without_defaults(each) for name, each in (said | moments).items() if each not in (None, [])}
    return [without_defaults(each) for each in said] if isinstance(said, list) else said


def test_the_schemas_have_the_fields_of_the_reference() -> None:
    told = ("result", "result_of_identical", "result_of_stages", "result_of_routes")
    fields = {path for part in told for path in reference.SAID[part]}
    fields |= {f"{where}.severity" for where in ("classes[]", "best", "stages[].classes[]")}
    fields |= {"stages[].classes[].score"}
    assert set(avro_paths(orjson.loads(Written("avro").text), {})) == fields
    form = orjson.loads(Written("json_schema").text)
    assert set(json_paths(form, form)) == fields


def avro_paths(schema: Any, names: dict[str, Any], path: str = "") -> Iterator[str]:
    match schema:
        case ["null", inner]:
            yield from avro_paths(inner, names, path)
        case {"type": "record", "name": name, "fields": fields}:
            names[name] = schema
            for each in fields:
                yield from avro_paths(each["type"], names, f"{path}.{each['name']}".removeprefix("."))
        case {"type": "array", "items": {} | "ClassScore" as items}:
            yield from avro_paths(items, names, f"{path}[]")
        case "ClassScore":
            yield from avro_paths(names[schema], names, path)
        case _:
            yield path


def json_paths(schema: Any, whole: Any, path: str = "") -> Iterator[str]:
    match schema:
        case {"$ref": place}:
            yield from json_paths(whole["definitions"][place.rpartition("/")[2]], whole, path)
        case {"oneOf": [inner, _]}:
            yield from json_paths(inner, whole, path)
        case {"type": "object", "properties": properties, "additionalProperties": False}:
            for name, each in properties.items():
                yield from json_paths(each, whole, f"{path}.{name}".removeprefix("."))
        case {"type": "array", "items": {"$ref": _} as items}:
            yield from json_paths(items, whole, f"{path}[]")
        case _:
            yield path


@pytest.mark.parametrize("form", ["avro", "json_schema"])
def test_what_people_are_asked_stays_json(form: str) -> None:
    review = {"review": {"topic": "people", "decisions": "decided"}, "routes": [{"best": "refund", "to": "people"}]}
    result, question = routed(most(), form, **review)
    assert result.topic == "out"
    assert orjson.loads(question.value or b"")["review"]["proposed"] == ["refund"]


@pytest.mark.parametrize("form", ["avro", "json_schema"])
def test_a_result_does_not_name_the_schema_of_its_record_and_is_no_event(form: str) -> None:
    answer = least()
    headers = [("a", b"1"), ("__value_schema_id", prefix(1)), ("ce_id", b"7")]
    document = answer.documents[0]._replace(record=record(7, headers=headers))
    answer = replace(answer, documents=[document])
    (message,) = routed(answer, form, document={"format": "registry"})
    assert [name for name, _ in message.headers] == ["a", "ce_id", "labelstream-id"]
    (message,) = routed(answer, form, document={"format": "cloudevents", "text": "/data"})
    assert [name for name, _ in message.headers] == ["a", "labelstream-id"]


def test_results_of_other_formats_are_by_no_schema() -> None:
    assert written(Results()) is None
    assert written(Results(format="cloudevents")) is None
