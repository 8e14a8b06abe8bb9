"""What the forms have in common: where they read and write, and how the endpoint is asked (Azure Language's jobs)."""

import asyncio
import os
from typing import Any

import orjson

BOOTSTRAP, GROUP, INPUT, OUTPUT = (os.environ[name] for name in ("BOOTSTRAP", "GROUP", "INPUT", "OUTPUT"))
JOBS = f"{os.environ['ENDPOINT']}/language/analyze-text/jobs?api-version=2023-04-01"
JSON = {"Content-Type": "application/json"}
BATCH, IN_FLIGHT = 25, 32
SECONDS = 0.1
SESSION_TIMEOUT = 6.0
"""Seconds after which a worker that was killed gives its partitions up, with every form."""
_TASKS = [{"kind": "CustomSingleLabelClassification", "parameters": {"projectName": "p", "deploymentName": "p"}}]


def body(tickets: list[dict[str, Any]]) -> bytes:
    """What is submitted for some tickets."""
    documents = [{"id": str(number), "text": ticket["text"]} for number, ticket in enumerate(tickets)]
    return orjson.dumps({"analysisInput": {"documents": documents}, "tasks": _TASKS})


def results(tickets: list[dict[str, Any]], job: dict[str, Any]) -> list[dict[str, Any]] | None:
    """What a job has found, by ticket; None while it runs."""
    if job["status"] != "succeeded":
        return None
    found = job["tasks"]["items"][0]["results"]["documents"]
    return [{"id": ticket["id"], "classes": each["class"]} for ticket, each in zip(tickets, found, strict=True)]


async def classify(session: Any, tickets: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The results of a batch, by aiohttp, whose requests cost a tenth of httpx's. Raises aiohttp.ClientError."""
    async with session.post(JOBS, data=body(tickets), headers=JSON) as response:
        response.raise_for_status()
        job = response.headers["operation-location"]
    await asyncio.sleep(SECONDS)
    while True:
        async with session.get(job) as response:
            response.raise_for_status()
            found = results(tickets, orjson.loads(await response.read()))
        if found is not None:
            return found
        await asyncio.sleep(0.005)


async def wave(session: Any, tickets: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The results of as many batches as may be in flight, which wait for the slowest of them."""
    batches = [tickets[i : i + BATCH] for i in range(0, len(tickets), BATCH)]
    found = await asyncio.gather(*(classify(session, batch) for batch in batches))
    return [result for each in found for result in each]
