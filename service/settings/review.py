"""What people decide: where they are asked, where they answer, and what they may say."""

from typing import Self

from pydantic import model_validator

from service.settings.values import Branch, Seconds, Topic


class Review(Branch):
    """Human review: copies that the routes send to `topic` have the text, the reason, and the classes on offer.

    The text is the one that the classifier saw, so with `redact` what is personal in it is replaced. What a person
    decides is joined to the result by `labelstream reviews`.
    """

    topic: Topic
    """The topic that reviewers read; the routes, or `otherwise`, say what goes there."""
    decisions: Topic
    """The topic that they write to: `{"question": …, "labels": […]}`."""
    classes: tuple[str, ...] = ()
    """The classes on offer; else those of the accounts, where they tell them, and otherwise any."""
    within: Seconds = 7 * 86_400
    """Decisions that come later after their question are late: exported, but not counted as agreement."""

    @model_validator(mode="after")
    def _two_topics(self) -> Self:
        if self.topic == self.decisions:
            raise ValueError(f"the topic {self.topic!r} is given twice: decisions need one of their own")
        return self
