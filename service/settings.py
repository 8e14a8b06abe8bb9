"""The settings: one frozen tree, read from a YAML file and `LABELSTREAM_…__…` environment variables.

A part of the service receives its own branch, never the root. Unknown keys are errors that name the nearest known one;
durations are written `200ms`, `30s`, `5m` or `1h`, sizes `512KiB`, `64MiB`, plain numbers are seconds and bytes.
"""

import ipaddress
import os
import re
from collections.abc import Mapping
from datetime import date
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict, SettingsError

from service.errors import Misconfigured

_PREFIX = "LABELSTREAM_"
_DURATIONS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_SIZES = {"B": 1, "KB": 1000, "MB": 1000**2, "GB": 1000**3, "KiB": 1024, "MiB": 1024**2, "GiB": 1024**3}


def _quantity(units: Mapping[str, float], example: str) -> BeforeValidator:
    def parse(value: object) -> object:
        if not isinstance(value, str):
            return value
        match = re.fullmatch(r"\s*([0-9]+(?:\.[0-9]+)?)\s*([A-Za-z]*)\s*", value)
        if match is None or (match[2] and match[2] not in units):
            raise ValueError(f"write it as {example} (units: {', '.join(units)})")
        return float(match[1]) * (units[match[2]] if match[2] else 1)

    return BeforeValidator(parse)


Seconds = Annotated[float, _quantity(_DURATIONS, "200ms or 30s"), Field(ge=0, le=7 * 86_400, allow_inf_nan=False)]
Bytes = Annotated[int, _quantity(_SIZES, "64MiB"), Field(gt=0)]
Topic = Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{1,249}$")]
Share = Annotated[float, Field(ge=0, le=1)]


def is_loopback(host: str) -> bool:
    """Whether a host name or address stays on this machine."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _is_a_name(host: str) -> bool:
    try:
        host.encode("idna")
    except UnicodeError:
        return False
    return True


def _pointer(value: str) -> str:
    if not value.startswith("/"):
        raise ValueError(f"{value!r} is not a JSON pointer; write /{value.lstrip('/.').replace('.', '/')}")
    if re.search(r"~(?![01])", value):
        raise ValueError(f"{value!r} is not a JSON pointer; write ~ as ~0")
    return value


Pointer = Annotated[str, AfterValidator(_pointer)]


def _nearest(name: str, known: list[str]) -> str:
    near = get_close_matches(name, known, n=1, cutoff=0.5)
    return f"did you mean {near[0]!r}?" if near else f"known: {', '.join(sorted(known))}"


def _refuse_unknown(model: type[BaseModel], given: object) -> None:
    if isinstance(given, Mapping):
        known = [field.alias or name for name, field in model.model_fields.items()]
        unknown = [f"unknown key {key!r}, {_nearest(str(key), known)}" for key in given if key not in known]
        if unknown:
            raise ValueError("; ".join(unknown))


class Branch(BaseModel):
    """A part of the tree: frozen, with unknown keys refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True, use_attribute_docstrings=True)

    @model_validator(mode="before")
    @classmethod
    def _known_keys(cls, given: object) -> object:
        _refuse_unknown(cls, given)
        return given


def _secret(value: SecretStr | None, file: Path | None, name: str) -> SecretStr:
    if (value is None) == (file is None):
        raise ValueError(f"give either {name} or {name}_file")
    if value is not None:
        found = value.get_secret_value()
    elif file is not None:
        try:
            found = file.read_text(encoding="utf-8").strip()
        except OSError as error:
            raise ValueError(f"{name}_file {file} cannot be read: {error.strerror}") from None
        except UnicodeDecodeError:
            raise ValueError(f"{name}_file {file} is not text") from None
    if not found:
        raise ValueError(f"{name} is empty")
    if not (found.isascii() and found.isprintable()):
        raise ValueError(f"{name} holds characters that no key has (a line break or a non-ASCII letter?)")
    return SecretStr(found)


