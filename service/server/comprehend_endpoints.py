"""Amazon Comprehend, endpoints, and ClassifyDocument, which asks them.

An inference unit is 100 characters and 2 documents a second, and an endpoint throttles beyond those that it has, after
a second's worth of them at once. An endpoint that the operator has registered (`--comprehend-endpoint`) has those
that were given for it; with none it is never throttled.

An endpoint is CREATING until its model is in memory, then IN_SERVICE, or FAILED with a `Message` where the model cannot
be loaded; UPDATING until another model is in memory; and DELETING until its model is out of memory, unless another
endpoint has it, too. A change that the end of the server breaks off is done at the next start.

Behaviour chosen where the service's is not documented: while it is UPDATING an endpoint answers with the model and the
units that it has (`ModelArn`, `CurrentInferenceUnits`), otherwise it answers only IN_SERVICE, and is a
ResourceUnavailableException; an update that fails leaves it IN_SERVICE as it was, with a `Message`; what is CREATING or
UPDATING is in use for another update, FAILED or DELETING it is not available for one; it may be deleted whatever it is,
also again. Both forms of its ARN are taken, `document-classifier-endpoint/NAME` and `endpoint/NAME`. A text may have
10,000 bytes; a document in `Bytes` ten megabytes, one page and 10,000 characters (plain text, PDF and Word;
`DocumentReaderConfig` is checked, and nothing is read from images). The best three classes are told, or all labels that
apply. All models are of plain text, so a PDF or Word file comes with a warning.
"""

import asyncio
import base64
import binascii
from collections.abc import Callable, Mapping
from typing import Any

import orjson
import structlog

from service.documents import ClassScore
from service.errors import ModelError
from service.model.classifier import Classifier
from service.server import comprehend_tags, pages
from service.server.backend import Backend
from service.server.comprehend import Action, Call, Failure
from service.server.comprehend_account import Account, asked, made_before, token
from service.server.comprehend_classifiers import FORM, Classifiers
from service.server.comprehend_requests import (
    ACCOUNT,
    ENDPOINT_STATUSES,
    NAME,
    arn,
    filtered,
    in_time,
    invalid,
    named,
    needed,
    no_flywheel,
    number,
    page,
    reader,
    role,
    senseless,
    text,
)
from service.server.jobs import Done, Jobs, new_id
from service.server.pages import Unreadable
from service.server.store import Change, Job, State

KIND = "comprehend/service"
RESOURCE = "comprehend/endpoint"
ARN_KIND = "document-classifier-endpoint"
MOST_TEXT = 10_000
MOST_DOCUMENT = 10 * 2**20
MOST_CHARACTERS = 10_000  # of a page
_MOST_UNITS = 2**31 - 1
_CLASSES = 3
_CHARACTERS, _DOCUMENTS = 100.0, 2.0
_KINDS = {"text/plain": "PLAIN_TEXT", "application/pdf": "NATIVE_PDF"}
_ANSWERING = {"IN_SERVICE", "UPDATING"}

