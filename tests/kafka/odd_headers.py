"""A record with a header name that is not UTF-8, which no client's interface lets one send."""

from aiokafka import AIOKafkaProducer
from aiokafka.record.default_records import _DefaultRecordBatchBuilderPy

NAME = b"odd \xff\xfe header"
_STAND_IN = "n" * len(NAME)


async def send(bootstrap: str, topic: str, values: list[bytes], *, odd: int, codec: int = 0) -> None:
    """Send values in one batch; the header of the one at `odd` has NAME for a name."""
    async with AIOKafkaProducer(bootstrap_servers=bootstrap) as producer:
        batch = producer.create_batch()
        batch._builder = records = _DefaultRecordBatchBuilderPy(2, codec, 0, -1, -1, 0, 1024**2)
        for number, value in enumerate(values):
            name = _STAND_IN if number == odd else "plain"
            assert batch.append(timestamp=None, key=b"k", value=value, headers=[(name, b"1")]) is not None
        at = records._buffer.index(_STAND_IN.encode())
        records._buffer[at : at + len(NAME)] = NAME
        await (await producer.send_batch(batch, topic, partition=0))
