"""Faults on request: what a client must survive, made to happen at will.

Rules are a JSON list, or the same in YAML. They are given at start (`--faults FILE`) or, if the server was started with
`--allow-faults`, over HTTP with the server's key::

    PUT    /_faults    replaces the rules and starts their counts anew
    GET    /_faults    the rules, each with how often it was `seen` and how often it was `applied`
    DELETE /_faults    removes them

The first rule that matches a request answers it; a rule whose `times` are used up, or whose `probability` says no,
lets the request pass on to the next. All is deterministic: `probability` draws from `seed`, once for each request seen.

======================== ==============================================================================================
`on`                     submit (a job of documents), poll, cancel, classify (answered in the call), train (whatever
                         begins to learn), manage (all else), or * for all of them (the default)
`api`                    azure_language, content_safety, content_understanding, comprehend, or * for all (the default)
`times`                  apply that often, then no more
`probability`, `seed`    apply to that share of the requests
`slow`                   wait that many seconds first
`status`, `retry_after`  answer with this HTTP status (400 to 599), and with `Retry-After: <seconds>` if given; Amazon
                         knows no such header, and says 400 and the exception's name for 401, 403, 408 and 429
`error`                  answer with this exception, by its name; with `api: comprehend`, and 400 unless `status` says
                         otherwise (500 for InternalServerException)
`body`                   spoil the answer's body: `html`, `truncated`, or `empty`
`job`                    on submit, what becomes of the job: `failed`; `lost` (accepted, then unknown); `slow` (done
                         after `job_seconds`, else 60); `cancelled`; `partial` (the last task fails; of a single
                         task, every second document)
`document_error`         on submit, the documents that fail: `every` nth, those with `ids` (patterns: `bad-*`), or
                         those at `indexes` (from 0)
======================== ==============================================================================================

Two submissions throttled, then good again; a tenth of all polls answered 503, always the same ones; a bad document::

    - {on: submit, status: 429, retry_after: 1, times: 2}
    - {on: poll, status: 503, probability: 0.1, seed: 7}
    - {on: submit, document_error: {ids: ["bad-*"]}}

Credentials that expire, and a throttle by the other of its two names, as Amazon says these::

    - {on: classify, api: comprehend, error: ExpiredTokenException, times: 1}
    - {on: submit, api: comprehend, error: TooManyRequestsException, times: 2}

A proxy that answers in place of the service, and a job that is never heard of again::

    [{"on": "poll", "status": 502, "body": "html", "times": 1}, {"on": "submit", "job": "lost", "times": 1}]
"""

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, model_validator

from service.errors import Misconfigured

Operation = Literal["submit", "poll", "cancel", "classify", "train", "manage"]
Api = Literal["azure_language", "content_safety", "content_understanding", "comprehend", "none"]

_Seconds = Annotated[float, Field(ge=0, le=86_400, allow_inf_nan=False)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class DocumentError(_Part):
    """Which documents of a job fail."""

    every: Annotated[int, Field(ge=1)] | None = None
    ids: tuple[str, ...] = ()
    indexes: tuple[int, ...] = ()

    def strikes(self, index: int, document_id: str) -> bool:
        """Whether the document at this place (from 0) and with this id fails."""
        return (
            (self.every is not None and (index + 1) % self.every == 0)
            or index in self.indexes
            or any(fnmatchcase(document_id, pattern) for pattern in self.ids)
        )


class Rule(_Part):
    """One rule, as the module describes it."""

    on: Operation | Literal["*"] = "*"
    api: Api | Literal["*"] = "*"
    times: Annotated[int, Field(ge=1)] | None = None
    probability: Annotated[float, Field(gt=0, le=1)] = 1.0
    seed: int = 0
    slow: _Seconds = 0.0
    status: Annotated[int, Field(ge=400, le=599)] | None = None
    retry_after: Annotated[int, Field(ge=0)] | None = None
    error: Annotated[str, Field(pattern="^[A-Za-z]{1,64}$")] | None = None
    body: Literal["html", "truncated", "empty"] | None = None
    job: Literal["failed", "lost", "slow", "cancelled", "partial"] | None = None
    job_seconds: _Seconds = 60.0
    document_error: DocumentError | None = None

    @model_validator(mode="after")
    def _makes_sense(self) -> Self:
        if not (self.slow or self.status or self.error or self.body or self.job or self.document_error):
            raise ValueError("does nothing; give slow, status, error, body, job or document_error")
        if self.error and self.api != "comprehend":
            raise ValueError("error goes with 'api: comprehend'")
        if self.retry_after is not None and self.status is None:
            raise ValueError("retry_after goes with a status")
        if self.on != "submit" and (self.job or self.document_error):
            raise ValueError("job and document_error go with 'on: submit'")
        if (self.status or self.error) and (self.job or self.document_error):
            raise ValueError("a submission that is refused makes no job; make two rules of it")
        return self


_rules = TypeAdapter(tuple[Rule, ...])


def parse(given: object) -> tuple[Rule, ...]:
    """The rules of a JSON value; raises `ValueError`, whose message names the rule (from 0) and the key."""
    try:
        return _rules.validate_python(given)
    except ValidationError as error:
        wrong = "; ".join(f"{_place(one['loc'])}: {one['msg']}" for one in error.errors(include_url=False))
        raise ValueError(wrong) from None


def _place(location: tuple[int | str, ...]) -> str:
    return ".".join(["rules" if not location else f"rule {location[0]}", *map(str, location[1:])])


class _Loader(yaml.SafeLoader):
    """YAML in which only true and false are booleans, so that the key `on` is a word."""

    yaml_implicit_resolvers = {  # noqa: RUF012 (PyYAML's own form)
        first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:bool"]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }


_Loader.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile("true|false"), list("tf"))


def load(file: Path) -> tuple[Rule, ...]:
    """The rules of a YAML or JSON file; raises `Misconfigured`."""
    try:
        return parse(yaml.load(file.read_bytes(), _Loader))  # noqa: S506 (a SafeLoader)
    except OSError as error:
        raise Misconfigured(f"faults file {file} cannot be read ({error.strerror})") from None
    except (yaml.YAMLError, ValueError) as error:
        raise Misconfigured(f"faults file {file} is not a list of rules: {error}") from None


@dataclass(slots=True)
class _Counted:
    rule: Rule
    draw: random.Random
    seen: int = 0
    applied: int = 0

    def applies(self) -> bool:
        self.seen += 1
        drawn = self.draw.random() < self.rule.probability
        if not drawn or self.applied == self.rule.times:
            return False
        self.applied += 1
        return True


class Faults:
    """The rules in force."""

    def __init__(self, rules: Sequence[Rule] = ()) -> None:
        self._counted: list[_Counted] = []
        self.replace(rules)

    def replace(self, rules: Sequence[Rule]) -> None:
        """Put other rules in force."""
        self._counted = [_Counted(rule, random.Random(rule.seed)) for rule in rules]  # noqa: S311 (no secret)

    def next(self, api: Api, operation: Operation) -> Rule | None:
        """The rule that answers this request, if any does; counted as applied."""
        for counted in self._counted:
            rule = counted.rule
            if rule.on in {operation, "*"} and rule.api in {api, "*"} and counted.applies():
                return rule
        return None

    def statistics(self) -> list[dict[str, Any]]:
        """The rules with their counts."""
        return [
            {
                **counted.rule.model_dump(mode="json", exclude_unset=True),
                "seen": counted.seen,
                "applied": counted.applied,
            }
            for counted in self._counted
        ]
