"""What the model is worth on public data sets, by their own test splits: figures below these floors are regressions."""

from collections.abc import Callable
from functools import cache
from statistics import median
from time import process_time

import pytest

from service.model.classifier import Classifier, Task
from service.model.evaluate import Evaluation, evaluate
from service.model.examples import read, select
from service.model.train import train
from tests.model.public import DATA

pytestmark = pytest.mark.skipif(not DATA.is_dir(), reason=f"the public data sets are not there ({DATA})")

Measure = Callable[[str, Task], tuple[Classifier, Evaluation]]


@pytest.fixture(scope="session")
def measure(tmp_path_factory: pytest.TempPathFactory) -> Measure:
    """Train on a set's training rows, once a session, and measure the saved model on its test rows."""

    @cache
    def measured(name: str, task: Task) -> tuple[Classifier, Evaluation]:
        rows = read(DATA / f"{name}.jsonl")
        path = train(select(rows, "train"), task=task, name=name).save(tmp_path_factory.mktemp(name))
        assert path.stat().st_size < 5_000_000
        classifier = Classifier.load(path)
        return classifier, evaluate(classifier, select(rows, "test"))

    return measured


def test_banking77(measure: Measure) -> None:
    _, found = measure("banking77", "single_label")
    assert found.documents == 3_080
    assert found.accuracy >= 0.905
    assert found.f1_macro >= 0.905
    assert found.ece is not None
    assert found.ece <= 0.03


def test_clinc150_small_within_its_scope(measure: Measure) -> None:
    _, found = measure("clinc150_small", "single_label")
    assert (found.documents, found.unlabelled) == (4_500, 1_000)
    assert found.accuracy >= 0.905
    assert found.ece is not None
    assert found.ece <= 0.03


def test_nlupp_banking(measure: Measure) -> None:
    _, found = measure("nlupp_banking", "multi_label")
    assert found.documents == 404
    assert found.f1_micro >= 0.87
    assert found.f1_macro >= 0.87
    assert found.ece is not None
    assert found.ece <= 0.03


def test_sms_spam(measure: Measure) -> None:
    _, found = measure("sms_spam", "single_label")
    assert found.f1_macro >= 0.97
    assert found.ece is not None
    assert found.ece <= 0.03


def test_a_short_text_takes_less_than_a_millisecond(measure: Measure) -> None:
    classifier, _ = measure("banking77", "single_label")

    def seconds() -> float:
        started = process_time()
        classifier.classify(["I am still waiting on my card, when will it finally arrive?"])
        return process_time() - started

    assert median(seconds() for _ in range(200)) < 0.001
