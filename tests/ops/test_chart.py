"""The chart: what it renders is what API servers take and keeps its promises; what contradicts itself is refused."""

import json
import re
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import helm_python
import kubernetes_validate
import pytest
import yaml

from service import settings
from service.limits.admission import Held
from tests.ops.chart import CHART, README, ROOT, readme, values
from tests.ops.helm import OPERATORS, VALUES, only, rendered, with_values
from tests.ops.prometheus import RULES, program
from tests.ops.prometheus import alerts as written_alerts

ABOUT: dict[str, Any] = yaml.safe_load((CHART / "Chart.yaml").read_text("utf-8"))
SCHEMA: dict[str, Any] = json.loads((CHART / "values.schema.json").read_text("utf-8"))
DEFAULTS: dict[str, Any] = yaml.safe_load((CHART / "values.yaml").read_text("utf-8"))
OLDEST = int(ABOUT["kubeVersion"].split(".")[1])
NEWEST = int(kubernetes_validate.latest_version().split(".")[1])


def objects() -> Iterator[tuple[str, dict[str, Any]]]:
    for name, given in VALUES.items():
        yield from ((name, each) for each in rendered(given))


def pods() -> list[Any]:
    """Every pod that any values make."""
    found = []
    for name, each in objects():
        spec = {"Deployment": lambda it: it["spec"]["template"]["spec"], "Pod": lambda it: it["spec"]}.get(each["kind"])
        if spec:
            found.append(pytest.param(spec(each), id=f"{name}-{each['metadata']['name']}"))
    return found


@pytest.mark.parametrize("given", [{}, *VALUES.values()], ids=["default", *VALUES])
def test_helm_has_nothing_to_object_to(given: dict[str, Any]) -> None:
    said = helm_python.lint(str(CHART), given, kube_version=f"1.{OLDEST}.0")
    assert said["errors"] == []
    assert [each["error"] for each in said["messages"]] == ["icon is recommended"]


@pytest.mark.parametrize("minor", range(OLDEST, NEWEST + 1))
def test_api_servers_of_every_supported_version_take_every_object(minor: int) -> None:
    seen = set()
    for name, each in objects():
        seen.add(each["kind"])
        if each["kind"] not in OPERATORS:
            assert kubernetes_validate.validate(each, f"1.{minor}", strict=True) == f"1.{minor}", (name, each["kind"])
    assert {"HorizontalPodAutoscaler", "PersistentVolumeClaim", "NetworkPolicy", *OPERATORS} < seen


def test_a_field_that_is_misspelt_would_be_seen() -> None:
    deployment = only(rendered(VALUES["minimal"]), "Deployment")
    deployment["spec"]["template"]["spec"]["automountServiceAcountToken"] = False
    with pytest.raises(kubernetes_validate.ValidationError, match="automountServiceAcountToken"):
        kubernetes_validate.validate(deployment, f"1.{NEWEST}", strict=True)


# What may be given


def both(schema: dict[str, Any], defaults: dict[str, Any], path: str = "") -> Iterator[str]:
    """Where schema and defaults differ."""
    known = set(schema["properties"]) - {"global"}
    yield from (f"{path}{name}" for name in known ^ set(defaults))
    for name in known & set(defaults):
        below = schema["properties"][name]
        if "properties" in below:
            assert below["additionalProperties"] is False, f"{path}{name}"
            if isinstance(defaults[name], dict) and not {"resources", "probes"} & {name, path.strip(".")}:
                yield from both(below, defaults[name], f"{path}{name}.")


