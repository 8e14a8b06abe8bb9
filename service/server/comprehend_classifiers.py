"""Amazon Comprehend, classifiers: trained from labelled documents on S3, described, listed, stopped, deleted.

What they learn from is in `comprehend_training_data`. What a model is worth is in `ClassifierMetadata`, and, where
there is an `OutputDataConfig`, in `output.tar.gz` as `confusion_matrix.json` (rows are the labels that documents have,
columns those that the model gave; in multi-label mode a table of two by two for each label).

A classifier is SUBMITTED until its training begins, which is when those before it have ended; TRAINING while data is
read and learnt from; then TRAINED, TRAINED_WITH_WARNING where the model says something of itself (`Message`), or
IN_ERROR with the reason in `Message`. One that is TRAINING and told to stop is STOP_REQUESTED until its process has
ended, and then STOPPED, or TRAINED if that came first. One that is deleted is DELETING until its model is off the disk.
A training that the end of the server breaks off is done again at the next start.

Behaviour chosen where the service's is not documented: a classifier with versions is so many classifiers; a training
that is still SUBMITTED when it is told to stop is STOPPED at once; what has ended is left as it is by a stop, and a
deletion that is under way by another; DELETING and STOPPED classifiers count as ended for a deletion, as IN_ERROR and
TRAINED do; of the languages in the service model those that the guide trains in are taken (en, es, de, it, fr, pt), the
others are an UnsupportedLanguageException.
"""

import io
import tarfile
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import IO, Any

import orjson
import structlog

from service.model.classifier import Task
from service.model.evaluate import Evaluation
from service.model.examples import ExamplesError
from service.server import comprehend_tags, comprehend_training_data
from service.server.backend import Backend
from service.server.comprehend import Action, Call, Failure
from service.server.comprehend_account import Account, asked, made_before, token
from service.server.comprehend_requests import (
    MODEL_STATUSES,
    NAME,
    S3_URI,
    arn,
    branch,
    encryption,
    filtered,
    in_time,
    named,
    needed,
    page,
    role,
    surroundings,
    text,
)
from service.server.jobs import Done, Interrupted, Jobs, new_id
from service.server.s3 import ObjectError
from service.server.store import Change, Job, State
from service.server.training import GivenUp, Learnt, TrainingFailed, learn

KIND = "comprehend/training"
DELETION = "comprehend/deletion"
RESOURCE = "comprehend/classifier"
STOPS = "comprehend/stop"
ARN_KIND = "document-classifier"
FORM = rf"{NAME}(?:/version/{NAME})?"
LIFETIME = 10 * 365 * 86_400.0  # seconds; what a job was is told for as long as there is its classifier
_MODES: Mapping[str, Task] = {"MULTI_CLASS": "single_label", "MULTI_LABEL": "multi_label"}
_LANGUAGES = "en|es|fr|de|it|pt|ar|hi|ja|ko|zh|zh-TW"
_TRAINED_IN = {"en", "es", "de", "it", "fr", "pt"}
_IN_MEMORY = 8 * 2**20  # bytes of an archive; more goes to disk
_ECHOED = ("DataAccessRoleArn", "LanguageCode", "VersionName", "VolumeKmsKeyId", "ModelKmsKeyId", "VpcConfig")
_SHOWN = {
    "message": "Message",
    "began": "TrainingStartTime",
    "learnt": "TrainingEndTime",
    "ended": "EndTime",
    "metadata": "ClassifierMetadata",
}

log = structlog.get_logger(__name__)


