"""Training of tokens' vectors and weights: weighted means of texts come as near to each other as
the teacher's vectors of the texts.

Depends on a tokenizer, rows and the teacher's vectors, not on a network. Invariant: a network that
is constructed from the result compares texts by the very means that were trained here, and a token
that no text has keeps its direction.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain
from random import Random

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, embedding_bag, normalize

from model_store.recipes.mini.texts.meanings import LEAST, Meanings
from model_store.recipes.tiny.train import Report
from model_store.training.data.rows import Example

Encode = Callable[[Sequence[str]], Tensor]
"""Texts to unit vectors, `[texts, width]`."""
_REPORT_EVERY = 100
_WARMUP = 100
_HIGHEST = 0.99  # the quantile of weights that becomes 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Averages:
    """Settings: rows of a step, Adam's rate of vectors, and the parts of the loss.

    `sharpness` is the inverse temperature of the teacher's cosines. `labels` weighs the
    cross-entropy of a row's relevant document, `hold` the squared distance from the vectors at the
    start.
    """

    steps: int
    seed: int
    rows: int = 128
    rate: float = 2e-3
    weight_rate: float = 1e-2
    sharpness: float = 20.0
    labels: float = 0.2
    hold: float = 0.02


class _TokenMeans(nn.Module):
    """Weighted means of texts' tokens, of length 1."""

    def __init__(self, meanings: Meanings, tokenizer: Tokenizer, texts: Sequence[str]) -> None:
        super().__init__()
        self.start = torch.from_numpy(meanings.vectors)
        self.known = self.start.abs().sum(1) > 0
        self.vectors = nn.Parameter(self.start.clone())
        self.weights = nn.Parameter(torch.from_numpy(meanings.log_weights).clone())
        self._own = meanings
        encodings = tokenizer.encode_batch(list(texts), add_special_tokens=False)
        ids = (torch.tensor(encoding.ids) for encoding in encodings)
        self._ids = dict(zip(texts, ids, strict=True))

    def forward(self, texts: Sequence[str]) -> Tensor:
        ids = [self._ids[text] for text in texts]
        starts = torch.tensor([0, *map(len, ids[:-1])]).cumsum(0)
        flat = torch.cat(ids)
        shares = self.weights[flat].exp()
        sums = embedding_bag(flat, self.vectors, starts, mode="sum", per_sample_weights=shares)
        return normalize(sums)

    @torch.no_grad()
    def meanings(self) -> Meanings:
        """Unit vectors, whose lengths become a part of the weights; no weight is above 1."""
        length = self.vectors.norm(dim=1).clamp(min=1e-6)
        vectors = torch.where(self.known[:, None], self.vectors / length[:, None], 0.0)
        weights = self.weights + length.log()
        weights = weights - weights[self.known].quantile(_HIGHEST)
        weights = weights.clamp(LEAST, 0.0)
        weights = torch.where(self.known, weights, torch.from_numpy(self._own.log_weights))
        return Meanings(vectors.numpy(), weights.numpy().astype(np.float32))


def train_averages(
    meanings: Meanings,
    tokenizer: Tokenizer,
    rows: Sequence[Example],
    teacher: Encode,
    *,
    settings: Averages,
    report: Report,
) -> Meanings:
    """Meanings whose means rank a step's documents as the teacher does, for each of its queries.

    Rows are of texts and have equally many documents, of which the first is relevant.
    """
    texts = sorted(set(chain.from_iterable(map(_texts, rows))))
    means = _TokenMeans(meanings, tokenizer, texts)
    scale = nn.Parameter(torch.tensor(settings.sharpness).log())
    groups = [
        {"params": [means.vectors], "top": settings.rate},
        {"params": [means.weights, scale], "top": settings.weight_rate},
    ]
    optimizer = torch.optim.Adam(groups, lr=settings.rate)
    rng = Random(f"averages/{settings.seed}")
    total = 0.0
    for step in range(1, settings.steps + 1):
        queries, *documents = zip(
            *map(_texts, rng.sample(rows, min(settings.rows, len(rows)))), strict=True
        )
        # the relevant documents of all rows first
        found = list(chain.from_iterable(documents))
        logits = scale.exp() * means(queries) @ means(found).T
        wanted = settings.sharpness * teacher(queries) @ teacher(found).T
        loss = _divergence(logits, wanted) + _divergence(logits.T, wanted.T)

        own = logits.view(len(queries), len(documents), -1).diagonal(dim1=0, dim2=2).T
        relevant = torch.zeros(len(queries), dtype=torch.long)
        loss = loss + settings.labels * cross_entropy(own, relevant)
        moved = (means.vectors - means.start).square().sum(1).mean()
        loss = loss + settings.hold * moved

        share = min(1.0, step / _WARMUP) * (1 - step / (settings.steps + 1))
        for group in optimizer.param_groups:
            group["lr"] = group["top"] * share
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        total += loss.item()
        if step % _REPORT_EVERY == 0:
            mean = total / _REPORT_EVERY
            report(f"averages {step}/{settings.steps}: loss {mean:.3f}")
            total = 0.0

    return means.meanings()


def _texts(row: Example) -> list[str]:
    """The query and the documents."""
    return [side.text or "" for side in (row.query, *row.documents)]


def _divergence(logits: Tensor, wanted: Tensor) -> Tensor:
    """The mean KL divergence of rows from the teacher's."""
    target = wanted.log_softmax(1)
    return (target.exp() * (target - logits.log_softmax(1))).sum(1).mean()
