"""The board of the accounts: do they answer, why do calls wait, what does it cost."""

from grafana_foundation_sdk.models.dashboard import Dashboard

from tests.ops.boards.drawing import (
    ACCOUNT,
    POD,
    RATE,
    Query,
    Row,
    alerting,
    board,
    heat,
    lines,
    mean,
    per_second,
    quantiles,
    stacked,
    states,
)

REQUESTS = "labelstream_provider_request_duration_seconds"


def draw() -> Dashboard:
    """The board."""
    return board(
        "Providers",
        "What each account is asked and answers. One set of rows for each account, and one for `labelstream serve`.",
        [
            Row("Does $account answer?", _answers(), each="account"),
            Row("Why do calls to $account wait?", _waiting(), each="account"),
            Row("Are calls to $account full, and how long are jobs?", _batches(), each="account"),
            Row("What does $account cost?", _cost(), each="account"),
            Row("How is labelstream serve?", _served()),
        ],
        by=["account"],
    )


def _answers() -> list[object]:
    return [
        states(
            "Breaker",
            "An account whose calls fail is left alone, but for a call on trial from time to time; the first that is "
            "answered "
            "brings the others back. Ten minutes without: alert LabelstreamAccountAway.",
            Query(
                f'max by (account) (2 * labelstream_circuit_state{{{ACCOUNT}, state="open"}}'
                f' or labelstream_circuit_state{{{ACCOUNT}, state="half_open"}})',
                "{{account}}",
            ),
            {"0": ("closed: asked", "green"), "1": ("half open: on trial", "orange"), "2": ("open: left alone", "red")},
        ),
        stacked(
            "Requests, by outcome",
            "HTTP requests, polls included. 4xx: refused or throttled, see errors by kind. 5xx: the service is unwell. "
            "error: no answer came.",
            "suffix:/s",
            per_second(f"{REQUESTS}_count", ACCOUNT, "outcome"),
        ),
        stacked(
            "Failures, by kind",
            "timeout, connect, tls: the way there. auth: a wrong key (alert LabelstreamCredentialsRefused). "
            "throttled: the "
            "quota. document_error: single documents were refused.",
            "suffix:/s",
            Query(
                f"sum by (error_type) (rate(labelstream_provider_errors_total{{{ACCOUNT}}}[{RATE}]))", "{{error_type}}"
            ),
            Query(f"sum(rate(labelstream_circuit_opened_total{{{ACCOUNT}}}[{RATE}]))", "taken to be unwell"),
            Query(f"max(labelstream_account_failures{{{ACCOUNT}}})", "in a row"),
        ),
        lines(
            "How long a request takes",
            "One HTTP request, not a whole job.",
            "s",
            *quantiles(REQUESTS, ACCOUNT, 0.5, 0.95, 0.99),
        ),
        heat(
            "Requests, spread",
            "The same, as how many took how long.",
            "s",
            f"sum by (le) (increase({REQUESTS}_bucket{{{ACCOUNT}}}[{RATE}]))",
        ),
    ]


def _waiting() -> list[object]:
    return [
        stacked(
            "What calls are held by",
            "Seconds a second for which somebody waited at the gate, by what held whoever was next. in_flight: raise "
            "limits.in_flight. requests, documents, characters: the quota. quiet: Retry-After. breaker: it fails. "
            "budget: the "
            "money.",
            "suffix: s/s",
            per_second("labelstream_calls_held_seconds_total", ACCOUNT, "reason"),
        ),
        lines(
            "Calls out, of what may be",
            "The adaptive limit follows what the service works at. At its floor while others wait: alert "
            "LabelstreamInFlightAtFloor.",
            "none",
            Query(f"sum(labelstream_concurrency_inflight{{{ACCOUNT}}})", "out"),
            Query(f"sum(labelstream_calls_waiting{{{ACCOUNT}}})", "waiting"),
            Query(f"max(labelstream_concurrency_limit{{{ACCOUNT}}})", "limit of a worker"),
            limit=alerting("LabelstreamInFlightAtFloor"),
        ),
        lines(
            "Refused as too many",
            "Share of all requests. Alert: LabelstreamThrottled.",
            "percentunit",
            Query(
                f"sum(rate(labelstream_provider_throttled_total{{{ACCOUNT}}}[{RATE}]))"
                f" / sum(rate({REQUESTS}_count{{{ACCOUNT}}}[{RATE}]))",
                "refused",
            ),
            limit=alerting("LabelstreamThrottled"),
        ),
        lines(
            "Asked again, by reason",
            "Batches that have to be asked again. They are not lost, and what was answered of them is not asked again.",
            "suffix:/s",
            per_second("labelstream_provider_retries_total", ACCOUNT, "reason"),
        ),
        lines(
            "Processes that died",
            "Processes of an embedded model (`processes`) that were ended from outside; all are replaced, and their "
            "batches asked again. Usually memory: each has a copy of the model.",
            "suffix:/s",
            Query(f"sum(rate(labelstream_model_processes_died_total{{{ACCOUNT}}}[{RATE}]))", "died"),
        ),
        lines(
            "Asked a second time",
            "Calls that were late, by whether the second answer was the first to come (won). Many lost: `limits.hedge` "
            "begins too early.",
            "suffix:/s",
            per_second("labelstream_hedges_total", ACCOUNT, "outcome"),
        ),
        lines(
            "Shared through Redis",
            "Replicas whose limits are shared exactly, and how long Redis takes for a slice of them. Fewer than there "
            "are: Redis is away, and they go by their partitions.",
            "none",
            Query(f"sum(labelstream_limits_shared{{{ACCOUNT}}})", "replicas"),
            mean("labelstream_limits_sharing_seconds", ACCOUNT, "seconds of a slice"),
        ),
        lines(
            "Waits demanded, and left alone",
            "Retry-After of refusals, 95th percentile, and for how long the account is still left alone: for that, "
            "for its "
            "breaker, or until there is money again.",
            "s",
            *quantiles("labelstream_provider_retry_after_seconds", ACCOUNT, 0.95),
            Query(f"max(labelstream_account_quiet_seconds{{{ACCOUNT}}})", "left alone"),
        ),
    ]


