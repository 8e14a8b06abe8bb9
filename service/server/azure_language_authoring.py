"""Azure Language, custom text classification: the authoring API of 2022 and later, over really trained models.

Under `/language/authoring/analyze-text/projects`::

    GET "" · PATCH, GET, DELETE /{p}                     POST /{p}/:import · POST /{p}/:export, …/jobs/{id}/result
    POST /{p}/:train · GET /{p}/train/jobs[/{id}]         POST /{p}/train/jobs/{id}/:cancel
    GET /{p}/models[/{m}] · DELETE /{p}/models/{m}        GET /{p}/models/{m}/evaluation/summary-result, …/result
    GET /{p}/deployments[/{d}] · PUT, DELETE …/{d}        POST /{p}/deployments/:swap
    GET /global/languages · GET /global/training-config-versions

Versions: 2022-05-01, 2023-04-01 and the previews in `VERSIONS`. What is deployed is answered from at once by the
runtime (`azure_language`). Documents are read from the project's container when a training begins.

Behaviour chosen where the service's is not documented: trainings are jobs that take as long as they take, and
everything else that is told as a job is done when its request is answered; `projectKind` is read in any case and told
in that of the version; a project trains one model at a time (409 Conflict otherwise), and has at most ten models and
ten deployments (400 QuotaExceeded as inner code); a second import replaces what was there; a model that is deployed is
not deleted (409). Percentages are of the documents marked for training, set aside at even distances. `percentComplete`
is 0 until it is 100.

Not done: other kinds of project, snapshots, evaluation on demand, copying between resources, assigning resources.
"""

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import Any

import orjson
from starlette.datastructures import QueryParams
from starlette.responses import Response
from starlette.routing import Route

from service.errors import Misconfigured
from service.model.evaluate import Evaluation
from service.server.azure_language import LANGUAGES, NAME, moment
from service.server.azure_language_labels import FAILURES, TASKS, LabelsError, from_assets, train
from service.server.backend import Backend
from service.server.gateway import Call, Gateway, Operation, Refusal, Resource, answer
from service.server.jobs import Done, Jobs, new_id
from service.server.store import PENDING, Change, Job, State

TRAINING = "azure_language/training"
BASE = "/language/authoring/analyze-text/projects"
VERSIONS = frozenset(
    {
        "2022-05-01",
        "2022-05-15-preview",
        "2022-10-01-preview",
        "2023-04-01",
        "2023-04-15-preview",
        "2024-11-15-preview",
        "2025-05-15-preview",
    }
)
PROJECT, ASSETS, MODEL, DEPLOYMENT, OPERATION = (
    f"language/{what}" for what in ("project", "assets", "model", "deployment", "operation")
)
MOST_BODY = 64 * 2**20
MOST_MODELS = MOST_DEPLOYMENTS = 10
WEEK = 7 * 86_400.0
YEAR = 365 * 86_400.0
CONFIGS = ("2022-05-01", "2023-04-01")
_KINDS = {"single_label": "CustomSingleLabelClassification", "multi_label": "CustomMultiLabelClassification"}
_STATUSES = {
    State.WAITING: "notStarted",
    State.RUNNING: "running",
    State.SUCCEEDED: "succeeded",
    State.PARTIAL: "partiallyCompleted",
    State.FAILED: "failed",
    State.CANCELLED: "cancelled",
}


