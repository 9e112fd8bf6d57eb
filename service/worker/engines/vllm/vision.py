"""The vision tower inside vLLM's own worker process: it encodes images outside of any prompt.

vLLM mixes the class into its worker (`worker_extension_cls`) and calls it by `collective_rpc`.
Depends on pixels and a loaded network, not on prompts. Invariant: embeddings are those that the
engine would compute inside a prompt, with the same weights, dtype and arithmetic, and those of an
image do not depend on other images of the same call.

The extension also ends the engine with its front end, so that no engine keeps a GPU that no process
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
    """Methods added to vLLM's worker, which has `get_model`."""

    get_model: Any

    @torch.inference_mode()
    def gmr_encode(
        self, architecture: str, sizes: list[tuple[int, int]], pixels: list[bytes]
    ) -> tuple[str, int, bytes]:
        """Encode images given as (width, height) and rows of RGB bytes.

        Returns dtype, values of a token, and the embeddings of all images, `[tokens, values]`.
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
        """End this process when the process `pid` of the same machine ends, however it ends.

        vLLM's other processes end with this one.
        """
        descriptor = os.pidfd_open(pid)
        threading.Thread(target=_follow, args=(descriptor,), name="follow", daemon=True).start()


def _follow(descriptor: int) -> None:
    """Wait until a process has ended, then end this one."""
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    poll.poll()
    os.kill(os.getpid(), signal.SIGKILL)