def _batches() -> list[object]:
    return [
        lines(
            "How full calls are",
            "Documents of a call over the most it may hold. Low with much input: `batch.wait` is short.",
            "percentunit",
            mean("labelstream_batch_fill_ratio", ACCOUNT, "filled"),
        ),
        lines(
            "Documents a call",
            "Mean and 95th percentile.",
            "none",
            mean("labelstream_batch_size_records", ACCOUNT, "mean"),
            *quantiles("labelstream_batch_size_records", ACCOUNT, 0.95),
        ),
        lines(
            "Characters a call",
            "Mean and 95th percentile; what is billed and throttled by.",
            "short",
            mean("labelstream_batch_characters", ACCOUNT, "mean"),
            *quantiles("labelstream_batch_characters", ACCOUNT, 0.95),
        ),
        lines(
            "Parts a document",
            "Documents that are longer than a call may be are asked for in parts, if the stream is set to do so; "
            "this is how "
            "many such a document has.",
            "none",
            mean("labelstream_record_parts", ACCOUNT, "mean"),
            *quantiles("labelstream_record_parts", ACCOUNT, 0.95),
        ),
        lines(
            "How long a job takes",
            "From submitting to its answer. No jobs: the account answers at once.",
            "s",
            *quantiles("labelstream_job_duration_seconds", ACCOUNT, 0.5, 0.95),
        ),
        lines(
            "Jobs that are out",
            "Submitted, and without an answer yet.",
            "none",
            Query(f"sum(labelstream_jobs_inflight{{{ACCOUNT}}})", "jobs"),
        ),
        lines(
            "Silence about a job",
            "Since the account last said how the job stands that it says least of; a job that takes long is asked "
            "after seldom. Longer than two jobs take, and than a quarter of an hour: alert LabelstreamJobsSilent.",
            "s",
            Query(f"max(labelstream_job_poll_age_seconds{{{ACCOUNT}}})", "silent for"),
        ),
        lines(
            "Polls a job",
            "Near 1: polls come at the right time. Each counts against the quota.",
            "none",
            mean("labelstream_job_polls", ACCOUNT, "polls"),
        ),
    ]


def _cost() -> list[object]:
    return [
        lines(
            "Cost an hour",
            "Estimated, from the account's `price`, in its currency; what is billed by the second counts from the "
            "start on.",
            "none",
            Query(f"sum(rate(labelstream_account_cost_total{{{ACCOUNT}}}[{RATE}])) * 3600", "an hour"),
        ),
        lines(
            "Spent, of what may be",
            "Of this hour and day (UTC), spoken for included. Alert: LabelstreamSpendNearsLimit. At 100 % documents "
            "are held, or "
            "the worker ends, as `when_spent` says.",
            "percentunit",
            Query(
                f"sum by (period) (labelstream_account_spent{{{ACCOUNT}}})"
                f" / sum by (period) (labelstream_account_spend_limit{{{ACCOUNT}}})",
                "{{period}}",
            ),
            limit=alerting("LabelstreamSpendNearsLimit"),
        ),
        lines(
            "Units billed",
            "Text records, pages or hundreds of characters, as the service counts.",
            "suffix:/s",
            Query(f"sum(rate(labelstream_provider_text_units_total{{{ACCOUNT}}}[{RATE}]))", "units"),
        ),
        lines(
            "Cost of a thousand units",
            "Estimated. Goes up while an endpoint that is paid by the second has little to do.",
            "none",
            Query(
                f"1000 * sum(rate(labelstream_account_cost_total{{{ACCOUNT}}}[{RATE}]))"
                f" / sum(rate(labelstream_provider_text_units_total{{{ACCOUNT}}}[{RATE}]))",
                "a thousand units",
            ),
        ),
    ]


def _served() -> list[object]:
    return [
        stacked(
            "Requests served, by status",
            "What the compatible server answers, and what of it was a fault on purpose.",
            "suffix:/s",
            per_second("labelstream_server_requests_total", POD, "status"),
            Query(f"sum(rate(labelstream_server_faults_total{{{POD}}}[{RATE}]))", "faults on purpose"),
        ),
        lines(
            "How long an answer takes",
            "99th percentile of what clients wait for the server, by API.",
            "s",
            *quantiles("labelstream_server_request_seconds", POD, 0.99, by="api"),
        ),
        lines(
            "Jobs accepted",
            "Waiting and running now, and how fast they end. Waiting jobs that grow: the server has too little CPU.",
            "short",
            Query(f"sum by (state) (labelstream_server_jobs{{{POD}}})", "{{state}}"),
            Query(f"sum by (state) (rate(labelstream_server_jobs_ended_total{{{POD}}}[{RATE}]))", "{{state}} a second"),
        ),
        lines(
            "How long jobs take",
            "From acceptance to their end.",
            "s",
            *quantiles("labelstream_server_job_seconds", POD, 0.5, 0.95),
        ),
        stacked(
            "Documents, by project",
            "Documents classified; a category, classifier or endpoint counts as a project.",
            "suffix:/s",
            per_second("labelstream_server_documents_classified_total", POD, "project"),
        ),
    ]
