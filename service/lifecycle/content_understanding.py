"""The life of a classifier or analyzer of Azure Content Understanding, which is described and not trained.

What stands for training is to say what the categories are, in a file: `{invoice: Bills that ask for payment, …}`. To
deploy is to PUT that, in place of what is there, and to wait for the operation that makes it:

* 2025-05-01-preview: a classifier, `classifiers/{id}`, with `splitMode` auto where the account's task is multi_label,
  else noSplit;
* 2025-11-01: an analyzer, `analyzers/{id}?allowReplace=true`, with `contentCategories`, and `enableSegment` likewise.
  It is based on `prebuilt-document` and uses the models that are the resource's defaults.

A PUT may be sent again when its answer was lost: it makes the same again.
"""

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import orjson
import yaml

from service import settings
from service.errors import CallFailed, JobLost, Misconfigured
from service.lifecycle.pages import Pages
from service.lifecycle.verbs import Deployed, Doomed, Evaluation, Labelled, Model, Trained, Wanted, only
from service.lifecycle.waiting import Say, answered, changes, until
from service.progress import Waiting
from service.providers.azure import ENDED_BADLY, Answer, Exchange, Resource, codes_of, json_of, rules_of_changes, word
from service.transport.failures import At

_READY, _GONE_WRONG = {"ready", "succeeded"}, {"failed"} | ENDED_BADLY
_LONGEST = 120  # characters of a name and its description
_CONTENT = {
    "InvalidRequest": "a name, a description or their number is not taken: up to 50 categories of a classifier, or "
    f"200 of an analyzer, names that do not begin with $, {_LONGEST} characters with their description"
}


class Made(NamedTuple):
    """A classifier or analyzer, as the service shows it."""

    name: str
    status: str
    categories: tuple[str, ...]
    changed: str


class Described:
    """The classifier or analyzer of an account."""

    def __init__(self, settings: settings.ContentUnderstanding, http: Exchange, say: Say) -> None:
        self._kind = "classifier" if settings.classifier else "analyzer"
        self._name = settings.classifier or settings.analyzer or ""
        self._splits = settings.task == "multi_label"
        self._version = {"api-version": settings.api_version}
        self._resource = Resource(settings, http, rules_of_changes(self._kind, {}, _CONTENT), "/contentunderstanding")
        self._own_url = self._resource.url(f"/{self._kind}s/{self._name}", **self._version)
        self._say = say

    def __str__(self) -> str:
        return f"{self._kind} {self._name}"

    async def deploy(self, categories: Mapping[str, Mapping[str, Any]]) -> Made:
        """Make it, or another in its place, and wait until it is ready. Raises Misconfigured."""
        operation = await answered(lambda: self._put(categories), self._say)
        say = changes(self._say)
        await until(lambda: self._done(operation, say), self._say)
        return await until(lambda: self._ready(say), self._say)

    async def listed(self) -> list[Made]:
        """All of the resource."""
        found: list[Made] = []
        pages = Pages(self._resource)
        url: str | None = self._resource.url(f"/{self._kind}s", **self._version)
        while url is not None:
            page = await answered(lambda url=url: self._resource.described(url), self._say)  # type: ignore[misc]
            value = page.get("value")
            if not isinstance(value, list):
                raise self._resource.malformed(f"no list of {self._kind}s")
            found += [self._made(each) for each in value]
            url = pages.after(page)
        return found

    async def delete(self) -> None:
        """Delete it. Raises Misconfigured where it is not there."""
        if await answered(self._found, self._say) is None:
            raise Misconfigured(f"there is nothing to delete: {self} is not there")
        await answered(self._deleted, self._say)
        await until(self._gone, self._say)

    def _body(self, categories: Mapping[str, Mapping[str, Any]]) -> bytes:
        if self._kind == "classifier":
            return orjson.dumps({"splitMode": "auto" if self._splits else "noSplit", "categories": categories})
        config = {"enableSegment": self._splits, "contentCategories": categories}
        return orjson.dumps({"baseAnalyzerId": "prebuilt-document", "config": config})

    async def _put(self, categories: Mapping[str, Mapping[str, Any]]) -> str | None:
        url = self._own_url + ("" if self._kind == "classifier" else "&allowReplace=true")
        answer = await self._resource.ask("PUT", url, self._body(categories))
        if answer.status_code == 409:
            raise Misconfigured(f"{self} is there, and the service puts no other in its place: delete it first")
        if not answer.is_success:
            raise self._refusal(answer)
        location = answer.headers.get("operation-location")
        return None if location is None else self._resource.ours(location)

    async def _done(self, operation: str | None, say: Say) -> bool | None:
        """True once the operation has ended well, or there is none to ask after."""
        if operation is None:
            return True
        try:
            page = await self._resource.page(operation)
        except JobLost:
            return True  # what was made tells the rest
        status = str(page.get("status"))
        say(f"{self}: {status}")
        if word(status) in _GONE_WRONG:
            codes = ", ".join(codes_of(page.get("error"))) or "no code given"
            raise Misconfigured(f"{self} could not be made ({codes}): check its categories")
        return True if word(status) in _READY else None

    async def _ready(self, say: Say) -> Made | None:
        made = await self._found()
        if made is None:
            raise Misconfigured(f"{self} was deleted while it was being made")
        say(f"{self}: {made.status}")
        if word(made.status) in _GONE_WRONG:
            raise Misconfigured(f"{self} could not be made ({made.status}): check its categories")
        return made if word(made.status) in _READY else None

    async def _found(self) -> Made | None:
        answer = await self._resource.ask("GET", self._own_url)
        if _is_missing(answer):
            return None
        if not answer.is_success:
            raise self._resource.failure(answer, At.LOOK)
        return self._made(json_of(answer))

    async def _deleted(self) -> None:
        answer = await self._resource.ask("DELETE", self._own_url)
        if not (answer.is_success or _is_missing(answer)):  # a deletion whose answer was lost
            raise self._refusal(answer)

    async def _gone(self) -> bool | None:
        return True if await self._found() is None else None

    def _refusal(self, answer: Answer) -> CallFailed:
        return self._resource.failure(answer, At.REQUEST)

    def _made(self, shown: Any) -> Made:
        try:
            name = shown[f"{self._kind}Id"]
            described = shown.get("categories") or (shown.get("config") or {}).get("contentCategories") or {}
            changed = str(shown.get("lastModifiedAt") or shown.get("createdAt") or "")
            return Made(str(name), str(shown.get("status") or ""), tuple(map(str, described)), changed)
        except (AttributeError, KeyError, TypeError):
            raise self._resource.malformed(f"a {self._kind} of another shape") from None


