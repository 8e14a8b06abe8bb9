"""The board of whoever is paged: is something wrong, and where."""

from grafana_foundation_sdk.models.dashboard import Dashboard

from tests.ops.boards.drawing import (
    JOB,
    ORANGE,
    POD,
    RATE,
    RED,
    STREAM,
    TOPIC,
    Limit,
    Query,
    Row,
    alerting,
    board,
    heat,
    lines,
    mean,
    on_right_axis,
    per_second,
    quantiles,
    rows_of,
    stacked,
    stat_of,
    states,
)
from tests.ops.prometheus import alerts

BUDGETS = {
    each.name: float(each.expr.partition(" * ")[2].split()[0]) for each in alerts() if each.name.endswith("BudgetBurns")
}
"""What share of the records may miss each objective."""

DELIVERED = f'sum(increase(labelstream_records_finished_total{{{TOPIC}, outcome="dead_letter"}}[30d]))'
FRESH = f'sum(increase(labelstream_record_end_to_end_seconds_bucket{{{TOPIC}, le="60.0"}}[30d]))'
TIMED = f"sum(increase(labelstream_record_end_to_end_seconds_count{{{TOPIC}}}[30d]))"


def draw() -> Dashboard:
    """The board."""
    return board(
        "Overview",
        "Is labelstream well, and if not, where is it stuck? Worst first; lines across panels are where alerts begin. "
        "What to do about each alert is in docs/runbooks.md.",
        [
            Row("Are promises kept?", _promises(), height=4),
            Row("Does work flow?", _flow()),
            Row("Where does the time go?", _time()),
            Row("What is full?", _saturation()),
            Row("Is what is done committed?", _commits()),
            Row("Which partition?", [_partitions()], height=10),
            Row("What runs?", _running(), height=5),
        ],
        by=["topic"],
    )


def _promises() -> list[object]:
    return [
        stat_of(
            "Alerts",
            "Alerts of labelstream that fire. Each has an entry in docs/runbooks.md.",
            "none",
            Query(f'count(ALERTS{{{JOB}, alertname=~"Labelstream.*", alertstate="firing"}}) or vector(0)'),
            limit=Limit(1, RED),
            decimals=0,
        ),
        stat_of(
            "Delivery budget left",
            "Of the dead letters that 30 days may have (one record in a thousand), the share that is not used yet. "
            "Below 0: see Results, dead letters by reason. Alert: LabelstreamDeliveryBudgetBurns.",
            "percentunit",
            Query(
                f"1 - {DELIVERED} / sum(increase(labelstream_records_finished_total{{{TOPIC}}}[30d]))"
                f" / {BUDGETS['LabelstreamDeliveryBudgetBurns']:g}"
            ),
            limit=Limit(0, RED, below=True),
        ),
        stat_of(
            "Freshness budget left",
            "Of the results that 30 days may have later than 60 s (one in a hundred), the share that is not used yet. "
            "Below 0: see the rows below. Alert: LabelstreamFreshnessBudgetBurns.",
            "percentunit",
            Query(f"1 - (1 - {FRESH} / {TIMED}) / {BUDGETS['LabelstreamFreshnessBudgetBurns']:g}"),
            limit=Limit(0, RED, below=True),
        ),
        stat_of(
            "Lag",
            "Age of the oldest record that is not done in any partition. Alert: LabelstreamLagGrows, if it grows "
            "beyond.",
            "s",
            Query(f"max(labelstream_consumer_lag_seconds{{{TOPIC}}})"),
            limit=alerting("LabelstreamLagGrows"),
        ),
        stat_of(
            "Oldest in hand",
            "Age of the oldest record that was read and is not finished. Alert: LabelstreamOldestRecordTooOld.",
            "s",
            Query(f"max(labelstream_oldest_inflight_age_seconds{{{TOPIC}}})"),
            limit=alerting("LabelstreamOldestRecordTooOld"),
        ),
        stat_of(
            "Dead letters",
            "Share of the records of the last half hour that were refused. Alert: LabelstreamDeadLetters.",
            "percentunit",
            Query(
                f"sum(rate(labelstream_dead_letters_total{{{TOPIC}}}[30m]))"
                f" / sum(rate(labelstream_records_finished_total{{{TOPIC}}}[30m]))"
            ),
            limit=alerting("LabelstreamDeadLetters"),
        ),
        stat_of(
            "In and out",
            "Records read and finished in a second. More in than out: the lag grows.",
            "suffix:/s",
            Query(f"sum(rate(labelstream_records_consumed_total{{{TOPIC}}}[{RATE}]))", "in"),
            Query(f"sum(rate(labelstream_records_finished_total{{{TOPIC}}}[{RATE}]))", "out"),
        ),
        stat_of(
            "Workers, partitions",
            "Workers that are scraped, and partitions that they have. Fewer than the topic has: some are read by "
            "nobody.",
            "none",
            Query(f"count(labelstream_build_info{{{POD}}})", "workers"),
            Query(f"sum(labelstream_assigned_partitions{{{TOPIC}}})", "partitions"),
            decimals=0,
        ),
    ]


