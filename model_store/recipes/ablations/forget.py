"""A base that has unlearnt its answers: another checkpoint with its last language layers made anew.

Knows checkpoint folders and networks. Invariant: all but those layers is the other checkpoint's, to
the bit; the same checkpoint and the same number give the same weights.

The comparisons begin, as the paper's do, from a network that understands what it reads and was not
taught to answer. A reranker is no such network; its first layers, its embeddings and its vision
tower are.
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
    """The base with its last `layers` language layers as a new network has them, made at `folder`
    unless it is there.

    Raises `TrainingError` where it has fewer, and `PublishRefused` where the disk refuses.
    """
    if not folder.exists():
        network = load_base(base, "cpu")
        ours = network.model.language_model.layers
        if not 1 <= layers < len(ours):
            raise TrainingError(
                f"--forget: {base.name} has {len(ours)} language layers; from 1 to {len(ours) - 1}"
                " can be made anew."
            )
        torch.manual_seed(SEED)
        fresh = Network(network.config).model.language_model.layers
        for known, new in zip(ours[-layers:], fresh[-layers:], strict=True):
            known.load_state_dict(new.state_dict())
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
            (draft / GOLDEN).unlink()  # it has no answers to hold anything against
            card = _CARD.format(name=name, base=base.name, layers=layers, seed=SEED)
            seal(
                draft, name=name, described=described_as(base.manifest), card=card, lineage=lineage
            )
    return resolve(str(folder))
