"""The nDCG@10 of a cascade against that of its last stage alone, on the benchmark of the nine
generated cells.

Does not depend on networks: a caller gives the scores of each stage. The order is that of
`model_store.cascades`, which gateways use. Invariant: both are measured on the same scores of the
last stage, so that they differ only by the documents that it does not score.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean

import numpy as np
import numpy.typing as npt

from model_store.cascades.agreement import discordance, overlap
from model_store.cascades.description import CellEvidence, Evidence, Stage
from model_store.cascades.keep_rule import kept, next_stage
from model_store.cascades.total_order import total_order
from model_store.evaluation.bootstrap import LEVEL, RESAMPLES, bootstrap
from model_store.evaluation.metrics import ndcg
from model_store.evaluation.nine_cells import CUT, questions
from model_store.synthetic.cells import CELLS
from model_store.synthetic.examples import Example, Side

_QUERIES_AT_ONCE = 4


@dataclass(frozen=True, slots=True)
class ScoredExample:
    """The raw scores of an example's documents by one stage, and the tokens of its prompts: those
    that all documents share, and those of each."""

    scores: Sequence[float]
    prefix_tokens: int
    document_tokens: Sequence[int]


ScoreStage = Callable[[list[Example]], list[ScoredExample]]
"""Examples to their scores by one stage."""


@dataclass(frozen=True, slots=True)
class StageScorer:
    """A stage of a cascade that is measured, and its scores, whose log-odds are
    (score - shift) / scale. Its network takes `operations` a token."""

    stage: Stage
    score: ScoreStage
    operations: float
    scale: float = 1.0
    shift: float = 0.0


@dataclass(frozen=True, slots=True)
class CascadeBenchmark:
    """Queries of generated cells.

    Generated pictures are smaller than the photos and scans that services get. `enlarged` ones have
    the largest size that the last stage reads, so that a stage of smaller images has something to
    leave out.
    """

    queries: int
    cells: Sequence[str] = CELLS
    enlarged: bool = False

    @property
    def name(self) -> str:
        """The name of these very queries."""
        return f"nine-cells-{self.queries}{'-enlarged' if self.enlarged else ''}"


@dataclass(slots=True)
class _Cell:
    """Values of a cell's queries, one an entry; tokens are sums."""

    cascade: list[float] = field(default_factory=list)
    last: list[float] = field(default_factory=list)
    discordance: list[float] = field(default_factory=list)
    overlap: list[float] = field(default_factory=list)
    scored: list[list[float]] = field(default_factory=list)
    tokens: list[list[int]] = field(default_factory=list)
    last_tokens: int = 0


def measure_cascade(
    scorers: Sequence[StageScorer],
    benchmark: CascadeBenchmark,
    max_loss: float,
    progress: Callable[[int], None] = lambda cells: None,
) -> Evidence:
    """Measure a cascade on the queries of a benchmark; `progress` is called for each cell.

    `max_loss` is recorded beside the difference.
    """
    digest, queries = hashlib.sha256(benchmark.name.encode()), benchmark.queries
    cells: dict[str, _Cell] = {}
    for name in benchmark.cells:
        cell = cells[name] = _Cell()
        examples = list(questions(name, queries))
        for example in examples:
            for part in _bytes_of(example):
                digest.update(part)
        for start in range(0, queries, _QUERIES_AT_ONCE):
            _measure(scorers, examples[start : start + _QUERIES_AT_ONCE], cell)
        progress(1)
    operations = np.array([scorer.operations for scorer in scorers])
    return _evidence(cells, benchmark.name, f"sha256:{digest.hexdigest()}", max_loss, operations)


def _measure(scorers: Sequence[StageScorer], examples: list[Example], cell: _Cell) -> None:
    """Add the values of some examples to their cell."""
    by_stage = [scorer.score(examples) for scorer in scorers]
    for number, example in enumerate(examples):
        stages = [_relevant_last(scored[number]) for scored in by_stage]
        order = _cascade(scorers, stages, example, cell)

        last = stages[-1]
        alone = sorted(range(len(last.scores)), key=lambda index: (-last.scores[index], index))
        cell.cascade.append(_ndcg(order))
        cell.last.append(_ndcg(alone))
        cell.discordance.append(discordance(order, alone))
        cell.overlap.append(overlap(order, alone))
        cell.last_tokens += last.prefix_tokens + sum(last.document_tokens)


