"""boto3 against the server, with S3 by moto: every operation that is served, as a user would call it.

Our own clients of Comprehend are two of its users: each streams a thousand documents through the whole pipeline.
"""

import gzip
import io
import json
import os
import tarfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from signal import SIGKILL, SIGTERM
from typing import Any

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError
from moto.server import ThreadedMotoServer

from service.model.examples import Example
from tests.providers.test_streamed import classes_of, results, rightly_labelled, streamed
from tests.server.conftest import BILLING, CRASH, KEY, MULTI, SINGLE, process
from tests.server.documents import pdf, word

AWS_KEY, AWS_SECRET = "AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"
ROLE = "arn:aws:iam::111122223333:role/data"
BUCKET = "tickets"


@pytest.fixture(scope="module")
def s3() -> Iterator[tuple[str, Any]]:
    moto = ThreadedMotoServer(port=0, verbose=False)
    moto.start()
    _, port = moto.get_host_and_port()
    url = f"http://127.0.0.1:{port}"
    client = boto3.client(
        "s3", endpoint_url=url, region_name="us-east-1", aws_access_key_id="a", aws_secret_access_key="b"
    )
    client.create_bucket(Bucket=BUCKET)
    yield url, client
    client.close()
    moto.stop()


@contextmanager
def served(data: Path, s3_url: str, *options: str, end: int = SIGTERM) -> Iterator[str]:
    given = {
        "AWS_ACCESS_KEY_ID": "a",
        "AWS_SECRET_ACCESS_KEY": "b",
        "LABELSTREAM_SERVE_AWS_KEY": f"{AWS_KEY}:{AWS_SECRET}",
    }
    before = {name: os.environ.get(name) for name in given}
    os.environ.update(given)
    try:
        with process(data, "--s3-endpoint-url", s3_url, *options) as (url, running):
            yield url
            running.send_signal(end)
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})


def comprehend(url: str, secret: str = AWS_SECRET, **more: Any) -> Any:
    return boto3.client(
        "comprehend",
        endpoint_url=url,
        region_name="eu-west-1",
        aws_access_key_id=AWS_KEY,
        aws_secret_access_key=secret,
        config=Config(retries={"total_max_attempts": 1, "mode": "standard"}),
        **more,
    )


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory, models: Path, s3: tuple[str, Any]) -> Iterator[str]:
    endpoints = ["--comprehend-endpoint", f"ready={models / 'tickets'}"]
    endpoints += ["--comprehend-endpoint", f"topics={models / 'topics'}"]
    with served(tmp_path_factory.mktemp("comprehend"), s3[0], *endpoints) as url:
        yield url


@pytest.fixture
def client(url: str) -> Iterator[Any]:
    client = comprehend(url)
    yield client
    client.close()


def table(rows: list[Example], delimiter: str = "|") -> bytes:
    lines = (f'"{delimiter.join(row.labels) or "none"}","{row.text}"' for row in rows for _ in range(3))
    return "\r\n".join(lines).encode()


def stored_manifest(s3: Any, labelled: list[Example]) -> dict[str, Any]:
    """How a classifier is told of documents in an augmented manifest, which is put into the bucket."""
    rows = []
    for row in labelled:
        about = {str(n): label for n, label in enumerate(row.labels)}
        rows.append({"source": row.text, "job": list(map(int, about)), "job-metadata": {"class-map": about}})
    s3.put_object(Bucket=BUCKET, Key="manifest.jsonl", Body="\n".join(map(json.dumps, rows)).encode())
    manifests = [{"S3Uri": f"s3://{BUCKET}/manifest.jsonl", "AttributeNames": ["job"]}]
    return {"DataFormat": "AUGMENTED_MANIFEST", "AugmentedManifests": manifests}


def until(ask: Any, wanted: set[str], unwanted: set[str]) -> dict[str, Any]:
    for _ in range(1200):
        shown: dict[str, Any] = ask()
        status = shown.get("Status") or shown["JobStatus"]
        if status in wanted:
            return shown
        assert status not in unwanted, shown
        time.sleep(0.05)
    raise AssertionError(shown)


def described(client: Any, job: str) -> dict[str, Any]:
    shown: dict[str, Any] = client.describe_document_classification_job(JobId=job)
    properties: dict[str, Any] = shown["DocumentClassificationJobProperties"]
    return properties


