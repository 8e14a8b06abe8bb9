"""What is read, who classifies it, and where the answers go."""

import re
from typing import Annotated, Literal, Self, get_args

from pydantic import (
    Field,
    field_validator,
    model_validator,
)

from service.settings.lanes import Names, Trial, Unsure
from service.settings.review import Review
from service.settings.routes import Condition, Route
from service.settings.values import Branch, Bytes, Pointer, Seconds, Share, Topic

_LONGEST_TOPIC = 249


class Fields(Branch):
    """Where in a record the document is: `json` values addressed by JSON pointers (RFC 6901), or the whole as `text`.

    `cloudevents` are CloudEvents 1.0, binary or structured, record by record; pointers go into the event's JSON form,
    such as `/subject` or `/data/text`, whichever it is.
    `registry` are records that name their schema in the `registry`, in Confluent's wire format or in the header
    `__value_schema_id`: Avro or JSON, as it is registered. Pointers go into what they say as JSON has it: Avro's bytes
    are Base64 there, decimals strings of digits, dates and times as ISO 8601 writes them.
    Several text pointers are joined by line breaks, in order; those that are missing or null are left out, as long as
    one is there.
    """

    format: Literal["json", "text", "cloudevents", "registry"] = "json"
    """Whether a record is JSON, its whole value is the text, it is a CloudEvent, or it names its schema."""
    encoding: str = "utf-8"
    """How `text` is encoded, such as `latin-1` or `utf-16`, as Python calls it; what is not becomes a dead letter."""
    id: Pointer | None = "/id"
    """Where the document's id is; a record without one is named by its position."""
    text: Annotated[tuple[Pointer, ...], Field(min_length=1)] = ("/text",)
    """Where the text is; one pointer need not be a list."""
    language: Pointer | None = None
    """Where the language code is that is sent along; without one the classifier's own language holds."""
    max_characters: Annotated[int, Field(ge=1)] | None = None
    """Longer texts become dead letters; what the accounts take holds in any case."""
    too_long: Literal["dead_letter", "split"] = "dead_letter"
    """What becomes of texts longer than any account of the stream takes; what is split is answered as one."""
    max_parts: Annotated[int, Field(ge=2, le=1_000)] = 20
    """Into how many parts a text is split at most; what takes more becomes a dead letter."""

    @field_validator("text", mode="before")
    @classmethod
    def _one_is_a_list(cls, value: object) -> object:
        return [value] if isinstance(value, str) else value

    @field_validator("encoding")
    @classmethod
    def _one_that_is_known(cls, encoding: str) -> str:
        try:
            "x".encode(encoding)  # nothing at all is decoded without a look at the encoding
        except (LookupError, ValueError):
            raise ValueError(f"{encoding!r} is no encoding of text that Python knows: try latin-1 or utf-16") from None
        return encoding

    @model_validator(mode="after")
    def _what_goes_with_the_format(self) -> Self:
        if self.format != "text" and "encoding" in self.model_fields_set:
            raise ValueError("encoding goes with format: text; JSON and Avro are UTF-8, and events say theirs")
        if self.format == "cloudevents" and "text" not in self.model_fields_set:
            raise ValueError("text: say where in the event it is, such as /data/text")
        return self

    @model_validator(mode="after")
    def _parts_of_what_is_split(self) -> Self:
        if self.too_long != "split" and "max_parts" in self.model_fields_set:
            raise ValueError("max_parts goes with too_long: split")
        return self

    @property
    def most_parts(self) -> int:
        """Into how many parts a text may be split; 1 is not at all."""
        return self.max_parts if self.too_long == "split" else 1

    @property
    def as_json(self) -> Self:
        """The same of records that are written as JSON where a registry's are meant: in files and examples."""
        return self.model_copy(update={"format": "json"}) if self.format == "registry" else self


class Batch(Branch):
    """How many documents go into one call at most, and how long the first of them may wait for company."""

    documents: Annotated[int, Field(ge=1)] = 25
    """The most documents of a call, thousands for `comprehend_jobs`; what the accounts take holds in any case."""
    characters: Annotated[int, Field(ge=1)] = 125_000
    """The most characters of a call; what the accounts take holds in any case."""
    wait: Seconds = 0.2
    """How long the first document may wait for company."""


class Identical(Branch):
    """Documents of the same text and language: one is asked for, the others get its answer; without this, each is.

    Never across streams, accounts, models, tasks or workers. A model that is deployed anew under its old name is heard
    of after `ttl`. What is kept has keyed hashes in place of texts, and is gone with a restart. Refusals are nobody
    else's: a document whose like is refused is asked for itself.
    """

    ttl: Seconds = 0.0
    """How long an answer is given again to documents that come later; 0 is only while it is being asked for."""
    entries: Annotated[int, Field(ge=1)] = 100_000
    """The most answers that are kept; those go first that were not asked for the longest."""
    bytes: Annotated[Bytes, Field(ge=4096)] = 64 * 1024**2
    """The most memory that they take; 4KiB at least."""

    @model_validator(mode="after")
    def _bounds_of_what_is_kept(self) -> Self:
        for name in ("entries", "bytes"):
            if name in self.model_fields_set and not self.ttl:
                raise ValueError(f"{name} is of answers that are kept: give ttl, such as 1h")
        return self


