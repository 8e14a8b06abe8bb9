"""How many calls may be out at an account at once. Pure: told the time and what calls took, ignorant of waiting."""

import math
from statistics import median
from typing import Protocol

START = 4
"""Calls at once before anything is known."""
_LEAST_SAMPLES, _MOST_SAMPLES = 4, 100
_UNSURE = 0.8
"""By how much a round of one call may mislead about its typical duration, as a part of it; less with more of them."""
_CROWDED = 1.5
"""Times the typical duration from which calls are taken to stand in a queue of the service."""
_CLEARLY_CROWDED = 3.0
"""The same, without waiting for a second round to say so."""
_AT_EASE = 1.15
"""Times the typical duration up to which the service is not taken to be busy: with so many at once none of it idles."""
_FIRST_STEP = 0.05
_BY_LOAD = 0.5
"""How far latency has to follow the number of calls (1 is in step) to be taken to come of it."""
_WELL_KNOWN = 16
"""Answers from which on what is typical of a kind only moves for a reason."""
_FIRST_PATIENCE, _PATIENCE, _MOST_PATIENCE = 10, 1000, 16_000
"""Before a number of calls that was throttled is tried again: rounds at first, answers when that was confirmed, and
when it was many times."""
_LONGEST_PATIENCE = 600.0
"""Seconds after which it is in any case: where answers are few, one refusal is no great part of them."""


class InFlight(Protocol):
    """How many calls may be out at once; told what becomes of them."""

    limit: int
    doubts: int
    """How often it was doubted that calls take as long as they seem to."""

    def needed(self) -> None:
        """A call is held for this reason alone."""
        ...

    def answered(self, kind: int, asked_at: float, took: float, out: int, now: float) -> None:
        """A call of this kind was answered `took` seconds after it was asked, while `out` calls were out."""
        ...

    def throttled(self, asked_at: float, out: int, now: float) -> None:
        """A call that was asked then was refused for being one too many, while `out` calls were out."""
        ...


