"""What is done to the workers, the broker and the endpoint, and what may come of it."""

import random
import signal
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from tests.chaos.comprehend import Comprehend
from tests.chaos.endpoint import TROUBLES, Endpoint
from tests.chaos.workload import Accounted, Workload, say
from tests.kafka.broker import Broker
from tests.kafka.workers import Held

BOTH = ("at_least_once", "exactly_once")


class Missed(Exception):
    """What was to be so is not."""


@dataclass(frozen=True)
class Row:
    """One line of the table: what was counted, and whether that is as it is to be."""

    case: str
    mode: str
    documents: int
    lost: int
    duplicates: int
    submitted_twice: int
    dead_letters: int
    goal: str
    goal_met: bool
    seconds: float
    note: str = ""

    def to_json(self) -> dict[str, Any]:
        """The row for a program."""
        return asdict(self)


@dataclass(frozen=True)
class Size:
    """How much of it: `documents` in all, so many `blows`, and `seconds` that an outage or a dance of workers lasts."""

    documents: int
    blows: int = 1
    seconds: float = 0.0


@dataclass(frozen=True)
class Case:
    """One way to be hard on it."""

    name: str
    about: str
    long: Size
    short: Size
    run: Callable[[Workload, Size], tuple[int, str]]
    """Does it, and gives how many duplicates at least-once may have, with a note."""
    modes: tuple[str, ...] = BOTH
    dead_letters: Callable[[Size], int] = lambda _: 0
    stream: Callable[[], dict[str, Any]] = dict
    endpoint: Callable[[], Endpoint] = Endpoint
    may_submit_again: bool = False
    """Whether a worker asks for what it does not know to be another's by now."""
    takes_long: bool = False
    """Whether it is run only where it is asked for by name."""


def counted(case: Case, mode: str, size: Size, broker: Broker, folder: Path) -> Row:
    """One case in one mode."""
    say(f"{case.name}, {mode}: {size.documents:,} documents")
    began, endpoint = time.monotonic(), case.endpoint()
    with endpoint.listening(), Workload(broker, endpoint, folder, mode, **case.stream()) as work:
        missed = False
        try:
            allowed, note = case.run(work, size)
        except Missed as why:
            allowed, note, missed = 0, str(why), True
        try:
            work.until(work.are_done)
        except TimeoutError as why:  # what is not done is counted as lost, and the other cases are for others
            note, missed = f"not all was done: {why}", True
        found = work.accounted()
    row = _row(case, mode, size, found, allowed=allowed, note=note, seconds=time.monotonic() - began)
    return replace(row, goal_met=row.goal_met and not missed)


def _row(case: Case, mode: str, size: Size, found: Accounted, *, allowed: int, note: str, seconds: float) -> Row:
    most = allowed if mode == "at_least_once" else 0
    letters = case.dead_letters(size)
    met = (
        found.lost == 0
        and (found.submitted_twice == 0 or case.may_submit_again)
        and found.duplicates <= most
        and found.dead_letters == letters
        and found.misrouted <= (2 * most if mode == "at_least_once" else 0)
    )
    return Row(
        case.name,
        mode,
        found.documents,
        found.lost,
        found.duplicates,
        found.submitted_twice,
        found.dead_letters,
        f"lost 0, duplicates ≤ {most}, submitted twice {'-' if case.may_submit_again else 0}, dead letters {letters}",
        met,
        round(seconds, 1),
        f"{note}; submitted again, as the worker died before its job was noted: {found.submitted_unnoted}",
    )


def killed(work: Workload, size: Size) -> tuple[int, str]:
    """Kill the worker with -9, again and again, in mid-stream."""
    each = size.documents // (size.blows + 1)
    uncommitted = []
    work.feed(size.documents)
    for blow in range(size.blows):
        victim, target = work.worker(), (blow + 1) * each
        victim.wait_until(lambda target=target: work.done() >= target)  # type: ignore[misc]
        victim.kill()
        uncommitted.append(work.uncommitted())
        say(f"  kill {blow + 1} of {size.blows}: {uncommitted[-1]} published and uncommitted")
    work.worker()
    return sum(uncommitted), f"published and uncommitted at each kill: {uncommitted}"


