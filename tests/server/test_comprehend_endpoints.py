"""Endpoints of Comprehend over ASGI: where they are while nothing works on them, and where they go."""

import asyncio
import base64
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from service.server import comprehend_endpoints
from service.server.store import FILE_NAME, Change
from tests.server.comprehend import CLASSIFIER, ENDPOINT, classifier, endpoint, refused, registered, well, worked
from tests.server.conftest import BILLING, Serve, Server
from tests.server.documents import pdf

NEW: dict[str, Any] = {"EndpointName": "kept", "ModelArn": CLASSIFIER, "DesiredInferenceUnits": 2}
ASK = {"EndpointArn": ENDPOINT, "Text": BILLING}


async def created(server: Server, **more: Any) -> Server:
    await classifier(server)
    assert await well(server, "CreateEndpoint", **{**NEW, **more}) == {"EndpointArn": ENDPOINT, "ModelArn": CLASSIFIER}
    return server


async def test_an_endpoint_is_created_updated_and_deleted_as_work_is_done(serve: Serve) -> None:
    async with serve(keys=(), works=False) as server:
        await created(server)
        shown = await endpoint(server)
        assert (shown["Status"], shown["DesiredInferenceUnits"]) == ("CREATING", 2)
        assert "CurrentInferenceUnits" not in shown
        assert await refused(server, "ClassifyDocument", **ASK) == "ResourceUnavailableException"
        update = {"EndpointArn": ENDPOINT, "DesiredInferenceUnits": 3}
        assert await refused(server, "UpdateEndpoint", **update) == "ResourceInUseException"
        await worked(server)
        assert (await endpoint(server))["Status"] == "IN_SERVICE"
        assert (await well(server, "ClassifyDocument", **ASK))["Classes"][0]["Name"] == "billing"
        other = await classifier(server, "other", digest=server.store.projects["topics"].deployments["production"])
        server.clock.now += 5
        assert await well(server, "UpdateEndpoint", **update, DesiredModelArn=other) == {"DesiredModelArn": other}
        shown = await endpoint(server)
        assert (shown["Status"], shown["ModelArn"], shown["CurrentInferenceUnits"]) == ("UPDATING", CLASSIFIER, 2)
        assert (shown["DesiredModelArn"], shown["DesiredInferenceUnits"]) == (other, 3)
        assert "Classes" in await well(server, "ClassifyDocument", **ASK)  # as before
        assert await refused(server, "UpdateEndpoint", **update) == "ResourceInUseException"
        await worked(server)
        shown = await endpoint(server)
        assert (shown["Status"], shown["ModelArn"], shown["CurrentInferenceUnits"]) == ("IN_SERVICE", other, 3)
        assert shown["LastModifiedTime"] == shown["CreationTime"] + 5
        assert "Labels" in await well(server, "ClassifyDocument", **ASK)
        for _ in range(2):
            await well(server, "DeleteEndpoint", EndpointArn=ENDPOINT)
        assert (await endpoint(server))["Status"] == "DELETING"
        assert await refused(server, "ClassifyDocument", **ASK) == "ResourceUnavailableException"
        assert await refused(server, "UpdateEndpoint", **update) == "ResourceUnavailableException"
        assert await refused(server, "CreateEndpoint", **NEW) == "ResourceInUseException"
        await worked(server)
        assert await refused(server, "DescribeEndpoint", EndpointArn=ENDPOINT) == "ResourceNotFoundException"


async def test_what_is_created_may_be_deleted_before_it_is_there(serve: Serve) -> None:
    async with serve(keys=(), works=False) as server:
        await created(server)
        await well(server, "DeleteEndpoint", EndpointArn=ENDPOINT)
        assert server.jobs.statistics().waiting == 1  # the deletion, instead of the creation
        await worked(server)
        assert await refused(server, "DescribeEndpoint", EndpointArn=ENDPOINT) == "ResourceNotFoundException"


