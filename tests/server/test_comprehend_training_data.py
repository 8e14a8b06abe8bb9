"""How much and how little a classifier of Comprehend learns from."""

from collections.abc import Sequence

import pytest

from service.model.examples import Example, ExamplesError
from service.server.comprehend_training_data import check, split


def rows(classes: int, of_each: int = 10, name: str = "") -> list[Example]:
    return [Example(f"{n}", f"text {n}", (f"{n % classes}{name}",)) for n in range(classes * of_each)]


@pytest.mark.parametrize(
    ("found", "mode"),
    [(rows(2), "MULTI_CLASS"), (rows(1_000), "MULTI_CLASS"), (rows(5), "MULTI_LABEL"), (rows(100), "MULTI_LABEL")],
)
def test_what_is_enough(found: Sequence[Example], mode: str) -> None:
    check(found, mode)


@pytest.mark.parametrize(
    ("found", "mode", "told"),
    [
        ([], "MULTI_CLASS", "no labelled documents"),
        ([Example("a", "a", ())] * 60, "MULTI_LABEL", "no labelled documents"),
        (rows(1_001), "MULTI_CLASS", "1,001 classes, and 1,000 are the most"),
        (rows(101), "MULTI_LABEL", "101 classes, and 100 are the most"),
        (rows(2, name="a" * 5_000), "MULTI_CLASS", "more than 5,000 characters"),
        (rows(3, 9), "MULTI_CLASS", "3 of 3 classes have fewer than 10 documents"),
        (rows(4), "MULTI_LABEL", "40 documents; MULTI_LABEL takes 50"),
        (rows(6)[:-1], "MULTI_LABEL", "1 of 6 classes have fewer than 10"),
    ],
)
def test_what_is_too_little_or_too_much(found: Sequence[Example], mode: str, told: str) -> None:
    with pytest.raises(ExamplesError, match=told):
        check(found, mode)


def test_a_name_of_a_class_may_be_long() -> None:
    check(rows(2, name="a" * 4_999), "MULTI_CLASS")


def test_every_tenth_row_is_apart_and_no_more_than_ten_thousand() -> None:
    kept, tests = split(rows(10, 10))
    assert [row.id for row in tests] == [str(number) for number in range(9, 100, 10)]
    assert len(kept) == 90
    assert split(rows(1, 19)) == (rows(1, 19), [])
    kept, tests = split(rows(10, 10_050))
    assert (len(kept), len(tests)) == (90_500, 10_000)
