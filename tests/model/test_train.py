import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from scipy.sparse import csr_matrix
from threadpoolctl import threadpool_info, threadpool_limits  # type: ignore[import-untyped]

from service.model import archive
from service.model.classifier import Classifier, Task
from service.model.evaluate import evaluate
from service.model.examples import Example, ExamplesError, hold_out
from service.model.train import FEWEST_ROWS, Trained, _Head, _learn_each, _learn_exclusive, fit_machine, folds_of, train
from tests.model.conftest import multi_label_rows, single_label_rows


def rows(*labels: str) -> list[Example]:
    """A row for each label, in which the label is the first word."""
    return [Example(str(n), f"{label} text number {n}", (label,)) for n, label in enumerate(labels)]


@pytest.mark.parametrize(
    ("task", "examples"), [("single_label", single_label_rows()), ("multi_label", multi_label_rows())]
)
def test_a_model_finds_the_classes_of_rows_it_has_not_seen(task: Task, examples: list[Example]) -> None:
    learn, measure = hold_out(examples)
    trained = train(learn, task=task, name="tickets")
    found = evaluate(trained.classifier, measure)
    assert found.f1_micro > 0.9
    assert trained.estimate.f1_micro == pytest.approx(found.f1_micro, abs=0.1)
    assert trained.estimate.documents == trained.documents == len(learn)
    assert trained.warnings == ()


@pytest.mark.parametrize("task", ["single_label", "multi_label"])
def test_the_same_rows_in_any_order_make_the_same_bytes(
    task: Task, single_label: Trained, multi_label: Trained, tmp_path: Path
) -> None:
    before = single_label if task == "single_label" else multi_label
    examples = single_label_rows() if task == "single_label" else multi_label_rows()
    reordered = [row._replace(id=str(n)) for n, row in enumerate(sorted(examples, key=lambda row: row.text[::-1]))]
    after = train(reordered, task=task, name=before.classifier.name)
    assert before.save(tmp_path / "before").read_bytes() == after.save(tmp_path / "after").read_bytes()
    assert before.estimate == after.estimate


def test_another_process_makes_the_same_bytes(single_label: Trained) -> None:
    script = (
        "from service.model.train import train; from tests.model.conftest import single_label_rows;"
        "print(train(single_label_rows(), task='single_label', name='tickets').classifier.digest)"
    )
    for seed in ("1", "2"):
        environ = os.environ | {"PYTHONHASHSEED": seed, "OPENBLAS_NUM_THREADS": seed}
        done = subprocess.run(
            [sys.executable, "-c", script],
            env=environ,
            check=True,
            capture_output=True,
            text=True,
            cwd=Path(__file__).parents[2],
        )
        assert done.stdout.strip() == single_label.classifier.digest


def test_training_again_into_the_same_folder_replaces_the_model(tmp_path: Path, single_label: Trained) -> None:
    path = train(rows(*"aabb" * 5), task="single_label", name="first").save(tmp_path)
    assert Classifier.load(tmp_path).name == "first"
    assert single_label.save(tmp_path) == path
    assert Classifier.load(tmp_path).name == "tickets"
    assert list(tmp_path.iterdir()) == [path]


def test_a_model_says_where_it_comes_from_and_holds_no_whole_text(single_label: Trained) -> None:
    trained = single_label.classifier.trained
    assert trained["documents"] == 72
    assert {"data", "seed", "numpy", "scikit-learn"} < set(trained)
    texts = [row.text for row in single_label_rows()]
    assert not [text for text in texts if text.encode() in b"".join(single_label.content.values())]


def test_progress_rises_from_nothing_to_done() -> None:
    heard: list[tuple[float, str]] = []
    train(rows(*"ab" * 10), task="single_label", name="x", progress=lambda done, step: heard.append((done, step)))
    shares = [done for done, _ in heard]
    assert shares == sorted(shares)
    assert (shares[0], shares[-1]) == (0, 1)
    assert [step for _, step in heard] == [
        "reading the texts",
        *[f"learning without part {part} of 5" for part in range(1, 6)],
        "learning from all rows",
        "calibrating",
        "done",
    ]


