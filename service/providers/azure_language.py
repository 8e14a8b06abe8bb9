"""Azure Language custom text classification, by jobs of its runtime API, in the versions of `azure_language_dialects`.

Where the vendor's documentation and the service differ, both are read: of `class`, `classes`, `classifications` and
`classification` an answer has one, whatever the version. What its tasks say of their state (`state` or `status`) is not
looked at: a task has results, or the job has failed for the reasons it gives.
"""

import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from operator import attrgetter
from typing import Any

import orjson

from service import settings
from service.documents import Classified, ClassScore, Document, Outcome, Reason, Refused
from service.errors import CallFailed, JobLost
from service.providers.azure import DONE, ENDED_BADLY, Exchange, Resource, codes_of, mended, word
from service.providers.azure_language_dialects import spoken
from service.transport.failures import At

_PAGES = 26  # 25 documents, at least one a page, and a last page that is empty
_RECORD = 1000  # characters of one text record, the unit of the bill


class AzureLanguage:
    """A deployed project of an Azure Language resource, asked through jobs."""

    documents_per_call = 25
    characters_per_call = 125_000
    characters_per_document = 125_000
    bytes_per_call = bytes_per_document = 1_000_000  # of the body: in JSON, 125,000 characters are 750,000 at most

    def __init__(self, settings: settings.AzureLanguage, http: Exchange) -> None:
        self._dialect = spoken(settings)
        self._resource = Resource(settings, http, self._dialect.rules, self._dialect.path)
        self._submit_url = self._resource.url(self._dialect.submit, **self._dialect.query)
        self.model = settings.model
        self.task: str = settings.task

    def __repr__(self) -> str:
        return f"AzureLanguage({self._resource.host!r}, {self.model!r}, {self.task!r})"

    async def submit(self, documents: Sequence[Document]) -> str:
        """Hand 1 to 25 documents in; gives the URL to ask after them.

        Documents go out under numbers of ours, so their own ids may repeat. Raises Throttled, Unavailable, Rejected
        and Misconfigured.
        """
        answer = await self._resource.ask("POST", self._submit_url, _body(documents, self._dialect.tasks))
        if not answer.is_success:
            raise self._resource.failure(answer, At.REQUEST)
        return self._resource.submitted(answer)

    async def poll(self, job: str, documents: Mapping[int, Document]) -> list[Outcome] | None:
        """The outcomes of these documents of `job`, in their order; None while there are none.

        Raises JobLost when none will come (also for a job of another endpoint), Rejected when the job failed for what
        is in its documents, and Throttled, Unavailable and Misconfigured.
        """
        self._resource.check_own(job)
        page = await self._resource.page(self._dialect.whole(job))
        status = word(page.get("status"))
        if not status:
            raise self._resource.malformed("a job without a status")
        if status in ENDED_BADLY:
            raise self._ended(page)
        if status not in DONE:
            return None
        asked = {str(number): document for number, document in documents.items()}
        answers = self._read(page, asked)
        if not answers:
            raise self._ended(page)
        followed = {job}
        while len(answers) < len(asked) and (next_page := page.get("nextLink") or page.get("@nextLink")):
            link = self._resource.ours(next_page)
            if link in followed or len(followed) == _PAGES:
                raise self._resource.malformed("pages of results without an end")
            followed.add(link)
            page = await self._resource.page(link)
            answers |= self._read(page, asked)
        for number, document in asked.items():
            if number not in answers:
                host = self._resource.host
                raise JobLost(f"{host}: a finished job left {document.record.position} without an answer")
        return [answers[number] for number in asked]

    async def cancel(self, job: str) -> None:
        """Ask that the job be given up; one that has ended already is left as it is. Raises as `poll` does."""
        self._resource.check_own(job)
        if (cancelling := self._dialect.cancelling(job)) is None:
            return
        answer = await self._resource.ask("POST", cancelling)
        ended = {400, 409}  # the documentation does not say which of the two a finished job gives
        if not (answer.is_success or answer.status_code in ended):
            raise self._resource.failure(answer, At.POLL)

    async def clear(self, job: str) -> None:
        """As `jobs.JobProvider.clear`: the service does, after a day."""

    async def probe(self) -> None:
        """Ask after a job that cannot exist, which costs nothing: not found means reached and let in.

        Raises Misconfigured, Unavailable and Throttled.
        """
        nowhere = self._resource.url(f"{self._dialect.jobs}/{uuid.uuid4()}", **self._dialect.query)
        answer = await self._resource.ask("GET", nowhere)
        html = "html" in answer.headers.get("content-type", "")
        if answer.status_code == 404 and not html:
            return
        if answer.status_code == 404 or answer.is_success:
            raise self._resource.stranger(answer)
        raise self._resource.failure(answer, At.LOOK)

    def _read(self, page: dict[str, Any], asked: dict[str, Document]) -> dict[str, Outcome]:
        """The outcomes on one page of results, by the number of the document."""
        try:
            outcomes = list(self._outcomes(page, asked))
        except (KeyError, TypeError, ValueError, AttributeError):
            raise self._resource.malformed("results that do not fit what was asked") from None
        answers = dict(outcomes)
        if len(answers) < len(outcomes):
            raise self._resource.malformed("two results for one document")
        return answers

    def _outcomes(self, page: dict[str, Any], asked: dict[str, Document]) -> Iterator[tuple[str, Outcome]]:
        # A job of ours has a single task, so every item is its own, whatever the documentation calls the kind.
        for item in self._dialect.items(page):
            results = item.get("results") or {"documents": ()}
            for answer in results["documents"]:
                number = answer["id"]
                if number in asked or not _is_number(number):
                    yield number, _classified(answer, asked[number].text)
            for failed in results.get("errors") or ():
                number = failed["id"]
                if number in asked or not _is_number(number):
                    yield number, self._refused(failed["error"], asked[number])

    def _refused(self, error: dict[str, Any], document: Document) -> Refused:
        why = self._resource.refused(codes_of(error), str(document.record.position))
        return Refused(Reason.REFUSED_BY_CLASSIFIER, why)

    def _ended(self, page: dict[str, Any]) -> CallFailed:
        """What it means that a job ended without results, by the codes of its errors and those of its tasks."""
        errors = _list(page.get("errors"))
        with suppress(AttributeError, KeyError, TypeError):
            for item in self._dialect.items(page):
                if isinstance(item, dict):
                    errors += (*_list(item.get("errors")), item.get("error"))
        return self._resource.ended([code for error in errors for code in codes_of(error)], word(page["status"]))


