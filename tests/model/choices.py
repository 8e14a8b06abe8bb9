"""How the embedded model's recipe was chosen: by cross-validation over training rows, never by a test row.

`python -m tests.model.choices` measures each recipe again, with `categories` those of a category that is learnt by
meaning. Grams are learnt anew in each fold, so that held-out rows have grams that nobody has heard, as documents have.
`ranking` is how often a row ranks above one of CLINC150's 100 development queries that are out of scope, by its largest
margin. What was chosen is in `train.py`, `features.py` and `category.py` of `service/model`.
"""

import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from itertools import chain, pairwise
from math import log, sqrt
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from rich.table import Table
from scipy.sparse import csr_matrix, hstack
from sklearn.svm import LinearSVC
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from service import console
from service.model import category, embeddings
from service.model.classifier import Task
from service.model.evaluate import Evaluation, compare, indicators
from service.model.examples import Example, in_fixed_order
from service.model.features import word_grams, words_of
from service.model.train import Floats, calibrate_each, calibrate_exclusive, folds_of, threshold_of
from tests.model.bench import f1_of
from tests.model.public import CATEGORIES, of_language, rows

Grams = Callable[[str], Iterable[str]]


def pairs(text: str) -> Iterator[str]:
    """Words and pairs of neighbours."""
    words = words_of(text)
    return chain(words, map(" ".join, pairwise(words)))


def gaps_in_any_script(text: str) -> Iterator[str]:
    """These, and pairs with one word between them."""
    words = words_of(text)
    return chain(pairs(text), map(" * ".join, zip(words, words[2:], strict=False)))


def runs(shortest: int, longest: int) -> Grams:
    """Runs of characters within words."""

    def grams(text: str) -> Iterator[str]:
        for part in text.lower().split():
            padded = f" {part} "
            for length in range(shortest, longest + 1):
                yield from (padded[at : at + length] for at in range(len(padded) - length + 1))

    return grams


class Recipe(NamedTuple):
    """What is varied; `unheard` is what a gram that training has not seen adds to a text's length, None: as chosen."""

    words: Grams = word_grams
    characters: Grams = runs(2, 4)
    fewest: int | None = None
    unheard: float | None = None
    words_weigh: float = 1.0
    strictness: float | None = None
    tolerance: float = 0.01


class Block:
    """One kind of grams, learnt from texts."""

    def __init__(self, grams: Grams, texts: list[str], recipe: Recipe, unheard: float) -> None:
        counts = Counter(chain.from_iterable(set(grams(text)) for text in texts))
        fewest = recipe.fewest or (2 if len(texts) >= 1_000 else 1)
        kept = sorted(gram for gram, count in counts.items() if count >= fewest)
        self._grams = grams
        self._column = {gram: column for column, gram in enumerate(kept)}
        self._rarity = np.array([log((1 + len(texts)) / (1 + counts[gram])) + 1 for gram in kept])
        self._unheard = unheard * (log((1 + len(texts)) / 2) + 1) ** 2

    def matrix(self, texts: Iterable[str]) -> csr_matrix:
        columns, weights = [], []
        for text in texts:
            counts = Counter(map(self._column.get, self._grams(text)))
            unheard = counts.pop(None, 0)
            found = np.fromiter(counts, np.intp, len(counts))
            weighed = (np.log(np.fromiter(counts.values(), float, len(counts))) + 1) * self._rarity[found]
            columns.append(found)
            weights.append(weighed / sqrt(weighed @ weighed + unheard * self._unheard or 1))
        starts = np.cumsum([0, *map(len, columns)])
        return csr_matrix((np.concatenate(weights), np.concatenate(columns), starts), (len(columns), len(self._column)))


def learnt(recipe: Recipe, texts: list[str], truth: NDArray[np.bool_], asked: list[str], task: Task) -> Floats:
    """The margins of the texts that are asked about."""
    chosen = 0.5 if task == "single_label" and len(texts) >= 1_000 else 0.0
    unheard = chosen if recipe.unheard is None else recipe.unheard
    words, characters = (Block(grams, texts, recipe, unheard) for grams in (recipe.words, recipe.characters))

    def features(of: list[str]) -> csr_matrix:
        return hstack([words.matrix(of) * recipe.words_weigh, characters.matrix(of)], format="csr")

    known, new = features(texts), features(asked)
    margins = np.full((len(asked), truth.shape[1]), -1.0)
    strictness = recipe.strictness or (1.0 if task == "single_label" else 0.3)

    def margin(answers: NDArray[np.generic]) -> Floats:
        machine = LinearSVC(C=strictness, dual=True, random_state=0, tol=recipe.tolerance)
        found: Floats = machine.fit(known, answers).decision_function(new)
        return found

    if task == "single_label":
        margins[:, np.unique(truth.argmax(axis=1))] = margin(truth.argmax(axis=1))
    else:
        for column in np.flatnonzero(truth.any(axis=0)):
            margins[:, column] = margin(truth[:, column])
    return margins


def cross_validated(recipe: Recipe, examples: list[Example], task: Task, parts: int) -> tuple[Evaluation, float]:
    """The measures of rows that each model has not seen, and the log loss."""
    of = in_fixed_order(row for row in examples if row.labels or task == "multi_label")
    labels = sorted({label for row in of for label in row.labels})
    truth = indicators([row.labels for row in of], labels)
    texts, folds = np.array([row.text for row in of], object), folds_of(of, parts)
    unseen = np.empty(truth.shape)
    for fold in range(parts):
        out = folds == fold
        unseen[out] = learnt(recipe, list(texts[~out]), truth[~out], list(texts[out]), task)
    calibrate = calibrate_exclusive if task == "single_label" else calibrate_each
    scores = calibrate(unseen, truth, len(of)).scores
    found = compare(
        task=task,
        labels=labels,
        threshold=0.0 if task == "single_label" else threshold_of(scores, truth),
        scores=scores,
        truth=[row.labels for row in of],
    )
    likelihood = scores[truth] if task == "single_label" else np.where(truth, scores, 1 - scores)
    return found, float(-np.log(likelihood + 1e-12).sum() / len(of))


