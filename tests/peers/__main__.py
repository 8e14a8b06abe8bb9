"""`make bench-peers`: labelstream beside what one would use instead, on real Kafka and the same endpoint.

Each form reads the same documents of 1 kB from four partitions, asks an endpoint (Azure Language's jobs of 100 ms) for
batches of 25, with 32 batches in flight where the form can, and publishes a result each, at least once where it can. It
is a process that is started again where it ends. What is measured is that process's own:

* documents/s over some seconds of full load, its CPU time a document and its peak memory;
* documents/s where jobs take 100 ms in the median and two thirds of them 60 to 165 ms, as such services do;
* at half of that load, the latency beyond the endpoint's 100 ms;
* of so many documents, how many have no result and how many several, where a hundredth of all requests fails with 503,
  and where the worker is killed with -9 in mid-stream.
"""

import argparse
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import orjson
import yaml
from confluent_kafka import Consumer, KafkaException, Producer, TopicPartition
from rich.console import Console
from rich.table import Table

from service.process import received, spawned
from service.simulation.endpoint import Behaviour
from service.simulation.http import serve
from tests.kafka.broker import Broker

ROOT = Path(__file__).parents[2]
PYTHON = ROOT / "build" / "peers" / "bin" / "python"
BENTHOS = ROOT / "tests" / "peers" / "benthos"
FORMS = {
    "labelstream": "labelstream run",
    "plain_loop": "aiokafka + httpx, waves",
    "faststream_batch": "FastStream, documented",
    "faststream_waves": "FastStream, waves",
    "quix_apply": "Quix Streams, documented",
    "quix_waves": "Quix Streams, waves in a sink",
    "faust_take": "faust-streaming, documented",
    "faust_waves": "faust-streaming, waves",
    "benthos": "Redpanda Connect's engine (Go)",
}
_DOCUMENTED, _TUNED, _ENGINE = 3.0, 1.4, 1.0
"""By how much labelstream is to be faster than each form as it is documented, as it is tuned by hand, and in Go."""
_PARTITIONS = 4
_SECONDS = 0.1
_UNEVENNESS = 0.5
_AHEAD = 150_000
_SETTLED, _MEASURED, _PACED = 3.0, 10.0, 10.0
_QUIET, _PATIENCE, _START = 15.0, 75.0, 60.0
_TEXT = ("My parcel was due on Tuesday and the tracking page has said the same thing ever since. " * 12)[:980]


class Unmeasured(Exception):
    """A form does nothing, or is not here; says why, or what it last said."""


@dataclass
class Measured:
    """What was measured of one form; latency in milliseconds, memory in MB, counts in documents."""

    form: str
    documents_per_s: float = 0.0
    uneven_documents_per_s: float = 0.0
    cpu_us_per_document: float = 0.0
    peak_memory_mb: float = 0.0
    added_p50_ms: float = 0.0
    added_p99_ms: float = 0.0
    documents: int = 0
    failing: dict[str, int] = field(default_factory=dict)
    killed: dict[str, int] = field(default_factory=dict)
    unmeasured: str = ""


class Place:
    """The broker and the endpoints, and the topics of one run."""

    def __init__(self, broker: Broker, base: str, folder: Path) -> None:
        self.bootstrap = broker.bootstrap
        self.base = base
        self.folder = folder
        self._broker = broker

    def topic(self) -> str:
        """A new topic, whose messages have the broker's time: some forms give results that of their documents."""
        name = f"peers-{secrets.token_hex(4)}"
        self._broker.create_topic(name, _PARTITIONS, {"message.timestamp.type": "LogAppendTime"})
        return name


