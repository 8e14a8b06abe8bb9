"""Azure Language's jobs as an endpoint has them that gives every document the same class."""

from collections.abc import Iterable, Mapping, Sequence

import orjson

from service.transport.http import Answer

JSON: Mapping[str, str] = {"content-type": "application/json"}
_CLASSIFIED = b'{"id":"%b","class":[{"category":"billing","confidenceScore":0.93}],"warnings":[]}'
_SUCCEEDED = (
    b'{"status":"succeeded","errors":[],"tasks":{"completed":1,"failed":0,"inProgress":0,"total":1,"items":['
    b'{"kind":"CustomSingleLabelClassificationLROResults","status":"succeeded","results":{"errors":[],"documents":[%b]}}]}}'
)
RUNNING = Answer(
    200,
    JSON,
    b'{"status":"running","errors":[],"tasks":{"completed":0,"failed":0,"inProgress":1,"total":1,"items":[]}}',
)
"""A job that is not done yet."""
NO_SUCH_JOB = Answer(404, JSON, b'{"error":{"code":"NotFound","message":"there is no such job"}}')
"""A job that was never submitted."""


def documents_in(content: bytes) -> Sequence[Mapping[str, str]]:
    """The documents that are submitted."""
    documents: Sequence[Mapping[str, str]] = orjson.loads(content)["analysisInput"]["documents"]
    return documents


def submitted(base: str, job: str) -> Answer:
    """A job that was taken, and where it is asked after."""
    where = f"{base}/language/analyze-text/jobs/{job}?api-version=2023-04-01"
    return Answer(202, {"operation-location": where}, b"")


def job_of(url: str) -> str:
    """Which job is asked after."""
    return url.partition("?")[0].rpartition("/")[2]


def succeeded(documents: Iterable[Mapping[str, str]]) -> Answer:
    """What is answered when these are done."""
    return Answer(200, JSON, _SUCCEEDED % b",".join(_CLASSIFIED % each["id"].encode() for each in documents))