@pytest.mark.parametrize("state", ["CREATING", "UPDATING", "DELETING"])
async def test_a_change_that_the_end_of_the_server_broke_off_is_done_at_the_next_start(
    serve: Serve, state: str
) -> None:
    async with serve(keys=(), works=False) as server:
        await created(server)
        if state != "CREATING":
            await worked(server)
        if state == "UPDATING":
            await well(server, "UpdateEndpoint", EndpointArn=ENDPOINT, DesiredInferenceUnits=9)
        if state == "DELETING":
            await well(server, "DeleteEndpoint", EndpointArn=ENDPOINT)
        assert (await endpoint(server))["Status"] == state
    async with serve(keys=(), works=False) as server:
        assert (await endpoint(server))["Status"] == state
        await worked(server)
        if state == "DELETING":
            assert await refused(server, "DescribeEndpoint", EndpointArn=ENDPOINT) == "ResourceNotFoundException"
        else:
            shown = await endpoint(server)
            assert (shown["Status"], shown["CurrentInferenceUnits"]) == ("IN_SERVICE", 9 if state == "UPDATING" else 2)


async def test_an_endpoint_that_an_earlier_version_kept_serves_on(serve: Serve, tmp_path: Path) -> None:
    async with serve(keys=()) as server:
        await registered(server, units=2)
        kept = dict(server.store.resource(comprehend_endpoints.RESOURCE, "kept") or {})
        for name in ("asked", "desired", "status"):
            del kept[name]
        await server.store.change(Change(comprehend_endpoints.RESOURCE, "kept", kept))
    with closing(sqlite3.connect(tmp_path / "data" / FILE_NAME)) as connection:
        connection.execute("PRAGMA user_version=2")
    async with serve(keys=()) as server:
        (shown,) = (await well(server, "ListEndpoints"))["EndpointPropertiesList"]
        assert (shown["Status"], shown["CurrentInferenceUnits"], shown["DesiredInferenceUnits"]) == ("IN_SERVICE", 2, 2)
        assert (await well(server, "ClassifyDocument", EndpointArn=ENDPOINT, Text=BILLING))["Classes"]
        await well(server, "DeleteEndpoint", EndpointArn=ENDPOINT)


async def test_a_model_that_cannot_be_loaded_fails_a_creation_and_leaves_an_update_undone(serve: Serve) -> None:
    async with serve(keys=()) as server:
        broken = await classifier(server, "broken", digest="0" * 64)
        await well(server, "CreateEndpoint", **{**NEW, "EndpointName": "kept", "ModelArn": broken})
        await server.idle()
        shown = await endpoint(server)
        assert shown["Status"] == "FAILED"
        assert shown["Message"]
        assert await refused(server, "ClassifyDocument", **ASK) == "ResourceUnavailableException"
        update = {"EndpointArn": ENDPOINT, "DesiredInferenceUnits": 3}
        assert await refused(server, "UpdateEndpoint", **update) == "ResourceUnavailableException"
        await well(server, "DeleteEndpoint", EndpointArn=ENDPOINT)
        await server.idle()
        await created(server)
        await server.idle()
        await well(server, "UpdateEndpoint", EndpointArn=ENDPOINT, DesiredModelArn=broken)
        await server.idle()
        shown = await endpoint(server)
        assert (shown["Status"], shown["DesiredModelArn"]) == ("IN_SERVICE", CLASSIFIER)
        assert shown["Message"]
        await well(server, "UpdateEndpoint", EndpointArn=ENDPOINT, DesiredInferenceUnits=3)
        await server.idle()
        assert "Message" not in await endpoint(server)


async def test_a_token_finds_what_was_made_under_it_as_long_as_that_is_there(serve: Serve) -> None:
    async with serve(keys=()) as server:
        await created(server, ClientRequestToken="t")
        again = {**NEW, "ClientRequestToken": "t"}
        assert (await well(server, "CreateEndpoint", **again))["EndpointArn"] == ENDPOINT
        for other in ({"EndpointName": "other"}, {"DesiredInferenceUnits": 3}, {"ClientRequestToken": "u"}):
            assert await refused(server, "CreateEndpoint", **{**again, **other}) == "ResourceInUseException"
        assert len((await well(server, "ListEndpoints"))["EndpointPropertiesList"]) == 1
        await well(server, "DeleteEndpoint", EndpointArn=ENDPOINT)
        await server.idle()
        await well(server, "CreateEndpoint", **{**again, "DesiredInferenceUnits": 3})


async def test_requests_at_the_same_time_make_one_endpoint(serve: Serve) -> None:
    async with serve(keys=()) as server:
        await classifier(server)
        given = {**NEW, "ClientRequestToken": "t"}
        made = await asyncio.gather(*(well(server, "CreateEndpoint", **given) for _ in range(5)))
        assert all(one == made[0] for one in made)
        assert server.jobs.statistics().waiting + server.jobs.statistics().running <= 1


