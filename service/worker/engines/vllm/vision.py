"""What runs inside vLLM's own worker process: the vision tower, asked for an image's embeddings
outside of any prompt.

vLLM mixes this class into its worker (`worker_extension_cls`) and reaches it by `collective_rpc`.
Knows pixels and a loaded Qwen2.5-VL, no prompts. Invariant: embeddings are those that the engine
would compute inside a prompt: same weights, same dtype, same arithmetic; an image's do not depend
on what it is encoded with.

It also sees to it that an engine does not outlive its front end, and hold on to a GPU that nobody
can reach.
"""

from __future__ import annotations

import os
import select
import signal
import threading
from typing import Any

import numpy as np
import torch

from model_store.families.prompt import Image
from model_store.families.qwen2_5_vl import grid, patches


class VisionExtension:
    """Added to vLLM's worker. `get_model` is the worker's own."""

    get_model: Any

    @torch.inference_mode()
    def gmr_encode(
        self, sizes: list[tuple[int, int]], pixels: list[bytes]
    ) -> tuple[str, int, bytes]:
        """Images as (width, height) and RGB rows; gives dtype, hidden size, and all their
        embeddings, `[tokens, hidden]`."""
        images = [Image(b"", width, height) for width, height in sizes]
        arrays = [
            np.frombuffer(rgb, np.uint8).reshape(height, width, 3)
            for (width, height), rgb in zip(sizes, pixels, strict=True)
        ]
        model = self.get_model()
        visual = model.visual
        place = next(visual.parameters())
        embedded = model.embed_multimodal(
            pixel_values=torch.from_numpy(np.concatenate([patches(array) for array in arrays])).to(
                place.device, place.dtype
            ),
            image_grid_thw=torch.tensor([grid(image) for image in images]),
        )
        rows = torch.cat(list(embedded)).cpu().contiguous()
        return (
            str(rows.dtype).removeprefix("torch."),
            rows.shape[1],
            rows.view(torch.uint8).numpy().tobytes(),
        )

    def gmr_follow(self, pid: int) -> None:
        """From now on, end with a process of this machine, however that ends. vLLM's other
        processes end with this one."""
        descriptor = os.pidfd_open(pid)
        threading.Thread(target=_follow, args=(descriptor,), name="follow", daemon=True).start()


def _follow(descriptor: int) -> None:
    gone = select.poll()
    gone.register(descriptor, select.POLLIN)
    gone.poll()
    os.kill(os.getpid(), signal.SIGKILL)
