"""The layouts of MS MARCO (`collection.tsv`, `queries.tsv` and `qrels.train.tsv`, or
`triples.train.small.tsv`) and of BEIR.

Collection and queries are tables of id and text, or JSON lines or parquet with `_id` (or `id`),
`title` and `text`, as BEIR has them. Judgements are as `tables` reads them. A triple is the texts
of a query, a relevant passage and an irrelevant one. Does not depend on other layouts. Judgements
are held in memory, texts are not. Invariant: as in `assemble`.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from model_store.output_files import check_outputs
from model_store.parts import file_identity
from model_store.training.data.converters.assemble import (
    CorpusDocuments,
    Relation,
    ShowProgress,
    convert,
    corpus_path_of,
    relation_line,
    valid_example_line,
    without_progress,
)
from model_store.training.data.converters.outcomes import BadRow, Outcomes, Skipped, clean_text
from model_store.training.data.converters.records import Record, is_records, read_records, read_row
from model_store.training.data.converters.tables import read_qrels, split_cells
from model_store.training.data.corpus import Document, document_line
from model_store.training.data.rows import MAX_ID_CHARS, Example, Negative, Side, read_lines

_IDS = ("_id", "id")


def convert_msmarco(
    collection: Path,
    queries: Path,
    qrels: Path,
    target: Path,
    *,
    instruction: str | None = None,
    min_grade: int = 1,
    max_bad: int = 0,
    show_progress: ShowProgress = without_progress,
) -> tuple[Outcomes, Outcomes]:
    """Write `target` and its corpus beside it, `*.corpus.jsonl`.

    Queries without a relevant passage are left out. Raises `DataError`.
    """
    corpus_path = corpus_path_of(target)
    check_outputs(target, corpus_path, inputs=(collection, queries, qrels))
    described: dict[str, Any] = {"layout": "msmarco", "collection": file_identity(collection)}

    def document(record: Record, outcomes: Outcomes) -> bytes:
        name, text = _named_text(collection, record, outcomes)
        if text is None:
            raise Skipped("empty passage", name)
        return document_line(Document(name, Side(text, None)), target.parent)

    converted = convert(
        corpus_path,
        described,
        _texts(collection),
        document,
        max_bad=max_bad,
        show_progress=show_progress,
    )
    documents = CorpusDocuments(corpus_path, converted)
    relevant, judged = read_qrels(qrels, min_grade=min_grade, max_bad=max_bad)

    def example(record: Record, outcomes: Outcomes) -> bytes:
        name, text = _named_text(queries, record, outcomes)
        if text is None:
            raise Skipped("empty query")
        relation = Relation(
            id=name,
            instruction=instruction,
            query=Side(text, None),
            positives=relevant.documents(name),
            negatives=(),
            location=record.location,
        )
        return relation_line(relation, documents, target.parent, outcomes)

    described |= {
        "queries": file_identity(queries),
        "qrels": file_identity(qrels),
        "instruction": instruction,
        "min_grade": min_grade,
    }
    return converted, convert(
        target,
        described,
        _texts(queries),
        example,
        max_bad=max_bad,
        before=judged,
        show_progress=show_progress,
    )


def convert_triples(
    triples: Path,
    target: Path,
    *,
    instruction: str | None = None,
    max_bad: int = 0,
    show_progress: ShowProgress = without_progress,
) -> Outcomes:
    """Write `target` from triples of texts; each becomes an example with one hard negative.

    Its id is the name of the file and the line. Raises `DataError`.
    """
    check_outputs(target, inputs=(triples,))

    def example(item: tuple[int, bytes], outcomes: Outcomes) -> bytes:
        number, line = item
        location = f"{triples}:{number}"
        texts = [clean_text(text, outcomes) for text in split_cells(line, location, 3)]
        if None in texts:
            raise Skipped("empty text")
        query, positive, negative = [Side(text, None) for text in texts]
        if positive == negative:
            raise Skipped("the relevant passage is the irrelevant one")

        made = Example(
            id=f"{triples.name}:{number}",
            instruction=instruction,
            query=query,
            positives=(positive,),
            negatives=(Negative(negative, "hard"),),
            location=location,
        )
        return valid_example_line(made, target.parent)

    described = {
        "layout": "msmarco triples",
        "triples": file_identity(triples),
        "instruction": instruction,
    }
    return convert(
        target,
        described,
        read_lines(triples),
        example,
        max_bad=max_bad,
        show_progress=show_progress,
    )


def _texts(path: Path) -> Iterator[Record]:
    """The lines of a table, or the records of JSON lines or parquet."""
    if is_records(path):
        yield from read_records([path])
        return
    for number, line in read_lines(path):
        yield Record(f"{path}:{number}", line)


def _named_text(path: Path, record: Record, outcomes: Outcomes) -> tuple[str, str | None]:
    """An id and its text, after the title where there is one; raises `BadRow`."""
    location, content = record
    if isinstance(content, bytes) and not is_records(path):
        name, text = split_cells(content, location, 2)
    else:
        name, text = _id_and_text(read_row(record), location)
    if not 1 <= len(name) <= MAX_ID_CHARS:
        raise BadRow(f"{location}: the id must have 1 to {MAX_ID_CHARS} characters.")
    return name, clean_text(text, outcomes)


def _id_and_text(row: dict[str, Any], location: str) -> tuple[str, str]:
    ids = [row[key] for key in _IDS if row.get(key) is not None]
    parts = [row.get(key) for key in ("title", "text")]
    if not all(isinstance(part, str | None) for part in parts):
        raise BadRow(f"{location}: title and text must be texts.")
    text = " ".join(part for part in parts if part and part.strip())
    return str(ids[0]) if ids else "", text
