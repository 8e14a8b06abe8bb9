"""The lock files against pyproject.toml: what is installed is what was declared, pinned and hashed."""

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parents[1]
LOCKS = (
    "requirements.txt",
    "requirements-image.txt",
    "requirements-build.txt",
    "requirements-dev.txt",
    "tests/peers/requirements.txt",
)
EXTRAS_OF_THE_IMAGE = ("redaction", "redis", "registry", "tracing")


def pins(lock: str) -> dict[str, list[Version]]:
    """Each package's pinned versions: more than one where they depend on the Python or the platform."""
    found: dict[str, list[Version]] = {}
    pinned = re.compile(r"^([\w.-]+)(?:\[[^]]*\])?==([^ ;\\]+)", re.MULTILINE)
    for name, version in pinned.findall((ROOT / lock).read_text("utf-8")):
        found.setdefault(canonicalize_name(name), []).append(Version(version))
    return found


def declared() -> dict[str, list[Requirement]]:
    project: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    run, build = project["project"]["dependencies"], project["build-system"]["requires"]
    dev = [requirement for requirement in project["dependency-groups"]["dev"] if isinstance(requirement, str)]
    extras = [each for extra in EXTRAS_OF_THE_IMAGE for each in project["project"]["optional-dependencies"][extra]]
    lists = {
        "requirements.txt": run,
        "requirements-image.txt": [*run, *extras],
        "requirements-build.txt": build,
        "requirements-dev.txt": [*run, *build, *dev],
    }
    return {lock: [Requirement(requirement) for requirement in requirements] for lock, requirements in lists.items()}


@pytest.mark.parametrize(
    ("lock", "requirement"),
    [(lock, requirement) for lock, requirements in declared().items() for requirement in requirements],
    ids=lambda value: value if isinstance(value, str) else value.name,
)
def test_every_declared_dependency_is_locked_at_a_version_it_allows(lock: str, requirement: Requirement) -> None:
    locked = pins(lock).get(canonicalize_name(requirement.name), [])
    assert locked, f"{requirement.name} is not in {lock}: run `make lock`"
    for version in locked:
        assert version in requirement.specifier, f"{lock} has {requirement.name} {version}: run `make lock`"


def test_tests_run_with_the_versions_that_production_gets() -> None:
    tested = pins("requirements-dev.txt")
    differing = {
        name: (versions, tested.get(name))
        for lock in ("requirements.txt", "requirements-image.txt", "requirements-build.txt")
        for name, versions in pins(lock).items()
        if tested.get(name) != versions
    }
    assert differing == {}


@pytest.mark.parametrize("lock", LOCKS)
def test_every_pin_has_hashes_and_no_lock_names_an_index(lock: str) -> None:
    text = (ROOT / lock).read_text("utf-8")
    for pin in re.findall(r"^[\w.-]+(?:\[[^]]*\])?==(?:.*\\\n)*.*", text, re.MULTILINE):
        assert "--hash=sha256:" in pin, pin.splitlines()[0]
    assert "index-url" not in text
    assert "://" not in text