class Classifiers:
    """The operations on classifiers."""

    def __init__(self, backend: Backend, jobs: Jobs, account: Account) -> None:
        self._store = backend.store
        self._jobs = jobs
        self._account = account

    def actions(self) -> dict[str, Action]:
        """What this room does, by operation."""
        return {
            "CreateDocumentClassifier": Action("train", self.create),
            "DescribeDocumentClassifier": Action("manage", self.describe),
            "ListDocumentClassifiers": Action("manage", self.list),
            "ListDocumentClassifierSummaries": Action("manage", self.summarize),
            "StopTrainingDocumentClassifier": Action("cancel", self.stop),
            "DeleteDocumentClassifier": Action("manage", self.delete),
        }

    async def create(self, call: Call) -> Mapping[str, Any]:
        """Begin a training."""
        given = call.given
        name, kept = _wanted(given)
        tags = comprehend_tags.first(ARN_KIND, name, given)
        async with self._account.turn:
            made = self._store.resources(RESOURCE)
            if (before := made_before(made.values(), given)) is not None:
                return {"DocumentClassifierArn": before["arn"]}
            if name in made:
                raise Failure("ResourceInUseException", f"There is a classifier {name!r} already.")
            if sum(one["status"] == "SUBMITTED" for one in made.values()) >= self._account.quotas.trainings:
                most = self._account.quotas.trainings
                raise Failure("ResourceLimitExceededException", f"There may be {most} trainings at once.")
            job_id = new_id()
            kept |= {"arn": arn(call.region, ARN_KIND, name), "submitted": self._jobs.clock(), "job": job_id}
            await self._jobs.submit(
                KIND,
                orjson.dumps({"name": name}),
                b"{}",
                call.fault,
                lifetime=LIFETIME,
                job_id=job_id,
                changes=[Change(RESOURCE, name, kept), *tags],
            )
        return {"DocumentClassifierArn": kept["arn"]}

    async def describe(self, call: Call) -> Mapping[str, Any]:
        """Show a classifier."""
        _, kept = self.known(call.given)
        return {"DocumentClassifierProperties": await self._shown(kept)}

    async def list(self, call: Call) -> Mapping[str, Any]:
        """Show all classifiers that a filter leaves."""
        forms = {"Status": MODEL_STATUSES, "DocumentClassifierName": f"(?=.{{1,63}}$){NAME}"}
        wanted = filtered(call.given, forms, "SubmitTime")
        shown = [await self._shown(kept) for kept in self._store.resources(RESOURCE).values()]
        found = [
            one
            for one in in_time(shown, wanted, "SubmitTime")
            if wanted.get("Status") in {None, one["Status"]}
            and wanted.get("DocumentClassifierName") in {None, _base(one["DocumentClassifierArn"])}
        ]
        part, after = page(call.given, found)
        return {"DocumentClassifierPropertiesList": part, **after}

    async def summarize(self, call: Call) -> Mapping[str, Any]:
        """Show each name once, with its newest version."""
        newest: dict[str, list[dict[str, Any]]] = {}
        for kept in self._store.resources(RESOURCE).values():
            shown = await self._shown(kept)
            newest.setdefault(_base(shown["DocumentClassifierArn"]), []).append(shown)
        found = [
            {
                "DocumentClassifierName": name,
                "NumberOfVersions": len(versions),
                "LatestVersionCreatedAt": versions[-1]["SubmitTime"],
                "LatestVersionStatus": versions[-1]["Status"],
                **({"LatestVersionName": v} if (v := versions[-1].get("VersionName")) else {}),
            }
            for name, versions in newest.items()
        ]
        part, after = page(call.given, found)
        return {"DocumentClassifierSummariesList": part, **after}

    async def stop(self, call: Call) -> Mapping[str, Any]:
        """Give a training up; one that has ended is left as it is."""
        async with self._account.turn:
            name, kept = self.known(call.given)
            job = await self._jobs.find(KIND, kept["job"]) if kept["status"] == "SUBMITTED" else None
            if job is not None and job.state is State.WAITING:
                stopped = {**kept, "status": "STOPPED", "ended": self._jobs.clock()}
                await self._jobs.cancel(job, [Change(RESOURCE, name, stopped)])
            elif job is not None and job.state is State.RUNNING:
                await self._store.change(Change(STOPS, job.id, {}))  # what is being done of it looks for this
        return {}

    async def delete(self, call: Call) -> Mapping[str, Any]:
        """Forget a classifier, and remove its model."""
        async with self._account.turn:
            name, kept = self.known(call.given)
            if kept["status"] == "SUBMITTED":
                raise Failure("ResourceUnavailableException", "The classifier is being trained; stop that first.")
            if any(name in _models(one) for one in self._store.resources("comprehend/endpoint").values()):
                raise Failure("ResourceInUseException", "An endpoint uses the classifier; delete that first.")
            if any(orjson.loads(job.about).get("model") == name for job in self._jobs.pending("comprehend/job")):
                raise Failure("ResourceInUseException", "A job uses the classifier; wait for its end.")
            if kept["status"] != "DELETING":
                going = Change(RESOURCE, name, {**kept, "status": "DELETING"})
                await self._jobs.submit(DELETION, orjson.dumps({"name": name}), b"{}", changes=[going])
        return {}

    def known(
        self, given: Mapping[str, Any], parameter: str = "DocumentClassifierArn"
    ) -> tuple[str, Mapping[str, Any]]:
        """The classifier of an ARN; raises `Failure`."""
        _, name = needed(named(given, parameter, f"{ARN_KIND}|model", FORM), parameter)
        kept = self._store.resource(RESOURCE, name)
        if kept is None:
            raise Failure("ResourceNotFoundException", f"There is no classifier {name!r}.")
        return name, kept

    def trained(
        self, given: Mapping[str, Any], parameter: str = "DocumentClassifierArn"
    ) -> tuple[str, Mapping[str, Any]]:
        """As `known`, a classifier that may be used; raises `Failure`."""
        name, kept = self.known(given, parameter)
        if not kept["status"].startswith("TRAINED"):
            raise Failure("ResourceUnavailableException", f"The classifier is {kept['status']}, not TRAINED.")
        return name, kept

    async def has(self, name: str) -> bool:
        """Whether there is a classifier of that name."""
        return self._store.resource(RESOURCE, name) is not None

    async def _shown(self, kept: Mapping[str, Any]) -> dict[str, Any]:
        shown: dict[str, Any] = {
            "DocumentClassifierArn": kept["arn"],
            "Status": kept["status"],
            "SubmitTime": kept["submitted"],
            "Mode": kept["mode"],
            "InputDataConfig": kept["input"],
            "OutputDataConfig": kept["output"],
            **kept["echoed"],
            **{name: kept[key] for key, name in _SHOWN.items() if kept.get(key) is not None},
        }
        job = await self._jobs.find(KIND, kept["job"]) if kept["status"] == "SUBMITTED" else None
        if job is not None and job.state is State.RUNNING:
            stops = self._store.resource(STOPS, job.id) is not None
            shown |= {"Status": "STOP_REQUESTED" if stops else "TRAINING", "TrainingStartTime": job.updated}
        return shown


