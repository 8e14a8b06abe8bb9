"""The HTTP client of an account: every request is paced by the account's limits, and measured."""

import os
import ssl
import time
from collections.abc import Iterator, Mapping
from functools import cached_property
from types import TracebackType
from typing import Any

import aiohttp
import httpx

from service.limits import Limits
from service.telemetry import AccountTelemetry, ErrorType


class PacedClient(httpx.AsyncClient):
    """An httpx client over aiohttp's connection pool that sends when the account's limits let it.

    Sending is plain: what is sent is what was asked for and what comes back is what was answered, read to the end. No
    cookie is kept and no redirect followed, which could take the key elsewhere. `exchange` does without a request
    object, for the calls that are made by the thousand. `request_timeout` bounds the whole exchange, and an answer is
    not read beyond 16 MiB. Proxies are those of the environment (`HTTPS_PROXY`, `HTTP_PROXY`, `NO_PROXY`), but never
    for an endpoint `on_this_machine`, which may be asked without TLS.
    """

    def __init__(
        self, limits: Limits, telemetry: AccountTelemetry, request_timeout: float, *, on_this_machine: bool = False
    ) -> None:
        self._request_timeout = request_timeout
        self._on_this_machine = on_this_machine
        self._limits = limits
        self._telemetry = telemetry
        super().__init__(transport=_Nowhere(), headers={"Accept-Encoding": "identity"})

    @cached_property
    def _session(self) -> aiohttp.ClientSession:
        behind_proxy = any(name.lower().endswith("_proxy") for name in os.environ)  # aiohttp's own look takes threads
        return aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=60),
            cookie_jar=aiohttp.DummyCookieJar(),
            trust_env=behind_proxy and not self._on_this_machine,
            timeout=aiohttp.ClientTimeout(total=self._request_timeout),
            auto_decompress=False,  # httpx does that
        )

    async def exchange(
        self, method: str, url: str, headers: Mapping[str, str], content: bytes | None = None
    ) -> httpx.Response:
        """The answer to a request, whatever its status.

        Raises httpx.RequestError, with aiohttp's error as its cause, and httpx.InvalidURL.
        """
        await self._limits.request()
        operation = "cancel" if method == "POST" and not content else _OPERATIONS.get(method, "other")
        began = time.monotonic()
        try:
            response = await self._answer(method, url, headers, content)
        except httpx.RequestError as error:
            self._telemetry.request(operation, "error", time.monotonic() - began)
            self._telemetry.error(operation, kind_of(error))
            raise
        self._telemetry.request(operation, _CLASSES[response.status_code // 100], time.monotonic() - began)
        if response.status_code >= 400:
            self._telemetry.error(operation, kind_of_status(response.status_code))
        return response

    async def send(self, request: httpx.Request, **_: Any) -> httpx.Response:
        """As `exchange`, of a request object."""
        return await self.exchange(request.method, str(request.url), dict(request.headers), request.content)

    async def aclose(self) -> None:
        """Close the connections."""
        await self._session.close()
        await super().aclose()

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None = None,
        exc_value: BaseException | None = None,
        traceback: TracebackType | None = None,
    ) -> None:
        """Close the connections, however the block ended."""
        await self._session.close()
        await super().__aexit__(exc_type, exc_value, traceback)

    async def _answer(self, method: str, url: str, headers: Mapping[str, str], content: bytes | None) -> httpx.Response:
        try:
            async with self._session.request(
                method, url, headers=headers, data=content or None, allow_redirects=False
            ) as answer:
                body = await _whole(answer)
        except TimeoutError as error:
            raise httpx.ReadTimeout(str(error)) from error
        except aiohttp.InvalidURL as error:
            raise httpx.InvalidURL(str(error)) from error
        except aiohttp.ClientConnectorError as error:
            raise httpx.ConnectError(str(error)) from error
        except (aiohttp.ClientError, OSError) as error:
            raise httpx.RemoteProtocolError(str(error)) from error
        return httpx.Response(answer.status, headers=answer.raw_headers, content=body)


class _Nowhere(httpx.AsyncBaseTransport):
    """Spares the client a pool, and the authorities of one, that it never uses."""


async def _whole(answer: aiohttp.ClientResponse) -> bytes:
    if answer.content_length is not None and answer.content_length <= _LONGEST_ANSWER:
        return await answer.read()
    body = bytearray()
    async for part in answer.content.iter_any():
        body += part
        if len(body) > _LONGEST_ANSWER:
            raise aiohttp.ClientPayloadError(f"the answer is longer than {_LONGEST_ANSWER:,} bytes")
    return bytes(body)


_LONGEST_ANSWER = 16 * 1024**2
_OPERATIONS = {"POST": "submit", "GET": "poll"}
_CLASSES = ("other", "1xx", "2xx", "3xx", "4xx", "5xx", "other", "other", "other", "other")


def kind_of(error: BaseException) -> ErrorType:
    """What went wrong with an exchange over aiohttp, whatever it is wrapped in."""
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


def kind_of_status(status: int) -> ErrorType:
    """What an answer without success counts as."""
    if status in (401, 403):
        return "auth"
    if status == 429:
        return "throttled"
    return "http_5xx" if status >= 500 else "http_4xx"
