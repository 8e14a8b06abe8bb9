"""Azure Language custom text classification, by its runtime jobs API: `{endpoint}/language/analyze-text/jobs`.

The two kinds of task, their parameters and results are the same in api-versions 2022-05-01, 2023-04-01 and later; where
the vendor's documentation and the service differ (`classes` and `class`), both are read.

What the service says in words is kept only where the key, the quota or the route is refused, before a document is
looked at. Everywhere else it could quote a document, so only its codes are kept, which are explained in words of ours.
"""

import math
import re
import socket
import ssl
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from email.utils import parsedate_to_datetime
from operator import attrgetter
from typing import Any, Protocol

import httpx
import orjson

from service import settings
from service.documents import Classified, ClassScore, Document, Outcome, Reason, Refused
from service.errors import CallFailed, JobLost, Misconfigured, Rejected, Throttled, Unavailable

_PATH = "/language/analyze-text/jobs"
_KINDS = {"single_label": "CustomSingleLabelClassification", "multi_label": "CustomMultiLabelClassification"}
_DONE = {"succeeded", "completed", "partiallycompleted", "partiallysucceeded"}
_ENDED_BADLY = {"failed", "rejected", "cancelled", "canceled"}
_PAGES = 26  # 25 documents, at least one a page, and a last page that is empty
_RECORD = 1000  # characters of one text record, the unit of the bill
_CODE = re.compile("[A-Za-z]{1,64}")
_LONGEST_MESSAGE = 200
_LONGEST_URL = 8_000

_CONTENT = {  # codes that find fault with the documents, and what they mean
    "InvalidRequest": "",
    "InvalidArgument": "",
    "InvalidDocument": "a document is empty, too long, or not text",
    "InvalidDocumentBatch": "a document is empty, or there are too many of them",
    "UnsupportedLanguageCode": "the language of a document is not supported",
    "MissingInputDocuments": "no document was found in the request",
    "EmptyRequest": "no document was found in the request",
}
_SETTINGS = {  # codes that find fault with the rest of the request, and the settings it is made of
    "ProjectNotFound": "project",
    "DeploymentNotFound": "deployment",
    "ModelVersionIncorrect": "deployment",
    "InvalidParameterValue": "project, deployment, task and api_version",
    "InvalidRequestBodyFormat": "api_version",
}
_PASSING = {"InternalServerError", "ServiceUnavailable", "Timeout", "TooManyRequests", "QuotaExceeded"}
_FAULTS = {  # kinds of failure, the narrower first
    ssl.SSLCertVerificationError: "its certificate is not to be trusted ({0})",
    ssl.SSLError: "TLS could not be agreed on ({0})",
    socket.gaierror: "its name cannot be resolved ({0})",
    TimeoutError: "it took too long",
    ConnectionRefusedError: "it refuses connections",
    ConnectionError: "it broke the connection off",
    OSError: "it cannot be reached ({0})",
    EOFError: "it broke its answer off",
}


class Answer(Protocol):
    """What came back: its status, headers and the whole body."""

    @property
    def status_code(self) -> int:
        """The HTTP status."""
        ...

    @property
    def is_success(self) -> bool:
        """Whether the status is one of the 200s."""
        ...

    @property
    def headers(self) -> Mapping[str, str]:
        """The headers, by names in any case."""
        ...

    @property
    def content(self) -> bytes:
        """The body."""
        ...


class Exchange(Protocol):
    """What is asked of an HTTP client: one request, whole and plain, with no redirect followed.

    Raises httpx.RequestError and httpx.InvalidURL.
    """

    @property
    def headers(self) -> httpx.Headers:
        """What goes out with every request."""
        ...

    async def exchange(self, method: str, url: str, headers: Mapping[str, str], content: bytes | None = None) -> Answer:
        """The answer, whatever its status, read to the end."""
        ...


