"""The root, and what every worker has once."""

from typing import Annotated, Literal, Self

from pydantic import (
    Field,
    model_validator,
)

from service.errors import Misconfigured
from service.settings.accounts import Account, has_jobs
from service.settings.kafka import Kafka
from service.settings.redis import Redis
from service.settings.registry import Registry
from service.settings.streams import Stream
from service.settings.tracing import Tracing
from service.settings.values import Branch, nearest


class Health(Branch):
    """Where `/livez`, `/readyz`, `/metrics` and the status page (`/`) are; no document or key is ever shown there."""

    host: str = "127.0.0.1"
    """The address to listen on."""
    port: Annotated[int, Field(ge=0, le=65_535)] = 9464
    """The port to listen on; 0 takes a free one."""


class Log(Branch):
    """How much is said and in which form: `auto` is readable lines on a terminal and JSON elsewhere."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    """The least severe lines that are written."""
    format: Literal["auto", "json", "console"] = "auto"
    """The form of a line."""


class Settings(Branch):
    """The whole tree; see `config/triage.yaml` for every setting with its reason."""

    kafka: Kafka
    accounts: Annotated[dict[str, Account], Field(min_length=1)]
    streams: Annotated[tuple[Stream, ...], Field(min_length=1)]
    redis: Redis | None = None
    registry: Registry | None = None
    tracing: Tracing | None = None
    health: Health = Health()
    log: Log = Log()

    @model_validator(mode="after")
    def _whole(self) -> Self:
        for name, account in self.accounts.items():
            if has_jobs(account) and account.limits.hedge is not None:
                raise ValueError(
                    f"accounts.{name}.limits.hedge: this account answers by jobs. A job is billed once it was"
                    " submitted, and noted, so that whoever has its documents asks after it: a second one would always"
                    " be paid for, and after a restart both would be asked after. Leave it out"
                )
        names = [stream.name for stream in self.streams]
        if twice := {name for name in names if names.count(name) > 1}:
            raise ValueError(f"streams: the name {twice.pop()!r} is given twice")
        inputs = [stream.input for stream in self.streams]
        if shared := {topic for topic in inputs if inputs.count(topic) > 1}:
            raise ValueError(
                f"streams: the input {shared.pop()!r} is given twice: members of one group share a topic's records,"
                " so each stream would see a part of them"
            )
        used = {topic for stream in self.streams for topic in (stream.input, *stream.topics_written)}
        kept = [stream.topic_of_jobs(self.kafka.group_id) for stream in self.streams if stream.note_jobs]
        if twofold := [topic for topic in kept if topic in used or kept.count(topic) > 1]:
            raise ValueError(f"streams: the topic {twofold[0]!r} is to keep jobs, and something else: give jobs_topic")
        for i, stream in enumerate(self.streams):
            if stream.drain >= min(self.kafka.rebalance_timeout, self.kafka.request_timeout):
                raise ValueError(
                    f"streams[{i}].drain: {stream.drain:g} s is not below kafka.rebalance_timeout"
                    f" ({self.kafka.rebalance_timeout:g} s) and kafka.request_timeout"
                    f" ({self.kafka.request_timeout:g} s), so a rebalance would not wait for it"
                )
        return self

    @model_validator(mode="after")
    def _accounts_that_there_are(self) -> Self:
        for i, stream in enumerate(self.streams):
            for where, names in stream.accounts_by_setting.items():
                if unknown := [name for name in names if name not in self.accounts]:
                    known = nearest(unknown[0], list(self.accounts))
                    raise ValueError(f"streams[{i}].{where}: no account {unknown[0]!r}, {known}")
        return self

    @model_validator(mode="after")
    def _registry_where_one_is_needed(self) -> Self:
        for i, stream in enumerate(self.streams):
            if stream.needs_registry and self.registry is None:
                where = "document" if stream.document.format == "registry" else "results"
                raise ValueError(f"streams[{i}].{where}.format: the schemas are in a registry: give registry.url")
        return self

    def notes_jobs(self, stream: Stream) -> bool:
        """Whether there are jobs of this stream to note, and they are to be noted."""
        return stream.note_jobs and any(has_jobs(self.accounts[name]) for name in stream.accounts_published)

    def stream(self, name: str | None) -> Stream:
        """The stream of that name, or the only one. Raises Misconfigured."""
        names = [stream.name for stream in self.streams]
        if name is None and len(names) > 1:
            raise Misconfigured(f"the configuration has the streams {', '.join(names)}: say which with --stream")
        for stream in self.streams:
            if name in {None, stream.name}:
                return stream
        raise Misconfigured(f"the configuration has no stream {name!r}; it has {', '.join(names)}")
