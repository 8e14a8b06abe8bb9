"""The chart on a real API server: `python -m tests.ops.cluster KUBE_APISERVER ETCD [CRD_FOLDER…]`.

It takes the two programs, and for the kinds of operators (PodMonitor, PrometheusRule, ScaledObject …) the folders of
their definitions. Nothing is scheduled, as there is no node. What is shown: Helm installs, upgrades and rolls back; the
server takes every object; every pod passes the Pod Security Standard `restricted`, which its namespace enforces.
"""

import secrets
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import helm_python
import httpx
import yaml
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from tests.ops.helm import OPERATORS, VALUES, chart, rendered, with_values

NAMESPACE = "support"
PATIENCE = 60.0


def main(apiserver: str, etcd: str, *definitions: str) -> None:
    """Run all of it. Raises AssertionError with what is not so, or Helm's own errors."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="labelstream-")))
        kept = f"http://127.0.0.1:{free_port()}"
        stack.enter_context(
            program(
                *(etcd, f"--data-dir={folder / 'etcd'}", f"--listen-client-urls={kept}"),
                *(f"--advertise-client-urls={kept}", f"--listen-peer-urls=http://127.0.0.1:{free_port()}"),
                log=folder / "etcd.log",
            )
        )
        port, token = free_port(), secrets.token_hex(16)
        stack.enter_context(
            program(apiserver, *flags(folder, kept, port, token), log=folder / "kube-apiserver.log"),
        )
        url = f"https://127.0.0.1:{port}"
        http = stack.enter_context(
            httpx.Client(base_url=url, verify=False, headers={"Authorization": f"Bearer {token}"}, trust_env=False)  # noqa: S501  its certificate is its own, of this minute
        )
        wait_until_ready(http, folder / "kube-apiserver.log")
        say(f"Kubernetes {http.get('/version').json()['gitVersion']}")
        prepare(http, [Path(each) for each in definitions])
        config = helm_python.Config(
            kube_apiserver=url, kube_token=token, kube_insecure_skip_tls_verify=True, namespace=NAMESPACE
        )
        releases(http, config, bool(definitions))


def releases(http: httpx.Client, config: helm_python.Config, with_operators: bool) -> None:
    """Install, upgrade and roll back with each of the chart's example values."""
    for name, values in VALUES.items():
        if not with_operators and OPERATORS & {each["kind"] for each in rendered(values, name)}:
            say(f"{name}: left out, as there are no definitions of operators' kinds")
            continue
        config.install(chart(), name, values)
        deployment = f"/apis/apps/v1/namespaces/{NAMESPACE}/deployments/{name}-labelstream"
        before = got(http, deployment)
        later = with_values(name, image={"digest": "", "tag": "9.9.9"}, commonLabels={"tier": "x"})
        config.upgrade(chart(), name, later)
        after = got(http, deployment)
        assert after["spec"]["selector"] == before["spec"]["selector"]
        assert after["spec"]["template"]["spec"]["containers"][0]["image"].endswith(":9.9.9")
        config.rollback(name, version=1)
        assert got(http, deployment)["spec"]["template"] == before["spec"]["template"]
        for each in rendered(values, name):
            if each["kind"] in {"Deployment", "Pod"}:
                be_admitted(http, each)
        config.uninstall(name)
        say(f"{name}: installed, upgraded, rolled back; its pods are admitted as restricted")


def be_admitted(http: httpx.Client, made: dict[str, Any]) -> None:
    """Have the API server admit the pod of an object, as whoever starts it would."""
    spec = made["spec"] if made["kind"] == "Pod" else made["spec"]["template"]["spec"]
    if spec.get("priorityClassName"):
        spec = {name: value for name, value in spec.items() if name != "priorityClassName"}
    name = f"admitted-{secrets.token_hex(4)}"
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec}
    answer = http.post(f"/api/v1/namespaces/{NAMESPACE}/pods?fieldValidation=Strict", json=pod)
    assert answer.status_code == 201, answer.text


def prepare(http: httpx.Client, definitions: Sequence[Path]) -> None:
    """Make the namespaces, of which one enforces `restricted`, and the kinds of operators."""
    enforced = {"pod-security.kubernetes.io/enforce": "restricted"}
    for name, labels in ((NAMESPACE, enforced), ("monitoring", {})):
        body = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}}
        assert http.post("/api/v1/namespaces", json=body).status_code == 201
    spec = {"containers": [{"name": "a", "image": "a"}]}
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a"}, "spec": spec}
    refused = http.post(f"/api/v1/namespaces/{NAMESPACE}/pods", json=pod)
    assert "restricted" in refused.json()["message"], refused.text
    wanted = ("podmonitors", "prometheusrules", "scaledobjects", "triggerauthentications")
    for path in (path for folder in definitions for path in folder.glob("*.yaml")):
        if path.stem.rpartition("_")[2] in wanted:
            body = yaml.safe_load(path.read_text("utf-8"))
            made = http.post("/apis/apiextensions.k8s.io/v1/customresourcedefinitions", json=body)
            assert made.status_code == 201, made.text
    time.sleep(3 if definitions else 0)  # until they are served


def flags(folder: Path, kept: str, port: int, token: str) -> list[str]:
    """What the API server is told: no admission but its own, one user who may do everything."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    private, public = folder / "sa.key", folder / "sa.pub"
    private.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption()))
    public.write_bytes(key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    (users := folder / "tokens.csv").write_text(f"{token},admin,admin,system:masters\n", encoding="utf-8")
    return [
        f"--etcd-servers={kept}",
        "--bind-address=127.0.0.1",
        "--endpoint-reconciler-type=none",
        f"--secure-port={port}",
        f"--cert-dir={folder / 'certs'}",
        f"--service-account-issuer=https://127.0.0.1:{port}",
        f"--service-account-key-file={public}",
        f"--service-account-signing-key-file={private}",
        f"--token-auth-file={users}",
        "--authorization-mode=RBAC",
        "--service-cluster-ip-range=10.0.0.0/24",
        "--disable-admission-plugins=ServiceAccount",
    ]


@contextmanager
def program(*command: str, log: Path) -> Iterator[None]:
    """A program that does not outlive the block."""
    with log.open("wb") as lines:
        running = subprocess.Popen(command, stdout=lines, stderr=lines)
    try:
        yield
    finally:
        running.kill()
        running.wait()


def wait_until_ready(http: httpx.Client, log: Path) -> None:
    """Ask until it says so. Raises AssertionError with the end of its log."""
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            if http.get("/readyz").status_code == 200:
                return
        except httpx.TransportError:
            pass
        assert time.monotonic() < deadline, log.read_text("utf-8", "replace")[-2000:]
        time.sleep(0.2)


def got(http: httpx.Client, path: str) -> dict[str, Any]:
    """An object as the server has it."""
    answer = http.get(path)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port: int = free.getsockname()[1]
        return port


def say(line: str) -> None:
    """Tell how far it is."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main(*sys.argv[1:])
