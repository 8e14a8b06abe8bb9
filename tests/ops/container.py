"""The image, started by podman from what the chart renders, on real Kafka: `python -m tests.ops.container IMAGE`.

It takes podman, Java 17 and Maven. Pods are on the host's network, as the broker is, and their probes are left out:
podman would run curl in the container, which is not there. What is shown: documents are classified, the process is
nobody's root, its root file system is read-only, the health check passes, and a stop drains and ends with exit code 0.
"""

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import yaml

from tests.kafka.broker import Broker
from tests.kafka.topics import document, fill, size
from tests.kafka.workers import small_model
from tests.ops.helm import rendered

DOCUMENTS = 2000
PATIENCE = 120.0


def main(image: str) -> None:
    """Run all of it. Raises AssertionError with what is not so."""
    with tempfile.TemporaryDirectory(prefix="labelstream-") as name, Broker(Path(name) / "kafka") as broker:
        folder = Path(name)
        folder.chmod(0o755)
        for topic in ("incoming", "classified", "dead"):
            broker.create_topic(topic, 4)
        fill(broker.bootstrap, "incoming", (document(number) for number in range(DOCUMENTS)))
        (manifest := folder / "release.yaml").write_text(
            yaml.safe_dump_all(pods(image, broker.bootstrap, small_model(folder / "model"))), encoding="utf-8"
        )
        podman("kube", "play", str(manifest))
        try:
            look(image, broker.bootstrap)
        finally:
            podman("kube", "down", str(manifest))


def pods(image: str, bootstrap: str, model: Path) -> list[dict[str, Any]]:
    """What of the chart podman can play."""
    repository, _, tag = image.rpartition(":")
    values = {
        "image": {"repository": repository, "tag": tag, "pullPolicy": "Never"},
        "replicaCount": 1,
        "config": {
            "kafka": {"bootstrap_servers": bootstrap, "group_id": "triage"},
            "accounts": {"onsite": {"provider": "local", "model": "/models/tickets"}},
            "streams": [
                {
                    "name": "tickets",
                    "input": "incoming",
                    "classify_with": "onsite",
                    "output": "classified",
                    "dead_letter": "dead",
                }
            ],
        },
        "extraVolumes": [{"name": "models", "hostPath": {"path": str(model), "type": "Directory"}}],
        "extraVolumeMounts": [{"name": "models", "mountPath": "/models/tickets", "readOnly": True}],
    }
    played = [each for each in rendered(values) if each["kind"] in {"ConfigMap", "Deployment"}]
    for each in played:
        if each["kind"] == "Deployment":
            pod = each["spec"]["template"]["spec"]
            pod["hostNetwork"] = True
            for unplayed in ("ports", "startupProbe", "livenessProbe", "readinessProbe"):
                del pod["containers"][0][unplayed]
    return played


def look(image: str, bootstrap: str) -> None:
    """See that it works, and as whom."""
    container = next(name for name in podman("ps", "--format", "{{.Names}}").split() if name.endswith("-labelstream"))
    wait_until(lambda: size(bootstrap, "classified") == DOCUMENTS)
    say(f"{DOCUMENTS:,} documents are classified, {size(bootstrap, 'dead')} are dead letters")
    assert httpx.get("http://127.0.0.1:9464/readyz", trust_env=False).status_code == 200
    say("it is ready")
    user = podman("exec", container, "python3", "-c", "import os; print(os.getuid(), os.getgid())").split()
    assert user == ["10001", "10001"], user
    state = json.loads(podman("inspect", container))[0]
    assert state["HostConfig"]["ReadonlyRootfs"] is True
    assert not state["EffectiveCaps"], state["EffectiveCaps"]
    wrote = subprocess.run(["podman", "exec", container, "touch", "/opt/x"], capture_output=True, check=False)
    assert b"Read-only file system" in wrote.stderr, wrote.stderr
    say("it is uid 10001 without capabilities, on a read-only root file system")
    _, *check = json.loads(podman("image", "inspect", image))[0]["Healthcheck"]["Test"]
    podman("exec", container, *check)
    say("its health check passes")
    podman("stop", "--time", "40", container)
    state = json.loads(podman("inspect", container))[0]["State"]
    assert state["ExitCode"] == 0, state
    say("stopped by SIGTERM, it drains and ends with exit code 0")


def wait_until(reached: Callable[[], bool]) -> None:
    """Look every half second. Raises AssertionError after two minutes."""
    deadline = time.monotonic() + PATIENCE
    while not reached():
        assert time.monotonic() < deadline, f"it did not come about in {PATIENCE:.0f} s"
        time.sleep(0.5)


def podman(*arguments: str) -> str:
    """What podman answers."""
    done = subprocess.run(["podman", *arguments], capture_output=True, text=True, check=False, timeout=PATIENCE)
    assert done.returncode == 0, f"podman {' '.join(arguments)}: {done.stderr}{done.stdout}"
    return done.stdout


def say(line: str) -> None:
    """Tell how far it is."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main(*sys.argv[1:])
