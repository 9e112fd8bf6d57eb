"""A checkpoint on rows of one's own: each row's documents are ranked, query by query, for the gate
of `gmr models promote`.

Knows rows, networks and metrics. Invariant: every document of a row is scored as the service scores
it, a relevant one loses all ties, and the benchmark's name stands for what was asked: queries,
instructions, documents and pictures, whatever the file is called.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from transformers import Qwen2_5_VLForConditionalGeneration as Network

from model_store.checkpoint import Checkpoint
from model_store.evaluation.metrics import hit_rate, ndcg, ranked
from model_store.evaluation.results import MAX_QUERIES, Results
from model_store.manifest import CheckpointUnusable, manifest_digest
from model_store.training.batches import units
from model_store.training.data.identity import image_digest
from model_store.training.data.row_index import Examples
from model_store.training.data.rows import DataError, Example, Side
from model_store.training.data.validation import SHOWN, check
from model_store.training.groups import Draw, Grouper
from model_store.training.reranker import read_pairs

CUT = 10
METRICS: dict[str, Callable[[Sequence[float]], float]] = {
    f"ndcg@{CUT}": lambda relevances: ndcg(relevances, CUT),
    "hit@1": lambda relevances: hit_rate(relevances, 1),
    "hit@5": lambda relevances: hit_rate(relevances, 5),
    f"hit@{CUT}": lambda relevances: hit_rate(relevances, CUT),
}
"""Of relevances in ranked order."""
DATASET = "rows"
_DOCUMENTS_AT_ONCE = 64
"""Documents of a row whose pictures are in memory together."""
_TOKENS = 16_384
"""Of one forward pass, padding included; a pair may have more."""


@dataclass(frozen=True, slots=True)
class Measured:
    """Values by query, by metric; and what kind of pair each query asks for, such as T-I."""

    benchmark: str
    checkpoint: str
    values: dict[str, dict[str, float]]
    kinds: dict[str, str]

    def results(self, metric: str) -> Results:
        """One metric's values as the gate compares them."""
        return Results(
            benchmark=self.benchmark,
            metric=metric,
            checkpoint=self.checkpoint,
            datasets={DATASET: self.values[metric]},
        )


class Rows:
    """The rows of a file, all of them read once: what cannot be ranked is refused before a network
    is loaded."""

    def __init__(self, path: Path, checkpoint: Checkpoint) -> None:
        """Raises `DataError` with a line for each of the first problems, and
        `CheckpointUnusable`."""
        manifest = checkpoint.manifest
        unused = Draw(1, 0.0, 0)
        self.grouper = Grouper(
            checkpoint.family, manifest.pixels, manifest.default_instruction, unused
        )
        self.examples = Examples(path)
        if not 1 <= len(self.examples) <= MAX_QUERIES:
            raise DataError(
                f"{path}: there are {len(self.examples)} rows; from 1 to {MAX_QUERIES} can be"
                " measured."
            )

        report = check(path)
        problems = list(report.problems)
        if not problems:
            problems = self._problems()
        if problems:
            raise DataError("\n".join(problems))
        self.benchmark = f"rows-{self._digest()[:16]}"

    def __len__(self) -> int:
        return len(self.examples)

    def _problems(self) -> list[str]:
        problems: list[str] = []
        for number in range(len(self)):
            example = self.examples[number]
            if not example.negatives:
                problems.append(
                    f"{example.location}: there is no negative to rank the positives against."
                )
            elif (problem := self.grouper.unreadable(example)) is not None:
                problems.append(problem)
            if len(problems) == SHOWN:
                break
        return problems

    def _digest(self) -> str:
        total = hashlib.sha256()
        for number in range(len(self)):
            example = self.examples[number]
            documents = [*example.positives, *(negative.side for negative in example.negatives)]
            told = [
                example.instruction,
                len(example.positives),
                *map(_content, (example.query, *documents)),
            ]
            total.update(repr(told).encode() + b"\n")
        return total.hexdigest()


def measure(
    checkpoint: Checkpoint,
    rows: Rows,
    *,
    device: str = "cpu",
    told: Callable[[int], None] = lambda rows: None,
) -> Measured:
    """Every metric of every row; `told` is called with the number of rows that were done.

    fp32 on a CPU, bf16 on a GPU, as the service. Raises `CheckpointUnusable` and `DataError`.
    """
    digest = manifest_digest(checkpoint.folder)
    score = _scorer(checkpoint, rows.grouper, device)
    values: dict[str, dict[str, float]] = {metric: {} for metric in METRICS}
    kinds: dict[str, str] = {}

    for number in range(len(rows)):
        example = rows.examples[number]
        query = _name(example)
        scores = score(example)
        if not all(map(math.isfinite, scores)):
            raise CheckpointUnusable(
                f"{checkpoint.name}: a document of {example.location} has no finite score."
            )
        relevances = _ranked(scores, len(example.positives))
        for metric, value in METRICS.items():
            values[metric][query] = value(relevances)
        kinds[query] = f"{_kind(example.query)}-{_kind(example.positives[0])}"
        told(1)
    return Measured(rows.benchmark, f"sha256:{digest}", values, kinds)


def _scorer(
    checkpoint: Checkpoint, grouper: Grouper, device: str
) -> Callable[[Example], list[float]]:
    """An example to the scores of its positives and then of its negatives."""
    dtype = torch.bfloat16 if device == "cuda" else torch.float32
    try:
        network = Network.from_pretrained(
            checkpoint.folder,
            dtype=dtype,
            attn_implementation="sdpa",
            local_files_only=True,
            use_safetensors=True,
        )
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        raise CheckpointUnusable(
            f"{checkpoint.name}: the weights cannot be loaded ({type(error).__name__})."
        ) from None

    network = network.to(device).eval()
    family = checkpoint.family
    yes, no = network.get_output_embeddings().weight[list(family.label_ids)].float()

    @torch.inference_mode()
    def score(example: Example) -> list[float]:
        documents = [*example.positives, *(negative.side for negative in example.negatives)]
        scores: list[float] = []
        for start in range(0, len(documents), _DOCUMENTS_AT_ONCE):
            group = grouper.group_of(example, documents[start : start + _DOCUMENTS_AT_ONCE])
            (unit,) = units([group], max(_TOKENS, group.longest), family.image_token_id)
            for batch in unit.batches:
                hidden = read_pairs(
                    network.model, batch.to(torch.device(device)), family.image_token_id
                )
                scores += (hidden.float() @ (yes - no)).tolist()
        return scores

    return score


def _ranked(scores: Sequence[float], positives: int) -> list[float]:
    """Relevances by falling score, a positive behind all that it is tied with; the positives'
    scores come first."""
    relevances = [0.0] * (len(scores) - positives) + [1.0] * positives
    return ranked([*scores[positives:], *scores[:positives]], relevances)


def _name(example: Example) -> str:
    """The row's id, or its line where it has none: the file's name is no part of a query."""
    name, _, line = example.location.rpartition(":")
    return f"row {line}" if example.id == f"{Path(name).name}:{line}" else example.id


def _content(side: Side) -> tuple[str | None, str | None]:
    return side.text, None if side.image is None else image_digest(side.image).hex()


def _kind(side: Side) -> str:
    return "I" * (side.image is not None) + "T" * (side.text is not None)
