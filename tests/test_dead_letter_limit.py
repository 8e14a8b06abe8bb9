import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.dead_letter_limit import FIRST_TRIAL, LONGEST_UNTIL_TRIAL, DeadLetterLimit
from service.documents import Reason, Refused
from tests.records import document, record

WHY = Refused(Reason.UNDECODABLE, "not JSON")


def refusing(limit: DeadLetterLimit, count: int, now: float = 0.0) -> int:
    """How many of so many refusals in a row are let through."""
    return sum(limit.lets_through([True] * count, now))


@given(
    st.lists(st.lists(st.booleans(), max_size=30), max_size=60),
    st.floats(0, 0.999),
    st.integers(1, 50),
)
def test_no_window_of_outcomes_has_more_refusals_than_its_share(
    batches: list[list[bool]], share: float, of: int
) -> None:
    limit, published = DeadLetterLimit(share, of), []
    for batch in batches:
        through = limit.lets_through(batch, 0)
        assert all(passes or refused for passes, refused in zip(through, batch, strict=True)), "an answer was held back"
        published += [refused for refused, passes in zip(batch, through, strict=True) if passes]
        if not all(through):
            assert limit.reached
    for begin in range(len(published)):
        assert sum(published[begin : begin + of]) <= share * of


@given(st.lists(st.booleans(), max_size=400), st.integers(1, 50))
def test_below_the_share_nothing_is_ever_held_back(refusals: list[bool], of: int) -> None:
    limit, passed = DeadLetterLimit(0.5, of), list[bool]()
    for refused in refusals:
        if sum([*passed, refused][-of:]) <= 0.5 * of:
            assert limit.lets_through([refused], 0) == [True]
            passed.append(refused)
    assert not limit.reached


@given(st.lists(st.booleans(), max_size=100), st.integers(1, 20))
def test_a_share_of_one_is_no_limit(refusals: list[bool], of: int) -> None:
    assert all(DeadLetterLimit(1, of).lets_through(refusals, 0))


def test_a_share_of_none_holds_back_the_first() -> None:
    limit = DeadLetterLimit(0, 200)
    assert limit.lets_through([False, True, False, True], 0) == [True, False, True, False]
    assert limit.reached


def test_what_is_held_back_stays_until_a_trial_of_it_is_answered() -> None:
    limit = DeadLetterLimit(0.5, 200)
    assert refusing(limit, 120) == 100
    first, second = [document(0), document(1)], [document(2)]
    limit.hold(first)
    limit.hold(second)
    limit.hold_garbage([(record(9), WHY)])
    assert limit.trial(FIRST_TRIAL - 1) is None
    assert limit.released() == ([], [])
    assert limit.trial(FIRST_TRIAL) is first
    limit.tried(2, 2)
    limit.hold(first)
    assert limit.trial(FIRST_TRIAL + 1) is None, "trials are spaced"
    assert limit.trial(3 * FIRST_TRIAL) is second, "each in its turn"
    limit.tried(0, 1)
    assert not limit.reached
    assert limit.released() == ([first], [(record(9), WHY)])
    assert limit.released() == ([], [])
    assert refusing(limit, 120) == 100, "it counts anew"


def test_trials_become_rarer_up_to_a_bound() -> None:
    limit, now, waits = DeadLetterLimit(0, 1), 0.0, list[float]()
    refusing(limit, 1)
    limit.hold([document(0)])
    while len(waits) < 8:
        began = now
        while (tried := limit.trial(now)) is None:
            now += 1
        limit.tried(1, 1)
        limit.hold(tried)
        waits.append(now - began)
    assert waits[:4] == [FIRST_TRIAL, 2 * FIRST_TRIAL, 4 * FIRST_TRIAL, 8 * FIRST_TRIAL]
    assert max(waits) == LONGEST_UNTIL_TRIAL


def test_a_flood_of_garbage_is_not_ended_by_a_document_that_is_fine() -> None:
    limit = DeadLetterLimit(0.5, 2)
    refusing(limit, 2)
    limit.hold_garbage([(record(1), WHY)])
    assert limit.trial(1e9) is None
    limit.hold([document(0)])
    assert limit.trial(1e9) is None
    assert limit.released() == ([], [])


@pytest.mark.parametrize("gone", [set(), {0}, {2}, {0, 1, 2, 3, 4}])
def test_what_nobody_wants_any_more_is_dropped(gone: set[int]) -> None:
    limit = DeadLetterLimit(0, 1)
    refusing(limit, 1)
    limit.hold([document(0), document(1)])
    limit.hold([document(2)])
    limit.hold_garbage((record(offset), WHY) for offset in (3, 4))
    assert {each.position.offset for each in limit.drop(lambda each: each.position.offset in gone)} == gone
    limit.tried(0, 1)
    held, garbage = limit.released()
    left = {each.record.position.offset for batch in held for each in batch}
    left |= {each.position.offset for each, _ in garbage}
    assert left == {0, 1, 2, 3, 4} - gone
    assert all(held), "no batch of nothing is asked for"