def _cascade(
    scorers: Sequence[StageScorer],
    stages: Sequence[ScoredExample],
    example: Example,
    cell: _Cell,
) -> list[int]:
    """The order of an example's documents by a cascade; its tokens are added to the cell."""
    described = [scorer.stage for scorer in scorers]
    documents = len(example.documents)
    pictures = _has_pictures(example)
    remaining = list(range(documents))
    scored: list[dict[int, float]] = [{} for _ in stages]
    tokens = [0] * len(stages)

    number = next_stage(described, 0, documents, pictures=pictures)
    while True:
        own, scorer = stages[number], scorers[number]
        scored[number] = {
            index: (own.scores[index] - scorer.shift) / scorer.scale for index in remaining
        }
        tokens[number] = own.prefix_tokens + sum(own.document_tokens[index] for index in remaining)

        rule = scorer.stage.keep
        if rule is None:
            break
        remaining = kept(scored[number], rule)
        number = next_stage(described, number + 1, len(remaining), pictures=pictures)

    cell.tokens.append(tokens)
    cell.scored.append([len(each) / documents for each in scored])
    return [placed.index for placed in total_order(scored)]


def _relevant_last(scored: ScoredExample) -> ScoredExample:
    """The same documents with the relevant one, which is the first, as the last: it loses ties."""
    first_score, *scores = scored.scores
    first_tokens, *tokens = scored.document_tokens
    return ScoredExample([*scores, first_score], scored.prefix_tokens, [*tokens, first_tokens])


def _ndcg(order: Sequence[int]) -> float:
    """The nDCG@10 of an order whose last document by index is the relevant one."""
    return ndcg([float(index == len(order) - 1) for index in order], CUT)


def _evidence(
    cells: Mapping[str, _Cell],
    benchmark: str,
    benchmark_digest: str,
    max_loss: float,
    operations: npt.NDArray[np.float64],
) -> Evidence:
    described = {name: _cell_evidence(cell, operations) for name, cell in cells.items()}
    differences = [_differences(cell) for cell in cells.values()]
    low, high = _interval(differences)
    tokens = np.sum([_tokens(cell) for cell in cells.values()], axis=0)
    last_tokens = sum(cell.last_tokens for cell in cells.values())
    shares = np.concatenate([np.array(cell.scored) for cell in cells.values()])
    return Evidence(
        benchmark=benchmark,
        benchmark_digest=benchmark_digest,
        metric=f"ndcg@{CUT}",
        queries=sum(cell.queries for cell in described.values()),
        cascade=fmean(cell.cascade for cell in described.values()),
        last_stage=fmean(cell.last_stage for cell in described.values()),
        difference=float(np.mean([values.mean() for values in differences])),
        low=low,
        high=high,
        level=LEVEL,
        max_loss=max_loss,
        tokens=[int(count) for count in tokens],
        last_stage_tokens=last_tokens,
        saving=_saving(tokens, last_tokens, operations),
        scored=[float(share) for share in shares.mean(axis=0)],
        discordance=fmean(fmean(cell.discordance) for cell in cells.values()),
        overlap=fmean(fmean(cell.overlap) for cell in cells.values()),
        cells=described,
    )


def _cell_evidence(cell: _Cell, operations: npt.NDArray[np.float64]) -> CellEvidence:
    differences = _differences(cell)
    low, high = _interval([differences])
    return CellEvidence(
        queries=len(cell.cascade),
        cascade=fmean(cell.cascade),
        last_stage=fmean(cell.last),
        difference=float(differences.mean()),
        low=low,
        high=high,
        saving=_saving(_tokens(cell), cell.last_tokens, operations),
    )


def _tokens(cell: _Cell) -> npt.NDArray[np.int64]:
    """The tokens of each stage, over all queries of a cell."""
    columns = zip(*cell.tokens, strict=True)
    return np.array([sum(column) for column in columns], dtype=np.int64)


def _saving(
    tokens: npt.NDArray[np.int64], last_tokens: int, operations: npt.NDArray[np.float64]
) -> float:
    return float(last_tokens * operations[-1] / (tokens @ operations))


def _differences(cell: _Cell) -> npt.NDArray[np.float64]:
    return np.subtract(cell.cascade, cell.last, dtype=np.float64)


def _interval(differences: list[npt.NDArray[np.float64]]) -> tuple[float, float]:
    """The paired bootstrap's interval of the mean over cells."""
    means = bootstrap(differences, resamples=RESAMPLES, seed=0)
    low, high = np.quantile(means, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def _has_pictures(example: Example) -> bool:
    sides: list[Side] = [example.query, *example.documents]
    return any(not isinstance(part, str) for side in sides for part in side)


def _bytes_of(example: Example) -> Iterator[bytes]:
    """All that a reranker is given of an example, each part with its length before it."""
    sides: list[Side] = [(example.instruction,), example.query, *example.documents]
    for side in sides:
        yield len(side).to_bytes(8, "big")
        for part in side:
            if isinstance(part, str):
                content = b"t" + part.encode()
            else:
                content = f"i{part.mode} {part.width} {part.height} ".encode() + part.tobytes()
            yield len(content).to_bytes(8, "big")
            yield content
