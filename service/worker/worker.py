"""`labelstream run`: every stream of a configuration, until told to stop."""

import asyncio
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import nullcontext

import structlog

from service import pipeline
from service.delivery import Sink
from service.dispatch import accounts
from service.dispatch.account import Account
from service.dispatch.dispatcher import Dispatcher
from service.errors import Misconfigured, Unavailable
from service.formats.results import Written, written
from service.jobs.ledger import Ledger, NoShelf
from service.observability import health, messages, tracing
from service.observability.telemetry import Telemetry
from service.process import settle_memory
from service.redaction import redaction
from service.registry import subjects
from service.registry.client import Registry, opened
from service.registry.schemas import Schemas
from service.routing.records import Routing
from service.routing.rules import Rules, check_classes
from service.settings import Kafka, Settings, Stream
from service.streams import kafka, kafka_notes, kafka_sink, kafka_transactions
from service.worker import sharing
from service.worker.reload import Reloading, at_each_hangup

log = structlog.get_logger(__name__)


async def work(
    settings: Settings,
    stop: asyncio.Event,
    started: Callable[[str], None] = lambda _: None,
    load: Callable[[], Settings] | None = None,
) -> None:
    """Run the streams until `stop` is set; `started` is told the health URL once all is open.

    What `load` gives at a SIGHUP takes the place of the settings, as far as that is safe.

    Raises (in an ExceptionGroup, or alone) Misconfigured or Unavailable, naming the setting.
    """
    async with tracing.opened(settings.tracing) as traced:
        await _work(settings, Telemetry(traced), stop, started, load)


async def _work(
    settings: Settings,
    telemetry: Telemetry,
    stop: asyncio.Event,
    started: Callable[[str], None],
    load: Callable[[], Settings] | None,
) -> None:
    rules = {stream.name: check_stream(stream) for stream in settings.streams}  # what makes no sense is told at once
    names = [name for stream in settings.streams for name in stream.accounts_asked]
    async with (
        messages.kept() as last,
        accounts.opened(settings.accounts, names, telemetry) as ready,
        health.served(health.app(telemetry, last), settings.health) as url,
        kafka_sink.producing(settings.kafka, telemetry) as sink,
        sharing.shared(settings.redis, settings.kafka.group_id, ready.values(), telemetry),
        opened(settings.registry, telemetry) if settings.registry is not None else nullcontext() as registry,
    ):
        forms = {stream.name: written(stream.results) for stream in settings.streams}

        async def check(settings: Settings) -> None:
            await check_topics(settings)
            if registry is not None:
                await _see_to_schemas(settings.streams, forms, registry)

        await check(settings)
        for stream in settings.streams:
            check_classes(stream, [accounts.classes(ready[name]) for name in stream.accounts_published])
            await accounts.probe(ready[name] for name in stream.accounts_asked)
        routings = {
            name: Routing(each, telemetry.tracing, classes_offered(each.stream, ready), forms[name])
            for name, each in rules.items()
        }
        schemas = Schemas(registry) if registry is not None else None
        async with asyncio.TaskGroup() as streams:
            beside = [streams.create_task(telemetry.watch_event_loop())]
            if load is not None:
                reloading = Reloading(settings, load, routings, ready, check)
                beside.append(streams.create_task(at_each_hangup(reloading.reload, stop)))
            running = [
                streams.create_task(
                    pipeline.run(
                        stream,
                        _source(settings.kafka, stream, telemetry),
                        sink,
                        Dispatcher(
                            [ready[name] for name in stream.accounts_asked], stream.priority, stream.document.most_parts
                        ),
                        telemetry=telemetry,
                        stop=stop,
                        ledger=_ledger(settings, stream, sink),
                        routing=routings[stream.name],
                        schemas=schemas,
                    )
                )
                for stream in settings.streams
            ]
            settle_memory()
            log.info("started", streams=[stream.name for stream in settings.streams], health=url)
            started(url)
            await asyncio.wait(running)
            for task in beside:
                task.cancel()
    log.info("stopped")


async def _see_to_schemas(streams: Sequence[Stream], forms: Mapping[str, Written | None], registry: Registry) -> None:
    """See that the registry lets us in, and that the schema of results is there where it is needed.

    Raises Misconfigured, and Unavailable where results cannot be written without it: what is read can be held.
    """
    try:
        await registry.probe()
        for stream in streams:
            if (form := forms[stream.name]) is not None:
                await subjects.number(stream, form, registry)
    except Unavailable as error:
        if any(form is not None for form in forms.values()):
            raise
        log.warning("registry_away", reason=str(error))


def _source(connection: Kafka, stream: Stream, telemetry: Telemetry) -> kafka.KafkaSource:
    if stream.delivery == "exactly_once":
        return kafka_transactions.TransactionalKafkaSource(connection, stream.input, telemetry)
    return kafka.KafkaSource(connection, stream.input)


def _ledger(settings: Settings, stream: Stream, sink: Sink) -> Ledger:
    if not settings.notes_jobs(stream):
        return Ledger(NoShelf())
    topic = stream.topic_of_jobs(settings.kafka.group_id)
    return Ledger(kafka_notes.KafkaNotes(settings.kafka, topic, sink))


def check_stream(stream: Stream) -> Rules:
    """See that routes and patterns of a stream make sense; gives the routes. Raises Misconfigured."""
    try:
        redaction(stream.redact, lambda _: None)
    except Misconfigured as error:
        raise Misconfigured(f"streams.{stream.name}.{error}") from None
    return Rules(stream)


def classes_offered(stream: Stream, ready: Mapping[str, Account]) -> Collection[str] | None:
    """The classes that reviewers of a stream choose from; None where there may be any."""
    if stream.review is not None and stream.review.classes:
        return stream.review.classes
    known = [accounts.classes(ready[name]) for name in stream.accounts_asked]
    told = [classes for classes in known if classes is not None]
    return {name for classes in told for name in classes} if len(told) == len(known) else None


async def check_topics(settings: Settings) -> None:
    """See that every topic is there. Raises Misconfigured naming those that are not, and where they are set."""
    wanted = {topic: where for stream in settings.streams for topic, where in _topics(stream).items()}
    if missing := await kafka.missing_topics(settings.kafka, wanted):
        raise Misconfigured(
            "\n".join(
                f"{wanted[topic]}: there is no topic {topic!r} that this user may see; create it, or correct the name"
                for topic in missing
            )
        )


def _topics(stream: Stream) -> dict[str, str]:
    where = dict.fromkeys(stream.otherwise, f"streams.{stream.name}.otherwise")
    where |= {topic: f"streams.{stream.name}.routes" for route in stream.routes for topic in route.to}
    if stream.review is not None:
        where[stream.review.decisions] = f"streams.{stream.name}.review.decisions"
    return where | {
        stream.dead_letter: f"streams.{stream.name}.dead_letter",
        stream.output: f"streams.{stream.name}.output",
        stream.input: f"streams.{stream.name}.input",
    }
