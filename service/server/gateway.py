"""The front door that the Azure APIs share: the resource's key, the request rate, faults, and the error envelope.

A path of an API is a `Resource`, an ASGI application that knows what each method does. What it asks of a request, in
order: a known key (401), a method it has (405), and room within the rates (429); then the first fault rule that matches
has its say; then the `api-version` has to be a known one (400; an API that has its version in the path takes none), and
the operation's handler answers. Bodies are read by handlers, so never without a key.

Behaviour chosen where the service's is not documented: an unknown path is a 404 and a method that a path does not have
a 405, both in the gateway's form (the HTTP status as `code`); requests are counted over all keys together, in windows
of 60 seconds that begin with a request; a bearer token is taken for a key.
"""

import asyncio
import hmac
import math
import random
import re
import time
import uuid
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import orjson
import structlog
from starlette.datastructures import QueryParams
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from service.errors import Unavailable
from service.server.faults import Api, Faults, Rule, parse
from service.server.faults import Operation as OperationName
from service.server.telemetry import Telemetry

JSON = "application/json; charset=utf-8"
KEY_HEADER = b"ocp-apim-subscription-key"
_BEARER = b"bearer "
MOST_FAULTS = 262_144  # bytes
MINUTE = 60.0

_HTML = b"<html><head><title>Bad gateway</title></head><body><h1>Bad gateway</h1></body></html>"
_HOST = re.compile(rb"[A-Za-z0-9._-]+(:[0-9]+)?|\[[0-9A-Fa-f:.]+\](:[0-9]+)?")
_GATEWAY = {
    401: "Access denied: the subscription key is missing or wrong, or this is not the endpoint it belongs to.",
    403: "Out of call volume quota for TextAnalytics F0 pricing tier.",  # clients look for this text
    404: "Resource not found",
    405: "This method is not allowed here.",
    413: "The request body is too large.",
    429: "Requests have exceeded the rate limit of this resource.",
}
_SERVICE = {
    408: ("Timeout", "The request took too long."),
    500: ("InternalServerError", "Something went wrong here."),
    503: ("ServiceUnavailable", "The service cannot answer just now."),
}

_request_ids = random.Random()  # noqa: S311 (to trace a request, not to guard one; spares a system call)
log = structlog.get_logger(__name__)


class Refusal(Exception):
    """An answer other than the one asked for: `error` is the value under "error" in the body."""

    def __init__(self, status: int, error: Mapping[str, object], headers: Mapping[str, str] | None = None) -> None:
        super().__init__(status, error)
        self.status = status
        self.error = error
        self.headers = dict(headers or {})

    @classmethod
    def plain(cls, status: int, message: str | None = None, retry_after: float | None = None) -> "Refusal":
        """The usual answer with this status, in the gateway's words or the service's, whichever gives it."""
        code, usual = _SERVICE.get(status) or (str(status), _GATEWAY.get(status, "The request was refused."))
        headers = {} if retry_after is None else {"Retry-After": str(math.ceil(retry_after))}
        return cls(status, {"code": code, "message": message or usual}, headers)

    def response(self) -> Response:
        """The refusal as an answer."""
        return answer({"error": self.error}, self.status, self.headers)


def answer(content: object, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """A JSON answer."""
    return Response(orjson.dumps(content), status, headers, JSON)


class Window:
    """At most `limit` requests in each window of `seconds`; a window begins with the first request after the last."""

    def __init__(self, limit: int, seconds: float = MINUTE) -> None:
        self.limit = limit
        self.seconds = seconds
        self._began = -math.inf
        self._count = 0

    def admit(self, now: float) -> float:
        """Seconds until a request may come again; 0 if this one may, which then counts."""
        if now - self._began >= self.seconds:
            self._began, self._count = now, 0
        if self._count < self.limit:
            self._count += 1
            return 0.0
        return self.seconds - (now - self._began)  # in this order it never rounds to more than a window


@dataclass(slots=True)
class Call:
    """A request that was let in; `fault` is the rule that has a say in what becomes of it."""

    scope: Scope
    receive: Receive
    headers: Mapping[bytes, bytes]
    query: QueryParams
    base_url: str
    fault: Rule | None

    @property
    def version(self) -> str:
        """The api-version asked for."""
        return self.query["api-version"]

    def parameter(self, name: str) -> str:
        """A part of the path."""
        return str(self.scope["path_params"][name])

    def url(self, path: str, query: str = "") -> str:
        """An absolute URL on this server, as the client sees it."""
        return f"{self.base_url}{path}{'?' if query else ''}{query}"

    async def body(self, most: int) -> bytes:
        """The request body; refuses one of more bytes with 413, without reading it to its end."""
        return await read_body(self.headers, self.receive, most)


@dataclass(frozen=True, slots=True)
class Operation:
    """What a method does on a path; `name` is what fault rules and metrics call it, `window` the rate of its own."""

    name: OperationName
    handle: Callable[[Call], Awaitable[Response]]
    window: Window | None = None


@dataclass(frozen=True, slots=True)
class Gateway:
    """What all Azure APIs of the server share; no keys means that none is asked for."""

    keys: Sequence[bytes]
    faults: Faults
    telemetry: Telemetry
    window: Window | None = None
    public_url: str | None = None

    def knows(self, headers: Mapping[bytes, bytes]) -> bool:
        """Whether a request brings one of the server's keys, in a time that does not tell how nearly it does."""
        key, bearer = headers.get(KEY_HEADER), headers.get(b"authorization", b"")
        if key is None and bearer[: len(_BEARER)].lower() == _BEARER:
            key = bearer[len(_BEARER) :].strip()
        found = [hmac.compare_digest(key or b"", known) for known in self.keys]
        return any(found) or not self.keys

    def base_url(self, scope: Scope, headers: Mapping[bytes, bytes]) -> str:
        """Where the client thinks this server is: the Host it wrote. Forwarding headers can be written by anybody."""
        if self.public_url is not None:
            return self.public_url
        host = headers.get(b"host", b"")
        if not _HOST.fullmatch(host):
            address, port = scope.get("server") or ("localhost", None)
            host = f"{address}:{port}".encode()
        return f"{scope['scheme']}://{host.decode('ascii')}"


class Resource:
    """One path of an API, as an ASGI application; with no operations, every path that no API has.

    `api` is what fault rules and metrics call it; `versions` are its api-versions, None where the path says which;
    `refused` puts a refusal into words, for an API that has words of its own.
    """

    def __init__(
        self,
        gateway: Gateway,
        api: Api,
        versions: Collection[str] | None,
        operations: Mapping[str, Operation],
        refused: Callable[[Refusal], Response] = Refusal.response,
    ) -> None:
        self._gateway = gateway
        self._api = api
        self._versions = versions
        self._operations = operations
        self._refused = refused

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, whatever happens."""
        began = time.perf_counter()
        operation = self._operations.get(scope["method"])
        name = operation.name if operation else "unknown"
        try:
            response = await self._respond(operation, scope, receive)
        except Refusal as refusal:
            response = self._refused(refusal)
        except Unavailable as error:
            response = self._refused(Refusal.plain(503, retry_after=error.retry_after or 1.0))
        except ClientDisconnect:
            response = self._refused(Refusal.plain(400))
        except Exception:  # whatever it was, the client gets an answer and the operator the traceback
            log.exception("request_failed", operation=name)
            response = self._refused(Refusal.plain(500))
        response.headers["apim-request-id"] = str(uuid.UUID(int=_request_ids.getrandbits(128)))
        response.headers["x-content-type-options"] = "nosniff"
        telemetry = self._gateway.telemetry
        telemetry.requests.labels(self._api, name, str(response.status_code)).inc()
        telemetry.request_seconds.labels(self._api, name).observe(time.perf_counter() - began)
        await response(scope, receive, send)

    async def _respond(self, operation: Operation | None, scope: Scope, receive: Receive) -> Response:
        gateway = self._gateway
        headers = dict(scope["headers"])
        if not gateway.knows(headers):
            raise Refusal.plain(401)
        if operation is None:
            raise Refusal.plain(405 if self._operations else 404)
        for window in (gateway.window, operation.window):
            if window and (wait := window.admit(time.monotonic())):
                message = f"{_GATEWAY[429]} Please retry after {math.ceil(wait)} seconds."
                raise Refusal.plain(429, message, retry_after=wait)
        fault = gateway.faults.next(self._api, operation.name)
        if fault is not None:
            gateway.telemetry.faults.labels(self._api, operation.name).inc()
        query = QueryParams(scope["query_string"])
        call = Call(scope, receive, headers, query, gateway.base_url(scope, headers), fault)
        if fault is None:
            return await self._handled(operation, call)
        return await self._faulty(operation, call, fault)

    async def _handled(self, operation: Operation, call: Call) -> Response:
        self._check_version(call)
        return await operation.handle(call)

    async def _faulty(self, operation: Operation, call: Call, fault: Rule) -> Response:
        await delay(fault)
        try:
            if fault.status is not None:
                raise Refusal.plain(fault.status, retry_after=fault.retry_after)
            response = await self._handled(operation, call)
        except Refusal as refusal:
            response = self._refused(refusal)
        return spoil(response, fault.body) if fault.body else response

    def _check_version(self, call: Call) -> None:
        if self._versions is not None and call.query.get("api-version") not in self._versions:
            spoken = f"api-version is to be one of {', '.join(sorted(self._versions))}."
            inner = {"code": "InvalidParameterValue", "message": spoken}
            error = {"code": "InvalidRequest", "message": "Invalid parameter in request.", "innererror": inner}
            raise Refusal(400, error)


async def delay(fault: Rule) -> None:
    """Wait as a rule asks for."""
    if fault.slow:
        await asyncio.sleep(fault.slow)


def spoil(response: Response, how: Literal["html", "truncated", "empty"]) -> Response:
    """An answer whose body is not what it should be."""
    if how == "html":
        response.body = _HTML
        response.headers["content-type"] = "text/html"
    else:
        response.body = bytes(response.body[: len(response.body) // 2]) if how == "truncated" else b""
    response.headers["content-length"] = str(len(response.body))
    return response


async def read_body(headers: Mapping[bytes, bytes], receive: Receive, most: int) -> bytes:
    """A request's body; refuses one of more bytes with 413, without reading it to its end."""
    declared = headers.get(b"content-length", b"")
    size = int(declared[:20]) if declared.isdigit() else 0
    chunks: list[bytes] = []
    read, more = 0, True
    while more and max(size, read) <= most:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        chunks.append(message.get("body", b""))
        read += len(chunks[-1])
        more = message.get("more_body", False)
    if max(size, read) > most:
        raise Refusal.plain(413, f"The request body is larger than {most:,} bytes.")
    return b"".join(chunks)


def fault_route(gateway: Gateway) -> Route:
    """The path at which an operator with the key changes the fault rules."""

    async def endpoint(request: Request) -> Response:
        headers = dict(request.scope["headers"])
        if not gateway.knows(headers):
            return Refusal.plain(401).response()
        if request.method == "DELETE":
            gateway.faults.replace(())
            return Response(status_code=204)
        if request.method == "PUT":
            try:
                given = await read_body(headers, request.receive, MOST_FAULTS)
                gateway.faults.replace(parse(orjson.loads(given)))
            except Refusal as refusal:
                return refusal.response()
            except ValueError as error:
                return Refusal(400, {"code": "InvalidRequest", "message": f"Not a list of rules: {error}"}).response()
        return answer(gateway.faults.statistics())

    return Route("/_faults", endpoint, methods=["GET", "PUT", "DELETE"])
