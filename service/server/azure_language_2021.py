"""Azure Language, custom text classification of 2021: authoring v1.0-preview.2.

::

    POST   /language/text/authoring/v1.0-preview.2/projects                          201
    POST   …/projects/{project}/train              GET …/train/jobs/{id}             202, location
    POST   …/projects/{project}/publish            GET …/publish/jobs/{id}           202, location
    GET    …/projects/{project}/evaluation?trainingModelName=
    DELETE …/projects/{project}                                                      204

A project names a container and the labels file in it; both have to be there when it is created. A training sets a tenth
of the documents aside to evaluate the model. Publishing gives the `modelId` that v3.1-preview.ct.1 asks for
(`azure_language_2021_runtime`).

Limits, all documented: 500 projects, 10 models of each, names of up to 50 letters, digits and _ . -; two classes or
more, of ten documents or more each; documents and classes as `azure_language_labels` has them.

Behaviour chosen where the page of the service says nothing: the status codes above; a project whose name is taken is a
409; one too many of anything is a 400 QuotaExceeded; training a model again replaces it; a project trains one model at
a time (409 otherwise), and one that is deleted gives its training up.

Not done: listing projects and models.
"""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

import orjson
from starlette.responses import Response
from starlette.routing import Route

from service.model.evaluate import Evaluation
from service.server.azure_language_labels import FAILURES, OF_2021, TASKS, Labelled, LabelsError, from_2021, train
from service.server.azure_language_requests import MOST_BYTES, NAME
from service.server.azure_language_results import moment
from service.server.backend import Backend
from service.server.containers import BlobMissing, Containers
from service.server.gateway import Call, Gateway, Operation, Refusal, Resource, answer
from service.server.jobs import Done, Jobs, new_id
from service.server.store import PENDING, Change, Job, State

P = "/language/text/authoring/v1.0-preview.2/projects"
KIND = "azure_language/training_2021"
PROJECT, MODEL, PUBLISHED, PUBLISHING = (
    f"language_2021/{what}" for what in ("project", "model", "published", "publishing")
)
MOST_PROJECTS = 500
MOST_MODELS = 10
WEEK = 7 * 86_400.0
STATUSES = {
    State.WAITING: "notStarted",
    State.RUNNING: "inProgress",
    State.SUCCEEDED: "completed",
    State.PARTIAL: "partiallyCompleted",
    State.FAILED: "failed",
    State.CANCELLED: "cancelled",
}
_TESTING = 0.1


