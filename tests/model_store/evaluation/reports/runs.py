"""Folders of runs, as the runner writes them, with results that a test chooses."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from random import Random

import msgspec

from model_store.evaluation.runs.folder import Run, begin_run
from model_store.evaluation.runs.identity import DatasetHeader, RunIdentity, RunTask
from model_store.evaluation.runs.journal import Journal
from model_store.evaluation.runs.query_result import QueryResult

TABLE = (
    RunTask("T-T/Forums", "T-T", "ndcg@10", ["forum-a", "forum-b"]),
    RunTask("T-T/Facts", "T-T", "mrr", ["facts"]),
    RunTask("T-I/News", "T-I", "hit@5", ["news"]),
)
DIGEST, CHECKPOINT = "sha256:" + "ab" * 32, "sha256:" + "cd" * 32


def identity(tasks: Sequence[RunTask] = TABLE, **changes: object) -> RunIdentity:
    run = RunIdentity(
        benchmark="small",
        tasks=list(tasks),
        first_stage="bm25",
        top_k=20,
        model="my-reranker",
        model_digest=DIGEST,
        checkpoint=CHECKPOINT,
    )
    return msgspec.structs.replace(run, **changes)


def query_result(
    dataset: str, number: int, *, skill: float = 1.0, seed: int = 0, candidates: int = 20
) -> QueryResult:
    """A query with one or two relevant documents, of which the first stage may miss the second.

    The queries of a dataset do not depend on `skill` and `seed`, which the scores do.
    """
    fixed, rng = Random(f"{dataset}/{number}"), Random(f"{dataset}/{number}/{seed}")
    grades = [0] * 20
    grades[fixed.randrange(20)] = 2
    missed = [1] if fixed.random() < 0.4 else []
    scores = [grade * skill + rng.gauss(0, 1) for grade in grades]
    return QueryResult(
        dataset,
        f"q{number}",
        [f"d{place}" for place in range(candidates)],
        list(scores[:candidates]),
        grades[:candidates],
        [2, *missed],
        prompt_tokens=1_000,
        cached_pairs=number % 3,
    )


def write_run(
    folder: Path,
    results: Iterable[QueryResult],
    run: RunIdentity | None = None,
    *,
    shard: tuple[int, int] = (0, 1),
    queries: int = 30,
    data: str = DIGEST,
) -> Run:
    """A run with results; `queries` are those that each of its datasets is said to have, and `data`
    is the digest of their texts."""
    begun = begin_run(folder, run or identity())
    by_dataset: dict[str, list[QueryResult]] = {}
    for result in results:
        by_dataset.setdefault(result.dataset, []).append(result)
    for name, own in by_dataset.items():
        dataset = begun.dataset_folders(name)[0]
        dataset.path.mkdir(parents=True, exist_ok=True)
        header = DatasetHeader(name, data, queries, DIGEST)
        dataset.candidates.write_bytes(msgspec.json.encode(header) + b"\n")
        with Journal(dataset.journal(*shard)) as journal:
            for result in own:
                journal.append(result)
    return begun


def all_results(run: RunIdentity | None = None, **options: float) -> list[QueryResult]:
    """30 queries of each dataset."""
    results: list[QueryResult] = []
    for name in (run or identity()).datasets:
        results += [query_result(name, number, **options) for number in range(30)]
    return results
