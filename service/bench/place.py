"""Where the parts of a benchmark meet. A worker imports no more of the others than this: its memory is its own."""

from dataclasses import dataclass

PARTITIONS = 4
IN_FLIGHT, BATCH = 32, 25


@dataclass(frozen=True)
class Place:
    """Where the broker and the endpoint are, and what the topics are called.

    `seconds` are what a job takes there. A worker has a `number`, and is one of so many `workers`.
    """

    bootstrap: str
    url: str
    seconds: float
    number: int
    workers: int
    incoming: str
    classified: str
    dead: str
    jobs: str
