"""What `compose.yaml` starts of ours, by its own commands, on a real broker: its images cannot be had everywhere."""

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

from tests.commands import PATIENCE, environment, started
from tests.kafka.broker import Broker
from tests.kafka.topics import fill, size
from tests.ops.prometheus import ROOT
from tests.ops.test_compose import CONFIG, SERVICES

SAMPLES = ROOT / "service" / "samples"


def test_its_commands_train_serve_and_classify_the_sample_tickets(broker: Broker, tmp_path: Path) -> None:
    bootstrap = broker.bootstrap
    for name in ("incoming", "classified", "billing", "review", "dead"):
        broker.create_topic(f"tickets.{name}", 4)
    with socket.create_server(("127.0.0.1", 0)) as free:
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
    here = {
        "/models": str(tmp_path / "models"),
        "/samples": str(SAMPLES),
        "/var/lib/labelstream": str(tmp_path / "served"),
        "0.0.0.0": "127.0.0.1",  # noqa: S104  is taken out
        "http://serve:8080": url,
        "--port=8080": f"--port={url.rpartition(':')[2]}",
        "$$": "$",
    }

    def local(text: str) -> str:
        for there, place in here.items():
            text = text.replace(there, place)
        return text

    (tmp_path / "models").mkdir()
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    training = [*SERVICES["model"]["entrypoint"], *map(local, SERVICES["model"]["command"])]
    subprocess.run(training, env=environment(PATH=path), check=True, capture_output=True, timeout=PATIENCE)
    key = {"LABELSTREAM_SERVE_KEY": "for-this-demonstration-alone"}
    elsewhere = {
        "LABELSTREAM_ACCOUNTS__SERVED__KEY": key["LABELSTREAM_SERVE_KEY"],
        "LABELSTREAM_ACCOUNTS__SERVED__ENDPOINT": url,
        "LABELSTREAM_KAFKA__BOOTSTRAP_SERVERS": bootstrap,
        "LABELSTREAM_HEALTH__PORT": "0",
    }
    with started(tmp_path, *map(local, SERVICES["serve"]["command"]), **key) as server:
        assert server.line().startswith("serving on")
        with started(tmp_path, "run", CONFIG / "labelstream.yaml", **elsewhere) as worker:
            tickets = (SAMPLES / "tickets.jsonl").read_bytes().splitlines()[::5]
            fill(bootstrap, "tickets.incoming", [*tickets, b"this is no JSON, and becomes a dead letter"])
            worker.wait_until(lambda: size(bootstrap, "tickets.classified") == len(tickets))
            worker.wait_until(lambda: size(bootstrap, "tickets.dead") == 1)
            assert worker.ended_by(signal.SIGTERM) == 0
    assert 0 < size(bootstrap, "tickets.billing") < len(tickets)
