"""Qwen2.5-VL's image patches and three-dimensional positions.

Depends on numpy alone. Invariant: patches equal those of `Qwen2VLImageProcessorPil` bit for bit
for an image that needs no resizing, and positions equal `get_rope_index` of transformers with
`mm_token_type_ids` passed.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from model_store.families.prompt import Image, Segment

PATCH = 14
MERGE = 2
TEMPORAL = 2
CELL = PATCH * MERGE
"""One image token covers CELL x CELL pixels: 14-pixel patches, merged 2 x 2."""

# OpenAI CLIP's channel means and deviations, which every Qwen-VL processor uses.
MEAN = np.array([0.48145466, 0.4578275, 0.40821073], dtype=np.float64)
DEVIATION = np.array([0.26862954, 0.26130258, 0.27577711], dtype=np.float64)
_RESCALE = 1 / 255
# The processor's arithmetic on a byte has 256 results a channel: a table gives them without
# touching every pixel twice.
_LEVELS = np.arange(256, dtype=np.float64)
_TABLE = (
    (_LEVELS * _RESCALE)[None, :].astype(np.float32) - MEAN[:, None].astype(np.float32)
) / DEVIATION[:, None].astype(np.float32)


def image_tokens(image: Image) -> int:
    """Number of placeholders of an image."""
    return (image.width // CELL) * (image.height // CELL)


def grid(image: Image) -> tuple[int, int, int]:
    """(frames, rows, columns) of an image's patches, before merging."""
    return 1, image.height // PATCH, image.width // PATCH


def patches(rgb: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """Normalised patches of an image, in merge order.

    Takes `[height, width, 3]` bytes, both sides multiples of `CELL`; gives `[rows * columns, 3 * 2
    * 14 * 14]` (channel, frame, y, x), ready for `pixel_values`.
    """
    height, width, _ = rgb.shape
    blocks = rgb.reshape(height // CELL, MERGE, PATCH, width // CELL, MERGE, PATCH, 3).transpose(
        0, 3, 1, 4, 6, 2, 5
    )
    normal = np.empty(blocks.shape, dtype=np.float32)
    for channel in range(3):
        normal[:, :, :, :, channel] = _TABLE[channel][blocks[:, :, :, :, channel]]
    frames = np.broadcast_to(
        normal[:, :, :, :, :, None], (*normal.shape[:5], TEMPORAL, PATCH, PATCH)
    )
    return frames.reshape(height * width // PATCH**2, 3 * TEMPORAL * PATCH * PATCH)


def positions(
    segment: Segment, image_token_id: int | None, start: int = 0
) -> tuple[npt.NDArray[np.int64], int]:
    """(time, row, column) of every token of a segment that begins at `start`, as `[3, tokens]`, and
    the position at which the next segment begins.

    Text advances all three together. An image spans its merged grid from the position at which it
    begins; the text after it begins beyond the grid's longer side.
    """
    ids = np.asarray(segment.ids)
    placeholders = np.flatnonzero(ids == image_token_id) if segment.images else ids[:0]
    columns: list[npt.NDArray[np.int64]] = []
    done = used = 0

    for image in segment.images:
        first = int(placeholders[used])
        columns.append(_text(start, first - done))
        start += first - done

        rows, cols = image.height // CELL, image.width // CELL
        row, col = np.divmod(np.arange(rows * cols), cols)
        columns.append(np.stack([np.zeros_like(row), row, col]) + start)

        start += max(rows, cols)
        used += rows * cols
        done = first + rows * cols

    columns.append(_text(start, len(ids) - done))
    return np.concatenate(columns, axis=1), start + len(ids) - done


def _text(start: int, length: int) -> npt.NDArray[np.int64]:
    return np.broadcast_to(np.arange(start, start + length), (3, length))
