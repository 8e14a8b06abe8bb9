"""The feed of a benchmark: documents in, results out, and the time between them.

Its broker is librdkafka's mock, in its own process, or a real one that is named.
"""

import secrets
import time
from dataclasses import dataclass
from multiprocessing.connection import Connection

from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from service.bench.place import PARTITIONS
from service.errors import Unavailable

_AHEAD = 16000


@dataclass(frozen=True)
class Flow:
    """How many documents come in a second (None: as many as are taken), and how long their texts are."""

    per_second: float | None = None
    characters: int = 980


def feed(connection: Connection, bootstrap: str | None, flow: Flow) -> None:
    """Feed until told to end; says where, and at the end what latencies it saw."""
    name = f"bench-{secrets.token_hex(4)}"
    topics = [f"{name}.incoming", f"{name}.classified", f"{name}.dead", f"{name}.jobs"]
    linger = 20 if flow.per_second is None else 1  # the mock answers a fetch with one batch a partition, however small
    if bootstrap is None:
        producer = Producer({"test.mock.num.brokers": 1, "log_level": 0, "linger.ms": linger})
        for topic in topics:
            producer.list_topics(topic, timeout=10)
        broker = next(iter(producer.list_topics(timeout=10).brokers.values()))
        where = f"{broker.host}:{broker.port}"
        _load(connection, producer, where, topics, flow)
        return
    admin = AdminClient({"bootstrap.servers": bootstrap, "log_level": 0})
    made = admin.create_topics([NewTopic(topic, PARTITIONS, 1) for topic in topics], request_timeout=10)
    try:
        for future in made.values():
            future.result(15)
    except Exception as error:  # noqa: BLE001  whatever it is, the parent says it
        connection.send(Unavailable(f"--bootstrap {bootstrap}: no topics can be made there: {error}"))
        return
    try:
        producer = Producer({"bootstrap.servers": bootstrap, "linger.ms": linger})
        _load(connection, producer, bootstrap, topics, flow)
    finally:
        admin.delete_topics(topics)
        admin.poll(1)


def _load(connection: Connection, producer: Producer, where: str, topics: list[str], flow: Flow) -> None:
    consumer = Consumer({"bootstrap.servers": where, "group.id": "bench-feed", "fetch.wait.max.ms": 5, "log_level": 0})
    consumer.assign([TopicPartition(topics[1], 0, 0)])  # one partition stands for all: the feed is not to be in the way
    connection.send([where, *topics])
    connection.recv()
    sentence = b"My parcel was due on Tuesday and the tracking page has said the same thing ever since. "
    text = (sentence * (flow.characters // len(sentence) + 1))[: flow.characters]
    rate = flow.per_second
    sent = seen = 0
    began, latencies, command = time.monotonic(), list[float](), ""
    while command != "end":
        if connection.poll():
            command = connection.recv()
        due = _AHEAD + seen if rate is None else int((time.monotonic() - began) * rate)
        for _ in range(min(due - sent, 200)):
            now = time.time() * 1000
            value = b'{"id":"T-%d","text":"%b"}' % (sent, text)
            headers = [("sent", str(now).encode())]  # results carry their document's headers
            producer.produce(topics[0], value, str(sent).encode(), partition=sent % PARTITIONS, headers=headers)
            sent += 1
        producer.poll(0)
        for message in consumer.consume(500, 0.004):
            if message.error() is None:
                seen += PARTITIONS
                if command == "measure":
                    latencies.append(message.timestamp()[1] - float(dict(message.headers())["sent"]))
    connection.send(latencies)
