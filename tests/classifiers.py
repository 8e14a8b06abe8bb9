"""Classifiers that keep the promise of `account.Provider` without a network: a document's class is its first word."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from service import settings
from service.dispatch.account import Account
from service.documents import Classified, ClassScore, Document, Outcome, Reason, Refused
from service.errors import CallFailed, Rejected
from service.jobs.ledger import Ledger, NoShelf
from service.limits.gate import Limits
from service.observability.telemetry import Telemetry
from tests.clock import now

POISON = "poison"
"""A call that holds a document beginning so is refused as a whole."""
UNWANTED = "unwanted"
"""A document beginning so is refused by itself."""


@dataclass
class FirstWord:
    """Takes `seconds` for a call, and fails with what `trouble` gives at the time, if anything."""

    seconds: float = 0.1
    trouble: Callable[[], CallFailed | None] = lambda: None
    documents_per_call: int = 25
    characters_per_call: int = 5_000_000
    characters_per_document: int = 5_000_000
    bytes_per_call: int = 20_000_000
    bytes_per_document: int = 20_000_000
    model: str = "first-word"
    task: str = "single_label"
    calls: list[tuple[float, list[str]]] = field(default_factory=list)
    out: int = 0
    most_out: int = 0

    @property
    def asked(self) -> list[str]:
        """The texts of every call that was made, whatever came of it."""
        return [text for _, texts in self.calls for text in texts]

    async def classify(self, documents: Sequence[Document]) -> list[Outcome]:
        assert 1 <= len(documents) <= self.documents_per_call
        assert all(len(document.text) <= self.characters_per_document for document in documents)
        self.calls.append((now(), [document.text for document in documents]))
        self.out += 1
        self.most_out = max(self.most_out, self.out)
        try:
            await asyncio.sleep(self.seconds)
        finally:
            self.out -= 1
        if trouble := self.trouble():
            raise trouble
        if any(document.text.startswith(POISON) for document in documents):
            raise Rejected("one of the documents is at fault")
        return [_outcome(document) for document in documents]

    async def probe(self) -> None:
        if trouble := self.trouble():
            raise trouble


@dataclass
class FirstWordByJobs(FirstWord):
    """The same through jobs, each done `seconds` after it was submitted."""

    cancelled: list[str] = field(default_factory=list)
    cleared: list[str] = field(default_factory=list)

    async def submit(self, documents: Sequence[Document]) -> str:
        if trouble := self.trouble():
            raise trouble
        self.calls.append((now(), [document.text for document in documents]))
        return f"{now() + self.seconds} {len(self.calls)}"

    async def poll(self, job: str, documents: Mapping[int, Document]) -> list[Outcome] | None:
        if trouble := self.trouble():
            raise trouble
        return (
            [_outcome(document) for document in documents.values()]
            if now() >= float(job.split(maxsplit=1)[0])
            else None
        )

    async def cancel(self, job: str) -> None:
        self.cancelled.append(job)

    async def clear(self, job: str) -> None:
        self.cleared.append(job)


def _outcome(document: Document) -> Outcome:
    if document.text.startswith(UNWANTED):
        return Refused(Reason.REFUSED_BY_CLASSIFIER, "the classifier does not want it")
    return Classified((ClassScore(document.text.split()[0][:100], 0.9), ClassScore("other", 0.1)), units=1)


def unnoted() -> Ledger:
    """Notes that are kept nowhere."""
    return Ledger(NoShelf())


def account(
    provider: FirstWord, name: str = "first", *, in_flight: int = 16, telemetry: Telemetry | None = None
) -> Account:
    events = (telemetry or Telemetry()).account(name, "fake")
    return Account(name, "fake", provider, limits=Limits(settings.Limits(in_flight=in_flight)), telemetry=events)
