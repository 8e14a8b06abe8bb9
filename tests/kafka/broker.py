"""A real Apache Kafka broker, run from its Maven jars: one JVM on 127.0.0.1, for the tests and for `make kafka`."""

import argparse
import fcntl
import hashlib
import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient, NewTopic

HOST = "127.0.0.1"
HOW_TO_GET_JAVA_AND_MAVEN = (
    "Debian, Ubuntu: sudo apt install default-jre-headless maven",
    'macOS: brew install openjdk@17 maven && export JAVA_HOME="$(brew --prefix openjdk@17)"',
)

_POM = Path(__file__).with_name("pom.xml")
_BUILD = Path(__file__).parents[2] / "build"
_JVM = (  # starts fast, leaves the cores alone
    "-Xms128m",
    "-Xmx512m",
    "-XX:+UseSerialGC",
    "-XX:TieredStopAtLevel=1",
    "-XX:-UsePerfData",
    "-XX:+UnlockDiagnosticVMOptions",
    "-XX:-BytecodeVerificationRemote",  # a fifth of a start; Maven has verified the jars
)
_CLUSTER = "bGFiZWxzdHJlYW0wMDAwMA"  # any 16 bytes in base64 will do; always the same, so that data can be kept
_START_SECONDS = 60
_STOP_SECONDS = 20


class KafkaUnavailable(Exception):
    """Real Kafka cannot run here; the message says why."""


class NotInstalled(KafkaUnavailable):
    """Java or Maven is missing or too old; `HOW_TO_GET_JAVA_AND_MAVEN` helps."""


def jars() -> Path:
    """Where the broker's jars are or will be: one folder for each content of pom.xml."""
    return _BUILD / "kafka-libs" / hashlib.sha256(_POM.read_bytes()).hexdigest()[:16]


