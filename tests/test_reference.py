"""What is written about the code against the code: the reference, the configurations, and what the README tells."""

import json
import os
import re
from collections.abc import Iterator
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Annotated, Any, cast, get_origin

import pytest
import yaml
from pydantic import TypeAdapter
from pydantic_core import PydanticUndefined
from pydantic_settings import EnvSettingsSource

from service import settings
from service.dispatch.account import Account
from service.dispatch.answers import Answer
from service.dispatch.lanes import stage_of
from service.documents import Classified, ClassScore, Document, Message, Reason, Refused
from service.limits.gate import Limits
from service.observability import telemetry
from service.providers.azure_language import AzureLanguage
from service.routing import cases
from service.routing.records import OURS, Routing, dead_letter
from service.routing.rules import Rules
from service.server import app, comprehend
from service.server import telemetry as server_telemetry
from service.server.gateway import Gateway, Resource
from service.settings import reading
from service.streams.files import _letter
from service.streams.kafka_failures import smaller as lighter
from service.transport.failures import At, Rule, Then, first_that_fits
from service.transport.http import PacedClient
from tests import reference
from tests.records import written

CONFIG = reference.ROOT / "config"
STREAM = settings.Stream(name="tickets", input="in", output="out", dead_letter="dead", classify_with=("azure",))


def leaves(tree: object, path: str = "") -> Iterator[tuple[str, object]]:
    """The dotted paths of a tree, each with what is at its end."""
    if isinstance(tree, dict):
        for key, value in tree.items():
            yield from leaves(value, f"{path}.{key}".removeprefix("."))
    elif isinstance(tree, list) and any(isinstance(each, dict) for each in tree):
        for each in tree:
            yield from leaves(each, f"{path}[]")
    else:
        yield path, tree


def test_the_reference_is_what_the_code_says() -> None:
    committed = reference.PAGE.read_text("utf-8") if reference.PAGE.exists() else ""
    same = committed == reference.page()  # a word instead of a diff of 500 lines
    assert same, "docs/reference.md is not what the code says: run `make reference`"


# Settings

SETTINGS = {(setting.path, setting.provider): setting for branch in reference.branches() for setting in branch.settings}
TRIAGE = (CONFIG / "triage.yaml").read_text("utf-8")
TRIAGE_IN_FULL = re.sub(r"^( *)# ( *(?:- \{)?[a-z_]+:(?: .*)?)$", r"\1\2", TRIAGE, flags=re.MULTILINE)


def configured(text: str) -> dict[tuple[str, str], object]:
    """What a configuration says, by the path of the setting and the kind of account.

    What is below a setting is a part of its value: the conditions of `all`, the values of `headers`.
    """
    tree = yaml.safe_load(text)
    found: dict[tuple[str, str], object] = {}
    for path, value in leaves(tree):
        above = [setting for setting, _ in SETTINGS if re.match(rf"{re.escape(setting)}(\[\])?\.", path)]
        if above and not path.startswith("accounts."):
            found[above[0], ""] = value
            continue
        top, _, rest = path.partition(".")
        name, _, key = rest.partition(".")
        if top == "accounts":
            found[f"accounts.NAME.{key}", tree["accounts"][name]["provider"]] = value
        else:
            found[path, ""] = value
    return found


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    for name in [name for name in os.environ if name.startswith("LABELSTREAM_")]:
        monkeypatch.delenv(name)
    return monkeypatch


def test_every_setting_says_what_it_means() -> None:
    silent = [path for (path, _), setting in SETTINGS.items() if not setting.meaning]
    assert silent == [], "these settings have no docstring under them in service/settings"


def test_every_variable_sets_what_it_stands_beside(environment: pytest.MonkeyPatch) -> None:
    wanted: dict[str, object] = {}
    for (path, _), setting in SETTINGS.items():
        if setting.variable and get_origin(setting.field.annotation) is tuple:  # is written as JSON
            environment.setenv(setting.variable, json.dumps([setting.variable]))
            wanted[path.replace("NAME", "name")] = [setting.variable]
        elif setting.variable:
            environment.setenv(setting.variable, setting.variable)
            wanted[path.replace("NAME", "name")] = setting.variable
    environment.setenv("LABELSTREAM_STREAMS", '[{"name": "LABELSTREAM_STREAMS"}]')
    found = dict(leaves(EnvSettingsSource(reading._Overridden)()))
    assert found == wanted | {"streams[].name": "LABELSTREAM_STREAMS"}


