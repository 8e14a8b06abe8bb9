"""Schemas that are named by GUID in a header, by the vendor's serializer; the real registry of other tests has none."""

import asyncio
from uuid import UUID

from confluent_kafka.schema_registry import Schema, SchemaRegistryClient, header_schema_id_serializer
from confluent_kafka.schema_registry.avro import AvroSerializer
from confluent_kafka.serialization import MessageField, SerializationContext

from service.formats.registered import schema_of, value
from service.registry.schemas import Schemas
from tests.records import record
from tests.registry.answering import answering

GUID = "89791762-2336-4186-9674-299b90a802e2"
TICKET = '{"type": "record", "name": "Ticket", "fields": [{"name": "text", "type": "string"}]}'


def written(url: str) -> tuple[bytes, list[tuple[str, bytes]]]:
    headers = list[tuple[str, bytes]]()
    with SchemaRegistryClient({"url": url}) as client:
        write = AvroSerializer(
            client, Schema(TICKET, "AVRO"), conf={"schema.id.serializer": header_schema_id_serializer}
        )
        payload = write({"text": "für März"}, SerializationContext("tickets", MessageField.VALUE, headers))
    return payload, headers


async def test_a_record_that_names_its_schema_in_a_header_is_read() -> None:
    told = {"id": 7, "guid": GUID, "schema": TICKET, "version": 1, "subject": "tickets-value"}
    answers = {
        "POST /subjects/tickets-value/versions?normalize=False": (200, told),
        f"GET /schemas/guids/{GUID}": (200, {"schema": TICKET}),
    }
    async with answering(answers) as (registry, _):
        payload, headers = await asyncio.to_thread(written, str(registry._http.base_url))
        read = record(0, payload, headers=headers)
        known = Schemas(registry)
        await known.learn(UUID(GUID))
        assert schema_of(read) == UUID(GUID)
        assert value(known.decoders, read) == {"text": "für März"}
