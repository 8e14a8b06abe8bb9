"""The whole life of a classifier of Comprehend, on a server of ours with S3 by moto, and what may come between."""

import asyncio
import csv
import io
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import orjson
import pytest

from service import settings
from service.errors import Misconfigured, Unavailable
from service.lifecycle.comprehend import Classifiers, Deployment, Plan, endpoints
from service.limits.gate import Limits
from service.model.examples import Example, ExamplesError
from service.observability.telemetry import Telemetry
from service.transport import aws
from service.transport.aws import PacedAws
from tests.lifecycle.documents import classes
from tests.providers.aws import HTML, no, own, well
from tests.providers.conftest import Received, Replay, Reply
from tests.server.conftest import BILLING, CRASH, MULTI, SINGLE
from tests.server.test_sdk_comprehend import AWS_KEY, AWS_SECRET, BUCKET, ROLE, served

REGION = "arn:aws:comprehend:eu-west-1:111122223333"
CLASSIFIER_ARN = f"{REGION}:document-classifier/tickets"
ENDPOINT_ARN = f"{REGION}:document-classifier-endpoint/tickets"
ROWS = [Example(f"{row.id} {n}", row.text, row.labels) for row in SINGLE for n in range(3)]
SOON = {"retry-after": "0.01"}
PLAN = Plan("single_label", "en", ROLE, BUCKET, "training/")


def branch(url: str, s3_url: str, **more: Any) -> settings.ComprehendJobs:
    signed = {"endpoint_url": url, "access_key_id": AWS_KEY, "secret_access_key": AWS_SECRET, "task": "single_label"}
    jobs = {
        "provider": "comprehend_jobs",
        "storage_url": s3_url,
        "classifier_arn": CLASSIFIER_ARN,
        "data_access_role_arn": ROLE,
        "input_uri": f"s3://{BUCKET}/jobs/in",
        "output_uri": f"s3://{BUCKET}/jobs/out",
    }
    return settings.ComprehendJobs.model_validate({**signed, **jobs, **more})


def realtime(url: str, task: str = "single_label") -> settings.Comprehend:
    signed = {"endpoint_url": url, "access_key_id": AWS_KEY, "secret_access_key": AWS_SECRET, "task": task}
    return settings.Comprehend.model_validate({**signed, "provider": "comprehend", "endpoint_arn": ENDPOINT_ARN})


@asynccontextmanager
async def clients(url: str, s3_url: str, **more: Any) -> AsyncIterator[list[PacedAws]]:
    given = branch(url, s3_url, **more)
    telemetry = Telemetry().account("it", "comprehend")
    async with aws.opened([aws.COMPREHEND, aws.S3], given, Limits(given.limits), telemetry) as ready:
        yield ready


# A life on a server of ours ------------------------------------------------------------------------


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory, s3: tuple[str, Any]) -> Iterator[str]:
    with served(tmp_path_factory.mktemp("comprehend"), s3[0]) as url:
        yield url