class Kafka(Branch):
    """The cluster and how to speak to it.

    Transport is encrypted unless the bootstrap servers are all on this machine, and no `ssl_ca_file` is given for them,
    or `security_protocol` says otherwise.
    """

    bootstrap_servers: str
    """Brokers to begin with, `host:port`, several separated by commas."""
    group_id: str
    """The consumer group; replicas with the same one share the partitions."""
    client_id: str = "labelstream"
    """What brokers call us in their logs and quotas."""
    security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] | None = None
    """By default with TLS, unless all brokers are on this machine and there is no `ssl_ca_file`; SASL for a user."""
    sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] = "SCRAM-SHA-512"
    """How user name and password are proven."""
    sasl_username: str | None = None
    """The user to log in as."""
    sasl_password: SecretStr | None = None
    """The user's password; give this or `sasl_password_file`."""
    sasl_password_file: Path | None = None
    """A file that holds the user's password."""
    ssl_ca_file: Path | None = None
    """Whom to trust for the brokers' certificates (PEM); by default whom the system trusts."""
    ssl_cert_file: Path | None = None
    """Our certificate, for brokers that ask for one (PEM)."""
    ssl_key_file: Path | None = None
    """The private key of our certificate (PEM)."""
    auto_offset_reset: Literal["earliest", "latest"] = "earliest"
    """Where a group begins that has committed nothing: at the oldest record, or at the next to come."""
    session_timeout: Annotated[Seconds, Field(gt=0)] = 45.0
    """How long a replica that has vanished keeps its partitions."""
    rebalance_timeout: Annotated[Seconds, Field(gt=0)] = 60.0
    """How long replicas have to let go of partitions; longer than every stream's `drain`."""
    fetch_max_wait: Seconds = 0.5
    """How long the broker may hold a fetch that finds nothing."""
    request_timeout: Annotated[Seconds, Field(gt=0)] = 40.0
    """How long one request to a broker may take."""

    @field_validator("bootstrap_servers")
    @classmethod
    def _host_and_port(cls, value: str) -> str:
        for server in value.split(","):
            if not re.fullmatch(r"\s*(\[[0-9A-Fa-f:]+\]|[^\s:/,]+):[0-9]{1,5}\s*", server):
                raise ValueError(f"{server.strip()!r} is not host:port")
        return value.replace(" ", "")

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if self.sasl_username is not None:
            _secret(self.sasl_password, self.sasl_password_file, "sasl_password")
            if not self.protocol.startswith("SASL"):
                raise ValueError(f"security_protocol {self.protocol} would not use sasl_username; SASL_SSL would")
        elif self.sasl_password is not None or self.sasl_password_file is not None:
            raise ValueError("sasl_password is given, but no sasl_username")
        elif self.protocol.startswith("SASL"):
            raise ValueError(f"security_protocol {self.protocol} needs sasl_username and sasl_password")
        return self

    @property
    def protocol(self) -> str:
        """`security_protocol`, or the safest that fits what else is set."""
        if self.security_protocol is not None:
            return self.security_protocol
        hosts = [server.rsplit(":", 1)[0].strip("[]") for server in self.bootstrap_servers.split(",")]
        if all(map(is_loopback, hosts)) and self.ssl_ca_file is None:
            return "SASL_PLAINTEXT" if self.sasl_username else "PLAINTEXT"
        return "SASL_SSL" if self.sasl_username else "SSL"

    @property
    def password(self) -> SecretStr | None:
        """The SASL password, from wherever it is kept."""
        if self.sasl_username is None:
            return None
        return _secret(self.sasl_password, self.sasl_password_file, "sasl_password")


class Limits(Branch):
    """What an account may be asked for; None is no limit of that kind."""

    in_flight: Annotated[int, Field(ge=1, le=10_000)] = 16
    """Calls at once: jobs of Azure Language or Comprehend, documents at a Comprehend endpoint."""
    requests_per_second: Annotated[float, Field(gt=0)] | None = None
    """HTTP requests a second, polls included; a Comprehend endpoint takes 2 for each of its inference units."""
    requests_per_minute: Annotated[float, Field(gt=0)] | None = None
    """HTTP requests a minute, polls included."""
    characters_per_second: Annotated[float, Field(gt=0)] | None = None
    """Characters of text a second; a Comprehend endpoint takes 100 for each of its inference units."""


