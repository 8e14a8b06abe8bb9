"""Where training data is put for an Azure service to read: a storage container, or the folder that stands for one.

`NAME=FOLDER` is what a `labelstream serve` is told by the same `--container`; `https://ACCOUNT…/NAME?SIGNATURE` is a
container of Azure Blob Storage, written to by Put Blob with the permission of its shared access signature (create and
write). The signature is in no message, and is not told to the service, which reads with a permission of its own.
Put Blob: https://learn.microsoft.com/rest/api/storageservices/put-blob
"""

import asyncio
import os
import re
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Protocol
from urllib.parse import quote, unquote, urlsplit

import httpx

from service.errors import CallFailed, Misconfigured, Throttled, Unavailable
from service.lifecycle.waiting import answered
from service.progress import Waiting
from service.providers.azure import Exchange
from service.settings import is_loopback

_AT_ONCE = 16
_CODE = re.compile("[A-Za-z]{1,64}")


class Container(Protocol):
    """Blobs that may be written."""

    @property
    def name(self) -> str:
        """What services call the container."""
        ...

    async def put(self, blob: str, content: bytes) -> str:
        """Write a blob; gives its URL as a service is told it. Raises Misconfigured, Unavailable and Throttled."""
        ...


class Folder:
    """A folder that a server of ours knows as a container of this name."""

    def __init__(self, name: str, folder: Path) -> None:
        self.name = name
        self._folder = folder

    async def put(self, blob: str, content: bytes) -> str:
        """As `Container.put`."""
        try:
            await asyncio.to_thread(self._write, blob, content)
        except OSError as error:
            raise Misconfigured(f"container {self._folder}: {blob} cannot be written: {error.strerror}") from None
        return f"https://localhost/{quote(self.name)}/{quote(blob)}"

    def _write(self, blob: str, content: bytes) -> None:
        beside = self._folder / f".{blob}"
        beside.write_bytes(content)
        os.replace(beside, self._folder / blob)  # noqa: PTH105  a reader finds all of it or nothing


class AzureContainer:
    """A container of Azure Blob Storage, by a URL with a shared access signature."""

    def __init__(self, url: str, http: Exchange) -> None:
        parts = urlsplit(url)
        self._base = f"{parts.scheme}://{parts.netloc}{parts.path.rstrip('/')}"
        self.name = unquote(parts.path.strip("/").rpartition("/")[2])
        self._signature = parts.query
        self._http = http

    def __repr__(self) -> str:
        return f"AzureContainer({self._base!r})"

    async def put(self, blob: str, content: bytes) -> str:
        """As `Container.put`."""
        url = f"{self._base}/{quote(blob)}"
        headers = {**self._http.headers, "x-ms-version": "2021-12-02", "x-ms-blob-type": "BlockBlob"}
        try:
            answer = await self._http.exchange("PUT", f"{url}?{self._signature}", headers, content)
        except httpx.InvalidURL:
            raise Misconfigured(f"container {self._base} is not a URL") from None
        except httpx.RequestError as error:
            raise Unavailable(f"container {self._base} did not answer ({type(error).__name__})") from None
        if answer.is_success:
            return url
        code = answer.headers.get("x-ms-error-code") or ""
        told = f"container {self._base} answered {answer.status_code} {code if _CODE.fullmatch(code) else ''}".rstrip()
        if answer.status_code == 429:
            raise Throttled(told)
        if answer.status_code in (408, 409) or answer.status_code >= 500:
            raise Unavailable(told)
        raise Misconfigured(f"{told}: check that it is there and that its signature lets blobs be created and written")


async def put_all(into: Container, blobs: Sequence[tuple[str, bytes]], progress: Waiting) -> None:
    """Write blobs, several at a time; what passes is waited out. Raises Misconfigured."""
    left, done = iter(blobs), 0

    async def putting() -> None:
        nonlocal done
        for blob, content in left:
            await answered(partial(into.put, blob, content), progress.say)
            done += 1
            progress.advance(done / len(blobs))

    try:
        async with asyncio.TaskGroup() as tasks:
            for _ in range(_AT_ONCE):
                tasks.create_task(putting())
    except* CallFailed as group:
        raise group.exceptions[0] from None


def is_on_this_machine(given: str) -> bool:
    """Whether what is written as a container never leaves this machine."""
    try:
        return is_loopback(urlsplit(given).hostname or "")
    except ValueError:
        return False


def container(given: str, http: Exchange) -> Container:
    """The container that is written `NAME=FOLDER` or `https://ACCOUNT…/NAME?SIGNATURE`; raises Misconfigured."""
    if given.startswith(("https://", "http://")):
        parts = urlsplit(given)
        if not (parts.query and parts.path.strip("/")):
            raise Misconfigured("container is to be https://ACCOUNT.blob.core.windows.net/NAME?SIGNATURE")
        if parts.scheme == "http" and not is_loopback(parts.hostname or ""):
            raise Misconfigured("container would send documents and its signature unencrypted: use https")
        return AzureContainer(given, http)
    name, equals, folder = given.partition("=")
    if not (name and equals and folder):
        raise Misconfigured("container is to be NAME=FOLDER or https://ACCOUNT.blob.core.windows.net/NAME?SIGNATURE")
    if not Path(folder).is_dir():
        raise Misconfigured(f"container {name}: {folder} is not a folder")
    return Folder(name, Path(folder))
