"""`labelstream check`: open everything that `run` would open, and say what was found."""

import asyncio
import time
from collections.abc import Awaitable, Mapping, Sequence
from dataclasses import dataclass

from service import settings
from service.dispatch import accounts
from service.dispatch.account import Account
from service.documents import Document, Outcome, Position, Record, Refused
from service.errors import CallFailed, Misconfigured, Unavailable
from service.formats.results import written
from service.jobs.ledger import Ledger, NoShelf
from service.limits import costs
from service.observability import tracing
from service.observability.telemetry import Telemetry
from service.registry import subjects
from service.registry.client import Registry, opened
from service.routing.rules import check_classes
from service.settings import Settings, Stream
from service.streams import kafka_notes, kafka_transactions
from service.worker import sharing
from service.worker.worker import check_stream, check_topics

_PATIENCE = 60.0
"""Seconds that a probe document may take: jobs of one are done in a few."""
_USUAL = 500
"""Characters of the document whose price is told where none is sent."""


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at: what, whether it is as it should be, and what to do where it is not."""

    what: str
    ok: bool
    said: str


async def check(settings: Settings, probe: str | None = None) -> list[Finding]:
    """Everything that was looked at, whatever was wrong with the rest.

    With the text of a `probe`, each account is asked to classify that one document, and it is told what was billed.
    Without, no document is sent anywhere, and it is told what one would be billed.
    """
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
    if settings.registry is not None:
        findings += await _registry(settings.registry, settings.streams)
    if settings.tracing is not None:
        trying = tracing.rehearse(settings.tracing)
        findings.append(await _tried("tracing", trying, f"spans would go to {settings.tracing.endpoint}"))
    classes = dict[str, Sequence[str] | None]()
    for name in settings.accounts:
        found, classes[name] = await _account(settings, name, probe)
        findings += found
    findings += [
        _rules(stream, classes) for stream in settings.streams if stream.routes or stream.redact or stream.unsure
    ]
    return findings


def _rules(stream: Stream, classes: Mapping[str, Sequence[str] | None]) -> Finding:
    what = f"streams.{stream.name}.routes"
    try:
        check_stream(stream)
        check_classes(stream, [classes[name] for name in stream.accounts_published])
    except Misconfigured as error:
        return Finding(what, False, str(error))
    return Finding(what, True, f"routes and patterns of {stream.name} make sense")


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


async def _registry(branch: settings.Registry, streams: Sequence[Stream]) -> list[Finding]:
    try:
        async with opened(branch, Telemetry()) as asked:
            await asked.probe()
            findings = [Finding("registry", True, f"{branch.url} answers and lets us in")]
            for stream in streams:
                findings += await _schemas(stream, asked)
            return findings
    except (Misconfigured, Unavailable) as error:
        return [Finding("registry", False, str(error))]


async def _schemas(stream: Stream, asked: Registry) -> list[Finding]:
    findings, what = list[Finding](), f"streams.{stream.name}"
    if stream.document.format == "registry":
        try:
            findings.append(Finding(f"{what}.document.format", True, await subjects.look_at(stream, asked)))
        except Misconfigured as error:
            findings.append(Finding(f"{what}.document.format", False, str(error)))
    if (form := written(stream.results)) is not None:
        trying = subjects.rehearse(stream, form, asked)
        said = f"results of {stream.name} have a schema that is registered, or that a start can register"
        findings.append(await _tried(f"{what}.results", trying, said))
    return findings


async def _tried(what: str, trying: Awaitable[None], said: str) -> Finding:
    try:
        await trying
    except (Misconfigured, Unavailable) as error:
        return Finding(what, False, str(error))
    return Finding(what, True, said)


async def _account(whole: Settings, name: str, probe: str | None) -> tuple[list[Finding], Sequence[str] | None]:
    what, classes = f"accounts.{name}", None
    try:
        async with accounts.opened(whole.accounts, [name], Telemetry()) as ready:
            account = ready[name]
            classes = accounts.classes(account)
            await accounts.probe([account])
            said = f"{what} can be asked: {account.provider.model}, {account.provider.task}"
            if probe is None:
                return [Finding(what, True, said + _price(whole.accounts[name]))], classes
            return [Finding(what, True, said), await _probed(whole.accounts[name], account, probe)], classes
    except (Misconfigured, Unavailable) as error:
        return [Finding(what, False, str(error))], classes


def _price(branch: settings.Account) -> str:
    tariff = costs.tariff(branch)
    if tariff.per_unit is None:
        return ""
    return f"; a document of {_USUAL} characters would be billed {tariff.at_most(1, _USUAL):g} at most"


async def _probed(branch: settings.Account, account: Account, text: str) -> Finding:
    what = f"accounts.{account.name}.probe"
    if isinstance(branch, settings.ComprehendJobs):
        return Finding(what, True, f"{what}: not sent, as jobs through S3 take minutes, whatever is in them")
    now = time.time()
    document = Document(Record(Position("probe", 0, 0), 0, None, None), "probe", text, None, now)
    try:
        async with asyncio.timeout(_PATIENCE), account.limits.admit(len(text)):
            (outcome,) = await account.classify([document], Ledger(NoShelf()))
    except TimeoutError:
        told = f"there was no answer in {_PATIENCE:.0f} s, and there may be a bill for it all the same"
        return Finding(what, False, f"{what}: {told}")
    except CallFailed as error:
        return Finding(what, False, f"{what}: {error}")
    return Finding(what, not isinstance(outcome, Refused), f"{what}: {_told(outcome, account, time.time() - now)}")


def _told(outcome: Outcome, account: Account, seconds: float) -> str:
    if isinstance(outcome, Refused):
        return outcome.message
    classes = ", ".join(
        each.name + (f" {each.score:.2f}" if each.score is not None else "") for each in outcome.classes[:3]
    )
    tariff = account.limits.tariff
    bill = f"{outcome.units} units" + (f", {tariff.cost([outcome]):g}" if tariff.per_unit is not None else "")
    return f"{classes or 'no class'}, after {seconds:.1f} s; billed are {bill}"
