"""A base without what a reranker has learnt: a checkpoint with its last language layers made anew.

Depends on checkpoint folders and networks. Invariant: all other weights are the checkpoint's, to
the bit, and the same checkpoint and number of layers give the same weights.

The paper's comparisons begin from a network that understands its input and was not taught to
answer. A reranker was taught, but its first layers, its embeddings and its vision tower are close
to such a network.
"""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import Qwen2_5_VLForConditionalGeneration as Network

from model_store.checkpoint import Checkpoint, resolve
from model_store.golden import GOLDEN
from model_store.training.config import TrainingError
from model_store.training.publish.adapters import load_base
from model_store.training.publish.folder import copy_reading, described_as, draft_of, seal

SEED = 0
_CARD = """\
# {name}

{base} with its last {layers} language layers made anew (seed {seed}): a base for `gmr ablate`. Do not serve it.
"""


def forgetful(base: Checkpoint, layers: int, folder: Path) -> Checkpoint:
    """The base with its last `layers` language layers initialised anew, made at `folder` unless
    that exists.

    Raises `TrainingError` where it has fewer, and `PublishRefused` where the disk refuses.
    """
    if not folder.exists():
        network = load_base(base, "cpu")
        trained = network.model.language_model.layers
        if not 1 <= layers < len(trained):
            raise TrainingError(
                f"--forget: {base.name} has {len(trained)} language layers; from 1 to"
                f" {len(trained) - 1} can be made anew."
            )

        torch.manual_seed(SEED)
        fresh = Network(network.config).model.language_model.layers
        for layer, new in zip(trained[-layers:], fresh[-layers:], strict=True):
            layer.load_state_dict(new.state_dict())

        name = f"{base.name}-forgot-{layers}"
        lineage = {
            "base": {"name": base.name, "digest": base.digest},
            "layers": layers,
            "seed": SEED,
            "torch": torch.__version__,
        }
        with draft_of(folder) as draft:
            network.to(torch.bfloat16).save_pretrained(draft)
            copy_reading(base, draft)
            (draft / GOLDEN).unlink()  # the logits of the base are not those of this network
            card = _CARD.format(name=name, base=base.name, layers=layers, seed=SEED)
            seal(
                draft, name=name, described=described_as(base.manifest), card=card, lineage=lineage
            )
    return resolve(str(folder))
