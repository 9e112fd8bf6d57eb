"""Qwen2.5-VL's image patches and three-dimensional positions: 14-pixel patches, CLIP's
normalisation.

Depends on numpy alone. Invariant: that of `QwenVLImages`.
"""

from __future__ import annotations

import numpy as np

from model_store.networks import qwen_vl_images
from model_store.networks.qwen_vl_images import QwenVLImages

PATCH = 14
MERGE, TEMPORAL = qwen_vl_images.MERGE, qwen_vl_images.TEMPORAL

# OpenAI CLIP's channel means and deviations, which the processors of Qwen2-VL and Qwen2.5-VL use.
MEAN = np.array([0.48145466, 0.4578275, 0.40821073], dtype=np.float64)
DEVIATION = np.array([0.26862954, 0.26130258, 0.27577711], dtype=np.float64)

IMAGES = QwenVLImages(PATCH, MEAN.tolist(), DEVIATION.tolist())
CELL = IMAGES.cell
"""One image token covers CELL x CELL pixels: 14-pixel patches, merged 2 x 2."""

image_tokens = IMAGES.tokens
grid = IMAGES.grid
patches = IMAGES.patches
positions = IMAGES.positions
