"""Mining on a cluster, by Ray Data.

Depends on Ray and parts. Every actor opens the corpus and the retriever once, and writes parts to a
file system that all actors share; Ray moves part numbers alone, so a lost actor costs one part.
Invariant: as in `mining` and `vectors`, the result is that of a single process.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import ray
import ray.data

from model_store.retrieval.vectors import embed_corpus, parts_of
from model_store.training.data.corpus import Corpus
from model_store.training.data.row_index import Examples
from model_store.training.negatives.mining import Miner, Run
from model_store.training.negatives.opening import Choice, open_embedder, open_retriever


class _Embedding:
    """An actor that makes vectors."""

    def __init__(self, run: Run, choice: Choice, folder: Path) -> None:
        self._corpus, self._embedder = Corpus(run.corpus), open_embedder(choice)
        self._folder = folder

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        parts = [int(part) for part in batch["part"]]
        embed_corpus(self._corpus, self._embedder, self._folder, parts=parts)
        return batch


class _Mining:
    """An actor that mines."""

    def __init__(self, run: Run, choice: Choice) -> None:
        corpus = Corpus(run.corpus)
        self._miner = Miner(run, corpus, open_retriever(choice, corpus))

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        for part in batch["part"]:
            self._miner.mine(range(int(part), int(part) + 1))
        return batch


def mine_on_cluster(
    run: Run,
    choice: Choice,
    *,
    actors: int,
    gpus: float = 0,
    progress: Callable[[int], None] = lambda parts: None,
) -> None:
    """Make the corpus's vectors, where the retriever has any, then all parts of the run; the caller
    calls `Miner.finish`.

    `gpus` is the share of each actor; `progress` is called with the number of parts mined since the
    last call. Joins the cluster that Ray's environment names, or starts one on this machine. Raises
    `DataError` before that, and Ray's own errors after.
    """
    choice.check()
    parts = run.parts_of(len(Examples(run.source)))
    folder, documents = choice.vectors_of(run.corpus), len(Corpus(run.corpus))
    ray.init(ignore_reinit_error=True, logging_level="warning")
    spread = _Spread(actors, gpus)
    if folder is not None:
        for _ in spread.over(parts_of(documents), _Embedding, run, choice, folder):
            pass
    for _ in spread.over(parts, _Mining, run, choice):
        progress(1)


class _Spread:
    """A number of actors, each with a share of GPUs."""

    def __init__(self, actors: int, gpus: float) -> None:
        self._actors, self._gpus = actors, gpus

    def over(self, parts: int, kind: type, *given: Any) -> Iterator[dict[str, Any]]:
        """The row of each part, once an actor of `kind` has done it."""
        numbers = ray.data.from_items(
            [{"part": part} for part in range(parts)], override_num_blocks=parts
        )
        done = numbers.map_batches(
            kind,
            fn_constructor_args=given,
            batch_size=1,
            num_gpus=self._gpus,
            compute=ray.data.ActorPoolStrategy(size=min(self._actors, parts)),
        )
        yield from done.iter_rows()
