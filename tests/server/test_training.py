import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from service.model.examples import Example, ExamplesError
from service.server.jobs import Interrupted
from service.server.models import Models
from service.server.training import GivenUp, Trainer, TrainingFailed, learn, learn_category
from tests.server.conftest import BILLING, DRUGS, SINGLE


def end_oneself() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_model_is_learnt_measured_and_kept(trainer: Trainer, tmp_path: Path) -> None:
    tests = [Example("t", "the invoice charged me twice", ("billing",))]
    learnt = trainer.run(learn, tmp_path, SINGLE, tests, "single_label", "tickets")
    assert learnt.labels == ("account", "billing", "crash")
    assert (learnt.documents, learnt.evaluation.documents) == (len(SINGLE), 1)
    (classes,) = Models(tmp_path).get(learnt.digest).classify([BILLING])
    assert classes[0].name == "billing"


def test_without_test_rows_a_model_is_worth_its_own_estimate(trainer: Trainer, tmp_path: Path) -> None:
    learnt = trainer.run(learn, tmp_path, SINGLE, [], "single_label", "tickets")
    assert learnt.evaluation.documents == len(SINGLE)


def test_too_little_to_learn_from_is_told_as_such(trainer: Trainer, tmp_path: Path) -> None:
    with pytest.raises(ExamplesError):
        trainer.run(learn, tmp_path, SINGLE[:2], [], "single_label", "tickets")


def test_a_category_is_learnt_and_kept(trainer: Trainer, tmp_path: Path) -> None:
    learnt = trainer.run(learn_category, tmp_path, "drugs", DRUGS, [])
    assert Models(tmp_path).get(learnt.digest).labels == ("drugs",)
    assert (learnt.ranking > 0.9, len(learnt.warnings)) == (True, 1)
    (tmp_path / "file").touch()
    with pytest.raises(TrainingFailed, match="cannot be written"):
        trainer.run(learn_category, tmp_path / "file", "drugs", DRUGS, [])


def test_a_process_that_dies_fails_its_training_and_not_the_next() -> None:
    with Trainer() as trainer:
        with pytest.raises(TrainingFailed, match="ended from outside"):
            trainer.run(end_oneself)
        assert trainer.run(os.getpid) != os.getpid()
    with pytest.raises(Interrupted):
        trainer.run(os.getpid)


def test_what_is_being_learnt_when_the_context_ends_is_interrupted_and_soon() -> None:
    with ThreadPoolExecutor() as threads, Trainer() as trainer:
        assert trainer.run(os.getpid) != os.getpid()
        under_way = threads.submit(trainer.run, time.sleep, 60.0)
        while not under_way.running():
            time.sleep(0.001)
        trainer.__exit__(None, None, None)
        with pytest.raises(Interrupted):
            under_way.result(10)


def begin(file: Path) -> None:
    file.touch()
    time.sleep(60)


def test_what_is_given_up_ends_soon_and_the_next_is_learnt(tmp_path: Path) -> None:
    given_up = threading.Event()
    with ThreadPoolExecutor() as threads, Trainer() as trainer:
        first = trainer.run(os.getpid)
        under_way = threads.submit(trainer.run_until, given_up.is_set, begin, tmp_path / "begun")
        while not (tmp_path / "begun").exists():
            time.sleep(0.001)
        given_up.set()
        with pytest.raises(GivenUp):
            under_way.result(10)
        with pytest.raises(ProcessLookupError):
            os.kill(first, 0)
        assert trainer.run(os.getpid) != first
        with pytest.raises(GivenUp):
            trainer.run_until(lambda: True, os.getpid)
        assert not trainer.is_closed
    assert trainer.is_closed


def test_the_process_that_learns_does_not_outlive_the_server() -> None:
    server = "import os; from service.server.training import Trainer; Trainer().run(os.getpid); os.kill(os.getpid(), 9)"
    with subprocess.Popen([sys.executable, "-c", server], stdout=subprocess.PIPE) as running:
        running.communicate(timeout=30)  # which ends when both have let go of where they write to
        assert running.returncode == -signal.SIGKILL
