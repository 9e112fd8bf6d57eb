"""A trained run on the generated nine cells: every held-out query's nDCG@10, all runs on the same
queries.

Knows networks, adapters and cells. Invariant: a document's score is what the run's loss taught, by
the run's own head: yes - no along the direction of SFT, yes alone along that of CL (paper, eq. 1
and 2); the relevant document loses all ties.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer
from torch import Tensor
from transformers import Qwen2_5_VLForConditionalGeneration as Network

from model_store.adapters.folder import read_adapter
from model_store.checkpoint import Checkpoint
from model_store.evaluation.metrics import ndcg, ranked
from model_store.evaluation.nine_cells import CUT, questions
from model_store.families.tokens import TOKENIZER_FILE
from model_store.recipes.ablations.variants import Variant
from model_store.recipes.tiny.batches import Batch, Batcher
from model_store.recipes.tiny.train import pictures_of, read
from model_store.synthetic import cells
from model_store.training.losses import NO, YES
from model_store.training.outcome import ADAPTER, HEAD
from model_store.training.publish.adapters import apply_adapter, load_base

Values = dict[str, dict[str, float]]
"""nDCG@10 by cell, then by query."""


class Benchmark:
    """The queries of the nine cells for one base. What its frozen vision tower makes of their
    pictures is kept: a few MB a cell and ten queries."""

    def __init__(self, base: Checkpoint, queries: int) -> None:
        self._base, self._queries = base, queries
        self._batches: dict[str, list[tuple[Batch, Tensor | None]]] = {}

    def measure(self, run: Path, variant: Variant) -> Values:
        """A finished run's values. Raises `PublishRefused` where its adapter is not of this
        base."""
        network = load_base(self._base, "cpu")
        if not self._batches:
            self._prepare(network)
        adapted: Network = apply_adapter(network, read_adapter(run / ADAPTER)).merge_and_unload()
        row = _along(variant, self._rows(adapted, run / HEAD))
        return {
            cell: {
                f"{cell}/{number}": _value(adapted, *each, row)
                for number, each in enumerate(batches)
            }
            for cell, batches in self._batches.items()
        }

    def _rows(self, network: Network, head: Path) -> Tensor:
        """The head's rows of yes and no: the run's own, where it trained them, or the
        vocabulary's."""
        if head.exists():
            return load_file(head)["rows"]
        rows: Tensor = network.get_output_embeddings().weight[list(self._base.family.label_ids)]
        return rows

    @torch.inference_mode()
    def _prepare(self, network: Network) -> None:
        batcher = Batcher(
            self._base.family, Tokenizer.from_file(str(self._base.folder / TOKENIZER_FILE))
        )
        for cell in cells.CELLS:
            self._batches[cell] = []
            for question in questions(cell, self._queries):
                batch = batcher.batch([question])
                pictures = pictures_of(network, batch)
                self._batches[cell].append((replace(batch, pixels=None), pictures))


def _along(variant: Variant, rows: Tensor) -> Tensor:
    """What a final hidden state is multiplied with."""
    return rows[YES] - rows[NO] if variant.direction == "sft" else rows[YES]


@torch.inference_mode()
def _value(network: Network, batch: Batch, pictures: Tensor | None, row: Tensor) -> float:
    hidden = read(network, batch, pictures)
    relevant, *others = (hidden[batch.last[0]] @ row).tolist()
    return ndcg(ranked([*others, relevant], [0.0] * len(others) + [1.0]), CUT)
