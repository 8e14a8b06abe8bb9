"""The AWS clients of an account: every call is paced by the account's limits, bounded in time, and measured.

The SDK signs and speaks the protocols, and does nothing of its own accord: it makes one attempt, and asks no address
but the region's own and those of the settings, whatever the environment holds (`AWS_ENDPOINT_URL` …). What a service
says in words is never kept, as it may quote a document: its codes are, and they are explained in words of ours.
"""

import asyncio
import re
import time
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from importlib.metadata import version
from typing import IO, Any, NamedTuple
from urllib.parse import urlsplit

import aiohttp
from aiobotocore.config import AioConfig
from aiobotocore.httpsession import AIOHTTPSession
from aiobotocore.session import get_session
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    CredentialRetrievalError,
    NoCredentialsError,
    PartialCredentialsError,
    TokenRetrievalError,
)
from botocore.parsers import ResponseParserError

from service import settings
from service.errors import CallFailed, Misconfigured, Throttled, Unavailable
from service.limits.gate import Limits
from service.observability.telemetry import AccountTelemetry
from service.transport.failures import NO_CODE, At, Rule, Then, first_that_fits
from service.transport.http import kind_of, kind_of_status
from service.transport.retry_after import retry_after

_CODE = re.compile(r"[A-Za-z][A-Za-z0-9_.]{0,63}")
_PART = 1024**2
_MOST_CONNECTIONS = 10_001
"""As many as `in_flight` may ever be, and one to look whether it is well."""
_KEY = "check access_key_id and secret_access_key, or the role that this process has"
_REGION = "check that the bucket is in the region of the ARN"
_CLOCK = "check this machine's clock"
RULES = (
    Rule(
        Then.WAIT,
        codes=(
            "ProvisionedThroughputExceededException",
            "RequestLimitExceeded",
            "RequestThrottled",
            "SlowDown",
            "Throttling",
            "ThrottlingException",
            "TooManyRequestsException",
        ),
    ),
    Rule(Then.WAIT, statuses=(429,)),
    Rule(Then.STOP, _REGION, codes=("AuthorizationHeaderMalformed", "PermanentRedirect")),
    Rule(Then.STOP, f"{_KEY}: these credentials have expired", codes=("ExpiredToken", "ExpiredTokenException")),
    Rule(
        Then.STOP,
        _KEY,
        codes=(
            "IncompleteSignature",
            "InvalidAccessKeyId",
            "InvalidClientTokenId",
            "InvalidToken",
            "MissingAuthenticationToken",
            "MissingAuthenticationTokenException",
            "UnrecognizedClientException",
        ),
    ),
    Rule(
        Then.STOP,
        f"{_KEY}, and this machine's clock",
        codes=("InvalidSignatureException", "SignatureDoesNotMatch"),
    ),
    Rule(Then.STOP, "check that the AWS account may use the service in this region", codes=("OptInRequired",)),
    Rule(Then.STOP, _CLOCK, codes=("RequestExpired", "RequestTimeTooSkewed")),
    Rule(Then.STOP, "check endpoint_url", codes=("UnknownOperationException",)),
    Rule(
        Then.STOP,
        "see that the credentials allow {permission}",
        codes=("AccessDenied", "AccessDeniedException", "NotAuthorized", "UnauthorizedOperation"),
    ),
    Rule(Then.STOP, "see that the credentials allow {permission}", statuses=(401, 403)),
    Rule(
        Then.HOLD,
        codes=("InternalError", "InternalFailure", "InternalServerException", "RequestTimeout", "ServiceUnavailable"),
    ),
    Rule(Then.HOLD, statuses=(408, 409, 425, *range(500, 600))),
    Rule(
        Then.HOLD,
        "not in the service's words, is something else at its address?",
        statuses=(400, 422, *range(400)),
        codes=(NO_CODE,),
    ),
    Rule(Then.STOP, "check endpoint_url", codes=(NO_CODE,)),
    Rule(Then.SPLIT, "unless the account's own rules, which come next, have the code"),
)
"""What is done about the failures of every service, whatever was asked."""
_PERMISSIONS = {"ListObjectsV2": "ListBucket"}  # those that are not called as the operation is
_BROKEN = (
    BotoCoreError,
    ResponseParserError,
    aiohttp.ClientError,
    OSError,  # TimeoutError among them
    # The parsers meet bodies of another shape than they expect with whatever Python raises.
    ArithmeticError,
    AttributeError,
    LookupError,
    RecursionError,
    TypeError,
    ValueError,
)
_WORDS = {
    "timeout": "it took too long",
    "tls": "TLS could not be agreed on ({0})",
    "connect": "it cannot be reached ({0})",
    "malformed_response": "it broke its answer off, or what came cannot be read ({0})",
}


