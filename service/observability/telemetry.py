"""Every metric, with its meaning. Parts report what happened; what is merely so is read when somebody looks.

Counters and histograms are bound to their labels once, when a stream or an account is opened. Gauges are not kept up:
the collector asks for `statistics()` at each scrape, so a revoked partition leaves no series behind. Label values come
from the configuration or from closed sets; classes beyond the first fifty of a topic are counted as `other`.
"""

import asyncio
import platform
import time
from collections import Counter as Counting
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Literal, get_args

from prometheus_client import CollectorRegistry, Counter, Gauge, Info, ProcessCollector, disable_created_metrics
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from service.documents import AnsweredFrom, Classified, ClassScore, Document, Outcome, Reason, Record, Refused
from service.limits.breaker import State
from service.limits.gate import LimitsStatistics
from service.observability.comparing import Compared
from service.observability.histograms import Histogram, Observed
from service.observability.tracing import Tracing
from service.offsets import OffsetsStatistics, Partition

disable_created_metrics()  # type: ignore[no-untyped-call]

ErrorType = Literal[
    "timeout",
    "connect",
    "tls",
    "auth",
    "throttled",
    "http_4xx",
    "http_5xx",
    "malformed_response",
    "job_lost",
    "document_error",
]
Became = Literal["finished", "went_on", "first_answer"]
"""What becomes of a document in one of several lanes; the last is that its answer before that had to do."""
TrialBecame = Literal["agreed", "differed", "refused", "dropped"]
"""What becomes of a document that two classifiers are to be asked for; `dropped` is not asked of the one beside."""
_MakeCounter = Callable[..., Counter]
_MakeHistogram = Callable[..., Histogram]
RebalanceEvent = Literal["assigned", "revoked"]

_MOST_CLASSES = 50
_MOST_LANGUAGES = 30
_LETTERS_OF_A_LANGUAGE = (2, 3, 4)  # ISO 639, and "none"
_TEXT_BUCKETS = (20, 50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 125_000)
_MOST_PAIRS = 100
_SIDES = ("present", "candidate")
_SHIFT_BUCKETS = (-0.5, -0.2, -0.1, -0.05, -0.01, 0.01, 0.05, 0.1, 0.2, 0.5)
_CALL_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
_WAIT_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 900, 3600)
_JOB_BUCKETS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 900, 3600)
_SCORE_BUCKETS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99, 1)
_SIZE_BUCKETS = (1, 2, 5, 10, 15, 20, 25, 50, 100)
_SHARE_BUCKETS = (0.1, 0.25, 0.5, 0.75, 0.9, 1)
_CHARACTER_BUCKETS = (100, 1_000, 5_000, 10_000, 25_000, 50_000, 100_000, 125_000)
_PART_BUCKETS = (2, 3, 5, 10, 20, 50)
_POLL_BUCKETS = (1, 2, 3, 5, 10, 20, 50)
_WHO = ("account", "provider")
_LAG_BUCKETS = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 5)


@dataclass(frozen=True, slots=True)
class StreamStatistics:
    """A stream as it stands.

    `ends` are the offsets that each partition's next record will get, `joined` is whether the group has told us which
    partitions are ours, be it none. `baseline` are the shares that classes have normally.
    """

    topic: str
    capacity: int
    batches: int
    offsets: OffsetsStatistics
    ends: dict[Partition, int]
    joined: bool = True
    draining: bool = False
    dead_letter_limit_reached: bool = False
    job_notes: int = 0
    answers_kept: int = 0
    bytes_kept: int = 0
    baseline: Mapping[str, float] = field(default_factory=dict)
    awaiting_schema: int = 0


@dataclass(frozen=True, slots=True)
class AccountStatistics:
    """An account as it stands; `silent_for` is how long ago it last said how the job stands that it says least of."""

    account: str
    provider: str
    limits: LimitsStatistics
    jobs: int = 0
    silent_for: float = 0.0


@dataclass(frozen=True, slots=True)
class ReviewStatistics:
    """What became of people's decisions on a stream: how many, by the class that was best, and what they became.

    Those `of_a_day` are of the last 24 hours, and in time.
    """

    topic: str
    became: Mapping[tuple[str, str], int]
    of_a_day: Mapping[tuple[str, str], int]


