"""Classes that leave their baseline, by `labelstream run` on a real broker, as a real Prometheus sees them."""

import asyncio
import signal
from collections.abc import Callable
from pathlib import Path

import orjson

from tests.commands import small_model, started, tree, write_config
from tests.kafka.topics import fill, size
from tests.ops.test_queries import answer, scraping

DRIFT = "namespace_job_topic:labelstream_labels:psi_expected1h"


async def test_classes_that_leave_their_baseline_show_in_prometheus(
    bootstrap: str, topic: Callable[..., str], tmp_path: Path
) -> None:
    incoming, classified, dead = topics = topic(), topic(), topic()
    local = {"provider": "local", "model": str(small_model(tmp_path / "small"))}
    baseline = {"delivery": 0.5, "access": 0.5}
    config = write_config(tmp_path / "c.yaml", tree(bootstrap, local, topics, baseline=baseline))

    def feed(text: str, count: int) -> None:
        fill(bootstrap, incoming, (orjson.dumps({"id": f"{n}", "text": text.format(n)}) for n in range(count)))

    with started(tmp_path, "run", config) as run:
        await asyncio.to_thread(run.wait_until, lambda: run.events("partitions_assigned"))
        feed("the parcel number {} has not arrived", 20)
        feed("my password {} is not accepted", 20)
        await asyncio.to_thread(run.wait_until, lambda: size(bootstrap, classified) == 40)
        worker = run.events("started")[0]["health"].removeprefix("http://")
        async with scraping(tmp_path, {"worker": worker}, baseline) as http:

            async def drift() -> float | None:
                found = await answer(http, "/query", query=DRIFT)
                return float(found["result"][0]["value"][1]) if found and found["result"] else None

            fed = 0
            async with asyncio.timeout(60):
                while (now := await drift()) is None or now < 0.25:
                    feed("the parcel number {} has not arrived", 20)
                    fed += 20
                    await asyncio.sleep(0.5)
        await asyncio.to_thread(run.wait_until, lambda: size(bootstrap, classified) == 40 + fed)
        assert run.ended_by(signal.SIGTERM) == 0
    assert size(bootstrap, dead) == 0