class Authoring:
    """The operations on projects, models and deployments, over the server's state and jobs."""

    def __init__(self, backend: Backend, jobs: Jobs) -> None:
        self._store = backend.store
        self._jobs = jobs
        self._posts = backend.window(10, 60.0)
        self._gets = backend.window(100, 60.0)

    def routes(self, gateway: Gateway) -> list[Route]:
        """The paths of this API, behind a gateway."""
        read = partial(Operation, "manage", window=self._gets)
        write = partial(Operation, "manage", window=self._posts)
        poll = Operation("poll", self.operation, self._gets)
        p, m, d = f"{BASE}/{{project}}", f"{BASE}/{{project}}/models", f"{BASE}/{{project}}/deployments"
        paths = {
            BASE: {"GET": read(self.projects)},
            f"{BASE}/global/languages": {"GET": read(self.languages)},
            f"{BASE}/global/training-config-versions": {"GET": read(self.configs)},
            f"{BASE}/global/deletion-jobs/{{job_id}}": {"GET": poll},
            f"{p}/:import": {"POST": write(self.import_project)},
            f"{p}/import/jobs/{{job_id}}": {"GET": poll},
            f"{p}/:export": {"POST": write(self.export)},
            f"{p}/export/jobs/{{job_id}}": {"GET": poll},
            f"{p}/export/jobs/{{job_id}}/result": {"GET": read(self.exported)},
            f"{p}/:train": {"POST": Operation("train", self.train, self._posts)},
            f"{p}/train/jobs": {"GET": read(self.trainings)},
            f"{p}/train/jobs/{{job_id}}": {"GET": Operation("poll", self.training, self._gets)},
            f"{p}/train/jobs/{{job_id}}/:cancel": {"POST": Operation("cancel", self.cancel, self._posts)},
            m: {"GET": read(self.models)},
            f"{m}/{{model}}": {"GET": read(self.model), "DELETE": write(self.delete_model)},
            f"{m}/{{model}}/evaluation/summary-result": {"GET": read(self.summary)},
            f"{m}/{{model}}/evaluation/result": {"GET": read(self.documents)},
            d: {"GET": read(self.deployments)},
            f"{d}/:swap": {"POST": write(self.swap)},
            f"{d}/swap/jobs/{{job_id}}": {"GET": poll},
            f"{d}/{{deployment}}": {
                "GET": read(self.deployment),
                "PUT": write(self.deploy),
                "DELETE": write(self.undeploy),
            },
            f"{d}/{{deployment}}/jobs/{{job_id}}": {"GET": poll},
            p: {"GET": read(self.project), "PATCH": write(self.patch), "DELETE": write(self.delete)},
        }
        return [Route(path, Resource(gateway, "azure_language", VERSIONS, does)) for path, does in paths.items()]

    # Projects

    async def projects(self, call: Call) -> Response:
        """All projects."""
        return _page(call, [_shown(call, one) for one in self._store.resources(PROJECT).values()])

    async def project(self, call: Call) -> Response:
        """One project."""
        return answer(_shown(call, self._project(call)[1]))

    async def patch(self, call: Call) -> Response:
        """Make a project, or change one."""
        name = _named(call, "project")
        body, now = _body(await call.body(MOST_BODY)), self._jobs.clock()
        before = self._store.resource(PROJECT, name)
        kept = _project_of(name, {**(before or {}), **{key: value for key, value in body.items() if value is not None}})
        if before and before["task"] != kept["task"]:
            raise _invalid("projectKind of a project cannot be changed.")
        kept |= {"created": before["created"] if before else now, "modified": now}
        await self._store.change(Change(PROJECT, name, kept))
        return answer(_shown(call, kept), 200 if before else 201)

    async def delete(self, call: Call) -> Response:
        """Forget a project, with its models and deployments."""
        name, _ = self._project(call)
        for deployment in self._of(DEPLOYMENT, name):
            await self._store.undeploy(name, deployment)
        gone = [Change(kind, f"{name}/{one}", None) for kind in (MODEL, DEPLOYMENT) for one in self._of(kind, name)]
        await self._store.change(Change(PROJECT, name, None), Change(ASSETS, name, None), *gone)
        return await self._done(call, f"{BASE}/global/deletion-jobs")

    async def import_project(self, call: Call) -> Response:
        """Put labelled documents into a project, which is made if it is not there."""
        name = _named(call, "project")
        body, now = _body(await call.body(MOST_BODY)), self._jobs.clock()
        metadata, assets = _object(body, "metadata"), _object(body, "assets")
        before = self._store.resource(PROJECT, name)
        kept = _project_of(name, metadata)
        if before and before["task"] != kept["task"] and self._of(MODEL, name):
            raise _invalid("metadata.projectKind is not that of the project's models.")
        try:
            await asyncio.to_thread(from_assets, assets)
        except LabelsError as error:
            raise _invalid(str(error)) from None
        kept |= {"created": before["created"] if before else now, "modified": now}
        await self._store.change(Change(PROJECT, name, kept), Change(ASSETS, name, assets))
        return await self._done(call, f"{BASE}/{name}/import/jobs")

    async def export(self, call: Call) -> Response:
        """Make the labelled documents of a project ready to be fetched."""
        name, _ = self._project(call)
        if "stringIndexType" not in call.query:
            raise _invalid("stringIndexType is missing.")
        job_id = new_id()
        url = call.url(f"{BASE}/{name}/export/jobs/{job_id}/result", f"api-version={call.version}")
        return await self._done(call, f"{BASE}/{name}/export/jobs", job_id, resultUrl=url)

    async def exported(self, call: Call) -> Response:
        """The labelled documents of a project."""
        name, kept = self._project(call)
        self._operation(call)
        shown = _shown(call, kept)
        told = ("projectKind", "projectName", "storageInputContainerName", "multilingual", "description", "language")
        return answer(
            {
                "projectFileVersion": call.version,
                "stringIndexType": "Utf16CodeUnit",
                "metadata": {**{key: shown[key] for key in told if key in shown}, "settings": shown["settings"]},
                "assets": {**(self._store.resource(ASSETS, name) or {}), "projectKind": shown["projectKind"]},
            }
        )

    # Trainings and models

    async def train(self, call: Call) -> Response:
        """Begin a training."""
        name, _ = self._project(call)
        body = _body(await call.body(MOST_BODY))
        label = body.get("modelLabel")
        if not isinstance(label, str) or not NAME.fullmatch(label):
            raise _invalid("modelLabel is to be up to 50 letters, digits and _ . -")
        config = body.get("trainingConfigVersion") or CONFIGS[0]
        if config not in {*CONFIGS, "latest"}:
            raise _invalid(f"trainingConfigVersion is to be one of {', '.join(CONFIGS)}.")
        options = _options(body.get("evaluationOptions"))
        if any(job.state in PENDING for job in await self._trainings(name)):
            raise Refusal(409, {"code": "Conflict", "message": "The project is being trained already."})
        models = self._of(MODEL, name)
        if label not in models and len(models) >= MOST_MODELS:
            raise _full(f"A project has at most {MOST_MODELS} models.")
        about = {"project": name, "label": label, "config": config, "options": options}
        job = await self._jobs.submit(TRAINING, orjson.dumps(about), b"{}", call.fault, lifetime=WEEK)
        return _accepted(call, f"{BASE}/{name}/train/jobs/{job.id}")

    async def trainings(self, call: Call) -> Response:
        """All trainings of a project, newest first."""
        name, _ = self._project(call)
        return _page(call, [self._training(job) for job in reversed(await self._trainings(name))])

    async def training(self, call: Call) -> Response:
        """How far a training is."""
        return answer(self._training(await self._found(call)))

    async def cancel(self, call: Call) -> Response:
        """Give a training up."""
        job = await self._found(call)
        if job.state_at(self._jobs.clock()) not in PENDING:
            raise _invalid("The training has ended and cannot be cancelled.")
        await self._jobs.cancel(job)
        return _accepted(call, f"{BASE}/{call.parameter('project')}/train/jobs/{job.id}")

    async def models(self, call: Call) -> Response:
        """All models of a project."""
        name, _ = self._project(call)
        return _page(call, [_model(one) for one in self._of(MODEL, name).values()])

    async def model(self, call: Call) -> Response:
        """One model."""
        return answer(_model(self._model(call)[1]))

    async def delete_model(self, call: Call) -> Response:
        """Forget a model."""
        name, kept = self._model(call)
        project, _, label = name.partition("/")
        if any(one["label"] == label for one in self._of(DEPLOYMENT, project).values()):
            raise Refusal(409, {"code": "Conflict", "message": f"Model {label!r} is deployed."})
        await self._store.change(Change(MODEL, name, None))
        del kept
        return Response(status_code=204)

    async def summary(self, call: Call) -> Response:
        """What a model is worth."""
        _, kept = self._model(call)
        task = kept["task"]
        return answer(
            {
                "projectKind": _kind(call, task),
                f"{_lower(_KINDS[task])}Evaluation": kept["evaluation"],
                "evaluationOptions": kept["options"],
            }
        )

    async def documents(self, call: Call) -> Response:
        """What a model gave each of the documents that it was tested on."""
        _, kept = self._model(call)
        single, kind = kept["task"] == "single_label", _kind(call, kept["task"])
        shown = []
        for location, language, expected, predicted in kept["tested"]:
            result = (
                {"expectedClass": next(iter(expected), None), "predictedClass": next(iter(predicted), None)}
                if single
                else {"expectedClasses": expected, "predictedClasses": predicted}
            )
            named = f"{_lower(_KINDS[kept['task']])}Result"
            shown.append({"location": location, "language": language or "en", "projectKind": kind, named: result})
        return _page(call, shown)

    # Deployments

    async def deployments(self, call: Call) -> Response:
        """All deployments of a project."""
        name, _ = self._project(call)
        return _page(call, [_deployment(one) for one in self._of(DEPLOYMENT, name).values()])

    async def deployment(self, call: Call) -> Response:
        """One deployment."""
        return answer(_deployment(self._deployment(call)[1]))

    async def deploy(self, call: Call) -> Response:
        """Put a model behind a deployment."""
        project, _ = self._project(call)
        name = _named(call, "deployment")
        label = _body(await call.body(MOST_BODY)).get("trainedModelLabel")
        model = self._store.resource(MODEL, f"{project}/{label}")
        if model is None:
            raise _missing("NotFound", f"Project {project!r} has no model {label!r}.")
        known = self._of(DEPLOYMENT, project)
        if name not in known and len(known) >= MOST_DEPLOYMENTS:
            raise _full(f"A project has at most {MOST_DEPLOYMENTS} deployments.")
        await self._put(project, name, model)
        return await self._done(call, f"{BASE}/{project}/deployments/{name}/jobs")

    async def undeploy(self, call: Call) -> Response:
        """Take a deployment away."""
        key, _ = self._deployment(call)
        project, _, name = key.partition("/")
        await self._store.undeploy(project, name)
        await self._store.change(Change(DEPLOYMENT, key, None))
        return await self._done(call, f"{BASE}/{project}/deployments/{name}/jobs")

    async def swap(self, call: Call) -> Response:
        """Put the models of two deployments behind each other's."""
        project, _ = self._project(call)
        body, known = _body(await call.body(MOST_BODY)), self._of(DEPLOYMENT, project)
        names = [str(body.get(f"{which}DeploymentName")) for which in ("first", "second")]
        for name in names:
            if name not in known:
                raise _missing("NotFound", f"Project {project!r} has no deployment {name!r}.")
        models = [self._store.resource(MODEL, f"{project}/{known[name]['label']}") for name in names]
        for name, model in zip(names, reversed(models), strict=True):
            if model is not None:
                await self._put(project, name, model)
        return await self._done(call, f"{BASE}/{project}/deployments/swap/jobs")

    # What there is

    async def languages(self, call: Call) -> Response:
        """The languages that documents may be in."""
        return _page(call, [{"languageName": code, "languageCode": code} for code in sorted(LANGUAGES)])

    async def configs(self, call: Call) -> Response:
        """The versions of training that there are."""
        expires = _day(self._jobs.clock() + YEAR)
        return _page(call, [{"trainingConfigVersion": one, "modelExpirationDate": expires} for one in CONFIGS])

    async def operation(self, call: Call) -> Response:
        """How something went that was done at once."""
        return answer(self._operation(call))

    def _operation(self, call: Call) -> Mapping[str, Any]:
        kept = self._store.resource(OPERATION, call.parameter("job_id"))
        if kept is None or kept["expires"] <= self._jobs.clock():
            raise _missing("NotFound", "There is no such job, or it has expired.")
        shown: Mapping[str, Any] = kept["shown"]
        return shown

    async def _done(self, call: Call, where: str, job_id: str | None = None, **more: object) -> Response:
        """The answer about something that is done already, told as a job."""
        job_id, now = job_id or new_id(), self._jobs.clock()
        shown = {
            "jobId": job_id,
            "createdDateTime": moment(now),
            "lastUpdatedDateTime": moment(now),
            "expirationDateTime": moment(now + WEEK),
            "status": "succeeded",
            "warnings": [],
            "errors": [],
            **more,
        }
        old = [name for name, one in self._store.resources(OPERATION).items() if one["expires"] <= now]
        kept = {"shown": shown, "expires": now + WEEK}
        await self._store.change(Change(OPERATION, job_id, kept), *(Change(OPERATION, name, None) for name in old))
        return _accepted(call, f"{where}/{job_id}")

    async def _put(self, project: str, name: str, model: Mapping[str, Any]) -> None:
        try:
            await self._store.deploy(project, name, model["task"], model["digest"])
        except Misconfigured as error:
            raise Refusal(409, {"code": "Conflict", "message": str(error)}) from None
        kept = {"name": name, "label": model["label"], "model": _model(model), "deployed": self._jobs.clock()}
        await self._store.change(Change(DEPLOYMENT, f"{project}/{name}", kept))

    async def _trainings(self, project: str) -> list[Job]:
        return [one for one in await self._jobs.of_kind(TRAINING) if orjson.loads(one.about)["project"] == project]

    async def _found(self, call: Call) -> Job:
        name, _ = self._project(call)
        job = await self._jobs.find(TRAINING, call.parameter("job_id"))
        if job is None or orjson.loads(job.about)["project"] != name:
            raise _missing("NotFound", "There is no such job, or it has expired.")
        return job

    def _training(self, job: Job) -> dict[str, Any]:
        about, state = orjson.loads(job.about), job.state_at(self._jobs.clock())
        percent = 100 if state is State.SUCCEEDED else 0
        step = {"percentComplete": percent, "startDateTime": moment(job.created), "status": _STATUSES[state]}
        if state not in PENDING:
            step["endDateTime"] = moment(job.updated)
        failed = state is State.FAILED
        return {
            "jobId": job.id,
            "createdDateTime": moment(job.created),
            "lastUpdatedDateTime": moment(job.updated),
            "expirationDateTime": moment(job.expires),
            "status": _STATUSES[state],
            "warnings": [],
            "errors": [orjson.loads(job.result)] if failed and job.result else [],
            "result": {
                "modelLabel": about["label"],
                "trainingConfigVersion": about["config"],
                "trainingStatus": step,
                "evaluationStatus": step
                if state is State.SUCCEEDED
                else {"percentComplete": 0, "status": "notStarted"},
            },
        }

    def _project(self, call: Call) -> tuple[str, Mapping[str, Any]]:
        name = call.parameter("project")
        kept = self._store.resource(PROJECT, name)
        if kept is None:
            raise _missing("ProjectNotFound", f"There is no project {name!r}.")
        return name, kept

    def _model(self, call: Call) -> tuple[str, Mapping[str, Any]]:
        return self._part(call, MODEL, "model")

    def _deployment(self, call: Call) -> tuple[str, Mapping[str, Any]]:
        return self._part(call, DEPLOYMENT, "deployment")

    def _part(self, call: Call, kind: str, what: str) -> tuple[str, Mapping[str, Any]]:
        project, _ = self._project(call)
        name = f"{project}/{call.parameter(what)}"
        kept = self._store.resource(kind, name)
        if kept is None:
            raise _missing("NotFound", f"Project {project!r} has no {what} {call.parameter(what)!r}.")
        return name, kept

    def _of(self, kind: str, project: str) -> dict[str, Mapping[str, Any]]:
        """The resources of a kind that a project has, by their own names."""
        named = ((name.partition("/"), one) for name, one in self._store.resources(kind).items())
        return {own: one for (of, _, own), one in named if of == project}


