"""The harm categories, answered by models that the operator has registered for them.

There is no built-in model: a category without a registered one always has severity 0. How a score becomes a severity,
0 to 7: where the model says that its class applies (from the threshold of a multi-label model on, or a half) is 4, and
scores are divided evenly below it (0 to 3) and from it on (4 to 7). Of four levels, the lower of each pair is shown.
"""

from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import NamedTuple, Self

from service.errors import Misconfigured, ModelError
from service.model.classifier import Classifier

CATEGORIES = ("Hate", "SelfHarm", "Sexual", "Violence")


class _HarmModel(NamedTuple):
    classifier: Classifier
    column: int
    boundary: float


class Harms:
    """The models of harm categories; safe to use from threads."""

    def __init__(self, models: Mapping[str, _HarmModel]) -> None:
        self._models = models

    @classmethod
    def load(cls, given: Iterable[str]) -> Self:
        """Registrations written CATEGORY=FOLDER; raises `Misconfigured`."""
        loaded: dict[Path, Classifier] = {}
        models: dict[str, _HarmModel] = {}
        for text in given:
            category, _, folder = text.partition("=")
            if category not in CATEGORIES or not folder:
                raise Misconfigured(
                    f"--harm-model {text!r} is not CATEGORY=FOLDER, with a category out of {', '.join(CATEGORIES)}"
                )
            path = Path(folder)
            try:
                classifier = loaded.setdefault(path, loaded.get(path) or Classifier.load(path))
            except ModelError as error:
                raise Misconfigured(f"--harm-model {category}: {error}") from None
            boundary = classifier.threshold if classifier.task == "multi_label" else 0.5
            models[category] = _HarmModel(classifier, _column(category, classifier), min(max(boundary, 0.001), 0.999))
        return cls(models)

    def severities(self, text: str, categories: Collection[str]) -> dict[str, int]:
        """How severe a text is, 0 to 7, in each of the categories; not for the event loop."""
        asked = {category: self._models[category] for category in categories if category in self._models}
        scores = {id(model.classifier): model.classifier.scores([text])[0].tolist() for model in asked.values()}
        found = {
            category: severity(scores[id(model.classifier)][model.column], model.boundary)
            for category, model in asked.items()
        }
        return {category: found.get(category, 0) for category in CATEGORIES if category in categories}


def severity(score: float, boundary: float) -> int:
    """The severity, 0 to 7, of a score, 4 from the boundary on."""
    if score < boundary:
        return int(4 * score / boundary)
    return min(7, 4 + int(4 * (score - boundary) / (1 - boundary)))


def _column(category: str, classifier: Classifier) -> int:
    """The class that stands for the category: of its name, or called positive, or the only one."""
    names = ["".join(filter(str.isalnum, label)).lower() for label in classifier.labels]
    for name in (category.lower(), "positive"):
        if name in names:
            return names.index(name)
    if len(names) == 1:
        return 0
    raise Misconfigured(
        f"--harm-model {category}: the model {classifier.name!r} has no class {category.lower()!r} or 'positive', but "
        f"{len(names)} others"
    )
