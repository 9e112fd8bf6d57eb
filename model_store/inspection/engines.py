"""The engines that can serve a checkpoint, and the reasons why others cannot.

Depends on a folder's files, and starts no engine. Invariant: a reason is the sentence with which
that engine refuses the checkpoint.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from model_store.checkpoint import Checkpoint
from model_store.folders.image_processor import refuse_without_processor
from model_store.folders.plain import TORCH_REFUSES, refuse_quantised
from model_store.folders.vllm_overrides import vllm_overrides
from model_store.manifest import CheckpointUnusable


def engine_refusals(checkpoint: Checkpoint) -> dict[str, str]:
    """A sentence for each engine, by name; empty for an engine that can serve the checkpoint."""
    refusals = {}
    for engine, check in _CHECKS.items():
        try:
            check(checkpoint)
        except CheckpointUnusable as refusal:
            refusals[engine] = str(refusal)
        else:
            refusals[engine] = ""
    return refusals


def _check_torch(checkpoint: Checkpoint) -> None:
    refuse_quantised(checkpoint.name, checkpoint.folder, TORCH_REFUSES)


def _check_vllm(checkpoint: Checkpoint) -> None:
    if checkpoint.family.images:
        refuse_without_processor(checkpoint.name, checkpoint.folder)
    vllm_overrides(checkpoint.name, checkpoint.folder, checkpoint.readout)


_CHECKS: Mapping[str, Callable[[Checkpoint], None]] = {"torch": _check_torch, "vllm": _check_vllm}