def trained(client: Any, name: str, key: str, mode: str = "MULTI_CLASS", **more: Any) -> dict[str, Any]:
    config = {"S3Uri": f"s3://{BUCKET}/{key}"}
    unwanted = more.pop("unwanted", {"IN_ERROR", "STOPPED"})
    made = client.create_document_classifier(
        DocumentClassifierName=name,
        DataAccessRoleArn=ROLE,
        LanguageCode="en",
        Mode=mode,
        InputDataConfig={**config, **more.pop("config", {})},
        **more,
    )
    arn = made["DocumentClassifierArn"]
    return until(
        lambda: client.describe_document_classifier(DocumentClassifierArn=arn)["DocumentClassifierProperties"],
        {"TRAINED", "TRAINED_WITH_WARNING"},
        unwanted,
    )


def in_service(client: Any, name: str, arn: str, units: int, **more: Any) -> str:
    made = client.create_endpoint(EndpointName=name, ModelArn=arn, DesiredInferenceUnits=units, **more)
    assert made["ModelArn"] == arn
    return ready(client, made["EndpointArn"])


def ready(client: Any, endpoint: str) -> str:
    def ask() -> dict[str, Any]:
        shown: dict[str, Any] = client.describe_endpoint(EndpointArn=endpoint)["EndpointProperties"]
        return shown

    until(ask, {"IN_SERVICE"}, {"FAILED", "DELETING"})
    return endpoint


def gone(client: Any, ask: Any) -> None:
    """Ask until there is no such resource any more."""
    with pytest.raises(client.exceptions.ResourceNotFoundException):
        until(lambda: next(one for one in ask().values() if "Status" in one), set(), {"IN_SERVICE", "TRAINED"})


def member(client: Any, uri: str) -> bytes:
    bucket, _, key = uri.removeprefix("s3://").partition("/")
    content = client.get_object(Bucket=bucket, Key=key)["Body"].read()
    with tarfile.open(fileobj=io.BytesIO(gzip.decompress(content))) as archive:
        (found,) = archive.getmembers()
        file = archive.extractfile(found)
        assert file is not None
        return file.read()


def code(refused: pytest.ExceptionInfo[ClientError]) -> tuple[str, int]:
    response = refused.value.response
    return response["Error"]["Code"], response["ResponseMetadata"]["HTTPStatusCode"]


def test_a_classifier_is_trained_put_into_service_asked_and_deleted(client: Any, s3: tuple[str, Any]) -> None:
    s3[1].put_object(Bucket=BUCKET, Key="train/single.csv", Body=table(SINGLE))
    shown = trained(client, "single", "train/single.csv", OutputDataConfig={"S3Uri": f"s3://{BUCKET}/out"})
    assert shown["ClassifierMetadata"]["NumberOfLabels"] == 3
    assert shown["ClassifierMetadata"]["EvaluationMetrics"]["Accuracy"] > 0.5
    confusion = json.loads(member(s3[1], shown["OutputDataConfig"]["S3Uri"]))
    assert confusion["labels"] == ["account", "billing", "crash"]
    assert sum(map(sum, confusion["confusion_matrix"])) == shown["ClassifierMetadata"]["NumberOfTestDocuments"]
    arn = shown["DocumentClassifierArn"]
    made = {"EndpointArn": in_service(client, "e1", arn, 40, ClientRequestToken="t")}
    again = client.create_endpoint(EndpointName="e1", ModelArn=arn, DesiredInferenceUnits=40, ClientRequestToken="t")
    assert made["EndpointArn"] == again["EndpointArn"]
    for endpoint in (made["EndpointArn"], made["EndpointArn"].replace("document-classifier-endpoint", "endpoint")):
        answer = client.classify_document(EndpointArn=endpoint, Text=BILLING)
        assert answer["Classes"][0]["Name"] == "billing"
        assert 0 < answer["Classes"][0]["Score"] <= 1
    properties = client.describe_endpoint(EndpointArn=made["EndpointArn"])["EndpointProperties"]
    assert (properties["Status"], properties["CurrentInferenceUnits"], properties["ModelArn"]) == (
        "IN_SERVICE",
        40,
        arn,
    )
    client.update_endpoint(EndpointArn=made["EndpointArn"], DesiredInferenceUnits=2)
    ready(client, made["EndpointArn"])
    listed = client.list_endpoints(Filter={"ModelArn": arn})["EndpointPropertiesList"]
    assert [(one["EndpointArn"], one["DesiredInferenceUnits"]) for one in listed] == [(made["EndpointArn"], 2)]
    with pytest.raises(ClientError) as refused:
        client.delete_document_classifier(DocumentClassifierArn=arn)
    assert code(refused) == ("ResourceInUseException", 400)
    client.delete_endpoint(EndpointArn=made["EndpointArn"])
    gone(client, lambda: client.describe_endpoint(EndpointArn=made["EndpointArn"]))
    client.delete_document_classifier(DocumentClassifierArn=arn)
    gone(client, lambda: client.describe_document_classifier(DocumentClassifierArn=arn))