class DescribedLife:
    """A classifier or analyzer of Content Understanding, which is its own model."""

    def __init__(self, branch: settings.ContentUnderstanding, http: Exchange, progress: Waiting) -> None:
        self._described = Described(branch, http, progress.say)
        self._own = branch.classifier or branch.analyzer or ""
        self._progress = progress

    async def train(self, wanted: Labelled) -> Trained:  # noqa: ARG002  nothing is learnt from them
        """There is no training."""
        raise Misconfigured(
            f"{self._described} is not trained: Content Understanding goes by what its categories are said to be."
            " Write them into a file (invoice: Bills that ask for payment) and deploy that with --categories"
        )

    async def evaluate(self, model: str | None) -> Evaluation:  # noqa: ARG002  the same for each
        """There is nothing that the service says."""
        raise Misconfigured("Content Understanding tells no figures: give a file of labelled rows to ask about")

    async def deploy(self, wanted: Wanted) -> Deployed:
        """As `Life.deploy`: what the categories are said to be, in place of what there was."""
        file = only(wanted, "categories").categories
        if file is None:
            raise Misconfigured("--categories is missing: a file of categories, each with its description")
        categories = await asyncio.to_thread(categories_in, file)
        self._progress.step(f"making {self._described}")
        made = await self._described.deploy(categories)
        return Deployed(f"{len(made.categories)} categories", str(self._described), (), made._asdict())

    async def list(self) -> list[Model]:
        """As `Life.list`: everything of its kind that the resource has."""
        return [
            Model(
                each.name,
                each.status,
                each.changed or None,
                (str(self._described),) if each.name == self._own else (),
                {"categories": each.categories},
            )
            for each in await self._described.listed()
        ]

    async def delete(self, doomed: Doomed) -> None:
        """As `Life.delete`."""
        if doomed.kind == "deployment" or (doomed.kind == "model" and doomed.name != self._own):
            raise Misconfigured(f"{doomed}: the account has {self._described} alone: delete that, or --all")
        await self._described.delete()


def categories_in(path: Path) -> dict[str, dict[str, Any]]:
    """The categories of a file, YAML or JSON: by name, a description or all that the service is to know of each.

    Raises Misconfigured.
    """
    try:
        given = yaml.safe_load(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise Misconfigured(f"{path}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise Misconfigured(f"{path}: is not UTF-8 text") from None
    except yaml.YAMLError:
        raise Misconfigured(f"{path}: is neither YAML nor JSON") from None
    if not isinstance(given, dict) or not given:
        raise Misconfigured(f"{path}: is to name categories, each with its description, as {{invoice: Bills to pay}}")
    return {str(name): _category(path, str(name), about) for name, about in given.items()}


def _category(path: Path, name: str, about: object) -> dict[str, Any]:
    category = about if isinstance(about, dict) else {} if about is None else {"description": about}
    description = category.get("description", "")
    if not isinstance(description, str):
        raise Misconfigured(f"{path}: {name}: the description is to be text")
    if name.startswith("$"):
        raise Misconfigured(f"{path}: {name}: names do not begin with $, which is the service's own")
    if len(name) + len(description) > _LONGEST:
        raise Misconfigured(f"{path}: {name}: name and description have more than {_LONGEST} characters together")
    return {str(key): value for key, value in category.items()}


def _is_missing(answer: Answer) -> bool:
    """Whether it is what was asked for that is not there, rather than the API."""
    page = json_of(answer)
    codes = codes_of(page.get("error")) if isinstance(page, dict) else []
    return answer.status_code == 404 and bool(codes)