async def test_endpoints_and_units_are_limited(serve: Serve) -> None:
    async with serve(keys=(), works=False) as server:
        await classifier(server)
        await registered(server)  # the operator's does not count
        beyond = "ResourceLimitExceededException"
        assert (
            await refused(server, "CreateEndpoint", **{**NEW, "EndpointName": "x", "DesiredInferenceUnits": 51})
            == beyond
        )
        for number in range(4):
            await well(server, "CreateEndpoint", **{**NEW, "EndpointName": f"e{number}", "DesiredInferenceUnits": 49})
        assert (
            await refused(server, "CreateEndpoint", **{**NEW, "EndpointName": "x", "DesiredInferenceUnits": 5})
            == beyond
        )
        for number in range(4, 7):
            await well(server, "CreateEndpoint", **{**NEW, "EndpointName": f"e{number}", "DesiredInferenceUnits": 1})
        await worked(server)
        e0 = ENDPOINT.replace("kept", "e0")
        for units in (51, 50):
            assert await refused(server, "UpdateEndpoint", EndpointArn=e0, DesiredInferenceUnits=units + 1) == beyond
        await well(server, "UpdateEndpoint", EndpointArn=e0, DesiredInferenceUnits=50)
        await well(server, "UpdateEndpoint", EndpointArn=e0.replace("e0", "e1"), DesiredInferenceUnits=1)
        for number in range(7, 20):
            await well(server, "CreateEndpoint", **{**NEW, "EndpointName": f"e{number}", "DesiredInferenceUnits": 1})
        assert (
            await refused(server, "CreateEndpoint", **{**NEW, "EndpointName": "x", "DesiredInferenceUnits": 1})
            == beyond
        )


@pytest.mark.parametrize(
    ("given", "code"),
    [
        ({"EndpointName": "a_b"}, "ValidationException"),
        ({"EndpointName": "a" * 41}, "ValidationException"),
        ({"DesiredInferenceUnits": 0}, "ValidationException"),
        ({"ModelArn": None}, "InvalidRequestException"),
        ({"ModelArn": f"{CLASSIFIER}{'a' * 256}"}, "ValidationException"),
        ({"ModelArn": f"{CLASSIFIER}s"}, "ResourceNotFoundException"),
        ({"ModelArn": CLASSIFIER.replace("tickets", "untrained")}, "ResourceUnavailableException"),
        ({"DataAccessRoleArn": "arn:aws:iam::1:role/x"}, "ValidationException"),
        ({"ClientRequestToken": "a_b"}, "ValidationException"),
        ({"FlywheelArn": "arn:aws:comprehend:x:111122223333:flywheel/f"}, "InvalidRequestException"),
        ({"Tags": [{"Key": "a"}, {"Key": "a"}]}, "InvalidRequestException"),
        ({"Tags": [{"Value": "a"}]}, "ValidationException"),
        ({"Tags": [{"Key": "a", "Value": "a" * 257}]}, "ValidationException"),
    ],
)
async def test_what_no_endpoint_is_made_of(serve: Serve, given: dict[str, Any], code: str) -> None:
    async with serve(keys=(), works=False) as server:
        await classifier(server)
        await classifier(server, "untrained", status="IN_ERROR")
        assert await refused(server, "CreateEndpoint", **{**NEW, **given}) == code
        assert not (await well(server, "ListEndpoints"))["EndpointPropertiesList"]


async def test_one_filter_leaves_some_and_times_give_an_order(serve: Serve) -> None:
    async with serve(keys=(), works=False) as server:
        await classifier(server)
        begin = server.clock()
        for number in range(3):
            server.clock.now = begin + number
            await well(server, "CreateEndpoint", **{**NEW, "EndpointName": f"e{number}"})

        async def left(**wanted: Any) -> list[str]:
            shown = (await well(server, "ListEndpoints", Filter=wanted))["EndpointPropertiesList"]
            return [one["EndpointArn"].rpartition("/")[2] for one in shown]

        assert await left(CreationTimeBefore=begin + 2) == ["e0", "e1"]
        assert await left(CreationTimeAfter=begin) == ["e2", "e1"]
        assert await left(Status="CREATING") == await left(ModelArn=CLASSIFIER) == ["e0", "e1", "e2"]
        assert not await left(Status="IN_SERVICE")
        assert await left(ModelArn="arn:aws:comprehend:eu-west-1:999999999999:document-classifier/tickets")
        assert not await left(ModelArn=CLASSIFIER.replace("document-classifier", "entity-recognizer"))
        assert await refused(server, "ListEndpoints", Filter={"ModelArn": "tickets"}) == "ValidationException"
        two = {"Status": "CREATING", "ModelArn": CLASSIFIER}
        assert await refused(server, "ListEndpoints", Filter=two) == "InvalidRequestException"
        assert await refused(server, "ListEndpoints", Filter={"Status": "READY"}) == "ValidationException"