def _date_as_text(value: object) -> object:
    return value.isoformat() if isinstance(value, date) else value  # YAML takes 2023-04-01 for a date


class Azure(Branch):
    """An Azure resource, or a `labelstream serve` in its place."""

    endpoint: str
    """The resource's URL, or that of a `labelstream serve`."""
    key: SecretStr | None = None
    """The resource's key; give this or `key_file`."""
    key_file: Path | None = None
    """A file that holds the resource's key."""
    request_timeout: Annotated[Seconds, Field(gt=0)] = 30.0
    """How long one HTTP request may take, not a whole job."""
    plaintext: bool = False
    """Allows `http://` beyond this machine."""
    limits: Limits = Limits()

    @model_validator(mode="after")
    def _reachable(self) -> Self:
        _check_endpoint(self.endpoint, plaintext=self.plaintext)
        _secret(self.key, self.key_file, "key")
        return self

    @property
    def on_this_machine(self) -> bool:
        """Whether the endpoint never leaves this machine."""
        return is_loopback(urlsplit(self.endpoint).hostname or "")

    @property
    def secret(self) -> SecretStr:
        """The resource key, from wherever it is kept."""
        return _secret(self.key, self.key_file, "key")


def _check_endpoint(endpoint: str, *, plaintext: bool) -> None:
    try:
        url = urlsplit(endpoint)
        host = url.hostname if url.scheme in ("http", "https") and url.port != 0 else None
    except ValueError:
        host = None
    if not host or not _is_a_name(host):
        raise ValueError("endpoint is not a URL such as https://NAME.cognitiveservices.azure.com")
    if url.username or url.password or url.query or url.fragment:
        raise ValueError("endpoint holds more than a host and a path; a key goes into key or key_file")
    if url.scheme == "http" and not is_loopback(host) and not plaintext:
        raise ValueError("endpoint would send documents and the key unencrypted: use https, or set plaintext: true")


_LanguageName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]{1,50}$")]
_FIRST_PREVIEW = "v3.1-preview.ct.1"


class AzureLanguage(Azure):
    """An Azure Language resource with a deployed custom text classification project."""

    provider: Literal["azure_language"]
    """What kind of account this is."""
    project: _LanguageName | None = None
    """The project, as it is called there."""
    deployment: _LanguageName | None = None
    """The deployment of the project that is asked."""
    model_id: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]{1,200}$")] | None = None
    """Only for the preview `v3.1-preview.ct.1`, and then in place of project and deployment: what publishing gave."""
    task: Literal["single_label", "multi_label"]
    """What the project was trained for: one class a document, or any number."""
    api_version: Annotated[
        str,
        BeforeValidator(_date_as_text),
        Field(pattern=r"^([0-9]{4}-[0-9]{2}-[0-9]{2}(-preview)?|v3\.1-preview\.ct\.1|v3\.2-preview\.2)$"),
    ] = "2023-04-01"
    """The version of the API that is spoken."""
    job_deadline: Annotated[Seconds, Field(gt=0)] = 600.0
    """How long a job may take before it is given up and its documents are submitted again."""

    @model_validator(mode="after")
    def _named(self) -> Self:
        if self.api_version == _FIRST_PREVIEW:
            if self.model_id is None or self.project or self.deployment:
                raise ValueError(f"api_version {_FIRST_PREVIEW} takes model_id, and neither project nor deployment")
        elif self.model_id is not None:
            raise ValueError(f"model_id goes with api_version {_FIRST_PREVIEW}; name project and deployment")
        elif not (self.project and self.deployment):
            raise ValueError("project and deployment are required")
        return self

    @property
    def model(self) -> str:
        """What classifies, as results name it."""
        return self.model_id or f"{self.project}/{self.deployment}"


HarmCategory = Literal["Hate", "SelfHarm", "Sexual", "Violence"]
_HARMS: tuple[HarmCategory, ...] = ("Hate", "SelfHarm", "Sexual", "Violence")
_CUSTOM_CATEGORIES = ("2024-05-15-preview", "2024-09-15-preview")
_DatedVersion = Annotated[
    str, BeforeValidator(_date_as_text), Field(pattern=r"^[0-9]{4}-[0-9]{2}-[0-9]{2}(-preview)?$")
]


