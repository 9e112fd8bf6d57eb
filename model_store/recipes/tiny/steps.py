"""Steps along the gradient: a stream of batches, optimizers, and the schedule of their rates.

Depends on torch and on the CPU's instructions. Invariant: a loss that is not finite ends the
training.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from itertools import chain
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, IterableDataset

from model_store.training.precision import choose_precision

Item = TypeVar("Item")


@cache
def cpu_dtype() -> torch.dtype:
    """bf16 where the CPU has its instructions, or else fp32, which is thirty times faster there."""
    precision, _ = choose_precision("auto", "cpu")
    return torch.bfloat16 if precision == "bf16" else torch.float32


def autocast() -> torch.autocast:
    """Matrix products in `cpu_dtype`."""
    dtype = cpu_dtype()
    return torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16)


def stream(data: IterableDataset[Item], steps: int) -> Iterator[tuple[int, Item]]:
    """`steps` items with their numbers, made by another process."""
    loader = iter(DataLoader(data, batch_size=None, num_workers=1, prefetch_factor=4))
    for step in range(1, steps + 1):
        yield step, next(loader)


def make_optimizers(parameters: Iterable[nn.Parameter], rate: float) -> list[torch.optim.Optimizer]:
    """Muon for matrices, with steps as large as AdamW's (Liu et al., 2025, "Muon is Scalable for
    LLM Training"), and AdamW for all other parameters."""
    matrices: list[nn.Parameter] = []
    others: list[nn.Parameter] = []
    for parameter in parameters:
        if parameter.ndim == 2:
            matrices.append(parameter)
        else:
            others.append(parameter)

    muon = torch.optim.Muon(
        [{"params": matrices, "top": rate}],
        lr=rate,
        weight_decay=0.05,
        adjust_lr_fn="match_rms_adamw",
    )
    adam = torch.optim.AdamW(
        [{"params": others, "top": rate / 2}],
        lr=rate / 2,
        betas=(0.9, 0.98),
        weight_decay=0.0,
        fused=True,
    )
    return [muon, adam]


def advance(
    optimizers: Sequence[torch.optim.Optimizer],
    loss: Tensor,
    step: int,
    steps: int,
    warmup: int = 50,
) -> None:
    """One step along the gradient; the rate rises for `warmup` steps and falls along a cosine to a
    twentieth."""
    if not math.isfinite(loss.item()):
        raise FloatingPointError(f"the loss is not finite at step {step}")

    share = step / warmup
    if step >= warmup:
        progress = (step - warmup) / max(1, steps - warmup)
        share = 0.05 + 0.475 * (1 + math.cos(math.pi * progress))

    groups = list(chain.from_iterable(optimizer.param_groups for optimizer in optimizers))
    for group in groups:
        for parameter in group["params"]:
            parameter.grad = None
    loss.backward()

    for group in groups:
        group["lr"] = group["top"] * share
        nn.utils.clip_grad_norm_(group["params"], 1.0)
    for optimizer in optimizers:
        optimizer.step()
