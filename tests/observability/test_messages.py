import logging

import pytest
import structlog

from service.observability import logs, messages
from service.settings import Log


@pytest.fixture
def log() -> structlog.stdlib.BoundLogger:
    logs.configure(Log(format="json"))
    said: structlog.stdlib.BoundLogger = structlog.get_logger("service.dispatch.dispatcher")
    return said


async def test_warnings_and_errors_of_the_service_are_kept_with_what_they_are_about(
    log: structlog.stdlib.BoundLogger,
) -> None:
    async with messages.kept() as kept:
        log.info("started", streams=["tickets"])
        log.warning("breaker_opened", account="azure", reason="failures in a row", failures=5)
        log.error("dead_letter_limit_reached", topic="incoming", latest="not for this page")
    opened, reached = kept.last()
    assert opened[:4] == ("warning", "breaker_opened", "azure", "failures in a row")
    assert reached[:4] == ("error", "dead_letter_limit_reached", "incoming", "")
    assert opened.at > 1_700_000_000
    assert "not for this page" not in str(kept.last())


async def test_what_is_said_again_is_kept_once_and_counted(log: structlog.stdlib.BoundLogger) -> None:
    async with messages.kept() as kept:
        for _ in range(20):
            log.warning("publishing_waits", topic="out", reason="no broker")
            log.warning("commit_failed", topic="in", reason="no broker")
        log.warning("publishing_waits", topic="out", reason="not leader")
    assert [(each.event, each.times) for each in kept.last()] == [
        ("publishing_waits", 20),
        ("commit_failed", 20),
        ("publishing_waits", 1),
    ]


async def test_so_many_are_kept_and_a_long_reason_is_cut(log: structlog.stdlib.BoundLogger) -> None:
    async with messages.kept() as kept:
        for number in range(200):
            log.warning("commit_failed", topic=f"in-{number}", reason="x" * 10_000)
    assert len(kept.last()) == 50
    assert kept.last()[-1].about == "in-199"
    assert {len(each.reason) for each in kept.last()} == {300}


async def test_libraries_are_not_heard_nor_is_anything_after_the_block(log: structlog.stdlib.BoundLogger) -> None:
    async with messages.kept() as kept:
        logging.getLogger("aiokafka").error("no broker %s", "kafka:9092")
        logging.getLogger("service.streams").error("free words of a library under our name")
    log.warning("commit_failed", topic="in")
    assert kept.last() == []
