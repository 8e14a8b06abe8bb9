"""The whole pipeline on the real broker, in this process: what goes in, what comes out, what is committed."""

import asyncio
from collections import Counter
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import orjson
import pytest
from structlog.testing import capture_logs

from service import settings
from service.dispatch import accounts
from service.errors import Misconfigured, Unavailable
from service.observability.telemetry import Telemetry
from service.offsets import Mark
from service.streams.kafka import KafkaSource
from tests.kafka import topics
from tests.kafka.tickets import MAKE_TOPIC, PATIENCE, Tickets, Words, account, running, until
from tests.kafka.topics import read
from tests.kafka.workers import small_model


async def test_every_document_is_answered_once_and_the_commit_is_the_end(
    bootstrap: str, topic: MAKE_TOPIC, delivery: str
) -> None:
    tickets, words = Tickets(bootstrap, topic, delivery=delivery), Words()
    tickets.fill(
        [topics.document(number) for number in range(500)], key=b"k", headers=[("trace", b"1"), ("none", None)]
    )
    async with running(tickets, words):
        await tickets.are_done()
    results = tickets.results()
    assert len(results) == 500
    assert set(topics.counted(results).values()) == {1}
    assert {orjson.loads(each.value or b"")["id"] for each in results} == {f"T-{number}" for number in range(500)}
    for each in results:
        assert (each.key, each.partition) == (b"k", each.source.partition)
        assert each.headers == [("trace", b"1"), ("none", None), ("labelstream-id", f"tickets:{each.source}".encode())]
    assert set(words.asked.values()) == {1}
    assert await tickets.committed() == tickets.ends()


@pytest.fixture(params=["at_least_once", "exactly_once"])
def delivery(request: pytest.FixtureRequest) -> str:
    return str(request.param)


BAD = {
    b"\xff\xfe not JSON": b"undecodable",
    b'{"id": "cut off", "text": "th': b"undecodable",
    b"": b"undecodable",
    b'"a string"': b"missing_text",
    b'{"id": "nothing to read"}': b"missing_text",
    b'{"id": "a number", "text": 7}': b"missing_text",
    b'{"id": "white", "text": " \\n\\t "}': b"empty_text",
    b'{"id": "long", "text": "' + b"x" * 5_001 + b'"}': b"too_long",
    b'{"id": "large", "text": "' + b"x" * 2_000_000 + b'"}': b"too_long",
    b'{"id": "refused", "text": "an unspeakable word"}': b"refused_by_classifier",
    None: b"tombstone",
}


async def test_bad_records_become_dead_letters_with_the_reason_and_their_bytes_while_the_rest_flows(
    bootstrap: str, topic: MAKE_TOPIC, delivery: str
) -> None:
    tickets = Tickets(
        bootstrap,
        lambda *a, **k: topic(*a, **{"config": {"max.message.bytes": str(4 * 1024**2)}, **k}),
        delivery=delivery,
    )
    good = [topics.document(number) for number in range(50)]
    mixed = [value for pair in zip(good, [*BAD] * 5, strict=False) for value in pair]
    tickets.fill(mixed, key=b"\x00k", headers=[("trace", b"\xff"), ("none", None)])
    async with running(tickets, Words()):
        await tickets.are_done()
    letters = tickets.letters()
    assert Counter(letter.value for letter in letters) == Counter(mixed) - Counter(good)
    for letter in letters:
        assert letter.key == b"\x00k"
        assert letter.headers[:2] == [("trace", b"\xff"), ("none", None)]
        assert letter.header("labelstream-error-type") == BAD[letter.value]
        assert letter.header("__connect.errors.topic") == tickets.stream.input.encode()
    where = {
        (letter.header("__connect.errors.partition"), letter.header("__connect.errors.offset")) for letter in letters
    }
    assert len(where) == len(letters)
    results = tickets.results()
    assert topics.counted(results).total() == len(results) == len(good)


async def test_a_result_too_large_for_its_topic_becomes_a_dead_letter_and_the_rest_flows(
    bootstrap: str, topic: MAKE_TOPIC, delivery: str
) -> None:
    tickets = Tickets(bootstrap, topic, delivery=delivery)
    large = b'{"id": "%b", "text": "late"}' % (b"x" * 1_048_200)  # fits its topic, and nothing can be added to it
    good = [topics.document(number) for number in range(40)]
    tickets.fill(good)
    tickets.fill([large], key=b"k")
    async with running(tickets, Words()):
        await tickets.are_done()
    (letter,) = tickets.letters()
    assert (letter.key, letter.value) == (b"k", large)
    assert letter.header("labelstream-error-type") == b"result_too_large"
    assert letter.header("labelstream-attempts") == b"1"
    assert topics.counted(tickets.results()).total() == len(good)


