"""Amazon Comprehend, endpoints, and ClassifyDocument, which asks them.

An inference unit is 100 characters and 2 documents a second, and an endpoint throttles beyond those that it has, after
a second's worth of them at once. An endpoint that the operator has registered (`--comprehend-endpoint`) has those
that were given for it; with none it is never throttled.

Behaviour chosen where the service's is not documented: an endpoint is in service as soon as it is created or updated;
both forms of its ARN are taken, `document-classifier-endpoint/NAME` and `endpoint/NAME`; a text may have 10,000 bytes,
and a document in `Bytes` ten megabytes and one page (plain text, PDF and Word; `DocumentReaderConfig` is checked, and
nothing is read from images). The best three classes are told, or all labels that apply.
"""

import asyncio
import base64
import binascii
from collections.abc import Mapping
from typing import Any

from service.documents import ClassScore
from service.model.classifier import ModelError
from service.server import pages
from service.server.backend import Backend
from service.server.comprehend import (
    ACCOUNT,
    Action,
    Call,
    Failure,
    arn,
    branch,
    invalid,
    named,
    needed,
    number,
    page,
    period,
    text,
)
from service.server.comprehend_classifiers import NAME, ROLE, Classifiers
from service.server.jobs import Jobs
from service.server.pages import Unreadable
from service.server.store import Change

RESOURCE = "comprehend/endpoint"
MOST_TEXT = 10_000
MOST_DOCUMENT = 10 * 2**20
MOST_UNITS = 200
_CLASSES = 3
_CHARACTERS, _DOCUMENTS = 100.0, 2.0
_KINDS = {"text/plain": "PLAIN_TEXT", "application/pdf": "NATIVE_PDF"}


class Bucket:
    """Something that runs full at `per_second` and may hold a second's worth; what it is asked for is taken at once.

    The generic cell rate algorithm (ITU-T I.371), with a tolerance of one second.
    """

    def __init__(self, per_second: float) -> None:
        self._per_second = per_second
        self._paid_off_at = 0.0

    def has_room(self, now: float) -> bool:
        """Whether anything may be taken."""
        return self._paid_off_at - now < 1.0

    def take(self, amount: float, now: float) -> None:
        """Take an amount, however large: what comes after waits for it."""
        self._paid_off_at = max(self._paid_off_at, now) + amount / self._per_second