class Service(NamedTuple):
    """A service of AWS, and the setting that may say where it is."""

    name: str
    url: str


COMPREHEND, S3 = Service("comprehend", "endpoint_url"), Service("s3", "storage_url")


class Declined(Exception):
    """A service understood a request and says no, and what that means depends on what was asked.

    `code` is its word for why, and `reasons` are the words that it adds to that; `codes` are all of these.
    """

    def __init__(self, message: str, code: str, reasons: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.code = code
        self.reasons = reasons
        self.codes = [*reasons, code]


class _Staying(AIOHTTPSession):  # type: ignore[misc]  # aiobotocore has no types
    """The SDK's connections, but for redirects: those would take documents and a token elsewhere."""

    async def _get_session(self, proxy_url: str | None) -> "_Plain":
        return _Plain(await super()._get_session(proxy_url))


class _Plain:
    def __init__(self, session: aiohttp.ClientSession) -> None:
        self._session = session

    async def request(self, method: str, **how: Any) -> aiohttp.ClientResponse:
        return await self._session.request(method, allow_redirects=False, **how)


class PacedAws:
    """The client of one AWS service that sends when the account's limits let it.

    `request_timeout` bounds each call, reading included. Operations are called as the SDK's methods are.
    """

    def __init__(self, client: Any, limits: Limits, telemetry: AccountTelemetry, request_timeout: float) -> None:
        self._client = client
        self._service = str(client.meta.service_model.service_name)
        self.host = urlsplit(client.meta.endpoint_url).netloc
        self._limits = limits
        self._telemetry = telemetry
        self._request_timeout = request_timeout

    def __repr__(self) -> str:
        return f"PacedAws({self._service!r}, {self.host!r})"

    async def call(self, operation: str, **parameters: Any) -> dict[str, Any]:
        """The answer to one request, an empty one where its body was cut short: the SDK does not see that.

        Raises Declined, and where it is plain whatever was asked Throttled, Unavailable and Misconfigured.
        """
        async with self._request(operation, self._request_timeout):
            answer: dict[str, Any] = await getattr(self._client, operation)(**parameters)
            return answer

    async def download(self, into: IO[bytes], most: int, **where: Any) -> bool:
        """Write an object of S3 into a file; False, and only a part of it, where it is longer than `most` bytes.

        Raises as `call`.
        """
        async with self._request("get_object", self._request_timeout):
            answer = await self._client.get_object(**where)
            async with answer["Body"] as body:
                left = most
                while part := await body.read(_PART):
                    left -= len(part)
                    if left < 0:
                        return False
                    await asyncio.to_thread(into.write, part)
        return True

    async def warm_up(self, operation: str, **parameters: Any) -> None:
        """Make one call whose outcome does not matter.

        The first call of a client makes its TLS context, in a thread; each deadline that cancels it would have the next
        one begin anew. So the SDK's own timeouts are all that bounds this one.
        """
        with suppress(CallFailed, Declined):
            async with self._request(operation, None):
                await getattr(self._client, operation)(**parameters)

    def malformed(self, what: str) -> Unavailable:
        """What it means that the service answered with this."""
        return Unavailable(f"{self.host} answered with {what}")

    @asynccontextmanager
    async def _request(self, operation: str, deadline: float | None) -> AsyncIterator[None]:
        await self._limits.request()
        began = time.monotonic()
        try:
            async with asyncio.timeout(deadline):
                yield
        except ClientError as error:
            status = _status(error)
            self._telemetry.request(operation, f"{status // 100}xx", time.monotonic() - began)
            failure = self._failure(error, status)
            self._telemetry.error(operation, "throttled" if isinstance(failure, Throttled) else kind_of_status(status))
            raise failure from None
        except (NoCredentialsError, PartialCredentialsError):
            raise Misconfigured(
                "no AWS credentials were found: set access_key_id, or give this process a role"
            ) from None
        except (CredentialRetrievalError, TokenRetrievalError) as error:
            raise Unavailable(f"the credentials of this process cannot be renewed ({type(error).__name__})") from None
        except _BROKEN as error:
            kind = kind_of(error)
            self._telemetry.request(operation, "error", time.monotonic() - began)
            self._telemetry.error(operation, kind)
            raise Unavailable(f"{self.host} did not answer: {_WORDS[kind].format(_root(error))}") from None
        self._telemetry.request(operation, "2xx", time.monotonic() - began)

    def _failure(self, error: ClientError, status: int) -> CallFailed | Declined:
        """What an answer without success means."""
        code = str(error.response.get("Error", {}).get("Code", ""))
        spelt = code if _CODE.fullmatch(code) else ""
        told = f"{self.host} answered {status} {spelt}".rstrip()
        rule = first_that_fits(RULES, At.REQUEST, status, (spelt or NO_CODE,))
        if rule.then is Then.SPLIT:
            return Declined(told, code, _reasons(error))
        permission = f"{self._service}:{_PERMISSIONS.get(error.operation_name, error.operation_name)}"
        return rule._replace(says=rule.says.format(permission=permission)).error(told, retry_after(_headers(error)))


@asynccontextmanager
async def opened(
    services: Iterable[Service],
    branch: settings.Comprehend | settings.ComprehendJobs,
    limits: Limits,
    telemetry: AccountTelemetry,
) -> AsyncIterator[list[PacedAws]]:
    """Clients of these services, which share their credentials, for the length of the block. Raises Misconfigured."""
    session, secret = get_session(), branch.secret
    async with AsyncExitStack() as stack:
        clients = []
        for service in services:
            endpoint_url = branch.urls.get(service.url)
            creating = session.create_client(
                service.name,
                region_name=branch.region,
                endpoint_url=endpoint_url,
                aws_access_key_id=branch.access_key_id,
                aws_secret_access_key=secret and secret.get_secret_value(),
                config=_config(branch, endpoint_url),
            )
            try:
                client = await stack.enter_async_context(creating)
            except BotoCoreError as error:
                raise Misconfigured(f"what this machine says of AWS cannot be used: {type(error).__name__}") from None
            clients.append(PacedAws(client, limits, telemetry, branch.request_timeout))
        yield clients


def _config(branch: settings.Comprehend | settings.ComprehendJobs, endpoint_url: str | None) -> AioConfig:
    on_this_machine = settings.is_loopback(urlsplit(endpoint_url or "").hostname or "")
    return AioConfig(
        http_session_cls=_Staying,
        connect_timeout=branch.connect_timeout,
        read_timeout=branch.request_timeout,
        max_pool_connections=_MOST_CONNECTIONS,  # the gate lets fewer out, and how many may change
        retries={"mode": "standard", "total_max_attempts": 1},
        user_agent=f"labelstream/{version('labelstream')}",  # the SDK's own is made anew for every request
        proxies={} if on_this_machine else None,
        ignore_configured_endpoint_urls=True,
        request_checksum_calculation="when_required",  # what stands in for S3 seldom knows the newer checksums
        response_checksum_validation="when_required",
        s3={"addressing_style": "path" if endpoint_url else "auto"},
        warm_up_loader_caches=True,
    )


def _status(error: ClientError) -> int:
    return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


def _reasons(error: ClientError) -> list[str]:
    """What the service says beside its code: `Reason`, and the `Reason` of its `Detail`."""
    response: Any = error.response
    detail = response.get("Detail")
    given = [response.get("Reason"), detail.get("Reason") if isinstance(detail, dict) else None]
    return [reason for reason in given if isinstance(reason, str) and _CODE.fullmatch(reason)]


def _headers(error: ClientError) -> Mapping[str, str]:
    """The headers of an answer: AWS asks for no patience in them, but what stands before it may."""
    metadata: Any = error.response.get("ResponseMetadata", {})
    return {name.lower(): value for name, value in metadata.get("HTTPHeaders", {}).items()}


def _root(error: BaseException) -> str:
    """What began it, by what the system calls it or by the name of its kind: other words may be the answer's own."""
    while cause := error.__cause__ or error.__context__:
        error = cause
    said = error.strerror if isinstance(error, OSError) else None
    return said or type(error).__name__
