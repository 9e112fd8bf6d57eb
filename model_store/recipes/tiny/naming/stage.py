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
from torch.utils.data import IterableDataset
from transformers import Qwen2_5_VLForConditionalGeneration as Network

from model_store.files import atomic_path
from model_store.recipes.tiny.naming.drawings import shown
from model_store.recipes.tiny.packed_batches import PackedBatcher, pixel_values
from model_store.recipes.tiny.sources.pictures.named import NamedPicture
from model_store.recipes.tiny.start.pooling import ONE, SPELLING, WEIGHT
from model_store.recipes.tiny.steps import advance, autocast, make_optimizers, stream
from model_store.recipes.tiny.train import Report, naming_loss, tokens_of
from model_store.synthetic import pages, scenes
from model_store.synthetic.pictures import fitted

STATE = "state.pt"
_OWN = slice(WEIGHT, SPELLING)  # dimensions that are no meaning and no spelling
Named = tuple[Tensor, Tensor, list[list[int]]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Naming:
    """Settings of the stage: pictures of packages, scenes and pages of a step, and Muon's rate."""

    steps: int
    seed: int
    pictures: int = 40
    scenes: int = 20
    pages: int = 6
    rate: float = 2e-3
    save_every: int = 200


class _Batches(IterableDataset[Named]):
    """Patches, grids, and the tokens of the words true of each picture, step by step."""

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
            for picture in rng.choices(self._pictures, k=self._settings.pictures):
                images.append(shown(picture.path, rng))
                names.append(self._batcher.word_ids(picture.words))
            for _ in range(self._settings.scenes):
                images.append(scenes.picture(scenes.any_scene(rng, "train"), rng))
            for _ in range(self._settings.pages):
                images.append(pages.page_picture(pages.any_page(rng, "train"), rng))
            for image in images[self._settings.pictures :]:
                names.append(self._batcher.word_ids(image.info["words"]))

            pixels, grids = pixel_values([fitted(image) for image in images])
            yield pixels, grids, names


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
    embeddings = network.get_input_embeddings().weight.detach().clone()
    embeddings[:, _OWN] = 0
    optimizers = make_optimizers(visual.parameters(), settings.rate)
    folder.mkdir(parents=True, exist_ok=True)
    done = _resume(folder / STATE, network, optimizers)
    if done:
        report(f"naming: goes on after step {done}")

    _hold_own(network)
    known = [picture for picture in pictures if not picture.held_out and picture.words]
    data = _Batches(batcher, known, settings, done)
    for number, (pixels, grids, names) in stream(data, settings.steps - done):
        step = done + number
        with autocast():
            tokens = visual(pixels, grid_thw=grids).pooler_output.float()
        meaning = torch.cat(
            [tokens[:, :WEIGHT], torch.zeros_like(tokens[:, _OWN]), tokens[:, SPELLING:]], dim=1
        )
        torch.manual_seed(settings.seed + step)  # the random words of the loss
        loss = naming_loss(meaning, tokens_of(grids), names, embeddings)
        advance(optimizers, loss, step, settings.steps)
        _hold_own(network)
        saves = step % settings.save_every == 0 or step == settings.steps
        if saves:
            _save(folder / STATE, network, optimizers, step)
        if saves or step % 50 == 0:
            report(f"naming {step}/{settings.steps}: loss {loss.item():.3f}")


@torch.no_grad()
def _hold_own(network: Network) -> None:
    """Give every image token the constant, and neither a weight nor a mark."""
    last = network.model.visual.merger.mlp[-1]
    last.weight[_OWN] = 0
    last.bias[_OWN] = 0
    last.bias[ONE] = 1.0


def _save(
    path: Path, network: Network, optimizers: Sequence[torch.optim.Optimizer], step: int
) -> None:
    state = {
        "step": step,
        "visual": network.model.visual.state_dict(),
        "optimizers": [optimizer.state_dict() for optimizer in optimizers],
    }
    with atomic_path(path) as draft:
        torch.save(state, draft)


def _resume(path: Path, network: Network, optimizers: Sequence[torch.optim.Optimizer]) -> int:
    """The step of the saved state, 0 without one."""
    if not path.exists():
        return 0

    state = torch.load(path, weights_only=True)
    network.model.visual.load_state_dict(state["visual"])
    for optimizer, saved in zip(optimizers, state["optimizers"], strict=True):
        optimizer.load_state_dict(saved)
    return int(state["step"])
