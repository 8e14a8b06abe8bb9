"""The ways in which Azure Language is spoken to about custom text classification, each with the versions that speak it.

They differ in where a job is submitted and what its one task looks like, there and back. The two previews of 2021 have
no `api-version` in their URLs, no operation that cancels a job, and write `@nextLink`. Of v3.1-preview.ct.1 no
description but its quickstart was published; where that is silent (pages, failures, the words for them), it is taken to
be as its sister versions.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Protocol

from service import settings
from service.providers.azure import rules
from service.transport.failures import Rule

_CONTENT = {
    "InvalidDocument": "a document is empty, too long, or not text",
    "InvalidDocumentBatch": "a document is empty, or there are too many of them",
    "UnsupportedLanguageCode": "the language of a document is not supported",
    "MissingInputDocuments": "no document was found in the request",
    "EmptyRequest": "no document was found in the request",
    "InvalidRequest": "",
    "InvalidArgument": "",
}
RULES = rules(
    "project, deployment (the names are case-sensitive)",
    {
        "ProjectNotFound": "project",
        "DeploymentNotFound": "deployment",
        "ModelVersionIncorrect": "deployment",
        "InvalidParameterValue": "project, deployment, task and api_version",
        "InvalidRequestBodyFormat": "api_version",
    },
    _CONTENT,
)
"""What is done about failures, where a project's deployment is asked."""
RULES_OF_A_MODEL = rules(
    "model_id",
    {
        "ModelVersionIncorrect": "model_id",
        "InvalidParameterValue": "model_id, task and api_version",
        "InvalidRequestBodyFormat": "api_version",
    },
    _CONTENT,
)
"""The same where a model is asked by its id."""


class Dialect(Protocol):
    """What a version of the API sends, and where in its answers the results are."""

    path: str
    """The path of the API."""
    submit: str
    """Where in it a job is submitted."""
    jobs: str
    """Where in it jobs are."""
    rules: tuple[Rule, ...]
    """What is done about failures."""

    @property
    def query(self) -> Mapping[str, str]:
        """What is in the query of every URL that is made here."""
        ...

    @property
    def tasks(self) -> object:
        """The one task, as a submission has it."""
        ...

    def items(self, page: Mapping[str, Any]) -> Iterable[Any]:
        """The tasks of a job on a page of it, none while it is at work; any exception where the page has none."""
        ...

    def whole(self, job: str) -> str:
        """The URL of a job's results, on as few pages as can be."""
        ...

    def cancelling(self, job: str) -> str | None:
        """The URL that cancels the job at a URL; None where nothing does."""
        ...


class AnalyzeText:
    """The versions that are dates, 2022-05-01 and later: `/language/analyze-text/jobs`."""

    path, submit, jobs = "/language/analyze-text/jobs", "", ""
    rules = RULES

    def __init__(self, settings: settings.AzureLanguage) -> None:
        self.query = {"api-version": settings.api_version}
        # Without loggingOptOut the service keeps the texts for 48 hours, to look into troubles of its own.
        parameters = {"projectName": settings.project, "deploymentName": settings.deployment, "loggingOptOut": True}
        kinds = {"single_label": "CustomSingleLabelClassification", "multi_label": "CustomMultiLabelClassification"}
        self.tasks = [{"kind": kinds[settings.task], "parameters": parameters}]

    def items(self, page: Mapping[str, Any]) -> Iterable[Any]:
        """The tasks, in a list of any kinds."""
        return page["tasks"].get("items") or ()

    def whole(self, job: str) -> str:
        """As the service gave it."""
        return job

    def cancelling(self, job: str) -> str:
        """The job's URL with a verb at the end of its path."""
        path, mark, query = job.partition("?")
        return f"{path}:cancel{mark}{query}"


class Preview32:
    """v3.2-preview.2 (October 2021): the tasks of a kind are a list of their own, right below `tasks`."""

    path, submit, jobs = "/text/analytics/v3.2-preview.2", "/analyze", "/analyze/jobs"
    query: Mapping[str, str] = {}
    rules = RULES

    def __init__(self, settings: settings.AzureLanguage) -> None:
        kinds = {"single_label": "customSingleClassificationTasks", "multi_label": "customMultiClassificationTasks"}
        self._kind = kinds[settings.task]
        names = {"project-name": settings.project, "deployment-name": settings.deployment}
        self.tasks = {self._kind: [{"parameters": {**names, "loggingOptOut": True}}]}

    def items(self, page: Mapping[str, Any]) -> Iterable[Any]:
        """The tasks of our kind."""
        return page["tasks"].get(self._kind) or ()

    def whole(self, job: str) -> str:
        """With a page for a full job: 20 documents are the default of this version."""
        return f"{job}{'&' if '?' in job else '?'}$top=25"

    def cancelling(self, job: str) -> None:
        """Nothing does: the job ends by itself, and what comes of it is not fetched."""


class Preview31:
    """v3.1-preview.ct.1 (July 2021): a published model is named by its id, and results are in tasks within tasks.

    Its quickstart knows no way to opt out of logging, so none is asked for.
    """

    path, submit, jobs = "/text/analytics/v3.1-preview.ct.1", "/analyze", "/analyze/jobs"
    query: Mapping[str, str] = {}
    rules = RULES_OF_A_MODEL

    def __init__(self, settings: settings.AzureLanguage) -> None:
        kinds = {"single_label": "customClassificationTasks", "multi_label": "customMultiClassificationTasks"}
        self._kind = kinds[settings.task]
        parameters = {"modelId": settings.model_id, "stringIndexType": "TextElements_v8"}
        self.tasks = {self._kind: [{"parameters": parameters}]}

    def items(self, page: Mapping[str, Any]) -> Iterable[Any]:
        """The tasks of our kind, of those that are done."""
        done = page["tasks"].get("tasks") or {}
        return done.get(self._kind) or ()

    def whole(self, job: str) -> str:
        """As the service gave it: nothing is known of pages."""
        return job

    def cancelling(self, job: str) -> None:
        """Nothing does: the job ends by itself, and what comes of it is not fetched."""


_PREVIEWS: Mapping[str, Callable[[settings.AzureLanguage], Dialect]] = {
    "v3.2-preview.2": Preview32,
    "v3.1-preview.ct.1": Preview31,
}


def spoken(settings: settings.AzureLanguage) -> Dialect:
    """The dialect of an account's `api_version`."""
    return _PREVIEWS.get(settings.api_version, AnalyzeText)(settings)
