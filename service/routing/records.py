"""What is published for an outcome: the result, copies of it as the rules say, or a dead letter. Pure."""

from collections.abc import Collection, Sequence
from datetime import UTC, datetime
from functools import cache, lru_cache
from importlib.metadata import version

from orjson import dumps as _json

from service.dispatch.answers import Answer
from service.documents import Classified, Document, Message, Position, Record, Refused, Stage
from service.formats import cloud_events, framing
from service.formats.results import Written
from service.observability.tracing import Tracing
from service.review.join import asked, proposed
from service.routing.rules import OTHERWISE, Decision, Rules
from service.settings import Stream

_OURS = "labelstream-"
"""What our headers begin with. Those of an earlier time round would say of a result that it is a dead letter."""
_NOT_OF_A_RESULT = (_OURS, framing.HEADER)
"""What the headers of a record begin with that are not its result's: that is no value of the schema of the record."""
OURS = (_OURS, "__connect.errors.")
"""What the headers of a dead letter begin with that are not the record's own."""
_REDRIVES = "labelstream-redrives"
_ABOUT_A_REFUSAL = (
    "__connect.errors.topic",
    "__connect.errors.partition",
    "__connect.errors.offset",
    "__connect.errors.stage",
    "__connect.errors.exception.class.name",
    "__connect.errors.exception.message",
    "labelstream-error-type",
    "labelstream-stream",
    "labelstream-attempts",
    "labelstream-version",
)
_LONGEST_COUNT = 10  # digits, of what is believed to be a count
OMITTED = tuple(f"labelstream-{what}-omitted" for what in ("value", "headers", "key"))
"""Headers that say that a dead letter is not whole, as it was more than its topic takes."""


class Routing:
    """How a stream's answers are routed; its `rules` may be exchanged for others of the same stream.

    `classes` are those that reviewers choose from, None where nobody tells them. Where results are by a schema, it is
    `written` that has its numbers.
    """

    def __init__(
        self,
        rules: Rules,
        tracing: Tracing | None = None,
        classes: Collection[str] | None = None,
        written: Written | None = None,
    ) -> None:
        self.rules = rules
        self.written = written
        self._tracing = tracing
        self._classes = classes
        self._envelope = _envelope(rules.stream)

    def route(self, answer: Answer) -> list[Message]:
        """The messages for every document of an answer, in order; those that are traced go on with their trace."""
        messages: list[Message] = []
        rules, stream = self.rules, self.rules.stream
        form, output, written = _Form(stream, answer), stream.output, self.written
        asks_people = stream.review.topic if stream.review is not None else None
        for document, outcome in zip(answer.documents, answer.outcomes, strict=True):
            record = document.record
            if isinstance(outcome, Refused):
                messages.append(dead_letter(stream, record, outcome, answer.attempts))
                continue
            position, _, key, _, given = record
            decision = rules.decide(document, outcome.classes)
            value = form.filled(document, outcome, decision.told)
            headers = [header for header in given if not header[0].startswith(_NOT_OF_A_RESULT)]
            headers.append(("labelstream-id", (name := f"{stream.name}:{position}").encode()))
            if self._tracing is not None:
                headers = self._tracing.continued(record, headers)
            plain = value, headers
            if self._envelope is not None:
                value, headers = self._envelope(name, document.id, _time(answer.at), value, headers)
            if written is not None:
                value = written.body(value)
            messages.append(Message(output, key, self._framed(output, value), headers, position))
            for topic in decision.to:
                if topic == asks_people:
                    labels = proposed(stream, outcome.classes, form.task)
                    question = self._question(name, plain[0], document, labels, _rules_to(stream, topic, decision))
                    messages.append(Message(topic, key, question, plain[1], position))
                elif topic != output:
                    messages.append(Message(topic, key, self._framed(topic, value), headers, position))
        return messages

    def _framed(self, topic: str, value: bytes) -> bytes:
        return value if self.written is None else self.written.framed(topic, value)

    def _question(
        self, name: str, result: bytes, document: Document, labels: Sequence[str], rules: Sequence[str]
    ) -> bytes:
        """What a reviewer is asked about a result with these labels, which these rules have led there."""
        offered = sorted(self._classes) if self._classes is not None else None
        return asked(result, name, document.text, {"rules": rules, "proposed": labels, "classes_offered": offered})


def _rules_to(stream: Stream, topic: str, decision: Decision) -> list[str]:
    """Which of the rules that were met lead to a topic."""
    leading = {stream.name_of_route(place) for place, route in enumerate(stream.routes) if topic in route.to}
    return [rule for rule in decision.rules if rule in leading or rule == OTHERWISE]


def _envelope(stream: Stream) -> cloud_events.Envelope | None:
    results = stream.results
    if results.format != "cloudevents":
        return cloud_events.bare if stream.document.format == "cloudevents" else None
    made = cloud_events.binary if results.mode == "binary" else cloud_events.structured
    return made(results.source or f"/labelstream/{stream.name}", results.type)