class Redact(Branch):
    """What is replaced in texts before they leave for any classifier, by placeholders such as `[EMAIL_1]`.

    The same thing has the same placeholder wherever it stands in a text. Lengths, units and `identical` go by the text
    as it is then; results name no places in it, so nothing in them is shifted. Dead letters are the records as they
    came.
    """

    kinds: tuple[Literal["email", "phone", "card", "iban", "ip"], ...] = ("email", "phone", "card", "iban", "ip")
    """What is looked for: cards and IBANs are those whose check digits are right."""
    patterns: dict[Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,30}$")], Annotated[str, Field(min_length=1)]] = (
        Field(default={})
    )
    """Expressions of one's own by what they find, in RE2's syntax; takes the extra `redaction`."""

    @model_validator(mode="after")
    def _names_that_are_free(self) -> Self:
        if taken := sorted(self.patterns.keys() & get_args(get_args(type(self).model_fields["kinds"].annotation)[0])):
            raise ValueError(f"patterns: {taken[0]} is what one of the kinds finds: call it differently")
        return self


class Results(Branch):
    """How results and copies are written: as JSON, or that JSON as the data of a CloudEvent 1.0, or by a schema.

    The event's id is that of `labelstream-id`, the same in a repeat; its subject is the document's id, its time when it
    was classified. The attributes of an event that was read are not those of its result, and are left out of it.
    With `avro` and `json_schema` the schema of results is in the `registry`, under `TOPIC-value` of each topic that
    results and copies go to, and its id before each value, as Confluent's wire format has it. What people are asked
    (`review.topic`) stays JSON.
    """

    format: Literal["json", "cloudevents", "avro", "json_schema"] = "json"
    """Whether a result is JSON alone, a CloudEvent, or Avro or JSON by its schema in the registry."""
    mode: Literal["binary", "structured"] = "binary"
    """Whether an event's attributes are headers (`ce_…`), or in the value around the result."""
    source: Annotated[str, Field(pattern=r"^[!-~]+$")] | None = None
    """The event's `source`, a URI or a part of one; else `/labelstream/` and the stream's name."""
    type: Annotated[str, Field(pattern=r"^[!-~]+$")] = "labelstream.classified"
    """The event's `type`."""
    unregistered: Literal["register", "refuse"] = "register"
    """Whether a start registers the schema of results where it is not yet, or goes only by one that is there."""

    @model_validator(mode="after")
    def _what_goes_with_the_format(self) -> Self:
        given = self.model_fields_set - {"format"}
        if self.format != "cloudevents" and (of_events := sorted(given - {"unregistered"})):
            raise ValueError(f"{of_events[0]} goes with format: cloudevents")
        if not self.by_schema and "unregistered" in given:
            raise ValueError("unregistered goes with format: avro and json_schema")
        return self

    @property
    def by_schema(self) -> bool:
        """Whether they are written by a schema of the registry."""
        return self.format in {"avro", "json_schema"}


class Capacity(Branch):
    """What may be in hand at once, read but not yet answered: the back-pressure on the input.

    More rides out slow answers; less means less memory and fewer repeats after a crash.
    """

    documents: Annotated[int, Field(ge=1)] = 4_000
    """The most records in hand."""
    bytes: Bytes = 64 * 1024**2
    """The most bytes of records in hand."""


class DeadLetterLimit(Branch):
    """When to believe that it is not the documents' fault: then they are held back instead of becoming dead letters.

    Each worker counts for itself, from its start on. Nothing more is read meanwhile, and the log says so, as does
    `labelstream_dead_letter_limit_reached`. It goes on by itself when the classifier takes again what it has refused,
    of which it is asked for a few now and then; else with a restart of the worker, which lets as many through again.
    Tombstones are no refusals in this, nor are results that are too large.
    """

    share: Share = 0.5
    """The most of the last `of` documents that may be refused; 1 is no limit at all, 0 holds back the first refusal."""
    of: Annotated[int, Field(ge=1, le=1_000_000)] = 200
    """Over how many documents the share is taken; at most that share of them becomes dead letters before it stops."""


_ROUNDED = 0.02
"""How far shares may be from 1 together, as each is rounded."""


