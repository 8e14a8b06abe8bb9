"""How much may go in a second. Pure: told the time, ignorant of waiting."""

import math
from collections import deque

SLACK = 0.1
"""Seconds that a rate may make up for: a timer that wakes a little after its time must not lose the difference."""
TICK = 0.002
"""Seconds that whatever goes may be early by: timers are no finer, nor are some clocks."""
OF_A_QUOTA = 0.98
"""The share of a quota that is used. Calls that are spaced evenly arrive less so: this leaves the network a fiftieth of
the quota's window to be uneven in, before a service that counts strictly counts one too many."""
OF_WHAT_WAS_TAKEN = 0.95
"""The share that is used of a quota that was found out by being refused."""
_LEAST_PER_SECOND = 0.5
_LOWERED, _LOWERED_BLINDLY, _LEAST_LOWERED = 0.4, 0.85, 0.97
"""What is left at least of a rate that was refused, by what was taken and where that says little, and what at most."""
_TELLING = 1.0
"""Seconds after which what was taken tells of a quota."""
_FIRST_STEP, _LARGEST_STEP, _WIDEST_STEP = 0.02, 0.5, 1.0
"""By how much more is tried: at first, after many times that nothing spoke against it, and where little is known."""
_TRIAL = 3.0
"""Seconds that something more is tried before it is tried still more."""
_CALLS, _MOST_PATIENCE_FOR_CALLS = 20, 10.0
"""Calls that have to go in a trial, as one says little; and seconds after which fewer will do."""
_SHORTEST = 0.05
"""Seconds that what was taken before the first refusal is spread over at least."""
_PATIENCE, _MOST_PATIENCE = 10.0, 300.0
"""Seconds before more is tried after a refusal, at first and when the quota was found to be the same time and again."""


class Rate:
    """A queue at a counter that serves `per_second` units a second (GCRA, ITU-T I.371).

    An amount of any size goes as soon as what went before is paid off, so the long-run rate is exact and a large amount
    delays what comes after it, never itself. Idle time is not saved up, but for a tick.
    """

    __slots__ = ("_credit", "_is_waited_for", "_whole", "free_at", "per_second")

    def __init__(self, per_second: float) -> None:
        self.per_second = self._whole = per_second
        self.free_at = 0.0
        self._credit = TICK
        self._is_waited_for = False

    def holds(self, now: float) -> bool:
        """Whether nothing may go yet, before `free_at`; to be asked before something is taken.

        Asking is waiting: who finds out late that something may go makes up for it, within the slack.
        """
        if self.free_at > now:
            self._is_waited_for = True
            return True
        if self._is_waited_for:
            self._credit = min(max(now - self.free_at, TICK), SLACK)
            self._is_waited_for = False
        return False

    def is_let_be(self) -> None:
        """Nobody waits for it any more, but for something else: what it is idle meanwhile is not made up for."""
        self._is_waited_for = False

    def share(self, share: float) -> None:
        """Serve this share of the rate from now on."""
        self.per_second = share * self._whole

    def take(self, amount: float, now: float) -> None:
        """Let `amount` go at `now`."""
        self.free_at = max(self.free_at, now - self._credit) + amount / self.per_second
        self._credit = TICK


class LeasedRate(Rate):
    """A rate that is shared with others by time: slices in which all of it is ours; where nobody gives any, our share.

    Slices that others have do not overlap with ours, so all together keep the rate as one would. What is larger than a
    slice is owed, and comes off the next.
    """

    __slots__ = ("_owed", "_share", "_slices", "is_leased")

    def __init__(self, per_second: float) -> None:
        super().__init__(per_second)
        self.is_leased = False
        self._share = 1.0
        self._slices: deque[tuple[float, float]] = deque()
        self._owed = 0.0

    def holds(self, now: float) -> bool:
        """As `Rate.holds`; infinite is `free_at` where somebody has to give something first."""
        if not self.is_leased:
            return super().holds(now)
        while self._slices:
            begin, end = self._slices[0]
            if now < end + TICK:
                self.free_at = begin
                return super().holds(now)
            self._slices.popleft()
        self.free_at = math.inf
        return True

    def take(self, amount: float, now: float) -> None:
        """As `Rate.take`."""
        super().take(amount, now)
        if self.is_leased and self._slices:
            _, end = self._slices.popleft()
            if self.free_at < end:
                self._slices.appendleft((self.free_at, end))
            self._owed += max(0.0, self.free_at - end)

    def share(self, share: float) -> None:
        """As `Rate.share`, for as long as nobody gives slices."""
        self._share = share
        self.per_second = self._whole if self.is_leased else share * self._whole

    def change(self, per_second: float, now: float) -> None:
        """Serve so much from now on; what is not paid off yet is paid off at that rate."""
        before, self._whole = self.per_second, per_second
        self.share(self._share)
        if now < self.free_at < math.inf:
            self.free_at = now + (self.free_at - now) * before / self.per_second

    def wants(self, amount: float, now: float) -> float:
        """Seconds of the whole rate that are to be asked for, so that so much more may go."""
        left = sum(max(0.0, end - max(begin, now)) for begin, end in self._slices)
        lacking = amount / self._whole - left
        return lacking + self._owed if lacking > 0 else 0.0

    def give(self, begin: float, seconds: float) -> None:
        """From then on so many seconds of it are ours."""
        paid = min(self._owed, seconds)
        self._owed -= paid
        if paid < seconds:
            self._slices.append((begin + paid, begin + seconds))

    def go_by_slices(self, now: float) -> None:
        """Let go what slices are given for from now on, and no more."""
        if not self.is_leased:
            self.is_leased = True
            self._begin_anew(now)

    def go_by_share(self, now: float) -> None:
        """Let go our share from now on, whoever gives what."""
        if self.is_leased:
            self.is_leased = False
            self._begin_anew(now)

    def _begin_anew(self, now: float) -> None:
        self._owed = 0.0
        self._slices.clear()
        self.free_at = now
        self.share(self._share)


