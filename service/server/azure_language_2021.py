"""Azure Language, custom text classification of 2021: authoring v1.0-preview.2, and two previews of the runtime.

::

    POST   /language/text/authoring/v1.0-preview.2/projects                          201
    POST   …/projects/{project}/train              GET …/train/jobs/{id}             202, location
    POST   …/projects/{project}/publish            GET …/publish/jobs/{id}           202, location
    GET    …/projects/{project}/evaluation?trainingModelName=
    DELETE …/projects/{project}                                                      204
    POST   /text/analytics/v3.1-preview.ct.1/analyze    GET …/analyze/jobs/{id}      202, operation-location
    POST   /text/analytics/v3.2-preview.2/analyze       GET …/analyze/jobs/{id}      202, operation-location

A project names a container and the labels file in it; both have to be there when it is created. A training sets a tenth
of the documents aside to evaluate the model. Publishing gives the `modelId` that v3.1-preview.ct.1 asks for, and
v3.2-preview.2 asks for a project and a deployment, of whatever version made them.

Behaviour chosen where the page of the service says nothing: the status codes above; a project whose name is taken is a
409; training a model again replaces it; several trainings of one project wait for each other; jobs say `completed` on
v3.1-preview.ct.1 and `succeeded` on v3.2-preview.2; a page is 20 documents of each task unless `$top` says otherwise,
and the next is at `nextLink` or `@nextLink`. Results of a class have the spellings of their version.

Not done: listing projects and models; tasks of other kinds than custom classification, which have to be empty.
"""

import asyncio
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

import orjson
from starlette.responses import Response
from starlette.routing import Route

from service.model.classifier import ModelError
from service.server import azure_language as runtime
from service.server.azure_language import Document, moment
from service.server.azure_language_labels import FAILURES, TASKS, LabelsError, from_2021, train
from service.server.backend import Backend
from service.server.containers import BlobMissing
from service.server.gateway import Call, Gateway, Operation, Refusal, Resource, answer
from service.server.jobs import Done, Jobs, new_id
from service.server.store import PENDING, Change, Job, State

P = "/language/text/authoring/v1.0-preview.2/projects"
FIRST, BRIDGE = "/text/analytics/v3.1-preview.ct.1", "/text/analytics/v3.2-preview.2"
TRAINING, ANALYSIS = "azure_language/training_2021", "azure_language/analysis_2021"
PROJECT, MODEL, PUBLISHED, PUBLISHING = (
    f"language_2021/{what}" for what in ("project", "model", "published", "publishing")
)
WEEK = 7 * 86_400.0
_TESTING = 0.1
_STATUSES = {
    State.WAITING: "notStarted",
    State.RUNNING: "inProgress",
    State.SUCCEEDED: "completed",
    State.PARTIAL: "partiallyCompleted",
    State.FAILED: "failed",
    State.CANCELLED: "cancelled",
}
_KEYS = {  # the arrays of tasks that are ours, by version
    FIRST: {"customClassificationTasks": "single_label", "customMultiClassificationTasks": "multi_label"},
    BRIDGE: {"customSingleClassificationTasks": "single_label", "customMultiClassificationTasks": "multi_label"},
}


