"""A project of custom text classification as Azure Language's authoring API has it, 2022-05-01 and 2023-04-01.

What passes (outages, throttling, a proxy's page in place of an answer) is waited out, and told meanwhile. What the
service says in words is repeated unless it quotes a document.
"""

from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import quote

import orjson

from service import settings
from service.errors import CallFailed, JobLost, Misconfigured
from service.lifecycle.pages import Pages
from service.lifecycle.training_data import unquoted
from service.lifecycle.verbs import Model
from service.lifecycle.waiting import Say, answered, until
from service.providers.azure import (
    DONE,
    ENDED_BADLY,
    REFUSED,
    Answer,
    Exchange,
    Resource,
    codes_of,
    json_of,
    rules_of_changes,
    word,
)
from service.transport.failures import At

_RULES = rules_of_changes(
    "project",
    {"ProjectNotFound": "project (the names are case-sensitive)"},
    {"QuotaExceeded": "there are as many as there may be (10 models and 10 deployments a project): delete one"},
)
_MORE = ("modelId", "lastTrainingDurationInSeconds", "modelExpirationDate", "modelTrainingConfigVersion")

Shown = dict[str, Any]


class Project:
    """The project of an account, there or not; paths are those below it."""

    def __init__(self, branch: settings.AzureLanguage, http: Exchange, say: Say) -> None:
        self.name = str(branch.project)
        self.version = "2022-05-01" if branch.api_version == "2022-05-01" else "2023-04-01"
        self._resource = Resource(branch, http, _RULES, "/language/authoring/analyze-text/projects")
        self._say = say

    async def find(self, path: str = "", **query: str) -> Shown | None:
        """What is at a path; None where it is not there. Raises Misconfigured."""
        return await answered(lambda: self.look(path, **query), self._say)

    async def look(self, path: str = "", **query: str) -> Shown | None:
        """As `find`, asking once."""
        answer = await self._resource.ask("GET", self.url(path, **query))
        return None if is_missing(answer) else self._read(answer)

    async def all(self, path: str) -> list[Shown]:
        """Everything of a list, by its pages; nothing where there is no project. Raises Misconfigured."""
        return await answered(lambda: self.look_all(path), self._say)

    async def look_all(self, path: str) -> list[Shown]:
        """As `all`, asking once for each page."""
        page, found, pages = await self.look(path), list[Shown](), Pages(self._resource)
        while page is not None:
            value = page.get("value")
            if not (isinstance(value, list) and all(isinstance(one, dict) for one in value)):
                raise self._resource.malformed("a list of another shape")
            found += value
            link = pages.after(page)
            page = self._read(await self._resource.ask("GET", link)) if link else None
        return found

    async def models(self) -> list[Model]:
        """The models, those that are being trained first, then the newest."""
        served: dict[str, list[str]] = {}
        for one in await self.all("deployments"):
            served.setdefault(str(one.get("modelId")), []).append(str(one.get("deploymentName")))
        models = reversed(await self.all("models"))  # of one second, the service tells the newest last
        trained = [trained_model(one, tuple(served.get(str(one.get("modelId")), ()))) for one in models]
        under_way = [training_model(job) for job in await self.all("train/jobs") if is_pending(job)]
        return under_way + sorted(trained, key=lambda one: one.trained_at or "", reverse=True)

    async def submit(self, path: str, body: object) -> str:
        """The URL of a job that was begun; asks once. Raises as `Resource.failure`."""
        answer = await self._resource.ask("POST", self.url(path), orjson.dumps(body))
        if not answer.is_success:
            raise self._refusal(answer)
        return self._resource.submitted(answer)

    async def look_at_job(self, job: str) -> Shown:
        """How a job stands; asks once. Raises JobLost where it is not known any more."""
        return await self._resource.page(job)

    async def change(self, method: str, path: str, body: object = None) -> None:
        """Ask for something that is done as a job, and wait until it is. Raises Misconfigured."""

        async def asked() -> str | None:
            answer = await self._resource.ask(method, self.url(path), None if body is None else orjson.dumps(body))
            if method == "DELETE" and is_missing(answer):
                return None  # a deletion whose answer was lost
            if not answer.is_success:
                raise self._refusal(answer)
            return None if answer.headers.get("operation-location") is None else self._resource.submitted(answer)

        async def look(job: str) -> bool | None:
            try:
                page = await self._resource.page(job)
            except JobLost:
                return True  # the project itself tells the rest
            return has_ended(page, f"{path or 'the project'} could not be changed") or None

        job = await answered(asked, self._say)
        if job is not None:
            await until(lambda: look(job), self._say)

    def url(self, path: str, **query: str) -> str:
        """The address of a part of the project."""
        below = f"/{path}" if path else ""
        return self._resource.url(f"/{quote(self.name)}{below}", **{"api-version": self.version} | query)

    def _read(self, answer: Answer) -> Shown:
        if not answer.is_success:
            raise self._refusal(answer)
        read = json_of(answer)
        if not isinstance(read, dict):
            raise self._resource.malformed("what is no JSON object: is something else at endpoint?")
        return read

    def _refusal(self, answer: Answer) -> CallFailed:
        return refusal(self._resource, answer)


