"""A schema registry by the HTTP API that Confluent's has, and others speak: what is asked of it, and what it answers.

What is never: the text of a schema, or credentials, in an error.
"""

import asyncio
import ssl
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from importlib.util import find_spec
from typing import Any
from urllib.parse import quote

import httpx
import orjson

from service import settings
from service.errors import Misconfigured, Unavailable
from service.formats.framing import SchemaId
from service.formats.registered import Schema, Unusable
from service.observability.telemetry import RegistryTelemetry, Telemetry
from service.transport.http import kind_of
from service.transport.retry_after import retry_after

_MEDIA = "application/vnd.schemaregistry.v1+json"
_MOST_AT_ONCE = 4
_LONGEST = 1024**2
"""Bytes of an answer, and so of a schema, beyond which it is not read."""
_MOST_REFERENCES = 100
_REGISTRY_SAYS = "error_code"
_LONGEST_WORDS = 1_000


class Incompatible(Exception):
    """A subject does not take a schema; the message is the registry's."""


@asynccontextmanager
async def opened(branch: settings.Registry, telemetry: Telemetry) -> AsyncIterator["Registry"]:
    """The registry, for the length of the block. Raises Misconfigured."""
    if find_spec("fastavro") is None:
        raise Misconfigured("registry: a library is not installed: pip install 'labelstream[registry]'")
    headers = {"Accept": _MEDIA, "Accept-Encoding": "identity", "User-Agent": "labelstream"}
    secret, auth = branch.secret, None
    if branch.username is not None and secret is not None:
        auth = httpx.BasicAuth(branch.username, secret.get_secret_value())
    elif secret is not None:
        headers["Authorization"] = f"Bearer {secret.get_secret_value()}"
    async with httpx.AsyncClient(
        base_url=branch.url,
        auth=auth,
        headers=headers,
        verify=_trust(branch),
        timeout=None,  # noqa: S113  the whole exchange has one, below
        trust_env=not branch.on_this_machine,
    ) as http:
        yield Registry(branch, http, telemetry.registry_asked)


def _trust(branch: settings.Registry) -> ssl.SSLContext | bool:
    if not branch.url.startswith("https:"):
        return False
    try:
        return ssl.create_default_context(cafile=branch.ca_file)
    except OSError as error:  # ssl.SSLError is one
        raise Misconfigured(f"registry.ca_file: {branch.ca_file} is of no use: {error.strerror or error}") from None


