from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.errors import Misconfigured
from service.offsets import METADATA_LIMIT, Mark
from service.redriven import OTHER, REASONS, Redriven

ALL = (*REASONS, OTHER)
RUNS = st.lists(
    st.tuples(st.sets(st.sampled_from(ALL), min_size=1), st.integers(0, 40), st.integers(0, 40)), max_size=12
)


@given(RUNS, st.booleans())
def test_what_was_added_is_covered_and_nothing_else(runs: Sequence[tuple[set[str], int, int]], kept: bool) -> None:
    redriven, wanted = Redriven(Mark(0)), set[tuple[str, int]]()
    for reasons, first, end in runs:
        redriven.add(reasons, first, end)
        wanted |= {(reason, offset) for reason in reasons for offset in range(first, end)}
        if kept:
            redriven = Redriven(redriven.mark())
    assert {(reason, offset) for reason in ALL for offset in range(45) if redriven.covers(reason, offset)} == wanted
    ours = [all((reason, offset) in wanted for reason in REASONS) for offset in range(45)]
    assert redriven.mark().offset == ours.index(False)


@given(RUNS, st.sets(st.sampled_from(ALL), min_size=1), st.integers(0, 40))
def test_the_first_open_offset_is_the_first_that_one_of_the_reasons_lacks(
    runs: Sequence[tuple[set[str], int, int]], reasons: set[str], beginning: int
) -> None:
    redriven = Redriven(Mark(0))
    for run in runs:
        redriven.add(*run)
    lacking = (n for n in range(beginning, 99) if not all(redriven.covers(reason, n) for reason in reasons))
    assert redriven.first_open(reasons, beginning) == next(lacking)


def test_runs_without_filters_need_no_metadata() -> None:
    redriven = Redriven(Mark(0))
    redriven.add(REASONS, 0, 10)
    assert redriven.mark() == Mark(10, "")


def test_what_retention_has_removed_is_passed_over() -> None:
    redriven = Redriven(Mark(5), beginning=100)
    assert redriven.first_open(REASONS, 100) == 100
    redriven.add(REASONS, 100, 120)
    assert redriven.mark() == Mark(120)


@pytest.mark.parametrize(
    "metadata", ["", "not JSON", "[]", "3", '{"too_long": 3}', '{"too_long": [[1]]}', '{"x": [[1, 2]]}']
)
def test_metadata_that_is_not_ours_says_nothing(metadata: str) -> None:
    redriven = Redriven(Mark(3, metadata))
    assert redriven.covers("too_long", 2)
    assert not redriven.covers("too_long", 3)
    assert not redriven.covers(OTHER, 2)


def test_more_gaps_than_a_commit_can_name_are_said_before_anything_is_sent() -> None:
    redriven = Redriven(Mark(0))
    for first in range(10, 2_000, 20):
        redriven.add(["too_long"], first, first + 1)
        assert len(redriven.mark().metadata) <= METADATA_LIMIT
    for first in range(2_000, 20_000, 20):
        redriven.add(["too_long"], first, first + 1)
    with pytest.raises(Misconfigured, match="run it once without --since"):
        redriven.mark()
