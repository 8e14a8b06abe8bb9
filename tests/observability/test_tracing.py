"""Spans as a collector gets them, by the real exporter, of a pipeline at work."""

import asyncio
import re
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import orjson
import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status
from prometheus_client import generate_latest
from prometheus_client.exposition import choose_encoder
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from service import pipeline, settings
from service.dispatch.dispatcher import Dispatcher
from service.documents import Document, Headers, Message, Outcome, Record
from service.errors import CallFailed, Misconfigured, Unavailable
from service.observability import tracing
from service.observability.histograms import Observed
from service.observability.telemetry import Telemetry
from service.streams.memory import MemorySink, MemorySource
from tests.classifiers import UNWANTED, FirstWord, account
from tests.collector import Collected, attributes, collecting
from tests.records import record

CANARY = "canary-4711"
TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
SAMPLED, UNSAMPLED = f"00-{TRACE}-{PARENT}-01".encode(), f"00-{'1' * 32}-{PARENT}-00".encode()
STREAM = settings.Stream.model_validate(
    {"name": "s", "input": "incoming", "classify_with": "azure", "output": "classified", "dead_letter": "dead"}
)


def document(offset: int, text: str, *headers: tuple[str, bytes]) -> Record:
    body = orjson.dumps({"id": f"{CANARY}-{offset}", "text": f"{text} {CANARY}"})
    return record(offset, body, key=CANARY.encode(), headers=[("own", CANARY.encode()), *headers])


@asynccontextmanager
async def traced(collected: Collected, sample: float = 0.0) -> AsyncIterator[Telemetry]:
    async with tracing.opened(settings.Tracing(endpoint=collected.url, sample=sample)) as opened:
        yield Telemetry(opened)


async def work(
    records: Sequence[Record], telemetry: Telemetry, classifier: FirstWord | None = None
) -> Mapping[int, Message]:
    """Classify records; gives the message for each, by its offset."""
    sink = MemorySink()
    azure = account(classifier or FirstWord(seconds=0), "azure", telemetry=telemetry)
    running = pipeline.run(
        STREAM, MemorySource(records), sink, Dispatcher([azure]), telemetry=telemetry, stop=asyncio.Event()
    )
    await running
    assert len(sink.messages) == len(records)
    return {message.source.offset: message for message in sink.messages}


def of(headers: Headers, name: str) -> list[bytes]:
    return [value for each, value in headers if each == name]


def offsets(spans: Sequence[Span]) -> list[int]:
    return sorted(attributes(span)["messaging.kafka.offset"] for span in spans)


async def test_a_document_has_a_span_in_the_trace_of_its_header_and_its_result_goes_on_with_it() -> None:
    with collecting() as collected:
        async with traced(collected) as telemetry:
            messages = await work(
                [document(0, "billing", ("traceparent", SAMPLED), ("tracestate", b"vendor=x"))], telemetry
            )
    (span,) = collected.named("process")
    assert (span.trace_id.hex(), span.parent_span_id.hex(), span.name) == (TRACE, PARENT, "process incoming")
    assert attributes(span) == {
        "messaging.system": "kafka",
        "messaging.operation.name": "process",
        "messaging.operation.type": "process",
        "messaging.destination.name": "incoming",
        "messaging.destination.partition.id": "0",
        "messaging.kafka.offset": 0,
        "labelstream.stream": "s",
        "labelstream.account": "azure",
        "labelstream.outcome": "classified",
    }
    headers = messages[0].headers
    assert of(headers, "traceparent") == [f"00-{TRACE}-{span.span_id.hex()}-01".encode()], "one, and not the old one"
    assert of(headers, "tracestate") == [b"vendor=x"]
    assert of(headers, "own") == [CANARY.encode()]
    (sent,) = [each for request in collected.requests for each in request.resource_spans]
    named = {each.key: each.value.string_value for each in sent.resource.attributes}
    assert named["service.name"] == "labelstream"


