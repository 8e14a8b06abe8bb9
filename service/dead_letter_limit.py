"""Whether so many documents are refused that it cannot be their fault, and what is held back while it seems so. Pure.

A classifier that finds fault with everything, or a producer that writes garbage, would move a whole topic to the dead
letters within minutes. So when more than a share of the latest outcomes is refused, no more refusals are let through:
what is refused is held back, unfinished and uncommitted, and nothing more is read.

It goes on when a trial says so. Now and then a few of the documents that the classifier has refused are asked for
again, and when it does not refuse most of them any more, it was the classifier: all of them are asked for again, as no
verdict of that time is worth anything. Garbage stays garbage however often it is looked at: somebody has to see to it,
and a restart, which counts anew, is how that person says that the stream is to go on.
"""

import math
from collections import deque
from collections.abc import Callable, Iterable, Sequence

from service.documents import Document, Record, Refused

FIRST_TRIAL, LONGEST_UNTIL_TRIAL = 15.0, 300.0
"""Seconds to the first trial, and at most to any further one, each after twice the time."""


class DeadLetterLimit:
    """Lets refusals through until more than `share` of the last `of` outcomes would be refused."""

    def __init__(self, share: float, of: int) -> None:
        self.reached = False
        self._share = share
        self._of = of
        self._most = math.floor(share * of)
        self._outcomes = 0
        self._refused: deque[int] = deque()  # of the last outcomes, which were
        self._documents: deque[Sequence[Document]] = deque()
        self._garbage: list[tuple[Record, Refused]] = []
        self._wait = FIRST_TRIAL
        self._trial_at = math.inf

    def lets_through(self, refusals: Sequence[bool], now: float) -> list[bool]:
        """Which of these outcomes may be published, in their order; True stands for a refusal."""
        if not any(refusals):  # as nearly always
            self._outcomes += len(refusals)
            return [True] * len(refusals)
        return [self._lets_refusal_through(now) if refused else self._lets_answer_through() for refused in refusals]

    def hold(self, documents: Sequence[Document]) -> None:
        """Hold documents back that the classifier has refused."""
        self._documents.append(documents)

    def hold_garbage(self, refused: Iterable[tuple[Record, Refused]]) -> None:
        """Hold records back that were refused unasked."""
        self._garbage += refused

    def trial(self, now: float) -> Sequence[Document] | None:
        """Documents to be asked for again by themselves, if it is time for that; `tried` wants to know what came.

        There is none while most of what is held back is garbage, as then it is not the classifier.
        """
        if not self.reached or now < self._trial_at or sum(map(len, self._documents)) <= len(self._garbage):
            return None
        self._wait = min(LONGEST_UNTIL_TRIAL, 2 * self._wait)
        self._trial_at = now + self._wait
        return self._documents.popleft()

    def tried(self, refused: int, of: int) -> None:
        """Of so many documents of a trial so many were refused again."""
        if refused <= self._share * of:
            self.reached = False
            self._refused.clear()
            self._wait = FIRST_TRIAL

    def released(self) -> tuple[list[Sequence[Document]], list[tuple[Record, Refused]]]:
        """What is not to be held back any more: documents to ask for again, and records that were refused unasked."""
        if self.reached:
            return [], []
        released = list(self._documents), self._garbage
        self._documents, self._garbage = deque(), []
        return released

    def drop(self, unwanted: Callable[[Record], bool]) -> list[Record]:
        """Take out what nobody wants any more."""
        dropped = [document.record for held in self._documents for document in held if unwanted(document.record)]
        dropped += [record for record, _ in self._garbage if unwanted(record)]
        kept = ([document for document in held if not unwanted(document.record)] for held in self._documents)
        self._documents = deque(held for held in kept if held)
        self._garbage = [(record, refused) for record, refused in self._garbage if not unwanted(record)]
        return dropped

    def _lets_answer_through(self) -> bool:
        self._outcomes += 1
        return True

    def _lets_refusal_through(self, now: float) -> bool:
        if self.reached:
            return False
        while self._refused and self._refused[0] <= self._outcomes + 1 - self._of:
            self._refused.popleft()
        if len(self._refused) >= self._most and self._share < 1:
            self.reached = True
            self._trial_at = now + self._wait
            return False
        self._outcomes += 1
        self._refused.append(self._outcomes)
        return True
