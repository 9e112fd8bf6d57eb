"""A checkpoint's image processor, from the files that transformers reads, in its order.

Knows two files and the family's picture rules. Invariant: a picture is resized here as transformers
resizes it for the same folder, up to the family's own bound on a picture's area; settings that this
service does not apply are refused.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from model_store.families.gmr import MAX_PIXELS, MIN_PIXELS
from model_store.families.qwen2_5_vl import DEVIATION, MEAN, MERGE, PATCH, TEMPORAL
from model_store.folders.json_files import read_json
from model_store.manifest import CheckpointUnusable, PixelBounds

PREPROCESSOR = "preprocessor_config.json"
PROCESSOR = "processor_config.json"
_NESTED = "image_processor"

_BICUBIC = 3
_FIXED: dict[str, Any] = {
    "patch_size": PATCH,
    "temporal_patch_size": TEMPORAL,
    "merge_size": MERGE,
    "do_resize": True,
    "do_rescale": True,
    "do_normalize": True,
    "resample": _BICUBIC,
    "rescale_factor": 1 / 255,
    "image_mean": MEAN.tolist(),
    "image_std": DEVIATION.tolist(),
}
"""The arithmetic of the service, whatever a checkpoint states."""


def image_settings(name: str, folder: Path) -> tuple[str, dict[str, Any]] | None:
    """(the file, its settings): what transformers 5 nests in `processor_config.json` goes before
    `preprocessor_config.json`.

    None where there is neither. Raises `CheckpointUnusable` where a file cannot be read.
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
    """Whether transformers can make the whole processor, videos included, as vLLM has it do even if
    no video ever comes."""
    if (folder / PREPROCESSOR).is_file():
        return True
    processor = read_json(name, folder, PROCESSOR) or {}
    has_video = (
        "video_processor" in processor or (folder / "video_preprocessor_config.json").is_file()
    )
    return _NESTED in processor and has_video


def pixel_bounds(name: str, folder: Path) -> PixelBounds:
    """The smallest and the largest area of a picture in pixels, as the checkpoint states them.

    The largest is the family's `MAX_PIXELS` at most, as its authors read pictures. Raises
    `CheckpointUnusable` that names the file and the setting which cannot be followed.
    """
    found = image_settings(name, folder)
    if found is None:
        return PixelBounds(min_pixels=MIN_PIXELS, max_pixels=MAX_PIXELS)
    file, stated = found
    _refuse_other_arithmetic(name, file, stated)

    size = stated.get("size")
    if size is not None and not isinstance(size, Mapping):
        raise CheckpointUnusable(
            f"{name}: size of {file} is {size!r:.40}, not an object with shortest_edge and"
            " longest_edge."
        )
    stated = {**stated, "size": size or {}}
    least = _area(name, file, stated, ("min_pixels", "shortest_edge"), MIN_PIXELS)
    most = _area(name, file, stated, ("max_pixels", "longest_edge"), MAX_PIXELS)
    if least > most:
        raise CheckpointUnusable(
            f"{name}: by {file} min_pixels is {least}, more than max_pixels, {most}."
        )
    if least > MAX_PIXELS:
        raise CheckpointUnusable(
            f"{name}: by {file} min_pixels is {least}, and pictures are read at {MAX_PIXELS} at"
            " most."
        )
    return PixelBounds(min_pixels=least, max_pixels=min(most, MAX_PIXELS))


def _area(
    name: str, file: str, stated: Mapping[str, Any], keys: tuple[str, str], default: int
) -> int:
    """A bound as the image processor takes it: its own name, then its name in `size`, then the
    family's default."""
    own, edge = keys
    for place, key in ((stated, own), (stated["size"], edge), (stated["size"], own)):
        value = place.get(key)
        if value is None:
            continue
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise CheckpointUnusable(
                f"{name}: {key} of {file} is {value!r:.40}, not a whole number of pixels of at"
                " least 1."
            )
        return value
    return default


def _refuse_other_arithmetic(name: str, file: str, stated: Mapping[str, Any]) -> None:
    for key, due in _FIXED.items():
        value = stated.get(key)
        if value is not None and not _equal(value, due):
            raise CheckpointUnusable(
                f"{name}: {key} of {file} is {value!r:.60}, and pictures are read with {due!r:.60}"
                " only."
            )


def _equal(value: object, due: object) -> bool:
    if isinstance(due, list):
        return isinstance(value, list) and len(value) == len(due) and all(map(_equal, value, due))
    if isinstance(due, float):
        return isinstance(value, int | float) and math.isclose(value, due, rel_tol=1e-6)
    return value == due
