"""Which results are copied where: conditions on a result and its document, and rules made of them."""

from collections.abc import Iterator
from typing import Annotated, Self

from pydantic import Field, field_validator, model_validator

from service.settings.values import Branch, Pointer, Share, Topic, Whole

Texts = Annotated[tuple[Annotated[str, Field(min_length=1)], ...], Field(min_length=1)]
Scalars = Annotated[tuple[str | bool | int | float, ...], Field(min_length=1)]


class Condition(Branch):
    """What may be asked of a result and its document; where several things are given, all of them must hold.

    What counts as certain (a class without a score) is as high as any score.
    """

    class_: Texts | None = Field(default=None, alias="class")
    """A class that the result has, or several, one of which it has; one need not be a list."""
    at_least: Share | None = None
    """The score that `class` has at least, else what `thresholds` say of it; a class without a score is certain."""
    severity_at_least: Annotated[int, Field(ge=1, le=7)] | None = None
    """The severity that `class` has at least, where without one it counts as severe; or any class, if none is named."""
    best: Texts | None = None
    """What the best class is, or one of several; one need not be a list."""
    best_at_least: Share | None = None
    """What the best score is at least; no class at all counts as 0."""
    best_below: Share | None = None
    """What the best score is below; no class at all counts as 0."""
    margin_at_least: Share | None = None
    """How far the best score is at least above the second, which is 0 where there is none."""
    margin_below: Share | None = None
    """What that is below; no class at all counts as 0."""
    labels_at_least: Whole | None = None
    """How many classes there are at least, of those that reach their `thresholds`."""
    labels_at_most: Whole | None = None
    """How many of them there are at most."""
    language: Texts | None = None
    """The document's language, or one of several; `de` is also `de-AT`. None is none of them."""
    characters_at_least: Whole | None = None
    """How many characters the document's text has at least."""
    characters_below: Whole | None = None
    """What the number of characters is below."""
    headers: dict[str, Texts] | None = None
    """What headers of the record are: one of these values each, or anything where one of them is `*`."""
    fields: dict[Pointer, Scalars] | None = None
    """What is in a JSON record at these pointers: one of these values each, alone or in a list; `*` is anything."""
    all: Annotated[tuple["Condition", ...], Field(min_length=1)] | None = None
    """Conditions that all hold."""
    any: Annotated[tuple["Condition", ...], Field(min_length=1)] | None = None
    """Conditions of which at least one holds."""
    not_: "Condition | None" = Field(default=None, alias="not")
    """A condition that does not hold."""

    @field_validator("class_", "best", "language", mode="before")
    @classmethod
    def _one_is_a_list(cls, value: object) -> object:
        return [value] if isinstance(value, str) else value

    @field_validator("headers", "fields", mode="before")
    @classmethod
    def _one_of_each_is_a_list(cls, value: object) -> object:
        if not isinstance(value, dict):
            return value
        return {key: each if isinstance(each, list | tuple) else [each] for key, each in value.items()}

    @model_validator(mode="after")
    def _something_is_asked(self) -> Self:
        if not self.model_fields_set & Condition.model_fields.keys():
            raise ValueError(
                "give a condition, such as class or best_below; what no rule takes goes where otherwise says"
            )
        if self.at_least is not None and self.class_ is None:
            raise ValueError("at_least goes with class; of the best score, ask best_at_least")
        return self

    def conditions(self) -> Iterator["Condition"]:
        """This one, and all that it is made of."""
        yield self
        for part in (*(self.all or ()), *(self.any or ()), *((self.not_,) if self.not_ else ())):
            yield from part.conditions()


class Route(Condition):
    """A copy of the result to other topics, where the condition holds."""

    name: Annotated[str, Field(pattern=r"^[^\s]{1,100}$")] | None = None
    """What results call the rule; else `routes[0]`, by its place."""
    to: Annotated[tuple[Topic, ...], Field(min_length=1)]
    """The topics that get the copy; one need not be a list."""

    @field_validator("to", mode="before")
    @classmethod
    def _one_topic_is_a_list(cls, value: object) -> object:
        return [value] if isinstance(value, str) else value
