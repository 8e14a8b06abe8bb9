"""Results by a schema of the registry: its number before each, and behind that Avro, or the JSON that it is already.

The schemas are `result.avsc` and `result.schema.json` beside this file. A field that is added to them has a default, or
is not required, so that readers of either version understand writers of the other.
"""

from collections.abc import Callable
from datetime import datetime
from functools import cached_property
from importlib.resources import files
from io import BytesIO
from typing import Literal

import orjson

from service.formats.framing import prefix
from service.settings import Results

_SCHEMAS = {"avro": ("AVRO", "result.avsc"), "json_schema": ("JSON", "result.schema.json")}
_MOMENTS = ("received_at", "classified_at")


class Written:
    """How a stream's results are written; the schema's number is that of each topic's own subject."""

    def __init__(self, form: Literal["avro", "json_schema"]) -> None:
        self.kind, self.file = _SCHEMAS[form]
        self._prefixes: dict[str, bytes] = {}

    @cached_property
    def text(self) -> str:
        """The schema, without the white space that people read it by."""
        schema = files("service.formats").joinpath(self.file).read_bytes()
        return orjson.dumps(orjson.loads(schema)).decode()

    @cached_property
    def body(self) -> Callable[[bytes], bytes]:
        """What makes of a result in JSON what stands behind the schema's number."""
        return _avro(self.text) if self.kind == "AVRO" else bytes

    def __contains__(self, topic: str) -> bool:
        return topic in self._prefixes

    def number(self, topic: str, number: int) -> None:
        """Take note of the schema's number under a topic's subject."""
        self._prefixes[topic] = prefix(number)

    def framed(self, topic: str, body: bytes) -> bytes:
        """A value for a topic whose number is known."""
        return self._prefixes[topic] + body


def written(results: Results) -> Written | None:
    """How results are written, where that is by a schema."""
    match results.format:
        case "avro" | "json_schema" as form:
            return Written(form)
    return None


def _avro(text: str) -> Callable[[bytes], bytes]:
    import fastavro  # noqa: PLC0415  an extra, for those who want it

    schema = fastavro.parse_schema(orjson.loads(text))

    def body(result: bytes) -> bytes:
        found = orjson.loads(result)
        for name in _MOMENTS:
            found[name] = datetime.fromisoformat(found[name])
        value = BytesIO()
        fastavro.schemaless_writer(value, schema, found)
        return value.getvalue()

    return body
