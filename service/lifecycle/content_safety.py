"""The life of a custom category of Azure AI Content Safety: samples in a container, versions, builds.

To train is to make a version of the category (PUT) from samples, and to build it (`:build`), which takes hours. The
samples' blob is called by what is in it, so that the newest version is known again where it is of the same rows: one
that is being built is waited for, one that is built is as good as new, one whose build failed is built again. A PUT
whose answer is lost is looked for before another is sent.

* 2024-05-15-preview has no operations: the version itself is asked how far it is.
* 2024-09-15-preview has one for each build, which is asked; after an interruption the version is asked there, too.

The service can say why a build failed in words that quote a sample: those are repeated only where they quote no row.
"""

from collections.abc import Mapping, Sequence
from operator import itemgetter
from typing import Any, NamedTuple

import orjson

from service import settings
from service.errors import CallFailed, JobLost, Misconfigured, Unavailable
from service.lifecycle import training_data
from service.lifecycle.containers import Container
from service.lifecycle.pages import Pages
from service.lifecycle.verbs import Deployed, Doomed, Evaluation, Labelled, Model, Trained, Wanted, only
from service.lifecycle.waiting import Say, answered, changes, until
from service.model.examples import Example
from service.progress import Waiting
from service.providers.azure import Answer, Exchange, Resource, codes_of, json_of, rules_of_changes, word
from service.transport.failures import At

_BUILT = {"buildsucceeded", "succeeded"}
_NOT_BUILT = {"buildnotstarted", "notstarted"}
_FAILED = {"buildfailed", "failed", "canceled", "cancelled"}
_RULES = rules_of_changes(
    "category, category_version",
    {"InvalidResourceName": "category", "ResourceNotFound": "category and category_version"},
    {
        "InvalidRequestBody": "the name, the definition or the samples' address is not taken, or there are as many "
        "categories or versions as there may be (3 of each): delete one that is not used"
    },
    ("InternalError", "ServerBusy", "TooManyRequests"),
)


class Version(NamedTuple):
    """A version of a category, as the service shows it."""

    category: str
    number: int
    status: str
    samples: str
    definition: str
    created: str
    reason: str
    """Why its build failed, by its code or in the service's words; empty where it did not."""

    @property
    def is_built(self) -> bool:
        """Whether it answers."""
        return word(self.status) in _BUILT

    @property
    def has_failed(self) -> bool:
        """Whether its build has ended badly."""
        return word(self.status) in _FAILED

    @property
    def is_untouched(self) -> bool:
        """Whether nobody has had it built."""
        return word(self.status) in _NOT_BUILT

    def __str__(self) -> str:
        return f"{self.category} version {self.number}"


