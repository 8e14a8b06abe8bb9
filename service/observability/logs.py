"""Log lines: one event a line, JSON or readable, never with a document's text or a key."""

import logging
import sys
import time
from typing import Any

import structlog
from structlog.dev import plain_traceback
from structlog.tracebacks import ExceptionDictTransformer
from structlog.typing import EventDict, Processor, WrappedLogger

from service.settings import Log

_REPEATS_PER_MINUTE = 10
_TRACEBACK = structlog.processors.ExceptionRenderer(ExceptionDictTransformer(show_locals=False))
"""Never the frames' variables: they hold documents and keys."""


class _Repeats(logging.Filter):
    """Lets a few lines a minute of each kind through: client libraries repeat theirs by the hundred in an outage.

    The first line of its kind after that says how many were `left_out`.
    """

    def __init__(self) -> None:
        super().__init__()
        self._seen: dict[tuple[str, int, str], tuple[int, int]] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        event = record.msg["event"] if isinstance(record.msg, dict) else record.msg
        kind, minute = (record.name, record.levelno, event), int(time.monotonic() / 60)
        since, count = self._seen.get(kind, (minute, 0))
        if since != minute:
            vars(record)["left_out"] = max(0, count - _REPEATS_PER_MINUTE)
            count = 0
        count += 1
        if len(self._seen) > 1000:
            self._seen.clear()
        self._seen[kind] = (minute, count)
        return count <= _REPEATS_PER_MINUTE


def configure(log: Log) -> None:
    """Write our own lines and those of the libraries to standard error, in the configured form."""
    as_json = log.format == "json" or (log.format == "auto" and not sys.stderr.isatty())
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="timestamp"),
        structlog.processors.StackInfoRenderer(),
    ]
    ending: list[Processor] = (
        [_TRACEBACK, structlog.processors.JSONRenderer(default=str)]
        if as_json
        else [structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), exception_formatter=plain_traceback)]
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*shared, _named_after_its_library],
            processors=[
                _with_how_many_were_left_out,
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                *ending,
            ],
        )
    )
    handler.addFilter(_Repeats())
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(logging.WARNING)
    logging.getLogger("service").setLevel(log.level.upper())
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )


def _with_how_many_were_left_out(_logger: WrappedLogger, _name: str, event: EventDict) -> EventDict:
    """Say of a line how many of its kind were not written in the minute before."""
    left_out = vars(event["_record"]).get("left_out", 0)
    return {**event, "left_out": left_out} if left_out else event


def _named_after_its_library(_logger: WrappedLogger, _name: str, event: EventDict) -> EventDict:
    """Give a library's free words a constant event name, so that they can be counted."""
    said: Any = event.pop("event")
    return {**event, "event": "library_message", "message": str(said)}