log = structlog.get_logger(__name__)


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

    def __init__(self, backend: Backend, jobs: Jobs, account: Account, classifiers: Classifiers) -> None:
        self._store = backend.store
        self._models = backend.models
        self._jobs = jobs
        self._account = account
        self._classifiers = classifiers
        self._buckets: dict[str, tuple[int, Bucket, Bucket]] = {}

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
        units = needed(number(given, "DesiredInferenceUnits", 1, _MOST_UNITS), "DesiredInferenceUnits")
        no_flywheel(given)
        if given.get("ModelArn") is None:
            raise senseless("ModelArn is missing.")
        tags, now = comprehend_tags.first(ARN_KIND, name, given), self._jobs.clock()
        async with self._account.turn:
            made = self._store.resources(RESOURCE)
            if (before := made_before(made.values(), given)) is not None:
                return {"EndpointArn": before["arn"], "ModelArn": before["model_arn"]}
            if name in made:
                raise Failure("ResourceInUseException", f"There is an endpoint {name!r} already.")
            kept = {
                "arn": arn(call.region, ARN_KIND, name),
                "status": "CREATING",
                **self._model(given, "ModelArn"),
                "units": units,
                "role": role(given),
                "desired": None,
                "created": now,
                "modified": now,
                "token": token(given),
                "asked": asked(given),
            }
            self._see_to_quotas(name, units)
            await self._begin(name, kept, *tags)
        return {"EndpointArn": kept["arn"], "ModelArn": kept["model_arn"]}

    async def describe(self, call: Call) -> Mapping[str, Any]:
        """Show an endpoint."""
        return {"EndpointProperties": _shown(self._known(call.given)[1])}

    async def update(self, call: Call) -> Mapping[str, Any]:
        """Give an endpoint other units, or another classifier."""
        given = call.given
        no_flywheel(given)
        units = number(given, "DesiredInferenceUnits", 1, _MOST_UNITS)
        wanted_role = role(given, "DesiredDataAccessRoleArn")
        async with self._account.turn:
            name, kept = self._known(given)
            if kept["status"] in {"CREATING", "UPDATING"}:
                raise Failure("ResourceInUseException", f"The endpoint is {kept['status']}; wait for the end of that.")
            if kept["status"] != "IN_SERVICE":
                raise Failure("ResourceUnavailableException", f"The endpoint is {kept['status']}.")
            desired = {key: kept[key] for key in ("model", "model_arn", "digest", "units", "role")}
            if given.get("DesiredModelArn") is not None:
                desired |= self._model(given, "DesiredModelArn")
            if units is not None:
                self._see_to_quotas(name, units)
                desired["units"] = units
            desired["role"] = wanted_role or kept["role"]
            changed = {**kept, "status": "UPDATING", "desired": desired, "modified": self._jobs.clock()}
            await self._begin(name, {key: value for key, value in changed.items() if key != "message"})
        return {"DesiredModelArn": desired["model_arn"]}

    async def list(self, call: Call) -> Mapping[str, Any]:
        """Show all endpoints that a filter leaves."""
        wanted = filtered(
            call.given, {"ModelArn": ".+", "Status": ENDPOINT_STATUSES}, "CreationTime", "InvalidRequestException"
        )
        model = named(wanted, "ModelArn", "document-classifier|model|entity-recognizer", FORM)
        shown = [
            _shown(kept) for kept in self._store.resources(RESOURCE).values() if model is None or _has(kept, *model)
        ]
        found = [one for one in in_time(shown, wanted, "CreationTime") if wanted.get("Status") in {None, one["Status"]}]
        part, after = page(call.given, found)
        return {"EndpointPropertiesList": part, **after}

    async def delete(self, call: Call) -> Mapping[str, Any]:
        """Take an endpoint out of service; what is being done to it comes to nothing."""
        async with self._account.turn:
            name, kept = self._known(call.given)
            if kept["status"] != "DELETING":
                await self._begin(name, {**kept, "status": "DELETING", "modified": self._jobs.clock()})
                self._buckets.pop(name, None)
        return {}

    async def classify(self, call: Call) -> Mapping[str, Any]:
        """Classify a document."""
        given = call.given
        self._known(given, "[0-9]{12}|aws")
        if (given.get("Text") is None) == (given.get("Bytes") is None):
            raise senseless("A document is to be given as Text or as Bytes.")
        reader(given)
        words, about = _text(given) if given.get("Bytes") is None else await asyncio.to_thread(_read, given["Bytes"])
        name, kept = self._known(given, "[0-9]{12}|aws")  # as it is now that the document has been read
        if kept["status"] not in _ANSWERING:
            raise Failure("ResourceUnavailableException", f"The endpoint is {kept['status']}, not IN_SERVICE.")
        if not self._has_room(name, kept["units"], len(words)):
            raise Failure("ThrottlingException", "Rate exceeded")
        if "Errors" in about:
            return about
        try:
            classifier, found = await asyncio.to_thread(self._classified, kept["digest"], words)
        except ModelError:
            raise Failure("ResourceUnavailableException", "The model behind the endpoint is gone or damaged.") from None
        single = classifier.task == "single_label"
        return {"Classes" if single else "Labels": _named(found[:_CLASSES] if single else found, about), **about}

    async def has(self, name: str) -> bool:
        """Whether there is an endpoint of that name."""
        return self._store.resource(RESOURCE, name) is not None

    def _classified(self, digest: str, words: str) -> tuple[Classifier, tuple[ClassScore, ...]]:
        classifier = self._models.get(digest)
        (found,) = classifier.classify([words])
        return classifier, found

    async def _begin(self, name: str, kept: Mapping[str, Any], *more: Change) -> None:
        """Bring an endpoint where its status says that it goes, instead of where it was going."""
        under_way = next((job for job in self._jobs.pending(KIND) if job.id == kept.get("job")), None)
        job_id = new_id()
        changes = [Change(RESOURCE, name, {**kept, "job": job_id}), *more]
        about = orjson.dumps({"name": name})
        await self._jobs.submit(KIND, about, b"{}", job_id=job_id, changes=changes, instead_of=under_way)

    def _see_to_quotas(self, name: str, units: int) -> None:
        quotas = self._account.quotas
        made = {each: one for each, one in self._store.resources(RESOURCE).items() if one["asked"] is not None}
        others = [_shown(one)["DesiredInferenceUnits"] for each, one in made.items() if each != name]
        if name not in self._store.resources(RESOURCE) and len(made) >= quotas.endpoints:
            raise Failure("ResourceLimitExceededException", f"There may be {quotas.endpoints} endpoints.")
        if units > quotas.units_per_endpoint:
            most = quotas.units_per_endpoint
            raise Failure("ResourceLimitExceededException", f"An endpoint may have {most} inference units.")
        if sum(others) + units > quotas.units:
            raise Failure("ResourceLimitExceededException", f"There may be {quotas.units} inference units in all.")

    def _has_room(self, name: str, units: int | None, characters: int) -> bool:
        if units is None:
            return True
        known, *buckets = self._buckets.get(name) or (0,)
        if known != units:
            buckets = [Bucket(_CHARACTERS * units), Bucket(_DOCUMENTS * units)]
            self._buckets[name] = units, buckets[0], buckets[1]
        now = self._jobs.clock()
        if not all(bucket.has_room(now) for bucket in buckets):
            return False
        for bucket, amount in zip(buckets, (characters, 1), strict=True):
            bucket.take(amount, now)
        return True

    def _model(self, given: Mapping[str, Any], parameter: str) -> dict[str, Any]:
        name, kept = self._classifiers.trained(given, parameter)
        return {"model": name, "model_arn": kept["arn"], "digest": kept["digest"]}

    def _known(self, given: Mapping[str, Any], account: str = "[0-9]{12}") -> tuple[str, Mapping[str, Any]]:
        _, name = needed(named(given, "EndpointArn", f"{ARN_KIND}|endpoint", NAME, account), "EndpointArn")
        kept = self._store.resource(RESOURCE, name)
        if kept is None:
            raise Failure("ResourceNotFoundException", f"There is no endpoint {name!r}.")
        return name, kept