class Endpoints:
    """The operations on endpoints."""

    def __init__(self, backend: Backend, jobs: Jobs, classifiers: Classifiers) -> None:
        self._store = backend.store
        self._models = backend.models
        self._jobs = jobs
        self._classifiers = classifiers
        self._buckets: dict[tuple[str, int], tuple[Bucket, Bucket]] = {}

    def actions(self) -> dict[str, Action]:
        """What this room does, by operation."""
        return {
            "CreateEndpoint": Action("manage", self.create),
            "DescribeEndpoint": Action("manage", self.describe),
            "UpdateEndpoint": Action("manage", self.update),
            "ListEndpoints": Action("manage", self.list),
            "DeleteEndpoint": Action("manage", self.delete),
            "ClassifyDocument": Action("classify", self.classify),
        }

    async def create(self, call: Call) -> Mapping[str, Any]:
        """Put a classifier into service."""
        given = call.given
        name = needed(text(given, "EndpointName", NAME, 40), "EndpointName")
        units = needed(number(given, "DesiredInferenceUnits", 1, MOST_UNITS), "DesiredInferenceUnits")
        token = text(given, "ClientRequestToken", "[a-zA-Z0-9-]+", 64)
        model, digest, model_arn = self._trained(given, "ModelArn")
        where, known = arn(call.region, "document-classifier-endpoint", name), self._store.resource(RESOURCE, name)
        if known is not None and not (token is not None and known["token"] == token):
            raise Failure("ResourceInUseException", f"There is an endpoint {name!r} already.")
        if known is None:
            now = self._jobs.clock()
            kept = {
                "arn": where,
                "model": model,
                "model_arn": model_arn,
                "digest": digest,
                "units": units,
                "created": now,
                "modified": now,
                "token": token,
                "role": text(given, "DataAccessRoleArn", ROLE),
            }
            await self._store.change(Change(RESOURCE, name, kept))
        return {"EndpointArn": where, "ModelArn": model_arn}

    async def describe(self, call: Call) -> Mapping[str, Any]:
        """Show an endpoint."""
        return {"EndpointProperties": _shown(self._known(call.given)[1])}

    async def update(self, call: Call) -> Mapping[str, Any]:
        """Give an endpoint other units, or another classifier."""
        given = call.given
        name, kept = self._known(given)
        changed = {**kept, "modified": self._jobs.clock()}
        if (units := number(given, "DesiredInferenceUnits", 1, MOST_UNITS)) is not None:
            changed["units"] = units
        if given.get("DesiredModelArn") is not None:
            changed["model"], changed["digest"], changed["model_arn"] = self._trained(given, "DesiredModelArn")
        if given.get("DesiredDataAccessRoleArn") is not None:
            changed["role"] = text(given, "DesiredDataAccessRoleArn", ROLE)
        await self._store.change(Change(RESOURCE, name, changed))
        return {"DesiredModelArn": changed["model_arn"]}

    async def list(self, call: Call) -> Mapping[str, Any]:
        """Show all endpoints that a filter leaves."""
        wanted = branch(call.given, "Filter")
        model, status = text(wanted, "ModelArn"), text(wanted, "Status")
        earliest, latest = period(wanted, "CreationTime")
        found = [
            one
            for one in map(_shown, self._store.resources(RESOURCE).values())
            if model in {None, one["ModelArn"]}
            and status in {None, one["Status"]}
            and earliest < one["CreationTime"] < latest
        ]
        part, after = page(call.given, found)
        return {"EndpointPropertiesList": part, **after}

    async def delete(self, call: Call) -> Mapping[str, Any]:
        """Take an endpoint out of service."""
        name, _ = self._known(call.given)
        await self._store.change(Change(RESOURCE, name, None))
        return {}

    async def classify(self, call: Call) -> Mapping[str, Any]:
        """Classify a document."""
        given = call.given
        name, kept = self._known(given)
        if (given.get("Text") is None) == (given.get("Bytes") is None):
            raise invalid("A document is to be given as Text or as Bytes.")
        _reader(branch(given, "DocumentReaderConfig"))
        words, about = _text(given) if given.get("Bytes") is None else await asyncio.to_thread(_read, given["Bytes"])
        if not self._has_room(name, kept["units"], len(words)):
            raise Failure("ThrottlingException", "Rate exceeded")
        try:
            classifier = self._models.get(kept["digest"])
        except ModelError:
            raise Failure("ResourceUnavailableException", "The model behind the endpoint is gone or damaged.") from None
        (found,) = await asyncio.to_thread(classifier.classify, [words])
        single = classifier.task == "single_label"
        return {"Classes" if single else "Labels": _named(found[:_CLASSES] if single else found, about), **about}

    def _has_room(self, name: str, units: int | None, characters: int) -> bool:
        if units is None:
            return True
        buckets = self._buckets.get((name, units))
        if buckets is None:
            buckets = self._buckets[name, units] = Bucket(_CHARACTERS * units), Bucket(_DOCUMENTS * units)
        now = self._jobs.clock()
        if not all(bucket.has_room(now) for bucket in buckets):
            return False
        for bucket, amount in zip(buckets, (characters, 1), strict=True):
            bucket.take(amount, now)
        return True

    def _trained(self, given: Mapping[str, Any], parameter: str) -> tuple[str, str, str]:
        name, kept = self._classifiers.known(given, parameter)
        if not kept["status"].startswith("TRAINED"):
            raise Failure("ResourceUnavailableException", f"The classifier is {kept['status']}, not TRAINED.")
        return name, kept["digest"], kept["arn"]

    def _known(self, given: Mapping[str, Any]) -> tuple[str, Mapping[str, Any]]:
        kinds = "document-classifier-endpoint|endpoint"
        name = needed(named(given, "EndpointArn", kinds, NAME), "EndpointArn")
        kept = self._store.resource(RESOURCE, name)
        if kept is None:
            raise Failure("ResourceNotFoundException", f"There is no endpoint {name!r}.")
        return name, kept


