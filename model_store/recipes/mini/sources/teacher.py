"""Texts as vectors of the teacher, all-MiniLM-L6-v2: mean-pooled and of length 1.

Depends on the teacher's folder, not on sources. Invariant: a text's vector does not depend on the
texts beside it, up to rounding.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from tokenizers import Tokenizer
from torch.nn.functional import normalize
from transformers import BertModel

from model_store.recipes.tiny.steps import cpu_dtype

WIDTH = 384
_BATCH_TOKENS = 2048

Vectors = npt.NDArray[np.float16]


class Teacher:
    """The sentence encoder in a folder; `tokens` is the longest text, in word pieces."""

    def __init__(self, folder: Path, *, tokens: int = 128) -> None:
        self._network = BertModel.from_pretrained(folder, local_files_only=True).eval()
        self._network.to(cpu_dtype())
        self._tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(tokens)

    @torch.inference_mode()
    def encode(
        self, texts: Sequence[str], report: Callable[[int], None] = lambda done: None
    ) -> Vectors:
        """`[texts, 384]` in the texts' order; `report` is told how many are done."""
        encodings = self._tokenizer.encode_batch(list(texts))
        found = np.empty((len(texts), WIDTH), np.float16)
        order = sorted(range(len(texts)), key=lambda number: len(encodings[number].ids))
        start = 0
        while start < len(order):
            stop = start + 1
            while stop < len(order):
                longest = len(encodings[order[stop]].ids)
                if longest * (stop - start + 1) > _BATCH_TOKENS:
                    break
                stop += 1

            numbers = order[start:stop]
            found[numbers] = self._pooled([encodings[number].ids for number in numbers])
            start = stop
            report(start)

        return found

    def _pooled(self, rows: Sequence[Sequence[int]]) -> Vectors:
        longest = max(map(len, rows))
        ids = torch.zeros(len(rows), longest, dtype=torch.long)
        mask = torch.zeros(len(rows), longest, dtype=torch.long)
        for number, row in enumerate(rows):
            ids[number, : len(row)] = torch.tensor(row)
            mask[number, : len(row)] = 1

        hidden = self._network(input_ids=ids, attention_mask=mask).last_hidden_state.float()
        mean = (hidden * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)
        vectors: Vectors = normalize(mean, dim=1).numpy().astype(np.float16)
        return vectors
