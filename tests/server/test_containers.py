import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from service.errors import Misconfigured
from service.server.containers import BlobMissing, Containers

SIGNATURE = "sv=2021-12-02&sig=very-secret"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "tickets"
    (folder / "deeper").mkdir(parents=True)
    (folder / "labels.json").write_bytes(b"{}")
    (folder / "deeper" / "one.txt").write_bytes(b"one")
    (tmp_path / "secret.txt").write_bytes(b"not theirs")
    (folder / "link.txt").symlink_to(tmp_path / "secret.txt")
    return folder


def test_blobs_are_the_files_of_a_folder(folder: Path) -> None:
    containers = Containers.parse([f"tickets={folder}"])
    assert containers.read("tickets", "labels.json") == b"{}"
    assert containers.read_url("https://x.blob.core.windows.net/tickets/deeper/one.txt") == b"one"
    assert "tickets" in containers
    assert "others" not in containers


@pytest.mark.parametrize("blob", ["../secret.txt", "/etc/passwd", "link.txt", "", ".", "deeper", "none.txt", "a\0b"])
def test_nothing_outside_the_folder_is_a_blob(folder: Path, blob: str) -> None:
    with pytest.raises(BlobMissing):
        Containers.parse([f"tickets={folder}"]).read("tickets", blob)


def test_a_container_that_nobody_named_is_not_read() -> None:
    with pytest.raises(BlobMissing, match="no container 'others'"):
        Containers.parse([]).read_url("https://x.blob.core.windows.net/others/one.txt")


@pytest.mark.parametrize("given", ["tickets", "tickets=", "=folder", "tickets=/no/such/folder"])
def test_what_is_no_container_is_told_at_start(given: str) -> None:
    with pytest.raises(Misconfigured, match="--container"):
        Containers.parse([given])


class Account(BaseHTTPRequestHandler):
    """A storage account with a blob in each of two containers, and one signature for both."""

    def do_GET(self) -> None:
        found = self.path in {f"/tickets/deeper/one%20two.txt?{SIGNATURE}", f"/others/one.txt?{SIGNATURE}"}
        self.send_response(200 if found else 403)
        self.end_headers()
        self.wfile.write(b"content" if found else b"")

    def log_message(self, *_: object) -> None:
        """Nothing is said."""


@pytest.fixture
def account() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Account) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_an_azure_container_is_read_with_its_signature(account: str) -> None:
    containers = Containers.parse([f"tickets={account}/tickets?{SIGNATURE}"])
    assert containers.read("tickets", "deeper/one two.txt") == b"content"


@pytest.mark.parametrize("blob", ["../others/one.txt", "deeper/../../others/one.txt", "./../others/one.txt", "..", ""])
def test_no_name_of_a_blob_leads_out_of_an_azure_container(account: str, blob: str) -> None:
    containers = Containers.parse([f"tickets={account}/tickets?{SIGNATURE}"])
    with pytest.raises(BlobMissing, match="there is no blob"):
        containers.read("tickets", blob)


def test_the_signature_is_in_no_message(account: str) -> None:
    containers = Containers.parse([f"tickets={account}/tickets?{SIGNATURE}"])
    with pytest.raises(BlobMissing, match="403") as refused:
        containers.read("tickets", "one.txt")
    assert "secret" not in f"{refused.value!r} {containers!r} {containers._containers!r}"
    with pytest.raises(BlobMissing, match="ConnectError") as unreachable:
        Containers.parse([f"tickets=http://127.0.0.1:1/tickets?{SIGNATURE}"]).read("tickets", "one.txt")
    assert "secret" not in repr(unreachable.value)