async def test_a_classifier_is_trained_put_into_service_trained_again_and_deleted(
    url: str, s3: tuple[str, Any]
) -> None:
    said: list[str] = []
    async with clients(url, s3[0]) as (client, storage):
        classifiers, deployment = (
            Classifiers("tickets", client, storage, said.append),
            Deployment(ENDPOINT_ARN, client, said.append),
        )
        first = await classifiers.train(ROWS, PLAN)
        assert first.is_trained
        assert first.figures["NumberOfLabels"] == 3
        assert first.figures["EvaluationMetrics"]["MicroF1Score"] > 0.5
        assert said[-1] == f"{first}: TRAINED"
        again = await classifiers.train(ROWS[::-1], PLAN)
        assert again.arn == first.arn
        assert f"{first} is of the same rows: TRAINED" in said
        assert len(await classifiers.versions()) == 1
        endpoint = await deployment.deploy(first.arn, 9)
        assert (endpoint.status, endpoint.model, endpoint.units) == ("IN_SERVICE", first.arn, 9)
        assert await classes(realtime(url), [BILLING, CRASH]) == ["billing", "crash"]
        second = await classifiers.train([*ROWS, Example("new", "give me my money back", ("billing",))], PLAN)
        assert second.arn != first.arn
        assert (await classifiers.newest()).arn == second.arn
        endpoint = await deployment.deploy(second.arn, None)
        assert (endpoint.model, endpoint.units) == (second.arn, 9)
        assert (await deployment.deploy(second.arn, None)) == endpoint
        with pytest.raises(
            Misconfigured, match="still used by document-classifier-endpoint/tickets: delete that first"
        ):
            await classifiers.delete(second.arn)
        assert [each.arn for each in await classifiers.listed()] == [second.arn, first.arn]
        assert [each.model for each in await endpoints(client)] == [second.arn]
        await deployment.delete()
        for arn in (first.arn, second.arn):
            await classifiers.delete(arn)
        assert not await classifiers.listed()
        assert not await endpoints(client)
        with pytest.raises(Misconfigured, match="nothing to delete: document-classifier/tickets/version/"):
            await classifiers.delete(first.arn)
        with pytest.raises(Misconfigured, match="nothing to delete: document-classifier-endpoint/tickets"):
            await deployment.delete()
        with pytest.raises(Misconfigured, match=r"no version .* is trained .there is none of that name.: train it"):
            await classifiers.newest()


async def test_labels_that_apply_are_divided_by_what_is_in_none_of_them(url: str, s3: tuple[str, Any]) -> None:
    rows = [row._replace(labels=tuple(f"a|{label}" for label in row.labels)) for row in MULTI]
    said: list[str] = []
    async with clients(url, s3[0]) as (client, storage):
        classifiers = Classifiers("topics", client, storage, said.append)
        trained = await classifiers.train(rows, PLAN._replace(task="multi_label"))
        assert trained.figures["NumberOfLabels"] == 3
        assert said[0] == "4 rows have no label and are left out: Comprehend learns from none"
        deployment = Deployment(ENDPOINT_ARN, client, said.append)
        await deployment.deploy(trained.arn, 9)
        assert await classes(realtime(url, "multi_label"), [BILLING]) == ["a|billing"]
        await deployment.delete()
        await classifiers.delete(trained.arn)


async def test_a_training_that_fails_says_why_and_the_next_is_another(
    url: str, s3: tuple[str, Any], replay: Replay
) -> None:
    replay.otherwise = lambda _: Reply(200)  # takes the data to where the server does not look
    async with clients(url, replay.url) as (client, storage):
        with pytest.raises(Misconfigured, match=r"was not trained .IN_ERROR.: .*no such object"):
            await Classifiers("mended", client, storage, str).train(ROWS, PLAN)
    async with clients(url, s3[0]) as (client, storage):
        classifiers = Classifiers("mended", client, storage, str)
        assert (await classifiers.train(ROWS, PLAN)).version.endswith("-2")
        for each in await classifiers.versions():
            await classifiers.delete(each.arn)


async def test_a_training_is_stopped_to_be_deleted(url: str, s3: tuple[str, Any]) -> None:
    waiting = asyncio.Event()
    async with clients(url, s3[0]) as (client, storage):
        classifiers = Classifiers("stopped", client, storage, lambda _: waiting.set())
        training = asyncio.create_task(classifiers.train(ROWS * 40, PLAN))
        await waiting.wait()
        training.cancel()
        (begun,) = await classifiers.versions()
        await classifiers.delete(begun.arn)
        assert not await classifiers.versions()


