"""Whether a call may go out to an account, and if not, why. Pure: told the time, ignorant of waiting.

`Admission` joins whatever an account may not be asked for too much of. An algorithm is not a gate: one more of them
changes nothing in how calls wait, which is the business of `service.limits.gate`.
"""

import math
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import islice
from typing import Generic, TypeVar

from service.limits.breaker import Breaker
from service.limits.costs import Budget
from service.limits.in_flight import InFlight, kind_of
from service.limits.rates import LearntRate, LeasedRate, Rate


class Held(StrEnum):
    """Why calls are held: the closed set of the `reason` metric label."""

    QUIET = "quiet"
    BREAKER = "breaker"
    BUDGET = "budget"
    REQUESTS = "requests"
    DOCUMENTS = "documents"
    CHARACTERS = "characters"
    IN_FLIGHT = "in_flight"


SLICE = 0.1
"""Seconds of a shared rate that are asked for at once, at most."""
_MOST_FORESEEN = 1000

T = TypeVar("T")


@dataclass(frozen=True, slots=True, eq=False)
class Stream:
    """Who asks: where an account has not enough for all, each gets of it in proportion to its priority."""

    priority: float = 1.0


class _Line(Generic[T]):
    """Calls of one stream that wait, and how much the stream has had of the account, by its priority."""

    __slots__ = ("calls", "had")

    def __init__(self) -> None:
        self.calls: deque[T] = deque()
        self.had = 0.0


class Call:
    """What a call asks for, and how it stands: `admitted_at` is None until it may go.

    `prepaid` are HTTP requests that its admission has counted already; `paced` are seconds that its own requests waited
    for their turn while it was out. `requests` are those it made, the last at `asked_at`; `answered` is whether it
    ended well, and `cost` what was billed for it; `set_aside` is what may have been. `is_heard` is whether it is known
    how the account took it.
    """

    __slots__ = (
        "admitted_at",
        "answered",
        "asked_at",
        "characters",
        "cost",
        "documents",
        "is_heard",
        "paced",
        "prepaid",
        "requests",
        "set_aside",
        "stream",
    )

    def __init__(self, characters: int, documents: int = 1, stream: Stream | None = None) -> None:
        self.characters = characters
        self.documents = documents
        self.stream = stream
        self.prepaid = 0
        self.paced = 0.0
        self.admitted_at: float | None = None
        self.asked_at = 0.0
        self.requests = 0
        self.answered = False
        self.is_heard = False
        self.cost = 0.0
        self.set_aside = 0.0


C = TypeVar("C", bound=Call)


