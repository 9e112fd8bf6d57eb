"""Groups as tensors: whole groups share a batch while they fit a token budget, a larger one is cut.

Depends on prompts, pixels and positions, not on a network. Invariant: every pair of every group is
in exactly one batch, a group's pairs are in order, and no batch exceeds the budget, padding
included, unless a single pair does.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from model_store.families.family import Family
from model_store.families.prompt import Prompt
from model_store.networks.architecture import DecoderArchitecture
from model_store.training.groups import Group, Pixels


@dataclass(frozen=True, slots=True)
class Batch:
    """Pairs, padded on the right to the longest one.

    Attention is causal: no token of a pair reads the padding behind it, so there is no mask.
    """

    ids: Tensor  # [pairs, tokens]
    positions: Tensor  # [axes, pairs, tokens]
    last: Tensor  # [pairs]: index of the last token, from which the score is read
    relevant: Tensor  # [pairs]: true for a positive
    pixels: Tensor | None  # [patches, values]: each distinct picture once
    grids: Tensor | None  # [pictures, 3]
    image_rows: Tensor | None  # [image tokens of all pairs, in order]: row among picture tokens
    tokens: int  # without padding

    def to(self, device: torch.device) -> Batch:
        """The same batch on a device."""
        moved: dict[str, Tensor] = {}
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, Tensor):
                moved[field.name] = value.to(device)
        return replace(self, **moved)  # type: ignore[arg-type]

    def first_pair(self) -> Batch:
        """The first pair alone, without pictures: the least input that a network can run on."""
        return replace(
            self,
            ids=self.ids[:1],
            positions=self.positions[:, :1],
            last=self.last[:1],
            relevant=self.relevant[:1],
            pixels=None,
            grids=None,
            image_rows=None,
        )


@dataclass(frozen=True, slots=True)
class Unit:
    """The input of one loss: several groups in one batch, or one group in several batches."""

    names: tuple[str, ...]  # of each group: its id and its row's position, `file:line`
    sizes: tuple[int, ...]  # pairs of each group
    batches: tuple[Batch, ...]
    missing: int  # negatives that the groups' examples lack
    teacher: Tensor | None = None  # [pairs]: the teacher's scores, where each group has them


@dataclass(frozen=True, slots=True)
class _Pair:
    prompt: Prompt
    relevant: bool
    pictures: dict[bytes, Pixels]


class Batcher:
    """Makes units of groups. `budget` is the tokens that a batch may have, padding included."""

    def __init__(self, *, budget: int, family: Family, architecture: DecoderArchitecture) -> None:
        self._budget, self._family, self._architecture = budget, family, architecture

    def units(self, groups: Sequence[Group]) -> list[Unit]:
        """Units of all groups, shortest prompts first, so that similar lengths share a batch."""
        ordered = sorted(groups, key=lambda group: (group.longest, group.id))
        return [self._unit(packed) for packed in self._packed(ordered)]

    def _packed(self, groups: Sequence[Group]) -> Iterator[list[Group]]:
        """Runs of groups that fit the budget together; a group over the budget is a run alone."""
        packed: list[Group] = []
        rows = 0
        for group in groups:  # each is at least as long as those before it
            rows += len(group.prompts)
            if packed and rows * group.longest > self._budget:
                yield packed
                packed, rows = [], len(group.prompts)
            packed.append(group)

        if packed:
            yield packed

    def _unit(self, groups: Sequence[Group]) -> Unit:
        pairs: list[_Pair] = []
        for group in groups:
            for number, prompt in enumerate(group.prompts):
                pairs.append(_Pair(prompt, number == 0, group.pictures))

        width = len(pairs)
        if len(groups) == 1:  # the only one that may exceed the budget
            width = max(1, self._budget // groups[0].longest)
        batches = [
            self._batch(pairs[start : start + width]) for start in range(0, len(pairs), width)
        ]

        return Unit(
            names=tuple(f"{group.id} ({group.location})" for group in groups),
            sizes=tuple(len(group.prompts) for group in groups),
            batches=tuple(batches),
            missing=sum(group.missing for group in groups),
            teacher=_teacher_scores(groups),
        )

    def _batch(self, pairs: Sequence[_Pair]) -> Batch:
        lengths = [len(pair.prompt.ids) for pair in pairs]
        numbered = [self._positions(pair.prompt) for pair in pairs]
        ids = np.zeros((len(pairs), max(lengths)), np.int64)
        columns = np.zeros((len(numbered[0]), len(pairs), max(lengths)), np.int64)
        for row, pair in enumerate(pairs):
            ids[row, : lengths[row]] = pair.prompt.ids
            columns[:, row, : lengths[row]] = numbered[row]

        pixels, grids, image_rows = self._pictures(pairs)
        return Batch(
            ids=torch.from_numpy(ids),
            positions=torch.from_numpy(columns),
            last=torch.tensor(lengths) - 1,
            relevant=torch.tensor([pair.relevant for pair in pairs]),
            pixels=pixels,
            grids=grids,
            image_rows=image_rows,
            tokens=sum(lengths),
        )

    def _positions(self, prompt: Prompt) -> npt.NDArray[np.int64]:
        """`[axes, tokens]` of a whole prompt."""
        placeholder = self._family.image_token_id
        before, start = self._architecture.positions(prompt.prefix, placeholder)
        after, _ = self._architecture.positions(prompt.suffix, placeholder, start)
        return np.concatenate([before, after], axis=1)

    def _pictures(
        self, pairs: Sequence[_Pair]
    ) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        """Patches and grids of the distinct pictures, and the row of each image token among theirs.

        A vision tower reads a picture once, however many pairs of a batch show it.
        """
        rules, tower = self._family.images, self._architecture.vision
        if rules is None or tower is None or not any(pair.prompt.images for pair in pairs):
            return None, None, None

        first_row: dict[bytes, int] = {}
        tokens = 0
        pixels: list[npt.NDArray[np.float32]] = []
        grids: list[tuple[int, int, int]] = []
        rows: list[npt.NDArray[np.int64]] = []
        for pair in pairs:
            for image in pair.prompt.images:
                count = rules.tokens(image)
                if image.key not in first_row:
                    first_row[image.key] = tokens
                    tokens += count
                    pixels.append(tower.patches(pair.pictures[image.key]))
                    grids.append(tower.grid(image))
                rows.append(np.arange(first_row[image.key], first_row[image.key] + count))

        return (
            torch.from_numpy(np.concatenate(pixels)),
            torch.tensor(grids),
            torch.from_numpy(np.concatenate(rows)),
        )


def _teacher_scores(groups: Sequence[Group]) -> Tensor | None:
    """The teacher's scores of all groups' pairs, `[pairs]`; None where a group has none."""
    scores: list[float] = []
    for group in groups:
        if group.teacher is None:
            return None
        scores += group.teacher
    return torch.tensor(scores)
