"""The models of the server: a folder in which each has the name of its content, and those in use in memory."""

import threading
from contextlib import suppress
from pathlib import Path

from service.errors import Misconfigured, ModelError
from service.model import archive
from service.model.classifier import FILE_NAME, Classifier


class Models:
    """The models in a folder, by digest; each is loaded once, when it is first asked for. Safe to use from threads."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._loaded: dict[str, Classifier] = {}
        self._loading = threading.Lock()

    def add(self, source: Path) -> Classifier:
        """Copy a trained model into the folder; raises `Misconfigured`."""
        try:
            classifier = Classifier.load(source)
        except ModelError as error:
            raise Misconfigured(str(error)) from None
        file = self.folder / classifier.digest / FILE_NAME
        try:
            archive.write(file, (source / FILE_NAME if source.is_dir() else source).read_bytes())
        except OSError as error:
            raise Misconfigured(f"model {source} cannot be copied to {file} ({error.strerror})") from None
        self._loaded[classifier.digest] = classifier
        return classifier

    def remove(self, digest: str) -> None:
        """Take a model out of the folder, if it is there; not for the event loop. Raises `OSError`."""
        self._loaded.pop(digest, None)
        (self.folder / digest / FILE_NAME).unlink(missing_ok=True)
        with suppress(FileNotFoundError):
            (self.folder / digest).rmdir()

    def unload(self, digest: str) -> None:
        """Free the memory of a model; it is loaded again when it is asked for."""
        self._loaded.pop(digest, None)

    def has(self, digest: str) -> bool:
        """Whether the folder holds a model."""
        return (self.folder / digest / FILE_NAME).is_file()

    def get(self, digest: str) -> Classifier:
        """A model of the folder; raises `ModelError`."""
        if (classifier := self._loaded.get(digest)) is None:
            with self._loading:
                if (classifier := self._loaded.get(digest)) is None:
                    classifier = self._loaded[digest] = Classifier.load(self.folder / digest)
        return classifier
