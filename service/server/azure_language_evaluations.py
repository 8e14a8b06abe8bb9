"""Azure Language's authoring: what models are worth, told of each document too, and measured again on request.

An evaluation on request tests a model on documents of today's labels and replaces what was said of it.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import orjson
from starlette.responses import Response

from service.errors import ModelError
from service.model.evaluate import Evaluation
from service.server.azure_language_labels import FAILURES, from_assets, measure
from service.server.azure_language_records import ASSETS, MODEL, PROJECT, WEEK, Records
from service.server.azure_language_results import moment
from service.server.azure_language_wire import (
    BASE,
    KINDS,
    MOST_BODY,
    STATUSES,
    accepted,
    index_type,
    invalid,
    json_body,
    kind,
    lower,
    missing,
    page,
)
from service.server.backend import Backend
from service.server.gateway import Call, Operation, Window, answer
from service.server.jobs import Done, Jobs
from service.server.store import Change, Job, State

KIND = "azure_language/evaluation"


class Evaluations:
    """The operations on what models are worth."""

    def __init__(self, jobs: Jobs, records: Records) -> None:
        self._jobs = jobs
        self._records = records

    def paths(self, gets: Window | None, others: Window | None) -> dict[str, dict[str, Operation]]:
        """What is done at which paths."""
        m = f"{BASE}/{{project}}/models/{{model}}"
        return {
            f"{m}/:evaluate": {"POST": Operation("train", self.evaluate, others)},
            f"{m}/evaluate/jobs/{{job_id}}": {"GET": Operation("poll", self.evaluating, gets)},
            f"{m}/evaluation/summary-result": {"GET": Operation("manage", self.summary, gets)},
            f"{m}/evaluation/result": {"GET": Operation("manage", self.documents, gets)},
        }

    async def evaluate(self, call: Call) -> Response:
        """Begin to test a model."""
        name, kept = self._records.model(call)
        options = evaluation_options(json_body(await call.body(MOST_BODY)) or None)
        about = {"model": name, "id": kept["id"], "config": kept["config"], "options": options}
        job = await self._jobs.submit(KIND, orjson.dumps(about), b"{}", call.fault, lifetime=WEEK)
        return accepted(call, f"{BASE}/{name.replace('/', '/models/')}/evaluate/jobs/{job.id}")

    async def evaluating(self, call: Call) -> Response:
        """How far a test is."""
        name, _ = self._records.model(call)
        job = await self._jobs.find(KIND, call.parameter("job_id"))
        about = orjson.loads(job.about) if job else {}
        if job is None or about["model"] != name:
            raise missing("There is no such job, or it has expired.")
        state = job.state_at(self._jobs.clock())
        shown = {
            "jobId": job.id,
            "createdDateTime": moment(job.created),
            "lastUpdatedDateTime": moment(job.updated),
            "expirationDateTime": moment(job.expires),
            "status": STATUSES[state],
            "warnings": [],
            "errors": [orjson.loads(job.result)] if state is State.FAILED and job.result else [],
            "result": {
                "evaluationOptions": about["options"],
                "modelLabel": name.partition("/")[2],
                "trainingConfigVersion": about["config"],
                "percentComplete": 100 if state is State.SUCCEEDED else 0,
            },
        }
        return answer(shown)

    async def summary(self, call: Call) -> Response:
        """What a model is worth."""
        _, kept = self._records.model(call)
        task = kept["task"]
        return answer(
            {
                "projectKind": kind(call, task),
                f"{lower(KINDS[task])}Evaluation": kept["evaluation"],
                "evaluationOptions": kept["options"],
            }
        )

    async def documents(self, call: Call) -> Response:
        """What a model gave each of the documents that it was tested on."""
        _, kept = self._records.model(call)
        index_type(call)  # of no effect: no answer has an offset
        single, spelt = kept["task"] == "single_label", kind(call, kept["task"])
        shown = []
        for location, language, expected, predicted in kept["tested"]:
            result = (
                {"expectedClass": next(iter(expected), None), "predictedClass": next(iter(predicted), None)}
                if single
                else {"expectedClasses": expected, "predictedClasses": predicted}
            )
            key = f"{lower(KINDS[kept['task']])}Result"
            shown.append({"location": location, "language": language or "en", "projectKind": spelt, key: result})
        return page(call, shown)


def evaluation_options(given: object) -> dict[str, Any]:
    """How a model is to be tested; raises `Refusal`."""
    if given is None:
        return {"kind": "percentage", "trainingSplitPercentage": 80, "testingSplitPercentage": 20}
    if not isinstance(given, dict) or given.get("kind") not in ("percentage", "manual"):
        raise invalid("evaluationOptions.kind is to be percentage or manual.")
    if given["kind"] == "manual":
        return {"kind": "manual"}
    training, testing = given.get("trainingSplitPercentage", 80), given.get("testingSplitPercentage", 20)
    shares = type(training) is int and type(testing) is int and training > 0 and testing >= 0
    if not shares or training + testing != 100:
        raise invalid("trainingSplitPercentage and testingSplitPercentage are to be whole numbers that make 100.")
    return {"kind": "percentage", "trainingSplitPercentage": training, "testingSplitPercentage": testing}


# The work, done in a thread -----------------------------------------------------------------------


def evaluate(job: Job, backend: Backend) -> Done:
    """Test a model."""
    about = orjson.loads(job.about)
    project, kept = about["model"].partition("/")[0], backend.store.resource(MODEL, about["model"])
    of = backend.store.resource(PROJECT, project)
    if of is None or kept is None or kept["id"] != about["id"]:
        return Done(State.CANCELLED, None, {})
    try:
        documents = from_assets(backend.store.resource(ASSETS, project) or {})
        found, tested = measure(
            backend, of["storageInputContainerName"], documents, kept["digest"], testing=share(about["options"])
        )
    except (ModelError, *FAILURES) as error:
        return Done(State.FAILED, orjson.dumps({"code": "InvalidArgument", "message": str(error)}), {})
    if backend.store.resource(MODEL, about["model"]) is not kept:  # deleted or trained again meanwhile
        return Done(State.CANCELLED, None, {})
    changed = {
        **kept,
        "options": about["options"],
        "evaluation": described(found, kept["task"]),
        "tested": [list(one) for one in tested],
    }
    return Done(State.SUCCEEDED, None, {}, [Change(MODEL, about["model"], changed)])


def share(options: Mapping[str, Any]) -> float | None:
    """The share, 0 to 1, of documents to test on; None where the documents say which."""
    return None if options["kind"] == "manual" else options["testingSplitPercentage"] / 100


def described(found: Evaluation, task: str) -> dict[str, Any]:
    """An evaluation in this API's words."""
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
