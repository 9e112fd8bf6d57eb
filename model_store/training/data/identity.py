"""What makes two sides the same: their normalised text and the bytes of their image.

Knows text and files, no rows. Invariant: equal keys mean the same image to the byte, or none, and
texts that differ at most in case, spacing, punctuation and the spelling of characters.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from functools import lru_cache
from pathlib import Path

from model_store.files import sha256
from model_store.training.data.rows import DataError, Side

_REMEMBERED = 2**16


def key_of(side: Side) -> bytes:
    """16 bytes that name a side's content. Reads the image; raises `DataError` where it cannot."""
    text = b"" if side.text is None else normal(side.text).encode()
    image = b"" if side.image is None else image_digest(side.image)
    return hashlib.blake2b(len(text).to_bytes(8, "big") + text + image, digest_size=16).digest()


def normal(text: str) -> str:
    """A text without what makes no difference to a reader: case, punctuation, runs of spaces,
    compatible characters."""
    folded = unicodedata.normalize("NFKC", text).casefold()
    words = re.sub(r"[\W_]+", " ", folded).strip()
    return words or folded.strip()  # a text of signs alone is told apart by its signs


@lru_cache(_REMEMBERED)
def image_digest(path: Path) -> bytes:
    """SHA-256 of a file; a process reads the file once as long as it is among the last it asked
    for."""
    try:
        return bytes.fromhex(sha256(path))
    except OSError as error:
        raise DataError(f"{path}: the image cannot be read ({error.strerror}).") from None
