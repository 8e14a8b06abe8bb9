"""Accounts at Azure: Language, AI Content Safety, Content Understanding."""

from pathlib import Path
from typing import Annotated, Literal, Self
from urllib.parse import urlsplit

from pydantic import (
    BeforeValidator,
    Field,
    SecretStr,
    model_validator,
)

from service.settings.limits import Limits, Price, priced
from service.settings.training import CategoryTraining, LanguageTraining
from service.settings.values import Branch, Seconds, date_as_text, is_a_host_name, is_loopback, secret_of


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
    price: Price = Price()

    @model_validator(mode="after")
    def _reachable(self) -> Self:
        _check_endpoint(self.endpoint, plaintext=self.plaintext)
        secret_of(self.key, self.key_file, "key")
        priced(self.limits, self.price)
        return self

    @property
    def on_this_machine(self) -> bool:
        """Whether the endpoint never leaves this machine."""
        return is_loopback(urlsplit(self.endpoint).hostname or "")

    @property
    def secret(self) -> SecretStr:
        """The resource key, from wherever it is kept."""
        return secret_of(self.key, self.key_file, "key")


def _check_endpoint(endpoint: str, *, plaintext: bool) -> None:
    try:
        url = urlsplit(endpoint)
        host = url.hostname if url.scheme in ("http", "https") and url.port != 0 else None
    except ValueError:
        host = None
    if not host or not is_a_host_name(host):
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
        BeforeValidator(date_as_text),
        Field(pattern=r"^([0-9]{4}-[0-9]{2}-[0-9]{2}(-preview)?|v3\.1-preview\.ct\.1|v3\.2-preview\.2)$"),
    ] = "2023-04-01"
    """The version of the API that is spoken."""
    job_deadline: Annotated[Seconds, Field(gt=0)] = 600.0
    """How long a job may take before it is given up and its documents are submitted again."""
    training: LanguageTraining | None = None
    """What the project is made with, for `labelstream models`."""

    @model_validator(mode="after")
    def _named(self) -> Self:
        if self.api_version == _FIRST_PREVIEW:
            if self.model_id is None or self.project or self.deployment:
                raise ValueError(f"api_version {_FIRST_PREVIEW} takes model_id, and neither project nor deployment")
        elif self.model_id is not None:
            raise ValueError(f"model_id goes with api_version {_FIRST_PREVIEW}; name project and deployment")
        elif not (self.project and self.deployment):
            raise ValueError("project and deployment are required")
        if self.training is not None and (self.api_version == _FIRST_PREVIEW) != (self.training.project is not None):
            raise ValueError(f"training.project goes with api_version {_FIRST_PREVIEW}, and with no other")
        return self

    @property
    def model(self) -> str:
        """What classifies, as results name it."""
        return self.model_id or f"{self.project}/{self.deployment}"


HarmCategory = Literal["Hate", "SelfHarm", "Sexual", "Violence"]
_HARMS: tuple[HarmCategory, ...] = ("Hate", "SelfHarm", "Sexual", "Violence")
_CUSTOM_CATEGORIES = ("2024-05-15-preview", "2024-09-15-preview")
_DatedVersion = Annotated[str, BeforeValidator(date_as_text), Field(pattern=r"^[0-9]{4}-[0-9]{2}-[0-9]{2}(-preview)?$")]


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
    training: CategoryTraining | None = None
    """What `category` is made from, for `labelstream models`."""

    @model_validator(mode="after")
    def _fitting(self) -> Self:
        custom = self.api_version in _CUSTOM_CATEGORIES
        if self.category is not None and not custom:
            raise ValueError(f"category takes api_version {' or '.join(_CUSTOM_CATEGORIES)}")
        if self.category is None and custom:
            raise ValueError(f"api_version {self.api_version} is spoken for a custom category: name it in category")
        if self.category is None and self.category_version is not None:
            raise ValueError("category_version is given, but no category")
        if self.category is None and self.training is not None:
            raise ValueError("training is given, but no category: harm categories are the service's own")
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