async def test_a_call_has_a_span_that_links_to_each_of_its_documents_that_is_traced() -> None:
    other = f"00-{'2' * 32}-{PARENT}-01".encode()
    headers = [SAMPLED, UNSAMPLED, other, None]
    records = [
        document(number, "billing", *([("traceparent", header)] if header else []))
        for number, header in enumerate(headers)
    ]
    with collecting() as collected:
        async with traced(collected) as telemetry:
            messages = await work(records, telemetry)
    assert offsets(collected.named("process")) == [0, 2]
    (call,) = collected.named("classify")
    assert (call.name, call.kind) == ("classify azure", Span.SPAN_KIND_CLIENT)
    assert {link.span_id for link in call.links} == {span.span_id for span in collected.named("process")}
    assert call.trace_id.hex() == TRACE, "that of the first"
    told = attributes(call)
    assert (told["labelstream.documents"], told["labelstream.provider"]) == (4, "fake")
    assert of(messages[1].headers, "traceparent") == [UNSAMPLED], "as it came"
    assert of(messages[3].headers, "traceparent") == []


@pytest.mark.parametrize(("sample", "count"), [(1.0, 10), (0.0, 0)])
async def test_documents_without_a_trace_are_sampled_as_configured(sample: float, count: int) -> None:
    with collecting() as collected:
        async with traced(collected, sample) as telemetry:
            await work([document(number, "billing") for number in range(10)], telemetry)
    assert len(collected.named("process")) == count
    assert len({span.trace_id for span in collected.named("process")}) == count


@pytest.mark.parametrize("bad", [b"nonsense", b"\xff\xfe", b"00-" + b"0" * 32 + b"-" + b"0" * 16 + b"-01", b""])
async def test_a_header_that_is_no_trace_context_is_as_good_as_none(bad: bytes) -> None:
    with collecting() as collected:
        async with traced(collected, 1.0) as telemetry:
            messages = await work([document(0, "billing", ("traceparent", bad))], telemetry)
    (span,) = collected.named("process")
    assert not span.parent_span_id
    (header,) = of(messages[0].headers, "traceparent")
    assert header.startswith(f"00-{span.trace_id.hex()}-{span.span_id.hex()}-".encode())


async def test_a_dead_letter_stays_as_its_document_came_and_its_span_says_why() -> None:
    with collecting() as collected:
        async with traced(collected) as telemetry:
            messages = await work([document(0, UNWANTED, ("traceparent", SAMPLED))], telemetry)
    assert messages[0].topic == "dead"
    assert of(messages[0].headers, "traceparent") == [SAMPLED]
    (span,) = collected.named("process")
    assert attributes(span)["labelstream.outcome"] == "dead_letter"
    assert attributes(span)["error.type"] == "refused_by_classifier"
    assert span.status.code == Status.STATUS_CODE_ERROR


async def test_no_text_id_key_or_header_of_a_document_is_in_a_span_nor_what_a_failure_says() -> None:
    troubles: list[CallFailed | None] = [Unavailable(f"it said {CANARY}", 0.01), None]
    records = [document(0, "billing", ("traceparent", SAMPLED)), document(1, UNWANTED, ("traceparent", SAMPLED))]
    with collecting() as collected:
        async with traced(collected) as telemetry:
            await work(records, telemetry, FirstWord(seconds=0, trouble=lambda: troubles.pop(0) if troubles else None))
    failed, answered = sorted(collected.named("classify"), key=lambda span: span.start_time_unix_nano)
    assert (attributes(failed)["error.type"], failed.status.code) == ("Unavailable", Status.STATUS_CODE_ERROR)
    assert "error.type" not in attributes(answered)
    assert len(failed.links) == 2
    assert not failed.events
    assert not any(CANARY.encode() in raw for raw in collected.raw)