class Authoring:
    """The operations of 2021 on projects, over the server's state and jobs."""

    def __init__(self, backend: Backend, jobs: Jobs) -> None:
        self._store = backend.store
        self._containers = backend.containers
        self._jobs = jobs
        self._turn = asyncio.Lock()  # whoever makes, trains or deletes a project has seen what there is
        self._gets, self._others = backend.window(100, 60.0), backend.window(10, 60.0)

    def routes(self, gateway: Gateway) -> list[Route]:
        """The paths of this API, behind a gateway."""
        paths = {
            P: {"POST": Operation("manage", self.create, self._others)},
            f"{P}/{{project}}/train": {"POST": Operation("train", self.train, self._others)},
            f"{P}/{{project}}/train/jobs/{{job_id}}": {"GET": Operation("poll", self.training, self._gets)},
            f"{P}/{{project}}/publish": {"POST": Operation("manage", self.publish, self._others)},
            f"{P}/{{project}}/publish/jobs/{{job_id}}": {"GET": Operation("poll", self.publishing, self._gets)},
            f"{P}/{{project}}/evaluation": {"GET": Operation("manage", self.evaluation, self._gets)},
            f"{P}/{{project}}": {"DELETE": Operation("manage", self.delete, self._others)},
        }
        return [Route(path, Resource(gateway, "azure_language", None, does)) for path, does in paths.items()]

    async def create(self, call: Call) -> Response:
        """Make a project."""
        body = json_body(await call.body(MOST_BYTES))
        name, container = _word(body, "name"), _word(body, "storageInputContainerName")
        kind, labels = _word(body, "modelType"), _word(body, "labelsLocation")
        if not NAME.fullmatch(name):
            raise invalid("name is to be up to 50 letters, digits and _ . -")
        if kind not in {"SingleClassification", "MultiClassification"}:
            raise invalid("modelType is to be SingleClassification or MultiClassification.")
        for key, form in (("description", str), ("culture", str), ("multiLingual", bool)):
            if not isinstance(body.get(key), form | None):
                raise invalid(f"{key} is to be {'a string' if form is str else 'true or false'}.")
        self._see_room(name)
        try:
            await asyncio.to_thread(_labelled, self._containers, container, labels)
        except (BlobMissing, LabelsError) as error:
            raise invalid(f"labelsLocation: {error}") from None
        kept = {key: body.get(key) for key in ("description", "culture", "multiLingual")}
        kept |= {"name": name, "modelType": kind, "storageInputContainerName": container, "labelsLocation": labels}
        async with self._turn:
            self._see_room(name)  # as it is now that the labels have been read
            await self._store.change(Change(PROJECT, name, kept))
        return answer(kept, 201)

    async def train(self, call: Call) -> Response:
        """Begin a training."""
        self._project(call)
        model = _model(json_body(await call.body(MOST_BYTES)))
        async with self._turn:
            project, _ = self._project(call)
            if any(job.state in PENDING for job in await self._trainings(project)):
                raise Refusal(409, {"code": "Conflict", "message": "The project is being trained already."})
            models = self._of(MODEL, project)
            if f"{project}/{model}" not in models and len(models) >= MOST_MODELS:
                raise _full(f"A project has at most {MOST_MODELS} models.")
            about = orjson.dumps({"project": project, "model": model})
            job = await self._jobs.submit(KIND, about, b"{}", call.fault, lifetime=WEEK)
        return Response(b"", 202, {"location": call.url(f"{P}/{project}/train/jobs/{job.id}")})

    async def training(self, call: Call) -> Response:
        """How far a training is."""
        project, _ = self._project(call)
        job = await self._jobs.find(KIND, call.parameter("job_id"))
        about = orjson.loads(job.about) if job else {}
        if job is None or about["project"] != project:
            raise missing("There is no such job.")
        state, now = job.state_at(self._jobs.clock()), moment(job.updated)
        task = {
            "trainingModelName": about["model"],
            "evaluationStatus": {"status": STATUSES[state], "lastUpdatedDateTime": now},
            "status": STATUSES[state],
            "lastUpdatedDateTime": now,
        }
        errors = [orjson.loads(job.result)] if state is State.FAILED and job.result else []
        if errors:
            task["error"] = errors[0]
        if state in PENDING:
            task["evaluationStatus"] = {"status": "notStarted", "lastUpdatedDateTime": now}
        return answer(_job(job, state, task, errors))

    async def publish(self, call: Call) -> Response:
        """Make a trained model known to the runtime."""
        project, kept = self._project(call)
        model = _model(json_body(await call.body(MOST_BYTES)))
        found = self._store.resource(MODEL, f"{project}/{model}")
        if found is None:
            raise missing(f"Project {project!r} has no trained model {model!r}.")
        model_id, job_id = f"{found['guid']}_{kept['modelType']}_latest", new_id()
        await self._store.change(
            Change(PUBLISHED, model_id, {"digest": found["digest"], "project": project}),
            Change(PUBLISHING, job_id, {"project": project, "modelId": model_id, "at": self._jobs.clock()}),
        )
        where = call.url(f"{P}/{project}/publish/jobs/{job_id}")
        return Response(b"", 202, {"location": where})

    async def publishing(self, call: Call) -> Response:
        """How a publishing went: the model is there at once."""
        project, _ = self._project(call)
        job_id = call.parameter("job_id")
        kept = self._store.resource(PUBLISHING, job_id)
        if kept is None or kept["project"] != project:
            raise missing("There is no such job.")
        at = kept["at"]
        job = Job(job_id, "", State.SUCCEEDED, at, at, at, at + WEEK, b"")
        task = {"modelId": kept["modelId"], "status": "completed", "lastUpdatedDateTime": moment(at)}
        return answer(_job(job, State.SUCCEEDED, task, []))

    async def evaluation(self, call: Call) -> Response:
        """What a trained model is worth."""
        project, kept = self._project(call)
        model = call.query.get("trainingModelName", "")
        found = self._store.resource(MODEL, f"{project}/{model}")
        if found is None:
            raise missing(f"Project {project!r} has no trained model {model!r}.")
        single = kept["modelType"] == "SingleClassification"
        named = found["evaluation"]
        return answer(
            {
                "modelType": kept["modelType"],
                "singleClassificationEvaluation": named if single else None,
                "multiClassificationEvaluation": None if single else named,
            }
        )

    async def delete(self, call: Call) -> Response:
        """Forget a project, its models and what was published of them, and give up what it is learning."""
        async with self._turn:
            project, _ = self._project(call)
            for job in await self._trainings(project):  # all of them: another project may have its name
                await self._jobs.forget(job)
            models = self._of(MODEL, project)
            published = [name for name, one in self._store.resources(PUBLISHED).items() if one["project"] == project]
            publishings = [name for name, one in self._store.resources(PUBLISHING).items() if one["project"] == project]
            await self._store.change(
                Change(PROJECT, project, None),
                *(Change(MODEL, name, None) for name in models),
                *(Change(PUBLISHED, name, None) for name in published),
                *(Change(PUBLISHING, name, None) for name in publishings),
            )
        return Response(status_code=204)

    def _see_room(self, name: str) -> None:
        """See that a project of this name may be made; raises `Refusal`."""
        if self._store.resource(PROJECT, name) is not None:
            raise Refusal(409, {"code": "Conflict", "message": f"There is a project {name!r} already."})
        if len(self._store.resources(PROJECT)) >= MOST_PROJECTS:
            raise _full(f"A resource has at most {MOST_PROJECTS} projects.")

    async def _trainings(self, project: str) -> list[Job]:
        return [job for job in await self._jobs.of_kind(KIND) if orjson.loads(job.about)["project"] == project]

    def _of(self, kind: str, project: str) -> list[str]:
        return [name for name in self._store.resources(kind) if name.partition("/")[0] == project]

    def _project(self, call: Call) -> tuple[str, Mapping[str, Any]]:
        name = call.parameter("project")
        kept = self._store.resource(PROJECT, name)
        if kept is None:
            raise missing(f"There is no project {name!r}.")
        return name, kept


