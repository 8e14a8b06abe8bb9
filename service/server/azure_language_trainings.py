"""Azure Language's authoring: trainings, which are jobs that take as long as they take and leave a model."""

from datetime import UTC, datetime
from typing import Any

import orjson
from starlette.responses import Response

from service.server.azure_language_evaluations import described, evaluation_options, share
from service.server.azure_language_labels import FAILURES, from_assets, train
from service.server.azure_language_records import ASSETS, MODEL, PROJECT, SNAPSHOT, WEEK, Records
from service.server.azure_language_requests import NAME
from service.server.azure_language_results import moment
from service.server.azure_language_wire import (
    BASE,
    MOST_BODY,
    STATUSES,
    accepted,
    conflict,
    full,
    invalid,
    json_body,
    missing,
    page,
)
from service.server.backend import Backend
from service.server.gateway import Call, Operation, Window, answer
from service.server.jobs import Done, Jobs
from service.server.store import PENDING, Change, Job, State

KIND = "azure_language/training"
CONFIGS = ("2022-05-01", "2023-04-01")
MOST_MODELS = 10


class Trainings:
    """The operations on trainings."""

    def __init__(self, jobs: Jobs, records: Records) -> None:
        self._jobs = jobs
        self._records = records

    def paths(self, gets: Window | None, others: Window | None) -> dict[str, dict[str, Operation]]:
        """What is done at which paths."""
        p = f"{BASE}/{{project}}"
        return {
            f"{p}/:train": {"POST": Operation("train", self.train, others)},
            f"{p}/train/jobs": {"GET": Operation("manage", self.list, gets)},
            f"{p}/train/jobs/{{job_id}}": {"GET": Operation("poll", self.get, gets)},
            f"{p}/train/jobs/{{job_id}}/:cancel": {"POST": Operation("cancel", self.cancel, others)},
        }

    async def under_way(self, project: str) -> list[Job]:
        """What a project is learning, at most one training."""
        return [job for job in await self._of(project) if job.state in PENDING]

    async def forget(self, project: str) -> None:
        """Give up what a project is learning, and forget what it has learnt: another may have its name."""
        for job in await self._of(project):
            await self._jobs.forget(job)

    async def _of(self, project: str) -> list[Job]:
        return [one for one in await self._jobs.of_kind(KIND) if orjson.loads(one.about)["project"] == project]

    async def train(self, call: Call) -> Response:
        """Begin a training."""
        name, _ = self._records.project(call)
        body = json_body(await call.body(MOST_BODY))
        label, config = body.get("modelLabel"), body.get("trainingConfigVersion") or CONFIGS[0]
        if not isinstance(label, str) or not NAME.fullmatch(label):
            raise invalid("modelLabel is to be up to 50 letters, digits and _ . -")
        if config not in (*CONFIGS, "latest"):
            raise invalid(f"trainingConfigVersion is to be one of {', '.join(CONFIGS)}.")
        options = evaluation_options(body.get("evaluationOptions"))
        async with self._records.turn:
            self._records.project(call)  # which may have been deleted meanwhile
            if await self.under_way(name):
                raise conflict("The project is being trained already.")
            models = self._records.of(MODEL, name)
            if label not in models and len(models) >= MOST_MODELS:
                raise full(f"A project has at most {MOST_MODELS} models.")
            about = {"project": name, "label": label, "config": config, "options": options}
            job = await self._jobs.submit(KIND, orjson.dumps(about), b"{}", call.fault, lifetime=WEEK)
        return accepted(call, f"{BASE}/{name}/train/jobs/{job.id}")

    async def list(self, call: Call) -> Response:
        """All trainings of a project, newest first."""
        name, _ = self._records.project(call)
        return page(call, [self._shown(job) for job in reversed(await self._of(name))])

    async def get(self, call: Call) -> Response:
        """How far a training is."""
        return answer(self._shown(await self._found(call)))

    async def cancel(self, call: Call) -> Response:
        """Give a training up."""
        job = await self._found(call)
        if job.state_at(self._jobs.clock()) not in PENDING:
            raise invalid("The training has ended and cannot be cancelled.")
        await self._jobs.cancel(job)
        return accepted(call, f"{BASE}/{call.parameter('project')}/train/jobs/{job.id}")

    async def _found(self, call: Call) -> Job:
        name, _ = self._records.project(call)
        job = await self._jobs.find(KIND, call.parameter("job_id"))
        if job is None or orjson.loads(job.about)["project"] != name:
            raise missing("There is no such job, or it has expired.")
        return job

    def _shown(self, job: Job) -> dict[str, Any]:
        about, state = orjson.loads(job.about), job.state_at(self._jobs.clock())
        succeeded = state is State.SUCCEEDED
        step = {
            "percentComplete": 100 if succeeded else 0,
            "startDateTime": moment(job.created),
            "status": STATUSES[state],
        }
        if state not in PENDING:
            step["endDateTime"] = moment(job.updated)
        return {
            "jobId": job.id,
            "createdDateTime": moment(job.created),
            "lastUpdatedDateTime": moment(job.updated),
            "expirationDateTime": moment(job.expires),
            "status": STATUSES[state],
            "warnings": [],
            "errors": [orjson.loads(job.result)] if state is State.FAILED and job.result else [],
            "result": {
                "modelLabel": about["label"],
                "trainingConfigVersion": about["config"],
                "trainingStatus": step,
                "evaluationStatus": step if succeeded else {"percentComplete": 0, "status": "notStarted"},
            },
        }


# The work, done in a thread -----------------------------------------------------------------------


def learn(job: Job, backend: Backend) -> Done:
    """Do a training."""
    about = orjson.loads(job.about)
    project = backend.store.resource(PROJECT, about["project"])
    if project is None:
        return Done(State.CANCELLED, None, {})
    options, began = about["options"], datetime.now(UTC)
    container, task = project["storageInputContainerName"], project["task"]
    assets = backend.store.resource(ASSETS, about["project"]) or {}
    try:
        trained = train(backend, container, from_assets(assets), task, name=about["project"], testing=share(options))
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
        "evaluation": described(trained.learnt.evaluation, task),
        "tested": [list(one) for one in trained.tested],
    }
    name = f"{about['project']}/{about['label']}"
    return Done(State.SUCCEEDED, None, {}, [Change(MODEL, name, kept), Change(SNAPSHOT, name, assets)])
