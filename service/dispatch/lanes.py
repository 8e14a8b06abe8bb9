"""Which accounts a document is asked of, and in which order, where one answer is not enough.

A lane is a queue to some of a stream's accounts, with batches of its own: documents that go on from one into another
are packed anew. A stream has one, or several: by language, for what is unsure, for what is merged. Where a document
belongs is decided by itself and by the answers that it has had, so it can be told at any time. Pure.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from service.dispatch.answers import Answer
from service.dispatch.dispatcher import Dispatcher
from service.dispatch.parts import Found, of_any_classes
from service.dispatch.trials import OF_A_PRIORITY, NoTrial, Trial, is_drawn
from service.documents import Classified, ClassScore, Document, Outcome, Refused, Stage
from service.jobs.notes import Job
from service.observability.telemetry import StreamTelemetry
from service.settings import Stream

IsUnsure = Callable[[Document, Sequence[ClassScore]], bool]
"""Whether an answer that has these classes is not good enough."""


class Lane(NamedTuple):
    """A queue to these accounts, as metrics call it; one that `gives_way` leaves it at an unsure answer if it must."""

    name: str
    accounts: Sequence[str]
    gives_way: bool = False


class Onward(NamedTuple):
    """What becomes of the documents of an answer.

    Some are `finished`, some go `further` into other lanes, with the answer as one of their stages, and some are
    `staying` with the answer that they had before, and say why.
    """

    finished: Sequence[tuple[Document, Outcome]]
    further: Sequence[Document]
    staying: Sequence[tuple[Document, Stage, str]]


class Course:
    """The lanes of a stream, and the way of its documents through them.

    First come the lanes whose answers are merged with others, then the one by language, then, if that was unsure, the
    one for that: so the last answer is the one that results are by.
    """

    def __init__(self, stream: Stream) -> None:
        self.lanes = [Lane("first", stream.classify_with)]
        self._by_language = {code.lower(): len(self.lanes) + i for i, code in enumerate(stream.by_language)}
        self.lanes += [Lane(f"language {code}", names) for code, names in stream.by_language.items()]
        self._canary, self._share = -1, stream.canary.share if stream.canary else 0.0
        if stream.canary:  # whose place it takes is asked where it cannot answer
            self._canary = len(self.lanes)
            self.lanes.append(Lane("canary", (*stream.canary.ask, *stream.classify_with)))
        self._entries = {0, *self._by_language.values()} | ({self._canary} if stream.canary else set())
        self._merged = range(len(self.lanes), len(self.lanes) + len(stream.merge_with))
        self.lanes += [Lane(f"merged {name}", [name]) for name in stream.merge_with]
        self._unsure = len(self.lanes) if stream.unsure else -1
        if stream.unsure:
            self.lanes.append(Lane("unsure", stream.unsure.ask, stream.unsure.unanswered == "first_answer"))

    @property
    def last(self) -> Sequence[int]:
        """The lanes of which an answer may come that counts by itself: a document has it of one of them."""
        return (*self._entries, self._unsure) if self._unsure >= 0 else (*self._entries,)

    @property
    def merged(self) -> Sequence[int]:
        """The lanes that every document goes through beside."""
        return self._merged

    def belongs(self, document: Document) -> int:
        """The lane that a document with these stages is to be asked in now."""
        passed = {stage.lane for stage in document.stages}
        for lane in self._merged:
            if lane not in passed:
                return lane
        entry = self._entry(document)
        return entry if passed.isdisjoint(self.last) else self._unsure if self._unsure >= 0 else entry

    def of_job(self, job: Job, document: Document) -> int:
        """The lane in which a job of an earlier life was submitted that has this document."""
        having = [place for place, lane in enumerate(self.lanes) if job.account in lane.accounts]
        entry = self._entry(document)
        others = [place for place in having if place not in self._entries]
        return others[-1] if others else entry if entry in having else having[0] if having else self.belongs(document)

    def goes_on(self, document: Document, stage: Stage, is_unsure: IsUnsure) -> bool:
        """Whether a document is to be asked in another lane after this stage."""
        lane, outcome = stage.lane, stage.outcome
        has_second = lane in self._entries and self._unsure >= 0 and stage.account not in self.lanes[-1].accounts
        if isinstance(outcome, Refused):
            return has_second
        if has_second and is_unsure(document, outcome.classes):
            return True
        passed = {lane, *(stage.lane for stage in document.stages)}
        return not passed.issuperset(self._merged) or passed.isdisjoint(self.last)

    def after(self, place: int, answer: Answer, is_unsure: IsUnsure) -> Onward:
        """Where the documents of an answer go that was given in this lane."""
        finished, further, staying = (
            list[tuple[Document, Outcome]](),
            list[Document](),
            list[tuple[Document, Stage, str]](),
        )
        for document, outcome in zip(answer.documents, answer.outcomes, strict=True):
            stage = stage_of(place, answer, outcome)
            passed = document._replace(stages=(*document.stages, stage))
            if self.goes_on(document, stage, is_unsure):
                further.append(passed)
            elif not isinstance(outcome, Refused):
                finished.append((passed, self.concluded(passed)) if document.stages else (document, outcome))
            elif self.lanes[place].gives_way and (first := self.first_answer(document)) is not None:
                why = f"unsure, and {answer.account.name} refuses it: {outcome.message}"
                staying.append((document, first, why))
            else:
                finished.append((document, outcome))
        return Onward(finished, further, staying)

    def concluded(self, document: Document) -> Classified:
        """What its stages together say of a document: of the last answer, and of those that are merged with it."""
        counting = {stage.lane: stage.outcome for stage in document.stages if isinstance(stage.outcome, Classified)}
        if self._unsure in counting:
            counting = {lane: outcome for lane, outcome in counting.items() if lane not in self._entries}
        outcomes = list(counting.values())
        if len(outcomes) == 1:
            return outcomes[0]
        found: Found = {}
        for outcome in outcomes:
            for each in outcome.classes:
                found.setdefault(each.name, []).append((1, each))
        warnings = dict.fromkeys(warning for outcome in outcomes for warning in outcome.warnings)
        return Classified(tuple(of_any_classes(found)), sum(each.units for each in outcomes), (*warnings,))

    def first_answer(self, document: Document) -> Stage | None:
        """What counts of a document whose unsure answer stays the last; None where it has none."""
        entries = [stage for stage in document.stages if stage.lane in self._entries]
        return next((stage for stage in reversed(entries) if isinstance(stage.outcome, Classified)), None)

    def _entry(self, document: Document) -> int:
        if (lane := self._of_language(document.language)) == 0 and self._share and is_drawn(document, self._share):
            return self._canary
        return lane

    def _of_language(self, language: str | None) -> int:
        if not self._by_language or language is None:
            return 0
        code = language.lower()
        while (lane := self._by_language.get(code)) is None:
            code, more, _ = code.rpartition("-")
            if not more:
                return 0
        return lane


class Lanes:
    """The lanes of a stream with who answers in each; `everyone` is who asks any of its accounts."""

    def __init__(self, stream: Stream, everyone: Dispatcher) -> None:
        self.everyone = everyone
        self.course = Course(stream)
        lanes = self.course.lanes
        self.dispatchers = [everyone.among(lane.accounts) for lane in lanes] if len(lanes) > 1 else [everyone]

    def trial(self, stream: Stream, telemetry: StreamTelemetry) -> Trial | NoTrial:
        """Who is asked beside: the candidate as a shadow, or those whose place it takes as a canary."""
        if (branch := stream.shadow or stream.canary) is None:
            return NoTrial()
        beside = branch.ask if stream.shadow else stream.classify_with
        return Trial(
            stream,
            self.everyone.among(beside, OF_A_PRIORITY * stream.priority),
            share=branch.share,
            answered_by=branch.ask if stream.canary else stream.accounts_published,
            candidate_is_asked=stream.shadow is not None,
            waiting=branch.waiting,
            telemetry=telemetry.trial("shadow" if stream.shadow else "canary"),
            billed=telemetry,
        )

    def too_long(self, text: str) -> str | None:
        """Why nobody takes a text who is to answer; None where that is not so."""
        if len(text) <= self.everyone.takes_any_of:
            return None
        for place in self.course.merged:
            if (why := self.dispatchers[place].too_long(text)) is not None:
                return why
        reasons = [self.dispatchers[place].too_long(text) for place in self.course.last]
        return None if None in reasons else reasons[-1]


def stage_of(lane: int, answer: Answer, outcome: Outcome) -> Stage:
    """An answer of one document, as it goes along with that."""
    tariff = answer.account.limits.tariff
    cost = None if tariff.per_unit is None else tariff.cost([outcome])
    return Stage(lane, answer.account.name, answer.account.provider.model, outcome, answer.attempts, answer.at, cost)


def first_answers(staying: Iterable[tuple[Document, Stage, str]], course: Course, everyone: Dispatcher) -> list[Answer]:
    """Answers of documents that stay with what the first stage said, and say why; those stay together that were so."""
    together: dict[tuple[str, int, float], list[tuple[Document, Outcome]]] = {}
    for document, stage, why in staying:
        outcome = course.concluded(document)
        outcome = outcome._replace(warnings=(*outcome.warnings, why))
        alone = document._replace(stages=()) if len(document.stages) == 1 else document
        together.setdefault((stage.account, stage.attempts, stage.at), []).append((alone, outcome))
    return [
        Answer([document for document, _ in pairs], [outcome for _, outcome in pairs], account, attempts, at)
        for (name, attempts, at), pairs in together.items()
        for account in everyone.accounts
        if account.name == name
    ]
