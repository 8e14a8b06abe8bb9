"""What it means that a broker did not take a message, and what a dead letter that is too large can do without."""

from aiokafka.errors import (
    KafkaError,
    MessageSizeTooLargeError,
    OutOfOrderSequenceNumber,
    ProducerClosed,
    ProducerFenced,
    TopicAuthorizationFailedError,
    UnknownProducerId,
)

from service.documents import Message
from service.errors import Misconfigured
from service.routing.records import OURS

_BROKEN = (OutOfOrderSequenceNumber, UnknownProducerId, ProducerFenced, ProducerClosed)
"""What a producer fails with when it is no good any more, whatever it is given."""


def will_pass(failure: BaseException) -> bool:
    """Whether the same messages may well be taken another time."""
    return isinstance(failure, _BROKEN) or type(failure) is KafkaError or getattr(failure, "retriable", False)


def refusal(topic: str, failure: KafkaError) -> Misconfigured:
    """What to tell the operator of a failure that will not pass."""
    if isinstance(failure, TopicAuthorizationFailedError):
        return Misconfigured(f"topic {topic}: the broker does not let this user write to it")
    if isinstance(failure, MessageSizeTooLargeError):
        return Misconfigured(f"topic {topic}: its max.message.bytes is too small for any dead letter; raise it")
    return Misconfigured(f"topic {topic}: the broker does not take a message: {failure!r}")


def smaller(letter: Message) -> Message | None:
    """A dead letter without what is large of it: first the value, then the record's own headers, at last the key."""
    if letter.value:
        return letter._replace(value=b"", headers=[*letter.headers, _omitted("value", len(letter.value))])
    own = [header for header in letter.headers if not header[0].startswith(OURS)]
    if own:
        size = sum(len(name) + len(value or b"") for name, value in own)
        ours = [header for header in letter.headers if header not in own]
        return letter._replace(headers=[*ours, _omitted("headers", size)])
    if letter.key:
        return letter._replace(key=b"", headers=[*letter.headers, _omitted("key", len(letter.key))])
    return None


def _omitted(what: str, size: int) -> tuple[str, bytes]:
    return f"labelstream-{what}-omitted", f"{size} bytes are more than the topic takes".encode()
