"""What an account may be asked for: the gate where calls wait until `service.limits.admission` lets them go."""

import asyncio
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextvars import ContextVar, Token
from dataclasses import dataclass, field
from typing import NamedTuple

from service import settings
from service.documents import Outcome
from service.errors import Misconfigured
from service.limits.admission import Admission, Call, Held, Stream
from service.limits.breaker import Breaker, BreakerStatistics, State
from service.limits.costs import FREE, Budget, Grant, Report, Spent, Tariff
from service.limits.hedging import Hedging
from service.limits.in_flight import Adaptive, Fixed
from service.limits.rates import OF_A_QUOTA, LeasedRate
from service.limits.spending import Spending

_LOOK = 1.0
"""Seconds after which whoever is next at a quiet gate looks again whether to go elsewhere."""


class Asked(NamedTuple):
    """What a gate tells the others of its group, and asks of them.

    `slices` are the seconds wanted of each rate, `quiet` those that the account has asked for.
    """

    slices: Sequence[float]
    quiet: float
    money: Report


@dataclass(frozen=True, slots=True)
class LimitsStatistics:
    """The gate as it stands: calls in flight, the most there may be, those waiting, and seconds of enforced quiet.

    `held` are the seconds for which calls have been held so far, by what held whoever was next.
    """

    in_flight: int
    in_flight_limit: int
    waiting: int
    quiet: float
    spent: Spent = field(default_factory=Spent)
    spend_per_hour: float | None = None
    spend_per_day: float | None = None
    held: Mapping[Held, float] = field(default_factory=dict)
    breaker: BreakerStatistics = field(default_factory=lambda: BreakerStatistics(State.CLOSED))


