"""The gradient of one step: the unified loss over the step's groups, divided by their number.

Depends on units, the loss and the processes, not on an optimizer. Invariant: the gradient depends
neither on the packing of groups nor on their distribution over processes. A group in several
batches is read twice: first without a gradient, for all its logits, then batch by batch with the
gradient that those logits have together (Gao et al., 2021, "Scaling deep contrastive learning batch
size").
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from model_store.training.batches import Unit
from model_store.training.config import LossConfig
from model_store.training.distillation import teacher_loss
from model_store.training.head import two_columns
from model_store.training.losses import NO, YES, cl_loss, loss_weights, sft_loss, weighted_loss
from model_store.training.processes import Processes

STEP_SUMS = (
    "surrogate",
    "sft",
    "cl",
    "teacher",
    "positive_weight",
    "negative_weight",
    "examples",
    "negatives",
    "tokens",
    "images",
    "missing",
)
"""Names of a step's sums, in the order in which processes add them up."""


@dataclass(slots=True)
class StepStatistics:
    """Sums over the groups of a process's share of a step, and its groups without a finite loss."""

    sums: dict[str, float] = field(default_factory=lambda: dict.fromkeys(STEP_SUMS, 0.0))
    not_finite: list[str] = field(default_factory=list)

    def add(self, **values: float) -> None:
        for name, value in values.items():
            self.sums[name] += value