def test_every_key_of_the_triage_configuration_is_a_setting() -> None:
    strange = configured(TRIAGE_IN_FULL).keys() - SETTINGS.keys()
    assert strange == set(), "config/triage.yaml has keys that are no settings"


def test_every_setting_is_in_the_triage_configuration() -> None:
    there = {path for path, _ in configured(TRIAGE_IN_FULL)}
    for path, _ in SETTINGS:
        key = path.rpartition(".")[2]  # a secret is named beside the file that holds it: `key_file: …  # or key`
        if re.search(rf"\b{key}_file: .*# or {key}\b", TRIAGE):
            there.add(path)
    missing = {path for path, _ in SETTINGS} - there
    assert missing == set(), "config/triage.yaml is to have every setting, commented out where its default will do"


def test_what_is_commented_out_in_the_triage_configuration_shows_the_default() -> None:
    live = configured(TRIAGE).keys()
    differing = {}
    for place, said in configured(TRIAGE_IN_FULL).items():
        setting = SETTINGS.get(place)
        if place in live or setting is None or setting.default in (None, PydanticUndefined, {}, ()):
            continue  # where there is no default, an example is shown
        kind = cast("type[Any]", Annotated[(setting.field.annotation, place, *setting.field.metadata)])
        if TypeAdapter(kind).validate_python(said) != setting.default:
            differing[place[0]] = f"config/triage.yaml shows {said}, the default is {reference.shown(setting)}"
    assert differing == {}


@pytest.mark.parametrize("file", sorted(CONFIG.glob("*.yaml")), ids=lambda file: file.name)
def test_a_configuration_loads(file: Path, tmp_path: Path, environment: pytest.MonkeyPatch) -> None:
    (tmp_path / "config").mkdir()
    (tmp_path / "config" / "azure-language.key").write_text("a-key", encoding="utf-8")
    environment.chdir(tmp_path)
    settings.load(file)


EXAMPLES = re.findall(r"```yaml\n(.*?)```", reference.README.read_text("utf-8"), re.DOTALL)


def test_the_registry_of_the_readme_goes_with_the_least_configuration() -> None:
    tree, added = (yaml.safe_load(each) for each in EXAMPLES[:2])
    tree["accounts"] = {"azure": {"provider": "local", "model": "models/tickets"}}
    del added["registry"]["password_file"]
    tree["registry"] = added["registry"] | {"password": "x"}
    tree["streams"][0] |= added["streams"][0]
    assert settings.parse(tree).streams[0].needs_registry


def test_the_routes_of_the_readme_do_what_its_cases_say(tmp_path: Path) -> None:
    least, _, routes, examples = EXAMPLES[:4]
    tree = yaml.safe_load(least)
    tree["accounts"] = {"azure": {"provider": "local", "model": "models/tickets"}}
    tree["streams"][0] |= yaml.safe_load(routes)
    (file := tmp_path / "cases.yaml").write_text(examples, encoding="utf-8")
    tried = cases.tried(settings.parse(tree), cases.cases(file))
    assert [each for each in tried if not each.ok] == []


# Records, log events, APIs


@pytest.fixture
def result(answer: Answer) -> Message:
    (message,) = Routing(Rules(STREAM)).route(answer)
    return message


@pytest.fixture
async def answer() -> Answer:
    account = settings.AzureLanguage(
        provider="azure_language",
        endpoint="https://contoso.cognitiveservices.azure.com",
        key=cast("Any", "a-key"),
        project="tickets",
        deployment="production",
        task="single_label",
    )
    record = written(0, "Where is my refund?")
    limits, events = Limits(account.limits), telemetry.Telemetry().account("azure", account.provider)
    async with PacedClient(limits, events, account.request_timeout) as http:
        provider = AzureLanguage(account, http)
        azure = Account("azure", account.provider, provider, limits=limits, telemetry=events)
        outcome = Classified((ClassScore("refund", 0.9),), 1)
        document = Document(record, "T-1", "Where is my refund?", None, 1_700_000_000.0)
        return Answer([document], [outcome], azure, 1, 1_700_000_001.0)


