"""A sentence in the documents of a run in which everything fails that can, looked for wherever it has no business."""

import re
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest

from tests.collector import collecting
from tests.commands import Running, started, tree, write_config
from tests.kafka.parrot import Parrot
from tests.kafka.test_run import progress
from tests.kafka.tickets import MAKE_TOPIC
from tests.kafka.topics import Read, fill, read, size

CANARY = "quagga-of-Wexford"
EMAIL, CUSTOMER = "ann.canary@mail.example.org", "K-471147"
TEXT = f"{CANARY} writes from {EMAIL}, customer {CUSTOMER}"
GOOD = [orjson.dumps({"id": number, "text": f"ticket {number}: {TEXT}"}) for number in range(60)]
BAD = [
    f"not JSON: {TEXT}".encode(),
    orjson.dumps({"id": "elsewhere", "body": TEXT}),
    orjson.dumps({"id": "a list", "text": [TEXT]}),
    orjson.dumps({"id": "long", "text": TEXT * 100}),
    orjson.dumps({"id": "cut off", "text": TEXT})[:-3],
    f"not UTF-8: {TEXT} \xff".encode("latin-1"),
]


HEALTH = re.compile(r"health\W+(http://[\w.:]+)")  # in either form of the log


def everything(message: Read) -> bytes:
    return b"".join((message.key or b"", message.value or b"", *(value or b"" for _, value in message.headers)))


@pytest.mark.parametrize(("delivery", "form"), [("at_least_once", "json"), ("exactly_once", "console")])
def test_a_documents_text_is_nowhere_but_where_it_was_asked_for(
    bootstrap: str, topic: MAKE_TOPIC, tmp_path: Path, delivery: str, form: str
) -> None:
    topics = incoming, classified, dead = topic(partitions=2), topic(), topic()
    copies, jobs = topic(), topic(2, config={"cleanup.policy": "compact"})
    parrot = Parrot()
    with parrot.listening(), collecting() as traced:
        settings: dict[str, Any] = tree(
            bootstrap,
            {},
            topics,
            classify_with=["language", "safety"],
            document={"max_characters": 1000},
            redact={"patterns": {"customer": r"\bK-\d{6}\b"}},
            routes=[{"class": "access", "to": copies}],
            dead_letter_limit={"share": 1},
            delivery=delivery,
            jobs_topic=jobs,
        )
        config = write_config(
            tmp_path / "triage.yaml",
            settings
            | {"accounts": parrot.accounts, "tracing": {"endpoint": traced.url, "sample": 1}}
            | {"log": {"level": "debug", "format": form}},
        )
        fill(bootstrap, incoming, BAD)
        with started(tmp_path, "run", config) as worker, health(worker) as client:
            while not parrot.is_well:
                fill(bootstrap, incoming, GOOD)
                worker.wait_until(lambda: progress(bootstrap, incoming) == size(bootstrap, incoming))
            shown = "".join(_shown(client, path) for path in ("/metrics", "/readyz", "/livez", "/status", "/"))
            parrot.locked = True
            fill(bootstrap, incoming, GOOD)
            assert worker.process.wait(60) == 2
            said = worker.said() + (worker.process.stdout.read() if worker.process.stdout else "")
    assert "check key" in said
    assert said.lstrip().startswith("{") == (form == "json")
    assert "<html" in shown
    assert 'labelstream_redacted_total{kind="customer"' in shown
    letters = read(bootstrap, dead)
    results = [each for name in (classified, copies) for each in read(bootstrap, name)]
    notes, offsets = read(bootstrap, jobs), read(bootstrap, "__consumer_offsets")
    assert len(letters) > len(BAD), "some are refused by the classifier, too"
    assert results
    assert notes
    assert offsets
    written = [
        *map(everything, [*results, *notes, *offsets]),
        *(everything(each._replace(value=None)) for each in letters),
    ]
    assert traced.spans
    places = {"log": said.encode(), "shown": shown.encode(), "topics": b"\n".join(written)}
    places["traces"] = b"\n".join(traced.raw)
    for secret in (CANARY, EMAIL, CUSTOMER, "EMAIL_1"):
        assert {where for where, found in places.items() if secret.encode() in found} == set(), secret
    heard = b"\n".join(parrot.heard)
    assert f"{CANARY} writes from [EMAIL_1], customer [CUSTOMER_1]".encode() in heard
    assert EMAIL.encode() not in heard
    assert CUSTOMER.encode() not in heard
    assert {each.value for each in letters} >= set(BAD), "byte for byte"


def health(worker: Running) -> httpx.Client:
    worker.wait_until(lambda: HEALTH.search(worker.said()))
    found = HEALTH.search(worker.said())
    assert found
    return httpx.Client(base_url=found[1])


def _shown(client: httpx.Client, path: str) -> str:
    return client.get(path).text