class _Texts:
    """The metrics of what documents are like, of all streams."""

    def __init__(self, counter: _MakeCounter, histogram: _MakeHistogram) -> None:
        self.characters = histogram(
            "record_characters", "Characters of a document's text, as it is asked for.", _TEXT_BUCKETS, "topic"
        )
        self.languages = counter(
            "record_languages",
            "Documents by the language that their records name (none: they name none); without regions.",
            "topic",
            "language",
        )


class _Trials:
    """The metrics of classifiers on trial, of all streams."""

    def __init__(self, counter: _MakeCounter, histogram: _MakeHistogram) -> None:
        trial = ("topic", "trial")
        self.records = counter(
            "trial_records",
            "Records of a classifier on trial: the best class of both is the same (agreed) or not (differed), one of"
            " them was refused, or the one beside was too slow to be asked (dropped).",
            *trial,
            "became",
        )
        self.differences = counter(
            "trial_differences",
            "Records that differed, by the best class of both; those beyond a hundred pairs are other.",
            *trial,
            "present",
            "candidate",
        )
        self.shift = histogram(
            "trial_score_shift", "How much surer the candidate is of its best class.", _SHIFT_BUCKETS, *trial
        )
        self.seconds = histogram(
            "trial_seconds", "From having a record to ask for to its answer.", _WAIT_BUCKETS, *trial, "classifier"
        )
        self.cost = counter("trial_cost", "What records that were compared cost, by the unit.", *trial, "classifier")


class TrialTelemetry:
    """What comes of a classifier on trial; classes beyond a hundred pairs of a topic are counted as `other`."""

    def __init__(self, telemetry: "Telemetry", topic: str, trial: str) -> None:
        self._names = (topic, trial)
        self._records = {each: telemetry.trials.records.labels(topic, trial, each) for each in get_args(TrialBecame)}
        self._differences = telemetry.trials.differences
        self._pairs: dict[tuple[str, str], Counter] = {}
        self._shift = telemetry.trials.shift.labels(topic, trial)
        self._seconds = [telemetry.trials.seconds.labels(topic, trial, each) for each in _SIDES]
        self._cost = [telemetry.trials.cost.labels(topic, trial, each) for each in _SIDES]

    def became(self, what: "TrialBecame", count: int = 1) -> None:
        """Documents of the share came to this."""
        self._records[what].inc(count)

    def compared(self, found: Compared) -> None:
        """Both classifiers have answered for a document."""
        if (best := found.best) is None:
            self.became("refused")
            return
        self.became("agreed" if best[0] == best[1] else "differed")
        if best[0] != best[1]:
            (self._pairs.get(best) or self._new_pair(best)).inc()
        if (shift := found.shift) is not None:
            self._shift.observe(shift)
        for seconds, took in zip(self._seconds, (found.present_seconds, found.candidate_seconds), strict=True):
            seconds.observe(took)
        for cost, paid in zip(self._cost, (found.present_cost, found.candidate_cost), strict=True):
            cost.inc(paid)

    def _new_pair(self, pair: tuple[str, str]) -> Counter:
        if len(self._pairs) >= _MOST_PAIRS:
            pair = "other", "other"
        return self._pairs.setdefault(pair, self._differences.labels(*self._names, *pair))


