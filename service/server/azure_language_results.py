"""What Azure Language's runtime shows of a job: how far it is, and a page of what came of it."""

import re
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

import orjson
from starlette.datastructures import QueryParams

from service.server.azure_language_requests import BAD_PARAMETER, refused
from service.server.store import PENDING, Job, State

STATUSES = {
    State.WAITING: "notStarted",
    State.RUNNING: "running",
    State.SUCCEEDED: "succeeded",
    State.PARTIAL: "partiallyCompleted",
    State.FAILED: "failed",
    State.CANCELLED: "cancelled",
}
TASK_FAILED = {"code": "InternalServerError", "message": "The task failed."}
PAGE = 20
TRANSACTION = 1_000  # characters
_NUMBER = re.compile(r"[0-9]{1,9}")


class Page(NamedTuple):
    """The part of the results that is asked for."""

    top: int
    skip: int
    statistics: bool


def asked_page(query: QueryParams, top: str = "top", skip: str = "skip") -> Page:
    """The page that a query asks for, under these names; raises `Refusal`."""
    statistics = query.get("showStats", "false").lower()
    if statistics not in {"true", "false"}:
        raise refused(BAD_PARAMETER, "InvalidParameterValue", "showStats is to be true or false.")
    return Page(_number(query, top, PAGE, 1), _number(query, skip, 0, 0), statistics == "true")


def _number(query: QueryParams, name: str, usual: int, least: int) -> int:
    given = query.get(name, str(usual))
    if not _NUMBER.fullmatch(given) or int(given) < least:
        raise refused(BAD_PARAMETER, "InvalidParameterValue", f"{name} is to be a whole number from {least} on.")
    return int(given)


def describe(job: Job, now: float, page: Page, location: Callable[[str], str]) -> dict[str, Any]:
    """A job as this API shows it; `location` gives the URL of the job with more of a query."""
    state = job.state_at(now)
    display_name, tasks = orjson.loads(job.about)
    shown: dict[str, Any] = {
        "jobId": job.id,
        "createdDateTime": moment(job.created),
        "lastUpdatedDateTime": moment(job.updated),
        "expirationDateTime": moment(job.expires),
        "status": STATUSES[state],
        "errors": [],
        "tasks": {"completed": 0, "failed": 0, "inProgress": 0, "total": len(tasks), "items": []},
    }
    if display_name is not None:
        shown["displayName"] = display_name
    if state in PENDING:
        shown["tasks"]["inProgress"] = len(tasks)
    elif state is not State.CANCELLED:
        results = orjson.loads(job.result) if job.result else [None] * len(tasks)
        failed = [index for index, result in enumerate(results) if result is None]
        shown["errors"] = [{**TASK_FAILED, "target": f"#/tasks/items/{index}"} for index in failed]
        shown["tasks"]["completed"] = len(tasks) - len(failed)
        shown["tasks"]["failed"] = len(failed)
        shown["tasks"]["items"] = [
            _item(task, result, job.updated, page) for task, result in zip(tasks, results, strict=True)
        ]
        if any(result and len(result["documents"]) > page.skip + page.top for result in results):
            statistics = "&showStats=true" if page.statistics else ""
            shown["nextLink"] = location(f"&skip={page.skip + page.top}&top={page.top}{statistics}")
    return shown


def _item(task: Sequence[Any], result: dict[str, Any] | None, updated: float, page: Page) -> dict[str, Any]:
    kind, name, project, deployment = task
    item = {"kind": f"{kind}LROResults", "lastUpdateDateTime": moment(updated, "microseconds")}
    if name is not None:
        item["taskName"] = name
    if result is None:
        return {**item, "status": "failed"}
    named = {"projectName": project, "deploymentName": deployment}
    return {**item, "status": "succeeded", "results": {**results_of(result, page), **named}}


def results_of(result: dict[str, Any], page: Page) -> dict[str, Any]:
    """A page of what came of a task."""
    part = slice(page.skip, page.skip + page.top)
    shown: dict[str, Any] = {
        "documents": [one for one in result["documents"][part] if "class" in one],
        "errors": [one for one in result["documents"][part] if "error" in one],
    }
    if page.statistics:
        characters = {
            one["id"]: count
            for one, count in zip(result["documents"], result["characters"], strict=True)
            if "class" in one
        }
        for one in shown["documents"]:
            one["statistics"] = _statistics(characters[one["id"]])
        shown["statistics"] = {
            "documentsCount": len(result["documents"]),
            "validDocumentsCount": len(characters),
            "erroneousDocumentsCount": len(result["documents"]) - len(characters),
            "transactionsCount": sum(_transactions(count) for count in characters.values()),
        }
    return shown


def _statistics(characters: int) -> dict[str, int]:
    return {"charactersCount": characters, "transactionsCount": _transactions(characters)}


def _transactions(characters: int) -> int:
    return -(-characters // TRANSACTION)


def moment(seconds: float, precision: str = "seconds") -> str:
    """A time as these APIs write it."""
    return datetime.fromtimestamp(seconds, UTC).replace(tzinfo=None).isoformat(timespec=precision) + "Z"