class Previews:
    """The operations of 2021, over the server's state and jobs."""

    def __init__(self, backend: Backend, jobs: Jobs) -> None:
        self._store = backend.store
        self._containers = backend.containers
        self._jobs = jobs

    def routes(self, gateway: Gateway) -> list[Route]:
        """The paths of these APIs, behind a gateway."""
        paths = {
            P: {"POST": Operation("manage", self.create)},
            f"{P}/{{project}}/train": {"POST": Operation("train", self.train)},
            f"{P}/{{project}}/train/jobs/{{job_id}}": {"GET": Operation("poll", self.training)},
            f"{P}/{{project}}/publish": {"POST": Operation("manage", self.publish)},
            f"{P}/{{project}}/publish/jobs/{{job_id}}": {"GET": Operation("poll", self.publishing)},
            f"{P}/{{project}}/evaluation": {"GET": Operation("manage", self.evaluation)},
            f"{P}/{{project}}": {"DELETE": Operation("manage", self.delete)},
        }
        for base in (FIRST, BRIDGE):
            paths[f"{base}/analyze"] = {"POST": Operation("submit", partial(self.analyze, base))}
            paths[f"{base}/analyze/jobs/{{job_id}}"] = {"GET": Operation("poll", partial(self.analysis, base))}
        return [Route(path, Resource(gateway, "azure_language", None, does)) for path, does in paths.items()]

    async def create(self, call: Call) -> Response:
        """Make a project."""
        body = _body(await call.body(runtime.MOST_BYTES))
        name, container = _word(body, "name"), _word(body, "storageInputContainerName")
        kind, labels = _word(body, "modelType"), _word(body, "labelsLocation")
        if not runtime.NAME.fullmatch(name):
            raise _invalid("name is to be up to 50 letters, digits and _ . -")
        if kind not in {"SingleClassification", "MultiClassification"}:
            raise _invalid("modelType is to be SingleClassification or MultiClassification.")
        if self._store.resource(PROJECT, name) is not None:
            raise Refusal(409, {"code": "Conflict", "message": f"There is a project {name!r} already."})
        try:
            from_2021(await asyncio.to_thread(self._containers.read, container, labels.lstrip("/")))
        except (BlobMissing, LabelsError) as error:
            raise _invalid(f"labelsLocation: {error}") from None
        kept = {key: body.get(key) for key in ("description", "culture", "multiLingual")}
        kept |= {"name": name, "modelType": kind, "storageInputContainerName": container, "labelsLocation": labels}
        await self._store.change(Change(PROJECT, name, kept))
        return answer(kept, 201)

    async def train(self, call: Call) -> Response:
        """Begin a training."""
        project, _ = self._project(call)
        model = _model(_body(await call.body(runtime.MOST_BYTES)))
        about = orjson.dumps({"project": project, "model": model})
        job = await self._jobs.submit(TRAINING, about, b"{}", call.fault, lifetime=WEEK)
        return Response(b"", 202, {"location": call.url(f"{P}/{project}/train/jobs/{job.id}")})

    async def training(self, call: Call) -> Response:
        """How far a training is."""
        project, _ = self._project(call)
        job = await self._jobs.find(TRAINING, call.parameter("job_id"))
        about = orjson.loads(job.about) if job else {}
        if job is None or about["project"] != project:
            raise _missing("There is no such job.")
        state, now = job.state_at(self._jobs.clock()), moment(job.updated)
        task = {
            "trainingModelName": about["model"],
            "evaluationStatus": {"status": _STATUSES[state], "lastUpdatedDateTime": now},
            "status": _STATUSES[state],
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
        model = _model(_body(await call.body(runtime.MOST_BYTES)))
        found = self._store.resource(MODEL, f"{project}/{model}")
        if found is None:
            raise _missing(f"Project {project!r} has no trained model {model!r}.")
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
            raise _missing("There is no such job.")
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
            raise _missing(f"Project {project!r} has no trained model {model!r}.")
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
        """Forget a project, its models and what was published of them."""
        project, _ = self._project(call)
        models = [name for name in self._store.resources(MODEL) if name.partition("/")[0] == project]
        published = [name for name, one in self._store.resources(PUBLISHED).items() if one["project"] == project]
        await self._store.change(
            Change(PROJECT, project, None),
            *(Change(MODEL, name, None) for name in models),
            *(Change(PUBLISHED, name, None) for name in published),
        )
        return Response(status_code=204)

    async def analyze(self, base: str, call: Call) -> Response:
        """Accept a job."""
        body = await call.body(runtime.MOST_BYTES)
        given = _body(body)
        documents = runtime.documents(given)
        tasks = self._tasks(base, given.get("tasks"))
        about = {"name": given.get("displayName"), "base": base, "tasks": tasks}
        request = orjson.dumps([list(one) for one in documents])
        job = await self._jobs.submit(ANALYSIS, orjson.dumps(about), request, call.fault)
        where = call.url(f"{base}/analyze/jobs/{job.id}")
        return Response(b"", 202, {"operation-location": where})

    async def analysis(self, base: str, call: Call) -> Response:
        """How far a job is, and a page of what came of it."""
        job = await self._jobs.find(ANALYSIS, call.parameter("job_id"))
        if job is None or orjson.loads(job.about)["base"] != base:
            raise _missing("There is no such job, or it has expired.")
        page = runtime.asked_page(call.query, "$top", "$skip")
        return answer(_analysis(base, job, self._jobs.clock(), page, call))

    def _tasks(self, base: str, given: object) -> list[dict[str, Any]]:
        if not isinstance(given, dict):
            raise _invalid("tasks is to be an object.")
        tasks = []
        for key, wanted in given.items():
            if not isinstance(wanted, list):
                raise _invalid(f"tasks.{key} is to be a list.")
            if wanted and key not in _KEYS[base]:
                raise _invalid(f"tasks.{key} is not supported here.")
            for task in wanted:
                parameters = task.get("parameters") if isinstance(task, dict) else None
                if not isinstance(parameters, dict):
                    raise _invalid(f"tasks.{key}: a task has no parameters.")
                tasks.append({"key": key, "name": task.get("taskName"), **self._model_of(base, key, parameters)})
        if not 1 <= len(tasks) <= runtime.MOST_TASKS:
            raise _invalid(f"tasks is to hold 1 to {runtime.MOST_TASKS} tasks.")
        return tasks

    def _model_of(self, base: str, key: str, parameters: Mapping[str, Any]) -> dict[str, Any]:
        wanted = _KEYS[base][key]
        if base == FIRST:
            found = self._store.resource(PUBLISHED, str(parameters.get("modelId")))
            if found is None:
                raise _missing("There is no such modelId.")
            if TASKS[str(parameters["modelId"]).split("_")[1].lower()] != wanted:
                raise _invalid(f"tasks.{key}: the model is of the other kind.")
            return {"digest": found["digest"], "project": found["project"], "deployment": None}
        project, deployment = str(parameters.get("project-name")), str(parameters.get("deployment-name"))
        known = self._store.projects.get(project)
        if known is None:
            raise Refusal(404, {"code": "ProjectNotFound", "message": f"There is no project {project!r}."})
        if deployment not in known.deployments:
            raise _missing(f"Project {project!r} has no deployment {deployment!r}.")
        if known.task != wanted:
            raise _invalid(f"tasks.{key}: the project is of the other kind.")
        return {"digest": known.deployments[deployment], "project": project, "deployment": deployment}

    def _project(self, call: Call) -> tuple[str, Mapping[str, Any]]:
        name = call.parameter("project")
        kept = self._store.resource(PROJECT, name)
        if kept is None:
            raise _missing(f"There is no project {name!r}.")
        return name, kept


def learn(job: Job, backend: Backend) -> Done:
    """Do a training."""
    about = orjson.loads(job.about)
    project = backend.store.resource(PROJECT, about["project"])
    if project is None:
        return Done(State.CANCELLED, None, {})
    task = TASKS[project["modelType"].lower()]
    try:
        content = backend.containers.read(project["storageInputContainerName"], project["labelsLocation"].lstrip("/"))
        container = project["storageInputContainerName"]
        trained = train(backend, container, from_2021(content), task, name=about["project"], testing=_TESTING)
    except (BlobMissing, *FAILURES) as error:
        return Done(State.FAILED, orjson.dumps({"code": "InvalidArgument", "message": str(error)}), {})
    kept = {"digest": trained.learnt.digest, "guid": job.id, "evaluation": _evaluation(trained.learnt.evaluation, task)}
    return Done(State.SUCCEEDED, None, {}, [Change(MODEL, f"{about['project']}/{about['model']}", kept)])


def analyze(job: Job, backend: Backend) -> Done:
    """Do a job of the runtime."""
    about = orjson.loads(job.about)
    documents = [Document(*one) for one in orjson.loads(job.request or b"[]")]
    fate = runtime.struck(job, documents, len(about["tasks"]))
    if fate is None:
        return Done(State.CANCELLED, None, {})
    results: list[dict[str, Any] | None] = []
    counted: Counter[str] = Counter()
    for number, task in enumerate(about["tasks"]):
        result = None
        if number not in fate.failing:
            with suppress(ModelError):  # of which the task fails, and is shown as failed
                result = runtime.classified(backend.models.get(task["digest"]), documents, fate.errors)
        results.append(result)
        counted[task["project"]] += len(documents) - len(fate.errors) if result else 0
    return Done(runtime.ending(results, fate), orjson.dumps(results), counted)


def _evaluation(found: Any, task: str) -> dict[str, Any]:
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
        "status": _STATUSES[state],
        "errors": errors,
    }


