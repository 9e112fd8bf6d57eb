"""The vectors of `gme` by vLLM's pooling runner, many contents at once.

Depends on vLLM's offline engine; prompts and pictures are those of `gme.Reader`. Invariant: vectors
equal those of `gme` to the precision of the weights' dtype.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import numpy as np
import PIL.Image

from model_store.retrieval.embedder import Content, Query
from model_store.retrieval.found import Vectors
from model_store.retrieval.gme import (
    MAX_PIXELS,
    MAX_TOKENS,
    MIN_PIXELS,
    Reader,
    Reading,
    folder_of,
)

_ON_CPU = {"block_size": 32, "kv_cache_memory_bytes": 2**30, "skip_mm_profiling": True}


class VllmGme:
    """An `Embedder` of texts, images and both."""

    def __init__(
        self, model: str, *, revision: str | None = None, max_pixels: int = MAX_PIXELS
    ) -> None:
        """Start an engine with a folder or a hub model; raises `DataError` where there is no such
        model."""
        os.environ.setdefault("VLLM_LOGGING_LEVEL", "WARNING")
        os.environ.setdefault("VLLM_WORKER_MULTIPROC_METHOD", "spawn")
        os.environ.setdefault(
            "VLLM_CPU_OMP_THREADS_BIND", ",".join(map(str, sorted(os.sched_getaffinity(0))))
        )
        import vllm
        from vllm.platforms import current_platform

        folder = folder_of(model, revision)
        self._reader = Reader(folder, max_pixels=max_pixels)
        on_cpu = current_platform.is_cpu()
        dtype = "float32" if on_cpu else "bfloat16"
        self._engine = vllm.LLM(
            model=str(folder),
            runner="pooling",
            convert="embed",
            pooler_config={"seq_pooling_type": "LAST", "use_activation": True},
            dtype=dtype,
            max_model_len=MAX_TOKENS,
            limit_mm_per_prompt={"image": 1, "video": 0},
            mm_processor_kwargs={"min_pixels": MIN_PIXELS, "max_pixels": max_pixels},
            enforce_eager=on_cpu,
            **(_ON_CPU if on_cpu else {}),
        )
        self.dimensions = int(self._engine.model_config.get_hidden_size())
        self.described: dict[str, Any] = {
            "embedder": "gme by vllm",
            "model": model,
            "revision": revision,
            "dtype": dtype,
            "max_pixels": max_pixels,
            "vllm": vllm.__version__,
        }

    def queries(self, queries: Sequence[Query]) -> Vectors:
        """As `Embedder.queries`."""
        return self._embed(
            [
                self._reader.read(query.content, query.instruction, query.location)
                for query in queries
            ]
        )

    def documents(self, contents: Sequence[Content], locations: Sequence[str]) -> Vectors:
        """As `Embedder.documents`; documents have the default instruction."""
        return self._embed(
            [
                self._reader.read(content, None, location)
                for content, location in zip(contents, locations, strict=True)
            ]
        )

    def close(self) -> None:
        """Stop the engine, which otherwise ends with this process."""
        self._engine.llm_engine.engine_core.shutdown()

    def _embed(self, readings: Sequence[Reading]) -> Vectors:
        outputs = self._engine.embed([_prompt(reading) for reading in readings], use_tqdm=False)
        return np.array([output.outputs.embedding for output in outputs], np.float32)


def _prompt(reading: Reading) -> dict[str, Any]:
    if reading.picture is None:
        return {"prompt_token_ids": reading.ids}

    return {
        "prompt_token_ids": reading.ids,
        "multi_modal_data": {"image": PIL.Image.fromarray(reading.picture)},
    }
