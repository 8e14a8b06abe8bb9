"""The life of a project of custom text classification in 2021: Azure Language's authoring API v1.0-preview.2.

It is that of accounts with a `model_id` (runtime v3.1-preview.ct.1). To train is to put the documents and their labels
file into the container, to create the project, and to train; to deploy is to publish, which gives the `model_id` that
the account is to have.

This API lists neither projects nor models nor trainings. So a model that is called after its rows is found by its
evaluation, and not trained again, but a training that is under way cannot be seen: whoever gives the command again
before it has ended has it trained once more. And a model that is to be deployed or looked at has to be named.

Chosen where the page of the service is silent: a project that is there (409) is gone on with, as its labels file is
new; an evaluation that has not ended ten minutes after its training is not waited for.
"""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote

import orjson

from service import settings
from service.errors import Misconfigured
from service.lifecycle.azure_language import MADE_BEFORE
from service.lifecycle.azure_language_evaluation import evaluation
from service.lifecycle.azure_language_labels import called, documents, labels_file
from service.lifecycle.azure_language_project import has_ended, is_missing, refusal
from service.lifecycle.containers import Container, put_all
from service.lifecycle.training_data import named_after
from service.lifecycle.verbs import Deployed, Doomed, Evaluation, Labelled, Model, Trained, Wanted, only
from service.lifecycle.waiting import answered, until
from service.progress import Waiting
from service.providers.azure import DONE, ENDED_BADLY, Exchange, Resource, json_of, rules_of_changes, word

_KINDS = {"single_label": "SingleClassification", "multi_label": "MultiClassification"}
_FEWEST_OF_A_CLASS = 10
_LONGEST_EVALUATION = 600.0
_RULES = rules_of_changes("training.project and --name", {}, {"InvalidArgument": "", "InvalidRequest": ""})


