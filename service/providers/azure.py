"""What the clients of Azure's APIs share: a resource at an endpoint, its key, and what its refusals mean.

What a service says in words is kept only where the key, the quota or the route is refused, before a document is looked
at. Everywhere else it could quote a document, so only its codes are kept, which are explained in words of ours.
"""

import re
import socket
import ssl
from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import Any, Protocol

import httpx
import orjson

from service import settings
from service.errors import CallFailed, JobLost, Misconfigured, Unavailable
from service.transport.failures import NO_CODE, NOT_JSON, At, Rule, Then, first_that_fits
from service.transport.retry_after import retry_after

DONE: AbstractSet[str] = frozenset({"succeeded", "completed", "partiallycompleted", "partiallysucceeded"})
"""How services say that there are answers, in lower case. What is neither here nor in `ENDED_BADLY` is pending."""
ENDED_BADLY: AbstractSet[str] = frozenset({"failed", "rejected", "cancelled", "canceled"})
PASSING = ("InternalServerError", "ServiceUnavailable", "Timeout", "TooManyRequests", "QuotaExceeded")
"""Codes that blame nobody."""
REFUSED = (400, 413, 422)
"""Statuses of requests that are refused for what is in them."""
_CODE = re.compile("[A-Za-z]{1,64}")
_LONGEST_MESSAGE = 200
_LONGEST_URL = 8_000
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


def rules(
    names: str, settings: Mapping[str, str], content: Mapping[str, str], passing: Sequence[str] = PASSING
) -> tuple[Rule, ...]:
    """What is done about the failures of an API.

    `names` are the settings that name what is asked. `settings` are the codes that blame another part of the request,
    each with the settings it is made of; `content` those that blame the documents, with what they mean (or nothing to
    add), the telling ones first; `passing` those that blame nobody.
    """
    asked, ended = (At.REQUEST, At.POLL, At.LOOK), (At.JOB, At.DOCUMENT)
    return (
        Rule(Then.SUBMIT_AGAIN, "it does not know a job any more", (At.POLL,), (404, 410)),
        Rule(Then.WAIT, "", asked, (429,)),
        Rule(Then.WAIT, "", asked, (403,), ("QuotaExceeded",)),
        Rule(Then.STOP, "check key, and that it belongs to endpoint", asked, (401,)),
        Rule(Then.STOP, "check key and endpoint, and whom the resource's network rules let in", asked, (403,)),
        Rule(Then.STOP, f"check {names} and endpoint", asked, (404,)),
        *(Rule(Then.STOP, f"check {where}", codes=(code,)) for code, where in settings.items()),
        Rule(Then.SUBMIT_AGAIN, "", ended, (), passing),
        Rule(Then.HOLD, "", asked, (408, 409, 425, *range(500, 600))),
        Rule(Then.HOLD, "it is not followed, endpoint must be the service's own address", asked, range(400)),
        Rule(Then.HOLD, "not in the service's words, is something else at endpoint?", asked, (400, 422), (NOT_JSON,)),
        Rule(Then.SUBMIT_AGAIN, "", (At.POLL,), REFUSED),
        Rule(Then.STOP, "check api_version", (At.LOOK,), REFUSED),
        *(Rule(Then.SPLIT, means, (At.REQUEST,), REFUSED, (code,)) for code, means in content.items() if means),
        Rule(Then.SPLIT, "", (At.REQUEST,), REFUSED),
        # Routes, methods, proxies: no document brings these about, so none must be blamed.
        Rule(Then.STOP, "check endpoint and api_version", asked),
        *(Rule(Then.SPLIT, means, (At.JOB,), (), (code,)) for code, means in content.items()),
        Rule(Then.SUBMIT_AGAIN, "", (At.JOB,)),
        *(Rule(Then.REFUSE, means, (At.DOCUMENT,), (), (code,)) for code, means in content.items() if means),
        Rule(Then.REFUSE, "", (At.DOCUMENT,)),
    )