def _flow() -> list[object]:
    lag = lines(
        "How far behind",
        "Behind the end of the topic, in records and by the age of the oldest. Records grow with any burst; "
        "alert LabelstreamLagGrows goes by age.",
        "short",
        Query(f"sum by (topic) (labelstream_consumer_lag_records{{{TOPIC}}})", "{{topic}} records"),
        Query(f"max by (topic) (labelstream_consumer_lag_seconds{{{TOPIC}}})", "{{topic}} age"),
    )
    return [
        stacked(
            "Records finished, by outcome",
            "classified: a result was published. skipped: a tombstone that is not wanted. dead_letter: refused, see "
            "Results. "
            "None while records wait: alert LabelstreamStalled.",
            "suffix:/s",
            per_second("labelstream_records_finished_total", TOPIC, "outcome"),
        ),
        lines(
            "Records read, given up, resumed",
            "Given up: unfinished at a rebalance or stop, to be read again by the next owner. Resumed: answered by a "
            "job of an "
            "earlier life, at no cost.",
            "suffix:/s",
            Query(f"sum(rate(labelstream_records_consumed_total{{{TOPIC}}}[{RATE}]))", "read"),
            Query(f"sum(rate(labelstream_records_abandoned_total{{{TOPIC}}}[{RATE}]))", "given up"),
            Query(f"sum(rate(labelstream_records_resumed_total{{{POD}}}[{RATE}]))", "resumed"),
        ),
        on_right_axis(lag, "/ age$/", "s"),
        states(
            "Held by refusals",
            "Whether so many documents are refused that the stream holds them and reads nothing. "
            "Alert: LabelstreamDeadLetterLimitReached.",
            Query(f"max by (topic) (labelstream_dead_letter_limit_reached{{{TOPIC}}})", "{{topic}}"),
            {"0": ("reading", "green"), "1": ("held", "red")},
        ),
    ]


def _time() -> list[object]:
    return [
        lines(
            "From record to result",
            "From the record's own timestamp to its published result: what people wait. The objective is 60 s.",
            "s",
            *quantiles("labelstream_record_end_to_end_seconds", TOPIC, 0.5, 0.95, 0.99),
        ),
        heat(
            "From record to result, spread",
            "The same, as how many records took how long. Two bands: two kinds of records, or two accounts.",
            "s",
            f"sum by (le) (increase(labelstream_record_end_to_end_seconds_bucket{{{TOPIC}}}[{RATE}]))",
        ),
        stacked(
            "Where a document's time goes, on average",
            "Waiting in our queue for company, quota or a place; one request at the classifier (jobs take several, see "
            "Providers); being published. Mostly queue: see why calls are held, on Providers.",
            "s",
            mean("labelstream_queue_wait_seconds", TOPIC, "waiting in our queue"),
            mean("labelstream_provider_request_duration_seconds", POD, "one request"),
            mean("labelstream_produce_duration_seconds", POD, "being published"),
        ),
    ]


def _saturation() -> list[object]:
    memory = lines(
        "CPU and memory",
        "Cores and resident memory, the most of any pod. One core used up: add workers, as one worker uses one.",
        "short",
        Query(f"max(rate(process_cpu_seconds_total{{{POD}}}[{RATE}]))", "cores"),
        Query(f"max(process_resident_memory_bytes{{{POD}}})", "memory"),
    )
    return [
        lines(
            "In hand, of what may be",
            "Records read and not finished, over `capacity.documents`. At 100 % nothing more is read: the classifier "
            "is the "
            "bottleneck.",
            "percentunit",
            Query(
                f"max by (topic) (labelstream_records_inflight{{{TOPIC}}} / labelstream_inflight_limit{{{TOPIC}}})",
                "{{topic}}",
            ),
            limit=Limit(1, ORANGE),
        ),
        lines(
            "Bytes in hand",
            "Bytes of the records in hand, the most of any pod, to be compared with `capacity.bytes`.",
            "bytes",
            Query(f"max by (topic) (labelstream_inflight_bytes{{{TOPIC}}})", "{{topic}}"),
        ),
        lines(
            "Batches and jobs in hand",
            "Batches waiting for an account or out at one, notes of jobs that are not all committed, and records that "
            "wait for their schemas. Alert: LabelstreamRegistryAway.",
            "short",
            Query(f"sum by (topic) (labelstream_batches_inflight{{{TOPIC}}})", "{{topic}} batches"),
            Query(f"sum by (topic) (labelstream_job_notes{{{TOPIC}}})", "{{topic}} jobs"),
            Query(f"sum by (topic) (labelstream_records_awaiting_schema{{{TOPIC}}} > 0)", "{{topic}} without a schema"),
        ),
        lines(
            "Event loop, how late",
            "Too little CPU, or something blocks. Alert: LabelstreamEventLoopLate.",
            "s",
            *quantiles("labelstream_event_loop_lag_seconds", POD, 0.5, 0.99),
            limit=alerting("LabelstreamEventLoopLate"),
        ),
        on_right_axis(memory, "/memory/", "bytes"),
    ]


