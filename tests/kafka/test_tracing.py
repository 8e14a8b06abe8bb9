"""Traces through a real broker: by the headers of documents into those of results, and to a collector."""

import signal
from collections.abc import Callable
from pathlib import Path

import orjson

from tests.collector import attributes, collecting
from tests.commands import CANARY_TEXT, served_account, serving, small_model, started, tree, write_config
from tests.kafka.topics import fill, read, size

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


def test_a_trace_goes_from_the_document_through_the_call_to_the_result(
    bootstrap: str, topic: Callable[..., str], tmp_path: Path
) -> None:
    model, (incoming, classified, dead) = small_model(tmp_path / "small"), (topic(), topic(), topic())
    documents = [orjson.dumps({"id": n, "text": f"the parcel {n} has not arrived, {CANARY_TEXT}"}) for n in range(3)]
    headers = [("traceparent", f"00-{TRACE}-{PARENT}-01".encode()), ("own", b"kept")]
    with serving(tmp_path, model) as (url, _), collecting() as collected:
        settings = tree(bootstrap, served_account(url), (incoming, classified, dead))
        settings["tracing"] = {"endpoint": collected.url, "sample": 0}
        with started(tmp_path, "run", write_config(tmp_path / "c.yaml", settings)) as run:
            fill(bootstrap, incoming, documents, headers=headers)
            run.wait_until(lambda: size(bootstrap, classified) == 3)
            assert run.ended_by(signal.SIGTERM) == 0
            assert not run.events("library_message")
    processed = {attributes(span)["messaging.kafka.offset"]: span for span in collected.named("process")}
    assert {span.trace_id.hex() for span in collected.spans} == {TRACE}
    assert {span.parent_span_id.hex() for span in processed.values()} == {PARENT}
    for message in read(bootstrap, classified):
        span = processed[message.source.offset]
        contexts = [value for name, value in message.headers if name == "traceparent"]
        assert contexts == [f"00-{TRACE}-{span.span_id.hex()}-01".encode()]
        assert message.header("own") == b"kept"
    linked = {link.span_id for call in collected.named("classify") for link in call.links}
    assert linked == {span.span_id for span in processed.values()}
    assert not any(CANARY_TEXT.encode() in raw for raw in collected.raw)
