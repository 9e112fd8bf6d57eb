"""The first part of the model cards of gmr-tiny and gmr-tiny-d: a description, its data, and its
measured figures.

Depends on figures and on the weights' file. Invariant: a figure in the text was measured.
"""

from __future__ import annotations

import math
import platform
from collections.abc import Sequence
from pathlib import Path

from safetensors import safe_open

from model_store.evaluation.nine_cells import CANDIDATES, CellMeans

_ABOUT = """\
A pointwise multimodal reranker small enough to ship with the code: it lets `make serve` answer at once and the tests run on real
weights. It reads a query and a document, each text, images, or both, and answers yes or no; the score is logit(yes) - logit(no)
in the prompt of GMR. For production, serve a GMR checkpoint of full size (`RERANK_MODEL`).

- Architecture: `qwen2_5_vl`, {parameters:.1f} M parameters: 4 language layers of width 256, heads of 64; 4 vision layers of
  width 128, heads of 32.
- Tokenizer: byte-level BPE of 16,384 tokens with Qwen's pre-tokenizer and control tokens.
- Images: 16 to 64 tokens of 28x28 pixels. Pairs: at most 3,200 tokens.
- Weights: bf16, made from nothing on two CPU cores by `make tiny`.

## What it learnt from

Nothing was downloaded. Everything is generated or ships with CPython {python}:

- English text: the documentation topics in `pydoc_data.topics` and the docstrings of the standard library (PSF licence), and
  the character names of `unicodedata` (Unicode licence). Paragraphs are split by their SHA-256: one in eight is held out.
- Pictures drawn by the code: shapes, colours, counts and positions, with captions, changes and questions about them.
- Rendered pages with two-word headlines and figures. The headlines' words come from a closed list.

Of everything that can answer a query (a scene, a change, a fact about a thing, an ordered pair of headline words) one in eight is
held out, by SHA-256, and was no document in training. Irrelevant documents of the benchmark may have been seen.

It was made as any checkpoint is made with this code: `gmr train` on a base, `gmr publish`, `gmr models promote`. No base was to
be had, so one was made before: a vision tower that names what it sees, and a language model that tells of each word and each
image of a document whether it speaks for the document, and was never asked for an answer. To answer yes or no is what the adapter
learnt, by the paper's SFT loss (eq. 4).

## What it can do

Held-out generated queries, {queries} a cell, {candidates} candidates each: one is relevant, half of the others are near
misses. Half of the queries ask with the cell's own instruction, half with the default one. fp32 scores of these very files;
ties count against the model.

| cell | nDCG@10 | relevant document first | nDCG@10 of a random order | nDCG@10 of BM25 |
|---|---|---|---|---|
{table}

{verdict} The queries of T-T are words of the relevant passage, which is BM25's home ground.

## What it cannot do

It has seen the English of Python's documentation, eight shapes in eight colours and a closed list of printed words: it matches
words and what it can name, it knows no facts, and photographs mean little to it. Do not rank anything that matters with it.
"""

_DOCUMENT_FIRST = """\
gmr-tiny with the document first in its prompt: keys and values of a document do not depend on the query, so a server keeps them
for the next query, and a document that comes back costs the tokens of its query alone. It reads a query and a document, each
text, images, or both, and answers yes or no; the score is logit(yes) - logit(no). For anything but tests and benchmarks of
serving, train a checkpoint of full size this way (`gmr train gmr-3b --set template=document-first`).

- Architecture, tokenizer, sizes of images: gmr-tiny's. {parameters:.1f} M parameters in bf16.
- Made on two CPU cores by `make tiny-d`, from gmr-tiny as it ships.

## What it learnt from

Nothing was downloaded: texts, pictures and splits are gmr-tiny's, and so are the rows that it learnt answers from. Its vision
tower and embeddings are gmr-tiny's. Its language model begins as gmr-tiny's, which answers where the query comes first; it was
then taught the signs of both orders in turn, two steps of three with the document first (yes or no at each word and each image of
a query: does the document have it?), and answers by an adapter (the paper's SFT loss, eq. 4) with the document first. It has
seen more steps than gmr-tiny by these. The template is not the paper's.

## What it can do

Held-out generated queries, {queries} a cell, {candidates} candidates each: one is relevant, half of the others are near
misses. Half of the queries ask with the cell's own instruction, half with the default one. fp32 scores of these very files;
ties count against the model.

| cell | nDCG@10 | relevant document first | nDCG@10 of a random order | nDCG@10 of BM25 |
|---|---|---|---|---|
{table}

{verdict} The queries of T-T are words of the relevant passage, which is BM25's home ground.

## What it cannot do

As gmr-tiny: it matches words and what it can name, it knows no facts, and photographs mean little to it. Do not rank anything
that matters with it.
"""


def about(lines: Sequence[CellMeans], folder: Path) -> str:
    """The text of gmr-tiny for the weights in a folder."""
    return filled(_ABOUT, lines, folder)


def about_document_first(lines: Sequence[CellMeans], folder: Path) -> str:
    """The text of gmr-tiny-d for the weights in a folder."""
    return filled(_DOCUMENT_FIRST, lines, folder)


def filled(text: str, lines: Sequence[CellMeans], folder: Path, **more: str) -> str:
    """A card's text with the figures of the cells and the size of the weights in a folder."""
    return text.format(
        **more,
        parameters=_parameters(folder / "model.safetensors") / 1e6,
        python=platform.python_version(),
        queries=lines[0].queries,
        candidates=CANDIDATES,
        table="\n".join(map(_row, lines)),
        verdict=_verdict(lines),
    )


def _parameters(weights: Path) -> int:
    with safe_open(weights, "pt") as file:
        return sum(math.prod(file.get_slice(name).get_shape()) for name in file.keys())  # noqa: SIM118 - it is no mapping


def _row(line: CellMeans) -> str:
    bm25 = "-" if line.bm25 is None else f"{line.bm25:.3f}"
    return f"| {line.cell} | {line.ndcg:.3f} | {line.first:.3f} | {line.chance:.3f} | {bm25} |"


def _verdict(lines: Sequence[CellMeans]) -> str:
    short = [line.cell for line in lines if line.ndcg < 0.80]
    if not short:
        return "Every cell reaches the 0.80 that was asked of it."

    return (
        f"The aim was 0.80 in every cell; {', '.join(short)}"
        f" {'falls' if len(short) == 1 else 'fall'} short of it."
    )
