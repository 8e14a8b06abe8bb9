"""The table of `make bench-peers`; what it measures takes the peers, and a quarter of an hour."""

from io import StringIO

import pytest
from rich.console import Console

from tests.peers.__main__ import FORMS, Measured, Unmeasured, built, table


@pytest.mark.parametrize(
    ("form", "documents_per_s", "shown"),
    [
        ("faststream_batch", 2000, ["3.0 ×", "≥ 3 ×"]),
        ("faststream_batch", 2100, ["2.9 ×, behind", "≥ 3 ×"]),
        ("faststream_waves", 4200, ["1.4 ×", "≥ 1.4 ×"]),
        ("benthos", 6000, ["1.0 ×", "≥ 1 ×"]),
        ("benthos", 6500, ["0.9 ×, behind", "≥ 1 ×"]),
        ("faststream_waves", 6000, ["1.0 ×, behind", "≥ 1.4 ×"]),
    ],
)
def test_what_is_behind_its_goal_is_said_beside_it(form: str, documents_per_s: float, shown: list[str]) -> None:
    ours = Measured(FORMS["labelstream"], 6000, failing={"lost": 0, "repeated": 7}, documents=1000)
    console = Console(width=260, file=StringIO())
    console.print(table([ours, Measured(FORMS[form], documents_per_s)]))
    assert isinstance(console.file, StringIO)
    first, second = [line for line in console.file.getvalue().splitlines() if line.startswith("│")]
    assert "7 repeated of 1,000" in first
    assert [cell.strip() for cell in second.split("│")][3:5] == shown


def test_the_engine_of_redpanda_connect_is_not_measured_without_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(Unmeasured, match="takes Go, which is not here") as unmeasured:
        built()
    console = Console(width=260, file=StringIO())
    console.print(table([Measured(FORMS["benthos"], unmeasured=str(unmeasured.value))]))
    assert isinstance(console.file, StringIO)
    (row,) = [line for line in console.file.getvalue().splitlines() if line.startswith("│")]
    assert [cell.strip() for cell in row.split("│")][1:3] == [
        FORMS["benthos"],
        "not measured: takes Go, which is not here",
    ]