def learn(job: Job, backend: Backend) -> Done:
    """Do a training."""
    about = orjson.loads(job.about)
    project = backend.store.resource(PROJECT, about["project"])
    if project is None:
        return Done(State.CANCELLED, None, {})
    options, began = about["options"], datetime.now(UTC)
    testing = None if options["kind"] == "manual" else options["testingSplitPercentage"] / 100
    container, task = project["storageInputContainerName"], project["task"]
    try:
        documents = from_assets(backend.store.resource(ASSETS, about["project"]) or {})
        trained = train(backend, container, documents, task, name=about["project"], testing=testing)
    except FAILURES as error:
        return Done(State.FAILED, orjson.dumps({"code": "InvalidArgument", "message": str(error)}), {})
    ended = datetime.now(UTC)
    kept = {
        "label": about["label"],
        "task": task,
        "id": job.id,
        "digest": trained.learnt.digest,
        "config": about["config"],
        "trained": ended.timestamp(),
        "seconds": max(1, round((ended - began).total_seconds())),
        "options": options,
        "evaluation": _evaluation(trained.learnt.evaluation, task),
        "tested": [list(one) for one in trained.tested],
    }
    return Done(State.SUCCEEDED, None, {}, [Change(MODEL, f"{about['project']}/{about['label']}", kept)])


