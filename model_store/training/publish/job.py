"""A job of `gmr publish`: its base, its adapter, its output, and the story of its card.

Depends on files, not on networks. Invariant: a job is not changed while it runs.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from model_store.checkpoint import Checkpoint
from model_store.golden import GoldenPair
from model_store.training.publish.card import Story

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishJob:
    """The parts of a result and where it goes.

    `dtype` None is the base's own; `python_vllm` is an interpreter that has vLLM. `read_out` is the
    read-out that the adapter was trained for, and `template` the template; empty: the one in the
    adapter's header, or the base's.
    """

    base: Checkpoint
    adapter: Path
    output: Path
    name: str
    story: Story
    dtype: str | None = None
    device: str = "cpu"
    python_vllm: Path | None = None
    read_out: str = ""
    template: str = ""
    questions: Sequence[GoldenPair] = ()
    """Golden pairs for a base that has none; their logits are not used."""

    @property
    def stored_dtype(self) -> str:
        """The dtype of the stored weights: the job's, or the base's."""
        if self.dtype:
            return self.dtype

        config = json.loads((self.base.folder / "config.json").read_text(encoding="utf-8"))
        stated = str(config.get("dtype") or config.get("torch_dtype") or "bfloat16")
        return stated if stated in DTYPES else "bfloat16"