class Learner:
    """Runs a model over the units of a step, forwards and backwards."""

    def __init__(self, model: nn.Module, loss: LossConfig, processes: Processes, seed: int) -> None:
        self._model, self._loss, self._processes, self._seed = model, loss, processes, seed

    def learn(self, units: Sequence[Unit], step: int, examples: int) -> StepStatistics:
        """Add a step's gradient to that of the parameters; `examples` are those of all processes.

        The statistics name the groups whose loss is not finite; their gradient is added all the
        same.
        """
        statistics = StepStatistics()
        split = [unit for unit in units if len(unit.batches) > 1]
        logit_gradients: dict[int, tuple[Tensor, ...]] = {}
        with self._equal_runs(units, sum(len(unit.batches) for unit in split)):
            for large in split:
                logit_gradients[id(large)] = self._logit_gradients(large, step, statistics)

        # gradients of several processes are averaged where they meet
        scale = self._processes.share.world / examples
        passes = self._passes(units)
        for position, (unit, number) in enumerate(passes, start=1):
            with self._processes.backward(self._model, last=position == len(passes)):
                if unit is None:
                    value = self._idle_logits(units) * 0
                elif id(unit) in logit_gradients:
                    value = self.step_logits(unit, number, step) * logit_gradients[id(unit)][number]
                else:
                    value = self._value(self.step_logits(unit, number, step), unit, statistics)
                (value.sum() * scale).backward()

        return statistics

    @torch.no_grad()
    def logits(self, units: Sequence[Unit]) -> list[Tensor]:
        """Logits of yes and no of each unit, `[pairs, 2]`, on the CPU, without a gradient."""
        device = self._processes.device
        found: list[Tensor] = []
        with self._equal_runs(units, sum(len(unit.batches) for unit in units)):
            for unit in units:
                parts = [self._model(batch.to(device))[:, :2].cpu() for batch in unit.batches]
                found.append(torch.cat(parts))
        return found

    def step_logits(self, unit: Unit, number: int, step: int) -> Tensor:
        """Logits of a unit's batch as a step reads it, dropout included, `[pairs, words]`.

        The generator that dropout draws from is seeded here, so that no pass depends on those
        before it.
        """
        source = f"{self._seed}/{step}/{self._processes.share.rank}/{unit.names[0]}/{number}"
        digest = hashlib.blake2b(source.encode(), digest_size=8).digest()
        torch.manual_seed(int.from_bytes(digest, "big") >> 1)
        logits: Tensor = self._model(unit.batches[number].to(self._processes.device))
        return logits

    def _passes(self, units: Sequence[Unit]) -> list[tuple[Unit | None, int]]:
        """(unit, number of its batch) of each backward pass; None for a pass without a batch.

        Such passes follow the others, so that all processes have equally many.
        """
        passes: list[tuple[Unit | None, int]] = []
        for unit in units:
            passes += [(unit, number) for number in range(len(unit.batches))]
        return passes + [(None, 0)] * self._processes.idle_runs(len(passes))

    @contextmanager
    def _equal_runs(self, units: Sequence[Unit], runs: int) -> Iterator[None]:
        """Around `runs` runs of the model without a gradient: add idle runs at the end, so that all
        processes run it equally often where they must."""
        idle = self._processes.idle_runs(runs)
        yield
        with torch.no_grad():
            for _ in range(idle):
                self._idle_logits(units)

    def _idle_logits(self, units: Sequence[Unit]) -> Tensor:
        """Logits that count for nothing, from as small an input as there is."""
        smallest = units[0].batches[0].first_pair()
        logits: Tensor = self._model(smallest.to(self._processes.device))
        return logits

    def _logit_gradients(
        self, unit: Unit, step: int, statistics: StepStatistics
    ) -> tuple[Tensor, ...]:
        """The gradient of a unit's value with respect to its logits, batch by batch."""
        with torch.no_grad():
            parts = [self.step_logits(unit, number, step) for number in range(len(unit.batches))]
        logits = torch.cat(parts).requires_grad_()
        (gradient,) = torch.autograd.grad(self._value(logits, unit, statistics), logits)
        pieces: tuple[Tensor, ...] = gradient.split([len(part) for part in parts])
        return pieces

    def _value(self, logits: Tensor, unit: Unit, statistics: StepStatistics) -> Tensor:
        """The unified loss of a unit, summed over its groups; adds all that is logged of it."""
        relevant = torch.cat([batch.relevant for batch in unit.batches]).to(logits.device)
        columns = two_columns(logits, relevant).split(unit.sizes)
        labels = logits[:, :2].split(unit.sizes)
        teacher = None if unit.teacher is None else unit.teacher.to(logits.device).split(unit.sizes)

        total = logits.new_zeros(())
        for size in sorted(set(unit.sizes)):
            same = [number for number, length in enumerate(unit.sizes) if length == size]
            own_labels = torch.stack([labels[number] for number in same])
            total = total + self._groups_value(
                torch.stack([columns[number] for number in same]), own_labels.detach(), statistics
            )
            if self._loss.teacher is not None:
                assert teacher is not None, "rows were checked before the first step"
                wanted = torch.stack([teacher[number] for number in same])
                total = total + self._teacher_value(own_labels, wanted, statistics)

        statistics.add(
            surrogate=total.item(),
            negatives=sum(unit.sizes) - len(unit.sizes),
            tokens=sum(batch.tokens for batch in unit.batches),
            images=sum(len(batch.grids) for batch in unit.batches if batch.grids is not None),
            missing=unit.missing,
        )
        if not (torch.isfinite(total) and torch.isfinite(logits).all()):
            statistics.not_finite += unit.names

        return total

    def _groups_value(self, columns: Tensor, labels: Tensor, statistics: StepStatistics) -> Tensor:
        """The unified loss summed over groups of one size, `[groups, pairs, 2]`.

        Both true losses and W+ and W- (figure 3) are logged. `labels` are the logits of yes and no
        themselves, which differ from `columns` where the head has more words.
        """
        settings = self._loss
        dtype: torch.dtype = getattr(torch, settings.weight_dtype)
        detached = columns.detach()
        weights = loss_weights(
            detached, settings.weight, tau=settings.tau, beta=settings.beta, dtype=dtype
        ).to(columns.dtype)

        groups = len(columns)
        statistics.add(
            examples=groups,
            sft=sft_loss(detached).item() * groups,
            cl=cl_loss(labels).item() * groups,
            positive_weight=weights[:, 0].sum().item(),
            negative_weight=weights[:, 1:].sum().item(),
        )
        return weighted_loss(columns, weights, settings.direction) * groups

    def _teacher_value(self, labels: Tensor, wanted: Tensor, statistics: StepStatistics) -> Tensor:
        """The weighted loss towards a teacher, summed over groups of one size.

        `labels` are logits of yes and no, `[groups, pairs, 2]`, `wanted` the teacher's scores,
        `[groups, pairs]`.
        """
        settings = self._loss.teacher
        assert settings is not None
        scores = labels[..., YES]
        if self._loss.direction == "sft":
            scores = scores - labels[..., NO]
        loss = teacher_loss(scores, wanted, kind=settings.kind, temperature=settings.temperature)
        statistics.add(teacher=loss.item() * len(labels))
        return settings.weight * loss * len(labels)
