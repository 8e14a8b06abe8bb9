"""Azure AI Content Safety of texts: `{endpoint}/contentsafety/text:analyze` and its custom categories.

Three questions can be asked of a text, each in a call of its own:

* which harms it does and which blocklists it is on (`text:analyze`, 2023-10-01 and later);
* whether it is of a custom category, in 2024-05-15-preview: `text:analyze` with `customizedCategories`, whose harm
  categories are left aside, so that the two previews answer alike;
* the same in 2024-09-15-preview: `text:analyzeCustomCategory`.

No answer has a score. A harm has a severity; of severity 0, which is that it is not there, it is no class of the
document. The worst comes first, and before it the blocklists that were hit, as the classes `blocklist/NAME`: that name
can be no harm's, and it can be routed by. The words that were hit are the document's, and not kept.

A request may be refused for its text, but also for a category that is gone or not built, or a blocklist that is gone:
these are looked at before the text is blamed. A text record of 1,000 characters is the unit of the bill.
"""

import math
from collections.abc import Mapping, Sequence
from operator import itemgetter
from typing import Any, Protocol

import orjson

from service import settings
from service.documents import Classified, ClassScore, Document, Outcome, Reason, Refused
from service.errors import Misconfigured, Rejected, Unavailable
from service.providers.azure import Exchange, Resource, json_of, mended, rules, word
from service.transport.failures import At, Rule

_RECORD = 1000
_BUILT = {"buildsucceeded", "succeeded"}
_UNBUILT = {"buildnotstarted", "buildfailed", "failed", "canceled", "deleting", "deletefailed"}
_SETTINGS = {
    "InvalidResourceName": "category and blocklists",
    "ResourceNotFound": "category, category_version and blocklists",
}
_CONTENT = {"InvalidRequestBody": "its text is empty, too long or not taken for another reason"}
_PASSING = ("InternalError", "ServerBusy", "TooManyRequests")
RULES = rules("blocklists, api_version", _SETTINGS, _CONTENT, _PASSING)
"""What is done about failures, where harm categories are asked."""
RULES_OF_A_CATEGORY = rules("category, category_version", _SETTINGS, _CONTENT, _PASSING)
"""The same where a custom category is asked."""


class Question(Protocol):
    """What is asked of every text, and how the answer is read."""

    path: str
    longest: int
    model: str
    names: tuple[str, ...]
    rules: tuple[Rule, ...]

    def body(self, text: str) -> dict[str, Any]:
        """What is sent."""
        ...

    def classes(self, answer: Mapping[str, Any]) -> tuple[ClassScore, ...]:
        """The classes, the most important first. Raises KeyError, TypeError, ValueError or AttributeError."""
        ...

    async def look(self, resource: Resource) -> None:
        """See that what the question names is there. Raises Misconfigured, Unavailable and Throttled."""
        ...


class ContentSafety:
    """A Content Safety resource, asked about one document a call."""

    documents_per_call = 1
    task = "multi_label"

    def __init__(self, settings: settings.ContentSafety, http: Exchange) -> None:
        self._question = _question(settings)
        self._resource = Resource(settings, http, self._question.rules, "/contentsafety")
        self._url = self._resource.url(self._question.path, **{"api-version": settings.api_version})
        self.characters_per_call = self.characters_per_document = self._question.longest
        self.bytes_per_call = self.bytes_per_document = 4 * self._question.longest  # only characters are counted
        self.model = self._question.model
        self.classes = self._question.names

    def __repr__(self) -> str:
        return f"ContentSafety({self._resource.host!r}, {self.model!r})"

    async def classify(self, documents: Sequence[Document]) -> list[Outcome]:
        """The outcome of the document, for it is one. Raises Throttled, Unavailable and Misconfigured."""
        return [await self._classified(document.text) for document in documents]

    async def probe(self) -> None:
        """Look whether the category or the blocklists are there, which costs nothing.

        Raises Misconfigured, Unavailable and Throttled.
        """
        await self._question.look(self._resource)

    async def _classified(self, text: str) -> Outcome:
        answer = await self._resource.ask("POST", self._url, self._body(text))
        if not answer.is_success:
            failure = self._resource.failure(answer, At.REQUEST)
            if not isinstance(failure, Rejected):
                raise failure
            await self.probe()
            return Refused(Reason.REFUSED_BY_CLASSIFIER, str(failure))
        analysis = json_of(answer)
        if not isinstance(analysis, dict):
            raise self._resource.malformed("an analysis that is not a JSON object")
        try:
            classes = self._question.classes(analysis)
        except (AttributeError, KeyError, TypeError, ValueError):
            raise self._resource.malformed("an analysis of another shape") from None
        return Classified(classes, max(1, math.ceil(len(text) / _RECORD)))

    def _body(self, text: str) -> bytes:
        try:
            return orjson.dumps(self._question.body(text))
        except TypeError:
            return orjson.dumps(self._question.body(mended(text)))


