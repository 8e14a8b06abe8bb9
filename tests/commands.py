"""`labelstream` as it is used: a process of its own, judged by its exit code and by what it writes where."""

import os
import select
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import orjson
import yaml
from confluent_kafka import Producer

from service.model.examples import Example
from service.model.train import train

ROOT = Path(__file__).parents[1]
PATIENCE = 100.0
NOWHERE = "127.0.0.1:1"
"""Where nobody listens."""
LABELSTREAM = (sys.executable, "-m", "service")

CANARY_TEXT = "the quokka of Wexford sings at noon"
"""A sentence for documents, to be found again wherever it has no business."""
CANARY_KEY = "c4narykey0123456789abcdef"

TEXTS = {"delivery": "the parcel number {} has not arrived", "access": "my password {} is not accepted"}
"""Two classes that a small model tells apart without fail."""


def rows(each: int = 10) -> list[dict[str, Any]]:
    """Labelled rows, `each` of either class, in turn."""
    return [
        {"id": f"{label}-{number}", "text": text.format(number), "labels": [label]}
        for number in range(each)
        for label, text in TEXTS.items()
    ]


def write_lines(path: Path, lines: list[dict[str, Any]]) -> Path:
    """JSON lines in a file."""
    path.write_bytes(b"".join(orjson.dumps(line) + b"\n" for line in lines))
    return path


def read_lines(path: Path) -> list[dict[str, Any]]:
    """What is in a file of JSON lines."""
    return [orjson.loads(line) for line in path.read_bytes().splitlines()]


def write_config(path: Path, tree: Mapping[str, Any]) -> Path:
    """A configuration file."""
    path.write_text(yaml.safe_dump(dict(tree)), encoding="utf-8")
    return path


def small_model(folder: Path) -> Path:
    """A trained model of the two classes."""
    learn = [Example(row["id"], row["text"], tuple(row["labels"])) for row in rows()]
    train(learn, task="single_label", name="small").save(folder)
    return folder


@contextmanager
def mock_broker(*topics: str) -> Iterator[str]:
    """A broker (librdkafka's mock) that has these topics; gives its address."""
    producer = Producer({"test.mock.num.brokers": 1, "log_level": 0})
    for topic in topics:
        producer.list_topics(topic, timeout=10)  # asking for a topic makes it
    broker = next(iter(producer.list_topics(timeout=10).brokers.values()))
    yield f"{broker.host}:{broker.port}"


def environment(**more: str) -> dict[str, str]:
    """The environment without what would change a command's answers, and the service where it can be imported from."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("LABELSTREAM_", "FORCE_COLOR"))}
    return {**kept, "PYTHONPATH": str(ROOT), **more}


def labelstream(
    *arguments: object, cwd: Path | None = None, under: str = "", patience: float = PATIENCE, **more: str
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end, `under` a line of shell that starts it as `"$@"`; `more` goes into its environment."""
    shell = ("sh", "-c", under, "sh") if under else ()
    with subprocess.Popen(
        [*shell, *LABELSTREAM, *map(str, arguments)],
        cwd=cwd,
        env=environment(**more),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            written = process.communicate(timeout=patience)
        finally:
            end(process)
    return subprocess.CompletedProcess(process.args, process.returncode, *written)


def end(process: subprocess.Popen[Any]) -> None:
    """End a process so that it can end those that it has started; by force where it does not obey."""
    process.terminate()
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()


class Running:
    """A command that runs; its standard error is kept in a file."""

    def __init__(self, process: subprocess.Popen[str], log: Path) -> None:
        self.process = process
        self._log = log

    def line(self) -> str:
        """The next line of its standard output."""
        assert self.process.stdout is not None
        came, _, _ = select.select([self.process.stdout], [], [], PATIENCE)
        assert came, f"nothing came in {PATIENCE:.0f} s\n{self.said()}"
        return self.process.stdout.readline()

    def said(self) -> str:
        """What it has written to standard error so far."""
        return self._log.read_text("utf-8")

    def events(self, name: str) -> list[dict[str, Any]]:
        """The log's lines of one event."""
        lines = [orjson.loads(line) for line in self.said().splitlines() if line.startswith("{")]
        return [line for line in lines if line["event"] == name]

    def wait_until(self, condition: Callable[[], object]) -> None:
        """Wait until something is so, which this process is to bring about."""
        deadline = time.monotonic() + PATIENCE
        while not condition():
            assert self.process.poll() is None, f"it ended with {self.process.returncode}\n{self.said()}"
            assert time.monotonic() < deadline, f"it did not come about in {PATIENCE:.0f} s\n{self.said()}"
            time.sleep(0.02)

    def ended_by(self, signal: int) -> int:
        """Send a signal; gives the exit code."""
        self.process.send_signal(signal)
        return self.process.wait(PATIENCE)


@contextmanager
def started(folder: Path, *arguments: object, **more: str) -> Iterator[Running]:
    """A command that does not outlive the block; `folder` is where it runs and where its log is kept."""
    log = folder / f"stderr-{len(list(folder.glob('stderr-*')))}.log"
    with (
        log.open("wb") as lines,
        subprocess.Popen(
            [*LABELSTREAM, *map(str, arguments)],
            cwd=folder,
            env=environment(**more),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=lines,
            text=True,
        ) as process,
    ):
        try:
            yield Running(process, log)
        finally:
            end(process)


@contextmanager
def serving(folder: Path, model: Path, *arguments: object, key: str = CANARY_KEY) -> Iterator[tuple[str, Running]]:
    """A server of the model as tickets/production, and its URL."""
    options = ("serve", "--data", folder / "server", "--port", 0, "--model", f"tickets/production={model}")
    with started(folder, *options, *arguments, LABELSTREAM_SERVE_KEY=key) as server:
        first = server.line()
        assert first.startswith("serving on http://127.0.0.1:"), f"{first!r}\n{server.said()}"
        yield first.split()[-1], server


def served_account(url: str, **more: Any) -> dict[str, Any]:
    """The settings of an account at that server."""
    named = {"project": "tickets", "deployment": "production", "task": "single_label"}
    return {"provider": "azure_language", "endpoint": url, "key": CANARY_KEY, **named, **more}


def tree(bootstrap: str, account: Mapping[str, Any], topics: tuple[str, str, str], **stream: Any) -> dict[str, Any]:
    """A whole configuration: one stream of those topics (input, output, dead letters) and one account, `served`."""
    incoming, classified, dead = topics
    return {
        "kafka": {"bootstrap_servers": bootstrap, "group_id": incoming, "fetch_max_wait": "50ms"},
        "accounts": {"served": dict(account)},
        "streams": [
            {
                "name": "tickets",
                "input": incoming,
                "classify_with": "served",
                "batch": {"wait": "20ms"},
                "output": classified,
                "dead_letter": dead,
                "commit_every": "200ms",
                **stream,
            }
        ],
        "health": {"port": 0},
        "log": {"level": "debug", "format": "json"},
    }
