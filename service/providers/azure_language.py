"""Azure Language custom text classification, by its runtime's jobs.

==================  ====================================  ====================================================
`api_version`       jobs at                               a model is named by
==================  ====================================  ====================================================
2022-05-01, later   /language/analyze-text/jobs           project and deployment
v3.2-preview.2      /text/analytics/v3.2-preview.2/…      project and deployment
v3.1-preview.ct.1   /text/analytics/v3.1-preview.ct.1/…   the `modelId` that publishing gave
==================  ====================================  ====================================================

The two kinds of task, their parameters and results are the same in api-versions 2022-05-01, 2023-04-01 and later. Where
the vendor's documentation and the service differ (`classes` and `class`), and between the versions, every spelling is
read. The previews have no way to cancel a job; they are asked for all results on one page, which is 20 by default.
"""

import uuid
from collections.abc import Iterable, Iterator, Sequence
from operator import attrgetter
from typing import Any

import orjson

from service import settings
from service.documents import Classified, ClassScore, Document, Outcome, Reason, Refused
from service.errors import CallFailed, JobLost, Misconfigured, Rejected
from service.providers import azure
from service.providers.azure import Codes, Exchange, Resource, codes_of, word

_PAGES = 26  # 25 documents, at least one a page, and a last page that is empty
_RECORD = 1000  # characters of one text record, the unit of the bill
_CODES = Codes(
    content={
        "InvalidRequest": "",
        "InvalidArgument": "",
        "InvalidDocument": "a document is empty, too long, or not text",
        "InvalidDocumentBatch": "a document is empty, or there are too many of them",
        "UnsupportedLanguageCode": "the language of a document is not supported",
        "MissingInputDocuments": "no document was found in the request",
        "EmptyRequest": "no document was found in the request",
    },
    settings={
        "ProjectNotFound": "project",
        "DeploymentNotFound": "deployment",
        "ModelVersionIncorrect": "deployment",
        "InvalidParameterValue": "project, deployment, task and api_version",
        "InvalidRequestBodyFormat": "api_version",
    },
)


class AzureLanguage:
    """A deployed project of an Azure Language resource, asked through jobs."""

    documents_per_call = 25
    characters_per_call = 125_000
    characters_per_document = 125_000

    def __init__(self, settings: settings.AzureLanguage, http: Exchange) -> None:
        self.model = settings.model
        self.task: str = settings.task
        form = _FORMS.get(settings.api_version, _Current)
        self._form = form(settings)
        self._resource = Resource(settings, http, _CODES, self._form.path, "an Azure Language resource")
        self._submit_url = self._resource.url(self._form.submit, **self._form.query)

    def __repr__(self) -> str:
        return f"AzureLanguage({self._resource.host!r}, {self.model!r}, {self.task!r})"

    async def submit(self, documents: Sequence[Document]) -> str:
        """Hand 1 to 25 documents in; gives the URL to ask after them.

        Documents go out under numbers of ours, so their own ids may repeat. Raises Throttled, Unavailable, Rejected
        and Misconfigured.
        """
        answer = await self._resource.ask("POST", self._submit_url, _body(documents, self._form.tasks))
        if answer.status_code == 404:
            named = f"{self._form.named_by} (the names are case-sensitive)"
            raise Misconfigured(f"{self._resource.told(answer)}: check {named} and endpoint")
        if not answer.is_success:
            raise self._resource.failure(answer, Rejected)
        return self._resource.submitted(answer)

    async def poll(self, job: str, documents: Sequence[Document]) -> list[Outcome] | None:
        """The outcomes of the documents submitted as `job`, in their order; None while there are none.

        Raises JobLost when none will come (also for a job of another endpoint), Rejected when the job failed for what
        is in its documents, and Throttled, Unavailable and Misconfigured.
        """
        resource = self._resource
        if not resource.is_ours(job):
            raise resource.elsewhere()
        page = await resource.page(self._form.whole(job))
        status = word(page.get("status"))
        if not status:
            raise resource.malformed("a job without a status")
        if status in azure.ENDED_BADLY:
            raise self._ended(page)
        if status not in azure.DONE:
            return None
        asked = {str(number): document for number, document in enumerate(documents)}
        answers = self._read(page, asked)
        if not answers:
            raise self._ended(page)
        followed = {job}
        while len(answers) < len(asked) and (link := page.get("nextLink") or page.get("@nextLink")):
            link = resource.ours(link)
            if link in followed or len(followed) == _PAGES:
                raise resource.malformed("pages of results without an end")
            followed.add(link)
            page = await resource.page(link)
            answers |= self._read(page, asked)
        for number, document in asked.items():
            if number not in answers:
                raise JobLost(f"{resource.host}: a finished job left {document.record.position} without an answer")
        return [answers[number] for number in asked]

    async def cancel(self, job: str) -> None:
        """Ask that the job be given up; one that has ended already is left as it is. Raises as `poll` does."""
        if not self._resource.is_ours(job):
            raise self._resource.elsewhere()
        if (url := self._form.cancel(job)) is None:
            return
        answer = await self._resource.ask("POST", url)
        ended = {400, 409}  # the documentation does not say which of the two a finished job gives
        if not (answer.is_success or answer.status_code in ended):
            raise self._resource.lost_or_failed(answer)

    async def probe(self) -> None:
        """As `dispatch.Provider.probe`: asks after a job that cannot exist. Raises as there, and Throttled."""
        await self._resource.probe(self._resource.url(f"{self._form.jobs}/{uuid.uuid4()}", **self._form.query))

    def _read(self, page: dict[str, Any], asked: dict[str, Document]) -> dict[str, Outcome]:
        """The outcomes on one page of results, by the number of the document."""
        try:
            outcomes = list(_outcomes(self._form.items(page), asked))
        except (KeyError, TypeError, ValueError, AttributeError):
            raise self._resource.malformed("results that do not fit what was asked") from None
        answers = dict(outcomes)
        if len(answers) < len(outcomes):
            raise self._resource.malformed("two results for one document")
        return answers

    def _ended(self, page: dict[str, Any]) -> CallFailed:
        codes = [code for error in self._errors(page) for code in codes_of(error)]
        return self._resource.ended(codes, Rejected, word(page["status"]))

    def _errors(self, page: dict[str, Any]) -> Iterator[object]:
        """The errors of a job and of its tasks."""
        yield from _list(page.get("errors"))
        try:
            items = list(self._form.items(page))
        except (KeyError, TypeError, AttributeError):
            return
        for item in items:
            if isinstance(item, dict):
                yield from (*_list(item.get("errors")), item.get("error"))


