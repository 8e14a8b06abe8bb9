import csv
import sys
from pathlib import Path

import numpy as np
import pytest

from service.errors import Misconfigured
from service.model import report
from service.model.evaluate import Answers, ask, measure
from service.model.train import Trained
from tests.model.conftest import multi_label_rows, single_label_rows


def single(labels: int = 3) -> Answers:
    """Every label has two documents; of each label, the second is taken for the next one."""
    names = tuple(f"class {number:02}" for number in range(labels))
    truth = [(name,) for name in names for _ in range(2)]
    scores = np.full((2 * labels, labels), 0.1 / labels)
    for number in range(2 * labels):
        scores[number, (number // 2 + number % 2) % labels] += 0.9 - number / 1_000
    return Answers("single_label", names, 0.0, [f"T-{n}" for n in range(2 * labels)], truth, scores, 0.1, 0)


def files(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir()}


@pytest.mark.parametrize("task", ["single_label", "multi_label"])
def test_the_same_answers_are_the_same_bytes(
    task: str, single_label: Trained, multi_label: Trained, tmp_path: Path
) -> None:
    trained, rows = (single_label, single_label_rows()) if task == "single_label" else (multi_label, multi_label_rows())
    for folder in ("one", "other"):
        answers = ask(trained.classifier, rows)
        report.write(tmp_path / folder, "tickets", answers, measure(answers))
    assert files(tmp_path / "one") == files(tmp_path / "other")
    pictures = {"precision_recall.png", "reliability.png", *(["confusion.png"] if task == "single_label" else [])}
    assert {name for name in files(tmp_path / "one") if name.endswith(".png")} == pictures


def test_the_machines_own_settings_for_pictures_change_nothing(tmp_path: Path) -> None:
    import matplotlib as mpl  # noqa: PLC0415

    answers = single()
    report.write(tmp_path / "one", "tickets", answers, measure(answers))
    with mpl.rc_context({"font.size": 30, "savefig.dpi": 20, "axes.facecolor": "red"}):
        report.write(tmp_path / "other", "tickets", answers, measure(answers))
    assert files(tmp_path / "one") == files(tmp_path / "other")


def test_of_many_classes_the_most_confused_are_drawn_and_the_table_has_all(tmp_path: Path) -> None:
    answers = single(40)
    worth = measure(answers)
    report.write(tmp_path, "tickets", answers, worth)
    assert len(report.most_confused(worth)) == 25
    table = list(csv.reader((tmp_path / "confusion.csv").read_text("utf-8").splitlines()))
    assert len(table) == 41
    assert (table[1][0], table[1][1:3]) == ("class 00", ["1", "1"])
    assert "Of 40 classes the 25 most confused" in (tmp_path / "index.html").read_text("utf-8")


def test_texts_are_told_only_where_they_are_asked_for_and_hold_no_markup(tmp_path: Path) -> None:
    answers, texts = single(), [f"<script>secret {number}</script>" for number in range(6)]
    page = report.write(tmp_path, "tickets", answers, measure(answers)).read_text("utf-8")
    assert "secret" not in page
    assert page.index("T-1<") < page.index("T-3<") < page.index("T-5<"), "the surest first"
    page = report.write(tmp_path, "tickets", answers, measure(answers), texts=texts).read_text("utf-8")
    assert "&lt;script&gt;secret 1&lt;/script&gt;" in page
    assert "secret 0" not in page, "it was answered rightly"
    assert not [name for name, content in files(tmp_path).items() if b"secret" in content and name != "index.html"]


def test_names_of_any_kind_are_drawn_and_no_spreadsheet_runs_them(tmp_path: Path) -> None:
    answers = single()._replace(labels=("=1+1", "$x_{$", "退款"))
    answers = answers._replace(truth=[(answers.labels[number // 2],) for number in range(6)])
    report.write(tmp_path, "tickets", answers, measure(answers))
    assert "'=1+1" in (tmp_path / "classes.csv").read_text("utf-8")


def test_precision_and_recall_step_where_equal_scores_are_answered_together() -> None:
    scores, true = np.array([0.9, 0.5, 0.5, 0.1]), np.array([True, True, False, False])
    precision, recall, area = report.precision_recall(scores, true)
    assert precision.tolist() == [1, 1, pytest.approx(2 / 3), 0.5]
    assert recall.tolist() == [0, 0.5, 1, 1]
    assert area == pytest.approx(0.5 + 0.5 * 2 / 3)


def test_without_matplotlib_the_way_to_it_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    answers = single()
    with pytest.raises(Misconfigured, match=r"pip install 'labelstream\[report\]'"):
        report.write(tmp_path, "tickets", answers, measure(answers))


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    answers = single()
    with pytest.raises(Misconfigured, match=r"--report .*file: cannot be written"):
        report.write(tmp_path / "file", "tickets", answers, measure(answers))