async def test_who_may_not_ask_is_told_so(url: str, s3: tuple[str, Any]) -> None:
    async with clients(url, s3[0], secret_access_key="another") as (client, storage):
        with pytest.raises(Misconfigured, match="InvalidSignatureException: check access_key_id") as refused:
            await Classifiers("tickets", client, storage, str).train(ROWS, PLAN)
        assert "another" not in str(refused.value)
    async with clients(url, s3[0]) as (client, storage):
        with pytest.raises(Misconfigured, match="NoSuchBucket: check the folder"):
            await Classifiers("tickets", client, storage, str).train(ROWS, PLAN._replace(bucket="nobodys"))
        with pytest.raises(Misconfigured, match="ValidationException: check the ARNs, names and language"):
            await Classifiers("tickets", client, storage, str).train(ROWS, PLAN._replace(language="xx"))


# What may come between -----------------------------------------------------------------------------


class Service:
    """Answers each operation with what is left of its replies, the last one time and again."""

    def __init__(self, **replies: Reply | Sequence[Reply]) -> None:
        self.replies = {name: [given] if isinstance(given, Reply) else list(given) for name, given in replies.items()}
        self.asked: list[str] = []
        self.bodies: list[Any] = []

    def __call__(self, received: Received) -> Reply:
        operation = received.headers.get("x-amz-target", "S3.Put").rpartition(".")[2]
        self.asked.append(operation)
        self.bodies.append(orjson.loads(received.body) if operation != "Put" else received.body)
        replies = self.replies.get(operation, [Reply(200)])
        return replies.pop(0) if len(replies) > 1 else replies[0]


def shown(status: str, version: str = "v", **more: Any) -> dict[str, Any]:
    arn = f"{CLASSIFIER_ARN}/version/{version}"
    return {"DocumentClassifierArn": arn, "Status": status, "VersionName": version, "SubmitTime": 1.0, **more}


def described(status: str, **more: Any) -> Reply:
    return well(DocumentClassifierProperties=shown(status, **more))


NONE = well(DocumentClassifierPropertiesList=[])
CREATED = well(DocumentClassifierArn=f"{CLASSIFIER_ARN}/version/v")
THROTTLED = own(no("ThrottlingException"), SOON)
BUSY = own(no("InternalServerException", 500), SOON)


async def test_what_passes_is_waited_out_and_nothing_is_asked_for_twice(replay: Replay) -> None:
    service = replay.otherwise = Service(
        Put=[own(Reply(503), SOON), Reply(200)],
        ListDocumentClassifiers=[THROTTLED, NONE],
        CreateDocumentClassifier=[BUSY, own(no("TooManyRequestsException"), SOON), CREATED],
        DescribeDocumentClassifier=[
            described("SUBMITTED"),
            THROTTLED,
            own(HTML, SOON),
            described("TRAINING"),
            described("TRAINED"),
        ],
    )
    said: list[str] = []
    async with clients(replay.url, replay.url) as (client, storage):
        await Classifiers("tickets", client, storage, said.append).train(ROWS, PLAN)
    tokens = {
        body["ClientRequestToken"]
        for name, body in zip(service.asked, service.bodies, strict=True)
        if name == "CreateDocumentClassifier"
    }
    assert len(tokens) == 1
    assert [line.rpartition(" ")[2] for line in said if "asking again" not in line] == [
        "SUBMITTED",
        "TRAINING",
        "TRAINED",
    ]
    assert not any(AWS_SECRET in line or BILLING in line for line in said)


async def test_waiting_that_is_broken_off_goes_on_with_the_next_command(replay: Replay) -> None:
    waiting = asyncio.Event()
    service = replay.otherwise = Service(
        ListDocumentClassifiers=NONE, CreateDocumentClassifier=CREATED, DescribeDocumentClassifier=described("TRAINING")
    )
    async with clients(replay.url, replay.url) as (client, storage):
        classifiers = Classifiers(
            "tickets", client, storage, lambda line: waiting.set() if "TRAINING" in line else None
        )
        training = asyncio.create_task(classifiers.train(ROWS, PLAN))
        await waiting.wait()
        training.cancel()
        with pytest.raises(asyncio.CancelledError):
            await training
        version = service.bodies[service.asked.index("CreateDocumentClassifier")]["VersionName"]
        service.replies["ListDocumentClassifiers"] = [
            well(DocumentClassifierPropertiesList=[shown("TRAINING", version)])
        ]
        service.replies["DescribeDocumentClassifier"] = [described("TRAINED")]
        await classifiers.train(ROWS[::-1], PLAN)
    assert service.asked.count("CreateDocumentClassifier") == 1


