"""The verbs for a classifier of Amazon Comprehend: behind an endpoint that is paid for, or asked by jobs.

Its models are its versions, called by what the service calls them; another classifier's are called NAME/version/VERSION
in lists. What the service has measured, on documents that it has set aside, is told when a training ends and by
`evaluate`.
"""

from collections.abc import Sequence
from datetime import UTC, datetime

from service import settings
from service.errors import Misconfigured
from service.lifecycle.comprehend import (
    CHARACTERS_A_UNIT,
    DOCUMENTS_A_UNIT,
    ENDPOINT,
    Classifier,
    Classifiers,
    Deployment,
    Endpoint,
    Plan,
    endpoints,
)
from service.lifecycle.verbs import Deployed, Doomed, Evaluation, Labelled, Model, Trained, Wanted, only
from service.lifecycle.waiting import answered
from service.progress import Waiting
from service.providers.comprehend import Client


class ClassifierLife:
    """What a classifier's life is like whoever asks it."""

    def __init__(self, name: str, plan: Plan, client: Client, s3: Client, progress: Waiting) -> None:
        self._name = name
        self._plan = plan
        self._client = client
        self._classifiers = Classifiers(name, client, s3, progress.say)
        self._progress = progress

    async def train(self, wanted: Labelled) -> Trained:
        """As `Life.train`."""
        if wanted.name is not None:
            raise Misconfigured("--name means nothing here: a version is named by what it is made from")
        self._progress.step(f"training {self._name} on {len(wanted.rows):,} documents")
        version = await self._classifiers.train(wanted.rows, self._plan)
        notes = (version.message,) if version.status == "TRAINED_WITH_WARNING" and version.message else ()
        return Trained(self._shown(version, ()), self._worth(version), notes)

    async def list(self) -> list[Model]:
        """As `Life.list`: all classifiers of the AWS account in the region, the newest first, then all endpoints."""
        versions = await answered(self._classifiers.listed, self._progress.say)
        serving = await answered(lambda: endpoints(self._client), self._progress.say)
        return [*(self._shown(each, serving) for each in versions), *map(_serving, serving)]

    def _worth(self, version: Classifier) -> Evaluation:
        told = version.figures.get("EvaluationMetrics") or {}
        return Evaluation(
            task=self._plan.task,
            documents=version.figures.get("NumberOfTestDocuments"),
            accuracy=told.get("Accuracy"),
            precision_micro=told.get("MicroPrecision"),
            recall_micro=told.get("MicroRecall"),
            f1_micro=told.get("MicroF1Score"),
            precision_macro=told.get("Precision"),
            recall_macro=told.get("Recall"),
            f1_macro=told.get("F1Score"),
            hamming_loss=told.get("HammingLoss"),
        )

    def _shown(self, version: Classifier, serving: Sequence[Endpoint]) -> Model:
        called = version.arn.partition(":document-classifier/")[2]
        own = called.removeprefix(f"{self._name}/version/")
        made = datetime.fromtimestamp(version.submitted, UTC).isoformat(timespec="seconds")
        used = tuple(str(each) for each in serving if each.model == version.arn)
        return Model(own, version.status, made, used, {"arn": version.arn, "figures": version.figures})

    async def _delete_version(self, version: str) -> None:
        await self._classifiers.delete((await self._classifiers.named(version)).arn)

    async def _delete_versions(self) -> None:
        for each in await answered(self._classifiers.versions, self._progress.say):
            await self._classifiers.delete(each.arn)


