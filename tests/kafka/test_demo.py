"""`labelstream demo` on a real broker: nothing is lost, and no topic is left behind."""

import orjson
from confluent_kafka.admin import AdminClient

from tests.commands import labelstream


def topics(bootstrap: str) -> set[str]:
    return set(AdminClient({"bootstrap.servers": bootstrap}).list_topics(timeout=10).topics)


def test_the_demo_runs_on_the_broker_it_is_told_and_leaves_no_topic_there(bootstrap: str) -> None:
    before = topics(bootstrap) | {"__consumer_offsets"}
    run = labelstream("demo", "--json", "--bootstrap", bootstrap)
    assert run.returncode == 0, run.stderr
    (line,) = run.stdout.splitlines()
    report = orjson.loads(line)
    assert report["broker"] == f"Kafka at {bootstrap}"
    assert report["documents"] == report["results"] == report["committed"] == 2000
    assert (report["lost"], report["duplicates"], report["dead_letters"]) == (0, 0, 0)
    assert report["accuracy"] >= 0.8
    assert topics(bootstrap) <= before
