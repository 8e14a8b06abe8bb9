"""Amazon Comprehend custom classification by asynchronous jobs (2017-11-27): S3 in, a job, S3 out.

The documents of a call become one object, a document a line (`ONE_DOC_PER_LINE`). Every kind of line break in a text is
sent as a space, so that each document is one line whoever counts them. With one object a job, a line's number, from 0,
is all that tells which document an answer is for: the guide and the examples differ on how lines of several files are
counted. An object is padded with spaces to 500 bytes, the least that some kinds of job take.

A job is started under a token made from all that it is about, so a submission that is repeated, even by the next
process, finds the job that is there and pays once. Only when that job is lost is there a new token.

No operation stops a classification job. To cancel one is to delete its documents, which ends a job that has not read
them yet, and to leave what it will write. The documents are deleted when the results are read, the results once what
came of them is safe: a process that ends before leaves them, and the next one finds them. Where a job's results leave
out single documents these are refused; where they hold nothing at all the job is lost. Of what the service says of a
failed job only the code before the colon is kept.

The credentials have to allow `comprehend:StartDocumentClassificationJob`, `…:DescribeDocumentClassificationJob` and
`…:DescribeDocumentClassifier`, `iam:PassRole` for the role, and `s3:PutObject`, `…:GetObject`, `…:DeleteObject` and
`…:ListBucket` on the two folders. The listing is what tells an object that is gone from one that is forbidden.

A document is billed by hundreds of characters, three at least: these are its units.
"""

import asyncio
import gzip
import hashlib
import math
import re
import tarfile
import tempfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from typing import IO, Any, Protocol
from urllib.parse import urlsplit

import orjson
import structlog

from service import settings
from service.documents import Classified, Document, Outcome, Reason, Refused
from service.errors import CallFailed, JobLost, Misconfigured, Rejected, Unavailable
from service.providers.comprehend import Client, classes_in, codes_of, whole
from service.transport.aws import Declined
from service.transport.failures import NO_CODE, At, Rule, Then, first_that_fits

_LEAST_BYTES = 500
_UNIT, _LEAST_UNITS = 100, 3  # characters
_ROOM, _ROOM_A_DOCUMENT = 1024**2, 64 * 1024  # bytes of results, packed or not
_IN_MEMORY = 8 * 1024**2
_JOB_ID = re.compile("[A-Za-z0-9-]{1,64}")
RULES = (
    Rule(
        Then.STOP,
        "check data_access_role_arn, input_uri and kms_key_id",
        (At.JOB,),
        codes=("NO_READ_ACCESS_TO_INPUT",),
    ),
    Rule(
        Then.STOP,
        "check data_access_role_arn, output_uri and kms_key_id",
        (At.JOB,),
        codes=("NO_WRITE_ACCESS_TO_OUTPUT",),
    ),
    Rule(Then.SUBMIT_AGAIN, "", (At.JOB,)),
    Rule(Then.SUBMIT_AGAIN, "", (At.DOCUMENT,), (), ("INTERNAL_SERVER_ERROR",)),
    Rule(Then.REFUSE, "", (At.DOCUMENT,)),
    Rule(
        Then.SUBMIT_AGAIN,
        "it does not know a job any more",
        (At.POLL,),
        (),
        ("JobNotFoundException", "ResourceNotFoundException"),
    ),
    Rule(Then.STOP, "check input_uri and output_uri", codes=("InvalidBucketName", "NoSuchBucket")),
    Rule(
        Then.STOP,
        "check classifier_arn, the role, and that the buckets are in its region",
        codes=("InvalidRequestException",),
    ),
    Rule(Then.STOP, "check kms_key_id", codes=("KmsKeyValidationException",)),
    Rule(
        Then.HOLD,
        "the classifier does not serve just now",
        codes=("ResourceInUseException", "ResourceUnavailableException"),
    ),
    Rule(Then.WAIT, "too many jobs are under way", codes=("ResourceLimitExceededException",)),
    Rule(Then.STOP, "check classifier_arn", codes=("ResourceNotFoundException", "ValidationException")),
    Rule(Then.SPLIT),
)
"""What is done about failures, after the rules of every AWS service."""
_UNREADABLE = (AttributeError, EOFError, LookupError, OSError, TypeError, ValueError, tarfile.TarError, zlib.error)

