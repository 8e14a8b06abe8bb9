"""What `labelstream replay` decides without a broker; what it does with one is in tests/kafka/test_replay.py."""

import pytest

from service import replay
from service.documents import Record
from service.errors import Misconfigured
from tests.records import record

NOON = 1_763_726_400.0  # 2025-11-21T12:00:00Z


@pytest.mark.parametrize(
    ("said", "before"),
    [
        ("0s", 0),
        ("90s", 90),
        ("1.5m", 90),
        ("2h", 7200),
        ("3d", 259_200),
        ("2025-11-21T11:00:00Z", 3600),
        ("2025-11-21T12:00:00+01:00", 3600),
        ("2025-11-21T11:00", 3600),
        ("2025-11-21", 43_200),
    ],
)
def test_a_time_is_an_age_or_a_moment(said: str, before: float) -> None:
    assert NOON - replay.moment(said, NOON) == before


@pytest.mark.parametrize("said", ["", "2", "2w", "h", "-1h", "yesterday", "2025-13-01"])
def test_what_is_no_time_is_said(said: str) -> None:
    with pytest.raises(Misconfigured, match="is no time"):
        replay.moment(said, NOON)


def letter(**about: bytes) -> Record:
    return record(0, headers=[(f"labelstream-{name.replace('_', '-')}", value) for name, value in about.items()])


def test_a_letter_says_why_it_is_one_and_of_which_stream() -> None:
    assert replay.reason_of(letter(stream=b"tickets", error_type=b"too_long"), "tickets") == "too_long"
    assert replay.reason_of(letter(error_type=b"too_long"), "tickets") == "too_long"
    assert replay.reason_of(letter(stream=b"mail", error_type=b"too_long"), "tickets") is None
    assert replay.reason_of(letter(stream=b"tickets", error_type=b"\xff"), "tickets") == "other"
    assert replay.reason_of(letter(), "tickets") == "other"


def test_reasons_are_known_ones() -> None:
    assert replay.known(["too_long", "other"]) == ("too_long", "other")
    with pytest.raises(Misconfigured, match="--reason boredom: there is none such; there are undecodable"):
        replay.known(["too_long", "boredom"])
