"""Processes that answer from the embedded model: they die without harm, and with whoever started them."""

import contextlib
import multiprocessing
import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest

from service import settings
from service.documents import ClassScore
from service.errors import Unavailable
from service.model.classifier import Classifier
from service.providers.local import Local
from tests.commands import small_model
from tests.providers.contract import document

_PATIENCE = 30  # seconds, where a busy machine has to start or to end a process
_OWNER = """
import asyncio, multiprocessing, sys, time
from pathlib import Path
from service import settings
from service.providers.local import Local
from tests.providers.contract import document

provider = Local(settings.Local(provider="local", model=Path(sys.argv[1]), processes=1))
asyncio.run(provider.classify([document()]))
print(*[child.pid for child in multiprocessing.active_children()], flush=True)
time.sleep(600)
"""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_model(tmp_path_factory.mktemp("models") / "small")


@pytest.fixture
def provider(model: Path) -> Iterator[Local]:
    it = Local(settings.Local(provider="local", model=model, processes=1))
    yield it
    watched = list[int]()
    for child in multiprocessing.active_children():
        with contextlib.suppress(ProcessLookupError):  # it has died just now, of the test
            watched.append(_watched(child.pid))
    it.close()
    assert all(_ended(each) for each in watched), "closing ends them"


def _watched(pid: int | None) -> int:
    assert pid is not None
    return os.pidfd_open(pid)


def _ended(watched: int) -> bool:
    ended, _, _ = select.select([watched], [], [], _PATIENCE)
    os.close(watched)
    return bool(ended)


def _child() -> BaseProcess:
    (child,) = multiprocessing.active_children()
    return child


async def test_a_process_that_died_is_replaced_and_its_batch_asked_again(provider: Local) -> None:
    first = await provider.classify([document()])
    died = _child()
    died.kill()
    assert await provider.classify([document()]) == first
    assert _child().pid != died.pid


class _Fatal(Classifier):
    """A model that whatever process answers from it dies of."""

    def __init__(self) -> None:
        self.name = "fatal"

    def __getstate__(self) -> dict[str, object]:
        return {}

    def __setstate__(self, state: object) -> None:
        pass

    def classify(self, *_: object) -> list[tuple[ClassScore, ...]]:
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError


async def test_what_processes_die_of_is_not_asked_for_ever(provider: Local) -> None:
    provider._answering._classifier = _Fatal()  # type: ignore[attr-defined]
    provider._answering._pool = provider._answering._started()  # type: ignore[attr-defined]
    with pytest.raises(Unavailable, match="ended twice from outside; is there enough memory"):
        await provider.classify([document()])


async def test_a_file_that_was_replaced_does_not_answer_under_the_name_of_the_one_before(
    provider: Local, model: Path, tmp_path: Path
) -> None:
    first = await provider.classify([document()])
    (model / "model.zip").rename(tmp_path / "model.zip")
    try:
        _child().kill()
        assert await provider.classify([document()]) == first
    finally:
        (tmp_path / "model.zip").rename(model / "model.zip")


async def test_ctrl_c_is_the_workers_to_act_on(provider: Local) -> None:
    await provider.classify([document()])
    child = _child()
    assert child.pid is not None
    os.kill(child.pid, signal.SIGINT)
    await provider.classify([document()])
    assert _child().pid == child.pid


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_none_outlives_the_worker_whatever_that_died_of(end: signal.Signals, model: Path) -> None:
    command = [sys.executable, "-c", _OWNER, str(model)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as owner:
        assert owner.stdout is not None
        watched = _watched(int(owner.stdout.readline()))
        owner.send_signal(end)
        assert _ended(watched)