class Admission(Generic[C]):
    """The state of an account's gate: who waits, what is out, and what that leaves.

    Calls of a stream go in the order they came, so that small ones never starve large ones; streams take turns, by what
    their calls take of the tightest quota, or else by calls. A call goes out with the first of its
    HTTP requests, so it never keeps a place in flight while that waits for its turn.
    """

    def __init__(
        self,
        in_flight: InFlight,
        budget: Budget,
        breaker: Breaker,
        *,
        requests: Sequence[LeasedRate] = (),
        documents: Sequence[LeasedRate] = (),
        characters: Sequence[LeasedRate] = (),
    ) -> None:
        self.in_flight = in_flight
        self.budget = budget
        self.breaker = breaker
        self.out = 0
        self.lost = 0
        """Calls among them that were never answered, where others were that were asked later."""
        self.quiet_until = 0.0
        self.spent_until = 0.0
        self.look_at = math.inf
        """When somebody may go who may not go now; infinite where that depends on what ends or comes."""
        self._learnt = LearntRate()
        self.go_by(requests=requests, documents=documents, characters=characters)
        self._budget_is_limited = budget.is_limited
        self._unheard = 0
        self._lost_before = -math.inf
        self._lines: dict[Stream | None, _Line[C]] = {}
        self._had = 0.0
        self._held = dict.fromkeys(Held, 0.0)
        self._reason: Held | None = None
        self._held_since = 0.0

        self.waiting = 0
        """Calls that are waiting."""

    def go_by(
        self, *, requests: Sequence[LeasedRate], documents: Sequence[LeasedRate], characters: Sequence[LeasedRate]
    ) -> None:
        """Let nothing go from now on that these rates hold, or the one that is learnt."""
        self._requests: tuple[Rate, ...] = (*requests, self._learnt)
        self._documents = tuple(documents)
        self._characters = tuple(characters)
        self._rates = (
            *((Held.REQUESTS, rate) for rate in self._requests),
            *((Held.DOCUMENTS, rate) for rate in documents),
            *((Held.CHARACTERS, rate) for rate in characters),
        )
        self.leased = (*requests, *documents, *characters)
        """The rates that can be shared with others by slices of time."""
        self._amounts = (*(0 for _ in requests), *(1 for _ in documents), *(2 for _ in characters))

    @property
    def holding(self) -> Held | None:
        """What holds whoever is next; None where nobody waits."""
        return self._reason

    @property
    def first(self) -> C:
        """Who is next, of those that wait."""
        return self._next_line().calls[0]

    def ask(self, call: C, now: float) -> bool:
        """Let a call go at once, if nobody waits and nothing holds it."""
        if self.waiting:
            return False
        reason = self._reason_to_hold(call, now)
        if reason is None:
            self._let_go(call, now)
        return reason is None

    def wait(self, call: C) -> None:
        """Have a call wait for its turn."""
        line = self._lines.get(call.stream)
        if line is None:
            line = self._lines[call.stream] = _Line()
        if not line.calls:
            line.had = max(line.had, self._had)  # what it did not ask for then is not owed to it now
        line.calls.append(call)
        self.waiting += 1

    def next(self, now: float) -> C | None:
        """Let the next call go, if somebody waits and nothing holds it."""
        if not self.waiting:
            return None
        line = self._next_line()
        call = line.calls[0]
        reason = self._reason_to_hold(call, now)
        self._note(reason, now)
        if reason is not None:
            return None
        line.calls.popleft()
        self.waiting -= 1
        self._had = line.had
        line.had += self._takes(call) / (call.stream.priority if call.stream is not None else 1.0)
        self._let_go(call, now)
        if not self.waiting:
            self._note(None, now)
        return call

    def withdraw(self, call: C, now: float) -> None:
        """Forget a call that waits no more."""
        self._lines[call.stream].calls.remove(call)
        self.waiting -= 1
        if not self.waiting:
            self._note(None, now)

    def ended(self, call: C, now: float) -> None:
        """A call that was let go has come to its end."""
        if call.answered and call.admitted_at is not None:
            kind, took = kind_of(call.characters, call.documents), now - call.admitted_at - call.paced
            self.in_flight.answered(kind, call.admitted_at, took, self.out - self.lost, now)
        self.out -= 1
        if not call.is_heard and call.admitted_at is not None:
            self.breaker.dropped(call.admitted_at, now)
            self._hear(call, call.admitted_at)
        if call.cost or call.set_aside:
            self.budget.book(call.set_aside, call.cost)
            self.spent_until = 0.0  # perhaps it was less than was set aside

    def taken(self, call: C, now: float) -> None:
        """The account has answered a call that is out, or will."""
        self._learnt.accepted(call.asked_at)
        if call.is_heard or call.admitted_at is None:
            return
        was_unwell = self.breaker.is_trying
        self.breaker.answered(call.admitted_at, now - call.admitted_at - call.paced, now)
        self._hear(call, call.admitted_at)
        if was_unwell and not self.breaker.is_trying:
            self.lost, self._unheard, self._lost_before = self.lost + self._unheard, 0, now

    def failed(self, call: C, now: float) -> None:
        """The account has failed on a call that is out, or on what it had taken of it."""
        if call.admitted_at is None:
            return
        if call.is_heard:
            self.breaker.lost(call.admitted_at, now)
        else:
            self.breaker.failed(call.admitted_at, now)
            self._hear(call, call.admitted_at)

    def _hear(self, call: C, admitted_at: float) -> None:
        call.is_heard = True
        if admitted_at < self._lost_before:
            self.lost -= 1
        else:
            self._unheard -= 1

    def throttled(self, call: C, now: float) -> None:
        """The last request of a call that is out was refused for being one too many."""
        self._learnt.refused(call.asked_at, now)
        if call.requests <= 1:  # else it asked after something, which takes no place
            self.in_flight.throttled(call.asked_at, self.out, now)

    def request(self, now: float) -> bool:
        """Let one HTTP request of a call that is out go, if nothing holds it; else see `look_at`."""
        if self.quiet_until > now:
            self.look_at = self.quiet_until
            return False
        for rate in self._requests:
            if rate.holds(now):
                self.look_at = rate.free_at
                return False
        for rate in self._requests:
            rate.take(1, now)
        return True

    @property
    def is_asking(self) -> bool:
        """Whether somebody waits for what only others of the group can give."""
        return self.budget.is_asking or any(rate.is_leased and rate.free_at == math.inf for rate in self.leased)

    def wants(self, requests: int, now: float) -> list[float]:
        """For each leased rate, the seconds of it that who waits would take: calls, and requests of calls that are out.

        At most a slice, or what the largest of them takes: more will come in time, and nothing goes in advance.
        """
        calls = [call for line in self._lines.values() for call in islice(line.calls, _MOST_FORESEEN)]
        amounts = (
            [1] * (requests + len(calls)),
            [call.documents for call in calls],
            [call.characters for call in calls],
        )
        return [
            min(rate.wants(sum(amounts[of]), now), max(SLICE, rate.wants(max(amounts[of], default=0), now)))
            for rate, of in zip(self.leased, self._amounts, strict=True)
        ]

    def quiet(self, seconds: float, now: float) -> None:
        """Let nothing go for so long, nor for less than was asked for before."""
        self.quiet_until = max(self.quiet_until, now + seconds)
        for _, rate in self._rates:
            rate.is_let_be()

    def share(self, share: float) -> None:
        """Take this share of every quota, and of the money, from now on."""
        for rate in (*self._requests, *self._documents, *self._characters):
            rate.share(share)
        self.budget.share(share)
        self.spent_until = 0.0

    def closed_for(self, now: float) -> float:
        """Seconds for which nobody is let out: it is quiet, the money is spent, or the account is unwell."""
        trial = self.breaker.try_at if self.breaker.holds(now) else 0.0
        return max(0.0, self.quiet_until - now, self.spent_until - now, trial - now)

    def held(self, now: float) -> Mapping[Held, float]:
        """Seconds for which calls have been held, by what held whoever was next."""
        self._note(self._reason, now)
        return dict(self._held)

    def _next_line(self) -> _Line[C]:
        return min((line for line in self._lines.values() if line.calls), key=lambda line: line.had)

    def _takes(self, call: C) -> float:
        """What a call takes of the tightest quota, in seconds of it; where there is none, one is as good as another."""
        return (
            max(
                [
                    *(1 / rate.per_second for rate in self._requests),
                    *(call.documents / rate.per_second for rate in self._documents),
                    *(call.characters / rate.per_second for rate in self._characters),
                ]
            )
            or 1.0
        )

    def _reason_to_hold(self, call: C, now: float) -> Held | None:
        if (shut := self._reason_to_be_shut(call, now)) is not None:
            return shut
        for held, rate in self._rates:
            if rate.holds(now):
                self.look_at = rate.free_at
                return held
        # Asked last: only what nothing else holds would gain by more of them. A trial takes no place, as they may all
        # be taken by calls that are never answered.
        if self.out - self.lost >= self.in_flight.limit and not self.breaker.is_trying:
            self.look_at = self.breaker.silent_at
            self.in_flight.needed()
            return Held.IN_FLIGHT
        return None

    def _reason_to_be_shut(self, call: C, now: float) -> Held | None:
        if self.quiet_until > now:
            self.look_at = self.quiet_until
            return Held.QUIET
        if self.breaker.holds(now):
            self.look_at = self.breaker.try_at
            return Held.BREAKER
        if self._budget_is_limited and (wait := self.budget.wait(call.documents, call.characters)):
            self.look_at = now + wait
            if not self.budget.is_asking:
                self.spent_until = self.look_at
            return Held.BUDGET
        return None

    def _let_go(self, call: C, now: float) -> None:
        for rate in self._requests:
            rate.take(1, now)
        for rate in self._documents:
            rate.take(call.documents, now)
        for rate in self._characters:
            rate.take(call.characters, now)
        if self._budget_is_limited:
            call.set_aside = self.budget.set_aside(call.documents, call.characters)
        call.prepaid = 1
        call.admitted_at = call.asked_at = now
        self.out += 1
        self._unheard += 1
        self.breaker.asked(now)

    def _note(self, reason: Held | None, now: float) -> None:
        if self._reason is not None:
            self._held[self._reason] += now - self._held_since
        self._reason, self._held_since = reason, now
