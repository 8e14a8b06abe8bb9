"""The embedded model in use: a text's grams weigh in for each class, and the sums become probabilities.

Scoring takes numpy alone, alters nothing, and a text's scores do not depend on the texts it is scored with. A model's
file holds words and pairs of words of the texts it was trained on: it is as confidential as they are.
"""

from collections.abc import Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal, NamedTuple, cast, get_args

import numpy as np
from numpy.typing import NDArray

from service.documents import ClassScore
from service.errors import Misconfigured, ModelError
from service.model import archive, embeddings
from service.model.features import Vocabulary, character_grams, word_grams

Task = Literal["single_label", "multi_label"]

FILE_NAME = "model.zip"
FORMAT = 2
MEBIBYTE = 2**20
LARGEST = {
    "manifest.json": 16 * MEBIBYTE,
    "words.json": 64 * MEBIBYTE,
    "characters.json": 16 * MEBIBYTE,
    "words.npy": 16 * MEBIBYTE,
    "characters.npy": 16 * MEBIBYTE,
    "weights.npy": 128 * MEBIBYTE,
    "scales.npy": 16 * MEBIBYTE,
    "bias.npy": 16 * MEBIBYTE,
    "meaning.npy": 64 * MEBIBYTE,
}
_OPTIONAL = frozenset({"meaning.npy"})
_LARGEST_WEIGHT = 127


class Calibration(NamedTuple):
    """How margins become probabilities.

    A margin m, in which a class is above its boundary where m > 0, becomes the logit ``temperature * m`` where the
    `curvature` c is 0, else ``temperature * (1 - exp(-c m)) / c``: one margin above another always stays above it, but
    differences count for less the further above the boundary they are. In single-label classification `floor` is the
    share of the probability that goes to all classes alike.
    """

    temperature: float
    curvature: float
    floor: float

    def single(self, margins: NDArray[np.float64]) -> NDArray[np.float64]:
        """Probabilities of classes that exclude each other; rows sum to one."""
        logits = self._logits(margins)
        odds: NDArray[np.float64] = np.exp(logits - logits.max(axis=1, keepdims=True))
        odds *= (1 - self.floor) / odds.sum(axis=1, keepdims=True)
        odds += self.floor / margins.shape[1]
        return odds

    def multi(self, margins: NDArray[np.float64]) -> NDArray[np.float64]:
        """Probabilities of classes independent of each other."""
        return 0.5 + 0.5 * np.tanh(0.5 * self._logits(margins))  # the logistic function, without its overflow

    def _logits(self, margins: NDArray[np.float64]) -> NDArray[np.float64]:
        if self.curvature < 1e-6:  # the limit; a smaller divisor could overflow
            return self.temperature * margins
        exponents = np.minimum(self.curvature * -margins, 50)  # beyond, a number would overflow
        logits: NDArray[np.float64] = np.expm1(exponents) * (-self.temperature / self.curvature)
        return logits


class Manifest(NamedTuple):
    """What a model says of itself; `trained` is for people and programs to read, and has no effect.

    `least_margin` is how like its best class a text has to be to have a class at all, None where every text has one.
    `unheard` is the inverse document frequency of grams that are in no vocabulary. `encoder` is the digest of what the
    meaning of texts is told by, None in a model that does without.
    """

    name: str
    task: Task
    labels: tuple[str, ...]
    threshold: float
    least_margin: float | None
    unheard: float
    encoder: str | None
    calibration: Calibration
    trained: Mapping[str, object]