class ContentSafety(Azure):
    """An Azure AI Content Safety resource: its harm categories and blocklists, or a custom category.

    The severity of a harm stands beside its class in results; a harm of severity 0 is no class of the document. A
    blocklist that is hit is the class `blocklist/NAME`. A custom category is a class of the document or is not. None of
    them has a score.
    """

    provider: Literal["content_safety"]
    """What kind of account this is."""
    category: Annotated[str, Field(pattern=r"^[A-Za-z0-9._~-]{1,128}$")] | None = None
    """A custom category to look for, in place of the harm categories."""
    category_version: Annotated[int, Field(ge=1)] | None = None
    """The version of the custom category; by default its latest."""
    harm_categories: Annotated[tuple[HarmCategory, ...], Field(min_length=1)] = _HARMS
    """The harm categories that are looked for."""
    output_type: Literal["FourSeverityLevels", "EightSeverityLevels"] = "FourSeverityLevels"
    """Severities of 0, 2, 4 and 6, or each from 0 to 7."""
    blocklists: tuple[Annotated[str, Field(pattern=r"^[0-9A-Za-z._~-]{1,64}$")], ...] = ()
    """Blocklists of the resource that are looked through, too."""
    halt_on_blocklist_hit: bool = False
    """Whether harm categories are not looked for where a blocklist matches."""
    api_version: _DatedVersion = "2024-09-01"
    """The version of the API; one of the two previews with custom categories where `category` is given."""

    @model_validator(mode="after")
    def _fitting(self) -> Self:
        custom = self.api_version in _CUSTOM_CATEGORIES
        if self.category is not None and not custom:
            raise ValueError(f"category takes api_version {' or '.join(_CUSTOM_CATEGORIES)}")
        if self.category is None and custom:
            raise ValueError(f"api_version {self.api_version} is spoken for a custom category: name it in category")
        if self.category is None and self.category_version is not None:
            raise ValueError("category_version is given, but no category")
        if self.halt_on_blocklist_hit and not self.blocklists:
            raise ValueError("halt_on_blocklist_hit is given, but no blocklists")
        harms = {"harm_categories", "output_type", "blocklists", "halt_on_blocklist_hit"} & self.model_fields_set
        if self.category is not None and harms:
            raise ValueError(f"{', '.join(sorted(harms))} and category are asked in different calls: make two accounts")
        return self


class ContentUnderstanding(Azure):
    """An Azure Content Understanding resource with a classifier, or an analyzer that has categories.

    Classes have no score, and `$OTHER` is a class like any. Where documents are split, a document has the classes of
    its parts, each once, in their order.
    """

    provider: Literal["content_understanding"]
    """What kind of account this is."""
    classifier: Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{1,64}$")] | None = None
    """The classifier that is asked; give this or `analyzer`."""
    analyzer: Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{1,64}$")] | None = None
    """The analyzer that is asked, of api-version 2025-11-01 or later."""
    api_version: _DatedVersion = "2025-05-01-preview"
    """The version of the API; for an analyzer 2025-11-01 or later."""
    task: Literal["single_label", "multi_label"] = "single_label"
    """What results say of it: one class a document, or any number where documents are split."""
    job_deadline: Annotated[Seconds, Field(gt=0)] = 600.0
    """How long a document may take before it is given up and submitted again."""

    @model_validator(mode="after")
    def _one_of_two(self) -> Self:
        if (self.classifier is None) == (self.analyzer is None):
            raise ValueError("give either classifier or analyzer")
        known = self.api_version >= "2025-11-01" if self.analyzer else self.api_version == "2025-05-01-preview"
        if not known:
            raise ValueError("a classifier takes api_version 2025-05-01-preview, an analyzer 2025-11-01 or later")
        return self


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

    @model_validator(mode="after")
    def _signed_and_encrypted(self) -> Self:
        if self.access_key_id is not None:
            _secret(self.secret_access_key, self.secret_access_key_file, "secret_access_key")
        elif self.secret_access_key is not None or self.secret_access_key_file is not None:
            raise ValueError("secret_access_key is given, but no access_key_id")
        for name, url in self.urls.items():
            _check_url(name, url, plaintext=self.plaintext)
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
        return _secret(self.secret_access_key, self.secret_access_key_file, "secret_access_key")