class EndpointLife(ClassifierLife):
    """A classifier of Comprehend behind an endpoint."""

    def __init__(self, branch: settings.Comprehend, client: Client, s3: Client, progress: Waiting) -> None:
        training = branch.training
        if training is None:
            raise Misconfigured("training is missing: classifier, data_access_role_arn and data_uri")
        plan = _plan(branch.task, training.language, training.data_access_role_arn, training.data_uri)
        super().__init__(training.classifier, plan, client, s3, progress)
        self._account = ":".join(branch.endpoint_arn.split(":")[:5])
        self._own = branch.endpoint_arn.rpartition("/")[2]

    async def evaluate(self, model: str | None) -> Evaluation:
        """As `Life.evaluate`: by default of the version in service, or else of the newest."""
        if model is not None:
            return self._worth(await self._classifiers.chosen(model))
        endpoint = await answered(self._deployment(self._own).found, self._progress.say)
        versions = await answered(self._classifiers.versions, self._progress.say)
        used = next((each for each in versions if endpoint is not None and each.arn == endpoint.model), None)
        return self._worth(used or await self._classifiers.newest())

    async def deploy(self, wanted: Wanted) -> Deployed:
        """As `Life.deploy`."""
        model, deployment, units, _ = only(wanted, "model", "deployment", "units")
        version = await self._classifiers.chosen(model)
        self._progress.step(f"putting {version} into service")
        endpoint = await self._deployment(deployment or self._own).deploy(version.arn, units)
        characters, documents = endpoint.units * CHARACTERS_A_UNIT, endpoint.units * DOCUMENTS_A_UNIT
        takes = (
            f"its {endpoint.units} inference units take {characters:,} characters and {documents:,} documents a second:"
            f" as limits of the account, {{characters_per_second: {characters}, documents_per_second: {documents}}}"
        )
        paid = "it is paid for by the second, asked or not, until it is deleted"
        return Deployed(version.version, str(endpoint), (takes, paid), endpoint._asdict())

    async def delete(self, doomed: Doomed) -> None:
        """As `Life.delete`: an endpoint, a version that none uses, or the account's endpoint and all versions."""
        if doomed.kind == "model":
            await self._delete_version(doomed.name)
            return
        deployment = self._deployment(doomed.name.removeprefix(f"{ENDPOINT}/") or self._own)
        if doomed.kind == "deployment" or await answered(deployment.found, self._progress.say) is not None:
            await deployment.delete()
        if doomed.kind == "all":
            await self._delete_versions()

    def _deployment(self, name: str) -> Deployment:
        return Deployment(f"{self._account}:{ENDPOINT}/{name}", self._client, self._progress.say)


class JobsLife(ClassifierLife):
    """A classifier of Comprehend that is asked by jobs."""

    def __init__(self, branch: settings.ComprehendJobs, client: Client, s3: Client, progress: Waiting) -> None:
        name, _, self._asked = branch.classifier_arn.partition(":document-classifier/")[2].partition("/version/")
        plan = _plan(branch.task, branch.training_language, branch.data_access_role_arn, branch.input_uri)
        super().__init__(name, plan, client, s3, progress)

    async def evaluate(self, model: str | None) -> Evaluation:
        """As `Life.evaluate`: by default of the version that the account asks, or else of the newest."""
        return self._worth(await self._classifiers.chosen(model or self._asked or None))

    async def deploy(self, wanted: Wanted) -> Deployed:
        """As `Life.deploy`: jobs may ask a version as soon as it is trained, and the account says which they do."""
        version = await self._classifiers.chosen(only(wanted, "model").model)
        notes = ["jobs may ask a version as soon as it is trained"]
        if version.version != self._asked:
            notes.append(f"the account asks it once it has classifier_arn: {version.arn}")
        return Deployed(version.version, "jobs", tuple(notes), {"arn": version.arn})

    async def delete(self, doomed: Doomed) -> None:
        """As `Life.delete`: a version, or all."""
        match doomed.kind:
            case "model":
                await self._delete_version(doomed.name)
            case "deployment":
                raise Misconfigured("jobs need no deployment: delete a version, or --all")
            case "all":
                await self._delete_versions()


def _plan(task: str, language: str, role: str, folder: str) -> Plan:
    bucket, _, prefix = folder.removeprefix("s3://").partition("/")
    return Plan(task, language, role, bucket, f"{prefix}/".lstrip("/"))


def _serving(endpoint: Endpoint) -> Model:
    return Model(str(endpoint), endpoint.status, None, (), endpoint._asdict())
