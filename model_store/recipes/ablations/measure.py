"""The benchmark of a trained run: nDCG@10 of held-out queries of the nine cells, the same for all
runs.

Depends on networks, adapters and cells. Invariant: a document's score is the one that the run's
loss taught, by the run's own head: yes - no for the direction of SFT, yes alone for that of CL
(paper, eq. 1 and 2). The relevant document loses all ties.
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
from model_store.evaluation.metrics import ndcg
from model_store.evaluation.nine_cells import CUT, questions
from model_store.families.catalogue import trained_readout
from model_store.families.tokens import TOKENIZER_FILE
from model_store.networks.score_row import score_row
from model_store.recipes.ablations.variants import Variant
from model_store.recipes.tiny.packed_batches import PackedBatch, PackedBatcher
from model_store.recipes.tiny.train import pictures_of, read
from model_store.synthetic import cells
from model_store.training.benchmark import ranked_relevances
from model_store.training.outcome import ADAPTER, HEAD
from model_store.training.publish.adapters import apply_adapter, load_base

Values = dict[str, dict[str, float]]
"""nDCG@10 by cell, then by query."""
_Batches = dict[str, list[tuple[PackedBatch, Tensor | None]]]
"""Batches by cell, with the vision tower's output for each."""


class Benchmark:
    """The queries of the nine cells for one base.

    The outputs of its frozen vision tower are kept: a few MB a cell for ten queries.
    """

    def __init__(self, base: Checkpoint, queries: int) -> None:
        self._base, self._queries = base, queries
        self._prepared: dict[str | None, _Batches] = {}

    def measure(self, run: Path, variant: Variant) -> Values:
        """The values of a finished run; raises `PublishRefused` where its adapter is of another
        base."""
        network = load_base(self._base, "cpu")
        if variant.template not in self._prepared:
            self._prepared[variant.template] = self._prepare(network, variant.template)

        adapted: Network = apply_adapter(
            network, read_adapter(run / ADAPTER), self._base.decoder
        ).merge_and_unload()
        row = self._row(adapted, variant, run / HEAD)
        values: Values = {}
        for cell, batches in self._prepared[variant.template].items():
            values[cell] = {}
            for number, (batch, pictures) in enumerate(batches):
                values[cell][f"{cell}/{number}"] = _value(adapted, batch, pictures, row)

        return values

    def _row(self, network: Network, variant: Variant, head: Path) -> Tensor:
        """The read-out's row: of the run's head, if it trained one, or of the vocabulary."""
        readout = trained_readout(self._base.manifest, variant.direction)
        if head.exists():
            rows = load_file(head)["rows"]  # the relevant label's first
            trained: Tensor = readout.combine(list(rows[: len(readout.labels)]))
            return trained

        tokenizer = self._base.family.tokenizer
        return score_row(network, readout, [tokenizer.label(word) for word in readout.labels])

    @torch.inference_mode()
    def _prepare(self, network: Network, template: str | None) -> _Batches:
        tokenizer = Tokenizer.from_file(str(self._base.folder / TOKENIZER_FILE))
        batcher = PackedBatcher(self._base.with_template(template).family, tokenizer)
        batches: _Batches = {}
        for cell in cells.CELLS:
            batches[cell] = []
            for question in questions(cell, self._queries):
                batch = batcher.batch([question])
                pictures = pictures_of(network, batch)
                batches[cell].append((replace(batch, pixels=None), pictures))

        return batches


@torch.inference_mode()
def _value(network: Network, batch: PackedBatch, pictures: Tensor | None, row: Tensor) -> float:
    hidden = read(network, batch, pictures)
    scores: list[float] = (hidden[batch.last[0]] @ row).tolist()
    return ndcg(ranked_relevances(scores, 1), CUT)
