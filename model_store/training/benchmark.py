"""A benchmark of one's own rows: each row's documents are ranked, for the gate of `gmr models
promote`.

Depends on rows, networks and metrics. Invariant: every document of a row is scored as the service
scores it, and a positive loses all ties. The benchmark's name is a digest of the rows' queries,
instructions, documents and pictures, whatever the file is called.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch

from model_store.checkpoint import Checkpoint
from model_store.errors import DataError
from model_store.evaluation.metrics import hit_rate, ndcg, ranked
from model_store.evaluation.results import MAX_QUERIES, Results
from model_store.families.readout import GeneratedScore
from model_store.manifest import CheckpointUnusable, manifest_digest
from model_store.networks.score_row import score_row
from model_store.training.batches import Batcher
from model_store.training.data.row_index import Examples
from model_store.training.data.rows import Example, Side
from model_store.training.data.validation import SHOWN, check
from model_store.training.erank.writing import AnswerWriter
from model_store.training.groups import Draw, Grouper
from model_store.training.reranker import PairReader, load_network
from model_store.training.rows_benchmark import query_name, rows_digest

CUT = 10
METRICS: dict[str, Callable[[Sequence[float]], float]] = {
    f"ndcg@{CUT}": lambda relevances: ndcg(relevances, CUT),
    "hit@1": lambda relevances: hit_rate(relevances, 1),
    "hit@5": lambda relevances: hit_rate(relevances, 5),
    f"hit@{CUT}": lambda relevances: hit_rate(relevances, CUT),
}
"""Functions of a row's relevances in ranked order."""
DATASET = "rows"
DOCUMENTS_AT_ONCE = 64
"""Documents of a row whose pictures are in memory together."""
BATCH_TOKENS = 16_384
"""Tokens of one forward pass, padding included; a single pair may have more."""


@dataclass(frozen=True, slots=True)
class Measured:
    """Values by metric and query, and the kind of each query's pairs, such as T-I."""

    benchmark: str
    checkpoint: str
    values: dict[str, dict[str, float]]
    kinds: dict[str, str]

    def results(self, metric: str) -> Results:
        """The values of one metric, as the gate compares them."""
        return Results(
            benchmark=self.benchmark,
            metric=metric,
            checkpoint=self.checkpoint,
            datasets={DATASET: self.values[metric]},
        )


class Rows:
    """The rows of a file, all checked before a network is loaded."""

    def __init__(self, path: Path, checkpoint: Checkpoint) -> None:
        """Raises `DataError` with a line for each of the first problems, and
        `CheckpointUnusable`."""
        manifest = checkpoint.manifest
        unused = Draw(1, 0.0, 0)
        self.grouper = Grouper(checkpoint.family, manifest.default_instruction, unused)
        self.examples = Examples(path)
        if not 1 <= len(self.examples) <= MAX_QUERIES:
            raise DataError(
                f"{path}: there are {len(self.examples)} rows; from 1 to {MAX_QUERIES} can be"
                " measured."
            )

        problems = list(check(path).problems) or self._problems()
        if problems:
            raise DataError("\n".join(problems))

        self.benchmark = f"rows-{rows_digest(self.examples)[:16]}"

    def __len__(self) -> int:
        return len(self.examples)

    def _problems(self) -> list[str]:
        """The first rows that cannot be ranked, a sentence each."""
        problems: list[str] = []
        for number in range(len(self)):
            example = self.examples[number]
            problem = self.grouper.unreadable(example)
            if not example.negatives:
                problem = f"{example.location}: there is no negative to rank the positives against."
            if problem is not None:
                problems.append(problem)
            if len(problems) == SHOWN:
                break
        return problems


