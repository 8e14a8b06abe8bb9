from pathlib import Path

import pytest

from service import baseline
from service.errors import Misconfigured
from tests.commands import labelstream
from tests.test_pipeline import stream

BILLING, REFUND = b'{"best":{"name":"billing"}}', b'{"best":{"name":"refund"}}'
RESULTS = (BILLING, REFUND, b"", BILLING, b'{"best":null}')


def test_shares_of_results_are_told_as_a_configuration_takes_them(tmp_path: Path) -> None:
    (results := tmp_path / "results.jsonl").write_bytes(b"\n".join([*RESULTS, b""]))
    said = labelstream("baseline", str(results))
    assert (said.returncode, said.stdout) == (0, "baseline:\n  billing: 0.6667\n  refund: 0.3333\n")
    assert stream(baseline=baseline.read(results)).baseline == {"billing": 0.6667, "refund": 0.3333}


def test_a_class_that_is_too_rare_is_left_out() -> None:
    lines = [BILLING] * 99_999 + [REFUND]
    assert baseline.shares(Path("results"), lines) == {"billing": 1.0}


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (b"", "has no result with a class"),
        (b'{"best":null}\n', "has no result with a class"),
        (b"{", "line 1: is no result"),
        (RESULTS[0] + b"\n[]", "line 2: is no result"),
        (b'{"best":{"score":1}}', "line 1: is no result"),
        (b'{"best":"billing"}', "line 1: is no result"),
        (b"\xff", "line 1: is no result"),
    ],
)
def test_what_is_no_result_is_named(tmp_path: Path, lines: bytes, message: str) -> None:
    (results := tmp_path / "results.jsonl").write_bytes(lines)
    with pytest.raises(Misconfigured, match=message):
        baseline.read(results)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(Misconfigured, match=r"gone\.jsonl: cannot be read: No such file"):
        baseline.read(tmp_path / "gone.jsonl")


def test_a_baseline_that_lacks_a_class_is_refused() -> None:
    with pytest.raises(ValueError, match=r"the shares are 0\.700 together, and are to be 1: give every class"):
        stream(baseline={"billing": 0.4, "refund": 0.3})
