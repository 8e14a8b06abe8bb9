"""How much and how little a classifier of Comprehend learns from."""

from collections.abc import Sequence
from typing import Any

import pytest

from service.model.examples import Example, ExamplesError
from service.server import comprehend_training_data
from service.server.comprehend_training_data import check, split
from service.server.s3 import S3
from tests.server.test_sdk_comprehend import BUCKET
from tests.server.test_sdk_comprehend import s3 as s3  # noqa: PLC0414  the fixture


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


def test_a_text_of_a_table_may_be_long(s3: tuple[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "a")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "b")
    url, bucket = s3
    long = "many words " * 20_000
    body = "".join(f'{label},"{long}{number}"\r\n' for label in ("a", "b") for number in range(10))
    bucket.put_object(Bucket=BUCKET, Key="long.csv", Body=body.encode())
    given = {"DataFormat": "COMPREHEND_CSV", "S3Uri": f"s3://{BUCKET}/long.csv"}
    kept, tests = comprehend_training_data.rows(given, "MULTI_CLASS", S3(url))
    assert [row.text for row in tests] == [f"{long}9", f"{long}9"]
    assert len(kept) == 18
