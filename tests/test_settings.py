import copy
import json
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from service.errors import Misconfigured
from service.settings import Azure, AzureLanguage, LanguageTraining, Local, Settings, is_loopback, load, parse

KEY = "CANARY-0123456789abcdef"
TREE: dict[str, Any] = {
    "kafka": {"bootstrap_servers": "127.0.0.1:9092", "group_id": "triage"},
    "accounts": {
        "azure": {
            "provider": "azure_language",
            "endpoint": "https://contoso.cognitiveservices.azure.com",
            "key": KEY,
            "project": "tickets",
            "deployment": "production",
            "task": "single_label",
        },
        "onsite": {"provider": "local", "model": "models/tickets"},
    },
    "streams": [
        {
            "name": "tickets",
            "input": "incoming",
            "classify_with": ["azure", "onsite"],
            "output": "classified",
            "dead_letter": "dead",
        }
    ],
}


@pytest.fixture(autouse=True)
def no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("LABELSTREAM_CONFIG", "LABELSTREAM_HEALTH__PORT"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def read(tmp_path: Path) -> Callable[..., Settings]:
    """Write a file and load it, as a command does."""

    def load_it(tree: object = TREE) -> Settings:
        path = tmp_path / "labelstream.yaml"
        path.write_text(tree if isinstance(tree, str) else yaml.safe_dump(tree), encoding="utf-8")
        return load(path)

    return load_it


def with_setting(path: str, value: object) -> dict[str, Any]:
    """The tree with one setting changed, `...` to take it out: `kafka.group_id`, `streams.0.batch.wait`."""
    tree = copy.deepcopy(TREE)
    branch: Any = tree
    *way, last = path.split(".")
    for step in way:
        branch = branch[int(step)] if isinstance(branch, list) else branch.setdefault(step, {})
    if value is ...:
        del branch[last]
    else:
        branch[last] = value
    return tree


def azure(settings: Settings) -> AzureLanguage:
    account = settings.accounts["azure"]
    assert isinstance(account, AzureLanguage)
    return account


def test_what_is_left_out_has_its_default(read: Callable[..., Settings]) -> None:
    settings = read()
    (stream,) = settings.streams
    assert (stream.batch.documents, stream.batch.wait, stream.drain) == (25, 0.2, 25)
    assert (stream.document.id, stream.document.text) == ("/id", ("/text",))
    assert isinstance(onsite := settings.accounts["onsite"], Local)
    assert onsite.threads == 2
    assert azure(settings).limits.in_flight == 16
    assert settings.health.host == "127.0.0.1"


def test_one_pointer_or_account_need_not_be_a_list(read: Callable[..., Settings]) -> None:
    tree = with_setting("streams.0.document.text", "/body")
    tree["streams"][0]["classify_with"] = "onsite"
    (stream,) = read(tree).streams
    assert (stream.document.text, stream.classify_with) == (("/body",), ("onsite",))


@pytest.mark.parametrize(
    ("path", "value", "complaint"),
    [
        ("kafak", {}, "unknown key 'kafak', did you mean 'kafka'?"),
        ("kafka", ..., "kafka: is required"),
        ("kafka", None, "kafka: must be a mapping"),
        ("kafka", "127.0.0.1:9092", "kafka: must be a mapping"),
        ("kafka.bootstrap_server", "a:1", "kafka: unknown key 'bootstrap_server', did you mean 'bootstrap_servers'?"),
        ("kafka.group_id", ..., "kafka.group_id: is required"),
        ("kafka.bootstrap_servers", "broker", "kafka.bootstrap_servers: 'broker' is not host:port"),
        ("kafka.bootstrap_servers", "a:9092,b", "kafka.bootstrap_servers: 'b' is not host:port"),
        ("kafka.bootstrap_servers", "kafka://a:9092", "kafka.bootstrap_servers: 'kafka://a:9092' is not host:port"),
        ("kafka.security_protocol", "TLS", "kafka.security_protocol: Input should be 'PLAINTEXT', 'SSL'"),
        ("kafka.security_protocol", "SASL_SSL", "kafka: security_protocol SASL_SSL needs sasl_username and"),
        ("kafka.sasl_username", "me", "kafka: give either sasl_password or sasl_password_file"),
        ("kafka.sasl_password", KEY, "kafka: sasl_password is given, but no sasl_username"),
        ("kafka.session_timeout", 0, "kafka.session_timeout: Input should be greater than 0"),
        ("kafka.session_timeout", "6 parsecs", "kafka.session_timeout: write it as 200ms or 30s (units: ms, s, m, h"),
        ("streams.0.delivery", "exactly_twice", "streams[0].delivery: Input should be 'at_least_once' or"),
        ("accounts", {}, "accounts: must not be empty"),
        ("accounts", ["azure"], "accounts: must be a mapping"),
        ("accounts.azure.provider", ..., "accounts.azure: provider is required"),
        (
            "accounts.azure.provider",
            "azure_languge",
            "accounts.azure: there is no provider 'azure_languge', did you mean 'azure_language'?",
        ),
        ("accounts.azure.projekt", "x", "accounts.azure: unknown key 'projekt', did you mean 'project'?"),
        ("accounts.azure.zzz", "x", "accounts.azure: unknown key 'zzz', known: api_version, deployment, endpoint, job"),
        ("accounts.azure.key", ..., "accounts.azure: give either key or key_file"),
        ("accounts.azure.key", "", "accounts.azure: key is empty"),
        ("accounts.azure.key", KEY + "\n", "accounts.azure: key holds characters that no key has"),
        ("accounts.azure.key_file", "/dev/null", "accounts.azure: give either key or key_file"),
        ("accounts.azure.project", "my tickets", "accounts.azure.project: String should match pattern"),
        ("accounts.azure.task", "multi", "accounts.azure.task: Input should be 'single_label' or 'multi_label'"),
        ("accounts.azure.endpoint", "contoso.azure.com", "accounts.azure: endpoint is not a URL such as https://NAME"),
        ("accounts.azure.endpoint", "https://", "accounts.azure: endpoint is not a URL"),
        ("accounts.azure.endpoint", "https://a:port", "accounts.azure: endpoint is not a URL"),
        ("accounts.azure.endpoint", "https://[::1", "accounts.azure: endpoint is not a URL"),
        ("accounts.azure.endpoint", f"ftp://me:{KEY}@a", "accounts.azure: endpoint is not a URL"),
        ("accounts.azure.endpoint", f"https://me:{KEY}@a", "endpoint holds more than a host and a path"),
        ("accounts.azure.endpoint", f"https://a/?code={KEY}", "endpoint holds more than a host and a path"),
        ("accounts.azure.endpoint", "http://contoso.com", "endpoint would send documents and the key unencrypted"),
        ("accounts.azure.endpoint", "http://127.0.0.1.contoso.com", "endpoint would send documents and the key"),
        (
            "accounts.azure.limits.inflight",
            1,
            "accounts.azure.limits: unknown key 'inflight', did you mean 'in_flight'",
        ),
        (
            "accounts.azure.limits.in_flight",
            0,
            "accounts.azure.limits.in_flight: write adaptive, or a whole number",
        ),
        ("accounts.azure.job_deadline", "0s", "accounts.azure.job_deadline: Input should be greater than 0"),
        ("streams", [], "streams: must not be empty"),
        ("streams", {"tickets": {}}, "streams: must be a list"),
        ("streams.0.inptu", "x", "streams[0]: unknown key 'inptu', did you mean 'input'?"),
        ("streams.0.input", "bad topic", "streams[0].input: String should match pattern"),
        ("streams.0.output", "incoming", "streams[0]: the input topic 'incoming' is also written to"),
        ("streams.0.dead_letter", "incoming", "streams[0]: the input topic 'incoming' is also written to"),
        ("streams.0.routes", [{"class": "a", "to": "incoming"}], "streams[0]: the input topic 'incoming' is also"),
        ("streams.0.classify_with", [], "streams[0].classify_with: must not be empty"),
        ("streams.0.classify_with", "azur", "streams[0].classify_with: no account 'azur', did you mean 'azure'?"),
        ("streams.0.drain", "60s", "streams[0].drain: 60 s is not below kafka.rebalance_timeout (60 s)"),
        ("streams.0.commit_every", 0, "streams[0].commit_every: Input should be greater than 0"),
        ("streams.0.batch.wait", -1, "streams[0].batch.wait: Input should be greater than or equal to 0"),
        ("streams.0.batch.wait", float("inf"), "streams[0].batch.wait: Input should be less than or equal to 604800"),
        ("streams.0.batch.documents", 0, "streams[0].batch.documents: Input should be greater than or equal to 1"),
        ("streams.0.capacity.bytes", "64 Mb", "streams[0].capacity.bytes: write it as 64MiB (units: B, KB, MB"),
        (
            "streams.0.document.text",
            "ticket.body",
            "streams[0].document.text[0]: 'ticket.body' is not a JSON pointer; ",
        ),
        ("streams.0.document.text", "ticket.body", "write /ticket/body"),
        ("streams.0.document.text", "/a~b", "streams[0].document.text[0]: '/a~b' is not a JSON pointer; write ~ as ~0"),
        ("streams.0.document.text", [], "streams[0].document.text: must not be empty"),
        (
            "streams.0.routes",
            [{"clas": "a", "to": "x"}],
            "streams[0].routes[0]: unknown key 'clas', did you mean 'class'",
        ),
        ("streams.0.document", {"max_parts": 5}, "streams[0].document: max_parts goes with too_long: split"),
        ("streams.0.document", {"too_long": "cut"}, "streams[0].document.too_long: Input should be 'dead_letter' or"),
        (
            "streams.0.document",
            {"too_long": "split", "max_parts": 1},
            "streams[0].document.max_parts: Input should be greater than or equal to 2",
        ),
        ("streams.0.identical", {"ttl": "-1s"}, "streams[0].identical.ttl: write it as 200ms or 30s"),
        ("streams.0.identical", {"ttl": "1h", "entries": 0}, "streams[0].identical.entries: Input should be greater"),
        ("streams.0.identical", {"ttl": "1h", "bytes": "1B"}, "streams[0].identical.bytes: Input should be greater"),
        ("streams.0.identical", {"bytes": "1MiB"}, "streams[0].identical: bytes is of answers that are kept: give ttl"),
        ("streams.0.identical", True, "streams[0].identical: must be a mapping"),
        (
            "streams.0.routes",
            [{"to": "x"}],
            "streams[0].routes[0]: give a condition, such as class or best_below; what",
        ),
        (
            "streams.0.routes",
            [{"best_below": 0.5, "at_least": 0.2, "to": "x"}],
            "at_least goes with class; of the best",
        ),
        ("streams.0.routes", [{"class": "a", "to": []}], "streams[0].routes[0].to: must not be empty"),
        ("streams.0.routes", [{"class": [], "to": "x"}], "streams[0].routes[0].class: must not be empty"),
        ("streams.0.routes", [{"class": "a", "to": ["x", "a b"]}], "streams[0].routes[0].to[1]: String should match"),
        ("streams.0.routes", [{"class": "a", "to": "dead"}], "streams[0]: the dead_letter topic 'dead' would also get"),
        (
            "streams.0.routes",
            [{"any": [{"best": "a"}, {"not": {"clas": "a"}}], "to": "x"}],
            "streams[0].routes[0].any[1].not: unknown key 'clas', did you mean 'class'?",
        ),
        (
            "streams.0.routes",
            [{"name": "a", "best": "a", "to": "x"}, {"name": "a", "best": "b", "to": "x"}],
            "streams[0]: routes: the name 'a' is given twice",
        ),
        ("streams.0.routes", [{"name": "otherwise", "best": "a", "to": "x"}], "'otherwise' is what results say where"),
        ("streams.0.routes", [{"fields": {"tier": "a"}, "to": "x"}], "'tier' is not a JSON pointer; write /tier"),
        ("streams.0.otherwise", "x", "streams[0]: otherwise is for what meets none of the routes, and there are none"),
        ("streams.0.thresholds", {"a": 80}, "streams[0].thresholds.a: Input should be less than or equal to 1"),
        (
            "streams.0.routes",
            [{"class": "a", "at_least": 80, "to": "x"}],
            "streams[0].routes[0].at_least: Input should",
        ),
        (
            "streams.0.review",
            {"topic": "nobody", "decisions": "decided"},
            "streams[0]: review.topic: no route leads to 'nobody': add one, such as best_below",
        ),
        (
            "streams.0.review",
            {"topic": "x", "decisions": "x"},
            "streams[0].review: the topic 'x' is given twice: decisions need one of their own",
        ),
        ("health.port", 70_000, "health.port: Input should be less than or equal to 65535"),
        ("log.level", "loud", "log.level: Input should be 'debug', 'info', 'warning' or 'error'"),
        ("1", {}, "unknown key '1', known: accounts, health, kafka, log, redis, registry, streams"),
    ],
)
def test_a_wrong_setting_is_refused_by_its_name(
    read: Callable[..., Settings], tmp_path: Path, path: str, value: object, complaint: str
) -> None:
    with pytest.raises(Misconfigured) as refusal:
        read(with_setting(path, value))
    assert complaint in str(refusal.value)
    assert str(refusal.value).startswith(f"{tmp_path}/labelstream.yaml: ")
    assert KEY not in str(refusal.value)
    assert "\n" not in str(refusal.value), "one wrong setting is one line"


REGISTRY = {"url": "https://registry:8081"}


@pytest.mark.parametrize(
    ("registry", "complaint"),
    [
        ({}, "registry.url: is required"),
        ({"url": "registry:8081"}, "registry: url: write the registry's URL, such as https://registry:8081"),
        ({"url": "https://:8081"}, "registry: url: write the registry's URL"),
        ({"url": f"https://u:{KEY}@registry"}, "registry: url holds more than a host and a path"),
        ({"url": "https://registry?a=b"}, "registry: url holds more than a host and a path"),
        (
            {"url": "http://registry:8081"},
            "registry: url: http beyond this machine is not encrypted: write https, or pl",
        ),
        ({"url": "http://127.0.0.1:8081", "ca_file": "ca.pem"}, "registry: ca_file is for TLS"),
        ({**REGISTRY, "password": KEY}, "registry: password is given, but no username"),
        ({**REGISTRY, "username": "u"}, "registry: give either password or password_file"),
        ({**REGISTRY, "username": "u", "password": KEY, "token": KEY}, "username and token are two ways to log in"),
        ({**REGISTRY, "username": "u:v", "password": KEY}, "registry: username: it holds a colon"),
        ({**REGISTRY, "token": f"{KEY}\n{KEY}"}, "registry: token holds characters that no key has"),
        ({**REGISTRY, "token": KEY, "token_file": "t"}, "registry: give either token or token_file"),
    ],
)
def test_a_registry_is_told_what_does_not_go_together(
    read: Callable[..., Settings], registry: dict[str, object], complaint: str
) -> None:
    with pytest.raises(Misconfigured) as refusal:
        read(with_setting("registry", registry))
    assert complaint in str(refusal.value)
    assert KEY not in str(refusal.value)


def test_the_secret_of_a_registry_is_shown_nowhere(read: Callable[..., Settings]) -> None:
    for given in ({"username": "u", "password": KEY}, {"token": KEY}):
        found = read(with_setting("registry", {**REGISTRY, **given})).registry
        assert found is not None
        assert found.secret is not None
        assert found.secret.get_secret_value() == KEY
        assert KEY not in f"{found!r} {found} {found.model_dump_json()}"


def test_http_is_for_this_machine_or_where_it_is_asked_for(read: Callable[..., Settings]) -> None:
    for registry in ({"url": "http://127.0.0.1:8081"}, {"url": "http://registry", "plaintext": True}):
        assert read(with_setting("registry", registry)).registry is not None


@pytest.mark.parametrize(
    ("path", "value", "complaint"),
    [
        (
            "streams.0.document.format",
            "registry",
            "streams[0].document.format: the schemas are in a registry: give regi",
        ),
        (
            "streams.0.results",
            {"format": "avro"},
            "streams[0].results.format: the schemas are in a registry: give regis",
        ),
        ("streams.0.results", {"unregistered": "refuse"}, "unregistered goes with format: avro and json_schema"),
        ("streams.0.results", {"format": "avro", "mode": "binary"}, "mode goes with format: cloudevents"),
        ("streams.0.document", {"format": "registry", "encoding": "latin-1"}, "encoding goes with format: text"),
    ],
)
def test_schemas_take_a_registry(read: Callable[..., Settings], path: str, value: object, complaint: str) -> None:
    with pytest.raises(Misconfigured) as refusal:
        read(with_setting(path, value))
    assert complaint in str(refusal.value)


RESOURCE = {"endpoint": "https://contoso.cognitiveservices.azure.com", "key": KEY}
LANGUAGE = {**RESOURCE, "provider": "azure_language", "task": "multi_label"}
JULY = {**LANGUAGE, "api_version": "v3.1-preview.ct.1"}
OCTOBER = {**LANGUAGE, "api_version": "v3.2-preview.2"}
NAMED = {**LANGUAGE, "project": "p", "deployment": "d"}
PLACE = {"container": f"https://account.blob.core.windows.net/tickets?sig={KEY}"}
SAFETY = {**RESOURCE, "provider": "content_safety"}
UNDERSTANDING = {**RESOURCE, "provider": "content_understanding"}


@pytest.mark.parametrize(
    ("account", "complaint"),
    [
        (LANGUAGE, "project and deployment are required"),
        ({**LANGUAGE, "project": "p"}, "project and deployment are required"),
        (
            {**LANGUAGE, "project": "p", "deployment": "d", "model_id": "m"},
            "model_id goes with api_version v3.1-preview.ct.1",
        ),
        ({**OCTOBER, "project": "p"}, "project and deployment are required"),
        (
            {**OCTOBER, "project": "p", "deployment": "d", "model_id": "m"},
            "model_id goes with api_version v3.1-preview.ct.1",
        ),
        (JULY, "v3.1-preview.ct.1 takes model_id, and neither project nor deployment"),
        (
            {**JULY, "project": "p", "model_id": "m"},
            "v3.1-preview.ct.1 takes model_id, and neither project nor deployment",
        ),
        ({**NAMED, "training": {}}, "accounts.azure.training: give either container or container_file"),
        (
            {**NAMED, "training": {**PLACE, "container_file": "signature"}},
            "accounts.azure.training: give either container or container_file",
        ),
        ({**NAMED, "training": {**PLACE, "langauge": "en"}}, "unknown key 'langauge', did you mean 'language'?"),
        ({**NAMED, "training": {**PLACE, "testing_percentage": 0}}, "accounts.azure.training.testing_percentage"),
        ({**NAMED, "training": {**PLACE, "project": "p"}}, "training.project goes with api_version v3.1-preview.ct.1"),
        (
            {**JULY, "model_id": "m", "training": PLACE},
            "training.project goes with api_version v3.1-preview.ct.1, and with no other",
        ),
        ({**JULY, "model_id": "a model"}, "accounts.azure.model_id: String should match pattern"),
        ({**LANGUAGE, "api_version": "v3.1"}, "accounts.azure.api_version: String should match pattern"),
        ({**SAFETY, "endpoint": "contoso"}, "accounts.azure: endpoint is not a URL"),
        ({**SAFETY, "key": None}, "accounts.azure: give either key or key_file"),
        ({**SAFETY, "projekt": "p"}, "unknown key 'projekt'"),
        ({**SAFETY, "harm_categories": []}, "accounts.azure.harm_categories: must not be empty"),
        ({**SAFETY, "harm_categories": ["Rudeness"]}, "accounts.azure.harm_categories[0]: Input should be 'Hate'"),
        ({**SAFETY, "output_type": "TenLevels"}, "accounts.azure.output_type: Input should be 'FourSeverityLevels'"),
        ({**SAFETY, "blocklists": ["a b"]}, "accounts.azure.blocklists[0]: String should match pattern"),
        ({**SAFETY, "halt_on_blocklist_hit": True}, "halt_on_blocklist_hit is given, but no blocklists"),
        ({**SAFETY, "category_version": 1}, "category_version is given, but no category"),
        ({**SAFETY, "category": "c"}, "category takes api_version 2024-05-15-preview or 2024-09-15-preview"),
        (
            {**SAFETY, "category": "c", "api_version": "2024-05-15-preview", "blocklists": ["a"]},
            "blocklists and category are asked in different calls: make two accounts",
        ),
        (UNDERSTANDING, "give either classifier or analyzer"),
        ({**UNDERSTANDING, "classifier": "c", "analyzer": "a"}, "give either classifier or analyzer"),
        ({**UNDERSTANDING, "classifier": "c", "api_version": "2025-11-01"}, "takes api_version 2025-05-01-preview"),
        ({**UNDERSTANDING, "classifier": "a/b"}, "accounts.azure.classifier: String should match pattern"),
        (
            {**UNDERSTANDING, "analyzer": "a", "api_version": "2025-01-01"},
            "a classifier takes api_version 2025-05-01-preview, an analyzer 2025-11-01 or later",
        ),
    ],
)
def test_an_azure_account_is_told_what_does_not_go_together(
    read: Callable[..., Settings], account: dict[str, object], complaint: str
) -> None:
    with pytest.raises(Misconfigured) as refusal:
        read(with_setting("accounts.azure", account))
    assert complaint in str(refusal.value)
    assert KEY not in str(refusal.value)


@pytest.mark.parametrize(
    "account",
    [
        {**JULY, "model_id": "3fa85f64_MultiClassification_latest"},
        {**JULY, "model_id": "m", "training": {**PLACE, "project": "p", "language": "en-us"}},
        {**OCTOBER, "project": "p", "deployment": "d", "training": {**PLACE, "multilingual": True}},
        {**LANGUAGE, "project": "p", "deployment": "d", "api_version": date(2022, 5, 1)},
        SAFETY,
        {**SAFETY, "harm_categories": ["Hate"], "blocklists": ["slurs"], "halt_on_blocklist_hit": True},
        {**SAFETY, "category": "c", "api_version": "2024-09-15-preview", "category_version": 2},
        {**UNDERSTANDING, "classifier": "c"},
        {**UNDERSTANDING, "analyzer": "a", "api_version": date(2025, 11, 1), "task": "multi_label"},
    ],
)
def test_every_dialect_of_azure_can_be_set(read: Callable[..., Settings], account: dict[str, object]) -> None:
    settings = read(with_setting("accounts.azure", account)).accounts["azure"]
    assert isinstance(settings, Azure)
    assert settings.secret.get_secret_value() == KEY


def test_every_wrong_setting_is_named_at_once(read: Callable[..., Settings]) -> None:
    tree = with_setting("kafka.group_id", ...)
    tree["streams"][0]["batch"] = {"documents": "many"}
    tree["log"] = {"level": "loud"}
    with pytest.raises(Misconfigured) as refusal:
        read(tree)
    lines = str(refusal.value).splitlines()
    assert [line.split(": ")[1] for line in lines] == ["kafka.group_id", "streams[0].batch.documents", "log.level"]


def test_two_streams_have_different_names_and_different_inputs(read: Callable[..., Settings]) -> None:
    tree = copy.deepcopy(TREE)
    tree["streams"].append({**TREE["streams"][0], "input": "posts"})
    with pytest.raises(Misconfigured, match="streams: the name 'tickets' is given twice"):
        read(tree)
    tree["streams"][1].update(name="posts", input="incoming")
    with pytest.raises(Misconfigured, match="streams: the input 'incoming' is given twice: members of one group share"):
        read(tree)
    tree["streams"][1].update(input="classified", output="further")  # one stream may go on from another's output
    assert len(read(tree).streams) == 2


@pytest.mark.parametrize(
    ("written", "seconds"),
    [
        ("200ms", 0.2),
        ("30s", 30),
        ("5m", 300),
        ("1h", 3600),
        ("1d", 86400),
        ("1.5 s", 1.5),
        ("7", 7),
        (7, 7),
        (0.5, 0.5),
    ],
)
def test_durations_are_written_with_units(read: Callable[..., Settings], written: object, seconds: float) -> None:
    assert read(with_setting("streams.0.batch.wait", written)).streams[0].batch.wait == pytest.approx(seconds)


@pytest.mark.parametrize(
    ("written", "size"), [("512KiB", 2**19), ("64MiB", 2**26), ("1GB", 10**9), ("0.5KiB", 512), ("9B", 9), (4096, 4096)]
)
def test_sizes_are_written_with_units(read: Callable[..., Settings], written: object, size: int) -> None:
    assert read(with_setting("streams.0.capacity.bytes", written)).streams[0].capacity.bytes == size


def test_a_version_that_yaml_takes_for_a_date_is_meant_as_it_is_written(read: Callable[..., Settings]) -> None:
    tree = with_setting("accounts.azure.api_version", date(2022, 5, 1))
    assert azure(read(tree)).api_version == "2022-05-01"
    assert azure(read(with_setting("accounts.azure.api_version", "2022-10-01-preview"))).api_version.endswith("preview")


@pytest.mark.parametrize(
    ("kafka", "protocol"),
    [
        ({"bootstrap_servers": "127.0.0.1:9092"}, "PLAINTEXT"),
        ({"bootstrap_servers": "localhost:9092,[::1]:9093"}, "PLAINTEXT"),
        ({"bootstrap_servers": "kafka:9092"}, "SSL"),
        ({"bootstrap_servers": "127.0.0.1:9092, kafka:9092"}, "SSL"),
        ({"bootstrap_servers": "127.0.0.1.contoso.com:9092"}, "SSL"),
        ({"bootstrap_servers": "10.0.0.1:9092", "security_protocol": "PLAINTEXT"}, "PLAINTEXT"),
        ({"bootstrap_servers": "127.0.0.1:9092", "ssl_ca_file": "ca.pem"}, "SSL"),
        ({"bootstrap_servers": "kafka:9092", "sasl_username": "me", "sasl_password": KEY}, "SASL_SSL"),
        ({"bootstrap_servers": "localhost:9092", "sasl_username": "me", "sasl_password": KEY}, "SASL_PLAINTEXT"),
    ],
)
def test_what_leaves_the_machine_is_encrypted_unless_the_settings_say_otherwise(
    kafka: dict[str, str], protocol: str
) -> None:
    assert parse({**TREE, "kafka": {"group_id": "triage", **kafka}}).kafka.protocol == protocol


def test_a_user_that_the_protocol_would_not_name_is_refused() -> None:
    kafka = {**TREE["kafka"], "sasl_username": "me", "sasl_password": KEY, "security_protocol": "SSL"}
    with pytest.raises(Misconfigured, match="kafka: security_protocol SSL would not use sasl_username"):
        parse({**TREE, "kafka": kafka})


@pytest.mark.parametrize(
    ("host", "stays"),
    [
        ("localhost", True),
        ("127.0.0.1", True),
        ("127.8.9.1", True),
        ("::1", True),
        ("0:0:0:0:0:0:0:1", True),
        ("127.0.0.1.contoso.com", False),
        ("127.contoso.com", False),
        ("localhost.contoso.com", False),
        ("0.0.0.0", False),  # noqa: S104  it is not bound to
        ("10.0.0.1", False),
        ("", False),
    ],
)
def test_loopback_is_this_machine_and_nothing_that_is_called_like_it(host: str, stays: bool) -> None:
    assert is_loopback(host) is stays


@pytest.mark.parametrize("endpoint", ["http://127.0.0.1:8080", "http://localhost:8080/", "http://[::1]:8080"])
def test_an_endpoint_on_this_machine_may_be_plain(endpoint: str) -> None:
    assert azure(parse(with_setting("accounts.azure.endpoint", endpoint))).endpoint == endpoint


def test_plain_http_beyond_this_machine_has_to_be_asked_for() -> None:
    tree = with_setting("accounts.azure.endpoint", "http://labelstream:8080")
    tree["accounts"]["azure"]["plaintext"] = True
    assert azure(parse(tree)).plaintext


def test_a_key_may_be_in_a_file_that_is_read_when_it_is_needed(tmp_path: Path) -> None:
    path = tmp_path / "key"
    path.write_text(f"{KEY}\n", encoding="utf-8")
    tree = with_setting("accounts.azure.key", ...)
    tree["accounts"]["azure"]["key_file"] = str(path)
    account = azure(parse(tree))
    assert account.secret.get_secret_value() == KEY
    path.write_text("rotated", encoding="utf-8")
    assert account.secret.get_secret_value() == "rotated"


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (None, "key_file .*/key cannot be read: No such file or directory"),
        (b"", "key is empty"),
        (b" \n", "key is empty"),
        (b"\xff\xfe", "key_file .*/key is not text"),
        ("schlüssel".encode(), "key holds characters that no key has"),
        (KEY.encode() + b"\nsecond line", "key holds characters that no key has"),
    ],
)
def test_a_key_file_without_a_key_is_refused(tmp_path: Path, content: bytes | None, complaint: str) -> None:
    path = tmp_path / "key"
    if content is not None:
        path.write_bytes(content)
    tree = with_setting("accounts.azure.key", ...)
    tree["accounts"]["azure"]["key_file"] = str(path)
    with pytest.raises(Misconfigured, match=f"accounts.azure: {complaint}") as refusal:
        parse(tree)
    assert KEY not in str(refusal.value)