class Limits:
    """The gate of one account.

    A call holds a place in flight for as long as it lasts (`admit`); each HTTP request that it makes, polls included,
    is counted against the request rates on its own (`request`). `quiet` keeps everybody out for a while.
    """

    def __init__(self, limits: settings.Limits, tariff: Tariff = FREE, clock: Callable[[], float] = time.time) -> None:
        self.tariff = tariff
        self.hedging = Hedging(limits.hedge) if limits.hedge is not None else None
        self._settings = limits
        self.breaker = Breaker(limits.breaker)
        self._rates = {name: LeasedRate(each) for name, each in _quotas(limits).items()}
        self._admission: Admission[Place] = Admission(
            Adaptive(most=limits.most_in_flight) if limits.in_flight == "adaptive" else Fixed(limits.in_flight),
            Budget(tariff, limits.spend_per_hour, limits.spend_per_day, clock),
            self.breaker,
            **self._rates_by_kind(),
        )
        self.spending = Spending(self._admission.budget) if self._admission.budget.is_limited else None
        """What was spent, as it is kept with partitions; None where nobody has to know."""
        self.wake: Callable[[], None] = lambda: None
        """Called when somebody waits for what only others can give, or has something to tell them."""
        self._quiet_to_tell = 0.0
        self._shares: dict[Stream, float] = {}
        self._requests: deque[asyncio.Future[None]] = deque()
        self._alarm: asyncio.TimerHandle | None = None

    def admit(
        self,
        characters: int,
        documents: int = 1,
        leave: Callable[[], bool] = bool,
        stream: Stream | None = None,
    ) -> "Place":
        """Wait for a place in flight and for quota; the place is held for the length of the `async with` block.

        Gives False, and uses no quota, where the account is quiet and the caller would rather `leave` than wait.
        """
        return Place(self, characters, documents, leave, stream)

    def spare(self, characters: int, documents: int, stream: Stream | None = None) -> "Spare":
        """As `admit`, but gives False at once where the account is unwell, or anything would hold the call."""
        return Spare(self, characters, documents, bool, stream)

    def charge(self, outcomes: Iterable[Outcome]) -> float:
        """Count what a call that was given up may have cost, had it been answered so; gives that."""
        cost = self.tariff.cost(outcomes)
        self._admission.budget.book(0.0, cost)
        return cost

    @property
    def is_short_of_requests(self) -> bool:
        """Whether it is requests that hold whoever is next, so that one less makes room for another."""
        return bool(self._requests) or self._admission.holding is Held.REQUESTS

    async def request(self) -> None:
        """Wait until one more HTTP request may be made."""
        call, now = self._call(), _now()
        if call is not None and call.prepaid and self._admission.quiet_until <= now:
            call.prepaid -= 1
        elif self._requests or not self._admission.request(now):
            await self._turn()
            if call is not None:
                call.paced += _now() - now
                now = _now()
        if call is not None:
            call.asked_at = now
            call.requests += 1

    async def _turn(self) -> None:
        turn = asyncio.get_running_loop().create_future()
        self._requests.append(turn)
        try:
            self._look()
            await turn
        except asyncio.CancelledError:
            self._look()
            raise

    def _call(self) -> "Place | None":
        call = _CALL.get()
        return call if call is not None and call.limits is self else None

    def answered(self, outcomes: Iterable[Outcome] = ()) -> None:
        """The call that is being made was answered so."""
        if (call := self._call()) is not None:
            call.answered = True
            call.cost = self.tariff.cost(outcomes)
            self._take(call)

    def taken(self) -> None:
        """The account has answered the call that is being made, or taken it in hand: it is well."""
        if (call := self._call()) is not None:
            self._take(call)

    def _take(self, call: "Place") -> None:
        self._admission.taken(call, _now())
        if self._admission.waiting:
            self._look()

    def failed(self) -> None:
        """The account has failed on the call that is being made, or on what it had taken in hand."""
        if (call := self._call()) is not None:
            self._admission.failed(call, _now())

    def throttled(self) -> None:
        """The last request of the call that is being made was refused for being one too many."""
        if (call := self._call()) is not None:
            self._admission.throttled(call, _now())

    def change(self, limits: settings.Limits) -> None:
        """Go by these limits from now on, and keep what is known: what was taken, spent and learnt.

        Whose quotas they are has to stay, as does whether money is limited, and which rates are that others share.
        """
        before, self._settings = self._settings, limits
        gate, now, in_flight = self._admission, _now(), self._admission.in_flight
        self.breaker.evidence = limits.breaker
        if limits.hedge != before.hedge:
            self.hedging = Hedging(limits.hedge) if limits.hedge is not None else None
        match in_flight, limits.in_flight:
            case Adaptive(), "adaptive":
                in_flight.cap(limits.most_in_flight)
            case _, "adaptive":
                gate.in_flight = Adaptive(in_flight.limit, limits.most_in_flight)
            case Fixed(), int(number):
                in_flight.limit = number
            case _, int(number):
                gate.in_flight = Fixed(number)
        quotas = _quotas(limits)
        self._rates = {name: self._rates.get(name) or LeasedRate(each) for name, each in quotas.items()}
        gate.go_by(**self._rates_by_kind())
        self._share_alike()
        for name, each in quotas.items():
            self._rates[name].change(each, now)
        gate.budget.limit(limits.spend_per_hour, limits.spend_per_day)
        gate.spent_until = 0.0
        self._look()

    def _rates_by_kind(self) -> dict[str, list[LeasedRate]]:
        kinds = ("requests", "documents", "characters")
        return {kind: [rate for name, rate in self._rates.items() if name.startswith(kind)] for kind in kinds}

    def share(self, stream: Stream, share: float) -> None:
        """This worker does so much of the stream's work: it uses the mean over streams of what the quotas are."""
        if self._settings.quotas_of == "group":
            self._shares[stream] = share
            self._share_alike()
            self._look()

    def _share_alike(self) -> None:
        if self._shares:
            self._admission.share(sum(self._shares.values()) / len(self._shares))

    def quiet(self, seconds: float) -> None:
        """Let nothing new out for so long: the account has said that it is too much, or that it is unwell."""
        self._admission.quiet(seconds, _now())
        self._quiet_to_tell = max(self._quiet_to_tell, seconds)
        self.wake()

    @property
    def is_for_the_group(self) -> bool:
        """Whether there is something that others of the group share."""
        return self._settings.quotas_of == "group"

    @property
    def spend(self) -> tuple[float | None, float | None]:
        """What all may spend in an hour and in a day."""
        return self._settings.spend_per_hour, self._settings.spend_per_day

    def asks(self) -> "Asked":
        """What is to be told to the others, and asked of them."""
        gate = self._admission
        quiet, self._quiet_to_tell = self._quiet_to_tell, 0.0
        return Asked(gate.wants(len(self._requests), _now()), quiet, gate.budget.report())

    def given(self, asked: "Asked", slices: Sequence[tuple[float, float] | None], quiet: float, money: Grant) -> None:
        """What came of that: slices, by when from now each begins and how long it is, and all `quiet`, in seconds."""
        gate, now = self._admission, _now()
        gate.budget.go_shared()
        gate.budget.grant(asked.money, money)
        for rate, slice_of_it in zip(gate.leased, slices, strict=True):
            rate.go_by_slices(now)
            if slice_of_it is not None:
                begin, seconds = slice_of_it
                rate.give(now + begin, seconds)
        if quiet:
            gate.quiet(quiet, now)
        self._look()

    def rest(self) -> "Asked":
        """What is to be told to the others at the end: what is not needed is theirs."""
        return Asked([0.0] * len(self._admission.leased), 0.0, self._admission.budget.rest())

    def tell_again(self, asked: "Asked") -> None:
        """Nobody has heard of it."""
        self._quiet_to_tell = max(self._quiet_to_tell, asked.quiet)

    def alone(self) -> None:
        """Go by our own share of everything, for as long as nobody can be asked."""
        now = _now()
        self._admission.budget.go_alone()
        for rate in self._admission.leased:
            rate.go_by_share(now)
        self._look()

    @property
    def quiet_for(self) -> float:
        """Seconds for which nobody is let out: it is quiet, the money is spent, or the account is unwell."""
        return self._admission.closed_for(_now())

    @property
    def doubts(self) -> int:
        """How often it was doubted that calls take as long as they seem to: who has to look should look sooner."""
        return self._admission.in_flight.doubts

    def statistics(self) -> LimitsStatistics:
        """A picture of this moment."""
        gate, now = self._admission, _now()
        return LimitsStatistics(
            gate.out,
            gate.in_flight.limit,
            gate.waiting,
            self.quiet_for,
            gate.budget.spent(),
            *gate.budget.limits,
            gate.held(now),
            self.breaker.statistics(now),
        )

    def enter(self, place: "Place") -> bool:
        """Let a call go at once, if it may."""
        return not self._requests and self._admission.ask(place, _now())

    async def wait(self, place: "Place") -> bool:
        """Wait until a call may go; False where it would rather leave."""
        self._admission.wait(place)
        place.turn = asyncio.get_running_loop().create_future()
        try:
            self._look()
            return await place.turn
        except asyncio.CancelledError:
            if place.admitted_at is not None:
                self._admission.ended(place, _now())
            self._look()
            raise

    def exit(self, place: "Place") -> None:
        """A call has come to its end."""
        self._admission.ended(place, _now())
        if self._admission.waiting:
            self._look()

    def _look(self) -> None:
        """Let go who may go, and see when to look again."""
        gate, now = self._admission, _now()
        while self._requests and (self._requests[0].done() or gate.request(now)):
            turn = self._requests.popleft()
            if not turn.done():
                turn.set_result(None)
        if not self._requests:
            self._let_go(now)
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None
        if self._requests or gate.waiting:
            at = min(gate.look_at, now + _LOOK) if gate.closed_for(now) else gate.look_at
            if at < float("inf"):
                self._alarm = asyncio.get_running_loop().call_at(at, self._look)
            if gate.is_asking:
                self.wake()

    def _let_go(self, now: float) -> None:
        gate = self._admission
        while gate.waiting:
            place = gate.first
            if place.turn.cancelled():
                gate.withdraw(place, now)
            elif gate.next(now) is not None:
                place.turn.set_result(True)
            elif (closed := gate.closed_for(now)) and place.leave():
                gate.withdraw(place, now)
                place.turn.set_result(False)
            elif closed and gate.spent_until > now and self._settings.when_spent == "stop":
                gate.withdraw(place, now)
                place.turn.set_exception(Misconfigured(f"{gate.budget.exceeded()} is used up: raise it, or wait"))
            else:
                return


