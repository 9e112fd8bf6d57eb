"""Image patches and three-dimensional positions of the Qwen-VL networks.

They differ in the side of a patch and in the normalisation alone. Depends on numpy. Invariant:
patches equal those of `Qwen2VLImageProcessorPil` bit for bit for an image that needs no resizing,
and positions equal `get_rope_index` of transformers with `mm_token_type_ids` passed.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from model_store.families.prompt import Image, Segment

MERGE = 2
TEMPORAL = 2
_RESCALE = 1 / 255


class QwenVLImages:
    """The arithmetic of one processor: `patch` is the side of a patch in pixels, and 2 x 2 patches
    become one token; `mean` and `deviation` are those of red, green and blue."""

    def __init__(self, patch: int, mean: Sequence[float], deviation: Sequence[float]) -> None:
        self.patch = patch
        self.cell = patch * MERGE
        """One image token covers `cell` x `cell` pixels."""
        self.mean, self.deviation = list(mean), list(deviation)

        # The processor's arithmetic on a byte has 256 results a channel: a table gives them without
        # touching every pixel twice.
        levels = (np.arange(256, dtype=np.float64) * _RESCALE)[None, :].astype(np.float32)
        means, deviations = (
            np.array(values, dtype=np.float64)[:, None].astype(np.float32)
            for values in (mean, deviation)
        )
        self._table = (levels - means) / deviations

    def tokens(self, image: Image) -> int:
        """Number of placeholders of an image."""
        return (image.width // self.cell) * (image.height // self.cell)

    def grid(self, image: Image) -> tuple[int, int, int]:
        """(frames, rows, columns) of an image's patches, before merging."""
        return 1, image.height // self.patch, image.width // self.patch

    def patches(self, rgb: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """Normalised patches of an image, in merge order.

        Takes `[height, width, 3]` bytes, both sides multiples of `cell`; gives `[rows * columns, 3
        * 2 * patch * patch]` (channel, frame, y, x), ready for `pixel_values`.
        """
        height, width, _ = rgb.shape
        patch, cell = self.patch, self.cell
        blocks = rgb.reshape(
            height // cell, MERGE, patch, width // cell, MERGE, patch, 3
        ).transpose(0, 3, 1, 4, 6, 2, 5)

        normal = np.empty(blocks.shape, dtype=np.float32)
        for channel in range(3):
            normal[:, :, :, :, channel] = self._table[channel][blocks[:, :, :, :, channel]]
        frames = np.broadcast_to(
            normal[:, :, :, :, :, None], (*normal.shape[:5], TEMPORAL, patch, patch)
        )
        return frames.reshape(height * width // patch**2, 3 * TEMPORAL * patch * patch)

    def positions(
        self, segment: Segment, image_token_id: int | None, start: int = 0
    ) -> tuple[npt.NDArray[np.int64], int]:
        """(time, row, column) of every token of a segment that begins at `start`, as `[3, tokens]`,
        and the position at which the next segment begins.

        Text advances all three together. An image spans its merged grid from the position at which
        it begins; the text after it begins beyond the grid's longer side.
        """
        ids = np.asarray(segment.ids)
        placeholders = np.flatnonzero(ids == image_token_id) if segment.images else ids[:0]
        columns: list[npt.NDArray[np.int64]] = []
        done = used = 0

        for image in segment.images:
            first = int(placeholders[used])
            columns.append(_text(start, first - done))
            start += first - done

            rows, cols = image.height // self.cell, image.width // self.cell
            row, col = np.divmod(np.arange(rows * cols), cols)
            columns.append(np.stack([np.zeros_like(row), row, col]) + start)

            start += max(rows, cols)
            used += rows * cols
            done = first + rows * cols

        columns.append(_text(start, len(ids) - done))
        return np.concatenate(columns, axis=1), start + len(ids) - done


def _text(start: int, length: int) -> npt.NDArray[np.int64]:
    return np.broadcast_to(np.arange(start, start + length), (3, length))