async def test_unwanted_tombstones_are_passed_over_and_committed(
    bootstrap: str, topic: MAKE_TOPIC, delivery: str
) -> None:
    tickets = Tickets(bootstrap, topic, delivery=delivery, tombstones="skip")
    tickets.fill([None, topics.document(1), None], key=b"k", partition=0)
    async with running(tickets, Words()):
        async with asyncio.timeout(PATIENCE):
            while await tickets.committed() != {0: Mark(3)}:  # noqa: ASYNC110
                await asyncio.sleep(0.05)
    assert tickets.letters() == []
    assert len(tickets.results()) == 1


async def test_while_the_classifier_holds_nothing_is_committed_and_the_group_is_kept(
    bootstrap: str, topic: MAKE_TOPIC, delivery: str
) -> None:
    tickets, words = Tickets(bootstrap, topic, delivery=delivery, capacity={"documents": 20}), Words()
    tickets.fill([topics.document(number) for number in range(200)])
    words.answers.clear()
    words.failures = [Unavailable("down"), Unavailable("down")]
    async with running(tickets, words):
        await until(lambda: len(words.asked) == 20)
        (member,) = topics.members(bootstrap, tickets.kafka.group_id)
        assert await tickets.committed() == {}
        assert tickets.letters() == []
        words.answers.set()
        await tickets.are_done()
        assert set(topics.members(bootstrap, tickets.kafka.group_id)) == {member}
    assert topics.counted(tickets.results()).total() == 200


async def test_a_run_that_has_ended_for_a_wrong_setting_is_gone_on_with_where_it_was(
    bootstrap: str, topic: MAKE_TOPIC, delivery: str
) -> None:
    tickets, words = Tickets(bootstrap, topic, delivery=delivery), Words()
    tickets.fill([topics.document(number) for number in range(100)])
    words.failures = [Misconfigured("the key is wrong")]
    with pytest.raises(ExceptionGroup) as ended:
        async with running(tickets, words):
            await tickets.are_done()
    assert ended.group_contains(Misconfigured, match="the key is wrong", depth=None)
    assert await tickets.committed() != tickets.ends()
    async with running(tickets, words):
        await tickets.are_done()
    assert set(topics.counted(tickets.results()).values()) == {1}
    assert len(tickets.results()) == 100


async def test_a_stop_keeps_what_is_out_and_leaves_what_waits(bootstrap: str, topic: MAKE_TOPIC, delivery: str) -> None:
    tickets, words = Tickets(bootstrap, topic, delivery=delivery), Words()
    tickets.fill([topics.document(number) for number in range(300)])
    words.answers.clear()
    async with running(tickets, words) as stop:
        await until(lambda: len(words.asked) == 40)  # four calls of ten documents
        stop.set()
        await asyncio.sleep(0)
        words.answers.set()
    assert topics.counted(tickets.results()).total() == 40
    assert len(words.asked) == 40
    async with running(tickets, words):
        await tickets.are_done()
    assert set(words.asked.values()) == {1}
    assert len(topics.counted(tickets.results())) == 300


