import ssl
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
import trustme

from service import settings
from service.errors import Misconfigured, Unavailable
from service.formats.registered import Schema, Unusable
from service.observability.telemetry import Telemetry
from service.registry import client
from service.registry.client import Incompatible, opened
from tests.registry.answering import UNKNOWN, answering, avro

SECRET = "canary-4711"
GUID = UUID("89791762-2336-4186-9674-299b90a802e2")


async def test_a_schema_is_told_with_those_that_it_names_each_behind_its_own() -> None:
    answers = {
        "GET /schemas/ids/7": avro("seven", [("b", 1), ("c", 2)]),
        "GET /subjects/b/versions/1?deleted=true": avro("bee", [("c", 2), ("d%2Fe", 1)]),
        "GET /subjects/c/versions/2?deleted=true": avro("sea"),
        "GET /subjects/d%252Fe/versions/1?deleted=true": avro("dee"),
    }
    async with answering(answers) as (registry, server):
        assert await registry.schema(7) == Schema("AVRO", '"seven"', ('"sea"', '"dee"', '"bee"'))
    assert set(server.asked.values()) == {1}


async def test_a_guid_is_asked_for_as_one() -> None:
    answers = {f"GET /schemas/guids/{GUID}": (200, {"schema": "{}", "schemaType": "JSON"})}
    async with answering(answers) as (registry, _):
        assert await registry.schema(GUID) == Schema("JSON", "{}")


@pytest.mark.parametrize("code", [0, 40401, 40402, 40403])
async def test_what_the_registry_does_not_have_is_nothing(code: int) -> None:
    answers = {"GET /schemas/ids/7": (404, {"error_code": code, "message": "not found"})}
    async with answering(answers) as (registry, _):
        assert await registry.schema(7) is None


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        ((200, {"schemaType": "AVRO"}), "says nothing of it that makes sense"),
        ((200, {"schema": "{}", "references": [{"name": "n"}]}), "refers to others in a way that makes no sense"),
        (avro({}, [("gone", 3)]), "refers to version 3 of 'gone', which the registry does not have"),
        ((200, {"schema": "x" * 1024**2}), "longer than 1,048,576 bytes"),
    ],
)
async def test_a_schema_that_makes_no_sense_cannot_be_used(answer: Any, why: str) -> None:
    async with answering({"GET /schemas/ids/7": answer}) as (registry, _):
        with pytest.raises(Unusable, match=why):
            await registry.schema(7)


async def test_schemas_that_name_each_other_for_ever_are_given_up() -> None:
    chain = {f"GET /subjects/s{n}/versions/1?deleted=true": avro(n, [(f"s{n + 1}", 1)]) for n in range(200)}
    round_about = {"GET /subjects/a/versions/1?deleted=true": avro("a", [("a", 1)])}
    answers = {"GET /schemas/ids/1": avro(0, [("s0", 1)]), "GET /schemas/ids/2": avro(0, [("a", 1)])}
    async with answering(answers | chain | round_about) as (registry, server):
        with pytest.raises(Unusable, match="more than 100 others"):
            await registry.schema(1)
        assert (await registry.schema(2)) == Schema("AVRO", "0", ('"a"',))
    assert sum(server.asked.values()) == 103


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        ((503, b""), "answers schemas/ids/7 with 503$"),
        ((429, b"", ("retry-after", "7")), "with 429"),
        ((404, b"<html>"), "with 404, in no form of a schema registry"),
        ((404, {"detail": "no such page"}), "in no form of a schema registry"),
        ((200, b"<html>"), "in no form of a schema registry"),
        ((302, b"", ("location", "http://localhost:1/")), "with 302"),
    ],
)
async def test_what_is_no_answer_of_a_registry_is_an_outage(answer: Any, why: str) -> None:
    async with answering({"GET /schemas/ids/7": answer}) as (registry, _):
        with pytest.raises(Unavailable, match=why) as failure:
            await registry.schema(7)
    assert failure.value.retry_after == (7 if answer[0] == 429 else None)


async def test_so_is_no_answer_at_all() -> None:
    async with answering({}, host="127.0.0.1:1") as (registry, _):
        with pytest.raises(Unavailable, match="nobody answers there"):
            await registry.schema(7)
    async with answering({}, seconds=0.5, request_timeout=0.1) as (registry, _):
        with pytest.raises(Unavailable, match=r"no answer in registry\.request_timeout"):
            await registry.schema(7)


USER: dict[str, Any] = {"username": "desk", "password": SECRET}


@pytest.mark.parametrize(
    ("branch", "sent"),
    [
        ({}, None),
        (USER, "Basic ZGVzazpjYW5hcnktNDcxMQ=="),
        ({"token": SECRET}, f"Bearer {SECRET}"),
    ],
)
async def test_credentials_go_along(branch: Any, sent: str | None) -> None:
    async with answering({"GET /schemas/types": (200, ["AVRO"])}, **branch) as (registry, server):
        await registry.probe()
    assert server.headers.get("authorization") == sent