def ranking(recipe: Recipe) -> float:
    """How well queries out of scope are told from others."""
    known, asked = [row for row in rows("clinc150_small", "train") if row.labels], rows("clinc150_small", "dev")
    labels = sorted({label for row in known for label in row.labels})
    truth = indicators([row.labels for row in known], labels)
    margins = learnt(recipe, [row.text for row in known], truth, [row.text for row in asked], "single_label")
    best, within = margins.max(axis=1), np.array([bool(row.labels) for row in asked])
    return float(np.mean(best[within][:, None] > best[~within]))


CHOSEN = Recipe()
RECIPES = {
    "chosen": CHOSEN,
    "no gaps": CHOSEN._replace(words=pairs),
    "gaps in any script": CHOSEN._replace(words=gaps_in_any_script),
    "unheard: none": CHOSEN._replace(unheard=0.0),
    "unheard: in all": CHOSEN._replace(unheard=0.5),
    "unheard: whole": CHOSEN._replace(unheard=1.0),
    "neither": CHOSEN._replace(words=pairs, unheard=0.0),
    "runs of 2 to 5": CHOSEN._replace(characters=runs(2, 5)),
    "runs of 3 to 5": CHOSEN._replace(characters=runs(3, 5)),
    "words weigh .7": CHOSEN._replace(words_weigh=0.7),
    "C halved": CHOSEN._replace(strictness=0.5),
    "C doubled": CHOSEN._replace(strictness=2.0),
    "grams of 3 texts": CHOSEN._replace(fewest=3),
    "tolerance 1e-4": CHOSEN._replace(tolerance=1e-4),
}
SETS: tuple[tuple[str, Callable[[], list[Example]], Task], ...] = (
    ("banking77", lambda: rows("banking77", "train"), "single_label"),
    ("clinc150", lambda: rows("clinc150_small", "train"), "single_label"),
    ("davidson", lambda: rows("davidson", "train"), "single_label"),
    ("chinese", lambda: of_language("zho_Hans", "train"), "single_label"),
    ("german", lambda: of_language("deu_Latn", "train"), "single_label"),
    ("goemotions", lambda: rows("goemotions_subset", "train"), "multi_label"),
    ("nlupp", lambda: rows("nlupp_banking", "train"), "multi_label"),
)


def held_out(name: str) -> tuple[tuple[list[str], list[str]], tuple[list[str], list[str]]]:
    """A public category's training rows in two: 50 positives and others to learn from, and at most 2,000 others to ask.

    Among those that are asked, the category is as frequent as it is among all.
    """
    draw = np.random.default_rng(7)
    positives, others = (sorted(set(texts)) for texts in CATEGORIES[name].rows("train"))
    positives, others = ([texts[n] for n in draw.permutation(len(texts))] for texts in (positives, others))
    learnt = min(600, 2 * len(others) // 3)
    asked = others[learnt:][:2_000]
    share = len(asked) / (len(others) - learnt)
    return (positives[:50], others[:learnt]), (positives[50:][: max(20, int(share * len(positives[50:])))], asked)


CATEGORY_RECIPES = {
    "chosen": category._BY_MEANING,
    "C of 1": category._BY_MEANING._replace(strictness=1.0),
    "found: .7": category._BY_MEANING._replace(found=0.7),
    "found: .8": category._BY_MEANING._replace(found=0.8),
    "prevalence: .03": category._BY_MEANING._replace(prevalence=0.03),
    "sure: .5": category._BY_MEANING._replace(sure=0.5),
}


def choose_category_recipe() -> None:
    """Measure the recipes of a category that is learnt by meaning, on training rows of the public ones."""
    table = Table(title="Categories by meaning, mean F1 of held-out training rows", title_justify="left")
    for column in ("recipe", "0 negatives", "500 negatives"):
        table.add_column(column, no_wrap=True)
    for called, recipe in CATEGORY_RECIPES.items():
        category._BY_MEANING = recipe
        found = [
            np.mean([f1_of(*held_out(name), negatives, embeddings.encoder()) for name in CATEGORIES])
            for negatives in (0, 500)
        ]
        table.add_row(called, *(f"{share:.3f}" for share in found))
    console.out().print(table)


def main() -> None:
    """Measure every recipe, set by set; with `categories`, those of a category."""
    if sys.argv[1:] == ["categories"]:
        choose_category_recipe()
        return
    table = Table(title="Recipes, by cross-validation over training rows", title_justify="left")
    for column in ("set", "recipe", "accuracy", "micro-F1", "macro-F1", "log loss", "ranking"):
        table.add_column(column, no_wrap=True)
    for name, examples, task in SETS:
        for called, recipe in RECIPES.items():
            varied = recipe
            if recipe.strictness is not None and task == "multi_label":
                varied = recipe._replace(strictness=0.3 * recipe.strictness)
            found, loss = cross_validated(varied, examples(), task, 5 if name in {"chinese", "german", "nlupp"} else 3)
            shares = (found.accuracy, found.f1_micro, found.f1_macro, loss)
            ranked = f"{ranking(varied):.4f}" if name == "clinc150" else ""
            console.err().print(name, called, *(f"{share:.4f}" for share in shares), ranked)
            table.add_row(name, called, *(f"{share:.4f}" for share in shares), ranked)
    console.out().print(table)


if __name__ == "__main__":
    with threadpool_limits(limits=1):
        main()
