"""Who can classify: every kind of account."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import (
    Field,
)

from service.settings.amazon import Comprehend, ComprehendJobs
from service.settings.azure import AzureLanguage, ContentSafety, ContentUnderstanding
from service.settings.limits import Limits, Price
from service.settings.values import Branch


class Local(Branch):
    """A model trained by `labelstream models train`, answered on this machine."""

    provider: Literal["local"]
    """What kind of account this is."""
    model: Path
    """The folder of the trained model."""
    threads: Annotated[int, Field(ge=1, le=64)] = 2
    """How many batches are answered at once, where `processes` is 0."""
    processes: Annotated[int, Field(ge=0, le=64)] = 0
    """How many processes answer in place of the threads, with a copy of the model each; each worker has its own."""

    @property
    def limits(self) -> Limits:
        """As many calls at once as there are threads, or twice as many as processes: none waits for its next."""
        return Limits(in_flight=2 * self.processes or self.threads)

    @property
    def price(self) -> Price:
        """None: it is your own machine."""
        return Price()


Account = Annotated[
    AzureLanguage | ContentSafety | ContentUnderstanding | Comprehend | ComprehendJobs | Local,
    Field(discriminator="provider"),
]


def has_jobs(account: Account) -> bool:
    """Whether an account answers through jobs."""
    return hasattr(account, "job_deadline")
