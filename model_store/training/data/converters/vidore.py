"""The layouts of ViDoRe and mteb: pages or documents with questions, with the images' bytes.

Parquet or JSON lines, of two kinds: folders `corpus`, `queries` and `qrels` (a benchmark), and
single rows of `query` and `image` (ViDoRe's training set). Knows those columns, whichever way their
ids are spelled (`corpus-id`, `corpus_id`, `_id`, `id`); a document has an image, a text with or
without a title, or both. Judgements are held in memory, images are not. Invariant: as in
`assemble`; an image's file is named by its content, so equal pages are one file.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from model_store.training.data.converters.assemble import (
    Documents,
    Relation,
    ShowProgress,
    convert,
    corpus_of,
    example_line,
    no_progress,
)
from model_store.training.data.converters.judgements import Judgements
from model_store.training.data.converters.outcomes import (
    BadRow,
    Converted,
    Skipped,
    of_document,
    text_within,
)
from model_store.training.data.converters.pictures import bytes_of, keep_image
from model_store.training.data.converters.records import Record, files_of, read_records, row_of
from model_store.training.data.converters.tables import grade_of
from model_store.training.data.corpus import Document, document_line
from model_store.training.data.resumable import identity
from model_store.training.data.row_files import check_outputs
from model_store.training.data.rows import MAX_ID_CHARS, Side

QRELS = ("qrels", "default")
"""The folder of judgements: as it is called, and as mteb's older data sets call it."""


def qrels_of(source: Path) -> Path | None:
    """The folder of a benchmark's judgements; None where `source` is of single rows."""
    return next((source / name for name in QRELS if (source / name).is_dir()), None)


def convert_vidore(
    source: Path,
    target: Path,
    *,
    instruction: str | None = None,
    language: str | None = None,
    min_grade: int = 1,
    max_bad: int = 0,
    show_progress: ShowProgress = no_progress,
) -> tuple[Converted, Converted]:
    """Write `target` and its corpus from the folders `corpus`, `queries` and `qrels` of `source`;
    raises `DataError`."""
    folder, corpus_path = target.parent, corpus_of(target)
    qrels_folder = qrels_of(source) or source / QRELS[0]
    corpora, queries, qrels = (
        files_of(path) for path in (source / "corpus", source / "queries", qrels_folder)
    )
    check_outputs(target, corpus_path, inputs=(*corpora, *queries, *qrels))
    described: dict[str, Any] = {"layout": "vidore", "corpus": [identity(path) for path in corpora]}

    def document(record: Record, done: Converted) -> bytes:
        row = row_of(record)
        name = _name(row, "corpus-id", record[0])
        with of_document(name):
            side = _side(row, ("title", "text"), folder, record[0], done)
            if side == Side(None, None):
                raise BadRow(f"{record[0]}: there is no image, and no text.")
        return document_line(Document(name, side), folder)

    converted = convert(
        corpus_path,
        described,
        read_records(corpora),
        document,
        max_bad=max_bad,
        show_progress=show_progress,
    )
    documents = Documents(corpus_path, converted)
    relevant, judged = _relevant(read_records(qrels), min_grade, max_bad)

    def example(record: Record, done: Converted) -> bytes:
        row = row_of(record)
        if language is not None and row.get("language") != language:
            raise Skipped("another language")
        name = _name(row, "query-id", record[0])
        query = _side(
            row, ("query",) if row.get("query") is not None else ("text",), folder, record[0], done
        )
        if query == Side(None, None):
            raise Skipped("empty query")
        return example_line(
            Relation(name, instruction, query, relevant.of(name), (), record[0]),
            documents,
            folder,
            done,
        )

    described |= {
        "queries": [identity(path) for path in queries],
        "qrels": [identity(path) for path in qrels],
    }
    described |= {"instruction": instruction, "language": language, "min_grade": min_grade}
    return converted, convert(
        target,
        described,
        read_records(queries),
        example,
        max_bad=max_bad,
        before=judged,
        show_progress=show_progress,
    )


