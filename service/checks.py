"""`labelstream check`: open everything that `run` would open, and say what was found."""

from collections.abc import Awaitable
from dataclasses import dataclass

from service import accounts, sharing
from service.errors import Misconfigured, Unavailable
from service.settings import Settings, Stream
from service.streams import kafka_notes, kafka_transactions
from service.telemetry import Telemetry
from service.worker import check_topics


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at: what, whether it is as it should be, and what to do where it is not."""

    what: str
    ok: bool
    said: str


async def check(settings: Settings) -> list[Finding]:
    """Everything that was looked at, whatever was wrong with the rest. No document is sent anywhere."""
    findings = [Finding("configuration", True, "every setting is valid")]
    try:
        await check_topics(settings)
    except (Misconfigured, Unavailable) as error:
        findings += [Finding("kafka", False, line) for line in str(error).splitlines()]
    else:
        findings.append(Finding("kafka", True, f"{settings.kafka.bootstrap_servers} answers and has every topic"))
        findings += [finding for stream in settings.streams for finding in await _stream(settings, stream)]
    if settings.redis is not None:
        trying = sharing.rehearse(settings.redis)
        findings.append(await _tried("redis", trying, f"{settings.redis.host} is there to share limits through"))
    for name in settings.accounts:
        findings.append(await _account(settings, name))
    return findings


async def _stream(settings: Settings, stream: Stream) -> list[Finding]:
    findings = []
    if stream.delivery == "exactly_once":
        trying = kafka_transactions.rehearse(settings.kafka, stream.input)
        findings.append(await _tried(f"streams.{stream.name}.delivery", trying, "transactions can be had"))
    if settings.notes_jobs(stream):
        topic = stream.topic_of_jobs(settings.kafka.group_id)
        trying = kafka_notes.rehearse(settings.kafka, topic, stream.input)
        said = f"{topic} is there for the jobs under way, or can be made"
        findings.append(await _tried(f"streams.{stream.name}.jobs_topic", trying, said))
    return findings


async def _tried(what: str, trying: Awaitable[None], said: str) -> Finding:
    try:
        await trying
    except (Misconfigured, Unavailable) as error:
        return Finding(what, False, str(error))
    return Finding(what, True, said)


async def _account(settings: Settings, name: str) -> Finding:
    what = f"accounts.{name}"
    try:
        async with accounts.opened(settings.accounts, [name], Telemetry()) as ready:
            await accounts.probe(ready.values())
            provider = ready[name].provider
            return Finding(what, True, f"{what} can be asked: {provider.model}, {provider.task}")
    except (Misconfigured, Unavailable) as error:
        return Finding(what, False, str(error))
