"""The schemas that records name, known for ever, and the records that wait for those that are not known yet."""

import asyncio
import random
from collections.abc import Callable, Iterable

import structlog

from service.documents import Record
from service.errors import Unavailable
from service.formats.framing import SchemaId
from service.formats.registered import Decode, Schema, Unusable, decoder, refusing, schema_of
from service.registry.client import Registry

log = structlog.get_logger(__name__)

_ONCE_MORE = 1.0
"""Seconds after which it is asked again for a schema that is not there: a registry's replicas may lag its producers."""
_REFUSED_FOR = 60.0
"""Seconds after which it is asked again for one that was of no use: somebody may have seen to it."""
_FIRST_PAUSE = 0.5
_LONGEST_PAUSE = 30.0


class Schemas:
    """What reads the values of each schema, for all streams of a worker."""

    def __init__(self, registry: Registry) -> None:
        self.decoders: dict[SchemaId, Decode] = {}
        self._registry = registry
        self._turns: dict[SchemaId, asyncio.Lock] = {}
        self._is_away = False

    async def learn(self, name: SchemaId) -> None:
        """See that there is a decoder for a schema, asked for once however many want it.

        It waits as long as the registry cannot be asked. Raises Misconfigured.
        """
        turn = self._turns.setdefault(name, asyncio.Lock())
        async with turn:
            if name in self.decoders:
                return
            try:
                schema = await self._asked_for(name)
                self.decoders[name] = decoder(name, schema)
            except Unusable as error:
                self._refuse(name, str(error))
            else:
                log.info("schema_read", schema=str(name), kind=schema.kind)
            del self._turns[name]

    async def _asked_for(self, name: SchemaId) -> Schema:
        found = await self._answer(name)
        if found is None:
            await asyncio.sleep(_ONCE_MORE)
            found = await self._answer(name)
        if found is None:
            raise Unusable("the registry does not have it")
        return found

    def _refuse(self, name: SchemaId, why: str) -> None:
        log.warning("schema_refused", schema=str(name), reason=why)
        self.decoders[name] = refusing(f"schema {name}, which the record names, cannot be used: {why}")
        asyncio.get_running_loop().call_later(_REFUSED_FOR, self.decoders.pop, name, None)

    async def _answer(self, name: SchemaId) -> Schema | None:
        pause = _FIRST_PAUSE
        while True:
            try:
                answer = await self._registry.schema(name)
            except Unavailable as error:
                if not self._is_away:
                    self._is_away = True
                    log.warning("registry_away", reason=str(error))
                await asyncio.sleep(max(pause * random.uniform(0.5, 1), error.retry_after or 0))  # noqa: S311  no secret
                pause = min(_LONGEST_PAUSE, 2 * pause)
            else:
                if self._is_away:
                    self._is_away = False
                    log.info("registry_back")
                return answer


class Awaited:
    """The records of a stream that wait for their schemas, with the tasks that ask for these."""

    def __init__(self, schemas: Schemas) -> None:
        self._schemas = schemas
        self._records: dict[SchemaId, list[Record]] = {}
        self._asking: dict[SchemaId, asyncio.Task[None]] = {}

    def __len__(self) -> int:
        return sum(map(len, self._records.values()))

    def ready(
        self, records: Iterable[Record], under_way: asyncio.TaskGroup, read: Callable[[list[Record]], None]
    ) -> list[Record]:
        """Those of the records that can be read; `read` gets the others when their schemas are known."""
        ready = []
        for record in records:
            name = schema_of(record)
            if name is None or name in self._schemas.decoders:
                ready.append(record)
                continue
            if name not in self._records:
                self._records[name] = []
                self._asking[name] = under_way.create_task(self._learn(name, read))
            self._records[name].append(record)
        return ready

    async def _learn(self, name: SchemaId, read: Callable[[list[Record]], None]) -> None:
        await self._schemas.learn(name)
        del self._asking[name]
        read(self._records.pop(name))

    def drop(self, unwanted: Callable[[Record], bool]) -> list[Record]:
        """Take out what nobody wants any more, and ask no longer for what that alone has named."""
        dropped = list[Record]()
        for name, waiting in list(self._records.items()):
            dropped += filter(unwanted, waiting)
            if kept := [record for record in waiting if not unwanted(record)]:
                self._records[name] = kept
            else:
                del self._records[name]
                self._asking.pop(name).cancel()
        return dropped
