"""Amazon Comprehend, classification jobs: documents from S3, predictions back to it.

The input is the object of `S3Uri`, or all whose keys begin with it; a document is a line, or an object with
`ONE_DOC_PER_FILE`. What comes of it is one member `predictions.jsonl` in
`s3://BUCKET/PREFIX/000000000000-CLN-JOBID/output/output.tar.gz`, the full key of which Describe gives.

Behaviour chosen where the service's is not documented: a line without text has an error of its own in the predictions;
lines are counted from 0 in each file; scores have four places; the best three classes are told, or all labels that
apply; there is no way to stop a job, as in the service; one job runs at a time, after the trainings that came before.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from hashlib import sha256
from itertools import islice
from typing import Any, NamedTuple

import orjson

from service.model.classifier import Classifier, ModelError
from service.server.backend import Backend
from service.server.comprehend import ACCOUNT, Action, Call, Failure, arn, branch, needed, page, period, text
from service.server.comprehend_classifiers import Classifiers, archive
from service.server.faults import Rule
from service.server.jobs import Done, Jobs
from service.server.s3 import S3, ObjectError
from service.server.store import Change, Job, State

KIND = "comprehend/job"
TOKENS = "comprehend/token"
LIFETIME = 90 * 86_400.0
_LINE = re.compile(r"\r\n|\n|\r")
_S3 = r"s3://[a-z0-9][.\-a-z0-9]{1,61}[a-z0-9](/.*)?"
_ROLE = r"arn:aws(?:-[^:]+)?:iam::[0-9]{12}:role/.+"
_AT_ONCE = 256
_CLASSES = 3
_STATUSES = {
    State.WAITING: "SUBMITTED",
    State.RUNNING: "IN_PROGRESS",
    State.SUCCEEDED: "COMPLETED",
    State.PARTIAL: "COMPLETED",
    State.FAILED: "FAILED",
    State.CANCELLED: "STOPPED",
}


class Line(NamedTuple):
    """A document of a job: where it stands, and what it says."""

    file: str
    line: int | None
    text: str


class ClassificationJobs:
    """The operations on jobs."""

    def __init__(self, backend: Backend, jobs: Jobs, classifiers: Classifiers) -> None:
        self._store = backend.store
        self._jobs = jobs
        self._classifiers = classifiers

    def actions(self) -> dict[str, Action]:
        """What this room does, by operation."""
        return {
            "StartDocumentClassificationJob": Action("submit", self.start),
            "DescribeDocumentClassificationJob": Action("poll", self.describe),
            "ListDocumentClassificationJobs": Action("manage", self.list),
        }

    async def start(self, call: Call) -> Mapping[str, Any]:
        """Accept a job."""
        given = call.given
        source, target = branch(given, "InputDataConfig"), branch(given, "OutputDataConfig")
        needed(text(source, "S3Uri", _S3, 1024), "InputDataConfig.S3Uri")
        needed(text(target, "S3Uri", _S3, 1024), "OutputDataConfig.S3Uri")
        text(source, "InputFormat", "ONE_DOC_PER_LINE|ONE_DOC_PER_FILE")
        needed(text(given, "DataAccessRoleArn", _ROLE), "DataAccessRoleArn")
        text(given, "JobName", most=256)
        token = text(given, "ClientRequestToken", "[a-zA-Z0-9-]+", 64)
        _, classifier = self._classifiers.known(given)
        if not classifier["status"].startswith("TRAINED"):
            raise Failure("ResourceUnavailableException", f"The classifier is {classifier['status']}, not TRAINED.")
        asked = {key: value for key, value in given.items() if key != "ClientRequestToken"}
        same = sha256(orjson.dumps(asked, option=orjson.OPT_SORT_KEYS)).hexdigest()
        known = self._store.resource(TOKENS, token) if token else None
        if known is not None and known["asked"] != same:
            raise Failure("InvalidRequestException", "ClientRequestToken was used for another job.")
        if known is not None and await self._jobs.find(KIND, known["job"]) is not None:
            return _accepted(known["job"], call.region, classifier)
        about = {"given": asked, "digest": classifier["digest"], "classifier": classifier["arn"], "region": call.region}
        job = await self._jobs.submit(KIND, orjson.dumps(about), b"{}", call.fault, lifetime=LIFETIME)
        if token:
            await self._store.change(Change(TOKENS, token, {"job": job.id, "asked": same}))
        return _accepted(job.id, call.region, classifier)

    async def describe(self, call: Call) -> Mapping[str, Any]:
        """Show a job."""
        name = needed(text(call.given, "JobId", "[a-zA-Z0-9-]+", 32), "JobId")
        job = await self._jobs.find(KIND, _long(name))
        if job is None:
            raise Failure("JobNotFoundException", "There is no such job.")
        return {"DocumentClassificationJobProperties": self._shown(job)}

    async def list(self, call: Call) -> Mapping[str, Any]:
        """Show all jobs that a filter leaves, newest first."""
        wanted = branch(call.given, "Filter")
        name, status = text(wanted, "JobName"), text(wanted, "JobStatus")
        earliest, latest = period(wanted, "SubmitTime")
        found = [
            one
            for one in map(self._shown, reversed(await self._jobs.of_kind(KIND)))
            if name in {None, one.get("JobName")}
            and status in {None, one["JobStatus"]}
            and earliest < one["SubmitTime"] < latest
        ]
        part, after = page(call.given, found)
        return {"DocumentClassificationJobPropertiesList": part, **after}

    def _shown(self, job: Job) -> dict[str, Any]:
        about, state = orjson.loads(job.about), job.state_at(self._jobs.clock())
        given = about["given"]
        shown = {
            "JobId": _short(job.id),
            "JobArn": arn(about["region"], "document-classification-job", _short(job.id)),
            "JobStatus": _STATUSES[state],
            "SubmitTime": job.created,
            "DocumentClassifierArn": about["classifier"],
            "InputDataConfig": given["InputDataConfig"],
            "OutputDataConfig": {**given["OutputDataConfig"], "S3Uri": _output(given, job.id)},
            "DataAccessRoleArn": given["DataAccessRoleArn"],
        }
        if given.get("JobName"):
            shown["JobName"] = given["JobName"]
        if state not in {State.WAITING, State.RUNNING}:
            shown["EndTime"] = job.updated
        if state is State.FAILED:
            shown["Message"] = orjson.loads(job.result) if job.result else "The job failed on an error of the server."
        return shown


def classify(job: Job, backend: Backend, s3: S3) -> Done:
    """Do a job."""
    about = orjson.loads(job.about)
    fault = Rule.model_validate_json(job.fault) if job.fault else None
    if fault is not None and fault.job in {"failed", "cancelled"}:
        ended = State.FAILED if fault.job == "failed" else State.CANCELLED
        return Done(ended, orjson.dumps("A fault rule says so."), {})
    source = about["given"]["InputDataConfig"]
    per_file = source.get("InputFormat") == "ONE_DOC_PER_FILE"
    try:
        classifier = backend.models.get(about["digest"])
        lines = _documents(s3, source["S3Uri"], per_file=per_file)
        predictions = list(_predictions(classifier, lines))
        s3.write(_output(about["given"], job.id), archive("predictions.jsonl", b"".join(predictions)))
    except (ObjectError, ModelError) as error:
        return Done(State.FAILED, orjson.dumps(str(error)), {})
    name = about["classifier"].partition(":document-classifier/")[2].partition("/")[0]
    return Done(State.SUCCEEDED, None, {name: len(predictions)})


def _documents(s3: S3, uri: str, *, per_file: bool) -> Iterator[Line]:
    for key, content in s3.read(uri):
        file = key.rpartition("/")[2]
        try:
            words = content.decode()
        except UnicodeDecodeError:
            raise ObjectError(f"{key} is not UTF-8 text") from None
        if per_file:
            yield Line(file, None, words)
            continue
        lines = _LINE.split(words)
        for number, line in enumerate(lines[:-1] if not lines[-1] else lines):
            yield Line(file, number, line)


def _predictions(classifier: Classifier, documents: Iterator[Line]) -> Iterator[bytes]:
    single = classifier.task == "single_label"
    while batch := list(islice(documents, _AT_ONCE)):
        good = [one for one in batch if one.text.strip()]
        found = dict(zip(good, classifier.classify([one.text for one in good]), strict=True))
        for one in batch:
            where: dict[str, Any] = {"File": one.file} | ({} if one.line is None else {"Line": str(one.line)})
            if one in found:
                scores = found[one][:_CLASSES] if single else found[one]
                told = [{"Name": name, "Score": round(score or 0.0, 4)} for name, score, _ in scores]
                where["Classes" if single else "Labels"] = told
            else:
                where |= {"ErrorCode": "INVALID_INPUT", "ErrorMessage": "The document has no text."}
            yield orjson.dumps(where) + b"\n"


def _accepted(job_id: str, region: str, classifier: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "JobId": _short(job_id),
        "JobArn": arn(region, "document-classification-job", _short(job_id)),
        "JobStatus": "SUBMITTED",
        "DocumentClassifierArn": classifier["arn"],
    }


def _output(given: Mapping[str, Any], job_id: str) -> str:
    folder = given["OutputDataConfig"]["S3Uri"].rstrip("/")
    return f"{folder}/{ACCOUNT}-CLN-{_short(job_id)}/output/output.tar.gz"


def _short(job_id: str) -> str:
    return job_id.replace("-", "")


def _long(name: str) -> str:
    parts: Sequence[str] = [name[:8], name[8:12], name[12:16], name[16:20], name[20:]]
    return "-".join(parts)
