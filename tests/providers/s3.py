"""Comprehend's jobs as tests play them: the API's replies, S3 by moto, and the results that a job leaves there."""

import io
import json
import tarfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import boto3
from moto.server import ThreadedMotoServer

from service import settings
from tests.providers.aws import ACCESS_KEY, CLASSIFIER_ARN, SECRET_KEY, well
from tests.providers.conftest import Reply

ROLE = "arn:aws:iam::111122223333:role/comprehend-data"
JOB = "123456abcdeb0e11022f22a1EXAMPLE0"
OUTPUT = f"111122223333-CLN-{JOB}/output/output.tar.gz"
STARTED = well(JobId=JOB, JobStatus="SUBMITTED", DocumentClassifierArn=CLASSIFIER_ARN)


def branch(endpoint_url: str, storage_url: str, **changes: Any) -> settings.ComprehendJobs:
    return settings.ComprehendJobs(**settled(endpoint_url, storage_url) | changes)


def settled(endpoint_url: str, storage_url: str) -> dict[str, Any]:
    """An account's settings, as a configuration has them."""
    return {
        "provider": "comprehend_jobs",
        "classifier_arn": CLASSIFIER_ARN,
        "task": "single_label",
        "data_access_role_arn": ROLE,
        "input_uri": "s3://tickets-in/labelstream/",
        "output_uri": "s3://tickets-out/labelstream",
        "access_key_id": ACCESS_KEY,
        "secret_access_key": SECRET_KEY,
        "endpoint_url": endpoint_url,
        "storage_url": storage_url,
    }


class Buckets:
    """What is in S3, and the results that a job would leave there."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._s3 = boto3.client(
            "s3",
            endpoint_url=url,
            region_name="eu-west-1",
            aws_access_key_id=ACCESS_KEY,
            aws_secret_access_key=SECRET_KEY,
        )

    def create(self, *names: str) -> None:
        for name in names:
            self._s3.create_bucket(Bucket=name, CreateBucketConfiguration={"LocationConstraint": "eu-west-1"})

    def put(self, archive: bytes, name: str = OUTPUT) -> None:
        self._s3.put_object(Bucket="tickets-out", Key=f"labelstream/{name}", Body=archive)

    def keys(self, bucket: str) -> list[str]:
        return [each["Key"] for each in self._s3.list_objects_v2(Bucket=bucket).get("Contents", [])]

    def head(self, key: str) -> dict[str, Any]:
        head: dict[str, Any] = self._s3.head_object(Bucket="tickets-in", Key=key)
        return head

    def read(self, key: str) -> bytes:
        with self._s3.get_object(Bucket="tickets-in", Key=key)["Body"] as body:
            return bytes(body.read())

    def clear(self) -> None:
        for bucket in ("tickets-in", "tickets-out"):
            for key in self.keys(bucket):
                self._s3.delete_object(Bucket=bucket, Key=key)

    def close(self, *names: str) -> None:
        self.clear()
        for name in names:  # all of moto's servers in a process have the same buckets
            self._s3.delete_bucket(Bucket=name)
        self._s3.close()


@contextmanager
def stored() -> Iterator[Buckets]:
    """S3 with the two buckets."""
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    buckets = Buckets(f"http://{host}:{port}")
    buckets.create("tickets-in", "tickets-out")
    try:
        yield buckets
    finally:
        buckets.close("tickets-in", "tickets-out")
        server.stop()


def job(status: object, name: str = f"s3://tickets-out/labelstream/{OUTPUT}", **more: object) -> Reply:
    properties = {"JobId": JOB, "JobStatus": status, "OutputDataConfig": {"S3Uri": name}, **more}
    return well(DocumentClassificationJobProperties=properties)


def prediction(line: object, *classes: tuple[str, float], field: str = "Classes", **more: object) -> dict[str, object]:
    return {"File": "0.txt", "Line": line, field: [{"Name": name, "Score": score} for name, score in classes], **more}


def archive(predictions: Iterable[object], name: str = "predictions.jsonl") -> bytes:
    lines = "".join(json.dumps(each) + "\n" for each in predictions).encode()
    return packed((tarfile.TarInfo(name), lines))


def packed(*members: tuple[tarfile.TarInfo, bytes]) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w:gz") as tar:
        for member, content in members:
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return file.getvalue()


def classifier(status: str, mode: str = "MULTI_CLASS") -> Reply:
    return well(DocumentClassifierProperties={"DocumentClassifierArn": CLASSIFIER_ARN, "Status": status, "Mode": mode})
