"""A checkpoint's weights as a model of transformers, on the CPU.

Depends on checkpoints and transformers, not on prompts. Invariant: every tensor of the model was
read from the folder, in the requested dtype, and every tensor of the folder was read.
"""

from __future__ import annotations

from typing import Any

import torch
from transformers.utils.logging import disable_progress_bar

from model_store.checkpoint import Checkpoint
from model_store.folders.plain import TORCH_REFUSES, refuse_quantised
from model_store.folders.weights import is_constant
from model_store.manifest import CheckpointUnusable


def load_model(checkpoint: Checkpoint, dtype: torch.dtype) -> Any:
    """transformers' model of a checkpoint's architecture; raises `CheckpointUnusable`."""
    disable_progress_bar()
    refuse_quantised(checkpoint.name, checkpoint.folder, TORCH_REFUSES)
    kind = checkpoint.architecture.model_class()
    model, report = kind.from_pretrained(
        checkpoint.folder,
        dtype=dtype,
        attn_implementation="sdpa" if kind._supports_sdpa else "eager",
        local_files_only=True,
        use_safetensors=True,
        output_loading_info=True,
    )

    # transformers fills missing tensors with random numbers
    if missing := report["missing_keys"]:
        raise CheckpointUnusable(
            f"{checkpoint.name}: the weights lack {min(missing)} ({len(missing)} missing in all)."
        )
    if unread := {tensor for tensor in report["unexpected_keys"] if not is_constant(tensor)}:
        raise CheckpointUnusable(
            f"{checkpoint.name}: nothing reads {min(unread)} of the weights ({len(unread)} in all)."
        )
    for name, parameter in model.named_parameters():
        # transformers keeps another dtype for weights that are stored in some formats
        if parameter.dtype != dtype:
            raise CheckpointUnusable(
                f"{checkpoint.name}: {name} was loaded as {parameter.dtype}, not as {dtype}."
            )
    return model
