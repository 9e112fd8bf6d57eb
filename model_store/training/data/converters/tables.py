"""Tables of cells: tab-separated texts, and judgements as TREC and BEIR write them.

Knows lines and cells: no quoting, as the data sets write it. Invariant: every row given has the
columns that were asked for.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path

from model_store.training.data.converters.judgements import Judgements
from model_store.training.data.converters.outcomes import BadRow, Converted
from model_store.training.data.rows import DataError, read_lines

_HEADER = ("query-id", "corpus-id", "score")
"""BEIR's first line, which names its columns."""


def read_table(path: Path, needed: Sequence[str]) -> Iterator[tuple[int, dict[str, str]]]:
    """(line number, cell by column name) of a table whose first line names its columns; a short
    row's last cells are empty."""
    names: list[str] | None = None
    for number, line in read_lines(path):
        cells = _cells(line, f"{path}:{number}")
        if names is None:
            names = cells
            if missing := [name for name in needed if name not in names]:
                raise DataError(f"{path}:{number}: the table has no column {missing[0]!r}.")
        elif len(cells) > len(names):
            raise DataError(
                f"{path}:{number}: {len(cells)} cells, and the first line names {len(names)}"
                " columns."
            )
        else:
            yield number, dict(zip(names, [*cells, *[""] * (len(names) - len(cells))], strict=True))


def cells_of(line: bytes, place: str, columns: int) -> list[str]:
    """The cells of one line; raises `BadRow` unless there are `columns`."""
    cells = _cells(line, place)
    if len(cells) != columns:
        raise BadRow(f"{place}: {len(cells)} cells, and there must be {columns}.")
    return cells


def _cells(line: bytes, place: str) -> list[str]:
    try:
        return line.decode("utf-8-sig").rstrip("\r\n").split("\t")
    except UnicodeDecodeError:
        raise BadRow(f"{place}: this is not UTF-8.") from None


def read_qrels(path: Path, *, min_grade: int = 1, max_bad: int = 0) -> tuple[Judgements, Converted]:
    """Relevant documents by query, and what is wrong with their lines.

    Lines are TREC's (query, iteration, document, grade) or BEIR's (query, document, grade, below a
    line of names), with tabs or spaces between their cells. A grade below `min_grade` is none.
    """
    relevant, done = Judgements(), Converted()
    for number, line in read_lines(path):
        place = f"{path}:{number}"
        try:
            query, document, grade = _judgement(line, place, first=number == 1)
        except BadRow as bad:
            done.wrong(str(bad))
            done.within(max_bad)
            continue
        if grade >= min_grade:
            relevant.add(query, document, place)
    return relevant, done


def _judgement(line: bytes, place: str, *, first: bool) -> tuple[str, str, float]:
    cells = [cell.strip() for cell in _cells(line, place)]
    if len(cells) == 1:
        cells = cells[0].split()
    if first and cells[-1] == _HEADER[-1]:
        return "", "", -math.inf
    if len(cells) not in (3, 4):
        raise BadRow(f"{place}: {len(cells)} cells, and a judgement has 4 (TREC) or 3 (BEIR).")
    return cells[0], cells[-2], grade_of(cells[-1], place)


def grade_of(value: object, place: str) -> float:
    """A grade as a number; raises `BadRow`."""
    try:
        grade = float(value) if isinstance(value, int | float | str) else math.nan
    except ValueError:
        grade = math.nan
    if not math.isfinite(grade):
        raise BadRow(f"{place}: the grade {str(value)[:40]!r} is no number.")
    return grade
