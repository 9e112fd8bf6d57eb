"""The size of a generated picture, and pictures fitted to it."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from PIL import Image as Pil
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import smart_resize

from model_store.manifest import PixelBounds
from model_store.networks.qwen2_5_vl_images import CELL

PIXELS = PixelBounds(min_pixels=16 * CELL * CELL, max_pixels=64 * CELL * CELL)
"""gmr-tiny's own image budget: it has seen nothing larger."""


def fitted(picture: Pil.Image) -> npt.NDArray[np.uint8]:
    """A picture as the model sees it: resized as Qwen-VL's processor does."""
    height, width = smart_resize(
        picture.height, picture.width, CELL, PIXELS.min_pixels, PIXELS.max_pixels
    )
    resized = (
        picture
        if picture.size == (width, height)
        else picture.resize((width, height), Pil.Resampling.BICUBIC)
    )
    return np.asarray(resized)
