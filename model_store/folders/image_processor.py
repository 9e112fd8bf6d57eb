"""The image processor of a checkpoint, from the files that transformers reads, in its order.

Depends on two files and not on a network. Invariant: an image is resized here as transformers
resizes it for the same folder, up to the family's own bound on an image's area; settings that this
service does not apply are refused.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from model_store.json_files import read_json
from model_store.manifest import CheckpointUnusable, PixelBounds

PREPROCESSOR = "preprocessor_config.json"
PROCESSOR = "processor_config.json"
_NESTED = "image_processor"


def image_settings(name: str, folder: Path) -> tuple[str, dict[str, Any]] | None:
    """The file with the settings of the image processor, and the settings; None without one.

    Those that transformers 5 nests in `processor_config.json` take precedence over
    `preprocessor_config.json`. Raises `CheckpointUnusable` where a file cannot be read.
    """
    processor = read_json(name, folder, PROCESSOR)
    if processor is not None and _NESTED in processor:
        nested = processor[_NESTED]
        if not isinstance(nested, dict):
            raise CheckpointUnusable(f"{name}: {_NESTED} of {PROCESSOR} is no object.")
        return PROCESSOR, nested

    stated = read_json(name, folder, PREPROCESSOR)
    return None if stated is None else (PREPROCESSOR, stated)


def has_processor(name: str, folder: Path) -> bool:
    """True where transformers can make the whole processor, videos included.

    vLLM makes all of it, even if no video is ever sent.
    """
    if (folder / PREPROCESSOR).is_file():
        return True

    processor = read_json(name, folder, PROCESSOR) or {}
    video_file = folder / "video_preprocessor_config.json"
    has_video = "video_processor" in processor or video_file.is_file()
    return _NESTED in processor and has_video


def refuse_without_processor(name: str, folder: Path) -> None:
    """Raise `CheckpointUnusable` for a folder of which vLLM cannot make the processor."""
    if not has_processor(name, folder):
        raise CheckpointUnusable(
            f"{name}: there is no {PREPROCESSOR}, which vLLM needs: add that of the checkpoint's"
            " base model."
        )


def pixel_bounds(
    name: str,
    folder: Path,
    arithmetic: Mapping[str, Any],
    default: PixelBounds,
    *,
    most_pixels: int | None = None,
) -> PixelBounds:
    """The smallest and the largest area of an image in pixels, as the checkpoint states them.

    `arithmetic` are the settings of the processor that is computed here. `default` stands in for a
    bound that is not stated; `most_pixels`, or else its largest area, is the largest that the
    family's authors read. Raises `CheckpointUnusable` that names the file and the setting which
    cannot be followed.
    """
    most = most_pixels or default.max_pixels
    file_settings = image_settings(name, folder)
    if file_settings is None:
        return default

    file, stated = file_settings
    _refuse_other_arithmetic(name, file, stated, arithmetic)

    size = stated.get("size")
    if size is not None and not isinstance(size, Mapping):
        raise CheckpointUnusable(
            f"{name}: size of {file} is {size!r:.40}, not an object with shortest_edge and"
            " longest_edge."
        )

    stated = {**stated, "size": size or {}}
    smallest = _area(name, file, stated, ("min_pixels", "shortest_edge"), default.min_pixels)
    largest = _area(name, file, stated, ("max_pixels", "longest_edge"), default.max_pixels)
    if smallest > largest:
        raise CheckpointUnusable(
            f"{name}: by {file} min_pixels is {smallest}, more than max_pixels, {largest}."
        )
    if smallest > most:
        raise CheckpointUnusable(
            f"{name}: by {file} min_pixels is {smallest}, and pictures are read at {most} at most."
        )
    return PixelBounds(min_pixels=smallest, max_pixels=min(largest, most))


def _area(
    name: str, file: str, stated: Mapping[str, Any], keys: tuple[str, str], default: int
) -> int:
    """A bound as the image processor takes it.

    Its own name comes first, then its names in `size`, then the family's default.
    """
    own, edge = keys
    for settings, key in ((stated, own), (stated["size"], edge), (stated["size"], own)):
        value = settings.get(key)
        if value is None:
            continue
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise CheckpointUnusable(
                f"{name}: {key} of {file} is {value!r:.40}, not a whole number of pixels of at"
                " least 1."
            )
        return value
    return default


def _refuse_other_arithmetic(
    name: str, file: str, stated: Mapping[str, Any], arithmetic: Mapping[str, Any]
) -> None:
    for key, applied in arithmetic.items():
        value = stated.get(key)
        if value is not None and not _equal(value, applied):
            raise CheckpointUnusable(
                f"{name}: {key} of {file} is {value!r:.60}, and pictures are read with"
                f" {applied!r:.60} only."
            )


def _equal(value: object, applied: object) -> bool:
    """Equality of settings, with a tolerance for numbers that were written as decimals."""
    if isinstance(applied, list):
        if not isinstance(value, list) or len(value) != len(applied):
            return False
        return all(map(_equal, value, applied))

    if isinstance(applied, float):
        return isinstance(value, int | float) and math.isclose(value, applied, rel_tol=1e-6)
    return value == applied