class Stream(Branch):
    """One input topic, the accounts that classify it in order of preference, and where the answers go."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{1,100}$")]
    """What the stream is called in results."""
    input: Topic
    """The topic that is read."""
    document: Fields = Fields()
    redact: Redact | None = None
    classify_with: Annotated[tuple[str, ...], Field(min_length=1)]
    """Accounts in order of preference, the first that can answer; one need not be a list."""
    by_language: dict[Annotated[str, Field(min_length=1)], Names] = Field(default={})
    """Accounts, in order, that are asked instead, by the document's language; `de` is also `de-AT`, if that is not."""
    merge_with: tuple[str, ...] = ()
    """Accounts that are each asked of every document, before these; the result has the classes of all.

    One after the other, so latencies add up, and after a crash a document is asked of those again whose answer was not
    its last.
    """
    unsure: Unsure | None = None
    shadow: Trial | None = None
    canary: Trial | None = None
    priority: Annotated[int, Field(ge=1, le=1_000)] = 1
    """Of an account that has not enough for all its streams, each gets in proportion to this."""
    batch: Batch = Batch()
    identical: Identical | None = None
    ordered_by: Literal["key"] | None = None
    """`key` has results of records with the same key come in the order of the records, retries and all."""
    capacity: Capacity = Capacity()
    output: Topic
    """The topic that gets every result."""
    results: Results = Results()
    routes: tuple[Route, ...] = ()
    routing: Literal["every_match", "first_match"] = "every_match"
    """Whether a result is copied by every rule that it meets, or by the first of them alone."""
    otherwise: tuple[Topic, ...] = ()
    """The topics that get a copy of what meets no rule; one need not be a list."""
    thresholds: dict[str, Share] = Field(default={})
    """The score from which on a class counts, for rules that name it and for the number of labels; else 0."""
    review: Review | None = None
    baseline: dict[str, Share] = Field(default={})
    """The shares that classes have normally, as `labelstream baseline` tells of results; drift from them is told."""
    dead_letter: Topic
    """The topic that gets documents that are themselves bad, as they came."""
    dead_letter_limit: DeadLetterLimit = DeadLetterLimit()
    max_redrives: Annotated[int, Field(ge=0, le=1_000)] = 3
    """How often `labelstream replay` sends the same document back before it leaves it among the dead letters."""
    tombstones: Literal["dead_letter", "skip"] = "dead_letter"
    """What becomes of records without a value."""
    delivery: Literal["at_least_once", "exactly_once"] = "at_least_once"
    """Whether a crash may repeat results; with `exactly_once`, readers of committed transactions see each once."""
    commit_every: Annotated[Seconds, Field(gt=0)] | None = None
    """How often is committed what is done; else every second, or every 200ms with `exactly_once`."""
    note_jobs: bool = True
    """Whether jobs are noted while they are under way, so that a restart asks after them instead of paying again."""
    jobs_topic: Topic | None = None
    """The topic with these notes, made like the input's where there is none; else `GROUP.INPUT.jobs`."""
    drain: Seconds = 25.0
    """How long a stop or a rebalance waits for what is out at a classifier."""

    @field_validator("classify_with", "merge_with", "otherwise", mode="before")
    @classmethod
    def _one_is_a_list(cls, value: object) -> object:
        return [value] if isinstance(value, str) else value

    @model_validator(mode="after")
    def _no_loop(self) -> Self:
        if self.jobs_topic in {self.input, *self.topics_written}:
            raise ValueError(f"jobs_topic {self.jobs_topic!r} is used for something else: it needs one of its own")
        if self.input in self.topics_written:
            raise ValueError(f"the input topic {self.input!r} is also written to: documents would go round for ever")
        if self.dead_letter in self.topics_of_copies:
            raise ValueError(f"the dead_letter topic {self.dead_letter!r} would also get results: route them elsewhere")
        return self

    @field_validator("baseline")
    @classmethod
    def _all_of_them(cls, value: dict[str, float]) -> dict[str, float]:
        if value and abs((whole := sum(value.values())) - 1) > _ROUNDED:
            raise ValueError(f"the shares are {whole:.3f} together, and are to be 1: give every class")
        return value

    @model_validator(mode="after")
    def _routes_that_can_be_followed(self) -> Self:
        names = [self.name_of_route(place) for place in range(len(self.routes))]
        if twice := {name for name in names if names.count(name) > 1}:
            raise ValueError(f"routes: the name {twice.pop()!r} is given twice")
        if "otherwise" in names:
            raise ValueError("routes: 'otherwise' is what results say where no rule was met: call the rule differently")
        if self.otherwise and not self.routes:
            raise ValueError("otherwise is for what meets none of the routes, and there are none")
        if self.document.format == "text" and self.fields_asked:
            raise ValueError(
                f"routes and unsure: fields are of JSON records, and document.format is {self.document.format}"
            )
        return self

    @model_validator(mode="after")
    def _questions_that_are_asked(self) -> Self:
        if self.review is None:
            return self
        if self.review.topic not in self.topics_of_copies:
            raise ValueError(f"review.topic: no route leads to {self.review.topic!r}: add one, such as best_below: 0.6")
        if self.review.topic == self.output:
            raise ValueError("review.topic: this is the output, where results have no texts: give reviewers another")
        if self.review.decisions in {self.input, self.jobs_topic, *self.topics_written}:
            raise ValueError(f"review.decisions: {self.review.decisions!r} is used for something else already")
        return self

    @model_validator(mode="after")
    def _lanes_that_lead_somewhere(self) -> Self:
        if self.by_language and self.document.language is None:
            raise ValueError("by_language: give document.language, where a record says in which language it is")
        if len({code.lower() for code in self.by_language}) < len(self.by_language):
            raise ValueError("by_language: a language is given twice; upper and lower case are alike")
        asked = {name for names in (self.classify_with, *self.by_language.values()) for name in names}
        if twice := [name for name in self.merge_with if name in asked or self.merge_with.count(name) > 1]:
            raise ValueError(f"merge_with: the account {twice[0]!r} is asked already, and would be paid twice")
        if self.unsure and asked <= {*self.unsure.ask}:
            raise ValueError("unsure.ask: nobody else is asked in the first place, so there is nothing to be unsure of")
        if self.shadow and self.canary:
            raise ValueError("shadow and canary: one at a time, or nobody could tell which of them figures are of")
        if (self.shadow or self.canary) and self.merge_with:
            raise ValueError(
                "shadow and canary: with merge_with a result is of several, and not to be compared with one"
            )
        if self.canary and {*self.canary.ask} & {*self.classify_with}:
            raise ValueError("canary.ask: an account of classify_with would be compared with itself: name another")
        return self

    @property
    def accounts_asked(self) -> tuple[str, ...]:
        """Every account that is asked for the stream, each once."""
        return tuple(dict.fromkeys(name for names in self.accounts_by_setting.values() for name in names))

    @property
    def accounts_by_setting(self) -> dict[str, tuple[str, ...]]:
        """The same, by where they are named."""
        return {
            "classify_with": self.classify_with,
            **{f"by_language.{code}": names for code, names in self.by_language.items()},
            "merge_with": self.merge_with,
            "unsure.ask": self.unsure.ask if self.unsure else (),
            "canary.ask": self.canary.ask if self.canary else (),
            "shadow.ask": self.shadow.ask if self.shadow else (),
        }

    @property
    def accounts_published(self) -> tuple[str, ...]:
        """Every account whose answers are published, each once."""
        by_setting = self.accounts_by_setting
        del by_setting["shadow.ask"]
        return tuple(dict.fromkeys(name for names in by_setting.values() for name in names))

    @property
    def seconds_between_commits(self) -> float:
        """What `commit_every` says, or is when it says nothing."""
        return self.commit_every or (0.2 if self.delivery == "exactly_once" else 1.0)

    def topic_of_jobs(self, group: str) -> str:
        """What `jobs_topic` says, or is when it says nothing."""
        return self.jobs_topic or re.sub("[^A-Za-z0-9._-]", "-", f"{group}.{self.input}.jobs")[-_LONGEST_TOPIC:]

    @property
    def topics_written(self) -> tuple[str, ...]:
        """Every topic that results, copies and dead letters go to, each once."""
        return tuple(dict.fromkeys((self.output, *self.topics_of_copies, self.dead_letter)))

    @property
    def topics_of_copies(self) -> tuple[str, ...]:
        """Every topic that gets copies of results, each once."""
        return tuple(dict.fromkeys((*(topic for route in self.routes for topic in route.to), *self.otherwise)))

    @property
    def topics_of_results(self) -> tuple[str, ...]:
        """Every topic that gets results as `results` says, each once; what people are asked is JSON always."""
        asked = self.review.topic if self.review is not None else None
        return tuple(topic for topic in dict.fromkeys((self.output, *self.topics_of_copies)) if topic != asked)

    @property
    def needs_registry(self) -> bool:
        """Whether records name their schemas, or results do."""
        return self.document.format == "registry" or self.results.by_schema

    @property
    def fields_asked(self) -> tuple[str, ...]:
        """The pointers into a record that the routes and `unsure` ask for, each once."""
        asked = (each.fields or {} for condition in self.conditions.values() for each in condition.conditions())
        return tuple(dict.fromkeys(pointer for fields in asked for pointer in fields))

    @property
    def conditions(self) -> dict[str, Condition]:
        """What is asked of results, by where that is set."""
        routes = {f"routes: {self.name_of_route(place)}": route for place, route in enumerate(self.routes)}
        return routes | ({"unsure.when": self.unsure.when} if self.unsure else {})

    def name_of_route(self, place: int) -> str:
        """What results call the rule at this place."""
        return self.routes[place].name or f"routes[{place}]"
