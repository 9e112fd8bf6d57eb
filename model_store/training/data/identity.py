"""The identity of a side's content: its normalised text and the bytes of its image.

Does not depend on rows. Invariant: two sides with equal keys have the same image to the byte, or
none, and texts that differ at most in case, spacing, punctuation and the encoding of characters.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from functools import lru_cache
from pathlib import Path

from model_store.errors import DataError
from model_store.files import sha256
from model_store.training.data.rows import Side

_CACHED_DIGESTS = 2**16


def content_key(side: Side) -> bytes:
    """16 bytes that identify a side's content; raises `DataError` where its image cannot be
    read."""
    text = b"" if side.text is None else normalize_text(side.text).encode()
    image = b"" if side.image is None else image_digest(side.image)
    return hashlib.blake2b(len(text).to_bytes(8, "big") + text + image, digest_size=16).digest()


def normalize_text(text: str) -> str:
    """A text without differences of case, punctuation, spacing and compatible characters."""
    folded = unicodedata.normalize("NFKC", text).casefold()
    words = re.sub(r"[\W_]+", " ", folded).strip()
    return words or folded.strip()  # texts of punctuation alone differ by their punctuation


@lru_cache(_CACHED_DIGESTS)
def image_digest(path: Path) -> bytes:
    """The SHA-256 of an image file; the digests of the files read last are cached."""
    try:
        return bytes.fromhex(sha256(path))
    except OSError as error:
        raise DataError(f"{path}: the image cannot be read ({error.strerror}).") from None
