"""What can go wrong with a whole call, named by what the caller does next.

::

    CallFailed
    ├── Throttled       wait as long as told, then ask again
    ├── Unavailable     nobody can answer just now: hold the documents and ask again later
    │   └── JobLost     a submitted job will never answer: its documents are to be submitted again
    ├── Rejected        the request itself was refused because of what is in it: find the document
    └── Misconfigured   asking again will not help: stop, and say which setting to change

The failure of one document in an otherwise good call is not an error but a value, `documents.Refused`.
"""


class CallFailed(Exception):
    """A call to a classifier gave no answers; the subclass says what to do about it."""


class Throttled(CallFailed):
    """The account was asked for more than its quota; `retry_after` is in seconds, None where the answer gave none."""

    def __init__(self, message: str, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class Unavailable(CallFailed):
    """The account cannot answer just now (network, 5xx, a lost or failed job); `retry_after` as in `Throttled`."""

    def __init__(self, message: str, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class JobLost(Unavailable):
    """A job is gone (expired, cancelled, failed, unknown to the service); nothing came of it."""


class Rejected(CallFailed):
    """The request was understood and refused for its content, so at least one of its documents is at fault."""


class Misconfigured(CallFailed):
    """A setting is wrong (key, endpoint, project, topic …); the message names it and says what to do."""


class Fenced(Exception):
    """A commit was refused because the partitions are somebody else's by now; their new owner repeats the work."""


class ModelError(Exception):
    """A model file cannot be used; the message names the file, what is wrong with it, and what to do."""
