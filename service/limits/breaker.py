"""Whether an account is well enough to be asked. Pure: told the time and what became of calls, ignorant of waiting.

The circuit breaker of M. Nygard, *Release It!* (2nd edition, 2018, chapter 5), with two additions. What is never
answered counts, too, by how long answers take otherwise. And a trial that is not heard of keeps no later one back, so
that a service is found well again in a few seconds, even where requests had vanished in it.
"""

import math
import random
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from service import settings

FIRST_WAIT, LONGEST_AT_FIRST = 0.5, 4.0
"""Seconds until the first trial, and between trials at most until an outage is long."""
_OF_AN_OUTAGE = 0.05
"""The longest wait as a share of the outage so far: what was away for an hour may be found well a minute later."""
_WINDOW = 10.0
"""Seconds over which the share of failures is taken, at least; at most twice as long."""
LEAST_SILENCE, STRANGE_SILENCE = 5.0, 15.0
"""Seconds without any answer that mean nothing yet, at the least and where nobody knows how long answers take."""
_LONG_SILENCE = 4.0
"""How often over what calls take at most makes a silence."""
_STEP, _STEP_OF_SPREAD = 1 / 8, 1 / 4
"""How far one call moves what is known of their duration (RFC 6298, which estimates round trips so)."""


class State(StrEnum):
    """What a breaker lets out: everything, nothing, or one call on trial. The `state` metric label."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


class Why(StrEnum):
    """The evidence that a breaker has opened on."""

    IN_A_ROW = "failures in a row"
    SHARE = "the share of failures"
    SILENCE = "no answer at all"


@dataclass(frozen=True, slots=True)
class BreakerStatistics:
    """A breaker as it stands: its state, what it opened on when it did last, and the trials and seconds since.

    `failures` are those since the last answer, and `opened` is how often it has.
    """

    state: State
    why: Why | None = None
    failures: int = 0
    opened: int = 0
    trials: int = 0
    away: float = 0.0


class BackOff:
    """Waits that double, up to a limit, and are spread by chance over their second half, as replicas have to be."""

    __slots__ = ("_chance", "_doublings")

    def __init__(self, chance: Callable[[], float] = random.random) -> None:
        self._chance = chance
        self._doublings = 0

    def next(self, longest: float) -> float:
        """Seconds to wait this time."""
        wait = min(longest, FIRST_WAIT * 2.0**self._doublings)
        self._doublings = min(self._doublings + 1, 30)
        return wait * (1 + self._chance()) / 2

    def reset(self) -> None:
        """Begin anew."""
        self._doublings = 0


class Breaker:
    """Lets calls out while they are answered; when they fail, one on trial from time to time.

    It opens on so many failures in a row, on their share among the calls of some seconds, or when calls that are out
    have heard nothing for much longer than is usual. It closes with the first trial that is answered. What was asked
    before it opened or closed says nothing more, so calls that were out together and fail are one outage.
    """

    def __init__(self, evidence: settings.Breaker, chance: Callable[[], float] = random.random) -> None:
        self.changed: Callable[[BreakerStatistics], None] = lambda _: None
        """Told of every change of the state."""
        self.state = State.CLOSED
        self.try_at = -math.inf
        """When the next trial may go."""
        self.silent_at = math.inf
        """When no answer will have been heard for too long; infinite where none is due, or that is known already."""
        self.evidence = evidence
        """What opens it; may be exchanged."""
        self._back_off = BackOff(chance)
        self._asked_from = -math.inf
        self._tried_at = math.inf
        self._out = 0
        self._failures = 0
        self._recent = _Recent()
        self._durations = _Durations()
        self._why: Why | None = None
        self._away_since = 0.0
        self._opened = 0
        self._trials = 0

    def holds(self, now: float) -> bool:
        """Whether no call may go, before `try_at`."""
        if now >= self.silent_at:
            self._open(Why.SILENCE, now)
        return self.state is not State.CLOSED and now < self.try_at

    @property
    def is_trying(self) -> bool:
        """Whether the next call that goes is one on trial."""
        return self.state is not State.CLOSED

    def asked(self, now: float) -> None:
        """A call goes out; `answered`, `failed` or `dropped` has to follow."""
        self._out += 1
        if self.state is State.CLOSED:
            if self._out == 1:
                self.silent_at = now + self._durations.silence
        else:
            self._trials += 1
            self._tried_at = now
            self.try_at = now + self._next_wait(now)
            self._change(State.HALF_OPEN, now)

    def answered(self, asked_at: float, took: float, now: float) -> None:
        """A call that was asked then was answered, after so many seconds of work."""
        if asked_at < self._asked_from:
            if self._why is Why.SILENCE and self.state is not State.CLOSED:
                self._close(now)
            return
        self._heard(now)
        slow_after = self.evidence.slow_after
        if slow_after is not None and took > slow_after:
            self._count_failure(now)
            return
        self._durations.add(took)
        self._failures = 0
        self._recent.add(now, failed=False)
        if self.state is not State.CLOSED:
            self._close(now)

    def failed(self, asked_at: float, now: float) -> None:
        """A call that was asked then has failed, and not for what was in it."""
        if asked_at >= self._asked_from:
            self._heard(now)
            self._count_failure(now)

    def lost(self, asked_at: float, now: float) -> None:
        """What was accepted of a call that was asked then has come to nothing."""
        if asked_at >= self._asked_from:
            self._count_failure(now)

    def dropped(self, asked_at: float, now: float) -> None:
        """A call that was asked then has ended, and says nothing of how well the account is."""
        if asked_at >= self._asked_from:
            self._out = max(0, self._out - 1)
            if not self._out:
                self.silent_at = math.inf
            if asked_at >= self._tried_at:
                self.try_at = now

    def statistics(self, now: float) -> BreakerStatistics:
        """A picture of this moment."""
        away = now - self._away_since if self._opened else 0.0
        return BreakerStatistics(self.state, self._why, self._failures, self._opened, self._trials, away)

    def _heard(self, now: float) -> None:
        self._out = max(0, self._out - 1)
        due = self._out and self.state is State.CLOSED
        self.silent_at = now + self._durations.silence if due else math.inf

    def _count_failure(self, now: float) -> None:
        self._failures += 1
        self._recent.add(now, failed=True)
        if self.state is State.HALF_OPEN:
            self._change(State.OPEN, now)
        elif self.state is State.CLOSED and (why := self._reason_to_open()):
            self._open(why, now)

    def _reason_to_open(self) -> Why | None:
        if self._failures >= self.evidence.failures:
            return Why.IN_A_ROW
        calls, failures = self._recent.counts()
        return Why.SHARE if calls >= self.evidence.of and failures >= self.evidence.share * calls else None

    def _open(self, why: Why, now: float) -> None:
        self._why, self._away_since = why, now
        self._opened += 1
        self._trials = 0
        self._back_off.reset()
        self.try_at = now + self._next_wait(now)
        self._begin_anew(now)
        self._change(State.OPEN, now)

    def _close(self, now: float) -> None:
        self._tried_at = math.inf
        self._failures = 0
        self._recent = _Recent()
        self._begin_anew(now)
        self._change(State.CLOSED, now)

    def _begin_anew(self, now: float) -> None:
        self._asked_from = now
        self._out = 0
        self.silent_at = math.inf

    def _change(self, state: State, now: float) -> None:
        if state is not self.state:
            self.state = state
            self.changed(self.statistics(now))

    def _next_wait(self, now: float) -> float:
        longest = max(LONGEST_AT_FIRST, _OF_AN_OUTAGE * (now - self._away_since))
        return self._back_off.next(min(longest, self.evidence.longest))


class _Recent:
    """How many calls there were lately, and how many failed: those of this window and the one before."""

    def __init__(self) -> None:
        self._until = -math.inf
        self._now = self._before = (0, 0)

    def add(self, now: float, *, failed: bool) -> None:
        if now >= self._until:
            self._before = self._now if now < self._until + _WINDOW else (0, 0)
            self._now, self._until = (0, 0), now + _WINDOW
        calls, failures = self._now
        self._now = (calls + 1, failures + failed)

    def counts(self) -> tuple[int, int]:
        return self._now[0] + self._before[0], self._now[1] + self._before[1]


class _Durations:
    """What calls take, and how far that varies."""

    def __init__(self) -> None:
        self._mean: float | None = None
        self._spread = 0.0
        self.silence = STRANGE_SILENCE
        """Seconds after which it tells that no call at all was answered."""

    def add(self, took: float) -> None:
        if self._mean is None:
            self._mean, self._spread = took, took / 2
        else:
            self._spread += _STEP_OF_SPREAD * (abs(took - self._mean) - self._spread)
            self._mean += _STEP * (took - self._mean)
        self.silence = max(LEAST_SILENCE, _LONG_SILENCE * (self._mean + 4 * self._spread))