def _analysis(base: str, job: Job, now: float, page: runtime.Page, call: Call) -> dict[str, Any]:
    about, state = orjson.loads(job.about), job.state_at(now)
    first = base == FIRST
    status = _STATUSES[state] if first else runtime.STATUSES[state]
    tasks = about["tasks"]
    shown: dict[str, Any] = {
        "jobId": job.id,
        "createdDateTime": moment(job.created),
        "lastUpdateDateTime": moment(job.updated),
        "expirationDateTime": moment(job.expires),
        "status": status,
        "errors": [],
        "tasks": {"completed": 0, "failed": 0, "inProgress": 0, "total": len(tasks)},
    }
    if about["name"] is not None:
        shown["displayName"] = about["name"]
    counts = shown["tasks"]
    if first:
        counts["details"] = {"name": about["name"], "lastUpdateDateTime": moment(job.updated), "status": status}
    if state in PENDING:
        counts["inProgress"] = len(tasks)
        return shown
    if state is State.CANCELLED:
        return shown
    results = orjson.loads(job.result) if job.result else [None] * len(tasks)
    arrays: dict[str, list[dict[str, Any]]] = {}
    for task, result in zip(tasks, results, strict=True):
        array = arrays.setdefault(task["key"], [])
        if result is None:
            shown["errors"].append({**runtime.TASK_FAILED, "target": f"#/tasks/{task['key']}/{len(array)}"})
        array.append(_item(about, task, result, job, page))
    counts["failed"] = len(shown["errors"])
    counts["completed"] = len(tasks) - counts["failed"]
    counts.update({"tasks": arrays} if first else arrays)
    if any(result and len(result["documents"]) > page.skip + page.top for result in results):
        statistics = "&showStats=true" if page.statistics else ""
        query = f"$skip={page.skip + page.top}&$top={page.top}{statistics}"
        shown["nextLink" if first else "@nextLink"] = call.url(f"{base}/analyze/jobs/{job.id}", query)
    return shown


