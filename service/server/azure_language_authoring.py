"""Azure Language, custom text classification: the authoring API of 2022 and later, over really trained models.

Under `/language/authoring/analyze-text/projects`, a room each::

    projects     GET "" · PATCH, GET, DELETE /{p} · POST /{p}/:import · POST /{p}/:export, …/jobs/{id}/result
    trainings    POST /{p}/:train · GET /{p}/train/jobs[/{id}] · POST /{p}/train/jobs/{id}/:cancel
    models       GET /{p}/models[/{m}] · DELETE …/{m} · POST …/{m}/:load-snapshot
    evaluations  GET /{p}/models/{m}/evaluation/summary-result, …/result · POST …/{m}/:evaluate
    deployments  GET /{p}/deployments[/{d}] · PUT, DELETE …/{d} · POST …/:swap
    (here)       GET /global/languages · GET /global/training-config-versions

Versions: 2022-05-01, 2023-04-01 and the previews in `VERSIONS`. What is deployed is answered from at once by the
runtime (`azure_language`). Documents are read from the project's container when a training begins.

Limits, all documented: 500 projects; of each, 10 models and 10 deployments; names of up to 50 letters, digits and
_ . -; those of classes up to 50 characters, none of them `:$&%*()+~#/?`; documents as `azure_language_labels` has them.

Behaviour chosen where the service's is not documented: trainings are jobs that take as long as they take, and
everything else that is told as a job is done when its request is answered; `projectKind` is read in any case and told
in that of the version; a project trains one model at a time (409 Conflict otherwise); one too many of anything is a
400 with QuotaExceeded as inner code; a second import replaces what was there; a model that is deployed is not deleted
(409); a project that is deleted gives its training up. In a PATCH, null takes a value back. Percentages are of
the documents marked for training, set aside at even distances. `percentComplete` is 0 until it is 100.

Not done: other kinds of project, copying between resources, assigning resources; exports in
parts (`assetKind`); `settings` are kept and mean nothing here.
"""

from starlette.responses import Response
from starlette.routing import Route

from service.server.azure_language_deployments import Deployments
from service.server.azure_language_evaluations import Evaluations
from service.server.azure_language_models import TrainedModels
from service.server.azure_language_projects import Projects
from service.server.azure_language_records import Records
from service.server.azure_language_requests import LANGUAGES
from service.server.azure_language_trainings import CONFIGS, Trainings
from service.server.azure_language_wire import BASE, YEAR, day, page
from service.server.backend import Backend
from service.server.gateway import Call, Gateway, Operation, Resource
from service.server.jobs import Jobs

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


class Authoring:
    """The rooms together, and what is the same for all projects."""

    def __init__(self, backend: Backend, jobs: Jobs) -> None:
        store, records = backend.store, Records(backend.store, jobs)
        self._jobs = jobs
        self._gets, self._others = backend.window(100, 60.0), backend.window(10, 60.0)
        trainings = Trainings(jobs, records)
        self._rooms = (
            Projects(store, jobs, records, trainings),
            trainings,
            TrainedModels(store, jobs, records),
            Evaluations(jobs, records),
            Deployments(store, jobs, records),
        )

    def routes(self, gateway: Gateway) -> list[Route]:
        """The paths of this API, behind a gateway."""
        paths = {
            f"{BASE}/global/languages": {"GET": Operation("manage", self.languages, self._gets)},
            f"{BASE}/global/training-config-versions": {"GET": Operation("manage", self.configs, self._gets)},
        }
        for room in self._rooms:
            paths |= room.paths(self._gets, self._others)
        return [Route(path, Resource(gateway, "azure_language", VERSIONS, does)) for path, does in paths.items()]

    async def languages(self, call: Call) -> Response:
        """The languages that documents may be in."""
        return page(call, [{"languageName": name, "languageCode": code} for code, name in LANGUAGES.items()])

    async def configs(self, call: Call) -> Response:
        """The versions of training that there are."""
        expires = day(self._jobs.clock() + YEAR)
        return page(call, [{"trainingConfigVersion": one, "modelExpirationDate": expires} for one in CONFIGS])