class AzureLanguage:
    """A deployed project of an Azure Language resource, asked through jobs.

    `http` comes ready: timeouts, TLS, pool and pacing are its owner's. The key goes out with each request and to the
    scheme, host and port of `endpoint` only.
    """

    documents_per_call = 25
    characters_per_call = 125_000
    characters_per_document = 125_000

    def __init__(self, settings: settings.AzureLanguage, http: Exchange) -> None:
        try:
            endpoint = httpx.URL(settings.endpoint)
        except httpx.InvalidURL as error:
            raise Misconfigured(f"endpoint {settings.endpoint!r} is not a URL: {error}") from None
        self.model = f"{settings.project}/{settings.deployment}"
        self.task: str = settings.task
        self._http = http
        self._host = endpoint.netloc.decode("ascii")
        self._origin = f"{endpoint.scheme}://{self._host}/"
        self._path = endpoint.path.rstrip("/") + _PATH
        self._version = {"api-version": settings.api_version}
        self._jobs = endpoint.copy_with(path=self._path, params=self._version)
        self._submit_url = str(self._jobs)
        # Without loggingOptOut the service keeps the texts for 48 hours, to look into troubles of its own.
        parameters = {"projectName": settings.project, "deploymentName": settings.deployment, "loggingOptOut": True}
        self._tasks = [{"kind": _KINDS[settings.task], "parameters": parameters}]
        self._key = settings.secret.get_secret_value()
        headers = {**http.headers, "Ocp-Apim-Subscription-Key": self._key}
        self._headers = {"GET": headers, "POST": {**headers, "Content-Type": "application/json"}}

    def __repr__(self) -> str:
        return f"AzureLanguage({self._host!r}, {self.model!r}, {self.task!r})"

    async def submit(self, documents: Sequence[Document]) -> str:
        """Hand 1 to 25 documents in; gives the URL to ask after them.

        Documents go out under numbers of ours, so their own ids may repeat. Raises Throttled, Unavailable, Rejected
        and Misconfigured.
        """
        response = await self._exchange("POST", self._submit_url, _body(documents, self._tasks))
        if response.status_code == 404:
            raise Misconfigured(
                f"{self._told(response)}: check project, deployment (the names are case-sensitive) and endpoint"
            )
        if not response.is_success:
            raise self._failure(response, Rejected)
        location = response.headers.get("operation-location")
        if location is None:
            raise self._malformed("a job was submitted and no operation-location came back")
        return self._ours(location)

    async def poll(self, job: str, documents: Sequence[Document]) -> list[Outcome] | None:
        """The outcomes of the documents submitted as `job`, in their order; None while there are none.

        Raises JobLost when none will come (also for a job of another endpoint), Rejected when the job failed for what
        is in its documents, and Throttled, Unavailable and Misconfigured.
        """
        if not job.startswith(self._origin):
            raise JobLost(f"a job was submitted to another endpoint than {self._host}, which is not sent this key")
        page = await self._page(job)
        status = _word(page.get("status"))
        if not status:
            raise self._malformed("a job without a status")
        if status in _ENDED_BADLY:
            raise self._ended(page)
        if status not in _DONE:
            return None
        asked = {str(number): document for number, document in enumerate(documents)}
        answers = self._read(page, asked)
        if not answers:
            raise self._ended(page)
        followed = {job}
        while len(answers) < len(asked) and page.get("nextLink"):
            link = self._ours(page["nextLink"])
            if link in followed or len(followed) == _PAGES:
                raise self._malformed("pages of results without an end")
            followed.add(link)
            page = await self._page(link)
            answers |= self._read(page, asked)
        for number, document in asked.items():
            if number not in answers:
                raise JobLost(f"{self._host}: a finished job left {document.record.position} without an answer")
        return [answers[number] for number in asked]

    async def cancel(self, job: str) -> None:
        """Ask that the job be given up; one that has ended already is left as it is. Raises as `poll` does."""
        if not job.startswith(self._origin):
            raise JobLost(f"a job was submitted to another endpoint than {self._host}, which is not sent this key")
        path, mark, query = job.partition("?")
        response = await self._exchange("POST", f"{path}:cancel{mark}{query}")
        ended = {400, 409}  # the documentation does not say which of the two a finished job gives
        if not (response.is_success or response.status_code in ended):
            raise self._lost_or_failed(response)

    async def probe(self) -> None:
        """Ask after a job that cannot exist, which costs nothing: not found means reached and let in.

        Raises Misconfigured, Unavailable and Throttled.
        """
        nowhere = str(self._jobs.copy_with(path=f"{self._path}/{uuid.uuid4()}", params=self._version))
        response = await self._exchange("GET", nowhere)
        html = "html" in response.headers.get("content-type", "")
        if response.status_code == 404 and not html:
            return
        if response.status_code == 404 or response.is_success:
            raise Misconfigured(f"{self._told(response)}: this is not an Azure Language resource, check endpoint")
        raise self._failure(response, lambda told: Misconfigured(f"{told}: check api_version"))

    async def _page(self, url: str) -> dict[str, Any]:
        response = await self._exchange("GET", url)
        if not response.is_success:
            raise self._lost_or_failed(response)
        page = _json(response)
        if not isinstance(page, dict):
            raise self._malformed("a job that is not a JSON object")
        return page

    async def _exchange(self, method: str, url: str, content: bytes | None = None) -> Answer:
        """The endpoint's response, whatever its status; `url` is known to be the endpoint's own."""
        try:
            return await self._http.exchange(method, url, self._headers[method], content)
        except httpx.InvalidURL:
            raise self._malformed("a job's URL that is none") from None
        except httpx.RequestError as error:
            raise Unavailable(f"{self._host} did not answer: {_kind(error)}") from None

    def _ours(self, url: object) -> str:
        """A URL the service gave, in full; refused unless it is at the endpoint itself, for it will be sent the key."""
        if not isinstance(url, str):
            raise self._malformed("a URL that is not text")
        if url.startswith(self._origin) and url.isprintable() and len(url) <= _LONGEST_URL:
            return url
        try:
            absolute = str(self._jobs.join(url))
        except httpx.InvalidURL:
            raise self._malformed("a URL that is none") from None
        if not absolute.startswith(self._origin):
            raise Misconfigured(
                f"endpoint {self._host} gives URLs at another scheme, host or port, where the key is not sent: "
                "set endpoint to the address the service calls itself by"
            )
        return absolute

    def _read(self, page: dict[str, Any], asked: dict[str, Document]) -> dict[str, Outcome]:
        """The outcomes on one page of results, by the number of the document."""
        try:
            outcomes = list(_outcomes(page, asked))
        except (KeyError, TypeError, ValueError, AttributeError):
            raise self._malformed("results that do not fit what was asked") from None
        answers = dict(outcomes)
        if len(answers) < len(outcomes):
            raise self._malformed("two results for one document")
        return answers

    def _ended(self, page: dict[str, Any]) -> CallFailed:
        """What it means that a job ended without results, by the codes it gives."""
        errors = list(_errors(page))
        codes = [code for error in errors for code in _codes(error)]
        told = f"{self._host}: a job ended as {_word(page['status'])} without results ({_spelt(codes)})"
        if wrong := _wrong_settings(codes):
            return Misconfigured(f"{told}: check {wrong}")
        if _PASSING.isdisjoint(codes) and not _CONTENT.keys().isdisjoint(codes):
            return Rejected(told)
        return JobLost(told)

    def _lost_or_failed(self, response: Answer) -> CallFailed:
        if response.status_code in (404, 410):
            return JobLost(f"{self._host} does not know a job any more ({response.status_code})")
        return self._failure(response, JobLost)

    def _failure(  # noqa: PLR0911  one return for each consequence
        self, response: Answer, refused: Callable[[str], CallFailed]
    ) -> CallFailed:
        """What a response without success means; `refused` is for a request that is refused for its content."""
        status, told = response.status_code, self._told(response)
        codes = _codes(_error(response))
        retry_after = _retry_after(response.headers)
        if status == 429 or (status == 403 and _is_quota(response, codes)):
            return Throttled(told, retry_after)
        if status == 401:
            return Misconfigured(f"{told}: check key, and that it belongs to endpoint")
        if status == 403:
            return Misconfigured(f"{told}: check key and endpoint, and whom the resource's network rules let in")
        if wrong := _wrong_settings(codes):
            return Misconfigured(f"{told}: check {wrong}")
        if status in (408, 409, 425) or status >= 500:
            return Unavailable(told, retry_after)
        if status < 400:
            return Unavailable(f"{told}, which is not followed: endpoint must be the service's own address")
        if status == 413 or (status in (400, 422) and isinstance(_json(response), dict)):
            return refused(told)
        if status in (400, 422):
            return Unavailable(f"{told}, and not in the service's words: is something else at endpoint?", retry_after)
        # Routes, methods, proxies: no document brings these about, so none must be blamed.
        return Misconfigured(f"{told}: check endpoint and api_version")

    def _malformed(self, what: str) -> Unavailable:
        return Unavailable(f"{self._host} answered with {what}")

    def _told(self, response: Answer) -> str:
        """The response in short, with the service's own words only where they cannot be about a document."""
        error = _error(response)
        told = f"{self._host} answered {response.status_code}"
        if codes := _codes(error):
            told += f" {_spelt(codes)}"
        message = error.get("message")
        if response.status_code in (401, 403, 404, 429) and isinstance(message, str):
            words = " ".join(message.replace(self._key, "…").split())
            told += f" ({words[:_LONGEST_MESSAGE]})"
        return told


