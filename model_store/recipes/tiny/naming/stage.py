"""The stage in which the next gmr-tiny's vision tower learns to name pictures: of packages, and the
generated ones.

Depends on named pictures, not on rows. Invariant: a step is a function of the state before it, so a
stage that was stopped goes on as if it had not been; only the vision tower changes, and an image
token has no weight of its own and no mark.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random

import torch
from PIL.Image import Image
from torch import Tensor
from torch.nn.functional import cross_entropy, normalize
from torch.utils.data import IterableDataset
from transformers import Qwen2_5_VLForConditionalGeneration as Network

from model_store.recipes.tiny.naming.drawings import shown
from model_store.recipes.tiny.packed_batches import PackedBatcher, pixel_values
from model_store.recipes.tiny.sources.pictures.named import NamedPicture, asks_for
from model_store.recipes.tiny.start.pooling import HALF, ONE, SIZE, SPELLING, WEIGHT
from model_store.recipes.tiny.steps import (
    advance,
    autocast,
    load_state,
    make_optimizers,
    save_state,
    stream,
)
from model_store.recipes.tiny.train import Report, naming_loss, tokens_of
from model_store.synthetic import pages, scenes
from model_store.synthetic.pictures import fitted

STATE = "state.pt"
_OWN = slice(WEIGHT, SPELLING)  # dimensions that are no meaning and no spelling
_WHOLE_SHARPNESS = 20.0  # the logit of equal means
Named = tuple[Tensor, Tensor, list[list[int]], list[list[int]]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Naming:
    """Settings of the stage: pictures of packages, scenes and pages of a step, Muon's rate, and
    what the loss of whole pictures weighs beside that of names."""

    steps: int
    seed: int
    pictures: int = 40
    scenes: int = 20
    pages: int = 6
    rate: float = 2e-3
    whole: float = 1.0
    save_every: int = 200


class _Batches(IterableDataset[Named]):
    """Patches, grids, the tokens of the words true of each picture, and those of a text that asks
    for each picture of a package, step by step."""

    def __init__(
        self,
        batcher: PackedBatcher,
        pictures: Sequence[NamedPicture],
        settings: Naming,
        done: int,
    ) -> None:
        self._batcher, self._pictures = batcher, pictures
        self._settings, self._done = settings, done

    def __iter__(self) -> Iterator[Named]:
        for step in range(self._done + 1, self._settings.steps + 1):
            rng = Random(f"naming/{self._settings.seed}/{step}")
            images: list[Image] = []
            names: list[list[int]] = []
            asked: list[list[int]] = []
            for picture in rng.choices(self._pictures, k=self._settings.pictures):
                images.append(shown(picture.path, rng))
                names.append(self._batcher.word_ids(picture.words))
                asked.append(self._batcher.text_ids(asks_for(picture, rng)))
            for _ in range(self._settings.scenes):
                images.append(scenes.picture(scenes.any_scene(rng, "train"), rng))
            for _ in range(self._settings.pages):
                images.append(pages.page_picture(pages.any_page(rng, "train"), rng))
            for image in images[self._settings.pictures :]:
                names.append(self._batcher.word_ids(image.info["words"]))

            pixels, grids = pixel_values([fitted(image) for image in images])
            yield pixels, grids, names, asked


def learn_names(
    network: Network,
    batcher: PackedBatcher,
    pictures: Sequence[NamedPicture],
    *,
    settings: Naming,
    folder: Path,
    report: Report,
) -> None:
    """Train the vision tower; the state is in `folder`, from which a restart goes on."""
    visual = network.model.visual
    rows = network.get_input_embeddings().weight.detach()
    embeddings = rows.clone()
    embeddings[:, _OWN] = 0
    optimizers = make_optimizers(visual.parameters(), settings.rate)
    folder.mkdir(parents=True, exist_ok=True)
    done = load_state(folder / STATE, visual, optimizers)
    if done:
        report(f"naming: goes on after step {done}")

    _hold_own(network)
    known = [picture for picture in pictures if not picture.held_out and picture.words]
    data = _Batches(batcher, known, settings, done)
    for number, (pixels, grids, names, asked) in stream(data, settings.steps - done):
        step = done + number
        with autocast():
            tokens = visual(pixels, grid_thw=grids).pooler_output.float()
        meaning = torch.cat(
            [tokens[:, :WEIGHT], torch.zeros_like(tokens[:, _OWN]), tokens[:, SPELLING:]], dim=1
        )
        torch.manual_seed(settings.seed + step)  # the random words of the loss
        naming = naming_loss(meaning, tokens_of(grids), names, embeddings)
        whole = _whole_loss(tokens, tokens_of(grids), asked, names, rows)
        loss = naming + settings.whole * whole
        advance(optimizers, loss, step, settings.steps)
        _hold_own(network)
        saves = step % settings.save_every == 0 or step == settings.steps
        if saves:
            save_state(folder / STATE, visual, optimizers, step)
        if saves or step % 50 == 0:
            losses = f"{naming.item():.3f} of names, {whole.item():.3f} of whole pictures"
            report(f"naming {step}/{settings.steps}: loss {losses}")


def _whole_loss(
    tokens: Tensor,
    counts: Sequence[int],
    asked: Sequence[Sequence[int]],
    names: Sequence[Sequence[int]],
    rows: Tensor,
) -> Tensor:
    """Cross-entropy of the picture that a text asks for among those of the step, and of the text
    that asks for a picture; both are compared by their means, as the constructed layers do.

    A picture that another one's text is true of is no candidate for it.
    """
    parts = normalize(tokens, dim=1)[:, :HALF].split(list(counts))[: len(asked)]
    shown_means = normalize(torch.stack([part.mean(0) for part in parts]), dim=1)
    asked_means: list[Tensor] = []
    also_true = torch.zeros(len(asked), len(asked), dtype=torch.bool)
    for number, ids in enumerate(asked):
        shares = (rows[ids, WEIGHT] / SIZE).exp()
        asked_means.append(shares @ rows[ids, :HALF])
        wanted = set(ids)
        for other, words in enumerate(names[: len(asked)]):
            also_true[number, other] = other != number and not wanted.isdisjoint(words)

    likeness = _WHOLE_SHARPNESS * normalize(torch.stack(asked_means), dim=1) @ shown_means.T
    likeness = likeness.masked_fill(also_true, -torch.inf)
    own = torch.arange(len(asked))
    return (cross_entropy(likeness, own) + cross_entropy(likeness.T, own)) / 2


@torch.no_grad()
def _hold_own(network: Network) -> None:
    """Give every image token the constant, and neither a weight nor a mark."""
    last = network.model.visual.merger.mlp[-1]
    last.weight[_OWN] = 0
    last.bias[_OWN] = 0
    last.bias[ONE] = 1.0
