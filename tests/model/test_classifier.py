import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.model.classifier import Calibration, Classifier
from service.model.train import Trained
from tests.model.conftest import single_label_rows

ANY_TEXT = st.text(st.characters(codec=None, exclude_categories=()), max_size=200)
STRANGE = [
    "",
    " \n\t\r",
    "\x00",
    "a\x00b",
    "\ud83d",
    "\udc00 the invoice \ud800",
    "👩‍👩‍👧‍👦🏳️‍🌈",
    "发票错了",
    "ฉันถูกเรียกเก็บเงินสองครั้ง",
    "İSTANBUL ß ﬀ",
    "e\u0301" * 500,
    "\u202ethgir ot tfel",
    "\ufeff\uffff\U0010ffff",
    "x" * 100_000,
    "the invoice is wrong " * 5_000,
    "款" * 100_000,
]


def test_the_best_class_comes_first_and_no_more_than_asked_for(single_label: Trained) -> None:
    (answer,) = single_label.classifier.classify(["the courier lost my parcel"])
    assert answer[0].name == "delivery"
    assert {name for name, *_ in answer} == {"billing", "delivery", "login"}
    scores = [score for _, score, _ in answer if score is not None]
    assert scores == sorted(scores, reverse=True)
    assert sum(scores) == pytest.approx(1)
    assert single_label.classifier.classify(["the courier lost my parcel"], top=1) == [answer[:1]]


def test_multi_label_classes_are_those_from_the_threshold_on_or_none(multi_label: Trained) -> None:
    classifier = multi_label.classifier
    texts = ["I was charged twice and the parcel is late", "good evening to you", "parcel password", "charged account"]
    several, none, *doubtful = classifier.classify(texts)
    assert {name for name, *_ in several} == {"billing", "delivery"}
    assert none == ()
    for answer, scores in zip([several, none, *doubtful], classifier.scores(texts), strict=True):
        assert [score for _, score, _ in answer] == sorted(scores[scores >= classifier.threshold], reverse=True)
    assert [[name for name, *_ in answer] for answer in doubtful] == [["login"], ["login", "billing"]]


def test_no_texts_have_no_answers(single_label: Trained, multi_label: Trained) -> None:
    assert single_label.classifier.classify([]) == multi_label.classifier.classify([]) == []
    assert single_label.classifier.scores([]).shape == (0, 3)


@given(texts=st.lists(ANY_TEXT, min_size=1, max_size=4))
def test_any_text_has_probabilities(texts: list[str], single_label: Trained, multi_label: Trained) -> None:
    for trained in (single_label, multi_label):
        scores = trained.classifier.scores(texts)
        assert scores.shape == (len(texts), 3)
        assert ((scores >= 0) & (scores <= 1)).all()
    assert single_label.classifier.scores(texts).sum(axis=1) == pytest.approx(np.ones(len(texts)))


@pytest.mark.parametrize("text", STRANGE, ids=lambda text: ascii(text[:12]))
def test_no_text_is_too_strange_or_too_long(text: str, single_label: Trained, multi_label: Trained) -> None:
    for trained in (single_label, multi_label):
        (scores,) = trained.classifier.scores([text])
        assert ((scores >= 0) & (scores <= 1)).all()
        assert len(trained.classifier.classify([text])) == 1


def test_a_texts_scores_do_not_depend_on_its_neighbours(single_label: Trained) -> None:
    texts = [row.text for row in single_label_rows()] + STRANGE[:12]
    together = single_label.classifier.scores(texts)
    alone = np.vstack([single_label.classifier.scores([text]) for text in texts])
    assert np.array_equal(together, alone)


def test_threads_may_share_a_classifier(single_label: Trained) -> None:
    classifier = single_label.classifier
    texts = [row.text for row in single_label_rows()]
    expected = classifier.classify(texts)
    start = threading.Barrier(8)

    def classify(turn: int) -> bool:
        start.wait()
        rotated = texts[turn:] + texts[:turn]
        return all(classifier.classify(rotated) == expected[turn:] + expected[:turn] for _ in range(5))

    with ThreadPoolExecutor(8) as threads:
        assert all(threads.map(classify, range(8)))


def test_a_loaded_model_is_the_one_that_was_saved(tmp_path: Path, multi_label: Trained) -> None:
    file = multi_label.save(tmp_path / "new" / "folder")
    saved = multi_label.classifier
    for path in (file, file.parent):
        loaded = Classifier.load(path)
        assert (loaded.name, loaded.task, loaded.labels) == ("aspects", "multi_label", ("billing", "delivery", "login"))
        assert (loaded.threshold, loaded.calibration) == (saved.threshold, saved.calibration)
        assert loaded.digest == saved.digest
        assert len(loaded.digest) == 12
        assert np.array_equal(loaded.scores(STRANGE), saved.scores(STRANGE))


def test_a_classifier_shows_what_it_is(single_label: Trained) -> None:
    classifier = single_label.classifier
    assert repr(classifier) == f"<Classifier 'tickets' single_label 3 labels {classifier.digest}>"


def test_serving_a_model_takes_numpy_alone(tmp_path: Path, single_label: Trained) -> None:
    script = (
        "import sys; from pathlib import Path; from service.model.classifier import Classifier;"
        f"classifier = Classifier.load(Path({str(single_label.save(tmp_path))!r}));"
        "print(classifier.classify(['the parcel is late'])[0][0].name);"
        "print(sorted({name.partition('.')[0] for name in sys.modules} & {'sklearn', 'scipy', 'joblib', 'pydantic'}))"
    )
    printed = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True).stdout
    assert printed.split("\n") == ["delivery", "[]", ""]


def test_without_curvature_probabilities_are_softmax_and_logistic() -> None:
    margins = np.array([[1.0, 0.0, -1.0]])
    assert Calibration(2, 0, 0).single(margins)[0] == pytest.approx(np.exp([2, 0, -2]) / np.exp([2, 0, -2]).sum())
    assert Calibration(1, 0, 0).multi(margins)[0] == pytest.approx([0.731059, 0.5, 0.268941], abs=1e-6)


def test_the_floor_is_shared_by_all_classes() -> None:
    assert Calibration(1, 0, 0.3).single(np.array([[100.0, 0.0, 0.0]]))[0] == pytest.approx([0.8, 0.1, 0.1])


@given(
    margins=st.lists(st.floats(-1e9, 1e9), min_size=2, max_size=5),
    temperature=st.floats(1e-6, 1e6),
    curvature=st.one_of(st.floats(0, 100), st.just(5e-324)),
    floor=st.floats(0, 1),
)
def test_calibration_keeps_the_order_of_margins_and_never_overflows(
    margins: list[float], temperature: float, curvature: float, floor: float
) -> None:
    row = np.array([margins])
    calibration = Calibration(temperature, curvature, floor)
    for (scores,) in (calibration.single(row), calibration.multi(row)):
        assert ((scores >= 0) & (scores <= 1)).all()
        assert (np.diff(scores[np.argsort(margins)]) >= -1e-12).all()
    assert calibration.single(row).sum() == pytest.approx(1)


def test_a_smaller_curvature_approaches_none() -> None:
    margins = np.array([[1.0, 0.3, -2.0]])
    assert Calibration(3, 1e-5, 0).single(margins) == pytest.approx(Calibration(3, 0, 0).single(margins), abs=1e-3)
