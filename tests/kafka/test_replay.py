"""`labelstream replay` on a real broker: what comes back, what stays, and that nothing is lost or sent twice."""

import asyncio
import signal
import time
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import orjson
import pytest
from confluent_kafka import Consumer, Producer

from service.documents import Message, Position, Reason, Record, Refused
from service.offsets import Mark
from service.routing.records import dead_letter
from service.settings import Stream
from tests.commands import NOWHERE, labelstream, started, tree, write_config
from tests.kafka.broker import Broker
from tests.kafka.tickets import Tickets, Words, running
from tests.kafka.topics import PATIENCE, Read, committed, fill, read

LOCAL = {"provider": "local", "model": "nowhere"}
"""No account is asked by this command."""
MakeTopic = Callable[..., str]


class Desk:
    """A stream with dead letters, and the command that sends them back."""

    def __init__(self, bootstrap: str, topic: MakeTopic, folder: Path, partitions: int = 3, **changed: Any) -> None:
        self.bootstrap = bootstrap
        config = changed.pop("config", {})
        self.topics = topic(partitions, config), topic(), topic(partitions, {"max.message.bytes": str(4 * 1024**2)})
        settings = tree(bootstrap, LOCAL, self.topics, **changed)
        self.config = write_config(folder / "config.yaml", settings)
        self.group = f"{settings['kafka']['group_id']}.replay.tickets"
        self.stream = Stream.model_validate(settings["streams"][0])

    def letter(self, number: int, reason: Reason = Reason.REFUSED_BY_CLASSIFIER, **about: Any) -> Message:
        value = about.pop("value", f"document {number}".encode())
        headers = about.pop("headers", [("own", b"%d" % number)])
        position = Position(self.topics[0], about.pop("partition", number % 3), number)
        read = Record(position, 0, about.pop("key", b"key %d" % number), value, headers)
        return dead_letter(self.stream, read, Refused(reason, "for a test"), **about)

    def put(self, letters: Sequence[Message]) -> None:
        for letter in letters:
            self.put_raw(letter.value, key=letter.key, headers=letter.headers, partition=letter.source.partition)

    def put_raw(self, value: bytes | None, **more: Any) -> None:
        fill(self.bootstrap, self.topics[2], [value], **more)

    def put_many(self, count: int) -> None:
        for partition in range(3):
            letter = self.letter(partition)
            values = [f"document {n}".encode() for n in range(partition, count, 3)]
            fill(self.bootstrap, self.topics[2], values, partition=partition, key=b"k", headers=letter.headers)

    def replay(self, *options: object) -> dict[str, Any]:
        run = labelstream("replay", "--config", self.config, "--json", *options)
        assert run.returncode == 0, run.stderr
        summary: dict[str, Any] = orjson.loads(run.stdout)
        assert summary["finished"]
        return summary

    def back(self) -> list[Read]:
        """What a worker would read."""
        return read(self.bootstrap, self.topics[0])

    def seen(self) -> list[bytes | None]:
        """The values that a worker would read, which sees what is committed and nothing else."""
        consumer = Consumer(
            {
                "bootstrap.servers": self.bootstrap,
                "group.id": f"{self.group}.looking",
                "auto.offset.reset": "earliest",
                "enable.auto.commit": False,
                "enable.partition.eof": True,
                "isolation.level": "read_committed",
            }
        )
        consumer.subscribe([self.topics[0]])
        found, ended, deadline = list[bytes | None](), 0, time.monotonic() + PATIENCE
        try:
            while ended < 3:
                assert time.monotonic() < deadline
                for message in consumer.consume(1000, 0.5):
                    if message.error() is None:
                        found.append(message.value())
                    else:
                        ended += 1
        finally:
            consumer.close()
        return found

    def is_past(self, count: int) -> bool:
        """Whether so many letters have been dealt with."""
        return sum(mark.offset for mark in self.marks().values()) >= count

    def marks(self) -> dict[int, Mark]:
        return asyncio.run(committed(self.bootstrap, self.group, self.topics[2]))


@pytest.fixture
def desk(bootstrap: str, topic: MakeTopic, tmp_path: Path) -> Desk:
    return Desk(bootstrap, topic, tmp_path)


def values(found: Sequence[Read]) -> list[bytes | None]:
    return sorted((each.value for each in found), key=lambda value: value or b"")