def _is_number(number: object) -> bool:
    """Whether a job can have a document under it, which may be another's to ask for."""
    return isinstance(number, str) and number.isdecimal() and int(number) < AzureLanguage.documents_per_call


def _body(documents: Sequence[Document], tasks: object) -> bytes:
    try:
        return orjson.dumps({"analysisInput": {"documents": _numbered(documents)}, "tasks": tasks})
    except TypeError:
        whole = [
            document._replace(text=mended(document.text), language=document.language and mended(document.language))
            for document in documents
        ]
        return orjson.dumps({"analysisInput": {"documents": _numbered(whole)}, "tasks": tasks})


def _numbered(documents: Sequence[Document]) -> list[dict[str, str]]:
    return [
        {"id": str(number), "text": document.text, "language": document.language}
        if document.language
        else {"id": str(number), "text": document.text}
        for number, document in enumerate(documents)
    ]


def _classified(answer: dict[str, Any], text: str) -> Classified:
    classes: Any = answer.get("class")
    if classes is None:
        classes = answer.get("classes", answer.get("classifications", answer.get("classification")))
    if isinstance(classes, dict):
        classes = [classes]
    scores = tuple(map(_class_score, classes))
    if len(scores) > 1:
        scores = tuple(sorted(scores, key=attrgetter("score"), reverse=True))
    warnings, statistics = answer.get("warnings"), answer.get("statistics")
    units = statistics.get("transactionsCount") if statistics else None
    return Classified(
        scores,
        units if isinstance(units, int) else (len(text) + _RECORD - 1) // _RECORD or 1,
        tuple(code for warning in warnings for code in codes_of(warning)) if warnings else (),
    )


def _class_score(found: dict[str, Any]) -> ClassScore:
    name, score = found["category"], found["confidenceScore"]
    if type(score) is int:
        score = float(score)
    if not (type(name) is str and name and type(score) is float and 0 <= score <= 1):
        raise ValueError(name)
    return ClassScore(name, score)


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []
