"""`make chaos`: be as hard on workers, broker and endpoint as the world is, and count what comes of it.

Prints a table with what was counted beside what may be, writes build/chaos.json, and exits with 1 where a row falls
short. CASES and MODES are names separated by commas: all but `soak`, which takes an hour a mode, where none are given.
--short is a size for the impatient.
"""

import argparse
import sys
import tempfile
from pathlib import Path

import orjson
from rich.console import Console
from rich.table import Table

from tests.chaos.cases import BOTH, CASES, Row, counted
from tests.kafka.broker import Broker

REPORT = Path(__file__).parents[2] / "build" / "chaos.json"


def main() -> int:
    """Run the cases that are asked for."""
    known = {case.name: case for case in CASES}
    parser = argparse.ArgumentParser(prog="make chaos", description=__doc__.splitlines()[0])
    parser.add_argument(
        "--cases",
        default=",".join(name for name in known if not known[name].takes_long),
        help=f"some of {', '.join(known)}",
    )
    parser.add_argument("--modes", default=",".join(BOTH), help=f"some of {', '.join(BOTH)}")
    parser.add_argument("--short", action="store_true", help="fewer documents, fewer blows")
    asked = parser.parse_args()
    names, modes = asked.cases.split(","), asked.modes.split(",")
    if unknown := [name for name in names if name not in known] + [mode for mode in modes if mode not in BOTH]:
        parser.error(f"there is no {', '.join(unknown)}; there are {', '.join(known)}, in {' and '.join(BOTH)}")
    wanted = [(known[name], mode) for name in names for mode in known[name].modes if mode in modes]
    with tempfile.TemporaryDirectory(prefix="chaos-") as folder, Broker(Path(folder, "broker")) as broker:
        rows = [
            counted(case, mode, case.short if asked.short else case.long, broker, Path(folder)) for case, mode in wanted
        ]
    REPORT.parent.mkdir(exist_ok=True)
    REPORT.write_bytes(orjson.dumps([row.to_json() for row in rows], option=orjson.OPT_INDENT_2))
    Console(width=160).print(_table(rows))
    return 0 if all(row.goal_met for row in rows) else 1


def _table(rows: list[Row]) -> Table:
    table = Table(title=f"chaos ({REPORT.name} has the same)", title_justify="left")
    for column in ("case", "mode", "documents", "lost", "duplicates", "submitted twice", "dead letters", "goal", ""):
        table.add_column(column, justify="left" if column in ("case", "mode", "goal") else "right")
    for row in rows:
        counts = (row.documents, row.lost, row.duplicates, row.submitted_twice, row.dead_letters)
        verdict = "[green]met[/]" if row.goal_met else "[red]missed[/]"
        table.add_row(row.case, row.mode, *(f"{count:,}" for count in counts), row.goal, verdict)
    return table


if __name__ == "__main__":
    sys.exit(main())
