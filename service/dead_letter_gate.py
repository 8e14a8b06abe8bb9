"""Where refusals pass on their way to the dead letters, or are held back: a stream's limit, applied and told of."""

from collections.abc import Callable, Sequence

import structlog

from service.dead_letter_limit import DeadLetterLimit
from service.dispatch.answers import Answer
from service.documents import Document, Outcome, Reason, Record, Refused
from service.offsets import Offsets
from service.settings import Stream

log = structlog.get_logger(__name__)


class DeadLetterGate:
    """Lets what is finished through while the dead-letter limit of a stream allows it, and keeps the rest.

    Neither a stop nor a rebalance waits for what is kept: the next owner of its partition reads it again.
    """

    def __init__(self, stream: Stream, offsets: Offsets) -> None:
        self._topic = stream.input
        self._settings = stream.dead_letter_limit
        self._limit = DeadLetterLimit(self._settings.share, self._settings.of)
        self._offsets = offsets

    @property
    def reached(self) -> bool:
        """Whether nothing more is to be read."""
        return self._limit.reached

    def within_limit(self, answer: Answer, now: float) -> Answer:
        """The part of an answer that may be published; the documents of the rest are held back."""
        through = self._lets_through(
            [isinstance(outcome, Refused) for outcome in answer.outcomes], answer.outcomes, now
        )
        if all(through):
            return answer
        held = [document for document, passes in zip(answer.documents, through, strict=True) if not passes]
        self._limit.hold(held)
        self._offsets.abandon(document.record for document in held)
        return answer.part(through)

    def garbage(self, refused: Sequence[tuple[Record, Refused]], now: float) -> list[tuple[Record, Refused]]:
        """Those of the records, refused unasked, that may become dead letters; the rest is held back."""
        reasons = [why for _, why in refused]
        through = self._lets_through([why.reason is not Reason.TOMBSTONE for why in reasons], reasons, now)
        held = [each for each, passes in zip(refused, through, strict=True) if not passes]
        self._limit.hold_garbage(held)
        self._offsets.abandon(record for record, _ in held)
        return [each for each, passes in zip(refused, through, strict=True) if passes]

    def trial(self, now: float) -> Sequence[Document] | None:
        """Documents to be asked for again, if it is time for that; `judge` wants to know what came of it."""
        documents = self._limit.trial(now)
        self._offsets.take_up(document.record for document in documents or ())
        return documents

    def judge(self, outcomes: Sequence[Outcome]) -> None:
        """See by a trial whether the limit still holds."""
        refused = sum(isinstance(outcome, Refused) for outcome in outcomes)
        self._limit.tried(refused, len(outcomes))
        if self._limit.reached:
            log.info("dead_letter_limit_trial", topic=self._topic, refused=refused, of=len(outcomes))
        else:
            log.warning("dead_letter_limit_lifted", topic=self._topic, refused=refused, of=len(outcomes))

    def released(self) -> tuple[list[Sequence[Document]], list[tuple[Record, Refused]]]:
        """What is not to be held back any more: documents to ask for again, and records that were refused unasked."""
        documents, garbage = self._limit.released()
        self._offsets.take_up(document.record for held in documents for document in held)
        return documents, garbage

    def drop(self, unwanted: Callable[[Record], bool]) -> list[Record]:
        """Take out what nobody wants any more."""
        return self._limit.drop(unwanted)

    def _lets_through(self, refusals: Sequence[bool], outcomes: Sequence[Outcome], now: float) -> Sequence[bool]:
        reached = self._limit.reached
        through = self._limit.lets_through(refusals, now)
        if self._limit.reached and not reached:
            first = outcomes[through.index(False)]
            log.error(
                "dead_letter_limit_reached",
                topic=self._topic,
                share=self._settings.share,
                of=self._settings.of,
                latest=str(first.message) if isinstance(first, Refused) else "",
                advice="nothing more is read: see why documents are refused; restart when they may become dead letters",
            )
        return through
