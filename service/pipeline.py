"""The story: read → batch → classify → route → publish → resolve → commit.

`run` is the whole of it for one stream; every command is this function with other edges. Lifetimes are indentation, so
leaving runs backwards: batches under way finish, the last commit is made, the source is left.
"""

import asyncio

from service.delivery import Sink
from service.dispatch.dispatcher import Dispatcher
from service.jobs.ledger import Ledger, NoShelf
from service.observability.telemetry import Telemetry
from service.registry.schemas import Schemas
from service.routing.records import Routing
from service.routing.rules import Rules
from service.settings import Stream
from service.source import Source
from service.work import Work


async def run(
    stream: Stream,
    source: Source,
    sink: Sink,
    dispatcher: Dispatcher,
    *,
    telemetry: Telemetry,
    stop: asyncio.Event,
    ledger: Ledger | None = None,
    routing: Routing | None = None,
    schemas: Schemas | None = None,
) -> None:
    """Classify the stream until its input ends or `stop` is set; what is out at a classifier then is waited for.

    A source that has transactions delivers exactly once, and the sink is not used; any other delivers at least once.
    Without a ledger, a restart knows nothing of the jobs that were under way. A `routing` is for who wants to change
    the stream's routes meanwhile, or has results
    written by a schema. Where records name theirs, `schemas` learns them; what comes meanwhile is held.

    Raises an ExceptionGroup with the Misconfigured that ended it; nothing unfinished is ever committed.
    """
    ledger, routing = ledger or Ledger(NoShelf()), routing or Routing(Rules(stream), telemetry.tracing)
    work = Work(
        stream,
        source,
        sink,
        dispatcher,
        ledger=ledger,
        telemetry=telemetry,
        stop=stop,
        routing=routing,
        schemas=schemas,
    )
    async with (
        work.trial.running(),
        source.opened(work),
        work.committing(),
        work.drained(),
        asyncio.TaskGroup() as under_way,
    ):
        while not stop.is_set():
            work.go_on(under_way)
            room = await work.room()
            records = await source.poll(room, timeout=work.patience())
            if records is None:
                work.flush(under_way)
                break
            if not stop.is_set():
                work.take(records, under_way)
