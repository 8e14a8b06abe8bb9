"""Azure AI Content Safety, text: harm categories, blocklists and custom categories, answered by models trained here.

::

    POST   /contentsafety/text:analyze                                  severities, blocklist matches, custom categories
    POST   /contentsafety/text:analyzeCustomCategory                    2024-02-15-preview and 2024-09-15-preview
    PATCH, GET, DELETE /contentsafety/text/blocklists/{name}            204 when deleted
    GET    /contentsafety/text/blocklists                               ?top=&skip=&maxpagesize=
    POST   /contentsafety/text/blocklists/{name}:addOrUpdateBlocklistItems
    POST   /contentsafety/text/blocklists/{name}:removeBlocklistItems   204
    GET    /contentsafety/text/blocklists/{name}/blocklistItems[/{id}]
    PUT, GET, DELETE /contentsafety/text/categories/{name}              ?version=
    POST   /contentsafety/text/categories/{name}:build                  ?version=; 202
    GET    /contentsafety/text/categories                               the newest version of each
    GET    /contentsafety/text/categories/operations/{id}               builds and deletions, for 7 days

Analysis and blocklists: 2023-10-01, 2024-02-15-preview, 2024-05-15-preview, 2024-09-01, 2024-09-15-preview and
2026-09-01-preview. Custom categories: in 2024-05-15-preview a part of `text:analyze` (`customizedCategories`), with the
status words BuildNotStarted, Building, BuildSucceeded, BuildFailed, a build that is followed by looking at its version,
and deletions that answer 202; in 2024-02-15-preview and 2024-09-15-preview an analysis of their own, with NotStarted,
Running, Succeeded, Failed, builds with an operation, and deletions that answer 204.

**The harm categories have no built-in model.** Hate, SelfHarm, Sexual and Violence are answered by the models that the
operator registers (`--harm-model Hate=FOLDER`; `content_safety_harms` tells how a score becomes a severity). Those
without a model always have severity 0.

Behaviour chosen where the service's is not documented:

* Whatever is wrong with a request is InvalidRequestBody, also an api-version that is missing or unknown, a query value,
  and what would be more than there may be (3 categories, 3 versions of one, 10,000 blocklist items). A second build of
  a category at a time is 429 TooManyRequests with Retry-After. Unknown categories, versions, blocklists and items are
  404 ResourceNotFound, also in an analysis and when deleting. Names of categories have the characters of blocklists'.
* Characters are Unicode code points. An empty text is refused, one of spaces is not. No `categories` are all four.
  `customizedCategories` count in 2024-05-15-preview alone; with them a text has up to 1,000 characters.
* A version that is not built is InvalidRequestBody. Without a version, the newest that is built answers. One that is
  built again answers as before until then.
* PUT answers 201 for a new category and 200 for another version of it; numbers are not used again while the category
  lasts. `sampleBlobUrl` is shown without its query (a signature is not kept), and the samples are not copied: they are
  read when a build begins, from the container of that name (`--container`), so the copy's URL is the same.
* Samples are read within the documented limits; that of 128,000 bytes, which contradicts the others, can be raised
  (`--largest-sample-file`). Samples that cannot be read or learnt from fail the build, and its error says why. What
  else is to be said of a model (no negatives, say) goes to the server's log: the API has no place for it.
* A deletion takes effect at once for everything but a look at the version, which in 2024-05-15-preview is `Deleting`
  until its model's file is gone (and never `DeleteFailed`: it is not there either way). The operation, which that
  version does not describe but points to, tells the same.
* With `haltOnBlocklistHit` and a match, `categoriesAnalysis` is empty, and custom categories are not asked either.
  How terms match is told in `content_safety_blocklists`. An item whose text is in the list already keeps its id.

Not done: images, incidents, prompt shields, groundedness, protected material; 2023-04-30-preview; blocklist items that
are regular expressions (refused); `blobDelimiter` has no effect; times of training are those of a small model.
"""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from starlette.responses import Response
from starlette.routing import Route

from service.server import content_safety_blocklists, content_safety_categories
from service.server.backend import Backend
from service.server.content_safety_blocklists import Blocklists, Term
from service.server.content_safety_categories import FIRST, SECOND, Categories, Detector
from service.server.content_safety_harms import CATEGORIES
from service.server.content_safety_requests import BASE, body, invalid, objects, refused, strings, text
from service.server.gateway import Call, Gateway, Operation, Resource, answer
from service.server.jobs import Jobs
from service.server.telemetry import Telemetry

VERSIONS = frozenset({"2023-10-01", "2024-09-01", "2026-09-01-preview", FIRST, *SECOND})
LONGEST_TEXT = 10_000
RATE = (1_000, 10.0)  # analyses, in so many seconds
LEVELS = {"FourSeverityLevels": 2, "EightSeverityLevels": 1}  # the steps between severities


