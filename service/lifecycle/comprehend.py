"""The life of an Amazon Comprehend custom classifier (2017-11-27): a table on S3, versions, endpoints.

To train is to put the rows on S3 and to make a version of the classifier from them (CreateDocumentClassifier), which
takes an hour or so and is billed by the second. The version is named by what it is made from, and asked for under a
token made from the same, so the same rows are paid for once: a training that is under way is waited for, one that is
done is found. Where it has failed, the next is another version. To deploy is to see that the endpoint has the version
(CreateEndpoint, or UpdateEndpoint), however often that is asked.

Rows without a label are left out, as Comprehend learns from none; line breaks in texts are sent as spaces, as they are
when documents are classified by jobs. Of the service's words, those about a training or an endpoint that has failed are
repeated, unless they quote a row.

The credentials have to allow these operations, `comprehend:Describe…`, `…:List…` and `…:Delete…` of classifiers and
endpoints, `iam:PassRole` for the role, and `s3:PutObject` where training data is put.
"""

from collections.abc import Mapping, Sequence
from itertools import count
from typing import Any, NamedTuple

from service.errors import CallFailed, Misconfigured, Unavailable
from service.lifecycle import training_data
from service.lifecycle.waiting import Say, answered, changes, until
from service.model.examples import Example
from service.providers.comprehend import Client
from service.transport.aws import Declined

CHARACTERS_A_UNIT, DOCUMENTS_A_UNIT = 100, 2  # a second
_TRAINED = {"TRAINED", "TRAINED_WITH_WARNING"}
_UNDER_WAY = {"SUBMITTED", "TRAINING"}
_MODES = {"single_label": "MULTI_CLASS", "multi_label": "MULTI_LABEL"}
ENDPOINT = "document-classifier-endpoint"
_PAGE = 100
_REFUSALS: Mapping[str, tuple[type[CallFailed], str]] = {
    "InvalidRequestException": (Misconfigured, "check the names, and that the bucket is in the region of the ARN"),
    "KmsKeyValidationException": (Misconfigured, "check that the role may use the bucket's key"),
    "ResourceInUseException": (Unavailable, "it is being changed, or a name is taken"),
    "ResourceLimitExceededException": (
        Misconfigured,
        "the AWS account has as many as it may: delete one, ask for fewer units, or have its quota raised",
    ),
    "ResourceUnavailableException": (Unavailable, "it cannot be changed just now"),
    "UnsupportedLanguageException": (Misconfigured, "check language"),
    "ValidationException": (Misconfigured, "check the ARNs, names and language"),
    "NoSuchBucket": (Misconfigured, "check the folder that training data is put in"),
    "InvalidBucketName": (Misconfigured, "check the folder that training data is put in"),
}


class Plan(NamedTuple):
    """What a classifier is made with."""

    task: str
    language: str
    role: str
    bucket: str
    prefix: str
    """What the keys of training data begin with: empty, or with a slash at the end."""


class Classifier(NamedTuple):
    """A version of a classifier, as the service shows it."""

    arn: str
    status: str
    version: str
    submitted: float
    message: str
    figures: Mapping[str, Any]
    """`ClassifierMetadata`: what it is worth on the documents that the service has set aside."""

    @property
    def is_trained(self) -> bool:
        """Whether it can be put into service."""
        return self.status in _TRAINED

    def __str__(self) -> str:
        return self.arn.rpartition(":")[2]


class Endpoint(NamedTuple):
    """An endpoint, as the service shows it."""

    arn: str
    status: str
    model: str
    wanted_model: str
    units: int
    wanted_units: int
    message: str

    def __str__(self) -> str:
        return self.arn.rpartition(":")[2]


class Classifiers:
    """The versions of one classifier."""

    def __init__(self, name: str, client: Client, s3: Client, say: Say) -> None:
        self._name = name
        self._client = client
        self._s3 = s3
        self._say = say

    async def train(self, rows: Sequence[Example], plan: Plan) -> Classifier:
        """The trained version of these rows, made or found. Raises ExamplesError and Misconfigured."""
        table = training_data.table(rows, plan.task)
        if table.left_out:
            self._say(f"{table.left_out:,} rows have no label and are left out: Comprehend learns from none")
        version = training_data.digest(table.content, plan.task, plan.language)[:16]
        key = f"{plan.prefix}{self._name}-{version}.csv"
        put = {"Bucket": plan.bucket, "Key": key, "Body": table.content, "ContentType": "text/csv; charset=utf-8"}
        await answered(lambda: _called(self._s3, "put_object", **put), self._say)
        data = {"S3Uri": f"s3://{plan.bucket}/{key}", "DataFormat": "COMPREHEND_CSV"}
        if plan.task == "multi_label":
            data["LabelDelimiter"] = table.delimiter
        arn = await answered(lambda: self._found_or_made(version, plan, data), self._say)
        say = changes(self._say)
        ended = await until(lambda: self._ended(arn, say), self._say)
        if not ended.is_trained:
            message = training_data.unquoted(ended.message, (row.text for row in rows)) or "no reason given"
            raise Misconfigured(f"{ended} was not trained ({ended.status}): {message}")
        return ended

    async def listed(self, **wanted: str) -> list[Classifier]:
        """All classifiers and versions of the AWS account in the region, the newest first."""
        asked = {"Filter": wanted} if wanted else {}
        found = await _pages(self._client, "list_document_classifiers", "DocumentClassifierPropertiesList", asked)
        return sorted((_classifier(each) for each in found), key=lambda each: each.submitted, reverse=True)

    async def versions(self) -> list[Classifier]:
        """The versions of this classifier, the newest first."""
        return await self.listed(DocumentClassifierName=self._name)

    async def newest(self) -> Classifier:
        """The trained version that was made last. Raises Misconfigured where there is none."""
        versions = await answered(self.versions, self._say)
        trained = next((each for each in versions if each.is_trained), None)
        if trained is None:
            there = ", ".join(f"{each} is {each.status}" for each in versions[:3]) or "there is none of that name"
            raise Misconfigured(f"no version of the classifier {self._name} is trained ({there}): train it")
        return trained

    async def chosen(self, version: str | None) -> Classifier:
        """The version of that name, or the newest that is trained. Raises Misconfigured."""
        if version is None:
            return await self.newest()
        found = await self.named(version)
        if not found.is_trained:
            raise Misconfigured(f"{found} is {found.status}: train it, or choose another version")
        return found

    async def named(self, version: str) -> Classifier:
        """The version of that name, empty for one that has none. Raises Misconfigured where there is none."""
        versions = await answered(self.versions, self._say)
        found = next((each for each in versions if each.version == version), None)
        if found is None:
            there = ", ".join(each.version for each in versions[:10]) or "none"
            raise Misconfigured(f"the classifier {self._name} has no version {version!r}; it has {there}")
        return found

    async def delete(self, arn: str) -> None:
        """Delete a version, its training stopped if need be, and wait until it is gone.

        Raises Misconfigured, also where an endpoint uses it.
        """
        classifier = await answered(lambda: self._found(arn), self._say)
        if classifier is None:
            raise Misconfigured(f"there is nothing to delete: {arn.rpartition(':')[2]} is not there")
        if classifier.status in _UNDER_WAY:
            stop = {"DocumentClassifierArn": arn}
            await answered(lambda: _called(self._client, "stop_training_document_classifier", **stop), self._say)
            say = changes(self._say)
            await until(lambda: self._ended(arn, say), self._say)
        await answered(lambda: self._deleted(arn), self._say)
        await until(lambda: self._gone(arn), self._say)

    async def _found_or_made(self, version: str, plan: Plan, data: Mapping[str, str]) -> str:
        """The ARN of the version that is made from this data; one that came to nothing is followed by another."""
        known = {each.version: each for each in await self.versions()}
        names = (version if attempt == 1 else f"{version}-{attempt}" for attempt in count(1))
        name = next(name for name in names if name not in known or known[name].status in _UNDER_WAY | _TRAINED)
        if name in known:
            self._say(f"{known[name]} is of the same rows: {known[name].status}")
            return known[name].arn
        answer = await _called(
            self._client,
            "create_document_classifier",
            DocumentClassifierName=self._name,
            VersionName=name,
            ClientRequestToken=training_data.digest(name, *plan),
            DataAccessRoleArn=plan.role,
            LanguageCode=plan.language,
            Mode=_MODES[plan.task],
            InputDataConfig=data,
        )
        arn = answer.get("DocumentClassifierArn")
        if not isinstance(arn, str):
            raise self._client.malformed("no classifier")
        return arn

    async def _ended(self, arn: str, say: Say) -> Classifier | None:
        classifier = await self._found(arn)
        if classifier is None:
            raise Misconfigured(f"{arn.rpartition(':')[2]} was deleted while it was being trained")
        say(f"{classifier}: {classifier.status}")
        return None if classifier.status in _UNDER_WAY | {"STOP_REQUESTED"} else classifier

    async def _found(self, arn: str) -> Classifier | None:
        try:
            answer = await self._client.call("describe_document_classifier", DocumentClassifierArn=arn)
        except Declined as no:
            if no.code == "ResourceNotFoundException":
                return None
            raise _failure(no) from None
        if not answer.get("DocumentClassifierProperties"):
            raise self._client.malformed("no classifier")
        return _classifier(answer["DocumentClassifierProperties"])

    async def _deleted(self, arn: str) -> None:
        try:
            await self._client.call("delete_document_classifier", DocumentClassifierArn=arn)
        except Declined as no:
            if no.code == "ResourceNotFoundException":
                return  # a deletion whose answer was lost
            if no.code != "ResourceInUseException":
                raise _failure(no) from None
        else:
            return
        using = [str(each) for each in await endpoints(self._client, ModelArn=arn)]
        named = ", ".join(using) or "an endpoint or a job"
        raise Misconfigured(f"{arn.rpartition(':')[2]} is still used by {named}: delete that first")

    async def _gone(self, arn: str) -> bool | None:
        return True if await self._found(arn) is None else None