class StreamTelemetry:
    """What happens to one stream's records; every method is cheap enough for the hot path."""

    def __init__(self, telemetry: "Telemetry", topic: str) -> None:
        self._topic = topic
        self._consumed = telemetry.records_consumed.labels(topic)
        self._tracing = telemetry.tracing
        self._finished = {
            outcome: telemetry.records_finished.labels(topic, outcome)
            for outcome in ("classified", "dead_letter", "skipped")
        }
        self._dead_letters = {reason: telemetry.dead_letters.labels(topic, reason.value) for reason in Reason}
        self._end_to_end = telemetry.record_end_to_end.labels(topic)
        self._queue_wait = telemetry.queue_wait.labels(topic)
        self._confidence = telemetry.confidence.labels(topic)
        self._characters = telemetry.texts.characters.labels(topic)
        self._languages = telemetry.texts.languages
        self._language: dict[str | None, Counter] = {}
        self._labels = telemetry.labels
        self._label = {"other": telemetry.labels.labels(topic, "other")}
        self._commits = {
            result: telemetry.commits.labels(topic, result) for result in ("committed", "fenced", "failed")
        }
        self._commit_duration = telemetry.commit_duration.labels(topic)
        self._rebalances = {event: telemetry.rebalances.labels(topic, event) for event in ("assigned", "revoked")}
        self._rebalance_duration = telemetry.rebalance_duration.labels(topic)
        self._abandoned = telemetry.records_abandoned.labels(topic)
        self._redacted = telemetry.redacted
        self._cost = telemetry.cost.labels(topic)
        self._spared = {where: telemetry.spared.labels(topic, where) for where in get_args(AnsweredFrom)}
        self._saved = telemetry.saved.labels(topic)
        self._lanes = telemetry.lanes
        self._telemetry = telemetry

    def consumed(self, count: int) -> None:
        """Records were read."""
        self._consumed.inc(count)

    def documents(self, documents: Sequence[Document]) -> None:
        """These documents were found in records."""
        self._characters.observe_all([len(document.text) for document in documents])
        for language, count in Counting([document.language for document in documents]).items():
            (self._language.get(language) or self._new_language(language)).inc(count)

    def redacted(self, counts: Mapping[str, int]) -> None:
        """So many findings of each kind were replaced in a text."""
        for kind, count in counts.items():
            self._redacted.labels(self._topic, kind).inc(count)

    def asked(self, waited: float) -> None:
        """A batch went out; its first document had waited so long since it was read."""
        self._queue_wait.observe(waited)

    def billed(self, cost: float) -> None:
        """Answers cost so much."""
        if cost:
            self._cost.inc(cost)

    def spared(self, where: AnsweredFrom, count: int, saved: float) -> None:
        """Documents were answered without being asked for, which would have cost so much."""
        self._spared[where].inc(count)
        self._saved.inc(saved)

    def trial(self, kind: str) -> TrialTelemetry:
        """The metrics of a classifier that is on trial as a shadow or a canary."""
        return TrialTelemetry(self._telemetry, self._topic, kind)

    def passed(self, lane: str, became: Became, count: int) -> None:
        """Documents were answered in a lane, and this is what became of them."""
        if count:
            self._lanes.labels(self._topic, lane, became).inc(count)

    def abandoned(self, count: int) -> None:
        """Documents were given up unanswered, to be read again by the partition's next owner."""
        self._abandoned.inc(count)

    def finished(self, records: Iterable[Record], outcomes: Iterable[Outcome | None]) -> None:
        """Outcomes were published; records without one are tombstones that are not wanted."""
        now, classified = time.time() * 1000, 0
        written, best = list[int](), list[ClassScore]()
        for record, outcome in zip(records, outcomes, strict=True):
            if outcome is None:
                self._finished["skipped"].inc()
                continue
            written.append(record.timestamp)
            if isinstance(outcome, Refused):
                self._finished["dead_letter"].inc()
                self._dead_letters[outcome.reason].inc()
                continue
            classified += 1
            if outcome.classes:
                best.append(outcome.classes[0])
        self._end_to_end.observe_all([max(0.0, now - at) / 1000 for at in written if at > 0])  # others have no time
        self._confidence.observe_all([score for _, score, _ in best if score is not None])
        self._finished["classified"].inc(classified)
        for name, count in Counting([name for name, _, _ in best]).items():
            (self._label.get(name) or self._new_label(name)).inc(count)

    def published(self, records: Iterable[Record], outcomes: Iterable[Outcome], account: str) -> None:
        """Outcomes by that account were published: those that are traced are examples of how long that takes."""
        if self._tracing is None:
            return
        for record, trace_id in self._tracing.finish(records, outcomes, account):
            if record.timestamp > 0:
                self._end_to_end.exemplify(max(0.0, time.time() - record.timestamp / 1000), trace_id)

    def committed(self, result: Literal["committed", "fenced", "failed"], seconds: float) -> None:
        """A commit ended so, after so long."""
        self._commits[result].inc()
        self._commit_duration.observe(seconds)

    def rebalanced(self, event: RebalanceEvent, seconds: float) -> None:
        """Partitions came or went; what had to be done about it took so long."""
        self._rebalances[event].inc()
        self._rebalance_duration.observe(seconds)

    def _new_language(self, code: str | None) -> Counter:
        if len(self._language) > _MOST_LANGUAGES:
            return self._languages.labels(self._topic, "other")
        name = code.partition("-")[0].lower() if code is not None else "none"
        known = name.isascii() and name.isalpha() and len(name) in _LETTERS_OF_A_LANGUAGE
        return self._language.setdefault(code, self._languages.labels(self._topic, name if known else "other"))

    def _new_label(self, name: str) -> Counter:
        if len(self._label) > _MOST_CLASSES:
            return self._label["other"]
        return self._label.setdefault(name, self._labels.labels(self._topic, name))


