"""What the embedded model is worth on public data, goal beside figure: `make bench-model` (ARGS='banking77 cost').

Everything is learnt from training rows alone and measured on the official test rows.
"""

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from time import process_time
from typing import Literal, NamedTuple

import numpy as np
from rich.table import Table

from service import console
from service.model import archive
from service.model.category import learn_category
from service.model.classifier import Classifier, Task
from service.model.evaluate import Evaluation, evaluate
from service.model.examples import Example
from service.model.train import Trained, train
from tests.model.public import CATEGORIES, languages, of_language, rows

_POSITIVES = 50
_DRAW = 1
_MEMORY = r"""
import re, sys
from pathlib import Path
from service.model.classifier import Classifier
classifier = Classifier.load(Path(sys.argv[1]))
texts = Path(sys.argv[2]).read_text("utf-8").splitlines()
for first in range(0, len(texts), 25):
    classifier.classify(texts[first : first + 25])
print(re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())[1])
"""


class Goal(NamedTuple):
    """A figure of a set, and what it is to be: at least, or at most."""

    of: str
    figure: str
    sense: Literal["≥", "≤"]
    goal: float

    def met(self, measured: float) -> bool:
        return measured >= self.goal if self.sense == "≥" else measured <= self.goal


GOALS = (
    Goal("banking77", "accuracy", "≥", 0.914),
    Goal("banking77", "calibration error", "≤", 0.02),
    Goal("clinc150", "accuracy in scope", "≥", 0.914),
    Goal("clinc150", "AUROC out of scope", "≥", 0.95),
    Goal("davidson", "macro-F1", "≥", 0.73),
    Goal("davidson", "calibration error", "≤", 0.015),
    Goal("goemotions", "micro-F1", "≥", 0.553),
    Goal("goemotions", "macro-F1", "≥", 0.430),
    Goal("nlupp", "micro-F1", "≥", 0.89),
    Goal("sib200", "accuracy, mean of 13 languages", "≥", 0.73),
    Goal("sib200", "accuracy in Chinese", "≥", 0.80),
    Goal("cost", "CPU µs a text, 1 at a time", "≤", 100),
    Goal("cost", "CPU µs a text, 25 at a time", "≤", 90),
    Goal("cost", "MB of the model", "≤", 1.5),
    Goal("cost", "MB of memory to serve", "≤", 60),
    Goal("cost", "CPU s to train", "≤", 15),
)

Figures = dict[str, float]


def banking77() -> Figures:
    """77 kinds of questions to a bank (Casanueva et al. 2020)."""
    found = _measured("banking77", "single_label")
    return {"accuracy": found.accuracy, "calibration error": _calibration_error(found)}


def clinc150() -> Figures:
    """150 intents, and queries of none of them, of which training has seen none (Larson et al. 2019)."""
    classifier = _trained(rows("clinc150_small", "train"), "single_label").classifier
    test = rows("clinc150_small", "test")
    margins = classifier.margins([row.text for row in test]).max(axis=1)
    within = np.array([bool(row.labels) for row in test])
    return {
        "accuracy in scope": evaluate(classifier, test).accuracy,
        "AUROC out of scope": float(np.mean(margins[within][:, None] > margins[~within])),
    }


def davidson() -> Figures:
    """Hate, offence and neither (Davidson et al. 2017)."""
    found = _measured("davidson", "single_label")
    return {"macro-F1": found.f1_macro, "calibration error": _calibration_error(found)}


def goemotions() -> Figures:
    """28 emotions, several at once (Demszky et al. 2020)."""
    found = _measured("goemotions_subset", "multi_label")
    return {"micro-F1": found.f1_micro, "macro-F1": found.f1_macro}


def nlupp() -> Figures:
    """48 intents, several at once (Casanueva et al. 2022)."""
    return {"micro-F1": _measured("nlupp_banking", "multi_label").f1_micro}


def sib200() -> Figures:
    """Topics of sentences in 13 languages, a model for each (Adelani et al. 2023)."""
    found = {}
    for language in languages():
        classifier = _trained(of_language(language, "train"), "single_label").classifier
        found[language] = evaluate(classifier, of_language(language, "test")).accuracy
    return {
        "accuracy, mean of 13 languages": float(np.mean(list(found.values()))),
        "accuracy in Chinese": found["zho_Hans"],
    }


