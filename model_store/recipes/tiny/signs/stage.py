"""The stage in which the next gmr-tiny's middle layers learn signs: what of a document speaks for
it, word by word and image by image.

Depends on generated cells and on a base whose first and last layers are constructed. Invariant: a
step is a function of the state before it, so a stage that was stopped goes on as if it had not
been; nothing but the middle layers changes, and they write to no dimension that a mean reads.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits
from torch.utils.data import IterableDataset
from transformers import Qwen2_5_VLForConditionalGeneration as Network

from model_store.networks.score_row import score_row
from model_store.recipes.tiny.base import SHARES
from model_store.recipes.tiny.packed_batches import PackedBatch, PackedBatcher
from model_store.recipes.tiny.start.pooling import AFTER, BEFORE, HALF, SCORE, WEIGHT
from model_store.recipes.tiny.steps import (
    advance,
    autocast,
    load_state,
    make_optimizers,
    save_state,
    stream,
)
from model_store.recipes.tiny.train import Report, pictures_of, read
from model_store.synthetic import cells

STATE = "state.pt"
_REPORT_EVERY = 50
_WEIGHT = 8.0
_RARE = 3.0  # true signs are rarer than others, about


@dataclass(frozen=True, slots=True, kw_only=True)
class Signs:
    """Settings of the stage: queries of a step, irrelevant documents of each, and Muon's rate.

    The first `words` steps are of texts alone.
    """

    steps: int
    seed: int
    words: int = 300
    queries: int = 9
    negatives: int = 9
    rate: float = 1e-3
    save_every: int = 100


class _Batches(IterableDataset[PackedBatch]):
    """Batches of generated examples; half of the examples have the default instruction."""

    def __init__(self, batcher: PackedBatcher, settings: Signs, done: int) -> None:
        self._batcher, self._settings, self._done = batcher, settings, done

    def __iter__(self) -> Iterator[PackedBatch]:
        settings = self._settings
        for step in range(self._done + 1, settings.steps + 1):
            rng = Random(f"signs/{settings.seed}/{step}")
            names: Sequence[str] = SHARES if step > settings.words else ("T-T",)
            examples = [
                cells.sample(name, rng, "train", settings.negatives, plain=rng.random() < 0.5)
                for name in rng.choices(names, k=settings.queries)
            ]
            yield self._batcher.batch(examples)


def learn_signs(
    network: Network, batcher: PackedBatcher, *, settings: Signs, folder: Path, report: Report
) -> None:
    """Train the middle layers; the state is in `folder`, from which a restart goes on.

    The sign of a word is yes if the other side has the word, that of an image if it shows what is
    asked for. It is the score of the word's or image's last token behind the middle layers; the
    layers after them, which pool scores over a document, are left out of the training.
    """
    middle = middle_layers(network)
    network.requires_grad_(False)
    middle.requires_grad_(True)
    optimizers = make_optimizers(middle.parameters(), settings.rate)
    folder.mkdir(parents=True, exist_ok=True)
    done = load_state(folder / STATE, middle, optimizers)
    if done:
        report(f"signs: goes on after step {done}")

    row = score_row(network, batcher.readout, batcher.label_ids).detach()
    network.train()
    with _without_last_layers(network):
        batches = stream(_Batches(batcher, settings, done), settings.steps - done)
        for number, batch in batches:
            step = done + number
            with autocast():
                hidden = read(network, batch, pictures_of(network, batch))
            logits = hidden[batch.signs].float() @ row
            loss = _loss(logits, batch.truths)
            advance(optimizers, _WEIGHT * loss, step, settings.steps)
            _leave_means(middle)
            saves = step % settings.save_every == 0 or step == settings.steps
            if saves:
                save_state(folder / STATE, middle, optimizers, step)
            if saves or step % _REPORT_EVERY == 0:
                report(f"signs {step}/{settings.steps}: loss {loss.item():.3f}")
    network.eval()


def middle_layers(network: Network) -> nn.ModuleList:
    """The layers between those that are constructed."""
    layers: nn.ModuleList = network.model.language_model.layers
    return layers[BEFORE:-AFTER]


@contextmanager
def _without_last_layers(network: Network) -> Iterator[None]:
    language = network.model.language_model
    whole = language.layers
    language.layers = whole[:-AFTER]
    try:
        yield
    finally:
        language.layers = whole


@torch.no_grad()
def _leave_means(layers: Iterable[Any]) -> None:
    """Keep the layers from the dimensions that are pooled, and from weights and marks."""
    for layer in layers:
        for output in (layer.self_attn.o_proj.weight, layer.mlp.down_proj.weight):
            output[:HALF] = 0
            output[WEIGHT:SCORE] = 0


def _loss(logits: Tensor, truths: Tensor) -> Tensor:
    return binary_cross_entropy_with_logits(logits, truths, pos_weight=torch.tensor(_RARE))
