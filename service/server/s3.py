"""Objects in S3 that Comprehend's trainings and jobs read and write; for threads, not for the event loop.

The credentials are the operator's, wherever the AWS SDKs find them; `--s3-endpoint-url` names an address that is not
AWS's. botocore is imported when the first object is asked for.
"""

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Any, NamedTuple

LARGEST = 5 * 2**30
"""Bytes that may be read for one training or job, as in the service."""

_URI = re.compile(r"s3://([a-z0-9][.\-a-z0-9]{1,61}[a-z0-9])(?:/(.*))?", re.DOTALL)


class ObjectError(Exception):
    """Objects cannot be read or written; the message says which and why."""


class Listed(NamedTuple):
    """An object: its key, and its size in bytes."""

    key: str
    size: int


class S3:
    """An object store, as the operator has it."""

    def __init__(self, endpoint_url: str | None = None) -> None:
        self._endpoint_url = endpoint_url
        self._made: Any = None
        self._making = threading.Lock()

    def objects(self, uri: str, largest: int = LARGEST) -> list[Listed]:
        """The object of an URI, or all whose keys begin with it, of so many bytes at most; raises `ObjectError`."""
        bucket, prefix = split(uri)
        found, room = [], largest
        with _told(f"{uri} cannot be read"):
            for page in self._client().get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix):
                for listed in page.get("Contents", ()):
                    if not listed["Key"].endswith("/"):
                        found.append(Listed(listed["Key"], listed["Size"]))
                        room -= listed["Size"]
                if room < 0:
                    raise ObjectError(f"{uri}: more than {largest:,} bytes")
        if not found:
            raise ObjectError(f"{uri}: there is no such object")
        return found

    @contextmanager
    def opened(self, uri: str, key: str) -> Iterator[IO[bytes]]:
        """An object of those listed for an URI, to be read while the context lasts; raises `ObjectError`."""
        bucket, _ = split(uri)
        with _told(f"s3://{bucket}/{key} cannot be read"):
            body = self._client().get_object(Bucket=bucket, Key=key)["Body"]
            try:
                yield body
            finally:
                body.close()

    def write(self, uri: str, content: IO[bytes]) -> None:
        """Put an object; raises `ObjectError`."""
        bucket, key = split(uri)
        with _told(f"{uri} cannot be written"):
            self._client().put_object(Bucket=bucket, Key=key, Body=content)

    def _client(self) -> Any:
        import botocore.session  # noqa: PLC0415  see above
        from botocore.config import Config  # noqa: PLC0415
        from botocore.exceptions import BotoCoreError  # noqa: PLC0415

        with self._making:
            if self._made is None:
                session = botocore.session.get_session()
                region = None if session.get_config_variable("region") else "us-east-1"
                config = Config(retries={"mode": "standard"}, connect_timeout=5, read_timeout=60)
                try:
                    self._made = session.create_client(
                        "s3", endpoint_url=self._endpoint_url, region_name=region, config=config
                    )
                except (BotoCoreError, ValueError) as error:
                    raise ObjectError(f"S3 cannot be asked: {type(error).__name__}") from None
        return self._made


def split(uri: str) -> tuple[str, str]:
    """Bucket and key of an URI; raises `ObjectError`."""
    found = _URI.fullmatch(uri)
    if found is None:
        raise ObjectError(f"{uri!r} is not s3://BUCKET/KEY")
    return found[1], found[2] or ""


@contextmanager
def _told(what: str) -> Iterator[None]:
    """Have what botocore raises say so."""
    from botocore.exceptions import BotoCoreError, ClientError  # noqa: PLC0415  see above

    try:
        yield
    except ClientError as error:
        raise ObjectError(f"{what}: {error.response['Error'].get('Code')}") from None
    except BotoCoreError as error:
        raise ObjectError(f"{what}: {type(error).__name__}") from None
