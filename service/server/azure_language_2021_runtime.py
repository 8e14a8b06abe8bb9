"""Azure Language, custom text classification of 2021: two previews of the runtime.

::

    POST   /text/analytics/v3.1-preview.ct.1/analyze    GET …/analyze/jobs/{id}      202, operation-location
    POST   /text/analytics/v3.2-preview.2/analyze       GET …/analyze/jobs/{id}      202, operation-location

v3.1-preview.ct.1 asks for the `modelId` of a model that was published (`azure_language_2021`), v3.2-preview.2 for a
project and a deployment, of whatever version made them.

Behaviour chosen where the page of the service says nothing: jobs say `completed` on v3.1-preview.ct.1 and `succeeded`
on v3.2-preview.2; a page is 20 documents of each task unless `$top` says otherwise, and the next is at `nextLink` or
`@nextLink`. Results of a class have the spellings of their version. The rate is that of today, 1,000 requests a minute.

Not done: tasks of other kinds than custom classification, which have to be empty.
"""

from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from functools import partial
from typing import Any

import orjson
from starlette.responses import Response
from starlette.routing import Route

from service.errors import ModelError
from service.server.azure_language_2021 import PUBLISHED, STATUSES, invalid, json_body, missing
from service.server.azure_language_labels import TASKS
from service.server.azure_language_records import PROJECT
from service.server.azure_language_requests import MOST_BYTES, MOST_TASKS, Document, deployed, documents
from service.server.azure_language_results import STATUSES as LATER_STATUSES
from service.server.azure_language_results import TASK_FAILED, Page, asked_page, moment, results_of
from service.server.azure_language_tasks import classified, ending, struck
from service.server.backend import Backend
from service.server.gateway import Call, Gateway, Operation, Resource, answer
from service.server.jobs import Done, Jobs
from service.server.store import PENDING, Job, State

FIRST, BRIDGE = "/text/analytics/v3.1-preview.ct.1", "/text/analytics/v3.2-preview.2"
KIND = "azure_language/analysis_2021"
_KEYS = {  # the arrays of tasks that are ours, by version
    FIRST: {"customClassificationTasks": "single_label", "customMultiClassificationTasks": "multi_label"},
    BRIDGE: {"customSingleClassificationTasks": "single_label", "customMultiClassificationTasks": "multi_label"},
}


class Runtimes:
    """The operations of both, over the server's state and jobs."""

    def __init__(self, backend: Backend, jobs: Jobs) -> None:
        self._store = backend.store
        self._jobs = jobs
        self._window = backend.window(1_000, 60.0)

    def routes(self, gateway: Gateway) -> list[Route]:
        """The paths of these APIs, behind a gateway."""
        paths: dict[str, dict[str, Operation]] = {}
        for base in (FIRST, BRIDGE):
            submit = Operation("submit", partial(self.analyze, base), self._window)
            poll = Operation("poll", partial(self.analysis, base), self._window)
            paths |= {f"{base}/analyze": {"POST": submit}, f"{base}/analyze/jobs/{{job_id}}": {"GET": poll}}
        return [Route(path, Resource(gateway, "azure_language", None, does)) for path, does in paths.items()]

    async def analyze(self, base: str, call: Call) -> Response:
        """Accept a job."""
        body = await call.body(MOST_BYTES)
        given = json_body(body)
        asked, name = documents(given), _text(given, "displayName")
        about = {"name": name, "base": base, "tasks": self._tasks(base, given.get("tasks"))}
        request = orjson.dumps([list(one) for one in asked])
        job = await self._jobs.submit(KIND, orjson.dumps(about), request, call.fault)
        where = call.url(f"{base}/analyze/jobs/{job.id}")
        return Response(b"", 202, {"operation-location": where})

    async def analysis(self, base: str, call: Call) -> Response:
        """How far a job is, and a page of what came of it."""
        job = await self._jobs.find(KIND, call.parameter("job_id"))
        if job is None or orjson.loads(job.about)["base"] != base:
            raise missing("There is no such job, or it has expired.")
        page = asked_page(call.query, "$top", "$skip")
        return answer(_analysis(base, job, self._jobs.clock(), page, call))

    def _tasks(self, base: str, given: object) -> list[dict[str, Any]]:
        if not isinstance(given, dict):
            raise invalid("tasks is to be an object.")
        tasks = []
        for key, wanted in given.items():
            if not isinstance(wanted, list):
                raise invalid(f"tasks.{key} is to be a list.")
            if wanted and key not in _KEYS[base]:
                raise invalid(f"tasks.{key} is not supported here.")
            for task in wanted:
                parameters = task.get("parameters") if isinstance(task, dict) else None
                if not isinstance(parameters, dict):
                    raise invalid(f"tasks.{key}: a task has no parameters.")
                tasks.append({"key": key, "name": _text(task, "taskName"), **self._model_of(base, key, parameters)})
        if not 1 <= len(tasks) <= MOST_TASKS:
            raise invalid(f"tasks is to hold 1 to {MOST_TASKS} tasks.")
        return tasks

    def _model_of(self, base: str, key: str, parameters: Mapping[str, Any]) -> dict[str, Any]:
        wanted = _KEYS[base][key]
        if base == FIRST:
            found = self._store.resource(PUBLISHED, str(parameters.get("modelId")))
            if found is None:
                raise missing("There is no such modelId.")
            if TASKS[str(parameters["modelId"]).split("_")[1].lower()] != wanted:
                raise invalid(f"tasks.{key}: the model is of the other kind.")
            return {"digest": found["digest"], "project": found["project"], "deployment": None}
        project, deployment = str(parameters.get("project-name")), str(parameters.get("deployment-name"))
        known = deployed(project, deployment, self._store.projects, self._store.resources(PROJECT))
        if known.task != wanted:
            raise invalid(f"tasks.{key}: the project is of the other kind.")
        return {"digest": known.deployments[deployment], "project": project, "deployment": deployment}


def analyze(job: Job, backend: Backend) -> Done:
    """Do a job of either runtime."""
    about = orjson.loads(job.about)
    given = [Document(*one) for one in orjson.loads(job.request or b"[]")]
    fate = struck(job, given, len(about["tasks"]))
    if fate is None:
        return Done(State.CANCELLED, None, {})
    results: list[dict[str, Any] | None] = []
    counted: Counter[str] = Counter()
    for number, task in enumerate(about["tasks"]):
        result = None
        if number not in fate.failing:
            with suppress(ModelError):  # of which the task fails, and is shown as failed
                result = classified(backend.models.get(task["digest"]), given, fate.errors)
        results.append(result)
        counted[task["project"]] += len(given) - len(fate.errors) if result else 0
    return Done(ending(results, fate), orjson.dumps(results), counted)


def _analysis(base: str, job: Job, now: float, page: Page, call: Call) -> dict[str, Any]:
    about, state = orjson.loads(job.about), job.state_at(now)
    first = base == FIRST
    status = (STATUSES if first else LATER_STATUSES)[state]
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
            shown["errors"].append({**TASK_FAILED, "target": f"#/tasks/{task['key']}/{len(array)}"})
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
    about: Mapping[str, Any], task: Mapping[str, Any], result: dict[str, Any] | None, job: Job, page: Page
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
    results = results_of(result, page._replace(statistics=page.statistics or first))
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


def _text(fields: Mapping[str, Any], key: str) -> str | None:
    value = fields.get(key)
    if value is not None and not isinstance(value, str):
        raise invalid(f"{key} is to be a string.")
    return value