def _item(
    about: Mapping[str, Any], task: Mapping[str, Any], result: dict[str, Any] | None, job: Job, page: runtime.Page
) -> dict[str, Any]:
    first, single = about["base"] == FIRST, _KEYS[about["base"]][task["key"]] == "single_label"
    status = "failed" if result is None else "completed" if first else "succeeded"
    item: dict[str, Any] = {"lastUpdateDateTime": moment(job.updated)}
    if first:
        item |= {"name": about["name"], "status": status}
    else:
        item["state"] = status
        if task["name"] is not None:
            item["taskName"] = task["name"]
    if result is None:
        return item
    results = runtime.results_of(result, page._replace(statistics=page.statistics or first))
    for document in results["documents"]:
        classes = document.pop("class")
        if first:
            document["classes"] = classes
        elif single:
            document["classification"] = classes[0]
        else:
            document["classifications"] = classes
    if first:
        for document in results["documents"]:
            document.pop("statistics", None)
    else:
        results |= {"projectName": task["project"], "deploymentName": task["deployment"]}
    item["results"] = results
    return item


def _body(content: bytes) -> dict[str, Any]:
    try:
        body = orjson.loads(content)
    except orjson.JSONDecodeError:
        raise _invalid("The body is not JSON.") from None
    if not isinstance(body, dict):
        raise _invalid("The body is to be an object.")
    return body


def _word(body: Mapping[str, Any], key: str) -> str:
    value = body.get(key)
    if not isinstance(value, str) or not value:
        raise _invalid(f"{key} is missing.")
    return value


def _model(body: Mapping[str, Any]) -> str:
    tasks = body.get("tasks")
    if not isinstance(tasks, list) or len(tasks) != 1 or not isinstance(tasks[0], dict):
        raise _invalid("tasks is to be a list of one task.")
    name = _word(tasks[0], "trainingModelName")
    if not runtime.NAME.fullmatch(name):
        raise _invalid("trainingModelName is to be up to 50 letters, digits and _ . -")
    return name


def _invalid(message: str) -> Refusal:
    return Refusal(400, {"code": "InvalidArgument", "message": message})


def _missing(message: str) -> Refusal:
    return Refusal(404, {"code": "NotFound", "message": message})