def test_labels_that_apply_are_learnt_from_a_manifest_and_a_table(client: Any, s3: tuple[str, Any]) -> None:
    manifest = stored_manifest(s3[1], MULTI)
    s3[1].put_object(Bucket=BUCKET, Key="test.csv", Body=table(MULTI[:9], ":"))
    from_manifest = trained(client, "multi", "unused", "MULTI_LABEL", config=manifest)
    assert from_manifest["ClassifierMetadata"]["NumberOfLabels"] == 3
    s3[1].put_object(Bucket=BUCKET, Key="multi.csv", Body=table(MULTI, ":"))
    given = {"LabelDelimiter": ":", "TestS3Uri": f"s3://{BUCKET}/test.csv"}
    output = {"S3Uri": f"s3://{BUCKET}/out"}
    shown = trained(client, "multi-table", "multi.csv", "MULTI_LABEL", config=given, OutputDataConfig=output)
    assert shown["ClassifierMetadata"]["NumberOfTestDocuments"] == 27
    confusion = json.loads(member(s3[1], shown["OutputDataConfig"]["S3Uri"]))
    assert [sum(map(sum, one)) for one in confusion["confusion_matrix"]] == [27] * len(confusion["labels"])
    arn = shown["DocumentClassifierArn"]
    endpoint = in_service(client, "multi", arn, 50)
    answer = client.classify_document(EndpointArn=endpoint, Text=f"{BILLING} and {CRASH}")
    assert "Classes" not in answer
    assert {one["Name"] for one in answer["Labels"]} >= {"billing", "crash"}
    client.delete_endpoint(EndpointArn=endpoint)


