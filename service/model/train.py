"""How the embedded model is made: linear support vector machines over grams, calibrated on rows they have not seen.

The same rows make the same bytes, whatever their order.
"""

import re
import warnings
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from itertools import chain
from math import exp, log, sqrt
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeAlias

import numpy as np
import sklearn
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.sparse import csr_matrix, hstack
from sklearn.exceptions import ConvergenceWarning
from sklearn.svm import LinearSVC
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from service.model import archive, embeddings
from service.model.classifier import FILE_NAME, Calibration, Classifier, Manifest, Task, contents
from service.model.embeddings import Encoder
from service.model.evaluate import Evaluation, compare, indicators
from service.model.examples import Example, ExamplesError, in_fixed_order
from service.model.features import Vocabulary, character_grams, word_grams

Progress = Callable[[float, str], None]
Floats = NDArray[np.float64]
Truth = NDArray[np.bool_]
Features: TypeAlias = csr_matrix | Floats

FEWEST_ROWS = 10  # with fewer, calibration would be an invention
_MANY_ROWS = 1_000  # from here on a gram of a single row tells nothing, and a threshold can be fitted
_FEW_POSITIVES = 5  # below, a label's scores are guesses
_MOST_GRAMS = 100_000  # of each kind
_MOST_WEIGHTS = 25_000_000  # 50 MB in the file, half a gigabyte while training
_MOST_UNSEEN_SCORES = 20_000_000  # 160 MB; calibration needs no more
_NOT_WORTH_KEEPING = re.compile(r".{101}|[\ud800-\udfff]", re.DOTALL)  # keys and links; halves of surrogate pairs
_UNHEARD = sqrt(0.5)  # of the rarest gram's; where rows are few or labels several it does harm: tests/model/choices.py
_LEAST_SHARE = 0.02  # of the say; less is not worth twenty times the work
_SEED = 0


@dataclass(frozen=True, slots=True)
class Trained:
    """A new model and what is to be said of it.

    `estimate` is what the rows themselves say the model is worth: each was answered by a model that had not seen it.
    `documents` were learnt from, `unlabelled` left out because they belong to no class. `warnings` are for people.
    `unseen` are the scores behind the estimate, of these `rows`.
    """

    classifier: Classifier
    estimate: Evaluation
    documents: int
    unlabelled: int
    warnings: tuple[str, ...]
    content: dict[str, bytes] = field(repr=False)
    rows: tuple[Example, ...] = field(repr=False)
    unseen: Floats = field(repr=False, compare=False)

    def save(self, folder: Path) -> Path:
        """Write the model into a folder, made if missing, and give the file's path; raises `OSError`."""
        path = folder / FILE_NAME
        archive.write(path, archive.pack(self.content))
        return path


class _Linear(NamedTuple):
    """A margin for each label: above 0 where it applies. `weights` has a row for each gram, a column for each label."""

    weights: Floats
    bias: Floats
    converged: bool

    def margins(self, features: Features) -> Floats:
        margins: Floats = features @ self.weights + self.bias
        return margins

    def scaled(self, slopes: Floats) -> "_Linear":
        return self._replace(weights=slopes * self.weights, bias=slopes * self.bias)


def silent(_done: float, _step: str) -> None:
    """Progress that nobody watches."""


