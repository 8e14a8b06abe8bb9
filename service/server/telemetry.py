"""Every metric of the server, each with its meaning, in a registry of its own."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest


class Telemetry:
    """What the server counts; `page()` is what /metrics answers."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "labelstream_server_requests",
            "Requests answered, by API, operation and HTTP status.",
            ["api", "operation", "status"],
            registry=self.registry,
        )
        self.request_seconds = Histogram(
            "labelstream_server_request_seconds",
            "Seconds from a request's arrival to its answer.",
            ["api", "operation"],
            registry=self.registry,
            buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
        )
        self.jobs = Gauge(
            "labelstream_server_jobs",
            "Jobs accepted and not ended, by state (waiting, running).",
            ["state"],
            registry=self.registry,
        )
        self.jobs_ended = Counter(
            "labelstream_server_jobs_ended",
            "Jobs ended, by state (succeeded, partial, failed, cancelled).",
            ["state"],
            registry=self.registry,
        )
        self.job_seconds = Histogram(
            "labelstream_server_job_seconds",
            "Seconds from a job's acceptance to its end.",
            registry=self.registry,
            buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60),
        )
        self.documents = Counter(
            "labelstream_server_documents_classified",
            "Documents classified, by project (or category, classifier, endpoint).",
            ["project"],
            registry=self.registry,
        )
        self.faults = Counter(
            "labelstream_server_faults",
            "Requests answered according to a fault rule, by API and operation.",
            ["api", "operation"],
            registry=self.registry,
        )

    def page(self) -> bytes:
        """All metrics in Prometheus' text format."""
        return generate_latest(self.registry)
