"""The life of embedded models: versions in the folder that the account reads, of which one is in use.

A version is `versions/NAME/model.zip` below the account's `model`, with what it is worth beside it, in
`evaluation.json`. To deploy one is to put a copy of it in place as the folder's own `model.zip`, in one step: until
then, what was in use stays so. A process that runs goes on with what it has read at its start.
"""

import asyncio
import json
import re
import shutil
import threading
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path

from service import settings
from service.errors import Misconfigured, ModelError
from service.lifecycle.training_data import named_after
from service.lifecycle.verbs import Deployed, Doomed, Evaluation, Labelled, Model, Trained, Wanted, only
from service.model import archive
from service.model.classifier import FILE_NAME, Classifier
from service.model.examples import Example, infer_task
from service.progress import Waiting

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,49}")
_EVALUATION = "evaluation.json"


class LocalLife:
    """The models of a `local` account."""

    def __init__(self, branch: settings.Local, progress: Waiting) -> None:
        self._versions = Versions(branch.model)
        self._progress = progress

    async def train(self, wanted: Labelled) -> Trained:
        """As `Life.train`: a version that is called after its rows is made once, one with a name of its own anew."""
        name = wanted.name or named_after(wanted.rows)
        if wanted.name is None and (known := await asyncio.to_thread(self._versions.find, name)) is not None:
            return Trained(known, await asyncio.to_thread(self._versions.evaluation, name))
        self._progress.broken_off = "no longer training; nothing of it is kept"
        self._progress.step(f"training {name} on {len(wanted.rows):,} documents")
        broken_off = threading.Event()

        def advance(done: float, _: str) -> None:
            if broken_off.is_set():
                raise _BrokenOff
            self._progress.advance(done)

        try:
            return await asyncio.to_thread(self._versions.train, name, wanted.rows, advance)
        finally:
            broken_off.set()

    async def evaluate(self, model: str | None) -> Evaluation:
        """As `Life.evaluate`: by cross-validation over the rows that it was made from."""
        return await asyncio.to_thread(self._versions.evaluation, model)

    async def deploy(self, wanted: Wanted) -> Deployed:
        """As `Life.deploy`."""
        name = only(wanted, "model").model
        return await asyncio.to_thread(self._versions.deploy, name)

    async def list(self) -> list[Model]:
        """As `Life.list`."""
        return await asyncio.to_thread(self._versions.models)

    async def delete(self, doomed: Doomed) -> None:
        """As `Life.delete`: a version that is not in use, or all of them and the model in use."""
        await asyncio.to_thread(self._versions.delete, doomed)


