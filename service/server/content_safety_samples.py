"""Samples of a custom category: a `.jsonl` file, one `{"text": …, "isPositive": true or false}` a line."""

from typing import NamedTuple

import orjson

FEWEST_POSITIVES = 50
MOST_POSITIVES = 5_000
MOST_SAMPLES = 10_000
LONGEST_SAMPLE = 125_000  # code points
MOST_BYTES = 128_000

_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


class SamplesError(Exception):
    """Samples cannot be used; the message names the line, never its text, and what to do."""


class Samples(NamedTuple):
    """Texts that are of a category, and texts that are not."""

    positives: list[str]
    negatives: list[str]


def parse(content: bytes, most_bytes: int = MOST_BYTES) -> Samples:
    """The samples in a file, within the documented limits; raises `SamplesError`."""
    if len(content) > most_bytes:
        raise SamplesError(f"The sample file is larger than {most_bytes:,} bytes.")
    line_of: dict[str, int] = {}
    samples = Samples([], [])
    for number, line in enumerate(content.removeprefix(_BYTE_ORDER_MARK).split(b"\n"), start=1):
        if line.strip():
            text, positive = _sample(line, number)
            if (first := line_of.setdefault(text, number)) != number:
                raise SamplesError(f"Line {number} repeats the text of line {first}; every text may be there once.")
            (samples.positives if positive else samples.negatives).append(text)
    positives = len(samples.positives)
    if not FEWEST_POSITIVES <= positives <= MOST_POSITIVES:
        raise SamplesError(f"{positives:,} positive samples; give {FEWEST_POSITIVES} to {MOST_POSITIVES:,}.")
    if len(line_of) > MOST_SAMPLES:
        raise SamplesError(f"{len(line_of):,} samples; give up to {MOST_SAMPLES:,}.")
    return samples


def _sample(line: bytes, number: int) -> tuple[str, bool]:
    try:
        row = orjson.loads(line)
    except orjson.JSONDecodeError:
        raise SamplesError(f"Line {number} is not JSON in UTF-8.") from None
    if not isinstance(row, dict):
        raise SamplesError(f"Line {number} is not an object.")
    text, positive = row.get("text"), row.get("isPositive")
    if not isinstance(text, str) or not text.strip():
        raise SamplesError(f"Line {number}: text is missing, blank or no string.")
    if len(text) > LONGEST_SAMPLE:
        raise SamplesError(f"Line {number}: text is longer than {LONGEST_SAMPLE:,} characters.")
    if not isinstance(positive, bool):
        raise SamplesError(f"Line {number}: isPositive is to be true or false.")
    return text, positive