def convert_pages(
    source: Path,
    target: Path,
    *,
    instruction: str | None = None,
    max_bad: int = 0,
    show_progress: ShowProgress = no_progress,
) -> tuple[Converted, Converted]:
    """Write `target` and its corpus from rows of `query` and `image`, a file or a folder of files;
    raises `DataError`."""
    folder, corpus_path, files = target.parent, corpus_of(target), files_of(source)
    check_outputs(target, corpus_path, inputs=files)
    described: dict[str, Any] = {
        "layout": "vidore pages",
        "files": [identity(path) for path in files],
    }

    def page(record: Record, done: Converted) -> bytes:
        image = keep_image(row_of(record).get("image"), folder, record[0])
        return document_line(Document(image.stem, Side(None, image)), folder)

    converted = convert(
        corpus_path, described, _distinct(files), page, max_bad=max_bad, show_progress=show_progress
    )
    documents = Documents(corpus_path, converted)

    def example(record: Record, done: Converted) -> bytes:
        row = row_of(record)
        text = _text(row, ("query",), record[0], done)
        if text is None:
            raise Skipped("empty query")
        name = hashlib.sha256(bytes_of(row.get("image"), record[0])).hexdigest()
        if documents.find(name) is None:
            raise Skipped("its page is bad")
        identity_of_row = record[0].removeprefix(f"{source}").lstrip("/")
        relation = Relation(identity_of_row, instruction, Side(text, None), (name,), (), record[0])
        return example_line(relation, documents, folder, done)

    described = {**described, "instruction": instruction}
    return converted, convert(
        target,
        described,
        read_records(files),
        example,
        max_bad=max_bad,
        show_progress=show_progress,
    )


def _distinct(files: list[Path]) -> Iterator[Record]:
    """The records, without those whose page was there before; bad ones stay, to be counted."""
    seen: set[bytes] = set()
    for record in read_records(files):
        try:
            digest = hashlib.sha256(bytes_of(row_of(record).get("image"), record[0])).digest()[:16]
        except BadRow:
            yield record
            continue
        if digest not in seen:
            seen.add(digest)
            yield record


def _relevant(
    records: Iterable[Record], min_grade: int, max_bad: int
) -> tuple[Judgements, Converted]:
    relevant, done = Judgements(), Converted()
    for record in records:
        try:
            row = row_of(record)
            query, document = (_name(row, name, record[0]) for name in ("query-id", "corpus-id"))
            grade = grade_of(row.get("score", 1), record[0])
        except BadRow as bad:
            done.wrong(str(bad))
            done.within(max_bad)
            continue
        if grade >= min_grade:
            relevant.add(query, document, record[0])
    return relevant, done


def _name(row: dict[str, Any], column: str, place: str) -> str:
    """An id by its column's name, in any spelling; raises `BadRow` where it is missing or too
    long."""
    value = next((row[key] for key in _spellings(column) if row.get(key) is not None), None)
    if value is None:
        raise BadRow(f"{place}: there is no {column!r}.")
    if not 1 <= len(str(value)) <= MAX_ID_CHARS:
        raise BadRow(f"{place}: {column} must have 1 to {MAX_ID_CHARS} characters.")
    return str(value)


def _spellings(column: str) -> Iterator[str]:
    yield from (column, column.replace("-", "_"), "_id", "id")


def _side(
    row: dict[str, Any], texts: tuple[str, ...], folder: Path, place: str, done: Converted
) -> Side:
    """A row's text and image; raises `BadRow` for an image under another name, which would be left
    unread."""
    for name, value in row.items():
        if name != "image" and (
            isinstance(value, bytes) or (isinstance(value, dict) and value.get("bytes"))
        ):
            raise BadRow(
                f"{place}: the column {name[:40]!r} holds bytes, and nothing reads it: is it"
                " 'image'?"
            )
    image = row.get("image")
    return Side(
        _text(row, texts, place, done), None if image is None else keep_image(image, folder, place)
    )


def _text(row: dict[str, Any], columns: tuple[str, ...], place: str, done: Converted) -> str | None:
    parts = []
    for column in columns:
        value = row.get(column)
        if value is not None and not isinstance(value, str):
            raise BadRow(f"{place}: {column} is no text.")
        if value and value.strip():
            parts.append(value)
    return text_within(" ".join(parts), done)
