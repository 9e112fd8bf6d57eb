"""MS MARCO's layout: `collection.tsv`, `queries.tsv` and `qrels.train.tsv`, or
`triples.train.small.tsv`; and BEIR's.

Knows those tables: id and text; id and text; judgements, as `tables` reads them; query, relevant
passage, irrelevant passage as texts. Collection and queries may be BEIR's JSON lines, or parquet,
of `_id` (or `id`), `title` and `text`. Judgements are held in memory (half a million for training),
texts are not. Invariant: as in `assemble`.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from model_store.training.data.converters.assemble import (
    Documents,
    Relation,
    ShowProgress,
    checked_line,
    convert,
    corpus_of,
    example_line,
    no_progress,
)
from model_store.training.data.converters.outcomes import BadRow, Converted, Skipped, text_within
from model_store.training.data.converters.records import Record, is_records, read_records, row_of
from model_store.training.data.converters.tables import cells_of, read_qrels
from model_store.training.data.corpus import Document, document_line
from model_store.training.data.resumable import identity
from model_store.training.data.row_files import check_outputs
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
    show_progress: ShowProgress = no_progress,
) -> tuple[Converted, Converted]:
    """Write `target` and its corpus beside it, `*.corpus.jsonl`; queries without a relevant passage
    are left out."""
    corpus_path = corpus_of(target)
    check_outputs(target, corpus_path, inputs=(collection, queries, qrels))
    described: dict[str, Any] = {"layout": "msmarco", "collection": identity(collection)}

    def document(record: Record, done: Converted) -> bytes:
        name, text = _named_text(collection, record, done)
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
    documents = Documents(corpus_path, converted)
    relevant, judged = read_qrels(qrels, min_grade=min_grade, max_bad=max_bad)

    def example(record: Record, done: Converted) -> bytes:
        name, text = _named_text(queries, record, done)
        if text is None:
            raise Skipped("empty query")
        relation = Relation(name, instruction, Side(text, None), relevant.of(name), (), record[0])
        return example_line(relation, documents, target.parent, done)

    described |= {
        "queries": identity(queries),
        "qrels": identity(qrels),
        "instruction": instruction,
    }
    described |= {"min_grade": min_grade}
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
    show_progress: ShowProgress = no_progress,
) -> Converted:
    """Write `target` from triples of texts: each row an example with one hard negative, named by
    its line."""
    check_outputs(target, inputs=(triples,))

    def example(item: tuple[int, bytes], done: Converted) -> bytes:
        place = f"{triples}:{item[0]}"
        texts = [text_within(text, done) for text in cells_of(item[1], place, 3)]
        if None in texts:
            raise Skipped("empty text")
        query, positive, negative = (Side(text, None) for text in texts)
        if positive == negative:
            raise Skipped("the relevant passage is the irrelevant one")
        name = f"{triples.name}:{item[0]}"
        made = Example(name, instruction, query, (positive,), (Negative(negative, "hard"),), place)
        return checked_line(made, target.parent)

    described = {
        "layout": "msmarco triples",
        "triples": identity(triples),
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
        return read_records([path])
    return ((f"{path}:{number}", line) for number, line in read_lines(path))


def _named_text(path: Path, record: Record, done: Converted) -> tuple[str, str | None]:
    """An id and its text, with the title before it where there is one; raises `BadRow`."""
    place, line = record
    if isinstance(line, bytes) and not is_records(path):
        name, written = cells_of(line, place, 2)
    else:
        row = row_of(record)
        name = str(next((row[key] for key in _IDS if row.get(key) is not None), ""))
        parts = [row.get(key) for key in ("title", "text")]
        if not all(isinstance(part, str | None) for part in parts):
            raise BadRow(f"{place}: title and text must be texts.")
        written = " ".join(part for part in parts if part and part.strip())
    if not 1 <= len(name) <= MAX_ID_CHARS:
        raise BadRow(f"{place}: the id must have 1 to {MAX_ID_CHARS} characters.")
    return name, text_within(written, done)
