"""`compose.yaml`, as far as it can be looked at without its images."""

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from service import settings
from tests.ops.prometheus import ROOT, program

COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "compose.yaml").read_text("utf-8"))
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
OURS = [name for name, service in SERVICES.items() if service["image"].startswith("labelstream:")]
CONFIG = ROOT / "config" / "compose"


def mounts() -> Iterator[tuple[str, str]]:
    for service in SERVICES.values():
        for volume in service.get("volumes", ()):
            source, target = volume.split(":")[:2]
            yield source, target


def test_everything_that_a_newcomer_looks_for_is_there() -> None:
    assert set(SERVICES) >= {"kafka", "labelstream", "serve", "tickets", "prometheus", "grafana"}


@pytest.mark.parametrize("name", SERVICES)
def test_nothing_is_reached_from_other_machines_and_every_image_is_of_one_version(name: str) -> None:
    service = SERVICES[name]
    for port in service.get("ports", ()):
        assert re.fullmatch(r"127\.0\.0\.1:(\d+):\1", port)
    assert re.fullmatch(r"[\w./-]+:(v?\d+\.\d+\.\d+|compose)", service["image"])


@pytest.mark.parametrize("name", OURS)
def test_our_own_containers_are_as_restricted_as_in_the_chart(name: str) -> None:
    service = SERVICES[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert name == "model" or "user" not in service


def test_what_is_mounted_is_there() -> None:
    for source, _ in mounts():
        assert (ROOT / source).exists() if source.startswith("./") else source in COMPOSE["volumes"], source


def test_the_worker_takes_its_configuration_and_has_time_to_drain(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LABELSTREAM_ACCOUNTS__SERVED__KEY", "k" * 32)
    wanted = settings.load(CONFIG / "labelstream.yaml")
    (stream,) = wanted.streams
    assert SERVICES["labelstream"]["stop_grace_period"] == f"{stream.drain + 15:.0f}s"
    assert wanted.kafka.bootstrap_servers == "kafka:9092"
    made = re.search(r"for topic in ([a-z ]+);", SERVICES["topics"]["command"][0])
    assert made
    assert {stream.input, *stream.topics_written} == {f"tickets.{name}" for name in made[1].split()}


def test_each_container_is_asked_where_it_listens() -> None:
    assert "healthcheck" not in SERVICES["labelstream"], "the image has one"
    assert SERVICES["model"]["healthcheck"] == {"disable": True}
    assert "8080/readyz" in SERVICES["serve"]["healthcheck"]["test"][-1]


def test_prometheus_takes_its_configuration_with_our_rules(tmp_path: Path) -> None:
    text = (CONFIG / "prometheus.yml").read_text("utf-8")
    (file := tmp_path / "prometheus.yml").write_text(
        text.replace("/etc/prometheus/rules", str(ROOT / "config" / "prometheus")), encoding="utf-8"
    )
    done = subprocess.run(
        [program("promtool"), "check", "config", "--lint=all", file],
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )
    assert done.returncode == 0, done.stderr
    assert "2 rule files found" in done.stdout
    (scraped,) = yaml.safe_load(text)["scrape_configs"][0]["static_configs"]
    assert {target.partition(":")[0] for target in scraped["targets"]} == {"labelstream", "serve"}


def test_grafana_finds_its_source_and_our_boards() -> None:
    (source,) = yaml.safe_load((CONFIG / "grafana" / "datasources.yaml").read_text("utf-8"))["datasources"]
    assert source["url"] == "http://prometheus:9090"
    (provider,) = yaml.safe_load((CONFIG / "grafana" / "dashboards.yaml").read_text("utf-8"))["providers"]
    assert provider["allowUiUpdates"] is False
    assert ("./config/grafana", provider["options"]["path"]) in mounts()
    home = SERVICES["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
    assert (ROOT / "config" / "grafana" / Path(home).name).exists()
