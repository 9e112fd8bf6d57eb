"""Cells of TREC's and BEIR's tables: separated by tabs, or by spaces where no cell has any.

Does not depend on what cells mean.
"""

from __future__ import annotations

from collections.abc import Collection, Container, Iterator
from pathlib import Path

from model_store.evaluation.tasks.dataset import TaskUnusable
from model_store.lines import read_lines

_SHOWN = 40


def read_cells(path: Path, columns: Collection[int], form: str) -> Iterator[tuple[int, list[str]]]:
    """Number, from 1, and cells of every line that is not blank.

    A file whose name ends in `.gz` is unpacked. Raises `TaskUnusable` for a line with another
    number of cells than `columns`, with `form` in the sentence.
    """
    for number, line in read_lines(path, TaskUnusable):
        location = f"{path}:{number}"
        try:
            text = line.decode("utf-8-sig" if number == 1 else "utf-8").strip("\r\n")
        except UnicodeDecodeError:
            raise TaskUnusable(f"{location}: this is not UTF-8.") from None

        cells = [cell.strip() for cell in text.split("\t")]
        if len(cells) not in columns:
            cells = text.split()
        if len(cells) not in columns:
            raise TaskUnusable(f"{location}: {len(cells)} cells, and a line is {form}.")
        yield number, cells


def parse_integer(cell: str, name: str, location: str) -> int:
    """A cell as an integer of 32 bits; raises `TaskUnusable`."""
    try:
        value = int(cell) if cell.isascii() and len(cell) <= 11 else None
    except ValueError:
        value = None
    if value is None or not -(2**31) <= value < 2**31:
        raise TaskUnusable(f"{location}: the {name} {cell[:_SHOWN]!r} is no integer of 32 bits.")
    return value


def check_known(item_id: str, known: Container[object], kind: str, location: str) -> None:
    """Raise `TaskUnusable` where an id is not among those of the queries or documents."""
    if item_id not in known:
        raise TaskUnusable(f"{location}: there is no {kind} {item_id[:80]!r}.")
