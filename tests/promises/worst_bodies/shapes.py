"""The most expensive bodies within the limits, or almost: their cost is bounded, whatever the
answer."""

from __future__ import annotations

import gzip
from collections.abc import Callable

SIZE = 64 * 2**20
_DOCUMENT = 64 * 2**10
_IGNORED = b'{"query":"q","documents":["d"],"x":'
_MARKS = 249_000


def filled(before: bytes, unit: bytes, after: bytes) -> bytes:
    """As many units as fit into a body of the maximum size."""
    return before + unit * ((SIZE - len(before) - len(after)) // len(unit)) + after


def documents(text: bytes) -> bytes:
    return b'{"query":"q","documents":[' + b",".join([b'"' + text + b'"'] * 1_000) + b"]}"


def many_names() -> bytes:
    names = b",".join(b'"name %d":%d.5' % (number, number) for number in range(_MARKS))
    return b'{"query":"q","documents":["d"],' + names + b"}"


def many_parts() -> bytes:
    content = b",".join([b'{"type":"text","text":"ab"}'] * 49)
    return (
        b'{"query":"q","documents":['
        + b",".join([b'{"content":[' + content + b"]}"] * 1_000)
        + b"]}"
    )


def unknown_fields() -> bytes:
    """Each document has as many unknown fields as the limit of delimiters allows."""
    fields = b",".join(b'"n%d":0' % number for number in range(30))
    many = b",".join(b'"n%d":0' % number for number in range(200_000))
    wrong = b"{" + fields + b"},"
    return b'{"query":"q","on_error":"skip","documents":[' + wrong * 999 + b"{" + many + b"}]}"


def pictures() -> bytes:
    return filled(b'{"query":"q","documents":[{"image":"', b"iVBO", b'"}]}')


SHAPES: dict[str, Callable[[], bytes]] = {
    "nested lists": lambda: filled(_IGNORED + b"[", b"[],", b"0]}"),
    "nested lists as documents": lambda: filled(b'{"query":"q","documents":[', b"[],", b"0]}"),
    "a nested document": lambda: b'{"query":"q","documents":[[' + b"[]," * (_MARKS // 2) + b"0]]}",
    "deep": lambda: filled(_IGNORED + b"[", b"[" * 90 + b"]" * 90 + b",", b"0]}"),
    "tiny strings": lambda: filled(_IGNORED + b"[", b'"ab",', b"0]}"),
    "many names": many_names,
    "many parts": many_parts,
    "unknown fields": unknown_fields,
    "documents of 64 KiB": lambda: documents(b"a b, c " * (_DOCUMENT // 7)),
    "wide documents": lambda: documents("\U0001f600".encode() + b"a b, c " * (_DOCUMENT // 7 - 1)),
    "escaped documents": lambda: documents(rb"\u6f22" * (_DOCUMENT // 6)),
    "a wide text": lambda: filled('{"query":"q","documents":["\U0001f600'.encode(), b"a", b'"]}'),
    "large numbers": lambda: filled(b'{"query":"q","documents":[[', b"9" * 4_000 + b",", b"0]]}"),
    "a picture": pictures,
}


def bombs() -> dict[str, bytes]:
    """Compressed bodies that exceed the limits when decompressed."""
    spaces = gzip.compress(b" " * (SIZE + 2**20))
    return {"spaces": spaces, "twice": gzip.compress(spaces)}
