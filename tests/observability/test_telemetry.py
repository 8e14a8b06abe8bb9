import asyncio
import re
from dataclasses import replace
from itertools import product
from typing import get_args

import pytest

from service.documents import Classified, ClassScore, Outcome, Reason, Refused
from service.limits.admission import Held
from service.limits.breaker import BreakerStatistics, State, Why
from service.limits.gate import LimitsStatistics
from service.observability.telemetry import AccountStatistics, ErrorType, StreamStatistics, Telemetry
from service.offsets import Mark, Offsets, Partition
from tests.clock import virtual_time
from tests.records import INPUT, record

OTHER = Partition("incoming", 1)
TOPIC = {"topic": "incoming"}
WHO = {"account": "azure", "provider": "azure_language"}


def watched(offsets: Offsets, ends: dict[Partition, int]) -> Telemetry:
    """The telemetry of a process with one stream and one account."""
    telemetry = Telemetry()
    telemetry.stream("incoming", lambda: StreamStatistics("incoming", 100, 3, offsets.statistics(), ends))
    telemetry.account("azure", "azure_language")
    unwell = BreakerStatistics(State.OPEN, Why.IN_A_ROW, failures=4, opened=2)
    gate = LimitsStatistics(in_flight=2, in_flight_limit=16, waiting=5, quiet=1.5, breaker=unwell)
    telemetry.watch_account(lambda: AccountStatistics("azure", "azure_language", gate))
    return telemetry


def series(telemetry: Telemetry) -> dict[str, set[tuple[tuple[str, str], ...]]]:
    return {
        sample.name: {tuple(sorted(each.labels.items())) for each in family.samples if each.name == sample.name}
        for family in telemetry.registry.collect()
        for sample in family.samples
    }


def test_every_family_is_ours_and_says_what_it_means() -> None:
    families = list(watched(Offsets(1, 1), {}).registry.collect())
    assert len(families) > 35
    for family in families:
        assert re.fullmatch(r"(labelstream|process)_[a-z_]+", family.name)
        assert re.fullmatch(r"[A-Z].+\.", family.documentation), family.name


def test_labels_are_those_of_the_configuration_and_of_closed_sets() -> None:
    offsets = Offsets(1, 1)
    offsets.assign(INPUT, Mark(1))
    telemetry = watched(offsets, {INPUT: 1})
    azure = telemetry.account("azure", "azure_language")
    azure.request("submit", "2xx", 0.1)
    azure.error("poll", "timeout")
    azure.retried("throttled", 1.0)
    seen = {each for labels in series(telemetry).values() for each in labels}
    assert {name for each in seen for name, _ in each} == {
        *("topic", "partition", "outcome", "reason", "result", "event", "label", "answered_from"),
        *("account", "provider", "operation", "error_type", "period", "state"),
        *("le", "version", "python"),
    }
    assert {dict(each)["reason"] for each in series(telemetry)["labelstream_dead_letters_total"]} == set(Reason)


def test_classes_beyond_the_first_fifty_are_others() -> None:
    telemetry = Telemetry()
    stream = telemetry.stream("incoming", lambda: StreamStatistics("incoming", 1, 0, Offsets(1, 1).statistics(), {}))
    for i in range(200):
        stream.finished([record(i)], [Classified((ClassScore(f"class-{i % 100}", 0.5),))])
    counted = series(telemetry)["labelstream_labels_total"]
    assert len(counted) == 51
    sample = telemetry.registry.get_sample_value
    assert sample("labelstream_labels_total", {**TOPIC, "label": "class-49"}) == 2
    assert sample("labelstream_labels_total", {**TOPIC, "label": "class-50"}) is None
    assert sample("labelstream_labels_total", {**TOPIC, "label": "other"}) == 100


def test_what_comes_to_an_end_is_counted_by_how() -> None:
    telemetry = Telemetry()
    stream = telemetry.stream("incoming", lambda: StreamStatistics("incoming", 1, 0, Offsets(1, 1).statistics(), {}))
    outcomes: list[Outcome] = [
        Classified((ClassScore("billing", 0.93),)),
        Classified((ClassScore("hate", None),)),
        Classified(()),
        Refused(Reason.TOO_LONG, "…"),
    ]
    stream.finished([record(i) for i in range(4)], outcomes)
    sample = telemetry.registry.get_sample_value
    assert sample("labelstream_records_finished_total", {**TOPIC, "outcome": "classified"}) == 3
    assert sample("labelstream_records_finished_total", {**TOPIC, "outcome": "dead_letter"}) == 1
    assert sample("labelstream_dead_letters_total", {**TOPIC, "reason": "too_long"}) == 1
    assert sample("labelstream_confidence_count", TOPIC) == 1
    assert sample("labelstream_confidence_sum", TOPIC) == pytest.approx(0.93)
    assert sample("labelstream_record_end_to_end_seconds_count", TOPIC) == 4


def test_a_record_without_a_timestamp_says_nothing_about_latency() -> None:
    telemetry = Telemetry()
    stream = telemetry.stream("incoming", lambda: StreamStatistics("incoming", 1, 0, Offsets(1, 1).statistics(), {}))
    stream.finished([record(0, timestamp=-1), record(1, timestamp=0)], [Classified(())] * 2)
    assert telemetry.registry.get_sample_value("labelstream_record_end_to_end_seconds_count", TOPIC) == 0


