"""What is written about the code against the code: the reference, the configurations, and what the README tells."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, cast

import httpx
import pytest
import yaml
from pydantic import TypeAdapter
from pydantic_core import PydanticUndefined
from pydantic_settings import EnvSettingsSource
from starlette.routing import Route

from service import settings, telemetry
from service.dispatch import Account, Answer
from service.documents import Classified, ClassScore, Document, Reason, Refused
from service.limits import Limits
from service.providers.azure_language import AzureLanguage
from service.routing import Message, dead_letter, route
from service.server import azure_language
from service.server import telemetry as server_telemetry
from service.server.gateway import Resource
from service.streams.files import _letter
from service.streams.kafka import _without_value
from tests.records import written
from tests.reference import PAGE, ROOT, SAID, Setting, branches, commands, events, metrics, page

SETTINGS = [each for branch in branches() for each in branch.settings]
OPTIONS = {name: {word for each in command.params for word in each.opts} for name, command in commands()}
HELP = {"--help", "-h"}
VERBS = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))
TRIAGE = (ROOT / "config" / "triage.yaml").read_text("utf-8")
TRIAGE_IN_FULL = re.sub(r"^( *)# ( *[a-z_]+:(?: .*)?)$", r"\1\2", TRIAGE, flags=re.MULTILINE)
PROSE = [
    path
    for path in (ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "config").glob("*.yaml")))
    if path.exists()
]
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
STREAM = settings.Stream(
    name="tickets", input="incoming", output="classified", dead_letter="dead", classify_with=("azure",)
)


def leaves(tree: object, path: str = "") -> Iterator[tuple[str, object]]:
    """The dotted paths of a tree and what is at their ends."""
    if isinstance(tree, dict):
        for key, value in tree.items():
            yield from leaves(value, f"{path}.{key}".removeprefix("."))
    elif isinstance(tree, list) and any(isinstance(each, dict) for each in tree):
        for each in tree:
            yield from leaves(each, f"{path}[]")
    else:
        yield path, tree


def configured(text: str) -> dict[tuple[str, str], object]:
    """The settings of a configuration, by path and kind of account."""
    tree = yaml.safe_load(text)
    found: dict[tuple[str, str], object] = {}
    for path, value in leaves(tree):
        match path.split(".", 2):
            case ["accounts", name, key]:
                found[f"accounts.NAME.{key}", tree["accounts"][name]["provider"]] = value
            case _:
                found[path, ""] = value
    return found


def known() -> dict[tuple[str, str], Setting]:
    return {(each.path, each.provider): each for each in SETTINGS}


@pytest.fixture
def _no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in __import__("os").environ if name.startswith("LABELSTREAM_")]:
        monkeypatch.delenv(name)


def test_the_reference_is_what_the_code_says() -> None:
    committed = PAGE.read_text("utf-8") if PAGE.exists() else ""
    assert committed == page(), "docs/reference.md is not what the code says: run `make reference`"