def test_rows_of_no_class_are_left_out_of_single_label_training_and_counted() -> None:
    out_of_scope = [Example(f"none {n}", f"weather {n}", ()) for n in range(7)]
    trained = train(rows(*"ab" * 10) + out_of_scope, task="single_label", name="x")
    assert (trained.documents, trained.unlabelled) == (20, 7)
    assert trained.classifier.digest == train(rows(*"ab" * 10), task="single_label", name="x").classifier.digest


def test_a_text_that_nothing_fits_has_no_class_where_that_is_asked_for(single_label: Trained, tmp_path: Path) -> None:
    texts = ["I was charged twice on my phone", "what a lovely sunset over the hills of Umbria"]
    assert [len(classes) for classes in single_label.classifier.classify(texts)] == [3, 3]
    trained = train(single_label_rows(), task="single_label", name="tickets", none=0.05)
    loaded = Classifier.load(trained.save(tmp_path))
    assert loaded.least_margin is not None
    (billing, *_), nothing = loaded.classify(texts)
    assert (billing.name, nothing) == ("billing", ())
    assert np.array_equal(loaded.scores(texts), single_label.classifier.scores(texts))
    with pytest.raises(ExamplesError, match="gives no class where none applies, as it is"):
        train(multi_label_rows(), task="multi_label", name="aspects", none=0.05)


def test_rows_of_no_class_teach_a_multi_label_model_what_is_nothing(multi_label: Trained) -> None:
    assert multi_label.unlabelled == 0
    assert multi_label.classifier.classify(["good morning to you"]) == [()]


@pytest.mark.parametrize(
    ("task", "examples", "problem"),
    [
        ("single_label", [], "the 0 rows have 0 different labels, but a single-label model needs 2 or more"),
        ("single_label", rows(*"a" * 20), "the 20 rows have 1 different labels, but a single-label model"),
        ("multi_label", [Example("1", "text", ())] * 20, "the 20 rows have 0 different labels, but a multi-label"),
        ("single_label", rows(*"abababab", "a"), "9 labelled rows are too few to learn from: give 10 or more"),
        (
            "single_label",
            [*rows(*"ab" * 10), Example("T-7", "text", ("a", "b"))],
            "the row 'T-7' has 2 labels, but a single-label model gives one: leave one, or train a multi-label model",
        ),
        (
            "single_label",
            [row._replace(text="\ud83d") for row in rows(*"ab" * 10)],
            "the texts have nothing in common to learn from: check that they are texts",
        ),
    ],
)
def test_rows_that_make_no_task_are_an_error(task: Task, examples: list[Example], problem: str) -> None:
    with pytest.raises(ExamplesError) as caught:
        train(examples, task=task, name="x")
    assert str(caught.value).startswith(problem)


def test_a_class_of_one_row_is_learnt_with_a_warning() -> None:
    trained = train(rows(*"ab" * 10, "rare"), task="single_label", name="x")
    assert trained.classifier.classify(["rare text number 20"])[0][0].name == "rare"
    assert trained.warnings == ("1 of 3 labels have fewer than 5 rows (rare): their scores are guesses; add rows",)


def test_when_every_class_has_one_row_the_warning_names_the_first_few() -> None:
    trained = train(rows(*"abcdefghijkl"), task="single_label", name="x")
    assert trained.classifier.classify(["c text"], top=1)[0][0].name == "c"
    assert trained.warnings == (
        "12 of 12 labels have fewer than 5 rows (a, b, c, d, e and 7 more): their scores are guesses; add rows",
    )


def test_the_fewest_rows_are_enough_even_when_a_part_holds_all_of_a_class() -> None:
    trained = train(rows(*"a" * (FEWEST_ROWS - 1), "b"), task="single_label", name="x")
    assert trained.classifier.scores(["anything"]).sum() == pytest.approx(1)


def test_rows_of_one_text_make_a_model_of_their_frequencies() -> None:
    same = [row._replace(text="the same") for row in rows(*"aab" * 10)]
    trained = train(same, task="single_label", name="x")
    assert trained.classifier.classify(["the same"], top=1)[0][0].name == "a"
    assert trained.warnings == ("texts that occur with different labels: 1; decide for one set of labels each",)


def test_a_label_that_every_row_has_and_one_that_a_single_row_has_are_learnt() -> None:
    examples = [row._replace(labels=("always", *row.labels)) for row in rows(*"ab" * 10, "rare")]
    trained = train(examples, task="multi_label", name="x")
    (scores,) = trained.classifier.scores(["a text number 4"])
    assert dict(zip(trained.classifier.labels, scores > 0.5, strict=True)) == {
        "a": True,
        "always": True,
        "b": False,
        "rare": False,
    }


