"""The candidates of a dataset's queries in a run, found once and kept in its folder.

Depends on a first stage as a function. Invariant: all processes of a run score the same candidates,
those that are in its folder, also where the first stage would find others the second time.
"""

from __future__ import annotations

import hashlib
import heapq
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path

import msgspec

from model_store.evaluation.runs.identity import DatasetHeader
from model_store.evaluation.runs.journal import RunUnusable
from model_store.evaluation.runs.shards import stable_hash
from model_store.evaluation.tasks.dataset import Dataset, TaskUnusable
from model_store.files import create_file

Candidates = Mapping[str, Sequence[str]]
"""Documents by query, best first."""
FirstStage = Callable[[Dataset, Sequence[str]], Candidates]
"""Finds the candidates of some queries of a dataset; raises `TaskUnusable` where it cannot."""


_MAX_LINE_BYTES = 2**20


class _Line(msgspec.Struct):
    query: str
    documents: list[str]


def judged_queries(dataset: Dataset, max_queries: int | None) -> list[str]:
    """The queries to score, in the dataset's order: those with judgements, or `max_queries` of them
    by their hash, which is the same choice every time."""
    judged = [query for query in dataset.queries.ids if dataset.judgements.get(query)]
    if max_queries is None or len(judged) <= max_queries:
        return judged
    chosen = set(
        heapq.nsmallest(max_queries, judged, key=lambda query: stable_hash(dataset.name, query))
    )
    return [query for query in judged if query in chosen]


def find_candidates(
    dataset: Dataset, queries: Sequence[str], first_stage: FirstStage, top_k: int
) -> dict[str, list[str]]:
    """The first `top_k` candidates of queries, in their order, each a document once.

    Raises `TaskUnusable`, also where a candidate is no document of the dataset.
    """
    found = first_stage(dataset, queries)
    return {
        query: list(islice(_usable(dataset, query, found.get(query, ())), top_k))
        for query in queries
    }


def _usable(dataset: Dataset, query: str, documents: Sequence[str]) -> Iterator[str]:
    """The candidates of a query that may be scored."""
    seen: set[str] = set()
    for document in documents:
        if document in seen or not dataset.allows(query, document):
            continue
        if document not in dataset.documents:
            raise TaskUnusable(
                f"{dataset.name}: the candidate {document[:80]!r} of the query {query[:80]!r} is no"
                " document of it."
            )
        seen.add(document)
        yield document


def write_candidates(path: Path, dataset: Dataset, candidates: Candidates) -> None:
    """Write a dataset's header and its candidates unless the file is there: of several processes,
    the first one's candidates are those of the run. Raises `OSError`."""
    lines = [
        msgspec.json.encode(_Line(query, list(documents)))
        for query, documents in candidates.items()
    ]
    content = b"\n".join([*lines, b""])
    digest = hashlib.sha256(content).hexdigest()
    header = DatasetHeader(dataset.name, dataset.digest, len(lines), f"sha256:{digest}")
    create_file(path, msgspec.json.encode(header) + b"\n" + content)


def read_header(path: Path) -> DatasetHeader | None:
    """The header of a file of candidates; None where there is no file. Raises `RunUnusable`."""
    try:
        with path.open("rb") as file:
            line = file.readline(_MAX_LINE_BYTES)
        return msgspec.json.decode(line, type=DatasetHeader)
    except FileNotFoundError:
        return None
    except (OSError, msgspec.DecodeError, UnicodeDecodeError):
        raise RunUnusable(f"{path}: line 1 is no header of a dataset.") from None


def read_candidates(path: Path) -> dict[str, list[str]]:
    """The candidates of a file, in the order of their queries. Raises `RunUnusable` and
    `OSError`."""
    candidates: dict[str, list[str]] = {}
    decoder = msgspec.json.Decoder(_Line)
    with path.open("rb") as file:
        file.readline(_MAX_LINE_BYTES)
        for number, line in enumerate(file, 2):
            try:
                decoded = decoder.decode(line)
            except (msgspec.DecodeError, UnicodeDecodeError):
                raise RunUnusable(f"{path}: line {number} holds no candidates.") from None
            candidates[decoded.query] = decoded.documents
    return candidates