def _evaluation(found: Evaluation, task: str) -> dict[str, Any]:
    shown: dict[str, Any] = {
        "classes": {
            one.name: {
                "f1": one.f1,
                "precision": one.precision,
                "recall": one.recall,
                "truePositiveCount": one.true_positives,
                "trueNegativeCount": found.documents - one.true_positives - one.false_positives - one.false_negatives,
                "falsePositiveCount": one.false_positives,
                "falseNegativeCount": one.false_negatives,
            }
            for one in found.classes
        },
        "microF1": found.f1_micro,
        "microPrecision": found.precision_micro,
        "microRecall": found.recall_micro,
        "macroF1": found.f1_macro,
        "macroPrecision": found.precision_macro,
        "macroRecall": found.recall_macro,
    }
    if task == "single_label":
        shown["confusionMatrix"] = dict(_matrix(found.confusion))
    return shown


def _matrix(confusion: Mapping[tuple[str, str], int]) -> Iterator[tuple[str, dict[str, dict[str, float]]]]:
    """A row for each label that documents have, in percent of the row and in documents; zeros are left out."""
    for actual in sorted({pair[0] for pair in confusion}):
        row = {given: count for (of, given), count in sorted(confusion.items()) if of == actual}
        total = sum(row.values())
        yield actual, {one: {"normalizedValue": 100 * n / total, "rawValue": float(n)} for one, n in row.items()}