class Deployment:
    """One endpoint, whether it is there or not."""

    def __init__(self, arn: str, client: Client, say: Say) -> None:
        self._arn = arn
        self._name = arn.rpartition("/")[2]
        self._client = client
        self._say = say

    async def deploy(self, model: str, units: int | None) -> Endpoint:
        """See that the endpoint is in service with this model, and these units; without any, with those it has.

        Raises Misconfigured.
        """
        say, is_asked = changes(self._say), False

        async def look() -> Endpoint | None:
            nonlocal is_asked
            endpoint = await self.found()
            if endpoint is None:
                await self._create(model, units or 1)
                return None
            say(f"{endpoint}: {endpoint.status}")
            if endpoint.status == "FAILED":
                raise Misconfigured(f"{endpoint} is FAILED ({endpoint.message or 'no reason given'}): delete it")
            if endpoint.status != "IN_SERVICE":
                return None
            wanted = (model, units or endpoint.wanted_units)
            if (endpoint.model, endpoint.units) == wanted:
                return endpoint
            if (endpoint.wanted_model, endpoint.wanted_units) != wanted:
                if is_asked:
                    reason = endpoint.message or "no reason given"
                    raise Misconfigured(f"{endpoint} was not changed ({reason}) and answers as before")
                await self._update(*wanted)
                is_asked = True
            return None

        return await until(look, self._say)

    async def found(self) -> Endpoint | None:
        """How it is; None where there is none."""
        try:
            answer = await self._client.call("describe_endpoint", EndpointArn=self._arn)
        except Declined as no:
            if no.code == "ResourceNotFoundException":
                return None
            raise _failure(no) from None
        if not answer.get("EndpointProperties"):
            raise self._client.malformed("no endpoint")
        return _endpoint(answer["EndpointProperties"])

    async def delete(self) -> None:
        """Delete it and wait until it is gone. Raises Misconfigured where it is not there."""
        if await answered(self.found, self._say) is None:
            raise Misconfigured(f"there is nothing to delete: {ENDPOINT}/{self._name} is not there")
        await answered(self._deleted, self._say)
        await until(self._gone, self._say)

    async def _create(self, model: str, units: int) -> None:
        await _called(
            self._client,
            "create_endpoint",
            EndpointName=self._name,
            ModelArn=model,
            DesiredInferenceUnits=units,
            ClientRequestToken=training_data.digest(self._arn, model, str(units)),
        )

    async def _update(self, model: str, units: int) -> None:
        await _called(
            self._client,
            "update_endpoint",
            EndpointArn=self._arn,
            DesiredModelArn=model,
            DesiredInferenceUnits=units,
        )

    async def _deleted(self) -> None:
        try:
            await self._client.call("delete_endpoint", EndpointArn=self._arn)
        except Declined as no:
            if no.code != "ResourceNotFoundException":
                raise _failure(no) from None

    async def _gone(self) -> bool | None:
        return True if await self.found() is None else None


async def endpoints(client: Client, **wanted: str) -> list[Endpoint]:
    """The endpoints of the AWS account in the region."""
    asked = {"Filter": wanted} if wanted else {}
    return [_endpoint(each) for each in await _pages(client, "list_endpoints", "EndpointPropertiesList", asked)]


async def _pages(client: Client, operation: str, member: str, asked: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    found: list[Mapping[str, Any]] = []
    seen: set[str] = set()
    after: dict[str, str] = {}
    while True:
        answer = await _called(client, operation, MaxResults=_PAGE, **asked, **after)
        listed = answer.get(member)
        if not isinstance(listed, list):
            raise client.malformed("no list")
        found += listed
        token = answer.get("NextToken")
        if not token:
            return found
        if token in seen:
            raise client.malformed("pages without an end")
        seen.add(token)
        after = {"NextToken": token}


async def _called(client: Client, operation: str, **parameters: Any) -> dict[str, Any]:
    try:
        return await client.call(operation, **parameters)
    except Declined as no:
        raise _failure(no) from None


def _failure(no: Declined) -> CallFailed:
    kind, words = _REFUSALS.get(no.code, (Misconfigured, "the service refuses it"))
    return kind(f"{no}: {words}")


def _classifier(shown: Mapping[str, Any]) -> Classifier:
    submitted = shown.get("SubmitTime")
    return Classifier(
        str(shown.get("DocumentClassifierArn", "")),
        str(shown.get("Status", "")),
        str(shown.get("VersionName", "")),
        submitted.timestamp() if submitted is not None else 0.0,
        str(shown.get("Message", "")),
        shown.get("ClassifierMetadata") or {},
    )


def _endpoint(shown: Mapping[str, Any]) -> Endpoint:
    model, units = str(shown.get("ModelArn", "")), _number(shown.get("CurrentInferenceUnits"))
    return Endpoint(
        str(shown.get("EndpointArn", "")),
        str(shown.get("Status", "")),
        model,
        str(shown.get("DesiredModelArn") or model),
        units,
        _number(shown.get("DesiredInferenceUnits")) or units,
        str(shown.get("Message", "")),
    )


def _number(told: object) -> int:
    return told if isinstance(told, int) else 0