def test_the_schema_knows_every_value_and_no_other() -> None:
    assert SCHEMA["additionalProperties"] is False
    assert list(both(SCHEMA, DEFAULTS)) == []


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"replicas": 3}, "replicas"),
        ({"replicaCount": "three"}, "replicaCount"),
        ({"image": {"digest": "latest"}}, "digest"),
        ({"probes": {"liveness": {"periodSecond": 1}}}, "periodSecond"),
        ({"autoscaling": {"type": "vpa"}}, "type"),
        ({"podIdentity": {"awsIrsa": {"roleArn": "labelstream"}}}, "roleArn"),
        ({"serve": {"models": ["tickets"]}}, "models"),
        ({"metrics": {"podMonitor": {"enabled": "yes"}}}, "enabled"),
        ({"env": [{"value": "x"}]}, "env"),
        ({"networkPolicy": {"egress": {"ports": [70000]}}}, "ports"),
    ],
)
def test_values_that_are_no_values_are_refused(wrong: dict[str, Any], said: str) -> None:
    with pytest.raises(helm_python.HelmError, match=said):
        rendered(with_values("minimal", **wrong))


KEDA = {"enabled": True, "partitions": 4}


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({}, "there is no configuration"),
        (with_values("minimal", existingConfigMap="triage"), "not both"),
        (with_values("minimal", autoscaling={"enabled": True}), "partitions is not set"),
        (with_values("minimal", autoscaling={**KEDA, "maxReplicas": 5}), "maxReplicas is 5, but the topic has 4"),
        (
            with_values("minimal", workers=2, autoscaling={**KEDA, "maxReplicas": 3}),
            "maxReplicas is 3 of 2 workers each, but the topic has 4",
        ),
        (with_values("minimal", workers=0), "workers"),
        (with_values("minimal", logLevel="loud"), "logLevel"),
        (with_values("minimal", autoscaling={**KEDA, "minReplicas": 5}), "minReplicas is above"),
        (with_values("minimal", autoscaling={**KEDA, "type": "hpa", "minReplicas": 0}), "only KEDA can do"),
        (with_values("hpa", autoscaling={"type": "keda"}), "which existingConfigMap hides"),
        (with_values("minimal", terminationGracePeriodSeconds=39), "is 39, but pods need 40"),
        (with_values("minimal", config={"kafka": {"sasl_password": "x"}}), "kafka.sasl.existingSecret"),
        (with_values("minimal", config={"redis": {"host": "r", "password": "x"}}), "config.redis.password would be"),
        (with_values("minimal", config={"registry": {"url": "r", "password": "x"}}), "config.registry has a secret"),
        (with_values("minimal", config={"registry": {"url": "r", "token": "x"}}), "config.registry has a secret"),
        (with_values("minimal", config={"accounts": {"azure": {"key": "x"}}}), "key that would be in a ConfigMap"),
        (
            with_values("minimal", config={"accounts": {"azure": {"training": {"container": "https://x?sig=y"}}}}),
            "key that would be in a ConfigMap",
        ),
        (with_values("minimal", serve={"enabled": True}), "clients need a key"),
        (with_values("minimal", serve={"enabled": True, "existingSecret": "x"}), "no certificate"),
    ],
)
def test_what_contradicts_itself_is_refused_in_a_sentence(given: dict[str, Any], said: str) -> None:
    with pytest.raises(helm_python.HelmError, match=re.escape(said)):
        rendered(given)


# Pods


@pytest.mark.parametrize("pod", pods())
def test_every_pod_is_restricted(pod: dict[str, Any]) -> None:
    assert pod["automountServiceAccountToken"] is False
    assert pod["enableServiceLinks"] is False
    of_pod = pod["securityContext"]
    assert (of_pod["runAsNonRoot"], of_pod["runAsUser"], of_pod["seccompProfile"]) == (
        True,
        10001,
        {"type": "RuntimeDefault"},
    )
    assert not any("hostPath" in volume for volume in pod["volumes"])
    for container in pod["containers"]:
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert container["resources"]["limits"].keys() == {"memory"}, "a CPU limit would make the event loop late"
        assert {"name": "tmp", "mountPath": "/tmp"} in container["volumeMounts"]  # noqa: S108  the pod's own
        mounted = {mount["name"] for mount in container["volumeMounts"]}
        assert mounted == {volume["name"] for volume in pod["volumes"]}


