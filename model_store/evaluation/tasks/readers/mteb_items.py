"""Queries or documents of mteb: rows of a table of `datasets`, which lies on the disk.

Does not depend on tasks. Rows are read when they are asked for. Invariant: an item has the
modalities of its side alone, and its image is encoded in a form that the service takes.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from PIL import Image

from model_store.evaluation.tasks.dataset import Item, TaskUnusable
from model_store.evaluation.tasks.readers.ids import (
    MAX_ID_CHARS,
    DuplicateId,
    Ids,
    IdsBuilder,
)
from model_store.evaluation.tasks.readers.images import is_encoded
from model_store.evaluation.tasks.readers.items_by_id import ItemsById

_ROWS_AT_ONCE = 10_000


class MtebItems(ItemsById):
    """The rows of a table by their ids."""

    def __init__(self, table: Any, side: str, name: str, kind: Literal["query", "document"]):
        """`side` is "t", "i" or "it"; raises `TaskUnusable` where the table lacks a column."""
        self._name, self._kind, self._side = name, kind, side
        self._table = _prepare(table, side, f"{name}: its {kind} table")
        names = self._table.column_names
        self._without_images = self._table.select_columns(
            [name for name in names if name != "image"]
        )
        self._ids = self._read_ids()
        self.digest = self._ids.digest
        """The digest of the ids: the contents are those of the revision."""

    def _read(self, number: int, item_id: str) -> Item:
        row = self._table[number]
        text = self._text(row, item_id) if "t" in self._side else None
        image = self._image(row.get("image"), item_id) if "i" in self._side else None
        if image is None and text is None:
            if self._kind == "query":
                raise TaskUnusable(f"{self._name}: query {item_id[:80]!r} is empty.")
            text = ""
        return Item(item_id, text, image)

    def _read_text(self, number: int, item_id: str) -> str | None:
        if "t" in self._side:
            text = self._text(self._without_images[number], item_id)
            if text is not None:
                return text
        return self._read(number, item_id).text  # "" where there is no image either

    def instructions(self, queries: Sequence[str]) -> dict[str, str] | None:
        """Instructions of single queries, by their ids; None where the table has none."""
        if self._kind != "query" or "instruction" not in self._table.column_names:
            return None
        column = self._table.select_columns(["instruction"])
        found = {}
        for query in queries:
            index = self._ids.find(query)
            instruction = None if index is None else column[index]["instruction"]
            if instruction:
                found[query] = str(instruction)
        return found or None

    def _read_ids(self) -> Ids:
        builder = IdsBuilder()
        column = self._table.select_columns(["id"]).with_format("arrow")
        for batch in column.iter(batch_size=_ROWS_AT_ONCE):
            for value in batch["id"].to_pylist():
                if value is None or not 1 <= len(str(value)) <= MAX_ID_CHARS:
                    raise TaskUnusable(
                        f"{self._name}: the id of {self._kind} {len(builder) + 1} does not have 1"
                        f" to {MAX_ID_CHARS} characters."
                    )
                builder.add(str(value))
        try:
            return builder.build()
        except DuplicateId as error:
            raise TaskUnusable(
                f"{self._name}: {self._kind} {error.item_id[:80]!r} is there twice."
            ) from None

    def _text(self, row: dict[str, Any], item_id: str) -> str | None:
        """The title and the text of a document, the text of a query."""
        text = row.get("text")
        title = row.get("title") if self._kind == "document" else None
        if not isinstance(text, str | None) or not isinstance(title, str | None):
            raise TaskUnusable(f"{self._name}: {self._kind} {item_id[:80]!r} has no single text.")
        joined = f"{title} {text or ''}".strip() if title else (text or "")
        return joined if joined.strip() else None

    def _image(self, value: Any, item_id: str) -> bytes | None:
        """An image as it is stored; one in another format than the service's becomes a PNG."""
        if value is None:
            return None
        try:
            content = value["bytes"]
            if content is None:
                content = Path(value["path"]).read_bytes()
            return bytes(content) if is_encoded(content) else _as_png(content)
        except Exception as error:  # Pillow's many, and files that are gone
            raise TaskUnusable(
                f"{self._name}: the image of {self._kind} {item_id[:80]!r} cannot be read"
                f" ({type(error).__name__})."
            ) from None


def _prepare(table: Any, side: str, location: str) -> Any:
    """The table without decoding of its images; raises `TaskUnusable`."""
    import datasets

    table = table.with_format(None)
    if not len(table):
        raise TaskUnusable(f"{location} is empty.")
    columns = {"t": ("id", "text"), "i": ("id", "image"), "it": ("id",)}[side]
    for column in columns:
        if column not in table.column_names:
            raise TaskUnusable(f"{location} has no column {column!r}.")

    kept = [*columns, "title", "text", "image", "instruction"]
    table = table.select_columns([name for name in table.column_names if name in kept])
    if "image" in table.column_names:
        table = table.cast_column("image", datasets.Image(decode=False))
    return table


def _as_png(content: bytes) -> bytes:
    encoded = io.BytesIO()
    Image.open(io.BytesIO(content)).convert("RGB").save(encoded, "PNG")
    return encoded.getvalue()