@pytest.fixture
def letter() -> Message:
    bad = written(0, "")._replace(key=b"k", headers=(("own", b"1"), ("labelstream-redrives", b"1")))
    return dead_letter(STREAM, bad, Refused(Reason.EMPTY_TEXT, "the document's text is empty"))


def test_the_fields_of_a_result_are_those_of_the_reference(result: Message) -> None:
    assert [path for path, _ in leaves(json.loads(result.value or b""))] == list(reference.SAID["result"])
    assert [name for name, _ in result.headers] == list(reference.SAID["result_headers"])


def test_what_a_result_says_of_its_route_is_that_of_the_reference(answer: Answer) -> None:
    rules = [{"best": "refund", "to": "refunds"}, {"best_at_least": 0.5, "to": "sure"}]
    routed = settings.Stream.model_validate({**STREAM.model_dump(exclude_unset=True), "routes": rules})
    found = dict(leaves(json.loads(Routing(Rules(routed)).route(answer)[0].value or b"")))
    assert [path for path in found if path.startswith("route.")] == list(reference.SAID["result_of_routes"])
    assert [path for path in found if not path.startswith("route.")] == list(reference.SAID["result"])


def test_what_a_result_says_of_the_accounts_that_were_asked_is_that_of_the_reference(answer: Answer) -> None:
    refused = Refused(Reason.REFUSED_BY_CLASSIFIER, "no")
    (document,), (outcome,) = answer.documents, answer.outcomes
    stages = (stage_of(0, answer, outcome), stage_of(1, answer, refused))
    (message,) = Routing(Rules(STREAM)).route(replace(answer, documents=[document._replace(stages=stages)]))
    found = dict(leaves(json.loads(message.value or b"")))
    told = list(reference.SAID["result_of_stages"])
    kinds = {*told, "stages[].classes[].score", "stages[].classes"}  # of what is refused there are none
    assert {path for path in found if path.startswith("stages")} == kinds
    assert [path for path in found if not path.startswith("stages")] == list(reference.SAID["result"])


def test_the_result_of_an_identical_document_says_so_as_the_reference_tells(answer: Answer) -> None:
    (message,) = Routing(Rules(STREAM)).route(replace(answer, answered_from="cache"))
    found = dict(leaves(json.loads(message.value or b"")))
    assert found.pop("answered_from") == "cache"
    assert list(reference.SAID["result_of_identical"]) == ["answered_from"]
    assert list(found) == list(reference.SAID["result"])


def test_the_headers_of_a_dead_letter_are_those_of_the_reference(letter: Message) -> None:
    headers: dict[str, None] = {}
    smaller: Message | None = letter
    while smaller is not None:
        headers |= dict.fromkeys(name for name, _ in smaller.headers if name.startswith(OURS))
        smaller = lighter(smaller)
    assert list(headers) == list(reference.SAID["dead_letter_headers"])


def test_the_fields_of_a_dead_letter_in_a_file_are_those_of_the_reference(letter: Message) -> None:
    assert list(json.loads(_letter(letter))) == list(reference.SAID["dead_letter_lines"])


def test_every_reason_has_a_meaning() -> None:
    assert list(reference.SAID["reasons"]) == list(Reason)


def test_what_is_done_about_failures_has_a_meaning_each() -> None:
    assert list(reference.SAID["then"]) == list(Then)


def test_every_table_of_failures_that_providers_decide_by_is_in_the_reference() -> None:
    there = {id(rules) for rules in reference.FAILURES.values()}
    for module in (path.stem for path in (reference.ROOT / "service" / "providers").glob("[a-z]*.py")):
        for name, value in vars(import_module(f"service.providers.{module}")).items():
            tables = value.values() if isinstance(value, dict) else [value]
            strange = [
                f"{module}.{name}"
                for table in tables
                if isinstance(table, tuple) and table and isinstance(table[0], Rule) and id(table) not in there
            ]
            assert strange == []


