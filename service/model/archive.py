"""The file a model is kept in: a zip of JSON and arrays, which can hold nothing that runs.

The same content is the same bytes. Files come from elsewhere, so reading trusts nothing: members are exactly the
expected ones, never larger than allowed whatever the file declares, and arrays have exactly the expected type and
shape. What is wrong is said by `ValueError`.
"""

import io
import json
import os
import secrets
import zipfile
import zlib
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import DTypeLike, NDArray

_FIXED_DATE = (1980, 1, 1, 0, 0, 0)  # the earliest a zip can hold
_READABLE_BY_ALL = 0o644 << 16
_ENCRYPTED = 0x1
_NPY_1_0 = (1, 0)


def pack(members: Mapping[str, bytes]) -> bytes:
    """A zip of the members, in the order of their names."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in sorted(members):
            member = zipfile.ZipInfo(name, _FIXED_DATE)
            member.create_system = 3  # or the bytes would depend on the operating system
            member.external_attr = _READABLE_BY_ALL
            archive.writestr(member, members[name], zipfile.ZIP_DEFLATED)
    return file.getvalue()


def unpack(path: Path, largest: Mapping[str, int], optional: AbstractSet[str] = frozenset()) -> dict[str, bytes]:
    """The members of a zip, which must be the keys of `largest`, each of at most so many bytes; some are optional.

    Raises `ValueError` for any other content and `OSError` where the file cannot be read.
    """
    if path.stat().st_size > sum(largest.values()):
        raise ValueError("larger than all its members may be")
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            _check_names([member.filename for member in members], set(largest), optional)
            return {member.filename: _member(archive, member, largest[member.filename]) for member in members}
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        raise ValueError(f"not a whole zip file ({error})") from error


def write(path: Path, content: bytes) -> None:
    """Put a file in place in one step, with its folder: readers see the old one or the new one, never a part."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        with part.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def json_bytes(value: object) -> bytes:
    """A value as JSON, the same bytes for equal values."""
    return json.dumps(value, ensure_ascii=False, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()


def json_value(name: str, content: bytes) -> object:
    """The value of a JSON member; raises `ValueError`."""
    try:
        value: object = json.loads(content)
    except (RecursionError, ValueError) as error:
        raise ValueError(f"{name} is not JSON ({error})") from error
    return value


def array_bytes(array: NDArray[Any]) -> bytes:
    """An array as an npy file."""
    file = io.BytesIO()
    little_endian = array.astype(array.dtype.newbyteorder("<"), order="C")
    npy.write_array(file, little_endian, version=_NPY_1_0, allow_pickle=False)
    return file.getvalue()


def array(name: str, content: bytes, dtype: DTypeLike, shape: tuple[int, ...]) -> NDArray[Any]:
    """The finite numbers of an npy member of exactly this type and shape, read-only; raises `ValueError`."""
    expected = np.dtype(dtype).newbyteorder("<")
    file = io.BytesIO(content)
    try:
        found = npy.read_magic(file), *npy.read_array_header_1_0(file)
    except Exception:  # noqa: BLE001  # the header is parsed as Python and fails in as many ways
        found = None
    if found != (_NPY_1_0, shape, False, expected):
        raise ValueError(f"{name} is not an array of {expected} of shape {shape}, row by row")
    if len(content) - file.tell() != expected.itemsize * int(np.prod(shape)):
        raise ValueError(f"{name} is shorter or longer than its shape says")
    numbers = np.frombuffer(content, expected, offset=file.tell()).reshape(shape).astype(expected.newbyteorder("="))
    if not np.isfinite(numbers).all():
        raise ValueError(f"{name} holds numbers that are not finite")
    numbers.flags.writeable = False
    return numbers


def _check_names(names: list[str], expected: set[str], optional: AbstractSet[str]) -> None:
    """Exactly the expected names, each once: so none is absolute, leads outside, or is of no use."""
    if unknown := set(names) - expected:
        raise ValueError(f"holds {min(unknown)[:80]!r}, which is no part of a model")
    if missing := expected - optional - set(names):
        raise ValueError(f"{min(missing)} is missing")
    if len(names) != len(set(names)):
        raise ValueError("holds a member twice")


def _member(archive: zipfile.ZipFile, member: zipfile.ZipInfo, largest: int) -> bytes:
    if member.flag_bits & _ENCRYPTED:
        raise ValueError(f"{member.filename} is encrypted")
    if member.compress_type not in {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}:
        raise ValueError(f"{member.filename} is compressed in a way that is not used here")
    if member.file_size > largest:
        raise ValueError(f"{member.filename} is larger than {largest:,} bytes")
    with archive.open(member) as file:
        content = file.read(largest + 1)
    if len(content) != member.file_size:
        raise ValueError(f"{member.filename} is not as large as declared")
    return content
