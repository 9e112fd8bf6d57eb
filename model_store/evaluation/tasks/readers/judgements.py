"""Judgements of relevance, in the forms of TREC (query, iteration, document, grade) and of BEIR
(query, document, grade, after a line that names the columns).

Does not depend on items. Invariant: every judged document and query is known, judged once, and the
number of judgements in memory is bounded.
"""

from __future__ import annotations

from collections.abc import Container
from pathlib import Path

from model_store.evaluation.tasks.dataset import TaskUnusable
from model_store.evaluation.tasks.readers.trec_cells import check_known, parse_integer, read_cells

MAX_JUDGEMENTS = 10_000_000
"""About 2 GB of memory. The largest public test set has a tenth of it."""
_FORM = "a query, an iteration, a document and a grade (TREC), or without the iteration (BEIR)"
_HEADER = ("query-id", "corpus-id", "score")

Judgements = dict[str, dict[str, int]]
"""Grades by query and document; a document is relevant above 0."""


def read_judgements(
    path: Path,
    queries: Container[object],
    documents: Container[object],
    limit: int = MAX_JUDGEMENTS,
) -> Judgements:
    """The judgements of a file, which may be packed (`.gz`); raises `TaskUnusable`."""
    judgements: Judgements = {}
    count = columns = 0
    for number, cells in read_cells(path, (3, 4), _FORM):
        location = f"{path}:{number}"
        if not columns and tuple(cell.lower() for cell in cells) == _HEADER:
            columns = 3
            continue
        columns = columns or len(cells)
        if len(cells) != columns:
            raise TaskUnusable(f"{location}: {len(cells)} cells, and earlier lines have {columns}.")

        count += 1
        if count > limit:
            raise TaskUnusable(f"{location}: there are more than {limit:,} judgements.")
        query, document = cells[0], cells[-2]
        grade = parse_integer(cells[-1], "grade", location)
        check_known(query, queries, "query", location)
        check_known(document, documents, "document", location)
        add(judgements, query, document, grade, location)

    if not judgements:
        raise TaskUnusable(f"{path}: there are no judgements.")
    return judgements


def add(judgements: Judgements, query: str, document: str, grade: int, location: str) -> None:
    """Add a judgement; raises `TaskUnusable` where the document was judged for the query."""
    of_query = judgements.setdefault(query, {})
    if document in of_query:
        raise TaskUnusable(
            f"{location}: document {document[:80]!r} is judged twice for query {query[:80]!r}."
        )
    of_query[document] = grade
