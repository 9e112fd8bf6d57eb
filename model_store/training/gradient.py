"""One step's gradient: the unified loss over the groups of a step, summed, and divided by the
number of all of them.

Knows units, the loss and the processes, no optimizer. Invariant: the gradient does not depend on
how groups are packed, nor on which process has which: a group in pieces is read twice, once for all
its logits without a gradient, and once piece by piece with the gradient that those logits have as a
whole (Gao et al., 2021, "Scaling deep contrastive learning batch size").
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from model_store.training.batches import Unit
from model_store.training.config import LossConfig
from model_store.training.head import two_columns
from model_store.training.losses import cl_loss, loss_weights, sft_loss, unified_reranking_loss
from model_store.training.processes import Processes

SUMS = (
    "surrogate",
    "sft",
    "cl",
    "positive_weight",
    "negative_weight",
    "examples",
    "negatives",
    "tokens",
    "images",
    "missing",
)


@dataclass(slots=True)
class Tally:
    """What a process's share of a step came to: sums over groups, and the groups that came to no
    finite number."""

    sums: dict[str, float] = field(default_factory=lambda: dict.fromkeys(SUMS, 0.0))
    broken: list[str] = field(default_factory=list)

    def add(self, **values: float) -> None:
        for name, value in values.items():
            self.sums[name] += value


class Learner:
    """Runs a model over a step's units, forwards and backwards."""

    def __init__(self, model: nn.Module, loss: LossConfig, processes: Processes, seed: int) -> None:
        self._model, self._loss, self._processes, self._seed = model, loss, processes, seed

    def learn(self, units: Sequence[Unit], step: int, examples: int) -> Tally:
        """Add a step's gradient to the parameters'; `examples` are those of all processes.

        A unit that came to no finite number is named in the tally; its gradient is there all the
        same.
        """
        tally = Tally()
        split = [unit for unit in units if len(unit.batches) > 1]
        idle_looks, idle_runs = self._idle(
            sum(len(unit.batches) for unit in split), sum(len(unit.batches) for unit in units)
        )
        whole = {id(unit): self._look(unit, step, tally) for unit in split}
        self.idle(units, idle_looks)
        # gradients of several processes are averaged where they meet
        scale = self._processes.share.world / examples
        passes = [(unit, number) for unit in units for number in range(len(unit.batches))]
        for place, (unit, number) in enumerate(passes, start=1):
            with self._processes.backward(self._model, last=place == len(passes) and not idle_runs):
                logits = self._run(unit, number, step)
                if (gradients := whole.get(id(unit))) is not None:
                    value = (logits * gradients[number]).sum()
                else:
                    value = self._value(logits, unit, tally)
                (value * scale).backward()
        for place in range(1, idle_runs + 1):
            with self._processes.backward(self._model, last=place == idle_runs):
                (self._spare(units) * 0).sum().backward()
        return tally

    def _idle(self, *runs: int) -> list[int]:
        """How often this process must run for nothing, so that all run equally often."""
        if not self._processes.in_step:
            return [0] * len(runs)
        return [most - ours for most, ours in zip(self._processes.most(runs), runs, strict=True)]

    def _spare(self, units: Sequence[Unit]) -> Tensor:
        logits: Tensor = self._model(units[0].batches[0].first().to(self._processes.device))
        return logits

    @torch.no_grad()
    def judge(self, units: Sequence[Unit]) -> list[Tensor]:
        """Logits of yes and no of each unit, `[pairs, 2]`, on the CPU, without a gradient."""
        device = self._processes.device
        (idle,) = self._idle(sum(len(unit.batches) for unit in units))
        judged = [
            torch.cat([self._model(batch.to(device))[:, :2].cpu() for batch in unit.batches])
            for unit in units
        ]
        self.idle(units, idle)
        return judged

    @torch.no_grad()
    def idle(self, units: Sequence[Unit], runs: int) -> None:
        """Run the model for nothing, for the sake of processes that have more to run."""
        for _ in range(runs):
            self._spare(units)

    @torch.no_grad()
    def _logits(self, unit: Unit, step: int) -> Tensor:
        return torch.cat([self._run(unit, number, step) for number in range(len(unit.batches))])

    def _look(self, unit: Unit, step: int, tally: Tally) -> tuple[Tensor, ...]:
        """The gradient of a unit's value by its logits, batch by batch."""
        logits = self._logits(unit, step).requires_grad_()
        (gradient,) = torch.autograd.grad(self._value(logits, unit, tally), logits)
        pieces: tuple[Tensor, ...] = gradient.split([len(batch.relevant) for batch in unit.batches])
        return pieces

    def _run(self, unit: Unit, number: int, step: int) -> Tensor:
        """Logits of a unit's batch. Dropout draws from a generator that is seeded here: no pass
        depends on those before it."""
        source = f"{self._seed}/{step}/{self._processes.share.rank}/{unit.names[0]}/{number}"
        torch.manual_seed(
            int.from_bytes(hashlib.blake2b(source.encode(), digest_size=8).digest(), "big") >> 1
        )
        logits: Tensor = self._model(unit.batches[number].to(self._processes.device))
        return logits

    def _value(self, logits: Tensor, unit: Unit, tally: Tally) -> Tensor:
        """The surrogate of a unit, summed over its groups, and everything that is logged of it."""
        relevant = torch.cat([batch.relevant for batch in unit.batches]).to(logits.device)
        groups = list(
            zip(
                two_columns(logits, relevant).split(unit.sizes),
                logits[:, :2].detach().split(unit.sizes),
                strict=True,
            )
        )
        total = logits.new_zeros(())
        for size in sorted(set(unit.sizes)):
            columns, words = (
                torch.stack(each)
                for each in zip(*(group for group in groups if len(group[0]) == size), strict=True)
            )
            total = total + self._surrogate(columns) * len(columns)
            self._observe(columns.detach(), words, tally)
        tally.add(
            surrogate=total.item(),
            negatives=sum(unit.sizes) - len(unit.sizes),
            tokens=sum(batch.tokens for batch in unit.batches),
            images=sum(len(batch.grids) for batch in unit.batches if batch.grids is not None),
            missing=unit.missing,
        )
        if not (torch.isfinite(total) and torch.isfinite(logits).all()):
            tally.broken += unit.names
        return total

    def _surrogate(self, columns: Tensor) -> Tensor:
        loss = self._loss
        dtype: torch.dtype = getattr(torch, loss.weight_dtype)
        return unified_reranking_loss(
            columns,
            weight=loss.weight,
            direction=loss.direction,
            tau=loss.tau,
            beta=loss.beta,
            weight_dtype=dtype,
        )

    def _observe(self, columns: Tensor, words: Tensor, tally: Tally) -> None:
        """Both true losses, and W+ and W- (figure 3), of groups of one size."""
        weights = loss_weights(columns, self._loss.weight, tau=self._loss.tau, beta=self._loss.beta)
        tally.add(
            examples=len(columns),
            sft=sft_loss(columns).item() * len(columns),
            cl=cl_loss(words).item() * len(columns),
            positive_weight=weights[:, 0].sum().item(),
            negative_weight=weights[:, 1:].sum().item(),
        )
