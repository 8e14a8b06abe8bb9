"""Classification jobs of Comprehend: tokens and limits over ASGI, and what is read where S3 is by moto."""

import asyncio
import itertools
import json
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from service.server.comprehend_account import Quotas
from service.server.comprehend_jobs import KIND, Line, batches, file_name
from service.server.s3 import S3, ObjectError
from service.server.store import FILE_NAME
from tests.server.comprehend import HERE, JOB, classifier, refused, well, worked
from tests.server.conftest import BILLING, CRASH, Serve, Server
from tests.server.test_sdk_comprehend import BUCKET, member
from tests.server.test_sdk_comprehend import s3 as s3  # noqa: PLC0414  the fixture

TOKEN = {"ClientRequestToken": "one"}


@pytest.fixture(autouse=True)
def credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    """What S3 is asked with."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "a")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "b")


async def shown(server: Server, job: str) -> dict[str, Any]:
    found: dict[str, Any] = await well(server, "DescribeDocumentClassificationJob", JobId=job)
    properties: dict[str, Any] = found["DocumentClassificationJobProperties"]
    return properties


async def test_a_token_starts_one_job_however_often_and_also_after_a_restart(serve: Serve) -> None:
    async with serve(keys=(), works=False) as server:
        await classifier(server)
        started = await asyncio.gather(
            *(well(server, "StartDocumentClassificationJob", **JOB, **TOKEN) for _ in range(5))
        )
        assert len({one["JobId"] for one in started}) == 1
        assert server.jobs.statistics().waiting == 1
        with_token = {**JOB, **TOKEN}
        for other in ({"JobName": "another"}, {"OutputDataConfig": {"S3Uri": "s3://else/where"}}):
            code = await refused(server, "StartDocumentClassificationJob", **{**with_token, **other})
            assert code == "ResourceInUseException"
        another = await well(server, "StartDocumentClassificationJob", **JOB)
        assert another["JobId"] != started[0]["JobId"]
    async with serve(keys=(), works=False) as server:
        again = await well(server, "StartDocumentClassificationJob", **JOB, **TOKEN)
        assert again == started[0]
        assert server.jobs.statistics().waiting == 0  # nothing new; what there is begins with the work
        listed = await well(server, "ListDocumentClassificationJobs")
        assert len(listed["DocumentClassificationJobPropertiesList"]) == 2


async def test_jobs_are_limited(serve: Serve) -> None:
    async with serve(keys=(), works=False) as server:
        await classifier(server)
        for number in range(Quotas().jobs):
            await well(server, "StartDocumentClassificationJob", **JOB, ClientRequestToken=f"t{number}")
        assert await refused(server, "StartDocumentClassificationJob", **JOB) == "TooManyRequestsException"
        await well(server, "StartDocumentClassificationJob", **JOB, ClientRequestToken="t0")


@pytest.mark.parametrize(
    ("given", "code"),
    [
        ({"DocumentClassifierArn": None}, "InvalidRequestException"),
        ({"DocumentClassifierArn": f"{HERE}:document-classifier/nobody"}, "ResourceNotFoundException"),
        ({"DocumentClassifierArn": f"{HERE}:document-classifier/untrained"}, "ResourceUnavailableException"),
        ({"DocumentClassifierArn": f"{HERE}:entity-recognizer/x"}, "ValidationException"),
        ({"FlywheelArn": f"{HERE}:flywheel/x"}, "InvalidRequestException"),
        ({"InputDataConfig": {"S3Uri": "s3://b"}}, "ValidationException"),
        ({"InputDataConfig": {"S3Uri": "s3://bucket", "InputFormat": "LINES"}}, "ValidationException"),
        ({"OutputDataConfig": {}}, "ValidationException"),
        ({"OutputDataConfig": {"S3Uri": "s3://bucket", "KmsKeyId": "key"}}, "KmsKeyValidationException"),
        ({"JobName": "a" * 257}, "ValidationException"),
        ({"JobName": "why?"}, "ValidationException"),
        ({"ClientRequestToken": ""}, "ValidationException"),
        ({"Tags": [{"Key": str(number)} for number in range(51)]}, "TooManyTagsException"),
    ],
)
async def test_what_no_job_is_made_of(serve: Serve, given: dict[str, Any], code: str) -> None:
    async with serve(keys=(), works=False) as server:
        await classifier(server)
        await classifier(server, "untrained", status="STOPPED")
        assert await refused(server, "StartDocumentClassificationJob", **{**JOB, **given}) == code
        assert not server.jobs.statistics().waiting


async def test_one_filter_leaves_some_and_times_give_an_order(serve: Serve) -> None:
    async with serve(keys=(), works=False) as server:
        await classifier(server)
        begin = server.clock()
        for number in range(3):
            server.clock.now = begin + number
            await well(server, "StartDocumentClassificationJob", **JOB, JobName=f"über {number}")

        async def left(**wanted: Any) -> list[str]:
            found = await well(server, "ListDocumentClassificationJobs", Filter=wanted)
            return [one["JobName"][-1] for one in found["DocumentClassificationJobPropertiesList"]]

        assert await left() == ["2", "1", "0"]
        assert await left(JobName="über 1") == ["1"]
        assert await left(SubmitTimeBefore=begin + 2) == ["0", "1"]
        assert await left(SubmitTimeAfter=begin) == ["2", "1"]
        assert await left(JobStatus="SUBMITTED") == ["2", "1", "0"]
        both = {"JobStatus": "SUBMITTED", "JobName": "über 1"}
        assert await refused(server, "ListDocumentClassificationJobs", Filter=both) == "InvalidFilterException"
        assert (
            await refused(server, "ListDocumentClassificationJobs", Filter={"JobStatus": "X"}) == "ValidationException"
        )


async def test_a_job_that_never_was_is_not_found(serve: Serve) -> None:
    async with serve(keys=(), works=False) as server:
        for job in ("0", "a b:c", "é" * 32):
            assert await refused(server, "DescribeDocumentClassificationJob", JobId=job) == "JobNotFoundException"
        for job in ("", "0" * 33, "a*b"):
            assert await refused(server, "DescribeDocumentClassificationJob", JobId=job) == "ValidationException"


async def test_tags_go_with_an_expired_job(serve: Serve) -> None:
    async with serve(keys=(), works=False) as server:
        await classifier(server)
        started = await well(server, "StartDocumentClassificationJob", **JOB, Tags=[{"Key": "a"}])
        assert (await well(server, "ListTagsForResource", ResourceArn=started["JobArn"]))["Tags"] == [
            {"Key": "a", "Value": ""}
        ]
        server.clock.now += 91 * 86_400
        code = await refused(server, "ListTagsForResource", ResourceArn=started["JobArn"])
        assert code == "ResourceNotFoundException"
        await well(server, "StartDocumentClassificationJob", **JOB)
        assert not server.store.resources("comprehend/tags")


@pytest.mark.parametrize(
    ("prefix", "key", "name"),
    [
        ("in/lines.txt", "in/lines.txt", "lines.txt"),
        ("lines.txt", "lines.txt", "lines.txt"),
        ("in/", "in/a.txt", "a.txt"),
        ("in", "in/a.txt", "a.txt"),
        ("in/", "in/deep/a.txt", "deep/a.txt"),
        ("in/a", "in/a1.txt", "a1.txt"),
        ("", "in/a.txt", "in/a.txt"),
    ],
)
def test_a_file_is_called_what_follows_its_folder(prefix: str, key: str, name: str) -> None:
    assert file_name(prefix, key) == name


def test_long_documents_are_not_held_in_memory_all_at_once() -> None:
    short, long = Line("f", 0, "a"), Line("f", 0, "a" * 400_000)
    assert [len(batch) for batch in batches([short] * 600)] == [256, 256, 88]
    assert [len(batch) for batch in batches([long] * 7)] == [3, 3, 1]


async def test_files_of_one_name_in_two_folders_are_told_apart(serve: Serve, s3: tuple[str, Any]) -> None:
    url, bucket = s3
    for folder, text in (("x", BILLING), ("y", CRASH)):
        bucket.put_object(Bucket=BUCKET, Key=f"folders/{folder}/a.txt", Body=f"{text}\r{text}\u2028{text}\n".encode())
    async with serve(keys=(), s3=url, works=False) as server:
        await classifier(server)
        given = {
            "InputDataConfig": {"S3Uri": f"s3://{BUCKET}/folders/"},
            "OutputDataConfig": {"S3Uri": f"s3://{BUCKET}"},
        }
        started = await well(server, "StartDocumentClassificationJob", **{**JOB, **given})
        await worked(server)
        ended = await shown(server, started["JobId"])
        assert ended["JobStatus"] == "COMPLETED"
        lines = [json.loads(line) for line in member(bucket, ended["OutputDataConfig"]["S3Uri"]).splitlines()]
        assert [(one["File"], one["Line"]) for one in lines] == [
            (f"{folder}/a.txt", line) for folder, line in itertools.product("xy", "01")
        ]


async def test_a_job_that_an_earlier_version_accepted_is_done(
    serve: Serve, s3: tuple[str, Any], tmp_path: Path
) -> None:
    url, bucket = s3
    bucket.put_object(Bucket=BUCKET, Key="earlier/a.txt", Body=BILLING.encode())
    where = {"InputDataConfig": {"S3Uri": f"s3://{BUCKET}/earlier/"}, "OutputDataConfig": {"S3Uri": f"s3://{BUCKET}"}}
    async with serve(keys=(), s3=url, works=False) as server:
        await classifier(server)
        started = await well(server, "StartDocumentClassificationJob", **{**JOB, **where})
        (job,) = await server.store.of_kind(KIND)
    about = {key: value for key, value in json.loads(job.about).items() if key not in {"model", "token", "asked"}}
    with closing(sqlite3.connect(tmp_path / "data" / FILE_NAME, isolation_level=None)) as connection:
        connection.execute("UPDATE jobs SET about = ?", (json.dumps(about).encode(),))
        connection.execute("PRAGMA user_version=2")
    async with serve(keys=(), s3=url, works=False) as server:
        assert await shown(server, started["JobId"])
        await worked(server)
        assert (await shown(server, started["JobId"]))["JobStatus"] == "COMPLETED"


@pytest.mark.parametrize(
    ("key", "content", "form", "told"),
    [
        ("big.txt", b"a" * (10 * 2**20 + 1), "ONE_DOC_PER_FILE", "10,485,760 bytes"),
        ("wide.txt", b"a" * (10 * 2**20 + 1), "ONE_DOC_PER_LINE", "10,485,760 characters"),
        ("many.txt", b"\n" * 1_000_001, "ONE_DOC_PER_LINE", "1,000,000 lines"),
        ("latin.txt", b"\xe4\n", "ONE_DOC_PER_LINE", "is not UTF-8 text"),
        ("latin.txt", b"\xe4", "ONE_DOC_PER_FILE", "is not UTF-8 text"),
    ],
)
async def test_a_job_of_too_much_fails(  # noqa: PLR0917  pytest gives them by name
    serve: Serve, s3: tuple[str, Any], key: str, content: bytes, form: str, told: str
) -> None:
    url, bucket = s3
    bucket.put_object(Bucket=BUCKET, Key=f"limits/{key}", Body=content)
    source = {"S3Uri": f"s3://{BUCKET}/limits/{key}", "InputFormat": form}
    async with serve(keys=(), s3=url, works=False) as server:
        await classifier(server)
        started = await well(server, "StartDocumentClassificationJob", **{**JOB, "InputDataConfig": source})
        await worked(server)
        ended = await shown(server, started["JobId"])
        assert ended["JobStatus"] == "FAILED"
        assert told in ended["Message"]


def test_more_than_may_be_read_is_not_read(s3: tuple[str, Any]) -> None:
    url, bucket = s3
    for number in range(2):
        bucket.put_object(Bucket=BUCKET, Key=f"sizes/{number}", Body=b"a" * 600)
    found = S3(url).objects(f"s3://{BUCKET}/sizes", 1_200)
    assert [one.size for one in found] == [600, 600]
    with pytest.raises(ObjectError, match="more than 1,199 bytes"):
        S3(url).objects(f"s3://{BUCKET}/sizes", 1_199)
