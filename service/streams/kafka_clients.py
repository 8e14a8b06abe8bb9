"""How aiokafka's clients are made, started and ended: alike for the source, the sink and the look at topics.

What aiokafka 0.14 does that the code here guards against:

* A client whose start is cancelled, or gives up, while its first broker is silent forgets the connection that it has
  made, and nobody closes it.
* A `stop()` that does not come to its end leaves tasks, which connect anew once the connections are closed.
"""

import asyncio
import ssl
from collections.abc import Awaitable, Callable, Sequence
from contextvars import ContextVar
from functools import partial
from typing import Any
from weakref import WeakSet

import aiokafka.client
import structlog
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.conn import AIOKafkaConnection, create_conn
from aiokafka.errors import KafkaConnectionError, KafkaError
from aiokafka.helpers import create_ssl_context

from service import settings
from service.errors import Misconfigured, Unavailable

_STOP_PATIENCE = 5.0

log = structlog.get_logger(__name__)


def connection(kafka: settings.Kafka) -> dict[str, Any]:
    """What every client of the cluster is made with. Raises Misconfigured where a certificate cannot be used."""
    encrypted = kafka.protocol.endswith("SSL")
    password = kafka.password
    return {
        "bootstrap_servers": kafka.bootstrap_servers,
        "client_id": kafka.client_id,
        "request_timeout_ms": ms(kafka.request_timeout),
        "security_protocol": kafka.protocol,
        "ssl_context": _tls(kafka) if encrypted else None,
        "sasl_mechanism": kafka.sasl_mechanism if password else "PLAIN",
        "sasl_plain_username": kafka.sasl_username,
        "sasl_plain_password": password.get_secret_value() if password else None,
    }


def _tls(kafka: settings.Kafka) -> ssl.SSLContext:
    files = {"ca": kafka.ssl_ca_file, "cert": kafka.ssl_cert_file, "key": kafka.ssl_key_file}
    given = ", ".join(f"kafka.ssl_{name}_file {file}" for name, file in files.items() if file)
    try:
        context: ssl.SSLContext = create_ssl_context(
            cafile=_path(files["ca"]), certfile=_path(files["cert"]), keyfile=_path(files["key"])
        )
    except (OSError, ssl.SSLError) as error:
        raise Misconfigured(f"{given}: cannot be used: {error}") from None
    return context


_made: ContextVar["WeakSet[AIOKafkaConnection]"] = ContextVar("made")


async def _connected(*address: Any, **how: Any) -> AIOKafkaConnection:
    connection: AIOKafkaConnection = await create_conn(*address, **how)
    if (made := _made.get(None)) is not None:
        made.add(connection)
    return connection


async def started(part: Any, kafka: settings.Kafka) -> None:
    """Start a client. Raises Misconfigured or Unavailable."""
    aiokafka.client.create_conn = _connected
    made = WeakSet[AIOKafkaConnection]()
    before = _made.set(made)
    try:
        await _start(part, kafka)
    except BaseException:
        for connection in list(made):
            connection.close()
        raise
    finally:
        _made.reset(before)


async def _start(part: Any, kafka: settings.Kafka) -> None:
    try:
        await part.start()
    except (KafkaConnectionError, OSError, TimeoutError):
        raise Unavailable(
            f"kafka.bootstrap_servers: no broker of {kafka.bootstrap_servers} can be used over {kafka.protocol}"
            f" (unreachable, another kafka.security_protocol, or a wrong user or password)"
        ) from None
    except KafkaError as error:
        raise Misconfigured(f"kafka: {kafka.bootstrap_servers} refused us: {error!r}") from None


async def stopped(*endings: Callable[[], Awaitable[Any]]) -> None:
    """Let a client end, in bounded time, whatever its `stop()` does."""
    for ending in endings:
        task = asyncio.ensure_future(ending())
        await asyncio.wait([task], timeout=_STOP_PATIENCE)
        if not task.done():
            task.cancel()
            log.warning("client_did_not_stop", seconds=_STOP_PATIENCE)
        elif not task.cancelled() and task.exception() is not None:
            log.warning("client_stopped_badly", reason=repr(task.exception()))
    await asyncio.sleep(0)  # sockets are closed in the loop's next turn, and there may be no other


async def consumer_stopped(consumer: AIOKafkaConsumer) -> None:
    """Let a consumer end, in bounded time, with all that works for it."""
    await stopped(consumer.stop, partial(_end, _fetching, consumer), consumer._client.close)  # noqa: SLF001  see above


async def producer_stopped(producer: AIOKafkaProducer) -> None:
    """Let a producer end, in bounded time, with all that works for it."""
    await stopped(producer.stop, partial(_end, _sending, producer), producer.client.close)


def _fetching(consumer: AIOKafkaConsumer) -> list["asyncio.Task[Any]"]:
    if (fetcher := consumer._fetcher) is None:  # noqa: SLF001  see above
        return []
    return [fetcher._fetch_task, *fetcher._pending_tasks]  # noqa: SLF001  see above


def _sending(producer: AIOKafkaProducer) -> list["asyncio.Task[Any]"]:
    sending = producer._sender.sender_task  # noqa: SLF001  see above
    return [sending] if sending is not None else []


async def _end(working: Callable[[Any], Sequence["asyncio.Task[Any]"]], client: object) -> None:
    tasks = working(client)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def ms(seconds: float) -> int:
    """Milliseconds, as Kafka counts."""
    return round(seconds * 1000)


def _path(path: object) -> str | None:
    return str(path) if path else None