def broker_away(work: Workload, size: Size) -> tuple[int, str]:
    """Stop the broker in mid-stream, and start it again later."""
    work.feed(size.documents)
    worker = work.worker()
    worker.wait_until(lambda: work.done() >= size.documents // 4)
    work.broker.stop()
    time.sleep(size.seconds)
    work.broker.start()
    return size.documents // 10, f"away for {size.seconds:.0f} s"


def workers_come_and_go(work: Workload, size: Size) -> tuple[int, str]:
    """Up to four workers, one of which joins or leaves every few seconds, in good order."""
    dice, running, moves = random.Random(7), [work.worker()], 0  # noqa: S311  keeps no secret
    deadline = time.monotonic() + size.seconds
    per_move = size.documents // max(1, size.blows)
    while time.monotonic() < deadline:
        work.feed(min(per_move, max(0, size.documents - moves * per_move)))
        if len(running) == 4 or (len(running) > 1 and dice.random() < 0.5):
            running.pop(dice.randrange(len(running))).send(signal.SIGTERM)
        else:
            running.append(work.worker())
        moves += 1
        time.sleep(size.seconds / size.blows)
    if (left := size.documents - moves * per_move) > 0:
        work.feed(left)
    return size.documents // 10, f"{moves} joined or left"


def zombie(work: Workload, size: Size) -> tuple[int, str]:
    """A worker that is paused past its session, and wakes when another has its partitions."""
    work.feed(size.documents // 2)
    sleeper = work.worker()
    sleeper.wait_until(lambda: work.done() >= size.documents // 8)
    sleeper.send(signal.SIGSTOP)
    asleep_at = work.done()
    successor = work.worker()
    successor.wait_until(lambda: work.done() >= min(asleep_at + size.documents // 8, size.documents // 2))
    sleeper.send(signal.SIGCONT)
    work.feed(size.documents - size.documents // 2)
    return size.documents // 2, "paused until another had answered an eighth of the documents"


def endpoint_away(work: Workload, size: Size) -> tuple[int, str]:
    """An endpoint that is throttling, unavailable, talking nonsense, silent and slow, in turn."""
    work.feed(size.documents)
    worker = work.worker()
    worker.wait_until(lambda: work.done() >= size.documents // 10)
    for trouble in TROUBLES:
        say(f"  {trouble}")
        work.endpoint.trouble = trouble
        time.sleep(size.seconds / len(TROUBLES))
    work.endpoint.trouble = ""
    return 0, f"{size.seconds:.0f} s of " + ", ".join(TROUBLES)


def poisoned(work: Workload, size: Size) -> tuple[int, str]:
    """One document in a hundred has the endpoint refuse whatever it comes with."""
    work.feed(size.documents, poisoned_every=100)
    work.worker()
    return 0, "found by halving"


def killed_with_a_job_out(work: Workload, size: Size) -> tuple[int, str]:
    """Kill the worker with -9 while all documents are in one job that takes its time."""
    work.feed(size.documents)
    victim = work.worker()
    victim.wait_until(lambda: bool(work.noted()))
    victim.kill()
    work.worker()
    return 0, "killed while its only job was under way"


def soaked(work: Workload, size: Size) -> tuple[int, str]:
    """Go on for long, and look at what one worker holds: memory, sockets, tasks, lag."""
    worker, looks = work.worker(), list[Held]()
    rate, deadline = size.documents / size.seconds, time.monotonic() + size.seconds
    began, fed = time.monotonic(), 0
    while (now := time.monotonic()) < deadline:
        if (due := min(size.documents, round((now - began) * rate)) - fed) > 0:
            work.feed(due)
            fed += due
        if now - began >= len(looks) * size.seconds / 60:
            looks.append(worker.held())
        time.sleep(0.2)
    work.feed(size.documents - fed)
    work.until(work.are_done)
    begun, middle = len(looks) // 10, len(looks) // 2
    early, late = (max(half, key=lambda look: look.megabytes) for half in (looks[begun:middle], looks[middle:]))
    if late.megabytes > 1.1 * early.megabytes + 5:
        raise Missed(f"memory grew: {early}, {late}")
    if max(look.files for look in looks[middle:]) > max(look.files for look in looks[begun:middle]) + 5:
        raise Missed(f"files or connections leak: {early}, {late}")
    if (lag := max(look.lag for look in looks[begun:])) > 20 * rate + 500:
        raise Missed(f"it does not keep up: {lag:.0f} documents behind")
    return 0, f"memory {early.megabytes:.0f} and {late.megabytes:.0f} MB, {late.files} files, {late.threads} threads"


CASES = (
    Case("kill", "a worker killed with -9, again and again", Size(20_000, 20), Size(1_500, 2), killed),
    Case("broker", "the broker stopped and started", Size(10_000, seconds=30), Size(1_500, seconds=2), broker_away),
    Case(
        "rebalance",
        "workers joining and leaving every 5 s",
        Size(20_000, 24, 120),
        Size(2_000, 3, 9),
        workers_come_and_go,
    ),
    Case(
        "zombie",
        "a worker paused past its session",
        Size(5_000),
        Size(2_000),
        zombie,
        may_submit_again=True,
    ),
    Case(
        "endpoint",
        "an endpoint that is of no use for a minute",
        Size(5_000, seconds=60),
        Size(1_000, seconds=5),
        endpoint_away,
        stream=lambda: {"capacity": {"documents": 400}},
    ),
    Case(
        "poison",
        "one document in a hundred that spoils its batch",
        Size(10_000),
        Size(1_000),
        poisoned,
        dead_letters=lambda size: size.documents // 100,
    ),
    Case(
        "job",
        "a worker killed while an asynchronous job of Comprehend is under way",
        Size(5_000),
        Size(5_000),
        killed_with_a_job_out,
        stream=lambda: {
            "batch": {"documents": 5_000, "characters": 10**8, "wait": "60s"},
            "capacity": {"documents": 8_000},
        },
        endpoint=Comprehend,
    ),
    Case(
        "soak",
        "an hour of steady work",
        Size(360_000, seconds=3_600),
        Size(6_000, seconds=60),
        soaked,
        takes_long=True,
    ),
)
