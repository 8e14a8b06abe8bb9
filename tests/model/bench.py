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
from rich.console import Console
from rich.table import Table

from service import console
from service.model import archive, embeddings
from service.model.category import learn_category
from service.model.classifier import Classifier, Task
from service.model.embeddings import Encoder
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
    """A figure of a set, and what it is to be, at least or at most: of the core, and with the extra `embeddings`."""

    of: str
    figure: str
    sense: Literal["≥", "≤"]
    core: float | None
    extra: float | None

    def told(self, goal: float | None) -> str:
        return "" if goal is None else f"{self.sense} {goal:g}"

    def verdict(self, goal: float | None, measured: float) -> str:
        if goal is None:
            return ""
        met = measured >= goal if self.sense == "≥" else measured <= goal
        return "[green]met[/]" if met else "[red]missed[/]"


GOALS = (
    Goal("banking77", "accuracy", "≥", 0.914, 0.942),
    Goal("banking77", "calibration error", "≤", 0.02, 0.02),
    Goal("clinc150", "accuracy in scope", "≥", 0.914, 0.952),
    Goal("clinc150", "AUROC out of scope", "≥", 0.95, 0.965),
    Goal("davidson", "macro-F1", "≥", 0.73, 0.73),
    Goal("davidson", "calibration error", "≤", 0.015, 0.015),
    Goal("goemotions", "micro-F1", "≥", 0.553, 0.563),
    Goal("goemotions", "macro-F1", "≥", 0.430, 0.442),
    Goal("nlupp", "micro-F1", "≥", 0.89, 0.913),
    Goal("sib200", "accuracy, mean of 13 languages", "≥", 0.73, 0.75),
    Goal("sib200", "accuracy in Chinese", "≥", 0.80, 0.81),
    Goal("categories", "mean F1, 0 negatives", "≥", None, 0.78),
    Goal("categories", "mean F1, 500 negatives", "≥", None, 0.89),
    Goal("cost", "CPU µs a text, 1 at a time", "≤", 100, None),
    Goal("cost", "CPU µs a text, 25 at a time", "≤", 90, None),
    Goal("cost", "MB of the model", "≤", 1.5, None),
    Goal("cost", "MB of memory to serve", "≤", 60, None),
    Goal("cost", "CPU s to train", "≤", 15, None),
)

Figures = dict[str, float]


def banking77(encoder: Encoder | None) -> Figures:
    """77 kinds of questions to a bank (Casanueva et al. 2020)."""
    found = _measured("banking77", "single_label", encoder)
    return {"accuracy": found.accuracy, "calibration error": _calibration_error(found)}


def clinc150(encoder: Encoder | None) -> Figures:
    """150 intents, and queries of none of them, of which training has seen none (Larson et al. 2019)."""
    classifier = _trained(rows("clinc150_small", "train"), "single_label", encoder).classifier
    test = rows("clinc150_small", "test")
    margins = classifier.margins([row.text for row in test]).max(axis=1)
    within = np.array([bool(row.labels) for row in test])
    return {
        "accuracy in scope": evaluate(classifier, test).accuracy,
        "AUROC out of scope": float(np.mean(margins[within][:, None] > margins[~within])),
    }


def davidson(encoder: Encoder | None) -> Figures:
    """Hate, offence and neither (Davidson et al. 2017)."""
    found = _measured("davidson", "single_label", encoder)
    return {"macro-F1": found.f1_macro, "calibration error": _calibration_error(found)}


def goemotions(encoder: Encoder | None) -> Figures:
    """28 emotions, several at once (Demszky et al. 2020)."""
    found = _measured("goemotions_subset", "multi_label", encoder)
    return {"micro-F1": found.f1_micro, "macro-F1": found.f1_macro}


def nlupp(encoder: Encoder | None) -> Figures:
    """48 intents, several at once (Casanueva et al. 2022)."""
    return {"micro-F1": _measured("nlupp_banking", "multi_label", encoder).f1_micro}


def sib200(encoder: Encoder | None) -> Figures:
    """Topics of sentences in 13 languages, a model for each (Adelani et al. 2023)."""
    found = {}
    for language in languages():
        classifier = _trained(of_language(language, "train"), "single_label", encoder).classifier
        found[language] = evaluate(classifier, of_language(language, "test")).accuracy
    return {
        "accuracy, mean of 13 languages": float(np.mean(list(found.values()))),
        "accuracy in Chinese": found["zho_Hans"],
    }


