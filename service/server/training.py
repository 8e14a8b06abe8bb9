"""Learning on request, in a process of its own, so that answering never waits for it.

One training runs at a time (the jobs of the long queue come one after another). The process is started with the first
of them and stays; one that dies (killed for want of memory) fails its training and is replaced for the next.
"""

import multiprocessing
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import CancelledError, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, ParamSpec, Self, TypeVar

from service.model.classifier import FILE_NAME, Task
from service.model.evaluate import Evaluation, evaluate
from service.model.examples import Example, ExamplesError
from service.process import end_with_parent
from service.server.jobs import Interrupted

LOOK_UP = 0.05  # seconds after which a training that may be given up looks whether it is

P = ParamSpec("P")
T = TypeVar("T")


class TrainingFailed(Exception):
    """Nothing was learnt, for a reason that the message tells the operator or the client."""


class GivenUp(Exception):
    """Nothing was learnt, as was wished: its process was ended."""


@dataclass(frozen=True, slots=True)
class Learnt:
    """A model that is in the folder of models now, and what is to be said of it.

    `evaluation` is over the rows that were kept for testing, or the model's own estimate where there were none.
    """

    digest: str
    task: Task
    labels: tuple[str, ...]
    documents: int
    evaluation: Evaluation
    warnings: tuple[str, ...]


class Trainer:
    """The process that learns, for as long as the context lasts; safe to use from threads."""

    def __init__(self) -> None:
        self._pool: ProcessPoolExecutor | None = None
        self._lock = threading.Lock()
        self._closed = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        with self._lock:
            self._closed = True
            pool, self._pool = self._pool, None
        if pool is not None:
            _end(pool)

    @property
    def is_closed(self) -> bool:
        """Whether the context has ended: whatever takes long is to be left to the next run."""
        return self._closed

    def run(self, work: Callable[P, T], *arguments: P.args, **named: P.kwargs) -> T:
        """What a function gives for arguments, all of which can be pickled.

        Raises what it raises, `TrainingFailed` where its process died, and `Interrupted` where the context ends.
        """
        return self.run_until(_never, work, *arguments, **named)

    def run_until(self, given_up: Callable[[], bool], work: Callable[P, T], *arguments: P.args, **named: P.kwargs) -> T:
        """As `run`, and raises `GivenUp` where it is given up before its end: its process is ended then."""
        if given_up():
            raise GivenUp
        with self._lock:
            if self._closed:
                raise Interrupted
            if self._pool is None:
                self._pool = ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), end_with_parent)
            pool = self._pool
        try:
            future = pool.submit(work, *arguments, **named)
            while not future.done():
                wait([future], LOOK_UP)
                if given_up() and not future.done():
                    with self._lock:
                        self._pool = None if self._pool is pool else self._pool
                    _end(pool)
                    raise GivenUp
            return future.result()
        except (BrokenProcessPool, CancelledError):
            with self._lock:
                if self._closed:
                    raise Interrupted from None
                if self._pool is pool:
                    self._pool = None
            raise TrainingFailed("the process that trains was ended from outside; is there enough memory?") from None


def _never() -> bool:
    return False


def _end(pool: ProcessPoolExecutor) -> None:
    for process in list(pool._processes.values()):  # noqa: SLF001  what it is at may take minutes, and comes to nothing
        process.terminate()
    pool.shutdown(wait=True, cancel_futures=True)


def learn(folder: Path, rows: Sequence[Example], tests: Sequence[Example], task: Task, name: str) -> Learnt:
    """Train on `rows`, measure on `tests` (none: by cross-validation), and put the model into the folder of models.

    For `Trainer.run`. Raises `ExamplesError` where there is too little to learn from, and `TrainingFailed` where the
    model cannot be written.
    """
    from service.model.train import train  # noqa: PLC0415  a second of scikit-learn, which the server itself never needs

    trained = train(rows, task=task, name=name)
    classifier = trained.classifier
    try:
        trained.save(folder / classifier.digest)
    except OSError as error:
        raise TrainingFailed(f"the model cannot be written to {folder / FILE_NAME}: {error.strerror}") from None
    measured = trained.estimate
    if tests:
        try:
            measured = evaluate(classifier, tests)
        except ExamplesError:  # no test row belongs to a class that was learnt
            measured = trained.estimate
    return Learnt(classifier.digest, task, tuple(classifier.labels), trained.documents, measured, trained.warnings)


class LearntCategory(NamedTuple):
    """A category's model that is in the folder of models now, and what is to be said of it, to people."""

    digest: str
    ranking: float
    warnings: tuple[str, ...]


def learn_category(
    folder: Path, name: str, positives: Sequence[str], negatives: Sequence[str], by_meaning: bool = False
) -> LearntCategory:
    """Learn one category from examples of it, also by what they mean, and put its model into the folder of models.

    For `Trainer.run`. Raises as `learn`.
    """
    from service.model import category, embeddings  # noqa: PLC0415  as in `learn`

    learnt = category.learn_category(name, positives, negatives, encoder=embeddings.encoder() if by_meaning else None)
    try:
        learnt.save(folder / learnt.classifier.digest)
    except OSError as error:
        raise TrainingFailed(f"the model cannot be written to {folder / FILE_NAME}: {error.strerror}") from None
    return LearntCategory(learnt.classifier.digest, learnt.ranking, learnt.warnings)
