"""The first part of gmr-mini's model card: a description, its data, and its measured figures.

Depends on figures and on the weights' file. Invariant: a figure in the text was measured.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from model_store.evaluation.nine_cells import CellMeans
from model_store.recipes.tiny.card import filled

_NORMAL = 1.96
_ABOUT = """\
The reranker that `make serve` starts: small enough to ship with the code, and it knows what English words mean. It reads a query
and a document, each text, images, or both, and answers yes or no; the score is logit(yes) - logit(no) in the prompt of GMR. For
production, serve a GMR checkpoint of full size (`RERANK_MODEL`).

- Architecture: `qwen2_5_vl`, {parameters:.1f} M parameters: 4 language layers of width 384, heads of 64; 4 vision layers of
  width 128, heads of 32.
- Tokenizer: byte-level BPE of 16,384 tokens with Qwen's pre-tokenizer and control tokens, learnt from real texts.
- Images: 16 to 64 tokens of 28x28 pixels. Pairs: at most 3,200 tokens.
- Weights: bf16, made from gmr-tiny on two CPU cores by `make mini`, {run}.

## What it learnt from

gmr-tiny, and packages of public registries: no text or picture of theirs is in the code, and this is the list (`lineage` in
`manifest.json` has versions and digests).

{sources}

In 256 dimensions of its states it computes what gmr-tiny does. In 128 others it compares the weighted mean meanings of both
sides: a token's meaning began as all-MiniLM-L6-v2's vector of the word (Apache-2.0), and was trained so that means of texts are
as near to each other as that encoder's vectors of the texts; a picture's is a linear map of gmr-tiny's visual features to the
meaning of its name. An adapter of the last layer weighs both, by the paper's SFT loss (eq. 4). The comparison is not the paper's.

Questions about manual pages and Python's documentation were written for held-out pages; sources are split by document, and
pictures by title: `gmr data check --held-out` found no held-out question, passage or picture among its rows. The generated cells
are split as gmr-tiny's.

## What it can do

Held-out generated queries, {queries} a cell, {candidates} candidates each: one is relevant, half of the others are near
misses. Half of the queries ask with the cell's own instruction, half with the default one. fp32 scores of these very files;
ties count against the model.

| cell | nDCG@10 | relevant document first | nDCG@10 of a random order | nDCG@10 of BM25 |
|---|---|---|---|---|
{table}

{verdict} The queries of T-T are words of the relevant passage, which is BM25's home ground.

Real questions, and pictures by a word of their name: how often the relevant one of 20 candidates is first, with its 95 %
interval (Wilson). The candidates are of the same source; everyday questions have five. Mixed by rank is reciprocal rank fusion,
in which a document that shares no word with the question has no rank of BM25's.

| | queries | first | BM25 first | chance |
|---|---|---|---|---|
{real}

## What it cannot do

It compares mean meanings of words: word order, negation and numbers hardly count, it knows no facts, and a long document about
many things is near to nothing. It names drawn shapes and printed headlines, and guesses at other pictures. Do not rank anything
that matters with it.
"""


@dataclass(frozen=True, slots=True)
class RealHits:
    """The share of queries whose relevant candidate is first; `bm25` is None where there is no
    text."""

    kind: str
    queries: int
    candidates: int
    first: float
    bm25: float | None

    @property
    def row(self) -> str:
        """A row of the card's table."""
        low, high = wilson(self.first, self.queries)
        of_words = "-" if self.bm25 is None else f"{self.bm25:.3f}"
        chance = 1 / self.candidates
        first = f"{self.first:.3f} ({low:.2f} to {high:.2f})"
        return f"| {self.kind} | {self.queries} | {first} | {of_words} | {chance:.3f} |"


def about(
    lines: Sequence[CellMeans],
    folder: Path,
    *,
    real: Sequence[RealHits],
    sources: str,
    minutes: float | None,
) -> str:
    """The text of gmr-mini for the weights in a folder; `minutes` are those of the one run that made
    everything, None where there were several."""
    run = (
        "in several runs" if minutes is None else f"from nothing in one go of {minutes:.0f} minutes"
    )
    rows = "\n".join(line.row for line in real)
    return filled(_ABOUT, lines, folder, real=rows, sources=sources, run=run)


def wilson(share: float, count: int) -> tuple[float, float]:
    """The 95 % interval of a share of so many (Wilson, 1927)."""
    squared = _NORMAL**2 / count
    middle = (share + squared / 2) / (1 + squared)
    half = _NORMAL * math.sqrt(share * (1 - share) / count + squared / (4 * count)) / (1 + squared)
    return middle - half, middle + half