def categories() -> Figures:
    """Six categories, each of 50 positives: with no negatives, and with 500."""
    return {
        f"mean F1, {negatives} negatives": float(np.mean([category_f1(name, negatives) for name in CATEGORIES]))
        for negatives in (0, 50, 500)
    }


def category_f1(name: str, negatives: int) -> float:
    """What a public category of 50 positives is worth on its test rows."""
    draw = np.random.default_rng(_DRAW)
    (positives, others), (true, false) = (CATEGORIES[name].rows(split) for split in ("train", "test"))
    given = [sorted(set(texts) - set(without)) for texts, without in ((positives, ()), (others, positives))]
    chosen = [
        [texts[n] for n in draw.permutation(len(texts))[:most]]
        for texts, most in zip(given, (_POSITIVES, negatives), strict=True)
    ]
    answers = learn_category("it", *chosen).classifier.scores([*true, *false])[:, 0] >= 0.5
    return float(2 * answers[: len(true)].sum() / (answers.sum() + len(true)))


def cost() -> Figures:
    """What the model of Banking77 costs."""
    began = process_time()
    trained = _trained(rows("banking77", "train"), "single_label")
    seconds = process_time() - began
    texts = [row.text for row in rows("banking77", "test")]
    return {
        "CPU µs a text, 1 at a time": _microseconds(trained.classifier, texts, 1),
        "CPU µs a text, 25 at a time": _microseconds(trained.classifier, texts, 25),
        "MB of the model": len(archive.pack(trained.content)) / 1e6,
        "MB of memory to serve": _megabytes(trained, texts),
        "CPU s to train": seconds,
    }


SETS: dict[str, Callable[[], Figures]] = {
    each.__name__: each for each in (banking77, clinc150, davidson, goemotions, nlupp, sib200, categories, cost)
}


def _trained(learnt_from: Sequence[Example], task: Task) -> Trained:
    return train(learnt_from, task=task, name="measured")


def _measured(name: str, task: Task) -> Evaluation:
    return evaluate(_trained(rows(name, "train"), task).classifier, rows(name, "test"))


def _calibration_error(found: Evaluation) -> float:
    assert found.ece is not None
    return found.ece


def _microseconds(classifier: Classifier, texts: Sequence[str], batch: int) -> float:
    """The CPU time of a text, the best of five rounds."""

    def round_of_all() -> float:
        began = process_time()
        for first in range(0, len(texts), batch):
            classifier.classify(texts[first : first + batch])
        return process_time() - began

    return min(round_of_all() for _ in range(5)) / len(texts) * 1e6


def _megabytes(trained: Trained, texts: Sequence[str]) -> float:
    """The most memory that a process takes to load the model and answer."""
    with tempfile.TemporaryDirectory() as folder:
        model, file = trained.save(Path(folder)), Path(folder) / "texts.txt"
        file.write_text("\n".join(texts), "utf-8")
        command = [sys.executable, "-c", _MEMORY, str(model), str(file)]
        said = subprocess.run(command, check=True, capture_output=True, text=True)
    return int(said.stdout) * 1024 / 1e6


def _lines(of: str, figures: Figures) -> Iterator[tuple[str, ...]]:
    goals = {goal.figure: goal for goal in GOALS if goal.of == of}
    for name, measured in figures.items():
        told = f"{measured:.3f}" if measured < 1 else f"{measured:.3g}"
        goal = goals.get(name)
        if goal is None:
            yield of, name, "", told, ""
        else:
            verdict = "[green]met[/]" if goal.met(measured) else "[red]missed[/]"
            yield of, name, f"{goal.sense} {goal.goal:g}", told, verdict


def main() -> None:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("sets", nargs="*", metavar="SET", help=f"of {', '.join(SETS)}; by default all")
    chosen = parser.parse_args().sets or list(SETS)
    if strange := [name for name in chosen if name not in SETS]:
        parser.error(f"there is no {strange[0]}; there is {', '.join(SETS)}")
    table = Table(title="The embedded model on official test rows", title_justify="left")
    for column in ("set", "figure", "goal", "measured", ""):
        table.add_column(column, no_wrap=True)
    for name in chosen:
        console.err().print(f"{name} …")
        for line in _lines(name, SETS[name]()):
            table.add_row(*line)
    console.out().print(table)


if __name__ == "__main__":
    main()
