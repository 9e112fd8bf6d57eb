"""Which examples a step learns from: a new order every epoch, each process its share, and any step
without those before it.

Knows numbers, examples and groups, no network. Invariant: a step's groups are a function of the
seed and the step alone, so a run that is resumed at a step sees what it would have seen.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt
import torch
from torch.utils.data import DataLoader, Dataset

from model_store.training.batches import Unit, units
from model_store.training.data.rows import DataError, Example
from model_store.training.groups import Grouper

Agree = Callable[[str | None], str | None]


@dataclass(frozen=True, slots=True)
class Share:
    """One process among several."""

    rank: int = 0
    world: int = 1


class Order:
    """Epochs, each a permutation, one after the other; every step takes the next `per_step`."""

    def __init__(self, count: int, per_step: int, seed: int) -> None:
        self._count, self._per_step, self._seed = count, per_step, seed
        self._permutation = lru_cache(2)(self._permuted)

    def step(self, step: int, share: Share) -> list[tuple[int, int]]:
        """(epoch, example's number) of a process's share of a step; steps count from 1."""
        begin = (step - 1) * self._per_step
        return [
            self._at(place)
            for place in range(begin + share.rank, begin + self._per_step, share.world)
        ]

    def _at(self, place: int) -> tuple[int, int]:
        epoch, number = divmod(place, self._count)
        return epoch, int(self._permutation(epoch)[number])

    def _permuted(self, epoch: int) -> npt.NDArray[np.int64]:
        return np.random.default_rng((self._seed, epoch)).permutation(self._count)


@dataclass(frozen=True, slots=True)
class Broken:
    """What a worker process hands over in the place of a step's units: an exception would arrive
    with its traceback."""

    sentence: str


class Steps(Dataset[list[Unit] | Broken]):
    """A process's share of each step, as units."""

    def __init__(
        self,
        examples: Sequence[Example],
        grouper: Grouper,
        order: Order,
        share: Share,
        *,
        budget: int,
        image_token: int | None,
    ) -> None:
        self._examples, self._grouper, self._order, self._share = examples, grouper, order, share
        self._budget, self._image_token = budget, image_token

    def __getitem__(self, step: int) -> list[Unit] | Broken:
        try:
            chosen = self._order.step(step, self._share)
            groups = [
                self._grouper.group(self._examples[number], epoch) for epoch, number in chosen
            ]
            return units(groups, self._budget, self._image_token)
        except DataError as error:
            return Broken(str(error))

    def between(
        self, first: int, last: int, workers: int, agree: Agree
    ) -> Iterator[tuple[int, list[Unit]]]:
        """Steps `first` to `last` with their units, made ahead by `workers` processes.

        `agree` is told what is wrong with this process's share and says what is wrong with
        anyone's: raises `DataError`.
        """
        loader = DataLoader(
            self,
            batch_size=None,
            sampler=range(first, last + 1),
            num_workers=workers,
            prefetch_factor=2 if workers else None,
            multiprocessing_context="fork" if workers else None,
            # its own: the loader must not draw from the generator that dropout draws from
            generator=torch.Generator(),
        )
        for step, made in zip(range(first, last + 1), loader, strict=True):
            sentence = agree(made.sentence if isinstance(made, Broken) else None)
            if sentence is not None:
                raise DataError(sentence)
            assert not isinstance(made, Broken)
            yield step, made
