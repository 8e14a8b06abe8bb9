"""The life of a project of custom text classification: Azure Language's authoring API of 2022 and later.

To train is to put the documents into the project's container, to import their labels (`:import`, which makes the
project, or replaces the labels that it had), and to train (`:train`), which is paid for by the hour. A model is called
after its rows unless it is given a name. A training that is under way is waited for, and a model whose evaluation tells
that it was tested on documents of the same rows is as good as new, so the same command pays once. A project trains one
model at a time: that of another name is waited for first. Documents stay in the container when a project is deleted.

The version of the API is 2022-05-01 where the account's is that, and else 2023-04-01: versions of the runtime that are
later have no authoring that is known here, and `v3.2-preview.2` asks for the same projects and deployments.
"""

from collections.abc import Sequence
from contextlib import suppress
from urllib.parse import quote

from service import settings
from service.errors import Misconfigured, Unavailable
from service.lifecycle.azure_language_evaluation import evaluation
from service.lifecycle.azure_language_labels import Documents, assets, called, documents
from service.lifecycle.azure_language_project import Project, has_ended, is_pending, share, training_model
from service.lifecycle.containers import Container, put_all
from service.lifecycle.training_data import named_after
from service.lifecycle.verbs import Deployed, Doomed, Evaluation, Labelled, Model, Trained, Wanted, only
from service.lifecycle.waiting import answered, until
from service.progress import Waiting
from service.providers.azure import Exchange, word

_KINDS = {"single_label": "CustomSingleLabelClassification", "multi_label": "CustomMultiLabelClassification"}
_CONFIGURATION = "2022-05-01"
_BETWEEN_TRAININGS = 30.0
MADE_BEFORE = "it was made of the same rows before, and is not trained again"


