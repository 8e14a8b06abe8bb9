"""The HTTP client of an account: every request is paced by the account's limits, and measured."""

import asyncio
import socket
import ssl
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from functools import cached_property
from typing import Self

import httpx
from pyreqwest.client import Client, ClientBuilder
from pyreqwest.exceptions import DecodeError, DetailedPyreqwestError, NetworkError, RequestTimeoutError
from pyreqwest.response import Response

from service.limits.gate import Limits
from service.observability.telemetry import AccountTelemetry, ErrorType


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back, read to the end; the names of headers may be written in any case."""

    status_code: int
    headers: Mapping[str, str]
    content: bytes

    @property
    def is_success(self) -> bool:
        """Whether the status says that it went well."""
        return 200 <= self.status_code < 300


class PacedClient:
    """An HTTP client over reqwest's connections, by pyreqwest, that sends when the account's limits let it.

    Sending is plain: what is sent is what was asked for and what comes back is what was answered, read to the end. No
    cookie is kept and no redirect followed, which could take the key elsewhere. `request_timeout` bounds the whole
    exchange. An answer is not read beyond 16 MiB, nor one that is packed, as it was not asked for so. Certificates are
    trusted as the system has it, or the file that `SSL_CERT_FILE` names. Proxies are those of the environment
    (`HTTPS_PROXY`, `HTTP_PROXY`, `NO_PROXY`), but never for an endpoint `on_this_machine`, which may be asked without
    TLS.

    An exchange that is cancelled is not waited for, but pyreqwest cannot break it off: it goes on by itself and keeps
    its connection until it ends, at the latest after `request_timeout`. A cancellation that comes in with the answer is
    lost on pyreqwest, and made good here. No request is sent twice, unless nothing of it has been sent.
    """

    def __init__(
        self, limits: Limits, telemetry: AccountTelemetry, request_timeout: float, *, on_this_machine: bool = False
    ) -> None:
        self._request_timeout = request_timeout
        self._on_this_machine = on_this_machine
        self._limits = limits
        self._telemetry = telemetry
        self.headers = httpx.Headers({"Accept": "*/*", "Accept-Encoding": "identity", "User-Agent": "labelstream"})

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    @cached_property
    def _client(self) -> Client:
        builder = ClientBuilder().timeout(timedelta(seconds=self._request_timeout)).follow_redirects(enable=False)
        builder = builder.http1_only().pool_idle_timeout(timedelta(seconds=60))
        builder = builder.gzip(enable=False).brotli(enable=False).zstd(enable=False).deflate(enable=False)
        return (builder.no_proxy() if self._on_this_machine else builder).build()

    async def exchange(self, method: str, url: str, headers: Mapping[str, str], content: bytes | None = None) -> Answer:
        """The answer to a request, whatever its status.

        Raises httpx.RequestError, with an error of Python's own for the reason as its cause, and httpx.InvalidURL.
        """
        await self._limits.request()
        operation = "cancel" if method == "POST" and not content else _OPERATIONS.get(method, "other")
        began, cancellations = time.monotonic(), _cancellations()
        try:
            answer = await self._answer(method, url, headers, content)
        except httpx.RequestError as error:
            self._telemetry.request(operation, "error", time.monotonic() - began)
            self._telemetry.error(operation, kind_of(error))
            raise
        finally:
            if _cancellations() > cancellations:
                raise asyncio.CancelledError
        self._telemetry.request(operation, _CLASSES[answer.status_code // 100], time.monotonic() - began)
        if answer.status_code >= 400:
            self._telemetry.error(operation, kind_of_status(answer.status_code))
        return answer

    async def aclose(self) -> None:
        """Close the connections, and fail what is under way."""
        if client := self.__dict__.pop("_client", None):  # which, while it is there, keeps idle connections open
            await client.close()

    async def _answer(self, method: str, url: str, headers: Mapping[str, str], content: bytes | None) -> Answer:
        try:
            request = self._client.request(method, url)
        except ValueError as error:
            raise httpx.InvalidURL(str(error)) from error
        request = request.headers(headers)
        if content:
            request = request.body_bytes(content)
        try:
            async with request.build_streamed() as response:
                if (_text(response, "content-encoding") or "identity").casefold() != "identity":
                    raise httpx.RemoteProtocolError("the answer is packed, which was not asked for")
                return Answer(response.status, _Headers(response), await _whole(response))
        except DetailedPyreqwestError as error:
            raise _failure(error) from _reason(error)


class _Headers(Mapping[str, str]):
    """The headers of an answer, looked up as they are asked for; one that is not text is as good as none."""

    __slots__ = ("_response",)

    def __init__(self, response: Response) -> None:
        self._response = response

    def __getitem__(self, name: str) -> str:
        value = _text(self._response, name)
        if value is None:
            raise KeyError(name)
        return value

    def __iter__(self) -> Iterator[str]:
        return (name for name in dict.fromkeys(self._response.headers) if name in self)

    def __len__(self) -> int:
        return sum(1 for _ in self)


def _cancellations() -> int:
    """How often it was asked that the running task be cancelled."""
    task = asyncio.current_task()
    return task.cancelling() if task is not None else 0


def _text(response: Response, name: str) -> str | None:
    try:
        return response.get_header(name)
    except ValueError:
        return None


async def _whole(response: Response) -> bytes:
    if _is_short(response):
        return bytes(await response.bytes())
    body, reader = bytearray(), response.body_reader
    while (part := await reader.read_chunk()) is not None:
        body += part
        if len(body) > _LONGEST_ANSWER:
            raise httpx.RemoteProtocolError(f"the answer is longer than {_LONGEST_ANSWER:,} bytes")
    return bytes(body)


def _is_short(response: Response) -> bool:
    """Whether an answer tells its length, which a transfer encoding would overrule, and it is not too long."""
    length = _text(response, "content-length")
    if length is None or not length.isdecimal() or len(length) > len(str(_LONGEST_ANSWER)):
        return False
    return int(length) <= _LONGEST_ANSWER and "transfer-encoding" not in response.headers


def _failure(error: DetailedPyreqwestError) -> httpx.RequestError:
    """The failure as httpx names it."""
    if isinstance(error, RequestTimeoutError):
        return httpx.ReadTimeout("the exchange took too long")
    if isinstance(error, NetworkError) and not isinstance(_reason(error), ConnectionResetError):
        return httpx.ConnectError(_said(error))
    return httpx.RemoteProtocolError(_said(error))


def _reason(error: DetailedPyreqwestError) -> Exception:
    """The failure as Python's own libraries would have it, from the words of those below: they give no codes."""
    said = _said(error)
    if isinstance(error, RequestTimeoutError):
        return TimeoutError(said)
    for words, reason in _REASONS.items():
        if words in said:
            return reason(1, said) if issubclass(reason, ssl.SSLError) else reason(said)
    return error if isinstance(error, DecodeError) else OSError(said)