def _project_of(name: str, given: Mapping[str, Any]) -> dict[str, Any]:
    kind = given.get("projectKind")
    task = TASKS.get(kind.lower()) if isinstance(kind, str) and kind.lower().startswith("custom") else None
    if task is None:
        raise _invalid(f"projectKind is to be {' or '.join(_KINDS.values())}.")
    if given.get("projectName", name) != name:
        raise _invalid("projectName is not that of the path.")
    container, language = given.get("storageInputContainerName"), given.get("language")
    if not isinstance(container, str) or not container:
        raise _invalid("storageInputContainerName is missing.")
    if not isinstance(language, str) or language.lower().partition("-")[0] not in LANGUAGES:
        raise _invalid("language is missing, or not one of those that documents may be in.")
    if not isinstance(given.get("description") or "", str) or not isinstance(given.get("multilingual", False), bool):
        raise _invalid("description is to be a string, and multilingual true or false.")
    settings = given.get("settings") or {}
    if not isinstance(settings, dict):
        raise _invalid("settings is to be an object.")
    return {
        "projectKind": _KINDS[task],
        "task": task,
        "projectName": name,
        "storageInputContainerName": container,
        "language": language,
        "multilingual": given.get("multilingual", False),
        "description": given.get("description") or "",
        "settings": settings,
    }


