"""Documents of the same text and language: one is asked for, and the others get its answer.

While one is asked for, those that are like it wait for what comes of it; a while longer its answer is kept. A document
whose like is refused, or given up with its partition, is asked for itself, so that nobody is judged by another's fate.
What is kept is known by a keyed hash, and by the account, model and task that answered; no text is.
"""

import secrets
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import NamedTuple, Protocol

from service import settings
from service.dispatch.account import Account
from service.dispatch.answers import Answer
from service.documents import AnsweredFrom, Classified, Document

_ENTRY, _CLASS, _WARNING, _CHARACTER = 700, 210, 110, 4
"""Bytes of memory that what is kept takes at most: by itself, for each class, each warning, and their characters."""


class Likes(Protocol):
    """What is known of documents that are like others."""

    def sort(self, documents: list[Document], now: float) -> tuple[list[Document], list[Answer]]:
        """Those of these documents that are to be asked for, and answers of those that need not be."""
        ...

    def answered(self, answers: Iterable[Answer], now: float) -> list[Answer]:
        """Take answers in, and give those of the documents that waited for them."""
        ...

    def next(self) -> list[Document]:
        """Documents that have waited in vain, and are to be asked for."""
        ...

    def promote(self, gone: Iterable[Document]) -> None:
        """Have one that waits take the place of each of these, which will not be answered."""
        ...

    def drop(self, unwanted: Callable[[Document], bool], out: Collection[int] = ()) -> list[Document]:
        """Take out the waiting documents that nobody wants any more, unless they wait for one that is `out`, by id."""
        ...

    def statistics(self) -> "Kept":
        """What is kept."""
        ...


class Kept(NamedTuple):
    """How many answers are kept, and in how many bytes of memory at most."""

    answers: int = 0
    bytes: int = 0


class EachAsked:
    """Has every document asked for, whatever it is like."""

    def sort(self, documents: list[Document], now: float) -> tuple[list[Document], list[Answer]]:  # noqa: ARG002  as Likes
        """As `Likes.sort`."""
        return documents, []

    def answered(self, answers: Iterable[Answer], now: float) -> list[Answer]:  # noqa: ARG002  as Likes
        """As `Likes.answered`."""
        return []

    def next(self) -> list[Document]:
        """As `Likes.next`."""
        return []

    def promote(self, gone: Iterable[Document]) -> None:
        """As `Likes.promote`."""

    def drop(self, unwanted: Callable[[Document], bool], out: Collection[int] = ()) -> list[Document]:  # noqa: ARG002  as Likes
        """As `Likes.drop`."""
        return []

    def statistics(self) -> Kept:
        """As `Likes.statistics`."""
        return Kept()


@dataclass(slots=True, eq=False)
class _Asked:
    """A document that is asked for, and those that wait for its answer."""

    digest: bytes
    document: Document
    waiting: list[Document] = field(default_factory=list)