@pytest.mark.parametrize(
    ("branch", "status", "says"),
    [
        ({}, 401, "wants to know who asks .401.: give registry.username, or registry.token"),
        ({}, 403, "wants to know who asks .403.: give registry.username, or registry.token"),
        (USER, 401, r"registry.username and registry.password .or password_file.: .* does not know these credentials"),
        (USER, 403, r"registry.username .* the right to read schemas .403."),
        ({"token": SECRET}, 401, r"registry.token .or token_file.: .* does not know"),
    ],
)
async def test_whoever_is_not_let_in_is_told_which_setting_says_who_they_are(
    branch: Any, status: int, says: str
) -> None:
    async with answering({"GET /schemas/ids/7": (status, {"error_code": status})}, **branch) as (registry, _):
        with pytest.raises(Misconfigured, match=says) as failure:
            await registry.schema(7)
    assert SECRET not in str(failure.value)
    assert SECRET not in repr(failure.value.__context__)


async def test_whoever_may_not_register_is_told_so() -> None:
    async with answering({"POST /subjects/s/versions": (403, {})}, **USER) as (registry, _):
        with pytest.raises(Misconfigured, match="the right to write to the subjects of results"):
            await registry.subject("s", "AVRO", "{}", register=True)


async def test_something_else_at_the_url_is_told_apart_from_a_registry() -> None:
    for answer in ((404, b"<html>"), (200, {"hello": "world"})):
        async with answering({"GET /schemas/types": answer}) as (registry, _):
            with pytest.raises(Misconfigured, match=r"registry\.url: .* is no schema registry .* /apis/ccompat/v7"):
                await registry.probe()


async def test_a_schema_is_registered_or_looked_up_and_refused_in_the_registrys_words() -> None:
    answers = {
        "POST /subjects/a%2Fb/versions": (200, {"id": 3}),
        "POST /subjects/a": (200, {"id": 4, "version": 1}),
        "POST /subjects/taken/versions": (409, {"error_code": 409, "message": "incompatible with an earlier schema"}),
        "POST /subjects/odd": (200, {"id": "4"}),
    }
    async with answering(answers) as (registry, _):
        assert await registry.subject("a/b", "AVRO", "{}", register=True) == 3
        assert await registry.subject("a", "JSON", "{}", register=False) == 4
        assert await registry.subject("b", "JSON", "{}", register=False) is None
        with pytest.raises(Incompatible, match="incompatible with an earlier schema"):
            await registry.subject("taken", "AVRO", "{}", register=True)
        with pytest.raises(Unavailable, match="makes no sense"):
            await registry.subject("odd", "AVRO", "{}", register=False)


async def test_it_is_asked_whether_a_subject_would_take_a_schema() -> None:
    place = "POST /compatibility/subjects/{}/versions/latest?verbose=true"
    answers = {
        place.format("yes"): (200, {"is_compatible": True}),
        place.format("no"): (200, {"is_compatible": False, "messages": ["a reader misses x", "and y"]}),
        place.format("invalid"): (422, {"error_code": 42201, "message": "invalid schema"}),
        place.format("new"): UNKNOWN,
    }
    async with answering(answers) as (registry, _):
        await registry.would_take("yes", "AVRO", "{}")
        await registry.would_take("new", "AVRO", "{}")
        with pytest.raises(Incompatible, match="a reader misses x; and y"):
            await registry.would_take("no", "AVRO", "{}")
        with pytest.raises(Incompatible, match="invalid schema"):
            await registry.would_take("invalid", "AVRO", "{}")


async def test_certificates_are_trusted_as_the_settings_say(tmp_path: Path) -> None:
    ours, tls = trustme.CA(), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ours.issue_cert("127.0.0.1").configure_cert(tls)
    ours.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    answers = {"GET /schemas/types": (200, ["AVRO"])}
    async with answering(answers, tls=tls, ca_file=tmp_path / "ca.pem") as (registry, _):
        await registry.probe()
    async with answering(answers, tls=tls) as (registry, _):
        with pytest.raises(Unavailable, match=r"not one that registry\.ca_file, or the system, trusts"):
            await registry.probe()
    for content in (None, "no certificate"):
        file = tmp_path / "other.pem"
        if content is not None:
            file.write_text(content)
        with pytest.raises(Misconfigured, match=r"registry\.ca_file: .*other\.pem is of no use"):
            async with opened(settings.Registry(url="https://r", ca_file=file), Telemetry()):
                pass


async def test_without_the_extra_it_is_told_how_to_have_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "find_spec", lambda _: None)
    with pytest.raises(Misconfigured, match=r"pip install 'labelstream\[registry\]'"):
        async with opened(settings.Registry(url="https://r"), Telemetry()):
            pass


async def test_the_path_of_the_url_is_kept() -> None:
    answers = {"GET /apis/ccompat/v7/schemas/types": (200, ["AVRO"])}
    for path in ("/apis/ccompat/v7", "/apis/ccompat/v7/"):
        async with answering(answers, path=path) as (registry, _):
            await registry.probe()
