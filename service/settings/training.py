"""Where training data is put for an Azure service to read: only `labelstream models` asks."""

from pathlib import Path
from typing import Annotated, Self

from pydantic import Field, SecretStr, model_validator

from service.settings.values import Branch, secret_of


class TrainingData(Branch):
    """Where labelled documents are put, for a service that is allowed to read there by itself: it is told no secret."""

    container: SecretStr | None = None
    """Where they are put: `https://ACCOUNT…/NAME?SIGNATURE`, or `NAME=FOLDER`; give this or `container_file`."""
    container_file: Path | None = None
    """A file that holds `container`, as a signature lets whoever has it write."""

    @model_validator(mode="after")
    def _whole(self) -> Self:
        secret_of(self.container, self.container_file, "container")
        return self

    @property
    def place(self) -> SecretStr:
        """`container`, from wherever it is kept."""
        return secret_of(self.container, self.container_file, "container")


class LanguageTraining(TrainingData):
    """What a project of custom text classification is made with, beside the labelled rows.

    The resource has to be connected to the storage account of the container, and allowed to read there: it is told the
    container's name and no secret.
    """

    language: Annotated[str, Field(pattern=r"^[a-z]{2,3}(-[A-Za-z0-9]{2,8}){0,2}$")] = "en"
    """The language of the documents."""
    multilingual: bool = False
    """Whether the project is to classify documents in other languages, too."""
    testing_percentage: Annotated[int, Field(ge=1, le=50)] = 20
    """Percent of the documents that are set aside to evaluate the model; the preview of 2021 sets its own aside."""
    project: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]{1,50}$")] | None = None
    """Only for the preview `v3.1-preview.ct.1`, whose accounts name none: the project that is made."""


class CategoryTraining(TrainingData):
    """What a custom category of Content Safety is made from, beside the labelled rows."""

    definition: Annotated[str, Field(min_length=1, max_length=1_000)]
    """What the category is, in a few sentences for the service to go by."""
