"""Spans: one for each document that is traced, and one for each call, which links to those of its documents.

A document's trace is the one that its `traceparent` header names (W3C Trace Context), and its results go on with it. No
text, key or id of a document is in a span: it is found by topic, partition and offset. Where tracing is off there is no
`Tracing`, and nobody does more than see that.

OpenTelemetry is an extra, so it is imported where tracing is on. Its global state is left alone.
"""

import asyncio
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from service import settings
from service.documents import Document, Headers, Outcome, Record, Refused
from service.errors import Misconfigured

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.trace import Span, Tracer

_HEADERS = ("traceparent", "tracestate")
_NANOSECONDS = 1_000_000_000
_PATIENCE = 5
"""Seconds that the collector may take."""


@asynccontextmanager
async def opened(branch: settings.Tracing | None) -> AsyncIterator["Tracing | None"]:
    """What traces for the length of the block; None where nothing is to be. Raises Misconfigured.

    What is not sent when the block ends is sent then, unless nobody takes it in some seconds.
    """
    if branch is None:
        yield None
        return
    provider = _provider(branch)
    try:
        yield Tracing(provider.get_tracer("labelstream", version("labelstream")))
    finally:
        await asyncio.to_thread(provider.shutdown)


def _provider(branch: settings.Tracing) -> "TracerProvider":
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import (  # noqa: PLC0415  an extra
            OTLPSpanExporter,
        )
        from opentelemetry.sdk.resources import Resource  # noqa: PLC0415
        from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415
        from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415
        from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased  # noqa: PLC0415
    except ImportError:
        raise Misconfigured("tracing: the libraries are not installed: pip install 'labelstream[tracing]'") from None
    named = {"service.name": branch.service_name, "service.version": version("labelstream")}
    sampler = ParentBased(TraceIdRatioBased(branch.sample))
    provider = TracerProvider(sampler=sampler, resource=Resource.create(named), shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(branch.endpoint, timeout=_PATIENCE)))
    return provider


async def rehearse(branch: settings.Tracing) -> None:
    """See that spans can be made. Raises Misconfigured."""
    async with opened(branch):
        pass


class Tracing:
    """The spans of what is in hand. They are kept by the record, which is the same object all the way."""

    def __init__(self, tracer: "Tracer") -> None:
        from opentelemetry import trace  # noqa: PLC0415  as above
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator  # noqa: PLC0415

        self._trace = trace
        self._tracer = tracer
        self._propagator = TraceContextTextMapPropagator()
        self._spans: dict[int, Span] = {}

    def begin(self, stream: settings.Stream, documents: Iterable[Document]) -> None:
        """Documents are taken up: begin the spans of those that are traced, at the time at which they were read."""
        for document in documents:
            record = document.record
            span = self._tracer.start_span(
                f"process {record.position.topic}",
                context=self._propagator.extract(_carried(record.headers)),
                kind=self._trace.SpanKind.CONSUMER,
                attributes={
                    "messaging.system": "kafka",
                    "messaging.operation.name": "process",
                    "messaging.operation.type": "process",
                    "messaging.destination.name": record.position.topic,
                    "messaging.destination.partition.id": str(record.position.partition),
                    "messaging.kafka.offset": record.position.offset,
                    "labelstream.stream": stream.name,
                },
                start_time=int(document.read_at * _NANOSECONDS),
            )
            if span.is_recording():
                self._spans[id(record)] = span

    def continued(self, record: Record, headers: list[tuple[str, bytes]]) -> list[tuple[str, bytes]]:
        """Headers with a record's own span, if it has one, in place of whatever of this kind is there."""
        if (span := self._spans.get(id(record))) is None:
            return headers
        carrier: dict[str, str] = {}
        self._propagator.inject(carrier, context=self._trace.set_span_in_context(span))
        kept = [header for header in headers if header[0] not in _HEADERS]
        return [*kept, *((name, value.encode()) for name, value in carrier.items())]

    def finish(
        self, records: Iterable[Record], outcomes: Iterable[Outcome], account: str
    ) -> Iterator[tuple[Record, str]]:
        """Outcomes were published: end their spans; gives the records that are traced, with the ids of their traces."""
        for record, outcome in zip(records, outcomes, strict=True):
            if (span := self._spans.pop(id(record), None)) is None:
                continue
            span.set_attribute("labelstream.account", account)
            if isinstance(outcome, Refused):
                span.set_attribute("labelstream.outcome", "dead_letter")
                span.set_attribute("error.type", outcome.reason.value)
                span.set_status(self._trace.StatusCode.ERROR)
            else:
                span.set_attribute("labelstream.outcome", "classified")
            span.end()
            yield record, _id(span)

    def leave(self, documents: Iterable[Document]) -> None:
        """Documents are out of hand: what of them is still traced was not finished."""
        for document in documents:
            if (span := self._spans.pop(id(document.record), None)) is not None:
                span.set_attribute("labelstream.outcome", "abandoned")
                span.end()

    @contextmanager
    def call(self, account: str, provider: str, documents: Sequence[Document]) -> Iterator[None]:
        """A call for these documents: a span where one of them is traced, in the trace of the first that is."""
        spans = [span for each in documents if (span := self._spans.get(id(each.record))) is not None]
        if not spans:
            yield
            return
        with self._tracer.start_as_current_span(
            f"classify {account}",
            context=self._trace.set_span_in_context(spans[0]),
            kind=self._trace.SpanKind.CLIENT,
            attributes={
                "labelstream.account": account,
                "labelstream.provider": provider,
                "labelstream.documents": len(documents),
                "labelstream.characters": sum(len(document.text) for document in documents),
            },
            links=[self._trace.Link(span.get_span_context()) for span in dict.fromkeys(spans)],
            record_exception=False,  # whose traceback would go along
            set_status_on_exception=False,
        ) as span:
            try:
                yield
            except BaseException as error:
                span.set_attribute("error.type", type(error).__name__)
                span.set_status(self._trace.StatusCode.ERROR)
                raise

    def current(self) -> str | None:
        """The id of the trace of the call that is being made; None where it has none."""
        span = self._trace.get_current_span()
        return _id(span) if span.is_recording() else None


def _carried(headers: Headers) -> dict[str, Any]:
    """The trace context among headers; what is given twice, or is not ASCII, is as good as none."""
    found = [(name, value) for name, value in headers if name in _HEADERS and value is not None and value.isascii()]
    names = [name for name, _ in found]
    return {name: value.decode("ascii") for name, value in found if names.count(name) == 1}


def _id(span: "Span") -> str:
    return f"{span.get_span_context().trace_id:032x}"