class CustomCategory:
    """The category of an account."""

    def __init__(self, settings: settings.ContentSafety, http: Exchange, say: Say) -> None:
        if settings.category is None:
            raise Misconfigured("harm categories are trained by their service; name a category of your own in category")
        self._category = settings.category
        self._asked = settings.category_version
        self._api_version = {"api-version": settings.api_version}
        self._resource = Resource(settings, http, _RULES, "/contentsafety")
        self._say = say

    async def train(self, rows: Sequence[Example], definition: str, container: Container) -> Version:
        """The built version of these rows, made or found. Raises ExamplesError and Misconfigured."""
        content = training_data.samples(rows, self._category)
        blob = f"{self._category}-{training_data.digest(content)[:16]}.jsonl"
        url = await answered(lambda: container.put(blob, content), self._say)
        version = await answered(lambda: self._found_or_made(url, definition), self._say)
        operation = None if version.is_built else await answered(lambda: self._begun(version), self._say)
        built = await self._ended(version, operation)
        if not built.is_built:
            reason = training_data.unquoted(built.reason, (row.text for row in rows)) or "no reason given"
            raise Misconfigured(f"{built} could not be built ({built.status}): {reason}")
        return built

    async def version(self, number: int | None = None) -> Version | None:
        """A version, or the newest; None where it is not there. Raises as `Resource.described`."""
        query = {} if number is None else {"version": str(number)}
        answer = await self._resource.ask("GET", self._url(f"/{self._category}", **query))
        if _is_missing(answer):
            return None
        found = self._versions(answer)
        if not found:
            raise self._resource.malformed("a category without a version")
        return max(found, key=itemgetter(1))

    async def deployed(self, number: int | None = None) -> Version:
        """A built version, by default that which the account asks. Raises Misconfigured and Unavailable."""
        asked_for = self._asked if number is None else number
        version = await answered(lambda: self.version(asked_for), self._say)
        if version is None:
            asked = "" if asked_for is None else f" version {asked_for}"
            raise Misconfigured(f"there is no category {self._category}{asked}: train it, or check category_version")
        if version.has_failed or version.is_untouched:
            raise Misconfigured(f"{version} is not built ({version.status}): train it, or set category_version")
        if not version.is_built:
            raise Unavailable(f"{version} is still being built ({version.status})")
        return version

    async def listed(self) -> list[Version]:
        """The newest version of each category of the resource."""
        found: list[Version] = []
        pages = Pages(self._resource)
        url: str | None = self._url()
        while url is not None:
            answer = await answered(lambda url=url: self._successful("GET", url), self._say)  # type: ignore[misc]
            found += self._versions(answer)
            url = pages.after(json_of(answer))
        return found

    async def delete(self, number: int | None) -> None:
        """Delete a version, or the whole category, and wait until it is gone. Raises Misconfigured."""
        if await answered(lambda: self.version(number), self._say) is None:
            raise Misconfigured(f"there is nothing to delete: {self._named(number)} is not there")
        query = {} if number is None else {"version": str(number)}
        await answered(lambda: self._deleted(query), self._say)
        await until(lambda: self._gone(number), self._say)

    async def _found_or_made(self, url: str, definition: str) -> Version:
        version = await self.version()
        if version is not None and (version.samples, version.definition) == (url, definition):
            self._say(f"{version} is of the same rows: {version.status}")
            return version
        body = {"categoryName": self._category, "definition": definition, "sampleBlobUrl": url}
        if self._api_version["api-version"] == "2024-05-15-preview":
            body["blobDelimiter"] = "/"
        answer = await self._resource.ask("PUT", self._url(f"/{self._category}"), orjson.dumps(body))
        if not answer.is_success:
            raise self._refusal(answer)
        made = self._version(json_of(answer))
        self._say(f"{made} is made")
        return made

    async def _begun(self, version: Version) -> str | None:
        """See that a version is being built; gives the operation to ask after, where the API has them."""
        now = await self._known(version)
        if not (now.is_untouched or now.has_failed):
            return None  # it is under way, perhaps because an earlier request has arrived and its answer has not
        answer = await self._resource.ask("POST", self._url(f"/{self._category}:build", version=str(version.number)))
        if not answer.is_success:
            raise self._refusal(answer)
        location = answer.headers.get("operation-location")
        return None if location is None else self._resource.ours(location)

    async def _ended(self, version: Version, operation: str | None) -> Version:
        """The version once its build has ended, well or not."""
        say, reason = changes(self._say), ""
        if operation is not None:
            reason = await until(lambda: self._reason(operation, version, say), self._say)
        ended = await until(lambda: self._settled(version, say), self._say)
        return ended._replace(reason=ended.reason or reason)

    async def _reason(self, operation: str, version: Version, say: Say) -> str | None:
        """Why an operation has failed, empty where it has not; None while it has not ended."""
        try:
            page = await self._resource.page(operation)
        except JobLost:
            return ""  # the version itself tells the rest
        status = str(page.get("status"))
        say(f"{version}: {status}")
        if word(status) in _BUILT | _FAILED:
            return _reason(page.get("error"))
        return None

    async def _settled(self, version: Version, say: Say) -> Version | None:
        now = await self._known(version)
        say(f"{version}: {now.status}")
        return now if now.is_built or now.has_failed else None

    async def _known(self, version: Version) -> Version:
        now = await self.version(version.number)
        if now is None:
            raise Misconfigured(f"{version} was deleted while it was being built")
        return now

    async def _deleted(self, query: Mapping[str, str]) -> None:
        answer = await self._resource.ask("DELETE", self._url(f"/{self._category}", **query))
        if not (answer.is_success or _is_missing(answer)):  # a deletion whose answer was lost
            raise self._refusal(answer)

    async def _gone(self, number: int | None) -> bool | None:
        version = await self.version(number)
        if version is None:
            return True
        if word(version.status) == "deletefailed":
            raise Misconfigured(f"{version} could not be deleted; delete it again")
        return None

    async def _successful(self, method: str, url: str) -> Answer:
        answer = await self._resource.ask(method, url)
        if not answer.is_success:
            raise self._resource.failure(answer, At.LOOK)
        return answer

    def _refusal(self, answer: Answer) -> CallFailed:
        return self._resource.failure(answer, At.REQUEST)

    def _named(self, number: int | None) -> str:
        return f"category {self._category}" if number is None else f"{self._category} version {number}"

    def _url(self, path: str = "", **query: str) -> str:
        return self._resource.url(f"/text/categories{path}", **self._api_version, **query)

    def _versions(self, answer: Answer) -> list[Version]:
        if not answer.is_success:
            raise self._resource.failure(answer, At.LOOK)
        page = json_of(answer)
        found = page.get("value") if isinstance(page, dict) else None
        if not isinstance(found, list):
            raise self._resource.malformed("no list of versions")
        return [self._version(each) for each in found]

    def _version(self, shown: Any) -> Version:
        try:
            error = ((shown.get("buildInfo") or {}).get("buildError") or {}).get("error")
            return Version(
                _text(shown["categoryName"]),
                int(shown["version"]),
                _text(shown["status"]),
                _text(shown.get("sampleBlobUrl") or ""),
                _text(shown.get("definition") or ""),
                _text(shown.get("createdTime") or ""),
                _reason(error) or _text(shown.get("errorMessage") or ""),
            )
        except (AttributeError, KeyError, TypeError, ValueError):
            raise self._resource.malformed("a version of another shape") from None