class Registry:
    """What is asked of a registry. Every question raises Unavailable or Misconfigured, naming the setting."""

    def __init__(self, branch: settings.Registry, http: httpx.AsyncClient, telemetry: RegistryTelemetry) -> None:
        self._branch = branch
        self._http = http
        self._telemetry = telemetry
        self._turns = asyncio.Semaphore(_MOST_AT_ONCE)

    async def probe(self) -> None:
        """See that it is there, and lets us in."""
        status, said = await self._asked("probe", "GET", "schemas/types")
        if status != 200 or not isinstance(said, list):
            raise Misconfigured(
                f"registry.url: what is at {self._branch.url} is no schema registry with Confluent's API: it answers"
                f" schemas/types with {status} (Apicurio has that API under /apis/ccompat/v7)"
            )

    async def schema(self, name: SchemaId) -> Schema | None:
        """The schema of this number or GUID; None where there is none. Raises Unusable."""
        return await self._schema_at(f"schemas/ids/{name}" if isinstance(name, int) else f"schemas/guids/{name}")

    async def latest(self, subject: str) -> Schema | None:
        """The latest schema under a subject; None where there is none. Raises Unusable."""
        return await self._schema_at(f"subjects/{quote(subject, safe='')}/versions/latest")

    async def _schema_at(self, path: str) -> Schema | None:
        status, said = await self._asked("schema", "GET", path)
        if status == 404:
            return None
        kind, text, named = _schema(said)
        references: dict[tuple[str, int], str] = {}
        await self._collect(named, references, set())
        return Schema(kind, text, tuple(references.values()))

    async def subject(self, subject: str, kind: str, text: str, *, register: bool) -> int | None:
        """The number of a schema under a subject, where it is registered if need be; None where it is not there.

        Raises Incompatible.
        """
        path = f"subjects/{quote(subject, safe='')}" + ("/versions" if register else "")
        status, said = await self._asked("register" if register else "look_up", "POST", path, _body(kind, text))
        match status, said:
            case 404, _ if not register:
                return None
            case 200, {"id": int(number)}:
                return number
            case ((409 | 422), {"message": str(words)}):
                raise Incompatible(words[:_LONGEST_WORDS])
        raise Unavailable(f"registry: {self._branch.url} answers {path} with {status} and makes no sense")

    async def would_take(self, subject: str, kind: str, text: str) -> None:
        """See that a schema could be registered under a subject. Raises Incompatible."""
        path = f"compatibility/subjects/{quote(subject, safe='')}/versions/latest?verbose=true"
        match await self._asked("look_up", "POST", path, _body(kind, text)):
            case 200, {"is_compatible": False, **rest}:
                words = rest.get("messages")
                told = "; ".join(map(str, words)) if isinstance(words, list) else ""
                raise Incompatible(told[:_LONGEST_WORDS] or "it is not compatible with what is there")
            case ((409 | 422), {"message": str(words)}):
                raise Incompatible(words[:_LONGEST_WORDS])

    async def _collect(self, named: Any, found: dict[tuple[str, int], str], within: set[tuple[str, int]]) -> None:
        """Ask for the schemas that are named, each behind those that it names itself."""
        for each in named if isinstance(named, list) else ():
            match each:
                case {"subject": str(subject), "version": int(version)}:
                    place = (subject, version)
                case _:
                    raise Unusable("it refers to others in a way that makes no sense")
            if place in found or place in within:
                continue
            if len(found) + len(within) >= _MOST_REFERENCES:
                raise Unusable(f"it refers to more than {_MOST_REFERENCES} others")
            path = f"subjects/{quote(subject, safe='')}/versions/{version}?deleted=true"
            status, said = await self._asked("schema", "GET", path)
            if status == 404:
                raise Unusable(f"it refers to version {version} of {subject!r}, which the registry does not have")
            _, text, deeper = _schema(said)
            await self._collect(deeper, found, within | {place})
            found[place] = text

    async def _asked(self, operation: str, method: str, path: str, body: object = None) -> tuple[int, Any]:
        """The status and the parsed body of an answer that is the registry's own: of success, 404, 409 or 422."""
        began = time.monotonic()
        try:
            status, headers, content = await self._exchanged(method, path, body)
        except (httpx.HTTPError, httpx.InvalidURL, TimeoutError) as error:
            self._telemetry.request(operation, "error", time.monotonic() - began)
            raise self._unreachable(error) from None
        self._telemetry.request(operation, f"{status // 100}xx", time.monotonic() - began)
        try:
            said = orjson.loads(content)
        except orjson.JSONDecodeError:
            said = None
        if status in {401, 403}:
            raise Misconfigured(self._not_let_in(status, operation))
        if status in {404, 409, 422} and isinstance(said, dict) and _REGISTRY_SAYS in said:
            return status, said
        if status == 404 and operation == "probe":
            return status, said
        if status == 200 and said is not None:
            return status, said
        told = f"registry: {self._branch.url} answers {path.partition('?')[0]} with {status}"
        raise Unavailable(told + (", in no form of a schema registry" if status < 500 else ""), retry_after(headers))

    async def _exchanged(self, method: str, path: str, body: object) -> tuple[int, Mapping[str, str], bytes]:
        content = orjson.dumps(body) if body is not None else None
        sent = {"Content-Type": _MEDIA} if content is not None else {}
        async with (
            self._turns,
            asyncio.timeout(self._branch.request_timeout),
            self._http.stream(method, path, content=content, headers=sent) as answer,
        ):
            whole = bytearray()
            async for part in answer.aiter_bytes():
                whole += part
                if len(whole) > _LONGEST:
                    raise Unusable(f"it is longer than {_LONGEST:,} bytes")
            return answer.status_code, answer.headers, bytes(whole)

    def _unreachable(self, error: Exception) -> Unavailable:
        kind, told = kind_of(error), f"registry: {self._branch.url} cannot be asked"
        if kind == "tls":
            return Unavailable(f"{told}: its certificate is not one that registry.ca_file, or the system, trusts")
        if kind == "malformed_response":
            return Unavailable(f"{told}: its answer is broken off, too long, or no HTTP")
        why = "nobody answers there" if kind == "connect" else "there was no answer in registry.request_timeout"
        return Unavailable(f"{told}: {why}")

    def _not_let_in(self, status: int, operation: str) -> str:
        branch, right = self._branch, "write to the subjects of results" if operation == "register" else "read schemas"
        if branch.username is not None:
            which = "registry.username and registry.password (or password_file)"
        else:
            which = "registry.token (or token_file)"
        if branch.secret is None:
            return (
                f"registry: {branch.url} wants to know who asks ({status}): give registry.username, or registry.token"
            )
        if status == 401:
            return f"{which}: {branch.url} does not know these credentials (401)"
        return f"{which}: {branch.url} does not give whose credentials these are the right to {right} (403)"


def _body(kind: str, text: str) -> dict[str, str]:
    return {"schema": text} | ({"schemaType": kind} if kind != "AVRO" else {})


def _schema(said: Any) -> tuple[str, str, Any]:
    match said:
        case {"schema": str(text)}:
            return str(said.get("schemaType") or "AVRO"), text, said.get("references")
    raise Unusable("the registry says nothing of it that makes sense")
