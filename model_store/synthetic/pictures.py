"""The pixel bounds of gmr-tiny, and pictures resized to them.

Invariant: a picture within the bounds, of whole cells, stays as it is.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from PIL import Image as Pil
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import smart_resize

from model_store.manifest import PixelBounds
from model_store.networks.qwen2_5_vl_images import CELL

PIXELS = PixelBounds(min_pixels=16 * CELL * CELL, max_pixels=64 * CELL * CELL)
"""Bounds of a picture's area: gmr-tiny was trained on nothing larger."""


def fitted(picture: Pil.Image) -> npt.NDArray[np.uint8]:
    """A picture's pixels, resized as Qwen-VL's processor resizes them."""
    height, width = smart_resize(
        picture.height, picture.width, CELL, PIXELS.min_pixels, PIXELS.max_pixels
    )
    if picture.size != (width, height):
        picture = picture.resize((width, height), Pil.Resampling.BICUBIC)
    return np.asarray(picture)