@pytest.mark.parametrize("title", reference.FAILURES)
def test_no_row_about_failures_stands_behind_one_that_fits_all_it_does(title: str) -> None:
    rules = reference.FAILURES[title]
    for place, rule in enumerate(rules):
        deciding = {
            id(first_that_fits(rules, at, status, [code]))
            for at in rule.at or At
            for status in rule.statuses or range(600)
            for code in rule.codes or ["anything"]
        }
        assert id(rule) in deciding, f"row {place} of {title} never decides: {rule}"


def test_every_log_event_has_a_meaning_and_every_meaning_an_event() -> None:
    logged = {event.name for event in reference.events()}
    explained = reference.SAID["events"].keys()
    assert logged - explained == set(), "say in tests/reference.yaml what these log events mean"
    assert explained - logged == set(), "tests/reference.yaml explains log events that are not logged any more"


def test_the_operations_of_the_tables_are_those_of_the_server() -> None:
    nothing = SimpleNamespace(window=lambda *_: None)
    backend = cast(
        "Any", SimpleNamespace(**vars(nothing), **dict.fromkeys(("store", "models", "containers", "comprehend_quotas")))
    )
    gateway = cast("Gateway", SimpleNamespace(keys=(), telemetry=server_telemetry.Telemetry()))
    served = set()
    for path in app.apis(backend, cast("Any", None), gateway):
        if isinstance(path.app, comprehend.Front):
            served |= {f"POST / {name}" for name in path.app._actions}
        else:
            served |= {f"{method} {path.path}" for method in cast("Resource", path.app)._operations}
    said = [each for api in reference.COVERAGE for each in api["operations"] if each["server"]]
    assert {each["request"].partition(" (")[0] for each in said} == served


@pytest.mark.parametrize("api", reference.COVERAGE, ids=lambda api: api["title"])
def test_operations_are_proven_where_the_tables_say(api: dict[str, Any]) -> None:
    named = {test for each in api["operations"] for test in each["proven_by"]}
    missing = [test for test in named if not (reference.ROOT / "tests" / test).is_file()]
    assert missing == [], "tests/coverage names tests that do not exist"
    assert all(each["proven_by"] and each["versions"] for each in api["operations"])


APIS = ("azure_language", "content_safety", "content_understanding", "comprehend", "sdk_", "contract", "fuzz")
WITHIN = {  # what is about an API, and asks it for nothing, or for what is not in the API
    "server/test_azure_language_labels.py",
    "server/test_comprehend_account.py",
    "server/test_comprehend_training_data.py",
    "server/test_content_safety_samples.py",
    "lifecycle/test_azure_language_evaluation.py",
    "lifecycle/test_azure_language_labels.py",
}


def test_the_tests_of_an_api_are_in_its_table() -> None:
    named = {test for api in reference.COVERAGE for each in api["operations"] for test in each["proven_by"]}
    tests = {
        f"{folder}/{file.name}"
        for folder in ("server", "providers", "lifecycle")
        for file in (reference.ROOT / "tests" / folder).glob("test_*.py")
        if any(api in file.name for api in APIS)
    }
    assert tests - named == WITHIN, "tests/coverage leaves out tests of an API"


def test_the_readme_has_the_table_of_the_apis() -> None:
    same = reference.README.read_text("utf-8") == reference.readme()
    assert same, "README.md is not what tests/coverage says: run `make reference`"


# What people are told to write: each name has to be there

PROSE = [path for path in (reference.ROOT / "README.md", *sorted(CONFIG.glob("*.yaml"))) if path.exists()]
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
OPTIONS = {
    name: {word for option in command.params for word in option.opts} | {"--help", "-h"}
    for name, command in reference.commands()
}
VERBS = re.findall(r"^([a-z-]+):", (reference.ROOT / "Makefile").read_text("utf-8"), re.MULTILINE)


def code(text: str) -> Iterator[str]:
    """What is meant to be typed: the lines of shell blocks, and what stands in backticks."""
    for language, block in FENCE.findall(text):
        if language in {"", "sh", "bash", "console"}:
            yield from (re.sub(r"(^|\s)#.*", "", line) for line in block.replace("\\\n", " ").splitlines())
    yield from re.findall(r"`([^`\n]+)`", FENCE.sub("", text))


