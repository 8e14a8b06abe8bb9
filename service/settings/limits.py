"""What an account may be asked for."""

from typing import Annotated

from pydantic import (
    Field,
)

from service.settings.values import Branch


class Limits(Branch):
    """What an account may be asked for; None is no limit of that kind."""

    in_flight: Annotated[int, Field(ge=1, le=10_000)] = 16
    """Calls at once: jobs of Azure Language or Comprehend, documents at a Comprehend endpoint."""
    requests_per_second: Annotated[float, Field(gt=0)] | None = None
    """HTTP requests a second, polls included."""
    requests_per_minute: Annotated[float, Field(gt=0)] | None = None
    """HTTP requests a minute, polls included."""
    documents_per_second: Annotated[float, Field(gt=0)] | None = None
    """Documents a second; a Comprehend endpoint takes 2 for each of its inference units."""
    characters_per_second: Annotated[float, Field(gt=0)] | None = None
    """Characters of text a second; a Comprehend endpoint takes 100 for each of its inference units."""
