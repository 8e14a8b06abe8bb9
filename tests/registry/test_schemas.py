import asyncio
from collections.abc import Callable

import pytest
from structlog.testing import capture_logs

from service.documents import Reason, Record, Refused
from service.errors import Misconfigured
from service.formats.framing import prefix
from service.formats.registered import value
from service.registry import schemas
from service.registry.schemas import Awaited, Schemas
from tests.records import record
from tests.registry.answering import UNKNOWN, Answering, answering, avro


def naming(number: int, offset: int = 0) -> Record:
    return record(offset, prefix(number) + b"\2a")


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(schemas, "_ONCE_MORE", 0.01)
    monkeypatch.setattr(schemas, "_FIRST_PAUSE", 0.01)


async def test_however_many_wait_for_a_schema_it_is_asked_for_once() -> None:
    async with answering({"GET /schemas/ids/7": avro("string")}, seconds=0.02) as (registry, server):
        known = Schemas(registry)
        await asyncio.gather(*(known.learn(7) for _ in range(50)))
        await known.learn(7)
        assert server.asked == {"GET /schemas/ids/7": 1}
        assert value(known.decoders, naming(7)) == "a"


async def asked(server: Answering, times: int) -> None:
    while server.asked.total() < times:  # noqa: ASYNC110  its client is not to wait for us
        await asyncio.sleep(0.001)


async def test_whoever_gives_up_leaves_the_question_to_the_next() -> None:
    async with answering({"GET /schemas/ids/7": avro("string")}) as (registry, server):
        server.goes_on.clear()
        known = Schemas(registry)
        first, second = asyncio.create_task(known.learn(7)), asyncio.create_task(known.learn(7))
        await asked(server, 1)
        first.cancel()
        await asked(server, 2)
        server.goes_on.set()
        await second
        assert 7 in known.decoders
        assert server.asked.total() == 2


async def test_few_questions_are_out_at_once() -> None:
    answers = {f"GET /schemas/ids/{number}": avro("string") for number in range(30)}
    async with answering(answers, seconds=0.01) as (registry, server):
        known = Schemas(registry)
        await asyncio.gather(*(known.learn(number) for number in range(30)))
        assert server.most_at_once == 4


async def test_an_outage_is_waited_out_and_told_once() -> None:
    answers = {"GET /schemas/ids/7": [(503, b""), (503, b""), (429, b""), avro("string")]}
    async with answering(answers) as (registry, server):
        known = Schemas(registry)
        with capture_logs() as logs:
            await known.learn(7)
    assert server.asked.total() == 4
    assert [line["event"] for line in logs] == ["registry_away", "registry_back", "schema_read"]


async def test_a_schema_that_is_not_there_is_asked_for_again_before_that_is_believed() -> None:
    async with answering({"GET /schemas/ids/7": [UNKNOWN, avro("string")]}) as (registry, _):
        known = Schemas(registry)
        await known.learn(7)
        assert value(known.decoders, naming(7)) == "a"


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (UNKNOWN, "the registry does not have it"),
        (avro(7), "it is no Avro schema"),
        ((200, {"schema": "message X", "schemaType": "PROTOBUF"}), "it is Protobuf, and only Avro and JSON are read"),
        ((200, {"schema": "message X"}), "it is not JSON"),
    ],
)
async def test_records_whose_schema_is_of_no_use_are_refused_until_it_is_asked_for_again(
    answer: object, why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(schemas, "_REFUSED_FOR", 0.05)
    answers = {"GET /schemas/ids/7": answer}
    async with answering(answers) as (registry, _):
        known = Schemas(registry)
        await known.learn(7)
        found = value(known.decoders, naming(7))
        assert isinstance(found, Refused)
        assert found.reason is Reason.UNDECODABLE
        assert found.message.startswith(f"schema 7, which the record names, cannot be used: {why}")
        answers["GET /schemas/ids/7"] = avro("string")
        async with asyncio.timeout(5):
            while 7 in known.decoders:  # noqa: ASYNC110  a timer takes it out, and tells nobody
                await asyncio.sleep(0.01)
        await known.learn(7)
        assert value(known.decoders, naming(7)) == "a"


async def test_wrong_credentials_are_not_waited_out() -> None:
    async with answering({"GET /schemas/ids/7": (401, {})}) as (registry, _):
        with pytest.raises(Misconfigured, match="registry"):
            await Schemas(registry).learn(7)


async def reading(awaited: Awaited, records: list[Record], read: Callable[[list[Record]], None]) -> None:
    async with asyncio.TaskGroup() as under_way:
        read(awaited.ready(records, under_way, read))


async def test_records_wait_for_their_own_schema_alone_and_keep_their_order() -> None:
    answers = {"GET /schemas/ids/7": avro("string"), "GET /schemas/ids/8": [(503, b"")] * 3 + [avro("string")]}
    async with answering(answers) as (registry, server):
        awaited, seen = Awaited(Schemas(registry)), list[list[Record]]()
        seven, eight = [naming(7, n) for n in range(3)], [naming(8, n) for n in range(3, 6)]
        unframed = record(9, b"{}")
        await reading(awaited, [seven[0], eight[0], seven[1], eight[1], unframed, seven[2], eight[2]], seen.append)
        assert seen == [[unframed], seven, eight]
        assert len(awaited) == 0
        seen.clear()
        await reading(awaited, seven, seen.append)
        assert seen == [seven]
        assert server.asked["GET /schemas/ids/7"] == 1


async def test_what_nobody_wants_any_more_is_asked_for_no_longer() -> None:
    async with answering({}) as (registry, server), asyncio.timeout(5):
        server.goes_on.clear()
        awaited, seen = Awaited(Schemas(registry)), list[list[Record]]()
        ours, theirs = naming(7, 1), naming(7, 2)
        async with asyncio.TaskGroup() as under_way:
            assert awaited.ready([ours, theirs], under_way, seen.append) == []
            await asyncio.sleep(0)
            assert awaited.drop(lambda each: each is theirs) == [theirs]
            assert len(awaited) == 1
            assert awaited.drop(lambda _: True) == [ours]
        assert seen == []
        assert len(awaited) == 0
        server.goes_on.set()