def _body(documents: Sequence[Document], tasks: list[dict[str, Any]]) -> bytes:
    try:
        return orjson.dumps({"analysisInput": {"documents": _numbered(documents)}, "tasks": tasks})
    except TypeError:
        mended = [
            document._replace(text=_mended(document.text), language=document.language and _mended(document.language))
            for document in documents
        ]
        return orjson.dumps({"analysisInput": {"documents": _numbered(mended)}, "tasks": tasks})


def _numbered(documents: Sequence[Document]) -> list[dict[str, str]]:
    return [
        {"id": str(number), "text": document.text, "language": document.language}
        if document.language
        else {"id": str(number), "text": document.text}
        for number, document in enumerate(documents)
    ]


def _mended(text: str) -> str:
    """The text with halves of surrogate pairs (an emoji cut in two) replaced by U+FFFD, as no UTF-8 can hold them."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _outcomes(page: dict[str, Any], asked: dict[str, Document]) -> Iterator[tuple[str, Outcome]]:
    # A job of ours has a single task, so every item is its own, whatever the documentation calls the kind.
    for item in page["tasks"].get("items") or ():
        results = item.get("results") or {"documents": ()}
        for answer in results["documents"]:
            number = answer["id"]
            yield number, _classified(answer, asked[number].text)
        for failed in results.get("errors") or ():
            number = failed["id"]
            yield number, _refused(failed["error"], asked[number])


def _classified(answer: dict[str, Any], text: str) -> Classified:
    classes: Any = answer.get("class")
    if classes is None:
        classes = answer.get("classes", answer.get("classifications", answer.get("classification")))
    if isinstance(classes, dict):
        classes = [classes]
    scores = [_class_score(found) for found in classes]
    if len(scores) > 1:
        scores.sort(key=attrgetter("score"), reverse=True)
    warnings = answer.get("warnings")
    return Classified(
        tuple(scores),
        _units(answer.get("statistics"), text),
        tuple(code for warning in warnings for code in _codes(warning)) if warnings else (),
    )


def _units(statistics: dict[str, Any] | None, text: str) -> int:
    counted = statistics.get("transactionsCount") if statistics else None
    return counted if isinstance(counted, int) else max(1, math.ceil(len(text) / _RECORD))


def _refused(error: dict[str, Any], document: Document) -> Refused:
    codes = _codes(error)
    if wrong := _wrong_settings(codes):
        raise Misconfigured(f"{document.record.position} was refused, {_spelt(codes)}: check {wrong}")
    if not _PASSING.isdisjoint(codes):
        raise JobLost(f"a finished job failed on {document.record.position}, {_spelt(codes)}")
    return Refused(Reason.REFUSED_BY_CLASSIFIER, _spelt(codes))


def _class_score(found: dict[str, Any]) -> ClassScore:
    name, score = found["category"], found["confidenceScore"]
    if not (isinstance(name, str) and name and type(score) in (float, int) and 0 <= score <= 1):
        raise ValueError(name)
    return ClassScore(name, float(score))


def _json(response: Answer) -> object:
    try:
        return orjson.loads(response.content)
    except orjson.JSONDecodeError:
        return None


def _error(response: Answer) -> dict[str, Any]:
    """The error object of a response, also where a gateway leaves its envelope out; empty if there is none."""
    body = _json(response)
    if not isinstance(body, dict):
        return {}
    error = body.get("error")
    return error if isinstance(error, dict) else body


def _errors(page: dict[str, Any]) -> Iterator[object]:
    """The errors of a job and of its tasks."""
    yield from _list(page.get("errors"))
    tasks = page.get("tasks")
    for item in _list(tasks.get("items") if isinstance(tasks, dict) else None):
        if isinstance(item, dict):
            yield from (*_list(item.get("errors")), item.get("error"))


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []


def _codes(error: object) -> list[str]:
    """The codes of an error and of those inside it, outermost first; the numbers of the gateway are left out."""
    codes = []
    while isinstance(error, dict):
        code = error.get("code")
        if isinstance(code, str) and _CODE.fullmatch(code):
            codes.append(code)
        error = error.get("innererror") or error.get("innerError")
    return codes


def _spelt(codes: Iterable[str]) -> str:
    """Codes as a person reads them, innermost first, as that one says most."""
    inwards = list(dict.fromkeys(codes))[:5] or ["no code given"]
    meaning = next((_CONTENT[code] for code in reversed(inwards) if _CONTENT.get(code)), "")
    return " in ".join(reversed(inwards)) + (f": {meaning}" if meaning else "")


def _wrong_settings(codes: Iterable[str]) -> str:
    return next((_SETTINGS[code] for code in codes if code in _SETTINGS), "")


def _word(status: object) -> str:
    return status.casefold() if isinstance(status, str) else ""


def _is_quota(response: Answer, codes: list[str]) -> bool:
    return "QuotaExceeded" in codes or b"out of call volume quota" in response.content.lower()


def _retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds to wait, given in milliseconds, in seconds or as an HTTP date; None where nothing sensible is given."""
    for name, unit in (("retry-after-ms", 0.001), ("x-ms-retry-after-ms", 0.001), ("retry-after", 1.0)):
        try:
            wait = float(headers[name]) * unit
        except (KeyError, ValueError):
            continue
        return wait if 0 <= wait < math.inf else None
    until = _moment(headers.get("retry-after"))
    if until is None:
        return None
    sent = _moment(headers.get("date"))  # the service's clock, as ours may differ
    return max(0.0, until - (time.time() if sent is None else sent))


def _moment(date: str | None) -> float | None:
    try:
        return None if date is None else parsedate_to_datetime(date).timestamp()
    except (ValueError, OverflowError):
        return None


def _kind(error: BaseException) -> str:
    """The kind of failure, by its root: the transport's own names call every connection error a timeout."""
    causes = [error]
    while cause := causes[-1].__cause__ or causes[-1].__context__:
        causes.append(cause)
    for cause in reversed(causes):
        for kind, words in _FAULTS.items():
            if isinstance(cause, kind):
                return words.format(cause)
    return f"what came back cannot be read ({type(error).__name__})"
