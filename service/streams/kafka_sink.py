"""Publishing to Apache Kafka, by aiokafka's idempotent producer.

Each partition that is written to is a lane: while a round of messages is on its way there, the next ones gather, and go
together as one batch of records. What aiokafka 0.14 does that the code here guards against:

* A future for each message and a request for each few of them cost more than all else in sending. So rounds are made
  here, at most one every few milliseconds, and one answer stands for the whole of a round.
* A batch that fails leaves a gap in its producer's sequence numbers, and the broker takes nothing more from it for that
  partition. So a producer that has failed is replaced, and what it did not deliver is sent again.
* One message that is too large for its topic fails the batch that it is in. So such a batch is sent again in halves,
  until the message stands alone.
"""

import asyncio
import math
import time
from collections import Counter as Counting
from collections import deque
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import Any

import structlog
from aiokafka import AIOKafkaProducer
from aiokafka.errors import (
    KafkaError,
    MessageSizeTooLargeError,
    ProducerClosed,
    TopicAuthorizationFailedError,
)
from aiokafka.producer.message_accumulator import BatchBuilder

from service import settings
from service.documents import Message
from service.errors import Unavailable
from service.observability.telemetry import Telemetry
from service.offsets import Partition
from service.streams.kafka_clients import connection, producer_stopped, started
from service.streams.kafka_failures import refusal, smaller, will_pass
from service.streams.kafka_placement import Placement

_ROUND_EVERY = 0.002
"""Seconds from one round to the next at least: more are gathered while they pass, and fewer requests are made."""
LARGEST_ROUND = 128 * 1024
LARGEST_REQUEST = 64 * 1024**2
_RECONNECT_EVERY = 1.0

log = structlog.get_logger(__name__)


class _Delivery:
    """What publishers wait for: done when the last of a lane's messages is safe or too large, or publishing failed."""

    __slots__ = ("done", "left", "too_large")

    def __init__(self) -> None:
        self.left = 0
        self.too_large: list[Message] = []
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def delivered(self, count: int) -> None:
        self.left -= count
        if self.left == 0 and not self.done.done():
            self.done.set_result(None)

    def failed(self, failure: BaseException) -> None:
        if not self.done.done():
            self.done.set_exception(failure)


class _Round:
    """Messages that go to a partition together, and who is to be told."""

    __slots__ = ("delivery", "messages")

    def __init__(self, messages: list[Message], delivery: _Delivery) -> None:
        self.messages = messages
        self.delivery = delivery


class _Lane:
    """One partition of a topic: at most one round is on its way there, others wait in their order, the last gathers."""

    __slots__ = ("busy", "gathering", "waiting")

    def __init__(self) -> None:
        self.waiting: deque[_Round] = deque()
        self.gathering: _Round | None = None
        self.busy = False

    def put(self, messages: Sequence[Message]) -> _Delivery:
        """Have messages go with the next round that is made up."""
        if (gathering := self.gathering) is None:
            gathering = self.gathering = _Round([], _Delivery())
            self.waiting.append(gathering)
        gathering.messages += messages
        gathering.delivery.left += len(messages)
        return gathering.delivery

    def take(self) -> _Round | None:
        """The next round, if one may go now."""
        if self.busy or not self.waiting:
            return None
        taken = self.waiting.popleft()
        if taken is self.gathering:
            self.gathering = None
        self.busy = True
        return taken

    def put_back(self, *rounds: _Round) -> None:
        """Have rounds go before all others."""
        self.waiting.extendleft(reversed(rounds))


