"""When a call that is late is asked a second time, elsewhere. Pure.

The tail is cut where it is long ("The Tail at Scale", Dean and Barroso, CACM 56(2), 2013): what takes longer than most
calls do is asked again, and the first answer counts. As both may be billed, only a share of calls may be.
"""

from collections import deque

from service import settings

_LEAST_KNOWN, _MOST_KNOWN = 20, 200
"""Answers that a typical duration is taken from."""
_REFRESH = 10
"""Answers after which it is taken anew."""
_MOST_SAVED = 10.0
"""Second calls that may be saved up for a bad moment."""


class Hedging:
    """How long a call may take before it is asked again, and whether one more may be."""

    def __init__(self, branch: settings.Hedge) -> None:
        self._branch = branch
        self._took: deque[float] = deque(maxlen=_MOST_KNOWN)
        self._fresh = 0
        self._saved = 0.0
        self._after = None if branch.after == "p95" else branch.after

    @property
    def after(self) -> float | None:
        """Seconds after which a call is late; None while nobody knows."""
        return self._after

    def asked(self) -> None:
        """A call goes out, so a part of a second one may."""
        self._saved = min(_MOST_SAVED, self._saved + self._branch.at_most)

    def answered(self, took: float) -> None:
        """A call was answered after so many seconds."""
        if self._branch.after != "p95":
            return
        self._took.append(took)
        self._fresh += 1
        if len(self._took) >= _LEAST_KNOWN and (self._after is None or self._fresh >= _REFRESH):
            self._fresh = 0
            self._after = sorted(self._took)[len(self._took) * 95 // 100]

    @property
    def may(self) -> bool:
        """Whether one more call may be asked a second time."""
        return self._saved >= 1.0

    def take(self) -> None:
        """One more is to be."""
        self._saved -= 1.0

    def give_back(self) -> None:
        """It was not."""
        self._saved += 1.0