def rules_of_changes(
    names: str, settings: Mapping[str, str], content: Mapping[str, str], passing: Sequence[str] = PASSING
) -> tuple[Rule, ...]:
    """The same where what classifies is made or changed: there are no documents, and `content` is what was asked for.

    So a request that is refused for its content is for a person to put right.
    """
    return tuple(
        rule._replace(then=Then.STOP) if rule.then is Then.SPLIT and At.REQUEST in rule.at else rule
        for rule in rules(names, settings, content, passing)
    )


class Resource:
    """An Azure resource, asked over HTTP.

    `http` comes ready: timeouts, TLS, pool and pacing are its owner's. The key goes out with each request and to the
    scheme, host and port of the endpoint only. `path` is that of the API, after the endpoint's own; `rules` say what is
    done about its failures.
    """

    def __init__(self, settings: settings.Azure, http: Exchange, rules: Sequence[Rule], path: str) -> None:
        try:
            endpoint = httpx.URL(settings.endpoint)
        except httpx.InvalidURL as error:
            raise Misconfigured(f"endpoint {settings.endpoint!r} is not a URL: {error}") from None
        self.host = endpoint.netloc.decode("ascii")
        self._http = http
        self._rules = rules
        self._origin = f"{endpoint.scheme}://{self.host}/"
        self._base = endpoint.copy_with(path=endpoint.path.rstrip("/") + path)
        self._key = settings.secret.get_secret_value()
        headers = {**http.headers, "Ocp-Apim-Subscription-Key": self._key}
        self._headers = {"": headers} | {
            kind: {**headers, "Content-Type": kind} for kind in ("application/json", "application/octet-stream")
        }

    def url(self, path: str = "", **query: str) -> str:
        """The address of a part of the API."""
        return str(self._base.copy_with(path=self._base.path + path, params=query or None))

    async def ask(self, method: str, url: str, content: bytes | None = None, kind: str = "application/json") -> Answer:
        """The endpoint's answer, whatever its status; `url` is known to be the endpoint's own. Raises Unavailable."""
        try:
            return await self._http.exchange(method, url, self._headers[kind if content else ""], content)
        except httpx.InvalidURL:
            raise self.malformed("a job's URL that is none") from None
        except httpx.RequestError as error:
            raise Unavailable(f"{self.host} did not answer: {_kind(error)}") from None

    async def page(self, url: str) -> dict[str, Any]:
        """How a job stands. Raises JobLost, Throttled, Unavailable and Misconfigured."""
        answer = await self.ask("GET", url)
        if not answer.is_success:
            raise self.failure(answer, At.POLL)
        page = json_of(answer)
        if not isinstance(page, dict):
            raise self.malformed("a job that is not a JSON object")
        return page

    def check_own(self, job: str) -> None:
        """Raise JobLost where a job was submitted to another endpoint, which must not be sent this key."""
        if not job.startswith(self._origin):
            raise JobLost(f"a job was submitted to another endpoint than {self.host}, which is not sent this key")

    def ours(self, url: object) -> str:
        """A URL the service gave, in full; refused unless it is at the endpoint itself, for it will be sent the key."""
        if not isinstance(url, str):
            raise self.malformed("a URL that is not text")
        if url.startswith(self._origin) and url.isprintable() and len(url) <= _LONGEST_URL:
            return url
        try:
            absolute = str(self._base.join(url))
        except httpx.InvalidURL:
            raise self.malformed("a URL that is none") from None
        if not absolute.startswith(self._origin):
            raise Misconfigured(
                f"endpoint {self.host} gives URLs at another scheme, host or port, where the key is not sent: "
                "set endpoint to the address the service calls itself by"
            )
        return absolute

    def submitted(self, answer: Answer) -> str:
        """The URL to ask after what was accepted. Raises Unavailable where there is none."""
        location = answer.headers.get("operation-location")
        if location is None:
            raise self.malformed("a job was submitted and no operation-location came back")
        return self.ours(location)

    async def described(self, url: str) -> dict[str, Any]:
        """What something that is there says of itself, which costs nothing.

        Raises Misconfigured, Unavailable and Throttled.
        """
        answer = await self.ask("GET", url)
        if not answer.is_success:
            raise self.failure(answer, At.LOOK)
        found = json_of(answer)
        if not isinstance(found, dict):
            raise self.stranger(answer)
        return found

    def stranger(self, answer: Answer) -> Misconfigured:
        """What it means that an answer is none of this API's."""
        return Misconfigured(f"{self.told(answer)}, and not as this API does: check endpoint")

    def failure(self, answer: Answer, at: At) -> CallFailed:
        """What an answer without success means."""
        rule = first_that_fits(self._rules, at, answer.status_code, _seen(answer))
        return rule.error(self.told(answer), retry_after(answer.headers))

    def ended(self, codes: Sequence[str], status: str) -> CallFailed:
        """What it means that a job ended without results, by the codes it gives."""
        rule = first_that_fits(self._rules, At.JOB, codes=codes)
        explained = _explained(codes, rule)
        return rule._replace(says="").error(f"{self.host}: a job ended as {status} without results ({explained})")

    def refused(self, codes: Sequence[str], document: str) -> str:
        """Why a document was refused in an answer that is good otherwise; raises what it means where it was not."""
        rule = first_that_fits(self._rules, At.DOCUMENT, codes=codes)
        if rule.then is not Then.REFUSE:
            raise rule.error(f"{self.host} failed on {document} ({_spelt(codes)})")
        return _explained(codes, rule)

    def malformed(self, what: str) -> Unavailable:
        """What it means that an answer makes no sense."""
        return Unavailable(f"{self.host} answered with {what}")

    def told(self, answer: Answer) -> str:
        """The answer in short, with the service's own words only where they cannot be about a document."""
        error = _error(answer)
        told = f"{self.host} answered {answer.status_code}"
        if codes := codes_of(error):
            told += f" {_spelt(codes)}"
        message = error.get("message")
        if answer.status_code in (401, 403, 404, 429) and isinstance(message, str):
            words = " ".join(message.replace(self._key, "…").split())
            told += f" ({words[:_LONGEST_MESSAGE]})"
        return told