def _check_url(name: str, value: str, *, plaintext: bool) -> None:
    try:
        url = urlsplit(value)
        host = url.hostname if url.scheme in ("http", "https") and url.port != 0 else None
    except ValueError:
        host = None
    if not host or not _is_a_name(host):
        raise ValueError(f"{name} is not a URL such as https://HOST:PORT")
    if url.username or url.password or url.query or url.fragment:
        raise ValueError(f"{name} holds more than a host and a path")
    if url.scheme == "http" and not is_loopback(host) and not plaintext:
        raise ValueError(f"{name} would send documents unencrypted: use https, or set plaintext: true")


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


class Local(Branch):
    """A model trained by `labelstream models train`, answered by this process itself."""

    provider: Literal["local"]
    """What kind of account this is."""
    model: Path
    """The folder of the trained model."""
    threads: Annotated[int, Field(ge=1, le=64)] = 2
    """How many batches are answered at once."""

    @property
    def limits(self) -> Limits:
        """As many calls at once as there are threads."""
        return Limits(in_flight=self.threads)


Account = Annotated[
    AzureLanguage | ContentSafety | ContentUnderstanding | Comprehend | ComprehendJobs | Local,
    Field(discriminator="provider"),
]


class Fields(Branch):
    """Where in a record the document is: `json` values addressed by JSON pointers (RFC 6901), or the whole as `text`.

    Several text pointers are joined by line breaks, in order; those that are missing or null are left out, as long as
    one is there.
    """

    format: Literal["json", "text"] = "json"
    """Whether a record is JSON, or its whole value is the text."""
    id: Pointer | None = "/id"
    """Where the document's id is; a record without one is named by its position."""
    text: Annotated[tuple[Pointer, ...], Field(min_length=1)] = ("/text",)
    """Where the text is; one pointer need not be a list."""
    language: Pointer | None = None
    """Where the language code is that is sent along; without one the classifier's own language holds."""
    max_characters: Annotated[int, Field(ge=1)] | None = None
    """Longer texts become dead letters; what the accounts take holds in any case."""

    @field_validator("text", mode="before")
    @classmethod
    def _one_is_a_list(cls, value: object) -> object:
        return [value] if isinstance(value, str) else value


class Batch(Branch):
    """How many documents go into one call at most, and how long the first of them may wait for company."""

    documents: Annotated[int, Field(ge=1)] = 25
    """The most documents of a call, thousands for `comprehend_jobs`; what the accounts take holds in any case."""
    characters: Annotated[int, Field(ge=1)] = 125_000
    """The most characters of a call; what the accounts take holds in any case."""
    wait: Seconds = 0.2
    """How long the first document may wait for company."""


class Capacity(Branch):
    """What may be in hand at once, read but not yet answered: the back-pressure on the input.

    More rides out slow answers; less means less memory and fewer repeats after a crash.
    """

    documents: Annotated[int, Field(ge=1)] = 4_000
    """The most records in hand."""
    bytes: Bytes = 64 * 1024**2
    """The most bytes of records in hand."""


class Route(Branch):
    """A copy of the result to another topic: when it has `class`, or its best class scores less than `best_below`."""

    class_: str | None = Field(default=None, alias="class")
    """A class that the result has; give this or `best_below`."""
    at_least: Share = 0.0
    """The score that `class` has at least; a class without a score counts as certain."""
    severity_at_least: Annotated[int, Field(ge=1, le=7)] = 1
    """The severity that `class` has at least; a class without one counts as severe."""
    best_below: Share | None = None
    """What the best score is below; no class at all counts as 0."""
    to: Topic
    """The topic that gets the copy."""

    @model_validator(mode="after")
    def _one_condition(self) -> Self:
        if (self.class_ is None) == (self.best_below is None):
            raise ValueError("give either class (with at_least) or best_below")
        for name in ("at_least", "severity_at_least"):
            if self.best_below is not None and name in self.model_fields_set:
                raise ValueError(f"{name} goes with class, not with best_below")
        return self


