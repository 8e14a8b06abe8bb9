"""When to ask after jobs, learnt from how long those before them took. Pure.

A job that is looked at says only that it took longer than at one look, and no longer than at the next. So durations are
taken to be spread as the logistic distribution has it, over their logarithm, and its middle and width follow the
likelihood of what was seen (stochastic gradient ascent, each step in the scale of its Fisher information). From the
width it follows how to look: where all jobs take the same time, once, when they are nearly sure to be done; where they
differ, from the middle on and again at shares of their age, as one look for all would have to wait for the slowest.
"""

import math
from collections.abc import Callable

_FIRST_GUESS = 0.25
_SHORTEST, _LONGEST, _LONGEST_FIRST = 0.001, 120.0, 3600.0
CHEAP, DEAR = 0.05, 1.0
"""What a poll is worth, over the duration of a job: so much later are its answers had rather than ask once more."""
_NARROWEST, _WIDEST, _UNKNOWN = 0.002, 1.5, 0.35
"""Of the width: what the way there and back makes of constant durations, the most, and what is as good as no idea."""
_SLOWEST, _LARGEST_CHANGE = 0.05, 0.5
"""Steps of learning after many jobs, and by how much the width changes at most (its logarithm)."""
_CAUTION = 14
"""Jobs that what is believed of the first one counts for."""
_IMPOSSIBLE = 0.001
_SCOUT_EVERY, _SCOUTS_FROM = 32, 0.25
"""Of so many jobs, one is looked at early, from this share of the middle on: else it would not show that they are."""
_GOLDEN = (math.sqrt(5) - 1) / 2
_GROWTH, _LARGEST_SHARE = 1.5, 0.6
"""Of the wait, from one look to the next; and the most of it, over the job's age: a job may be lost for good."""
_FURTHEST = 30.0  # widths from the middle: beyond, all is equally unlikely


class PollTimes:
    """The times to look at the jobs of one service.

    `worth` tells what a poll is worth just now, over the duration of a job: more where requests are what is scarce.
    """

    def __init__(self, first_guess: float = _FIRST_GUESS, worth: Callable[[], float] = lambda: CHEAP) -> None:
        self._middle = math.log(first_guess)
        self._width = _UNKNOWN
        self._worth = worth
        self._way = 0.0
        self._jobs = self._observed = 0
        self.expectations = 0
        """How often jobs were expected to take another time than they did."""

    @property
    def usual(self) -> float:
        """Seconds from submitting to the first poll of most jobs."""
        late = min(0.5, self._width / self._price)  # the share that is not done then: later looks must be worth it
        return self._bounded(math.exp(self._middle + self._width * math.log(1 / late - 1)))

    def first(self) -> float:
        """Seconds from submitting to the first poll of the next job, which may be a scout."""
        self._jobs += 1
        if 1 < self._jobs < _SCOUT_EVERY and self._jobs.bit_count() == 1:  # a first job may have been a slow start
            return self._bounded(math.exp(self._middle) * _SCOUTS_FROM)
        if self._jobs % _SCOUT_EVERY or self._width >= self._price / 2:  # there, half of all looks are early ones
            return self.usual
        place = self._jobs // _SCOUT_EVERY * _GOLDEN % 1
        return self._bounded(math.exp(self._middle) * (1 - (1 - _SCOUTS_FROM) * place))

    def following(self, age: float, polls: int) -> float:
        """Seconds to the next poll of a job that was not done at this age, in seconds, after so many polls."""
        if age < 0.999 * (usual := self.usual):  # what a scout looked at, or what took longer until now
            return min(_LONGEST, max(_SHORTEST, usual - age))
        share = math.expm1(self._width * _apart(self._price / self._width)) * _GROWTH ** min(polls - 1, 40)
        return min(_LONGEST, max(_SHORTEST, age * min(_LARGEST_SHARE, share)))

    def expect(self, share: float) -> None:
        """Look after this share of the time from now on, whatever jobs say that are out: it would show late else."""
        self._middle = math.log(self._bounded(share * self.usual))
        self._width = max(self._width, _UNKNOWN)
        self._observed = 1
        self.expectations += 1

    def observe(self, undone: float, done: float, way: float = 0.0, expectations: int = 0) -> None:
        """Learn from a job that was not done at one age, in seconds (0: it was not looked at), and was at another.

        The last look took `way` seconds, there and back. The job was submitted when there had been so many
        `expectations`; what a job says that is older is past.
        """
        if expectations < self.expectations:
            return
        self._observed += 1
        self._way += (way - self._way) / min(self._observed, 10)
        until, by = self._place(done)
        beyond, since = self._place(undone) if undone > 0 else (-_FURTHEST, 0.0)
        if self._observed == 1 or by < _IMPOSSIBLE:  # nothing that was known holds
            self._middle, self._width = math.log(math.sqrt(undone * done) or done), _UNKNOWN
            self._observed = 1
            return
        step = max(_SLOWEST, 1 / math.sqrt(_CAUTION + self._observed))
        between = by - since if by < 0.5 else _beyond(beyond) - _beyond(until)
        density = until * by * _beyond(until) - beyond * since * _beyond(beyond)
        widening = -density / between if between > 0 else max(beyond, -until)
        self._middle += 3 * step * self._width * (by + since - 1)
        change = min(_LARGEST_CHANGE, max(-_LARGEST_CHANGE, step / _FISHER * widening))
        self._width = min(_WIDEST, max(_NARROWEST, self._width * math.exp(change)))

    @property
    def _price(self) -> float:
        """What a look is worth that comes too early: the next is no sooner than it is back."""
        return self._worth() + min(1.0, self._way * math.exp(-self._middle))

    def _place(self, age: float) -> tuple[float, float]:
        """How many widths an age is beyond the middle, and the share of jobs that are done by then."""
        place = max(-_FURTHEST, min(_FURTHEST, (math.log(age) - self._middle) / self._width))
        return place, _beyond(-place)

    def _bounded(self, seconds: float) -> float:
        return min(_LONGEST_FIRST, max(_SHORTEST, seconds))


_FISHER = (math.pi**2 + 3) / 9
"""The information of one observation on the logarithm of a logistic distribution's width."""


def _beyond(place: float) -> float:
    """The share of a logistic distribution that is so many widths beyond its middle."""
    return 1 / (1 + math.exp(place))


def _apart(price: float) -> float:
    """How far looks are apart, in widths, where a poll is worth so many of them.

    What is left of a job that is late is spread exponentially, so after each look it is as at the one before; the
    distance x at which waiting and asking cost least has exp(x) = 1 + x + price.
    """
    apart = math.log1p(price + math.sqrt(2 * price))
    for _ in range(3):
        apart = math.log(1 + apart + price)
    return apart
