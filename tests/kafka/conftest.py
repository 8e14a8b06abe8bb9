"""The real broker: started once, when the first test needs it, and missing in so many words where it cannot run."""

import re
import secrets
from collections.abc import Callable, Generator, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.kafka.broker import HOW_TO_GET_JAVA_AND_MAVEN, JARS, Broker
from tests.kafka.java import CannotRun, find_java
from tests.kafka.schema_registry import ARCHIVE, SchemaRegistry

_needing = pytest.StashKey[int]()
_unavailable = pytest.StashKey[str]()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.is_relative_to(Path(__file__).parent):
            item.add_marker(pytest.mark.kafka)


def pytest_collection_finish(session: pytest.Session) -> None:
    """Fetch the jars here, where no test's timeout runs."""
    needing = sum("kafka_runs" in getattr(item, "fixturenames", ()) for item in session.items)
    session.config.stash[_needing] = needing
    if not needing or session.config.option.collectonly:
        return
    try:
        find_java()
        needs_registry = any("schema_registry" in getattr(item, "fixturenames", ()) for item in session.items)
        fetched = [JARS, ARCHIVE] if needs_registry else [JARS]
        missing = [each.what for each in fetched if not each.folder.is_dir()]
        if missing and (terminal := session.config.pluginmanager.get_plugin("terminalreporter")):
            terminal.write_line(f"fetching {' and '.join(missing)} with Maven (once)")
        for each in fetched:
            each.fetch()
    except CannotRun as error:
        session.config.stash[_unavailable] = str(error)


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Have the process that others work for know, too."""
    config = session.config
    if _unavailable in config.stash and (output := getattr(config, "workeroutput", None)) is not None:
        output["kafka"] = config.stash[_needing], config.stash[_unavailable]


class _Hearing:
    def __init__(self, config: pytest.Config) -> None:
        self._config = config

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any) -> None:
        if found := getattr(node, "workeroutput", {}).get("kafka"):
            self._config.stash[_needing], self._config.stash[_unavailable] = found


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(_Hearing(config))


@pytest.hookimpl(wrapper=True, tryfirst=True)  # outermost: what follows the yield is printed last
def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> Generator[None, None, None]:
    yield
    if _unavailable in config.stash:
        terminalreporter.section("real Kafka did not run", yellow=True, bold=True)
        terminalreporter.write_line(f"Tests against real Apache Kafka that did not run: {config.stash[_needing]}.")
        terminalreporter.write_line(f"Why: {config.stash[_unavailable]}.")
        terminalreporter.write_line("They take Java 17 or later and Maven, which fetches Kafka by itself:")
        for line in HOW_TO_GET_JAVA_AND_MAVEN:
            terminalreporter.write_line(f"  {line}")


@pytest.fixture(scope="session")
def kafka_runs(pytestconfig: pytest.Config) -> None:
    """Skips where it cannot."""
    if _unavailable in pytestconfig.stash:
        pytest.skip(pytestconfig.stash[_unavailable])


@pytest.fixture(scope="session")
def broker(tmp_path_factory: pytest.TempPathFactory, pytestconfig: pytest.Config, kafka_runs: None) -> Iterator[Broker]:  # noqa: ARG001
    """The broker of this session; a test that stops or kills it starts it again."""
    broker = Broker(tmp_path_factory.mktemp("kafka"))
    try:
        broker.start()
    except CannotRun as error:
        pytestconfig.stash[_unavailable] = str(error)
        pytest.skip(str(error))
    yield broker
    broker.stop()


@pytest.fixture(scope="session")
def bootstrap(broker: Broker) -> str:
    return broker.bootstrap


@pytest.fixture(scope="session")
def schema_registry(tmp_path_factory: pytest.TempPathFactory, kafka_runs: None) -> Iterator[SchemaRegistry]:  # noqa: ARG001
    """The registry of this session; a test that stops it starts it again, and it has forgotten everything then."""
    registry = SchemaRegistry(tmp_path_factory.mktemp("registry"))
    registry.start()
    yield registry
    registry.stop()


@pytest.fixture
def topic(broker: Broker, request: pytest.FixtureRequest) -> Callable[..., str]:
    """Makes topics named after the test: `topic(partitions=4, config={"cleanup.policy": "compact"})`."""
    test = re.sub(r"[^A-Za-z0-9._-]+", "-", request.node.name)[:100]

    def make(partitions: int = 1, config: Mapping[str, str] | None = None) -> str:
        name = f"{test}-{secrets.token_hex(4)}"
        broker.create_topic(name, partitions, config)
        return name

    return make