def unknown(line: str) -> Iterator[str]:
    """Commands, verbs and options of ours in a line that do not exist."""
    anywhere = set[str]().union(*OPTIONS.values())
    for arguments in re.findall(r"(?<![\w./-])labelstream ([^|;&]+)", line):
        words, name = arguments.split(), "labelstream"
        while words and any(f"{known} ".startswith(f"{name} {words[0]} ") for known in OPTIONS):
            name = f"{name} {words.pop(0)}"
        if name not in OPTIONS and (words or name == "labelstream") and words[0] not in {"--help", "-h"}:
            yield f"{name} {words[0]}"
        yield from (f"{name} {word}" for word in _options(words) - OPTIONS.get(name, anywhere))
    for verb in re.findall(r"(?<![\w./-])make ([a-z-]+)", line):
        if verb not in VERBS:
            yield f"make {verb}"
    for verb, arguments in re.findall(r"""(?:make ([a-z-]+) )?ARGS=["']([^"']*)["']""", line):
        if not verb or f"labelstream {verb}" in OPTIONS:
            yield from _options(arguments.split()) - OPTIONS.get(f"labelstream {verb}", anywhere)
    if line.startswith("--"):
        yield from _options(line.split()) - anywhere


def _options(words: list[str]) -> set[str]:
    return {word.partition("=")[0] for word in words if word.startswith("--")}


@pytest.mark.parametrize("file", PROSE, ids=lambda file: file.name)
def test_every_command_and_option_that_people_are_told_exists(file: Path) -> None:
    wrong = [each for line in code(file.read_text("utf-8")) for each in unknown(line)]
    assert wrong == [], f"{file.name} tells people of these, and there are none"


@pytest.mark.parametrize(
    ("line", "wrong"),
    [
        ("labelstream run config/triage.yaml", []),
        ("labelstream models train x --out y && make test", []),
        ("labelstream models --help", []),
        ("KEY=x labelstream serve --data d --port=1", []),
        ("labelstream walk", ["labelstream walk"]),
        ("labelstream models fly", ["labelstream models fly"]),
        ("labelstream run --fast x", ["labelstream run --fast"]),
        ("make haste", ["make haste"]),
        ('make demo ARGS="--fast"', ["--fast"]),
        ('make test ARGS="--lf"', []),
        ('ARGS="--fast"', ["--fast"]),
        ("--faults FILE", []),
        ("--fast", ["--fast"]),
    ],
)
def test_what_does_not_exist_is_found(line: str, wrong: list[str]) -> None:
    assert list(unknown(line)) == wrong


@pytest.mark.parametrize("file", PROSE, ids=lambda file: file.name)
def test_every_metric_and_variable_that_people_are_told_exists(file: Path) -> None:
    text = file.read_text("utf-8")
    registries = (telemetry.Telemetry().registry, server_telemetry.Telemetry().registry)
    names = {metric.name for registry in registries for metric in reference.metrics(registry)}
    told = {re.sub(r"_(bucket|sum|count)$", "", name) for name in re.findall(r"\blabelstream_[a-z_]+", text)}
    assert told - names == set(), f"{file.name} tells people of metrics that there are not"
    variables = [setting.variable.replace("__NAME__", "__[A-Z0-9]+__") for setting in SETTINGS.values()]
    variables += [option.envvar for _, command in reference.commands() for option in command.params if option.envvar]
    there = re.compile("|".join([*filter(None, variables), "LABELSTREAM_STREAMS"]))
    wrong = [name for name in re.findall(r"\bLABELSTREAM_[A-Z0-9_]+", text) if not there.fullmatch(name)]
    assert wrong == [], f"{file.name} tells people of environment variables that there are not"


def test_the_examples_of_the_readme_are_of_the_form_they_show(environment: pytest.MonkeyPatch, tmp_path: Path) -> None:
    environment.chdir(tmp_path)
    Path("key").write_text("a-key", encoding="utf-8")
    for language, block in FENCE.findall("\n".join(path.read_text("utf-8") for path in PROSE)):
        if language == "yaml" and block.startswith("kafka:"):
            settings.parse(yaml.safe_load(re.sub(r"key_file: \S+", "key_file: key", block)), "README.md")
        if language == "json" and '"classes"' in block:
            assert [path for path, _ in leaves(json.loads(block))] == list(reference.SAID["result"])