class ProjectLife:
    """The project of an `azure_language` account."""

    def __init__(
        self, branch: settings.AzureLanguage, http: Exchange, container: Container | None, progress: Waiting
    ) -> None:
        self._task, self._training = branch.task, branch.training
        self._deployment = str(branch.deployment)
        self._project = Project(branch, http, progress.say)
        self._container = container
        self._progress = progress

    async def train(self, wanted: Labelled) -> Trained:
        """As `Life.train`."""
        training, container = self._training, self._container
        if training is None or container is None:
            raise Misconfigured("training is missing: say there where documents are put for the service to read")
        how = (self._task, training.language, str(training.multilingual), str(training.testing_percentage))
        key = named_after(wanted.rows, *how)
        found, name = documents(wanted.rows, self._task, key), called(wanted.name, key)
        await self._see_kind()
        job = await answered(lambda: self._under_way(name), self._progress.say)
        if job is not None:
            self._progress.say(f"{name} is being trained already, and is waited for")
        elif await self._was_made_of(key, name):
            return Trained(self._named(name, await self.list()), await self._worth(name), (MADE_BEFORE,))
        else:
            self._progress.step(f"putting {len(found.documents):,} documents into {container.name}")
            await put_all(container, [(one.blob, one.text.encode()) for one in found.documents], self._progress)
            await self._import(found, training, container)
            job = await answered(lambda: self._begun(name, training), self._progress.say)
        self._progress.step(f"training {name}")
        await self._trained(job, name, [one.text for one in found.documents])
        return Trained(self._named(name, await self.list()), await self._worth(name), found.notes)

    async def evaluate(self, model: str | None) -> Evaluation:
        """As `Life.evaluate`: on the documents that the service has set aside."""
        found = await self.list()
        if model is None:
            asked = (one for one in found if self._deployment in one.deployed_as)
            name = (next(asked, None) or self._newest(found)).name
        else:
            name = self._named(model, found).name
        worth = await self._worth(name)
        if worth is None:
            raise Misconfigured(f"the service has no figures of {name}: give a file of labelled rows")
        return worth

    async def deploy(self, wanted: Wanted) -> Deployed:
        """As `Life.deploy`."""
        name, deployment, *_ = only(wanted, "model", "deployment")
        found, deployment = await self.list(), deployment or self._deployment
        model = self._newest(found) if name is None else self._named(name, found)
        self._progress.step(f"deploying {model.name} as {deployment}")
        await self._project.change("PUT", f"deployments/{quote(deployment)}", {"trainedModelLabel": model.name})
        is_asked = deployment == self._deployment
        notes = () if is_asked else (f"the account asks {self._deployment} until it has deployment: {deployment}",)
        return Deployed(model.name, f"{self._project.name}/{deployment}", notes)

    async def list(self) -> list[Model]:
        """As `Life.list`: those that are being trained first."""
        return await self._project.models()

    async def delete(self, doomed: Doomed) -> None:
        """As `Life.delete`: `all` is the project, with its models and deployments."""
        paths = {"model": f"models/{quote(doomed.name)}", "deployment": f"deployments/{quote(doomed.name)}", "all": ""}
        path = paths[doomed.kind]
        if doomed.kind == "model":
            model = self._named(doomed.name, await self.list())
            if model.deployed_as:
                deployments = ", ".join(model.deployed_as)
                raise Misconfigured(
                    f"{model.name} answers as {deployments}: deploy another there, or delete that first"
                )
        elif await self._project.find(path) is None:
            what = f"project {self._project.name}" if doomed.kind == "all" else f"{doomed} in {self._project.name}"
            raise Misconfigured(f"there is nothing to delete: {what} is not there")
        self._progress.step(f"deleting {doomed}")
        await self._project.change("DELETE", path)

    async def _see_kind(self) -> None:
        """Raise Misconfigured where the project is there and does another thing than the account's task."""
        project = await self._project.find()
        if project is None:
            return
        if word(project.get("projectKind")) != _KINDS[self._task].casefold():
            raise Misconfigured(f"project {self._project.name} is of another kind than {self._task}: check task")

    async def _under_way(self, name: str) -> str | None:
        """The training of this model that is under way; asks once. Raises Unavailable while another one is."""
        pending = next(filter(is_pending, await self._project.look_all("train/jobs")), None)
        if pending is None:
            return None
        if (trained := training_model(pending)).name != name:
            told = f"{trained.name} is being trained ({trained.state}), and a project trains one model at a time"
            raise Unavailable(told, _BETWEEN_TRAININGS)
        return self._project.url(f"train/jobs/{quote(str(pending.get('jobId')))}")

    async def _was_made_of(self, key: str, name: str) -> bool:
        """Whether there is a model of this name that was tested on documents whose blobs begin with `key`."""
        path = f"models/{quote(name)}"
        if await self._project.find(path) is None:
            return False
        tested = await self._project.find(f"{path}/evaluation/result", stringIndexType="Utf16CodeUnit", top="1")
        with suppress(KeyError, IndexError, TypeError):
            return bool(str((tested or {})["value"][0]["location"]).startswith(f"{key}-"))
        return False

    async def _import(self, found: Documents, training: settings.LanguageTraining, container: Container) -> None:
        kind, version = _KINDS[self._task], self._project.version
        if version == "2022-05-01":
            kind = kind[0].lower() + kind[1:]
        metadata = {
            "projectKind": kind,
            "projectName": self._project.name,
            "storageInputContainerName": container.name,
            "language": training.language,
            "multilingual": training.multilingual,
            "settings": {},
        }
        labels = assets(found, kind, training.language)
        whole = {
            "projectFileVersion": version,
            "stringIndexType": "Utf16CodeUnit",
            "metadata": metadata,
            "assets": labels,
        }
        self._progress.step(f"importing their labels into {self._project.name}, in place of those that it has")
        await self._project.change("POST", ":import", whole)

    async def _begun(self, name: str, training: settings.LanguageTraining) -> str:
        """The training of a model; asks once, and not where its acceptance was merely not heard of."""
        if (job := await self._under_way(name)) is not None:
            return job
        testing = training.testing_percentage
        split = {"kind": "percentage", "trainingSplitPercentage": 100 - testing, "testingSplitPercentage": testing}
        body = {"modelLabel": name, "trainingConfigVersion": _CONFIGURATION, "evaluationOptions": split}
        return await self._project.submit(":train", body)

    async def _trained(self, job: str, name: str, texts: Sequence[str]) -> None:
        """Wait until a training has ended well. Raises Misconfigured where it has not."""

        async def look() -> bool | None:
            page = await self._project.look_at_job(job)
            self._progress.advance(share(page))
            return has_ended(page, f"{name} was not trained", texts) or None

        self._progress.broken_off = f"the service goes on training {name}; the same command waits for it again"
        await until(look, self._progress.say)

    async def _worth(self, name: str) -> Evaluation | None:
        told = await self._project.find(f"models/{quote(name)}/evaluation/summary-result")
        return None if told is None else evaluation(told, self._task)

    def _newest(self, found: Sequence[Model]) -> Model:
        trained = next((one for one in found if one.trained_at is not None), None)
        if trained is None:
            raise Misconfigured(f"there is no trained model in project {self._project.name}: train one")
        return trained

    def _named(self, name: str, found: Sequence[Model]) -> Model:
        trained = {one.name: one for one in found if one.trained_at is not None}
        if name not in trained:
            there = ", ".join(trained) or "none"
            raise Misconfigured(f"there is no model {name!r} in project {self._project.name}; there is {there}")
        return trained[name]