class KafkaSink:
    """Publishes messages; made by `producing`."""

    def __init__(self, kafka: settings.Kafka, telemetry: Telemetry, producer: AIOKafkaProducer) -> None:
        self._kafka = kafka
        self._telemetry = telemetry
        self._producer = producer
        self._broken = False
        self._lanes: dict[Partition, _Lane] = {}
        self._wanted = asyncio.Event()
        self._placement = Placement(lambda: self._producer)
        self._said = -math.inf

    async def publish(self, messages: Sequence[Message]) -> list[Message]:
        """As `delivery.Sink.publish`. A dead letter too large for its topic goes without what is large, and says so."""
        if not messages:
            return []
        with self._telemetry.producing(Counting([message.topic for message in messages])):
            placed = await self._placement.placed(messages)
            deliveries = {self._lane(partition).put(bound) for partition, bound in placed.items()}
            self._wanted.set()
            waiting = {delivery.done for delivery in deliveries}
            while waiting:
                _, waiting = await asyncio.wait(waiting, timeout=self._kafka.request_timeout)
                if waiting:
                    self._say_that_it_waits(messages[0].topic)
            failures = [failure for delivery in deliveries if (failure := delivery.done.exception())]
            if failures:
                raise failures[0]
        too_large = [each for delivery in deliveries for each in delivery.too_large]
        ours = set(map(id, messages)) if too_large else ()  # others' messages went along with some of these
        return [each for each in too_large if id(each) in ours]

    async def deliver(self) -> None:
        """Send what has gathered, round after round, until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            await self._wanted.wait()
            self._wanted.clear()
            if self._broken:
                await self._replace()
            began = loop.time()
            for key, lane in list(self._lanes.items()):
                if (taken := lane.take()) is not None:
                    await self._send(key, lane, taken)
            await asyncio.sleep(began + _ROUND_EVERY - loop.time())

    async def close(self) -> None:
        """End the producer, in bounded time."""
        await producer_stopped(self._producer)

    async def _send(self, key: Partition, lane: _Lane, taken: _Round) -> None:
        try:
            builder = self._producer.create_batch()
            count = filled(builder, taken.messages)
            if count < len(taken.messages):
                taken, rest = _parted(taken, count)
                lane.put_back(rest)
            sent = await self._producer.send_batch(builder, key.topic, partition=key.number)
        except Exception as failure:  # noqa: BLE001  whoever waits for it is told, and the other lanes go on
            self._failed(lane, taken, failure)
        else:
            sent.add_done_callback(partial(self._answered, lane, taken))

    def _answered(self, lane: _Lane, taken: _Round, sent: "asyncio.Future[Any]") -> None:
        failure = ProducerClosed() if sent.cancelled() else sent.exception()
        if failure is not None:
            self._failed(lane, taken, failure)
            return
        lane.busy = False
        taken.delivery.delivered(len(taken.messages))
        if lane.waiting:
            self._wanted.set()

    def _failed(self, lane: _Lane, taken: _Round, failure: BaseException) -> None:
        """Have what a failed round held go again, by a producer that is whole; what is at fault goes alone, or not."""
        self._telemetry.produce_errors.labels(type(failure).__name__).inc(len(taken.messages))
        self._broken = True
        lane.busy = False
        if will_pass(failure):
            lane.put_back(taken)
        elif len(taken.messages) > 1 and not isinstance(failure, TopicAuthorizationFailedError):
            lane.put_back(*_parted(taken, len(taken.messages) // 2))
        else:
            self._failed_alone(lane, taken.messages[0], taken.delivery, failure)
        self._wanted.set()

    def _failed_alone(self, lane: _Lane, message: Message, delivery: _Delivery, failure: BaseException) -> None:
        if isinstance(failure, MessageSizeTooLargeError):
            if not message.is_dead_letter:
                delivery.too_large.append(message)
                delivery.delivered(1)
                return
            if (less := smaller(message)) is not None:
                lane.put_back(_Round([less], delivery))
                return
        delivery.failed(refusal(message.topic, failure) if isinstance(failure, KafkaError) else failure)

    def _lane(self, partition: Partition) -> _Lane:
        lane = self._lanes.get(partition)
        if lane is None:
            lane = self._lanes[partition] = _Lane()
        return lane

    def _say_that_it_waits(self, topic: str) -> None:
        now, silence = time.monotonic(), self._kafka.request_timeout
        if now - self._said >= silence:
            self._said = now
            log.warning("publishing_waits", topic=topic, reason=f"no broker has answered for {silence:g} s")

    async def _replace(self) -> None:
        self._broken = False
        while True:
            try:
                producer = await _producer(self._kafka)
            except Unavailable as error:
                log.warning("publishing_waits", reason=str(error))
                await asyncio.sleep(_RECONNECT_EVERY)
            else:
                broken, self._producer = self._producer, producer
                log.info("producer_replaced")
                await producer_stopped(broken)
                return


@asynccontextmanager
async def producing(kafka: settings.Kafka, telemetry: Telemetry) -> AsyncIterator[KafkaSink]:
    """A sink that is connected for the length of the block. Raises Misconfigured or Unavailable."""
    sink = KafkaSink(kafka, telemetry, await _producer(kafka))
    delivering = asyncio.create_task(sink.deliver())
    try:
        yield sink
    finally:
        delivering.cancel()
        with suppress(asyncio.CancelledError):
            await delivering
        await sink.close()


async def _producer(kafka: settings.Kafka) -> AIOKafkaProducer:
    producer = AIOKafkaProducer(
        **connection(kafka),
        enable_idempotence=True,
        max_batch_size=LARGEST_ROUND,
        max_request_size=LARGEST_REQUEST,  # how large a message may be is the topic's to say
    )
    try:
        await started(producer, kafka)
    except BaseException:
        await producer_stopped(producer)
        raise
    return producer


def filled(builder: BatchBuilder, messages: Sequence[Message]) -> int:
    """Put messages into a batch until it is full; how many there was room for."""
    for number, (_, key, value, headers, _) in enumerate(messages):
        if key is None and value is None:
            value = b""  # noqa: PLW2901  aiokafka has no message without both
        if builder.append(timestamp=None, key=key, value=value, headers=list(headers)) is None:
            return number
    return len(messages)


def _parted(whole: _Round, at: int) -> tuple[_Round, _Round]:
    return _Round(whole.messages[:at], whole.delivery), _Round(whole.messages[at:], whole.delivery)
