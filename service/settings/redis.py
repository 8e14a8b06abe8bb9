"""The Redis that replicas share their limits through."""

import re
from pathlib import Path
from typing import Annotated, Self

from pydantic import Field, SecretStr, model_validator

from service.settings.values import Branch, is_a_host_name, is_loopback, secret_of


class Redis(Branch):
    """Where replicas share quotas and money exactly; without it, each goes by the share of its partitions.

    Transport is encrypted unless the host is this machine and no `ca_file` is given, or `plaintext` says otherwise.
    """

    host: str
    """The server's name or address."""
    port: Annotated[int, Field(ge=1, le=65_535)] = 6379
    """Its port."""
    database: Annotated[int, Field(ge=0)] = 0
    """The number of the database."""
    username: str | None = None
    """The user to log in as; by default Redis's own."""
    password: SecretStr | None = None
    """The user's password; give this or `password_file`, if there is one."""
    password_file: Path | None = None
    """A file that holds the password."""
    ca_file: Path | None = None
    """Whom to trust for the server's certificate (PEM); by default whom the system trusts."""
    plaintext: bool = False
    """Allows a connection without TLS beyond this machine."""
    prefix: Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{1,50}$")] = "labelstream"
    """What the names of keys begin with."""

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if re.search(r"[\s/@]", self.host) or not is_a_host_name(self.host):
            raise ValueError("host: write the name or address alone; port, username and password stand beside it")
        if self.plaintext and self.ca_file is not None:
            raise ValueError("ca_file is for TLS, which plaintext goes without: leave out one of them")
        _ = self.secret
        return self

    @property
    def tls(self) -> bool:
        """Whether the connection is encrypted."""
        return not self.plaintext and (self.ca_file is not None or not is_loopback(self.host))

    @property
    def secret(self) -> SecretStr | None:
        """The password, from wherever it is kept."""
        if self.password is None and self.password_file is None:
            if self.username is not None:
                raise ValueError("username is given, but no password or password_file")
            return None
        return secret_of(self.password, self.password_file, "password")
