"""One JSON line to a typed row, and what is wrong with it in our own words.

Knows msgspec and its messages, no row's meaning. Invariant: no text of the library leaves: a
message that is not known here becomes a general sentence.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from typing import TypeVar

import msgspec

Row = TypeVar("Row")
Fields = Mapping[str, Sequence[str]]
"""The fields of the row, under `""`, and of each object in it, under the name of the field that
holds it; and the values of a field that takes only some, under its name."""

_UNKNOWN = re.compile(
    r"Object contains unknown field `(?P<field>.*?)`(?: - at `(?P<at>.*)`)?$", re.DOTALL
)
_MISSING = re.compile(
    r"Object missing required field `(?P<field>.*?)`(?: - at `(?P<at>.*)`)?$", re.DOTALL
)
_TYPE = re.compile(
    r"Expected `(?P<wanted>.*?)`, got `(?P<got>.*?)`(?: - at `(?P<at>.*)`)?$", re.DOTALL
)
_ENUM = re.compile(r"Invalid enum value (?P<got>.*?)(?: - at `(?P<at>.*)`)?$", re.DOTALL)
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


def decode(decoder: msgspec.json.Decoder[Row], line: bytes, place: str, fields: Fields) -> Row:
    """The row of a line; raises `ValueError`, whose text says `place` and what is wrong."""
    try:
        return decoder.decode(line)
    except msgspec.ValidationError as error:
        raise ValueError(f"{place}: {in_words(str(error), fields)}") from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise ValueError(f"{place}: this is not one JSON object in UTF-8.") from None


def in_words(message: str, fields: Fields) -> str:
    """A validation message of msgspec as the end of our sentence, with its last sign."""
    if found := _UNKNOWN.match(message):
        return unknown_field(_named(found["at"]), found["field"], _fields_at(found["at"], fields))
    if found := _MISSING.match(message):
        return f"{_named(found['at']) or 'the row'} has no {found['field']!r}."
    if found := _TYPE.match(message):
        wanted = " or ".join(_TYPES.get(kind, kind) for kind in found["wanted"].split(" | "))
        return (
            f"{_named(found['at']) or 'the row'} must be {wanted}, not"
            f" {_TYPES.get(found['got'], found['got'])}."
        )
    if found := _ENUM.match(message):
        return (
            f"{_named(found['at']) or 'the row'} cannot be"
            f" {found['got'][:_SHOWN]}{_instead(found['at'], fields)}."
        )
    return "this row has not the form that docs/training.md describes."


def unknown_field(holder: str, field: str, known: Sequence[str]) -> str:
    """That an object has a field which nobody reads, and which field it may have been meant as."""
    said = f"{holder or 'the row'} has an unknown field {field[:_SHOWN]!r}"
    if near := get_close_matches(field, known, n=1):
        return f"{said}: is it {near[0]!r}?"
    return f"{said}; known are {', '.join(known)}." if known else f"{said}."


def _instead(at: str | None, fields: Fields) -> str:
    values = fields.get(_named(at).rpartition(".")[2])
    return f": it is {' or '.join(map(repr, values))}" if values else ""


def _named(at: str | None) -> str:
    """`$.positives[...].text` as `positives[...].text`."""
    return (at or "").removeprefix("$").removeprefix(".")


def _fields_at(at: str | None, fields: Fields) -> Sequence[str]:
    return fields.get(re.split(r"[.\[]", _named(at), maxsplit=1)[0], ())
