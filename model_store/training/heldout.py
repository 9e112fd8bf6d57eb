"""Held-out metrics of a model in training: SFT loss, and nDCG@10 over each example's own documents.

Depends on units and the learner, not on files. Invariant: the same examples give the same groups at
every evaluation, a tie counts against the model, and metrics are of finite logits alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from model_store.evaluation.metrics import ndcg
from model_store.training.batches import Batcher, Unit
from model_store.training.data.rows import Example
from model_store.training.gradient import Learner
from model_store.training.groups import Grouper
from model_store.training.losses import NO, YES, Direction, sft_loss
from model_store.training.not_finite import refuse_not_finite
from model_store.training.processes import Processes

_CHUNK = 64
"""Examples of all processes that are in memory together."""
_CUT = 10


def evaluate_held_out(
    model: nn.Module,
    learner: Learner,
    processes: Processes,
    examples: Sequence[Example],
    grouper: Grouper,
    batcher: Batcher,
    *,
    count: int,
    direction: Direction,
) -> dict[str, float]:
    """Mean SFT loss and nDCG@10 of the first `count` examples, each process a share of them.

    A document's score is yes - no, or yes alone where the direction teaches that (paper, eq. 1 and
    2). Raises `DataError`, and `NotFinite` in all processes where a logit of one is not finite: no
    comparison of such a score holds, so that its row would count as ranked first.
    """
    share = processes.share
    sums = torch.zeros(3, dtype=torch.float64)
    not_finite: list[str] = []

    model.eval()

    for begin, numbers in _chunks(min(count, len(examples)), share.rank, share.world):
        # A process without examples runs the network on one of another's, uncounted: where weights
        # are split, every process must run it.
        groups = [grouper.group(examples[number], 0) for number in numbers or [begin]]
        units = batcher.units(groups)
        all_logits = learner.logits(units)
        if not numbers:
            continue
        for unit, logits in zip(units, all_logits, strict=True):
            sums += _unit_sums(unit, logits, direction)
            not_finite += _not_finite(unit, logits)

    model.train()

    loss, gain, total, broken = processes.total([*sums.tolist(), float(len(not_finite))])
    if broken:
        refuse_not_finite(processes, not_finite, "Held-out logits are not finite")
    return {"dev_sft": loss / total, "dev_ndcg": gain / total}


def _chunks(count: int, rank: int, world: int) -> Iterator[tuple[int, list[int]]]:
    """(first example of the chunk, this process's examples of it), as often in every process."""
    for begin in range(0, count, _CHUNK):
        yield begin, list(range(begin + rank, min(begin + _CHUNK, count), world))


def _not_finite(unit: Unit, logits: Tensor) -> list[str]:
    """Names of a unit's groups that have a logit which is not finite."""
    names: list[str] = []
    for name, group in zip(unit.names, logits.split(unit.sizes), strict=True):
        if not torch.isfinite(group).all():
            names.append(name)
    return names


def _unit_sums(unit: Unit, logits: Tensor, direction: Direction) -> Tensor:
    """SFT loss, nDCG@10 and number of a unit's groups, summed, `[3]`."""
    sums = torch.zeros(3, dtype=torch.float64)
    for group in logits.double().split(unit.sizes):
        scores = group[:, YES] - group[:, NO] if direction == "sft" else group[:, YES]
        ahead = int((scores[1:] >= scores[0]).sum())  # negatives, also those with an equal score
        relevances = [0.0] * ahead + [1.0] + [0.0] * (len(scores) - 1 - ahead)
        loss = sft_loss(group[None]).item()
        sums += torch.tensor([loss, ndcg(relevances, _CUT), 1.0], dtype=torch.float64)
    return sums
