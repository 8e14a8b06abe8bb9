"""A job is a slow call: submitted, noted, asked after, and read. `follow` asks after it until it has its answer."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Protocol

from service.documents import Document, Outcome
from service.errors import CallFailed, JobLost, Throttled, Unavailable

_FIRST_GUESS = 0.25
_SHORTEST, _LONGEST, _LONGEST_FIRST = 0.001, 120.0, 3600.0
_CREEP, _FASTEST_CREEP, _LARGEST_STEP = 0.002, 0.1, 1.1
_LONGEST_WAIT = _LONGEST_SILENCE = 3600.0
_OF_A_GUESS, _OF_WHAT_IS_KNOWN = 0.5, 0.01
"""The second wait over the first: a guess may be wrong by orders of magnitude, what is known is mostly about right."""
_STRANGER = 80
"""Jobs in a row that a service nobody has asked yet is taken to have done at the first look."""


class JobProvider(Protocol):
    """What can be asked for answers by submitting a job; errors as in `service.errors`."""

    async def submit(self, documents: Sequence[Document]) -> str:
        """Hand the documents in; gives the job's name for `poll` and `cancel`."""
        ...

    async def poll(self, job: str, documents: Mapping[int, Document]) -> list[Outcome] | None:
        """The outcomes in the order of `documents`, None while there are none; raises JobLost when none will come.

        The documents come with their numbers in the job, from 0, and need not be all that it has.
        """
        ...

    async def cancel(self, job: str) -> None:
        """Ask that the job be given up."""
        ...

    async def clear(self, job: str) -> None:
        """Take away what the job has left behind, as what came of it is safe."""
        ...


class PollTimes:
    """When to ask after a job, learnt from the jobs before it.

    The first poll comes at the typical duration. That creeps down while jobs are found done at the first look, the
    faster the longer that goes on, and goes up to where the job was found when one is not. Many jobs are out at once,
    and only one that was asked after by the present guess says anything of it: so the guess takes one step for each
    round of jobs, most jobs take one poll, and the wait follows the service within tens of rounds. The first job of all
    is believed at once.
    """

    def __init__(self, first_guess: float = _FIRST_GUESS) -> None:
        self._typical = first_guess
        self._in_a_row = _STRANGER
        self._is_a_guess = True
        self.expectations = 0
        """How often jobs were expected to take another time than they did."""

    def first(self) -> float:
        """Seconds from submitting to the first poll."""
        return self._typical

    def following(self, polls: int) -> float:
        """Seconds to the next poll, after `polls` of them found the job unfinished: at first short, then longer."""
        share = _OF_A_GUESS if self._is_a_guess else _OF_WHAT_IS_KNOWN
        return min(_LONGEST, max(_SHORTEST, share * self._typical) * 1.5 ** min(polls - 1, 40))

    def expect(self, share: float) -> None:
        """Look after this share of the time from now on, whatever jobs say that are out: it would show late else."""
        self._typical = max(_SHORTEST, share * self._typical)
        self._is_a_guess = True
        self.expectations += 1

    def observe(self, first: float, found: float, polls: int, expectations: int = 0) -> None:
        """Learn from a job that was first asked after at `first`, and done when it was asked at `found`, in seconds.

        It was submitted when there had been so many `expectations`; what a job says that is older is past.
        """
        if expectations < self.expectations:
            return
        if polls == 1 and first <= self._typical:
            self._typical *= 1 - min(_FASTEST_CREEP, _CREEP * 1.05 ** min(self._in_a_row, 1000))
            self._in_a_row += 1
        elif polls > 1 and first >= self._typical:
            self._typical = found if self._is_a_guess else min(found, _LARGEST_STEP * self._typical)
            self._in_a_row = 0
        self._is_a_guess = False
        self._typical = min(_LONGEST_FIRST, max(_SHORTEST, self._typical))


async def follow(
    provider: JobProvider,
    job: str,
    documents: Mapping[int, Document],
    times: PollTimes,
    *,
    deadline: float,
    setback: Callable[[Throttled | Unavailable], None],
    heard: Callable[[], None] = lambda: None,
    age: float = 0.0,
) -> tuple[list[Outcome], int]:
    """Wait for the outcomes of a job that was submitted `age` seconds ago; gives them with the number of polls it took.

    A poll that fails for a passing reason (told to `setback`) does not lose the job: it is asked after again. One that
    says how the job stands is told to `heard`. Raises
    JobLost when it is not done at `deadline`, in seconds after it was submitted, or cannot be asked after for as long
    again (an hour at least), and whatever `poll` raises.
    """
    loop = asyncio.get_running_loop()
    began = loop.time()
    submitted = began - age
    first, expectations = times.first(), times.expectations
    wait = max(0.0, first - age)
    polls = 0
    while True:
        await asyncio.sleep(wait)
        polls += 1
        asked = loop.time() - submitted
        try:
            outcomes = await provider.poll(job, documents)
        except JobLost:
            raise
        except (Throttled, Unavailable) as error:
            setback(error)
            outcomes, wait = None, min(_LONGEST_WAIT, max(1.0, times.following(polls), error.retry_after or 0.0))
            is_late = loop.time() + wait - began > deadline + max(deadline, _LONGEST_SILENCE)
        else:
            heard()
            wait = times.following(polls)
            is_late = loop.time() + wait - submitted > deadline
        passed = loop.time() - submitted
        if outcomes is not None:
            if not age:  # else it may have been done for long
                times.observe(first, asked, polls, expectations)
            return outcomes, polls
        if is_late:
            with suppress(CallFailed):
                await provider.cancel(job)
            raise JobLost(f"a job had no answer {passed:.0f} s after it was submitted (job_deadline {deadline:.0f} s)")
