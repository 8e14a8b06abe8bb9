"""Accounts at Amazon Web Services: Comprehend, by its endpoints or its jobs."""

import re
from pathlib import Path
from typing import Annotated, Literal, Self
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    Field,
    SecretStr,
    model_validator,
)

from service.settings.limits import Limits, Price, priced
from service.settings.values import Branch, Seconds, is_a_host_name, is_loopback, secret_of

_AWS_NAME = "[A-Za-z0-9](?:-*[A-Za-z0-9])*"
_COMPREHEND = "arn:aws[a-z-]*:comprehend:[a-z0-9-]+"


def _like(form: str, example: str) -> AfterValidator:
    def checked(value: str) -> str:
        if not re.fullmatch(form, value):
            raise ValueError(f"is not of the form {example}")
        return value.rstrip("/")

    return AfterValidator(checked)


EndpointArn = Annotated[
    str,
    _like(
        f"{_COMPREHEND}:([0-9]{{12}}|aws):(document-classifier-)?endpoint/{_AWS_NAME}",
        "arn:aws:comprehend:REGION:ACCOUNT:document-classifier-endpoint/NAME",
    ),
]
ClassifierArn = Annotated[
    str,
    _like(
        f"{_COMPREHEND}:[0-9]{{12}}:document-classifier/{_AWS_NAME}(/version/{_AWS_NAME})?",
        "arn:aws:comprehend:REGION:ACCOUNT:document-classifier/NAME/version/VERSION",
    ),
]
RoleArn = Annotated[str, _like("arn:aws[a-z-]*:iam::[0-9]{12}:role/[!-~]{1,1900}", "arn:aws:iam::ACCOUNT:role/NAME")]
S3Folder = Annotated[str, _like("s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9](/[!-~]{0,800})?", "s3://BUCKET/FOLDER")]


class Aws(Branch):
    """What accounts at Amazon Web Services have in common; the region is that of the ARN that is asked.

    Requests are signed with the credentials that the AWS SDKs find by themselves (environment, profile, the role of the
    machine, pod or task) unless an access key is given here.
    """

    provider: str
    """What kind of account this is."""
    access_key_id: Annotated[str, Field(pattern=r"^[A-Za-z0-9_]{4,128}$")] | None = None
    """The access key to sign with; by default the credentials that the AWS SDKs find."""
    secret_access_key: SecretStr | None = None
    """The secret of the access key; give this or `secret_access_key_file`."""
    secret_access_key_file: Path | None = None
    """A file that holds the secret of the access key."""
    endpoint_url: str | None = None
    """Where Comprehend is asked instead of at the region's own address: a VPC endpoint, or a `labelstream serve`."""
    plaintext: bool = False
    """Allows `http://` beyond this machine."""
    connect_timeout: Annotated[Seconds, Field(gt=0)] = 3.0
    """How long a connection may take to open."""
    request_timeout: Annotated[Seconds, Field(gt=0)] = 15.0
    """How long one request may take in all."""
    limits: Limits = Limits()
    price: Price = Price()

    @model_validator(mode="after")
    def _signed_and_encrypted(self) -> Self:
        if self.access_key_id is not None:
            secret_of(self.secret_access_key, self.secret_access_key_file, "secret_access_key")
        elif self.secret_access_key is not None or self.secret_access_key_file is not None:
            raise ValueError("secret_access_key is given, but no access_key_id")
        for name, url in self.urls.items():
            _check_url(name, url, plaintext=self.plaintext)
        priced(self.limits, self.price)
        return self

    @property
    def urls(self) -> dict[str, str]:
        """The addresses that are set, by the names of their settings."""
        return {"endpoint_url": self.endpoint_url} if self.endpoint_url is not None else {}

    @property
    def secret(self) -> SecretStr | None:
        """The secret of the access key, from wherever it is kept."""
        if self.access_key_id is None:
            return None
        return secret_of(self.secret_access_key, self.secret_access_key_file, "secret_access_key")


def _check_url(name: str, value: str, *, plaintext: bool) -> None:
    try:
        url = urlsplit(value)
        host = url.hostname if url.scheme in ("http", "https") and url.port != 0 else None
    except ValueError:
        host = None
    if not host or not is_a_host_name(host):
        raise ValueError(f"{name} is not a URL such as https://HOST:PORT")
    if url.username or url.password or url.query or url.fragment:
        raise ValueError(f"{name} holds more than a host and a path")
    if url.scheme == "http" and not is_loopback(host) and not plaintext:
        raise ValueError(f"{name} would send documents unencrypted: use https, or set plaintext: true")


