"""Amazon Comprehend, classification jobs: documents from S3, predictions back to it.

The input is the object of `S3Uri`, or all whose keys begin with it; a document is a line, or an object with
`ONE_DOC_PER_FILE`. What comes of it is one member `predictions.jsonl` in
`s3://BUCKET/PREFIX/000000000000-CLN-JOBID/output/output.tar.gz`, the full key of which Describe gives.

A job is SUBMITTED until it begins, IN_PROGRESS while it reads, and COMPLETED or FAILED (`Message` says why) when all is
written; one job runs at a time, after the trainings that came before. A job that the end of the server breaks off is
done again at the next start. No operation stops one, as in the service: STOP_REQUESTED never is, STOPPED only by a rule
of `faults`. Limits as documented: 5 GB in all, 10 MB for a file that is a document, 1,000,000 documents.

Behaviour chosen where the service's is not documented: a line may have 10 MB, too; a line without text has an error of
its own in the predictions; lines are counted from 0 in each file; `File` is what follows the folder of `S3Uri` in a key
(a file's name where there are no folders below it); scores have four places; the best three classes are told, or all
labels that apply; a token's job has an id made from the token, so that neither is ever without the other.
"""

import io
import tempfile
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import IO, Any, NamedTuple, cast

import orjson

from service.errors import ModelError
from service.model.classifier import Classifier
from service.server import comprehend_tags
from service.server.backend import Backend
from service.server.comprehend import Action, Call, Failure
from service.server.comprehend_account import Account, asked, made_before, token
from service.server.comprehend_classifiers import ARN_KIND as CLASSIFIER
from service.server.comprehend_classifiers import Classifiers, archive
from service.server.comprehend_requests import (
    ACCOUNT,
    JOB_STATUSES,
    S3_URI,
    arn,
    branch,
    encryption,
    filtered,
    in_time,
    needed,
    no_flywheel,
    page,
    reader,
    role,
    surroundings,
    text,
    words,
)
from service.server.faults import Rule
from service.server.jobs import Done, Interrupted, Jobs, new_id
from service.server.s3 import S3, ObjectError, split
from service.server.store import Change, Job, State