log = structlog.get_logger(__name__)


class Bucket(Client, Protocol):
    """What is asked of a client of S3."""

    async def download(self, into: IO[bytes], most: int, **where: Any) -> bool:
        """Write an object into a file; False where it is longer than `most` bytes."""
        ...


class ComprehendJobs:
    """A custom classifier, asked through jobs. `client` and `s3` come ready, as for `Comprehend`."""

    characters_per_call = bytes_per_call = 1_000_000_000  # of 5 GB that a job takes: it is all held in memory
    characters_per_document = bytes_per_document = 10_000_000

    def __init__(self, settings: settings.ComprehendJobs, client: Client, s3: Bucket) -> None:
        self.documents_per_call = settings.documents_per_job
        self.model = settings.classifier_arn.split(":")[5]
        self.task: str = settings.task
        self._client = client
        self._s3 = s3
        self._input = _Folder(settings.input_uri)
        self._output = _Folder(settings.output_uri)
        self._encrypted = {"KmsKeyId": settings.kms_key_id} if settings.kms_key_id else {}
        self._classifier = settings.classifier_arn
        self._role = settings.data_access_role_arn
        self._keep = settings.keep_objects
        self._about = (
            settings.classifier_arn,
            self._role,
            settings.input_uri,
            settings.output_uri,
            self._encrypted,
        )
        self._read_from: dict[str, str] = {}  # what the results of jobs are called, until they are cleared
        self._lost: set[str] = set()  # grows by one with each job that is lost, which takes minutes

    def __repr__(self) -> str:
        return f"ComprehendJobs({self._client.host!r}, {self.model!r}, {self.task!r})"

    async def submit(self, documents: Sequence[Document]) -> str:
        """Put the documents and start a job; gives its token, how many documents it has, and its id.

        Raises Throttled, Unavailable, Rejected and Misconfigured.
        """
        token, body = await asyncio.to_thread(self._prepared, documents)
        await self._put(token, body)
        try:
            answer = await self._ask(
                "start_document_classification_job",
                JobName=f"labelstream-{token}",
                ClientRequestToken=token,
                DocumentClassifierArn=self._classifier,
                DataAccessRoleArn=self._role,
                InputDataConfig={"S3Uri": self._input.uri(f"{token}.txt"), "InputFormat": "ONE_DOC_PER_LINE"},
                OutputDataConfig={"S3Uri": self._output.uri(""), **self._encrypted},
            )
        except (Misconfigured, Rejected):
            await self._delete(self._input, f"{token}.txt")
            raise
        job = answer.get("JobId")
        if not (isinstance(job, str) and _JOB_ID.fullmatch(job)):
            raise self._client.malformed("no job")
        return f"{token}/{len(documents)}/{job}"

    async def poll(self, job: str, documents: Mapping[int, Document]) -> list[Outcome] | None:
        """The outcomes in the order of `documents`, None while the job is not done.

        Raises JobLost, Throttled, Unavailable and Misconfigured.
        """
        token, size, job_id = job.split("/")
        try:
            return await self._results(token, job_id, documents, int(size))
        except JobLost:
            await self.cancel(job)
            raise

    async def cancel(self, job: str) -> None:
        """Give a job up: its documents are deleted, and the next job of theirs is another."""
        token, _, _ = job.split("/")
        self._lost.add(token)
        await self._delete(self._input, f"{token}.txt")

    async def clear(self, job: str) -> None:
        """Delete the results of a job that have been read."""
        _, _, job_id = job.split("/")
        if name := self._read_from.pop(job_id, None):
            await self._delete(self._output, name)

    async def probe(self) -> None:
        """Look at the classifier and into both folders, which costs next to nothing.

        Raises Misconfigured, Unavailable and Throttled.
        """
        answer = await self._ask("describe_document_classifier", DocumentClassifierArn=self._classifier)
        for folder in (self._input, self._output):
            await self._ask_s3("list_objects_v2", folder, Prefix=folder.key(""), MaxKeys=1)
        classifier = answer.get("DocumentClassifierProperties")
        if not classifier:
            raise self._client.malformed("no classifier")
        status, mode = classifier.get("Status"), classifier.get("Mode")
        if status in ("SUBMITTED", "TRAINING"):
            raise Unavailable(f"{self.model} is still in training")
        if status in ("IN_ERROR", "STOP_REQUESTED", "STOPPED", "DELETING"):
            raise Misconfigured(f"{self.model} is {status}: check classifier_arn")
        if mode and (mode == "MULTI_LABEL") != (self.task == "multi_label"):
            raise Misconfigured(f"{self.model} was not trained for {self.task}: check task")

    async def warm_up(self) -> None:
        """Make both clients ready."""
        await self._client.warm_up("describe_document_classifier", DocumentClassifierArn=self._classifier)
        await self._s3.warm_up("list_objects_v2", Bucket=self._input.bucket, Prefix=self._input.key(""), MaxKeys=1)

    def _prepared(self, documents: Sequence[Document]) -> tuple[str, bytes]:
        """The token of the job of these documents, always the same until it is lost, and their lines."""
        body = _lines(documents)
        positions = [str(document.record.position) for document in documents]
        token = hashlib.sha256(orjson.dumps([self._about, positions]) + body).hexdigest()
        while token in self._lost:
            token = hashlib.sha256(token.encode()).hexdigest()
        return token, body

    async def _put(self, token: str, body: bytes) -> None:
        key = self._encrypted.get("KmsKeyId")
        encryption = {"ServerSideEncryption": "aws:kms", "SSEKMSKeyId": key} if key else {}
        await self._ask_s3(
            "put_object",
            self._input,
            Key=self._input.key(f"{token}.txt"),
            Body=body,
            ContentType="text/plain; charset=utf-8",
            **encryption,
        )

    async def _ask(self, operation: str, **parameters: Any) -> dict[str, Any]:
        try:
            return await self._client.call(operation, **parameters)
        except Declined as no:
            raise _failure(str(no), At.REQUEST, no.code) from None

    async def _ask_s3(self, operation: str, folder: "_Folder", **parameters: Any) -> None:
        try:
            await self._s3.call(operation, Bucket=folder.bucket, **parameters)
        except Declined as no:
            raise _failure(str(no), At.REQUEST, no.code) from None

    async def _results(
        self, token: str, job_id: str, documents: Mapping[int, Document], size: int
    ) -> list[Outcome] | None:
        try:
            answer = await self._client.call("describe_document_classification_job", JobId=job_id)
        except Declined as no:
            raise _failure(str(no), At.POLL, no.code) from None
        job = answer.get("DocumentClassificationJobProperties") or {}
        match job.get("JobStatus"):
            case "COMPLETED":
                name = self._output.name(job)
                if name is None:
                    raise JobLost(f"{self._client.host}: a job wrote its results elsewhere than below output_uri")
                outcomes = await self._read(name, documents, size)
                self._read_from[job_id] = name
                await self._delete(self._input, f"{token}.txt")
                return outcomes
            case "FAILED" | "STOPPED" as status:
                await self.cancel(f"{token}/{size}/{job_id}")  # once a setting is mended, there is to be another
                raise self._ended(status, job.get("Message"))
            case None:
                raise self._client.malformed("no job")
        return None

    def _ended(self, status: str, message: object) -> CallFailed:
        code = re.match("[A-Z][A-Z_]{2,63}(?=:)", str(message))
        told = f"{self._client.host}: a job ended as {status} ({code[0] if code else 'no code given'})"
        return _failure(told, At.JOB, code[0] if code else NO_CODE)

    async def _read(self, name: str, documents: Mapping[int, Document], size: int) -> list[Outcome]:
        most = _ROOM + size * _ROOM_A_DOCUMENT
        with tempfile.SpooledTemporaryFile(_IN_MEMORY) as archive:
            try:
                key = self._output.key(name)
                if not await self._s3.download(archive, most, Bucket=self._output.bucket, Key=key):
                    raise JobLost(f"the results of a job are longer than {most:,} bytes")
                return await asyncio.to_thread(_outcomes, archive, most, documents, size, self.task)
            except Declined as no:
                raise JobLost(f"the results of a job are gone ({no.code})") from None
            except _UNREADABLE as error:
                raise JobLost(f"the results of a job cannot be read ({type(error).__name__})") from None

    async def _delete(self, folder: "_Folder", name: str) -> None:
        """Delete an object that has done its service; one that stays is no reason to lose an answer."""
        if self._keep:
            return
        try:
            await self._ask_s3("delete_object", folder, Key=folder.key(name))
        except CallFailed as error:
            log.warning("object_left", object=folder.uri(name), reason=str(error))


