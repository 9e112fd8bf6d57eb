"""gmr-tiny's own benchmark: nine cells of held-out generated queries, 20 candidates each, measured
on the published files.

Knows metrics and cells. Invariant: what answers a query here was no document in training: scenes,
facts, headlines (as ordered pairs of words), changes and passages are held out by the digest of
what they say. Irrelevant pictures may have been seen.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from random import Random
from statistics import fmean

import torch
from tokenizers import Tokenizer
from transformers import Qwen2_5_VLForConditionalGeneration as Network

from model_store.checkpoint import Checkpoint
from model_store.evaluation.metrics import expected_ndcg_of_chance, ndcg, ranked
from model_store.evaluation.results import Results
from model_store.families.tokens import TOKENIZER_FILE
from model_store.folders.plain import refuse_quantised
from model_store.manifest import manifest_digest
from model_store.recipes.tiny.batches import Batcher
from model_store.recipes.tiny.train import answer_head, pictures_of, read
from model_store.synthetic import cells, lexical
from model_store.synthetic.examples import Example
from model_store.synthetic.texts import passages

CANDIDATES = 20
CUT = 10
_QUERIES_AT_ONCE = 4

Score = Callable[[list[Example]], list[list[float]]]
"""Examples to the scores of their documents."""


@dataclass(frozen=True, slots=True)
class Line:
    """One cell: means over its queries; `bm25` is None where BM25 has no text to read."""

    cell: str
    queries: int
    ndcg: float
    first: float
    chance: float
    bm25: float | None


def network_scores(network: Network, batcher: Batcher) -> Score:
    """Scores by logit(yes) - logit(no)."""
    head = answer_head(network, batcher.label_ids)

    @torch.inference_mode()
    def score(examples: list[Example]) -> list[list[float]]:
        batch = batcher.batch(examples)
        hidden = read(network, batch, pictures_of(network, batch))
        scores: list[list[float]] = (hidden[batch.last].float() @ head).tolist()
        return scores

    return score


def questions(cell: str, count: int) -> Iterator[Example]:
    """The benchmark's queries of a cell; every other one asks with the default instruction."""
    for number in range(count):
        yield cells.sample(
            cell,
            Random(f"heldout/{cell}/{number}"),
            "heldout",
            CANDIDATES - 1,
            plain=number % 2 == 1,
        )


def evaluate(
    checkpoint: Checkpoint, queries: int, told: Callable[[str], None] = lambda cell: None
) -> Results:
    """A checkpoint's nDCG@10 for every query of the benchmark; `told` is called with each cell that
    is done.

    `queries` is part of the benchmark's name: the first 50 of 200 are another benchmark than all.
    Raises `CheckpointUnusable`.
    """
    refuse_quantised(
        checkpoint.name, checkpoint.folder, "and this measures with torch, which does not run them"
    )
    tokenizer = Tokenizer.from_file(str(checkpoint.folder / TOKENIZER_FILE))
    network = Network.from_pretrained(
        checkpoint.folder, dtype=torch.float32, local_files_only=True
    ).eval()
    score = network_scores(network, Batcher(checkpoint.family, tokenizer))
    datasets = {}
    for cell in cells.CELLS:
        orders = _orders(score, list(questions(cell, queries)))
        datasets[cell] = {
            f"{cell}/{number}": ndcg(order, CUT) for number, order in enumerate(orders)
        }
        told(cell)
    digest = manifest_digest(checkpoint.folder)
    return Results(
        benchmark=f"nine-cells-{queries}",
        metric=f"ndcg@{CUT}",
        checkpoint=f"sha256:{digest}",
        datasets=datasets,
    )


def lines_of(results: Results) -> list[Line]:
    """Results of `evaluate` as lines. One document is relevant, so it is first where the metric is
    1."""
    return [_line(cell, list(values.values())) for cell, values in results.datasets.items()]


def _line(cell: str, values: Sequence[float]) -> Line:
    return Line(
        cell=cell,
        queries=len(values),
        ndcg=fmean(values),
        first=fmean(value == 1.0 for value in values),
        chance=expected_ndcg_of_chance(CANDIDATES, CUT),
        bm25=fmean(ndcg(_order(_bm25(each)), CUT) for each in questions(cell, len(values)))
        if cell == "T-T"
        else None,
    )


def _orders(score: Score, examples: list[Example]) -> list[list[float]]:
    """Relevances in ranked order, a list a query."""
    orders = []
    for start in range(0, len(examples), _QUERIES_AT_ONCE):
        orders += [_order(found) for found in score(examples[start : start + _QUERIES_AT_ONCE])]
    return orders


def _order(scores: list[float]) -> list[float]:
    """Relevances by falling score; the relevant document, which comes first, loses all ties."""
    relevances = [0.0] * (len(scores) - 1) + [1.0]
    return ranked([*scores[1:], scores[0]], relevances)


def _bm25(example: Example) -> list[float]:
    """BM25's scores over the held-out passages, for a query of T-T."""
    places = {text: place for place, text in enumerate(passages("heldout"))}
    found = lexical.index("heldout").scores(" ".join(lexical.content_terms(str(example.query[0]))))
    return [found.get(places[str(document[0])], 0.0) for document in example.documents]
