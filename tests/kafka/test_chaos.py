"""What `make chaos` does, in short: every way of being hard on it, in every mode, but for the hour of steady work."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.chaos.cases import CASES, Case, counted
from tests.kafka.broker import Broker


@pytest.fixture(scope="module")
def own_broker(kafka_runs: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:  # noqa: ARG001  it skips
    """One that they stop, so that they can be in another process than the rest (see tests/conftest.py)."""
    with Broker(tmp_path_factory.mktemp("chaos")) as own:
        yield own


@pytest.mark.parametrize(
    ("case", "mode"),
    [
        pytest.param(case, mode, id=f"{case.name}-{mode}")
        for case in CASES
        if not case.takes_long
        for mode in case.modes
    ],
)
def test_nothing_is_lost_and_no_more_repeated_than_may_be(
    own_broker: Broker, tmp_path: Path, case: Case, mode: str
) -> None:
    row = counted(case, mode, case.short, own_broker, tmp_path)
    assert row.goal_met, row
