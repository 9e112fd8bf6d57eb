"""The most expensive requests within a service's limits, by shape of body and picture.

Depends on the public request alone. A shape's size is a number from 1 to 1,000, at which it is as
large as the default limits allow. Invariant: a shape is the same bytes each time, and its documents
are all different.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from service.bench.worst_requests.images import (
    animated_webp,
    jpeg_with_exif,
    jpeg_with_scans,
    largest_png,
    png_with_profiles,
)

LARGEST = 1_000
"""The largest size of a shape: documents of a request."""
BODY_BYTES = 60 * 2**20
"""The largest body: a little less than the default limit."""
TEXT_CHARACTERS = 100_000
DEADLINE_MS = 30_000
_LABEL = "data:image/png;base64,"


@dataclass(frozen=True, slots=True)
class Shape:
    """A request's body by its size, with a description in a few words."""

    name: str
    description: str
    body: Callable[[int], bytes]


def _request(documents: list[Any], **fields: Any) -> bytes:
    body = {
        "query": "q",
        "documents": documents,
        "timeout_ms": DEADLINE_MS,
        "on_error": "skip",
        "cache": "bypass",
    }
    return json.dumps(body | fields, ensure_ascii=False).encode()


def _nested_lists(size: int) -> bytes:
    count = BODY_BYTES * size // LARGEST // 5
    return _with_ignored_field(b"[" + b",".join([b"[[]]"] * count) + b"]")


def _keys(size: int) -> bytes:
    count = BODY_BYTES * size // LARGEST // 14
    entries = b",".join(b'"%09d":1' % number for number in range(count))
    return _with_ignored_field(b"{" + entries + b"}")


def _with_ignored_field(value: bytes) -> bytes:
    return b'{"query": "q", "documents": ["a"], "cache": "bypass", "ignored": ' + value + b"}"


def _texts(piece: str, size: int) -> bytes:
    """Documents of the longest text, as many as fit."""
    text = piece * (TEXT_CHARACTERS // len(piece))
    text_bytes = len(piece.encode()) / len(piece) * TEXT_CHARACTERS

    count = min(size, int(BODY_BYTES / text_bytes))
    return _request([f"{number} {text}"[:TEXT_CHARACTERS] for number in range(count)])


def _instruction(size: int) -> bytes:
    documents = [f"document {number}" for number in range(size)]
    return _request(documents, instruction="judge " * 2_600)


def _pictures(make: Callable[[int], bytes], size: int, *, label: str = "") -> bytes:
    """Documents of one picture each, as many as fit."""
    documents: list[dict[str, str]] = []
    room = BODY_BYTES * size // LARGEST

    for number in range(size):
        encoded = label + base64.b64encode(make(number)).decode()
        room -= len(encoded) + 16
        if documents and room < 0:
            break
        documents.append({"image": encoded})

    return _request(documents)


SHAPES = (
    Shape("nested", "nested lists in a field that is ignored", _nested_lists),
    Shape("keys", "many keys in a field that is ignored", _keys),
    Shape(
        "english",
        "the longest texts, English",
        partial(_texts, "the quick brown fox jumps over a lazy dog "),
    ),
    Shape(
        "chinese",
        "the longest texts, Chinese",
        partial(_texts, "\u6c34\u706b\u98a8\u96f7\u5c71\u6ca2\u5929\u5730"),
    ),
    Shape(
        "rare",
        "the longest texts, Egyptian hieroglyphs",
        partial(_texts, "\U00013000\U00013080\U00013100\U00013180"),
    ),
    Shape("instruction", "a long instruction", _instruction),
    Shape(
        "webp", "pictures of 16 megapixels in a hundred bytes", partial(_pictures, animated_webp)
    ),
    Shape(
        "png",
        "pictures of 16 megapixels as PNG, in data URLs",
        partial(_pictures, largest_png, label=_LABEL),
    ),
    Shape(
        "profiles",
        "colour profiles that unpack to a thousand times as much",
        partial(_pictures, png_with_profiles),
    ),
    Shape("scans", "JPEGs of 16 megapixels and 90 scans", partial(_pictures, jpeg_with_scans)),
    Shape("exif", "EXIF of thousands of entries", partial(_pictures, jpeg_with_exif)),
)
