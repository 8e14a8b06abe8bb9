"""The schema of results under the subjects of the topics that they go to, before the first of them is written."""

from service.errors import Misconfigured
from service.formats.registered import Unusable, decoder
from service.formats.results import Written
from service.registry.client import Incompatible, Registry
from service.settings import Stream


async def number(stream: Stream, written: Written, registry: Registry) -> None:
    """See that the schema of a stream's results has a number in each topic that they go to.

    Raises Misconfigured, naming every subject that does not have it or take it, and Unavailable.
    """
    new = [topic for topic in stream.topics_of_results if topic not in written]
    if found := list(filter(None, [await _fault(stream, topic, written, registry) for topic in new])):
        raise Misconfigured("\n".join(found))


async def rehearse(stream: Stream, written: Written, registry: Registry) -> None:
    """See that `number` would do, and register nothing. Raises as it does."""
    found = []
    for topic in stream.topics_of_results:
        subject = _subject(topic)
        if await registry.subject(subject, written.kind, written.text, register=False) is not None:
            continue
        if stream.results.unregistered == "refuse":
            found.append(_missing(stream, subject, written))
            continue
        try:
            await registry.would_take(subject, written.kind, written.text)
        except Incompatible as error:
            found.append(_incompatible(stream, subject, error))
    if found:
        raise Misconfigured("\n".join(found))


async def look_at(stream: Stream, registry: Registry) -> str:
    """What is registered for the values of a stream's input, as far as subjects are called as topics are.

    Raises Misconfigured where it is not read, and Unavailable.
    """
    subject = _subject(stream.input)
    where = f"streams.{stream.name}.document.format"
    try:
        schema = await registry.latest(subject)
        if schema is None:
            return f"{where}: there is no subject {subject!r}, so records have to name schemas of others"
        decoder(0, schema)
    except Unusable as error:
        raise Misconfigured(f"{where}: the latest schema of {subject!r} cannot be used: {error}") from None
    return f"{where}: the latest schema of {subject!r} is {schema.kind}, and can be read"


async def _fault(stream: Stream, topic: str, written: Written, registry: Registry) -> str | None:
    subject, register = _subject(topic), stream.results.unregistered == "register"
    try:
        found = await registry.subject(subject, written.kind, written.text, register=register)
    except Incompatible as error:
        return _incompatible(stream, subject, error)
    if found is None:
        return _missing(stream, subject, written)
    written.number(topic, found)
    return None


def _subject(topic: str) -> str:
    return f"{topic}-value"


def _incompatible(stream: Stream, subject: str, error: Incompatible) -> str:
    return (
        f"streams.{stream.name}.results: the registry does not take the schema of results under {subject!r}: {error}."
        " Where that subject is another's, send results to another topic; where it is an older version of ours, see to"
        " its compatibility"
    )


def _missing(stream: Stream, subject: str, written: Written) -> str:
    return (
        f"streams.{stream.name}.results: the schema of results is not registered under {subject!r}: register"
        f" {written.file} of this version there, or set unregistered: register"
    )