TrainingLanguage = Literal["en", "es", "fr", "de", "it", "pt", "ar", "hi", "ja", "ko", "zh", "zh-TW"]


class ClassifierTraining(Branch):
    """How a classifier for the endpoint is made: only `labelstream models` asks."""

    classifier: Annotated[str, _like(f"(?=.{{1,63}}$){_AWS_NAME}", "letters, digits and hyphens, 63 at most")]
    """What the classifier is called; each training makes a version of it."""
    data_access_role_arn: RoleArn
    """The role in which Comprehend reads `data_uri`."""
    data_uri: S3Folder
    """Where training data is put, in the endpoint's region."""
    language: TrainingLanguage = "en"
    """The language of the documents."""
    storage_url: str | None = None
    """Where S3 is asked instead of at the region's own address."""


class Comprehend(Aws):
    """A real-time endpoint of an Amazon Comprehend custom classifier, one document a call.

    What it takes is set by its inference units: see `limits`.
    """

    provider: Literal["comprehend"]
    """What kind of account this is."""
    endpoint_arn: EndpointArn
    """The endpoint; written as `…:endpoint/NAME`, `…:document-classifier-endpoint/NAME` is asked."""
    task: Literal["single_label", "multi_label"]
    """How the classifier was trained: MULTI_CLASS is `single_label`, MULTI_LABEL is `multi_label`."""
    training: ClassifierTraining | None = None
    """How a classifier for it is made, for `labelstream models`."""

    @property
    def urls(self) -> dict[str, str]:
        """The addresses that are set, by the names of their settings."""
        storage_url = self.training.storage_url if self.training else None
        return super().urls | ({"storage_url": storage_url} if storage_url is not None else {})

    @property
    def region(self) -> str:
        """Where the endpoint is."""
        return self.endpoint_arn.split(":")[3]


class ComprehendJobs(Aws):
    """An Amazon Comprehend custom classifier without an endpoint, asked by jobs that read and write S3: minutes a job.

    A job is worth its wait with thousands of documents, so a stream that uses one wants a large `batch` (documents,
    characters, wait), a `capacity` of several of them, and no second account that takes less in a call.
    """

    provider: Literal["comprehend_jobs"]
    """What kind of account this is."""
    classifier_arn: ClassifierArn
    """The trained classifier."""
    task: Literal["single_label", "multi_label"]
    """How the classifier was trained: MULTI_CLASS is `single_label`, MULTI_LABEL is `multi_label`."""
    training_language: TrainingLanguage = "en"
    """The language of the documents, for `labelstream models train`, which puts its data into `input_uri`."""
    data_access_role_arn: RoleArn
    """The role in which Comprehend reads `input_uri` and writes `output_uri`."""
    input_uri: S3Folder
    """Where documents are put for a job, in the classifier's region."""
    output_uri: S3Folder
    """Where Comprehend puts results, in the classifier's region."""
    kms_key_id: Annotated[str, Field(min_length=1, max_length=2048)] | None = None
    """The KMS key that encrypts both; by default each bucket's own encryption holds."""
    documents_per_job: Annotated[int, Field(ge=1, le=1_000_000)] = 5_000
    """The most documents of a job."""
    keep_objects: bool = False
    """Leaves documents and results in S3 when a job is read; else they are deleted."""
    storage_url: str | None = None
    """Where S3 is asked instead of at the region's own address."""
    request_timeout: Annotated[Seconds, Field(gt=0)] = 60.0
    """How long one request may take in all, documents or results carried."""
    job_deadline: Annotated[Seconds, Field(gt=0)] = 7_200.0
    """How long a job may take before it is given up and its documents are submitted again."""
    limits: Limits = Limits(in_flight=8)

    @property
    def region(self) -> str:
        """Where the classifier is."""
        return self.classifier_arn.split(":")[3]

    @property
    def urls(self) -> dict[str, str]:
        """The addresses that are set, by the names of their settings."""
        given = {"endpoint_url": self.endpoint_url, "storage_url": self.storage_url}
        return {name: url for name, url in given.items() if url is not None}
