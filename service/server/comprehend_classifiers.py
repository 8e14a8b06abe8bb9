"""Amazon Comprehend, classifiers: trained from labelled documents on S3, described, listed, stopped, deleted.

Training data is a CSV file (`COMPREHEND_CSV`: label, text; no header) or augmented manifests, in the API's two modes.
Without test data every tenth document is set aside for the test. What the model is worth is in `ClassifierMetadata`,
and, where there is an `OutputDataConfig`, in `output.tar.gz` as `confusion_matrix.json` (rows are the labels that
documents have, columns those that the model gave; in multi-label mode a table of two by two for each label).

Behaviour chosen where the service's is not documented: a classifier with versions is so many classifiers; a training
that is stopped is STOPPED at once; one that fails is IN_ERROR and says why in `Message`.
"""

import csv
import io
import tarfile
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import orjson

from service.errors import Unavailable
from service.model.classifier import Task
from service.model.evaluate import Evaluation
from service.model.examples import Example, ExamplesError
from service.server.backend import Backend
from service.server.comprehend import Action, Call, Failure, arn, branch, invalid, named, needed, page, period, text
from service.server.jobs import Done, Jobs, new_id
from service.server.s3 import S3, ObjectError
from service.server.store import PENDING, Change, Job, State
from service.server.training import Learnt, TrainingFailed, learn

KIND = "comprehend/training"
RESOURCE = "comprehend/classifier"
NAME = "[a-zA-Z0-9](?:-*[a-zA-Z0-9])*"
FORM = rf"{NAME}(?:/version/{NAME})?"
LIFETIME = 10 * 365 * 86_400.0  # seconds; what a job was is told for as long as there is its classifier
_MODES: Mapping[str, Task] = {"MULTI_CLASS": "single_label", "MULTI_LABEL": "multi_label"}
_LANGUAGES = "en|es|fr|de|it|pt|ar|hi|ja|ko|zh|zh-TW"
ROLE = r"arn:aws(?:-[^:]+)?:iam::[0-9]{12}:role/.+"
_S3 = r"s3://[a-z0-9][.\-a-z0-9]{1,61}[a-z0-9](/.*)?"
_EVERY = 10
_ECHOED = ("DataAccessRoleArn", "LanguageCode", "VersionName", "VolumeKmsKeyId", "ModelKmsKeyId", "VpcConfig")


