"""Engine arguments that an operator has chosen and vLLM has changed while it built its
configuration.

Reads any dataclasses laid out as vLLM's configuration is; does not import vLLM. Invariant: only an
argument that was chosen, and that the configuration has under its name, is ever reported.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any

from service.worker.settings import ENGINE_PREFIX

_FIELD_NAMES = {"kv_cache_dtype": "cache_dtype", "scheduling_policy": "policy"}
"""Arguments whose configuration field has another name."""
_SAME_VALUES = {"half": "float16", "float": "float32"}
_LEVELS = 2
"""`vllm_config.model_config.multimodal_config` is the deepest part that takes arguments."""


@dataclass(frozen=True, slots=True)
class Overruled:
    """An argument's name, the value that was chosen, and the value that is in effect."""

    name: str
    chosen: object
    actual: object

    def sentence(self) -> str:
        """The difference under the name of the operator's setting."""
        setting = ENGINE_PREFIX + self.name.upper()
        return (
            f"{setting}={_text(self.chosen)} is overruled by vLLM, which uses {_text(self.actual)}."
        )


def overruled(chosen: Mapping[str, object], vllm_config: Any) -> list[Overruled]:
    """The chosen arguments whose value in `vllm_config` is another one.

    `chosen` has the values as vLLM's command line parses them. Left out are arguments that leave
    the decision to vLLM (`auto`), those that are no number, switch or word, and those without a
    field of their own.
    """
    differences: list[Overruled] = []
    for name, value in chosen.items():
        if value == "auto" or not isinstance(value, bool | int | float | str):
            continue

        field = _FIELD_NAMES.get(name, name)
        for part in _parts(vllm_config):
            if field not in _field_names(part):
                continue
            actual = _plain(getattr(part, field))
            if actual != _SAME_VALUES.get(str(value), value):
                differences.append(Overruled(name, value, actual))
            break
    return differences


def _parts(vllm_config: Any) -> Iterator[Any]:
    """The configuration and its parts, those nearest to it first."""
    level = [vllm_config]
    for _ in range(_LEVELS + 1):
        yield from level
        below: list[Any] = []
        for part in level:
            for name in _field_names(part):
                value = getattr(part, name, None)
                if dataclasses.is_dataclass(value):
                    below.append(value)
        level = below


def _field_names(part: Any) -> list[str]:
    return [field.name for field in dataclasses.fields(part)]


def _plain(value: object) -> object:
    """A value as an argument states it: an enum's own value, and a dtype's name without
    `torch.`."""
    if isinstance(value, Enum):
        return value.value
    if value is None or isinstance(value, bool | int | float | str):
        return value
    return str(value).removeprefix("torch.")


def _text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
