"""The Kafka cluster and how to speak to it."""

import re
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import (
    Field,
    SecretStr,
    field_validator,
    model_validator,
)

from service.settings.values import Branch, Seconds, is_loopback, secret_of


class Kafka(Branch):
    """The cluster and how to speak to it.

    Transport is encrypted unless the bootstrap servers are all on this machine, and no `ssl_ca_file` is given for them,
    or `security_protocol` says otherwise.
    """

    bootstrap_servers: str
    """Brokers to begin with, `host:port`, several separated by commas."""
    group_id: str
    """The consumer group; replicas with the same one share the partitions."""
    group_instance_id: Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{1,100}$")] | None = None
    """This replica's own name in the group: with one, a restart within `session_timeout` moves no partitions."""
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
            secret_of(self.sasl_password, self.sasl_password_file, "sasl_password")
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
        return secret_of(self.sasl_password, self.sasl_password_file, "sasl_password")
