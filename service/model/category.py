"""One category learnt from examples of it: from positives alone, or with texts that do not belong to it.

What the category is told from is a background of general texts, the shipped samples whole and sentence by sentence, and
whatever negatives are given; both together were never worse than either (as measured on six public categories of 50
positives each: mean F1 .60 without negatives, .67 with 50, .79 with 500; with the negatives alone .59 and .77). What
comes of it is a `Classifier` with the category as its one label, whose score says .5 where the category begins. That
score is no probability: how frequent the category will be is not known here.

The same texts make the same bytes, whatever their order.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from importlib.resources import as_file, files
from pathlib import Path
from typing import NamedTuple

import numpy as np
from scipy.sparse import csr_matrix, hstack
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from service.model import archive, embeddings, examples
from service.model.classifier import FILE_NAME, Calibration, Classifier, Manifest, contents
from service.model.embeddings import Encoder
from service.model.examples import Example, ExamplesError, in_fixed_order
from service.model.train import Floats, fit_machine, provenance, read_grams, slope_and_offset

FEWEST_POSITIVES = 10  # with fewer, where the category begins would be an invention
ENOUGH_NEGATIVES = 20  # from here on negatives tell where the category begins
_ADVISED = 50  # positives, and negatives
_FOLDS = 10  # many, since a tenth of few positives is missed less than a fifth
_MEANING = 1.5  # what a text's meaning weighs beside each kind of its grams
_EVERY = 4  # of the background, by meaning: all of it takes four times as long and tells no more
_FEWEST_FOUND, _MOST_FOUND = 0.5, 0.9  # the same where negatives have a say
_NO_BETTER_THAN_CHANCE = 0.65  # below, positives do not rank above other texts by more than luck
_WEAK = 0.85
_SENTENCE = re.compile(r"(?<=[.!?])\s+|\n")
_SHORTEST_SENTENCE = 12  # characters


class _Recipe(NamedTuple):
    """How strictly is learnt (C), and where a category begins.

    `found` is the share of the positives that are found where nothing but they say where it begins. `prevalence` is its
    assumed share of what is classified, where negatives have a say; in examples it is larger than in traffic. `sure` is
    a margin that is always enough: by grams, positives that hardly differ would ask for one that nothing else reaches.
    """

    strictness: float
    found: float
    prevalence: float
    sure: float


_BY_GRAMS = _Recipe(strictness=1.0, found=0.7, prevalence=0.05, sure=0.5)
_BY_MEANING = _Recipe(strictness=0.1, found=0.75, prevalence=0.1, sure=10.0)  # by training rows of public categories


@dataclass(frozen=True, slots=True)
class LearntCategory:
    """A category's model and what is to be said of it.

    `ranking` is how often a positive ranks above another text (0.5: by chance), each scored by a model that had not
    seen it. `warnings` are for people.
    """

    classifier: Classifier
    ranking: float
    warnings: tuple[str, ...]
    content: dict[str, bytes] = field(repr=False)

    def save(self, folder: Path) -> Path:
        """Write the model into a folder, made if missing, and give the file's path; raises `OSError`."""
        path = folder / FILE_NAME
        archive.write(path, archive.pack(self.content))
        return path


class _Texts(NamedTuple):
    """Texts of one kind, and the part that each belongs to: what is taken from one text stays together."""

    texts: list[str]
    parts: list[int]

    def thinned(self, every: int) -> "_Texts":
        return _Texts(self.texts[::every], self.parts[::every])

    def without(self, texts: frozenset[str]) -> "_Texts":
        kept = [(text, part) for text, part in zip(self.texts, self.parts, strict=True) if text not in texts]
        return _Texts([text for text, _ in kept], [part for _, part in kept])


