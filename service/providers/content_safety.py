"""Azure AI Content Safety, one document a call.

===================  =============================  ==========================================================
`api_version`        asked                          answers with
===================  =============================  ==========================================================
2023-10-01, later    `text:analyze`                 a severity for each harm category, and blocklists that matched
2024-05-15-preview   `text:analyze`                 whether the custom category was detected
2024-09-15-preview   `text:analyzeCustomCategory`   the same
===================  =============================  ==========================================================

What is given as classes: the harm categories whose severity is above 0, worst first, with their severity and no score,
for the service gives none; a blocklist that matched, as `blocklist/NAME`, before them; a custom category that was
detected, without a score. So a document that nothing is wrong with has no classes.
"""

import math
from collections.abc import Iterator, Sequence
from typing import Any

import orjson

from service import settings
from service.documents import Classified, ClassScore, Document, Outcome
from service.errors import Misconfigured, Rejected
from service.providers import azure
from service.providers.azure import Codes, Exchange, Resource

_CUSTOM = "2024-05-15-preview"
_CUSTOM_ALONE = "2024-09-15-preview"
_BUILT = {"buildsucceeded", "succeeded"}
_RECORD = 1000  # characters of one text record, the unit of the bill
_CODES = Codes(
    content={"InvalidRequestBody": "the text is empty or too long", "InvalidRequest": ""},
    settings={
        "ResourceNotFound": "category, category_version and blocklists",
        "InvalidResourceName": "category and blocklists",
    },
    passing=frozenset({"InternalError", "InternalServerError", "ServerBusy", "TooManyRequests"}),
)


class ContentSafety:
    """A Content Safety resource: its harm categories and blocklists, or a custom category of it."""

    documents_per_call = 1
    task = "multi_label"

    def __init__(self, settings: settings.ContentSafety, http: Exchange) -> None:
        self._settings = settings
        self._resource = Resource(settings, http, _CODES, "/contentsafety", "an Azure AI Content Safety resource")
        self._version = {"api-version": settings.api_version}
        custom = settings.category is not None
        alone = settings.api_version == _CUSTOM_ALONE
        self._url = self._resource.url("/text:analyzeCustomCategory" if alone else "/text:analyze", **self._version)
        self._asked = _custom(settings) if custom else _harms(settings)
        self._classes = _detected if custom else _found
        self.model = f"{settings.category}/{settings.category_version or 'latest'}" if custom else "harm categories"
        self.characters_per_document = self.characters_per_call = 1_000 if custom else 10_000

    def __repr__(self) -> str:
        return f"ContentSafety({self._resource.host!r}, {self.model!r})"

    async def classify(self, documents: Sequence[Document]) -> list[Outcome]:
        """As `dispatch.CallProvider.classify`. Raises Throttled, Unavailable, Rejected and Misconfigured."""
        return [await self._classify(document) for document in documents]

    async def probe(self) -> None:
        """See that the blocklists are there and the custom category is built, which costs nothing.

        Raises Misconfigured, Unavailable and Throttled.
        """
        wanted = self._settings
        if wanted.category is not None:
            await self._probe_category(wanted.category)
        for blocklist in wanted.blocklists:
            await self._get(f"/text/blocklists/{blocklist}")
        if wanted.category is None and not wanted.blocklists:
            await self._get("/text/blocklists")

    async def _classify(self, document: Document) -> Outcome:
        text = document.text if document.text.isascii() else azure.mended(document.text)
        answer = await self._resource.ask("POST", self._url, orjson.dumps({"text": text, **self._asked}))
        if not answer.is_success:
            raise self._resource.failure(answer, Rejected)
        try:
            classes = tuple(self._classes(azure.json_of(answer), self._settings.category))
        except (KeyError, TypeError, ValueError, AttributeError):
            raise self._resource.malformed("an analysis that does not fit what was asked") from None
        return Classified(classes, max(1, math.ceil(len(text) / _RECORD)))

    async def _probe_category(self, name: str) -> None:
        version = self._settings.category_version
        query = {} if version is None else {"version": str(version)}
        found = await self._get(f"/text/categories/{name}", **query)
        versions = found.get("value") if isinstance(found, dict) else None
        if not isinstance(versions, list) or not versions or not isinstance(versions[-1], dict):
            raise self._resource.malformed("a category without versions")
        if (status := azure.word(versions[-1].get("status"))) not in _BUILT:
            raise Misconfigured(f"category {name!r} is not built ({status or 'no status given'}): build it first")

    async def _get(self, path: str, **query: str) -> object:
        answer = await self._resource.ask("GET", self._resource.url(path, **self._version, **query))
        if answer.is_success and isinstance(found := azure.json_of(answer), dict):
            return found
        if answer.is_success:
            raise Misconfigured(f"{self._resource.told(answer)} without JSON: is something else at endpoint?")
        raise self._resource.failure(answer, lambda told: Misconfigured(f"{told}: check api_version"))


def _harms(settings: settings.ContentSafety) -> dict[str, Any]:
    asked: dict[str, Any] = {"categories": settings.harm_categories, "outputType": settings.output_type}
    if settings.blocklists:
        asked |= {"blocklistNames": settings.blocklists, "haltOnBlocklistHit": settings.halt_on_blocklist_hit}
    return asked


def _custom(settings: settings.ContentSafety) -> dict[str, Any]:
    category: dict[str, Any] = {"categoryName": settings.category}
    if settings.category_version is not None:
        category |= {"version": settings.category_version}
    return category if settings.api_version == _CUSTOM_ALONE else {"customizedCategories": [category]}


def _found(analysis: Any, _category: str | None) -> Iterator[ClassScore]:
    for blocklist in dict.fromkeys(match["blocklistName"] for match in analysis.get("blocklistsMatch") or ()):
        yield ClassScore(f"blocklist/{blocklist}", None)
    harms = [(_severity(found["severity"]), str(found["category"])) for found in analysis["categoriesAnalysis"]]
    for severity, category in sorted(harms, key=lambda harm: -harm[0]):
        if severity:
            yield ClassScore(category, None, severity)


def _severity(given: object) -> int:
    if type(given) is not int or not 0 <= given <= 7:
        raise ValueError(given)
    return given


def _detected(analysis: Any, category: str | None) -> Iterator[ClassScore]:
    found = analysis.get("customCategoryAnalysis")
    if found is None:
        named = {each["categoryName"]: each for each in analysis["textCustomizedCategoriesAnalysis"]}
        found = named[category]
    if type(found["detected"]) is not bool:
        raise ValueError(found["detected"])
    if category is not None and found["detected"]:
        yield ClassScore(category, None)