def refusal(resource: Resource, answer: Answer) -> CallFailed:
    """What a refusal means; one for what is in the request is Misconfigured, with the service's codes and words."""
    body = json_of(answer)
    said = _words(body.get("error"), ()) if isinstance(body, dict) else ""
    failure = resource.failure(answer, At.REQUEST)
    if isinstance(failure, Misconfigured) and answer.status_code in REFUSED:
        return Misconfigured(f"{failure}: {said or 'no reason is given'}")
    return failure


def has_ended(page: Mapping[str, Any], otherwise: str, texts: Iterable[str] = ()) -> bool:
    """Whether a job has ended well. Raises Misconfigured, beginning with `otherwise`, where it has not."""
    status, errors = word(page.get("status")), page.get("errors")
    if status in ENDED_BADLY:
        said = [reason(error, texts) for error in (errors if isinstance(errors, list) else ())]
        because = "; ".join(filter(None, said)) or "no reason is given"
        raise Misconfigured(f"{otherwise} ({page['status']}): {because}")
    return status in DONE


def reason(error: object, texts: Iterable[str]) -> str:
    """What an error of the service says, its codes first; in its own words where those quote none of the texts."""
    return ": ".join(filter(None, [" in ".join(reversed(codes_of(error))), _words(error, texts)]))


def _words(error: object, texts: Iterable[str]) -> str:
    """What an error says innermost, where that quotes none of the texts."""
    words, inner = "", error
    while isinstance(inner, dict):
        words = inner.get("message") or words
        inner = inner.get("innererror")
    return unquoted(words, texts)


def trained_model(shown: Mapping[str, Any], deployed_as: tuple[str, ...]) -> Model:
    """A model as the service shows it."""
    told = {name: shown[name] for name in _MORE if name in shown}
    trained_at = str(shown.get("lastTrainedDateTime") or "")
    return Model(str(shown.get("label")), "trained", trained_at, deployed_as, told)


def training_model(job: Mapping[str, Any]) -> Model:
    """The model that a job trains, which was not trained before it ends."""
    result = job.get("result")
    name = str(result.get("modelLabel")) if isinstance(result, dict) else ""
    return Model(name, f"{job.get('status')}, {share(job):.0%}", more={"jobId": job.get("jobId")})


def share(job: Mapping[str, Any]) -> float:
    """How much of a training is done, its evaluation included."""
    result = job.get("result")
    parts = [result.get(part) for part in ("trainingStatus", "evaluationStatus")] if isinstance(result, dict) else []
    done = [part.get("percentComplete") for part in parts if isinstance(part, dict)]
    return sum(percent for percent in done if isinstance(percent, int | float)) / 200


def is_pending(job: Mapping[str, Any]) -> bool:
    """Whether a job has not ended."""
    return word(job.get("status")) not in DONE | ENDED_BADLY


def is_missing(answer: Answer) -> bool:
    """Whether it is what was asked for that is not there, rather than the API."""
    body = json_of(answer)
    return answer.status_code == 404 and isinstance(body, dict) and bool(codes_of(body.get("error")))