class HarmCategories:
    """Which harms a text does, how badly, and which blocklists it is on."""

    path = "/text:analyze"
    longest = 10_000
    rules = RULES

    def __init__(self, settings: settings.ContentSafety) -> None:
        self.model = f"text:analyze@{settings.api_version}"
        self._version = {"api-version": settings.api_version}
        self._blocklists = settings.blocklists
        self.names = (*(f"blocklist/{name}" for name in settings.blocklists), *settings.harm_categories)
        self._asked: dict[str, Any] = {"categories": settings.harm_categories, "outputType": settings.output_type}
        if settings.blocklists:
            halt = settings.halt_on_blocklist_hit
            self._asked |= {"blocklistNames": settings.blocklists, "haltOnBlocklistHit": halt}

    def body(self, text: str) -> dict[str, Any]:
        """The text with the categories and blocklists."""
        return {"text": text, **self._asked}

    def classes(self, answer: Mapping[str, Any]) -> tuple[ClassScore, ...]:
        """The blocklists that were hit, then the harms, the worst first; with a hit, harms may not have been sought."""
        lists = dict.fromkeys(_text(hit["blocklistName"]) for hit in answer.get("blocklistsMatch") or ())
        sought = answer.get("categoriesAnalysis", ()) if lists else answer["categoriesAnalysis"]
        harms = [(_severity(harm["severity"]), _text(harm["category"])) for harm in sought]
        harms.sort(key=itemgetter(0), reverse=True)
        return (
            *(ClassScore(f"blocklist/{name}", None) for name in lists),
            *(ClassScore(name, None, severity) for severity, name in harms if severity),
        )

    async def look(self, resource: Resource) -> None:
        """See that each blocklist is there, or that blocklists are known at all."""
        for name in self._blocklists:
            found = await resource.described(resource.url(f"/text/blocklists/{name}", **self._version))
            if "blocklistName" not in found:
                raise resource.malformed("a blocklist without a name")
        if not self._blocklists:
            found = await resource.described(resource.url("/text/blocklists", **self._version))
            if "value" not in found:
                raise resource.malformed("no list of blocklists")


class CustomCategory:
    """Whether a text is of a custom category, in 2024-09-15-preview."""

    path = "/text:analyzeCustomCategory"
    longest = 1_000
    rules = RULES_OF_A_CATEGORY

    def __init__(self, settings: settings.ContentSafety) -> None:
        self._category = settings.category or ""
        self.names: tuple[str, ...] = (self._category,)
        self._version = {} if settings.category_version is None else {"version": settings.category_version}
        self._api_version = {"api-version": settings.api_version}
        self.model = f"{self._category}/{settings.category_version or 'latest'}"

    def body(self, text: str) -> dict[str, Any]:
        """The text with the category."""
        return {"text": text, "categoryName": self._category, **self._version}

    def classes(self, answer: Mapping[str, Any]) -> tuple[ClassScore, ...]:
        """The category, or nothing."""
        return self._detected(answer["customCategoryAnalysis"]["detected"])

    async def look(self, resource: Resource) -> None:
        """See that the category is there and built."""
        query = {**self._api_version, **{name: str(number) for name, number in self._version.items()}}
        found = await resource.described(resource.url(f"/text/categories/{self._category}", **query))
        try:
            status = word(max(found["value"], key=itemgetter("version"))["status"])
        except (KeyError, TypeError, ValueError):
            raise resource.malformed("a category without a version") from None
        if status in _UNBUILT:
            raise Misconfigured(f"{self.model} is not built ({status}): build it, or change category_version")
        if status not in _BUILT:
            raise Unavailable(f"{self.model} is still being built: category_version can name one that is")

    def _detected(self, detected: object) -> tuple[ClassScore, ...]:
        if not isinstance(detected, bool):
            raise TypeError(detected)
        return (ClassScore(self._category, None),) if detected else ()


class CustomizedCategory(CustomCategory):
    """The same in 2024-05-15-preview, where it is asked beside the harm categories."""

    path = HarmCategories.path

    def body(self, text: str) -> dict[str, Any]:
        """The text with the category, alone in a list."""
        return {"text": text, "customizedCategories": [{"categoryName": self._category, **self._version}]}

    def classes(self, answer: Mapping[str, Any]) -> tuple[ClassScore, ...]:
        """The category, or nothing."""
        (found,) = answer["textCustomizedCategoriesAnalysis"]
        return self._detected(found["detected"])


def _question(settings: settings.ContentSafety) -> Question:
    if settings.category is None:
        return HarmCategories(settings)
    return CustomizedCategory(settings) if settings.api_version == "2024-05-15-preview" else CustomCategory(settings)


def _text(name: object) -> str:
    if not (isinstance(name, str) and name):
        raise TypeError(name)
    return name


def _severity(number: object) -> int:
    if not (type(number) is int and 0 <= number <= 7):
        raise ValueError(number)
    return number
