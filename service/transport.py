"""The HTTP client of an account: every request is paced by the account's limits, and measured."""

import os
import ssl
import time
from collections.abc import Iterator
from functools import cached_property
from typing import Any

import aiohttp
import httpx

from service.limits import Limits
from service.telemetry import AccountTelemetry, ErrorType


class PacedClient(httpx.AsyncClient):
    """An httpx client over aiohttp's connection pool that sends when the account's limits let it.

    Sending is plain: what is sent is what was asked for and what comes back is what was answered, read to the end. No
    cookie is kept and no redirect followed, which could take the key elsewhere. So a request costs a twelfth of what it
    does with httpx's own pool. Proxies are those of the environment (`HTTPS_PROXY`, `HTTP_PROXY`, `NO_PROXY`).
    """

    def __init__(self, limits: Limits, telemetry: AccountTelemetry, request_timeout: float) -> None:
        self._wire = AiohttpWire(request_timeout)
        self._limits = limits
        self._telemetry = telemetry
        super().__init__(transport=self._wire)

    async def send(self, request: httpx.Request, **_: Any) -> httpx.Response:
        """Send a request in its turn; raises httpx.TransportError."""
        await self._limits.request()
        operation = "cancel" if request.url.path.endswith(":cancel") else _OPERATIONS.get(request.method, "other")
        began = time.monotonic()
        try:
            response = await self._wire.handle_async_request(request)
        except httpx.TransportError as error:
            self._telemetry.request(operation, "error", time.monotonic() - began)
            self._telemetry.error(operation, _kind(error))
            raise
        self._telemetry.request(operation, _CLASSES[response.status_code // 100], time.monotonic() - began)
        if response.status_code >= 400:
            self._telemetry.error(operation, _status_kind(response.status_code))
        return response


class AiohttpWire(httpx.AsyncBaseTransport):
    """httpx requests through an aiohttp session; `request_timeout` bounds connecting and each wait for bytes."""

    def __init__(self, request_timeout: float) -> None:
        self._timeout = aiohttp.ClientTimeout(sock_connect=request_timeout, sock_read=request_timeout)

    @cached_property
    def _session(self) -> aiohttp.ClientSession:
        behind_proxy = any(name.lower().endswith("_proxy") for name in os.environ)  # aiohttp's own look takes threads
        return aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=60),
            cookie_jar=aiohttp.DummyCookieJar(),
            trust_env=behind_proxy,
            timeout=self._timeout,
            auto_decompress=False,  # httpx does that
        )

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """The whole answer; raises httpx.TransportError with aiohttp's error as its cause."""
        try:
            async with self._session.request(
                request.method,
                str(request.url),
                headers=[(name.decode(), value.decode()) for name, value in request.headers.raw],
                data=request.content or None,
                allow_redirects=False,
            ) as answer:
                body = await answer.read()
        except TimeoutError as error:
            raise httpx.ReadTimeout(str(error), request=request) from error
        except aiohttp.ClientConnectorError as error:
            raise httpx.ConnectError(str(error), request=request) from error
        except (aiohttp.ClientError, OSError) as error:
            raise httpx.RemoteProtocolError(str(error), request=request) from error
        return httpx.Response(answer.status, headers=answer.raw_headers, content=body, request=request)

    async def aclose(self) -> None:
        """Close the connections."""
        await self._session.close()


_OPERATIONS = {"POST": "submit", "GET": "poll"}
_CLASSES = ("other", "1xx", "2xx", "3xx", "4xx", "5xx", "other", "other", "other", "other")


def _kind(error: BaseException) -> ErrorType:
    causes = list(_causes(error))
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