KIND = "comprehend/job"
ARN_KIND = "document-classification-job"
LIFETIME = 90 * 86_400.0
MOST_DOCUMENTS = 1_000_000
LARGEST_DOCUMENT = 10 * 2**20
_TOKENS = uuid.UUID("5f0b7f3e-3d0c-4a53-9c53-0d9bd1a1f5a4")  # jobs of a token are named in this space
_AT_ONCE, _CHARACTERS_AT_ONCE = 256, 1_000_000
_CLASSES = 3
_IN_MEMORY = 8 * 2**20  # bytes of predictions; more goes to disk
_ECHOED = ("JobName", "DataAccessRoleArn", "VolumeKmsKeyId", "VpcConfig")
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

    def __init__(self, backend: Backend, jobs: Jobs, account: Account, classifiers: Classifiers) -> None:
        self._store = backend.store
        self._jobs = jobs
        self._account = account
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
        _check(given)
        own = token(given)
        job_id = str(uuid.uuid5(_TOKENS, own)) if own else new_id()
        tags = comprehend_tags.first(ARN_KIND, _short(job_id), given)
        async with self._account.turn:
            before = await self._jobs.find(KIND, job_id)
            if before is not None and made_before([orjson.loads(before.about)], given) is not None:
                return self._accepted(before)
            name, classifier = self._classifiers.trained(given)
            if len(self._jobs.pending(KIND)) >= self._account.quotas.jobs:
                raise Failure("TooManyRequestsException", f"There may be {self._account.quotas.jobs} jobs at once.")
            about = {
                "given": {key: value for key, value in given.items() if key not in {"ClientRequestToken", "Tags"}},
                "token": own,
                "asked": asked(given),
                "model": name,
                "digest": classifier["digest"],
                "classifier": classifier["arn"],
                "region": call.region,
            }
            job = await self._jobs.submit(
                KIND,
                orjson.dumps(about),
                b"{}",
                call.fault,
                lifetime=LIFETIME,
                job_id=job_id,
                changes=[*tags, *await self._tags_of_expired()],
            )
        return self._accepted(job)

    async def describe(self, call: Call) -> Mapping[str, Any]:
        """Show a job."""
        name = needed(words(call.given, "JobId", 32), "JobId")
        job = await self._jobs.find(KIND, _long(name))
        if job is None:
            raise Failure("JobNotFoundException", "There is no such job.")
        return {"DocumentClassificationJobProperties": self._shown(job)}

    async def list(self, call: Call) -> Mapping[str, Any]:
        """Show all jobs that a filter leaves, newest first."""
        wanted = filtered(call.given, {"JobName": ".{1,256}", "JobStatus": JOB_STATUSES}, "SubmitTime")
        shown = [self._shown(job) for job in reversed(await self._jobs.of_kind(KIND))]
        found = [
            one
            for one in in_time(shown, wanted, "SubmitTime")
            if wanted.get("JobName") in {None, one.get("JobName")}
            and wanted.get("JobStatus") in {None, one["JobStatus"]}
        ]
        part, after = page(call.given, found)
        return {"DocumentClassificationJobPropertiesList": part, **after}

    async def has(self, name: str) -> bool:
        """Whether there is a job of that id."""
        return await self._jobs.find(KIND, _long(name)) is not None

    async def _tags_of_expired(self) -> Sequence[Change]:
        names = [key.partition("/")[2] for key in self._store.resources(comprehend_tags.RESOURCE) if ARN_KIND in key]
        return [comprehend_tags.last(ARN_KIND, name) for name in names if not await self.has(name)]

    def _accepted(self, job: Job) -> dict[str, Any]:
        shown = self._shown(job)
        return {name: shown[name] for name in ("JobId", "JobArn", "JobStatus", "DocumentClassifierArn")}

    def _shown(self, job: Job) -> dict[str, Any]:
        about, state = orjson.loads(job.about), job.state_at(self._jobs.clock())
        given = about["given"]
        shown = {
            "JobId": _short(job.id),
            "JobArn": arn(about["region"], ARN_KIND, _short(job.id)),
            "JobStatus": _STATUSES[state],
            "SubmitTime": job.created,
            "DocumentClassifierArn": about["classifier"],
            "InputDataConfig": given["InputDataConfig"],
            "OutputDataConfig": {**given["OutputDataConfig"], "S3Uri": _output(given, job.id)},
            **{name: given[name] for name in _ECHOED if given.get(name)},
        }
        if state not in {State.WAITING, State.RUNNING}:
            shown["EndTime"] = job.updated
        if state is State.FAILED:
            shown["Message"] = orjson.loads(job.result) if job.result else "The job failed on an error of the server."
        return shown


def _check(given: Mapping[str, Any]) -> None:
    source, target = branch(given, "InputDataConfig"), branch(given, "OutputDataConfig")
    needed(text(source, "S3Uri", S3_URI, 1024), "InputDataConfig.S3Uri")
    text(source, "InputFormat", "ONE_DOC_PER_LINE|ONE_DOC_PER_FILE")
    reader(source)
    needed(text(target, "S3Uri", S3_URI, 1024), "OutputDataConfig.S3Uri")
    encryption(target, "KmsKeyId")
    needed(role(given), "DataAccessRoleArn")
    words(given, "JobName", 256)
    encryption(given, "VolumeKmsKeyId")
    surroundings(given)
    no_flywheel(given)
    if given.get("DocumentClassifierArn") is None:
        raise Failure("InvalidRequestException", "DocumentClassifierArn is missing.")


