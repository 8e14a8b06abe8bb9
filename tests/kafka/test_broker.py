import asyncio
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, ConsumerRecord, TopicPartition
from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from tests.kafka.broker import JARS, Broker
from tests.kafka.java import CannotRun, NotInstalled, find_java

ROOT = Path(__file__).parents[2]


async def send(bootstrap: str, topic: str, values: list[bytes], headers: list[tuple[str, bytes]] | None = None) -> None:
    async with AIOKafkaProducer(bootstrap_servers=bootstrap, enable_idempotence=True) as producer:
        for value in values:
            await producer.send_and_wait(topic, value, key=b"key", headers=headers, partition=0)


async def read(bootstrap: str, topic: str, count: int) -> list[ConsumerRecord]:
    async with AIOKafkaConsumer(bootstrap_servers=bootstrap, auto_offset_reset="earliest") as consumer:
        consumer.assign([TopicPartition(topic, 0)])
        async with asyncio.timeout(30):
            return [await consumer.getone() for _ in range(count)]


async def test_what_was_produced_is_consumed_with_its_key_and_headers(
    bootstrap: str, topic: Callable[..., str]
) -> None:
    name = topic()
    await send(bootstrap, name, [b"one"], headers=[("trace", b"\x00\xff"), ("trace", b"twice")])
    (record,) = await read(bootstrap, name, 1)
    assert (record.key, record.value) == (b"key", b"one")
    assert record.headers == (("trace", b"\x00\xff"), ("trace", b"twice"))


async def test_a_restarted_broker_keeps_its_port_and_its_data(broker: Broker, topic: Callable[..., str]) -> None:
    name, bootstrap = topic(), broker.bootstrap
    await send(bootstrap, name, [b"before"])
    await asyncio.to_thread(broker.restart)
    assert broker.bootstrap == bootstrap
    await send(bootstrap, name, [b"between"])
    await asyncio.to_thread(broker.kill)
    await asyncio.to_thread(broker.start)
    await send(bootstrap, name, [b"after"])
    assert [record.value for record in await read(bootstrap, name, 3)] == [b"before", b"between", b"after"]


def test_a_topic_has_the_partitions_and_the_configuration_asked_for(broker: Broker, topic: Callable[..., str]) -> None:
    name = topic(partitions=7, config={"cleanup.policy": "compact"})
    seen = AdminClient({"bootstrap.servers": broker.bootstrap}).list_topics(name, timeout=10).topics[name]
    assert len(seen.partitions) == 7
    with pytest.raises(KafkaException, match="already exists"):
        broker.create_topic(name)


def test_settings_go_over_the_brokers_own_and_a_wrong_one_is_reported_with_the_log(
    broker: Broker, tmp_path: Path
) -> None:
    assert broker.bootstrap
    refused = Broker(tmp_path, properties={"log.retention.hours": "soon"})
    with pytest.raises(CannotRun, match=r"log\.retention\.hours.*broker\.log"):
        refused.start()


def test_a_port_in_use_is_named(broker: Broker, tmp_path: Path) -> None:
    port = int(broker.bootstrap.partition(":")[2])
    with pytest.raises(CannotRun, match=f"port {port} is in use"):
        Broker(tmp_path, port=port).start()


def answers(host: str, port: int) -> bool:
    with socket.socket() as client:
        return client.connect_ex((host, port)) == 0


def test_a_broker_ends_with_the_process_that_started_it(broker: Broker, tmp_path: Path) -> None:
    assert broker.bootstrap
    program = (
        "import pathlib, sys; from tests.kafka.broker import Broker\n"
        "broker = Broker(pathlib.Path(sys.argv[1])); broker.start(); print(broker.bootstrap, flush=True); broker.wait()"
    )
    with subprocess.Popen([sys.executable, "-c", program, tmp_path], cwd=ROOT, stdout=subprocess.PIPE) as owner:
        assert owner.stdout is not None
        host, port = owner.stdout.readline().decode().strip().split(":")
        assert answers(host, int(port))
        owner.send_signal(signal.SIGKILL)
    deadline = time.monotonic() + 20
    while answers(host, int(port)):
        assert time.monotonic() < deadline, "the broker outlived its owner"
        time.sleep(0.05)


def test_the_foreground_broker_says_where_it_is_and_ends_cleanly_on_ctrl_c(broker: Broker, tmp_path: Path) -> None:
    assert broker.bootstrap
    command = [sys.executable, "-m", "tests.kafka.broker", "--port", "0", "--data", str(tmp_path)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as foreground:
        assert foreground.stdout is not None
        assert "Apache Kafka is ready at 127.0.0.1:" in foreground.stdout.readline()
        foreground.send_signal(signal.SIGINT)
        assert foreground.stdout.read().endswith("Stopped.\n")
    assert foreground.returncode == 0


def without_java_and_maven(empty: Path, **environ: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if name not in {"JAVA_HOME", "REQUIRE_ALL_TESTS"}}
    return {**kept, "PATH": str(empty), **environ}


def run_a_kafka_test(environ: dict[str, str]) -> subprocess.CompletedProcess[str]:
    test = f"{__file__}::test_what_was_produced_is_consumed_with_its_key_and_headers"
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", test]
    return subprocess.run(command, cwd=ROOT, env=environ, capture_output=True, text=True, check=False, timeout=60)


def test_without_java_the_closing_lines_say_what_did_not_run_why_and_how_to_get_it(tmp_path: Path) -> None:
    run = run_a_kafka_test(without_java_and_maven(tmp_path))
    assert run.returncode == 0, run.stdout
    *_, heading, count, why, _, debian, macos, end = run.stdout.strip().splitlines()
    assert "real Kafka did not run" in heading
    assert count == "Tests against real Apache Kafka that did not run: 1."
    assert why == "Why: java is not installed, and Kafka runs on Java 17 or later."
    assert "apt install" in debian
    assert "brew install" in macos
    assert "1 skipped" in end


def test_without_java_the_run_fails_where_every_test_has_to_run(tmp_path: Path) -> None:
    run = run_a_kafka_test(without_java_and_maven(tmp_path, REQUIRE_ALL_TESTS="1"))
    assert run.returncode == 1, run.stdout
    assert "java is not installed" in run.stdout
    assert "1 error" in run.stdout.splitlines()[-1]


def program(path: Path, script: str) -> None:
    path.write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
    path.chmod(0o755)


def test_why_maven_could_not_fetch_the_jars_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(NotInstalled, match=r"mvn .* is not installed"):
        JARS._run_maven(tmp_path / "jars")
    program(tmp_path / "mvn", "echo '[ERROR] Could not transfer artifact'; exit 1")
    with pytest.raises(CannotRun, match=r"could not fetch Kafka's jars: \[ERROR\] Could not transfer artifact"):
        JARS._run_maven(tmp_path / "jars")


@pytest.mark.parametrize("version", ["11.0.22", "1.8.0_392"])
def test_a_java_too_old_for_kafka_is_named(version: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    java = tmp_path / "bin" / "java"
    java.parent.mkdir()
    program(java, f"echo 'openjdk version \"{version}\" 2024-01-16' >&2")
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    with pytest.raises(NotInstalled, match=rf"{java} is Java (11|8), .* 17 or later"):
        find_java()