def dead_letter(stream: Stream, record: Record, refused: Refused, attempts: int = 0) -> Message:
    """The original key, value and headers byte for byte, and headers that say what happened and where.

    The names beginning with `__connect.errors.` are Kafka Connect's, which dead-letter tools know.
    """
    position = record.position
    about = (
        position.topic,
        str(position.partition),
        str(position.offset),
        "CLASSIFY" if attempts else "READ",
        f"labelstream.{refused.reason}",
        refused.message,
        refused.reason.value,
        stream.name,
        str(attempts),
        _version(),
    )
    headers = [(name, value) for name, value in record.headers if name not in _ABOUT_A_REFUSAL]
    headers += [(name, value.encode()) for name, value in zip(_ABOUT_A_REFUSAL, about, strict=True)]
    return Message(stream.dead_letter, record.key, record.value, headers, position)


def redrives(record: Record) -> int:
    """How often a record has been sent back to the input after it was refused."""
    given = dict(record.headers).get(_REDRIVES) or b""
    return int(given) if given.isdigit() and len(given) < _LONGEST_COUNT else 0


def sent_back(stream: Stream, letter: Record) -> Message:
    """A dead letter as the document that it was, for the input, and how often that was done so far.

    The source is where it stood in the input, as far as the letter tells, so that it comes to the same partition.
    """
    ours = (*_ABOUT_A_REFUSAL, _REDRIVES)
    headers = [header for header in letter.headers if header[0] not in ours]
    headers.append((_REDRIVES, str(redrives(letter) + 1).encode()))
    about = dict(letter.headers)
    topic, number = about.get("__connect.errors.topic"), about.get("__connect.errors.partition") or b""
    known = topic == stream.input.encode() and number.isdigit() and len(number) < _LONGEST_COUNT
    source = Position(stream.input, int(number), letter.position.offset) if known else letter.position
    return Message(stream.input, letter.key, letter.value, headers, source)


class _Form:
    """The results of one answer: what is alike in all of them is written once, and the rest for each document."""

    __slots__ = ("_classes", "_classified_at", "_per_unit", "_routed", "_source", "task")

    def __init__(self, stream: Stream, answer: Answer) -> None:
        account, provider = answer.account, answer.account.provider
        self.task = "multi_label" if stream.merge_with else provider.task
        self._classes = b',"stream":%b,"task":%b,"classes":[' % (_json(stream.name), _json(self.task))
        names = _json(account.name), _json(account.kind), _json(provider.model)
        spared = b',"answered_from":"%b"' % answer.answered_from.encode() if answer.answered_from else b""
        self._source = b',"account":%b,"provider":%b,"model":%b%b,"source":{"topic":' % (*names, spared)
        self._routed = b',"route":%b' if stream.routes else b"%.0b"
        self._per_unit = account.limits.tariff.per_unit
        told = _time(answer.at), answer.attempts
        self._classified_at = b'","classified_at":"%b","attempts":%d,"usage":{"characters":' % told

    def filled(self, document: Document, outcome: Classified, route: bytes) -> bytes:
        """The result of one document that goes this way."""
        topic, partition, offset = document.record.position
        classes = [_class(*found) for found in outcome.classes]
        stages = document.stages
        return b'{"id":%b%b%b],"best":%b%b%b%b,"partition":%d,"offset":%d},"received_at":"%b%b%d,"units":%b%b%b}' % (
            _json(document.id),
            self._classes,
            b",".join(classes),
            classes[0] if classes else b"null",
            self._routed % route,
            self._source,
            _json(topic),
            partition,
            offset,
            _time(document.read_at),
            self._classified_at,
            len(document.text),
            _usage(stages) if stages else b'%d,"cost":%b' % (outcome.units, self._cost(outcome.units)),
            b'},"stages":[%b],"warnings":' % b",".join(map(_stage, stages)) if stages else b'},"warnings":',
            _json(outcome.warnings) if outcome.warnings else b"[]",
        )

    def _cost(self, units: int) -> bytes:
        return b"null" if self._per_unit is None else _json(round(self._per_unit * units, 10))


def _usage(stages: Sequence[Stage]) -> bytes:
    """What all stages were billed for."""
    costs = [stage.cost for stage in stages if stage.cost is not None]
    units = sum(stage.outcome.units for stage in stages if isinstance(stage.outcome, Classified))
    return b'%d,"cost":%b' % (units, _json(round(sum(costs), 10) if costs else None))


def _stage(stage: Stage) -> bytes:
    refused = stage.outcome.message if isinstance(stage.outcome, Refused) else None
    classes = () if isinstance(stage.outcome, Refused) else stage.outcome.classes
    names = _json(stage.account), _json(stage.model), b",".join(_class(*found) for found in classes)
    said = b'{"account":%b,"model":%b,"classes":[%b]' % names
    cost = _json(None if stage.cost is None else round(stage.cost, 10))
    return said + b',"cost":%b%b}' % (cost, b"" if refused is None else b',"refused":%b' % _json(refused))


def _class(name: str, score: float | None, severity: int | None) -> bytes:
    if severity is None:
        return b'{"name":%b,"score":%b}' % (_json(name), _json(score))
    return b'{"name":%b,"score":%b,"severity":%d}' % (_json(name), _json(score), severity)


@lru_cache(maxsize=1024)  # documents that were read or answered together share their times
def _time(seconds: float) -> bytes:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z").encode()


@cache
def _version() -> str:
    return version("labelstream")