def categories(encoder: Encoder | None) -> Figures:
    """Six categories, each of 50 positives: with no negatives, and with 500."""
    return {
        f"mean F1, {negatives} negatives": float(
            np.mean([category_f1(name, negatives, encoder) for name in CATEGORIES])
        )
        for negatives in (0, 50, 500)
    }


def category_f1(name: str, negatives: int, encoder: Encoder | None = None) -> float:
    """What a public category of 50 positives is worth on its test rows."""
    return f1_of(CATEGORIES[name].rows("train"), CATEGORIES[name].rows("test"), negatives, encoder)


def f1_of(
    learnt: tuple[list[str], list[str]], measured: tuple[list[str], list[str]], negatives: int, encoder: Encoder | None
) -> float:
    """What a category is worth: 50 positives and some negatives are drawn from the former, and the latter are asked."""
    draw = np.random.default_rng(_DRAW)
    (positives, others), (true, false) = learnt, measured
    given = [sorted(set(texts) - set(without)) for texts, without in ((positives, ()), (others, positives))]
    chosen = [
        [texts[n] for n in draw.permutation(len(texts))[:most]]
        for texts, most in zip(given, (_POSITIVES, negatives), strict=True)
    ]
    answers = learn_category("it", *chosen, encoder=encoder).classifier.scores([*true, *false])[:, 0] >= 0.5
    return float(2 * answers[: len(true)].sum() / (answers.sum() + len(true)))


def cost(encoder: Encoder | None) -> Figures:
    """What the model of Banking77 costs."""
    began = process_time()
    trained = _trained(rows("banking77", "train"), "single_label", encoder)
    seconds = process_time() - began
    texts = [row.text for row in rows("banking77", "test")]
    return {
        "CPU µs a text, 1 at a time": _microseconds(trained.classifier, texts, 1),
        "CPU µs a text, 25 at a time": _microseconds(trained.classifier, texts, 25),
        "MB of the model": len(archive.pack(trained.content)) / 1e6,
        "MB of memory to serve": _megabytes(trained, texts),
        "CPU s to train": seconds,
    }


SETS: dict[str, Callable[[Encoder | None], Figures]] = {
    each.__name__: each for each in (banking77, clinc150, davidson, goemotions, nlupp, sib200, categories, cost)
}


def _trained(learnt_from: Sequence[Example], task: Task, encoder: Encoder | None) -> Trained:
    return train(learnt_from, task=task, name="measured", encoder=encoder)


def _measured(name: str, task: Task, encoder: Encoder | None) -> Evaluation:
    return evaluate(_trained(rows(name, "train"), task, encoder).classifier, rows(name, "test"))


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


def _lines(of: str, core: Figures | None, extra: Figures | None) -> Iterator[tuple[str, ...]]:
    goals = {goal.figure: goal for goal in GOALS if goal.of == of}
    for name in core or extra or ():
        goal = goals.get(name, Goal(of, name, "≥", None, None))
        line = [of, name]
        for figures, wanted in ((core, goal.core), (extra, goal.extra)):
            if figures is None:
                line += [goal.told(wanted), "–", ""]
            else:
                measured = figures[name]
                told = f"{measured:.3f}" if measured < 1 else f"{measured:.3g}"
                line += [goal.told(wanted), told, goal.verdict(wanted, measured)]
        yield tuple(line)


def main() -> None:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("sets", nargs="*", metavar="SET", help=f"of {', '.join(SETS)}; by default all")
    parser.add_argument("--only", choices=["core", "extra"], help="measure without the extra `embeddings`, or with it")
    asked = parser.parse_args()
    chosen = asked.sets or list(SETS)
    if strange := [name for name in chosen if name not in SETS]:
        parser.error(f"there is no {strange[0]}; there is {', '.join(SETS)}")
    encoder = None if asked.only == "core" else embeddings.installed()
    if encoder is None and asked.only != "core":
        console.err().print("the extra `embeddings` is not installed: `labelstream models embeddings`")
    table = Table(title="The embedded model on official test rows", title_justify="left")
    for column in ("set", "figure", "goal", "core", "", "goal", "with the extra", ""):
        table.add_column(column, no_wrap=True)
    for name in chosen:
        core = extra = None
        if asked.only != "extra":
            core = SETS[name](None)
        if encoder is not None:
            extra = SETS[name](encoder)
        for line in _lines(name, core, extra):
            console.err().print(*line)
            table.add_row(*line)
    Console(width=120).print(table)


if __name__ == "__main__":
    main()
