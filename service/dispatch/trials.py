"""A second classifier on trial: asked for a share of the documents beside, and compared with what is published.

As a shadow it is asked of documents that are answered, and nothing of it is published. As a canary it answers them, and
those whose place it takes are asked beside. Either way nobody waits for the one beside: its documents are few, are
dropped where it does not keep up, and are no part of any commit.
"""

import asyncio
from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import asynccontextmanager
from hashlib import blake2b

import structlog

from service.batches import Batcher, Most
from service.dispatch.answers import Answer, Batch
from service.dispatch.dispatcher import Dispatcher
from service.documents import Classified, Document, Outcome
from service.jobs.ledger import Ledger, NoShelf
from service.observability.comparing import Compared
from service.observability.telemetry import StreamTelemetry, TrialTelemetry
from service.settings import Stream

PATIENCE = 2.0
"""Seconds, at most, that the end of a worker waits for what is asked beside."""
OF_A_PRIORITY = 0.1
"""How much of an account that it shares with streams the one beside gets, over what its own stream gets."""
_ALL = 1 << 64

log = structlog.get_logger(__name__)


def is_drawn(document: Document, share: float) -> bool:
    """Whether a document is one of this share: by its id, so that what is asked again has the same fate."""
    digest = blake2b(document.id.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest) < share * _ALL


class NoTrial:
    """Nobody is asked beside."""

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """As `Trial.running`."""
        yield

    def published(self, answer: Answer) -> None:
        """As `Trial.published`."""


class Trial:
    """Asks a dispatcher beside, for documents of the share that were answered by the accounts of these names."""

    def __init__(
        self,
        stream: Stream,
        dispatcher: Dispatcher,
        *,
        share: float,
        answered_by: Collection[str],
        candidate_is_asked: bool,
        waiting: int,
        telemetry: TrialTelemetry,
        billed: StreamTelemetry,
    ) -> None:
        self._topic = stream.input
        self._dispatcher = dispatcher
        self._share = share
        self._answered_by = answered_by
        self._candidate_is_asked = candidate_is_asked
        self._most_waiting = waiting
        self._telemetry = telemetry
        self._billed = billed
        self._wait = stream.batch.wait
        most = dispatcher.most
        documents, characters = (
            min(stream.batch.documents, most.documents),
            min(stream.batch.characters, most.characters),
        )
        self._batcher = Batcher(Most(documents, characters, most.bytes), stream.batch.wait)
        self._notes = Ledger(NoShelf())
        self._in_hand: dict[int, tuple[Document, Outcome, float, float, float]] = {}
        self._asking = set[asyncio.Task[None]]()
        self._timer: asyncio.TimerHandle | None = None
        self._is_closed = self._has_failed = False

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Ask for the length of the block; what is out at its end has a moment to be answered, if it ends well."""
        patience = 0.0
        try:
            yield
            patience = PATIENCE
        finally:
            self._is_closed = True
            if self._timer is not None:
                self._timer.cancel()
            if patience:
                self._start(self._batcher.flush())
            if self._asking:
                await asyncio.wait(self._asking, timeout=patience)
            for task in self._asking:
                task.cancel()
            if self._asking:
                await asyncio.wait(self._asking)
            self._telemetry.became("dropped", len(self._in_hand))

    def published(self, answer: Answer) -> None:
        """Have the documents of an answer asked for beside that are of the share."""
        if answer.account.name not in self._answered_by:
            return
        drawn = [
            (document, outcome)
            for document, outcome in zip(answer.documents, answer.outcomes, strict=True)
            if isinstance(outcome, Classified) and is_drawn(document, self._share)
        ]
        if not drawn:
            return
        room = 0 if self._is_closed else max(0, self._most_waiting - len(self._in_hand))
        self._telemetry.became("dropped", len(drawn[room:]))
        now, tariff, taken = _now(), answer.account.limits.tariff, list[Document]()
        for document, outcome in drawn[:room]:
            stages = [stage.cost or 0.0 for stage in document.stages]
            cost = sum(stages) if stages else tariff.cost([outcome])
            copy = document._replace(stages=())  # of its own: what is asked beside knows nothing of lanes
            self._in_hand[id(copy)] = copy, outcome, max(0.0, answer.at - document.read_at), cost, now
            taken.append(copy)
        self._start(self._batcher.add(taken, now))
        if self._timer is None and (due := self._batcher.due_in(now)) is not None:
            self._timer = asyncio.get_running_loop().call_later(due, self._due)

    def _due(self) -> None:
        now, self._timer = _now(), None
        self._start(self._batcher.add((), now))
        if (due := self._batcher.due_in(now)) is not None:
            self._timer = asyncio.get_running_loop().call_later(max(due, 0.001), self._due)

    def _start(self, batches: Sequence[Sequence[Document]]) -> None:
        for documents in batches:
            task = asyncio.create_task(self._ask(Batch(documents)))
            self._asking.add(task)
            task.add_done_callback(self._asking.discard)

    async def _ask(self, batch: Batch) -> None:
        try:
            answers = await self._dispatcher.classify(batch, self._notes)
        except Exception as error:  # noqa: BLE001  whatever is wrong with it, the stream goes on without
            if not self._has_failed:
                self._is_closed = self._has_failed = True
                log.error("trial_ended", topic=self._topic, reason=str(error) or type(error).__name__)  # noqa: TRY400
            for document in batch.documents:
                del self._in_hand[id(document)]
            self._telemetry.became("dropped", len(batch.documents))
            return
        now = _now()
        for answer in answers:
            self._billed.billed(answer.cost)
            cost = answer.cost / len(answer.documents)
            for document, outcome in zip(answer.documents, answer.outcomes, strict=True):
                _, first, seconds, first_cost, since = self._in_hand.pop(id(document))
                pairs = (first, outcome), (seconds, now - since), (first_cost, cost)
                if not self._candidate_is_asked:
                    pairs = tuple((there, here) for here, there in pairs)  # type: ignore[assignment]
                (present, candidate), took, costs = pairs
                self._telemetry.compared(Compared(present, candidate, *took, *costs))


def _now() -> float:
    return asyncio.get_running_loop().time()