def test_a_job_reads_documents_from_s3_and_writes_its_predictions_there(client: Any, s3: tuple[str, Any]) -> None:
    s3[1].put_object(Bucket=BUCKET, Key="train/for-jobs.csv", Body=table(SINGLE))
    arn = trained(client, "for-jobs", "train/for-jobs.csv")["DocumentClassifierArn"]
    s3[1].put_object(Bucket=BUCKET, Key="in/lines.txt", Body=f"{BILLING}\n{CRASH}\r\n\n".encode())
    for name, text in (("a.txt", BILLING), ("b.txt", CRASH)):
        s3[1].put_object(Bucket=BUCKET, Key=f"files/{name}", Body=text.encode())

    def start(source: str, form: str, **more: str) -> dict[str, Any]:
        begun: dict[str, Any] = client.start_document_classification_job(
            DocumentClassifierArn=arn,
            DataAccessRoleArn=ROLE,
            InputDataConfig={"S3Uri": f"s3://{BUCKET}/{source}", "InputFormat": form},
            OutputDataConfig={"S3Uri": f"s3://{BUCKET}/predictions"},
            **more,
        )
        return begun

    def done(begun: dict[str, Any]) -> dict[str, Any]:
        def ask() -> dict[str, Any]:
            shown: dict[str, Any] = client.describe_document_classification_job(JobId=begun["JobId"])
            found: dict[str, Any] = shown["DocumentClassificationJobProperties"]
            return found

        return until(ask, {"COMPLETED", "FAILED"}, set())

    begun = start("in/lines.txt", "ONE_DOC_PER_LINE", JobName="lines", ClientRequestToken="one")
    assert (
        start("in/lines.txt", "ONE_DOC_PER_LINE", JobName="lines", ClientRequestToken="one")["JobId"] == begun["JobId"]
    )
    assert len(begun["JobId"]) == 32
    shown = done(begun)
    assert (shown["JobStatus"], shown["JobName"]) == ("COMPLETED", "lines")
    assert shown["OutputDataConfig"]["S3Uri"].endswith(f"-CLN-{begun['JobId']}/output/output.tar.gz")
    lines = [json.loads(line) for line in member(s3[1], shown["OutputDataConfig"]["S3Uri"]).splitlines()]
    assert [(one["File"], one["Line"]) for one in lines] == [("lines.txt", "0"), ("lines.txt", "1"), ("lines.txt", "2")]
    assert [one["Classes"][0]["Name"] for one in lines[:2]] == ["billing", "crash"]
    assert lines[2]["ErrorCode"] == "INVALID_INPUT"
    files = done(start("files/", "ONE_DOC_PER_FILE"))
    found = [json.loads(line) for line in member(s3[1], files["OutputDataConfig"]["S3Uri"]).splitlines()]
    assert [(one["File"], one["Classes"][0]["Name"]) for one in found] == [("a.txt", "billing"), ("b.txt", "crash")]
    missing = done(start("nowhere/", "ONE_DOC_PER_LINE"))
    assert missing["JobStatus"] == "FAILED"
    assert "no such object" in missing["Message"]
    pages = client.get_paginator("list_document_classification_jobs").paginate(PaginationConfig={"PageSize": 2})
    listed = [one for page in pages for one in page["DocumentClassificationJobPropertiesList"]]
    assert [one["JobStatus"] for one in listed] == ["FAILED", "COMPLETED", "COMPLETED"]
    named = client.list_document_classification_jobs(Filter={"JobName": "lines"})
    assert len(named["DocumentClassificationJobPropertiesList"]) == 1
    with pytest.raises(client.exceptions.JobNotFoundException):
        client.describe_document_classification_job(JobId="0" * 32)


def test_documents_come_as_text_or_as_bytes(client: Any) -> None:
    arn = "arn:aws:comprehend:us-west-2:999999999999:document-classifier-endpoint/ready"
    for content, kind in (
        (BILLING.encode(), "PLAIN_TEXT"),
        (pdf([BILLING]), "NATIVE_PDF"),
        (word([BILLING]), "MS_WORD"),
    ):
        answer = client.classify_document(EndpointArn=arn, Bytes=content)
        assert (answer["Classes"][0]["Name"], answer["Classes"][0]["Page"]) == ("billing", 1)
        assert answer["DocumentType"] == [{"Page": 1, "Type": kind}]
        assert answer["DocumentMetadata"]["Pages"] == 1
    for content, reason in ((pdf(["a", "b"]), "PAGE_LIMIT_EXCEEDED"), (b"\x89PNG\xff", "UNSUPPORTED_DOC_TYPE")):
        with pytest.raises(client.exceptions.InvalidRequestException) as refused:
            client.classify_document(EndpointArn=arn, Bytes=content)
        assert refused.value.response["Reason"] == "INVALID_DOCUMENT"
        assert refused.value.response["Detail"]["Reason"] == reason
    with pytest.raises(client.exceptions.TextSizeLimitExceededException):
        client.classify_document(EndpointArn=arn, Text="ä" * 5_001)
    assert client.classify_document(EndpointArn=arn, Text="a" * 10_000)["Classes"]


def test_inference_units_throttle(client: Any, s3: tuple[str, Any]) -> None:
    s3[1].put_object(Bucket=BUCKET, Key="train/slow.csv", Body=table(SINGLE))
    arn = trained(client, "slow", "train/slow.csv")["DocumentClassifierArn"]
    endpoint = in_service(client, "slow", arn, 1)
    refused, answered = [], 0
    for _ in range(10):
        try:
            client.classify_document(EndpointArn=endpoint, Text="short")
            answered += 1
        except ClientError as error:
            refused.append(error.response["Error"]["Code"])
    assert answered >= 2
    assert refused == ["ThrottlingException"] * (10 - answered)
    assert len(refused) >= 5
    client.delete_endpoint(EndpointArn=endpoint)


