"""The embedded model: answered by this process itself, in threads of its own, so the event loop never waits for it."""

import asyncio
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from service import settings
from service.documents import Classified, Document, Outcome
from service.errors import Misconfigured, ModelError
from service.model.classifier import Classifier


class Local:
    """A trained model of `labelstream models train`; nothing leaves the machine and nothing is billed.

    Raises Misconfigured where the model cannot be read.
    """

    documents_per_call = 256
    characters_per_call = 1_000_000
    characters_per_document = 1_000_000
    bytes_per_call = bytes_per_document = 4_000_000  # only characters are counted

    def __init__(self, local: settings.Local) -> None:
        try:
            self._classifier = Classifier.load(local.model)
        except ModelError as error:
            raise Misconfigured(f"model: {error}") from None
        self._threads = ThreadPoolExecutor(local.threads, thread_name_prefix="model")
        self.model = f"{self._classifier.name}@{self._classifier.digest}"
        self.task = self._classifier.task
        self.classes = self._classifier.labels

    async def classify(self, documents: Sequence[Document]) -> list[Outcome]:
        """One outcome for each document: in single-label classification the best five classes, else all that apply."""
        texts = [document.text for document in documents]
        answers = await asyncio.get_running_loop().run_in_executor(self._threads, self._classifier.classify, texts)
        return [Classified(classes) for classes in answers]

    async def probe(self) -> None:
        """The model was read when this object was made: there is nothing else to see."""

    def close(self) -> None:
        """Let the threads end."""
        self._threads.shutdown(wait=False, cancel_futures=True)
