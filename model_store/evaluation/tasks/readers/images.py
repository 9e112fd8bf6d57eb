"""The images of a folder: checked before anything is scored, and read one at a time.

Does not depend on rows, and decodes no image. Invariant: no file outside the folder is read, not
even through a symbolic link.
"""

from __future__ import annotations

import os
import stat
from functools import lru_cache
from pathlib import Path, PurePosixPath

from model_store.evaluation.tasks.dataset import TaskUnusable
from model_store.families.images import MAX_FILE_BYTES

MAX_PATH_CHARS = 1_024
_SAMPLED_BYTES = 4_096


def is_encoded(content: bytes) -> bool:
    """True for the beginning of a PNG, JPEG or WebP, which are the formats of the service."""
    if content.startswith((b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff")):
        return True
    return content[:4] == b"RIFF" and content[8:12] == b"WEBP"


def is_inside(image: str) -> bool:
    """True for a relative path that leads to no folder above, on any system."""
    parts = PurePosixPath(image).parts
    if image.startswith("/") or ".." in parts or not parts or ":" in parts[0]:
        return False
    return len(image) <= MAX_PATH_CHARS and not set("\\\0") & set(image)


class FolderImages:
    """The images of a folder by their paths in it."""

    def __init__(self, folder: Path) -> None:
        self._folder = Path(os.path.realpath(folder))

    def check(self, image: str, location: str) -> bytes:
        """The identity of an image: its size, first and last bytes.

        A corpus of pages is hundreds of gigabytes, of which an evaluation reads a part: the sample
        tells a file that was replaced without reading all of it. Raises `TaskUnusable`.
        """
        try:
            file = os.open(self._path(image, location), os.O_RDONLY | os.O_NONBLOCK)
            try:
                size = _size(file, image, location)
                head = os.pread(file, _SAMPLED_BYTES, 0)
                tail = os.pread(file, _SAMPLED_BYTES, max(0, size - _SAMPLED_BYTES))
            finally:
                os.close(file)
        except OSError as error:
            raise _unreadable(image, location, error) from None
        if not is_encoded(head):
            raise TaskUnusable(f"{location}: the image {image!r} is no PNG, JPEG or WebP.")
        return b"%d " % size + head + tail

    def read(self, image: str, location: str) -> bytes:
        """The encoded bytes of an image; raises `TaskUnusable`."""
        try:
            file = os.open(self._path(image, location), os.O_RDONLY | os.O_NONBLOCK)
            try:
                return os.read(file, _size(file, image, location))
            finally:
                os.close(file)
        except OSError as error:
            raise _unreadable(image, location, error) from None

    def _path(self, image: str, location: str) -> str:
        folder = str(self._folder)
        path = os.path.join(folder, image)
        real = os.path.join(_real(os.path.dirname(path)), os.path.basename(path))
        if os.path.islink(real):
            real = os.path.realpath(real)
        if os.path.commonpath([folder, real]) != folder:
            raise TaskUnusable(f"{location}: the image {image!r} is a link out of the folder.")
        return real


@lru_cache(4_096)
def _real(folder: str) -> str:
    return os.path.realpath(folder)


def _size(file: int, image: str, location: str) -> int:
    status = os.fstat(file)
    if not stat.S_ISREG(status.st_mode) or not 0 < status.st_size <= MAX_FILE_BYTES:
        raise TaskUnusable(
            f"{location}: the image {image!r} is no file of 1 to {MAX_FILE_BYTES} bytes."
        )
    return status.st_size


def _unreadable(image: str, location: str, error: OSError) -> TaskUnusable:
    return TaskUnusable(f"{location}: the image {image!r} cannot be read ({error.strerror}).")
