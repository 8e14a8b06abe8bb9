"""Azure Language's authoring: trained models, and the labels that they were trained on."""

from collections.abc import Mapping
from typing import Any

from starlette.responses import Response

from service.server.azure_language_records import ASSETS, DEPLOYMENT, MODEL, PROJECT, SNAPSHOT, Records
from service.server.azure_language_results import moment
from service.server.azure_language_wire import BASE, YEAR, conflict, day, page
from service.server.gateway import Call, Operation, Window, answer
from service.server.jobs import Jobs
from service.server.store import Change, Store


class TrainedModels:
    """The operations on models."""

    def __init__(self, store: Store, jobs: Jobs, records: Records) -> None:
        self._store = store
        self._jobs = jobs
        self._records = records

    def paths(self, gets: Window | None, others: Window | None) -> dict[str, dict[str, Operation]]:
        """What is done at which paths."""
        m = f"{BASE}/{{project}}/models"
        return {
            m: {"GET": Operation("manage", self.list, gets)},
            f"{m}/{{model}}": {
                "GET": Operation("manage", self.get, gets),
                "DELETE": Operation("manage", self.delete, others),
            },
            f"{m}/{{model}}/:load-snapshot": {"POST": Operation("manage", self.load_snapshot, others)},
            f"{m}/{{model}}/load-snapshot/jobs/{{job_id}}": {"GET": Operation("poll", self._records.polled, gets)},
        }

    async def list(self, call: Call) -> Response:
        """All models of a project."""
        name, _ = self._records.project(call)
        return page(call, [self._shown(f"{name}/{own}", one) for own, one in self._records.of(MODEL, name).items()])

    async def get(self, call: Call) -> Response:
        """One model."""
        return answer(self._shown(*self._records.model(call)))

    async def delete(self, call: Call) -> Response:
        """Forget a model."""
        async with self._records.turn:
            name, _ = self._records.model(call)
            project, _, label = name.partition("/")
            if any(one["label"] == label for one in self._records.of(DEPLOYMENT, project).values()):
                raise conflict(f"Model {label!r} is deployed.")
            await self._store.change(Change(MODEL, name, None), Change(SNAPSHOT, name, None))
        return Response(status_code=204)

    async def load_snapshot(self, call: Call) -> Response:
        """Give the project the labels again that a model was trained on."""
        name, _ = self._records.model(call)
        project, kept = self._records.project(call)
        snapshot = self._store.resource(SNAPSHOT, name)
        if snapshot is None:
            raise conflict("The labels that this model was trained on have not been kept.")
        modified = {**kept, "modified": self._jobs.clock()}
        await self._store.change(Change(ASSETS, project, snapshot), Change(PROJECT, project, modified))
        return await self._records.done(call, f"{BASE}/{project}/models/{call.parameter('model')}/load-snapshot/jobs")

    def _shown(self, name: str, kept: Mapping[str, Any]) -> dict[str, Any]:
        return {**told(kept), "hasSnapshot": self._store.resource(SNAPSHOT, name) is not None}


def told(kept: Mapping[str, Any]) -> dict[str, Any]:
    """What is said of a model."""
    return {
        "label": kept["label"],
        "modelId": kept["id"],
        "lastTrainedDateTime": moment(kept["trained"]),
        "lastTrainingDurationInSeconds": kept["seconds"],
        "modelExpirationDate": day(kept["trained"] + YEAR),
        "modelTrainingConfigVersion": kept["config"],
    }
