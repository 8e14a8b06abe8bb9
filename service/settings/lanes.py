"""Who else is asked of a document than the accounts of its stream: when these are unsure, and of a share, on trial."""

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from service.settings.routes import Condition
from service.settings.values import Branch


def _one_is_a_list(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


Names = Annotated[tuple[str, ...], Field(min_length=1), BeforeValidator(_one_is_a_list)]
"""Accounts in order of preference, the first that can answer; one need not be a list."""


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