@pytest.mark.parametrize("name", VALUES)
def test_probes_ask_the_process_about_itself(name: str) -> None:
    container = only(rendered(VALUES[name]), "Deployment", "prod-labelstream")["spec"]["template"]["spec"][
        "containers"
    ][0]
    asked = {probe: container[f"{probe}Probe"]["httpGet"]["path"] for probe in ("startup", "liveness", "readiness")}
    assert asked == {"startup": "/livez", "liveness": "/livez", "readiness": "/readyz"}


@pytest.mark.parametrize(
    ("drains", "grace"),
    [([None], 40), (["45s", "1500ms"], 60), (["2m"], 135), (["1h"], 3615), ([10], 25), ([0.5, "500ms"], 16)],
)
def test_pods_have_longer_than_the_longest_drain(drains: list[Any], grace: int) -> None:
    streams = [{"input": "i"} if drain is None else {"input": "i", "drain": drain} for drain in drains]
    given = with_values("minimal", config={"streams": streams})
    assert only(rendered(given), "Deployment")["spec"]["template"]["spec"]["terminationGracePeriodSeconds"] == grace


def test_a_change_of_the_configuration_starts_new_pods_and_one_of_labels_keeps_the_selector() -> None:
    def deployed(**changed: Any) -> dict[str, Any]:
        spec: dict[str, Any] = only(rendered(with_values("minimal", **changed)), "Deployment")["spec"]
        return spec

    before, after = deployed(), deployed(config={"delivery": "exactly_once"})
    sums = [each["template"]["metadata"]["annotations"]["checksum/config"] for each in (before, after)]
    assert sums[0] != sums[1]
    assert "checksum/config" not in deployed(rolloutOnConfigChange=False)["template"]["metadata"]["annotations"]
    later = deployed(image={"tag": "9.9.9"}, commonLabels={"team": "x"}, podLabels={"tier": "y"})
    assert later["selector"] == before["selector"]
    assert set(later["selector"]["matchLabels"].items()) <= set(later["template"]["metadata"]["labels"].items())


def test_a_pod_has_as_many_workers_and_says_as_much_as_it_is_told() -> None:
    def arguments(**given: object) -> list[str]:
        deployment = only(rendered(with_values("minimal", **given)), "Deployment")
        told: list[str] = deployment["spec"]["template"]["spec"]["containers"][0]["args"]
        return told

    assert arguments() == ["run", "/etc/labelstream/labelstream.yaml"]
    assert arguments(workers=2, logLevel="debug")[2:] == ["--workers=2", "--log-level=debug"]


def test_what_scales_the_workers_owns_their_number() -> None:
    assert only(rendered(VALUES["minimal"]), "Deployment")["spec"]["replicas"] == 2
    for name in ("everything", "hpa", "bare"):
        assert "replicas" not in only(rendered(VALUES[name]), "Deployment", "prod-labelstream")["spec"]


def test_the_service_takes_the_configuration_that_the_pods_get(tmp_path: Path) -> None:
    (key := tmp_path / "key").write_text("k" * 32, encoding="utf-8")
    for name in ("minimal", "everything", "bare"):
        written = only(rendered(VALUES[name]), "ConfigMap", "prod-labelstream")["data"]["labelstream.yaml"]
        tree = yaml.safe_load(re.sub(r"/run/secrets/\S+", str(key), written))
        if name == "everything":  # as the environment says it
            tree["kafka"] |= {"sasl_username": "u", "sasl_password_file": str(key), "ssl_ca_file": str(key)}
        assert settings.parse(tree, name).streams


def test_keys_come_from_secrets_and_pods_from_whom_the_cloud_knows() -> None:
    made = rendered(VALUES["everything"])
    account = only(made, "ServiceAccount")
    assert account["metadata"]["annotations"] == {
        "azure.workload.identity/client-id": "00000000-0000-4000-8000-000000000001",
        "azure.workload.identity/tenant-id": "00000000-0000-4000-8000-000000000002",
        "eks.amazonaws.com/role-arn": "arn:aws:iam::111122223333:role/labelstream",
        "example.com/owner": "support",
        "iam.gke.io/gcp-service-account": "labelstream@project.iam.gserviceaccount.com",
    }
    template = only(made, "Deployment", "prod-labelstream")["spec"]["template"]
    assert template["metadata"]["labels"]["azure.workload.identity/use"] == "true"
    assert template["spec"]["serviceAccountName"] == account["metadata"]["name"]
    secrets = {volume["secret"]["secretName"] for volume in template["spec"]["volumes"] if "secret" in volume}
    assert secrets == {"labelstream-keys", "kafka-user", "kafka-tls"}
    assert not [each for each in made if each["kind"] == "Secret"]


