import subprocess
import sys
from typing import Any

import orjson
import pytest

from service.settings import Log

CANARY = "canary-4711"


def written(script: str, log: str = "Log(format='json')") -> str:
    """What a process of its own, which logging is configured for, writes to standard error."""
    lines = [
        "import logging, structlog",
        "from service.observability.logs import configure",
        "from service.settings import Log",
        "log = structlog.get_logger('service.pipeline')",  # made before it is configured, as every module does
        f"configure({log})",
        script,
    ]
    run = subprocess.run([sys.executable, "-c", "\n".join(lines)], capture_output=True, text=True, check=True)
    assert run.stdout == ""
    return run.stderr


def events(script: str) -> list[dict[str, Any]]:
    return [orjson.loads(line) for line in written(script).splitlines()]


FAILURE = f"""
def fail():
    text = '{CANARY} in a variable'
    raise ExceptionGroup('together', [ValueError('of one')])

try:
    fail()
except ExceptionGroup:
    {{}}
"""


def test_what_was_left_out_of_a_minute_is_told_by_the_next_line_of_its_kind() -> None:
    said = events(
        "import time\n"
        "minutes = iter([0] * 30 + [60] * 30)\n"
        "time.monotonic = lambda: next(minutes)\n"
        "for i in range(15):\n"
        "    log.warning('commit_failed', reason=str(i))\n"
        "    logging.getLogger('aiokafka').error('no broker %s', i)\n"
        "for i in range(2):\n"
        "    log.warning('commit_failed', reason='after')\n"
        "    logging.getLogger('aiokafka').error('no broker %s', 'after')"
    )
    assert [event.get("left_out") for event in said] == [None] * 20 + [5, 5, None, None]


def test_an_event_is_one_line_of_json_with_its_time_level_and_logger() -> None:
    (event,) = events("log.info('draining', topic='incoming', batches=3, seconds=25.0)")
    assert event.pop("timestamp").endswith("Z")
    assert event == {
        "event": "draining",
        "level": "info",
        "logger": "service.pipeline",
        "topic": "incoming",
        "batches": 3,
        "seconds": 25.0,
    }


def test_a_line_stays_a_line_whatever_it_says() -> None:
    (event,) = events("log.warning('commit_failed', reason='first\\nsecond', what={1, 2}, raw=b'\\xff')")
    assert event["reason"] == "first\nsecond"


def test_a_library_speaks_under_one_constant_name_and_only_when_it_warns() -> None:
    spoken, *rest = events(
        "logging.getLogger('aiokafka').info('chatter')\nlogging.getLogger('aiokafka').warning('%s of %d', 'retry', 3)"
    )
    assert rest == []
    assert (spoken["event"], spoken["message"], spoken["logger"]) == ("library_message", "retry of 3", "aiokafka")


def test_a_line_that_is_repeated_a_hundred_times_is_written_a_few_times_and_others_are_not_lost() -> None:
    said = events(
        "for i in range(100):\n"
        "    logging.getLogger('aiokafka').error('no broker %s', i)\n"
        "    log.warning('commit_failed', reason=str(i))\n"
        "log.warning('drain_incomplete')\n"
        "logging.getLogger('httpx').error('no broker %s', 0)"
    )
    assert 20 <= len(said) <= 23 + 2
    assert [event["event"] for event in said[-2:]] == ["drain_incomplete", "library_message"]


@pytest.mark.parametrize(
    "said", ["log.exception('failed')", "logging.getLogger('asyncio').error('failed', exc_info=True)"]
)
def test_an_exception_is_told_without_the_variables_of_its_frames(said: str) -> None:
    (event,) = events(FAILURE.format(said))
    assert "ValueError" in str(event["exception"])
    assert "fail" in str(event["exception"])
    assert CANARY not in str(event)


def test_readable_lines_hold_no_variables_either_and_no_colours_off_a_terminal() -> None:
    said = written(FAILURE.format("log.exception('failed', topic='incoming')"), "Log(format='console')")
    assert "failed" in said
    assert "topic=incoming" in said
    assert "ValueError: of one" in said
    assert CANARY not in said
    assert "\x1b" not in said


@pytest.mark.parametrize(("level", "count"), [("debug", 4), ("info", 3), ("warning", 2), ("error", 1)])
def test_what_is_said_is_as_severe_as_asked_for(level: str, count: int) -> None:
    script = "\n".join(f"log.{severity}('said')" for severity in ("debug", "info", "warning", "error"))
    assert len(written(script, f"Log(level='{level}')").splitlines()) == count


def test_off_a_terminal_the_form_is_json() -> None:
    assert Log().format == "auto"
    assert orjson.loads(written("log.info('started')", "Log()"))["event"] == "started"
