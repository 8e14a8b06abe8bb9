"""What `labelstream models` does with the models of an account: the same five verbs, whoever the provider is.

Each verb ends when what it has begun has ended, and may be broken off and given again: it goes on where it was, as far
as the provider lets that be seen. What an outage or a quota delays is waited for.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol, Self

from service.errors import Misconfigured
from service.model.examples import Example

if TYPE_CHECKING:  # as in `service.model.examples`
    from service.model.evaluate import ClassEvaluation
    from service.model.evaluate import Evaluation as Measured


class Labelled(NamedTuple):
    """What a model is made from."""

    rows: Sequence[Example]
    name: str | None = None
    """What the model is to be called; by default after its rows, so that the same rows are the same model."""


class Wanted(NamedTuple):
    """What is to be deployed and how, as far as it is said."""

    model: str | None = None
    """A model other than the newest."""
    deployment: str | None = None
    """A deployment other than the account's own."""
    units: int | None = None
    """Inference units of an endpoint."""
    categories: Path | None = None
    """A file of categories and what they are."""


class Doomed(NamedTuple):
    """What is to be deleted: a model or a deployment by its name, or all there is of what the account asks."""

    kind: Literal["model", "deployment", "all"]
    name: str = ""

    def __str__(self) -> str:
        return "everything" if self.kind == "all" else f"{self.kind} {self.name}"


@dataclass(frozen=True, slots=True)
class Model:
    """A model, or what a provider has in its place.

    `state` is the provider's own word, `trained_at` as it tells it (ISO 8601); `more` is what else there is to tell.
    """

    name: str
    state: str
    trained_at: str | None = None
    deployed_as: tuple[str, ...] = ()
    more: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """What a model is worth by its provider's own account; figures that are not told are None.

    The figures are those of `service.model.evaluate.Evaluation`, by the names that they have in its JSON.
    """

    documents: int | None = None
    accuracy: float | None = None
    precision_micro: float | None = None
    recall_micro: float | None = None
    f1_micro: float | None = None
    precision_macro: float | None = None
    recall_macro: float | None = None
    f1_macro: float | None = None
    hamming_loss: float | None = None
    ece: float | None = None
    seconds: float | None = None
    task: str
    unlabelled: int | None = None
    unknown_labels: Mapping[str, int] = field(default_factory=dict)
    classes: tuple["ClassEvaluation", ...] = ()
    confusion: Mapping[tuple[str, str], float] = field(default_factory=dict)

    @classmethod
    def of(cls, measured: "Measured") -> Self:
        """What we have measured ourselves."""
        names = {each.name: each.name for each in fields(cls)} | {"unknown_labels": "unknown"}
        return cls(**{name: getattr(measured, theirs) for name, theirs in names.items()})

    @classmethod
    def parse(cls, told: Mapping[str, Any]) -> Self:
        """What `to_json` has written; any exception where it is something else."""
        from service.model.evaluate import ClassEvaluation  # noqa: PLC0415  as in `service.model.examples`

        given: dict[str, Any] = {each.name: told.get(each.name) for each in fields(cls)}
        counts = ("name", "true_positives", "false_positives", "false_negatives")
        return cls(
            **given
            | {
                "classes": tuple(ClassEvaluation(*(one[count] for count in counts)) for one in told["classes"]),
                "confusion": {(one["true"], one["answered"]): one["documents"] for one in told["confusion"]},
            }
        )

    def to_json(self) -> dict[str, object]:
        """Everything as JSON, with the keys of a local evaluation; confused labels are the most frequent first."""
        confused = sorted(self.confusion.items(), key=lambda item: (-item[1], item[0]))
        return {each.name: getattr(self, each.name) for each in fields(self)} | {
            "classes": [one.to_json() for one in self.classes],
            "confusion": [{"true": true, "answered": answered, "documents": n} for (true, answered), n in confused],
        }


@dataclass(frozen=True, slots=True)
class Trained:
    """A model that is ready to be deployed, and what it is worth where the provider tells; `notes` are for people."""

    model: Model
    evaluation: Evaluation | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Deployed:
    """What answers now, and as what; `notes` say what is still to be done, and what it costs."""

    model: str
    deployed_as: str
    notes: tuple[str, ...] = ()
    more: Mapping[str, object] = field(default_factory=dict)


class Life(Protocol):
    """The verbs of an account.

    They raise Misconfigured, also for what the provider has no such step for, saying what stands in its place;
    ExamplesError for rows that nothing can be learnt from; and what else `service.errors` has.
    """

    async def train(self, wanted: Labelled) -> Trained:
        """Make a model of labelled rows, or find the one that was made of them."""
        ...

    async def evaluate(self, model: str | None) -> Evaluation:
        """What the provider itself says of the worth of a model: by default of the one that the account asks."""
        ...

    async def deploy(self, wanted: Wanted) -> Deployed:
        """Let the account be answered by a model."""
        ...

    async def list(self) -> list[Model]:
        """The models of what the account asks, or everything of its kind; the newest first where that is known."""
        ...

    async def delete(self, doomed: Doomed) -> None:
        """Delete it, and wait until it is gone. Raises Misconfigured where it is not there, or still in use."""
        ...


def only(wanted: Wanted, *members: str) -> Wanted:
    """What is wanted, where it is nothing but these; raises Misconfigured for an option that means nothing here."""
    options = {"model": "--name", "deployment": "--as", "units": "--units", "categories": "--categories"}
    given = [name for name, value in wanted._asdict().items() if value is not None]
    if strange := [options[name] for name in given if name not in members]:
        raise Misconfigured(f"{', '.join(strange)}: means nothing for this account's provider")
    return wanted
