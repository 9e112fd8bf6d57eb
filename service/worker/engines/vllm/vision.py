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
from model_store.networks.catalogue import by_name


class VisionExtension:
    """Added to vLLM's worker. `get_model` is the worker's own."""

    get_model: Any

    @torch.inference_mode()
    def gmr_encode(
        self, architecture: str, sizes: list[tuple[int, int]], pixels: list[bytes]
    ) -> tuple[str, int, bytes]:
        """Encode images given as (width, height) and rows of RGB bytes.

        Returns dtype, hidden size, and the embeddings of all images, `[tokens, hidden]`.
        """
        tower = by_name(architecture).vision
        assert tower is not None

        patches: list[np.ndarray] = []
        for (width, height), rgb in zip(sizes, pixels, strict=True):
            array = np.frombuffer(rgb, np.uint8).reshape(height, width, 3)
            patches.append(tower.patches(array))
        grids = [tower.grid(Image(b"", width, height)) for width, height in sizes]

        model = self.get_model()
        parameter = next(model.visual.parameters())
        inputs = {
            tower.patches_input: torch.from_numpy(np.concatenate(patches)).to(
                parameter.device, parameter.dtype
            ),
            tower.grids_input: torch.tensor(grids),
        }
        rows = torch.cat(list(model.embed_multimodal(**inputs))).cpu().contiguous()
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
