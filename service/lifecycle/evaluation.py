"""How good an account's answers are: labelled rows go through the very pipeline that documents do, and are compared.

Measured is what is told, so a service that gives no scores has no calibration error. A document that it refuses, or
gives no class, is wrong where it has one.
"""

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, cast

import numpy as np
import orjson

from service import pipeline, settings
from service.dispatch import accounts
from service.dispatch.dispatcher import Dispatcher
from service.documents import Position, Record
from service.lifecycle.training_data import whole
from service.model.classifier import Task
from service.model.evaluate import Evaluation, compare
from service.model.examples import Example, ExamplesError
from service.observability.telemetry import Telemetry
from service.progress import Advance
from service.streams.memory import MemorySink, MemorySource

_NOTHING = "(none)"
_NAMED = 1e-9
"""A score that a class has at least, because it was named: what is below the service's threshold is not."""


async def measured(name: str, branch: settings.Account, rows: Sequence[Example], advance: Advance) -> Evaluation:
    """The measures of the account's answers; raises ExamplesError where rows do not fit its task, and Misconfigured."""
    telemetry, began = Telemetry(), time.monotonic()
    async with accounts.opened({name: branch}, [name], telemetry) as ready:
        await accounts.probe(ready.values())
        provider = ready[name].provider
        asked, task = _asked(rows, branch, provider.task), cast("Task", provider.task)
        stream = settings.Stream(
            name="evaluation",
            input="rows",
            document=settings.Fields(id=None),
            classify_with=(name,),
            batch=settings.Batch(
                documents=provider.documents_per_call, characters=provider.characters_per_call, wait=0
            ),
            output="answers",
            dead_letter="refused",
        )
        records = (Record(Position("rows", 0, n), 0, None, _json(row.text)) for n, row in enumerate(asked))
        sink = MemorySink()
        async with asyncio.TaskGroup() as tasks:
            reporting = tasks.create_task(_report(sink, advance))
            source, dispatcher = MemorySource(records), Dispatcher([ready[name]])
            await pipeline.run(stream, source, sink, dispatcher, telemetry=telemetry, stop=asyncio.Event())
            reporting.cancel()
    answers = [orjson.loads(message.value or b"") for message in sink.to("answers")]
    found = {answer["source"]["offset"]: answer["classes"] for answer in answers}
    told = [found.get(number, ()) for number in range(len(asked))]
    return _compared(asked, told, task, time.monotonic() - began, len(rows) - len(asked))


def _asked(rows: Sequence[Example], branch: settings.Account, task: str) -> list[Example]:
    """The rows that can be compared, with the labels that the account can give."""
    if isinstance(branch, settings.ContentSafety) and branch.category is not None:
        return [row._replace(labels=(branch.category,) if branch.category in row.labels else ()) for row in rows]
    if task == "multi_label":
        return list(rows)
    if several := next((row for row in rows if len(row.labels) > 1), None):
        raise ExamplesError(f"the row {several.id!r} has several labels, and the account's task is single_label")
    asked = [row for row in rows if row.labels]
    if not asked:
        raise ExamplesError("no row has a label: there is nothing to compare with")
    return asked


def _compared(
    rows: Sequence[Example], answers: Sequence[Sequence[Mapping[str, Any]]], task: Task, seconds: float, unlabelled: int
) -> Evaluation:
    names = sorted(
        {each["name"] for answer in answers for each in answer} | {name for row in rows for name in row.labels}
    )
    if not names:
        raise ExamplesError("no row has a label, and no answer a class: there is nothing to compare")
    labels = [*names, _NOTHING] if task == "single_label" and not all(answers) else names
    column = {name: number for number, name in enumerate(labels)}
    scores = np.zeros((len(rows), len(labels)))
    for line, answer in zip(scores, answers, strict=True):
        for each in answer:
            score = each.get("score")
            line[column[each["name"]]] = 1.0 if score is None else max(score, _NAMED)
        if task == "single_label" and not answer:
            line[-1] = 1.0
    given = {each.get("score") is not None for answer in answers for each in answer}
    worth = compare(
        task=task,
        labels=labels,
        threshold=_NAMED,
        scores=scores,
        truth=[row.labels for row in rows],
        seconds=seconds,
        unlabelled=unlabelled,
    )
    return worth if given == {True} else replace(worth, ece=None)


def _json(text: str) -> bytes:
    return orjson.dumps({"text": whole(text)})


async def _report(sink: MemorySink, advance: Advance) -> None:
    while True:
        advance(len(sink.to("answers")) + len(sink.to("refused")))
        await asyncio.sleep(0.1)