def test_trainings_fail_stop_and_are_listed(client: Any, s3: tuple[str, Any]) -> None:
    s3[1].put_object(Bucket=BUCKET, Key="bad.csv", Body=b"label without text\n")
    with pytest.raises(AssertionError, match="two columns"):
        trained(client, "bad", "bad.csv")
    s3[1].put_object(Bucket=BUCKET, Key="train/many.csv", Body=table(SINGLE * 40))
    given = {
        "DataAccessRoleArn": ROLE,
        "LanguageCode": "en",
        "InputDataConfig": {"S3Uri": f"s3://{BUCKET}/train/many.csv"},
    }
    made = client.create_document_classifier(DocumentClassifierName="many", VersionName="v1", **given)
    arn = made["DocumentClassifierArn"]
    assert arn.endswith(":document-classifier/many/version/v1")

    def ask() -> dict[str, Any]:
        shown: dict[str, Any] = client.describe_document_classifier(DocumentClassifierArn=arn)
        properties: dict[str, Any] = shown["DocumentClassifierProperties"]
        return properties

    began = until(ask, {"TRAINING"}, {"TRAINED"})
    assert began["TrainingStartTime"] >= began["SubmitTime"]
    assert "EndTime" not in began
    client.stop_training_document_classifier(DocumentClassifierArn=arn)
    assert ask()["Status"] in {"STOP_REQUESTED", "STOPPED"}
    shown = until(ask, {"STOPPED"}, {"TRAINED", "TRAINED_WITH_WARNING", "IN_ERROR"})
    assert shown["TrainingStartTime"] == began["TrainingStartTime"]
    assert shown["EndTime"] >= shown["TrainingStartTime"]
    assert "TrainingEndTime" not in shown
    client.stop_training_document_classifier(DocumentClassifierArn=arn)
    assert ask() == shown
    with pytest.raises(client.exceptions.ResourceInUseException):
        client.create_document_classifier(DocumentClassifierName="many", VersionName="v1", **given)
    failed = client.list_document_classifiers(Filter={"Status": "IN_ERROR"})["DocumentClassifierPropertiesList"]
    assert [one["DocumentClassifierArn"].rpartition("/")[2] for one in failed] == ["bad"]
    summaries = client.list_document_classifier_summaries()["DocumentClassifierSummariesList"]
    assert {"DocumentClassifierName": "many", "NumberOfVersions": 1, "LatestVersionName": "v1"}.items() <= next(
        one.items() for one in summaries if one["DocumentClassifierName"] == "many"
    )


def test_who_may_not_ask_and_what_is_not_there(url: str, client: Any) -> None:
    stranger = comprehend(url, "wrong")
    with pytest.raises(ClientError) as refused:
        stranger.list_endpoints()
    assert code(refused) == ("InvalidSignatureException", 400)
    stranger.close()
    with pytest.raises(ClientError) as refused:
        client.detect_sentiment(Text="x", LanguageCode="en")
    assert code(refused) == ("UnknownOperationException", 400)
    with pytest.raises(client.exceptions.ResourceNotFoundException):
        client.classify_document(
            EndpointArn="arn:aws:comprehend:eu-west-1:111122223333:document-classifier-endpoint/nobody", Text="x"
        )
    for wrong in ("nonsense", "arn:aws:comprehend:eu-west-1:111122223333:entity-recognizer/x"):
        with pytest.raises(ClientError) as refused:
            client.classify_document(EndpointArn=wrong, Text="x")
        assert code(refused) == ("ValidationException", 400)