class Stream(Branch):
    """One input topic, the accounts that classify it in order of preference, and where the answers go."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{1,100}$")]
    """What the stream is called in results."""
    input: Topic
    """The topic that is read."""
    document: Fields = Fields()
    classify_with: Annotated[tuple[str, ...], Field(min_length=1)]
    """Accounts in order of preference, the first that can answer; one need not be a list."""
    batch: Batch = Batch()
    capacity: Capacity = Capacity()
    output: Topic
    """The topic that gets every result."""
    routes: tuple[Route, ...] = ()
    dead_letter: Topic
    """The topic that gets documents that are themselves bad, as they came."""
    tombstones: Literal["dead_letter", "skip"] = "dead_letter"
    """What becomes of records without a value."""
    delivery: Literal["at_least_once", "exactly_once"] = "at_least_once"
    """Whether a crash may repeat results; with `exactly_once`, readers of committed transactions see each once."""
    commit_every: Annotated[Seconds, Field(gt=0)] | None = None
    """How often is committed what is done; else every second, or every 200ms with `exactly_once`."""
    drain: Seconds = 25.0
    """How long a stop or a rebalance waits for what is out at a classifier."""

    @field_validator("classify_with", mode="before")
    @classmethod
    def _one_is_a_list(cls, value: object) -> object:
        return [value] if isinstance(value, str) else value

    @model_validator(mode="after")
    def _no_loop(self) -> Self:
        if self.input in self.topics_written:
            raise ValueError(f"the input topic {self.input!r} is also written to: documents would go round for ever")
        return self

    @property
    def seconds_between_commits(self) -> float:
        """What `commit_every` says, or is when it says nothing."""
        return self.commit_every or (0.2 if self.delivery == "exactly_once" else 1.0)

    @property
    def topics_written(self) -> tuple[str, ...]:
        """Every topic that results, copies and dead letters go to, each once."""
        return tuple(dict.fromkeys((self.output, *(route.to for route in self.routes), self.dead_letter)))


class Health(Branch):
    """Where `/livez`, `/readyz` and `/metrics` are answered; no document or key is ever shown there."""

    host: str = "127.0.0.1"
    """The address to listen on."""
    port: Annotated[int, Field(ge=0, le=65_535)] = 9464
    """The port to listen on; 0 takes a free one."""


class Log(Branch):
    """How much is said and in which form: `auto` is readable lines on a terminal and JSON elsewhere."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    """The least severe lines that are written."""
    format: Literal["auto", "json", "console"] = "auto"
    """The form of a line."""


class Settings(Branch):
    """The whole tree; see `config/triage.yaml` for every setting with its reason."""

    kafka: Kafka
    delivery: Literal["at_least_once"] = "at_least_once"
    """A result is published before its offset is committed: none is lost, some may come twice."""
    accounts: Annotated[dict[str, Account], Field(min_length=1)]
    streams: Annotated[tuple[Stream, ...], Field(min_length=1)]
    health: Health = Health()
    log: Log = Log()

    @model_validator(mode="after")
    def _whole(self) -> Self:
        names = [stream.name for stream in self.streams]
        if twice := {name for name in names if names.count(name) > 1}:
            raise ValueError(f"streams: the name {twice.pop()!r} is given twice")
        inputs = [stream.input for stream in self.streams]
        if shared := {topic for topic in inputs if inputs.count(topic) > 1}:
            raise ValueError(
                f"streams: the input {shared.pop()!r} is given twice: members of one group share a topic's records,"
                " so each stream would see a part of them"
            )
        for i, stream in enumerate(self.streams):
            if stream.drain >= min(self.kafka.rebalance_timeout, self.kafka.request_timeout):
                raise ValueError(
                    f"streams[{i}].drain: {stream.drain:g} s is not below kafka.rebalance_timeout"
                    f" ({self.kafka.rebalance_timeout:g} s) and kafka.request_timeout"
                    f" ({self.kafka.request_timeout:g} s), so a rebalance would not wait for it"
                )
            for name in stream.classify_with:
                if name not in self.accounts:
                    raise ValueError(
                        f"streams[{i}].classify_with: no account {name!r}, {_nearest(name, list(self.accounts))}"
                    )
        return self


class _Overridden(Settings, BaseSettings):
    """The tree with environment variables over it."""

    model_config = SettingsConfigDict(extra="forbid", env_prefix=_PREFIX, env_nested_delimiter="__")

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Environment over file; there are no other sources."""
        del settings_cls, dotenv_settings, file_secret_settings
        return env_settings, init_settings


