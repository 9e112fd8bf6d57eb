"""A request's JSON body as a dict, within bounds on its memory, and on how long other threads wait
for the interpreter.

A body is read in two steps. The outline counts values and depth by a scan over the bytes, and
splits the body into its fields and their entries without building any; it says how much memory they
will take. Only then are they built, one entry at a time. Knows JSON alone: neither field names nor
HTTP. Invariant: nothing is built of a body that is not within the bounds, and no step holds the
interpreter for longer than one entry, or a few hundredths of a second, take.
"""

from __future__ import annotations

from collections.abc import Container
from typing import Any

import msgspec
from pydantic_core import from_json

from service.errors import InvalidRequest

MAX_DEPTH = 100
"""The greatest depth of nested lists and objects. The parser itself ends at 200."""
BYTES_A_MARK = 192
"""Memory that a value takes at most beside its characters, by the brackets and commas that it
needs.

The dearest is an object of one key with values of its own: `{"k1":"v1"},` has two marks and takes
312 bytes (CPython 3.11).
"""
IGNORED_BYTES = 64 * 2**10
"""A field that is not read is not built where it is longer than this."""
_NULL = msgspec.Raw(b"null")
_OWN_BYTES = 2**10
"""Bytes of memory that the smallest body takes."""
_CHUNK_BYTES = 2**20
"""Bytes that one step scans: a few milliseconds."""
_UNSCANNED = bytes(range(256)).translate(None, b'"[]{},')
_BELOW_ASTRAL = bytes(range(0xF0))
"""All bytes but those that begin a character of four bytes in UTF-8."""
_SURROGATES = tuple(rf"\u{d}{digit}".encode() for d in "dD" for digit in "89abAB")

_fields_of = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_entries_of = msgspec.json.Decoder(list[msgspec.Raw]).decode


class JsonBody:
    """A JSON object whose fields are known and not built yet.

    `memory`: bytes that it takes at most when it is built. `entries`: the length of each needed
    field that is a list, by name.
    """

    def __init__(self, body: bytes | bytearray, max_marks: int, needed: Container[str]) -> None:
        """Outline a body of which the fields in `needed` are read.

        Raises `InvalidRequest` where it is no JSON object, or has more than `max_marks` brackets
        and commas.
        """
        marks = _count_marks(body, max_marks)
        try:
            fields = _fields_of(body)
            for name, raw in fields.items():
                if name not in needed and memoryview(raw).nbytes > IGNORED_BYTES:
                    fields[name] = _NULL
            self._fields = {name: _split(raw) for name, raw in fields.items()}
        except msgspec.ValidationError:
            raise InvalidRequest("The request body must be a JSON object.") from None
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            raise _invalid() from None
        self.entries = {
            name: len(field)
            for name, field in self._fields.items()
            if isinstance(field, list) and name in needed
        }
        self.memory = _OWN_BYTES + marks * BYTES_A_MARK + self._characters(body)

    def _characters(self, body: bytes | bytearray) -> int:
        """Bytes that all characters take at most."""
        if _is_plain(body):
            return len(body)

        taken = 0
        for field in self._fields.values():
            for raw in field if isinstance(field, list) else (field,):
                taken += _most_bytes(bytes(raw))
        return taken

    def build(self) -> dict[str, Any]:
        """The object, but for long fields that are not read: those are None. It can be built once.

        Raises `InvalidRequest` where a value is no JSON after all.
        """
        fields, self._fields = self._fields, {}
        built: dict[str, Any] = {}
        try:
            for name, field in fields.items():
                built[name] = (
                    [_value(raw) for raw in field] if isinstance(field, list) else _value(field)
                )
        except ValueError:
            raise _invalid() from None
        return built


def _split(raw: msgspec.Raw) -> msgspec.Raw | list[msgspec.Raw]:
    """A list's entries; any other value as it is."""
    return _entries_of(raw) if bytes(memoryview(raw)[:1]) == b"[" else raw


def _value(raw: msgspec.Raw) -> Any:
    return from_json(bytes(raw), allow_inf_nan=False)


def _is_plain(value: bytes | bytearray) -> bool:
    return value.isascii() and rb"\u" not in value


def _most_bytes(value: bytes) -> int:
    """Bytes that a value's characters take at most: a wide one makes each character of its string
    as wide."""
    if _is_plain(value):
        return len(value)
    wide = value.translate(None, _BELOW_ASTRAL) or any(each in value for each in _SURROGATES)
    return len(value) * (4 if wide else 2)


def _count_marks(body: bytes | bytearray, most: int) -> int:
    """The brackets and commas outside of strings; raises `InvalidRequest` above `most`, and where
    they nest too deep.

    What is no JSON may be counted wrongly from its first mistake on: no parser gets beyond it.
    """
    view = memoryview(body)
    marks = depth = start = 0
    within_string = False
    while start < len(view):
        chunk = _chunk(view, start)
        start += len(chunk)
        skeleton = chunk.replace(rb"\\", b"").replace(rb"\"", b"").translate(None, _UNSCANNED)

        quotes = skeleton.count(b'"')
        if quotes > 4 * most:  # a mark allows one value and its name: two strings
            raise _too_many(most)
        outside = b"".join(skeleton.split(b'"')[within_string::2])
        within_string ^= quotes % 2 == 1

        marks += len(outside.translate(None, b"]}"))
        if marks > most:
            raise _too_many(most)
        depth = _depth(outside.translate(None, b","), depth)
    return marks


def _chunk(view: memoryview, start: int) -> bytes:
    """The next bytes, which do not end between a backslash and what it escapes."""
    chunk = bytes(view[start : start + _CHUNK_BYTES])
    if (len(chunk) - len(chunk.rstrip(b"\\"))) % 2:
        chunk += bytes(view[start + len(chunk) : start + len(chunk) + 1])
    return chunk


def _depth(brackets: bytes, depth: int) -> int:
    """The depth after some brackets; raises `InvalidRequest` where it is too great, or more are
    closed than were opened."""
    for bracket in brackets:
        depth += 1 if bracket in b"[{" else -1
        if depth > MAX_DEPTH:
            raise InvalidRequest(f"The request body may be nested {MAX_DEPTH} deep.")
        if depth < 0:
            raise _invalid()
    return depth


def _invalid() -> InvalidRequest:
    return InvalidRequest("The request body is not valid JSON.")


def _too_many(most: int) -> InvalidRequest:
    return InvalidRequest(
        f"The request body may have {most} brackets and commas outside of strings."
    )
