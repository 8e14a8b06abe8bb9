"""What people are asked, what they decide, and how that is joined. Pure.

A question is a result with its text; a decision names it by its labelstream-id. All state is in the two topics: who
reads them from their beginnings knows everything, so nothing is lost by a restart, and nothing is counted twice.
"""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from enum import StrEnum
from typing import Any, NamedTuple

import orjson

from service.documents import ClassScore, Record
from service.settings import Stream

NOTHING = "none"
"""What a class is called where the classifier found none."""


class Became(StrEnum):
    """What becomes of a decision."""

    AGREED = "agreed"
    CORRECTED = "corrected"
    LATE = "late"
    REPLACED = "replaced"
    DUPLICATE = "duplicate"
    UNKNOWN = "unknown"
    MALFORMED = "malformed"


_IN_TIME = (Became.AGREED, Became.CORRECTED)


class Question(NamedTuple):
    """What somebody was asked; `proposed` are the labels of the classifier, `at` is in milliseconds UTC."""

    id: str
    text: str
    proposed: tuple[str, ...]
    offered: tuple[str, ...] | None
    best: str
    at: int


class Decision(NamedTuple):
    """What somebody decided of a question; `at` is in milliseconds UTC."""

    id: str
    labels: tuple[str, ...]
    at: int


class Decided(NamedTuple):
    """A question with the decision that counts, of the time `at` (milliseconds UTC)."""

    question: Question
    labels: tuple[str, ...]
    became: Became
    at: int


def asked(result: bytes, name: str, text: str, about: Mapping[str, Any]) -> bytes:
    """A result as a question; `name` is its labelstream-id, `about` what the reviewer is told beside."""
    told = {"text": text.encode("utf-8", "replace").decode(), "review": {"question": name, **about}}
    return result[:-1] + b"," + orjson.dumps(told)[1:]


def proposed(stream: Stream, classes: Sequence[ClassScore], task: str) -> list[str]:
    """The labels that a reviewer who agrees gives: the best class, or all that reach their thresholds."""
    if task == "single_label":
        return [found.name for found in classes[:1]]
    reached = (found for found in classes if found.score is None or found.score >= stream.thresholds.get(found.name, 0))
    return sorted({found.name for found in reached})


def question(record: Record) -> Question | None:
    """The question in a record of the review topic; None for what is none of ours."""
    body = _object(record.value)
    about, text, best = body.get("review"), body.get("text"), body.get("best")
    name = about.get("question") if isinstance(about, dict) else None
    if not isinstance(about, dict) or not isinstance(name, str) or not isinstance(text, str):
        return None
    first = best.get("name") if isinstance(best, dict) else None
    if (said := _labels(about.get("proposed"))) is None:
        return None
    offered = _labels(about.get("classes_offered"))
    return Question(name, text, said, offered, str(first or NOTHING), record.timestamp)


def decision(record: Record) -> Decision | None:
    """The decision in a record of the decisions topic; None where it is malformed."""
    body = _object(record.value)
    name, labels = body.get("question"), _labels(body.get("labels"))
    if not isinstance(name, str) or labels is None:
        return None
    return Decision(name, labels, record.timestamp)


def _object(value: bytes | None) -> dict[str, Any]:
    try:
        body = orjson.loads(value or b"")
    except orjson.JSONDecodeError:
        return {}
    return body if isinstance(body, dict) else {}


def _labels(value: object) -> tuple[str, ...] | None:
    if not isinstance(value, list) or not all(isinstance(each, str) and each.strip() for each in value):
        return None
    return tuple(sorted(set(value)))


class Reviews:
    """The join of questions and decisions; `within` is in seconds.

    Of several decisions on a question the last counts. A class that is not on offer makes a decision malformed.
    """

    def __init__(self, within: float) -> None:
        self._within = within * 1000
        self._questions: dict[str, Question] = {}
        self._decided: dict[str, Decided] = {}
        self.became = Counter[tuple[str, Became]]()
        """How many decisions became what, by the class that was best; of those without a question, by `none`."""

    def ask(self, question: Question) -> None:
        """Somebody was asked; a question that is repeated is the same one."""
        self._questions.setdefault(question.id, question)

    def decide(self, decision: Decision | None) -> Became:
        """Somebody has decided; all questions up to then were asked before."""
        if decision is None:
            return self._is(NOTHING, Became.MALFORMED)
        asked = self._questions.get(decision.id)
        if asked is None:
            return self._is(NOTHING, Became.UNKNOWN)
        if asked.offered is not None and not set(decision.labels) <= set(asked.offered):
            return self._is(asked.best, Became.MALFORMED)
        before = self._decided.get(decision.id)
        if before is not None and before.labels == decision.labels:
            return self._is(asked.best, Became.DUPLICATE)
        if before is not None:
            self.became[asked.best, before.became] -= 1
            self._is(asked.best, Became.REPLACED)
        agreed = decision.labels == asked.proposed
        became = Became.AGREED if agreed else Became.CORRECTED
        if decision.at - asked.at > self._within:
            became = Became.LATE
        self._decided[decision.id] = Decided(asked, decision.labels, became, decision.at)
        return self._is(asked.best, became)

    def forget(self, before: float) -> None:
        """Let go of what was asked before that time (milliseconds UTC), with the decisions on it."""
        for name in [each.id for each in self._questions.values() if each.at < before]:
            del self._questions[name]
            if (gone := self._decided.pop(name, None)) is not None:
                self.became[gone.question.best, gone.became] -= 1

    @property
    def decided(self) -> Collection[Decided]:
        """Every question that is decided, with the decision that counts."""
        return self._decided.values()

    def since(self, at: float) -> Counter[tuple[str, Became]]:
        """How many decisions from that time on (milliseconds UTC) agree and how many correct, by the best class."""
        counts = Counter[tuple[str, Became]]()
        for each in self._decided.values():
            if each.at >= at and each.became in _IN_TIME:
                for became in _IN_TIME:  # both, so that agreement that is nil is not a class without agreement
                    counts[each.question.best, became] += each.became is became
        return counts

    def _is(self, best: str, became: Became) -> Became:
        self.became[best, became] += 1
        return became


def agreement(became: Counter[tuple[str, Became]]) -> dict[str, float]:
    """The share of decisions in time that agree with the classifier, by its best class."""
    agreed = {best: count for (best, what), count in became.items() if what is Became.AGREED}
    corrected = {best: count for (best, what), count in became.items() if what is Became.CORRECTED}
    total = {best: agreed.get(best, 0) + corrected.get(best, 0) for best in sorted({*agreed, *corrected})}
    return {best: agreed.get(best, 0) / count for best, count in total.items() if count}