def _said(error: DetailedPyreqwestError) -> str:
    """The innermost cause, which says most."""
    causes = error.details["causes"]
    return causes[-1]["message"] if causes else error.message


_REASONS: Mapping[str, type[Exception]] = {
    "certificate": ssl.SSLCertVerificationError,
    "InvalidContentType": ssl.SSLError,
    "fatal alert": ssl.SSLError,
    "lookup address": socket.gaierror,
    "Connection refused": ConnectionRefusedError,
    "closed before message completed": ConnectionResetError,
    "reset by peer": ConnectionResetError,
    "end of file": EOFError,
    "Broken pipe": ConnectionResetError,
}
_LONGEST_ANSWER = 16 * 1024**2
_OPERATIONS = {"POST": "submit", "GET": "poll"}
_CLASSES = ("other", "1xx", "2xx", "3xx", "4xx", "5xx", "other", "other", "other", "other")


def kind_of(error: BaseException) -> ErrorType:
    """What went wrong with an exchange, whatever it is wrapped in: one of this client's, or of aiobotocore's."""
    causes = list(_causes(error))
    if any(isinstance(cause, ssl.SSLError) for cause in causes):
        return "tls"
    if any(isinstance(cause, httpx.TimeoutException | TimeoutError) for cause in causes):
        return "timeout"
    if any(isinstance(cause, httpx.ConnectError | OSError) for cause in causes):
        return "connect"
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
