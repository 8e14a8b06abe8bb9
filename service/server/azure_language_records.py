"""What Azure Language's authoring keeps: projects, what belongs to each, and how operations went that take no time.

A project's parts are kept under `PROJECT/NAME`. An operation that is done when its request is answered is told as a
job all the same, for a week.
"""

import asyncio
from collections.abc import Mapping
from typing import Any

from starlette.responses import Response

from service.server.azure_language_results import moment
from service.server.azure_language_wire import accepted, full, missing
from service.server.gateway import Call, answer
from service.server.jobs import Jobs, new_id
from service.server.store import Change, Store

PROJECT, ASSETS, MODEL, SNAPSHOT, DEPLOYMENT, OPERATION = (
    f"language/{what}" for what in ("project", "assets", "model", "snapshot", "deployment", "operation")
)
MOST_PROJECTS = 500
WEEK = 7 * 86_400.0  # seconds that jobs are told for


class Records:
    """What there is, as the paths of requests name it, and the turn to change it.

    Whoever trains, deploys or removes something looks and acts inside `async with records.turn`, so what he has seen
    still holds when he acts.
    """

    def __init__(self, store: Store, jobs: Jobs) -> None:
        self._store = store
        self._jobs = jobs
        self.turn = asyncio.Lock()

    def project(self, call: Call) -> tuple[str, Mapping[str, Any]]:
        """The project of a request, by its name; raises `Refusal`."""
        name = call.parameter("project")
        kept = self._store.resource(PROJECT, name)
        if kept is None:
            raise missing(f"There is no project {name!r}.", "ProjectNotFound")
        return name, kept

    def model(self, call: Call) -> tuple[str, Mapping[str, Any]]:
        """The model of a request, as it is kept; raises `Refusal`."""
        return self._part(call, MODEL, "model")

    def deployment(self, call: Call) -> tuple[str, Mapping[str, Any]]:
        """The deployment of a request, as it is kept; raises `Refusal`."""
        return self._part(call, DEPLOYMENT, "deployment")

    def of(self, kind: str, project: str) -> dict[str, Mapping[str, Any]]:
        """What a project has of a kind, by their own names."""
        split = ((name.partition("/"), one) for name, one in self._store.resources(kind).items())
        return {own: one for (owner, _, own), one in split if owner == project}

    def admit(self, project: str) -> None:
        """See that there is room for a project; raises `Refusal`."""
        projects = self._store.resources(PROJECT)
        if project not in projects and len(projects) >= MOST_PROJECTS:
            raise full(f"A resource has at most {MOST_PROJECTS} projects.")

    async def done(self, call: Call, where: str, job_id: str | None = None, **more: object) -> Response:
        """The answer about something that is done already, told as a job below a path."""
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
        kept = {"shown": shown, "where": where, "expires": now + WEEK}
        await self._store.change(Change(OPERATION, job_id, kept), *(Change(OPERATION, name, None) for name in old))
        return accepted(call, f"{where}/{job_id}")

    def operation(self, call: Call) -> Mapping[str, Any]:
        """How the operation of a request went; raises `Refusal`."""
        kept = self._store.resource(OPERATION, call.parameter("job_id"))
        if kept is None or kept["expires"] <= self._jobs.clock() or not call.scope["path"].startswith(kept["where"]):
            raise missing("There is no such job, or it has expired.")
        shown: Mapping[str, Any] = kept["shown"]
        return shown

    async def polled(self, call: Call) -> Response:
        """Say how an operation went."""
        return answer(self.operation(call))

    def _part(self, call: Call, kind: str, what: str) -> tuple[str, Mapping[str, Any]]:
        project, _ = self.project(call)
        name = f"{project}/{call.parameter(what)}"
        kept = self._store.resource(kind, name)
        if kept is None:
            raise missing(f"Project {project!r} has no {what} {call.parameter(what)!r}.")
        return name, kept