class Worker:
    """A form that runs, and is started again where it ends by itself."""

    def __init__(self, form: str, place: Place, endpoint: str, incoming: str) -> None:
        self.output = place.topic()
        self._folder = Path(tempfile.mkdtemp(dir=place.folder, prefix=f"{form}-"))
        self._environment = {
            **os.environ,
            "BOOTSTRAP": place.bootstrap,
            "GROUP": self.output,
            "INPUT": incoming,
            "OUTPUT": self.output,
            "ENDPOINT": f"{place.base}/{endpoint}",
            "PYTHONPATH": str(ROOT),
        }
        self._command: Sequence[object] = (PYTHON, ROOT / "tests" / "peers" / "forms" / f"{form}.py")
        if form == "benthos":
            self._command = (built(), "-c", BENTHOS / "config.yaml")
        if form == "labelstream":
            config = self._folder / "config.yaml"
            config.write_text(yaml.safe_dump(_labelstream(self._environment, place.topic())))
            self._command = (sys.executable, "-m", "service", "run", config)
        else:
            del self._environment["PYTHONPATH"]
        self._wanted = True
        self.process = self._start()
        self._keeper = threading.Thread(target=self._keep, daemon=True)
        self._keeper.start()

    def _start(self) -> "subprocess.Popen[bytes]":
        with (self._folder / "log").open("ab") as log:
            return subprocess.Popen(
                [str(part) for part in self._command], cwd=self._folder, env=self._environment, stdout=log, stderr=log
            )

    def _keep(self) -> None:
        while True:
            self.process.wait()
            time.sleep(1)
            if not self._wanted:
                return
            self.process = self._start()

    def end(self) -> None:
        """End it, by force where it does not obey."""
        self._wanted = False
        self.process.terminate()
        try:
            self.process.wait(15)
        except subprocess.TimeoutExpired:
            self.process.kill()
        self._keeper.join()

    def said(self) -> str:
        """The last of its log."""
        return (self._folder / "log").read_text("utf-8", "replace")[-2000:]

    def cpu(self) -> float:
        """Seconds of CPU so far."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def peak(self) -> float:
        """Megabytes that it has held at most."""
        lines = Path(f"/proc/{self.process.pid}/status").read_text().splitlines()
        return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM"))


def built() -> Path:
    """Redpanda Connect's engine with our Kafka input and output, built where it is not yet. Raises Unmeasured."""
    if (go := shutil.which("go")) is None:
        raise Unmeasured("takes Go, which is not here")
    binary = ROOT / "build" / "peers-benthos"
    made = subprocess.run([go, "build", "-o", binary, "."], cwd=BENTHOS, capture_output=True, text=True, check=False)
    if made.returncode:
        raise Unmeasured(f"is not built: {made.stderr[-500:].strip()}")
    return binary


@contextmanager
def working(form: str, place: Place, endpoint: str, incoming: str) -> Iterator[Worker]:
    """A form at work for the length of the block."""
    worker = Worker(form, place, endpoint, incoming)
    try:
        yield worker
    finally:
        worker.end()


def _labelstream(names: Mapping[str, str], dead: str) -> dict[str, Any]:
    return {
        "kafka": {
            "bootstrap_servers": names["BOOTSTRAP"],
            "group_id": names["GROUP"],
            "session_timeout": "6s",
            "fetch_max_wait": "5ms",
        },
        "accounts": {
            "peers": {
                "provider": "azure_language",
                "endpoint": names["ENDPOINT"],
                "key": "peers",
                "project": "p",
                "deployment": "p",
                "task": "single_label",
                "limits": {"in_flight": 32},
            }
        },
        "streams": [
            {
                "name": "peers",
                "input": names["INPUT"],
                "output": names["OUTPUT"],
                "dead_letter": dead,
                "classify_with": "peers",
                "batch": {"documents": 25, "wait": "5ms"},
            }
        ],
        "health": {"port": 0},
    }


def fill(place: Place, topic: str, count: int, per_second: float = 0.0) -> dict[str, float]:
    """Put so many documents into a topic, at once or evenly; gives when each went, in milliseconds of Unix time."""
    producer = Producer(
        {
            "bootstrap.servers": place.bootstrap,
            "linger.ms": 1 if per_second else 50,
            "queue.buffering.max.messages": 1_000_000,
        }
    )
    sent, began = dict[str, float](), time.monotonic()
    for number in range(count):
        if per_second and (wait := began + number / per_second - time.monotonic()) > 0:
            producer.poll(0)
            time.sleep(wait)
        name = f"T-{number}"
        value = b'{"id":"%b","text":"%b"}' % (name.encode(), _TEXT.encode())
        sent[name] = time.time() * 1000
        while True:
            try:
                producer.produce(topic, value, name.encode(), partition=number % _PARTITIONS)
                break
            except BufferError:
                producer.poll(0.1)
    producer.flush(60)
    return sent


