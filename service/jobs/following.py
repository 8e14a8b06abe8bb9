"""A job is a slow call: submitted, noted, asked after, and read. `follow` asks after it until it has its answer."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Protocol

from service.documents import Document, Outcome
from service.errors import CallFailed, JobLost, Throttled, Unavailable
from service.jobs.poll_times import PollTimes

_LONGEST_WAIT = _LONGEST_SILENCE = 3600.0


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
    expectations = times.expectations
    wait = max(0.0, times.usual - age) if age else times.first()
    polls, undone = 0, 0.0
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
            wait = min(_LONGEST_WAIT, max(1.0, times.following(asked, polls), error.retry_after or 0.0))
            is_late = loop.time() + wait - began > deadline + max(deadline, _LONGEST_SILENCE)
        else:
            heard()
            if outcomes is not None:
                if not age:  # else it may have been done for long
                    times.observe(undone, asked, loop.time() - submitted - asked, expectations)
                return outcomes, polls
            undone, wait = asked, times.following(asked, polls)
            is_late = loop.time() + wait - submitted > deadline
        if is_late:
            with suppress(CallFailed):
                await provider.cancel(job)
            passed = loop.time() - submitted
            raise JobLost(f"a job had no answer {passed:.0f} s after it was submitted (job_deadline {deadline:.0f} s)")
