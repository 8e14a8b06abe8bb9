"""`labelstream bench`: the shape of what it reports, and its parts; what it measures is for a machine at rest."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest

from service.bench import load
from service.bench.endpoint import endpoint
from service.process import received, spawned
from tests.commands import PATIENCE, end, environment

KEYS = {
    "broker",
    "endpoint_ms",
    "in_flight",
    "batch",
    "ideal_docs_per_s",
    "docs_per_s",
    "share_of_ideal",
    "cpu_us_per_document",
    "bare_loop_cpu_us_per_document",
    "added_latency_ms",
    "peak_memory_mb",
    "figures",
}


def children(process: int) -> list[str]:
    return Path(f"/proc/{process}/task/{process}/children").read_text().split()


SHORTLY = """
from service import cli
from service.bench import measuring
measuring.WARM_UP, measuring.MEASURED = 0.3, 0.7
cli.main()
"""


def reported(*arguments: str) -> tuple[dict[str, Any], list[str]]:
    """What the command says when it measures for a moment only, and what it says meanwhile."""
    run = subprocess.run(
        [sys.executable, "-c", SHORTLY, "bench", *arguments, "--json"],
        env=environment(LABELSTREAM_KAFKA__BOOTSTRAP_SERVERS="127.0.0.1:1"),
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    (line,) = run.stdout.splitlines()
    return orjson.loads(line), run.stderr.splitlines()


def test_it_reports_every_figure_beside_its_goal() -> None:
    report, said = reported()
    assert report.keys() == KEYS
    set_up = ("endpoint_ms", "in_flight", "batch", "ideal_docs_per_s")
    assert [report[name] for name in set_up] == [100, 32, 25, 8000]
    measured = ("docs_per_s", "cpu_us_per_document", "bare_loop_cpu_us_per_document", "peak_memory_mb")
    assert min(report[name] for name in measured) > 0
    rounded = 0.0001 / 2 + 0.1 / 2 / 8000  # both are, each from what was measured
    assert report["share_of_ideal"] == pytest.approx(report["docs_per_s"] / 8000, rel=0, abs=1.01 * rounded)
    assert report["added_latency_ms"].keys() == {"p50", "p99"}
    assert [figure.keys() for figure in report["figures"]] == [{"name", "measured", "unit", "goal", "met"}] * 3
    assert said[-1].startswith("half load")


def test_it_reports_what_a_worker_does_at_most_beside_a_bare_loop() -> None:
    report, _ = reported("ceiling")
    assert [figure["goal"] for figure in report["figures"]] == ["≥ 30,000", "≤ 40", "", ""]
    assert [figure["met"] is None for figure in report["figures"]] == [False, False, True, True]
    assert all(figure["measured"] > 0 for figure in report["figures"])


def test_it_reports_what_a_worker_holds_that_nobody_answers() -> None:
    report, _ = reported("memory")
    peak, held = report["figures"]
    assert peak["goal"] == "≤ 214"
    assert 0 < held["measured"] < peak["measured"]


def test_a_goal_is_met_or_missed_by_its_figure() -> None:
    def met(share: float, cpu: float, late: float) -> list[bool | None]:
        measured = load.Report(
            broker="",
            endpoint_ms=100,
            in_flight=32,
            batch=25,
            ideal_docs_per_s=8000,
            docs_per_s=8000 * share,
            share_of_ideal=share,
            cpu_us_per_document=cpu,
            bare_loop_cpu_us_per_document=cpu,
            added_latency_ms={"p50": 1, "p99": late},
            peak_memory_mb=100,
        )
        return [figure.met for figure in measured.figures()]

    assert met(0.98, 40, 15) == [True] * 3
    assert met(0.97, 41, 16) == [False] * 3


def test_the_endpoint_answers_each_document_after_its_constant_time() -> None:
    with spawned(endpoint, 0.1) as answering, httpx.Client(base_url=received(answering)) as client:
        began = time.monotonic()
        documents = [{"id": str(n), "text": "a ticket"} for n in range(25)]
        submitted = client.post("/language/analyze-text/jobs", json={"analysisInput": {"documents": documents}})
        assert submitted.status_code == 202
        while (job := client.get(submitted.headers["operation-location"]).json())["status"] == "running":
            time.sleep(0.01)
        assert time.monotonic() - began >= 0.1
        (task,) = job["tasks"]["items"]
        assert [each["id"] for each in task["results"]["documents"]] == [each["id"] for each in documents]


@pytest.mark.skipif(sys.platform != "linux", reason="its processes are looked up in /proc")
def test_an_interruption_ends_all_of_it_without_a_word(tmp_path: Path) -> None:
    with (
        (tmp_path / "stderr").open("wb") as log,
        subprocess.Popen(
            [sys.executable, "-m", "service", "bench"], env=environment(), stderr=log, start_new_session=True
        ) as run,
    ):
        try:
            deadline = time.monotonic() + PATIENCE
            while len(children(run.pid)) < 4 and time.monotonic() < deadline:
                time.sleep(0.02)
            time.sleep(0.5)  # endpoint, feed and worker are about to begin: any moment will do
            os.killpg(run.pid, signal.SIGINT)  # as a terminal does
            assert run.wait(PATIENCE) == 130
        finally:
            end(run)
    assert b"Traceback" not in (tmp_path / "stderr").read_bytes()