def test_the_kafka_password_may_be_in_a_file(tmp_path: Path) -> None:
    path = tmp_path / "password"
    path.write_text(KEY, encoding="utf-8")
    kafka = {**TREE["kafka"], "sasl_username": "me", "sasl_password_file": str(path)}
    password = parse({**TREE, "kafka": kafka}).kafka.password
    assert password is not None
    assert password.get_secret_value() == KEY
    assert parse(TREE).kafka.password is None


def test_secrets_are_not_shown() -> None:
    kafka = {**TREE["kafka"], "sasl_username": "me", "sasl_password": KEY}
    settings = parse({**TREE, "kafka": kafka})
    for shown in (repr(settings), str(settings), settings.model_dump_json(), repr(azure(settings).secret)):
        assert KEY not in shown
    assert azure(settings).secret.get_secret_value() == KEY
    training = LanguageTraining.model_validate(PLACE)
    assert KEY not in f"{training!r} {training} {training.model_dump_json()} {training.place!r}"
    assert KEY in training.place.get_secret_value()
    with pytest.raises(ValidationError) as refusal:
        AzureLanguage.model_validate({**TREE["accounts"]["azure"], "task": KEY})
    assert KEY not in str(refusal.value)


def test_settings_do_not_change() -> None:
    settings = parse(TREE)
    with pytest.raises(ValidationError):
        settings.kafka.group_id = "another"  # type: ignore[misc]
    with pytest.raises(ValidationError):
        settings.log = settings.log  # type: ignore[misc]