class Classifier:
    """A trained model; made by `load`, safe to use from several threads at once.

    `labels` are the columns of the scores. `threshold` is the score from which on a multi-label class applies, 0 in
    single-label models. `least_margin` is the margin that a single-label model's best class needs, or the text has no
    class; None: every text has one. `digest` is the same for the same content.
    """

    def __init__(self, content: Mapping[str, bytes]) -> None:
        """Take a model from the members of its file; raises `ValueError`, and `NotInstalled` of `embeddings`."""
        manifest = _manifest(archive.json_value("manifest.json", content["manifest.json"]))
        self._words = _vocabulary(content, "words", manifest.unheard)
        self._characters = _vocabulary(content, "characters", manifest.unheard)
        grams, labels = len(self._words.index_of) + len(self._characters.index_of), len(manifest.labels)
        self._weights = archive.array("weights.npy", content["weights.npy"], np.int8, (grams, labels))
        self._scales = archive.array("scales.npy", content["scales.npy"], np.float32, (labels,))
        self._bias = archive.array("bias.npy", content["bias.npy"], np.float32, (labels,))
        if (manifest.encoder is None) == ("meaning.npy" in content):
            raise ValueError("manifest.json and meaning.npy do not agree on whether there is an encoder")
        if manifest.encoder not in {None, embeddings.DIGEST}:
            raise ValueError(f"manifest.json names an encoder that is not known here ({manifest.encoder:.12})")
        self._encoder = embeddings.encoder() if manifest.encoder is not None else None
        if self._encoder is not None:
            shape = (embeddings.WIDTH, labels)
            self._meaning = archive.array("meaning.npy", content["meaning.npy"], np.float16, shape).astype(np.float32)
        self.encoder = manifest.encoder
        self.name = manifest.name
        self.task = manifest.task
        self.labels = manifest.labels
        self.threshold = manifest.threshold
        self.least_margin = manifest.least_margin
        self.calibration = manifest.calibration
        self.trained = manifest.trained
        self.digest = _digest(content)

    @classmethod
    def load(cls, path: Path) -> "Classifier":
        """The model in a file, or in the file `model.zip` of a folder; raises `ModelError`."""
        file = path / FILE_NAME if path.is_dir() else path
        try:
            return cls(archive.unpack(file, LARGEST, _OPTIONAL))
        except Misconfigured as error:
            raise ModelError(f"{file}: was made with the extra `embeddings`: {error}") from error
        except OSError as error:
            advice = "name the folder or file that `labelstream models train` has written"
            raise ModelError(f"{file}: cannot be read ({error.strerror or error}); {advice}") from error
        except ValueError as error:
            advice = "train the model again with `labelstream models train`, or restore the file"
            raise ModelError(f"{file}: is not a model that can be used: {error}; {advice}") from error

    def __getstate__(self) -> dict[str, Any]:
        return vars(self) | {"_encoder": None}  # what it has loaded is not for other processes: they load it themselves

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        vars(self).update(state)
        self._encoder = embeddings.encoder() if self.encoder is not None else None

    def __repr__(self) -> str:
        return f"<Classifier {self.name!r} {self.task} {len(self.labels)} labels {self.digest}>"

    def scores(self, texts: Sequence[str]) -> NDArray[np.float64]:
        """The calibrated probability of each text (row) and label (column); any text will do, also an empty one."""
        return self._calibrated(self.margins(texts))

    def _calibrated(self, margins: NDArray[np.float64]) -> NDArray[np.float64]:
        return self.calibration.single(margins) if self.task == "single_label" else self.calibration.multi(margins)

    def margins(self, texts: Sequence[str]) -> NDArray[np.float64]:
        """How far each text (row) is above the boundary of each label (column), before calibration."""
        margins = np.empty((len(texts), len(self.labels)))
        for row, text in enumerate(texts):
            words, word_weights = self._words.weigh(word_grams(text))
            characters, character_weights = self._characters.weigh(character_grams(text))
            grams = np.concatenate([words, characters + len(self._words.index_of)])
            weights = np.concatenate([word_weights, character_weights])
            margins[row] = weights @ self._weights.take(grams, axis=0).astype(np.float32)
        margins *= self._scales
        margins += self._bias
        if self._encoder is not None:
            margins += self._encoder.encode(texts) @ self._meaning
        return margins

    def classify(self, texts: Sequence[str], top: int = 5) -> list[tuple[ClassScore, ...]]:
        """Each text's classes, best first.

        Single-label: the `top` best, of which the first is the answer, or none where the model is one that may say so.
        Multi-label: those whose score reaches the threshold, possibly none.
        """
        margins = self.margins(texts)
        scores = self._calibrated(margins)
        best_first = np.argsort(-scores, axis=1, kind="stable")
        if self.task == "single_label":
            least = -np.inf if self.least_margin is None else self.least_margin
            counts = np.where(margins.max(axis=1, initial=-np.inf) >= least, top, 0).tolist()
        else:
            counts = np.count_nonzero(scores >= self.threshold, axis=1).tolist()
        return [
            tuple(ClassScore(self.labels[column], row[column]) for column in best[:count])
            for row, best, count in zip(scores.tolist(), best_first.tolist(), counts, strict=True)
        ]


