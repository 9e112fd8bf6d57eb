"""The image files that rows name: their relative names, and their copies beside the rows.

Does not depend on rows. Invariant: a name is relative, has no `..`, and leads to a file with the
same bytes.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Literal

from model_store.errors import DataError
from model_store.files import atomic_path
from model_store.training.data.identity import image_digest

ImageMode = Literal["reference", "copy", "link"]
"""The treatment of an image outside the folder of the rows that name it: it is refused (reference),
copied into that folder, or linked from there."""

IMAGES = "images"


def relative_name(folder: Path, image: Path, image_mode: ImageMode = "reference") -> str:
    """An image's path as a row of a file in `folder` names it.

    An image outside the folder is copied or linked to `images/<two letters>/<SHA-256>.<suffix>`, so
    that equal images of two data sets become one file, and different images of one name two files.
    Raises `DataError` for an image that cannot be read, and for `reference` where it lies outside.
    """
    relative = Path(os.path.relpath(image, folder))
    if ".." not in relative.parts:
        return relative.as_posix()

    if image_mode == "reference":
        raise DataError(
            f"{image}: the image lies outside {folder}, the folder of the rows that name it; "
            "--images link or --images copy brings it there."
        )

    digest = image_digest(image).hex()
    name = Path(IMAGES, digest[:2], digest + image.suffix.lower())
    try:
        copy_or_link(image, folder / name, image_mode)
    except OSError as error:
        raise DataError(f"{folder / name}: it cannot be written ({error.strerror}).") from None
    return name.as_posix()


def check_nameable(folder: Path, image: Path, image_mode: ImageMode) -> None:
    """Raise `DataError` where `relative_name` would, without copying or linking the image."""
    if image_mode == "reference":
        relative_name(folder, image)
    elif not image.is_file():
        raise DataError(f"{image}: the image does not exist.")


def copy_or_link(source: Path, target: Path, image_mode: ImageMode) -> None:
    """Copy or link `source` to `target`, unless a file of the same size is there; raises
    `OSError`."""
    size = source.stat().st_size
    if target.exists() and target.stat().st_size == size:
        return

    target.parent.mkdir(parents=True, exist_ok=True)
    # A data set has too many images to wait for the disk after each of them.
    with atomic_path(target, sync_file=False) as draft:
        if image_mode == "link":
            draft.symlink_to(source.resolve())
        else:
            shutil.copyfile(source, draft)
