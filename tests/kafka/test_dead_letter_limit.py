"""An endpoint that finds fault with everything, and a producer that writes garbage, on a real broker."""

import asyncio
import signal
from collections.abc import Callable, Sequence
from pathlib import Path

import httpx
import pytest

from service.documents import Document, Outcome
from service.errors import Rejected
from service.observability.telemetry import Telemetry
from tests.commands import CANARY_KEY, served_account, serving, small_model, started, tree, write_config
from tests.kafka.tickets import MAKE_TOPIC, Tickets, Words, account, until
from tests.kafka.topics import committed, counted, document, fill, read, size


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_model(tmp_path_factory.mktemp("models") / "small")


def test_an_endpoint_that_answers_every_submit_with_400_does_not_drain_the_topic_and_is_asked_again(
    bootstrap: str, topic: Callable[..., str], tmp_path: Path, model: Path
) -> None:
    incoming, classified, dead = topics = topic(partitions=3), topic(partitions=3), topic()
    headers = {"Ocp-Apim-Subscription-Key": CANARY_KEY}
    with serving(tmp_path, model, "--allow-faults") as (url, _):
        rules = [{"on": "submit", "status": 400}]
        assert httpx.put(f"{url}/_faults", json=rules, headers=headers).is_success
        fill(bootstrap, incoming, map(document, range(600)))
        settings = tree(bootstrap, served_account(url), topics, dead_letter_limit={"share": 0.5, "of": 100})
        with started(tmp_path, "run", write_config(tmp_path / "c.yaml", settings)) as worker:
            worker.wait_until(lambda: worker.events("dead_letter_limit_reached"))
            health = worker.events("started")[0]["health"]
            gauge = f'labelstream_dead_letter_limit_reached{{topic="{incoming}"}} 1.0'
            worker.wait_until(lambda: gauge in httpx.get(f"{health}/metrics").text)
            assert httpx.get(f"{health}/readyz").json()["streams"][incoming]["dead_letter_limit_reached"]
            worker.wait_until(lambda: size(bootstrap, dead) == 50)
            assert httpx.put(f"{url}/_faults", json=[], headers=headers).is_success
            worker.wait_until(lambda: size(bootstrap, classified) == 550)
            assert worker.ended_by(signal.SIGTERM) == 0
            assert len(worker.events("dead_letter_limit_reached")) == 1
            assert len(worker.events("dead_letter_limit_lifted")) == 1
    assert set(counted(read(bootstrap, classified)).values()) == {1}
    assert size(bootstrap, dead) == 50
    assert sum(mark.offset for mark in asyncio.run(committed(bootstrap, incoming, incoming)).values()) == 600


class FindsFaultWithEverything(Words):
    async def classify(self, documents: Sequence[Document]) -> list[Outcome]:
        await super().classify(documents)
        raise Rejected("400 SomethingNew")


@pytest.mark.parametrize("garbage", [True, False], ids=["garbage", "verdicts"])
@pytest.mark.parametrize("delivery", ["at_least_once", "exactly_once"])
async def test_what_is_held_back_is_neither_committed_nor_waited_for(
    delivery: str,
    garbage: bool,
    bootstrap: str,
    topic: MAKE_TOPIC,
) -> None:
    tickets = Tickets(bootstrap, topic, delivery=delivery, drain=20, dead_letter_limit={"share": 0.2, "of": 100})
    tickets.fill([b"no JSON" if garbage else document(n) for n in range(300)])
    telemetry = Telemetry()
    async with asyncio.timeout(15):
        async with tickets.running(account(FindsFaultWithEverything(), telemetry), telemetry):
            await until(lambda: any(each.dead_letter_limit_reached for each in telemetry.stream_statistics()))
            await until(lambda: len(tickets.letters()) == 20)
    assert len(tickets.letters()) == 20
    finished = [letter.header("__connect.errors.offset") for letter in tickets.letters()]
    assert len(finished) == 20
    assert sum(mark.offset for mark in (await tickets.committed()).values()) <= 20