async def register(backend: Backend, name: str, digest: str, now: float, units: int | None = None) -> None:
    """Put a model of the operator's into service, never to be throttled without units."""
    kept = {
        "arn": f"arn:aws:comprehend:us-east-1:{ACCOUNT}:{ARN_KIND}/{name}",
        "status": "IN_SERVICE",
        "model": name,
        "model_arn": f"arn:aws:comprehend:us-east-1:{ACCOUNT}:document-classifier/{name}",
        "digest": digest,
        "units": units,
        "role": None,
        "desired": None,
        "created": now,
        "modified": now,
        "token": None,
        "asked": None,
    }
    await backend.store.change(Change(RESOURCE, name, kept))


def bring(job: Job, backend: Backend, clock: Callable[[], float]) -> Done:
    """Bring an endpoint where its status says that it goes."""
    name = orjson.loads(job.about)["name"]
    kept = backend.store.resource(RESOURCE, name)
    if kept is None or kept.get("job") != job.id:  # another job brings it elsewhere, or has
        return Done(State.CANCELLED, None, {})
    if kept["status"] == "DELETING":
        _unload(name, kept["digest"], backend)
        return Done(State.SUCCEEDED, None, {}, [Change(RESOURCE, name, None), comprehend_tags.last(ARN_KIND, name)])
    arrived = {**kept, **(kept["desired"] or {}), "desired": None, "status": "IN_SERVICE", "modified": clock()}
    try:
        backend.models.get(arrived["digest"])
    except ModelError as error:
        log.warning("endpoint_failed", endpoint=name, reason=str(error))
        back = {"desired": None, "modified": arrived["modified"], "message": "The model is gone or damaged."}
        failed = {**kept, **back, "status": "FAILED" if kept["status"] == "CREATING" else "IN_SERVICE"}
        return Done(State.FAILED, None, {}, [Change(RESOURCE, name, failed)])
    if arrived["digest"] != kept["digest"]:
        _unload(name, kept["digest"], backend)
    return Done(State.SUCCEEDED, None, {}, [Change(RESOURCE, name, arrived)])