# What stands around the pods


def test_nothing_but_names_brokers_and_classifiers_is_reached() -> None:
    def ports(name: str) -> list[int]:
        egress = only(rendered(VALUES[name]), "NetworkPolicy", "prod-labelstream")["spec"]["egress"]
        assert {port["port"] for port in egress[0]["ports"]} == {53}
        return [port["port"] for port in egress[1]["ports"]]

    assert ports("minimal") == [443, 9093, 9094]
    assert ports("everything") == [443, 9096, 6380, 8081, 4318, 8080, 4317]
    assert ports("hpa") == [443, 9093]
    assert not [each for each in rendered(VALUES["bare"]) if each["kind"] == "NetworkPolicy"]
    policy = only(rendered(VALUES["everything"]), "NetworkPolicy", "prod-labelstream")["spec"]
    assert policy["ingress"][0]["from"] == VALUES["everything"]["networkPolicy"]["metricsFrom"]


def test_a_single_worker_has_no_disruption_budget() -> None:
    assert only(rendered(VALUES["minimal"]), "PodDisruptionBudget")["spec"]["maxUnavailable"] == 1
    alone = rendered(with_values("minimal", replicaCount=1))
    assert not [each for each in alone if each["kind"] == "PodDisruptionBudget"]


def test_keda_goes_by_the_lag_and_adds_nobody_while_calls_are_held() -> None:
    scaled = only(rendered(VALUES["everything"]), "ScaledObject")["spec"]
    assert scaled["maxReplicaCount"] <= VALUES["everything"]["autoscaling"]["partitions"]
    lags = [trigger["metadata"] for trigger in scaled["triggers"] if trigger["type"] == "kafka"]
    assert [each["topic"] for each in lags] == ["tickets.incoming", "posts.incoming"]
    assert {each["allowIdleConsumers"] for each in lags} == {"false"}
    assert {(each["offsetResetPolicy"], each["tls"], each["sasl"]) for each in lags} == {
        ("latest", "enable", "scram_sha512")
    }
    (held,) = [each["metadata"]["query"] for each in scaled["triggers"] if each["name"] == "held"]
    reasons = re.search(r'reason=~"([a-z|]+)"', held)
    assert reasons
    assert set(reasons[1].split("|")) == set(Held) - {Held.IN_FLIGHT}, "more workers have more calls in flight"
    formula = scaled["advanced"]["scalingModifiers"]["formula"]
    assert formula == "held > 0.5 ? workers * 1000 : lag_0 + lag_1"
    assert set(re.findall(r"[a-z]\w+", formula)) == {trigger["name"] for trigger in scaled["triggers"]}
    plain = only(rendered(with_values("minimal", autoscaling=KEDA)), "ScaledObject")["spec"]
    assert "scalingModifiers" not in plain["advanced"]
    assert [trigger["metadata"].get("tls") for trigger in plain["triggers"]] == ["enable"]


def test_prometheus_understands_what_keda_asks(tmp_path: Path) -> None:
    triggers = only(rendered(VALUES["everything"]), "ScaledObject")["spec"]["triggers"]
    asked = [each["metadata"]["query"] for each in triggers if each["type"] == "prometheus"]
    rules = [{"record": f"asked:{number}", "expr": expr} for number, expr in enumerate(asked)]
    (file := tmp_path / "asked.yml").write_text(
        yaml.safe_dump({"groups": [{"name": "asked", "rules": rules}]}), "utf-8"
    )
    subprocess.run([program("promtool"), "check", "rules", file], check=True, capture_output=True, timeout=30)
    assert len(asked) == 2