def test_a_letter_goes_back_as_the_document_it_was_to_where_it_was(desk: Desk) -> None:
    odd = [("own", b"\x00\xff"), ("own", b"twice"), ("empty", b"")]
    desk.put([desk.letter(4, value=b"\x00 no text", key=b"\xff", headers=odd, attempts=2)])
    desk.put([desk.letter(5, key=None, partition=2)])
    summary = desk.replay()
    assert (summary["sent"], summary["reasons"]) == (2, {"refused_by_classifier": 2})
    first, second = desk.back()
    assert (first.key, first.value, first.partition) == (b"\xff", b"\x00 no text", 1)
    assert first.headers == [*odd, ("labelstream-redrives", b"1")]
    assert (second.key, second.partition) == (None, 2)


def test_what_was_sent_back_is_not_sent_again_and_what_came_since_is(desk: Desk) -> None:
    desk.put([desk.letter(n) for n in range(9)])
    assert desk.replay()["sent"] == 9
    assert {mark.metadata for mark in desk.marks().values()} == {""}
    assert desk.replay()["sent"] == 0
    desk.put([desk.letter(9)])
    assert desk.replay()["sent"] == 1
    assert values(desk.back()) == [f"document {n}".encode() for n in range(10)]


def test_nothing_there_is_nothing_sent(desk: Desk) -> None:
    assert desk.replay()["sent"] == 0
    assert labelstream("replay", "--config", desk.config).returncode == 0


def test_what_a_filter_leaves_is_there_for_another_run(desk: Desk) -> None:
    reasons = [Reason.TOO_LONG, Reason.UNDECODABLE, Reason.REFUSED_BY_CLASSIFIER]
    desk.put([desk.letter(n, reasons[n % 3], partition=0) for n in range(12)])
    summary = desk.replay("--reason", "too_long")
    assert (summary["sent"], summary["not_asked_for"]) == (4, 8)
    assert desk.replay("--reason", "too_long")["sent"] == 0
    assert desk.replay("--reason", "undecodable", "--reason", "too_long", "--limit", 3)["sent"] == 3
    assert desk.replay()["sent"] == 5
    assert values(desk.back()) == sorted(f"document {n}".encode() for n in range(12))
    assert desk.marks()[0] == Mark(12)


def test_a_time_chooses_letters_and_leaves_the_others(desk: Desk) -> None:
    desk.put([desk.letter(0), desk.letter(1)])
    time.sleep(0.05)
    noon = time.time()
    time.sleep(0.05)
    desk.put([desk.letter(2), desk.letter(3)])
    at = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(noon)) + f".{int(noon % 1 * 1000):03d}Z"
    assert desk.replay("--since", "0s")["sent"] == 0
    assert desk.replay("--since", at)["sent"] == 2
    assert values(desk.back()) == [b"document 2", b"document 3"]
    assert desk.replay("--since", at)["sent"] == 0
    assert desk.replay("--until", at)["sent"] == 2
    assert desk.replay("--since", "1h")["sent"] == 0
    assert len(desk.back()) == 4


def test_a_dry_run_says_what_a_run_would_do_and_does_nothing(desk: Desk) -> None:
    desk.put([desk.letter(0), desk.letter(1, Reason.TOO_LONG)])
    summary = desk.replay("--dry-run")
    assert (summary["sent"], summary["dry_run"]) == (2, True)
    assert summary["reasons"] == {"refused_by_classifier": 1, "too_long": 1}
    assert (desk.back(), desk.marks()) == ([], {})
    shown = labelstream("replay", "--config", desk.config, "--dry-run")
    assert "would be sent back" in shown.stdout
    assert "looking at the dead letters of tickets" in shown.stderr


def test_what_was_sent_back_as_often_as_is_allowed_stays(desk: Desk) -> None:
    for count in (b"0", b"2", b"3", b"99", b"no number"):
        desk.put([desk.letter(1, value=count, headers=[("labelstream-redrives", count)])])
    summary = desk.replay()
    assert (summary["sent"], summary["at_the_cap"]) == (3, 2)
    back = {each.value: each.header("labelstream-redrives") for each in desk.back()}
    assert back == {b"0": b"1", b"2": b"3", b"no number": b"1"}


