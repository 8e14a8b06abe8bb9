"""What the status page shows: a picture for people, read from the metrics of one worker or of all of them together.

There is nothing in it that is not in `/metrics`, but for the last messages, and no history: whoever looks sees counters
move between two looks, so that a page that nobody has open costs nothing.
"""

import time
from collections import defaultdict
from collections.abc import Iterable, Mapping
from importlib.metadata import version
from typing import Any

from prometheus_client.core import Metric

from service.observability.messages import Message

Said = Mapping[str, Any]
"""What a worker says of itself: such a picture."""


def picture(
    families: Iterable[Metric], streams: Mapping[str, Said], messages: Iterable[Message], now: float | None = None
) -> dict[str, Any]:
    """Everything of this moment (Unix time); counts are since the start.

    Of `streams`, by their input topics, is taken whether they are `joined` and `draining`, which no metric tells.
    Samples that differ by the label `worker` only are added up.
    """
    samples = _Samples(families)
    topics = [topic for (topic,) in samples.known("inflight_limit", "topic")]
    return {
        "version": version("labelstream"),
        "now": time.time() if now is None else now,
        "workers": [],
        "streams": [_stream(samples, topic, streams.get(topic)) for topic in topics],
        "accounts": [_account(samples, *who) for who in samples.known("concurrency_limit", "account", "provider")],
        "messages": [message._asdict() for message in messages],
    }


def together(families: Iterable[Metric], workers: Mapping[str, Said | None], messages: Iterable[Message]) -> Said:
    """The picture of several workers, by what each says of itself, None where it does not answer."""
    families = list(families)
    told = {name: says for name, says in workers.items() if says is not None}
    streams = defaultdict[str, list[Said]](list)
    for says in told.values():
        for stream in says["streams"]:
            streams[stream["topic"]].append(stream)
    joined = {
        topic: {
            "joined": len(all_say) == len(workers) and all(each["joined"] for each in all_say),
            "draining": any(each["draining"] for each in all_say),
        }
        for topic, all_say in streams.items()
    }
    whole, restarts = picture(families, joined, messages), _Samples(families)
    whole["workers"] = [
        {"name": name, "up": name in told, "restarts": restarts.sum("worker_restarts_total", worker=name)}
        for name in workers
    ]
    whole["messages"] += [{**each, "worker": name} for name, says in told.items() for each in says["messages"]]
    return whole


class _Samples:
    """The samples of our metrics, by name."""

    def __init__(self, families: Iterable[Metric]) -> None:
        self._by_name = defaultdict[str, list[tuple[dict[str, str], float]]](list)
        for family in families:
            for sample in family.samples:
                self._by_name[sample.name.removeprefix("labelstream_")].append((sample.labels, sample.value))

    def _of(self, name: str, labels: Mapping[str, str]) -> Iterable[tuple[dict[str, str], float]]:
        return ((has, value) for has, value in self._by_name[name] if labels.items() <= has.items())

    def known(self, name: str, *labels: str) -> list[list[str]]:
        """The values that these labels have together."""
        return [
            list(each) for each in dict.fromkeys(tuple(has[each] for each in labels) for has, _ in self._by_name[name])
        ]

    def sum(self, name: str, **labels: str) -> float:
        return sum(value for _, value in self._of(name, labels))

    def highest(self, name: str, **labels: str) -> float:
        return max((value for _, value in self._of(name, labels)), default=0.0)

    def by(self, label: str, name: str, **labels: str) -> dict[str, float]:
        """What is above 0, added up for each value of a label."""
        found = defaultdict[str, float](float)
        for has, value in self._of(name, labels):
            found[has[label]] += value
        return {value: total for value, total in found.items() if total}

    def durations(self, name: str, **labels: str) -> dict[str, list[float]]:
        """A histogram: how many were at most so many seconds, for each bound; and of all, as the last."""
        found = defaultdict[float, float](float)
        for has, value in self._of(f"{name}_bucket", labels):
            found[float(has["le"])] += value
        bounds = sorted(found)
        return {"seconds": bounds[:-1], "counts": [found[bound] for bound in bounds]}


def _stream(samples: _Samples, topic: str, says: Said | None) -> dict[str, Any]:
    return {
        "topic": topic,
        "joined": says is not None and says["joined"],
        "draining": says is not None and says["draining"],
        "dead_letter_limit_reached": samples.highest("dead_letter_limit_reached", topic=topic) > 0,
        "partitions": samples.sum("assigned_partitions", topic=topic),
        "in_flight": samples.sum("records_inflight", topic=topic),
        "limit": samples.sum("inflight_limit", topic=topic),
        "oldest_seconds": samples.highest("oldest_inflight_age_seconds", topic=topic),
        "lag": samples.sum("consumer_lag_records", topic=topic),
        "consumed": samples.sum("records_consumed_total", topic=topic),
        "finished": samples.by("outcome", "records_finished_total", topic=topic),
        "end_to_end": samples.durations("record_end_to_end_seconds", topic=topic),
        "classes": samples.by("label", "labels_total", topic=topic),
        "dead_letters": samples.by("reason", "dead_letters_total", topic=topic),
        "cost": samples.sum("cost_total", topic=topic),
        "saved": samples.sum("cost_saved_total", topic=topic),
        "trials": [
            _trial(samples, topic, trial)
            for (of, trial) in samples.known("trial_records_total", "topic", "trial")
            if of == topic
        ],
    }


def _trial(samples: _Samples, topic: str, trial: str) -> dict[str, Any]:
    names = {"topic": topic, "trial": trial}
    pairs = samples.known("trial_differences_total", "topic", "trial", "present", "candidate")

    def shift(le: str) -> float:
        return samples.sum("trial_score_shift_bucket", **names, le=le)

    def side(classifier: str) -> dict[str, float]:
        return {
            "seconds": samples.sum("trial_seconds_sum", **names, classifier=classifier),
            "answers": samples.sum("trial_seconds_count", **names, classifier=classifier),
            "cost": samples.sum("trial_cost_total", **names, classifier=classifier),
        }

    return {
        "trial": trial,
        "became": samples.by("became", "trial_records_total", **names),
        "differences": [
            [present, candidate, samples.sum("trial_differences_total", **names, present=present, candidate=candidate)]
            for *whose, present, candidate in pairs
            if whose == [topic, trial]
        ],
        "shift": {"scored": shift("+Inf"), "surer": shift("+Inf") - shift("0.05"), "less_sure": shift("-0.05")},
        "present": side("present"),
        "candidate": side("candidate"),
    }


def _account(samples: _Samples, name: str, provider: str) -> dict[str, Any]:
    return {
        "account": name,
        "provider": provider,
        "breaker": samples.by("state", "circuit_state", account=name),
        "failures": samples.sum("account_failures", account=name),
        "opened": samples.sum("circuit_opened_total", account=name),
        "quiet_seconds": samples.highest("account_quiet_seconds", account=name),
        "in_flight": samples.sum("concurrency_inflight", account=name),
        "limit": samples.sum("concurrency_limit", account=name),
        "waiting": samples.sum("calls_waiting", account=name),
        "held_seconds": samples.by("reason", "calls_held_seconds_total", account=name),
        "requests": samples.durations("provider_request_duration_seconds", account=name),
        "jobs": samples.durations("job_duration_seconds", account=name),
        "errors": samples.by("error_type", "provider_errors_total", account=name),
        "cost": samples.sum("account_cost_total", account=name),
        "spent": samples.by("period", "account_spent", account=name),
        "spend_limit": samples.by("period", "account_spend_limit", account=name),
    }
