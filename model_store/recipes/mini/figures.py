"""Shares of queries whose relevant candidate comes first: real questions, and pictures by a word of
their name; beside BM25, and mixed with it by rank.

Depends on held-out groups and on weights in a folder. Invariant: of equal scores, the relevant
candidate's is the last.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import takewhile
from pathlib import Path

import torch
from PIL import Image
from transformers import Qwen2_5_VLForConditionalGeneration as Network

from model_store.networks.score_row import score_row
from model_store.recipes.mini.card import RealHits
from model_store.recipes.mini.pictures.groups import asked_for
from model_store.recipes.mini.preparation import SEED, Preparation
from model_store.recipes.mini.sources.pictures.named import NamedPicture, by_source
from model_store.recipes.mini.texts.measures import Measured, everyday_questions
from model_store.recipes.tiny.packed_batches import PackedBatcher
from model_store.recipes.tiny.train import pictures_of, read
from model_store.retrieval.words import WordIndex
from model_store.synthetic.cells import INSTRUCTIONS
from model_store.synthetic.examples import Example, Side

_AT_ONCE = 4
_RANK_OFFSET = 60  # of reciprocal rank fusion (Cormack et al., 2009)
Scores = Sequence[float]


def real_hits(
    folder: Path, prepared: Preparation, pictures: Sequence[NamedPicture], queries: int
) -> list[RealHits]:
    """The shares for the weights in a folder; `queries` for each source of pictures."""
    network = Network.from_pretrained(folder, dtype=torch.float32, local_files_only=True).eval()
    batcher = prepared.batcher
    found: list[RealHits] = []
    groups = prepared.measured | {"everyday questions": everyday_questions()}
    for kind, measured in groups.items():
        examples = [_of_texts(group, batcher.default_instruction) for group in measured]
        ours = list(_scores(network, batcher, examples))
        words = [list(WordIndex(group.documents).scores(group.query)) for group in measured]
        mixed = [mixed_by_rank(*both) for both in zip(ours, words, strict=True)]
        candidates = max(len(group.documents) for group in measured)
        for name, scores in ((kind, ours), (f"{kind}, mixed with BM25 by rank", mixed)):
            share, of_words = _first(scores), _first(words)
            found.append(RealHits(name, len(measured), candidates, share, of_words))

    for source, of_source in by_source(pictures).items():
        examples = [_of_pictures(*asked) for asked in asked_for(of_source, queries, SEED)]
        share = _first(list(_scores(network, batcher, examples)))
        candidates = max(len(example.documents) for example in examples)
        found.append(RealHits(source, len(examples), candidates, share, None))
    return found


def _of_texts(group: Measured, instruction: str) -> Example:
    documents: list[Side] = [(text,) for text in group.documents]
    return Example("T-T", instruction, (group.query,), documents, frozenset())


def _of_pictures(query: str, candidates: Sequence[NamedPicture]) -> Example:
    documents: list[Side] = [(_opened(picture.path),) for picture in candidates]
    return Example("T-I", INSTRUCTIONS["T-I"], (query,), documents, frozenset())


def _opened(path: Path) -> Image.Image:
    """A kept picture on white, as the service reads it."""
    with Image.open(path) as kept:
        picture = kept.convert("RGBA")
    ground = Image.new("RGBA", picture.size, "white")
    image = Image.alpha_composite(ground, picture).convert("RGB")
    image.info["words"] = frozenset()
    return image


@torch.inference_mode()
def _scores(
    network: Network, batcher: PackedBatcher, examples: Sequence[Example]
) -> Iterator[Scores]:
    """Scores of each example's documents, in the order of the examples."""
    row = score_row(network, batcher.readout, batcher.label_ids)
    start = 0
    while start < len(examples):
        count = len(examples[start].documents)
        near = examples[start : start + _AT_ONCE]
        alike = list(takewhile(lambda example: len(example.documents) == count, near))  # noqa: B023
        batch = batcher.batch(alike)
        hidden = read(network, batch, pictures_of(network, batch))
        yield from (hidden[batch.last].float() @ row).tolist()
        start += len(alike)


def _first(groups: Sequence[Scores]) -> float:
    """The share of groups whose first candidate has the only highest score."""
    return sum(scores[0] > max(scores[1:]) for scores in groups) / max(len(groups), 1)


def mixed_by_rank(ours: Scores, words: Scores) -> list[float]:
    """Reciprocal rank fusion; a document that the query shares no word with is not found by BM25,
    and has no rank of it."""
    mixed: list[float] = []
    for first, second, score in zip(_ranks(ours), _ranks(words), words, strict=True):
        found = 1 / (_RANK_OFFSET + second) if score > 0 else 0.0
        mixed.append(1 / (_RANK_OFFSET + first) + found)
    return mixed


def _ranks(scores: Scores) -> list[int]:
    """Ranks from 1; of equal scores, the later ones are ranked first."""
    order = sorted(range(len(scores)), key=lambda number: (-scores[number], -number))
    ranks = [0] * len(scores)
    for rank, number in enumerate(order, start=1):
        ranks[number] = rank
    return ranks