def load(path: Path) -> Settings:
    """The settings of a YAML file, with environment variables over it.

    Raises:
        Misconfigured: naming every wrong setting, the file, and the nearest known key where one is unknown.

    """
    try:
        tree = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise Misconfigured(f"{path}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise Misconfigured(f"{path}: is not UTF-8 text") from None
    except yaml.MarkedYAMLError as error:  # whose own words quote the line, and a password on it
        mark = error.problem_mark or error.context_mark
        where = f" at line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise Misconfigured(
            f"{path}: is not YAML{where}; a value that holds : # or begins with * & ! % @ needs quotes"
        ) from None
    except yaml.YAMLError as error:
        raise Misconfigured(f"{path}: is not YAML: {error}") from None
    for name in os.environ:
        branch = name.removeprefix(_PREFIX).split("__")[0].lower()
        if name.startswith(_PREFIX) and "__" in name and branch not in Settings.model_fields:
            raise Misconfigured(f"{name}: no such setting, {_nearest(branch, list(Settings.model_fields))}")
    return _parsed(_Overridden, tree, str(path))


def parse(tree: object, origin: str = "settings") -> Settings:
    """As `load`, from the tree alone; `origin` is how messages call it."""
    return _parsed(Settings, tree, origin)


def _parsed(form: type[Settings], tree: object, origin: str) -> Settings:
    if not isinstance(tree, dict):
        raise Misconfigured(f"{origin}: must be a mapping with the keys {', '.join(Settings.model_fields)}")
    try:
        return form(**{str(key): branch for key, branch in tree.items()})
    except SettingsError as error:
        field = re.search(r'field "(\w+)"', str(error))  # its cause quotes the value
        raise Misconfigured(f"{_PREFIX}{field[1].upper() if field else '…'}: what it holds is not JSON") from None
    except ValidationError as error:
        found = error.errors()
        deeper = {fault["loc"][:depth] for fault in found for depth in range(len(fault["loc"]))}
        faults = [
            f"{_path(fault['loc'])}{_message(fault)}"
            for fault in found
            if not (fault["type"] == "too_short" and fault["loc"] in deeper)  # a wrong item counts as none at all
        ]
        raise Misconfigured("\n".join(f"{origin}: {fault}" for fault in faults)) from None


def _path(where: tuple[int | str, ...]) -> str:
    parts: list[str] = []
    for i, part in enumerate(where):
        if i == 2 and where[0] == "accounts":
            continue  # the tag of the union, not a key of the file
        parts.append(f"[{part}]" if isinstance(part, int) else f".{part}")
    return "".join(parts).removeprefix(".") + (": " if parts else "")


_PLAINLY = {
    "missing": "is required",
    "union_tag_not_found": "provider is required",
    "too_short": "must not be empty",
    "tuple_type": "must be a list",
    "dict_type": "must be a mapping",
    "model_type": "must be a mapping",
}


def _message(fault: Mapping[str, Any]) -> str:
    if fault["type"] == "union_tag_invalid":
        known = re.findall(r"'(\w+)'", fault["ctx"]["expected_tags"])
        return f"there is no provider {fault['ctx']['tag']!r}, {_nearest(fault['ctx']['tag'], known)}"
    if said := _PLAINLY.get(fault["type"]):
        return said
    return str(fault["msg"]).removeprefix("Value error, ")