MESSAGES = {
    "plain": ("NO_READ_ACCESS_TO_INPUT: The role cannot read the data.", "NO_READ_ACCESS_TO_INPUT: The role cannot"),
    "quoting": (f"Row 3 ('{BILLING}') has no label.", "what it says quotes a text, and is not repeated here"),
    "none": ("", "no reason given"),
}


@pytest.mark.parametrize("message", MESSAGES)
async def test_a_training_that_ends_badly_says_why_and_quotes_nobody(message: str, replay: Replay) -> None:
    given, told = MESSAGES[message]
    replay.otherwise = Service(
        ListDocumentClassifiers=NONE,
        CreateDocumentClassifier=CREATED,
        DescribeDocumentClassifier=described("IN_ERROR", Message=given),
    )
    async with clients(replay.url, replay.url) as (client, storage):
        with pytest.raises(Misconfigured) as failed:
            await Classifiers("tickets", client, storage, str).train(ROWS, PLAN)
    assert told in str(failed.value)
    assert BILLING not in str(failed.value)


def endpoint(
    status: str, model: str = "m", units: int = 1, wanted: tuple[str, int] | None = None, **more: Any
) -> Reply:
    wanted_model, wanted_units = wanted or (model, units)
    properties = {"ModelArn": f"{CLASSIFIER_ARN}/version/{model}", "CurrentInferenceUnits": units}
    desired = {"DesiredModelArn": f"{CLASSIFIER_ARN}/version/{wanted_model}", "DesiredInferenceUnits": wanted_units}
    return well(EndpointProperties={"EndpointArn": ENDPOINT_ARN, "Status": status, **properties, **desired, **more})


ABSENT = no("ResourceNotFoundException")


async def deployed(replay: Replay, model: str, units: int | None, **replies: Any) -> list[str]:
    service = replay.otherwise = Service(**replies)
    async with clients(replay.url, replay.url) as (client, _):
        found = await Deployment(ENDPOINT_ARN, client, str).deploy(f"{CLASSIFIER_ARN}/version/{model}", units)
    assert found.model == f"{CLASSIFIER_ARN}/version/{model}"
    return [name for name in service.asked if not name.startswith("Describe")]


async def test_an_endpoint_is_created_and_waited_for_whatever_comes_between(replay: Replay) -> None:
    asked = await deployed(
        replay, "m", 2,
        DescribeEndpoint=[
            ABSENT, ABSENT, endpoint("CREATING", units=2), THROTTLED, own(HTML, SOON), endpoint("IN_SERVICE", units=2),
        ],
        CreateEndpoint=[BUSY, well(EndpointArn=ENDPOINT_ARN)],
    )  # fmt: skip
    assert asked == ["CreateEndpoint"] * 2


async def test_an_endpoint_that_is_changing_is_waited_for_before_it_is_changed(replay: Replay) -> None:
    asked = await deployed(
        replay, "n", None,
        DescribeEndpoint=[
            endpoint("UPDATING"), endpoint("IN_SERVICE"), endpoint("UPDATING", wanted=("n", 1)),
            endpoint("IN_SERVICE", wanted=("n", 1)), endpoint("IN_SERVICE", "n"),
        ],
        UpdateEndpoint=well(),
    )  # fmt: skip
    assert asked == ["UpdateEndpoint"]


async def test_an_update_that_comes_to_nothing_says_so(replay: Replay) -> None:
    with pytest.raises(Misconfigured, match=r"was not changed .No capacity.. and answers as before"):
        await deployed(
            replay, "n", None, DescribeEndpoint=endpoint("IN_SERVICE", Message="No capacity."), UpdateEndpoint=well()
        )


