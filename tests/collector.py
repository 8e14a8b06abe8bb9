"""Somebody who takes spans, as an OpenTelemetry collector does: OTLP over HTTP, on this machine."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span


@dataclass
class Collected:
    """What came: the spans, the resources that sent them, and all of it as bytes."""

    url: str
    raw: list[bytes] = field(default_factory=list)

    @property
    def requests(self) -> list[Any]:
        return [ExportTraceServiceRequest.FromString(each) for each in self.raw]

    @property
    def spans(self) -> list[Span]:
        scopes = [scope for each in self.requests for sent in each.resource_spans for scope in sent.scope_spans]
        return [span for scope in scopes for span in scope.spans]

    def named(self, beginning: str) -> list[Span]:
        """The spans whose names begin so."""
        return [span for span in self.spans if span.name.startswith(beginning)]


def attributes(span: Span) -> dict[str, Any]:
    """What is told of a span."""
    return {each.key: getattr(each.value, str(each.value.WhichOneof("value"))) for each in span.attributes}


@contextmanager
def collecting() -> Iterator[Collected]:
    """Take spans for the length of the block."""

    class Taking(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            assert self.path == "/v1/traces"
            collected.raw.append(self.rfile.read(int(self.headers["content-length"])))
            self.send_response(200)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Taking) as server:
        collected = Collected(f"http://127.0.0.1:{server.server_port}/v1/traces")
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield collected
        finally:
            server.shutdown()
            thread.join()
