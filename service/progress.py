"""Progress for a person: bars on a terminal, a line at each step elsewhere; always on standard error."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

Advance = Callable[[float], None]
"""Told how much of a step is done so far."""


class Steps:
    """The steps of some long work, shown one below the other."""

    def __init__(self, console: Console) -> None:
        self._console = console

    @contextmanager
    def step(self, title: str, total: float = 1.0) -> Iterator[Advance]:
        """One step, for the length of the block; gives a function that is told how much of `total` is done."""
        if not self._console.is_terminal:
            yield self._lines(title, total)
            return
        columns = TextColumn("{task.description:<44}"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn()
        with Progress(*columns, console=self._console) as bar:
            task = bar.add_task(title, total=total)
            yield lambda done: bar.update(task, completed=done)
            bar.update(task, completed=total)

    def _lines(self, title: str, total: float) -> Advance:
        began, said = time.monotonic(), 0
        self._console.print(f"{title} …", highlight=False)

        def advance(done: float) -> None:
            nonlocal said
            quarter = int(4 * done / total) if total else 4
            if quarter > said:
                said = quarter
                share = f"{min(1.0, done / total if total else 1.0):.0%}"
                self._console.print(f"  {share} after {time.monotonic() - began:.1f} s", highlight=False)

        return advance