class _Folder:
    """A place in S3: a bucket, and what the keys there begin with."""

    def __init__(self, uri: str) -> None:
        url = urlsplit(uri)
        self.bucket = url.netloc
        self._prefix = f"{url.path.strip('/')}/".lstrip("/")

    def key(self, name: str) -> str:
        return self._prefix + name

    def uri(self, name: str) -> str:
        return f"s3://{self.bucket}/{self.key(name)}"

    def name(self, job: Mapping[str, Any]) -> str | None:
        """What a job's output is called here; None where it is not here."""
        uri = (job.get("OutputDataConfig") or {}).get("S3Uri") or ""
        name = uri.removeprefix(self.uri(""))
        return name if name and name != uri else None


class _Bounded(gzip.GzipFile):
    """What is packed in a file, up to so many bytes: a small archive may hold very much."""

    def __init__(self, file: IO[bytes], most: int) -> None:
        super().__init__(fileobj=file, mode="rb")
        self._most = most

    def read(self, size: int | None = -1) -> bytes:
        data = super().read(size)
        if self.tell() > self._most:
            raise ValueError("the archive holds too much")
        return data


def _lines(documents: Sequence[Document]) -> bytes:
    lines = [" ".join(whole(document.text).splitlines()) for document in documents]
    return b"%b\n" % "\n".join(lines).encode().ljust(_LEAST_BYTES)


