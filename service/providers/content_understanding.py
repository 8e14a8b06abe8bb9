"""Azure Content Understanding, one document a job.

===================  ===================================  ==============================================
`api_version`        asked                                answers with
===================  ===================================  ==============================================
2025-05-01-preview   `classifiers/NAME:classify`          the category of each part of the document
2025-11-01, later    `analyzers/NAME:analyzeBinary`       the same, of an analyzer with contentCategories
===================  ===================================  ==============================================

A text goes out as the bytes of a plain text file; there is no field for text. The classes are the categories of its
parts in the order in which they come, each once and without a score, for the service gives none. `$OTHER`, what fits no
category, is a class like the others.
"""

import uuid
from collections.abc import Iterator, Sequence
from typing import Any

from service import settings
from service.documents import Classified, ClassScore, Document, Outcome
from service.errors import Rejected
from service.providers import azure
from service.providers.azure import Codes, Exchange, Resource, codes_of, word

_MOST_BYTES = 1_000_000
_CODES = Codes(
    content={
        "InvalidRequest": "",
        "InvalidArgument": "",
        "InvalidContent": "the document cannot be read",
        "ContentTooLarge": "the document is too large",
        "UnsupportedContent": "documents of this kind are not supported",
    },
    settings={
        "NotFound": "classifier or analyzer",
        "ClassifierNotFound": "classifier",
        "AnalyzerNotFound": "analyzer",
        "ModelNotFound": "classifier or analyzer",
    },
)


class ContentUnderstanding:
    """A classifier, or an analyzer with categories, of a Content Understanding resource."""

    documents_per_call = 1
    characters_per_call = 1_000_000
    characters_per_document = 1_000_000
    task = "multi_label"

    def __init__(self, settings: settings.ContentUnderstanding, http: Exchange) -> None:
        what = "an Azure Content Understanding resource"
        self._resource = Resource(settings, http, _CODES, "/contentunderstanding", what)
        self._query = {"api-version": settings.api_version}
        if settings.classifier is not None:
            path = f"/classifiers/{settings.classifier}:classify"
            self.model, self._results = settings.classifier, "/classifierResults"
        else:
            path = f"/analyzers/{settings.analyzer}:analyzeBinary"
            self.model, self._results = str(settings.analyzer), "/analyzerResults"
        self._submit_url = self._resource.url(path, stringEncoding="codePoint", **self._query)

    def __repr__(self) -> str:
        return f"ContentUnderstanding({self._resource.host!r}, {self.model!r})"

    async def submit(self, documents: Sequence[Document]) -> str:
        """Hand one document in; gives the URL to ask after it.

        Raises Throttled, Unavailable, Rejected and Misconfigured.
        """
        (document,) = documents
        content = azure.mended(document.text).encode()
        if len(content) > _MOST_BYTES:
            raise Rejected(f"the text has {len(content):,} bytes, more than {_MOST_BYTES:,}")
        answer = await self._resource.ask("POST", self._submit_url, content, "application/octet-stream")
        if not answer.is_success:
            raise self._resource.failure(answer, Rejected)
        return self._resource.submitted(answer)

    async def poll(self, job: str, documents: Sequence[Document]) -> list[Outcome] | None:
        """As `jobs.JobProvider.poll`. Raises JobLost, Rejected, Throttled, Unavailable and Misconfigured."""
        resource = self._resource
        if not resource.is_ours(job):
            raise resource.elsewhere()
        page = await resource.page(job)
        status = word(page.get("status"))
        if not status:
            raise resource.malformed("a result without a status")
        if status in azure.ENDED_BADLY:
            raise resource.ended(codes_of(page.get("error")), Rejected, status)
        if status not in azure.DONE:
            return None
        try:
            names = dict.fromkeys(_categories(page["result"]))
        except (KeyError, TypeError, AttributeError):
            raise resource.malformed("a result that does not fit what was asked") from None
        outcome = Classified(tuple(ClassScore(name, None) for name in names), units=1)
        return [outcome for _ in documents]

    async def cancel(self, job: str) -> None:
        """Nothing can be done: the service has no way to give a classification up."""

    async def probe(self) -> None:
        """As `dispatch.Provider.probe`: asks after a result that cannot exist. Raises as there, and Throttled."""
        await self._resource.probe(self._resource.url(f"{self._results}/{uuid.uuid4()}", **self._query))


def _categories(result: dict[str, Any]) -> Iterator[str]:
    """The category of each part of a document; an analyzer writes those of segments beside it."""
    for content in result["contents"]:
        for part in (content, *(content.get("segments") or ())):
            category = part.get("category")
            if category is None:
                continue
            if not isinstance(category, str) or not category:
                raise TypeError(category)
            yield category
