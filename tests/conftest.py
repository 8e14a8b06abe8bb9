"""Where every test has to run (`REQUIRE_ALL_TESTS=1`, as in `.ci/run`), a test that is skipped has failed."""

import os
from collections.abc import Generator

import pytest
from hypothesis import HealthCheck, settings

# Examples are the same in every run, and a busy machine is no failure.
settings.register_profile("steady", derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("steady")

_skipped = pytest.StashKey[list[str]]()


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_skipped] = []


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.skipped and not hasattr(report, "wasxfail"):
        _fail_where_all_must_run(report, item.config)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(
    collector: pytest.Collector,
) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    report = yield
    if report.skipped:
        _fail_where_all_must_run(report, collector.config)
    return report


def _fail_where_all_must_run(report: pytest.TestReport | pytest.CollectReport, config: pytest.Config) -> None:
    if os.environ.get("REQUIRE_ALL_TESTS") == "1":
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        report.outcome = "failed"
        report.longrepr = f"{reason}\nThat is a failure here, as REQUIRE_ALL_TESTS=1 asks for every test to run."
        config.stash[_skipped].append(report.nodeid)


@pytest.hookimpl(wrapper=True, tryfirst=True)  # outermost: what follows the yield is printed last
def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> Generator[None, None, None]:
    yield
    if skipped := config.stash[_skipped]:
        terminalreporter.section("skipped, and so failed (REQUIRE_ALL_TESTS=1)", red=True, bold=True)
        for test in skipped:
            terminalreporter.write_line(test)
