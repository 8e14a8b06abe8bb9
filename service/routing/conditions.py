"""What routes ask of a result and its document: a small tree, made into one function, or reasoned about. Pure.

Every question is one of three: whether a class is there, whether a number is in a range, whether a word is one of some.
All numbers are always there (a class without a score is certain, what is not there is 0), so that `not` means what it
says; `implications` reasons about the tree.
"""

import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from enum import Enum
from functools import partial
from typing import NamedTuple

from service.documents import ClassScore, Document
from service.settings import Condition

ANYTHING = "*"
"""Stands for every value that a header or a field may have."""

_CERTAIN = 2.0
"""What a class without a score scores: more than any other."""

Classes = Sequence[ClassScore]
Holds = Callable[[Document, Classes], bool]


class Number(Enum):
    """What is measured of a result and its document."""

    BEST_SCORE = "the best score"
    MARGIN = "the margin between the best two"
    LABELS = "the number of classes"
    SEVERITY = "the gravest severity"
    CHARACTERS = "the number of characters"


class Word(Enum):
    """What is read of a result and its document; a header and a field are named beside it."""

    BEST = "the best class"
    LANGUAGE = "the language"
    HEADER = "a header"
    FIELD = "a field"


class Has(NamedTuple):
    """A class is there with such a score and severity; without them, it has enough of both."""

    name: str
    at_least: float
    severity_at_least: int


class Within(NamedTuple):
    """A number is `low` or more and less than `high`; none is below 0."""

    number: Number
    low: float = 0.0
    high: float = math.inf


class OneOf(NamedTuple):
    """A word is one of these; None is whatever is there. A field's values have beside them if they are booleans."""

    word: Word
    name: str
    values: frozenset[object] | None


class All(NamedTuple):
    """Each of the parts holds."""

    parts: tuple["Node", ...]


class Some(NamedTuple):
    """At least one of the parts holds."""

    parts: tuple["Node", ...]


class Not(NamedTuple):
    """The part does not hold."""

    part: "Node"


Node = Has | Within | OneOf | All | Some | Not


def tree(condition: Condition, thresholds: Mapping[str, float]) -> Node:
    """What a condition asks; a class counts from its threshold on where the condition does not say."""
    parts = tuple(_asked(condition, thresholds))
    return parts[0] if len(parts) == 1 else All(parts)


def _asked(asked: Condition, thresholds: Mapping[str, float]) -> Iterator[Node]:
    yield from _of_classes(asked, thresholds)
    yield from _of_numbers(asked)
    yield from _of_words(asked)
    if asked.all:
        yield All(tuple(tree(each, thresholds) for each in asked.all))
    if asked.any:
        yield _some(tree(each, thresholds) for each in asked.any)
    if asked.not_:
        yield Not(tree(asked.not_, thresholds))


def _of_classes(asked: Condition, thresholds: Mapping[str, float]) -> Iterator[Node]:
    severity, least = asked.severity_at_least, asked.at_least
    if asked.class_:
        scores = ((name, thresholds.get(name, 0.0) if least is None else least) for name in asked.class_)
        yield _some(Has(name, score, severity or 0) for name, score in scores)
    elif severity is not None:
        yield Within(Number.SEVERITY, severity)


def _of_numbers(asked: Condition) -> Iterator[Node]:
    for number, low, high in (
        (Number.BEST_SCORE, asked.best_at_least, asked.best_below),
        (Number.MARGIN, asked.margin_at_least, asked.margin_below),
        (Number.LABELS, asked.labels_at_least, None if asked.labels_at_most is None else asked.labels_at_most + 1),
        (Number.CHARACTERS, asked.characters_at_least, asked.characters_below),
    ):
        if low is not None or high is not None:
            yield Within(number, low or 0.0, math.inf if high is None else high)


def _of_words(asked: Condition) -> Iterator[Node]:
    if asked.best:
        yield OneOf(Word.BEST, "", frozenset(asked.best))
    if asked.language:
        yield OneOf(Word.LANGUAGE, "", frozenset(name.lower() for name in asked.language))
    for name, texts in (asked.headers or {}).items():
        yield OneOf(Word.HEADER, name, None if ANYTHING in texts else frozenset(text.encode() for text in texts))
    for pointer, values in (asked.fields or {}).items():
        yield OneOf(Word.FIELD, pointer, None if ANYTHING in values else frozenset(map(_told_apart, values)))


