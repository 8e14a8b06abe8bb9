"""The embedded model: answered in threads or in processes of its own, so the event loop never waits for it."""

import asyncio
import multiprocessing
import signal
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Protocol

import structlog

from service import settings
from service.documents import Classified, ClassScore, Document, Outcome
from service.errors import Misconfigured, ModelError, Unavailable
from service.model.classifier import Classifier
from service.process import end_with_parent

Answers = list[tuple[ClassScore, ...]]

log = structlog.get_logger(__name__)


class Answering(Protocol):
    """Who asks the model, elsewhere than in the event loop."""

    async def classify(self, texts: list[str]) -> Answers:
        """The classes of each text; raises Unavailable."""

    def close(self) -> None:
        """Take no more texts, and let go of what answers."""


class Local:
    """A trained model of `labelstream models train`; nothing leaves the machine and nothing is billed.

    `died` is called when a process that answers was ended from outside. Raises Misconfigured where the model cannot be
    read.
    """

    documents_per_call = 256
    characters_per_call = 1_000_000
    characters_per_document = 1_000_000
    bytes_per_call = bytes_per_document = 4_000_000  # only characters are counted

    def __init__(self, local: settings.Local, died: Callable[[], None] = lambda: None) -> None:
        try:
            self._classifier = Classifier.load(local.model)
        except ModelError as error:
            raise Misconfigured(f"model: {error}") from None
        self._answering: Answering
        if local.processes:
            self._answering = _Processes(self._classifier, local.processes, died)
        else:
            self._answering = _Threads(self._classifier, local.threads)
        self.model = f"{self._classifier.name}@{self._classifier.digest}"
        self.task = self._classifier.task
        self.classes = self._classifier.labels

    async def classify(self, documents: Sequence[Document]) -> list[Outcome]:
        """One outcome for each document: in single-label classification the best five classes, else all that apply."""
        answers = await self._answering.classify([document.text for document in documents])
        return [Classified(classes) for classes in answers]

    async def probe(self) -> None:
        """The model was read when this object was made: there is nothing else to see."""

    def close(self) -> None:
        """Let the threads or processes end."""
        self._answering.close()


class _Threads:
    def __init__(self, classifier: Classifier, count: int) -> None:
        self._classifier = classifier
        self._pool = ThreadPoolExecutor(count, thread_name_prefix="model")

    async def classify(self, texts: list[str]) -> Answers:
        return await asyncio.get_running_loop().run_in_executor(self._pool, self._classifier.classify, texts)

    def close(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)


class _Processes:
    """Processes that each have the model; where one dies, all are replaced and what they were asked is asked once more.

    That is once: a batch that two processes have died of is not the third one's. They get the model as it was read
    here, so that a file that is replaced meanwhile does not answer under the name of the one before.
    """

    def __init__(self, classifier: Classifier, count: int, died: Callable[[], None]) -> None:
        self._classifier = classifier
        self._count = count
        self._died = died
        self._pool = self._started()

    async def classify(self, texts: list[str]) -> Answers:
        try:
            return await self._asked(texts)
        except BrokenProcessPool:
            pass
        try:
            return await self._asked(texts)
        except BrokenProcessPool:
            advice = "is there enough memory for the model in each of `processes`?"
            raise Unavailable(f"a process that answers from the model was ended twice from outside; {advice}") from None

    async def _asked(self, texts: list[str]) -> Answers:
        pool = self._pool
        try:
            return await asyncio.get_running_loop().run_in_executor(pool, _classes, texts)
        except BrokenProcessPool:
            if self._pool is pool:  # the first to hear of it
                self._pool = self._started()
                self._died()
                log.warning("model_process_died", model=self._classifier.name, started=self._count)
            raise

    def close(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _started(self) -> Executor:
        spawning = multiprocessing.get_context("spawn")
        return ProcessPoolExecutor(self._count, spawning, initializer=_start, initargs=(self._classifier,))


_mine: Classifier


def _start(classifier: Classifier) -> None:
    global _mine  # noqa: PLW0603  what a process is given at its start has no other place
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all processes of a terminal, and is the worker's
    end_with_parent()
    _mine = classifier


def _classes(texts: list[str]) -> Answers:
    return _mine.classify(texts)
