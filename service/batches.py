"""Documents are packed into batches: full ones leave at once, others when their first document has waited enough. Pure.

How long documents are decides how full batches get. One tray would be sent off half empty whenever the next document
does not fit, so a few stand open, and a document goes into the fullest that takes it; where none does, the fullest
leaves. That is bounded-space bin packing with best fit for both choices, BBF-k (Csirik and Johnson, Bounded Space
On-Line Bin Packing: Best Is Better than First, Algorithmica 31, 2001).
"""

from collections.abc import Callable, Iterable
from typing import NamedTuple

from service.documents import Document, bytes_of

OPEN = 4
"""Trays that stand open at most: on mixed lengths, twice as many get it no more than two percent fuller."""
NO_BYTES = 1 << 62
"""The most bytes of a call whose bytes nobody counts."""


class Most(NamedTuple):
    """The most that one call may hold: documents, and characters and bytes in UTF-8 of their texts."""

    documents: int
    characters: int
    bytes: int = NO_BYTES


class _Tray:
    __slots__ = ("bytes", "characters", "documents", "since")

    def __init__(self, since: float) -> None:
        self.since = since
        self.documents: list[Document] = []
        self.characters = 0
        self.bytes = 0


class Batcher:
    """A few trays, each of which is sent off when it is full or has stood long enough.

    A batch is never more than `most` (a longer document goes alone); `wait` is the longest, in seconds, that a batch's
    first document waits for company. Documents of a batch keep their order, and while all fit into one tray so do
    batches.
    """

    def __init__(self, most: Most, wait: float) -> None:
        self._most = most
        self._wait = wait
        self._trays: list[_Tray] = []  # the oldest first

    def add(self, documents: Iterable[Document], now: float) -> list[list[Document]]:
        """Add documents at the time `now`, and take every batch that is ready to go."""
        most, trays, ready = self._most, self._trays, list[list[Document]]()
        most_documents, most_characters, most_bytes = most
        for document in documents:
            text = document.text
            characters = len(text)
            size = characters if text.isascii() else bytes_of(text)
            if characters >= most_characters or size >= most_bytes:
                ready.append([document])
                continue
            room, room_bytes, best = most_characters - characters, most_bytes - size, None
            for tray in trays:
                if (
                    tray.characters <= room
                    and tray.bytes <= room_bytes
                    and (best is None or self._is_fuller(tray, best))
                ):
                    best = tray
            if best is None:
                if len(trays) == OPEN:
                    ready.append(self._take(max(trays, key=self._fullness)))
                best = _Tray(now)
                trays.append(best)
            best.documents.append(document)
            best.characters += characters
            best.bytes += size
            if len(best.documents) >= most_documents:
                ready.append(self._take(best))
        while trays and now >= trays[0].since + self._wait:
            ready.append(self._take(trays[0]))
        return ready

    def due_in(self, now: float) -> float | None:
        """Seconds until a batch must leave; None while there is nothing to send."""
        return max(0.0, self._trays[0].since + self._wait - now) if self._trays else None

    def flush(self) -> list[list[Document]]:
        """Take what there is, full or not."""
        return [self._take(tray) for tray in list(self._trays)]

    def drop(self, unwanted: Callable[[Document], bool]) -> list[Document]:
        """Take out the documents that nobody wants any more."""
        dropped: list[Document] = []
        for tray in self._trays:
            dropped += [document for document in tray.documents if unwanted(document)]
            tray.documents = [document for document in tray.documents if not unwanted(document)]
            tray.characters = sum(len(document.text) for document in tray.documents)
            tray.bytes = sum(bytes_of(document.text) for document in tray.documents)
        self._trays[:] = [tray for tray in self._trays if tray.documents]
        return dropped

    def _is_fuller(self, tray: _Tray, other: _Tray) -> bool:
        return self._fullness(tray) > self._fullness(other)

    def _fullness(self, tray: _Tray) -> float:
        most = self._most
        return max(len(tray.documents) / most.documents, tray.characters / most.characters, tray.bytes / most.bytes)

    def _take(self, tray: _Tray) -> list[Document]:
        self._trays.remove(tray)
        return tray.documents


def packed(documents: Iterable[Document], most: Most) -> list[list[Document]]:
    """Documents that are all there, in batches."""
    batcher = Batcher(most, 0.0)
    return batcher.add(documents, 0.0)
