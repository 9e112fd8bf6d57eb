"""Xinference's `kwargs`: a JSON object in a string, whose `instruction` is the task.

The module depends on JSON alone. Invariant: a string beyond `MAX_KWARGS` is not parsed.
"""

from __future__ import annotations

from typing import Any

from pydantic_core import from_json

from service.errors import InvalidRequest, Problem
from service.gateway.dialects.fields.names import STEERING

MAX_KWARGS = 64 * 2**10
"""Characters of the string."""
_AT = ("kwargs",)


def with_kwargs(body: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """The body with the instruction of its `kwargs`, and a warning where these have more.

    Raises `InvalidRequest` where they are no object, would steer the engine, or differ from the
    body's own instruction.
    """
    sent = dict(body)
    kwargs = _parsed(sent.pop("kwargs", None))
    problems = [
        Problem((*_AT, name), "This is not accepted here: it would steer the engine.")
        for name in STEERING
        if kwargs.get(name) is not None
    ]
    if problems:
        raise InvalidRequest(problems=problems)

    instruction = kwargs.pop("instruction", None)
    if instruction is not None:
        if not isinstance(instruction, str):
            raise InvalidRequest("This must be a string.").at((*_AT, "instruction"))
        if sent.get("instruction") not in (None, instruction):
            message = "This must equal instruction where both are sent."
            raise InvalidRequest(message).at((*_AT, "instruction"))
        sent["instruction"] = instruction

    warnings = ["kwargs: nothing but its instruction has an effect."] if kwargs else []
    return sent, warnings


def _parsed(value: Any) -> dict[str, Any]:
    """The object that `kwargs` are; without any, an empty one."""
    if isinstance(value, str):
        if len(value) > MAX_KWARGS:
            raise InvalidRequest(f"This must have at most {MAX_KWARGS} characters.").at(_AT)
        value = _from_json(value) if value.strip() else {}

    if value is None:
        return {}
    if not isinstance(value, dict):
        raise InvalidRequest("This must be a JSON object, or one in a string.").at(_AT)
    return dict(value)


def _from_json(text: str) -> Any:
    """A JSON value, or False for a text that is none or null."""
    try:
        value = from_json(text, allow_inf_nan=False)
    except ValueError:
        return False
    return False if value is None else value
