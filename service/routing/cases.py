"""`labelstream check --cases`: a user's own examples of where results should go, held against the routes. Pure.

A case says what a classifier would answer, as much of the document as the rules look at, and where the result should be
copied. Nothing is opened for it: no broker, no account.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import orjson
from pydantic import Field, RootModel, ValidationError, field_validator

from service.documents import ClassScore, Document, Position, Record, Refused
from service.errors import Misconfigured
from service.formats.reading import Reader
from service.routing.rules import Rules
from service.settings import Branch, Settings, Share, Stream, Topic, Whole, misconfigured, tree

_NO_TEXT = "x"


class Class(Branch):
    """What a classifier says of a class."""

    score: Share | None = None
    """How sure it is; none where it gives no score."""
    severity: Annotated[int, Field(ge=0, le=7)] | None = None
    """How grave it is, where it says so."""


class Case(Branch):
    """An example: a result, what is known of its document, and where it should go."""

    name: str | None = None
    """What the case is called; else its number."""
    stream: str | None = None
    """The stream whose routes are meant, where there are several."""
    result: dict[str, Class]
    """Classes with their scores, `{billing: 0.93}`, or severities, `{Violence: {severity: 4}}`, best first."""
    record: dict[str, Any] | None = None
    """The record as the stream would read it, where rules ask for fields; its text and language are found in it."""
    text: str | None = None
    """The document's text, where rules ask for its length and there is no record."""
    characters: Whole | None = None
    """Its length, in place of a text."""
    language: str | None = None
    """The document's language, where there is no record."""
    headers: dict[str, str] = Field(default={})
    """The record's headers."""
    to: tuple[Topic, ...]
    """The topics that should get copies, in any order; one need not be a list, and none is `[]`."""
    rule: str | None = None
    """The first rule that should be met, where that matters."""

    @field_validator("to", mode="before")
    @classmethod
    def _one_is_a_list(cls, value: object) -> object:
        return [value] if isinstance(value, str) else value

    @field_validator("result", mode="before")
    @classmethod
    def _scores_alone(cls, value: object) -> object:
        if not isinstance(value, dict):
            return value
        return {name: each if isinstance(each, dict) else {"score": each} for name, each in value.items()}


class _Cases(RootModel[Annotated[tuple[Case, ...], Field(min_length=1)]]):
    pass


@dataclass(frozen=True)
class Tried:
    """What became of a case: where its result goes, by which rules, and whether that is as it should be."""

    name: str
    stream: str
    rules: tuple[str, ...]
    to: tuple[str, ...]
    should: tuple[str, ...]
    rule: str | None
    ok: bool


def cases(path: Path) -> tuple[Case, ...]:
    """The cases of a YAML file. Raises Misconfigured."""
    try:
        return _Cases.model_validate(tree(path)).root
    except ValidationError as error:
        raise misconfigured(error, str(path)) from None


def tried(settings: Settings, examples: Sequence[Case]) -> list[Tried]:
    """What becomes of each case. Raises Misconfigured where one makes no sense, or the rules do not."""
    rules = {stream.name: Rules(stream) for stream in settings.streams}
    return list(_each(settings, rules, examples))


def _each(settings: Settings, rules: dict[str, Rules], examples: Sequence[Case]) -> Iterator[Tried]:
    for number, case in enumerate(examples, 1):
        name = case.name or f"case {number}"
        stream = settings.stream(case.stream)
        classes = [ClassScore(each, *found.model_dump().values()) for each, found in case.result.items()]
        decision = rules[stream.name].decide(_document(stream, case, name), classes)
        as_it_should = {*decision.to} == {*case.to} and case.rule in {None, *decision.rules[:1]}
        yield Tried(name, stream.name, decision.rules, decision.to, case.to, case.rule, as_it_should)


def _document(stream: Stream, case: Case, name: str) -> Document:
    headers = [(header, value.encode()) for header, value in case.headers.items()]
    value = orjson.dumps(case.record) if case.record is not None else None
    record = Record(Position(stream.input, 0, 0), 0, None, value, headers)
    if case.record is None:
        text = case.text if case.text is not None else _NO_TEXT * (case.characters or 0)
        return Document(record, name, text, case.language, 0.0, fields=((),) * len(stream.fields_asked))
    found = Reader(stream.document.as_json, lambda _: None, stream.fields_asked).read(record, 0.0)
    if isinstance(found, Refused):
        raise Misconfigured(f"{name}: this record has no result, as it would become a dead letter: {found.message}")
    return found._replace(language=case.language or found.language)