class Results:
    """What comes out in a topic."""

    def __init__(self, place: Place, topic: str) -> None:
        self._consumer = Consumer({"bootstrap.servers": place.bootstrap, "group.id": "peers-counting"})
        self.topic = topic
        self._partitions = [TopicPartition(topic, number, 0) for number in range(_PARTITIONS)]

    def count(self) -> int:
        """How many there are."""
        while True:
            with suppress(KafkaException):  # the topic is new
                return sum(self._consumer.get_watermark_offsets(each, timeout=10)[1] for each in self._partitions)
            time.sleep(0.1)

    def read(self) -> list[tuple[str, int]]:
        """Which documents they are of, and when they were published, in milliseconds of Unix time."""
        self._consumer.assign(self._partitions)
        left, found = self.count(), list[tuple[str, int]]()
        while len(found) < left:
            messages = [each for each in self._consumer.consume(1000, 5) if each.error() is None]
            if not messages:
                break
            found += [(str(orjson.loads(each.value())["id"]), each.timestamp()[1]) for each in messages]
        self._consumer.unassign()
        return found

    def wait(self, wanted: int, seconds: float) -> int:
        """Wait until there are as many as wanted, or seconds have passed; gives how many there are."""
        deadline = time.monotonic() + seconds
        while (count := self.count()) < wanted and time.monotonic() < deadline:
            time.sleep(0.1)
        return count

    def close(self) -> None:
        """Leave the broker."""
        self._consumer.close()

    def settle(self, wanted: int) -> None:
        """Wait until there are as many as wanted, or nothing more comes, or patience ends."""
        count, changed, began = -1, time.monotonic(), time.monotonic()
        while time.monotonic() - began < _PATIENCE:
            if (now := self.count()) != count:
                count, changed = now, time.monotonic()
            if time.monotonic() - changed > (_QUIET if count < wanted else 2.0):
                return
            time.sleep(0.2)


def committed(place: Place, topic: str, group: str) -> dict[int, int]:
    """The offset below which a group takes everything to be done, by partition."""
    consumer = Consumer({"bootstrap.servers": place.bootstrap, "group.id": group})
    with closing(consumer):
        partitions = [TopicPartition(topic, number) for number in range(_PARTITIONS)]
        return {each.partition: max(0, each.offset) for each in consumer.committed(partitions, timeout=10)}


def measure(form: str, place: Place, full: str) -> Measured:
    """All that is measured of one form. Raises Unmeasured."""
    measured = full_load(form, place, full, "well")
    measured.uneven_documents_per_s = full_load(form, place, full, "uneven").documents_per_s
    rate = max(2.0, min(4000.0, measured.documents_per_s / 2))
    measured.added_p50_ms, measured.added_p99_ms = _latencies(form, place, rate)
    measured.documents = int(max(100, min(20_000, measured.documents_per_s * 6)))
    measured.failing = _accounted(form, place, "failing", measured.documents, kill=False)
    measured.killed = _accounted(form, place, "well", measured.documents, kill=True)
    return measured


def full_load(form: str, place: Place, full: str, endpoint: str) -> Measured:
    """What is measured where there is always more to do, in the topic `full`. Raises Unmeasured."""
    measured = Measured(FORMS[form])
    with working(form, place, endpoint, full) as worker, closing(Results(place, worker.output)) as results:
        if not results.wait(1, _START):
            raise Unmeasured(f"{form} publishes nothing:\n{worker.said()}")
        time.sleep(_SETTLED)
        began, before, cpu = time.monotonic(), results.count(), worker.cpu()
        time.sleep(_MEASURED)
        seconds, done, cpu = time.monotonic() - began, results.count() - before, worker.cpu() - cpu
        measured.documents_per_s = round(done / seconds, 1)
        measured.cpu_us_per_document = round(cpu / max(1, done) * 1e6, 1)
        measured.peak_memory_mb = round(worker.peak(), 1)
    return measured


