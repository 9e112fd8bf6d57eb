"""Ids, texts and images of a row, by the names of its columns.

Does not depend on layouts. Invariant: bytes in a column that nothing reads are refused, not left
out silently.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from model_store.training.data.converters.outcomes import BadRow, Outcomes, clean_text
from model_store.training.data.converters.pictures import keep_image
from model_store.training.data.rows import MAX_ID_CHARS, Side


def read_id(row: dict[str, Any], column: str, location: str) -> str:
    """An id, whichever of its names the column has; raises `BadRow` where it is missing or too
    long."""
    names = (column, column.replace("-", "_"), "_id", "id")
    values = [row[name] for name in names if row.get(name) is not None]
    if not values:
        raise BadRow(f"{location}: there is no {column!r}.")
    if not 1 <= len(str(values[0])) <= MAX_ID_CHARS:
        raise BadRow(f"{location}: {column} must have 1 to {MAX_ID_CHARS} characters.")
    return str(values[0])


def read_side(
    row: dict[str, Any],
    columns: tuple[str, ...],
    folder: Path,
    location: str,
    outcomes: Outcomes,
) -> Side:
    """The text of some columns and the image of a row.

    Raises `BadRow` for bytes in a column of another name, which would be left out silently.
    """
    for name, value in row.items():
        if name != "image" and _has_bytes(value):
            raise BadRow(
                f"{location}: the column {name[:40]!r} holds bytes, and nothing reads it: is it"
                " 'image'?"
            )

    image = row.get("image")
    text = read_text(row, columns, location, outcomes)
    return Side(text, None if image is None else keep_image(image, folder, location))


def _has_bytes(value: Any) -> bool:
    return isinstance(value, bytes) or (isinstance(value, dict) and bool(value.get("bytes")))


def read_text(
    row: dict[str, Any], columns: tuple[str, ...], location: str, outcomes: Outcomes
) -> str | None:
    """The texts of some columns, joined by spaces; None where all are blank."""
    texts = []
    for column in columns:
        value = row.get(column)
        if value is not None and not isinstance(value, str):
            raise BadRow(f"{location}: {column} is no text.")
        if value and value.strip():
            texts.append(value)
    return clean_text(" ".join(texts), outcomes)
