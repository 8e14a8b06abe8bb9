"""Who else is asked of a document than the accounts of its stream: when these are unsure, and of a share, on trial."""

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from service.settings.routes import Condition
from service.settings.values import Branch, Share


def _one_is_a_list(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


Names = Annotated[tuple[str, ...], Field(min_length=1), BeforeValidator(_one_is_a_list)]
"""Accounts in order of preference, the first that can answer; one need not be a list."""


class Trial(Branch):
    """A classifier on trial, for a share of the documents; it is always the same ones, by their ids.

    Each of them is asked of both, so both are billed, and both spend what may be spent. What comes of it is told by
    `/metrics` and `labelstream trial`.
    """

    ask: Names
    """Accounts of the candidate in order of preference, the first that can answer; one need not be a list."""
    share: Annotated[Share, Field(gt=0)]
    """The share of the documents, 0.05 for one in twenty."""
    waiting: Annotated[int, Field(ge=1)] = 1_000
    """How many may wait for whoever is asked beside, or be out there; what is more is not asked, and counted."""


class Unsure(Branch):
    """A second stage: documents whose answer is unsure are asked of other accounts, whose answer then counts.

    They are gathered into batches anew, and stay in hand until they have their last answer. One that the first stage
    refuses goes on, too.
    """

    when: Condition
    """What an answer is that is unsure, in the language of routes."""
    ask: Names
    """Accounts in order of preference, the first that can answer; one need not be a list."""
    unanswered: Literal["hold", "first_answer"] = "hold"
    """What becomes of documents while none of these can answer (down, or money spent), and of those that they refuse.

    `hold` waits, and makes dead letters of what is refused; `first_answer` publishes what the first stage said.
    """
