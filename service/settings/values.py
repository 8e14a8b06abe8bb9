"""What settings are made of: branches that refuse unknown keys, and the forms that values are written in."""

import ipaddress
import re
from collections.abc import Mapping
from datetime import date
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    model_validator,
)

_DURATIONS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_SIZES = {"B": 1, "KB": 1000, "MB": 1000**2, "GB": 1000**3, "KiB": 1024, "MiB": 1024**2, "GiB": 1024**3}


def _quantity(units: Mapping[str, float], example: str) -> BeforeValidator:
    def parse(value: object) -> object:
        if not isinstance(value, str):
            return value
        match = re.fullmatch(r"\s*([0-9]+(?:\.[0-9]+)?)\s*([A-Za-z]*)\s*", value)
        if match is None or (match[2] and match[2] not in units):
            raise ValueError(f"write it as {example} (units: {', '.join(units)})")
        return float(match[1]) * (units[match[2]] if match[2] else 1)

    return BeforeValidator(parse)


Seconds = Annotated[float, _quantity(_DURATIONS, "200ms or 30s"), Field(ge=0, le=7 * 86_400, allow_inf_nan=False)]
Bytes = Annotated[int, _quantity(_SIZES, "64MiB"), Field(gt=0)]
Topic = Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{1,249}$")]
Share = Annotated[float, Field(ge=0, le=1)]
Whole = Annotated[int, Field(ge=0)]


def is_loopback(host: str) -> bool:
    """Whether a host name or address stays on this machine."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def is_a_host_name(host: str) -> bool:
    """Whether it may stand for a host in a URL."""
    try:
        host.encode("idna")
    except UnicodeError:
        return False
    return True


def _pointer(value: str) -> str:
    if not value.startswith("/"):
        raise ValueError(f"{value!r} is not a JSON pointer; write /{value.lstrip('/.').replace('.', '/')}")
    if re.search(r"~(?![01])", value):
        raise ValueError(f"{value!r} is not a JSON pointer; write ~ as ~0")
    return value


Pointer = Annotated[str, AfterValidator(_pointer)]


def nearest(name: str, known: list[str]) -> str:
    """What to say of a name that is not known."""
    near = get_close_matches(name, known, n=1, cutoff=0.5)
    return f"did you mean {near[0]!r}?" if near else f"known: {', '.join(sorted(known))}"


def _refuse_unknown(model: type[BaseModel], given: object) -> None:
    if isinstance(given, Mapping):
        known = [field.alias or name for name, field in model.model_fields.items()]
        unknown = [f"unknown key {key!r}, {nearest(str(key), known)}" for key in given if key not in known]
        if unknown:
            raise ValueError("; ".join(unknown))


class Branch(BaseModel):
    """A part of the tree: frozen, with unknown keys refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    @model_validator(mode="before")
    @classmethod
    def _known_keys(cls, given: object) -> object:
        _refuse_unknown(cls, given)
        return given


def secret_of(value: SecretStr | None, file: Path | None, name: str) -> SecretStr:
    """A secret, given in the settings or in a file of its own; raises ValueError for both, none, or what no key is."""
    if (value is None) == (file is None):
        raise ValueError(f"give either {name} or {name}_file")
    if value is not None:
        found = value.get_secret_value()
    elif file is not None:
        try:
            found = file.read_text(encoding="utf-8").strip()
        except OSError as error:
            raise ValueError(f"{name}_file {file} cannot be read: {error.strerror}") from None
        except UnicodeDecodeError:
            raise ValueError(f"{name}_file {file} is not text") from None
    if not found:
        raise ValueError(f"{name} is empty")
    if not (found.isascii() and found.isprintable()):
        raise ValueError(f"{name} holds characters that no key has (a line break or a non-ASCII letter?)")
    return SecretStr(found)


def date_as_text(value: object) -> object:
    """A version of an API as it was written."""
    return value.isoformat() if isinstance(value, date) else value  # YAML takes 2023-04-01 for a date
