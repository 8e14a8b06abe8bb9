import pytest

from service.server.content_safety_samples import SamplesError, parse
from tests.server.content_safety import NEGATIVES, POSITIVES, jsonl

MANY = [f"sample number {n}" for n in range(10_001)]


def test_samples_are_divided_into_what_is_of_the_category_and_what_is_not() -> None:
    positives, negatives = parse(jsonl(POSITIVES, NEGATIVES))
    assert (positives, negatives) == (POSITIVES, NEGATIVES)


def test_files_as_editors_write_them_are_read() -> None:
    assert parse(b"\xef\xbb\xbf" + jsonl(POSITIVES).replace(b"\n", b"\r\n\r\n") + b"\r\n").positives == POSITIVES


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "0 positive samples; give 50 to 5,000"),
        (jsonl(POSITIVES[:49]), "49 positive samples"),
        (jsonl(MANY[:5_001]), "5,001 positive samples"),
        (jsonl(POSITIVES, MANY[:9_950]), "10,010 samples; give up to 10,000"),
        (jsonl([*POSITIVES, POSITIVES[2]]), "Line 61 repeats the text of line 3"),
        (jsonl(POSITIVES, [POSITIVES[2]]), "Line 61 repeats the text of line 3"),
        (jsonl(["x" * 125_001, *POSITIVES]), "Line 1: text is longer than 125,000 characters"),
        (b'{"text": "secret"}', "Line 1: isPositive is to be true or false"),
        (b'{"text": "secret", "isPositive": "true"}', "Line 1: isPositive"),
        (b'\n{"text": " ", "isPositive": true}', "Line 2: text is missing, blank or no string"),
        (b'{"text": 1, "isPositive": true}', "Line 1: text"),
        (b'["secret"]', "Line 1 is not an object"),
        (b'{"text": "secret"', "Line 1 is not JSON in UTF-8"),
        (b'{"text": "secret\xff", "isPositive": true}', "Line 1 is not JSON in UTF-8"),
    ],
)
def test_what_is_wrong_with_samples_is_said_without_their_text(content: bytes, reason: str) -> None:
    with pytest.raises(SamplesError, match=reason) as caught:
        parse(content, most_bytes=2_000_000)
    assert "secret" not in str(caught.value)
    assert POSITIVES[2] not in str(caught.value)


def test_a_file_may_be_as_large_as_documented_or_as_the_operator_says() -> None:
    content = jsonl(POSITIVES, MANY[:3_000])
    with pytest.raises(SamplesError, match="larger than 128,000 bytes"):
        parse(content)
    assert len(parse(content, most_bytes=len(content)).negatives) == 3_000
    with pytest.raises(SamplesError, match="larger than"):
        parse(content, most_bytes=len(content) - 1)