def json_of(answer: Answer) -> object:
    """The body of an answer; None where it is not JSON."""
    try:
        return orjson.loads(answer.content)
    except orjson.JSONDecodeError:
        return None


def codes_of(error: object) -> list[str]:
    """The codes of an error and of those inside it, outermost first; the numbers of the gateway are left out."""
    codes = []
    while isinstance(error, dict):
        code = error.get("code")
        if isinstance(code, str) and _CODE.fullmatch(code):
            codes.append(code)
        error = error.get("innererror") or error.get("innerError")
    return codes


def word(status: object) -> str:
    """A status as it is compared: services differ in the case of its letters."""
    return status.casefold() if isinstance(status, str) else ""


def mended(text: str) -> str:
    """The text with halves of surrogate pairs (an emoji cut in two) replaced by U+FFFD, as no UTF-8 can hold them."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _error(answer: Answer) -> dict[str, Any]:
    """The error object of an answer, also where a gateway leaves its envelope out; empty if there is none."""
    body = json_of(answer)
    if not isinstance(body, dict):
        return {}
    error = body.get("error")
    return error if isinstance(error, dict) else body


def _seen(answer: Answer) -> Sequence[str]:
    """The codes of an answer, and what its body says without one."""
    if b"out of call volume quota" in answer.content.lower():
        return ["QuotaExceeded"]
    return (codes_of(_error(answer)) or [NO_CODE]) if isinstance(json_of(answer), dict) else [NOT_JSON]


def _spelt(codes: Iterable[str]) -> str:
    """Codes as a person reads them, innermost first, as that one says most."""
    inwards = list(dict.fromkeys(codes))[:5] or ["no code given"]
    return " in ".join(reversed(inwards))


def _explained(codes: Iterable[str], rule: Rule) -> str:
    return f"{_spelt(codes)}: {rule.says}" if rule.says else _spelt(codes)


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