def _shown(call: Call, kept: Mapping[str, Any]) -> dict[str, Any]:
    keys = ("projectName", "storageInputContainerName", "language", "multilingual", "description", "settings")
    return {
        "projectKind": _kind(call, kept["task"]),
        **{key: kept[key] for key in keys},
        "createdDateTime": moment(kept["created"]),
        "lastModifiedDateTime": moment(kept["modified"]),
    }


def _model(kept: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "label": kept["label"],
        "modelId": kept["id"],
        "lastTrainedDateTime": moment(kept["trained"]),
        "lastTrainingDurationInSeconds": kept["seconds"],
        "modelExpirationDate": _day(kept["trained"] + YEAR),
        "modelTrainingConfigVersion": kept["config"],
        "hasSnapshot": True,
    }


def _deployment(kept: Mapping[str, Any]) -> dict[str, Any]:
    model = kept["model"]
    return {
        "deploymentName": kept["name"],
        "modelId": model["modelId"],
        "lastTrainedDateTime": model["lastTrainedDateTime"],
        "lastDeployedDateTime": moment(kept["deployed"]),
        "deploymentExpirationDate": model["modelExpirationDate"],
        "modelTrainingConfigVersion": model["modelTrainingConfigVersion"],
        "assignedResources": [],
    }


