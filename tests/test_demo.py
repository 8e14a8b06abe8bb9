"""`labelstream demo`: the whole service, with every document accounted for."""

import signal
import sys
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import orjson
import pytest

from tests.commands import NOWHERE, ROOT, labelstream, rows, started, write_lines

BANKING77 = ROOT.parent / "shared" / "data" / "banking77.jsonl"
KEYS = {
    "documents",
    "classified",
    "refused",
    "dead_letters",
    "results",
    "duplicates",
    "lost",
    "committed",
    "accuracy",
    "throughput_docs_per_s",
    "latency_ms",
    "seconds",
    "broker",
    "classes",
    "copies",
}

pytestmark = pytest.mark.timeout(300)

Demos = dict[str, Future[CompletedProcess[str]]]


@pytest.fixture(scope="module")
def demos(tmp_path_factory: pytest.TempPathFactory) -> Demos:
    """Demonstrations side by side, as the broker keeps each waiting for seconds; the tests wait for theirs."""
    folder = tmp_path_factory.mktemp("demos")
    split = [{**row, "split": ("train", "dev", "test")[n % 3]} for n, row in enumerate(rows(30))]
    wanted = {
        "banking77": ("--data", BANKING77),  # first, as it takes longest
        "tickets": (),
        "moderation": ("--scenario", "moderation", "--documents", 300),
        "split": ("--data", write_lines(folder / "split.jsonl", split), "--documents", 45),
        "whole": ("--data", write_lines(folder / "whole.jsonl", rows(30))),
    }
    production = {"LABELSTREAM_KAFKA__BOOTSTRAP_SERVERS": NOWHERE, "LABELSTREAM_ACCOUNTS__AZURE__KEY": "k"}
    # The environment of a shell that is set up for production is not the demonstration's.
    with ThreadPoolExecutor(3) as pool:
        return {
            name: pool.submit(labelstream, "demo", "--json", *options, cwd=folder, patience=280, **production)
            for name, options in wanted.items()
        }


def told(demos: Demos, name: str) -> dict[str, Any]:
    """What a demonstration reports, where all that goes for each of them is so."""
    run = demos[name].result()
    assert run.returncode == 0, run.stderr
    (line,) = run.stdout.splitlines()
    report: dict[str, Any] = orjson.loads(line)
    assert report.keys() == KEYS
    assert (report["lost"], report["duplicates"]) == (0, 0)
    assert report["committed"] == report["documents"] == report["results"] + report["dead_letters"]
    assert (report["classified"], report["refused"]) == (report["results"], report["dead_letters"])
    assert report["latency_ms"].keys() == {"p50", "p99"}
    assert 0 < report["latency_ms"]["p50"] <= report["latency_ms"]["p99"]
    assert min(report["throughput_docs_per_s"], report["seconds"]) > 0
    assert report["broker"] == "in-process mock (librdkafka)"
    assert f"classifying {report['documents']:,} documents" in run.stderr
    return report


def test_sample_tickets_are_streamed_and_accounted_for(demos: Demos) -> None:
    report = told(demos, "tickets")
    assert (report["documents"], report["refused"]) == (2000, 0)
    assert len(report["classes"]) == 8
    assert sum(report["classes"].values()) == 2000
    assert set(report["copies"]) == {"tickets.billing", "tickets.security", "tickets.review"}
    assert report["accuracy"] >= 0.8


def test_sample_posts_may_have_any_number_of_labels(demos: Demos) -> None:
    report = told(demos, "moderation")
    assert report["documents"] == 300
    assert report["classes"].keys() == {"harassment", "hate", "self_harm", "sexual", "spam", "threat"}
    assert sum(report["classes"].values()) != 300
    assert set(report["copies"]) == {"posts.care", "posts.held", "posts.hidden"}
    assert report["accuracy"] >= 0.75


def test_the_test_rows_of_data_that_names_splits_are_streamed_and_repeated_as_often_as_asked(demos: Demos) -> None:
    report = told(demos, "split")
    assert report["documents"] == 45
    assert (report["accuracy"], report["copies"]) == (1.0, {})
    assert sorted(report["classes"].values()) == [22, 23]  # 20 rows, in turn, and again, and a quarter


def test_a_fifth_of_data_that_names_no_split_is_streamed(demos: Demos) -> None:
    report = told(demos, "whole")
    assert (report["documents"], report["accuracy"]) == (12, 1.0)
    assert report["classes"] == {"delivery": 6, "access": 6}


@pytest.mark.skipif(not BANKING77.is_file(), reason=f"the public data set is not there ({BANKING77})")
def test_a_public_data_set_is_classified_as_well_as_its_model_can(demos: Demos) -> None:
    report = told(demos, "banking77")
    assert (report["documents"], report["classified"]) == (3080, 3080)
    assert report["accuracy"] >= 0.90
    assert len(report["classes"]) == 77


@pytest.mark.skipif(sys.platform != "linux", reason="its server is looked up in /proc")
def test_an_interruption_ends_it_at_once_and_all_it_has_started(tmp_path: Path) -> None:
    with started(tmp_path, "demo", "--json") as demo:
        demo.wait_until(lambda: "joining the consumer group" in demo.said())
        server = Path(f"/proc/{demo.process.pid}/task/{demo.process.pid}/children").read_text().split()
        assert len(server) == 1
        assert demo.ended_by(signal.SIGTERM) == 130
        assert demo.line() == ""
        assert "Traceback" not in demo.said()
        assert not Path(f"/proc/{server[0]}").exists()


def test_a_broker_that_is_not_there_is_said_by_its_option() -> None:
    run = labelstream("demo", "--json", "--bootstrap", NOWHERE)
    assert (run.returncode, run.stdout) == (1, "")
    assert f"--bootstrap {NOWHERE}: no Kafka broker can be used there" in run.stderr.splitlines()[-1]


def test_a_wrong_row_is_named_by_file_and_line(tmp_path: Path) -> None:
    (tmp_path / "mine.jsonl").write_text('{"text": "a parcel", "label": "delivery"}\n{"text": "a parcel"}\n')
    run = labelstream("demo", "--json", "--data", "mine.jsonl", cwd=tmp_path)
    assert (run.returncode, run.stdout) == (2, "")
    assert "mine.jsonl, line 2: " in run.stderr
