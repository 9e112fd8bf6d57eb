"""The layouts of ViDoRe and mteb: questions about pages or documents, with the images' bytes.

There are two layouts, in parquet or JSON lines: folders `corpus`, `queries` and `qrels` (a
benchmark), and rows of `query` and `image` (ViDoRe's training set). Ids have any of the names that
these data sets use (`corpus-id`, `corpus_id`, `_id`, `id`). A document has an image, a text with or
without a title, or both. Does not depend on other layouts. Judgements are held in memory, images
are not. Invariant: as in `assemble`; an image's file is named by its content, so equal pages are
one file.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from functools import partial
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
    without_progress,
)
from model_store.training.data.converters.columns import read_id, read_side, read_text
from model_store.training.data.converters.judgements import Judgements
from model_store.training.data.converters.outcomes import (
    BadRow,
    Outcomes,
    Skipped,
    row_of_document,
)
from model_store.training.data.converters.pictures import image_bytes, keep_image
from model_store.training.data.converters.records import Record, find_files, read_records, read_row
from model_store.training.data.converters.tables import parse_grade
from model_store.training.data.corpus import Document, document_line
from model_store.training.data.rows import Side

_EMPTY = Side(None, None)
QRELS = ("qrels", "default")
"""Names of the folder of judgements; mteb's older data sets have the second."""


def find_qrels(source: Path) -> Path | None:
    """The folder of a benchmark's judgements; None where `source` has single rows."""
    for name in QRELS:
        if (source / name).is_dir():
            return source / name
    return None


def convert_vidore(
    source: Path,
    target: Path,
    *,
    instruction: str | None = None,
    language: str | None = None,
    min_grade: int = 1,
    max_bad: int = 0,
    show_progress: ShowProgress = without_progress,
) -> tuple[Outcomes, Outcomes]:
    """Write `target` and its corpus from the folders `corpus`, `queries` and `qrels` of `source`;
    raises `DataError`."""
    folder, corpus_path = target.parent, corpus_path_of(target)
    corpora = find_files(source / "corpus")
    queries = find_files(source / "queries")
    qrels = find_files(find_qrels(source) or source / QRELS[0])
    check_outputs(target, corpus_path, inputs=(*corpora, *queries, *qrels))

    described: dict[str, Any] = {"layout": "vidore", "corpus": list(map(file_identity, corpora))}

    converted = convert(
        corpus_path,
        described,
        read_records(corpora),
        partial(_document_line, folder),
        max_bad=max_bad,
        show_progress=show_progress,
    )
    documents = CorpusDocuments(corpus_path, converted)
    relevant, judged = _read_qrels(read_records(qrels), min_grade, max_bad)

    def example(record: Record, outcomes: Outcomes) -> bytes:
        row = read_row(record)
        if language is not None and row.get("language") != language:
            raise Skipped("another language")
        name = read_id(row, "query-id", record.location)
        column = "query" if row.get("query") is not None else "text"
        query = read_side(row, (column,), folder, record.location, outcomes)
        if query == _EMPTY:
            raise Skipped("empty query")

        relation = Relation(
            id=name,
            instruction=instruction,
            query=query,
            positives=relevant.documents(name),
            negatives=(),
            location=record.location,
        )
        return relation_line(relation, documents, folder, outcomes)

    described |= {
        "queries": list(map(file_identity, queries)),
        "qrels": list(map(file_identity, qrels)),
        "instruction": instruction,
        "language": language,
        "min_grade": min_grade,
    }
    return converted, convert(
        target,
        described,
        read_records(queries),
        example,
        max_bad=max_bad,
        before=judged,
        show_progress=show_progress,
    )


def _document_line(folder: Path, record: Record, outcomes: Outcomes) -> bytes:
    """A document of a benchmark's corpus."""
    row = read_row(record)
    name = read_id(row, "corpus-id", record.location)
    with row_of_document(name):
        side = read_side(row, ("title", "text"), folder, record.location, outcomes)
        if side == _EMPTY:
            raise BadRow(f"{record.location}: there is no image, and no text.")
    return document_line(Document(name, side), folder)


def convert_pages(
    source: Path,
    target: Path,
    *,
    instruction: str | None = None,
    max_bad: int = 0,
    show_progress: ShowProgress = without_progress,
) -> tuple[Outcomes, Outcomes]:
    """Write `target` and its corpus from rows of `query` and `image`, a file or a folder of files;
    raises `DataError`."""
    folder, corpus_path, files = target.parent, corpus_path_of(target), find_files(source)
    check_outputs(target, corpus_path, inputs=files)
    described: dict[str, Any] = {
        "layout": "vidore pages",
        "files": list(map(file_identity, files)),
    }

    def page(record: Record, outcomes: Outcomes) -> bytes:
        image = keep_image(read_row(record).get("image"), folder, record.location)
        return document_line(Document(image.stem, Side(None, image)), folder)

    converted = convert(
        corpus_path,
        described,
        _distinct_pages(files),
        page,
        max_bad=max_bad,
        show_progress=show_progress,
    )
    documents = CorpusDocuments(corpus_path, converted)

    def example(record: Record, outcomes: Outcomes) -> bytes:
        row = read_row(record)
        text = read_text(row, ("query",), record.location, outcomes)
        if text is None:
            raise Skipped("empty query")
        name = hashlib.sha256(image_bytes(row.get("image"), record.location)).hexdigest()
        if documents.find(name) is None:
            raise Skipped("its page is bad")

        relation = Relation(
            id=record.location.removeprefix(f"{source}").lstrip("/"),
            instruction=instruction,
            query=Side(text, None),
            positives=(name,),
            negatives=(),
            location=record.location,
        )
        return relation_line(relation, documents, folder, outcomes)

    return converted, convert(
        target,
        {**described, "instruction": instruction},
        read_records(files),
        example,
        max_bad=max_bad,
        show_progress=show_progress,
    )


def _distinct_pages(files: list[Path]) -> Iterator[Record]:
    """The first record of each page, and all bad records, to be counted."""
    seen: set[bytes] = set()
    for record in read_records(files):
        try:
            content = image_bytes(read_row(record).get("image"), record.location)
        except BadRow:
            yield record
            continue

        digest = hashlib.sha256(content).digest()[:16]
        if digest not in seen:
            seen.add(digest)
            yield record


def _read_qrels(
    records: Iterable[Record], min_grade: int, max_bad: int
) -> tuple[Judgements, Outcomes]:
    """Relevant documents by query, and the outcomes of the judgements' rows."""
    relevant, outcomes = Judgements(), Outcomes()
    for record in records:
        try:
            row = read_row(record)
            query = read_id(row, "query-id", record.location)
            document = read_id(row, "corpus-id", record.location)
            grade = parse_grade(row.get("score", 1), record.location)
        except BadRow as bad:
            outcomes.add_bad(str(bad))
            outcomes.check_bound(max_bad)
            continue
        if grade >= min_grade:
            relevant.add(query, document, record.location)
    return relevant, outcomes
