"""Progress for a person: bars on a terminal, a line at each step elsewhere; always on standard error."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TaskProgressColumn, TextColumn, TimeElapsedColumn

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

    @contextmanager
    def waiting(self) -> Iterator["Waiting"]:
        """Something that takes as long as it takes, in steps that are not known before."""
        if not self._console.is_terminal:
            yield Waiting(self._console)
            return
        columns = TextColumn("{task.description:<44}", markup=False), BarColumn(), TimeElapsedColumn()
        with Progress(*columns, console=self._console) as bars:
            yield Waiting(self._console, bars)

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


class Waiting:
    """A wait: its steps one below the other, how far each is where that is known, and what is to be said meanwhile.

    `broken_off` is what to say when nobody waits any more.
    """

    def __init__(self, console: Console, bars: Progress | None = None) -> None:
        self.broken_off = "no longer waiting; the same command goes on with it"
        self._console = console
        self._bars = bars
        self._bar: TaskID | None = None
        self._began = time.monotonic()
        self._told = 0

    def step(self, title: str) -> None:
        """Begin a step; the one before is done."""
        self._told = 0
        if self._bars is None:
            self._console.print(f"{title} …", markup=False, highlight=False, soft_wrap=True)
            return
        if self._bar is not None:
            self.advance(1)
        self._bar = self._bars.add_task(title, total=None)

    def advance(self, share: float) -> None:
        """So much of the step is done, of 1."""
        if self._bars is not None and self._bar is not None:
            self._bars.update(self._bar, total=1.0, completed=share)
        elif int(4 * share) > self._told:
            self._told = int(4 * share)
            self.say(f"{share:.0%}")

    def say(self, words: str) -> None:
        """A line that stays."""
        after = f"  {time.monotonic() - self._began:,.0f} s  "
        self._console.print(f"{after}{words}", markup=False, highlight=False, soft_wrap=True)
