"""Scores of generated examples by a checkpoint, several examples in one forward pass.

Does not depend on metrics. Invariant: a document's score is logit(yes) - logit(no) in fp32, and
does not depend on the other documents of its batch.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from PIL import Image as Pil
from tokenizers import Tokenizer
from transformers import Qwen2_5_VLForConditionalGeneration as Network

from model_store.checkpoint import Checkpoint
from model_store.evaluation.cascades import ScoredExample, ScoreStage
from model_store.evaluation.nine_cells import ScoreExamples
from model_store.families.images import prepare
from model_store.families.tokens import TOKENIZER_FILE
from model_store.folders.plain import refuse_quantised
from model_store.manifest import CheckpointUnusable
from model_store.networks.score_row import score_row
from model_store.recipes.tiny.packed_batches import PackedBatcher, Picture
from model_store.recipes.tiny.train import pictures_of, read
from model_store.synthetic.examples import Example
from model_store.synthetic.pictures import fitted


def open_scorer(checkpoint: Checkpoint) -> ScoreExamples:
    """Load a checkpoint in fp32; raises `CheckpointUnusable` where its weights are quantised."""
    tokenizer, network = _load(checkpoint)
    return network_scores(network, PackedBatcher(checkpoint.family, tokenizer))


def open_stage(
    checkpoint: Checkpoint, max_pixels: int | None, enlarged_to: int | None
) -> ScoreStage:
    """Load a checkpoint as a stage of a cascade, which reduces images to `max_pixels`.

    Pictures are first enlarged to an area of `enlarged_to` pixels. Raises `CheckpointUnusable`.
    """
    tokenizer, network = _load(checkpoint)
    fit = _fit(checkpoint, max_pixels, enlarged_to) if max_pixels or enlarged_to else fitted
    batcher = PackedBatcher(checkpoint.family, tokenizer, fit)
    row = score_row(network, batcher.readout, batcher.label_ids)

    @torch.inference_mode()
    def score(examples: list[Example]) -> list[ScoredExample]:
        batch = batcher.batch(examples)
        hidden = read(network, batch, pictures_of(network, batch))
        scores = (hidden[batch.last].float() @ row).tolist()

        scored: list[ScoredExample] = []
        for number, own in enumerate(scores):
            owner = batch.owner[number]
            counts = torch.bincount(owner[owner >= 0], minlength=len(own) + 1).tolist()
            scored.append(ScoredExample(own, counts[0], counts[1:]))
        return scored

    return score


def largest_pixels(checkpoint: Checkpoint) -> int | None:
    """The largest area of an image that a checkpoint reads; None where it reads none."""
    rules = checkpoint.family.images
    return None if rules is None else rules.max_pixels


def _fit(
    checkpoint: Checkpoint, max_pixels: int | None, enlarged_to: int | None
) -> Callable[[Pil.Image], Picture]:
    """The function that gives a picture the size that a gateway gives it for a stage."""
    rules = checkpoint.family.images
    if rules is None or (max_pixels or rules.max_pixels) < rules.cell**2:
        raise CheckpointUnusable(
            f"{checkpoint.name} reads no image of at most {max_pixels} pixels: leave max_pixels out"
            " of its stage, or give more."
        )
    most = min(rules.max_pixels, max_pixels or rules.max_pixels)
    cell, least = rules.cell, min(rules.min_pixels, most)

    def fit(picture: Pil.Image) -> Picture:
        scale = math.sqrt((enlarged_to or 0) / (picture.width * picture.height))
        if scale > 1:
            size = round(picture.width * scale), round(picture.height * scale)
            picture = picture.resize(size, Pil.Resampling.BICUBIC)
        return np.asarray(prepare(picture, cell=cell, min_pixels=least, max_pixels=most))

    return fit


def refuse_other_networks(checkpoint: Checkpoint) -> None:
    """Raise `CheckpointUnusable` where the checkpoint's network is another than GMR's."""
    found = checkpoint.architecture.name
    if found != Network.__name__:
        raise CheckpointUnusable(
            f"{checkpoint.name} is a {found}, and generated queries are scored with a"
            f" {Network.__name__} alone."
        )


def _load(checkpoint: Checkpoint) -> tuple[Tokenizer, Network]:
    refuse_other_networks(checkpoint)
    refuse_quantised(
        checkpoint.name, checkpoint.folder, "and this measures with torch, which does not run them"
    )
    tokenizer = Tokenizer.from_file(str(checkpoint.folder / TOKENIZER_FILE))
    network = Network.from_pretrained(
        checkpoint.folder, dtype=torch.float32, local_files_only=True
    ).eval()
    return tokenizer, network


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
