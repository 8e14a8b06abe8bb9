"""Two answers of one document, side by side. Pure."""

from dataclasses import dataclass

from service.documents import Classified, Outcome, Refused


@dataclass(frozen=True, slots=True)
class Compared:
    """What the present classifier and the candidate said of a document, how long each took, and what it cost."""

    present: Outcome
    candidate: Outcome
    present_seconds: float
    candidate_seconds: float
    present_cost: float
    candidate_cost: float

    @property
    def best(self) -> tuple[str, str] | None:
        """The best class of both, empty where there is none; None where one of them has refused the document."""
        if isinstance(self.present, Refused) or isinstance(self.candidate, Refused):
            return None
        return _best(self.present), _best(self.candidate)

    @property
    def shift(self) -> float | None:
        """How much surer the candidate is of its best class; None where one gives no score."""
        if isinstance(self.present, Refused) or isinstance(self.candidate, Refused):
            return None
        scores = [outcome.classes[0].score for outcome in (self.present, self.candidate) if outcome.classes]
        return scores[1] - scores[0] if len(scores) == 2 and None not in scores else None  # type: ignore[operator]


def _best(outcome: Classified) -> str:
    return outcome.classes[0].name if outcome.classes else ""
