"""The schema registry that records name their schemas in."""

from pathlib import Path
from typing import Annotated, Self
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, model_validator

from service.settings.values import Branch, Seconds, is_a_host_name, is_loopback, secret_of


class Registry(Branch):
    """A schema registry with Confluent's API, for streams of `document.format: registry` or results by a schema.

    Takes the extra `registry`. It is asked once for each schema that records name, and for those of results at start.
    """

    url: str
    """Where it is, such as `https://registry:8081`; with Apicurio it ends in `/apis/ccompat/v7`."""
    username: str | None = None
    """The user to log in as (HTTP basic), an API key at Confluent's cloud."""
    password: SecretStr | None = None
    """The user's password, or the API key's secret; give this or `password_file`."""
    password_file: Path | None = None
    """A file that holds the password."""
    token: SecretStr | None = None
    """A bearer token in place of a user; give this or `token_file`."""
    token_file: Path | None = None
    """A file that holds the token."""
    ca_file: Path | None = None
    """Whom to trust for the registry's certificate (PEM); by default whom the system trusts."""
    request_timeout: Annotated[Seconds, Field(gt=0)] = 10.0
    """How long one request may take."""
    plaintext: bool = False
    """Allows `http://` beyond this machine."""

    @model_validator(mode="after")
    def _reachable(self) -> Self:
        try:
            url = urlsplit(self.url)
            host = url.hostname if url.scheme in {"http", "https"} and url.port != 0 else None
        except ValueError:
            host = None
        if not host or not is_a_host_name(host):
            raise ValueError("url: write the registry's URL, such as https://registry:8081")
        if url.username is not None or url.password is not None or url.query or url.fragment:
            raise ValueError("url holds more than a host and a path: username, password and token stand beside it")
        if url.scheme == "http" and self.ca_file is not None:
            raise ValueError("ca_file is for TLS, which a url of http goes without: write https")
        if url.scheme == "http" and not is_loopback(host) and not self.plaintext:
            raise ValueError("url: http beyond this machine is not encrypted: write https, or plaintext: true")
        return self

    @model_validator(mode="after")
    def _one_way_to_log_in(self) -> Self:
        has_password = self.password is not None or self.password_file is not None
        has_token = self.token is not None or self.token_file is not None
        if self.username is None and has_password:
            raise ValueError("password is given, but no username")
        if self.username is not None and has_token:
            raise ValueError("username and token are two ways to log in: leave out one of them")
        if self.username is not None and (":" in self.username or not self.username.isascii()):
            raise ValueError("username: it holds a colon or a non-ASCII letter, which HTTP basic does not carry")
        _ = self.secret
        return self

    @property
    def on_this_machine(self) -> bool:
        """Whether the registry is on this machine."""
        return is_loopback(urlsplit(self.url).hostname or "")

    @property
    def secret(self) -> SecretStr | None:
        """The user's password, or else the token, from wherever it is kept."""
        if self.username is not None:
            return secret_of(self.password, self.password_file, "password")
        if self.token is None and self.token_file is None:
            return None
        return secret_of(self.token, self.token_file, "token")