class AskedOnce:
    """Has one of several documents that are alike asked for, at these accounts, and keeps answers."""

    def __init__(self, branch: settings.Identical, accounts: Sequence[Account]) -> None:
        self._accounts = accounts
        self._cache = Cache(branch.entries, branch.bytes, branch.ttl)
        self._key = secrets.token_bytes(32)
        self._asked: dict[bytes, _Asked] = {}
        self._by_document: dict[int, _Asked] = {}  # by id: they are these very objects
        self._next: list[Document] = []

    def sort(self, documents: list[Document], now: float) -> tuple[list[Document], list[Answer]]:
        """As `Likes.sort`."""
        to_ask, known = list[Document](), dict[Account, list[tuple[Document, Classified]]]()
        for document in documents:
            digest = self._digest(document)
            if (asked := self._asked.get(digest)) is not None:
                asked.waiting.append(document)
            elif (found := self._kept(document, digest, now)) is not None:
                account, outcome = found
                known.setdefault(account, []).append((document, outcome))
            else:
                self._lead(_Asked(digest, document))
                to_ask.append(document)
        return to_ask, [_spared(account, given, "cache", given[0][0].read_at) for account, given in known.items()]

    def answered(self, answers: Iterable[Answer], now: float) -> list[Answer]:
        """As `Likes.answered`."""
        passed_on = []
        for answer in answers:
            given: list[tuple[Document, Classified]] = []
            for document, outcome in zip(answer.documents, answer.outcomes, strict=True):
                if (asked := self._by_document.get(id(document))) is None:
                    continue
                self._forget(asked)
                if isinstance(outcome, Classified):
                    self._cache.keep((*_who(answer.account), asked.digest), outcome, now)
                    given += [(like, outcome) for like in asked.waiting]
                else:
                    self._next += asked.waiting
            if given:
                passed_on.append(_spared(answer.account, given, "in_flight", answer.at))
        return passed_on

    def next(self) -> list[Document]:
        """As `Likes.next`."""
        following, self._next = self._next, []
        return following

    def promote(self, gone: Iterable[Document]) -> None:
        """As `Likes.promote`."""
        for document in gone:
            if (asked := self._by_document.get(id(document))) is None:
                continue
            self._forget(asked)
            if asked.waiting:
                first, *waiting = asked.waiting
                self._lead(_Asked(asked.digest, first, waiting))
                self._next.append(first)

    def drop(self, unwanted: Callable[[Document], bool], out: Collection[int] = ()) -> list[Document]:
        """As `Likes.drop`."""
        dropped = [document for document in self._next if unwanted(document)]
        for asked in self._asked.values():
            if asked.waiting and id(asked.document) not in out:
                dropped += [document for document in asked.waiting if unwanted(document)]
                asked.waiting = [document for document in asked.waiting if not unwanted(document)]
        self._next = [document for document in self._next if not unwanted(document)]
        return dropped

    def statistics(self) -> Kept:
        """As `Likes.statistics`."""
        return self._cache.statistics()

    def _kept(self, document: Document, digest: bytes, now: float) -> tuple[Account, Classified] | None:
        """An answer by the account that would be asked just now, or by one that comes before it."""
        for account in self._accounts:
            if (outcome := self._cache.get((*_who(account), digest), now)) is not None:
                return account, outcome
            if not account.limits.quiet_for and account.takes(document.text):
                break
        return None

    def _lead(self, asked: _Asked) -> None:
        self._asked[asked.digest] = self._by_document[id(asked.document)] = asked

    def _forget(self, asked: _Asked) -> None:
        del self._asked[asked.digest], self._by_document[id(asked.document)]

    def _digest(self, document: Document) -> bytes:
        language = (document.language or "").encode("utf-8", "surrogatepass")
        digest = blake2b(b"%d:%b" % (len(language), language), digest_size=16, key=self._key)
        digest.update(document.text.encode("utf-8", "surrogatepass"))
        return digest.digest()


def likes(branch: settings.Identical | None, accounts: Sequence[Account], of: int = 1) -> Likes:
    """What a stream wants to know of documents that are like others, in one `of` so many lanes that share the room."""
    if branch is None:
        return EachAsked()
    room = {"entries": max(1, branch.entries // of), "bytes": branch.bytes // of}
    return AskedOnce(branch.model_copy(update=room), accounts)


_Key = tuple[str, str, str, bytes]


class Cache:
    """Answers for a while: at most so many, in so many bytes of memory, and for so many seconds.

    When there are too many, those go that were not asked for the longest.
    """

    def __init__(self, entries: int, bytes: int, ttl: float) -> None:  # noqa: A002  the field's own word, as in the settings
        self._entries = entries
        self._most_bytes = bytes
        self._ttl = ttl
        self._kept: OrderedDict[_Key, tuple[Classified, float, int]] = OrderedDict()
        self._bytes = 0

    def keep(self, key: _Key, outcome: Classified, now: float) -> None:
        """Keep an answer from now on."""
        size = _size(outcome)
        if not self._ttl or size > self._most_bytes:
            return
        self._drop(key)
        self._kept[key] = outcome, now + self._ttl, size
        self._bytes += size
        while len(self._kept) > self._entries or self._bytes > self._most_bytes:
            self._drop(next(iter(self._kept)))

    def get(self, key: _Key, now: float) -> Classified | None:
        """The answer that is kept under a key, if there is one."""
        if (found := self._kept.get(key)) is None:
            return None
        outcome, until, _ = found
        if now >= until:
            self._drop(key)
            return None
        self._kept.move_to_end(key)
        return outcome

    def statistics(self) -> Kept:
        """How much is kept."""
        return Kept(len(self._kept), self._bytes)

    def _drop(self, key: _Key) -> None:
        if (found := self._kept.pop(key, None)) is not None:
            self._bytes -= found[2]


def _who(account: Account) -> tuple[str, str, str]:
    """Whose answers may be given again: no other account's, or other model's or task's of it."""
    return account.name, account.provider.model, account.provider.task


def _spared(account: Account, given: Sequence[tuple[Document, Classified]], where: AnsweredFrom, at: float) -> Answer:
    """The answer of documents that were not asked for: nothing is billed for it."""
    outcomes = [outcome for _, outcome in given]
    return Answer(
        [document for document, _ in given],
        [outcome._replace(units=0) for outcome in outcomes],
        account,
        0,
        at,
        where,
        account.limits.tariff.cost(outcomes),
    )


def _size(outcome: Classified) -> int:
    written = sum(len(name) for name, _, _ in outcome.classes) + sum(map(len, outcome.warnings))
    return _ENTRY + _CLASS * len(outcome.classes) + _WARNING * len(outcome.warnings) + _CHARACTER * written