async def test_a_document_that_is_left_has_a_span_that_says_so() -> None:
    with collecting() as collected:
        async with traced(collected) as telemetry:
            source, stop = MemorySource([document(0, "billing", ("traceparent", SAMPLED))], ends=False), asyncio.Event()
            asked = asyncio.Event()
            classifier = FirstWord(seconds=0, trouble=lambda: asked.set() or Unavailable("away"))  # type: ignore[func-returns-value]
            azure = account(classifier, "azure", telemetry=telemetry)
            running = pipeline.run(STREAM, source, MemorySink(), Dispatcher([azure]), telemetry=telemetry, stop=stop)
            task = asyncio.create_task(running)
            await asked.wait()
            stop.set()
            await task
    (span,) = collected.named("process")
    assert attributes(span)["labelstream.outcome"] == "abandoned"


@dataclass
class Asking(FirstWord):
    """Makes a request for a call, as accounts beyond this machine do."""

    telemetry: Telemetry = field(default_factory=Telemetry)

    async def classify(self, documents: Sequence[Document]) -> list[Outcome]:
        self.telemetry.account("azure", "fake").request("submit", "2xx", 0.02)
        return await super().classify(documents)


async def test_metrics_have_traces_as_examples_in_the_format_that_knows_them() -> None:
    with collecting() as collected:
        async with traced(collected) as telemetry:
            await work(
                [document(1, "billing", ("traceparent", SAMPLED))], telemetry, Asking(seconds=0, telemetry=telemetry)
            )
    encode, _ = choose_encoder("application/openmetrics-text; version=1.0.0")
    page = encode(telemetry.registry).decode()
    examples = {
        sample.name: sample.exemplar
        for family in text_string_to_metric_families(page)  # type: ignore[no-untyped-call]
        for sample in family.samples
        if sample.exemplar is not None
    }
    assert {name: example.labels for name, example in examples.items()} == {
        "labelstream_record_end_to_end_seconds_bucket": {"trace_id": TRACE},
        "labelstream_provider_request_duration_seconds_bucket": {"trace_id": TRACE},
    }
    assert TRACE not in generate_latest(telemetry.registry).decode(), "the older format has none"


def test_an_example_is_never_longer_than_the_format_takes() -> None:
    observed = Observed((1.0,))
    observed.observe(0.5)
    observed.exemplify(0.5, "x" * 1000)
    (example,) = observed.exemplars.values()
    assert sum(len(name) + len(value) for name, value in example.labels.items()) <= 128


async def test_a_collector_that_is_away_holds_nothing_up() -> None:
    branch = settings.Tracing(endpoint="http://127.0.0.1:1/v1/traces", sample=1.0)
    async with tracing.opened(branch) as opened:
        assert len(await work([document(0, "billing")], Telemetry(opened))) == 1


async def test_off_is_nothing_at_all() -> None:
    async with tracing.opened(None) as opened:
        assert opened is None


def test_nothing_of_it_is_imported_where_it_is_off() -> None:
    loaded = "[name for name in sys.modules if 'opentelemetry' in name]"
    script = f"import sys, service.worker.worker, service.cli; print({loaded})"
    said = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    assert said == "[]\n"


async def test_without_the_extra_it_is_said_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace", None)
    with pytest.raises(Misconfigured, match=re.escape("pip install 'labelstream[tracing]'")):
        async with tracing.opened(settings.Tracing(endpoint="https://collector:4318/v1/traces")):
            pass


@pytest.mark.parametrize(
    ("endpoint", "says"),
    [
        ("collector:4318", "write a URL"),
        ("http://collector:4318/v1/traces", "is not encrypted"),
        ("https://user:secret@collector/v1/traces", "OTEL_EXPORTER_OTLP_HEADERS"),
    ],
)
def test_an_endpoint_that_will_not_do_is_refused(endpoint: str, says: str) -> None:
    with pytest.raises(ValueError, match=says) as refused:
        settings.Tracing(endpoint=endpoint)
    assert "user:secret" not in str(refused.value.errors()[0]["msg"])  # type: ignore[attr-defined]


def test_plaintext_is_for_who_asks_for_it_and_for_this_machine() -> None:
    assert settings.Tracing(endpoint="http://collector:4318/v1/traces", plaintext=True)
    assert settings.Tracing(endpoint="http://127.0.0.1:4318/v1/traces")
