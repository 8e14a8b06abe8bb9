"""Hours are waited in no time: what passes is waited out, what does not pass is said at once."""

from collections.abc import Awaitable, Callable

import pytest

from service.errors import CallFailed, JobLost, Misconfigured, Rejected, Throttled, Unavailable
from service.lifecycle.waiting import answered, changes, until
from tests.clock import now, virtual_time


def answering(*outcomes: CallFailed | str | None) -> Callable[[], Awaitable[str | None]]:
    """Gives each outcome in turn."""
    left = list(outcomes)

    async def ask() -> str | None:
        outcome = left.pop(0)
        if isinstance(outcome, CallFailed):
            raise outcome
        return outcome

    return ask


@virtual_time
async def test_a_service_is_asked_again_when_it_says() -> None:
    said: list[str] = []
    assert (
        await answered(answering(Throttled("too much", 60.0), Unavailable("away", 5.0), "well"), said.append) == "well"
    )
    assert now() == pytest.approx(65)
    assert said == ["too much; asking again in 60 s", "away; asking again in 5 s"]


@virtual_time
async def test_an_outage_of_a_night_is_waited_out_and_looked_at_twice_a_minute() -> None:
    said: list[str] = []
    await answered(answering(*[Unavailable("away")] * 960, "well"), said.append)
    assert 7.8 * 3600 < now() < 8 * 3600
    assert said[-1] == "away; asking again in 30 s"


@virtual_time
async def test_a_slip_in_a_header_is_not_believed_for_years() -> None:
    await answered(answering(Throttled("too much", 1e9), "well"), str)
    assert now() == pytest.approx(3600)


@pytest.mark.parametrize("failure", [Misconfigured("the key"), Rejected("the rows"), JobLost("gone")])
@virtual_time
async def test_what_does_not_pass_is_said_at_once(failure: CallFailed) -> None:
    with pytest.raises(type(failure)):
        await answered(answering(failure), str)
    assert now() == 0


@virtual_time
async def test_what_takes_hours_is_looked_at_soon_first_and_then_twice_a_minute() -> None:
    assert await until(answering(None, Unavailable("away"), None, "done"), str) == "done"
    assert now() < 2
    began = now()
    assert await until(answering(*[None] * 130, "done"), str) == "done"
    assert now() - began > 3600 * 0.95


def test_what_was_said_last_is_not_said_again() -> None:
    said: list[str] = []
    say = changes(said.append)
    for words in ("building", "building", "built", "building"):
        say(words)
    assert said == ["building", "built", "building"]
