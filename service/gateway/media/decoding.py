"""Decoding and resizing of encoded images; `decode_all` runs in a child process.

The pixels are those of `model_store.families.images`, which training uses too. This module adds
what untrusted bytes need: a bound on memory, PNG files without the chunks that Pillow would
inflate, and errors of this service alone. It depends on Pillow, on no request and no event loop.
Invariant: every failure is a `RerankError`, and no text of Pillow's leaves.
"""

from __future__ import annotations

import resource
import struct
import time
from collections.abc import Sequence

from PIL import Image

from model_store.families.images import open_image, prepare, smart_resize
from service.errors import ImageTooLarge, InvalidImage, RerankError
from service.gateway.media.headers import PNG
from service.wire import ImageRule

DECODER_MEMORY_BYTES = 2**30
MAX_CHUNKS = 50_000
"""Chunks of a PNG. Encoders write one for each 8 KiB or more, and stepping over a chunk takes as
long as reading about a hundred bytes."""
_KEPT_CHUNKS = frozenset(
    (b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND", b"acTL", b"fcTL", b"fdAT", b"eXIf")
)
_TEXT_CHUNKS = frozenset((b"tEXt", b"zTXt", b"iTXt"))
_KEPT_KEYWORDS = (b"Raw profile type exif\0", b"XML:com.adobe.xmp\0")
"""Text chunks that may hold an EXIF orientation; no other text affects the pixels."""
_MAX_TEXT_BYTES = 64 * 2**10

# Headers are checked against the service's own limits before an image is decoded.
Image.MAX_IMAGE_PIXELS = None


def resized_size(width: int, height: int, rule: ImageRule) -> tuple[int, int]:
    """(width, height) of an image after it is resized for a model."""
    return smart_resize(
        width, height, cell=rule.cell, min_pixels=rule.min_pixels, max_pixels=rule.max_pixels
    )


def decode_all(
    batch: Sequence[bytes], rule: ImageRule
) -> tuple[list[tuple[int, int, bytes] | RerankError], float]:
    """(width, height, RGB rows) or the error of each image, and the CPU seconds of them all.

    It limits the address space of the process that it runs in.
    """
    resource.setrlimit(resource.RLIMIT_AS, (DECODER_MEMORY_BYTES, DECODER_MEMORY_BYTES))
    started = time.process_time()

    decoded: list[tuple[int, int, bytes] | RerankError] = []
    for data in batch:
        try:
            decoded.append(_decode(data, rule))
        except RerankError as error:
            decoded.append(error)
    return decoded, time.process_time() - started


def import_decoder() -> None:
    """Do nothing; a child process that runs it has imported this module."""


def _decode(data: bytes, rule: ImageRule) -> tuple[int, int, bytes]:
    stripped = _without_metadata(data)
    try:
        with open_image(stripped) as image:
            prepared = prepare(
                image, cell=rule.cell, min_pixels=rule.min_pixels, max_pixels=rule.max_pixels
            )
            return *prepared.size, prepared.tobytes()
    except MemoryError:
        raise ImageTooLarge from None
    # Pillow raises exceptions of any kind for a broken file, struct.error among them
    except Exception:
        raise InvalidImage from None


def _without_metadata(data: bytes) -> bytes:
    """A PNG without color profiles and most texts, which Pillow would inflate; any other format
    unchanged."""
    if not data.startswith(PNG):
        return data

    kept = [PNG]
    keywords: set[bytes] = set()
    offset = len(PNG)
    for _ in range(MAX_CHUNKS):
        head = data[offset : offset + 8]
        if len(head) < 8:
            return b"".join(kept)

        length, kind = struct.unpack(">I4s", head)
        end = offset + 12 + length
        if kind in _KEPT_CHUNKS:
            kept.append(data[offset:end])
        elif kind in _TEXT_CHUNKS and length <= _MAX_TEXT_BYTES:
            keyword = _kept_keyword(data[offset + 8 : end - 4])
            if keyword and keyword not in keywords:
                keywords.add(keyword)
                kept.append(data[offset:end])
        offset = end
    raise InvalidImage


def _kept_keyword(text: bytes) -> bytes | None:
    for keyword in _KEPT_KEYWORDS:
        if text.startswith(keyword):
            return keyword
    return None
