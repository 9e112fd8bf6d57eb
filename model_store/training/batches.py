"""Groups as tensors: whole groups share a batch while they fit a token budget, a larger one is cut.

A pair is a row of its own. Where prefixes are shared, all pairs of a batch are one row, in which a
prefix of several pairs comes once. Depends on prompts, pixels and positions, not on a network.
Invariant: every pair of every group is in exactly one batch, a group's pairs are in order, and no
batch exceeds the budget, padding included, unless a single pair does. A packed row has no padding
itself, but its attention has: the pairs behind a prefix are rows there.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from itertools import groupby

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from model_store.families.family import Family
from model_store.families.prompt import Image, Prompt, Segment
from model_store.networks.architecture import DecoderArchitecture
from model_store.training.groups import Group, Pixels
from model_store.training.shared_prefix import Packing, SharedPrefix, shared_prefix


@dataclass(frozen=True, slots=True)
class Batch:
    """Pairs as rows, padded on the right to the longest one; or packed, all in one row.

    Attention is causal: no token of a pair reads the padding behind it, so there is no mask.
    """

    ids: Tensor  # [rows, tokens]
    positions: Tensor  # [axes, rows, tokens]
    last: Tensor  # [pairs]: index in its row of the token from which the score is read
    relevant: Tensor  # [pairs]: true for a positive
    pixels: Tensor | None  # [patches, values]: each distinct picture once
    grids: Tensor | None  # [pictures, 3]
    image_rows: Tensor | None  # [image tokens of all pairs, in order]: row among picture tokens
    tokens: int  # without padding, and each shared prefix once
    packing: Packing | None = None  # of the one row; None: each pair has a row

    def to(self, device: torch.device) -> Batch:
        """The same batch on a device."""
        moved: dict[str, Tensor | Packing] = {}
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, Tensor | Packing):
                moved[field.name] = value.to(device)
        return replace(self, **moved)  # type: ignore[arg-type]

    def first_pair(self) -> Batch:
        """The first pair alone, without pictures: the least input that a network can run on."""
        end = self.ids.shape[1] if self.packing is None else int(self.last[0]) + 1
        return replace(
            self,
            ids=self.ids[:1, :end],
            positions=self.positions[:, :1, :end],
            last=self.last[:1],
            relevant=self.relevant[:1],
            pixels=None,
            grids=None,
            image_rows=None,
            packing=None,
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


@dataclass(frozen=True, slots=True)
class _Shown:
    """Images of a stretch of tokens, in order, and their pixels by key."""

    images: tuple[Image, ...]
    pictures: dict[bytes, Pixels]


class Batcher:
    """Makes units of groups.

    `budget` is the tokens that a batch may have, padding included. With `shared_prefix`, pairs are
    packed; a family whose prompts do not begin with the query has no prefix that pairs of a group
    share, and its pairs stay rows.
    """

    def __init__(
        self,
        *,
        budget: int,
        family: Family,
        architecture: DecoderArchitecture,
        shared_prefix: bool = False,
    ) -> None:
        self._budget, self._family, self._architecture = budget, family, architecture
        self.packs = shared_prefix and family.cacheable_side == "query"

    def units(self, groups: Sequence[Group]) -> list[Unit]:
        """Units of all groups, shortest prompts first, so that similar lengths share a batch."""
        ordered = sorted(groups, key=lambda group: (group.longest, group.id))
        return [self._unit(packed) for packed in self._packed(ordered)]

    def _packed(self, groups: Sequence[Group]) -> Iterator[list[Group]]:
        """Runs of groups that fit the budget together; a group over the budget is a run alone."""
        packed: list[Group] = []
        prompts: list[Prompt] = []
        for group in groups:  # each is at least as long as those before it
            prompts += group.prompts
            size = _packed_tokens(prompts) if self.packs else len(prompts) * group.longest
            if packed and size > self._budget:
                yield packed
                packed, prompts = [], list(group.prompts)
            packed.append(group)

        if packed:
            yield packed

    def _unit(self, groups: Sequence[Group]) -> Unit:
        pairs: list[_Pair] = []
        for group in groups:
            for number, prompt in enumerate(group.prompts):
                pairs.append(_Pair(prompt, number == 0, group.pictures))

        pieces = self._pieces(pairs) if len(groups) == 1 else [pairs]
        make = self._row if self.packs else self._rows
        return Unit(
            names=tuple(f"{group.id} ({group.location})" for group in groups),
            sizes=tuple(len(group.prompts) for group in groups),
            batches=tuple(make(piece) for piece in pieces),
            missing=sum(group.missing for group in groups),
            teacher=_teacher_scores(groups),
        )

    def _pieces(self, pairs: Sequence[_Pair]) -> list[Sequence[_Pair]]:
        """The pairs of one group, which alone may exceed the budget, as parts that do not."""
        if not self.packs:
            longest = max(len(pair.prompt.ids) for pair in pairs)
            width = max(1, self._budget // longest)
            return [pairs[start : start + width] for start in range(0, len(pairs), width)]

        pieces: list[list[_Pair]] = [[]]
        for pair in pairs:
            prompts = [other.prompt for other in (*pieces[-1], pair)]
            if pieces[-1] and _packed_tokens(prompts) > self._budget:
                pieces.append([])
            pieces[-1].append(pair)
        return list(pieces)

    def _rows(self, pairs: Sequence[_Pair]) -> Batch:
        """A row for each pair."""
        lengths = [len(pair.prompt.ids) for pair in pairs]
        numbered = [self._positions(pair.prompt) for pair in pairs]
        ids = np.zeros((len(pairs), max(lengths)), np.int64)
        columns = np.zeros((len(numbered[0]), len(pairs), max(lengths)), np.int64)
        for row, pair in enumerate(pairs):
            ids[row, : lengths[row]] = pair.prompt.ids
            columns[:, row, : lengths[row]] = numbered[row]

        shown = [_Shown(pair.prompt.images, pair.pictures) for pair in pairs]
        pixels, grids, image_rows = self._pictures(shown)
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

    def _row(self, pairs: Sequence[_Pair]) -> Batch:
        """One row for all pairs, each prefix once with the pairs behind it."""
        placeholder = self._family.image_token_id
        ids: list[int] = []
        columns: list[npt.NDArray[np.int64]] = []
        last: list[int] = []
        shown: list[_Shown] = []
        layouts: list[SharedPrefix] = []
        for prefix, group in groupby(pairs, key=_prefix):
            behind = list(group)
            numbers, start = self._architecture.positions(prefix, placeholder)
            ids += prefix.ids
            columns.append(numbers)
            shown.append(_Shown(prefix.images, behind[0].pictures))

            for pair in behind:
                suffix = pair.prompt.suffix
                numbers, _ = self._architecture.positions(suffix, placeholder, start)
                ids += suffix.ids
                columns.append(numbers)
                shown.append(_Shown(suffix.images, pair.pictures))
                last.append(len(ids) - 1)

            lengths = [len(pair.prompt.suffix.ids) for pair in behind]
            layouts.append(shared_prefix(len(prefix.ids), lengths))

        pixels, grids, image_rows = self._pictures(shown)
        return Batch(
            ids=torch.tensor([ids]),
            positions=torch.from_numpy(np.concatenate(columns, axis=1))[:, None],
            last=torch.tensor(last),
            relevant=torch.tensor([pair.relevant for pair in pairs]),
            pixels=pixels,
            grids=grids,
            image_rows=image_rows,
            tokens=len(ids),
            packing=Packing(tuple(layouts)),
        )

    def _positions(self, prompt: Prompt) -> npt.NDArray[np.int64]:
        """`[axes, tokens]` of a whole prompt."""
        placeholder = self._family.image_token_id
        before, start = self._architecture.positions(prompt.prefix, placeholder)
        after, _ = self._architecture.positions(prompt.suffix, placeholder, start)
        return np.concatenate([before, after], axis=1)

    def _pictures(
        self, shown: Sequence[_Shown]
    ) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        """Patches and grids of the distinct pictures, and the row of each image token among theirs.

        A vision tower reads a picture once, however often a batch shows it.
        """
        rules, tower = self._family.images, self._architecture.vision
        if rules is None or tower is None or not any(each.images for each in shown):
            return None, None, None

        first_row: dict[bytes, int] = {}
        tokens = 0
        pixels: list[npt.NDArray[np.float32]] = []
        grids: list[tuple[int, int, int]] = []
        rows: list[npt.NDArray[np.int64]] = []
        for each in shown:
            for image in each.images:
                count = rules.tokens(image)
                if image.key not in first_row:
                    first_row[image.key] = tokens
                    tokens += count
                    pixels.append(tower.patches(each.pictures[image.key]))
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


def _prefix(pair: _Pair) -> Segment:
    return pair.prompt.prefix


def _packed_tokens(prompts: Sequence[Prompt]) -> int:
    """Tokens of a packed row with the padding that its attention adds: each prefix that follows
    itself counts once, and the pairs behind it as many as the longest of them."""
    total = 0
    for prefix, behind in groupby(prompts, key=lambda prompt: prompt.prefix):
        lengths = [len(prompt.suffix.ids) for prompt in behind]
        total += len(prefix.ids) + len(lengths) * max(lengths)
    return total