def classify(job: Job, backend: Backend, s3: S3) -> Done:
    """Do a job."""
    about = orjson.loads(job.about)
    fault = Rule.model_validate_json(job.fault) if job.fault else None
    if fault is not None and fault.job in {"failed", "cancelled"}:
        ended = State.FAILED if fault.job == "failed" else State.CANCELLED
        return Done(ended, orjson.dumps("A fault rule says so."), {})
    source = about["given"]["InputDataConfig"]
    per_file, documents = source.get("InputFormat") == "ONE_DOC_PER_FILE", 0
    try:
        classifier = backend.models.get(about["digest"])
        with tempfile.SpooledTemporaryFile(_IN_MEMORY) as file:
            for line in _predictions(classifier, _documents(s3, source["S3Uri"], per_file=per_file)):
                if backend.trainer.is_closed:  # the server ends; hours of work are better begun anew than waited for
                    raise Interrupted
                file.write(line)
                documents += 1
            size = file.tell()
            file.seek(0)
            with archive("predictions.jsonl", file, size) as packed:
                s3.write(_output(about["given"], job.id), packed)
    except (ObjectError, ModelError) as error:
        return Done(State.FAILED, orjson.dumps(str(error)), {})
    name = about["classifier"].partition(f":{CLASSIFIER}/")[2].partition("/")[0]
    return Done(State.SUCCEEDED, None, {name: documents})


def _documents(s3: S3, uri: str, *, per_file: bool) -> Iterator[Line]:
    prefix, count = split(uri)[1], 0
    listed = s3.objects(uri)
    if per_file:
        _see_to_files(uri, [one.size for one in listed])
    for key, _ in listed:
        file = file_name(prefix, key)
        with s3.opened(uri, key) as body:
            try:
                if per_file:
                    yield Line(file, None, body.read().decode())
                    continue
                for number, line in enumerate(_lines(body, key)):
                    count += 1
                    if count > MOST_DOCUMENTS:
                        raise ObjectError(f"{uri}: more than {MOST_DOCUMENTS:,} lines")
                    yield Line(file, number, line)
            except UnicodeDecodeError:
                raise ObjectError(f"{key} is not UTF-8 text") from None


def _see_to_files(uri: str, sizes: Sequence[int]) -> None:
    if len(sizes) > MOST_DOCUMENTS:
        raise ObjectError(f"{uri}: more than {MOST_DOCUMENTS:,} files")
    if max(sizes) > LARGEST_DOCUMENT:
        raise ObjectError(
            f"{uri}: there is a file of more than {LARGEST_DOCUMENT:,} bytes, each of which is a document"
        )


def _lines(body: IO[bytes], key: str) -> Iterator[str]:
    """The lines of a file, ended by a line feed, a carriage return or both, without their ends."""
    with io.TextIOWrapper(io.BufferedReader(cast("io.RawIOBase", body)), "utf-8") as file:
        while line := file.readline(LARGEST_DOCUMENT):
            if len(line) == LARGEST_DOCUMENT:
                raise ObjectError(f"{key}: there is a line of more than {LARGEST_DOCUMENT:,} characters")
            yield line.removesuffix("\n")


def file_name(prefix: str, key: str) -> str:
    """What an object is called in the predictions: its key without the folder that was asked for."""
    rest = key.removeprefix(prefix)
    if rest.startswith("/") or (rest and prefix.endswith("/")):
        return rest.lstrip("/")
    return key[prefix.rfind("/") + 1 :]


def batches(documents: Iterable[Line]) -> Iterator[list[Line]]:
    """Documents in their order, as many at once as are worth it and fit into memory."""
    batch, characters = [], 0
    for one in documents:
        batch.append(one)
        characters += len(one.text)
        if len(batch) == _AT_ONCE or characters >= _CHARACTERS_AT_ONCE:
            yield batch
            batch, characters = [], 0
    if batch:
        yield batch


def _predictions(classifier: Classifier, documents: Iterator[Line]) -> Iterator[bytes]:
    single = classifier.task == "single_label"
    for batch in batches(documents):
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


def _output(given: Mapping[str, Any], job_id: str) -> str:
    folder = given["OutputDataConfig"]["S3Uri"].rstrip("/")
    return f"{folder}/{ACCOUNT}-CLN-{_short(job_id)}/output/output.tar.gz"


def _short(job_id: str) -> str:
    return job_id.replace("-", "")


def _long(name: str) -> str:
    parts: Sequence[str] = [name[:8], name[8:12], name[12:16], name[16:20], name[20:]]
    return "-".join(parts)
