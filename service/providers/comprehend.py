"""Amazon Comprehend custom classification in real time, by ClassifyDocument (2017-11-27) on an endpoint.

One call classifies one document, of at most 10,000 bytes in UTF-8: the service says KB of its limits, and its errors
count a KB as a thousand. The credentials have to allow `comprehend:ClassifyDocument`, and `comprehend:DescribeEndpoint`
for the look at the endpoint at start.

The API knows endpoints as `document-classifier-endpoint/NAME` only, while its guide also writes `endpoint/NAME`; the
first is sent for the second. A document without any class is refused where the model is to give one (MULTI_CLASS). So
is a document that has only `Errors` of its pages, unless they will pass.

An endpoint is billed by the time that it exists, whatever it is asked, so a document has no units.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from operator import attrgetter
from typing import Any, Protocol

from service import settings
from service.documents import Classified, ClassScore, Document, Outcome, Reason, Refused
from service.errors import CallFailed, Misconfigured, Unavailable
from service.transport.aws import Declined
from service.transport.failures import At, Rule, Then, first_that_fits

_MOST_BYTES = 10_000
_FIELDS = {"single_label": "Classes", "multi_label": "Labels"}
_CODE = re.compile("[A-Za-z_]{1,64}")
_ROLE = "check endpoint_arn and its role"
RULES = (
    Rule(Then.HOLD, "", (At.DOCUMENT,), (), ("INTERNAL_SERVER_ERROR", "TEXTRACT_PROVISIONED_THROUGHPUT_EXCEEDED")),
    Rule(Then.REFUSE, "", (At.DOCUMENT,)),
    Rule(
        Then.HOLD,
        "the endpoint does not serve just now",
        codes=("ResourceUnavailableException", "ResourceInUseException"),
    ),
    Rule(Then.STOP, "check endpoint_arn", codes=("ResourceNotFoundException", "ValidationException")),
    Rule(Then.STOP, _ROLE, codes=("TEXTRACT_ACCESS_DENIED",)),
    Rule(Then.STOP, _ROLE, (At.LOOK,), (), ("InvalidRequestException",)),
    Rule(
        Then.REFUSE,
        "longer than the endpoint takes",
        (At.REQUEST,),
        (),
        ("TextSizeLimitExceededException",),
    ),
    Rule(Then.REFUSE, "", (At.REQUEST,), (), ("InvalidRequestException",)),
    Rule(Then.SPLIT),
)
"""What is done about failures, after the rules of every AWS service."""


class Client(Protocol):
    """What is asked of a client of AWS; it raises Declined, Throttled, Unavailable and Misconfigured."""

    @property
    def host(self) -> str:
        """Who is asked."""
        ...

    async def call(self, operation: str, **parameters: Any) -> dict[str, Any]:
        """The answer to one request."""
        ...

    async def warm_up(self, operation: str, **parameters: Any) -> None:
        """Make one call whose outcome does not matter."""
        ...

    def malformed(self, what: str) -> Unavailable:
        """What it means that the service answered with this."""
        ...


class Comprehend:
    """A real-time endpoint of a custom classifier.

    `client` comes ready: credentials, timeouts, pool and pacing are its owner's.
    """

    documents_per_call = 1
    characters_per_call = characters_per_document = _MOST_BYTES
    bytes_per_call = bytes_per_document = _MOST_BYTES

    def __init__(self, settings: settings.Comprehend, client: Client) -> None:
        *account, name = re.split(":(?:document-classifier-)?endpoint/", settings.endpoint_arn)
        self.model = f"document-classifier-endpoint/{name}"
        self.task: str = settings.task
        self._arn = ":".join([*account, self.model])
        self._client = client

    def __repr__(self) -> str:
        return f"Comprehend({self._client.host!r}, {self.model!r}, {self.task!r})"

    async def classify(self, documents: Sequence[Document]) -> list[Outcome]:
        """The outcome of the document, for it is one. Raises Throttled, Unavailable, Rejected and Misconfigured."""
        return [await self._classified(document) for document in documents]

    async def probe(self) -> None:
        """Ask how the endpoint is, which costs nothing. Raises Misconfigured, Unavailable and Throttled."""
        try:
            answer = await self._client.call("describe_endpoint", EndpointArn=self._arn)
        except Declined as no:
            raise _failure(no, At.LOOK) from None
        endpoint = answer.get("EndpointProperties")
        if not endpoint:
            raise self._client.malformed("no endpoint")
        status = endpoint.get("Status")
        if status in ("FAILED", "DELETING"):
            raise Misconfigured(f"{self.model} is {status}: check endpoint_arn")
        if status == "CREATING":
            raise Unavailable(f"{self.model} is still being created")

    async def warm_up(self) -> None:
        """Make the client ready."""
        await self._client.warm_up("describe_endpoint", EndpointArn=self._arn)

    async def _classified(self, document: Document) -> Outcome:
        text = whole(document.text)
        size = len(text.encode())
        if size > _MOST_BYTES:
            return Refused(Reason.TOO_LONG, f"{size:,} bytes in UTF-8, and {_MOST_BYTES:,} are the most")
        try:
            answer = await self._client.call("classify_document", EndpointArn=self._arn, Text=text)
        except Declined as no:
            return _refused(no)
        return self._outcome(answer)

    def _outcome(self, answer: Mapping[str, Any]) -> Outcome:
        try:
            classes = classes_in(answer, self.task)
            codes = codes_of(answer.get("Errors"), "ErrorCode")
            warnings = tuple(codes_of(answer.get("Warnings"), "WarnCode"))
        except (AttributeError, KeyError, TypeError, ValueError):
            raise self._client.malformed("classes that are none") from None
        if classes is None and not codes:
            raise self._client.malformed("neither classes nor errors")
        if classes:
            return Classified(classes, warnings=warnings)
        if codes and (rule := first_that_fits(RULES, At.DOCUMENT, codes=codes)).then is not Then.REFUSE:
            raise rule.error(f"{self._client.host} could not read a document just now ({', '.join(codes)})")
        if codes or self.task == "single_label":
            return Refused(Reason.REFUSED_BY_CLASSIFIER, ", ".join(codes) or "it has no class")
        return Classified((), warnings=warnings)


def whole(text: str) -> str:
    """The text with halves of surrogate pairs (an emoji cut in two) replaced by U+FFFD, as no UTF-8 can hold them."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def classes_in(answer: Mapping[str, Any], task: str) -> tuple[ClassScore, ...] | None:
    """The classes of an answer, best first; None where it has none, not even an empty list.

    Raises Misconfigured where it answers for the other task; KeyError, TypeError or ValueError where classes are none.
    """
    found = answer.get(_FIELDS[task])
    if found is None:
        if any(answer.get(field) is not None for field in _FIELDS.values()):
            raise Misconfigured(f"the classifier was not trained for {task}: check task")
        return None
    scores = [_class_score(each["Name"], each["Score"]) for each in found]
    return tuple(sorted(scores, key=attrgetter("score"), reverse=True))