def _unload(name: str, digest: str, backend: Backend) -> None:
    """Free the memory of a model, unless another endpoint has it; who else asks for it loads it again."""
    if all(one["digest"] != digest for each, one in backend.store.resources(RESOURCE).items() if each != name):
        backend.models.unload(digest)


def _shown(kept: Mapping[str, Any]) -> dict[str, Any]:
    desired = kept["desired"] or kept
    shown = {
        "EndpointArn": kept["arn"],
        "Status": kept["status"],
        "Message": kept.get("message"),
        "ModelArn": kept["model_arn"],
        "DesiredModelArn": desired["model_arn"],
        "DesiredInferenceUnits": desired["units"] or 1,
        "CurrentInferenceUnits": None if kept["status"] in {"CREATING", "FAILED"} else kept["units"] or 1,
        "CreationTime": kept["created"],
        "LastModifiedTime": kept["modified"],
        "DataAccessRoleArn": kept["role"],
        "DesiredDataAccessRoleArn": desired["role"],
    }
    return {name: value for name, value in shown.items() if value is not None}


def _has(kept: Mapping[str, Any], kind: str, model: str) -> bool:
    return kept["model"] == model and kind != "entity-recognizer"


def _named(found: tuple[ClassScore, ...], about: Mapping[str, Any]) -> list[dict[str, Any]]:
    where = {"Page": 1} if about else {}
    return [{"Name": name, "Score": score, **where} for name, score, _ in found]


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
        media, texts = pages.read(content)
    except Unreadable as error:
        raise _bad(f"The document cannot be read: {error}.", "UNSUPPORTED_DOC_TYPE") from None
    if len(texts) > 1:
        raise _bad(f"The document has {len(texts)} pages, more than one.", "PAGE_LIMIT_EXCEEDED")
    kind = _KINDS.get(media, "MS_WORD")
    about: dict[str, Any] = {
        "DocumentMetadata": {"Pages": 1, "ExtractedCharacters": [{"Page": 1, "Count": len(texts[0])}]},
        "DocumentType": [{"Page": 1, "Type": kind}],
    }
    if kind != "PLAIN_TEXT":
        code, message = "INFERENCING_NATIVE_DOCUMENT_WITH_PLAINTEXT_TRAINED_MODEL", "The model is one of plain text."
        about["Warnings"] = [{"Page": 1, "WarnCode": code, "WarnMessage": message}]
    if len(texts[0]) > MOST_CHARACTERS:
        message = f"The page has more than {MOST_CHARACTERS:,} characters."
        about["Errors"] = [{"Page": 1, "ErrorCode": "PAGE_CHARACTERS_EXCEEDED", "ErrorMessage": message}]
    return texts[0], about


def _bad(message: str, detail: str) -> Failure:
    return Failure("InvalidRequestException", message, Reason="INVALID_DOCUMENT", Detail={"Reason": detail})