def _latencies(form: str, place: Place, rate: float) -> tuple[float, float]:
    """The median and the 99th percentile of what documents take longer than the endpoint, at so many a second."""
    incoming = place.topic()
    with working(form, place, "well", incoming) as worker, closing(Results(place, worker.output)) as results:
        fill(place, incoming, 30)
        results.wait(30, _START)
        sent = fill(place, incoming, int(rate * _PACED), rate)
        results.settle(30 + len(sent))
        began = min(sent.values())
        late = sorted(at - sent[name] - _SECONDS * 1000 for name, at in results.read() if at >= began + 2000)
    return round(late[len(late) // 2], 1), round(late[int(0.99 * len(late))], 1)


def _accounted(form: str, place: Place, endpoint: str, documents: int, *, kill: bool) -> dict[str, int]:
    """What became of so many documents."""
    incoming = place.topic()
    fill(place, incoming, documents)
    with working(form, place, endpoint, incoming) as worker, closing(Results(place, worker.output)) as results:
        if kill:
            results.wait(documents // 3, _PATIENCE)
            with suppress(ProcessLookupError):
                worker.process.kill()
        results.settle(documents)
        found = Counter(name for name, _ in results.read())
    done = committed(place, incoming, results.topic)
    missing = [number for number in range(documents) if f"T-{number}" not in found]
    lost = sum(number // _PARTITIONS < done[number % _PARTITIONS] for number in missing)
    return {"lost": lost, "unfinished": len(missing) - lost, "repeated": found.total() - len(found)}


def table(measured: Sequence[Measured]) -> Table:
    """All forms, and by how much labelstream is ahead of each or behind it, with what it is to be."""
    ours = next((each for each in measured if each.form == FORMS["labelstream"]), None)
    shown = Table()
    for column in (
        "form",
        "documents/s",
        "ours / its",
        "goal",
        "uneven",
        "ours / its",
        "CPU µs",
        "memory MB",
        "added p50, p99 ms",
        "1 % fail",
        "killed",
    ):
        shown.add_column(column, justify="left" if column == "form" else "right")
    for each in measured:
        if each.unmeasured:
            shown.add_row(each.form, f"not measured: {each.unmeasured.splitlines()[0].rstrip(':')}")
            continue
        ahead, goal, ahead_unevenly = "", "", ""
        if ours is not None and each is not ours and not ours.unmeasured:
            least = _ENGINE if each.form == FORMS["benthos"] else _DOCUMENTED if "documented" in each.form else _TUNED
            share = ours.documents_per_s / max(each.documents_per_s, 0.1)
            verdict = "" if share >= least else ", behind"
            ahead, goal = f"[{'red' if verdict else 'green'}]{share:.1f} ×{verdict}[/]", f"≥ {least:g} ×"
            ahead_unevenly = f"{ours.uneven_documents_per_s / max(each.uneven_documents_per_s, 0.1):.1f} ×"
        shown.add_row(
            each.form,
            f"{each.documents_per_s:,.0f}",
            ahead,
            goal,
            f"{each.uneven_documents_per_s:,.0f}",
            ahead_unevenly,
            f"{each.cpu_us_per_document:,.0f}",
            f"{each.peak_memory_mb:,.0f}",
            f"{each.added_p50_ms:,.0f}, {each.added_p99_ms:,.0f}",
            _said(each.failing, each.documents),
            _said(each.killed, each.documents),
        )
    return shown


def _said(counts: Mapping[str, int], documents: int) -> str:
    parts = [f"{count:,} {what}" for what, count in counts.items() if count]
    return f"{', '.join(parts) or 'none lost, none repeated'} of {documents:,}"


def main() -> None:
    parser = argparse.ArgumentParser(prog="make bench-peers", description="Measure labelstream beside its peers.")
    parser.add_argument("--forms", default=",".join(FORMS), help="which, separated by commas")
    parser.add_argument("--json", action="store_true", help="write one JSON object to standard output")
    options = parser.parse_args()
    err, measured = Console(stderr=True), list[Measured]()
    well = Behaviour(takes=_SECONDS, unevenness=0, way=0)
    uneven = well.model_copy(update={"unevenness": _UNEVENNESS})
    behaviours = {"well": (well,), "uneven": (uneven,), "failing": (well.model_copy(update={"fails": 0.01}),)}
    with (
        tempfile.TemporaryDirectory(prefix="labelstream-peers-") as folder,
        Broker(Path(folder) / "kafka") as broker,
        spawned(serve, behaviours) as endpoints,
    ):
        place = Place(broker, received(endpoints), Path(folder))
        endpoints.send("begin")
        full = place.topic()
        fill(place, full, _AHEAD)
        for form in options.forms.split(","):
            err.print(f"{FORMS[form]} …", highlight=False)
            try:
                measured.append(measure(form, place, full))
            except Unmeasured as error:
                err.print(str(error), markup=False)
                measured.append(Measured(FORMS[form], unmeasured=str(error)))
    if options.json:
        sys.stdout.write(orjson.dumps([asdict(each) for each in measured]).decode() + "\n")
    else:
        Console(width=210).print(table(measured))


if __name__ == "__main__":
    main()
