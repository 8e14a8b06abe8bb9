"""Programs of the JVM for the tests: fetched by Maven, and ended with the process that has started them."""

import fcntl
import hashlib
import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
from pathlib import Path

HOST = "127.0.0.1"
BUILD = Path(__file__).parents[2] / "build"
FAST = (  # starts fast, leaves the cores alone
    "-Xms128m",
    "-Xmx512m",
    "-XX:+UseSerialGC",
    "-XX:TieredStopAtLevel=1",
    "-XX:-UsePerfData",
    "-XX:+UnlockDiagnosticVMOptions",
    "-XX:-BytecodeVerificationRemote",  # a fifth of a start; Maven has verified the jars
)
START_SECONDS = 60
_STOP_SECONDS = 20


class CannotRun(Exception):
    """A program cannot run here; the message says why."""


class NotInstalled(CannotRun):
    """Java or Maven is missing or too old."""


class Fetched:
    """What a pom.xml names: `copied` as it is, or `unpacked`. There is one folder for each content of it."""

    def __init__(self, what: str, pom: Path, goal: str) -> None:
        self.what = what
        self._pom = pom
        self._goal = goal

    @property
    def folder(self) -> Path:
        """Where it is or will be."""
        return BUILD / self._pom.stem / hashlib.sha256(self._pom.read_bytes()).hexdigest()[:16]

    def fetch(self) -> Path:
        """The folder, filled by Maven the first time; whoever comes second waits for the first.

        Raises:
            NotInstalled: there is no Maven.
            CannotRun: Maven could not resolve what is named.

        """
        folder = self.folder
        folder.parent.mkdir(parents=True, exist_ok=True)
        with (folder.parent / ".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not folder.is_dir():
                with tempfile.TemporaryDirectory(dir=folder.parent) as unfinished:
                    self._run_maven(Path(unfinished, "fetched")).rename(folder)
        return folder

    def _run_maven(self, folder: Path) -> Path:
        maven = shutil.which("mvn")
        if maven is None:
            raise NotInstalled(f"mvn (Maven) is not installed, and it is what fetches {self.what}")
        goal = [f"dependency:{self._goal}", "-DincludeScope=runtime", f"-DoutputDirectory={folder}"]
        goal.append(f"-DmarkersDirectory={folder.with_name('markers')}")  # else what was unpacked once is not again
        command = [maven, "--batch-mode", "--quiet", "--strict-checksums", "--file", str(self._pom), *goal]
        try:
            run = subprocess.run(command, capture_output=True, text=True, timeout=900, check=False)
        except subprocess.TimeoutExpired:
            raise CannotRun(f"Maven did not fetch {self.what} within 15 minutes") from None
        if run.returncode != 0:
            fault = next((line for line in run.stdout.splitlines() if "ERROR" in line), run.stderr.strip()[-400:])
            raise CannotRun(f"Maven could not fetch {self.what}: {fault}")
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


class Program:
    """A program that runs; it ends with the process that started it, however that ends. What it says goes to `log`."""

    def __init__(self, command: list[str], log: Path) -> None:
        with log.open("ab") as said:
            # A session of its own keeps the terminal's Ctrl-C for the tests, which end it in good order.
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=said, stderr=said, start_new_session=True
            )
        # The guard's input closes when this process is gone, even by kill -9; then nobody else would end the program.
        self._guard = subprocess.Popen(
            ["/bin/sh", "-c", 'read -r _; kill -9 "$0"', str(self._process.pid)],
            stdin=subprocess.PIPE,
            start_new_session=True,
        )

    @property
    def runs(self) -> bool:
        """Whether it has not ended."""
        return self._process.poll() is None

    def stop(self) -> None:
        """End it as an operator would, or by force where it does not obey."""
        self._process.terminate()
        try:
            self._process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
        self._reap()

    def kill(self) -> None:
        """End it at once, as a power cut would."""
        self._process.kill()
        self._reap()

    def send(self, number: signal.Signals) -> None:
        """Give it a signal."""
        self._process.send_signal(number)

    def wait(self) -> int:
        """Wait until it ends by itself, and return its exit code."""
        return self._process.wait()

    def _reap(self) -> None:
        self._guard.kill()
        self._guard.communicate()
        self._process.wait()


def is_free(port: int) -> bool:
    """Whether nobody listens at a port."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as the broker's: an old connection is no obstacle
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
        return True


def free_port() -> int:
    """A free port below those the system hands out, which a client's own end could take while a server is away."""
    while not is_free(port := 20_000 + secrets.randbelow(12_000)):
        pass
    return port


def fault(log: Path) -> str:
    """What a log says went wrong."""
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    faults = [line for line in lines if "Exception: " in line or "Error: " in line]
    return (faults or lines or ["it said nothing"])[-1].strip()
