"""Where every test has to run (`REQUIRE_ALL_TESTS=1`, as in `.ci/run`), a test that is skipped has failed.

The suite can run in several processes (`-n`, as `make test` does): the tests of a file stay together, for what they
share, and those that need the broker are all in one process, for the same reason; only `test_chaos.py` has a broker
of its own.
"""

import gc
import logging
import os
import signal
import sys
from collections.abc import Generator, Iterator
from typing import Any

import pytest
import structlog
import trustme
from hypothesis import HealthCheck, settings
from structlog._config import BoundLoggerLazyProxy

# Examples are the same in every run, and a busy machine is no failure.
settings.register_profile("steady", derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("steady")

_skipped = pytest.StashKey[list[str]]()


@pytest.fixture(scope="session", autouse=True)
def one_certificate(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Spare every client reading all that the system trusts: 50 ms for one of httpx, 6 ms for one of ours.

    There is nobody outside whom a test would ask.
    """
    trusted = tmp_path_factory.mktemp("trusted") / "one.pem"
    trustme.CA().cert_pem.write_to_path(trusted)
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("SSL_CERT_DIR", raising=False)
        patch.setenv("SSL_CERT_FILE", str(trusted))
        yield


@pytest.fixture(autouse=True)
def logging_as_it_was() -> Iterator[None]:
    """What a test makes of logging, as commands do, is not there for the next one, whichever that is."""
    before = list(logging.getLogger().handlers)
    yield
    root = logging.getLogger()
    root.handlers[:] = [each for each in root.handlers if each in before or type(each).__module__.startswith("_pytest")]
    if structlog.is_configured():
        structlog.reset_defaults()
        for name, module in list(sys.modules.items()):
            if name.startswith("service") and isinstance(log := vars(module).get("log"), BoundLoggerLazyProxy):
                vars(log).pop("bind", None)  # which one has that was configured to keep what it was first used with


def pytest_configure(config: pytest.Config) -> None:
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as a shell has it for what it runs in the background
        signal.signal(signal.SIGINT, signal.default_int_handler)  # what tests start inherits it, and is interrupted
    config.stash[_skipped] = []
    config.pluginmanager.register(_Listening(config.stash[_skipped]))


def company(nodeid: str) -> str:
    """What a test is in one process with: its file, or whatever shares the broker."""
    file = nodeid.partition("::")[0]
    return "kafka" if file.startswith("tests/kafka/") and not file.endswith("/test_chaos.py") else file


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """What `--dist loadgroup` is here: xdist 3.8 tells its groups by changing ids, which pytest 9.2 does not let it."""
    if config.getvalue("dist") != "loadgroup":
        return None
    from xdist import scheduler  # type: ignore[import-untyped]  # noqa: PLC0415  there is none without `-n`

    scheduling = scheduler.LoadScopeScheduling(config, log)
    scheduling._split_scope = company
    return scheduling


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Spare the garbage collector the four thousand tests and all that they import, which are here to stay."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.collect()
        gc.freeze()
        gc.enable()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.skipped and not hasattr(report, "wasxfail"):
        _fail_where_all_must_run(report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    report = yield
    if report.skipped:
        _fail_where_all_must_run(report)
    return report


def _fail_where_all_must_run(report: pytest.TestReport | pytest.CollectReport) -> None:
    if os.environ.get("REQUIRE_ALL_TESTS") == "1":
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        report.outcome = "failed"
        report.longrepr = f"{reason}\nThat is a failure here, as REQUIRE_ALL_TESTS=1 asks for every test to run."
        vars(report)["was_skipped"] = True  # goes along from process to process


class _Listening:
    """Hears of every report, of whichever process."""

    def __init__(self, skipped: list[str]) -> None:
        self._skipped = skipped

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if hasattr(report, "was_skipped"):
            self._skipped.append(report.nodeid)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if hasattr(report, "was_skipped"):
            self._skipped.append(report.nodeid)


@pytest.hookimpl(wrapper=True, tryfirst=True)  # outermost: what follows the yield is printed last
def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> Generator[None, None, None]:
    yield
    if skipped := config.stash[_skipped]:
        terminalreporter.section("skipped, and so failed (REQUIRE_ALL_TESTS=1)", red=True, bold=True)
        for test in skipped:
            terminalreporter.write_line(test)
