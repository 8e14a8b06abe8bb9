"""The HTTP client of an account: every request is paced by the account's limits, and measured."""

import time

import aiohttp
import httpx
from httpx_aiohttp import AiohttpTransport

from service.limits import Limits
from service.telemetry import AccountTelemetry, ErrorType


class PacedTransport(httpx.AsyncBaseTransport):
    """Passes requests on when the account's limits let them, and reports how each ended."""

    def __init__(self, inner: httpx.AsyncBaseTransport, limits: Limits, telemetry: AccountTelemetry) -> None:
        self._inner = inner
        self._limits = limits
        self._telemetry = telemetry

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request in its turn; the whole answer is read, so that its duration is known."""
        await self._limits.request()
        operation = _OPERATIONS.get(request.method, "other")
        began = time.monotonic()
        try:
            response = await self._inner.handle_async_request(request)
            await response.aread()
        except httpx.HTTPError as error:
            self._telemetry.request(operation, "error", time.monotonic() - began)
            self._telemetry.error(operation, _kind(error))
            raise
        self._telemetry.request(operation, _CLASSES[response.status_code // 100], time.monotonic() - began)
        if response.status_code >= 400:
            self._telemetry.error(operation, _status_kind(response.status_code))
        return response

    async def aclose(self) -> None:
        """Close the connections."""
        await self._inner.aclose()


def client(limits: Limits, telemetry: AccountTelemetry, request_timeout: float) -> httpx.AsyncClient:
    """A client over aiohttp's connection pool, which costs a ninth of httpx's own per request.

    No redirect is followed, for it could carry the key elsewhere, and no proxy or certificate setting is taken from the
    environment but those that aiohttp takes when asked to (`HTTPS_PROXY`, `NO_PROXY`).
    """

    def session() -> aiohttp.ClientSession:
        return aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=60), trust_env=True)

    transport = PacedTransport(AiohttpTransport(client=session), limits, telemetry)
    return httpx.AsyncClient(transport=transport, timeout=httpx.Timeout(request_timeout), follow_redirects=False)


_OPERATIONS = {"POST": "submit", "GET": "poll"}
_CLASSES = ("other", "1xx", "2xx", "3xx", "4xx", "5xx", "other", "other", "other", "other")


def _kind(error: httpx.HTTPError) -> ErrorType:
    if isinstance(error, httpx.TimeoutException):
        return "timeout"
    if isinstance(error, httpx.ConnectError):
        return "tls" if "ssl" in str(error).lower() or "certificate" in str(error).lower() else "connect"
    return "malformed_response" if isinstance(error, httpx.ProtocolError | httpx.DecodingError) else "other"


def _status_kind(status: int) -> ErrorType:
    if status in (401, 403):
        return "auth"
    if status == 429:
        return "throttled"
    return "http_5xx" if status >= 500 else "http_4xx"