def measure(
    checkpoint: Checkpoint,
    rows: Rows,
    *,
    device: str = "cpu",
    documents_at_once: int = DOCUMENTS_AT_ONCE,
    batch_tokens: int = BATCH_TOKENS,
    progress: Callable[[int], None] = lambda rows: None,
) -> Measured:
    """Every metric of every row, in fp32 on a CPU and bf16 on a GPU, as the service computes.

    `progress` is called with the number of rows done since the last call. Raises
    `CheckpointUnusable` and `DataError`.
    """
    digest = manifest_digest(checkpoint.folder)
    scorer = open_scorer(checkpoint, rows.grouper, device, documents_at_once, batch_tokens)
    values: dict[str, dict[str, float]] = {metric: {} for metric in METRICS}
    kinds: dict[str, str] = {}

    for number in range(len(rows)):
        example = rows.examples[number]
        scores = scorer.score(example)
        if not all(map(math.isfinite, scores)):
            raise CheckpointUnusable(
                f"{checkpoint.name}: a document of {example.location} has no finite score."
            )

        query = query_name(example)
        relevances = ranked_relevances(scores, len(example.positives))
        for metric, value in METRICS.items():
            values[metric][query] = value(relevances)
        kinds[query] = f"{_kind(example.query)}-{_kind(example.positives[0])}"
        progress(1)

    return Measured(rows.benchmark, f"sha256:{digest}", values, kinds)


def ranked_relevances(scores: Sequence[float], positives: int) -> list[float]:
    """Relevances by falling score, a positive behind all that it is tied with.

    The scores of the positives come first in `scores`.
    """
    relevances = [0.0] * (len(scores) - positives) + [1.0] * positives
    return ranked([*scores[positives:], *scores[:positives]], relevances)


class RowScorer(Protocol):
    """Scores a row's documents with a checkpoint's own read-out."""

    def score(self, example: Example) -> list[float]:
        """Scores of the positives and then of the negatives; raises `DataError`."""


def open_scorer(
    checkpoint: Checkpoint,
    grouper: Grouper,
    device: str,
    documents_at_once: int = DOCUMENTS_AT_ONCE,
    batch_tokens: int = BATCH_TOKENS,
) -> RowScorer:
    """Load a checkpoint to score rows with; raises `CheckpointUnusable`."""
    dtype = torch.bfloat16 if device == "cuda" else torch.float32
    network = load_network(checkpoint, dtype).to(device).eval()
    if isinstance(checkpoint.readout, GeneratedScore):
        return _WrittenScores(checkpoint, checkpoint.readout, network, grouper)
    return _ReadScores(checkpoint, network, grouper, documents_at_once, batch_tokens)


class _WrittenScores:
    """Scores that the model writes as text; a document for which it writes none comes last."""

    def __init__(
        self, checkpoint: Checkpoint, readout: GeneratedScore, network: Any, grouper: Grouper
    ) -> None:
        self._grouper, self._lowest = grouper, readout.lowest
        self._writer = AnswerWriter(network, checkpoint.family.tokenizer, readout)

    def score(self, example: Example) -> list[float]:
        group = self._grouper.group_of(example, example.documents)
        prompts = [list(prompt.ids) for prompt in group.prompts]
        scores: list[float] = []
        for answer in self._writer.write(prompts):
            scores.append(self._lowest - 1.0 if answer.score is None else answer.score)
        return scores


class _ReadScores:
    """Logits of the labels; a row's documents share batches."""

    def __init__(
        self,
        checkpoint: Checkpoint,
        network: Any,
        grouper: Grouper,
        documents_at_once: int,
        batch_tokens: int,
    ) -> None:
        self._network, self._grouper = network, grouper
        self._documents_at_once = documents_at_once
        family, architecture = checkpoint.family, checkpoint.decoder
        self._row = score_row(self._network, family.readout, family.label_ids)
        self._reader = PairReader(family, architecture)
        self._batcher = Batcher(budget=batch_tokens, family=family, architecture=architecture)

    @torch.inference_mode()
    def score(self, example: Example) -> list[float]:
        """Scores of the positives and then of the negatives; raises `DataError`."""
        documents = example.documents
        scores: list[float] = []
        for start in range(0, len(documents), self._documents_at_once):
            chunk = documents[start : start + self._documents_at_once]
            (unit,) = self._batcher.units([self._grouper.group_of(example, chunk)])
            for batch in unit.batches:
                hidden = self._reader.read(self._network, batch.to(self._network.device))
                scores += (hidden.float() @ self._row).tolist()

        return scores


def _kind(side: Side) -> str:
    """I, T or IT."""
    image = "" if side.image is None else "I"
    text = "" if side.text is None else "T"
    return image + text
