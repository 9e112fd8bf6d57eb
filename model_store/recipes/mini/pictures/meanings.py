"""Meanings of pictures: a linear map of gmr-tiny's visual features to the mean meanings of names.

Depends on named pictures and on tokens' meanings. Invariant: the vision tower stays gmr-tiny's, so
the map is the solution of a ridge regression, and no picture that is held out is in it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from random import Random

import torch
from PIL.Image import Image
from tokenizers import Tokenizer
from torch import Tensor
from torch.nn.functional import normalize
from transformers import Qwen2_5_VLForConditionalGeneration as Network

from model_store.recipes.mini.network import PictureMeanings
from model_store.recipes.mini.pictures.drawings import shown
from model_store.recipes.mini.sources.pictures.named import NamedPicture
from model_store.recipes.mini.texts.meanings import Meanings
from model_store.recipes.tiny.packed_batches import pixel_values
from model_store.recipes.tiny.train import Report, tokens_of
from model_store.synthetic import pages, scenes
from model_store.synthetic.pictures import fitted

_SCENES, _PAGES = 1000, 500
"""Generated pictures beside those of packages."""
_AT_ONCE = 16
_RIDGE = 1e-3
"""Added to the covariance's diagonal, in units of its mean."""
_LOG_WEIGHT = -3.0
_DOUBT = 1.5
"""In units of the length of a picture's meaning."""
_REPORT_EVERY = 2000


@torch.inference_mode()
def learn_picture_meanings(
    source: Path,
    tokenizer: Tokenizer,
    meanings: Meanings,
    pictures: Sequence[NamedPicture],
    *,
    seed: int,
    report: Report,
) -> PictureMeanings:
    """The map for gmr-tiny's folder `source`; a picture's name is its title and its keywords, and
    that of a generated one the words that are true of it."""
    network = Network.from_pretrained(source, dtype=torch.float32, local_files_only=True).eval()
    rng = Random(f"meanings/{seed}")
    known = [picture for picture in pictures if not picture.held_out and picture.words]
    features: list[Tensor] = []
    names: list[str] = []
    waiting: list[Image] = []
    for image, name in _images(known, rng):
        names.append(name)
        waiting.append(image)
        if len(waiting) == _AT_ONCE:
            features.append(_features(network, waiting))
            waiting = []
        if len(names) % _REPORT_EVERY == 0:
            report(f"read {len(names)} pictures")
    if waiting:
        features.append(_features(network, waiting))

    wanted = torch.stack([_mean(tokenizer, meanings, name) for name in names])
    return fit(torch.cat(features), wanted)


def fit(features: Tensor, wanted: Tensor) -> PictureMeanings:
    """The ridge regression of meanings `[pictures, width]` on features `[pictures, size]`."""
    middle, mean = features.mean(0), wanted.mean(0)
    centred = features - middle
    covariance = centred.T @ centred / len(centred)
    ridge = _RIDGE * covariance.diagonal().mean() * torch.eye(len(covariance))
    found = torch.linalg.solve(covariance + ridge, centred.T @ (wanted - mean) / len(centred))
    length = float((centred @ found + mean).norm(dim=1).mean())
    return PictureMeanings(found.T, mean - middle @ found, _LOG_WEIGHT, _DOUBT * length)


def _images(pictures: Sequence[NamedPicture], rng: Random) -> Iterator[tuple[Image, str]]:
    """Pictures of packages as they are shown, and generated ones, each with its name."""
    for picture in pictures:
        yield shown(picture.path, rng), picture.text
    for _ in range(_SCENES):
        image = scenes.picture(scenes.any_scene(rng, "train"), rng)
        yield image, " ".join(sorted(image.info["words"]))
    for _ in range(_PAGES):
        image = pages.page_picture(pages.any_page(rng, "train"), rng)
        yield image, " ".join(sorted(image.info["words"]))


def _features(network: Network, images: Sequence[Image]) -> Tensor:
    """Means of what the last matrix of the vision tower reads, `[images, size]`."""
    read: list[Tensor] = []
    last = network.model.visual.merger.mlp[-1]
    pixels, grids = pixel_values([fitted(image) for image in images])
    with last.register_forward_pre_hook(lambda _, given: read.append(given[0])):
        network.model.visual(pixels, grid_thw=grids)
    parts = read[0].split(tokens_of(grids))
    return torch.stack([part.mean(0) for part in parts])


def _mean(tokenizer: Tokenizer, meanings: Meanings, name: str) -> Tensor:
    """The weighted mean meaning of a name, of length 1."""
    ids = tokenizer.encode(f" {name}", add_special_tokens=False).ids
    weights = torch.from_numpy(meanings.log_weights[ids]).exp()
    return normalize(weights @ torch.from_numpy(meanings.vectors[ids]), dim=0)