def test_helm_test_checks_what_the_workers_would_find() -> None:
    made = rendered(VALUES["everything"])
    pod, worker = only(made, "Pod"), only(made, "Deployment", "prod-labelstream")["spec"]["template"]["spec"]
    check, runs = pod["spec"]["containers"][0], worker["containers"][0]
    assert pod["metadata"]["annotations"]["helm.sh/hook"] == "test"
    assert check["args"] == ["check", runs["args"][1]]
    for same in ("image", "env", "envFrom", "volumeMounts", "securityContext"):
        assert check[same] == runs[same]
    assert pod["spec"]["volumes"] == worker["volumes"]


def test_the_server_is_one_pod_with_a_volume_that_outlives_the_release() -> None:
    made = rendered(VALUES["everything"])
    serve = only(made, "Deployment", "prod-labelstream-serve")["spec"]
    assert (serve["replicas"], serve["strategy"]) == (1, {"type": "Recreate"})
    claim = only(made, "PersistentVolumeClaim")["metadata"]
    assert claim["annotations"]["helm.sh/resource-policy"] == "keep"
    (volume,) = [each for each in serve["template"]["spec"]["volumes"] if each["name"] == "data"]
    assert volume["persistentVolumeClaim"]["claimName"] == claim["name"]
    service = only(made, "Service")["spec"]
    assert service["selector"].items() <= serve["template"]["metadata"]["labels"].items()
    worker = only(made, "Deployment", "prod-labelstream")["spec"]["template"]["metadata"]["labels"]
    assert not service["selector"].items() <= worker.items()


# The same files as elsewhere


def test_rules_are_those_of_config() -> None:
    written = [group for path in RULES for group in yaml.safe_load(path.read_text("utf-8"))["groups"]]
    given = with_values("minimal", metrics={"prometheusRule": {"enabled": True}})
    assert only(rendered(given), "PrometheusRule")["spec"]["groups"] == written


def test_rules_can_be_left_out_labelled_and_given_where_things_are() -> None:
    groups = only(rendered(VALUES["everything"]), "PrometheusRule")["spec"]["groups"]
    alerts = [rule for group in groups for rule in group["rules"] if "alert" in rule]
    assert "LabelstreamClassesDrift" not in {each["alert"] for each in alerts}
    of_the_data_team = {alert.name for alert in written_alerts() if alert.labels.get("team") == "data"}
    for each in alerts:
        assert each["labels"]["team"] == ("data" if each["alert"] in of_the_data_team else "support")
        assert each["annotations"]["runbook_url"].startswith("https://example.com/labelstream/docs/runbooks.md#")
        assert each["annotations"]["dashboard"].startswith("https://grafana.example.com/d/labelstream-")


def test_boards_are_those_of_config() -> None:
    maps = [each for each in rendered(VALUES["everything"]) if each["metadata"].get("namespace") == "monitoring"]
    drawn = {name: text for each in maps for name, text in each["data"].items()}
    assert drawn == {
        f"labelstream-{path.name}": path.read_text("utf-8") for path in (ROOT / "config" / "grafana").glob("*.json")
    }
    for each in maps:
        assert each["metadata"]["labels"]["grafana_dashboard"] == "1"
        assert len(json.dumps(each)) < 1024**2


def test_the_readme_is_what_the_values_say() -> None:
    assert README.read_text("utf-8") == readme(), "run `make reference`"
    assert len(list(values())) > 100


def test_the_chart_is_of_this_version_and_of_the_image_beside_it() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    assert str(ABOUT["appVersion"]) == project["version"]
    image = (ROOT / "Dockerfile").read_text("utf-8")
    user = DEFAULTS["podSecurityContext"]
    assert f"USER {user['runAsUser']}:{user['runAsGroup']}" in image
    container = only(rendered(VALUES["minimal"]), "Deployment")["spec"]["template"]["spec"]["containers"][0]
    assert f"EXPOSE {container['ports'][0]['containerPort']}" in image