def test_a_multi_label_threshold_is_a_half_where_rows_are_too_few_to_fit_it(multi_label: Trained) -> None:
    assert multi_label.classifier.threshold == 0.5


def test_a_multi_label_threshold_is_fitted_where_there_are_many_rows() -> None:
    hints = {"a": "alpha", "b": "beta"}
    examples = [  # half of the rows with a hint have its label: it is worth giving below a half
        Example(str(n), f"{hints[label]} text {n}", (label,) if n % 20 < 9 else ())
        for n, label in enumerate("ab" * 600)
    ]
    trained = train(examples, task="multi_label", name="x")
    assert 0.2 < trained.classifier.threshold < 0.5
    assert trained.estimate.recall_micro > 0.9


def test_a_text_of_half_a_surrogate_pair_can_be_learnt_from(tmp_path: Path) -> None:
    odd = [row._replace(text=f"{row.text} \ud83d\ude00x \udc00") for row in rows(*"ab" * 10)]
    trained = train(odd, task="single_label", name="x")
    loaded = Classifier.load(trained.save(tmp_path))
    assert np.array_equal(loaded.scores([odd[0].text]), trained.classifier.scores([odd[0].text]))


def test_runs_too_long_to_be_words_are_not_kept() -> None:
    keyed = [row._replace(text=f"{row.text} {'k' * 150}") for row in rows(*"ab" * 10)]
    words = json.loads(train(keyed, task="single_label", name="x").content["words.json"])
    assert max(map(len, words)) <= 100


def test_many_classes_are_learnt() -> None:
    examples = [Example(str(n), f"word{n // 2} text {n % 2}", (f"class {n // 2:03}",)) for n in range(400)]
    trained = train(examples, task="single_label", name="x")
    assert len(trained.classifier.labels) == 200
    assert trained.classifier.classify(["word123"], top=1)[0][0].name == "class 123"


@pytest.mark.parametrize(("scale", "finished"), [(1, True), (1e5, False)])
def test_learning_that_does_not_come_to_its_end_says_so_and_warns_nobody_else(scale: float, finished: bool) -> None:
    values = np.sin(np.arange(400.0)).reshape(40, 10) * scale
    _, came_to_its_end = fit_machine(csr_matrix(values), np.arange(40) % 2, strictness=1)
    assert came_to_its_end is finished


def test_a_class_that_all_rows_or_none_have_applies_everywhere_or_nowhere() -> None:
    features = csr_matrix(np.ones((3, 2)))
    for learn in (_learn_exclusive, _learn_each):
        margins = learn(_Head(features, 1.0), np.array([[True, False]] * 3)).margins(features)
        assert margins.tolist() == [[1, -1]] * 3
    nothing_to_learn_from = _learn_exclusive(_Head(features[:0], 1.0), np.zeros((0, 2), np.bool_)).margins(features)
    assert nothing_to_learn_from.tolist() == [[-1, -1]] * 3


def test_labels_are_dealt_out_evenly_and_rows_of_one_text_stay_together() -> None:
    folds = folds_of(rows(*"a" * 10, *"b" * 5, "c"), 5)
    assert [np.bincount(folds[part], minlength=5).tolist() for part in (slice(10), slice(10, 15))] == [[2] * 5, [1] * 5]
    repeated = [Example(str(n), f"text {n % 7}", ("ab"[n % 2],)) for n in range(35)]
    parts = {(row.text, fold) for row, fold in zip(repeated, folds_of(repeated, 5).tolist(), strict=True)}
    assert len(parts) == 7


def test_training_takes_one_thread() -> None:
    threads: set[int] = set()

    def progress(_done: float, step: str) -> None:
        if step == "learning from all rows":
            threads.update(pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas")

    with threadpool_limits(limits=2):
        train(rows(*"ab" * 10), task="single_label", name="x", progress=progress)
    assert threads == {1}


def test_weights_are_packed_in_a_byte_each(single_label: Trained) -> None:
    content = single_label.content
    size = len(single_label.classifier.labels)
    grams = len(json.loads(content["words.json"])) + len(json.loads(content["characters.json"]))
    assert archive.array("weights.npy", content["weights.npy"], np.int8, (grams, size)).shape == (grams, size)
