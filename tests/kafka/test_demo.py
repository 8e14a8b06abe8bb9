"""`labelstream demo` on a real broker: nothing is lost, and nothing is left behind."""

import orjson
from confluent_kafka.admin import AdminClient

from tests.commands import labelstream


def topics_and_groups(bootstrap: str) -> set[str]:
    admin = AdminClient({"bootstrap.servers": bootstrap})
    groups = admin.list_consumer_groups().result(30).valid
    return {*admin.list_topics(timeout=10).topics, *(group.group_id for group in groups)} - {"__consumer_offsets"}


def test_the_demo_runs_on_the_broker_it_is_told_and_leaves_nothing_there(bootstrap: str) -> None:
    before = topics_and_groups(bootstrap)
    run = labelstream("demo", "--json", "--bootstrap", bootstrap)
    assert run.returncode == 0, run.stderr
    (line,) = run.stdout.splitlines()
    report = orjson.loads(line)
    assert report["broker"] == f"Kafka at {bootstrap}"
    assert report["documents"] == report["results"] == report["committed"] == 2000
    assert (report["lost"], report["duplicates"], report["dead_letters"]) == (0, 0, 0)
    assert report["accuracy"] >= 0.8
    assert {name for name in topics_and_groups(bootstrap) - before if name.startswith("demo-")} == set()
