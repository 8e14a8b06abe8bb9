"""Classifiers of Comprehend over ASGI: where they are while nothing is trained, and what they may not be."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from service.server.comprehend_account import Quotas
from tests.server.comprehend import CLASSIFIER, ENDPOINT, HERE, JOB, TRAINING, classifier, refused, well, worked
from tests.server.conftest import Serve, Server

ARN = f"{HERE}:document-classifier/c"
MANIFEST = {"S3Uri": "s3://nowhere/m", "AttributeNames": ["job"]}


async def shown(server: Server, arn: str = ARN) -> dict[str, Any]:
    found: dict[str, Any] = await well(server, "DescribeDocumentClassifier", DocumentClassifierArn=arn)
    properties: dict[str, Any] = found["DocumentClassifierProperties"]
    return properties


async def test_what_waits_for_its_training_is_stopped_at_once(serve: Serve) -> None:
    async with serve(keys=(), works=False) as server:
        await well(server, "CreateDocumentClassifier", **TRAINING)
        assert (await shown(server))["Status"] == "SUBMITTED"
        assert await refused(server, "DeleteDocumentClassifier", DocumentClassifierArn=ARN) == (
            "ResourceUnavailableException"
        )
        server.clock.now += 2
        await well(server, "StopTrainingDocumentClassifier", DocumentClassifierArn=ARN)
        stopped = await shown(server)
        assert stopped["Status"] == "STOPPED"
        assert stopped["EndTime"] == stopped["SubmitTime"] + 2
        assert "TrainingStartTime" not in stopped
        await worked(server)
        assert await shown(server) == stopped
    async with serve(keys=(), works=False) as server:
        assert await shown(server) == stopped


@asynccontextmanager
async def held() -> AsyncIterator[tuple[str, asyncio.Event, asyncio.Event]]:
    """S3 that answers when it is let, and then with a refusal: its address, whether it was asked, and what lets it."""
    was_asked, let = asyncio.Event(), asyncio.Event()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        was_asked.set()
        await let.wait()
        writer.write(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", was_asked, let


async def test_a_training_is_stop_requested_until_it_has_stopped(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "a")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "b")
    async with held() as (url, was_asked, let), serve(keys=(), s3=url) as server:
        begin = server.clock.now
        await well(server, "CreateDocumentClassifier", **TRAINING)
        await was_asked.wait()
        server.clock.now += 5
        training = await shown(server)
        assert (training["Status"], training["TrainingStartTime"]) == ("TRAINING", begin)
        assert "EndTime" not in training
        assert await refused(server, "DeleteDocumentClassifier", DocumentClassifierArn=ARN) == (
            "ResourceUnavailableException"
        )
        for _ in range(2):
            await well(server, "StopTrainingDocumentClassifier", DocumentClassifierArn=ARN)
            assert await shown(server) == {**training, "Status": "STOP_REQUESTED"}
        server.clock.now += 5
        let.set()
        await asyncio.wait_for(server.idle(), 30)
        assert await shown(server) == {**training, "Status": "STOPPED", "EndTime": begin + 10}
        assert not server.store.resources("comprehend/stop")
        await well(server, "DeleteDocumentClassifier", DocumentClassifierArn=ARN)
        await asyncio.wait_for(server.idle(), 30)
        assert not server.store.resources("comprehend/classifier")


async def test_a_training_that_fails_says_when_and_why(serve: Serve) -> None:
    async with serve(keys=(), s3="http://127.0.0.1:9") as server:
        await well(server, "CreateDocumentClassifier", **TRAINING)
        await asyncio.wait_for(server.idle(), 60)
        failed = await shown(server)
        assert failed["Status"] == "IN_ERROR"
        assert failed["Message"].startswith("s3://nowhere/a cannot be read")
        assert failed["SubmitTime"] <= failed["TrainingStartTime"] <= failed["EndTime"]
        assert "TrainingEndTime" not in failed


async def test_a_classifier_goes_with_its_model_and_its_tags(serve: Serve) -> None:
    async with serve(keys=(), works=False) as server:
        for name in ("a", "b"):
            await classifier(server, name, digest="1" * 64)
        arn = f"{HERE}:document-classifier/a"
        await well(server, "TagResource", ResourceArn=arn, Tags=[{"Key": "k"}])
        folder = server.backend.models.folder / ("1" * 64)
        folder.mkdir()
        (folder / "model.zip").write_bytes(b"")
        for _ in range(2):
            await well(server, "DeleteDocumentClassifier", DocumentClassifierArn=arn)
        assert (await shown(server, arn))["Status"] == "DELETING"
        new = {**TRAINING, "DocumentClassifierName": "a"}
        assert await refused(server, "CreateDocumentClassifier", **new) == "ResourceInUseException"
    async with serve(keys=(), works=False) as server:
        assert (await shown(server, arn))["Status"] == "DELETING"
        await worked(server)
        known = await refused(server, "DescribeDocumentClassifier", DocumentClassifierArn=arn)
        assert known == "ResourceNotFoundException"
        assert not server.store.resources("comprehend/tags")
        assert server.backend.models.has("1" * 64)  # the other has it, too
        await well(server, "DeleteDocumentClassifier", DocumentClassifierArn=f"{HERE}:document-classifier/b")
        await worked(server)
        assert not server.backend.models.has("1" * 64)


async def test_what_is_in_use_is_not_deleted(serve: Serve) -> None:
    async with serve(keys=(), works=False) as server:
        await classifier(server)
        other = await classifier(server, "other")
        await well(server, "CreateEndpoint", EndpointName="kept", ModelArn=CLASSIFIER, DesiredInferenceUnits=1)
        deletion = {"DocumentClassifierArn": CLASSIFIER}
        assert await refused(server, "DeleteDocumentClassifier", **deletion) == "ResourceInUseException"
        await worked(server)
        await well(server, "UpdateEndpoint", EndpointArn=ENDPOINT, DesiredModelArn=other)
        assert (
            await refused(server, "DeleteDocumentClassifier", DocumentClassifierArn=other) == "ResourceInUseException"
        )
        await worked(server)
        await well(server, "StartDocumentClassificationJob", **JOB)
        assert await refused(server, "DeleteDocumentClassifier", **deletion) == "ResourceInUseException"


async def test_trainings_are_limited(serve: Serve) -> None:
    async with serve(keys=(), works=False) as server:
        for number in range(Quotas().trainings):
            await well(server, "CreateDocumentClassifier", **{**TRAINING, "DocumentClassifierName": f"c{number}"})
        assert await refused(server, "CreateDocumentClassifier", **TRAINING) == "ResourceLimitExceededException"
        stop = {"DocumentClassifierArn": f"{HERE}:document-classifier/c0"}
        await well(server, "StopTrainingDocumentClassifier", **stop)
        await well(server, "CreateDocumentClassifier", **TRAINING)


async def test_a_name_may_have_versions(serve: Serve) -> None:
    async with serve(keys=(), works=False) as server:
        for version in ("v1", "v2"):
            server.clock.now += 1
            await well(server, "CreateDocumentClassifier", **TRAINING, VersionName=version)
        stop = {"DocumentClassifierArn": f"{ARN}/version/v2"}
        await well(server, "StopTrainingDocumentClassifier", **stop)
        (summary,) = (await well(server, "ListDocumentClassifierSummaries"))["DocumentClassifierSummariesList"]
        assert summary == {
            "DocumentClassifierName": "c",
            "NumberOfVersions": 2,
            "LatestVersionCreatedAt": server.clock.now,
            "LatestVersionName": "v2",
            "LatestVersionStatus": "STOPPED",
        }


@pytest.mark.parametrize(
    ("given", "code"),
    [
        ({"DocumentClassifierName": "a" * 64}, "ValidationException"),
        ({"VersionName": "a_b"}, "ValidationException"),
        ({"DataAccessRoleArn": None}, "ValidationException"),
        ({"DataAccessRoleArn": "arn:aws:iam::111122223333:user/data"}, "ValidationException"),
        ({"LanguageCode": "xx"}, "ValidationException"),
        ({"LanguageCode": "zh-TW"}, "UnsupportedLanguageException"),
        ({"Mode": "MULTI"}, "ValidationException"),
        ({"ClientRequestToken": "a" * 65}, "ValidationException"),
        ({"VolumeKmsKeyId": "schlüssel"}, "ValidationException"),
        ({"VolumeKmsKeyId": "key"}, "KmsKeyValidationException"),
        ({"OutputDataConfig": {"S3Uri": "s3://out/x", "KmsKeyId": "key"}}, "KmsKeyValidationException"),
        ({"OutputDataConfig": {"S3Uri": "https://out"}}, "ValidationException"),
        ({"VpcConfig": {"SecurityGroupIds": ["sg-1"]}}, "ValidationException"),
        ({"VpcConfig": {"SecurityGroupIds": ["sg-1"] * 6, "Subnets": ["subnet-1"]}}, "ValidationException"),
        ({"VpcConfig": {"SecurityGroupIds": ["sg_1"], "Subnets": ["subnet-1"]}}, "ValidationException"),
        ({"ModelPolicy": "a" * 20_001}, "ValidationException"),
        ({"Tags": [{"Key": f"k{number}"} for number in range(51)]}, "TooManyTagsException"),
        ({"InputDataConfig": None}, "InvalidRequestException"),
        ({"InputDataConfig": {"DataFormat": "AUGMENTED_MANIFEST"}}, "InvalidRequestException"),
        ({"InputDataConfig": {"AugmentedManifests": [MANIFEST] * 6}}, "InvalidRequestException"),
        (
            {"InputDataConfig": {"AugmentedManifests": [{**MANIFEST, "AttributeNames": list("abcdef")}]}},
            "InvalidRequestException",
        ),
        (
            {"InputDataConfig": {"AugmentedManifests": [{**MANIFEST, "AttributeNames": ["a" * 64]}]}},
            "ValidationException",
        ),
        ({"InputDataConfig": {"AugmentedManifests": [{**MANIFEST, "Split": "DEV"}]}}, "ValidationException"),
        ({"InputDataConfig": {"S3Uri": f"s3://bucket/{'a' * 1024}"}}, "ValidationException"),
        ({"InputDataConfig": {"S3Uri": "s3://bucket/a", "LabelDelimiter": "||"}}, "ValidationException"),
        (
            {"InputDataConfig": {"S3Uri": "s3://bucket/a", "DocumentType": "SEMI_STRUCTURED_DOCUMENT"}},
            "InvalidRequestException",
        ),
        (
            {"InputDataConfig": {"S3Uri": "s3://bucket/a", "Documents": {"S3Uri": "s3://bucket/b"}}},
            "InvalidRequestException",
        ),
    ],
)
async def test_what_no_classifier_is_made_of(serve: Serve, given: dict[str, Any], code: str) -> None:
    async with serve(keys=(), works=False) as server:
        assert await refused(server, "CreateDocumentClassifier", **{**TRAINING, **given}) == code
        assert not (await well(server, "ListDocumentClassifiers"))["DocumentClassifierPropertiesList"]


@pytest.mark.parametrize(
    "key",
    [
        "1234abcd-12ab-34cd-56ef-1234567890ab",
        "arn:aws:kms:us-west-2:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab",
        "alias/ExampleAlias",
        "arn:aws:kms:us-west-2:111122223333:alias/ExampleAlias",
    ],
)
async def test_every_form_of_a_key_is_taken_and_told(serve: Serve, key: str) -> None:
    async with serve(keys=(), works=False) as server:
        vpc = {"SecurityGroupIds": ["sg-1"], "Subnets": ["subnet-1"]}
        await well(server, "CreateDocumentClassifier", **TRAINING, ModelKmsKeyId=key, VpcConfig=vpc)
        assert {"ModelKmsKeyId": key, "VpcConfig": vpc}.items() <= (await shown(server)).items()


async def test_one_filter_leaves_some_and_times_give_an_order(serve: Serve) -> None:
    async with serve(keys=(), works=False) as server:
        begin = server.clock()
        for number in range(3):
            server.clock.now = begin + number
            await classifier(server, f"c{number}", status="IN_ERROR" if number else "TRAINED")

        async def left(**wanted: Any) -> list[str]:
            found = await well(server, "ListDocumentClassifiers", Filter=wanted)
            return [one["DocumentClassifierArn"][-2:] for one in found["DocumentClassifierPropertiesList"]]

        assert await left(Status="IN_ERROR") == ["c1", "c2"]
        assert await left(DocumentClassifierName="c0") == ["c0"]
        assert await left(SubmitTimeBefore=begin + 2) == ["c0", "c1"]
        assert await left(SubmitTimeAfter=begin) == ["c2", "c1"]
        both = {"SubmitTimeAfter": 0, "SubmitTimeBefore": 1}
        assert await refused(server, "ListDocumentClassifiers", Filter=both) == "InvalidFilterException"
        assert await refused(server, "ListDocumentClassifiers", Filter={"Status": "FAILED"}) == "ValidationException"
