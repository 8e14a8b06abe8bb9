import os
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from service.model.examples import Example, ExamplesError
from service.server.jobs import Interrupted
from service.server.models import Models
from service.server.training import Trainer, TrainingFailed, learn, learn_category
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
