"""Where records come from, and who is told what of them is ours: what the pipeline asks of its input."""

from collections.abc import Iterable, Mapping
from contextlib import AbstractAsyncContextManager
from typing import Protocol

from service.documents import Record
from service.offsets import Mark, Partition, Room


class Owner(Protocol):
    """Who is told by a source which partitions come and go."""

    async def assigned(self, marks: Mapping[Partition, Mark | None]) -> None:
        """These partitions are ours from now on, and this is what was committed for them."""
        ...

    async def revoked(self, partitions: Iterable[Partition]) -> None:
        """These partitions are about to be taken away; when this returns, they are."""
        ...


class Source(Protocol):
    """Where records come from."""

    @property
    def metadata_limit(self) -> int:
        """The most characters of metadata that a mark may have."""
        ...

    def opened(self, owner: Owner) -> AbstractAsyncContextManager[None]:
        """Read on behalf of `owner` for the length of the block. Raises Misconfigured or Unavailable."""
        ...

    async def poll(self, room: Room, timeout: float) -> list[Record] | None:
        """Records that have come, at most `room`, waiting `timeout` seconds for the first; None when the input ended.

        Polling with no room reads nothing and shows that we are alive.
        """
        ...

    async def commit(self, marks: Mapping[Partition, Mark]) -> None:
        """Remember how far we are. Raises Fenced or Unavailable."""
        ...

    def partitions(self) -> int:
        """How many partitions the input has, whoever reads them."""
        ...

    def ends(self) -> dict[Partition, int]:
        """The offsets that the next record of each assigned partition will get, as far as known."""
        ...