def codes_of(faults: Iterable[Mapping[str, Any]] | None, name: str) -> list[str]:
    """The codes of errors or warnings, each once; the words beside them could be a document's."""
    codes = [fault.get(name) for fault in faults or ()]
    return list(dict.fromkeys(code for code in codes if isinstance(code, str) and _CODE.fullmatch(code)))


def _class_score(name: object, score: object) -> ClassScore:
    if not (isinstance(name, str) and name and isinstance(score, float | int) and 0 <= score <= 1):
        raise ValueError(name)
    return ClassScore(name, float(score))


def _refused(no: Declined) -> Refused:
    """What it means that the endpoint refuses a document, where it is the document's fault."""
    rule = first_that_fits(RULES, At.REQUEST, codes=no.codes)
    if rule.then is not Then.REFUSE:
        raise _failure(no, At.REQUEST)
    if rule.says:
        return Refused(Reason.TOO_LONG, f"{rule.says} ({no.code})")
    return Refused(Reason.REFUSED_BY_CLASSIFIER, " in ".join([*reversed(no.reasons), no.code]))


def _failure(no: Declined, at: At) -> CallFailed:
    told = f"{no} ({', '.join(no.reasons)})" if no.reasons else str(no)
    return first_that_fits(RULES, at, codes=no.codes).error(told)