def fetch_jars() -> Path:
    """The folder of the broker's jars, filled by Maven the first time; whoever comes second waits for the first.

    Raises:
        NotInstalled: there is no Maven.
        KafkaUnavailable: Maven could not resolve the jars.

    """
    folder = jars()
    folder.parent.mkdir(parents=True, exist_ok=True)
    with (folder.parent / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.is_dir():
            with tempfile.TemporaryDirectory(dir=folder.parent) as unfinished:
                _run_maven(Path(unfinished, "jars")).rename(folder)
    return folder


def _run_maven(folder: Path) -> Path:
    maven = shutil.which("mvn")
    if maven is None:
        raise NotInstalled("mvn (Maven) is not installed, and it is what fetches Kafka's jars")
    goal = ["dependency:copy-dependencies", "-DincludeScope=runtime", f"-DoutputDirectory={folder}"]
    command = [maven, "--batch-mode", "--quiet", "--strict-checksums", "--file", str(_POM), *goal]
    try:
        run = subprocess.run(command, capture_output=True, text=True, timeout=900, check=False)
    except subprocess.TimeoutExpired:
        raise KafkaUnavailable("Maven did not fetch Kafka's jars within 15 minutes") from None
    if run.returncode != 0:
        fault = next((line for line in run.stdout.splitlines() if "ERROR" in line), run.stderr.strip()[-400:])
        raise KafkaUnavailable(f"Maven could not fetch Kafka's jars: {fault}")
    return folder


def find_java() -> str:
    """The `java` of JAVA_HOME or else of PATH.

    Raises:
        NotInstalled: there is none, or it is older than 17.

    """
    path = os.environ.get("PATH", "")
    home = os.environ.get("JAVA_HOME")
    java = shutil.which("java", path=f"{home}/bin{os.pathsep}{path}" if home else path)
    if java is None:
        raise NotInstalled("java is not installed, and Kafka runs on Java 17 or later")
    said = subprocess.run([java, "-version"], capture_output=True, text=True, check=False, timeout=60).stderr
    version = re.search(r'version "(?:1\.)?(\d+)', said)
    if version is None:
        raise NotInstalled(f"{java} does not run: {said.strip() or 'it says nothing of its version'}")
    if int(version[1]) < 17:
        raise NotInstalled(f"{java} is Java {version[1]}, and Kafka runs on Java 17 or later")
    return java


class Broker:
    """One broker and its data; it ends with the process that started it, however that ends.

    `folder` holds its data, settings and log, and may be used again later. `port` is a free one unless given, and stays
    the same through `restart`. `properties` go over the broker's settings below. Calls block: in asynchronous tests,
    use `asyncio.to_thread`.
    """

    def __init__(self, folder: Path, *, port: int | None = None, properties: Mapping[str, str] | None = None) -> None:
        self.folder = folder.resolve()
        self.log = self.folder / "broker.log"
        self._port = port
        self._properties = properties or {}
        self._process: subprocess.Popen[bytes] | None = None
        self._guard: subprocess.Popen[bytes] | None = None

    @property
    def bootstrap(self) -> str:
        """The address clients are given, `host:port`; known once the broker has been started."""
        return f"{HOST}:{self._port}"

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.stop()

    def start(self) -> None:
        """Start the broker and wait until it answers a metadata request.

        Raises:
            KafkaUnavailable: it could not be started; says why, and where its log is.

        """
        java, libraries = find_java(), fetch_jars()
        self.folder.mkdir(parents=True, exist_ok=True)
        if self._port is not None and not _is_free(self._port):
            raise KafkaUnavailable(
                f"port {self._port} is in use: stop what listens there, or choose another (make kafka PORT=…)"
            )
        for _ in range(5):  # another program may take a free port before the broker does
            port, controller = self._port or _free_port(), _free_port()
            self._write_settings(port, controller)
            self._launch([java, *_JVM, "-cp", f"{libraries}/*"])
            if self._answers(port):
                self._port = port
                return
            self.kill()
            if "Address already in use" not in self._said():
                break
        raise KafkaUnavailable(f"the broker did not start: {self._fault()} (its log: {self.log})")

    def stop(self) -> None:
        """End the broker as an operator would, or by force where it does not obey; nothing where it is not running."""
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(_STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self._process.kill()
            self._reap()

    def kill(self) -> None:
        """End the broker at once, as a power cut would."""
        if self._process is not None:
            self._process.kill()
            self._reap()

    def restart(self) -> None:
        """Stop the broker and start it again on the same port, with its data."""
        self.stop()
        self.start()

    def wait(self) -> int:
        """Wait until the broker ends by itself, and return its exit code."""
        if self._process is None:
            raise RuntimeError("the broker is not running")
        return self._process.wait()

    def create_topic(self, name: str, partitions: int = 1, config: Mapping[str, str] | None = None) -> None:
        """Create a topic and wait until clients can see it.

        Raises:
            KafkaException: the broker refused, for instance because the topic exists.

        """
        admin = _admin(self.bootstrap)
        created = admin.create_topics([NewTopic(name, partitions, 1, config=dict(config or {}))])
        created[name].result(30)
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            seen = admin.list_topics(timeout=10).topics.get(name)
            if seen is not None and len(seen.partitions) == partitions:
                return
            time.sleep(0.02)
        raise KafkaUnavailable(f"topic {name} was created, but clients do not see it (the broker's log: {self.log})")

    def _write_settings(self, port: int, controller: int) -> None:
        settings = {
            "process.roles": "broker,controller",
            "node.id": "1",
            "controller.quorum.voters": f"1@{HOST}:{controller}",
            "listeners": f"PLAINTEXT://{HOST}:{port},CONTROLLER://{HOST}:{controller}",
            "advertised.listeners": f"PLAINTEXT://{HOST}:{port}",
            "controller.listener.names": "CONTROLLER",
            "log.dirs": f"{self.folder}/data",
            "auto.create.topics.enable": "false",  # a misspelt topic is to be an error
            "offsets.topic.num.partitions": "1",
            "offsets.topic.replication.factor": "1",
            "transaction.state.log.num.partitions": "1",
            "transaction.state.log.replication.factor": "1",
            "transaction.state.log.min.isr": "1",
            "share.coordinator.state.topic.num.partitions": "1",
            "share.coordinator.state.topic.replication.factor": "1",
            "share.coordinator.state.topic.min.isr": "1",
            "broker.heartbeat.interval.ms": "500",
            "broker.session.timeout.ms": "3000",  # after a kill, a broker is let in again only when this has passed
            "group.initial.rebalance.delay.ms": "0",
            "group.min.session.timeout.ms": "1000",  # a killed member is to be missed within a test's patience
            "log.cleaner.dedupe.buffer.size": str(4 * 1024 * 1024),  # the default takes a quarter of this heap
            "num.network.threads": "2",
            "num.io.threads": "2",
            **self._properties,
        }
        text = "".join(f"{name}={value}\n" for name, value in settings.items())
        self._settings.write_text(text, encoding="utf-8")

    def _launch(self, jvm: list[str]) -> None:
        settings = str(self._settings)
        with self.log.open("wb") as log:
            if not (self.folder / "data" / "meta.properties").exists():
                storage = [*jvm, "kafka.tools.StorageTool", "format", "--cluster-id", _CLUSTER, "--config", settings]
                subprocess.run(storage, stdout=log, stderr=log, check=False, timeout=_START_SECONDS)
            # A session of its own keeps the terminal's Ctrl-C for the tests, which end the broker in good order.
            self._process = subprocess.Popen(
                [*jvm, "kafka.Kafka", settings],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        # The guard's input closes when this process is gone, even by kill -9; then nobody else would end the broker.
        self._guard = subprocess.Popen(
            ["/bin/sh", "-c", 'read -r _; kill -9 "$0"', str(self._process.pid)],
            stdin=subprocess.PIPE,
            start_new_session=True,
        )

    def _answers(self, port: int) -> bool:
        admin = _admin(f"{HOST}:{port}")
        deadline = time.monotonic() + _START_SECONDS
        while self._process is not None and self._process.poll() is None and time.monotonic() < deadline:
            try:
                if admin.list_topics(timeout=0.5).brokers:
                    return True
            except KafkaException:
                continue  # it already waited
        return False

    def _reap(self) -> None:
        if self._process is not None and self._guard is not None:
            self._guard.kill()
            self._guard.communicate()
            self._process.wait()
        self._process = self._guard = None

    @property
    def _settings(self) -> Path:
        return self.folder / "server.properties"

    def _said(self) -> str:
        return self.log.read_text(encoding="utf-8", errors="replace")

    def _fault(self) -> str:
        lines = self._said().splitlines()
        faults = [line for line in lines if "Exception: " in line or "Error: " in line]
        return (faults or lines or ["it said nothing"])[-1].strip()


def _admin(bootstrap: str) -> AdminClient:
    # Nobody wants to read that a broker which is being started does not answer yet.
    return AdminClient({"bootstrap.servers": bootstrap, "log_level": 0, "reconnect.backoff.max.ms": 200})


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as the broker's: an old connection is no obstacle
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
        return True


def _free_port() -> int:
    """A free port below those the system hands out, which a client's own end could take while the broker is away."""
    while not _is_free(port := 20_000 + secrets.randbelow(12_000)):
        pass
    return port


def main() -> None:
    """Run a broker in the foreground until Ctrl-C."""
    parser = argparse.ArgumentParser(prog="make kafka", description=main.__doc__)
    parser.add_argument("--port", type=int, default=9092)
    parser.add_argument("--data", type=Path, default=_BUILD / "kafka")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    broker = Broker(arguments.data, port=arguments.port)
    try:
        if not jars().is_dir():
            _say("Fetching Apache Kafka with Maven (once) …")
        with broker:
            _say(f"Apache Kafka is ready at {broker.bootstrap}; Ctrl-C stops it. Its data stays in {arguments.data}.")
            _say(f"Try it from another terminal: make demo ARGS='--bootstrap {broker.bootstrap}'")
            code = broker.wait()
            sys.exit(f"The broker ended by itself with exit code {code}; its log: {broker.log}")
    except NotInstalled as error:
        sys.exit("\n".join((f"Kafka cannot run: {error}.", *HOW_TO_GET_JAVA_AND_MAVEN)))
    except KafkaUnavailable as error:
        sys.exit(f"Kafka cannot run: {error}.")
    except KeyboardInterrupt:
        _say("Stopped.")


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