ENVIRONMENT = {
    "LABELSTREAM_KAFKA__GROUP_ID": "from-outside",
    "LABELSTREAM_ACCOUNTS__AZURE__KEY": "key-from-outside",
    "LABELSTREAM_ACCOUNTS__AZURE__LIMITS__IN_FLIGHT": "3",
    "LABELSTREAM_HEALTH__PORT": "0",
    "LABELSTREAM_LOG__LEVEL": "debug",
}


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> Callable[[dict[str, str]], None]:
    def put(values: dict[str, str]) -> None:
        for name, value in values.items():
            monkeypatch.setenv(name, value)

    return put


def test_the_environment_overrides_single_settings_of_the_file(
    read: Callable[..., Settings], environment: Callable[[dict[str, str]], None]
) -> None:
    environment(ENVIRONMENT)
    settings = read()
    assert (settings.kafka.group_id, settings.kafka.bootstrap_servers) == ("from-outside", "127.0.0.1:9092")
    assert azure(settings).secret.get_secret_value() == "key-from-outside"
    assert (azure(settings).limits.in_flight, azure(settings).project) == (3, "tickets")
    assert set(settings.accounts) == {"azure", "onsite"}
    assert (settings.health.port, settings.log.level) == (0, "debug")


def test_a_tree_alone_is_read_without_the_environment(environment: Callable[[dict[str, str]], None]) -> None:
    environment(ENVIRONMENT)
    assert parse(TREE).kafka.group_id == "triage"