def test_two_filters_a_reused_token_and_what_is_too_much_are_refused(client: Any) -> None:
    early = {"SubmitTimeAfter": 0, "SubmitTimeBefore": 2_000_000_000}
    for ask in (client.list_document_classifiers, client.list_document_classification_jobs):
        with pytest.raises(client.exceptions.InvalidFilterException):
            ask(Filter=early)
    with pytest.raises(client.exceptions.InvalidRequestException):
        client.list_endpoints(Filter={"CreationTimeAfter": 0, "Status": "IN_SERVICE"})
    given = {"DataAccessRoleArn": ROLE, "InputDataConfig": {"S3Uri": f"s3://{BUCKET}/nowhere"}}
    token = {"ClientRequestToken": "of-one-training", "LanguageCode": "en"}
    made = client.create_document_classifier(DocumentClassifierName="first", **token, **given)
    assert (
        client.create_document_classifier(DocumentClassifierName="first", **token, **given)["DocumentClassifierArn"]
        == (made["DocumentClassifierArn"])
    )
    for name, mode in (("first", "MULTI_LABEL"), ("second", "MULTI_CLASS")):
        with pytest.raises(client.exceptions.ResourceInUseException):
            client.create_document_classifier(DocumentClassifierName=name, Mode=mode, **token, **given)
    with pytest.raises(client.exceptions.UnsupportedLanguageException):
        client.create_document_classifier(DocumentClassifierName="third", LanguageCode="ja", **given)
    with pytest.raises(client.exceptions.KmsKeyValidationException):
        client.create_document_classifier(
            DocumentClassifierName="third", LanguageCode="en", ModelKmsKeyId="a key", **given
        )
    tags = [{"Key": f"key {number}"} for number in range(51)]
    with pytest.raises(client.exceptions.TooManyTagsException):
        client.create_document_classifier(DocumentClassifierName="third", LanguageCode="en", Tags=tags, **given)


def test_tags_are_given_and_taken(client: Any) -> None:
    arn = "arn:aws:comprehend:eu-west-1:000000000000:document-classifier-endpoint/ready"
    client.tag_resource(ResourceArn=arn, Tags=[{"Key": "team", "Value": "support"}, {"Key": "empty"}])
    client.tag_resource(ResourceArn=arn, Tags=[{"Key": "team", "Value": "sales"}])
    shown = client.list_tags_for_resource(ResourceArn=arn)
    assert shown["ResourceArn"] == arn
    assert shown["Tags"] == [{"Key": "team", "Value": "sales"}, {"Key": "empty", "Value": ""}]
    with pytest.raises(client.exceptions.TooManyTagsException):
        client.tag_resource(ResourceArn=arn, Tags=[{"Key": f"key {number}"} for number in range(49)])
    with pytest.raises(client.exceptions.TooManyTagKeysException):
        client.untag_resource(ResourceArn=arn, TagKeys=[f"key {number}" for number in range(51)])
    client.untag_resource(ResourceArn=arn, TagKeys=["team", "never there"])
    assert client.list_tags_for_resource(ResourceArn=arn)["Tags"] == [{"Key": "empty", "Value": ""}]
    with pytest.raises(client.exceptions.ResourceNotFoundException):
        client.list_tags_for_resource(ResourceArn=arn.replace("ready", "nobody"))


def test_no_operation_stops_a_classification_job(client: Any) -> None:
    assert not any("StopDocumentClassification" in name for name in client.meta.service_model.operation_names)
    with pytest.raises(ClientError) as refused:
        client.stop_entities_detection_job(JobId="0" * 32)
    assert code(refused) == ("UnknownOperationException", 400)


def test_what_was_under_way_when_the_server_ended_is_done_once(tmp_path: Path, s3: tuple[str, Any]) -> None:
    folder = "restart"
    s3[1].put_object(Bucket=BUCKET, Key=f"{folder}/few.csv", Body=table(SINGLE))
    s3[1].put_object(Bucket=BUCKET, Key=f"{folder}/lines.txt", Body=f"{BILLING}\n{CRASH}\n".encode() * 8_000)
    out: dict[str, Any] = {"OutputDataConfig": {"S3Uri": f"s3://{BUCKET}/{folder}/out"}}

    def written() -> list[str]:
        return [one["Key"] for one in s3[1].list_objects_v2(Bucket=BUCKET, Prefix=f"{folder}/out").get("Contents", [])]

    with served(tmp_path, s3[0], end=SIGTERM) as url:
        client = comprehend(url)
        arn = trained(client, "few", f"{folder}/few.csv")["DocumentClassifierArn"]
        job = client.start_document_classification_job(
            DocumentClassifierArn=arn,
            DataAccessRoleArn=ROLE,
            InputDataConfig={"S3Uri": f"s3://{BUCKET}/{folder}/lines.txt"},
            ClientRequestToken="once",
            **out,
        )["JobId"]
        until(lambda: described(client, job), {"IN_PROGRESS"}, {"COMPLETED"})
        client.close()
    assert not written()
    with served(tmp_path, s3[0], end=SIGKILL) as url:
        client = comprehend(url)
        assert described(client, job)["JobStatus"] in {"SUBMITTED", "IN_PROGRESS"}
        shown = until(lambda: described(client, job), {"COMPLETED"}, {"FAILED"})
        assert member(s3[1], shown["OutputDataConfig"]["S3Uri"]).count(b"\n") == 16_000
        assert len(client.list_document_classification_jobs()["DocumentClassificationJobPropertiesList"]) == 1
        assert len(written()) == 1
        with pytest.raises(
            AssertionError, match="TRAINING"
        ):  # a process is started for it, which takes seconds; it is left there
            trained(client, "many", f"{folder}/few.csv", unwanted={"TRAINING"}, **out)
        client.close()
    assert len(written()) == 1
    with served(tmp_path, s3[0]) as url:
        client = comprehend(url)
        assert described(client, job) == shown
        many = arn.replace("few", "many")

        def ask() -> dict[str, Any]:
            properties: dict[str, Any] = client.describe_document_classifier(DocumentClassifierArn=many)
            found: dict[str, Any] = properties["DocumentClassifierProperties"]
            return found

        assert until(ask, {"TRAINED", "TRAINED_WITH_WARNING"}, {"IN_ERROR", "STOPPED"})["ClassifierMetadata"]
        assert len(client.list_document_classifiers()["DocumentClassifierPropertiesList"]) == 2
        assert len(written()) == 2
        client.close()


