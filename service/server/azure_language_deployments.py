"""Azure Language's authoring: deployments, from which the runtime answers at once."""

from collections.abc import Mapping
from typing import Any

from starlette.responses import Response

from service.errors import Misconfigured
from service.server.azure_language_models import told
from service.server.azure_language_records import DEPLOYMENT, MODEL, Records
from service.server.azure_language_results import moment
from service.server.azure_language_wire import (
    BASE,
    MOST_BODY,
    conflict,
    full,
    json_body,
    missing,
    named,
    page,
    word,
)
from service.server.gateway import Call, Operation, Window, answer
from service.server.jobs import Jobs
from service.server.store import Change, Store

MOST_DEPLOYMENTS = 10


class Deployments:
    """The operations on deployments."""

    def __init__(self, store: Store, jobs: Jobs, records: Records) -> None:
        self._store = store
        self._jobs = jobs
        self._records = records

    def paths(self, gets: Window | None, others: Window | None) -> dict[str, dict[str, Operation]]:
        """What is done at which paths."""
        d, poll = f"{BASE}/{{project}}/deployments", Operation("poll", self._records.polled, gets)
        return {
            d: {"GET": Operation("manage", self.list, gets)},
            f"{d}/:swap": {"POST": Operation("manage", self.swap, others)},
            f"{d}/swap/jobs/{{job_id}}": {"GET": poll},
            f"{d}/{{deployment}}": {
                "GET": Operation("manage", self.get, gets),
                "PUT": Operation("manage", self.put, others),
                "DELETE": Operation("manage", self.delete, others),
            },
            f"{d}/{{deployment}}/jobs/{{job_id}}": {"GET": poll},
        }

    async def list(self, call: Call) -> Response:
        """All deployments of a project."""
        name, _ = self._records.project(call)
        return page(call, [_shown(one) for one in self._records.of(DEPLOYMENT, name).values()])

    async def get(self, call: Call) -> Response:
        """One deployment."""
        return answer(_shown(self._records.deployment(call)[1]))

    async def put(self, call: Call) -> Response:
        """Put a model behind a deployment."""
        project, _ = self._records.project(call)
        name = named(call, "deployment")
        label = word(json_body(await call.body(MOST_BODY)), "trainedModelLabel")
        async with self._records.turn:
            self._records.project(call)
            model = self._store.resource(MODEL, f"{project}/{label}")
            if model is None:
                raise missing(f"Project {project!r} has no model {label!r}.")
            known = self._records.of(DEPLOYMENT, project)
            if name not in known and len(known) >= MOST_DEPLOYMENTS:
                raise full(f"A project has at most {MOST_DEPLOYMENTS} deployments.")
            await self._deploy(project, name, model)
        return await self._records.done(call, f"{BASE}/{project}/deployments/{name}/jobs")

    async def delete(self, call: Call) -> Response:
        """Take a deployment away."""
        async with self._records.turn:
            key, _ = self._records.deployment(call)
            project, _, name = key.partition("/")
            await self._store.undeploy(project, name)
            await self._store.change(Change(DEPLOYMENT, key, None))
        return await self._records.done(call, f"{BASE}/{project}/deployments/{name}/jobs")

    async def swap(self, call: Call) -> Response:
        """Put the models of two deployments behind each other's."""
        project, _ = self._records.project(call)
        body = json_body(await call.body(MOST_BODY))
        names = [word(body, f"{which}DeploymentName") for which in ("first", "second")]
        async with self._records.turn:
            known = self._records.of(DEPLOYMENT, project)
            for name in names:
                if name not in known:
                    raise missing(f"Project {project!r} has no deployment {name!r}.")
            models = [self._store.resource(MODEL, f"{project}/{known[name]['label']}") for name in names]
            for name, model in zip(names, reversed(models), strict=True):
                if model is not None:
                    await self._deploy(project, name, model)
        return await self._records.done(call, f"{BASE}/{project}/deployments/swap/jobs")

    async def _deploy(self, project: str, name: str, model: Mapping[str, Any]) -> None:
        try:
            await self._store.deploy(project, name, model["task"], model["digest"])
        except Misconfigured as error:
            raise conflict(str(error)) from None
        kept = {"name": name, "label": model["label"], "model": told(model), "deployed": self._jobs.clock()}
        await self._store.change(Change(DEPLOYMENT, f"{project}/{name}", kept))


def _shown(kept: Mapping[str, Any]) -> dict[str, Any]:
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
