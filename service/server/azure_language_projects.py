"""Azure Language's authoring: projects, and the labelled documents that are imported into them and exported."""

import asyncio
from collections.abc import Mapping
from typing import Any

from starlette.responses import Response

from service.server.azure_language_labels import TASKS, LabelsError, from_assets
from service.server.azure_language_records import ASSETS, DEPLOYMENT, MODEL, PROJECT, SNAPSHOT, Records
from service.server.azure_language_requests import is_language
from service.server.azure_language_results import moment
from service.server.azure_language_trainings import Trainings
from service.server.azure_language_wire import (
    BASE,
    KINDS,
    MOST_BODY,
    conflict,
    index_type,
    invalid,
    json_body,
    kind,
    missing,
    named,
    page,
    part,
)
from service.server.gateway import Call, Operation, Window, answer
from service.server.jobs import Jobs, new_id
from service.server.store import Change, Store

_TOLD = ("projectName", "storageInputContainerName", "language", "multilingual", "description", "settings")


class Projects:
    """The operations on projects."""

    def __init__(self, store: Store, jobs: Jobs, records: Records, trainings: Trainings) -> None:
        self._store = store
        self._jobs = jobs
        self._records = records
        self._trainings = trainings

    def paths(self, gets: Window | None, others: Window | None) -> dict[str, dict[str, Operation]]:
        """What is done at which paths."""
        p, poll = f"{BASE}/{{project}}", Operation("poll", self._records.polled, gets)
        return {
            BASE: {"GET": Operation("manage", self.list, gets)},
            f"{BASE}/global/deletion-jobs/{{job_id}}": {"GET": poll},
            f"{p}/:import": {"POST": Operation("manage", self.import_, others)},
            f"{p}/import/jobs/{{job_id}}": {"GET": poll},
            f"{p}/:export": {"POST": Operation("manage", self.export, others)},
            f"{p}/export/jobs/{{job_id}}": {"GET": poll},
            f"{p}/export/jobs/{{job_id}}/result": {"GET": Operation("manage", self.exported, gets)},
            p: {
                "GET": Operation("manage", self.get, gets),
                "PATCH": Operation("manage", self.patch, others),
                "DELETE": Operation("manage", self.delete, others),
            },
        }

    async def list(self, call: Call) -> Response:
        """All projects."""
        return page(call, [self._shown(call, one) for one in self._store.resources(PROJECT).values()])

    async def get(self, call: Call) -> Response:
        """One project."""
        return answer(self._shown(call, self._records.project(call)[1]))

    async def patch(self, call: Call) -> Response:
        """Make a project, or change one."""
        name = named(call, "project")
        body, now = json_body(await call.body(MOST_BODY)), self._jobs.clock()
        before = self._store.resource(PROJECT, name)
        merged = {**(before or {}), **body}
        kept = _project(name, {key: value for key, value in merged.items() if value is not None})
        if before and before["task"] != kept["task"]:
            raise invalid("projectKind of a project cannot be changed.")
        self._records.admit(name)
        kept |= {"created": before["created"] if before else now, "modified": now}
        await self._store.change(Change(PROJECT, name, kept))
        return answer(self._shown(call, kept), 200 if before else 201)

    async def delete(self, call: Call) -> Response:
        """Forget a project, with its models and deployments, and give up what it is learning."""
        async with self._records.turn:
            name, _ = self._records.project(call)
            await self._trainings.forget(name)
            for deployment in self._records.of(DEPLOYMENT, name):
                await self._store.undeploy(name, deployment)
            gone = [
                Change(kind_of_part, f"{name}/{one}", None)
                for kind_of_part in (MODEL, SNAPSHOT, DEPLOYMENT)
                for one in self._records.of(kind_of_part, name)
            ]
            await self._store.change(Change(PROJECT, name, None), Change(ASSETS, name, None), *gone)
        return await self._records.done(call, f"{BASE}/global/deletion-jobs")

    async def import_(self, call: Call) -> Response:
        """Put labelled documents into a project, which is made if it is not there."""
        name = named(call, "project")
        body, now = await asyncio.to_thread(json_body, await call.body(MOST_BODY)), self._jobs.clock()
        assets, kept = part(body, "assets"), _project(name, part(body, "metadata"))
        given = assets.get("projectKind")
        if given is not None and _task(given) != kept["task"]:
            raise invalid("assets.projectKind is not that of metadata.")
        try:
            await asyncio.to_thread(from_assets, assets)
        except LabelsError as error:
            raise invalid(str(error)) from None
        before = self._store.resource(PROJECT, name)
        if before and before["task"] != kept["task"] and self._records.of(MODEL, name):
            raise invalid("metadata.projectKind is not that of the project's models.")
        if before and before["task"] != kept["task"] and await self._trainings.under_way(name):
            raise conflict("The project is being trained, as one of another kind.")
        self._records.admit(name)
        kept |= {"created": before["created"] if before else now, "modified": now}
        await self._store.change(Change(PROJECT, name, kept), Change(ASSETS, name, assets))
        return await self._records.done(call, f"{BASE}/{name}/import/jobs")

    async def export(self, call: Call) -> Response:
        """Make the labelled documents of a project, or those that a model was trained on, ready to be fetched."""
        name, _ = self._records.project(call)
        label = call.query.get("trainedModelLabel")
        if label is not None and label not in self._records.of(MODEL, name):
            raise missing(f"Project {name!r} has no model {label!r}.")
        job_id, counted = new_id(), index_type(call)
        query = f"api-version={call.version}&stringIndexType={counted}"
        query += f"&trainedModelLabel={label}" if label is not None else ""
        url = call.url(f"{BASE}/{name}/export/jobs/{job_id}/result", query)
        return await self._records.done(call, f"{BASE}/{name}/export/jobs", job_id, resultUrl=url)

    async def exported(self, call: Call) -> Response:
        """What an export has made ready."""
        name, kept = self._records.project(call)
        self._records.operation(call)
        label, shown = call.query.get("trainedModelLabel"), self._shown(call, kept)
        assets = (
            self._store.resource(ASSETS, name) if label is None else self._store.resource(SNAPSHOT, f"{name}/{label}")
        )
        return answer(
            {
                "projectFileVersion": call.version,
                "stringIndexType": call.query.get("stringIndexType", "Utf16CodeUnit"),
                "metadata": {key: shown[key] for key in ("projectKind", *_TOLD)},
                "assets": {**(assets or {}), "projectKind": shown["projectKind"]},
            }
        )

    def _shown(self, call: Call, kept: Mapping[str, Any]) -> dict[str, Any]:
        name = kept["projectName"]
        trained = [one["trained"] for one in self._records.of(MODEL, name).values()]
        deployed = [one["deployed"] for one in self._records.of(DEPLOYMENT, name).values()]
        return {
            "projectKind": kind(call, kept["task"]),
            **{key: kept[key] for key in _TOLD},
            "createdDateTime": moment(kept["created"]),
            "lastModifiedDateTime": moment(kept["modified"]),
            **({"lastTrainedDateTime": moment(max(trained))} if trained else {}),
            **({"lastDeployedDateTime": moment(max(deployed))} if deployed else {}),
        }


def _project(name: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """A project as it is kept, but for its times; raises `Refusal`."""
    task = _task(given.get("projectKind"))
    if given.get("projectName", name) != name:
        raise invalid("projectName is not that of the path.")
    container, language = given.get("storageInputContainerName"), given.get("language")
    if not isinstance(container, str) or not container:
        raise invalid("storageInputContainerName is missing.")
    if not isinstance(language, str) or not is_language(language):
        raise invalid("language is missing, or not one of those that documents may be in.")
    if not isinstance(given.get("description") or "", str) or not isinstance(given.get("multilingual", False), bool):
        raise invalid("description is to be a string, and multilingual true or false.")
    settings = given.get("settings") or {}
    if not isinstance(settings, dict):
        raise invalid("settings is to be an object.")
    return {
        "projectKind": KINDS[task],
        "task": task,
        "projectName": name,
        "storageInputContainerName": container,
        "language": language,
        "multilingual": given.get("multilingual", False),
        "description": given.get("description") or "",
        "settings": settings,
    }


def _task(given: object) -> str:
    task = TASKS.get(given.lower()) if isinstance(given, str) and given.lower().startswith("custom") else None
    if task is None:
        raise invalid(f"projectKind is to be {' or '.join(KINDS.values())}.")
    return task
