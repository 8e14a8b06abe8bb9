"""How much may go in a second. Pure: told the time, ignorant of waiting."""

SLACK = 0.1
"""Seconds that a rate may make up for: a timer that wakes a little after its time must not lose the difference."""
TICK = 0.002
"""Seconds that whatever goes may be early by: timers are no finer, nor are some clocks."""
OF_A_QUOTA = 0.98
"""The share of a quota that is used. Calls that are spaced evenly arrive less so: this leaves the network a fiftieth of
the quota's window to be uneven in, before a service that counts strictly counts one too many."""


class Rate:
    """A queue at a counter that serves `per_second` units a second (GCRA, ITU-T I.371).

    An amount of any size goes as soon as what went before is paid off, so the long-run rate is exact and a large amount
    delays what comes after it, never itself. Idle time is not saved up, but for a tick.
    """

    __slots__ = ("_credit", "_is_waited_for", "free_at", "per_second")

    def __init__(self, per_second: float) -> None:
        self.per_second = per_second
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

    def take(self, amount: float, now: float) -> None:
        """Let `amount` go at `now`."""
        self.free_at = max(self.free_at, now - self._credit) + amount / self.per_second
        self._credit = TICK