def _options(given: object) -> dict[str, Any]:
    if given is None:
        return {"kind": "percentage", "trainingSplitPercentage": 80, "testingSplitPercentage": 20}
    if not isinstance(given, dict) or given.get("kind") not in {"percentage", "manual"}:
        raise _invalid("evaluationOptions.kind is to be percentage or manual.")
    if given["kind"] == "manual":
        return {"kind": "manual"}
    training, testing = given.get("trainingSplitPercentage", 80), given.get("testingSplitPercentage", 20)
    shares = type(training) is int and type(testing) is int and training > 0 and testing >= 0
    if not shares or training + testing != 100:
        raise _invalid("trainingSplitPercentage and testingSplitPercentage are to be whole numbers that make 100.")
    return {"kind": "percentage", "trainingSplitPercentage": training, "testingSplitPercentage": testing}


def _page(call: Call, found: Sequence[object]) -> Response:
    """The part of a list that is asked for by `top`, `skip` and `maxpagesize`, and where the next is."""
    skip, size = _number(call.query, "skip", 0), _number(call.query, "maxpagesize", 100)
    top = _number(call.query, "top", len(found))
    part = found[skip : skip + min(top, size)]
    shown: dict[str, Any] = {"value": part}
    left = min(len(found), skip + top) - skip - len(part)
    if left > 0:
        query = f"api-version={call.version}&top={left}&skip={skip + len(part)}&maxpagesize={size}"
        shown["nextLink"] = call.url(call.scope["path"], query)
    return answer(shown)


def _number(query: QueryParams, name: str, usual: int) -> int:
    given = query.get(name, str(usual))
    if not given.isdecimal() or len(given) > 10:
        raise _invalid(f"{name} is to be a whole number.")
    return int(given)


def _accepted(call: Call, path: str) -> Response:
    return Response(b"", 202, {"operation-location": call.url(path, f"api-version={call.version}")})


def _named(call: Call, what: str) -> str:
    name = call.parameter(what)
    if not NAME.fullmatch(name):
        raise _invalid(f"A {what} is named by up to 50 letters, digits and _ . -")
    return name


def _body(content: bytes) -> dict[str, Any]:
    try:
        body = orjson.loads(content)
    except orjson.JSONDecodeError:
        raise _invalid("The body is not JSON.") from None
    if not isinstance(body, dict):
        raise _invalid("The body is to be an object.")
    return body


def _object(body: Mapping[str, Any], key: str) -> dict[str, Any]:
    value = body.get(key)
    if not isinstance(value, dict):
        raise _invalid(f"{key} is to be an object.")
    return value


def _kind(call: Call, task: str) -> str:
    return _lower(_KINDS[task]) if call.version.startswith("2022-05-01") else _KINDS[task]


def _lower(kind: str) -> str:
    return kind[0].lower() + kind[1:]


def _day(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).date().isoformat()


def _invalid(message: str) -> Refusal:
    inner = {"code": "InvalidParameterValue", "message": message}
    return Refusal(400, {"code": "InvalidRequest", "message": "Invalid parameter in request.", "innererror": inner})


def _full(message: str) -> Refusal:
    inner = {"code": "QuotaExceeded", "message": message}
    return Refusal(400, {"code": "InvalidRequest", "message": message, "innererror": inner})


def _missing(code: str, message: str) -> Refusal:
    return Refusal(404, {"code": code, "message": message})
