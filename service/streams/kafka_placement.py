"""Which partition of its topic a message goes to.

Hashing a key in pure Python is dear: messages keep their document's partition where input and output have equally many,
which is where Java's default partitioner would have put those with a key.
"""

import asyncio
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

import structlog
from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError, KafkaTimeoutError, UnknownTopicOrPartitionError
from aiokafka.partitioner import DefaultPartitioner

from service.documents import Message
from service.offsets import Partition
from service.streams.kafka_failures import refusal, will_pass

_COUNT_VALID = 60.0
_ASK_AGAIN_EVERY = 1.0

log = structlog.get_logger(__name__)


class Placement:
    """Knows how many partitions topics have, as of a minute ago at most, from the producer that there is just now."""

    def __init__(self, producer: Callable[[], AIOKafkaProducer]) -> None:
        self._producer = producer
        self._counts: dict[str, tuple[int, float]] = {}
        self._partitioner = DefaultPartitioner()

    async def placed(self, messages: Sequence[Message]) -> Mapping[Partition, list[Message]]:
        """Messages by the partition they go to, in their order; waits while nobody can say how many a topic has.

        Raises Misconfigured for a topic that this user may not see.
        """
        alike: dict[tuple[str, str, int], list[Message]] = {}
        for message in messages:
            topic, _, _, _, (there, number, _) = message
            alike.setdefault((topic, there, number), []).append(message)
        for topic in {name for name, _, _ in alike} | {there for _, there, _ in alike}:
            await self._count(topic)
        placed: dict[Partition, list[Message]] = {}
        for route, together in alike.items():
            for number, bound in self._numbered(*route, together):
                placed.setdefault(Partition(route[0], number), []).extend(bound)
        return placed

    def _numbered(
        self, topic: str, there: str, number: int, messages: Sequence[Message]
    ) -> Iterator[tuple[int, Iterable[Message]]]:
        """Messages to a topic whose documents came from partition `number` of the topic `there`."""
        (count, _), (before, _) = self._counts[topic], self._counts[there]
        if count == before and number < count:  # counts lag behind the topics
            yield number, messages
            return
        for message in messages:
            yield self._partitioner(message.key, range(count), ()), [message]

    async def _count(self, topic: str) -> None:
        _, until = self._counts.get(topic, (0, 0.0))
        while time.monotonic() > until:
            try:
                count = len(await self._producer().partitions_for(topic))
            except (KafkaTimeoutError, UnknownTopicOrPartitionError) as error:
                log.warning("publishing_waits", topic=topic, reason=repr(error))
            except KafkaError as error:
                if not will_pass(error):
                    raise refusal(topic, error) from None
                log.warning("publishing_waits", topic=topic, reason=repr(error))
                await asyncio.sleep(_ASK_AGAIN_EVERY)
            else:
                until = time.monotonic() + _COUNT_VALID
                self._counts[topic] = count, until