def contents(
    manifest: Manifest,
    words: Vocabulary,
    characters: Vocabulary,
    weights: NDArray[np.floating],
    bias: NDArray[np.floating],
    *,
    meaning: NDArray[np.floating] | None = None,
) -> dict[str, bytes]:
    """The members of a model's file; `weights` has a row for each word, then each run of characters.

    `meaning` has a row for each of the numbers that the encoder makes of a text.

    A label's weights are kept in 255 steps, which is half the size of half precision and changes no more than one
    answer in a thousand.
    """
    scales = np.abs(weights).max(axis=0, initial=0).astype(np.float32) / _LARGEST_WEIGHT
    steps = np.rint(np.divide(weights, scales, out=np.zeros_like(weights), where=scales > 0))
    described = manifest._asdict() | {"calibration": manifest.calibration._asdict(), "format": FORMAT}
    members = {} if meaning is None else {"meaning.npy": archive.array_bytes(meaning.astype(np.float16))}
    return members | {
        "manifest.json": archive.json_bytes(described),
        "words.json": archive.json_bytes(list(words.index_of)),
        "characters.json": archive.json_bytes(list(characters.index_of)),
        "words.npy": archive.array_bytes(words.rarity),
        "characters.npy": archive.array_bytes(characters.rarity),
        "weights.npy": archive.array_bytes(steps.astype(np.int8)),
        "scales.npy": archive.array_bytes(scales),
        "bias.npy": archive.array_bytes(bias.astype(np.float32)),
    }


def _digest(content: Mapping[str, bytes]) -> str:
    digests = [[name, sha256(content[name]).hexdigest()] for name in sorted(content)]
    return sha256(archive.json_bytes(digests)).hexdigest()[:12]


def _vocabulary(content: Mapping[str, bytes], kind: str, unheard: float) -> Vocabulary:
    grams = _strings(archive.json_value(f"{kind}.json", content[f"{kind}.json"]), f"{kind}.json")
    rarity = archive.array(f"{kind}.npy", content[f"{kind}.npy"], np.float32, (len(grams),))
    if not ((rarity >= 1) & (rarity <= 100)).all():
        raise ValueError(f"{kind}.npy holds numbers below 1 or above 100")
    return Vocabulary({gram: index for index, gram in enumerate(grams)}, rarity, unheard)


def _manifest(value: object) -> Manifest:
    """The manifest of a JSON value, as strict as can be; raises `ValueError`."""
    described = _fields(value, {*Manifest._fields, "format"}, "manifest.json")
    if described["format"] != FORMAT:
        raise ValueError(f"manifest.json says format {described['format']!r:.20}, this version reads format {FORMAT}")
    calibration = _fields(described["calibration"], set(Calibration._fields), "calibration in manifest.json")
    name, task, trained = described["name"], described["task"], described["trained"]
    if not isinstance(name, str) or not name:
        raise ValueError("manifest.json gives no name")
    if task not in get_args(Task):
        raise ValueError(f"manifest.json gives no task out of {' and '.join(get_args(Task))}")
    labels = _strings(described["labels"], "labels in manifest.json")
    if not labels:
        raise ValueError("manifest.json gives no labels")
    least_margin = described["least_margin"]
    if least_margin is not None:
        least_margin = _number(least_margin, "least_margin", -1_000, 1_000)
    encoder = described["encoder"]
    if not (encoder is None or isinstance(encoder, str)):
        raise ValueError("encoder in manifest.json is neither null nor a digest")
    return Manifest(
        name,
        cast("Task", task),
        labels,
        _number(described["threshold"], "threshold", 0, 1),
        least_margin,
        _number(described["unheard"], "unheard", 0, 100),
        encoder,
        Calibration(
            _number(calibration["temperature"], "temperature", 1e-6, 1e6),
            _number(calibration["curvature"], "curvature", 0, 100),
            _number(calibration["floor"], "floor", 0, 1),
        ),
        _object(trained, "trained in manifest.json"),
    )


def _fields(value: object, names: set[str], what: str) -> dict[str, object]:
    fields = _object(value, what)
    if set(fields) != names:
        raise ValueError(f"{what} does not have the fields {', '.join(sorted(names))}")
    return fields


def _object(value: object, what: str) -> dict[str, object]:
    match value:
        case dict():
            return value
        case _:
            raise ValueError(f"{what} is not a JSON object")


def _number(value: object, what: str, least: float, most: float) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not least <= value <= most:
        raise ValueError(f"{what} in manifest.json is not a number from {least} to {most}")
    return float(value)


def _strings(value: object, what: str) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(item, str) and item for item in value):
        raise ValueError(f"{what} is not a list of strings")
    if len(set(value)) != len(value):
        raise ValueError(f"{what} holds a string twice")
    return tuple(value)
