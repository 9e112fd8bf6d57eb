"""Lets torch for CPUs start with a torchvision that was built for CUDA, the only build in package
indexes.

It belongs into the site-packages of an environment with such a pair, as vLLM's CPU build has;
Python imports it at every start.
When torchvision is imported, it describes two operators that only its CUDA library defines.
Defining their names is enough, because nothing calls them. An environment for GPUs, whose
torchvision matches torch, does not need this file.
"""

import sys
from importlib.abc import MetaPathFinder

KEPT = []
"""Libraries that are kept alive: a library that is garbage-collected removes its operators."""


class BeforeTorchvision(MetaPathFinder):
    """Defines the operators when torchvision is about to be imported, so that processes without
    torchvision are not slowed down."""

    def find_spec(self, fullname, path=None, target=None):
        """Find no module: the import continues with the next finder."""
        if fullname == "torchvision":
            sys.meta_path.remove(self)
            import torch

            library = torch.library.Library("torchvision", "DEF")
            for name in ("nms", "qnms"):
                library.define(name + "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
            KEPT.append(library)


sys.meta_path.insert(0, BeforeTorchvision())