def _commits() -> list[object]:
    return [
        lines(
            "Done and not committed",
            "Records below the low-water mark that would be read again after a crash. Alert: "
            "LabelstreamCommitGapGrows.",
            "short",
            Query(f"max by (topic) (labelstream_commit_gap_records{{{TOPIC}}})", "{{topic}}"),
            limit=alerting("LabelstreamCommitGapGrows"),
        ),
        stacked(
            "Commits, by result",
            "fenced: a partition had gone to somebody else, as in a rebalance. failed: the broker did not take it.",
            "suffix:/s",
            per_second("labelstream_commits_total", TOPIC, "result"),
        ),
        lines(
            "How long a commit and a rebalance take",
            "99th percentile. A slow commit is a slow broker; a slow rebalance is a long drain.",
            "s",
            *(
                Query(query.expr, legend)
                for metric, legend in (("commit", "commit"), ("rebalance", "rebalance"))
                for query in quantiles(f"labelstream_{metric}_duration_seconds", TOPIC, 0.99)
            ),
        ),
        lines(
            "Partitions given up",
            "How often in 15 minutes a worker had to give up partitions, the most of any. Alert: "
            "LabelstreamRebalanceStorm.",
            "short",
            Query(
                f'max by (topic) (increase(labelstream_rebalances_total{{{TOPIC}, event="revoked"}}[15m]))', "{{topic}}"
            ),
            limit=alerting("LabelstreamRebalanceStorm"),
        ),
    ]


def _partitions() -> object:
    def by_partition(metric: str) -> str:
        return f"max by (topic, partition) (labelstream_{metric}{{{TOPIC}}})"

    none = Limit(0, "text")
    return rows_of(
        "Partitions",
        "One far behind the others: its key is hot, or a document in it does not get done (a large distance).",
        {
            "Age of the oldest": (by_partition("consumer_lag_seconds"), "s", alerting("LabelstreamLagGrows")),
            "Lag": (by_partition("consumer_lag_records"), "short", none),
            "Not committed": (by_partition("commit_gap_records"), "short", alerting("LabelstreamCommitGapGrows")),
            "Distance": (by_partition("low_water_distance_records"), "short", none),
        },
        sort="Age of the oldest",
    )


def _running() -> list[object]:
    return [
        lines(
            "Workers, by version",
            "Two versions for long: a deploy is stuck. None: alert LabelstreamGone.",
            "none",
            Query(f"count by (version, python) (labelstream_build_info{{{POD}}})", "{{version}} on Python {{python}}"),
        ),
        lines(
            "Processes started anew",
            "With `run --workers`: how often in 15 minutes a worker's process was killed and started again; mostly "
            "for memory.",
            "none",
            Query(f"sum(increase(labelstream_worker_restarts_total{{{POD}}}[15m])) or vector(0)", "started anew"),
            Query(f"sum(labelstream_worker_up{{{POD}}}) or vector(0)", "of these up"),
        ),
        lines(
            "Open files, of what may be",
            "At 100 % no connection can be opened.",
            "percentunit",
            Query(f"max(process_open_fds{{{POD}}} / process_max_fds{{{POD}}})", "open"),
        ),
        lines(
            "Budget used, times as fast as it may",
            "Burn rates of the last hour and the last three days: 1 uses a month's budget in a month. "
            "Alerts begin at 14.4 (an hour), 6 (six hours), 3 (a day) and 1 (three days).",
            "none",
            *(
                Query(
                    f"max(namespace_job_topic:labelstream_{kind.lower()}_errors:ratio_rate{window}{{{STREAM}}})"
                    f" / {BUDGETS[f'Labelstream{kind}BudgetBurns']:g}",
                    f"{kind.lower()}, {window}",
                )
                for kind in ("Delivery", "Freshness")
                for window in ("1h", "3d")
            ),
            limit=alerting_factor(),
        ),
    ]


def alerting_factor() -> Limit:
    """Where the fastest burn wakes somebody."""
    limit = alerting("LabelstreamDeliveryBudgetBurns", "1h")
    return limit._replace(at=round(limit.at / BUDGETS["LabelstreamDeliveryBudgetBurns"], 6))
