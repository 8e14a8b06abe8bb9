"""A real Apache Kafka broker, run from its Maven jars: one JVM on 127.0.0.1, for the tests and for `make kafka`."""

import argparse
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient, NewTopic

from tests.kafka import java
from tests.kafka.java import BUILD, HOST, CannotRun, Fetched, NotInstalled, Program

HOW_TO_GET_JAVA_AND_MAVEN = (
    "Debian, Ubuntu: sudo apt install default-jre-headless maven",
    'macOS: brew install openjdk@17 maven && export JAVA_HOME="$(brew --prefix openjdk@17)"',
)
JARS = Fetched("Kafka's jars", Path(__file__).with_name("kafka-libs.xml"), "copy-dependencies")

_CLUSTER = "bGFiZWxzdHJlYW0wMDAwMA"  # any 16 bytes in base64 will do; always the same, so that data can be kept


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
        self._program: Program | None = None

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
            CannotRun: it could not be started; says why, and where its log is.

        """
        path, libraries = java.find_java(), JARS.fetch()
        self.folder.mkdir(parents=True, exist_ok=True)
        if self._port is not None and not java.is_free(self._port):
            raise CannotRun(
                f"port {self._port} is in use: stop what listens there, or choose another (make kafka PORT=…)"
            )
        for _ in range(5):  # another program may take a free port before the broker does
            port, controller = self._port or java.free_port(), java.free_port()
            self._write_settings(port, controller)
            self._launch([path, *java.FAST, "-cp", f"{libraries}/*"])
            if self._answers(port):
                self._port = port
                return
            self.kill()
            if "Address already in use" not in self.log.read_text(encoding="utf-8", errors="replace"):
                break
        raise CannotRun(f"the broker did not start: {java.fault(self.log)} (its log: {self.log})")

    def stop(self) -> None:
        """End the broker as an operator would, or by force where it does not obey; nothing where it is not running."""
        if self._program is not None:
            self._program.stop()
        self._program = None

    def kill(self) -> None:
        """End the broker at once, as a power cut would."""
        if self._program is not None:
            self._program.kill()
        self._program = None

    def restart(self) -> None:
        """Stop the broker and start it again on the same port, with its data."""
        self.stop()
        self.start()

    def wait(self) -> int:
        """Wait until the broker ends by itself, and return its exit code."""
        if self._program is None:
            raise RuntimeError("the broker is not running")
        return self._program.wait()

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
        raise CannotRun(f"topic {name} was created, but clients do not see it (the broker's log: {self.log})")

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
                subprocess.run(storage, stdout=log, stderr=log, check=False, timeout=java.START_SECONDS)
        self._program = Program([*jvm, "kafka.Kafka", settings], self.log)

    def _answers(self, port: int) -> bool:
        admin = _admin(f"{HOST}:{port}")
        deadline = time.monotonic() + java.START_SECONDS
        while self._program is not None and self._program.runs and time.monotonic() < deadline:
            try:
                if admin.list_topics(timeout=0.5).brokers:
                    return True
            except KafkaException:
                continue  # it already waited
        return False

    @property
    def _settings(self) -> Path:
        return self.folder / "server.properties"


def _admin(bootstrap: str) -> AdminClient:
    # Nobody wants to read that a broker which is being started does not answer yet.
    return AdminClient({"bootstrap.servers": bootstrap, "log_level": 0, "reconnect.backoff.max.ms": 200})


def main() -> None:
    """Run a broker in the foreground until Ctrl-C."""
    parser = argparse.ArgumentParser(prog="make kafka", description=main.__doc__)
    parser.add_argument("--port", type=int, default=9092)
    parser.add_argument("--data", type=Path, default=BUILD / "kafka")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    broker = Broker(arguments.data, port=arguments.port)
    try:
        if not JARS.folder.is_dir():
            _say("Fetching Apache Kafka with Maven (once) …")
        with broker:
            _say(f"Apache Kafka is ready at {broker.bootstrap}; Ctrl-C stops it. Its data stays in {arguments.data}.")
            _say(f"Try it from another terminal: make demo ARGS='--bootstrap {broker.bootstrap}'")
            code = broker.wait()
            sys.exit(f"The broker ended by itself with exit code {code}; its log: {broker.log}")
    except NotInstalled as error:
        sys.exit("\n".join((f"Kafka cannot run: {error}.", *HOW_TO_GET_JAVA_AND_MAVEN)))
    except CannotRun as error:
        sys.exit(f"Kafka cannot run: {error}.")
    except KeyboardInterrupt:
        _say("Stopped.")


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
