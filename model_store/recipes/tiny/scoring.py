"""Scores of generated examples by a checkpoint, several examples in one forward pass.

Does not depend on metrics. Invariant: a document's score is logit(yes) - logit(no) in fp32, and
does not depend on the other documents of its batch.
"""

from __future__ import annotations

import torch
from tokenizers import Tokenizer
from transformers import Qwen2_5_VLForConditionalGeneration as Network

from model_store.checkpoint import Checkpoint
from model_store.evaluation.nine_cells import ScoreExamples
from model_store.families.tokens import TOKENIZER_FILE
from model_store.folders.plain import refuse_quantised
from model_store.networks.score_row import score_row
from model_store.recipes.tiny.packed_batches import PackedBatcher
from model_store.recipes.tiny.train import pictures_of, read
from model_store.synthetic.examples import Example


def open_scorer(checkpoint: Checkpoint) -> ScoreExamples:
    """Load a checkpoint in fp32; raises `CheckpointUnusable` where its weights are quantised."""
    refuse_quantised(
        checkpoint.name, checkpoint.folder, "and this measures with torch, which does not run them"
    )
    tokenizer = Tokenizer.from_file(str(checkpoint.folder / TOKENIZER_FILE))
    network = Network.from_pretrained(
        checkpoint.folder, dtype=torch.float32, local_files_only=True
    ).eval()
    return network_scores(network, PackedBatcher(checkpoint.family, tokenizer))


def network_scores(network: Network, batcher: PackedBatcher) -> ScoreExamples:
    """Score with a network that is loaded."""
    row = score_row(network, batcher.readout, batcher.label_ids)

    @torch.inference_mode()
    def score(examples: list[Example]) -> list[list[float]]:
        batch = batcher.batch(examples)
        hidden = read(network, batch, pictures_of(network, batch))
        scores: list[list[float]] = (hidden[batch.last].float() @ row).tolist()
        return scores

    return score