def _outcomes(archive: IO[bytes], most: int, documents: Mapping[int, Document], size: int, task: str) -> list[Outcome]:
    """What the results say of each document. Raises JobLost and Misconfigured, and what is in `_UNREADABLE`."""
    archive.seek(0)
    found: dict[int, Outcome | None] = {}
    for line in _predictions(archive, most):
        answer = orjson.loads(line)
        number = int(str(answer["Line"]))
        if not 0 <= number < size or number in found:
            raise ValueError(number)
        found[number] = _outcome(answer, documents[number], task) if number in documents else None
    if not found:
        raise JobLost("a job has no results")
    missing = Refused(Reason.REFUSED_BY_CLASSIFIER, "the results of its job leave it out")
    return [found.get(number) or missing for number in documents]


def _predictions(archive: IO[bytes], most: int) -> Iterator[bytes]:
    """The lines of the one file in an archive, whatever that is called."""
    with _Bounded(archive, most) as unpacked, tarfile.open(fileobj=unpacked, mode="r|") as members:
        for member in members:
            if member.isreg() and not member.issparse() and (file := members.extractfile(member)):
                yield from (line for line in file if line.strip())
                return


def _outcome(answer: Mapping[str, Any], document: Document, task: str) -> Outcome:
    classes = classes_in(answer, task)
    codes = codes_of([answer, *(answer.get("Errors") or ())], "ErrorCode")
    if classes is None and not codes:
        raise ValueError("neither classes nor an error")
    if classes or (task == "multi_label" and not codes):
        return Classified(classes or (), units=max(_LEAST_UNITS, math.ceil(len(document.text) / _UNIT)))
    if (rule := first_that_fits(RULES, At.DOCUMENT, codes=codes)).then is not Then.REFUSE:
        raise rule.error(f"a finished job failed on {document.record.position} ({', '.join(codes)})")
    return Refused(Reason.REFUSED_BY_CLASSIFIER, ", ".join(codes) or "it has no class")


def _failure(told: str, at: At, code: str) -> CallFailed:
    return first_that_fits(RULES, at, codes=(code,)).error(told)