class AccountTelemetry:
    """What happens between us and one account."""

    def __init__(self, telemetry: "Telemetry", account: str, provider: str) -> None:
        self._names = (account, provider)
        self.tracing = telemetry.tracing
        self._requests = telemetry.request_duration
        self._request: dict[tuple[str, str], Observed] = {}
        self._errors = telemetry.errors
        self._retries = telemetry.retries
        self._throttled = telemetry.throttled.labels(*self._names)
        self._retry_after = telemetry.retry_after.labels(*self._names)
        self._batch_size = telemetry.batch_size.labels(*self._names)
        self._batch_fill = telemetry.batch_fill.labels(*self._names)
        self._batch_characters = telemetry.batch_characters.labels(*self._names)
        self._units = telemetry.units.labels(*self._names)
        self._job_duration = telemetry.job_duration.labels(*self._names)
        self._job_polls = telemetry.job_polls.labels(*self._names)
        self._resumed = telemetry.resumed.labels(*self._names)
        self._hedges = {outcome: telemetry.hedges.labels(*self._names, outcome) for outcome in ("won", "lost")}
        self._joined = telemetry.joined.labels(*self._names)
        self._processes_died = telemetry.processes_died.labels(*self._names)

    def request(self, operation: str, outcome: str, seconds: float) -> None:
        """One HTTP request ended: `outcome` is a status class such as `2xx`, or `error`."""
        child = self._request.get((operation, outcome))
        if child is None:
            child = self._request[operation, outcome] = self._requests.labels(*self._names, operation, outcome)
        child.observe(seconds)
        if self.tracing is not None and (trace_id := self.tracing.current()) is not None:
            child.exemplify(seconds, trace_id)

    def error(self, operation: str, error_type: ErrorType) -> None:
        """Something failed, and this is its kind."""
        self._errors.labels(*self._names, operation, error_type).inc()

    def retried(self, reason: str, retry_after: float | None) -> None:
        """A batch is to be asked again; `retry_after` is what the account said, in seconds."""
        self._retries.labels(*self._names, reason).inc()
        if reason == "throttled":
            self._throttled.inc()
        if retry_after is not None:
            self._retry_after.observe(retry_after)

    def asked(self, documents: int, characters: int, capacity: int) -> None:
        """A batch of so many documents and characters went out, of at most `capacity` documents."""
        self._batch_size.observe(documents)
        self._batch_fill.observe(documents / capacity)
        self._batch_characters.observe(characters)

    def answered(self, outcomes: Sequence[Outcome]) -> None:
        """A batch was answered."""
        self._units.inc(sum(outcome.units for outcome in outcomes if isinstance(outcome, Classified)))

    def job(self, seconds: float, polls: int) -> None:
        """A job was answered so long after it was submitted, at that many polls."""
        self._job_duration.observe(seconds)
        self._job_polls.observe(polls)

    def joined(self, parts: int) -> None:
        """A document was asked for in so many parts, and their answers were made one."""
        self._joined.observe(parts)

    def process_died(self) -> None:
        """A process that answers from an embedded model was ended from outside."""
        self._processes_died.inc()

    def hedged(self, *, won: bool) -> None:
        """A call was asked a second time, and that was the first to be answered, or was not."""
        self._hedges["won" if won else "lost"].inc()

    def resumed(self, documents: int) -> None:
        """A job of an earlier life has answered for so many documents."""
        self._resumed.inc(documents)


class SharingTelemetry:
    """What happens between an account's gate and Redis."""

    def __init__(self, telemetry: "Telemetry", account: str, provider: str) -> None:
        self._shared = telemetry.limits_shared.labels(account, provider)
        self._duration = telemetry.sharing_duration.labels(account, provider)

    @contextmanager
    def timed(self) -> Iterator[None]:
        """Time a question that is answered."""
        began = time.monotonic()
        yield
        self._duration.observe(time.monotonic() - began)

    def is_shared(self, *, shared: bool) -> None:
        """Limits are shared exactly from now on, or by partitions."""
        self._shared.set(shared)


