"""Where spans go, and how many."""

from typing import Annotated, Self
from urllib.parse import urlsplit

from pydantic import Field, model_validator

from service.settings.values import Branch, Share, is_loopback


class Tracing(Branch):
    """Spans of documents and of calls, sent by OTLP over HTTP; takes the extra `tracing`. Without this there are none.

    What goes along in headers, such as a key, is read from `OTEL_EXPORTER_OTLP_HEADERS` by OpenTelemetry itself.
    """

    endpoint: str
    """Where traces are taken, such as `https://collector:4318/v1/traces`."""
    sample: Share = 0.01
    """The share of documents that is traced, of those whose `traceparent` does not say whether they are."""
    service_name: Annotated[str, Field(min_length=1)] = "labelstream"
    """What the service is called in traces."""
    plaintext: bool = False
    """Allows a connection without TLS beyond this machine."""

    @model_validator(mode="after")
    def _encrypted(self) -> Self:
        url = urlsplit(self.endpoint)
        if url.scheme not in {"http", "https"} or not url.hostname:
            raise ValueError("endpoint: write a URL, such as https://collector:4318/v1/traces")
        if url.username is not None or url.password is not None:
            raise ValueError("endpoint: keys do not belong in it, but into OTEL_EXPORTER_OTLP_HEADERS")
        if url.scheme == "http" and not self.plaintext and not is_loopback(url.hostname):
            raise ValueError("endpoint: http beyond this machine is not encrypted: write https, or plaintext: true")
        return self