def test_what_was_made_survives_a_restart(tmp_path: Path, s3: tuple[str, Any]) -> None:
    s3[1].put_object(Bucket=BUCKET, Key="train/again.csv", Body=table(SINGLE))
    with served(tmp_path, s3[0]) as url:
        client = comprehend(url)
        arn = trained(client, "again", "train/again.csv")["DocumentClassifierArn"]
        endpoint = in_service(client, "again", arn, 9)
        client.close()
    with served(tmp_path, s3[0]) as url:
        client = comprehend(url)
        assert client.classify_document(EndpointArn=endpoint, Text=BILLING)["Classes"][0]["Name"] == "billing"
        client.close()


def test_the_pages_requests_are_answered_in_the_order_printed(url: str, s3: tuple[str, Any]) -> None:
    client = comprehend(f"{url}/v/comp")  # the address may have a path
    account = "arn:aws:comprehend:eu-west-1:111122223333"
    s3[1].put_object(Bucket=BUCKET, Key="train/example.csv", Body=table(SINGLE))
    trained(client, "example", "train/example.csv")
    made = client.create_endpoint(
        DesiredInferenceUnits=1,
        EndpointName="example",
        ModelArn=f"{account}:model/example",
        Tags=[{"Key": "My1stTag", "Value": "Value1"}],
    )
    assert ready(client, made["EndpointArn"]).endswith(":document-classifier-endpoint/example")
    assert client.list_tags_for_resource(ResourceArn=made["EndpointArn"])["Tags"] == [
        {"Key": "My1stTag", "Value": "Value1"}
    ]
    titanic = "The maiden voyage of the White Star liner Titanic, the largest ship ever launched ended in disaster."
    answer = client.classify_document(EndpointArn=f"{account}:endpoint/example", Text=titanic)
    assert all(0 <= one["Score"] <= 1 and one["Name"] for one in answer["Classes"])
    config = {
        "DocumentReadMode": "FORCE_DOCUMENT_READ_ACTION",
        "DocumentReadAction": "TEXTRACT_DETECT_DOCUMENT_TEXT",
    }
    with pytest.raises(client.exceptions.InvalidRequestException) as refused:  # images are not read here
        client.classify_document(
            EndpointArn=made["EndpointArn"], Bytes=b"\xff\xd8\xff\xe0", DocumentReaderConfig=config
        )
    assert refused.value.response["Detail"]["Reason"] == "UNSUPPORTED_DOC_TYPE"
    s3[1].put_object(Bucket=BUCKET, Key="docclass/smalltrain", Body=f"{BILLING}\n{CRASH}\n".encode())
    job = client.start_document_classification_job(
        DocumentClassifierArn=f"{account}:document-classifier/example",
        DataAccessRoleArn=ROLE,
        InputDataConfig={"S3Uri": f"s3://{BUCKET}/docclass/smalltrain", "InputFormat": "ONE_DOC_PER_LINE"},
        OutputDataConfig={"S3Uri": f"s3://{BUCKET}/output"},
    )["JobId"]
    shown = client.describe_document_classification_job(JobId=job)["DocumentClassificationJobProperties"]
    assert shown["JobStatus"] in {"SUBMITTED", "IN_PROGRESS", "COMPLETED"}
    listed = client.list_document_classification_jobs()["DocumentClassificationJobPropertiesList"]
    assert job in {one["JobId"] for one in listed}
    client.delete_endpoint(EndpointArn=made["EndpointArn"])
    client.close()


