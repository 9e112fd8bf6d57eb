"""Tab-separated tables without quoting, and relevance judgements in the forms of TREC and BEIR.

Does not depend on what cells mean. Invariant: every row has the columns that its reader needs.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import zip_longest
from pathlib import Path

from model_store.errors import DataError
from model_store.training.data.converters.judgements import Judgements
from model_store.training.data.converters.outcomes import BadRow, Outcomes
from model_store.training.data.rows import read_lines

_HEADER = ("query-id", "corpus-id", "score")
"""The first line of BEIR's judgements, which names the columns."""


def read_table(path: Path, needed: Sequence[str]) -> Iterator[tuple[int, dict[str, str]]]:
    """Line number, and cells by column name, of a table whose first line names its columns.

    Cells that a short row lacks are empty. Raises `DataError` where one of the `needed` columns is
    missing.
    """
    names: list[str] | None = None
    for number, line in read_lines(path):
        cells = _cells(line, f"{path}:{number}")
        if names is None:
            names = cells
            missing = [name for name in needed if name not in names]
            if missing:
                raise DataError(f"{path}:{number}: the table has no column {missing[0]!r}.")
            continue

        if len(cells) > len(names):
            raise DataError(
                f"{path}:{number}: {len(cells)} cells, and the first line names {len(names)}"
                " columns."
            )
        yield number, dict(zip_longest(names, cells, fillvalue=""))


def split_cells(line: bytes, location: str, columns: int) -> list[str]:
    """The cells of one line; raises `BadRow` unless there are `columns`."""
    cells = _cells(line, location)
    if len(cells) != columns:
        raise BadRow(f"{location}: {len(cells)} cells, and there must be {columns}.")
    return cells


def _cells(line: bytes, location: str) -> list[str]:
    try:
        return line.decode("utf-8-sig").rstrip("\r\n").split("\t")
    except UnicodeDecodeError:
        raise BadRow(f"{location}: this is not UTF-8.") from None


def read_qrels(path: Path, *, min_grade: int = 1, max_bad: int = 0) -> tuple[Judgements, Outcomes]:
    """Relevant documents by query, and the outcomes of the file's lines.

    Lines have TREC's form (query, iteration, document, grade) or BEIR's (query, document, grade,
    after a line of names), with tabs or spaces between the cells. A document with a grade below
    `min_grade` is not relevant.
    """
    relevant, outcomes = Judgements(), Outcomes()
    for number, line in read_lines(path):
        location = f"{path}:{number}"
        try:
            query, document, grade = _parse_judgement(line, location, first=number == 1)
        except BadRow as bad:
            outcomes.add_bad(str(bad))
            outcomes.check_bound(max_bad)
            continue
        if grade >= min_grade:
            relevant.add(query, document, location)
    return relevant, outcomes


def _parse_judgement(line: bytes, location: str, *, first: bool) -> tuple[str, str, float]:
    cells = [cell.strip() for cell in _cells(line, location)]
    if len(cells) == 1:
        cells = cells[0].split()
    if first and cells[-1] == _HEADER[-1]:
        return "", "", -math.inf  # the header: below every grade

    if len(cells) not in (3, 4):
        raise BadRow(f"{location}: {len(cells)} cells, and a judgement has 4 (TREC) or 3 (BEIR).")
    return cells[0], cells[-2], parse_grade(cells[-1], location)


def parse_grade(value: object, location: str) -> float:
    """A grade as a number; raises `BadRow`."""
    try:
        grade = float(value) if isinstance(value, int | float | str) else math.nan
    except ValueError:
        grade = math.nan
    if not math.isfinite(grade):
        raise BadRow(f"{location}: the grade {str(value)[:40]!r} is no number.")
    return grade
