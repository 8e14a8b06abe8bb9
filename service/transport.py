"""The HTTP client of an account: every request is paced by the account's limits, and measured."""

import os
import ssl
import time
from collections.abc import Iterator
from typing import Any

import aiohttp
import httpx
from httpx_aiohttp import AiohttpTransport

from service.limits import Limits
from service.telemetry import AccountTelemetry, ErrorType


class PacedClient(httpx.AsyncClient):
    """An httpx client over aiohttp's connection pool that sends when the account's limits let it.

    Sending is plain: what it sends is what was asked for and what comes back is what was answered, read to the end.
    No cookie is kept and no redirect followed, which could take the key elsewhere, and that saves a third of httpx's
    time for a request. Proxies are those of the environment (`HTTPS_PROXY`, `HTTP_PROXY`, `NO_PROXY`).
    """

    def __init__(self, limits: Limits, telemetry: AccountTelemetry, request_timeout: float) -> None:
        self._wire = AiohttpTransport(client=_session)
        self._limits = limits
        self._telemetry = telemetry
        super().__init__(transport=self._wire, timeout=httpx.Timeout(request_timeout))

    async def send(self, request: httpx.Request, **_: Any) -> httpx.Response:
        """Send a request in its turn; raises httpx and aiohttp errors."""
        await self._limits.request()
        operation = _OPERATIONS.get(request.method, "other")
        began = time.monotonic()
        try:
            response = await self._wire.handle_async_request(request)
            await response.aread()
        except (httpx.HTTPError, aiohttp.ClientError) as error:
            self._telemetry.request(operation, "error", time.monotonic() - began)
            self._telemetry.error(operation, _kind(error))
            raise
        self._telemetry.request(operation, _CLASSES[response.status_code // 100], time.monotonic() - began)
        if response.status_code >= 400:
            self._telemetry.error(operation, _status_kind(response.status_code))
        return response


def _session() -> aiohttp.ClientSession:
    behind_proxy = any(
        name.lower().endswith("_proxy") for name in os.environ
    )  # looking there costs two threads a request
    connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=60)
    return aiohttp.ClientSession(connector=connector, cookie_jar=aiohttp.DummyCookieJar(), trust_env=behind_proxy)


_OPERATIONS = {"POST": "submit", "GET": "poll"}
_CLASSES = ("other", "1xx", "2xx", "3xx", "4xx", "5xx", "other", "other", "other", "other")


def _kind(error: BaseException) -> ErrorType:
    causes = list(_causes(error))  # the transport reports every failure to connect as a time-out, the cause tells
    if any(isinstance(cause, ssl.SSLError | aiohttp.ClientSSLError) for cause in causes):
        return "tls"
    if any(isinstance(cause, aiohttp.ClientConnectorError | ConnectionError) for cause in causes):
        return "connect"
    if any(isinstance(cause, httpx.TimeoutException | TimeoutError) for cause in causes):
        return "timeout"
    return "malformed_response"


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _status_kind(status: int) -> ErrorType:
    if status in (401, 403):
        return "auth"
    if status == 429:
        return "throttled"
    return "http_5xx" if status >= 500 else "http_4xx"
