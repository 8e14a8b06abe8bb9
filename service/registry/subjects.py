"""The schema of results under the subjects of the topics that they go to, before the first of them is written."""

from collections.abc import Iterable

from service.errors import Misconfigured
from service.formats.results import Written
from service.registry.client import Incompatible, Registry
from service.settings import Stream


async def number(stream: Stream, written: Written, registry: Registry) -> None:
    """See that the schema of a stream's results has a number in each topic that they go to.

    Raises Misconfigured, naming every subject that does not have it or take it, and Unavailable.
    """
    faults = [await _fault(stream, topic, written, registry) for topic in _new(stream, written)]
    if told := [fault for fault in faults if fault]:
        raise Misconfigured("\n".join(told))


def _new(stream: Stream, written: Written) -> Iterable[str]:
    return (topic for topic in stream.topics_of_results if topic not in written)


async def _fault(stream: Stream, topic: str, written: Written, registry: Registry) -> str | None:
    subject, register = f"{topic}-value", stream.results.unregistered == "register"
    try:
        found = await registry.subject(subject, written.kind, written.text, register=register)
    except Incompatible as error:
        return (
            f"streams.{stream.name}.results: the registry does not take the schema of results under {subject!r}:"
            f" {error}. Where that subject is another's, send results to another topic; where it is an older version of"
            " ours, see to its compatibility"
        )
    if found is None:
        return (
            f"streams.{stream.name}.results: the schema of results is not registered under {subject!r}: register"
            f" {written.file} of this version there, or set unregistered: register"
        )
    written.number(topic, found)
    return None