class LearntRate(Rate):
    """A rate that nobody has said: none until something is refused for being too much, then most of what was taken.

    Once in a while, if it is needed, a little more is tried, and more and more until something is refused again. What
    takes nothing at all, from the beginning on or any more, says nothing of how much it takes when it does. What was
    taken before the first refusal may be all that there was to ask for, and no quota: after that, much more is tried.
    """

    __slots__ = ("_is_open", "_learnt", "_needed", "_patience", "_raise_at", "_since", "_step", "_taken", "_untried")

    def __init__(self) -> None:
        super().__init__(math.inf)
        self._learnt = math.inf
        self._taken = 0.0
        self._is_open = False
        self._since: float | None = None
        self._needed = False
        self._step = _FIRST_STEP
        self._patience = _PATIENCE
        self._raise_at = math.inf
        self._untried = math.inf

    def holds(self, now: float) -> bool:
        """As `Rate.holds`."""
        if self.per_second == math.inf:  # as most are
            return False
        held = super().holds(now)
        self._needed |= held
        return held

    def share(self, share: float) -> None:
        """As `Rate.share`; but what was learnt was learnt of our own requests, beside those of others."""

    def take(self, amount: float, now: float) -> None:
        """As `Rate.take`."""
        if self._since is None:
            self._since = now
        if now >= self._raise_at and self._needed:
            self._raise(now)
        self._taken += amount
        if self.per_second < math.inf:
            super().take(amount, now)

    def accepted(self, asked_at: float) -> None:
        """What was asked for then was not too much."""
        self._is_open |= self._since is not None and asked_at >= self._since

    def refused(self, asked_at: float, now: float) -> None:
        """What was asked for then was refused for being too much."""
        if self._since is None or asked_at < self._since:
            return  # this is known
        if not self._is_open and self._untried == math.inf:
            self._begin(now, self._patience)
            return
        before, seconds = self.per_second, now - self._since
        if self._untried < math.inf:  # it was more that was tried
            self.per_second = _LEAST_LOWERED * self._untried
        elif before == math.inf:
            self.per_second = OF_WHAT_WAS_TAKEN * self._taken / max(seconds, _SHORTEST)
        else:
            least = _LOWERED if seconds >= _TELLING else _LOWERED_BLINDLY
            taken = OF_WHAT_WAS_TAKEN * self._taken / seconds if seconds > 0 else 0.0
            self.per_second = min(max(taken, least * before), _LEAST_LOWERED * before)
        self.per_second = min(max(self.per_second, _LEAST_PER_SECOND), before)
        as_before = abs(self.per_second - self._learnt) < 0.1 * self.per_second
        self._learnt = self.per_second
        self._patience = min(2 * self._patience, _MOST_PATIENCE) if as_before else _PATIENCE
        self._step = _WIDEST_STEP if before == math.inf else _FIRST_STEP
        self._untried = math.inf
        self._begin(now, self._patience)

    def _raise(self, now: float) -> None:
        self._untried = self.per_second
        self.per_second = self.per_second * (1 + self._step)
        self._step = max(self._step, min(_LARGEST_STEP, 2 * self._step))
        self._begin(now, _TRIAL)

    def _begin(self, now: float, seconds: float) -> None:
        self._since = now
        self._taken = 0.0
        self._is_open = False
        self._needed = False
        self._raise_at = now + max(seconds, min(_MOST_PATIENCE_FOR_CALLS, _CALLS / self.per_second))