def test_a_whole_branch_may_come_from_the_environment_as_json(
    read: Callable[..., Settings], environment: Callable[[dict[str, str]], None]
) -> None:
    environment({"LABELSTREAM_STREAMS": json.dumps([{**TREE["streams"][0], "name": "elsewhere"}])})
    assert [stream.name for stream in read().streams] == ["elsewhere"]


@pytest.mark.parametrize(
    ("name", "value", "complaint"),
    [
        ("LABELSTREAM_KAFAK__GROUP_ID", "x", "LABELSTREAM_KAFAK__GROUP_ID: no such setting, did you mean 'kafka'?"),
        ("LABELSTREAM_KAFKA__GROUP", "x", "kafka: unknown key 'group', did you mean 'group_id'?"),
        ("LABELSTREAM_ACCOUNTS__AZURE__KYE", KEY, "accounts.azure: unknown key 'kye', did you mean 'key'?"),
        ("LABELSTREAM_ACCOUNTS__AZUER__KEY", KEY, "accounts.azuer: provider is required"),
        (
            "LABELSTREAM_ACCOUNTS__AZURE__LIMITS__IN_FLIGHT",
            KEY,
            "accounts.azure.limits.in_flight: write adaptive, or",
        ),
        ("LABELSTREAM_STREAMS", f"[{KEY}", "LABELSTREAM_STREAMS: what it holds is not JSON"),
        ("LABELSTREAM_STREAMS__0__INPUT", "x", "streams: must be a list"),
    ],
)
def test_a_wrong_environment_variable_is_refused_by_its_name(
    read: Callable[..., Settings],
    environment: Callable[[dict[str, str]], None],
    name: str,
    value: str,
    complaint: str,
) -> None:
    environment({name: value})
    with pytest.raises(Misconfigured) as refusal:
        read()
    assert complaint in str(refusal.value)
    assert KEY not in str(refusal.value)


