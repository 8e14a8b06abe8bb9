"""How long a service asks to be left alone, read from the headers of its answer. Pure, but for the clock."""

import math
import time
from collections.abc import Mapping
from email.utils import parsedate_to_datetime

_MILLISECONDS = ("retry-after-ms", "x-ms-retry-after-ms")
"""Of Azure, where the finer is meant to be heard."""


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds to wait, given in milliseconds, seconds or as an HTTP date (RFC 9110, 10.2.3); None if nothing sensible.

    The names of headers are in lower case, unless the mapping does not mind.
    """
    for name, unit in (*((name, 0.001) for name in _MILLISECONDS), ("retry-after", 1.0)):
        try:
            wait = float(headers[name]) * unit
        except (KeyError, ValueError):
            continue
        return wait if 0 <= wait < math.inf else None
    until = _moment(headers.get("retry-after"))
    if until is None:
        return None
    sent = _moment(headers.get("date"))  # the service's clock, as ours may differ
    return max(0.0, until - (time.time() if sent is None else sent))


def _moment(date: str | None) -> float | None:
    try:
        return None if date is None else parsedate_to_datetime(date).timestamp()
    except (ValueError, OverflowError):
        return None