@dataclass(frozen=True, slots=True)
class Analysis:
    """What is asked of a text; `step` is that between severities, `detectors` are None where none are asked for."""

    text: str
    harms: Sequence[str]
    step: int
    terms: Sequence[Term]
    halt: bool
    detectors: Sequence[Detector] | None


class ContentSafety:
    """The API over the server's state, models and jobs."""

    def __init__(self, backend: Backend, jobs: Jobs) -> None:
        self._backend = backend
        self._blocklists = Blocklists(backend.store)
        self._categories = Categories(backend, jobs)

    def routes(self, gateway: Gateway) -> list[Route]:
        """The paths of this API, behind a gateway."""
        telemetry = gateway.telemetry
        window = self._backend.window(*RATE)

        async def analyze(call: Call) -> Response:
            return await self.analyze(call, telemetry)

        async def analyze_custom_category(call: Call) -> Response:
            return await self.analyze_custom_category(call, telemetry)

        all_harms = {"POST": Operation("classify", analyze, window)}
        one_category = {"POST": Operation("classify", analyze_custom_category)}
        return [
            Route(f"{BASE}/text:analyze", Resource(gateway, "content_safety", VERSIONS, all_harms, refused)),
            Route(
                f"{BASE}/text:analyzeCustomCategory", Resource(gateway, "content_safety", SECOND, one_category, refused)
            ),
            *self._blocklists.routes(gateway, VERSIONS),
            *self._categories.routes(gateway),
        ]

    async def analyze(self, call: Call, telemetry: Telemetry) -> Response:
        """What a text holds: terms of blocklists, harm, and custom categories."""
        analysis = self._asked(await body(call), call.version)
        found = await asyncio.to_thread(analyzed, analysis, self._backend)
        for name in (*analysis.harms, *(one.category for one in analysis.detectors or ())):
            telemetry.documents.labels(name).inc()
        return answer(found)

    async def analyze_custom_category(self, call: Call, telemetry: Telemetry) -> Response:
        """Whether a text is of one custom category."""
        given = await body(call)
        content = text(given, "text", content_safety_categories.LONGEST_TEXT)
        detector = self._categories.detector(given.get("categoryName"), given.get("version"))
        self._categories.admit()
        found = await asyncio.to_thread(content_safety_categories.detected, detector, content, self._backend)
        telemetry.documents.labels(detector.category).inc()
        return answer({"customCategoryAnalysis": {"detected": found}})

    def _asked(self, given: Mapping[str, Any], version: str) -> Analysis:
        customized = objects(given, "customizedCategories") if version == FIRST else []
        content = text(given, "text", content_safety_categories.LONGEST_TEXT if customized else LONGEST_TEXT)
        harms = list(dict.fromkeys(strings(given, "categories"))) or CATEGORIES
        if unknown := set(harms) - set(CATEGORIES):
            raise invalid(f"categories holds {len(unknown)} that are none of {', '.join(CATEGORIES)}.")
        levels = given.get("outputType")
        if levels is not None and (not isinstance(levels, str) or levels not in LEVELS):
            raise invalid(f"outputType is to be {' or '.join(LEVELS)}.")
        halt = given.get("haltOnBlocklistHit")
        if halt is not None and not isinstance(halt, bool):
            raise invalid("haltOnBlocklistHit is to be true or false.")
        terms = self._blocklists.terms(list(dict.fromkeys(strings(given, "blocklistNames"))))
        detectors = [self._categories.detector(one.get("categoryName"), one.get("version")) for one in customized]
        if detectors:
            self._categories.admit()
        asked = "customizedCategories" in given and version == FIRST
        step = LEVELS[levels or "FourSeverityLevels"]
        return Analysis(content, harms, step, terms, halt or False, detectors if asked else None)


def analyzed(analysis: Analysis, backend: Backend) -> dict[str, Any]:
    """The answer to an analysis; not for the event loop. Raises `ModelError`."""
    matches = content_safety_blocklists.matches(analysis.text, analysis.terms)
    halted = bool(matches) and analysis.halt
    severities = backend.harms.severities(analysis.text, () if halted else analysis.harms)
    found: dict[str, Any] = {
        "blocklistsMatch": matches,
        "categoriesAnalysis": [
            {"category": category, "severity": severity - severity % analysis.step}
            for category, severity in severities.items()
        ],
    }
    if analysis.detectors is not None:
        found["textCustomizedCategoriesAnalysis"] = [
            {
                "categoryName": one.category,
                "detected": content_safety_categories.detected(one, analysis.text, backend),
            }
            for one in (() if halted else analysis.detectors)
        ]
    return found
