"""The examples of each step: a new order every epoch, each process its share of a step.

Depends on numbers, examples and groups, not on a network. Invariant: a step's groups are a function
of the seed and the step alone, so a run that resumes at a step reads what it would have read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt
import torch
from torch.utils.data import DataLoader, Dataset

from model_store.errors import DataError
from model_store.training.batches import Batcher, Unit
from model_store.training.data.rows import Example
from model_store.training.groups import Grouper

Agree = Callable[[str | None], str | None]
"""From this process's problem, if any, to the first problem of all processes."""


@dataclass(frozen=True, slots=True)
class Share:
    """The position of one process among all processes of a run."""

    rank: int = 0
    world: int = 1


class Order:
    """Epochs one after the other, each a permutation of `count` examples.

    Every step takes the next `per_step` examples, across the end of an epoch where need be.
    """

    def __init__(self, count: int, per_step: int, seed: int) -> None:
        self._count, self._per_step, self._seed = count, per_step, seed
        self._permutation = lru_cache(2)(self._permuted)

    def step(self, step: int, share: Share) -> list[tuple[int, int]]:
        """(epoch, example's number) of a process's share of a step; steps count from 1."""
        begin = (step - 1) * self._per_step
        indexes = range(begin + share.rank, begin + self._per_step, share.world)
        return [self._example(index) for index in indexes]

    def _example(self, index: int) -> tuple[int, int]:
        epoch, number = divmod(index, self._count)
        return epoch, int(self._permutation(epoch)[number])

    def _permuted(self, epoch: int) -> npt.NDArray[np.int64]:
        return np.random.default_rng((self._seed, epoch)).permutation(self._count)


@dataclass(frozen=True, slots=True)
class Broken:
    """A problem, in the place of a step's units.

    A loader's process returns it as a value: an exception would arrive with its traceback.
    """

    sentence: str


class Steps(Dataset[list[Unit] | Broken]):
    """A process's share of each step, as units."""

    def __init__(
        self,
        examples: Sequence[Example],
        grouper: Grouper,
        batcher: Batcher,
        order: Order,
        share: Share,
    ) -> None:
        self._examples, self._grouper, self._batcher = examples, grouper, batcher
        self._order, self._share = order, share

    def __getitem__(self, step: int) -> list[Unit] | Broken:
        try:
            groups = [
                self._grouper.group(self._examples[number], epoch)
                for epoch, number in self._order.step(step, self._share)
            ]
        except DataError as error:
            return Broken(str(error))
        return self._batcher.units(groups)

    def between(
        self, first: int, last: int, workers: int, agree: Agree
    ) -> Iterator[tuple[int, list[Unit]]]:
        """Steps `first` to `last` with their units, made ahead by `workers` processes.

        `agree` makes the problem of one process the problem of all. Raises `DataError` with it.
        """
        loader = DataLoader(
            self,
            batch_size=None,
            sampler=range(first, last + 1),
            num_workers=workers,
            prefetch_factor=2 if workers else None,
            multiprocessing_context="fork" if workers else None,
            # a generator of its own: the loader must not draw from the one of dropout
            generator=torch.Generator(),
        )
        for step, units in zip(range(first, last + 1), loader, strict=True):
            problem = agree(units.sentence if isinstance(units, Broken) else None)
            if problem is not None:
                raise DataError(problem)
            assert not isinstance(units, Broken)
            yield step, units
