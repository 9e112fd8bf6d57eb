"""A source's images: checked, and kept where rows can name them.

Knows files and bytes, no layout. Invariant: an image that is kept here opens as the trainer opens
it.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

from PIL import Image

from model_store.families.images import FORMATS, MAX_FILE_BYTES
from model_store.training.data.converters.outcomes import BadRow
from model_store.training.data.image_files import IMAGES, ImageMode, bring
from model_store.training.data.row_files import output_file
from model_store.training.data.rows import MAX_PATH_CHARS, DataError, inside
from model_store.training.data.validation import image_problem

_SUFFIXES = {"PNG": "png", "JPEG": "jpg", "WEBP": "webp"}


@dataclass(frozen=True, slots=True)
class Pictures:
    """Where a source's image files go: rows lie in `folder`, images below `root`."""

    root: Path
    folder: Path
    image_mode: ImageMode

    def keep(self, name: str | None, place: str) -> Path | None:
        """The file that a row is to name for the source's `name`.

        Raises `BadRow`, which says `place`, for an image that is missing, broken or outside `root`,
        and `DataError` where it cannot be copied or linked.
        """
        if not name:
            return None
        if os.path.isabs(name):
            name = os.path.relpath(name, self.root.absolute())
        try:
            source = self.root / inside(name, "the image")
        except ValueError as error:
            raise BadRow(f"{place}: {error}.") from None
        if problem := image_problem(source):
            raise BadRow(f"{place}: the image {name!r} {problem}.")
        if self.image_mode == "reference":
            return source

        kept = self.folder / IMAGES / name
        if len(f"{IMAGES}/{name}") > MAX_PATH_CHARS:
            raise BadRow(f"{place}: the image's path is longer than {MAX_PATH_CHARS} characters.")
        try:
            bring(source, kept, self.image_mode)
        except OSError as error:
            raise DataError(
                f"{place}: the image {name!r} cannot be kept ({error.strerror})."
            ) from None
        return kept


def keep_image(value: Any, folder: Path, place: str) -> Path:
    """An image's bytes as a file below `folder`, named by its SHA-256; raises `BadRow`."""
    data = bytes_of(value, place)
    if len(data) > MAX_FILE_BYTES:
        raise BadRow(f"{place}: the image has more than {MAX_FILE_BYTES} bytes.")
    try:
        with Image.open(BytesIO(data), formats=FORMATS) as image:
            suffix = _SUFFIXES[image.format or ""]
    except Exception:  # a broken file leads Pillow to exceptions of any kind
        raise BadRow(f"{place}: the image cannot be read as {', '.join(FORMATS)}.") from None
    name = f"{hashlib.sha256(data).hexdigest()}.{suffix}"
    path = folder / IMAGES / name[:2] / name
    if not path.exists():
        with output_file(path) as write:
            write(data)
    if problem := image_problem(path):
        path.unlink(missing_ok=True)
        raise BadRow(f"{place}: the image {problem}.")
    return path


def bytes_of(value: Any, place: str) -> bytes:
    """An image's bytes: as they are, in base64, or either of them as the `bytes` of an object;
    raises `BadRow`."""
    data = value.get("bytes") if isinstance(value, dict) else value
    if isinstance(data, str):
        try:
            data = base64.b64decode(data, validate=True)
        except (binascii.Error, ValueError):
            raise BadRow(f"{place}: the image is no base64.") from None
    if not isinstance(data, bytes) or not data:
        raise BadRow(f"{place}: there is no image.")
    return data