def test_variables_that_belong_to_others_are_left_alone(
    read: Callable[..., Settings], environment: Callable[[dict[str, str]], None]
) -> None:
    # A Kubernetes service called labelstream puts the first two into every pod beside it.
    environment({"LABELSTREAM_SERVICE_HOST": "10.0.0.1", "LABELSTREAM_PORT_9464_TCP": "x", "KAFKA__GROUP_ID": "x"})
    assert read().kafka.group_id == "triage"


@pytest.mark.parametrize(
    ("text", "where"),
    [
        (f"kafka:\n  sasl_password: *{KEY}\n", "line 2, column 18"),
        (f"kafka:\n  sasl_password: !{KEY} x\n", "line 2, column 18"),
        (f"kafka:\n  sasl_password: {KEY}: {KEY}\n", "line 2, column"),
        (f"kafka:\n  sasl_password: '{KEY}\n", "line 3, column 1"),
        (f"kafka: [{KEY}\n", "line 2, column 1"),
        (f"kafka:\n\t{KEY}: 1\n", "line 2, column 1"),
    ],
)
def test_what_is_not_yaml_is_refused_by_its_place_and_not_quoted(
    read: Callable[..., Settings], text: str, where: str
) -> None:
    with pytest.raises(Misconfigured, match=f"labelstream.yaml: is not YAML at {where}") as refusal:
        read(text)
    assert KEY not in str(refusal.value)


@pytest.mark.parametrize("text", ["", "just words", "- a\n- b\n", "5"])
def test_what_is_not_a_mapping_is_refused(read: Callable[..., Settings], text: str) -> None:
    with pytest.raises(Misconfigured, match="must be a mapping with the keys kafka, accounts, streams"):
        read(text)


def test_a_file_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Misconfigured, match=r"nowhere\.yaml: cannot be read: No such file or directory"):
        load(tmp_path / "nowhere.yaml")
    with pytest.raises(Misconfigured, match="cannot be read: Is a directory"):
        load(tmp_path)
    (tmp_path / "latin.yaml").write_bytes(b"kafka: \xe4")
    with pytest.raises(Misconfigured, match=r"latin\.yaml: is not UTF-8 text"):
        load(tmp_path / "latin.yaml")
    (tmp_path / "binary.yaml").write_bytes(b"kafka: \x00")
    with pytest.raises(Misconfigured, match=r"binary\.yaml: is not YAML"):
        load(tmp_path / "binary.yaml")
