"""Training data is put where a service reads it, and the signature that lets us is told to nobody."""

from pathlib import Path

import pytest

from service.errors import CallFailed, Misconfigured, Throttled, Unavailable
from service.lifecycle.containers import container
from service.transport.http import PacedClient
from tests.providers.conftest import Replay, Reply

SIGNATURE = "sv=2021-12-02&sr=c&sp=cw&sig=c4n4ry%2Fs1gn4tur3%3D"


async def test_a_folder_stands_for_a_container(tmp_path: Path, http: PacedClient) -> None:
    url = await container(f"samples={tmp_path}", http).put("drugs.jsonl", b"content")
    assert url == "https://localhost/samples/drugs.jsonl"
    assert (tmp_path / "drugs.jsonl").read_bytes() == b"content"


async def test_a_blob_is_put_with_the_signature_and_told_without(replay: Replay, http: PacedClient) -> None:
    replay.answer(Reply(201))
    given = container(f"{replay.url}/samples/?{SIGNATURE}", http)
    assert await given.put("drugs.jsonl", b"content") == f"{replay.url}/samples/drugs.jsonl"
    (request,) = replay.requests
    assert (request.method, request.path, request.query) == ("PUT", "/samples/drugs.jsonl", SIGNATURE)
    assert request.headers["x-ms-blob-type"] == "BlockBlob"
    assert request.body == b"content"
    assert "c4n4ry" not in repr(given)


REFUSALS: dict[str, tuple[Reply, type[CallFailed], str]] = {
    "signature": (
        Reply(403, b"<Error/>", {"x-ms-error-code": "AuthorizationPermissionMismatch"}),
        Misconfigured,
        "403 AuthorizationPermissionMismatch: check .* its signature lets blobs be created and written",
    ),
    "container": (Reply(404, None, {"x-ms-error-code": "ContainerNotFound"}), Misconfigured, "ContainerNotFound"),
    "throttled": (Reply(429), Throttled, "429"),
    "busy": (Reply(503, None, {"x-ms-error-code": "ServerBusy"}), Unavailable, "503 ServerBusy"),
    "html": (Reply(400, b"<html></html>", {"x-ms-error-code": "<b>x</b>"}), Misconfigured, "answered 400: check"),
}


@pytest.mark.parametrize("refusal", REFUSALS)
async def test_what_storage_refuses_says_what_to_do(refusal: str, replay: Replay, http: PacedClient) -> None:
    reply, kind, told = REFUSALS[refusal]
    replay.answer(reply)
    with pytest.raises(kind, match=told) as failed:
        await container(f"{replay.url}/samples?{SIGNATURE}", http).put("drugs.jsonl", b"content")
    assert "c4n4ry" not in str(failed.value)


async def test_storage_that_is_away_is_an_outage(http: PacedClient) -> None:
    with pytest.raises(Unavailable, match="did not answer") as failed:
        await container(f"http://127.0.0.1:1/samples?{SIGNATURE}", http).put("drugs.jsonl", b"content")
    assert "c4n4ry" not in str(failed.value)


@pytest.mark.parametrize(
    "given",
    ["samples", "=folder", "samples=", "samples=/nowhere/at/all", "https://contoso.blob.core.windows.net/samples",
     f"https://contoso.blob.core.windows.net/?{SIGNATURE}", f"http://contoso.blob.core.windows.net/samples?{SIGNATURE}"],
)  # fmt: skip
def test_what_is_no_container_is_said(given: str, http: PacedClient) -> None:
    with pytest.raises(Misconfigured, match="container") as failed:
        container(given, http)
    assert "c4n4ry" not in str(failed.value)


async def test_a_folder_that_cannot_be_written_to(tmp_path: Path, http: PacedClient) -> None:
    (tmp_path / "drugs.jsonl").mkdir()
    with pytest.raises(Misconfigured, match=r"drugs.jsonl cannot be written: Is a directory"):
        await container(f"samples={tmp_path}", http).put("drugs.jsonl", b"content")
