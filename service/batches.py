"""Documents are gathered into batches: full ones leave at once, others when their first document has waited enough."""

from collections.abc import Callable, Iterable

from service.documents import Document


class Batcher:
    """A tray that is sent off when it is full or has stood long enough.

    A batch holds at most `documents` documents and `characters` characters (a longer document goes alone); `wait` is
    the longest, in seconds, that a batch's first document waits for company. Documents keep their order.
    """

    def __init__(self, documents: int, characters: int, wait: float) -> None:
        self._most = documents
        self._most_characters = characters
        self._wait = wait
        self._tray: list[Document] = []
        self._characters = 0
        self._since = 0.0

    def add(self, documents: Iterable[Document], now: float) -> list[list[Document]]:
        """Add documents at the time `now`, and take every batch that is ready to go."""
        ready = []
        for document in documents:
            characters = len(document.text)
            if self._tray and self._characters + characters > self._most_characters:
                ready.append(self._take())
            if not self._tray:
                self._since = now
            self._tray.append(document)
            self._characters += characters
            if len(self._tray) >= self._most:
                ready.append(self._take())
        if self._tray and now >= self._since + self._wait:
            ready.append(self._take())
        return ready

    def due_in(self, now: float) -> float | None:
        """Seconds until a batch must leave; None while there is nothing to send."""
        return max(0.0, self._since + self._wait - now) if self._tray else None

    def flush(self) -> list[list[Document]]:
        """Take what there is, full or not."""
        return [self._take()] if self._tray else []

    def drop(self, unwanted: Callable[[Document], bool]) -> list[Document]:
        """Take out the documents that nobody wants any more."""
        dropped = [document for document in self._tray if unwanted(document)]
        self._tray = [document for document in self._tray if not unwanted(document)]
        self._characters = sum(len(document.text) for document in self._tray)
        return dropped

    def _take(self) -> list[Document]:
        batch, self._tray, self._characters = self._tray, [], 0
        return batch
