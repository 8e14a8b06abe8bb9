"""The contract of `tests.streams.contract`, kept by memory and, as far as files go, by files."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from itertools import count
from pathlib import Path

import pytest

from service.delivery import Sink
from service.source import Source
from service.streams.files import Files
from service.streams.memory import MemorySink, MemorySource
from tests.records import INPUT, record
from tests.streams.contract import Found, GroupContract, SinkContract, SourceContract


class Memory:
    def __init__(self) -> None:
        self._values: list[bytes] = []
        self._source = MemorySource(partitions=[INPUT])

    async def fill(self, values: Sequence[bytes]) -> None:
        for offset, value in enumerate(values, start=len(self._values)):
            self._source.add(record(offset, value))
        self._values += values

    def source(self) -> Source:
        records = [record(offset, value) for offset, value in enumerate(self._values)]
        self._source = MemorySource(records, committed=self._source.committed, ends=False, partitions=[INPUT])
        return self._source

    @asynccontextmanager
    async def taken_away(self, source: Source) -> AsyncIterator[None]:
        assert isinstance(source, MemorySource)
        await source.revoke([INPUT])
        yield
        await source.assign([INPUT])


class MemoryTopics:
    def __init__(self) -> None:
        self._sink = MemorySink()
        self._numbers = count()

    def topic(self) -> str:
        return f"topic-{next(self._numbers)}"

    @asynccontextmanager
    async def sink(self) -> AsyncIterator[Sink]:
        yield self._sink

    async def published(self, topic: str, count: int) -> Sequence[Found]:
        found = self._sink.to(topic)
        assert len(found) == count
        return [(message.key, message.value, list(message.headers)) for message in found]


class Lines:
    def __init__(self, folder: Path) -> None:
        self._input = folder / "input.jsonl"
        self._input.touch()
        self._output, self._dead = folder / "output.jsonl", folder / "dead.jsonl"

    async def fill(self, values: Sequence[bytes]) -> None:
        with self._input.open("ab") as file:
            file.writelines(value + b"\n" for value in values)

    def source(self) -> Source:
        return Files([self._input], self._output, self._dead, "dead")


class TestMemorySource(GroupContract):
    @pytest.fixture
    def harness(self) -> Memory:
        return Memory()


class TestMemorySink(SinkContract):
    @pytest.fixture
    def harness(self) -> MemoryTopics:
        return MemoryTopics()


class TestFilesSource(SourceContract):
    @pytest.fixture
    def harness(self, tmp_path: Path) -> Lines:
        return Lines(tmp_path)
