"""A data set of mteb: one split and one subset of a task, at a pinned revision.

mteb is an extra, and is imported where a data set is loaded. It reads what its cache has where
there is no network. Does not depend on tables. Invariant: texts and images are those that mteb
gives a model, and the instruction is not among them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from model_store.evaluation.tasks.dataset import Dataset, TaskUnusable
from model_store.evaluation.tasks.readers.digest import dataset_digest
from model_store.evaluation.tasks.readers.judged_queries import JudgedQueries
from model_store.evaluation.tasks.readers.judgements import MAX_JUDGEMENTS, Judgements
from model_store.evaluation.tasks.readers.mteb_items import MtebItems
from model_store.evaluation.tasks.readers.mteb_task import first_line, open_task

MAX_EXCLUDED = 10_000_000
"""Documents that are no candidates, of all queries together: about 1 GB of memory."""
_MISSING = 0.5
"""The share of judged documents that mteb's own data may lack."""


@dataclass(frozen=True, slots=True)
class MtebSource:
    """A split and a subset of a task of mteb."""

    task: str
    revision: str
    split: str = "test"
    subset: str = "default"
    instruction: str | None = None
    excludes_the_query: bool = False
    candidates_exclude: bool = False
    """The candidates that come with the data are all documents but those that a query excludes."""
    private: bool = False

    @property
    def name(self) -> str:
        """The task, and its subset and split where they are not the usual ones."""
        subset = "" if self.subset == "default" else f"/{self.subset}"
        return self.task + subset + ("" if self.split == "test" else f"/{self.split}")

    def load(self) -> Dataset:
        """Load the data with mteb; raises `TaskUnusable`."""
        task = open_task(self.task, [self.split], self.subset)
        revision = task.metadata.dataset["revision"]
        if revision != self.revision:
            raise TaskUnusable(
                f"{self.name}: the installed mteb has revision {revision[:12]} of its data, and the"
                f" benchmark is of {self.revision[:12]}."
            )
        return read_task(task, self)


def read_task(task: Any, source: MtebSource) -> Dataset:
    """The data of an `AbsTaskRetrieval`, loaded where it is not yet; raises `TaskUnusable`."""
    parts = _load(task, source)
    queries = MtebItems(parts["queries"], _side(task, 0), source.name, "query")
    documents = MtebItems(parts["corpus"], _side(task, 1), source.name, "document")
    judgements, missing = _judgements(parts["relevant_docs"], queries, documents, source.name)
    judged = JudgedQueries(queries, judgements)

    candidates = excluded = None
    ranked = parts.get("top_ranked")
    if ranked is not None and source.candidates_exclude:
        excluded = _excluded(ranked, judged, documents, source.name)
    elif ranked is not None:
        candidates = _candidates(ranked, judged, documents, source.name)

    origin = (
        *(source.name, source.revision, source.split, source.instruction),
        *(queries.digest, documents.digest, source.excludes_the_query),
    )
    return Dataset(
        name=source.name,
        queries=judged,
        documents=documents,
        judgements=judgements,
        digest=dataset_digest(origin, judged.ids, judgements, candidates),
        instruction=source.instruction,
        candidates=candidates,
        excludes_the_query=source.excludes_the_query,
        instructions=queries.instructions(judged.ids),
        excluded=excluded,
        missing_documents=missing,
    )


def _load(task: Any, source: MtebSource) -> Mapping[str, Any]:
    """The parts of a split and a subset, as mteb 2 has them."""
    try:
        if not task.data_loaded:
            task.load_data()
        task.convert_v1_dataset_format_to_v2(num_proc=None)
    except Exception as error:  # whatever the loader of one data set of a thousand raises
        where = "is private" if source.private else "is in no cache here, and cannot be fetched"
        raise TaskUnusable(
            f"{source.name}: its data ({task.metadata.dataset['path']}) {where}"
            f" ({type(error).__name__}: {first_line(error)})"
        ) from None

    parts = task.dataset.get(source.subset, {}).get(source.split)
    if parts is None:
        raise TaskUnusable(
            f"{source.name}: its data has no split {source.split!r} of subset {source.subset!r}."
        )
    return dict(parts)


def _side(task: Any, side: int) -> str:
    """The modalities of the queries (0) or of the documents (1): "t", "i" or "it"."""
    category = task.metadata.category or "t2t"
    modalities = category.split("2")[side]
    if modalities not in ("t", "i", "it"):
        raise TaskUnusable(f"{task.metadata.name}: its category {category} is not text and images.")
    return str(modalities)


def _judgements(
    relevant: Mapping[str, Mapping[str, int]], queries: MtebItems, documents: MtebItems, name: str
) -> tuple[Judgements, int]:
    """Grades of the subset's own queries, and the number of judged documents that are not there.

    mteb's loaders give a subset the judgements of all languages, and some leave out equal
    documents without their judgements. mteb counts those as missed, and so does this.
    """
    judgements: Judgements = {}
    count = missing = 0
    for query, grades in relevant.items():
        if not grades or query not in queries:
            continue
        if any(int(grade) != grade for grade in grades.values()):
            raise TaskUnusable(f"{name}: a grade of query {query[:80]!r} is no integer.")
        judgements[query] = {document: int(grade) for document, grade in grades.items()}
        count += len(grades)
        missing += sum(document not in documents for document in grades)
        if count > MAX_JUDGEMENTS:
            raise TaskUnusable(f"{name}: there are more than {MAX_JUDGEMENTS:,} judgements.")

    if not judgements:
        raise TaskUnusable(f"{name}: there are no judgements of its queries.")
    if missing > _MISSING * count:
        raise TaskUnusable(
            f"{name}: {missing} of {count} judged documents are not among its documents."
        )
    return judgements, missing


def _candidates(
    ranked: Mapping[str, Sequence[str]], queries: JudgedQueries, documents: MtebItems, name: str
) -> dict[str, list[str]]:
    """The candidates of each judged query, best first."""
    candidates = {}
    for query in queries.ids:
        of_query = list(ranked.get(query) or ())
        for document in of_query:
            if document not in documents:
                raise TaskUnusable(
                    f"{name}: candidate {document[:80]!r} of query {query[:80]!r} is no document."
                )
        if len(set(of_query)) != len(of_query):
            raise TaskUnusable(f"{name}: query {query[:80]!r} has a candidate twice.")
        candidates[query] = of_query
    return candidates


def _excluded(
    allowed: Mapping[str, Sequence[str]], queries: JudgedQueries, documents: MtebItems, name: str
) -> dict[str, frozenset[str]]:
    """The documents that a query excludes, from those that it allows."""
    every, excluded = frozenset(documents.ids), {}
    count = 0
    for query in queries.ids:
        of_query = allowed.get(query)
        if of_query is None or len(of_query) == len(every):
            continue
        excluded[query] = every.difference(of_query)
        count += len(excluded[query])
        if count > MAX_EXCLUDED:
            raise TaskUnusable(f"{name}: queries exclude more than {MAX_EXCLUDED:,} documents.")
    return excluded
