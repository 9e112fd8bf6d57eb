"""A request's JSON body as a dict, within bounds on memory and on how long the interpreter is held.

A body is parsed in two steps. The outline counts its values and their depth in a scan over the
bytes, splits it into fields and list entries without building any, and estimates their memory. The
build then makes one entry at a time. An object whose fields are needed is split and built like the
body. The module depends on JSON alone, on no field's name and no HTTP. Invariant: nothing is built
of a body beyond the bounds, and no step holds the interpreter for longer than one entry, or a few
hundredths of a second, takes.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
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
_UNSCANNED = bytes(range(256)).translate(None, b"[]{},")
_UNICODE_ESCAPE = re.compile(rb"\\u")
"""A regular expression, which is searched many times faster than two bytes are."""
_BELOW_ASTRAL = bytes(range(0xF0))
"""All bytes but those that start a character of four bytes in UTF-8."""
_GZIP_MARK = b"\x1f\x8b"
_UTF_16_MARKS = (b"\xff\xfe", b"\xfe\xff")
_HIGH_SURROGATE = re.compile(rb"\\u[dD][89abAB]")
"""The escape that starts a character beyond the Basic Multilingual Plane."""

Path = str | tuple[str, str]
"""A field of the body by its name, or of an object in it by the names of both."""
_Split = msgspec.Raw | list[msgspec.Raw] | dict[str, "_Split"]
"""A field's value that is not built: as it is, as its entries, or as its fields."""

_decode_fields = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_decode_entries = msgspec.json.Decoder(list[msgspec.Raw]).decode


class JsonBody:
    """A JSON object whose fields are counted and not built yet.

    `memory` is an upper bound of its bytes in memory once it is built. `names` are the names of its
    fields. `entries` is the length of each needed field that is a list, by path.
    """

    def __init__(
        self,
        body: bytes | bytearray,
        max_delimiters: int,
        needed: Collection[Path],
        *,
        chunk_bytes: int = CHUNK_BYTES,
    ) -> None:
        """Outline a body of which the fields at the paths `needed` are read.

        Raises `InvalidRequest` where it is no JSON object in UTF-8, or has more than
        `max_delimiters` brackets and commas.
        """
        if body.startswith(_GZIP_MARK):
            raise InvalidRequest("The request body is gzip: send Content-Encoding: gzip with it.")
        delimiters = _count_delimiters(body, max_delimiters, chunk_bytes)
        self._fields = _split_body(body, needed)
        self.names = frozenset(self._fields)
        self.entries: dict[Path, int] = dict(_lengths(self._fields, needed))
        self.memory = (
            _EMPTY_BODY_BYTES + delimiters * BYTES_PER_DELIMITER + self._character_bytes(body)
        )

    def build(self) -> dict[str, Any]:
        """The object, with None for each long field that is not needed. It can be built once.

        Raises `InvalidRequest` where a value is no JSON after all.
        """
        fields, self._fields = self._fields, {}
        return {name: _build(field) for name, field in fields.items()}

    def _character_bytes(self, body: bytes | bytearray) -> int:
        """An upper bound of the memory of all characters."""
        if _is_plain(body):
            return len(body)

        total = 0
        for raw in _raws(self._fields):
            total += _max_character_bytes(
                raw.encode("utf-8", "surrogatepass") if isinstance(raw, str) else bytes(raw)
            )
        return total


def _split_body(body: bytes | bytearray, needed: Collection[Path]) -> dict[str, _Split]:
    """A body's fields by name; raises `InvalidRequest` where it is no object."""
    try:
        return _split_fields(body, needed)
    except msgspec.ValidationError:
        raise InvalidRequest("The request body must be a JSON object.") from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise _not_json(body) from None


def _split_fields(
    body: bytes | bytearray | msgspec.Raw, needed: Collection[Path], parent: str | None = None
) -> dict[str, _Split]:
    """The fields of an object by name: a list as its entries, an object as its fields where one of
    them is needed, and a long field that is not needed as null."""
    parents = {path[0] for path in needed if isinstance(path, tuple)}

    split: dict[str, _Split] = {}
    for name, raw in _decode_fields(body).items():
        view = memoryview(raw)
        kind = bytes(view[:1])
        if _path(name, parent) not in needed and view.nbytes > IGNORED_BYTES:
            split[name] = _NULL
        elif kind == b"[":
            split[name] = _decode_entries(raw)
        elif kind == b"{" and name in parents and parent is None:
            split[name] = _split_fields(raw, needed, name)
        else:
            split[name] = raw
    return split


def _path(name: str, parent: str | None) -> Path:
    return name if parent is None else (parent, name)


def _lengths(
    fields: dict[str, _Split], needed: Collection[Path], parent: str | None = None
) -> Iterator[tuple[Path, int]]:
    """The paths of needed fields that are lists, each with its length."""
    for name, field in fields.items():
        if isinstance(field, dict):
            yield from _lengths(field, needed, name)
        elif isinstance(field, list) and _path(name, parent) in needed:
            yield _path(name, parent), len(field)


def _raws(fields: dict[str, _Split]) -> Iterator[msgspec.Raw | str]:
    """The values of fields and entries of lists, and the names of fields."""
    for name, field in fields.items():
        yield name
        if isinstance(field, dict):
            yield from _raws(field)
        elif isinstance(field, list):
            yield from field
        else:
            yield field


def _build(field: _Split) -> Any:
    if isinstance(field, dict):
        return {name: _build(inner) for name, inner in field.items()}
    if isinstance(field, list):
        return [_build(raw) for raw in field]

    value = bytes(field)
    try:
        return from_json(value, allow_inf_nan=False)
    except ValueError:
        raise _not_json(value) from None


def _is_plain(value: bytes | bytearray) -> bool:
    if not value.isascii():
        return False
    return b"\\" not in value or _UNICODE_ESCAPE.search(value) is None


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
        unescaped = chunk
        if b"\\" in chunk:
            unescaped = chunk.replace(rb"\\", b"").replace(rb"\"", b"")

        # a delimiter allows one value and its name: two strings
        if len(unescaped) > 4 * most and unescaped.count(b'"') > 4 * most:
            raise _too_many_delimiters(most)
        pieces = unescaped.split(b'"')
        outside = b"".join(pieces[within_string::2]).translate(None, _UNSCANNED)
        if len(pieces) % 2 == 0:  # an odd number of quotes
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


def _not_json(value: bytes | bytearray = b"") -> InvalidRequest:
    """The error of a value that cannot be parsed; it names the encoding where that is why."""
    if value.startswith(_UTF_16_MARKS) or b"\0" in value[:4]:
        return InvalidRequest("The request body looks like UTF-16 or UTF-32: send JSON as UTF-8.")
    try:
        value.decode()
    except UnicodeDecodeError:
        return InvalidRequest("The request body is not valid UTF-8: send JSON as UTF-8.")
    return InvalidRequest("The request body is not valid JSON.")


def _too_many_delimiters(most: int) -> InvalidRequest:
    return InvalidRequest(
        f"The request body may have {most} brackets and commas outside of strings."
    )