class Place(Call):
    """A call at a gate, and its place in flight when it is let in."""

    __slots__ = ("_token", "leave", "limits", "turn")

    turn: "asyncio.Future[bool]"
    _token: "Token[Place | None]"

    def __init__(
        self, limits: Limits, characters: int, documents: int, leave: Callable[[], bool], stream: Stream | None
    ) -> None:
        super().__init__(characters, documents, stream)
        self.limits = limits
        self.leave = leave

    async def __aenter__(self) -> bool:
        admitted = self.limits.enter(self) or await self.limits.wait(self)
        self._token = _CALL.set(self if admitted else None)
        return admitted

    async def __aexit__(self, *_: object) -> None:
        _CALL.reset(self._token)
        if self.admitted_at is not None:
            self.limits.exit(self)


class Spare(Place):
    """A call that goes at once or not at all."""

    __slots__ = ()

    async def __aenter__(self) -> bool:
        admitted = not self.limits.breaker.is_trying and self.limits.enter(self)
        self._token = _CALL.set(self if admitted else None)
        return admitted


_CALL: ContextVar[Place | None] = ContextVar("call", default=None)
"""The call that is being made: its requests are made by a client that knows nothing of it."""


def _quotas(limits: settings.Limits) -> dict[str, float]:
    """What is used of the quotas that there are, each a second; in the order that those who share them know."""
    told = {
        "requests_per_second": limits.requests_per_second,
        "requests_per_minute": (limits.requests_per_minute or 0) / 60,
        "documents_per_second": limits.documents_per_second,
        "characters_per_second": limits.characters_per_second,
    }
    return {name: OF_A_QUOTA * each for name, each in told.items() if each}


def _now() -> float:
    return asyncio.get_running_loop().time()