class RegistryTelemetry:
    """What is asked of the schema registry."""

    def __init__(self, histogram: _MakeHistogram) -> None:
        self._duration = histogram(
            "registry_request_duration_seconds",
            "One HTTP request to the schema registry.",
            _CALL_BUCKETS,
            "operation",
            "outcome",
        )

    def request(self, operation: str, outcome: str, seconds: float) -> None:
        """One HTTP request ended: `outcome` is a status class such as `2xx`, or `error`."""
        self._duration.labels(operation, outcome).observe(seconds)


def _tell_the_process(registry: CollectorRegistry) -> None:
    """What is running, and its CPU, memory and open files by the names that they have everywhere."""
    Info("labelstream_build", "What is running.", registry=registry).info(
        {"version": version("labelstream"), "python": platform.python_version()}
    )
    ProcessCollector(registry=registry)


class Telemetry(Collector):
    """The metrics of one process, in a registry of their own, and what traces, if anything does."""

    def __init__(self, tracing: Tracing | None = None) -> None:
        self.tracing = tracing
        self.registry = registry = CollectorRegistry()
        self._streams: list[Callable[[], StreamStatistics]] = []
        self._accounts: list[Callable[[], AccountStatistics]] = []
        self._reviews: list[Callable[[], ReviewStatistics]] = []

        def counter(name: str, meaning: str, *labels: str) -> Counter:
            return Counter(f"labelstream_{name}", meaning, labels, registry=registry)

        def histogram(name: str, meaning: str, buckets: Sequence[float], *labels: str) -> Histogram:
            return Histogram(f"labelstream_{name}", meaning, labels, buckets=buckets, registry=registry)

        self.records_consumed = counter("records_consumed", "Records read from the input.", "topic")
        self.records_finished = counter(
            "records_finished",
            "Records that came to an end: classified, dead_letter, or skipped (an unwanted tombstone).",
            "topic",
            "outcome",
        )
        self.records_abandoned = counter(
            "records_abandoned", "Records given up unfinished at a rebalance or shutdown; they are read again.", "topic"
        )
        self.redacted = counter(
            "redacted", "What was replaced in texts before they left for a classifier, by kind.", "topic", "kind"
        )
        self.cost = counter(
            "cost", "What answers were billed for by the unit, in the currency of the accounts' prices.", "topic"
        )
        self.spared = counter(
            "records_spared",
            "Records that were not asked for: an identical one was just asked for, or its answer was kept.",
            "topic",
            "answered_from",
        )
        self.saved = counter(
            "cost_saved", "What they would have been billed for by the unit, in the currency of the prices.", "topic"
        )
        self.trials = _Trials(counter, histogram)
        self.lanes = counter(
            "lane_records",
            "Records of a stream with several lanes: finished there, went_on into another, or published with the"
            " first_answer, as nobody there could be asked.",
            "topic",
            "lane",
            "became",
        )
        self.dead_letters = counter("dead_letters", "Records sent to the dead-letter topic.", "topic", "reason")
        self.labels = counter("labels", "Results by their best class.", "topic", "label")
        self.texts = _Texts(counter, histogram)
        self.confidence = histogram("confidence", "Score of the best class.", _SCORE_BUCKETS, "topic")
        self.record_end_to_end = histogram(
            "record_end_to_end_seconds",
            "From the record's timestamp to its published result (clocks of two machines).",
            _WAIT_BUCKETS,
            "topic",
        )
        self.queue_wait = histogram(
            "queue_wait_seconds", "From reading a batch's first document to asking for it.", _WAIT_BUCKETS, "topic"
        )
        self.commits = counter("commits", "Offset commits: committed, fenced (a rebalance), failed.", "topic", "result")
        self.commit_duration = histogram("commit_duration_seconds", "One offset commit.", _CALL_BUCKETS, "topic")
        self.rebalances = counter("rebalances", "Partitions assigned or revoked.", "topic", "event")
        self.rebalance_duration = histogram(
            "rebalance_duration_seconds",
            "Our own part of a rebalance: draining at revocation, restoring at assignment.",
            _CALL_BUCKETS,
            "topic",
        )
        self.produce_duration = histogram(
            "produce_duration_seconds", "From handing a batch's messages over to their acknowledgement.", _CALL_BUCKETS
        )
        self.produced = counter("messages_produced", "Messages acknowledged by the broker.", "topic")
        self.produce_errors = counter("produce_errors", "Messages that the broker did not take.", "error_type")
        self.request_duration = histogram(
            "provider_request_duration_seconds", "One HTTP request.", _CALL_BUCKETS, *_WHO, "operation", "outcome"
        )
        self.errors = counter("provider_errors", "Failures by kind.", *_WHO, "operation", "error_type")
        self.retries = counter("provider_retries", "Batches to be asked again, by reason.", *_WHO, "reason")
        self.throttled = counter("provider_throttled", "Calls refused for being too many.", *_WHO)
        self.retry_after = histogram("provider_retry_after_seconds", "Waits that were demanded.", _JOB_BUCKETS, *_WHO)
        self.batch_size = histogram("batch_size_records", "Documents a call.", _SIZE_BUCKETS, *_WHO)
        self.batch_fill = histogram(
            "batch_fill_ratio", "Documents of a call over the most it may hold.", _SHARE_BUCKETS, *_WHO
        )
        self.batch_characters = histogram("batch_characters", "Characters a call.", _CHARACTER_BUCKETS, *_WHO)
        self.units = counter("provider_text_units", "Billed units (Azure: text records of 1,000 characters).", *_WHO)
        self.job_duration = histogram(
            "job_duration_seconds", "From submitting a job to its answer.", _JOB_BUCKETS, *_WHO
        )
        self.resumed = counter(
            "records_resumed", "Records answered by a job that was submitted before a restart or rebalance.", *_WHO
        )
        self.joined = histogram(
            "record_parts", "Parts of a record that is too long for every account of its stream.", _PART_BUCKETS, *_WHO
        )
        self.hedges = counter(
            "hedges",
            "Calls to the account that were late and asked a second time, by whether that answer was the first (won).",
            *_WHO,
            "outcome",
        )
        self.processes_died = counter(
            "model_processes_died",
            "Times that a process of an embedded model was ended from outside, and all of the account's were replaced.",
            *_WHO,
        )
        self.job_polls = histogram("job_polls", "Polls that a job took.", _POLL_BUCKETS, *_WHO)
        self.limits_shared = Gauge(
            "labelstream_limits_shared",
            "Whether (1 or 0) limits are shared exactly, through Redis, just now; by partitions where they are not.",
            _WHO,
            registry=registry,
        )
        self.sharing_duration = histogram(
            "limits_sharing_seconds", "One question to Redis for a part of what is shared.", _LAG_BUCKETS, *_WHO
        )
        self.registry_asked = RegistryTelemetry(histogram)
        self.loop_lag = histogram("event_loop_lag_seconds", "How late the event loop runs what is due.", _LAG_BUCKETS)
        _tell_the_process(registry)
        registry.register(self)

    def stream(self, topic: str, statistics: Callable[[], StreamStatistics]) -> StreamTelemetry:
        """The metrics of one stream; its gauges are read from `statistics`."""
        self._streams.append(statistics)
        return StreamTelemetry(self, topic)

    def account(self, name: str, provider: str) -> AccountTelemetry:
        """The metrics of one account."""
        return AccountTelemetry(self, name, provider)

    def sharing(self, name: str, provider: str) -> SharingTelemetry:
        """The metrics of how an account's limits are shared."""
        return SharingTelemetry(self, name, provider)

    def watch_account(self, statistics: Callable[[], AccountStatistics]) -> None:
        """Read an account's gauges from `statistics`."""
        self._accounts.append(statistics)

    @contextmanager
    def producing(self, messages: Mapping[str, int]) -> Iterator[None]:
        """Time the publishing of so many messages to each topic, and count how it ends."""
        began = time.monotonic()
        try:
            yield
        except Exception as error:
            self.produce_errors.labels(type(error).__name__).inc()
            raise
        self.produce_duration.observe(time.monotonic() - began)
        for topic, count in messages.items():
            self.produced.labels(topic).inc(count)

    async def watch_event_loop(self, every: float = 0.5) -> None:
        """Measure the event loop's lag until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            due = loop.time() + every
            await asyncio.sleep(every)
            self.loop_lag.observe(max(0.0, loop.time() - due))

    def stream_statistics(self) -> list[StreamStatistics]:
        """Every stream as it stands."""
        return [statistics() for statistics in self._streams]

    def account_statistics(self) -> list[AccountStatistics]:
        """Every account as it stands."""
        return [statistics() for statistics in self._accounts]

    def watch_reviews(self, statistics: Callable[[], ReviewStatistics]) -> None:
        """Have the gauge of a stream's reviews read now and then."""
        self._reviews.append(statistics)

    def collect(self) -> Iterable[Metric]:
        """The gauges, read now."""
        yield from _stream_gauges(self.stream_statistics())
        yield from _account_gauges(self.account_statistics())
        yield from _review_gauges([statistics() for statistics in self._reviews])


