"""ViDoRe's layouts: page images with questions, as parquet or JSON lines that hold the images' bytes.

Two of them: folders `corpus`, `queries` and `qrels` (the benchmark), and single rows of `query` and `image` (the training set).
Knows those columns, whichever way their ids are spelled (`corpus-id`, `corpus_id`). Judgements are held in memory, images are
not. Invariant: as in `assemble`; a picture's file is named by its content, so equal pages are one file.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import msgspec
import pyarrow
import pyarrow.parquet
from PIL import Image

from model_store.families.pictures import FORMATS
from model_store.training.checks import image_problem
from model_store.training.converters.assemble import (
    Converted,
    Relation,
    Skipped,
    convert,
    example_line,
    keep_bytes,
    text_within,
)
from model_store.training.converters.judgements import Judgements
from model_store.training.corpus import Corpus, Document, document_line
from model_store.training.data import DataError, Side, read_lines
from model_store.training.parts import identity

_BATCH = 16
_SUFFIXES = {"PNG": "png", "JPEG": "jpg", "WEBP": "webp"}

Row = tuple[str, dict[str, Any]]
"""`file:row` and the row."""


def convert_vidore(
    source: Path, target: Path, *, instruction: str | None = None, language: str | None = None
) -> tuple[Converted, Converted]:
    """Write `target` and its corpus from the folders `corpus`, `queries` and `qrels` of `source`; raises `DataError`."""
    folder = target.parent
    corpora, queries, qrels = (_files(source / name) for name in ("corpus", "queries", "qrels"))
    described: dict[str, Any] = {"layout": "vidore", "corpus": [identity(path) for path in corpora]}

    def document(item: Row, counts: Counter[str]) -> bytes:
        place, row = item
        side = Side(None, _image(row.get("image"), folder, place))
        return document_line(Document(str(_cell(row, "corpus-id", place)), side), folder)

    corpus_path = target.with_name(f"{target.stem}.corpus.jsonl")
    documents = convert(corpus_path, described, _rows(corpora), document)
    corpus, relevant = Corpus(corpus_path), _relevant(_rows(qrels))

    def example(item: Row, counts: Counter[str]) -> bytes:
        place, row = item
        if language is not None and row.get("language") != language:
            raise Skipped("another language")
        name = str(_cell(row, "query-id", place))
        query = Side(_question(row, place, counts), None)
        return example_line(Relation(name, instruction, query, relevant.of(name), (), place), corpus, folder, counts)

    described |= {"queries": [identity(path) for path in queries], "qrels": [identity(path) for path in qrels]}
    described |= {"instruction": instruction, "language": language}
    return documents, convert(target, described, _rows(queries), example)


def convert_pages(source: Path, target: Path, *, instruction: str | None = None) -> tuple[Converted, Converted]:
    """Write `target` and its corpus from rows of `query` and `image`, a file or a folder of files; raises `DataError`."""
    folder, files = target.parent, _files(source)
    described: dict[str, Any] = {"layout": "vidore pages", "files": [identity(path) for path in files]}
    corpus_path = target.with_name(f"{target.stem}.corpus.jsonl")
    seen: set[bytes] = set()

    def page(item: Row, counts: Counter[str]) -> bytes:
        image = _image(item[1].get("image"), folder, item[0])
        return document_line(Document(image.stem, Side(None, image)), folder)

    def distinct() -> Iterator[Row]:
        for place, row in _rows(files):
            digest = hashlib.sha256(_bytes(row.get("image"), place)).digest()[:16]
            if digest not in seen:
                seen.add(digest)
                yield place, row

    documents = convert(corpus_path, described, distinct(), page)
    corpus = Corpus(corpus_path)

    def example(item: Row, counts: Counter[str]) -> bytes:
        place, row = item
        query = Side(_question(row, place, counts), None)
        name = hashlib.sha256(_bytes(row.get("image"), place)).hexdigest()
        identity_of_row = place.removeprefix(f"{source}").lstrip("/")
        return example_line(Relation(identity_of_row, instruction, query, (name,), (), place), corpus, folder, counts)

    return documents, convert(target, described | {"instruction": instruction}, _rows(files), example)


def _files(place: Path) -> list[Path]:
    """The parquet or JSON lines files of a folder, or that one file, in order."""
    if place.is_file():
        return [place]
    found = sorted(path for path in place.rglob("*") if path.suffix == ".parquet" or path.name.endswith((".jsonl", ".jsonl.gz")))
    if not found:
        raise DataError(f"{place}: there are no .parquet, .jsonl or .jsonl.gz files.")
    return found


def _rows(files: Iterable[Path]) -> Iterator[Row]:
    for path in files:
        yield from _parquet(path) if path.suffix == ".parquet" else _json(path)


def _parquet(path: Path) -> Iterator[Row]:
    number = 0
    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=_BATCH):
                for row in batch.to_pylist():
                    number += 1
                    yield f"{path}:{number}", row
    except (pyarrow.ArrowException, OSError) as error:
        raise DataError(f"{path}:{number + 1}: the parquet file cannot be read ({type(error).__name__}).") from None


def _json(path: Path) -> Iterator[Row]:
    for number, line in read_lines(path):
        try:
            yield f"{path}:{number}", msgspec.json.decode(line, type=dict[str, Any])
        except (msgspec.DecodeError, UnicodeDecodeError):
            raise DataError(f"{path}:{number}: this is not one JSON object in UTF-8.") from None


def _relevant(rows: Iterable[Row]) -> Judgements:
    relevant = Judgements()
    for place, row in rows:
        query, document = str(_cell(row, "query-id", place)), str(_cell(row, "corpus-id", place))
        judgement = row.get("score", 1)
        if not isinstance(judgement, int | float):
            raise DataError(f"{place}: the score is no number.")
        if judgement > 0:
            relevant.add(query, document, place)
    return relevant


def _cell(row: dict[str, Any], name: str, place: str) -> Any:
    """A cell by its column's name, in either spelling; raises `DataError` where it is missing or empty."""
    value = row.get(name, row.get(name.replace("-", "_"), row.get("_id")))
    if value is None:
        raise DataError(f"{place}: there is no {name!r}.")
    return value


def _question(row: dict[str, Any], place: str, counts: Counter[str]) -> str:
    written = row.get("query", row.get("text"))
    if written is not None and not isinstance(written, str):
        raise DataError(f"{place}: the query is no text.")
    text = text_within(written, counts)
    if text is None:
        raise Skipped("empty query")
    return text


def _image(value: Any, folder: Path, place: str) -> Path:
    """A page's image as a file of ours, named by its SHA-256."""
    data = _bytes(value, place)
    try:
        with Image.open(BytesIO(data), formats=FORMATS) as image:
            suffix = _SUFFIXES[image.format or ""]
    except Exception:  # a broken file leads Pillow to exceptions of any kind
        raise DataError(f"{place}: the image cannot be read as {', '.join(FORMATS)}.") from None
    path = keep_bytes(data, f"{hashlib.sha256(data).hexdigest()}.{suffix}", folder)
    if problem := image_problem(path):
        raise DataError(f"{place}: the image {problem}.")
    return path


def _bytes(value: Any, place: str) -> bytes:
    """An image's bytes: as they are, in base64, or either of them as the `bytes` of an object."""
    data = value.get("bytes") if isinstance(value, dict) else value
    if isinstance(data, str):
        try:
            data = base64.b64decode(data, validate=True)
        except binascii.Error:
            raise DataError(f"{place}: the image is no base64.") from None
    if not isinstance(data, bytes) or not data:
        raise DataError(f"{place}: there is no image.")
    return data