class Fixed:
    """As many as somebody says."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.doubts = 0

    def needed(self) -> None:
        """As `InFlight.needed`."""

    def answered(self, kind: int, asked_at: float, took: float, out: int, now: float) -> None:
        """As `InFlight.answered`."""

    def throttled(self, asked_at: float, out: int, now: float) -> None:
        """As `InFlight.throttled`."""


class Adaptive:
    """As many as the service works at, and a few more.

    It is decided by rounds: as many calls as may be out at once, all of them asked since the last decision, so that
    whatever calls take, minutes too, a decision is seen to work before the next is made. What a call took is compared
    with what is typical of calls of its kind, which are alike in size.

    It grows when calls were held for it, the faster the longer nothing speaks against it. When calls take much longer
    than is typical, it shrinks; if that does not help, it was not the number of calls, so it goes back, and this is
    what is typical from now on. More calls than were ever answered at once that are throttled lower it at once, and
    that level is tried again the more seldom the more often it has been confirmed.
    """

    def __init__(self, start: int = START, most: int = 1000) -> None:
        self.limit = min(start, most)
        self.doubts = 0
        self._most = most
        self._typical: dict[int, float] = {}
        self._known: dict[int, int] = {}
        self._step = 1.0
        self._suspected = False
        self._shrunk_from: tuple[int, float, float] | None = None
        self._refused_at = 0
        self._proven = 0
        self._ceiling = math.inf
        self._patience = 0
        self._answers = 0
        self._refused_last = -math.inf
        self._round_began = -math.inf
        self._was_needed = False
        self._out = 0
        self._samples: list[tuple[int, float]] = []
        self._enough = self._samples_of_a_round()

    def cap(self, most: int) -> None:
        """Come to so many at most."""
        self._most = most
        self.limit = min(self.limit, most)

    def needed(self) -> None:
        """As `InFlight.needed`."""
        self._was_needed = True

    def answered(self, kind: int, asked_at: float, took: float, out: int, now: float) -> None:
        """As `InFlight.answered`."""
        if asked_at < self._round_began:
            return
        self._proven = max(self._proven, out)
        self._out += out
        self._samples.append((kind, took))
        if len(self._samples) >= self._enough:
            self._end_round(now)

    def throttled(self, asked_at: float, out: int, now: float) -> None:
        """As `InFlight.throttled`."""
        if asked_at < self._round_began:
            return  # this is known
        if out <= 1:
            return  # one alone is not one too many
        if out <= self._proven:  # that many were answered, so it is not their number
            self._proven = out - 1
            return
        as_before = abs(out - self._refused_at) <= max(1, out // 10)
        self._refused_at, self._refused_last = out, now
        self._ceiling = max(1, out - 1)
        self.limit = min(self.limit, max(1, out - 1 - out // 10))
        first = _FIRST_PATIENCE * self._samples_of_a_round()
        self._patience = min(max(2 * self._patience, _PATIENCE), _MOST_PATIENCE) if as_before else first
        self._step = _FIRST_STEP
        self._answers = 0
        self._shrunk_from = None
        self._begin_round(now)

    def _end_round(self, now: float) -> None:
        ratios = [took / max(self._typical[kind], 1e-6) for kind, took in self._samples if kind in self._typical]
        slower = median(ratios) if ratios else 1.0
        unsure = 1 + _UNSURE / math.sqrt(len(ratios) or 1)
        out = self._out / len(self._samples)
        self._learn(slower if slower > _AT_EASE * unsure else 1.0)
        self._answers += len(self._samples)
        if self._answers >= self._patience or now >= self._refused_last + _LONGEST_PATIENCE:
            self._ceiling = math.inf
        if self._shrunk_from is not None:
            slower = self._judge(slower, out)
        if slower > _CROWDED * unsure:
            self._shrink(slower, out)
        else:
            self._suspected = False
            if self._was_needed:
                self._grow(at_ease=slower <= _AT_EASE * unsure)
        self._begin_round(now)

    def _learn(self, slower: float) -> None:
        """Take note of kinds that are new, by how slow the others are, and of those that are faster than before."""
        kinds: dict[int, list[float]] = {}
        for kind, took in self._samples:
            kinds.setdefault(kind, []).append(took)
        for kind, took_each in kinds.items():
            took, count = median(took_each), len(took_each)
            known = self._known.get(kind, 0)
            if known < _WELL_KNOWN:
                self._known[kind] = known + count
                self._typical[kind] = (self._typical.get(kind, 0.0) * known + took / slower * count) / (known + count)
            elif took < 0.9 * self._typical[kind]:
                self._typical[kind] += 0.5 * count / (count + 8) * (took - self._typical[kind])

    def _shrink(self, slower: float, out: float) -> None:
        self._step = _FIRST_STEP
        self.doubts += 1
        if not self._suspected and slower < _CLEARLY_CROWDED:
            self._suspected = True
            return
        self._suspected = False
        smaller = max(1, round(out * max(0.5, min(0.6, _AT_EASE / slower))))
        if smaller < min(out, self.limit):
            self._shrunk_from = (self.limit, out, slower)
            self.limit = smaller
        else:
            self._retype(slower)

    def _judge(self, slower: float, out: float) -> float:
        """See what shrinking has done; gives how slow calls are in the light of it."""
        limit, before, slower_before = self._shrunk_from or (self.limit, out, slower)
        self._shrunk_from = None
        if out < 0.95 * before:
            followed = math.log(slower_before / slower) / math.log(before / out)
            if followed < _BY_LOAD:
                self.limit = max(limit, self.limit)
                self._retype(slower)
                return 1.0
        return slower

    def _retype(self, slower: float) -> None:
        """So slow is what is typical from now on."""
        self._typical = {kind: slower * typical for kind, typical in self._typical.items()}

    def _grow(self, *, at_ease: bool) -> None:
        most = min(self._most, self._ceiling)
        larger = self.limit + max(1, int(self._step * self.limit) if at_ease else 0)
        self._step = min(1.0, 2 * self._step) if at_ease and larger < most else _FIRST_STEP
        self.limit = int(max(self.limit, min(larger, most)))

    def _begin_round(self, now: float) -> None:
        self._round_began = now
        self._was_needed = False
        self._out = 0
        self._samples = []
        self._enough = self._samples_of_a_round()

    def _samples_of_a_round(self) -> int:
        return min(max(self.limit, _LEAST_SAMPLES), _MOST_SAMPLES)


def kind_of(characters: int, documents: int) -> int:
    """What calls of about this size have in common: a quarter of a doubling in characters, a doubling in documents."""
    octave = characters.bit_length()
    quarter = (characters << 2 >> octave - 1) & 3 if octave else 0
    return documents.bit_length() << 10 | octave << 2 | quarter