def test_gauges_are_read_when_somebody_looks() -> None:
    offsets = Offsets(100, 1000)
    telemetry = watched(offsets, {INPUT: 20, OTHER: 500})
    offsets.assign(INPUT, Mark(0))
    offsets.assign(OTHER, Mark(400))
    records = offsets.track([record(offset, timestamp=1000) for offset in range(10)])
    offsets.resolve(records[:4])
    sample = telemetry.registry.get_sample_value
    here, there = {**TOPIC, "partition": "0"}, {**TOPIC, "partition": "1"}
    assert sample("labelstream_records_inflight", TOPIC) == 6
    assert sample("labelstream_inflight_bytes", TOPIC) == 6
    assert sample("labelstream_inflight_limit", TOPIC) == 100
    assert sample("labelstream_batches_inflight", TOPIC) == 3
    assert sample("labelstream_assigned_partitions", TOPIC) == 2
    assert sample("labelstream_consumer_lag_records", here) == 16
    assert sample("labelstream_commit_gap_records", here) == 4, "also when nothing was committed but the beginning"
    assert sample("labelstream_low_water_distance_records", here) == 6
    assert (sample("labelstream_consumer_lag_seconds", here) or 0) > 10**9
    assert (sample("labelstream_oldest_inflight_age_seconds", TOPIC) or 0) > 10**9
    assert sample("labelstream_consumer_lag_records", there) == 100, "also of a partition that was not read yet"
    assert sample("labelstream_consumer_lag_seconds", there) == 0
    assert sample("labelstream_concurrency_inflight", WHO) == 2
    assert sample("labelstream_concurrency_limit", WHO) == 16
    assert sample("labelstream_calls_waiting", WHO) == 5
    assert sample("labelstream_account_quiet_seconds", WHO) == 1.5
    assert sample("labelstream_account_failures", WHO) == 4
    assert [sample("labelstream_circuit_state", {**WHO, "state": state}) for state in State] == [0, 1, 0]
    assert sample("labelstream_circuit_opened_total", WHO) == 2
    offsets.resolve(records)
    assert sample("labelstream_records_inflight", TOPIC) == 0
    assert sample("labelstream_oldest_inflight_age_seconds", TOPIC) == 0


def test_a_partition_that_is_revoked_leaves_no_series() -> None:
    offsets = Offsets(100, 1000)
    telemetry = watched(offsets, {INPUT: 20})
    offsets.assign(INPUT, None)
    offsets.track([record(0)])
    seen = {name for name, labels in series(telemetry).items() for each in labels if ("partition", "0") in each}
    assert len(seen) == 4
    offsets.forget([INPUT])
    assert not any(("partition", "0") in each for labels in series(telemetry).values() for each in labels)


def test_publishing_is_timed_and_counted_by_topic_and_a_failure_by_its_kind() -> None:
    telemetry = Telemetry()
    with telemetry.producing({"classified": 2, "billing": 1}):
        pass
    with pytest.raises(ZeroDivisionError), telemetry.producing({"classified": 1}):
        raise ZeroDivisionError
    sample = telemetry.registry.get_sample_value
    assert sample("labelstream_messages_produced_total", {"topic": "classified"}) == 2
    assert sample("labelstream_messages_produced_total", {"topic": "billing"}) == 1
    assert sample("labelstream_produce_duration_seconds_count") == 1
    assert sample("labelstream_produce_errors_total", {"error_type": "ZeroDivisionError"}) == 1


@virtual_time
async def test_the_lag_of_the_event_loop_is_measured() -> None:
    telemetry = Telemetry()
    watching = asyncio.create_task(telemetry.watch_event_loop(every=0.5))
    await asyncio.sleep(10.1)
    watching.cancel()
    sample = telemetry.registry.get_sample_value
    assert sample("labelstream_event_loop_lag_seconds_count") == 20
    assert sample("labelstream_event_loop_lag_seconds_bucket", {"le": "0.001"}) == 20


def test_four_busy_streams_and_accounts_are_fewer_than_two_thousand_series() -> None:
    telemetry = Telemetry()
    for name in ("tickets", "posts", "mails", "chats"):
        offsets, ends = Offsets(100, 1000), {Partition(name, number): 10 for number in range(16)}
        for partition in ends:
            offsets.assign(partition, None)
        standing = StreamStatistics(name, 100, 0, offsets.statistics(), ends)
        stream = telemetry.stream(name, lambda standing=standing: standing)  # type: ignore[misc]
        for number in range(60):
            stream.finished([record(number)], [Classified((ClassScore(f"class-{number}", 0.5),))])
        account = telemetry.account(name, "azure_language")
        for operation, outcome in product(("submit", "poll"), ("2xx", "4xx", "5xx", "error")):
            account.request(operation, outcome, 0.1)
        for error in get_args(ErrorType):
            account.error("poll", error)
        for reason in ("throttled", "unavailable", "job_lost"):
            account.retried(reason, 1.0)
        gate = LimitsStatistics(2, 16, 0, 0, held=dict.fromkeys(Held, 1.0))
        telemetry.watch_account(lambda name=name, gate=gate: AccountStatistics(name, "azure_language", gate))  # type: ignore[misc]
    assert 1000 < sum(len(family.samples) for family in telemetry.registry.collect()) < 2000


def test_two_streams_are_kept_apart() -> None:
    telemetry, tracked = Telemetry(), Offsets(10, 100)
    tracked.assign(Partition("posts", 0), None)
    tracked.track([record(0, partition=Partition("posts", 0))])
    first = StreamStatistics("incoming", 1, 0, Offsets(1, 1).statistics(), {})
    telemetry.stream("incoming", lambda: first)
    telemetry.stream("posts", lambda: replace(first, topic="posts", offsets=tracked.statistics()))
    sample = telemetry.registry.get_sample_value
    assert sample("labelstream_records_inflight", {"topic": "incoming"}) == 0
    assert sample("labelstream_records_inflight", {"topic": "posts"}) == 1