class CategoryLife:
    """A custom category of Content Safety; its models are its versions, called CATEGORY/NUMBER."""

    def __init__(
        self, branch: settings.ContentSafety, http: Exchange, place: Container | None, progress: Waiting
    ) -> None:
        self._category = CustomCategory(branch, http, progress.say)
        self._branch = branch
        self._place = place
        self._progress = progress

    async def train(self, wanted: Labelled) -> Trained:
        """As `Life.train`."""
        training = self._branch.training
        if training is None or self._place is None:
            raise Misconfigured("training is missing: definition, and container to put samples into")
        if wanted.name is not None:
            raise Misconfigured("--name means nothing here: Content Safety numbers the versions of a category itself")
        self._progress.step(f"training {self._branch.category} on {len(wanted.rows):,} documents")
        return Trained(self._shown(await self._category.train(wanted.rows, training.definition, self._place)))

    async def evaluate(self, model: str | None) -> Evaluation:  # noqa: ARG002  the same for each
        """There is nothing that Content Safety says."""
        raise Misconfigured("Content Safety tells no figures of a category: give a file of labelled rows to ask about")

    async def deploy(self, wanted: Wanted) -> Deployed:
        """As `Life.deploy`: a version answers as soon as it is built, and the account says which it asks."""
        model = only(wanted, "model").model
        version = await self._category.deployed(None if model is None else self._number(model))
        notes = ["a version answers as soon as it is built"]
        asked = self._branch.category_version
        if model is not None and asked != version.number:
            notes.append(f"the account asks {asked or 'the newest'}, until it has category_version: {version.number}")
        return Deployed(_called(version), version.category, tuple(notes))

    async def list(self) -> list[Model]:
        """As `Life.list`: the newest version of each category of the resource."""
        return [self._shown(each) for each in await self._category.listed()]

    async def delete(self, doomed: Doomed) -> None:
        """As `Life.delete`: a version, or the category."""
        if doomed.kind == "deployment":
            raise Misconfigured("a category has no deployment: delete a version, or --all")
        await self._category.delete(None if doomed.kind == "all" else self._number(doomed.name))

    def _shown(self, version: Version) -> Model:
        asks = version.category == self._branch.category and self._branch.category_version in {None, version.number}
        more = {"definition": version.definition, "samples": version.samples}
        return Model(_called(version), version.status, version.created, (version.category,) if asks else (), more)

    def _number(self, model: str) -> int:
        number = model.removeprefix(f"{self._branch.category}/")
        if not number.isdecimal():
            raise Misconfigured(f"{model!r} is no version of {self._branch.category}: those are called by their number")
        return int(number)


def _called(version: Version) -> str:
    return f"{version.category}/{version.number}"


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(value)
    return value


def _reason(error: object) -> str:
    """What an error says, its code first."""
    codes = codes_of(error)
    words = str(error.get("message") or "") if isinstance(error, dict) else ""
    return ": ".join(filter(None, [" in ".join(reversed(codes)), words]))


def _is_missing(answer: Answer) -> bool:
    """Whether it is the category or version that is not there, rather than the API."""
    page = json_of(answer)
    return answer.status_code == 404 and isinstance(page, dict) and "ResourceNotFound" in codes_of(page.get("error"))
