"""Groups as tensors: whole groups side by side as long as they fit a token budget, a larger one in
pieces.

Knows prompts, pixels and positions, no network. Invariant: every pair of every group stands in
exactly one batch, a group's pairs in order, and no batch exceeds the budget, padding included, as
long as a single pair does not.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from model_store.families.prompt import Image, Prompt
from model_store.networks.qwen2_5_vl_images import grid, image_tokens, patches, positions
from model_store.training.groups import Group, Pixels


@dataclass(frozen=True, slots=True)
class Batch:
    """Some pairs, padded on the right: nothing to the left of a pair's end sees the padding, so no
    mask is needed."""

    ids: Tensor  # [pairs, tokens]
    places: Tensor  # [3, pairs, tokens]
    ends: Tensor  # [pairs]: the position that answers
    relevant: Tensor  # [pairs]: whether the pair is a positive
    pixels: Tensor | None  # [patches, 1176], every picture once, however many pairs show it
    grids: Tensor | None  # [pictures, 3]
    # [image tokens of all pairs, in order]: which token of all pictures stands there
    shown: Tensor | None
    tokens: int  # without padding

    def to(self, device: torch.device) -> Batch:
        """The same on a device."""
        return replace(
            self,
            ids=self.ids.to(device),
            places=self.places.to(device),
            ends=self.ends.to(device),
            relevant=self.relevant.to(device),
            pixels=None if self.pixels is None else self.pixels.to(device),
            grids=None if self.grids is None else self.grids.to(device),
            shown=None if self.shown is None else self.shown.to(device),
        )

    def first(self) -> Batch:
        """Its first pair alone, without its pictures: the least that a network can be run on."""
        return replace(
            self,
            ids=self.ids[:1],
            places=self.places[:, :1],
            ends=self.ends[:1],
            relevant=self.relevant[:1],
            pixels=None,
            grids=None,
            shown=None,
        )


@dataclass(frozen=True, slots=True)
class Unit:
    """What one gradient is computed from: several groups in one batch, or one group in several."""

    names: tuple[str, ...]  # of each group: its id, and where it stands
    sizes: tuple[int, ...]  # pairs of each group
    batches: tuple[Batch, ...]
    missing: int


def units(groups: Sequence[Group], budget: int, image_token: int | None) -> list[Unit]:
    """All groups, shortest prompts first, so that those of about equal length share a batch."""
    made: list[Unit] = []
    for packed in _packed(sorted(groups, key=lambda group: (group.longest, group.id)), budget):
        sizes = tuple(len(group.prompts) for group in packed)
        pairs = [
            (prompt, number == 0, group)
            for group in packed
            for number, prompt in enumerate(group.prompts)
        ]
        width = (
            max(1, budget // max(group.longest for group in packed))
            if len(packed) == 1
            else len(pairs)
        )
        pieces = tuple(
            _batch(pairs[at : at + width], image_token) for at in range(0, len(pairs), width)
        )
        names = tuple(f"{group.id} ({group.place})" for group in packed)
        made.append(Unit(names, sizes, pieces, sum(group.missing for group in packed)))
    return made


def _packed(groups: Sequence[Group], budget: int) -> Iterator[list[Group]]:
    """Runs of groups that fit the budget together; a group that is larger stands alone."""
    packed: list[Group] = []
    for group in groups:  # each is at least as long as those before it
        rows = sum(len(each.prompts) for each in packed) + len(group.prompts)
        if packed and rows * group.longest > budget:
            yield packed
            packed = []
        packed.append(group)
    if packed:
        yield packed


def _batch(pairs: Sequence[tuple[Prompt, bool, Group]], image_token: int | None) -> Batch:
    lengths = [len(prompt.prefix.ids) + len(prompt.suffix.ids) for prompt, _, _ in pairs]
    ids = np.zeros((len(pairs), max(lengths)), np.int64)
    places = np.zeros((3, len(pairs), max(lengths)), np.int64)
    for row, (prompt, _, _) in enumerate(pairs):
        ids[row, : lengths[row]] = prompt.ids
        places[:, row, : lengths[row]] = _positions(prompt, image_token)
    pixels, grids, shown = _pictures(
        [(image, group.pictures) for prompt, _, group in pairs for image in prompt.images]
    )
    return Batch(
        ids=torch.from_numpy(ids),
        places=torch.from_numpy(places),
        ends=torch.tensor(lengths) - 1,
        relevant=torch.tensor([relevant for _, relevant, _ in pairs]),
        pixels=pixels,
        grids=grids,
        shown=shown,
        tokens=sum(lengths),
    )


def _positions(
    prompt: Prompt, image_token: int | None
) -> np.ndarray[tuple[int, ...], np.dtype[np.int64]]:
    before, start = positions(prompt.prefix, image_token)
    after, _ = positions(prompt.suffix, image_token, start)
    return np.concatenate([before, after], axis=1)


def _pictures(
    images: Sequence[tuple[Image, dict[bytes, Pixels]]],
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """Patches and grids of the distinct pictures, and where the tokens of each image in turn lie
    among theirs."""
    if not images:
        return None, None, None
    first: dict[bytes, int] = {}
    distinct: list[tuple[Image, Pixels]] = []
    tokens = 0
    for image, pictures in images:
        if image.key not in first:
            first[image.key] = tokens
            tokens += image_tokens(image)
            distinct.append((image, pictures[image.key]))
    shown = np.concatenate(
        [np.arange(first[image.key], first[image.key] + image_tokens(image)) for image, _ in images]
    )
    pixels = np.concatenate([patches(picture) for _, picture in distinct])
    return (
        torch.from_numpy(pixels),
        torch.tensor([grid(image) for image, _ in distinct]),
        torch.from_numpy(shown),
    )
