"""Picture files: those of folders, their type by their first bytes, and their base64.

Does not decode pictures: the service does. Invariant: only files that begin as PNG, JPEG or WebP
are read whole, so that no other file is ever sent.
"""

from __future__ import annotations

import base64
import os
from collections.abc import Iterator
from pathlib import Path

from model_store.commands.console import sentence_of

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")
MAX_BYTES = 64 * 2**20
"""The largest picture file that is read; a service has a bound of its own below it."""
_KIND = "PNG, JPEG or WebP"


class Unreadable(Exception):
    """A file that cannot be a document; `code` is as in the answer's errors, the message one
    sentence without the file's name."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


def is_picture_name(name: str) -> bool:
    """True if a name has the suffix of a picture."""
    return name.lower().endswith(SUFFIXES)


def pictures_in(folder: Path) -> Iterator[Path]:
    """The pictures of a folder and of those in it, in the order of their names; hidden ones and
    linked folders are left out."""
    for parent, folders, files in os.walk(folder, onerror=_raise):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(files):
            if is_picture_name(name) and not name.startswith("."):
                yield Path(parent) / name


def encoded_picture(file: Path) -> str:
    """A picture file as base64. Raises `Unreadable`."""
    return base64.b64encode(read_picture(file)).decode("ascii")


def read_picture(file: Path) -> bytes:
    """The bytes of a picture file. Raises `Unreadable`."""
    try:
        with file.open("rb") as opened:
            start = opened.read(12)
            if not _is_picture(start):
                raise Unreadable("invalid_image", f"The file is not a {_KIND} picture.")
            content = start + opened.read(MAX_BYTES)
    except OSError as error:
        raise Unreadable("unreadable_file", _reason(error)) from None
    if len(content) > MAX_BYTES:
        raise Unreadable("image_too_large", "The picture is larger than 64 MiB.")
    return content


def _is_picture(start: bytes) -> bool:
    webp = start[:4] == b"RIFF" and start[8:12] == b"WEBP"
    return webp or start.startswith((b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff"))


def _reason(error: OSError) -> str:
    return sentence_of(OSError(error.errno, ""))


def _raise(error: OSError) -> None:
    raise error
