"""What these tests need and a machine may lack: said in so many words at the end, as the broker's absence is."""

import shutil
from collections.abc import Generator
from pathlib import Path

import pytest

from tests.ops.prometheus import HOW_TO_GET_PROMETHEUS, PROGRAMS

_HERE = Path(__file__).parent


@pytest.hookimpl(wrapper=True, tryfirst=True)  # outermost: what follows the yield is printed last
def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> Generator[None, None, None]:
    yield
    if missing := [name for name in PROGRAMS if shutil.which(name) is None]:
        here = _HERE.relative_to(terminalreporter.config.rootpath).as_posix()
        skipped = [each for each in terminalreporter.stats.get("skipped", ()) if each.nodeid.startswith(here)]
        if skipped:
            terminalreporter.section("Prometheus did not run", yellow=True, bold=True)
            terminalreporter.write_line(f"Tests of rules and boards that did not run: {len(skipped)}.")
            terminalreporter.write_line(f"Why: {' and '.join(missing)} not installed. {HOW_TO_GET_PROMETHEUS}")