def _wanted(given: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """The name of the classifier that a request is for, and what is kept of it; raises `Failure`."""
    name = needed(text(given, "DocumentClassifierName", NAME, 63), "DocumentClassifierName")
    if (version := text(given, "VersionName", NAME, 63)) is not None:
        name = f"{name}/version/{version}"
    needed(role(given), "DataAccessRoleArn")
    if needed(text(given, "LanguageCode", _LANGUAGES), "LanguageCode") not in _TRAINED_IN:
        raise Failure("UnsupportedLanguageException", "Classifiers are trained in en, es, de, it, fr and pt.")
    encryption(given, "VolumeKmsKeyId", "ModelKmsKeyId")
    surroundings(given)
    output = branch(given, "OutputDataConfig")
    text(output, "S3Uri", S3_URI, 1024)
    text(output, "FlywheelStatsS3Prefix", S3_URI, 1024)
    encryption(output, "KmsKeyId")
    return name, {
        "status": "SUBMITTED",
        "mode": text(given, "Mode", "|".join(_MODES)) or "MULTI_CLASS",
        "input": comprehend_training_data.config(given),
        "output": dict(output),
        "token": token(given),
        "asked": asked(given),
        "echoed": {key: given[key] for key in _ECHOED if given.get(key) is not None},
    }


def train(job: Job, backend: Backend, clock: Callable[[], float]) -> Done:
    """Do the training of a job."""
    name = orjson.loads(job.about)["name"]
    kept = backend.store.resource(RESOURCE, name)
    if kept is None or kept["job"] != job.id:  # deleted, and perhaps made anew
        return Done(State.CANCELLED, None, {})
    ended = {**kept, "began": job.updated}
    try:
        ended |= _learnt(kept, name, job, backend, clock)
        state = State.SUCCEEDED
    except (GivenUp, ObjectError, ExamplesError, TrainingFailed) as error:
        is_stopped = _is_given_up(job, backend)
        ended |= {"status": "STOPPED"} if is_stopped else {"status": "IN_ERROR", "message": str(error)}
        state = State.CANCELLED if is_stopped else State.FAILED
    except Interrupted:
        raise
    except Exception:  # whatever it was, the classifier does not stay TRAINING, and the operator gets the traceback
        log.exception("job_failed", job=job.id, kind=KIND)
        ended |= {"status": "IN_ERROR", "message": "The training failed on an error of the server."}
        state = State.FAILED
    return Done(state, None, {}, [Change(RESOURCE, name, {**ended, "ended": clock()}), Change(STOPS, job.id, None)])


def _learnt(
    kept: Mapping[str, Any], name: str, job: Job, backend: Backend, clock: Callable[[], float]
) -> dict[str, Any]:
    rows, tests = comprehend_training_data.rows(kept["input"], kept["mode"], backend.s3)
    task, folder, given_up = _MODES[kept["mode"]], backend.models.folder, partial(_is_given_up, job, backend)
    learnt = backend.trainer.run_until(given_up, learn, folder, rows, tests, task, f"{ARN_KIND}/{name}")
    found = {"learnt": clock(), "digest": learnt.digest, "metadata": _metadata(learnt)}
    if kept["output"].get("S3Uri"):
        uri = f"{kept['output']['S3Uri'].rstrip('/')}/{job.id.replace('-', '')}/output/output.tar.gz"
        content = orjson.dumps(_confusion(learnt))
        with archive("confusion_matrix.json", io.BytesIO(content), len(content)) as packed:
            backend.s3.write(uri, packed)
        found["output"] = {**kept["output"], "S3Uri": uri}
    if learnt.warnings:
        found["message"] = " ".join(learnt.warnings)
    return {**found, "status": "TRAINED_WITH_WARNING" if learnt.warnings else "TRAINED"}


def _is_given_up(job: Job, backend: Backend) -> bool:
    return backend.store.resource(STOPS, job.id) is not None


def delete(job: Job, backend: Backend) -> Done:
    """Remove the model of a classifier that is to be gone, unless another stands for it, and the classifier."""
    name = orjson.loads(job.about)["name"]
    kept = backend.store.resource(RESOURCE, name)
    if kept is None or kept["status"] != "DELETING":
        return Done(State.CANCELLED, None, {})
    others = [one.get("digest") for each, one in backend.store.resources(RESOURCE).items() if each != name]
    deployed = [digest for project in backend.store.projects.values() for digest in project.deployments.values()]
    endpoints = [one["digest"] for one in backend.store.resources("comprehend/endpoint").values()]
    if kept.get("digest") and kept["digest"] not in {*others, *deployed, *endpoints}:
        try:
            backend.models.remove(kept["digest"])
        except OSError as error:
            log.warning("model_left", model=kept["digest"], reason=error.strerror)
    gone = [Change(RESOURCE, name, None), comprehend_tags.last(ARN_KIND, name)]
    return Done(State.SUCCEEDED, None, {}, gone)


@contextmanager
def archive(name: str, content: IO[bytes], size: int) -> Iterator[IO[bytes]]:
    """A `.tar.gz` with one member, to be read while the context lasts."""
    with tempfile.SpooledTemporaryFile(_IN_MEMORY) as file:
        with tarfile.open(fileobj=file, mode="w:gz") as made:
            member = tarfile.TarInfo(name)
            member.size = size
            made.addfile(member, content)
        file.seek(0)
        yield file


def _models(endpoint: Mapping[str, Any]) -> set[str]:
    """The classifiers that an endpoint has, and is to have."""
    return {endpoint["model"], (endpoint["desired"] or endpoint)["model"]}


def _base(of: str) -> str:
    return of.split(":document-classifier/")[1].partition("/")[0]


def _metadata(learnt: Learnt) -> dict[str, Any]:
    found = learnt.evaluation
    return {
        "NumberOfLabels": len(learnt.labels),
        "NumberOfTrainedDocuments": learnt.documents,
        "NumberOfTestDocuments": found.documents,
        "EvaluationMetrics": {
            "Accuracy": found.accuracy,
            "Precision": found.precision_macro,
            "Recall": found.recall_macro,
            "F1Score": found.f1_macro,
            "MicroPrecision": found.precision_micro,
            "MicroRecall": found.recall_micro,
            "MicroF1Score": found.f1_micro,
            "HammingLoss": found.hamming_loss,
        },
    }


def _confusion(learnt: Learnt) -> dict[str, Any]:
    found, labels = learnt.evaluation, list(learnt.labels)
    if learnt.task == "single_label":
        table: list[Any] = [[found.confusion.get((actual, given), 0) for given in labels] for actual in labels]
        return {"type": "multi_class", "confusion_matrix": table, "labels": labels, "all_labels": labels}
    tables = [_two_by_two(found, label) for label in labels]
    return {"type": "multi_label", "confusion_matrix": tables, "labels": labels, "all_labels": labels}


def _two_by_two(found: Evaluation, label: str) -> list[list[int]]:
    one = next((each for each in found.classes if each.name == label), None)
    if one is None:
        return [[found.documents, 0], [0, 0]]
    rest = found.documents - one.true_positives - one.false_positives - one.false_negatives
    return [[rest, one.false_positives], [one.false_negatives, one.true_positives]]
