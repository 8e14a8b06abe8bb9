"""Documents a second that the embedded model answers in threads and in processes: `python -m tests.model.pools`.

Banking77's test texts, 25 a call, as many calls at once as the account lets through, and nothing else to do.
"""

import asyncio
import tempfile
import time
from pathlib import Path
from typing import Any

from service import settings
from service.model.train import train
from service.providers.local import Local
from tests.model.public import rows
from tests.providers.contract import document

_POOLS: list[dict[str, Any]] = [{"threads": 1}, {"threads": 2}, {"processes": 1}, {"processes": 2}]
_ROUNDS = 10


async def _rate(branch: settings.Local) -> float:
    texts = [row.text for row in rows("banking77", "test")] * _ROUNDS
    documents = [document(text, number) for number, text in enumerate(texts)]
    calls = [documents[start : start + 25] for start in range(0, len(documents), 25)]
    provider, gate = Local(branch), asyncio.Semaphore(int(branch.limits.in_flight))

    async def ask(call: Any) -> None:
        async with gate:
            await provider.classify(call)

    try:
        await asyncio.gather(*map(ask, calls[:100]))  # processes start with the first
        began = time.perf_counter()
        await asyncio.gather(*map(ask, calls))
        return len(documents) / (time.perf_counter() - began)
    finally:
        provider.close()


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        train(rows("banking77", "train"), task="single_label", name="banking77").save(Path(folder))
        for pool in _POOLS:
            branch = settings.Local.model_validate({"provider": "local", "model": Path(folder), **pool})
            print(f"{pool}: {asyncio.run(_rate(branch)):,.0f} documents/s", flush=True)  # noqa: T201  for a terminal


if __name__ == "__main__":
    main()
