"""`labelstream run` as it is run: a process of its own, with a configuration file, stopped and killed by signals."""

import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import orjson
import yaml

from service.model.examples import Example
from service.model.train import train

ROOT = Path(__file__).parents[2]
PATIENCE = 60.0


def small_model(folder: Path, *, parcels: str = "delivery") -> Path:
    """A model of two classes that tells parcels, by this name, from passwords."""
    texts = {parcels: "the parcel number {} has not arrived", "access": "my password {} is not accepted"}
    rows = [
        Example(f"{label} {number}", text.format(number), (label,))
        for label, text in texts.items()
        for number in range(10)
    ]
    train(rows, task="single_label", name="small").save(folder)
    return folder


def configuration(folder: Path, tree: Mapping[str, Any], **stream: Any) -> Path:
    """A configuration file for workers; `tree` has the connection, the model and the topics."""
    written = {
        "kafka": {
            "bootstrap_servers": tree["bootstrap"],
            "group_id": tree["input"],
            "session_timeout": "3s",
            "rebalance_timeout": "8s",
            "fetch_max_wait": "100ms",
            "request_timeout": "10s",
        },
        "accounts": {"onsite": {"provider": "local", "model": str(tree["model"]), "threads": 1}},
        "streams": [
            {
                "name": "tickets",
                "input": tree["input"],
                "classify_with": "onsite",
                "batch": {"documents": 25, "wait": "50ms"},
                "output": tree["output"],
                "dead_letter": tree["dead"],
                "commit_every": "200ms",
                "drain": "5s",
                **stream,
            }
        ],
        "health": {"port": 0},
        "log": {"format": "json"},
    }
    path = folder / "labelstream.yaml"
    path.write_text(yaml.safe_dump(written), encoding="utf-8")
    return path


class Held(NamedTuple):
    """What a process holds: resident megabytes, open files, threads, and records that it has not finished."""

    megabytes: float
    files: int
    threads: int
    lag: float


class Worker:
    """A running `labelstream run`; its log is kept in a file."""

    def __init__(self, config: Path, log: Path) -> None:
        self.log = log
        with log.open("wb") as lines:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "service", "run", str(config)], cwd=ROOT, stdout=lines, stderr=lines
            )

    def send(self, number: signal.Signals) -> None:
        """Send a signal."""
        self._process.send_signal(number)

    def kill(self) -> None:
        """End it as a power cut would."""
        self._process.kill()
        self._process.wait(PATIENCE)

    def terminate(self) -> tuple[int, float]:
        """Ask it to end; gives the exit code and the seconds that it took."""
        began = time.monotonic()
        self._process.terminate()
        return self._process.wait(PATIENCE), time.monotonic() - began

    def wait(self) -> int:
        """Wait until it ends by itself; gives the exit code."""
        return self._process.wait(PATIENCE)

    def wait_until(self, condition: Callable[[], bool], seconds: float = PATIENCE) -> None:
        """Wait until something is so, which this worker is to bring about."""
        deadline = time.monotonic() + seconds
        while not condition():
            assert self._process.poll() is None, f"the worker ended with {self._process.returncode}\n{self.said()}"
            assert time.monotonic() < deadline, f"it did not come about in {seconds} s\n{self.said()}"
            time.sleep(0.02)

    def events(self, name: str) -> list[dict[str, Any]]:
        """The log's lines of one event."""
        lines = [line for line in self.log.read_bytes().splitlines() if line.startswith(b"{")]
        return [line for line in map(orjson.loads, lines) if line["event"] == name]

    def held(self) -> Held:
        """What the process holds now, by /proc and its own metrics."""
        process = Path(f"/proc/{self._process.pid}")
        status = dict(line.split(":", 1) for line in (process / "status").read_text().splitlines() if ":" in line)
        lag = 0.0
        if begun := self.events("started"):
            shown = httpx.get(f"{begun[0]['health']}/metrics").text.splitlines()
            lag = sum(float(line.split()[-1]) for line in shown if line.startswith("labelstream_consumer_lag_records{"))
        return Held(
            int(status["VmRSS"].split()[0]) / 1024, len(list((process / "fd").iterdir())), int(status["Threads"]), lag
        )

    def said(self) -> str:
        """The last of its log."""
        return self.log.read_text("utf-8", errors="replace")[-3000:]


@contextmanager
def worker(config: Path) -> Iterator[Worker]:
    """A worker that does not outlive the block."""
    earlier = list(config.parent.glob("worker-*.log"))
    running = Worker(config, config.with_name(f"worker-{len(earlier)}.log"))
    try:
        yield running
    finally:
        running.send(signal.SIGCONT)
        running.kill()
