"""What stands behind every API of the server."""

from dataclasses import dataclass, field

from service.server import content_safety_samples
from service.server.comprehend_account import Quotas
from service.server.containers import Containers
from service.server.content_safety_harms import Harms
from service.server.gateway import Window
from service.server.models import Models
from service.server.s3 import S3
from service.server.store import Store
from service.server.training import Trainer


@dataclass(frozen=True, slots=True)
class Backend:
    """State, models, the process that trains them, and where data is read.

    `documented_rates` says whether the request rates of the vendors' documentation are kept; sizes always are, but that
    of Content Safety's sample files, in bytes, is for the operator to choose. `harms` are Content Safety's, too,
    `comprehend_quotas` Comprehend's. `by_meaning` has categories learnt with the extra `embeddings`.
    """

    store: Store
    models: Models
    trainer: Trainer
    containers: Containers
    s3: S3
    documented_rates: bool = False
    harms: Harms = field(default_factory=lambda: Harms({}))
    largest_sample_file: int = content_safety_samples.MOST_BYTES
    comprehend_quotas: Quotas = field(default_factory=Quotas)
    by_meaning: bool = False

    def window(self, limit: int, seconds: float) -> Window | None:
        """A documented rate, where such are kept."""
        return Window(limit, seconds) if self.documented_rates else None