def test_the_other_apis_are_where_they_were(url: str) -> None:
    import httpx  # noqa: PLC0415

    headers = {"Ocp-Apim-Subscription-Key": KEY}
    assert httpx.get(f"{url}/language/analyze-text/jobs/x?api-version=2023-04-01", headers=headers).status_code == 404
    assert httpx.get(f"{url}/", headers=headers).status_code in {404, 405}


def account(url: str, **more: Any) -> dict[str, Any]:
    """The settings of an account of Comprehend at that server."""
    signed = {"endpoint_url": url, "access_key_id": AWS_KEY, "secret_access_key": AWS_SECRET}
    return {**signed, "task": "single_label", **more}


def rightly(found: dict[int, str | None], asked: list[Example]) -> int:
    """How many documents were given the class that they have."""
    assert len(found) == len(asked)
    return sum(found[number] == row.labels[0] for number, row in enumerate(asked))


async def test_our_client_streams_a_thousand_documents_through_an_endpoint(url: str) -> None:
    asked = [SINGLE[number % len(SINGLE)] for number in range(1_000)]
    arn = "arn:aws:comprehend:eu-west-1:000000000000:document-classifier-endpoint/ready"
    endpoint = account(url, provider="comprehend", endpoint_arn=arn)
    sink = await streamed(endpoint, [row.text for row in asked])
    assert rightly(results(sink), asked) > 900


async def test_our_client_streams_a_thousand_documents_through_an_endpoint_of_labels(url: str) -> None:
    arn = "arn:aws:comprehend:eu-west-1:000000000000:document-classifier-endpoint/topics"
    endpoint = account(url, provider="comprehend", endpoint_arn=arn, task="multi_label")
    assert rightly_labelled(classes_of(await streamed(endpoint, a_thousand()))) > 900


def through_jobs(client: Any, s3_url: str, arn: str, **more: Any) -> dict[str, Any]:
    """The settings of an account that asks a classifier through jobs."""
    return account(
        client.meta.endpoint_url,
        provider="comprehend_jobs",
        storage_url=s3_url,
        classifier_arn=arn,
        data_access_role_arn=ROLE,
        input_uri=f"s3://{BUCKET}/streamed/in",
        output_uri=f"s3://{BUCKET}/streamed/out",
        documents_per_job=300,
        **more,
    )


def a_thousand() -> list[str]:
    return [MULTI[number % len(MULTI)].text for number in range(1_000)]


async def test_our_client_streams_a_thousand_documents_through_jobs_of_labels(client: Any, s3: tuple[str, Any]) -> None:
    manifest = stored_manifest(s3[1], MULTI)
    arn = trained(client, "streamed-labels", "unused", "MULTI_LABEL", config=manifest)["DocumentClassifierArn"]
    sink = await streamed(through_jobs(client, s3[0], arn, task="multi_label"), a_thousand())
    assert rightly_labelled(classes_of(sink)) > 900


async def test_our_client_streams_a_thousand_documents_through_jobs(client: Any, s3: tuple[str, Any]) -> None:
    s3[1].put_object(Bucket=BUCKET, Key="train/streamed.csv", Body=table(SINGLE))
    arn = trained(client, "streamed", "train/streamed.csv")["DocumentClassifierArn"]
    asked = [SINGLE[number % len(SINGLE)] for number in range(1_000)]
    sink = await streamed(through_jobs(client, s3[0], arn), [row.text for row in asked])
    assert rightly(results(sink), asked) > 900
    left = s3[1].list_objects_v2(Bucket=BUCKET, Prefix="streamed/")
    assert left["KeyCount"] == 0
