"""Results of a key in the order of its records, on a real broker."""

from pathlib import Path

import pytest

from tests.kafka.tickets import MAKE_TOPIC
from tests.kafka.updates import UPDATES, measured


@pytest.mark.parametrize(("delivery", "updates"), [("at_least_once", UPDATES), ("exactly_once", UPDATES // 5)])
def test_updates_of_a_thousand_tickets_are_answered_in_order(
    bootstrap: str, topic: MAKE_TOPIC, tmp_path: Path, delivery: str, updates: int
) -> None:
    topics = topic(partitions=4), topic(partitions=4), topic()
    found = measured(bootstrap, topics, updates, tmp_path, ordered_by="key", delivery=delivery)
    assert (found.results, found.repeated, found.inversions) == (updates, 0, 0)