def _gauge(name: str, meaning: str, *labels: str) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"labelstream_{name}", meaning, labels=labels)


def _stream_gauges(streams: Sequence[StreamStatistics]) -> Iterator[Metric]:
    inflight = _gauge("records_inflight", "Records read and not finished.", "topic")
    inflight_bytes = _gauge("inflight_bytes", "Bytes of the records read and not finished.", "topic")
    limit = _gauge("inflight_limit", "Records that may be in hand at once.", "topic")
    batches = _gauge("batches_inflight", "Batches waiting for an account or out at one.", "topic")
    age = _gauge("oldest_inflight_age_seconds", "Age of the oldest unfinished record, by its timestamp.", "topic")
    assigned = _gauge("assigned_partitions", "Partitions assigned to this process.", "topic")
    lag = _gauge("consumer_lag_records", "Records behind the partition's end.", "topic", "partition")
    lag_seconds = _gauge(
        "consumer_lag_seconds", "Age of the record at the low-water mark, by its timestamp.", "topic", "partition"
    )
    gap = _gauge("commit_gap_records", "From the committed offset to the low-water mark.", "topic", "partition")
    spread = _gauge(
        "low_water_distance_records", "From the low-water mark to the highest offset read.", "topic", "partition"
    )
    reached = _gauge(
        "dead_letter_limit_reached",
        "Whether (1 or 0) so many documents are refused that they are held back and nothing more is read.",
        "topic",
    )
    kept = _gauge("answers_kept", "Answers that are kept for identical records.", "topic")
    kept_bytes = _gauge("answers_kept_bytes", "Memory that they take at most.", "topic")
    baseline = _gauge(
        "baseline_share", "Share of results that a class has normally, by the stream's `baseline`.", "topic", "label"
    )
    awaiting = _gauge(
        "records_awaiting_schema", "Records that are held until the registry tells the schema that they name.", "topic"
    )
    notes = _gauge("job_notes", "Notes of jobs whose documents are not all committed.", "topic")
    now = time.time() * 1000
    for stream in streams:
        offsets = stream.offsets
        inflight.add_metric([stream.topic], offsets.documents)
        inflight_bytes.add_metric([stream.topic], offsets.bytes)
        limit.add_metric([stream.topic], stream.capacity)
        batches.add_metric([stream.topic], stream.batches)
        notes.add_metric([stream.topic], stream.job_notes)
        awaiting.add_metric([stream.topic], stream.awaiting_schema)
        kept.add_metric([stream.topic], stream.answers_kept)
        kept_bytes.add_metric([stream.topic], stream.bytes_kept)
        reached.add_metric([stream.topic], stream.dead_letter_limit_reached)
        assigned.add_metric([stream.topic], len(stream.ends))
        for label, share in stream.baseline.items():
            baseline.add_metric([stream.topic, label], share)
        oldest = [partition.oldest for partition in offsets.partitions.values() if partition.oldest is not None]
        age.add_metric([stream.topic], max(0.0, now - min(oldest)) / 1000 if oldest else 0.0)
        for partition, progress in offsets.partitions.items():
            names = [partition.topic, str(partition.number)]
            end = stream.ends.get(partition, progress.low_water)
            lag.add_metric(names, max(0, end - progress.low_water))
            late = max(0.0, now - progress.oldest) / 1000 if progress.oldest is not None else 0.0
            lag_seconds.add_metric(names, late)
            gap.add_metric(names, max(0, progress.low_water - progress.committed))
            spread.add_metric(names, max(0, progress.highest + 1 - progress.low_water))
    yield from (inflight, inflight_bytes, limit, batches, awaiting, notes, kept, kept_bytes, reached, age, assigned)
    yield from (lag, lag_seconds, gap, spread, baseline)