class Classifiers:
    """The operations on classifiers."""

    def __init__(self, backend: Backend, jobs: Jobs) -> None:
        self._store = backend.store
        self._jobs = jobs

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
        name = needed(text(given, "DocumentClassifierName", NAME, 63), "DocumentClassifierName")
        if (version := text(given, "VersionName", NAME, 63)) is not None:
            name = f"{name}/version/{version}"
        needed(text(given, "DataAccessRoleArn", ROLE), "DataAccessRoleArn")
        needed(text(given, "LanguageCode", _LANGUAGES), "LanguageCode")
        mode = text(given, "Mode", "|".join(_MODES)) or "MULTI_CLASS"
        config = _input(branch(given, "InputDataConfig"))
        output = branch(given, "OutputDataConfig")
        text(output, "S3Uri", _S3, 1024)
        token = text(given, "ClientRequestToken", "[a-zA-Z0-9-]+", 64)
        known = self._store.resource(RESOURCE, name)
        where = arn(call.region, "document-classifier", name)
        if known is not None:
            if token is not None and known["token"] == token:
                return {"DocumentClassifierArn": known["arn"]}
            raise Failure("ResourceInUseException", f"There is a classifier {name!r} already.")
        job_id = new_id()
        kept = {
            "arn": where,
            "status": "SUBMITTED",
            "mode": mode,
            "input": config,
            "output": dict(output),
            "submitted": self._jobs.clock(),
            "job": job_id,
            "token": token,
            "echoed": {key: given[key] for key in _ECHOED if given.get(key) is not None},
        }
        await self._store.change(Change(RESOURCE, name, kept))  # before the training, which changes it when it ends
        try:
            about = orjson.dumps({"name": name})
            await self._jobs.submit(KIND, about, b"{}", call.fault, lifetime=LIFETIME, job_id=job_id)
        except Unavailable:
            await self._store.change(Change(RESOURCE, name, None))
            raise
        return {"DocumentClassifierArn": where}

    async def describe(self, call: Call) -> Mapping[str, Any]:
        """Show a classifier."""
        _, kept = self.known(call.given)
        return {"DocumentClassifierProperties": await self._shown(kept)}

    async def list(self, call: Call) -> Mapping[str, Any]:
        """Show all classifiers that a filter leaves."""
        wanted = branch(call.given, "Filter")
        status, name = text(wanted, "Status"), text(wanted, "DocumentClassifierName")
        earliest, latest = period(wanted, "SubmitTime")
        shown = [await self._shown(kept) for kept in self._store.resources(RESOURCE).values()]
        found = [
            one
            for one in shown
            if status in {None, one["Status"]}
            and name in {None, _base(one["DocumentClassifierArn"])}
            and earliest < one["SubmitTime"] < latest
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
        name, kept = self.known(call.given)
        job = await self._jobs.find(KIND, kept["job"])
        if kept["status"] == "SUBMITTED" and job is not None and job.state in PENDING:
            await self._jobs.cancel(job)
            stopped = {**kept, "status": "STOPPED", "ended": self._jobs.clock()}
            await self._store.change(Change(RESOURCE, name, stopped))
        return {}

    async def delete(self, call: Call) -> Mapping[str, Any]:
        """Forget a classifier."""
        name, kept = self.known(call.given)
        if kept["status"] == "SUBMITTED":
            raise Failure("ResourceUnavailableException", "The classifier is being trained; stop that first.")
        if any(one["model"] == name for one in self._store.resources("comprehend/endpoint").values()):
            raise Failure("ResourceInUseException", "An endpoint uses the classifier; delete that first.")
        await self._store.change(Change(RESOURCE, name, None))
        return {}

    def known(
        self, given: Mapping[str, Any], parameter: str = "DocumentClassifierArn"
    ) -> tuple[str, Mapping[str, Any]]:
        """The classifier of an ARN; raises `Failure`."""
        name = needed(named(given, parameter, "document-classifier|model", FORM), parameter)
        kept = self._store.resource(RESOURCE, name)
        if kept is None:
            raise Failure("ResourceNotFoundException", f"There is no classifier {name!r}.")
        return name, kept

    async def _shown(self, kept: Mapping[str, Any]) -> dict[str, Any]:
        status = kept["status"]
        if status == "SUBMITTED":
            job = await self._jobs.find(KIND, kept["job"])
            status = "TRAINING" if job is not None and job.state is State.RUNNING else status
        shown: dict[str, Any] = {
            "DocumentClassifierArn": kept["arn"],
            "Status": status,
            "SubmitTime": kept["submitted"],
            "Mode": kept["mode"],
            "InputDataConfig": kept["input"],
            "OutputDataConfig": kept["output"],
            **kept["echoed"],
        }
        for key, name in (("message", "Message"), ("ended", "EndTime"), ("metadata", "ClassifierMetadata")):
            if kept.get(key) is not None:
                shown[name] = kept[key]
        if "metadata" in kept:
            shown |= {"TrainingStartTime": kept["submitted"], "TrainingEndTime": kept["ended"]}
        return shown


def train(job: Job, backend: Backend, s3: S3) -> Done:
    """Do the training of a job."""
    name = orjson.loads(job.about)["name"]
    kept = backend.store.resource(RESOURCE, name)
    if kept is None or kept["job"] != job.id:  # deleted, and perhaps made anew
        return Done(State.CANCELLED, None, {})
    ended, task = {**kept, "ended": time.time()}, _MODES[kept["mode"]]
    try:
        rows, tests = _rows(kept["input"], kept["mode"], s3)
        learnt = backend.trainer.run(learn, backend.models.folder, rows, tests, task, name.replace("/", "_"))
        if kept["output"].get("S3Uri"):
            uri = f"{kept['output']['S3Uri'].rstrip('/')}/{job.id.replace('-', '')}/output/output.tar.gz"
            s3.write(uri, archive("confusion_matrix.json", orjson.dumps(_confusion(learnt))))
            ended["output"] = {**kept["output"], "S3Uri": uri}
    except (ObjectError, ExamplesError, TrainingFailed) as error:
        failed = {**ended, "status": "IN_ERROR", "message": str(error)}
        return Done(State.FAILED, None, {}, [Change(RESOURCE, name, failed)])
    status = "TRAINED_WITH_WARNING" if learnt.warnings else "TRAINED"
    trained = {**ended, "status": status, "digest": learnt.digest, "metadata": _metadata(learnt)}
    if learnt.warnings:
        trained["message"] = " ".join(learnt.warnings)
    return Done(State.SUCCEEDED, None, {}, [Change(RESOURCE, name, trained)])


def archive(name: str, content: bytes) -> bytes:
    """A `.tar.gz` with one member."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w:gz") as made:
        member = tarfile.TarInfo(name)
        member.size = len(content)
        made.addfile(member, io.BytesIO(content))
    return file.getvalue()


def _base(of: str) -> str:
    return of.split(":document-classifier/")[1].partition("/")[0]


def _input(config: Mapping[str, Any]) -> dict[str, Any]:
    form = text(config, "DataFormat", "COMPREHEND_CSV|AUGMENTED_MANIFEST") or "COMPREHEND_CSV"
    if form == "COMPREHEND_CSV":
        needed(text(config, "S3Uri", _S3, 1024), "InputDataConfig.S3Uri")
    else:
        manifests = config.get("AugmentedManifests")
        if not isinstance(manifests, list) or not manifests:
            raise invalid("InputDataConfig.AugmentedManifests is missing.")
        for manifest in manifests:
            if not isinstance(manifest, dict):
                raise invalid("A manifest is to be a structure.")
            needed(text(manifest, "S3Uri", _S3, 1024), "AugmentedManifests.S3Uri")
            names = manifest.get("AttributeNames")
            if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
                raise invalid("AugmentedManifests.AttributeNames is missing.")
            text(manifest, "Split", "TRAIN|TEST")
    text(config, "TestS3Uri", _S3, 1024)
    text(config, "LabelDelimiter", r"[ ~!@#$%^*\-_+=|\\:;\t>?/]")
    if text(config, "DocumentType", "PLAIN_TEXT_DOCUMENT|SEMI_STRUCTURED_DOCUMENT") == "SEMI_STRUCTURED_DOCUMENT":
        raise Failure("InvalidRequestException", "Models of semi-structured documents are not trained here.")
    return {**config, "DataFormat": form}


def _rows(config: Mapping[str, Any], mode: str, s3: S3) -> tuple[Sequence[Example], Sequence[Example]]:
    """What to learn from, and what to test on."""
    delimiter = (config.get("LabelDelimiter") or "|") if mode == "MULTI_LABEL" else None
    if config["DataFormat"] == "AUGMENTED_MANIFEST":
        manifests = config["AugmentedManifests"]
        rows = [row for one in manifests if one.get("Split") != "TEST" for row in _manifest(one, s3)]
        tests = [row for one in manifests if one.get("Split") == "TEST" for row in _manifest(one, s3)]
    else:
        rows = list(_csv(config["S3Uri"], delimiter, s3))
        tests = list(_csv(config["TestS3Uri"], delimiter, s3)) if config.get("TestS3Uri") else []
    if not rows:
        raise ExamplesError("there are no labelled documents")
    if tests:
        return rows, tests
    apart = [number % _EVERY == _EVERY - 1 and len(rows) >= 2 * _EVERY for number in range(len(rows))]
    kept = [row for row, is_apart in zip(rows, apart, strict=True) if not is_apart]
    return kept, [row for row, is_apart in zip(rows, apart, strict=True) if is_apart]


def _csv(uri: str, delimiter: str | None, s3: S3) -> Iterator[Example]:
    for key, content in s3.read(uri):
        try:
            lines = io.StringIO(content.decode("utf-8-sig"), newline="")
        except UnicodeDecodeError:
            raise ExamplesError(f"{key} is not UTF-8 text") from None
        try:
            for number, row in enumerate(csv.reader(lines), start=1):
                if not row:
                    continue
                if len(row) != 2 or not row[0] or not row[1]:
                    raise ExamplesError(f"{key}, row {number}: is to have two columns, label and text")
                labels = row[0].split(delimiter) if delimiter else [row[0]]
                yield Example(f"{key}:{number}", row[1], tuple(sorted(set(filter(None, labels)))))
        except csv.Error as error:
            raise ExamplesError(f"{key} is not a CSV file: {error}") from None


def _manifest(manifest: Mapping[str, Any], s3: S3) -> Iterator[Example]:
    for key, content in s3.read(manifest["S3Uri"]):
        for number, line in enumerate(content.splitlines(), start=1):
            if not line.strip():
                continue
            try:
                row = orjson.loads(line)
                labels = {label for name in manifest["AttributeNames"] for label in _labels(row, name)}
                document = row["source"]
            except (orjson.JSONDecodeError, KeyError, TypeError, AttributeError):
                raise ExamplesError(f"{key}, line {number}: is not a row of an augmented manifest") from None
            if not isinstance(document, str) or not all(isinstance(label, str) for label in labels):
                raise ExamplesError(f"{key}, line {number}: has no text, or labels that are none")
            yield Example(f"{key}:{number}", document, tuple(sorted(labels)))


def _labels(row: Mapping[str, Any], name: str) -> Sequence[str]:
    about = row.get(f"{name}-metadata")
    if about is None:
        return ()
    return list(about["class-map"].values()) if "class-map" in about else [about["class-name"]]


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