class PreviewLife:
    """The project that the `training` of an `azure_language` account names."""

    def __init__(
        self, branch: settings.AzureLanguage, http: Exchange, container: Container | None, progress: Waiting
    ) -> None:
        if branch.training is None or branch.training.project is None or container is None:
            raise Misconfigured("training is missing: project, and where documents are put for the service to read")
        self._task, self._model_id = branch.task, branch.model_id
        self._training, self._project = branch.training, branch.training.project
        self._container = container
        self._progress = progress
        path = "/language/text/authoring/v1.0-preview.2/projects"
        self._resource = Resource(branch, http, _RULES, path)

    async def train(self, wanted: Labelled) -> Trained:
        """As `Life.train`."""
        key = named_after(wanted.rows, self._task, self._training.language, str(self._training.multilingual))
        name = called(wanted.name, key)
        found = documents(wanted.rows, self._task, key, fewest_of_a_class=_FEWEST_OF_A_CLASS)
        if wanted.name is None and (worth := await self._worth(key)) is not None:
            return Trained(Model(key, "trained"), worth, (MADE_BEFORE,))
        labels = f"{self._project}-labels.json"
        self._progress.step(f"putting {len(found.documents):,} documents into {self._container.name}")
        blobs = [(one.blob, one.text.encode()) for one in found.documents]
        await put_all(self._container, blobs, self._progress)
        file = orjson.dumps(labels_file(found, self._training.language))
        await put_all(self._container, [(labels, file)], self._progress)
        await answered(lambda: self._created(labels), self._progress.say)
        job = await answered(lambda: self._begun("train", name), self._progress.say)
        self._progress.step(f"training {name}")
        self._progress.broken_off = (
            f"the service goes on training {name}, unseen: give the same command again when it has had its time,"
            " or it is trained and paid for twice"
        )
        await self._trained(job, name, [one.text for one in found.documents])
        return Trained(Model(name, "trained"), await self._worth(name), found.notes)

    async def evaluate(self, model: str | None) -> Evaluation:
        """As `Life.evaluate`: on the documents that the service has set aside."""
        if model is None:
            raise Misconfigured("--name is missing: this version of the API does not tell which models there are")
        worth = await self._worth(model)
        if worth is None:
            raise Misconfigured(f"there is no trained model {model!r} in project {self._project}, or no figures of it")
        return worth

    async def deploy(self, wanted: Wanted) -> Deployed:
        """As `Life.deploy`: by publishing."""
        name = only(wanted, "model").model
        if name is None:
            raise Misconfigured("--name is missing: this version of the API does not tell which models there are")
        self._progress.step(f"publishing {name}")
        job = await answered(lambda: self._begun("publish", name), self._progress.say)
        model_id = await until(lambda: self._published(job, name), self._progress.say)
        is_asked = model_id == self._model_id
        notes = () if is_asked else (f"the account asks {self._model_id} until it has model_id: {model_id}",)
        return Deployed(name, model_id, notes)

    async def list(self) -> list[Model]:
        """There is no list."""
        raise Misconfigured(
            "api_version v3.1-preview.ct.1 has no list of models: `models evaluate --name` looks whether one is there"
        )

    async def delete(self, doomed: Doomed) -> None:
        """As `Life.delete`: the project, with its models and what is published of them."""
        if doomed.kind != "all":
            raise Misconfigured(f"this version of the API deletes no single {doomed.kind}, only the project: --all")
        self._progress.step(f"deleting project {self._project}")
        if not await answered(self._deleted, self._progress.say):
            raise Misconfigured(f"there is no project {self._project!r} to delete")

    async def _created(self, labels: str) -> None:
        project = {
            "name": self._project,
            "modelType": _KINDS[self._task],
            "multiLingual": self._training.multilingual,
            "description": "made by labelstream models",
            "culture": self._training.language,
            "storageInputContainerName": self._container.name,
            "labelsLocation": labels,
        }
        answer = await self._resource.ask("POST", self._resource.url(), orjson.dumps(project))
        if not (answer.is_success or answer.status_code == 409):
            raise refusal(self._resource, answer)

    async def _begun(self, what: str, model: str) -> str:
        """A job that trains or publishes a model."""
        body = orjson.dumps({"tasks": [{"trainingModelName": model}]})
        answer = await self._resource.ask("POST", self._url(f"/{what}"), body)
        if not answer.is_success:
            raise refusal(self._resource, answer)
        location = answer.headers.get("location") or answer.headers.get("operation-location")
        if location is None:
            raise Misconfigured(f"{self._resource.host} began a job and does not tell where it is: check endpoint")
        return self._resource.ours(location)

    async def _trained(self, job: str, name: str, texts: Sequence[str]) -> None:
        """Wait until a training and its evaluation have ended. Raises Misconfigured where the training ended badly."""
        clock, trained_at = asyncio.get_running_loop().time, None

        async def look() -> bool | None:
            nonlocal trained_at
            task = await self._job(job, f"{name} was not trained", texts)
            if task is None:
                return None
            trained_at = trained_at or clock()
            self._progress.advance(0.5)
            told = task.get("evaluationStatus")
            evaluated = word(told.get("status") if isinstance(told, dict) else None)
            return evaluated in DONE | ENDED_BADLY | {""} or clock() > trained_at + _LONGEST_EVALUATION or None

        await until(look, self._progress.say)
        self._progress.advance(1)

    async def _published(self, job: str, name: str) -> str | None:
        task = await self._job(job, f"{name} was not published", ())
        return None if task is None else str(task.get("modelId"))

    async def _job(self, job: str, otherwise: str, texts: Sequence[str]) -> Mapping[str, Any] | None:
        """The one task of a job, once that has ended well. Raises Misconfigured where it has not."""
        page = await self._resource.page(job)
        tasks = page.get("tasks")
        task = tasks[0] if isinstance(tasks, list) and tasks and isinstance(tasks[0], dict) else {}
        if not page.get("errors") and task.get("error"):
            page = {**page, "errors": [task["error"]]}
        return task if has_ended(page, otherwise, texts) else None

    async def _worth(self, model: str) -> Evaluation | None:
        told = await answered(lambda: self._evaluated(model), self._progress.say)
        return None if told is None else evaluation(told, self._task)

    async def _evaluated(self, model: str) -> dict[str, Any] | None:
        answer = await self._resource.ask("GET", self._url("/evaluation", trainingModelName=model))
        if is_missing(answer):
            return None
        if not answer.is_success:
            raise refusal(self._resource, answer)
        told = json_of(answer)
        if not isinstance(told, dict):
            raise self._resource.malformed("what is no JSON object: is something else at endpoint?")
        return told

    async def _deleted(self) -> bool:
        answer = await self._resource.ask("DELETE", self._url())
        if not (answer.is_success or is_missing(answer)):
            raise refusal(self._resource, answer)
        return answer.is_success

    def _url(self, path: str = "", **query: str) -> str:
        return self._resource.url(f"/{quote(self._project)}{path}", **query)
