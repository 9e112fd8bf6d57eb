"""How a model does on examples it does not learn from: the SFT loss, and nDCG@10 of each example's
own documents.

Knows units and the learner, no files. Invariant: the same examples give the same groups at every
look, and a tie counts against the model.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from model_store.evaluation.metrics import ndcg
from model_store.training.batches import Unit, units
from model_store.training.data.rows import Example
from model_store.training.gradient import Learner
from model_store.training.groups import Grouper
from model_store.training.losses import NO, YES, Direction, sft_loss
from model_store.training.processes import Processes

_AT_ONCE = 64
"""Examples of all processes that are in memory together."""
_CUT = 10


def look(
    model: nn.Module,
    learner: Learner,
    processes: Processes,
    examples: Sequence[Example],
    grouper: Grouper,
    *,
    count: int,
    budget: int,
    image_token: int | None,
    direction: Direction,
) -> dict[str, float]:
    """Mean SFT loss and nDCG@10 of the first `count` examples, each process judging its share;
    raises `DataError`.

    A document's score is yes - no, and yes alone where that is what the direction teaches (paper,
    eq. 1 and 2).
    """
    model.eval()
    share, sums = processes.share, torch.zeros(3, dtype=torch.float64)
    for begin, chosen in _shares(min(count, len(examples)), share.rank, share.world):
        # A process without any runs one all the same, uncounted: all must run the network where its
        # weights are split.
        made = units(
            [grouper.group(examples[number], 0) for number in chosen or [begin]],
            budget,
            image_token,
        )
        for unit, logits in zip(made, learner.judge(made), strict=True):
            sums += _judged(unit, logits, direction) * bool(chosen)
    model.train()
    loss, gain, groups = processes.total(sums.tolist())
    return {"dev_sft": loss / groups, "dev_ndcg": gain / groups}


def _shares(count: int, rank: int, world: int) -> Iterator[tuple[int, list[int]]]:
    """(first example of all processes, this one's examples), a few at a time, as many times in
    every process."""
    for begin in range(0, count, _AT_ONCE):
        yield begin, list(range(begin + rank, min(begin + _AT_ONCE, count), world))


def _judged(unit: Unit, logits: Tensor, direction: Direction) -> Tensor:
    sums = torch.zeros(3, dtype=torch.float64)
    for group in logits.double().split(unit.sizes):
        scores = group[:, YES] - group[:, NO] if direction == "sft" else group[:, YES]
        # of the positive, from 0, behind whatever it is tied with
        place = int((scores[1:] >= scores[0]).sum())
        relevances = [0.0] * place + [1.0] + [0.0] * (len(scores) - 1 - place)
        sums += torch.tensor(
            [sft_loss(group[None]).item(), ndcg(relevances, _CUT), 1.0], dtype=torch.float64
        )
    return sums