def _account_gauges(accounts: Sequence[AccountStatistics]) -> Iterator[Metric]:
    who = ("account", "provider")
    in_flight = _gauge("concurrency_inflight", "Calls out at the account.", *who)
    limit = _gauge("concurrency_limit", "Calls that may be out at the account.", *who)
    waiting = _gauge("calls_waiting", "Batches waiting at the account's gate.", *who)
    jobs = _gauge("jobs_inflight", "Jobs that were submitted and have no answer yet.", *who)
    silent = _gauge(
        "job_poll_age_seconds",
        "Since a job was submitted, or the account last said how it stands: of the job that is silent for the longest.",
        *who,
    )
    held = CounterMetricFamily(
        "labelstream_calls_held_seconds",
        "Seconds for which batches have waited at the account's gate, by what held whoever was next.",
        labels=(*who, "reason"),
    )
    cost = CounterMetricFamily(
        "labelstream_account_cost",
        "What the account billed, by the unit and by the second, in the currency of its prices.",
        labels=who,
    )
    spent = _gauge("account_spent", "What was spent, or is spoken for, in this hour and day (UTC).", *who, "period")
    spend_limit = _gauge("account_spend_limit", "What this worker may spend in an hour and a day.", *who, "period")
    quiet = _gauge("account_quiet_seconds", "Seconds for which the account is still left alone.", *who)
    failures = _gauge("account_failures", "Failures since the account's last answer.", *who)
    circuit = _gauge("circuit_state", "Whether (1 or 0) the account's breaker is in this state.", *who, "state")
    opened = CounterMetricFamily(
        "labelstream_circuit_opened", "How often the account was taken to be unwell, and left alone.", labels=who
    )
    for account in accounts:
        names = [account.account, account.provider]
        in_flight.add_metric(names, account.limits.in_flight)
        limit.add_metric(names, account.limits.in_flight_limit)
        waiting.add_metric(names, account.limits.waiting)
        jobs.add_metric(names, account.jobs)
        silent.add_metric(names, account.silent_for)
        quiet.add_metric(names, account.limits.quiet)
        breaker = account.limits.breaker
        failures.add_metric(names, breaker.failures)
        opened.add_metric(names, breaker.opened)
        for state in State:
            circuit.add_metric([*names, state], state is breaker.state)
        for reason, seconds in account.limits.held.items():
            held.add_metric([*names, reason], seconds)
        money = account.limits.spent
        cost.add_metric(names, money.total)
        for period, amount, most in (
            ("hour", money.hour, account.limits.spend_per_hour),
            ("day", money.day, account.limits.spend_per_day),
        ):
            spent.add_metric([*names, period], amount)
            if most is not None:
                spend_limit.add_metric([*names, period], most)
    yield from (
        in_flight,
        limit,
        waiting,
        jobs,
        silent,
        held,
        cost,
        spent,
        spend_limit,
        quiet,
        failures,
        circuit,
        opened,
    )


def _review_gauges(reviews: Sequence[ReviewStatistics]) -> Iterator[Metric]:
    names = "topic", "label", "became"
    decisions = _gauge(
        "review_decisions",
        "Decisions of people, by the class that was best and what they became; shown by `labelstream reviews watch`.",
        *names,
    )
    of_a_day = _gauge(
        "review_decisions_of_a_day",
        "Those of them that were made in the last 24 hours, and in time, by the class that was best.",
        *names,
    )
    for stream in reviews:
        labels = Counting[str]()
        for (label, _), count in stream.became.items():
            labels[label] += count
        kept = {label for label, _ in sorted(labels.items(), key=lambda each: (-each[1], each[0]))[:_MOST_CLASSES]}
        for gauge, became in (decisions, stream.became), (of_a_day, stream.of_a_day):
            counts = Counting[tuple[str, str]]()
            for (label, what), count in became.items():
                counts[label if label in kept else "other", what] += count
            for (label, what), count in sorted(counts.items()):
                gauge.add_metric([stream.topic, label, what], count)
    yield from (decisions, of_a_day)