def test_letters_that_are_not_this_streams_stay(desk: Desk) -> None:
    other = desk.letter(0)
    headers = [(name, b"another" if name == "labelstream-stream" else value) for name, value in other.headers]
    desk.put([other._replace(headers=headers)])
    desk.put_raw(b"by hand", headers=[("why", b"nobody knows")], key=b"k")
    desk.put_raw(b"of a later version", headers=[("labelstream-error-type", b"too_dull")], key=b"k")
    summary = desk.replay()
    assert (summary["sent"], summary["of_other_streams"], summary["not_asked_for"]) == (0, 1, 2)
    assert desk.replay("--reason", "other")["sent"] == 2
    assert values(desk.back()) == [b"by hand", b"of a later version"]
    assert desk.replay("--reason", "other")["sent"] == 0


def test_a_tombstone_goes_back_as_one(desk: Desk) -> None:
    desk.put([desk.letter(1, Reason.TOMBSTONE, value=None)])
    assert desk.replay()["sent"] == 1
    assert [(each.key, each.value) for each in desk.back()] == [(b"key 1", None)]


def test_a_letter_that_is_not_whole_stays(desk: Desk) -> None:
    whole = desk.letter(1, value=b"")
    desk.put([whole._replace(headers=[*whole.headers, ("labelstream-value-omitted", b"9 bytes")])])
    summary = desk.replay()
    assert (summary["sent"], summary["not_whole"]) == (0, 1)


def test_two_megabytes_go_back_where_the_input_takes_them_and_stay_with_nothing_else_where_not(
    bootstrap: str, topic: MakeTopic, tmp_path: Path
) -> None:
    large = bytes(n * n % 251 for n in range(1000)) * 2000
    roomy = Desk(bootstrap, topic, tmp_path, config={"max.message.bytes": str(4 * 1024**2)})
    roomy.put([roomy.letter(1, value=large)])
    assert roomy.replay()["sent"] == 1
    assert [each.value for each in roomy.back()] == [large]
    narrow = Desk(bootstrap, topic, tmp_path, config={"max.message.bytes": "2000"})
    narrow.put([narrow.letter(n, value=large if n % 4 == 0 else None, partition=0) for n in range(8)])
    summary = narrow.replay()
    assert (summary["sent"], summary["too_large"]) == (6, 2)
    assert Counter(each.key for each in narrow.back()) >= Counter(b"key %d" % n for n in range(8) if n % 4)
    assert narrow.seen() == [None] * 6
    assert narrow.replay()["sent"] == 0


def test_letters_of_a_transaction_that_is_still_open_are_left_to_the_next_run(desk: Desk) -> None:
    worker = Producer({"bootstrap.servers": desk.bootstrap, "transactional.id": desk.group + "-worker"})
    worker.init_transactions(PATIENCE)
    worker.begin_transaction()
    letter = desk.letter(0)
    worker.produce(desk.topics[2], letter.value, letter.key, 0, headers=list(letter.headers))
    assert worker.flush(PATIENCE) == 0
    desk.put([desk.letter(3), desk.letter(1)])
    assert desk.replay()["sent"] == 1
    worker.commit_transaction(PATIENCE)
    assert desk.replay()["sent"] == 2
    assert sorted(desk.seen(), key=str) == [b"document 0", b"document 1", b"document 3"]
    assert desk.replay()["sent"] == 0


def test_a_run_that_is_killed_time_and_again_loses_nothing_and_repeats_nothing(desk: Desk, tmp_path: Path) -> None:
    desk.put_many(6000)
    kills = 0
    for least in (500, 1500, 2500, 3500):
        with started(tmp_path, "replay", "--config", desk.config, "--json") as run:
            run.wait_until(partial(desk.is_past, least))
            kills += run.ended_by(signal.SIGKILL) == -signal.SIGKILL
    assert kills == 4
    summary = desk.replay()
    assert 0 < summary["sent"] <= 6000 - 3500
    assert sorted(desk.seen()) == sorted(f"document {n}".encode() for n in range(6000))  # type: ignore[type-var]
    assert sum(mark.offset for mark in desk.marks().values()) == 6000


def test_a_run_that_is_asked_to_stop_says_so_and_the_next_goes_on(desk: Desk, tmp_path: Path) -> None:
    desk.put_many(6000)
    with started(tmp_path, "replay", "--config", desk.config, "--json") as run:
        run.wait_until(partial(desk.is_past, 500))
        assert run.ended_by(signal.SIGTERM) == 130
        first = orjson.loads(run.line())
    assert not first["finished"]
    assert first["sent"] + desk.replay()["sent"] == 6000
    assert len(desk.seen()) == 6000


