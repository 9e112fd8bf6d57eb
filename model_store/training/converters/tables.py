"""Tab-separated tables, with and without a first line of names.

Knows lines and tabs: no quoting, as the data sets write it. Invariant: every row given has the columns that were asked for.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from model_store.training.converters.judgements import Judgements
from model_store.training.data import DataError, read_lines


def read_rows(path: Path, columns: int) -> Iterator[tuple[int, list[str]]]:
    """(line number, cells) of a table without names; raises `DataError` for a row of another number of cells."""
    for number, line in read_lines(path):
        yield number, cells_of(line, path, number, columns)


def read_table(path: Path, needed: Sequence[str]) -> Iterator[tuple[int, dict[str, str]]]:
    """(line number, cell by column name) of a table whose first line names its columns; a short row's last cells are empty."""
    names: list[str] | None = None
    for number, line in read_lines(path):
        cells = _cells(line, path, number)
        if names is None:
            names = cells
            if missing := [name for name in needed if name not in names]:
                raise DataError(f"{path}:{number}: the table has no column {missing[0]!r}.")
        elif len(cells) > len(names):
            raise DataError(f"{path}:{number}: {len(cells)} cells, and the first line names {len(names)} columns.")
        else:
            yield number, dict(zip(names, [*cells, *[""] * (len(names) - len(cells))], strict=True))


def cells_of(line: bytes, path: Path, number: int, columns: int) -> list[str]:
    """The cells of one line; raises `DataError` unless there are `columns`."""
    cells = _cells(line, path, number)
    if len(cells) != columns:
        raise DataError(f"{path}:{number}: {len(cells)} cells, and there must be {columns}.")
    return cells


def _cells(line: bytes, path: Path, number: int) -> list[str]:
    try:
        return line.decode().rstrip("\r\n").split("\t")
    except UnicodeDecodeError:
        raise DataError(f"{path}:{number}: this is not UTF-8.") from None


def read_qrels(path: Path) -> Judgements:
    """Relevant documents by query, from TREC's four columns; a judgement of 0 or less is none."""
    relevant = Judgements()
    for number, (query, _, document, judgement) in read_rows(path, 4):
        if _whole(judgement, path, number) > 0:
            relevant.add(query, document, f"{path}:{number}")
    return relevant


def _whole(text: str, path: Path, number: int) -> int:
    try:
        return int(text)
    except ValueError:
        raise DataError(f"{path}:{number}: {text[:40]!r} is no whole number.") from None