async def test_an_endpoint_that_has_failed_says_why(replay: Replay) -> None:
    with pytest.raises(Misconfigured, match=r"is FAILED .No capacity.. *: delete it"):
        await deployed(replay, "m", 1, DescribeEndpoint=endpoint("FAILED", Message="No capacity."))


async def test_more_units_than_the_account_may_have(replay: Replay) -> None:
    refused = no("ResourceLimitExceededException")
    with pytest.raises(Misconfigured, match=r"ResourceLimitExceededException: .*ask for fewer units"):
        await deployed(replay, "m", 99, DescribeEndpoint=ABSENT, CreateEndpoint=refused)


async def test_lists_come_page_by_page(replay: Replay) -> None:
    pages = [well(DocumentClassifierPropertiesList=[shown("TRAINED")], NextToken="t"), NONE]
    service = replay.otherwise = Service(ListDocumentClassifiers=pages)
    async with clients(replay.url, replay.url) as (client, storage):
        assert len(await Classifiers("tickets", client, storage, str).listed()) == 1
    assert service.bodies[1]["NextToken"] == "t"


async def test_pages_without_an_end_are_an_outage(replay: Replay) -> None:
    replay.otherwise = Service(ListDocumentClassifiers=well(DocumentClassifierPropertiesList=[], NextToken="t"))
    async with clients(replay.url, replay.url) as (client, storage):
        with pytest.raises(Unavailable, match="pages without an end"):
            await Classifiers("tickets", client, storage, str).listed()


async def test_odd_units_are_none(replay: Replay) -> None:
    odd = endpoint("IN_SERVICE", CurrentInferenceUnits="many", DesiredInferenceUnits=[])
    replay.otherwise = Service(DescribeEndpoint=odd)
    async with clients(replay.url, replay.url) as (client, _):
        found = await Deployment(ENDPOINT_ARN, client, str).found()
    assert found is not None
    assert (found.units, found.wanted_units) == (0, 0)


# Rows as a table -----------------------------------------------------------------------------------

WRONG = {
    "one class": ([row for row in ROWS if row.labels == ("billing",)], "of one class, 'billing'; .* at least two"),
    "no class": ([Example("1", "text", ())], "of no class"),
    "several": ([*ROWS, Example("two", "text", ("billing", "crash"))], "row 'two' has several labels"),
    "many": ([Example(str(n), f"text {n}", (f"class {n}",)) for n in range(1_001)], "1,001 classes, and 1,000 are"),
    "broken": ([*ROWS, Example("odd", "text", ("two\nlines",))], r"label 'two\\nlines' holds a line break"),
}


@pytest.mark.parametrize("wrong", WRONG)
async def test_rows_that_are_not_learnt_from_are_refused_before_anything_is_sent(wrong: str, replay: Replay) -> None:
    rows, told = WRONG[wrong]
    async with clients(replay.url, replay.url) as (client, storage):
        with pytest.raises(ExamplesError, match=told):
            await Classifiers("tickets", client, storage, str).train(rows, PLAN)
    assert not replay.requests


async def test_texts_are_a_line_each_whatever_is_in_them(replay: Replay) -> None:
    odd = 'He said "no",\r\nand\u2028left \ud83d'
    service = replay.otherwise = Service(
        ListDocumentClassifiers=NONE, CreateDocumentClassifier=CREATED, DescribeDocumentClassifier=described("TRAINED")
    )
    async with clients(replay.url, replay.url) as (client, storage):
        await Classifiers("tickets", client, storage, str).train([*SINGLE, Example("odd", odd, ("billing",))], PLAN)
    table = list(csv.reader(io.StringIO(service.bodies[0].decode(), newline="")))
    assert len(table) == 13
    assert ["billing", 'He said "no", and left \ufffd'] in table
