"""Configurations as YAML files, and single settings that are set beside them.

Does not depend on what a setting means. Invariant: what is read is a mapping, from a file within a
bound, and nothing in it is executed.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import BaseModel

MAX_CONFIG_BYTES = 2**18


class SettingsUnreadable(Exception):
    """A file or a setting that cannot be read; the text is one sentence for the user."""


def read_values(path: Path) -> dict[Any, Any]:
    """The mapping of a YAML file; raises `SettingsUnreadable`, and `FileNotFoundError` where there
    is no file that can be read."""
    try:
        if path.stat().st_size > MAX_CONFIG_BYTES:
            raise SettingsUnreadable(
                f"{path}: a configuration has at most {MAX_CONFIG_BYTES} bytes."
            )
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError):
        raise FileNotFoundError(path) from None
    except (yaml.YAMLError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        line = mark.line + 1 if mark else 1
        raise SettingsUnreadable(f"{path}:{line}: this is not YAML.") from None

    if not isinstance(values, dict):
        raise SettingsUnreadable(f"{path}: a configuration is a mapping of names to values.")

    return values


def set_value(values: dict[Any, Any], override: str) -> None:
    """Set one `dotted.key=value` in nested mappings, the value in YAML; raises
    `SettingsUnreadable`."""
    key, equals, value = override.partition("=")
    *sections, last = key.split(".")
    for section in sections:
        if not isinstance(values, dict):
            break
        if values.get(section) is None:  # also a section that the file leaves empty
            values[section] = {}
        values = values[section]
    if not equals or not isinstance(values, dict):
        raise SettingsUnreadable(f"{override}: this is not key=value with the key of a setting.")

    try:
        values[last] = yaml.safe_load(value)
    except (yaml.YAMLError, RecursionError):
        raise SettingsUnreadable(f"{override[:80]}: the value is not YAML.") from None


def flat(values: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Nested mappings as dotted keys and values."""
    for key, value in values.items():
        if isinstance(value, dict):
            yield from flat(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value


def problem_sentence(kind: type[BaseModel], error: Any) -> str:
    """An error of pydantic's as a sentence; an unknown key comes with the nearest known one."""
    key = ".".join(str(part) for part in error["loc"])
    if error["type"] == "extra_forbidden":
        near = difflib.get_close_matches(key, list(_known(kind)), 1, 0.5)
        return f"there is no setting {key}{f'; did you mean {near[0]}?' if near else '.'}"
    return f"{key or 'the configuration'}: {error['msg'].removeprefix('Value error, ')}."


def _known(section: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """All keys, those of sections dotted."""
    for name, field in section.model_fields.items():
        yield prefix + name
        for kind in (field.annotation, *get_args(field.annotation)):
            if isinstance(kind, type) and issubclass(kind, BaseModel):
                yield from _known(kind, f"{prefix}{name}.")