async def register(backend: Backend, name: str, digest: str, now: float, units: int | None = None) -> None:
    """Put a model of the operator's into service, never to be throttled without units."""
    model_arn = f"arn:aws:comprehend:us-east-1:{ACCOUNT}:document-classifier/{name}"
    kept = {
        "arn": f"arn:aws:comprehend:us-east-1:{ACCOUNT}:document-classifier-endpoint/{name}",
        "model": name,
        "model_arn": model_arn,
        "digest": digest,
        "units": units,
        "created": now,
        "modified": now,
        "token": None,
        "role": None,
    }
    await backend.store.change(Change(RESOURCE, name, kept))


def _shown(kept: Mapping[str, Any]) -> dict[str, Any]:
    units = kept["units"] or 1
    shown = {
        "EndpointArn": kept["arn"],
        "Status": "IN_SERVICE",
        "ModelArn": kept["model_arn"],
        "DesiredModelArn": kept["model_arn"],
        "DesiredInferenceUnits": units,
        "CurrentInferenceUnits": units,
        "CreationTime": kept["created"],
        "LastModifiedTime": kept["modified"],
    }
    return shown | ({"DataAccessRoleArn": kept["role"]} if kept["role"] else {})


def _named(found: tuple[ClassScore, ...], about: Mapping[str, Any]) -> list[dict[str, Any]]:
    where = {"Page": 1} if about else {}
    return [{"Name": name, "Score": score, **where} for name, score, _ in found]


def _reader(config: Mapping[str, Any]) -> None:
    if config:
        actions = "TEXTRACT_DETECT_DOCUMENT_TEXT|TEXTRACT_ANALYZE_DOCUMENT"
        needed(text(config, "DocumentReadAction", actions), "DocumentReaderConfig.DocumentReadAction")
        text(config, "DocumentReadMode", "SERVICE_DEFAULT|FORCE_DOCUMENT_READ_ACTION")


def _text(given: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    words = needed(text(given, "Text", most=2**24), "Text")
    if (size := len(words.encode())) > MOST_TEXT:
        allowed = f"Max length of request text allowed is {MOST_TEXT} bytes"
        said = f"Input text size exceeds limit. {allowed} while in this request the text size is {size} bytes"
        raise Failure("TextSizeLimitExceededException", said)
    return words, {}


def _read(given: object) -> tuple[str, dict[str, Any]]:
    """The text of a document in base64, and what is told about it."""
    try:
        content = base64.b64decode(given, validate=True) if isinstance(given, str) else b""
    except (binascii.Error, ValueError):
        raise invalid("Bytes is not base64.") from None
    if not content:
        raise invalid("Bytes is empty.")
    if len(content) > MOST_DOCUMENT:
        raise _bad(f"The document has more than {MOST_DOCUMENT:,} bytes.", "DOCUMENT_SIZE_EXCEEDED")
    try:
        kind, texts = pages.read(content)
    except Unreadable as error:
        raise _bad(f"The document cannot be read: {error}.", "UNSUPPORTED_DOC_TYPE") from None
    if len(texts) > 1:
        raise _bad(f"The document has {len(texts)} pages, more than one.", "PAGE_LIMIT_EXCEEDED")
    counted = {"Pages": 1, "ExtractedCharacters": [{"Page": 1, "Count": len(texts[0])}]}
    return texts[0], {"DocumentMetadata": counted, "DocumentType": [{"Page": 1, "Type": _KINDS.get(kind, "MS_WORD")}]}


def _bad(message: str, detail: str) -> Failure:
    return Failure("InvalidRequestException", message, Reason="INVALID_DOCUMENT", Detail={"Reason": detail})