async def test_two_members_of_one_process_share_the_work_and_hand_it_over(
    bootstrap: str, topic: MAKE_TOPIC, delivery: str
) -> None:
    tickets, words = Tickets(bootstrap, topic, delivery=delivery, partitions=4), Words()
    words.pause = 0.1  # so that something is out at every moment
    fed = 0

    def shared_by(count: int) -> bool:
        nonlocal fed
        if fed - len(words.asked) < 200:  # documents keep coming
            tickets.fill([topics.document(number) for number in range(fed, fed + 200)])
            fed += 200
        return sorted(map(len, topics.members(bootstrap, tickets.kafka.group_id).values())) == [4 // count] * count

    async with running(tickets, words):
        await until(lambda: shared_by(1))
        async with running(tickets, words):
            await until(lambda: shared_by(2))
        await until(lambda: shared_by(1))
        await tickets.are_done()
    assert set(words.asked.values()) == {1}
    results = topics.counted(tickets.results())
    assert len(results) == results.total() == fed


async def test_the_embedded_model_answers(bootstrap: str, topic: MAKE_TOPIC, tmp_path: Path) -> None:
    tickets = Tickets(bootstrap, topic, routes=[{"class": "access", "at_least": 0.5, "to": (access := topic())}])
    texts = ["my password 99 is not accepted", "the parcel number 77 has not arrived"] * 50
    tickets.fill([orjson.dumps({"id": number, "text": text}) for number, text in enumerate(texts)])
    local = settings.Local(provider="local", model=small_model(tmp_path / "model"))
    telemetry = Telemetry()
    async with (
        accounts.opened({"words": local}, ["words"], telemetry) as ready,
        tickets.running(ready["words"], telemetry),
    ):
        await tickets.are_done()
    results = [orjson.loads(each.value or b"") for each in tickets.results()]
    assert {int(each["id"]): each["best"]["name"] for each in results} == {
        number: ("access", "delivery")[number % 2] for number in range(100)
    }
    assert len(results) == 100
    copies = [orjson.loads(each.value or b"")["id"] for each in read(bootstrap, access)]
    assert sorted(map(int, copies)) == list(range(0, 100, 2))


@pytest.mark.parametrize(
    "gets_stuck",
    [lambda source: source._consumer._fetcher._fetch_task.cancel(), lambda source: source._settled.clear()],
    ids=["reading", "rebalancing"],
)
async def test_a_consumer_that_hears_nothing_any_more_is_replaced(
    bootstrap: str, topic: MAKE_TOPIC, delivery: str, gets_stuck: Callable[[KafkaSource], object]
) -> None:
    tickets = Tickets(bootstrap, topic, delivery=delivery, kafka={"rebalance_timeout": 1.0})
    words, telemetry = Words(), Telemetry()
    source = tickets.source(telemetry)
    tickets.fill([topics.document(number) for number in range(100)])
    with capture_logs() as log:
        async with tickets.running(account(words, telemetry), telemetry, source):
            await tickets.are_done()
            gets_stuck(source)
            tickets.fill([topics.document(number) for number in range(100, 200)])
            await tickets.are_done()
    assert [line["topic"] for line in log if line["event"] == "consumer_replaced"][:1] == [tickets.stream.input]
    assert topics.counted(tickets.results()).total() == len(topics.counted(tickets.results())) == 200


async def test_a_member_with_a_name_comes_back_without_a_rebalance(bootstrap: str, topic: MAKE_TOPIC) -> None:
    tickets, words = Tickets(bootstrap, topic, partitions=4, kafka={"session_timeout": 10.0}), Words()
    tickets.fill([topics.document(number) for number in range(100)])
    async with named(tickets, words, "pod-0"), asyncio.timeout(PATIENCE):
        async with named(tickets, words, "pod-1"):
            await until(lambda: len(topics.members(bootstrap, tickets.kafka.group_id)) == 2)
            await tickets.are_done()
        with capture_logs() as log:
            tickets.fill([topics.document(number) for number in range(100, 200)])
            async with named(tickets, words, "pod-1"):
                await tickets.are_done()
        assert [line for line in log if line["event"] == "partitions_revoked"] == []
    assert topics.counted(tickets.results()).total() == len(topics.counted(tickets.results())) == 200


async def test_of_two_members_with_one_name_the_earlier_ends_and_says_why(bootstrap: str, topic: MAKE_TOPIC) -> None:
    tickets, words = Tickets(bootstrap, topic), Words()
    words.pause = 0.02
    tickets.fill([topics.document(number) for number in range(300)])
    begun = asyncio.Event()

    async def later() -> None:
        await until(lambda: words.answered > 0)
        async with named(tickets, words, "pod-0"):
            begun.set()
            await tickets.are_done()

    async def earlier() -> None:
        async with named(tickets, words, "pod-0"):
            await begun.wait()
            await second

    second = asyncio.create_task(later())
    with pytest.raises(ExceptionGroup) as ended:
        await earlier()
    assert ended.group_contains(Misconfigured, match="group_instance_id 'pod-0'", depth=None)
    await second
    assert len(topics.counted(tickets.results())) == 300


def named(tickets: Tickets, words: Words, name: str) -> AbstractAsyncContextManager[asyncio.Event]:
    telemetry = Telemetry()
    connection = tickets.kafka.model_copy(update={"group_instance_id": name})
    source = KafkaSource(connection, tickets.stream.input)
    return tickets.running(account(words, telemetry), telemetry, source)
