"""What a person sees of long work: bars on a terminal, lines elsewhere."""

import io
import re

from rich.console import Console

from service.progress import Steps


def test_a_wait_is_told_in_lines_where_nobody_looks_at_bars() -> None:
    console = Console(file=io.StringIO(), width=40)
    with Steps(console).waiting() as waiting:
        waiting.step("training [bold]m-1[/] on 1,000 documents of a folder")
        for share in (0.0, 0.1, 0.3, 0.3, 0.6, 1.0):
            waiting.advance(share)
        waiting.step("deploying")
        waiting.advance(0.5)
        waiting.say("the service [answered] 429")
    assert isinstance(console.file, io.StringIO)
    assert re.sub(r"\d+ s", "0 s", console.file.getvalue()).splitlines() == [
        "training [bold]m-1[/] on 1,000 documents of a folder …",
        "  0 s  30%",
        "  0 s  60%",
        "  0 s  100%",
        "deploying …",
        "  0 s  50%",
        "  0 s  the service [answered] 429",
    ]


def test_a_wait_is_a_bar_for_each_step_on_a_terminal() -> None:
    console = Console(file=io.StringIO(), width=100, force_terminal=True, color_system=None)
    with Steps(console).waiting() as waiting:
        waiting.step("putting [documents]")
        waiting.advance(0.5)
        waiting.step("training")
        waiting.say("the service [answered] 429")
        waiting.advance(1)
    assert isinstance(console.file, io.StringIO)
    shown = console.file.getvalue()
    assert "the service [answered] 429" in shown
    last = shown.rpartition("putting [documents]")[2]
    assert "training" in last
    assert "━" * 40 in last