def train(
    examples: Sequence[Example],
    *,
    task: Task,
    name: str,
    progress: Progress = silent,
    encoder: Encoder | None = None,
    none: float | None = None,
) -> Trained:
    """Learn to classify as the examples do; `progress` is told the share done, 0 to 1, and the next step.

    With an `encoder` a second machine learns from what it makes of the texts, and has the say that unseen rows show it
    to deserve; where that is none, the model does without.

    With `none`, a share, a single-label model gives no class to a text that is less like its best class than are all
    but that share of the unseen rows that it is right about: what belongs to no class is found that way, and about
    that share of what does is lost to it.

    Raises `ExamplesError` where there is too little to learn from, or a row does not fit the task.
    """
    if none is not None and task == "multi_label":
        raise ExamplesError("a multi-label model gives no class where none applies, as it is: leave out the share")
    rows = in_fixed_order(_usable(examples, task))
    texts, labels = [row.text for row in rows], sorted({label for row in rows for label in row.labels})
    truth = indicators([row.labels for row in rows], labels)
    single = task == "single_label"
    learn, calibrate = (_learn_exclusive, calibrate_exclusive) if single else (_learn_each, calibrate_each)
    folds = folds_of(rows, 5 if len(rows) <= 12_000 else 3)  # more folds gain little and take as long again
    steps = int(folds.max()) + 2

    with threadpool_limits(limits=1):  # or the last bits of sums would depend on the number of processors
        progress(0.0, "reading the texts")
        unheard = _UNHEARD * _rarity(1, len(rows)) if single and len(rows) >= _MANY_ROWS else 0.0
        words, characters, grams = read_grams(texts, len(labels), unheard)
        heads: list[_Head] = [_Head(grams, 1.0 if single else 0.3)]
        if encoder is not None:
            heads.append(_Head(encoder.encode(texts).astype(np.float64), 2.0))
        measured = min(len(rows), max(_MANY_ROWS, _MOST_UNSEEN_SCORES // len(labels)))
        unseen = [np.empty((measured, len(labels))) for _ in heads]
        for fold in range(steps - 1):
            progress((fold + 0.2) / steps, f"learning without part {fold + 1} of {steps - 1}")
            held_out = np.flatnonzero(folds[:measured] == fold)
            for head, margins in zip(heads, unseen, strict=True):
                margins[held_out] = learn(head.of(folds != fold), truth[folds != fold]).margins(head.features[held_out])
        progress((steps - 0.8) / steps, "learning from all rows")
        linears = [learn(head, truth) for head in heads]
        progress((steps - 0.2) / steps, "calibrating")
        shares = _shares(unseen, truth[:measured], task)
        mixed = sum((share * margins for share, margins in zip(shares, unseen, strict=True)), np.zeros_like(unseen[0]))
        calibrated = calibrate(mixed, truth[:measured], len(rows))

    threshold = 0.0 if single else threshold_of(calibrated.scores, truth[:measured])
    least_margin = _least_margin(mixed, truth[:measured], none) if single and none is not None else None
    scaled = [linear.scaled(share * calibrated.slopes) for share, linear in zip(shares, linears, strict=True)]
    meaning = scaled[1].weights if len(scaled) > 1 and shares[1] else None
    manifest = Manifest(
        name,
        task,
        tuple(labels),
        threshold,
        least_margin,
        words.unheard,
        None if meaning is None else embeddings.DIGEST,
        calibrated.calibration,
        provenance(rows),
    )
    bias = sum((linear.bias for linear in scaled), calibrated.offsets)
    content = contents(manifest, words, characters, scaled[0].weights, bias, meaning=meaning)
    answered = tuple(rows[:measured])
    truth_of_answered = [row.labels for row in answered]
    estimate = compare(task=task, labels=labels, threshold=threshold, scores=calibrated.scores, truth=truth_of_answered)
    progress(1.0, "done")
    return Trained(
        classifier=Classifier(content),
        estimate=estimate,
        documents=len(rows),
        unlabelled=len(examples) - len(rows),
        warnings=tuple(_warnings(rows, converged=all(linear.converged for linear in linears))),
        content=content,
        rows=answered,
        unseen=calibrated.scores,
    )


class _Head(NamedTuple):
    """What a machine learns from, a row for each text, and how strictly (its C)."""

    features: Features
    strictness: float

    def of(self, rows: Truth) -> "_Head":
        return self._replace(features=self.features[rows])


def _least_margin(margins: Floats, truth: Truth, share: float) -> float:
    """The margin that all but a share of the rows reach whose best class is the true one."""
    right = truth[np.arange(len(truth)), margins.argmax(axis=1)]
    best = margins.max(axis=1)
    return round(float(np.quantile(best[right] if right.any() else best, share)), 4)


def _shares(unseen: Sequence[Floats], truth: Truth, task: Task) -> list[float]:
    """The say of each machine, one together, under which the unseen rows' labels are most likely."""
    if len(unseen) == 1:
        return [1.0]
    grams, meaning = unseen
    present = truth.astype(float)

    def loss(parameters: Floats) -> tuple[float, Floats]:
        logits = parameters[0] * grams + parameters[1] * meaning + parameters[2]
        if task == "single_label":
            logits -= logits.max(axis=1, keepdims=True)
            odds = np.exp(logits)
            sums = odds.sum(axis=1, keepdims=True)
            likelihood, errors = (logits - np.log(sums))[truth].sum(), odds / sums - present
        else:
            likelihood = (present * logits - np.logaddexp(0, logits)).sum()
            errors = 0.5 + 0.5 * np.tanh(0.5 * logits) - present
        slope = np.array([(errors * grams).sum(), (errors * meaning).sum(), errors.sum()])
        return float(-likelihood / len(truth)), slope / len(truth)

    found = minimize(loss, [2.0, 2.0, 0.0], method="L-BFGS-B", jac=True, bounds=[(0, 100), (0, 100), (-50, 50)]).x
    share = round(float(found[1] / (found[0] + found[1] or 1)), 4)
    return [1 - share, share] if share >= _LEAST_SHARE else [1.0, 0.0]


class Calibrated(NamedTuple):
    """How margins become scores, after a slope and an offset for each label, and the scores of the rows used."""

    slopes: Floats
    offsets: Floats
    calibration: Calibration
    scores: Floats


def _usable(examples: Sequence[Example], task: Task) -> list[Example]:
    """The rows to learn from; raises `ExamplesError` where they make no task."""
    if task == "multi_label":
        rows, fewest_labels = list(examples), 1
    else:
        rows, fewest_labels = [example for example in examples if example.labels], 2
        if several := next((row for row in rows if len(row.labels) > 1), None):
            raise ExamplesError(
                f"the row {several.id!r} has {len(several.labels)} labels, but a single-label model gives one: leave "
                "one, or train a multi-label model"
            )
    labels = {label for row in rows for label in row.labels}
    if len(labels) < fewest_labels:
        raise ExamplesError(
            f"the {len(examples)} rows have {len(labels)} different labels, but a {task.replace('_', '-')} model needs "
            f"{fewest_labels} or more: add rows of other classes"
        )
    if len(rows) < FEWEST_ROWS:
        raise ExamplesError(f"{len(rows)} labelled rows are too few to learn from: give {FEWEST_ROWS} or more")
    return rows


def _warnings(rows: Sequence[Example], *, converged: bool) -> Iterable[str]:
    support = Counter(label for row in rows for label in row.labels)
    few = sorted(label for label, count in support.items() if count < _FEW_POSITIVES)
    if few:
        yield (
            f"{len(few)} of {len(support)} labels have fewer than {_FEW_POSITIVES} rows ({_named(few)}): their scores "
            "are guesses; add rows"
        )
    labels_of = defaultdict(set)
    for row in rows:
        labels_of[row.text].add(row.labels)
    contested = sum(len(labels) > 1 for labels in labels_of.values())
    if contested:
        yield f"texts that occur with different labels: {contested}; decide for one set of labels each"
    if not converged:
        yield "learning was stopped before its end: scores may be worse than they could be; look for wrong labels"


def _named(labels: Sequence[str]) -> str:
    shown = ", ".join(labels[:5])
    return shown if len(labels) <= 5 else f"{shown} and {len(labels) - 5} more"


def folds_of(rows: Sequence[Example], most: int) -> NDArray[np.intp]:
    """The part that each row belongs to: labels are dealt out evenly, and rows of one text stay together."""
    part: dict[str, int] = {}
    for row in sorted(rows, key=lambda row: row.labels):
        part.setdefault(row.text, len(part) % most)
    return np.array([part[row.text] for row in rows])


def read_grams(texts: Sequence[str], labels: int, unheard: float = 0.0) -> tuple[Vocabulary, Vocabulary, csr_matrix]:
    """What there is to know of the texts: words, runs of characters, and each text's weight of each."""
    most = min(_MOST_GRAMS, _MOST_WEIGHTS // labels // 2)
    words = _vocabulary(map(word_grams, texts), len(texts), most, unheard)
    characters = _vocabulary(map(character_grams, texts), len(texts), most, unheard)
    if not words.index_of and not characters.index_of:
        raise ExamplesError("the texts have nothing in common to learn from: check that they are texts")
    blocks = [_matrix(words, map(word_grams, texts)), _matrix(characters, map(character_grams, texts))]
    return words, characters, hstack(blocks, format="csr", dtype=np.float64)


def _vocabulary(grams_of_texts: Iterable[Iterable[str]], texts: int, most: int, unheard: float) -> Vocabulary:
    """The grams of the most texts, the most frequent first."""
    texts_with = Counter(chain.from_iterable(map(set, grams_of_texts)))
    fewest = 2 if texts >= _MANY_ROWS else 1
    worth = [gram for gram, count in texts_with.items() if count >= fewest and not _NOT_WORTH_KEEPING.search(gram)]
    kept = sorted(worth, key=lambda gram: (-texts_with[gram], gram))[:most]
    rarity = [_rarity(texts_with[gram], texts) for gram in kept]
    return Vocabulary({gram: index for index, gram in enumerate(kept)}, np.array(rarity, np.float32), unheard)


def _rarity(having: int, texts: int) -> float:
    """The smoothed inverse document frequency of what so many texts have."""
    return log((1 + texts) / (1 + having)) + 1


def _matrix(vocabulary: Vocabulary, grams_of_texts: Iterable[Iterable[str]]) -> csr_matrix:
    indices, weights = zip(*map(vocabulary.weigh, grams_of_texts), strict=True)
    starts = np.cumsum([0, *map(len, indices)])
    shape = (len(indices), len(vocabulary.index_of))
    matrix = csr_matrix((np.concatenate(weights), np.concatenate(indices), starts), shape)
    matrix.sort_indices()
    return matrix


def _learn_exclusive(head: _Head, truth: Truth) -> _Linear:
    """Each class against all others; a class without rows applies nowhere."""
    answers = truth.argmax(axis=1)
    present = np.unique(answers)
    linear = _constant(head.features.shape[1], truth.shape[1])
    if len(present) < 2:
        linear.bias[present] = 1
        return linear
    machine, converged = fit_machine(head.features, answers, strictness=head.strictness)
    coefficients, intercepts = machine.coef_, machine.intercept_
    if len(present) == 2:  # of two classes only the second is learnt: the first is its opposite
        coefficients, intercepts = np.vstack([-coefficients, coefficients]), np.append(-intercepts, intercepts)
    linear.weights[:, present] = coefficients.T
    linear.bias[present] = intercepts
    return linear._replace(converged=converged)


def _learn_each(head: _Head, truth: Truth) -> _Linear:
    """Each label by itself; a label of all rows or of none applies everywhere or nowhere."""
    linear = _constant(head.features.shape[1], truth.shape[1])
    all_converged = True
    for column, answers in enumerate(truth.T):
        if answers.any() and not answers.all():
            machine, converged = fit_machine(head.features, answers, strictness=head.strictness)
            linear.weights[:, column] = machine.coef_[0]
            linear.bias[column] = machine.intercept_[0]
            all_converged &= converged
        elif answers.any():
            linear.bias[column] = 1
    return linear._replace(converged=all_converged)


def _constant(grams: int, labels: int) -> _Linear:
    return _Linear(np.zeros((grams, labels)), np.full(labels, -1.0), converged=True)


def fit_machine(
    features: Features, answers: NDArray[Any], *, strictness: float, weights: Literal["balanced"] | None = None
) -> tuple[LinearSVC, bool]:
    """A support vector machine, and whether learning came to its end, at the second attempt.

    `strictness` is its C; with balanced `weights` the few rows of a class count for as much as the many of another.
    """
    for most in (1_000, 10_000):
        machine = LinearSVC(C=strictness, class_weight=weights, dual=True, random_state=_SEED, tol=0.01, max_iter=most)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # told by the return value
            warnings.filterwarnings("ignore", "The number of unique classes", UserWarning)  # rare classes are expected
            machine.fit(features, answers)
        if machine.n_iter_ < most:
            return machine, True
    return machine, False


def calibrate_exclusive(unseen: Floats, truth: Truth, documents: int) -> Calibrated:
    """The temperature and curvature under which the unseen rows' true classes are most likely.

    Mild priors, worth about a row, keep both in bounds where rows are few. The curvature earns its place: with the
    temperature alone, low scores come out too low and high ones too high (log loss of unseen rows of CLINC150 .265,
    with it .246; of Banking77 .385 and .375).
    """
    answers = truth.argmax(axis=1)
    rows = np.arange(len(answers))
    floor = 1 / (documents + 2)

    def calibration(parameters: Floats) -> Calibration:
        return Calibration(round(exp(parameters[0]), 6), round(float(parameters[1]), 6), floor)

    def loss(parameters: Floats) -> float:
        likelihood = calibration(parameters).single(unseen)[rows, answers]
        prior = (parameters[0] - log(3)) ** 2 + parameters[1] ** 2
        return float((prior - np.log(likelihood).sum()) / len(rows))

    best = minimize(loss, [log(3), 0.5], method="Nelder-Mead", bounds=[(-5, 10), (0, 20)]).x
    labels = unseen.shape[1]
    return Calibrated(np.ones(labels), np.zeros(labels), calibration(best), calibration(best).single(unseen))


def calibrate_each(unseen: Floats, truth: Truth, _documents: int) -> Calibrated:
    """Each label's own slope and offset (Platt 1999), to be put into its weights."""
    fitted = [slope_and_offset(margins, answers) for margins, answers in zip(unseen.T, truth.T, strict=True)]
    slopes, offsets = np.array(fitted).T
    calibration = Calibration(temperature=1.0, curvature=0.0, floor=0.0)
    scores = calibration.multi(slopes * unseen + offsets)
    return Calibrated(slopes, offsets, calibration, scores)


def slope_and_offset(margins: Floats, answers: Truth) -> tuple[float, float]:
    """The logistic curve through margins and answers, with Platt's targets for few rows and never falling."""
    positives = int(answers.sum())
    targets = np.where(answers, (positives + 1) / (positives + 2), 1 / (len(answers) - positives + 2))

    def loss(parameters: Floats) -> tuple[float, Floats]:
        logits = parameters[0] * margins + parameters[1]
        errors = 0.5 + 0.5 * np.tanh(0.5 * logits) - targets
        return float((np.logaddexp(0, logits) - targets * logits).sum()), np.array([errors @ margins, errors.sum()])

    start = [1.0, log(targets.sum() / (1 - targets).sum())]
    slope, offset = minimize(loss, start, method="L-BFGS-B", jac=True, bounds=[(0, 1_000), (None, None)]).x
    return float(slope), float(offset)


def threshold_of(scores: Floats, truth: Truth) -> float:
    """The threshold of the highest micro-F1, a half where rows are too few to tell."""
    if len(scores) < _MANY_ROWS:
        return 0.5
    order = np.argsort(-scores, axis=None, kind="stable")
    descending = scores.ravel()[order]
    found = np.cumsum(truth.ravel()[order])
    f1 = 2 * found / (np.arange(1, len(found) + 1) + truth.sum())
    best = int(f1.argmax())
    return round(float(descending[best : best + 2].mean()), 4)


def provenance(rows: Sequence[Example]) -> dict[str, object]:
    """Where a model comes from, in words that say nothing of any text."""
    digest = sha256()
    for row in rows:
        digest.update(archive.json_bytes([row.text.encode("utf-8", "surrogatepass").hex(), row.labels]))
    return {
        "documents": len(rows),
        "data": digest.hexdigest(),
        "seed": _SEED,
        "numpy": np.__version__,
        "scikit-learn": sklearn.__version__,
    }