async def test_a_page_of_too_many_characters_has_an_error_and_no_classes(serve: Serve) -> None:
    async with serve(keys=()) as server:
        await registered(server)
        content = base64.b64encode(b"a" * 10_001).decode()
        answer = await well(server, "ClassifyDocument", EndpointArn=ENDPOINT, Bytes=content)
        assert answer["Errors"][0]["ErrorCode"] == "PAGE_CHARACTERS_EXCEEDED"
        assert answer["DocumentMetadata"]["ExtractedCharacters"] == [{"Page": 1, "Count": 10_001}]
        assert "Classes" not in answer
        content = base64.b64encode(b"a" * 10_000).decode()
        answer = await well(server, "ClassifyDocument", EndpointArn=ENDPOINT, Bytes=content)
        assert answer["Classes"]
        assert "Warnings" not in answer
        content = base64.b64encode(pdf([BILLING])).decode()
        answer = await well(server, "ClassifyDocument", EndpointArn=ENDPOINT, Bytes=content)
        code = "INFERENCING_NATIVE_DOCUMENT_WITH_PLAINTEXT_TRAINED_MODEL"
        assert answer["Warnings"][0]["WarnCode"] == code


@pytest.mark.parametrize(
    ("given", "code"),
    [
        ({}, "InvalidRequestException"),
        ({"Text": "x", "Bytes": "eA=="}, "InvalidRequestException"),
        ({"Text": ""}, "ValidationException"),
        ({"Text": "ä" * 5_001}, "TextSizeLimitExceededException"),
        ({"Bytes": "="}, "ValidationException"),
        ({"Text": "x", "DocumentReaderConfig": {"DocumentReadMode": "SERVICE_DEFAULT"}}, "ValidationException"),
        (
            {"Text": "x", "DocumentReaderConfig": {"DocumentReadAction": "TEXTRACT_ANALYZE_DOCUMENT"}},
            "InvalidRequestException",
        ),
        (
            {
                "Text": "x",
                "DocumentReaderConfig": {
                    "DocumentReadAction": "TEXTRACT_ANALYZE_DOCUMENT",
                    "FeatureTypes": ["TABLES", "FORMS", "FORMS"],
                },
            },
            "ValidationException",
        ),
    ],
)
async def test_what_is_no_document(serve: Serve, given: dict[str, Any], code: str) -> None:
    async with serve(keys=()) as server:
        await registered(server)
        assert await refused(server, "ClassifyDocument", EndpointArn=ENDPOINT, **given) == code


async def test_only_documents_may_be_sent_to_an_endpoint_of_amazon(serve: Serve) -> None:
    async with serve(keys=()) as server:
        arn = "arn:aws:comprehend:us-east-1:aws:document-classifier-endpoint/prompt-safety"
        assert await refused(server, "ClassifyDocument", EndpointArn=arn, Text="x") == "ResourceNotFoundException"
        assert await refused(server, "DescribeEndpoint", EndpointArn=arn) == "ValidationException"


async def test_a_deleted_endpoint_leaves_nothing_behind(serve: Serve) -> None:
    async with serve(keys=()) as server:
        await created(server, Tags=[{"Key": "a"}])
        await server.idle()
        await well(server, "DeleteEndpoint", EndpointArn=ENDPOINT)
        await server.idle()
        assert not server.store.resources("comprehend/endpoint")
        assert not server.store.resources("comprehend/tags")


async def test_a_new_endpoint_of_an_old_name_owes_nothing(serve: Serve) -> None:
    async with serve(keys=()) as server:
        await created(server, DesiredInferenceUnits=1)
        await server.idle()
        await well(server, "ClassifyDocument", EndpointArn=ENDPOINT, Text="a" * 9_000)
        assert await refused(server, "ClassifyDocument", **ASK) == "ThrottlingException"
        await well(server, "DeleteEndpoint", EndpointArn=ENDPOINT)
        await server.idle()
        await well(server, "CreateEndpoint", **{**NEW, "DesiredInferenceUnits": 1})
        await server.idle()
        await well(server, "ClassifyDocument", **ASK)