class Versions:
    """The versions in an account's folder; everything here is for threads, and raises Misconfigured."""

    def __init__(self, folder: Path) -> None:
        if folder.is_file():
            raise Misconfigured(f"model {folder} is a file, and versions are kept in a folder: name that")
        self._folder = folder
        self._versions = folder / "versions"

    def train(self, name: str, rows: Sequence[Example], progress: Callable[[float, str], None]) -> Trained:
        """Make a version. Raises ExamplesError, too."""
        from service.model.train import train  # noqa: PLC0415  a second of scikit-learn that nothing else needs

        at = self._at(name)
        made = train(rows, task=infer_task(rows), name=self._folder.resolve().name, progress=progress)
        worth = Evaluation.of(made.estimate)
        try:
            archive.write(at / _EVALUATION, archive.json_bytes(worth.to_json()))
            made.save(at)
        except OSError as error:
            raise Misconfigured(f"model {at} cannot be written: {error.strerror}") from None
        return Trained(self._shown(at), worth, made.warnings)

    def find(self, name: str) -> Model | None:
        """A version, if there is one of this name."""
        at = self._at(name)
        return self._shown(at) if (at / FILE_NAME).is_file() else None

    def models(self) -> list[Model]:
        """All versions, the newest first; a model in use that is none of them comes first of all."""
        found = [self._shown(at) for at in self._all()]
        used = self._used()
        if used is not None and not any(model.deployed_as for model in found):
            found.insert(0, Model(f"{used.name}@{used.digest}", "trained", _made(self._folder), (str(self._folder),)))
        return found

    def evaluation(self, name: str | None) -> Evaluation:
        """What a version is worth, or the one in use."""
        if name is None:
            used = next((one.name for one in self.models() if one.deployed_as), None)
            if used is None:
                raise Misconfigured(f"no model is in use in {self._folder}: deploy one, or name one of its versions")
            at = self._versions / used
        else:
            at = self._known(name)
        try:
            return Evaluation.parse(json.loads((at / _EVALUATION).read_bytes()))
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            raise Misconfigured(f"{at.name} has no figures of its own: give a file of labelled rows") from None

    def deploy(self, name: str | None) -> Deployed:
        """Put a version in use, or the newest."""
        at = next(iter(self._all()), None) if name is None else self._known(name)
        if at is None:
            raise Misconfigured(f"there is no version in {self._versions} to deploy: train one")
        self._load(at)
        try:
            archive.write(self._folder / FILE_NAME, (at / FILE_NAME).read_bytes())
        except OSError as error:
            raise Misconfigured(f"model {self._folder} cannot be written: {error.strerror}") from None
        note = "a process that runs goes on with what it has read, until it is started again"
        return Deployed(at.name, str(self._folder), (note,))

    def delete(self, doomed: Doomed) -> None:
        """As `Life.delete`."""
        if doomed.kind == "deployment":
            raise Misconfigured("an embedded model has no deployment: delete a version, or --all")
        try:
            if doomed.kind == "all":
                self._delete_all()
                return
            at = self._known(doomed.name)
            if self._shown(at).deployed_as:
                raise Misconfigured(f"{doomed.name} is in use: deploy another version first, or delete --all")
            shutil.rmtree(at)
        except OSError as error:
            raise Misconfigured(f"model {self._folder} cannot be deleted: {error.strerror}") from None

    def _delete_all(self) -> None:
        if not self.models():
            raise Misconfigured(f"there is nothing to delete in {self._folder}")
        (self._folder / FILE_NAME).unlink(missing_ok=True)
        if self._versions.exists():
            shutil.rmtree(self._versions)

    def _at(self, name: str) -> Path:
        if not _NAME.fullmatch(name):
            raise Misconfigured(f"--name {name!r}: a version is named by up to 50 letters, digits and _ . -")
        return self._versions / name

    def _known(self, name: str) -> Path:
        at = self._at(name)
        if not (at / FILE_NAME).is_file():
            there = ", ".join(one.name for one in self._all()) or "none"
            raise Misconfigured(f"there is no version {name!r} in {self._versions}; there is {there}")
        return at

    def _all(self) -> list[Path]:
        found = [at.parent for at in self._versions.glob(f"*/{FILE_NAME}")]
        return sorted(found, key=lambda at: ((at / FILE_NAME).stat().st_mtime_ns, at.name), reverse=True)

    def _used(self) -> Classifier | None:
        return self._load(self._folder) if (self._folder / FILE_NAME).exists() else None

    def _shown(self, at: Path) -> Model:
        classifier, used = self._load(at), self._used()
        in_use = used is not None and used.digest == classifier.digest
        more = {"task": classifier.task, "classes": list(classifier.labels), "digest": classifier.digest}
        return Model(at.name, "trained", _made(at), (str(self._folder),) if in_use else (), more)

    def _load(self, at: Path) -> Classifier:
        try:
            return Classifier.load(at)
        except ModelError as error:
            raise Misconfigured(f"model {error}") from None


class _BrokenOff(Exception):
    """Nobody waits for the training any more."""


def _made(at: Path) -> str:
    return datetime.fromtimestamp((at / FILE_NAME).stat().st_mtime, UTC).isoformat(timespec="seconds")
