"""Whatever is sent to Comprehend, it answers, never with 500, and keeps what it has."""

import asyncio
import json
from collections.abc import Iterator
from contextlib import AsyncExitStack
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from service.server import comprehend_endpoints
from tests.server.conftest import Serve
from tests.server.test_fuzz import Asking, headers, json_values

FAST = settings(max_examples=1000, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
ARN = "arn:aws:comprehend:us-east-1:000000000000"
ENDPOINT, CLASSIFIER = f"{ARN}:document-classifier-endpoint/kept", f"{ARN}:document-classifier/kept"
PAGE = {"MaxResults": 2, "NextToken": "MA=="}
READER = {
    "DocumentReadAction": "TEXTRACT_ANALYZE_DOCUMENT",
    "DocumentReadMode": "SERVICE_DEFAULT",
    "FeatureTypes": ["TABLES"],
}
TAGS = [{"Key": "k", "Value": "v"}]
VPC = {"SecurityGroupIds": ["sg-1"], "Subnets": ["subnet-1"]}
KMS = "alias/key"
ROLE = "arn:aws:iam::111122223333:role/data"
BODIES: dict[str, Any] = {
    "ClassifyDocument": {"EndpointArn": ENDPOINT, "Text": "x", "DocumentReaderConfig": READER},
    "CreateEndpoint": {"EndpointName": "e", "ModelArn": CLASSIFIER, "DesiredInferenceUnits": 1, "Tags": TAGS},
    "DescribeEndpoint": {"EndpointArn": ENDPOINT},
    "UpdateEndpoint": {"EndpointArn": f"{ENDPOINT}-not", "DesiredModelArn": CLASSIFIER, "DesiredInferenceUnits": 1},
    "ListEndpoints": {"Filter": {"Status": "IN_SERVICE"}, **PAGE},
    "DeleteEndpoint": {"EndpointArn": f"{ENDPOINT}-not"},
    "CreateDocumentClassifier": {
        "DocumentClassifierName": "c",
        "VersionName": "v",
        "DataAccessRoleArn": ROLE,
        "LanguageCode": "en",
        "Mode": "MULTI_LABEL",
        "InputDataConfig": {
            "DataFormat": "AUGMENTED_MANIFEST",
            "AugmentedManifests": [{"S3Uri": "s3://nowhere/a", "AttributeNames": ["job"], "Split": "TRAIN"}],
            "LabelDelimiter": "|",
        },
        "OutputDataConfig": {"S3Uri": "s3://nowhere/out", "KmsKeyId": KMS},
        "ClientRequestToken": "token",
        "ModelKmsKeyId": KMS,
        "VpcConfig": VPC,
        "Tags": TAGS,
    },
    "DescribeDocumentClassifier": {"DocumentClassifierArn": CLASSIFIER},
    "ListDocumentClassifiers": {"Filter": {"SubmitTimeAfter": 0}, **PAGE},
    "ListDocumentClassifierSummaries": PAGE,
    "StopTrainingDocumentClassifier": {"DocumentClassifierArn": CLASSIFIER},
    "DeleteDocumentClassifier": {"DocumentClassifierArn": CLASSIFIER},
    "StartDocumentClassificationJob": {
        "DocumentClassifierArn": CLASSIFIER,
        "DataAccessRoleArn": ROLE,
        "InputDataConfig": {"S3Uri": "s3://nowhere/a", "InputFormat": "ONE_DOC_PER_LINE"},
        "OutputDataConfig": {"S3Uri": "s3://nowhere/out"},
        "JobName": "j",
        "ClientRequestToken": "token",
    },
    "TagResource": {"ResourceArn": ENDPOINT, "Tags": TAGS},
    "UntagResource": {"ResourceArn": ENDPOINT, "TagKeys": ["k"]},
    "ListTagsForResource": {"ResourceArn": ENDPOINT},
    "DescribeDocumentClassificationJob": {"JobId": "0" * 32},
    "ListDocumentClassificationJobs": {"Filter": {"JobName": "j"}, **PAGE},
}


def target(operation: str) -> list[tuple[bytes, bytes]]:
    return [(b"x-amz-target", f"Comprehend_20171127.{operation}".encode())]


@pytest.fixture
def asking(serve: Serve) -> Iterator[Asking]:
    """A server with an endpoint, which still answers at the end; nothing is trained and no job is done."""
    with asyncio.Runner() as runner:
        stack = AsyncExitStack()
        server = runner.run(stack.enter_async_context(serve(keys=(), works=False)))
        digest = server.store.projects["tickets"].deployments["production"]
        runner.run(comprehend_endpoints.register(server.backend, "kept", digest, server.clock()))
        asking = Asking(runner, server)
        try:
            yield asking
            content = json.dumps({"EndpointArn": ENDPOINT, "Text": "x"}).encode()
            assert asking.ask("POST", "/", b"", content, target("ClassifyDocument")) == 200
        finally:
            runner.run(stack.aclose())


@FAST
@given(
    method=st.sampled_from(["GET", "POST", "PUT", "DELETE", "HEAD", ""]),
    operation=st.sampled_from(sorted(BODIES)) | st.text(st.characters(max_codepoint=126), max_size=20),
    query=st.binary(max_size=20),
    body=st.binary(max_size=50),
    more=headers,
)
def test_any_request_is_answered(  # noqa: PLR0917  hypothesis gives them by name
    asking: Asking, method: str, operation: str, query: bytes, body: bytes, more: list[tuple[bytes, bytes]]
) -> None:
    assert asking.ask(method, "/", query, body, [*more, *target(operation)]) < 500


@st.composite
def nearly_bodies(draw: st.DrawFn) -> tuple[str, Any]:
    """An operation with its good body, of which something somewhere has been replaced or taken out."""
    operation = draw(st.sampled_from(sorted(BODIES)))
    body: Any = json.loads(json.dumps(BODIES[operation]))
    for _ in range(draw(st.integers(1, 3))):
        part, step = body, draw(st.sampled_from(sorted(body)))
        while isinstance(part[step], dict | list) and part[step] and draw(st.booleans()):
            part = part[step]
            step = draw(st.integers(0, len(part) - 1) if isinstance(part, list) else st.sampled_from(sorted(part)))
        if draw(st.booleans()) or len(part) == 1:
            part[step] = draw(json_values)
        else:
            del part[step]
        if not body:
            break
    return operation, body


@FAST
@given(given=nearly_bodies())
def test_any_json_is_accepted_or_refused(asking: Asking, given: tuple[str, Any]) -> None:
    operation, body = given
    content = json.dumps(body).encode()  # as lenient as JSON can be: NaN, halves of surrogate pairs
    assert asking.ask("POST", "/", b"", content, target(operation)) in {200, 400}


@FAST
@given(operation=st.sampled_from(sorted(BODIES)), body=json_values)
def test_other_json_is_refused(asking: Asking, operation: str, body: Any) -> None:
    content = json.dumps(body).encode()
    assert asking.ask("POST", "/", b"", content, target(operation)) in {200, 400}  # lists take an empty object


@pytest.mark.parametrize("value", [[], {}, 1])
@pytest.mark.parametrize(
    ("operation", "name"),
    [
        ("ListEndpoints", "Status"),
        ("ListEndpoints", "ModelArn"),
        ("ListDocumentClassifiers", "Status"),
        ("ListDocumentClassifiers", "DocumentClassifierName"),
        ("ListDocumentClassificationJobs", "JobName"),
        ("ListDocumentClassificationJobs", "JobStatus"),
    ],
)
def test_a_filter_of_the_wrong_type_is_refused(asking: Asking, operation: str, name: str, value: Any) -> None:
    content = json.dumps({"Filter": {name: value}}).encode()
    assert asking.ask("POST", "/", b"", content, target(operation)) == 400
