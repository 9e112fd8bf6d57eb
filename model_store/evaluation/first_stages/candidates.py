"""The candidates of a dataset's queries by the name of a first stage.

Depends on the first stages, and imports the one that is asked for. Invariant: candidates are in the
order of their scores, and of the dataset's documents where scores are equal; none is excluded by
the dataset.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from model_store.errors import DataError
from model_store.evaluation.first_stages.naming import FirstStage, parse_name
from model_store.evaluation.first_stages.search import Search, Work, search_all
from model_store.evaluation.tasks.dataset import Dataset, TaskUnusable
from model_store.evaluation.tasks.readers.run_file import read_run

MAX_TOP_K = 1_000
_SHOWN = 80
_NAME_CHARS = 64
"""Characters of a dataset's name in that of its folder."""

Candidates = Mapping[str, Sequence[str]]
"""Documents by query, best first."""


def _ignore(*_: Any) -> None:
    """Say nothing."""


def candidates_of(
    dataset: Dataset,
    first_stage: str,
    top_k: int,
    cache_folder: Path,
    *,
    queries: Sequence[str] | None = None,
    device: str | None = None,
    notice: Callable[[str], None] = _ignore,
    progress: Callable[[str, int], None] = _ignore,
) -> Candidates:
    """Up to `top_k` candidates of each query, best first; of `queries` alone where they are given.

    `first_stage` is a name as `naming.parse_name` has it. What a search finds, and the vectors of
    documents, are kept in `cache_folder`, where other runs find them too: a search that was
    interrupted goes on, and one that was finished is read. `device` is torch's name of one, for
    vectors.

    `notice` is called with sentences on documents that cannot be found, and on queries without
    candidates; `progress` with "documents" or "queries" and the number that was done since the last
    call. Raises `TaskUnusable`.
    """
    stage = parse_name(first_stage)
    if not 1 <= top_k <= MAX_TOP_K:
        raise TaskUnusable(f"Candidates of a query are 1 to {MAX_TOP_K:,}, not {top_k:,}.")

    asked = dataset.queries.ids if queries is None else queries
    try:
        if stage.kind in ("own", "run"):
            candidates = _given(dataset, stage, asked, top_k)
        else:
            first = _opening(dataset, stage, asked, cache_folder, device, progress)
            work = Work(dataset, asked, first.described, top_k, first.queries_a_part)
            folder = cache_folder / _folder_name(dataset, stage.kind, work.described)
            candidates, sentence = search_all(
                work, folder, first.open_search, lambda done: progress("queries", done)
            )
            if sentence:
                notice(sentence)
    except DataError as error:
        raise TaskUnusable(str(error)) from None
    _check_found(dataset, candidates, first_stage, notice)
    return candidates


def _given(dataset: Dataset, stage: FirstStage, queries: Sequence[str], top_k: int) -> Candidates:
    """Candidates of the dataset, or of a run file."""
    if stage.source is None:
        if dataset.candidates is None:
            raise TaskUnusable(
                f"{dataset.name} has no candidates of its own; name a first stage, such as bm25."
            )
        ranked = dataset.candidates
    else:
        ranked = read_run(Path(stage.source), dataset.queries, dataset.documents)
    return {query: _allowed(dataset, query, ranked.get(query, ()), top_k) for query in queries}


def _allowed(dataset: Dataset, query: str, ranked: Sequence[str], top_k: int) -> list[str]:
    """The first `top_k` documents that a query may have, each once."""
    documents = dict.fromkeys(each for each in ranked if dataset.allows(query, each))
    kept = list(islice(documents, top_k))
    for document in kept:
        if document not in dataset.documents:
            raise TaskUnusable(
                f"{dataset.name}: the candidate {document[:_SHOWN]!r} of the query"
                f" {query[:_SHOWN]!r} is no document of it."
            )
    return kept


@dataclass(frozen=True, slots=True)
class _Opening:
    """A search that is not opened yet, and all that decides its candidates, as JSON."""

    described: Mapping[str, Any]
    queries_a_part: int
    open_search: Callable[[], Search]


def _opening(
    dataset: Dataset,
    stage: FirstStage,
    queries: Sequence[str],
    cache_folder: Path,
    device: str | None,
    progress: Callable[[str, int], None],
) -> _Opening:
    if stage.kind == "bm25":
        from model_store.evaluation.first_stages import words
        from model_store.retrieval.words import WordIndex

        described = {"kind": stage.kind, **WordIndex.described}
        return _Opening(
            described, words.QUERIES_A_PART, lambda: words.WordSearch(dataset, queries, progress)
        )

    from model_store.evaluation.first_stages import vectors

    described = vectors.described_model(stage)

    def open_vectors() -> Search:
        embedder = vectors.open_embedder(stage, device)
        documents = vectors.DatasetDocuments(dataset)
        identity = {**documents.identity, **described, **embedder.described}
        folder = cache_folder / _folder_name(dataset, "vectors", identity)
        return vectors.DenseSearch(dataset, documents, embedder, folder, progress)

    return _Opening(described, vectors.QUERIES_A_PART, open_vectors)


def _check_found(
    dataset: Dataset, candidates: Candidates, first_stage: str, notice: Callable[[str], None]
) -> None:
    """Say how many queries have no candidates; raise `TaskUnusable` where none has any."""
    empty = [query for query in candidates if not candidates[query]]
    if not empty:
        return

    first = f"the first of them is {empty[0][:_SHOWN]!r}"
    if len(empty) == len(candidates):
        raise TaskUnusable(f"{dataset.name}: {first_stage} finds no candidate of any query.")
    notice(
        f"{dataset.name}: {len(empty):,} of {len(candidates):,} queries have no candidates by"
        f" {first_stage}, and score 0; {first}."
    )


def _folder_name(dataset: Dataset, kind: str, described: Mapping[str, Any]) -> str:
    digest = hashlib.sha256(json.dumps(described, sort_keys=True).encode()).hexdigest()
    plain = re.sub(r"[^\w.-]+", "-", dataset.name, flags=re.ASCII)[:_NAME_CHARS]
    return f"{plain}.{kind}.{digest[:16]}"
