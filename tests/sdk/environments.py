"""Environments of their own for SDKs whose versions do not go together with those that the tests have."""

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
_MADE = HERE.parents[1] / "build" / "sdk"
_ENVIRON = dict(os.environ)  # before tests change whom to trust, which pip may have to know


def python(name: str) -> Path:
    """The interpreter of the environment that `NAME.txt` locks, made where it is not there yet.

    Whoever comes second waits for the first.
    """
    pinned = HERE / f"{name}.txt"
    environment = _MADE / f"{name}-{hashlib.sha256(pinned.read_bytes()).hexdigest()[:12]}"
    interpreter = environment / "bin" / "python"
    _MADE.mkdir(parents=True, exist_ok=True)
    with (_MADE / f".{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (environment / "complete").exists():
            shutil.rmtree(environment, ignore_errors=True)
            subprocess.run([sys.executable, "-m", "venv", "--without-pip", environment], check=True)
            pip = (sys.executable, "-m", "pip", "--python", interpreter, "--disable-pip-version-check", "--quiet")
            subprocess.run(
                [*pip, "install", "--no-compile", "--require-hashes", "-r", pinned], check=True, env=_ENVIRON
            )
            (environment / "complete").touch()
    return interpreter


def run(name: str, script: str, *arguments: str) -> None:
    """Run a script of this folder in an environment; what it says is the test's to show, and its failure the test's."""
    done = subprocess.run(
        [python(name), "-W", "ignore", HERE / script, *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=110,
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