def test_a_run_beside_another_takes_over_from_it(desk: Desk, tmp_path: Path) -> None:
    desk.put_many(6000)
    with started(tmp_path, "replay", "--config", desk.config) as first:
        first.wait_until(partial(desk.is_past, 500))
        first.process.send_signal(signal.SIGSTOP)
        desk.replay()
        first.process.send_signal(signal.SIGCONT)
        assert first.process.wait(PATIENCE) == 1
        assert "another replay of this stream has begun" in first.said()
    assert sorted(desk.seen()) == sorted(f"document {n}".encode() for n in range(6000))  # type: ignore[type-var]


async def test_what_is_refused_again_keeps_its_count_until_it_stays(
    bootstrap: str, topic: MakeTopic, tmp_path: Path
) -> None:
    tickets = Tickets(bootstrap, topic, name="tickets", max_redrives=2)
    names = (tickets.stream.input, tickets.stream.output, tickets.stream.dead_letter)
    settings = tree(bootstrap, LOCAL, names, max_redrives=2)
    settings["kafka"]["group_id"] = tickets.kafka.group_id
    config = write_config(tmp_path / "config.yaml", settings)
    tickets.fill([b'{"id": 1, "text": "unspeakable"}'], key=b"k")
    sent = []
    async with running(tickets, Words()):
        for letters in (1, 2, 3, 3):
            async with asyncio.timeout(30):
                while len(tickets.letters()) < letters:  # noqa: ASYNC110  it is the broker's to say
                    await asyncio.sleep(0.05)
            run = await asyncio.to_thread(labelstream, "replay", "--config", config, "--json")
            sent.append((orjson.loads(run.stdout)["sent"], orjson.loads(run.stdout)["at_the_cap"]))
    assert sent == [(1, 0), (1, 0), (0, 1), (0, 0)]
    counts = [letter.header("labelstream-redrives") for letter in tickets.letters()]
    assert counts == [None, b"1", b"2"]
    assert {letter.header("__connect.errors.topic") for letter in tickets.letters()} == {tickets.stream.input.encode()}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--reason", "boredom"), "--reason boredom: there is none such; there are undecodable, missing_text"),
        (("--stream", "parcels"), "the configuration has no stream 'parcels'; it has tickets"),
        (("--since", "yesterday"), "'yesterday' is no time: write 30m, 2h or 3d, or 2026-"),
    ],
)
def test_what_cannot_be_meant_is_said(desk: Desk, options: tuple[str, ...], words: str) -> None:
    run = labelstream("replay", "--config", desk.config, *options)
    assert run.returncode == 2
    assert words in run.stderr
    assert run.stdout == ""


def test_a_topic_that_is_not_there_is_said(desk: Desk, tmp_path: Path) -> None:
    incoming, classified, _ = desk.topics
    config = write_config(tmp_path / "other.yaml", tree(desk.bootstrap, LOCAL, (incoming, classified, "nosuch")))
    run = labelstream("replay", "--config", config)
    assert run.returncode == 2
    assert "there is no topic 'nosuch'" in run.stderr


def test_a_broker_that_is_not_there_is_said(tmp_path: Path) -> None:
    config = write_config(tmp_path / "config.yaml", tree(NOWHERE, LOCAL, ("a", "b", "c")))
    run = labelstream("replay", "--config", config)
    assert run.returncode == 1
    assert f"no broker of {NOWHERE} can be used" in run.stderr


def test_a_broker_that_dies_on_the_way_costs_nothing(broker: Broker, desk: Desk, tmp_path: Path) -> None:
    desk.put_many(6000)
    settings = tree(desk.bootstrap, LOCAL, desk.topics)
    settings["kafka"] |= {"request_timeout": "4s"}
    settings["streams"][0]["drain"] = "1s"
    config = write_config(tmp_path / "hasty.yaml", settings)
    with started(tmp_path, "replay", "--config", config) as run:
        run.wait_until(partial(desk.is_past, 500))
        broker.kill()
        try:
            assert run.process.wait(90) == 1
        finally:
            broker.start()
        assert "run it again" in run.said()
    desk.replay()
    assert sorted(desk.seen()) == sorted(f"document {n}".encode() for n in range(6000))  # type: ignore[type-var]
