"""A request's JSON body as a dict, within bounds on memory and on how long the interpreter is held.

A body is parsed in two steps. The outline counts its values and their depth in a scan over the
bytes, splits it into fields and list entries without building any, and estimates their memory. The
build then makes one entry at a time. The module depends on JSON alone, on no field's name and no
HTTP. Invariant: nothing is built of a body beyond the bounds, and no step holds the interpreter for
longer than one entry, or a few hundredths of a second, takes.
"""

from __future__ import annotations

import re
from collections.abc import Container
from typing import Any

import msgspec
from pydantic_core import from_json

from service.errors import InvalidRequest

MAX_DEPTH = 100
"""The greatest depth of nested lists and objects. The parser's own limit is 200."""
BYTES_PER_DELIMITER = 192
"""Upper bound of the memory that values take beside their characters, for each bracket and comma.

The most expensive value is an object with one key: `{"k1":"v1"},` has two delimiters and takes 312
bytes (CPython 3.11).
"""
IGNORED_BYTES = 64 * 2**10
"""A field that is not needed is not built where it is longer than this."""
_NULL = msgspec.Raw(b"null")
_EMPTY_BODY_BYTES = 2**10
"""Memory of the smallest body."""
CHUNK_BYTES = 2**20
"""Bytes that one step of the scan covers, in a few milliseconds."""
_UNSCANNED = bytes(range(256)).translate(None, b'"[]{},')
_BELOW_ASTRAL = bytes(range(0xF0))
"""All bytes but those that start a character of four bytes in UTF-8."""
_HIGH_SURROGATE = re.compile(rb"\\u[dD][89abAB]")
"""The escape that starts a character beyond the Basic Multilingual Plane."""

_decode_fields = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_decode_entries = msgspec.json.Decoder(list[msgspec.Raw]).decode


class JsonBody:
    """A JSON object whose fields are counted and not built yet.

    `memory` is an upper bound of its bytes in memory once it is built. `names` are the names of its
    fields. `entries` is the length of each needed field that is a list, by name.
    """

    def __init__(
        self,
        body: bytes | bytearray,
        max_delimiters: int,
        needed: Container[str],
        *,
        chunk_bytes: int = CHUNK_BYTES,
    ) -> None:
        """Outline a body of which the fields in `needed` are read.

        Raises `InvalidRequest` where it is no JSON object, or has more than `max_delimiters`
        brackets and commas.
        """
        delimiters = _count_delimiters(body, max_delimiters, chunk_bytes)
        self._fields = _split_fields(body, needed)
        self.names = frozenset(self._fields)
        self.entries: dict[str, int] = {}
        for name, field in self._fields.items():
            if name in needed and isinstance(field, list):
                self.entries[name] = len(field)
        self.memory = (
            _EMPTY_BODY_BYTES + delimiters * BYTES_PER_DELIMITER + self._character_bytes(body)
        )

    def build(self) -> dict[str, Any]:
        """The object, with None for each long field that is not needed. It can be built once.

        Raises `InvalidRequest` where a value is no JSON after all.
        """
        fields, self._fields = self._fields, {}
        built: dict[str, Any] = {}
        try:
            for name, field in fields.items():
                if isinstance(field, list):
                    built[name] = [_build(raw) for raw in field]
                else:
                    built[name] = _build(field)
        except ValueError:
            raise _not_json() from None
        return built

    def _character_bytes(self, body: bytes | bytearray) -> int:
        """An upper bound of the memory of all characters."""
        if _is_plain(body):
            return len(body)

        total = 0
        for field in self._fields.values():
            for raw in field if isinstance(field, list) else (field,):
                total += _max_character_bytes(bytes(raw))
        return total


def _split_fields(
    body: bytes | bytearray, needed: Container[str]
) -> dict[str, msgspec.Raw | list[msgspec.Raw]]:
    """A body's fields by name: a list as its entries, a long field that is not needed as null."""
    split: dict[str, msgspec.Raw | list[msgspec.Raw]] = {}
    try:
        for name, raw in _decode_fields(body).items():
            view = memoryview(raw)
            if name not in needed and view.nbytes > IGNORED_BYTES:
                split[name] = _NULL
            elif bytes(view[:1]) == b"[":
                split[name] = _decode_entries(raw)
            else:
                split[name] = raw
    except msgspec.ValidationError:
        raise InvalidRequest("The request body must be a JSON object.") from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise _not_json() from None
    return split


def _build(raw: msgspec.Raw) -> Any:
    return from_json(bytes(raw), allow_inf_nan=False)


def _is_plain(value: bytes | bytearray) -> bool:
    return value.isascii() and rb"\u" not in value


def _max_character_bytes(value: bytes) -> int:
    """An upper bound of the memory of a value's characters.

    CPython stores every character of a string in the width of its widest.
    """
    if _is_plain(value):
        return len(value)

    has_astral = bool(value.translate(None, _BELOW_ASTRAL))
    has_surrogate = _HIGH_SURROGATE.search(value) is not None
    return len(value) * (4 if has_astral or has_surrogate else 2)


def _count_delimiters(body: bytes | bytearray, most: int, chunk_bytes: int) -> int:
    """The number of brackets and commas outside of strings.

    Raises `InvalidRequest` above `most`, and above `MAX_DEPTH`. In a body that is no JSON the count
    may be wrong from the first mistake on, which no parser gets beyond.
    """
    view = memoryview(body)
    count = depth = start = 0
    within_string = False
    while start < len(view):
        chunk = _chunk(view, start, chunk_bytes)
        start += len(chunk)
        skeleton = chunk.replace(rb"\\", b"").replace(rb"\"", b"").translate(None, _UNSCANNED)

        quotes = skeleton.count(b'"')
        if quotes > 4 * most:  # a delimiter allows one value and its name: two strings
            raise _too_many_delimiters(most)
        outside = b"".join(skeleton.split(b'"')[within_string::2])
        if quotes % 2 == 1:
            within_string = not within_string

        count += len(outside.translate(None, b"]}"))
        if count > most:
            raise _too_many_delimiters(most)
        depth = _depth(outside.translate(None, b","), depth)
    return count


def _chunk(view: memoryview, start: int, size: int) -> bytes:
    """The next bytes, which do not end between a backslash and the character that it escapes."""
    chunk = bytes(view[start : start + size])
    trailing_backslashes = len(chunk) - len(chunk.rstrip(b"\\"))
    if trailing_backslashes % 2 == 1:
        chunk += bytes(view[start + len(chunk) : start + len(chunk) + 1])
    return chunk


def _depth(brackets: bytes, depth: int) -> int:
    """The depth after some brackets.

    Raises `InvalidRequest` above `MAX_DEPTH`, and where more brackets are closed than opened.
    """
    for bracket in brackets:
        depth += 1 if bracket in b"[{" else -1
        if depth > MAX_DEPTH:
            raise InvalidRequest(f"The request body may be nested {MAX_DEPTH} deep.")
        if depth < 0:
            raise _not_json()
    return depth


def _not_json() -> InvalidRequest:
    return InvalidRequest("The request body is not valid JSON.")


def _too_many_delimiters(most: int) -> InvalidRequest:
    return InvalidRequest(
        f"The request body may have {most} brackets and commas outside of strings."
    )
