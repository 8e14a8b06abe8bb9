"""Amazon Comprehend, custom classification (2017-11-27): AWS JSON 1.1 at `POST /`, by `X-Amz-Target`.

A path before it, as `endpoint_url` may have one, is taken, too, wherever a request names a target and no other API is.

Served: CreateDocumentClassifier, DescribeDocumentClassifier, ListDocumentClassifiers, ListDocumentClassifierSummaries,
StopTrainingDocumentClassifier, DeleteDocumentClassifier (`comprehend_classifiers`); CreateEndpoint, DescribeEndpoint,
UpdateEndpoint, ListEndpoints, DeleteEndpoint and ClassifyDocument (`comprehend_endpoints`);
StartDocumentClassificationJob, DescribeDocumentClassificationJob, ListDocumentClassificationJobs (`comprehend_jobs`);
TagResource, UntagResource, ListTagsForResource (`comprehend_tags`). What may be asked is in `comprehend_requests`, how
much an account may have in `comprehend_account`.

Who may ask: requests are signed (`sigv4`) with a key of `--aws-key`. Without any, requests are let in unsigned if the
server asks for no other key either (on loopback), and else refused.

Behaviour chosen where the service's is not documented:

* Errors are told twice, in the body and in `x-amzn-ErrorType`, as clients look at either; all but the server's own
  failures are 400.
* The account in an ARN is of no account: resources are found by their names, whatever account and region a client
  writes. Ours is 000000000000, the region that which the request was signed for.
* Anything of the wrong type or form is a ValidationException; what is well formed and makes no sense an
  InvalidRequestException.
* A `ClientRequestToken` that was used before finds what was made under it for as long as that is there; with other
  parameters it is a ResourceInUseException.
* Roles, networks, policies and languages are kept and told, keys of KMS checked for their form, and nothing is done
  with any of them.
* Where documented rates are kept (`--documented-rates`), who asks too often gets a TooManyRequestsException, or a
  ThrottlingException where an operation has no such error; no rate is documented for the operations on endpoints.

Not done: every other operation (prebuilt analyses, entity recognizers, flywheels, datasets, imports, policies; there is
no operation that stops a classification job); models of semi-structured documents; documents that have to be read from
images, or that Textract has read.
"""

import re
import time
import uuid
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, NamedTuple

import orjson
import structlog
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.routing import Match, Route
from starlette.types import Receive, Scope, Send

from service.errors import Unavailable
from service.server import sigv4
from service.server.faults import Operation as OperationName
from service.server.faults import Rule
from service.server.gateway import Gateway, Refusal, Resource, Window, delay, read_body, spoil

MOST_BYTES = 16 * 2**20  # ten megabytes in base64, and what is around them
RATES: Mapping[str, int] = {  # requests a second, of Amazon's Service Quotas
    "CreateDocumentClassifier": 1,
    "DeleteDocumentClassifier": 1,
    "StopTrainingDocumentClassifier": 1,
    "StartDocumentClassificationJob": 1,
    "TagResource": 1,
    "UntagResource": 1,
    "DescribeDocumentClassifier": 10,
    "ListDocumentClassifiers": 10,
    "DescribeDocumentClassificationJob": 10,
    "ListDocumentClassificationJobs": 10,
    "ListTagsForResource": 10,
}
_TARGET = re.compile(rb"Comprehend_20171127\.([A-Za-z]{1,64})")
_JSON = "application/x-amz-json-1.1"
_MEANT = {  # by the HTTP status of a fault rule, which Amazon says 400 for
    401: "UnrecognizedClientException",
    403: "AccessDeniedException",
    408: "RequestTimeoutException",
    429: "ThrottlingException",
}
_SAID = {
    "AccessDeniedException": "You are not authorized to perform this operation.",
    "ExpiredTokenException": "The security token included in the request is expired",
    "ThrottlingException": "Rate exceeded",
    "TooManyRequestsException": "Rate exceeded",
    "UnrecognizedClientException": "The security token included in the request is invalid.",
}

log = structlog.get_logger(__name__)


class Failure(Exception):
    """An answer other than the one asked for: `code` is the name of the exception in the API."""

    def __init__(self, code: str, message: str, status: int = 400, **more: object) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.status = status
        self.more = more


class Call(NamedTuple):
    """A request that was let in: what it says, its region, and the rule with a say in what comes of it."""

    given: Mapping[str, Any]
    region: str
    fault: Rule | None


class Action(NamedTuple):
    """What an operation does; `kind` is what fault rules and metrics call it, `window` the rate of its own.

    `throttled` is what it answers beyond that.
    """

    kind: OperationName
    does: Callable[[Call], Awaitable[Mapping[str, Any]]]
    throttled: str = "TooManyRequestsException"
    window: Window | None = None


class _Targeted(Route):
    """A path, for requests that name a target."""

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        if scope["type"] == "http" and any(name == b"x-amz-target" for name, _ in scope["headers"]):
            return super().matches(scope)
        return Match.NONE, {}


class Front:
    """The one path of the API, as an ASGI application."""

    def __init__(self, gateway: Gateway, secrets: Mapping[str, str], actions: Mapping[str, Action]) -> None:
        self._gateway = gateway
        self._secrets = secrets
        self._actions = actions
        self._nothing = Resource(gateway, "none", (), {})

    def routes(self) -> list[Route]:
        """The path, and whichever is asked for a target; to come after those of the other APIs."""
        return [Route("/", self), _Targeted("/{prefix:path}", self)]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, whatever happens."""
        if scope["method"] != "POST":
            await self._nothing(scope, receive, send)
            return
        began, name = time.perf_counter(), "unknown"
        headers = dict(scope["headers"])
        target = _TARGET.fullmatch(headers.get(b"x-amz-target", b""))
        action = self._actions.get(target[1].decode()) if target else None
        if action is not None:
            name = action.kind
        try:
            response = await self._respond(action, scope, headers, receive)
        except Failure as failure:
            response = _refused(failure)
        except Unavailable:
            response = _refused(Failure("InternalServerException", "The server cannot keep what it is asked to.", 500))
        except ClientDisconnect:
            response = _refused(Failure("RequestTimeoutException", "The request did not come to its end."))
        except Exception:  # whatever it was, the client gets an answer and the operator the traceback
            log.exception("request_failed", operation=name)
            response = _refused(Failure("InternalServerException", "Something went wrong here.", 500))
        response.headers["x-amzn-RequestId"] = str(uuid.uuid4())
        telemetry = self._gateway.telemetry
        telemetry.requests.labels("comprehend", name, str(response.status_code)).inc()
        telemetry.request_seconds.labels("comprehend", name).observe(time.perf_counter() - began)
        await response(scope, receive, send)

    async def _respond(
        self, action: Action | None, scope: Scope, headers: Mapping[bytes, bytes], receive: Receive
    ) -> Response:
        gateway = self._gateway
        try:
            body = await read_body(headers, receive, MOST_BYTES)
        except Refusal:
            raise Failure("RequestEntityTooLargeException", "The request is too large.", 413) from None
        self._let_in(scope, headers, body)
        if action is None:
            raise Failure("UnknownOperationException", "There is no such operation.")
        if gateway.window and gateway.window.admit(time.monotonic()):
            raise Failure("ThrottlingException", "Rate exceeded")
        if action.window and action.window.admit(time.monotonic()):
            raise Failure(action.throttled, "Rate exceeded")
        fault = gateway.faults.next("comprehend", action.kind)
        if fault is None:
            return _answer(await action.does(Call(_object(body), sigv4.region(headers), None)))
        gateway.telemetry.faults.labels("comprehend", action.kind).inc()
        await delay(fault)
        try:
            response = _answer(await self._struck(action, Call(_object(body), sigv4.region(headers), fault), fault))
        except Failure as failure:
            response = _refused(failure)
        return spoil(response, fault.body) if fault.body else response

    async def _struck(self, action: Action, call: Call, fault: Rule) -> Mapping[str, Any]:
        failure = _meant(fault)
        if failure is None:
            return await action.does(call)
        raise failure

    def _let_in(self, scope: Scope, headers: Mapping[bytes, bytes], body: bytes) -> None:
        if not self._secrets:
            if self._gateway.keys:
                raise Failure(
                    "UnrecognizedClientException", "This server has no AWS key: its operator gives --aws-key."
                )
            return
        try:
            sigv4.check(
                self._secrets,
                service="comprehend",
                method=scope["method"],
                path=scope["raw_path"].partition(b"?")[0],
                query=scope["query_string"],
                headers=headers,
                body=body,
                now=time.time(),
            )
        except sigv4.Unsigned as error:
            raise Failure(error.code, error.message) from None


def _meant(fault: Rule) -> Failure | None:
    """What a rule answers with, in Amazon's words: the exception that it names, or the one that its status means."""
    code, status = fault.error, fault.status
    if code is None and status is None:
        return None
    if code is None and status in _MEANT:
        code, status = _MEANT[status], 400
    if code is None:
        code = "InternalServerException" if status is None or status >= 500 else "InvalidRequestException"
    said = _SAID.get(code, "A fault rule says so.")
    return Failure(code, said, status or (500 if code == "InternalServerException" else 400))


def _answer(content: Mapping[str, Any]) -> Response:
    return Response(orjson.dumps(content), media_type=_JSON)


def _refused(failure: Failure) -> Response:
    body = {"__type": failure.code, "Message": failure.message, "message": failure.message, **failure.more}
    return Response(orjson.dumps(body), failure.status, {"x-amzn-ErrorType": failure.code}, _JSON)


def _object(body: bytes) -> Mapping[str, Any]:
    try:
        given = orjson.loads(body or b"{}")
    except orjson.JSONDecodeError:
        given = None
    if not isinstance(given, dict):
        raise Failure("SerializationException", "The request is not a JSON object.")
    return given
