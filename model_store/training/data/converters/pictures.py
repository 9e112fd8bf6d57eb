"""A source's images: checked, and copied to files that rows can name.

Does not depend on layouts. Invariant: an image that a row names opens as the trainer opens it.
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

from model_store.errors import DataError
from model_store.families.images import FORMATS, MAX_FILE_BYTES
from model_store.output_files import output_file
from model_store.training.data.converters.outcomes import BadRow
from model_store.training.data.image_files import IMAGES, ImageMode, copy_or_link
from model_store.training.data.rows import MAX_PATH_CHARS, relative_path
from model_store.training.data.validation import image_problem

_SUFFIXES = {"PNG": "png", "JPEG": "jpg", "WEBP": "webp"}


@dataclass(frozen=True, slots=True)
class Pictures:
    """The image files below `root`, for rows of a file in `folder`."""

    root: Path
    folder: Path
    image_mode: ImageMode

    def keep(self, name: str | None, location: str) -> Path | None:
        """The file for a row to name, copied or linked by `image_mode`; None for no name.

        Raises `BadRow` for an image that is missing, broken or outside `root`, and `DataError`
        where it cannot be copied or linked.
        """
        if not name:
            return None

        if os.path.isabs(name):
            name = os.path.relpath(name, self.root.absolute())
        try:
            source = self.root / relative_path(name, "the image")
        except ValueError as error:
            raise BadRow(f"{location}: {error}.") from None
        problem = image_problem(source)
        if problem:
            raise BadRow(f"{location}: the image {name!r} {problem}.")
        if self.image_mode == "reference":
            return source

        kept = self.folder / IMAGES / name
        if len(f"{IMAGES}/{name}") > MAX_PATH_CHARS:
            raise BadRow(
                f"{location}: the image's path is longer than {MAX_PATH_CHARS} characters."
            )
        try:
            copy_or_link(source, kept, self.image_mode)
        except OSError as error:
            raise DataError(
                f"{location}: the image {name!r} cannot be kept ({error.strerror})."
            ) from None
        return kept


def keep_image(value: Any, folder: Path, location: str) -> Path:
    """Write an image's bytes to a file below `folder`, named by its SHA-256; raises `BadRow`."""
    data = image_bytes(value, location)
    if len(data) > MAX_FILE_BYTES:
        raise BadRow(f"{location}: the image has more than {MAX_FILE_BYTES} bytes.")
    try:
        with Image.open(BytesIO(data), formats=FORMATS) as image:
            suffix = _SUFFIXES[image.format or ""]
    except Exception:  # Pillow raises exceptions of any class for broken files
        raise BadRow(f"{location}: the image cannot be read as {', '.join(FORMATS)}.") from None

    name = f"{hashlib.sha256(data).hexdigest()}.{suffix}"
    path = folder / IMAGES / name[:2] / name
    if not path.exists():
        with output_file(path) as write:
            write(data)
    problem = image_problem(path)
    if problem:
        path.unlink(missing_ok=True)
        raise BadRow(f"{location}: the image {problem}.")
    return path


def image_bytes(value: Any, location: str) -> bytes:
    """An image's bytes: raw, in base64, or either of them as the `bytes` of an object; raises
    `BadRow`."""
    data = value.get("bytes") if isinstance(value, dict) else value
    if isinstance(data, str):
        try:
            data = base64.b64decode(data, validate=True)
        except (binascii.Error, ValueError):
            raise BadRow(f"{location}: the image is no base64.") from None

    if not isinstance(data, bytes) or not data:
        raise BadRow(f"{location}: there is no image.")
    return data