def learn(job: Job, backend: Backend) -> Done:
    """Do a training."""
    about = orjson.loads(job.about)
    project = backend.store.resource(PROJECT, about["project"])
    if project is None:
        return Done(State.CANCELLED, None, {})
    task, container = TASKS[project["modelType"].lower()], project["storageInputContainerName"]
    try:
        content = backend.containers.read(project["storageInputContainerName"], project["labelsLocation"].lstrip("/"))
        container = project["storageInputContainerName"]
        trained = train(
            backend, container, from_2021(content), task, name=about["project"], testing=_TESTING, limits=OF_2021
        )
    except (BlobMissing, *FAILURES) as error:
        return Done(State.FAILED, orjson.dumps({"code": "InvalidArgument", "message": str(error)}), {})
    kept = {"digest": trained.learnt.digest, "guid": job.id, "evaluation": _evaluation(trained.learnt.evaluation, task)}
    return Done(State.SUCCEEDED, None, {}, [Change(MODEL, f"{about['project']}/{about['model']}", kept)])


def _labelled(containers: Containers, container: str, location: str) -> list[Labelled]:
    """The labelled documents that a labels file names; raises `BlobMissing` and `LabelsError`."""
    return from_2021(containers.read(container, location.lstrip("/")))


def _evaluation(found: Evaluation, task: str) -> dict[str, Any]:
    classes = {
        one.name: {
            "f1": one.f1,
            "precision": one.precision,
            "recall": one.recall,
            "countTruePositives": one.true_positives,
            "countTrueNegatives": found.documents - one.true_positives - one.false_positives - one.false_negatives,
            "countFalsePositives": one.false_positives,
            "countFalseNegatives": one.false_negatives,
        }
        for one in found.classes
    }
    shown = {
        "classes": classes,
        "microF1": found.f1_micro,
        "microPrecision": found.precision_micro,
        "microRecall": found.recall_micro,
        "macroF1": found.f1_macro,
        "macroPrecision": found.precision_macro,
        "macroRecall": found.recall_macro,
    }
    if task == "single_label":
        matrix: dict[str, dict[str, int]] = {}
        for (actual, given), count in sorted(found.confusion.items()):
            matrix.setdefault(actual, {})[given] = count
        shown["confusionMatrix"] = matrix
    return shown


def _job(job: Job, state: State, task: Mapping[str, Any], errors: Sequence[object]) -> dict[str, Any]:
    return {
        "tasks": [task],
        "inProgress": int(state in PENDING),
        "completed": int(state is State.SUCCEEDED),
        "failed": int(state is State.FAILED),
        "total": 1,
        "jobId": job.id,
        "createdDateTime": moment(job.created),
        "lastUpdatedDateTime": moment(job.updated),
        "expirationDateTime": moment(job.expires),
        "status": STATUSES[state],
        "errors": errors,
    }


def json_body(content: bytes) -> dict[str, Any]:
    """A body that is a JSON object; raises `Refusal`."""
    try:
        body = orjson.loads(content)
    except orjson.JSONDecodeError:
        raise invalid("The body is not JSON.") from None
    if not isinstance(body, dict):
        raise invalid("The body is to be an object.")
    return body


def _word(body: Mapping[str, Any], key: str) -> str:
    value = body.get(key)
    if not isinstance(value, str) or not value:
        raise invalid(f"{key} is missing.")
    return value


def _model(body: Mapping[str, Any]) -> str:
    tasks = body.get("tasks")
    if not isinstance(tasks, list) or len(tasks) != 1 or not isinstance(tasks[0], dict):
        raise invalid("tasks is to be a list of one task.")
    name = _word(tasks[0], "trainingModelName")
    if not NAME.fullmatch(name):
        raise invalid("trainingModelName is to be up to 50 letters, digits and _ . -")
    return name


def invalid(message: str) -> Refusal:
    """A request that makes no sense."""
    return Refusal(400, {"code": "InvalidArgument", "message": message})


def missing(message: str) -> Refusal:
    """Something that is not there."""
    return Refusal(404, {"code": "NotFound", "message": message})


def _full(message: str) -> Refusal:
    return Refusal(400, {"code": "QuotaExceeded", "message": message})
