"""A real schema registry, Apicurio's by the API that Confluent's has, which keeps what it is told in memory."""

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

from tests.kafka import java
from tests.kafka.java import HOST, CannotRun, Fetched, Program

ARCHIVE = Fetched("a schema registry", Path(__file__).with_name("schema-registry.xml"), "unpack-dependencies")


class SchemaRegistry:
    """One registry; it ends with the process that started it, and a restart has it forget everything."""

    def __init__(self, folder: Path) -> None:
        self.log = folder / "registry.log"
        self._port = java.free_port()
        self._program: Program | None = None

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self._port}/apis/ccompat/v7"

    def start(self) -> None:
        """Start it and wait until it answers. Raises CannotRun."""
        folder = ARCHIVE.fetch()
        (jar,) = folder.glob("*-runner.jar")
        address = [f"-Dquarkus.http.host={HOST}", f"-Dquarkus.http.port={self._port}"]
        self._program = Program([java.find_java(), *java.FAST, *address, "-jar", str(jar)], self.log)
        deadline = time.monotonic() + java.START_SECONDS
        while self._program.runs and time.monotonic() < deadline:
            try:
                if httpx.get(f"{self.url}/subjects", trust_env=False).is_success:
                    return
            except httpx.TransportError:
                time.sleep(0.05)
        self.stop()
        raise CannotRun(f"the schema registry did not start: {java.fault(self.log)} (its log: {self.log})")

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """It takes connections for the length of the block, and answers nothing."""
        if self._program is None:
            raise RuntimeError("the registry is not running")
        self._program.send(signal.SIGSTOP)
        try:
            yield
        finally:
            self._program.send(signal.SIGCONT)

    def stop(self) -> None:
        """End it."""
        if self._program is not None:
            self._program.kill()
        self._program = None
