"""Azure Content Understanding, one document a job: `{endpoint}/contentunderstanding`.

* 2025-05-01-preview has classifiers: `classifiers/{id}:classify`, whose results are in `classifierResults`.
* 2025-11-01 has analyzers with `contentCategories`: `analyzers/{id}:analyzeBinary`, with results in `analyzerResults`.

A text goes out as it is, in UTF-8, as `application/octet-stream`; the service has no field for one. It gives no score.
`$OTHER`, its word for a content of no category, is passed on as a class like any other. A document that is split, into
contents or a content into segments, has the classes of all its parts, each once, those of the first parts first.

Only analyzers have an operation that a job can be given up with: its results are deleted. What is billed depends on the
pages that the service finds in a text; these are the units, one at least.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from service import settings
from service.documents import Classified, ClassScore, Document, Outcome
from service.errors import JobLost, Misconfigured, Rejected, Unavailable
from service.providers.azure import DONE, ENDED_BADLY, Exchange, Resource, codes_of, mended, rules, word
from service.transport.failures import At

_MOST_BYTES = 1_000_000
_UNUSABLE = {"failed", "deleting"}
RULES = {
    kind: rules(kind, {}, {"InvalidRequest": "the document is empty, too long or not taken for another reason"})
    for kind in ("classifier", "analyzer")
}
"""What is done about failures, by what is asked."""


class ContentUnderstanding:
    """A classifier or analyzer of a resource, asked through jobs."""

    documents_per_call = 1
    characters_per_call = characters_per_document = 1_000_000
    bytes_per_call = bytes_per_document = _MOST_BYTES

    def __init__(self, settings: settings.ContentUnderstanding, http: Exchange) -> None:
        kind, verb = ("classifier", "classify") if settings.classifier else ("analyzer", "analyzeBinary")
        self.model = f"{kind}s/{settings.classifier or settings.analyzer}"
        self.task: str = settings.task
        self._kind = kind
        self._resource = Resource(settings, http, RULES[kind], "/contentunderstanding")
        version = {"api-version": settings.api_version}
        self._own_url = self._resource.url(f"/{self.model}", **version)
        self._submit_url = self._resource.url(f"/{self.model}:{verb}", **version)

    def __repr__(self) -> str:
        return f"ContentUnderstanding({self._resource.host!r}, {self.model!r}, {self.task!r})"

    async def submit(self, documents: Sequence[Document]) -> str:
        """Hand the document in, for it is one; gives the URL to ask after it.

        Raises Throttled, Unavailable, Rejected and Misconfigured.
        """
        (document,) = documents
        content = mended(document.text).encode()
        if len(content) > _MOST_BYTES:
            raise Rejected(f"the text has {len(content):,} bytes in UTF-8, and {_MOST_BYTES:,} are the most")
        answer = await self._resource.ask("POST", self._submit_url, content, "application/octet-stream")
        if answer.is_success:
            return self._resource.submitted(answer)
        failure = self._resource.failure(answer, At.REQUEST)
        if isinstance(failure, Rejected):
            await self.probe()  # one that is not ready yet is no document's fault
        raise failure

    async def poll(self, job: str, documents: Mapping[int, Document]) -> list[Outcome] | None:
        """The outcome of the document submitted as `job`; None while there is none.

        Raises JobLost when none will come (also for a job of another endpoint), Rejected when the job failed for what
        is in the document, and Throttled, Unavailable and Misconfigured.
        """
        self._resource.check_own(job)
        page = await self._resource.page(job)
        status = word(page.get("status"))
        if not status:
            raise self._resource.malformed("a job without a status")
        if status in ENDED_BADLY:
            raise self._resource.ended(codes_of(page.get("error")), status)
        if status not in DONE:
            return None
        try:
            outcome = _classified(page)
        except (AttributeError, KeyError, TypeError, ValueError):
            raise self._resource.malformed("results of another shape") from None
        if outcome is None:
            (document,) = documents.values()
            raise JobLost(f"{self._resource.host}: a finished job found nothing in {document.record.position}")
        return [outcome]

    async def cancel(self, job: str) -> None:
        """Have what may come of the job deleted, where the API can. Raises as `poll` does."""
        self._resource.check_own(job)
        if self._kind == "analyzer":
            answer = await self._resource.ask("DELETE", job)
            if not answer.is_success:
                raise self._resource.failure(answer, At.POLL)

    async def clear(self, job: str) -> None:
        """As `jobs.JobProvider.clear`: the service does, after a day."""

    async def probe(self) -> None:
        """Look whether the classifier or analyzer is there and ready, which costs nothing.

        Raises Misconfigured, Unavailable and Throttled.
        """
        found = await self._resource.described(self._own_url)
        status = word(found.get("status"))
        if not status:
            raise self._resource.malformed(f"{self._kind} without a status")
        if status in _UNUSABLE:
            raise Misconfigured(f"{self.model} is {status}: check {self._kind}")
        if status != "ready":
            raise Unavailable(f"{self.model} is not ready yet ({status})")


def _classified(page: Mapping[str, Any]) -> Classified | None:
    """The outcome that a finished job gives; None where it has no content at all."""
    result = page["result"]
    contents = result["contents"]
    parts = [part for content in contents for part in (content, *(content.get("segments") or ()))]
    names = dict.fromkeys(part["category"] for part in parts if part.get("category") is not None)
    if not all(isinstance(name, str) and name for name in names):
        raise TypeError(names)
    warnings = [code for warning in result.get("warnings") or () for code in codes_of(warning)]
    pages = max((content.get("endPageNumber") or 1 for content in contents), default=0)
    if not isinstance(pages, int):
        raise TypeError(pages)
    return Classified(tuple(ClassScore(name, None) for name in names), pages, tuple(warnings)) if contents else None
