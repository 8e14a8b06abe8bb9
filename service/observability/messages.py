"""The last warnings and errors of the service itself, for who looks at the status page instead of the log."""

import logging
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import NamedTuple

_KEPT = 50
_LONGEST = 300
_ABOUT = ("account", "topic", "partition")
"""What a message may be about, besides its reason; nothing else of a line is kept."""


class Message(NamedTuple):
    """One kind of line: its event, what it is about, and why; said so often, last `at` that time (Unix)."""

    level: str
    event: str
    about: str
    reason: str
    at: float
    times: int


class Messages(logging.Handler):
    """A ring of them. What is said again moves to its end, so that one outage does not push out all that was before."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._kept: deque[Message] = deque(maxlen=_KEPT)

    def emit(self, record: logging.LogRecord) -> None:
        """Keep a line that is an event of ours; the free words of a library are not."""
        if not isinstance(record.msg, dict):
            return
        line = record.msg
        message = Message(
            level=record.levelname.lower(),
            event=str(line["event"]),
            about=" ".join(str(line[name]) for name in _ABOUT if name in line),
            reason=str(line.get("reason", ""))[:_LONGEST],
            at=record.created,
            times=1,
        )
        before = next((each for each in self._kept if each[:4] == message[:4]), None)
        if before is not None:
            self._kept.remove(before)
            message = message._replace(times=before.times + 1)
        self._kept.append(message)

    def last(self) -> list[Message]:
        """What is kept, in the order in which it was said last."""
        return list(self._kept)


@asynccontextmanager
async def kept() -> AsyncIterator[Messages]:
    """Keep what the service says for the length of the block; async to stand beside all else that is opened."""
    messages, ours = Messages(), logging.getLogger("service")
    ours.addHandler(messages)
    try:
        yield messages
    finally:
        ours.removeHandler(messages)
