"""From a YAML file and the environment to the tree, and what is said where something in them is wrong."""

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import (
    ValidationError,
)
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict, SettingsError

from service.errors import Misconfigured
from service.settings.tree import Settings
from service.settings.values import nearest

_PREFIX = "LABELSTREAM_"


class _Overridden(Settings, BaseSettings):
    """The tree with environment variables over it."""

    model_config = SettingsConfigDict(extra="forbid", env_prefix=_PREFIX, env_nested_delimiter="__")

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Environment over file; there are no other sources."""
        del settings_cls, dotenv_settings, file_secret_settings
        return env_settings, init_settings


def load(path: Path) -> Settings:
    """The settings of a YAML file, with environment variables over it.

    Raises:
        Misconfigured: naming every wrong setting, the file, and the nearest known key where one is unknown.

    """
    content = tree(path)
    for name in os.environ:
        branch = name.removeprefix(_PREFIX).split("__")[0].lower()
        if name.startswith(_PREFIX) and "__" in name and branch not in Settings.model_fields:
            raise Misconfigured(f"{name}: no such setting, {nearest(branch, list(Settings.model_fields))}")
    return _parsed(_Overridden, content, str(path))


def tree(path: Path) -> object:
    """What a YAML file holds. Raises Misconfigured."""
    try:
        return yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise Misconfigured(f"{path}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise Misconfigured(f"{path}: is not UTF-8 text") from None
    except yaml.MarkedYAMLError as error:  # whose own words quote the line, and a password on it
        mark = error.problem_mark or error.context_mark
        where = f" at line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise Misconfigured(
            f"{path}: is not YAML{where}; a value that holds : # or begins with * & ! % @ needs quotes"
        ) from None
    except yaml.YAMLError as error:
        raise Misconfigured(f"{path}: is not YAML: {error}") from None


def parse(tree: object, origin: str = "settings") -> Settings:
    """As `load`, from the tree alone; `origin` is how messages call it."""
    return _parsed(Settings, tree, origin)


def _parsed(form: type[Settings], tree: object, origin: str) -> Settings:
    if not isinstance(tree, dict):
        raise Misconfigured(f"{origin}: must be a mapping with the keys {', '.join(Settings.model_fields)}")
    try:
        return form(**{str(key): branch for key, branch in tree.items()})
    except SettingsError as error:
        field = re.search(r'field "(\w+)"', str(error))  # its cause quotes the value
        raise Misconfigured(f"{_PREFIX}{field[1].upper() if field else '…'}: what it holds is not JSON") from None
    except ValidationError as error:
        raise misconfigured(error, origin) from None


def misconfigured(error: ValidationError, origin: str) -> Misconfigured:
    """What is wrong with what `origin` holds, key by key."""
    found = error.errors()
    deeper = {fault["loc"][:depth] for fault in found for depth in range(len(fault["loc"]))}
    faults = [
        f"{_path(fault['loc'])}{_message(fault)}"
        for fault in found
        if not (fault["type"] == "too_short" and fault["loc"] in deeper)  # a wrong item counts as none at all
    ]
    return Misconfigured("\n".join(f"{origin}: {fault}" for fault in faults))


def _path(where: tuple[int | str, ...]) -> str:
    parts: list[str] = []
    for i, part in enumerate(where):
        if i == 2 and where[0] == "accounts":
            continue  # the tag of the union, not a key of the file
        parts.append(f"[{part}]" if isinstance(part, int) else f".{part}")
    return "".join(parts).removeprefix(".") + (": " if parts else "")


_PLAINLY = {
    "missing": "is required",
    "union_tag_not_found": "provider is required",
    "too_short": "must not be empty",
    "tuple_type": "must be a list",
    "dict_type": "must be a mapping",
    "model_type": "must be a mapping",
}


def _message(fault: Mapping[str, Any]) -> str:
    if fault["type"] == "union_tag_invalid":
        known = re.findall(r"'(\w+)'", fault["ctx"]["expected_tags"])
        return f"there is no provider {fault['ctx']['tag']!r}, {nearest(fault['ctx']['tag'], known)}"
    if said := _PLAINLY.get(fault["type"]):
        return said
    return str(fault["msg"]).removeprefix("Value error, ")