def _some(parts: Iterator[Node]) -> Node:
    found = tuple(parts)
    return found[0] if len(found) == 1 else Some(found)


def _told_apart(value: object) -> object:
    """A scalar so that true is not 1."""
    return value.__class__ is bool, value


# Asking


def holds(node: Node, thresholds: Mapping[str, float], pointers: Sequence[str]) -> Holds:
    """The function that says whether a condition holds; `pointers` are those that a document has the `fields` of."""
    match node:
        case Has():
            return partial(_has, *node)
        case Within(number, low, high):
            measure = partial(_labels, thresholds) if number is Number.LABELS else _MEASURES[number]
            return lambda document, classes: low <= measure(document, classes) < high
        case OneOf():
            return _reads(node, pointers)
        case Not(part):
            does = holds(part, thresholds, pointers)
            return lambda document, classes: not does(document, classes)
        case All(parts) | Some(parts):
            asked = [holds(part, thresholds, pointers) for part in parts]
            return _every(asked) if isinstance(node, All) else _any(asked)


def _has(wanted: str, at_least: float, severity_at_least: int, _: Document, classes: Classes) -> bool:
    for name, score, severity in classes:
        if name == wanted:
            return (score is None or score >= at_least) and (severity is None or severity >= severity_at_least)
    return False


def _best_score(_: Document, classes: Classes) -> float:
    return _score(classes[0]) if classes else 0.0


def _score(found: ClassScore) -> float:
    return _CERTAIN if found.score is None else found.score


def _margin(_: Document, classes: Classes) -> float:
    best, second = (*map(_score, classes[:2]), 0.0, 0.0)[:2]
    return max(0.0, best - second)


def _labels(thresholds: Mapping[str, float], _: Document, classes: Classes) -> int:
    return sum([score is None or score >= thresholds.get(name, 0.0) for name, score, _ in classes])


def _severity(_: Document, classes: Classes) -> int:
    return max([each.severity or 0 for each in classes], default=0)


def _characters(document: Document, _: Classes) -> int:
    return len(document.text)


_MEASURES: Mapping[Number, Callable[[Document, Classes], float]] = {
    Number.BEST_SCORE: _best_score,
    Number.MARGIN: _margin,
    Number.SEVERITY: _severity,
    Number.CHARACTERS: _characters,
}


def _reads(node: OneOf, pointers: Sequence[str]) -> Holds:
    word, name, values = node
    wanted: Collection[object] = values or ()
    match word:
        case Word.BEST:
            return lambda _, classes: bool(classes) and classes[0].name in wanted
        case Word.LANGUAGE:
            return lambda document, _: document.language is not None and _is_spoken(document.language.lower(), wanted)
        case Word.HEADER if values is None:
            return lambda document, _: any(header == name for header, _ in document.record.headers)
        case Word.HEADER:
            return lambda document, _: any(
                header == name and value in wanted for header, value in document.record.headers
            )
    place = pointers.index(name)
    if values is None:
        return lambda document, _: bool(document.fields[place])
    return lambda document, _: any(_told_apart(value) in wanted for value in document.fields[place])


def _is_spoken(language: str, wanted: Collection[object]) -> bool:
    while language not in wanted:
        language, more, _ = language.rpartition("-")
        if not more:
            return False
    return True


def _every(parts: Sequence[Holds]) -> Holds:
    def ask(document: Document, classes: Classes) -> bool:
        for part in parts:  # noqa: SIM110  a generator costs as much as what it asks
            if not part(document, classes):
                return False
        return True

    return ask


def _any(parts: Sequence[Holds]) -> Holds:
    def ask(document: Document, classes: Classes) -> bool:
        for part in parts:  # noqa: SIM110  a generator costs as much as what it asks
            if part(document, classes):
                return True
        return False

    return ask
