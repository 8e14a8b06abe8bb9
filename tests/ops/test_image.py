"""The image, as far as it can be looked at without building it."""

import re
import subprocess
import sysconfig
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_hadolint_has_nothing_to_object_to() -> None:
    hadolint = Path(sysconfig.get_path("scripts")) / "hadolint"
    done = subprocess.run([hadolint, ROOT / "Dockerfile"], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stdout


def test_everything_that_is_installed_is_locked_and_hashed() -> None:
    steps = (ROOT / "Dockerfile").read_text("utf-8").replace("\\\n", " ")
    installs = re.findall(r"bin/pip (?:(?! && ).)* install (?:(?! && ).)*", steps)
    assert len(installs) == 3
    assert all("--require-hashes" in each or "--no-deps" in each for each in installs), installs


def test_what_the_image_is_made_from_is_sent_and_nothing_else() -> None:
    sent = {line[1:] for line in (ROOT / ".dockerignore").read_text("utf-8").splitlines() if line.startswith("!")}
    copied = [
        line.split()[1:-1] for line in (ROOT / "Dockerfile").read_text("utf-8").splitlines() if line.startswith("COPY")
    ]
    assert sent == {name for names in copied for name in names if not name.startswith(("-", "/"))}
