"""Where training data is read from: containers that the operator has named, each a folder or an Azure container.

`--container NAME=FOLDER` stands for a container of that name; `--container NAME=https://ACCOUNT…/NAME?SIGNATURE` reads
the real one by Get Blob, with the permission of its shared access signature (which is kept out of every message).
Nothing is read from anywhere else, whatever URL a client names: of a blob's URL, only the names of container and blob
count. Get Blob: https://learn.microsoft.com/rest/api/storageservices/get-blob
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Protocol, Self
from urllib.parse import quote, unquote, urlsplit

import httpx

from service.errors import Misconfigured

LARGEST_BLOB = 256 * 2**20  # bytes
_PATIENCE = 30.0  # seconds


class BlobMissing(Exception):
    """There is no such container or blob, or it cannot be read; the message says which and why."""


class Container(Protocol):
    """Blobs by name."""

    def read(self, blob: str) -> bytes:
        """The content of a blob, not for the event loop; raises `BlobMissing`."""
        ...


class Folder:
    """A container that is a folder of this machine; blobs are its files, and nothing outside it is one."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder.resolve()

    def read(self, blob: str) -> bytes:
        """As `Container.read`."""
        try:
            path = (self._folder / blob).resolve()
            if not (blob and path.is_relative_to(self._folder) and path.is_file()):
                raise BlobMissing(f"there is no blob {blob!r}")
            if path.stat().st_size > LARGEST_BLOB:
                raise BlobMissing(f"blob {blob!r} is larger than {LARGEST_BLOB:,} bytes")
            return path.read_bytes()
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else "not a file name"
            raise BlobMissing(f"blob {blob!r} cannot be read: {reason}") from None


class AzureContainer:
    """A container of Azure Blob Storage, or of what speaks its protocol, by a URL with a shared access signature."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._base = f"{parts.scheme}://{parts.netloc}{parts.path.rstrip('/')}"
        self._signature = parts.query

    def __repr__(self) -> str:
        return f"AzureContainer({self._base!r})"

    def read(self, blob: str) -> bytes:
        """As `Container.read`; no name leads out of the container, whose signature may be good for others, too."""
        if not blob or not {".", ".."}.isdisjoint(blob.split("/")):
            raise BlobMissing(f"there is no blob {blob!r}")
        url = f"{self._base}/{quote(blob)}?{self._signature}"
        try:
            with httpx.stream("GET", url, headers={"x-ms-version": "2021-12-02"}, timeout=_PATIENCE) as answer:
                if answer.status_code != 200:
                    raise BlobMissing(
                        f"blob {blob!r} cannot be read: the storage account answered {answer.status_code}"
                    )
                content = bytearray()
                for part in answer.iter_bytes():
                    content += part
                    if len(content) > LARGEST_BLOB:
                        raise BlobMissing(f"blob {blob!r} is larger than {LARGEST_BLOB:,} bytes")
                return bytes(content)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise BlobMissing(f"blob {blob!r} cannot be read: {type(error).__name__}") from None


class Containers:
    """The containers by name."""

    def __init__(self, containers: Mapping[str, Container]) -> None:
        self._containers = containers

    @classmethod
    def parse(cls, given: Iterable[str]) -> Self:
        """Containers written NAME=FOLDER or NAME=URL; raises `Misconfigured`."""
        containers: dict[str, Container] = {}
        for text in given:
            name, equals, where = text.partition("=")
            if not (equals and name and where):
                raise Misconfigured("--container is to be NAME=FOLDER or NAME=https://ACCOUNT.blob.core.windows.net/…")
            if where.startswith(("https://", "http://")):
                containers[name] = AzureContainer(where)
            elif Path(where).is_dir():
                containers[name] = Folder(Path(where))
            else:
                raise Misconfigured(f"--container {name}: {where} is not a folder")
        return cls(containers)

    def __contains__(self, name: str) -> bool:
        return name in self._containers

    def has_url(self, url: str) -> bool:
        """Whether a URL is one of a blob, there or not, in a container that is known."""
        return _places(url)[0] in self

    def read(self, container: str, blob: str) -> bytes:
        """The content of a blob, not for the event loop; raises `BlobMissing`."""
        if container not in self._containers:
            raise BlobMissing(f"there is no container {container!r}; the operator names them with --container")
        return self._containers[container].read(blob)

    def read_url(self, url: str) -> bytes:
        """The content of a blob by its URL, `https://ACCOUNT…/CONTAINER/BLOB`; raises `BlobMissing`."""
        return self.read(*_places(url))


def _places(url: str) -> tuple[str, str]:
    """The container and the blob that a URL names; empty where it is no URL."""
    try:
        path = unquote(urlsplit(url).path)
    except ValueError:
        return "", ""
    container, _, blob = path.lstrip("/").partition("/")
    return container, blob
