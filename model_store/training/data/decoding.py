"""Decoding of one JSON line to a typed row, with the library's messages in plain sentences.

Does not depend on what a row means. Invariant: no text of msgspec reaches a user; a message without
a sentence here becomes a general one.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from difflib import get_close_matches
from typing import TypeVar

import msgspec

Row = TypeVar("Row")
Fields = Mapping[str, Sequence[str]]
"""Known names, for suggestions: the row's fields under `""`, an object's fields under the name of
the field that holds it, and the values of a field that takes only some under its name."""

_UNKNOWN = re.compile(
    r"Object contains unknown field `(?P<field>.*?)`(?: - at `(?P<path>.*)`)?$", re.DOTALL
)
_MISSING = re.compile(
    r"Object missing required field `(?P<field>.*?)`(?: - at `(?P<path>.*)`)?$", re.DOTALL
)
_TYPE = re.compile(
    r"Expected `(?P<expected>.*?)`, got `(?P<found>.*?)`(?: - at `(?P<path>.*)`)?$", re.DOTALL
)
_VALUE = re.compile(r"Invalid enum value (?P<found>.*?)(?: - at `(?P<path>.*)`)?$", re.DOTALL)
_TYPES = {
    "str": "a text",
    "int": "a number",
    "float": "a number",
    "bool": "true or false",
    "array": "a list",
    "object": "an object",
    "null": "null",
}
_SHOWN = 40


def decode(decoder: msgspec.json.Decoder[Row], line: bytes, location: str, fields: Fields) -> Row:
    """The row of a line; raises `ValueError` with a sentence that begins with `location`."""
    try:
        return decoder.decode(line)
    except msgspec.ValidationError as error:
        raise ValueError(f"{location}: {explain(str(error), fields)}") from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise ValueError(f"{location}: this is not one JSON object in UTF-8.") from None


def explain(message: str, fields: Fields) -> str:
    """A validation message of msgspec as the end of a sentence, with its full stop."""
    for pattern, explanation in _EXPLANATIONS:
        match = pattern.match(message)
        if match:
            return explanation(match, fields)
    return "this row has not the form that docs/training-rows.md describes."


def unknown_field(holder: str, field: str, known: Sequence[str]) -> str:
    """The sentence for a field that nothing reads, with the field that may have been meant."""
    problem = f"{holder or 'the row'} has an unknown field {field[:_SHOWN]!r}"
    nearest = get_close_matches(field, known, n=1)
    if nearest:
        return f"{problem}: is it {nearest[0]!r}?"
    return f"{problem}; known are {', '.join(known)}." if known else f"{problem}."


def _explain_unknown(match: re.Match[str], fields: Fields) -> str:
    path = _path(match)
    holder = re.split(r"[.\[]", path, maxsplit=1)[0]
    return unknown_field(path, match["field"], fields.get(holder, ()))


def _explain_missing(match: re.Match[str], fields: Fields) -> str:
    return f"{_path(match) or 'the row'} has no {match['field']!r}."


def _explain_type(match: re.Match[str], fields: Fields) -> str:
    expected = " or ".join(_TYPES.get(kind, kind) for kind in match["expected"].split(" | "))
    found = _TYPES.get(match["found"], match["found"])
    return f"{_path(match) or 'the row'} must be {expected}, not {found}."


def _explain_value(match: re.Match[str], fields: Fields) -> str:
    path = _path(match)
    values = fields.get(path.rpartition(".")[2])
    instead = f": it is {' or '.join(map(repr, values))}" if values else ""
    return f"{path or 'the row'} cannot be {match['found'][:_SHOWN]}{instead}."


def _path(match: re.Match[str]) -> str:
    """The field of a message, such as `positives[...].text`; empty for the row itself."""
    return (match["path"] or "").removeprefix("$").removeprefix(".")


_EXPLANATIONS: tuple[tuple[re.Pattern[str], Callable[[re.Match[str], Fields], str]], ...] = (
    (_UNKNOWN, _explain_unknown),
    (_MISSING, _explain_missing),
    (_TYPE, _explain_type),
    (_VALUE, _explain_value),
)