class _Current:
    """2022-05-01 and later."""

    path, submit, jobs = "/language/analyze-text/jobs", "", ""
    named_by = "project, deployment"

    def __init__(self, settings: settings.AzureLanguage) -> None:
        kind = {"single_label": "CustomSingleLabelClassification", "multi_label": "CustomMultiLabelClassification"}
        # Without loggingOptOut the service keeps the texts for 48 hours, to look into troubles of its own.
        parameters = {"projectName": settings.project, "deploymentName": settings.deployment, "loggingOptOut": True}
        self.query = {"api-version": settings.api_version}
        self.tasks: object = [{"kind": kind[settings.task], "parameters": parameters}]

    def whole(self, job: str) -> str:
        return job

    def cancel(self, job: str) -> str | None:
        path, mark, query = job.partition("?")
        return f"{path}:cancel{mark}{query}"

    def items(self, page: dict[str, Any]) -> Iterable[Any]:
        # A job of ours has a single task, so every item is its own, whatever the documentation calls the kind.
        return page["tasks"].get("items") or ()


class _Bridge:
    """v3.2-preview.2, of October 2021."""

    path, submit, jobs = "/text/analytics/v3.2-preview.2", "/analyze", "/analyze/jobs"
    named_by = "project, deployment"
    single_label = "customSingleClassificationTasks"

    def __init__(self, settings: settings.AzureLanguage) -> None:
        self.query: dict[str, str] = {}
        parameters = {"project-name": settings.project, "deployment-name": settings.deployment, "loggingOptOut": True}
        self._key = self.single_label if settings.task == "single_label" else "customMultiClassificationTasks"
        self.tasks: object = {self._key: [{"parameters": parameters}]}

    def whole(self, job: str) -> str:
        return f"{job}{'&' if '?' in job else '?'}$top={AzureLanguage.documents_per_call}"

    def cancel(self, job: str) -> str | None:  # noqa: ARG002  there is no such operation
        return None

    def items(self, page: dict[str, Any]) -> Iterable[Any]:
        return page["tasks"].get(self._key) or ()


class _First(_Bridge):
    """v3.1-preview.ct.1, the first of all."""

    path = "/text/analytics/v3.1-preview.ct.1"
    named_by = "model_id"
    single_label = "customClassificationTasks"

    def __init__(self, settings: settings.AzureLanguage) -> None:
        super().__init__(settings)
        self.tasks = {self._key: [{"parameters": {"modelId": settings.model_id}}]}

    def items(self, page: dict[str, Any]) -> Iterable[Any]:
        return (page["tasks"].get("tasks") or {}).get(self._key) or ()


_FORMS: dict[str, type[_Current | _Bridge]] = {"v3.1-preview.ct.1": _First, "v3.2-preview.2": _Bridge}


def _body(documents: Sequence[Document], tasks: object) -> bytes:
    try:
        return orjson.dumps({"analysisInput": {"documents": _numbered(documents)}, "tasks": tasks})
    except TypeError:
        mended = [
            document._replace(
                text=azure.mended(document.text), language=document.language and azure.mended(document.language)
            )
            for document in documents
        ]
        return orjson.dumps({"analysisInput": {"documents": _numbered(mended)}, "tasks": tasks})


def _numbered(documents: Sequence[Document]) -> list[dict[str, str]]:
    return [
        {"id": str(number), "text": document.text, "language": document.language}
        if document.language
        else {"id": str(number), "text": document.text}
        for number, document in enumerate(documents)
    ]


def _outcomes(items: Iterable[Any], asked: dict[str, Document]) -> Iterator[tuple[str, Outcome]]:
    for item in items:
        results = item.get("results") or {"documents": ()}
        for answer in results["documents"]:
            number = answer["id"]
            yield number, _classified(answer, asked[number].text)
        for failed in results.get("errors") or ():
            number = failed["id"]
            yield number, _refused(failed["error"], asked[number])


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


def _refused(error: dict[str, Any], document: Document) -> Refused:
    codes = codes_of(error)
    if wrong := _CODES.wrong_settings(codes):
        raise Misconfigured(f"{document.record.position} was refused, {_CODES.spelt(codes)}: check {wrong}")
    if not _CODES.passing.isdisjoint(codes):
        raise JobLost(f"a finished job failed on {document.record.position}, {_CODES.spelt(codes)}")
    return Refused(Reason.REFUSED_BY_CLASSIFIER, _CODES.spelt(codes))


def _class_score(found: dict[str, Any]) -> ClassScore:
    name, score = found["category"], found["confidenceScore"]
    if type(score) is int:
        score = float(score)
    if not (type(name) is str and name and type(score) is float and 0 <= score <= 1):
        raise ValueError(name)
    return ClassScore(name, score)


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []
