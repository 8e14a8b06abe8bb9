"""An endpoint that fails in every way there is, and repeats the documents wherever its answer has room for words."""

from collections.abc import Callable, Sequence
from typing import Any

import orjson
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from tests.chaos.endpoint import Endpoint

Failure = Callable[[str], Response]


def _error(status: int, code: str, inner: str = "") -> Failure:
    def answer(said: str) -> Response:
        error: dict[str, Any] = {"code": code, "message": said, "target": said, "details": [{"message": said}]}
        if inner:
            error["innererror"] = {"code": inner, "message": said}
        return JSONResponse({"error": error}, status)

    return answer


def _plain(status: int, body: str, content_type: str) -> Failure:
    return lambda said: Response(body % said, status, media_type=content_type)


def _throttled(_: str) -> Response:
    # its words, and those of 401, 403 and 404, are shown: they come before anybody has looked into the documents
    return JSONResponse({"error": {"code": "429", "message": "slow down"}}, 429, {"retry-after": "1"})


def _failed_job(said: str) -> Response:
    error = {"code": "InternalServerError", "message": said}
    return JSONResponse({"status": "failed", "errors": [error], "tasks": {"items": []}})


def _document_errors(said: str) -> Response:
    errors = [{"id": str(i), "error": {"code": "InvalidArgument", "message": said}} for i in range(30)]
    results = {"errors": errors, "documents": []}
    item = {"kind": "CustomSingleLabelClassificationLROResults", "status": "succeeded", "results": results}
    return JSONResponse({"status": "succeeded", "errors": [], "tasks": {"items": [item]}})


ANYWHERE: Sequence[Failure] = (
    _throttled,
    _plain(503, "<html>%s</html>", "text/html"),
    _plain(502, "", "text/plain"),
    _error(500, "InternalServerError"),
    _error(408, "Timeout"),
    _plain(200, '{"%s', "application/json"),
    _plain(200, '["%s"]', "application/json"),
)
REFUSING = (
    _error(400, "InvalidRequest", "InvalidDocument"),
    _error(413, "RequestEntityTooLarge"),
    _error(400, "InvalidRequestBody"),
)


class Parrot(Endpoint):
    """Azure Language and Content Safety; each way to fail is had once for each request, then all is well."""

    def __init__(self) -> None:
        super().__init__(seconds=0.05)
        self.heard: list[bytes] = []
        self.locked = False
        self._submitting = [*ANYWHERE, REFUSING[0], REFUSING[1]]
        self._polling = [*ANYWHERE[1:], _failed_job, _document_errors]
        self._analysing = [*ANYWHERE, REFUSING[2]]

    @property
    def accounts(self) -> dict[str, Any]:
        """The settings of two accounts that ask here."""
        breaker = {"breaker": {"failures": 1000, "share": 1, "of": 1000}, "in_flight": 2}
        language = {**self.account, "limits": breaker}
        shared = ("endpoint", "key", "request_timeout", "limits")
        return {"language": language, "safety": {"provider": "content_safety"} | {key: language[key] for key in shared}}

    @property
    def is_well(self) -> bool:
        """Whether it has failed in every way."""
        return not (self._submitting or self._polling or self._analysing)

    def _routes(self) -> list[Route]:
        return [
            Route("/contentsafety/text:analyze", self._analyse, methods=["POST"]),
            Route("/contentsafety/text/blocklists", self._blocklists),
            *super()._routes(),
        ]

    async def _submit(self, request: Request) -> Response:
        self.heard.append(body := await request.body())
        if self.locked:
            return JSONResponse({"error": {"code": "401", "message": "the key is wrong"}}, 401)
        if self._submitting:
            return self._submitting.pop(0)(body.decode())
        if self._analysing:
            return JSONResponse({"error": {"code": "503", "message": "busy"}}, 503)  # so that the other is asked
        return await super()._submit(request)

    async def _poll(self, request: Request) -> Response:
        said = " ".join(each["text"] for each in self._jobs.get(request.path_params["job"], (0, []))[1])
        if said and self._polling:
            return self._polling.pop(0)(said)
        return await super()._poll(request)

    async def _analyse(self, request: Request) -> Response:
        self.heard.append(body := await request.body())
        if self._analysing:
            return self._analysing.pop(0)(orjson.loads(body)["text"])
        return JSONResponse({"blocklistsMatch": [], "categoriesAnalysis": [{"category": "Hate", "severity": 2}]})

    async def _blocklists(self, _: Request) -> Response:
        return JSONResponse({"value": []})
