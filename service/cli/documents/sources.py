"""Documents to rank: texts, pictures, and rows of files or of standard input.

Does not depend on HTTP. Invariant: an argument that names a file is that file, and one that seems
to name a file that is not there is refused; it is never ranked as words.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from service.cli.documents.items import MAX_ID_CHARS, Document, Unusable
from service.cli.documents.pictures import SUFFIXES, is_picture_name, pictures_in
from service.cli.documents.rows import Columns, RowFormat, csv_rows, json_rows, line_rows

MAX_DOCUMENTS = 200_000
"""The most documents of one command."""
MAX_TEXT_FILE_BYTES = 16 * 2**20
_ROW_FORMATS: dict[str, RowFormat] = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".csv": "csv",
    ".tsv": "tsv",
}
_TEXT_SUFFIXES = (".txt", ".md")
_KNOWN_SUFFIXES = (*SUFFIXES, *_ROW_FORMATS, *_TEXT_SUFFIXES)
_FILE_LIKE = re.compile(rf"\S+({'|'.join(map(re.escape, _KNOWN_SUFFIXES))})", re.IGNORECASE)
_STDIN = "-"


@dataclass(frozen=True, slots=True)
class Sources:
    """The places of documents: arguments of the command line, and standard input.

    `stdin_format` says what standard input holds, `columns` which fields of rows count, and
    `only_texts` that arguments are texts even where files have those names.
    """

    arguments: Sequence[str]
    stdin_format: RowFormat
    columns: Columns
    only_texts: bool


def read_documents(sources: Sources) -> list[Document]:
    """The documents of the arguments in their order; without any, those of standard input.

    Raises `Unusable` where there are none, too many, or one that cannot be read; `OSError` for a
    file or folder that cannot be opened.
    """
    documents: list[Document] = []
    for document in _documents(sources):
        documents.append(document)
        if len(documents) > MAX_DOCUMENTS:
            raise Unusable(
                f"There are more than {MAX_DOCUMENTS:,} documents: rank them in parts, or with"
                " `gmr bulk`."
            )
    return documents


def names_a_file(argument: str) -> bool:
    """True if an argument is the path of a file or folder.

    Raises `Unusable` for one that seems to be and is not there.
    """
    if _exists(argument):
        return True
    if _FILE_LIKE.fullmatch(argument):
        raise Unusable(
            f"{argument}: No such file or directory; --only-texts ranks these very words."
        )
    return False


def _exists(argument: str) -> bool:
    try:
        return bool(argument) and Path(argument).exists()
    except (OSError, ValueError):  # longer than a path may be, or with a NUL
        return False


def _documents(sources: Sources) -> Iterator[Document]:
    if not sources.arguments:
        yield from _expect_some(_from_stdin(sources), "Standard input has no documents.")
        return

    for number, argument in enumerate(sources.arguments, 1):
        if sources.only_texts:
            yield Document(f"argument {number}", {"text": argument})
        elif _is_picture_url(argument):
            yield Document(argument, {"image": argument, "id": argument[:MAX_ID_CHARS]})
        elif argument == _STDIN:
            yield from _expect_some(_from_stdin(sources), "Standard input has no documents.")
        elif names_a_file(argument):
            yield from _from_path(Path(argument), sources.columns)
        else:
            yield Document(f"argument {number}", {"text": argument})


def _is_picture_url(argument: str) -> bool:
    """True if an argument is the URL of a picture, which the service may fetch."""
    url = re.fullmatch(r"https?://[^\s?#]+", argument, re.IGNORECASE)
    return url is not None and is_picture_name(argument)


def _from_stdin(sources: Sources) -> Iterator[Document]:
    return _from_rows(
        sys.stdin.buffer, sources.stdin_format, "standard input", Path(), sources.columns
    )


def _from_path(path: Path, columns: Columns) -> Iterator[Document]:
    """The documents of a file or folder."""
    suffix = path.suffix.lower()
    if path.is_dir():
        pictures = (Document.of_picture(picture) for picture in pictures_in(path))
        yield from _expect_some(
            pictures, f"{path}: the folder has no pictures ({', '.join(SUFFIXES)})."
        )
    elif is_picture_name(path.name):
        yield Document.of_picture(path)
    elif suffix in _ROW_FORMATS:
        with path.open("rb") as opened:
            rows = _from_rows(opened, _ROW_FORMATS[suffix], str(path), path.parent, columns)
            yield from _expect_some(rows, f"{path}: the file has no documents.")
    elif suffix in _TEXT_SUFFIXES:
        yield Document.of_text_file(path, MAX_TEXT_FILE_BYTES)
    else:
        raise Unusable(
            f"{path}: documents are read from {', '.join(_KNOWN_SUFFIXES)} and folders of pictures."
        )


def _from_rows(
    stream: BinaryIO, kind: RowFormat, name: str, folder: Path, columns: Columns
) -> Iterator[Document]:
    if kind == "text":
        return line_rows(stream, name)
    if kind == "jsonl":
        return json_rows(stream, name, folder, columns)
    return csv_rows(stream, name, columns, delimiter="," if kind == "csv" else "\t")


def _expect_some(documents: Iterable[Document], sentence: str) -> Iterator[Document]:
    """The documents; raises `Unusable` with the sentence where there are none."""
    empty = True
    for document in documents:
        empty = False
        yield document
    if empty:
        raise Unusable(sentence)