def learn_category(
    name: str, positives: Iterable[str], negatives: Iterable[str] = (), *, encoder: Encoder | None = None
) -> LearntCategory:
    """Learn to tell the category of the positives; a text given twice counts once. With an `encoder`, by meaning too.

    Raises `ExamplesError` where there is too little to learn from, where a text is said to be both, or where the
    positives have nothing that other texts do not have.
    """
    rows = in_fixed_order(
        [Example("", text, (name,)) for text in set(positives)] + [Example("", text, ()) for text in set(negatives)]
    )
    given_positives = [row.text for row in rows if row.labels]
    given_negatives = [row.text for row in rows if not row.labels]
    _check(given_positives, given_negatives)
    recipe, background = (_BY_GRAMS, _background()) if encoder is None else (_BY_MEANING, _background().thinned(_EVERY))
    kinds = [_dealt(given_positives), _dealt(given_negatives), background.without(frozenset(given_positives))]
    texts = [text for kind in kinds for text in kind.texts]
    parts = np.array([part for kind in kinds for part in kind.parts])
    truth = np.arange(len(texts)) < len(given_positives)

    with threadpool_limits(limits=1):  # or the last bits of sums would depend on the number of processors
        words, characters, grams = read_grams(texts, labels=1)
        features = grams
        if encoder is not None:
            features = hstack([grams, csr_matrix(_MEANING * encoder.encode(texts))], format="csr", dtype=np.float64)
        unseen = np.empty(len(texts))
        for part in range(_FOLDS):
            learnt, _ = fit_machine(
                features[parts != part], truth[parts != part], strictness=recipe.strictness, weights="balanced"
            )
            unseen[parts == part] = learnt.decision_function(features[parts == part])
        learnt, converged = fit_machine(features, truth, strictness=recipe.strictness, weights="balanced")
        slope, _ = slope_and_offset(unseen, truth)

    found, others = unseen[truth], unseen[~truth]
    told_from = others[: len(given_negatives)] if len(given_negatives) >= ENOUGH_NEGATIVES else others
    ranking = _ranking(found, told_from)
    if ranking < _NO_BETTER_THAN_CHANCE:
        raise ExamplesError(
            f"the category cannot be told from {'the negatives' if told_from is not others else 'other texts'}: its "
            f"texts rank above them {ranking:.0%} of the time, by chance it would be 50%; give texts that have more in "
            "common with each other, and look for wrong labels"
        )
    if told_from is others:
        boundary = float(np.quantile(found, 1 - recipe.found))
    else:
        boundary = _boundary(found, told_from, recipe.prevalence)
    weights, bias = slope * learnt.coef_.T, slope * (learnt.intercept_ - min(boundary, recipe.sure))
    meaning = None if encoder is None else _MEANING * weights[grams.shape[1] :]
    calibration = Calibration(temperature=1.0, curvature=0.0, floor=0.0)
    by = None if encoder is None else embeddings.DIGEST
    manifest = Manifest(name, "multi_label", (name,), 0.5, None, words.unheard, by, calibration, provenance(rows))
    content = contents(manifest, words, characters, weights[: grams.shape[1]], bias, meaning=meaning)
    warnings = tuple(_warnings(len(given_positives), len(given_negatives), ranking, converged=converged))
    return LearntCategory(Classifier(content), ranking, warnings, content)


def _check(positives: Sequence[str], negatives: Sequence[str]) -> None:
    if len(positives) < FEWEST_POSITIVES:
        raise ExamplesError(
            f"{len(positives)} different positives are too few to learn from: give {FEWEST_POSITIVES} or more, "
            f"{_ADVISED} to be good"
        )
    if both := len(set(positives) & set(negatives)):
        raise ExamplesError(f"texts that are given as positive and as negative: {both}; decide for one")


def _warnings(positives: int, negatives: int, ranking: float, *, converged: bool) -> Iterable[str]:
    if negatives < ENOUGH_NEGATIVES:
        yield (
            "without negatives, texts that only resemble the category are likely to be taken for it: give some that "
            f"come close to it, {_ADVISED} or more"
        )
    elif negatives < _ADVISED:
        yield f"{negatives} negatives say little about where the category begins: give {_ADVISED} or more"
    if positives < _ADVISED:
        yield f"{positives} positives are few: give {_ADVISED} or more"
    if ranking < _WEAK:
        yield f"positives rank above other texts only {ranking:.0%} of the time: expect many wrong answers"
    if not converged:
        yield "learning was stopped before its end: look for wrong labels"


def _dealt(texts: list[str]) -> _Texts:
    return _Texts(texts, [number % _FOLDS for number in range(len(texts))])


def _background() -> _Texts:
    """The texts of the samples and their sentences, each once: short ones too, or short would mean positive."""
    pieces: dict[str, int] = {}
    for name in ("tickets.jsonl", "moderation.jsonl"):
        with as_file(files("service.samples") / name) as path:
            for number, row in enumerate(examples.read(path)):
                for piece in (row.text, *_SENTENCE.split(row.text)):
                    if len(piece.strip()) >= _SHORTEST_SENTENCE:
                        pieces.setdefault(piece.strip(), number % _FOLDS)
    return _Texts(list(pieces), list(pieces.values()))


def _ranking(found: Floats, others: Floats) -> float:
    """The share of pairs of a positive and another text in which the positive scores higher."""
    below = np.searchsorted(np.sort(others), found, side="left")
    not_above = np.searchsorted(np.sort(others), found, side="right")
    return float((below + not_above).sum() / (2 * len(found) * len(others)))


def _boundary(found: Floats, others: Floats, prevalence: float) -> float:
    """Where F1 would be highest at the assumed prevalence, as long as few enough positives are missed."""
    candidates = np.unique(np.concatenate([found, others]))
    recall = (found[:, None] >= candidates).mean(axis=0)
    mistaken = (others[:, None] >= candidates).mean(axis=0)
    hits = prevalence * recall
    f1 = 2 * hits / (hits + (1 - prevalence) * mistaken + prevalence)
    least, most = np.quantile(found, [1 - _MOST_FOUND, 1 - _FEWEST_FOUND])
    return float(np.clip(candidates[f1.argmax()], least, most))
